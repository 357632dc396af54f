//! `rossby keys`.

use serde_json::json;

use super::args::KeysCommand;
use super::open::open;
use crate::exit::Failure;
use crate::output;

/// Rotates the device's keys.
pub async fn run(command: &KeysCommand) -> Result<(), Failure> {
    let KeysCommand::Rotate { device: args } = command;
    let device = open(args)?;
    let rotated = device.rotate_keys().await?;
    if args.json {
        return output::json(&json!({
            "counter": rotated.counter,
            "kept": rotated.kept,
        }));
    }
    output::line(format!(
        "new encryption key, number {}; private keys on this device: {}",
        rotated.counter, rotated.kept
    ));
    Ok(())
}
