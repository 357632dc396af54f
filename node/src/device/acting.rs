//! `rossby react`, `rossby edit` and `rossby delete`.

use rossby_client::Device;
use rossby_client::device::{Message, Status};
use serde_json::json;

use super::args::{DeleteArgs, EditArgs, ReactArgs, Which};
use super::open::open;
use super::send::{given_text, report};
use crate::exit::Failure;
use crate::output;

/// The message that is meant.
pub fn find_message(device: &Device, which: &Which) -> Result<Message, Failure> {
    Ok(match which {
        Which::Number(number) => device.message(*number)?,
        Which::Id(id) => device.message_by_id(id)?,
    })
}

/// Reacts, or takes a reaction back.
pub async fn react(args: &ReactArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let message = find_message(&device, &args.message)?;
    let sent = device.react(&message, args.emoji.as_deref()).await?;
    report(&device, &message.conversation(), sent, args.device.json)
}

/// Gives a message another text.
pub async fn edit(args: &EditArgs) -> Result<(), Failure> {
    let text = given_text(&args.text)?;
    let device = open(&args.device)?;
    let message = find_message(&device, &args.message)?;
    let sent = device.edit(&message, &text).await?;
    report(&device, &message.conversation(), sent, args.device.json)
}

/// Takes a message back.
pub async fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let message = find_message(&device, &args.message)?;
    if message.status != Status::Pending {
        let sent = device.delete(&message).await?;
        return report(&device, &message.conversation(), sent, args.device.json);
    }
    device.withdraw(&message).await?;
    let message = device.message(message.order)?;
    if message.status == Status::Sent {
        // Said in a group, of which some have it.
        let sent = device.delete(&message).await?;
        return report(&device, &message.conversation(), sent, args.device.json);
    }
    if args.device.json {
        let (message, to) = (message.order, message.recipient.to_string());
        return output::json(&json!({ "message": message, "to": to, "status": "withdrawn" }));
    }
    output::line("withdrawn: it was not known to be delivered, and is not sent any more");
    output::note(
        "should it have come to them nonetheless, the same command again takes it back there",
    );
    Ok(())
}
