//! `rossby devices`: approve, list, rename, revoke. What a new device does is in `link.rs`.

use std::io::{BufRead as _, Write as _};

use rossby_client::device::{DeviceNews, OwnDevice, Standing};
use rossby_client::linking::Challenge;
use rossby_client::{Device, DeviceError};
use rossby_domain::ids::DeviceId;
use serde_json::{Value, json};

use super::args::{ApproveArgs, DeviceArgs, DevicesCommand};
use super::open::{environment, open};
use super::{link, show};
use crate::exit::{Exit, Failure};
use crate::output;

/// Runs a `devices` command.
pub async fn run(command: &DevicesCommand) -> Result<(), Failure> {
    match command {
        DevicesCommand::Link(args) => Box::pin(link::run(args)).await,
        DevicesCommand::Approve(args) => approve(args).await,
        DevicesCommand::List { device } => list(device).await,
        DevicesCommand::Rename {
            which,
            name,
            device: args,
        } => {
            let device = open(args)?;
            let found = find(&device.devices()?, which)?;
            let told = device.rename(&found, name).await?;
            if args.json {
                let (id, name) = (found.to_string(), name.as_str());
                return output::json(&json!({ "device": id, "name": name, "told": told }));
            }
            output::line(format!(
                "{found} is called {} now",
                show::safe(name.as_str())
            ));
            if !told {
                output::note("the other devices will be told with what is sent next");
            }
            Ok(())
        }
        DevicesCommand::Revoke {
            which,
            yes,
            device: args,
        } => {
            let device = open(args)?;
            let devices = device.renew_devices().await.map_err(Failure::from)?;
            let found = find(&devices, which)?;
            let label = devices.iter().find(|device| device.device == found);
            let label = label.map(label_of).unwrap_or_default();
            if !yes && !confirmed(&format!("Remove {label} for ever?"))? {
                return Err(Failure::new(Exit::Failure, "nothing was changed"));
            }
            device.revoke(&found).await?;
            let mut children = device.devices()?;
            children.retain(|device| device.added_by == Some(found));
            if args.json {
                let added: Vec<_> = children.iter().map(json_of).collect();
                return output::json(
                    &json!({ "device": found.to_string(), "revoked": true, "had_added": added }),
                );
            }
            output::line(format!("{label} is removed, and gets nothing from now on"));
            for child in &children {
                output::note(format!(
                    "NOTE: it had added {}, which is still a device of this box. If that was not you: rossby devices revoke {}",
                    label_of(child),
                    child.device
                ));
            }
            Ok(())
        }
    }
}

/// Says what became of this box's devices without this one, once. What it said.
///
/// # Errors
/// If what this device keeps can't be read.
pub fn note_news(device: &Device) -> Result<Vec<DeviceNews>, Failure> {
    let all = device.device_news()?;
    for news in &all {
        let name = news.name.as_ref().map(|name| show::safe(name.as_str()));
        let which = format!("{} {}", news.device, name.unwrap_or_default());
        let by = match news.by {
            Some(device) => format!("device {device}"),
            None => "who has the recovery key".to_owned(),
        };
        output::note(match news.added {
            true => format!(
                "NOTE: device {} was added to this box by {by}. If that was not you: rossby devices revoke {}",
                which.trim_end(),
                news.device
            ),
            false => format!(
                "NOTE: device {} was removed from this box by {by}.",
                which.trim_end()
            ),
        });
    }
    device.mark_told(&all)?;
    Ok(all)
}

/// The same, as JSON.
pub fn news_json(news: &DeviceNews) -> Value {
    json!({
        "device": news.device.to_string(),
        "name": news.name.as_ref().map(|name| name.as_str()),
        "change": if news.added { "added" } else { "removed" },
        "by": news.by.map(|device| device.to_string()),
    })
}

