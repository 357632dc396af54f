//! `rossby keys`.

use std::time::Duration;

use rossby_client::Device;
use rossby_client::device::{KeyState, PastKey};
use serde_json::{Value, json};

use super::args::{DeviceArgs, KeysCommand};
use super::open::open;
use crate::exit::Failure;
use crate::output::{self, utc};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Runs a `keys` command.
pub async fn run(command: &KeysCommand) -> Result<(), Failure> {
    match command {
        KeysCommand::Rotate { device } => rotate(&open(device)?, device).await,
        KeysCommand::History { device } => history(&open(device)?, device),
        KeysCommand::Schedule {
            every_hours,
            off,
            device: args,
        } => {
            let device = open(args)?;
            match every_hours {
                Some(hours) => device.set_key_schedule(Some(HOUR * *hours))?,
                None if *off => device.set_key_schedule(None)?,
                None => {}
            }
            schedule(&device, args)
        }
    }
}

async fn rotate(device: &Device, args: &DeviceArgs) -> Result<(), Failure> {
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

fn history(device: &Device, args: &DeviceArgs) -> Result<(), Failure> {
    let keys = device.key_history()?;
    if args.json {
        return output::json(&keys.iter().map(json_of).collect::<Vec<_>>());
    }
    for key in &keys {
        let since = match key.since {
            Some(since) => utc(since.as_millis()),
            None => "at first".to_owned(),
        };
        output::line(format!("{:>4}  {since}  {}", key.counter, in_words(key)));
    }
    Ok(())
}

fn in_words(key: &PastKey) -> String {
    match key.state {
        KeyState::Unpublished => "made; the service did not say yet that it has it".to_owned(),
        KeyState::Current => "current".to_owned(),
        KeyState::Previous => "the one before, which others may still use".to_owned(),
        KeyState::Waiting => "kept for mail that waits".to_owned(),
        KeyState::Erased(at) => format!("erased {}", utc(at.as_millis())),
    }
}

fn json_of(key: &PastKey) -> Value {
    let (state, erased) = match key.state {
        KeyState::Unpublished => ("unpublished", None),
        KeyState::Current => ("current", None),
        KeyState::Previous => ("previous", None),
        KeyState::Waiting => ("waiting", None),
        KeyState::Erased(at) => ("erased", Some(at.as_millis())),
    };
    json!({
        "counter": key.counter,
        "since_ms": key.since.map(|since| since.as_millis()),
        "state": state,
        "erased_ms": erased,
    })
}

fn schedule(device: &Device, args: &DeviceArgs) -> Result<(), Failure> {
    let every = device.key_schedule()?;
    if args.json {
        let seconds = every.map(|every| every.as_secs());
        return output::json(&json!({ "every_seconds": seconds }));
    }
    output::line(match every {
        Some(every) => format!(
            "this device makes a new encryption key by itself when the current one is {} hours old",
            every.as_secs() / HOUR.as_secs()
        ),
        None => "this device makes a new encryption key by rossby keys rotate only".to_owned(),
    });
    Ok(())
}
