//! `rossby recovery`: the recovery key, shown, confirmed, forgotten and used.

use rossby_client::crypto::recovery;
use rossby_client::device::Linking;
use rossby_client::linking::RecoverBy;
use rossby_client::store::KdfCost;
use rossby_client::{Device, DeviceError};
use serde_json::json;

use super::args::{DeviceArgs, RecoveryCommand, RecoveryUseArgs, WordsArgs};
use super::open::{environment, home, open};
use super::passphrase::{Purpose, obtain, obtain_recovery_key};
use super::register::{given_identifier, servers_of};
use crate::exit::{Exit, Failure};
use crate::output;

/// Words in a row.
const ROW: usize = 6;

/// Runs a `recovery` command.
pub async fn run(command: &RecoveryCommand) -> Result<(), Failure> {
    match command {
        RecoveryCommand::Show { device } => show(device),
        RecoveryCommand::Confirm {
            words,
            keep,
            device,
        } => confirm(words, *keep, device),
        RecoveryCommand::Forget { words, yes, device } => {
            let words = (!yes).then_some(words);
            forget(words, device)
        }
        RecoveryCommand::Use(args) => Box::pin(take_up(args)).await,
    }
}

fn show(args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    let seed = device.recovery_seed();
    let seed = seed.ok_or(DeviceError::NoRecoveryKey)?;
    let words = recovery::to_text(&seed);
    let box_id = device.who_am_i()?.box_id.map(|box_id| box_id.to_string());
    if args.json {
        return output::json(&json!({ "box": box_id, "recovery_key": words.as_str() }));
    }
    show_words(&words);
    if let Some(box_id) = box_id {
        // Beside the words, which may go into a file.
        output::note(format!(
            "They are of box {box_id}. Write that down too: once the box has no phone or email any more, nothing else \
             leads to it."
        ));
    }
    Ok(())
}

/// The words of a recovery key, in rows.
pub(super) fn show_words(words: &str) {
    let words: Vec<_> = words.split(' ').collect();
    for row in words.chunks(ROW) {
        output::line(format!("  {}", row.join(" ")));
    }
}

fn confirm(words: &WordsArgs, keep: bool, args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    check_words(&device, words)?;
    let forgotten = !keep && device.forget_recovery_key()?;
    if args.json {
        return output::json(&json!({ "confirmed": true, "forgotten": forgotten }));
    }
    output::line("These words are the recovery key of this box.");
    if forgotten {
        output::line("It is no longer on this device: who takes the device does not get it.");
    }
    Ok(())
}

fn check_words(device: &Device, words: &WordsArgs) -> Result<(), Failure> {
    let seed = obtain_recovery_key(words)?;
    if !device.is_recovery_key(&seed) {
        return Err(DeviceError::NotTheRecoveryKey.into());
    }
    Ok(())
}

fn forget(words: Option<&WordsArgs>, args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    if let Some(words) = words {
        check_words(&device, words)?;
    }
    let was_here = device.forget_recovery_key()?;
    if args.json {
        return output::json(&json!({ "forgotten": was_here }));
    }
    output::line(if was_here {
        "The recovery key is no longer on this device."
    } else {
        "The recovery key was not on this device."
    });
    Ok(())
}

/// Takes a place in the box of the words, for a new device.
async fn take_up(args: &RecoveryUseArgs) -> Result<(), Failure> {
    let which = &args.which;
    let identifier = given_identifier(which.phone.as_deref(), which.email.as_deref())?;
    let by = match (identifier, which.box_id) {
        (Some(identifier), _) => RecoverBy::Identifier(identifier),
        (None, Some(box_id)) => RecoverBy::Box(box_id),
        (None, None) => return Err(Failure::new(Exit::Usage, "give --phone, --email or --box")),
    };
    let seed = obtain_recovery_key(&args.words)?;
    let linking = make_or_open(args)?;
    let device = linking.recover(&by, &seed, args.revoke_others).await?;
    let me = device.who_am_i()?;
    let box_id = me.box_id.map(|box_id| box_id.to_string());
    let devices = device.devices()?.len();
    if args.device.json {
        return output::json(&json!({
            "box": box_id,
            "device": me.device.to_string(),
            "devices": devices,
        }));
    }
    let box_id = box_id.unwrap_or_default();
    output::line(format!("This device belongs to box {box_id} now."));
    if devices > 1 {
        output::line(format!(
            "The box has {devices} devices: rossby devices list shows them, rossby devices revoke removes one."
        ));
    }
    output::line("The words are good as before, and are not kept on this device.");
    Ok(())
}

fn make_or_open(args: &RecoveryUseArgs) -> Result<Linking, Failure> {
    let home = home(&args.device)?;
    let environment = environment(&args.device);
    if Device::is_in(&home) {
        let passphrase = obtain(&args.device, Purpose::Open)?;
        return Ok(Linking::open(&home, &passphrase, environment)?);
    }
    let servers = servers_of(&args.servers, args.ca.as_deref())?;
    if servers.addresses.is_empty() {
        let failure = Failure::new(Exit::Usage, "no server is given");
        return Err(failure.help("give one with --server, for example --server 127.0.0.1:7470"));
    }
    let passphrase = obtain(&args.device, Purpose::Choose)?;
    let (cost, name) = (KdfCost::STANDARD, args.name.clone());
    let linking = Linking::create(&home, &passphrase, cost, &servers, name, environment)?;
    Ok(linking)
}
