//! `rossby history`.

use rossby_client::Device;
use rossby_client::conversation::Conversation;
use serde_json::json;

use super::args::HistoryArgs;
use super::groups::find_group;
use super::open::open;
use super::person::{Person, find};
use super::show::{self, Around};
use crate::exit::{Exit, Failure};
use crate::output;

/// Shows a conversation as all devices of those in it show it. Asks no one.
pub fn run(args: &HistoryArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let conversation = meant(&device, &args.with)?;
    let mut messages = device.history(&conversation)?;
    if let Some(last) = args.last {
        let older = messages.len().saturating_sub(last);
        messages.drain(..older);
    }
    let around = Around::of(&device, &messages)?;
    if args.device.json {
        let messages = messages
            .iter()
            .map(|message| show::message(message, &around, None));
        return output::json(&json!({ "messages": messages.collect::<Vec<_>>() }));
    }
    if messages.is_empty() {
        output::note("nothing was said yet");
    }
    for message in &messages {
        output::line(show::message_line(message, &around, None));
    }
    Ok(())
}

/// A group, if one is called so, or else somebody known.
fn meant(device: &Device, text: &str) -> Result<Conversation, Failure> {
    let group = find_group(device, text);
    match (find(device, text), group) {
        (Ok(Person::Known(_)), Ok(_)) => Err(Failure::new(
            Exit::NotFound,
            format!("somebody and a group are both called {text:?}"),
        )
        .help("give the box id, which rossby contacts list shows, or how the id of the group begins (rossby groups list)")),
        (Ok(Person::Known(box_id)), Err(_)) => Ok(Conversation::With(box_id)),
        (_, Ok(group)) => Ok(Conversation::In(group)),
        (Ok(Person::Stranger(_)), Err(_)) => Err(Failure::new(
            Exit::NotFound,
            format!("{text:?} is no contact, nor a group"),
        )
        .help("rossby contacts list and rossby groups list show those that there are")),
        (Err(nobody), Err(_)) => Err(nobody),
    }
}
