//! `rossby react`, `rossby edit` and `rossby delete`.

use rossby_client::Device;
use rossby_client::device::Message;

use super::args::{DeleteArgs, EditArgs, ReactArgs, Which};
use super::open::open;
use super::send::{given_text, report};
use crate::exit::Failure;

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
    report(sent, args.device.json)
}

/// Gives a message another text.
pub async fn edit(args: &EditArgs) -> Result<(), Failure> {
    let text = given_text(&args.text)?;
    let device = open(&args.device)?;
    let message = find_message(&device, &args.message)?;
    let sent = device.edit(&message, &text).await?;
    report(sent, args.device.json)
}

/// Takes a message back.
pub async fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let message = find_message(&device, &args.message)?;
    let sent = device.delete(&message).await?;
    report(sent, args.device.json)
}
