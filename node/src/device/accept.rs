//! `rossby accept`: from whom this box takes messages.

use rossby_client::device::{AcceptFrom, Device};
use serde_json::json;

use super::args::{AcceptArgs, Whom};
use super::open::open;
use crate::exit::Failure;
use crate::output;

/// Takes messages from anyone, or from contacts only; or says from whom they are taken.
pub async fn run(args: &AcceptArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let json = args.device.json;
    let from = match args.from {
        None => return show(&device, json).await,
        Some(Whom::Anyone) => AcceptFrom::Anyone,
        Some(Whom::Contacts) => AcceptFrom::Contacts,
    };
    let named = device.accept(from, &args.allow).await?;
    if json {
        return output::json(&json!({ "accepts": word(from), "named": named }));
    }
    output::line(match from {
        AcceptFrom::Anyone => sentence(from).to_owned(),
        AcceptFrom::Contacts => {
            format!(
                "{}: {named} of this device; to others it does not exist",
                sentence(from)
            )
        }
    });
    Ok(())
}

async fn show(device: &Device, json: bool) -> Result<(), Failure> {
    let found = device.accepting().await?;
    if json {
        let (service, chosen) = (word(found.service), word(found.chosen));
        return output::json(&json!({ "accepts": service, "chosen": chosen }));
    }
    output::line(sentence(found.service));
    note_otherwise(device)
}

/// Says it if the service takes messages from others than the owner has chosen.
///
/// # Errors
/// If what this device keeps can't be read.
pub fn note_otherwise(device: &Device) -> Result<(), Failure> {
    if let Some(from) = device.accepts_otherwise()? {
        output::note(format!(
            "NOTE: {}, and this device has not heard that you chose so. Another device of yours did a moment ago, or somebody who has \
             the token of one: see `rossby devices list`; `rossby accept anyone` or `rossby accept contacts` says what you want",
            sentence(from)
        ));
    }
    Ok(())
}

const fn word(from: AcceptFrom) -> &'static str {
    match from {
        AcceptFrom::Anyone => "anyone",
        AcceptFrom::Contacts => "contacts",
    }
}

const fn sentence(from: AcceptFrom) -> &'static str {
    match from {
        AcceptFrom::Anyone => "this box takes messages from anyone who is not blocked",
        AcceptFrom::Contacts => "this box takes messages from its contacts only",
    }
}