/// Approves a new device.
async fn approve(args: &ApproveArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let challenge = match args.challenge {
        Some(challenge) => challenge,
        None => {
            let random = environment(&args.device).random;
            Challenge::draw(random.as_ref()).map_err(|error| Failure::new(Exit::Failure, error))?
        }
    };
    let digits = args.code.comparison(&challenge).map_err(Failure::from)?;
    let name = show::safe(args.code.name.as_str());
    if !args.yes {
        output::note(format!(
            "A device that calls itself {name:?} wants to join this box."
        ));
        output::note(format!("Type these digits on it: {challenge}"));
        output::note(format!("It must show these then:  {digits}"));
        if !confirmed("Does it?")? {
            return Err(Failure::new(Exit::Failure, "nothing was changed")
                .help("digits that differ are those of another device: do not approve it"));
        }
    }
    let added = match device.approve(&args.code).await {
        // A try before this one was cut off after the service had done it.
        Err(DeviceError::LinkedAlready) => args.code.device(),
        other => other?,
    };
    let box_id = device.who_am_i()?.box_id.map(|box_id| box_id.to_string());
    let box_digits = args
        .code
        .box_comparison(&challenge, &device.genesis_hash())
        .map_err(Failure::from)?;
    if args.device.json {
        return output::json(&json!({
            "device": added.to_string(),
            "name": args.code.name.as_str(),
            "compare": digits,
            "compare_box": box_digits,
            "box": box_id,
            "approved": true,
        }));
    }
    output::line(format!("{name} ({added}) is approved."));
    output::line(format!(
        "It must show these digits now: {box_digits}. Its box is {}",
        box_id.unwrap_or_default()
    ));
    Ok(())
}

async fn list(args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    let devices = match device.renew_devices().await {
        Ok(devices) => devices,
        Err(error) if error.may_pass() => {
            output::note(format!("rossby: as known before: {}", Failure::from(error)));
            device.devices()?
        }
        Err(error) => return Err(told(&device, error).await),
    };
    if args.json {
        let devices: Vec<_> = devices.iter().map(json_of).collect();
        return output::json(&devices);
    }
    for device in &devices {
        let this = if device.is_this {
            "  (this device)"
        } else {
            ""
        };
        let standing = match device.standing {
            Standing::Joined => "",
            Standing::Expected => "  (approved, has not come yet)",
        };
        output::line(format!("{}{this}{standing}", label_of(device)));
    }
    Ok(())
}

fn json_of(device: &OwnDevice) -> Value {
    json!({
        "device": device.device.to_string(),
        "name": device.name.as_ref().map(|name| name.as_str()),
        "this": device.is_this,
        "joined": device.standing == Standing::Joined,
        "since_version": device.since_version,
        "added_by": device.added_by.map(|device| device.to_string()),
    })
}

fn label_of(device: &OwnDevice) -> String {
    match &device.name {
        Some(name) => format!("{}  {}", device.device, show::safe(name.as_str())),
        None => device.device.to_string(),
    }
}

/// The device that is meant: by its id, or by a name that only one has.
fn find(devices: &[OwnDevice], which: &str) -> Result<DeviceId, Failure> {
    let named = |device: &&OwnDevice| {
        let is_called = device
            .name
            .as_ref()
            .is_some_and(|name| name.as_str() == which);
        is_called || device.device.to_string() == which || which == "this" && device.is_this
    };
    let found: Vec<_> = devices.iter().filter(named).collect();
    match &found[..] {
        [one] => Ok(one.device),
        [] => Err(Failure::new(Exit::NotFound, "this box has no such device")
            .help("rossby devices list shows those that it has")),
        _ => Err(Failure::new(Exit::Usage, "several devices have that name")
            .help("give the id that rossby devices list shows")),
    }
}

/// What an error means for a device that the service may not let in any more: whether it was removed,
/// its own key tells.
pub(super) async fn told(device: &Device, error: DeviceError) -> Failure {
    if !device.is_shut_out(&error) {
        return error.into();
    }
    match device.rejoin().await {
        Ok(_) => Failure::new(Exit::Unavailable, "the service has let this device in anew")
            .help("give the same command again"),
        Err(why) => why.into(),
    }
}

/// Asks a person. Whoever does not say yes has said no.
pub(super) fn confirmed(question: &str) -> Result<bool, Failure> {
    let answer = ask(&format!("{question} [y/N] "))?.to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

/// Asks a person for a line.
pub(super) fn ask(question: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Usage, format!("cannot ask: {error}")).help("give --yes")
    };
    let mut err = std::io::stderr().lock();
    write!(err, "{question}")
        .and_then(|()| err.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(failed)?;
    Ok(answer.trim().to_owned())
}
