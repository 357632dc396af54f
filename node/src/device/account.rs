//! `rossby account`: the box as a whole.

use serde_json::json;

use super::args::{AccountCommand, DeviceArgs};
use super::devices::confirmed;
use super::open::open;
use crate::exit::{Exit, Failure};
use crate::output;

/// Runs an `account` command.
pub async fn run(command: &AccountCommand) -> Result<(), Failure> {
    match command {
        AccountCommand::Delete { yes, device } => delete(*yes, device).await,
    }
}

async fn delete(yes: bool, args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    let box_id = device.who_am_i()?.box_id.map(|box_id| box_id.to_string());
    let label = box_id.as_deref().unwrap_or("that is none yet");
    let question =
        format!("Delete box {label} for ever, and all contacts and messages on this device?");
    if !yes && !confirmed(&question)? {
        return Err(Failure::new(Exit::Failure, "nothing was changed"));
    }
    device.delete_account().await?;
    if args.json {
        return output::json(&json!({ "box": box_id, "deleted": true }));
    }
    output::line(format!(
        "Box {label} is deleted, and everything that was on this device."
    ));
    Ok(())
}
