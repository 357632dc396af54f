//! `rossby accept`: from whom this box takes messages.

use rossby_client::device::AcceptFrom;
use serde_json::json;

use super::args::{AcceptArgs, Whom};
use super::open::open;
use crate::exit::Failure;
use crate::output;

/// Takes messages from anyone, or from contacts only.
pub async fn run(args: &AcceptArgs) -> Result<(), Failure> {
    let from = match args.from {
        Whom::Anyone => AcceptFrom::Anyone,
        Whom::Contacts => AcceptFrom::Contacts,
    };
    let named = open(&args.device)?.accept(from, &args.allow).await?;
    if args.device.json {
        let from = match from {
            AcceptFrom::Anyone => "anyone",
            AcceptFrom::Contacts => "contacts",
        };
        return output::json(&json!({ "accepts": from, "named": named }));
    }
    output::line(match from {
        AcceptFrom::Anyone => "this box takes messages from anyone who is not blocked".to_owned(),
        AcceptFrom::Contacts => format!(
            "this box takes messages from its contacts only: {named} of this device; to others it does not exist"
        ),
    });
    Ok(())
}
