//! `rossby identifiers`: the phones and emails of this box.

use rossby_client::device::OwnIdentifier;
use serde_json::{Value, json};

use super::args::{DeviceArgs, IdentifiersCommand};
use super::open::open;
use super::register::identifier_of;
use super::show;
use crate::exit::Failure;
use crate::output;

/// Runs an `identifiers` command.
pub async fn run(command: &IdentifiersCommand) -> Result<(), Failure> {
    match command {
        IdentifiersCommand::Add {
            identifier,
            private,
            code,
            device: args,
        } => {
            let identifier = identifier_of(identifier)?;
            let device = open(args)?;
            let name = identifier.as_str();
            if let Some(code) = code {
                device.confirm_identifier(&identifier, code).await?;
                if args.json {
                    return output::json(&json!({ "identifier": name, "verified": true }));
                }
                output::line(format!("{name} is this box's now"));
                return Ok(());
            }
            let ttl = device.add_identifier(&identifier, !private).await?;
            if args.json {
                let code_ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                return output::json(
                    &json!({ "identifier": name, "verified": false, "code_ttl_ms": code_ttl_ms }),
                );
            }
            let minutes = ttl.as_secs() / 60;
            output::line(format!(
                "A code is on its way to {name}. It is accepted for {minutes} minutes."
            ));
            output::line("Next: the same command with --code CODE");
            Ok(())
        }
        IdentifiersCommand::Remove {
            identifier,
            device: args,
        } => {
            let identifier = identifier_of(identifier)?;
            open(args)?.remove_identifier(&identifier).await?;
            let name = identifier.as_str();
            if args.json {
                return output::json(&json!({ "identifier": name, "removed": true }));
            }
            output::line(format!("{name} is this box's no more, and free for others"));
            Ok(())
        }
        IdentifiersCommand::Keep {
            identifier,
            device: args,
        } => {
            let identifier = identifier_of(identifier)?;
            open(args)?.keep_identifier(&identifier).await?;
            let name = identifier.as_str();
            if args.json {
                return output::json(&json!({ "identifier": name, "kept": true }));
            }
            output::line(format!("{name} stays this box's"));
            Ok(())
        }
        IdentifiersCommand::List { device } => list(device).await,
    }
}

async fn list(args: &DeviceArgs) -> Result<(), Failure> {
    let identifiers = open(args)?.identifiers().await?;
    if args.json {
        let identifiers: Vec<Value> = identifiers.iter().map(value_of).collect();
        return output::json(&identifiers);
    }
    for own in &identifiers {
        let found = match (own.verified, own.discoverable) {
            _ if own.reset_at.is_some() => "GOES TO SOMEBODY ELSE, unless you keep it",
            _ if own.uncertain => {
                "not known now: the service can't say whether it is yours and found"
            }
            (false, _) => "waits for its code",
            (true, true) => "others can find you by it",
            (true, false) => "private",
        };
        output::line(format!("{}  {found}", show::safe(own.identifier.as_str())));
    }
    if let Some(at) = identifiers.iter().filter_map(|own| own.reset_at).min() {
        output::note(show::contested(at));
    }
    Ok(())
}

fn value_of(own: &OwnIdentifier) -> Value {
    json!({
        "identifier": own.identifier.as_str(),
        "verified": own.verified,
        "discoverable": own.discoverable,
        "uncertain": own.uncertain,
        "goes_at_ms": own.reset_at.map(|at| at.as_millis()),
    })
}
