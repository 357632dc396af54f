//! `rossby receipts`: which receipts this box sends. `rossby messages`: how far messages have come.

use rossby_client::Device;
use rossby_client::device::Message;
use rossby_client::envelope::ReceiptState;
use serde_json::json;
use tokio::time::timeout;

use super::acting::find_message;
use super::args::{MessagesCommand, OnOff, ReceiptsCommand};
use super::open::{PATIENCE, open, tell_own_devices};
use super::show::{self, Around};
use crate::exit::Failure;
use crate::output;

/// Shows which receipts this box sends, or changes it.
pub async fn run(command: &ReceiptsCommand) -> Result<(), Failure> {
    let (device, change) = match command {
        ReceiptsCommand::Show { device } => (device, None),
        ReceiptsCommand::Delivered { sends, device } => {
            (device, Some((ReceiptState::Delivered, *sends)))
        }
        ReceiptsCommand::Read { sends, device } => (device, Some((ReceiptState::Read, *sends))),
    };
    let json = device.json;
    let device = open(device)?;
    if let Some((kind, sends)) = change {
        device.choose_receipts(kind, sends == OnOff::On)?;
        tell_own_devices(&device).await;
    }
    let choice = device.receipt_choice()?;
    if json {
        return output::json(&json!({ "delivered": choice.delivered, "read": choice.read }));
    }
    let word = |sends| if sends { "on" } else { "off" };
    output::line(format!(
        "receipts to contacts: delivered {}, read {}",
        word(choice.delivered),
        word(choice.read)
    ));
    Ok(())
}

/// Shows messages that this device has, without asking the service.
pub fn messages(command: &MessagesCommand) -> Result<(), Failure> {
    let (args, messages, device) = match command {
        MessagesCommand::List { device: args } => {
            let device = open(args)?;
            (args, device.messages()?, device)
        }
        MessagesCommand::Show {
            message,
            device: args,
        } => {
            let device = open(args)?;
            (args, vec![find_message(&device, message)?], device)
        }
    };
    let around = Around::of(&device, &messages)?;
    let is_one = matches!(command, MessagesCommand::Show { .. });
    if args.json {
        let mut shown = messages
            .iter()
            .map(|message| show::message(message, &around, None));
        return match shown.next() {
            Some(first) if is_one => output::json(&first),
            first => {
                let all: Vec<_> = first.into_iter().chain(shown).collect();
                output::json(&json!({ "messages": all }))
            }
        };
    }
    for message in &messages {
        output::line(show::message_line(message, &around, None));
        if is_one {
            for line in show::progress_lines(message, &around) {
                output::line(line);
            }
        }
    }
    Ok(())
}

/// Keeps that these messages were shown, and tells who wants to know and may. Nothing is said if that fails: the next command makes
/// up for it.
pub async fn tell_read(device: &Device, messages: &[Message]) -> Result<(), Failure> {
    device.mark_read(messages)?;
    let _ = timeout(PATIENCE, device.send_receipts()).await;
    Ok(())
}
