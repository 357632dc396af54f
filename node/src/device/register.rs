//! `rossby register` and `rossby authorize`.

use std::path::Path;

use rossby_client::connection::ServerAddress;
use rossby_client::crypto::recovery;
use rossby_client::device::Servers;
use rossby_client::store::KdfCost;
use rossby_client::{Device, DeviceError};
use rossby_domain::identifier::Identifier;
use rossby_domain::time::Timestamp;
use serde_json::json;

use super::args::{AuthorizeArgs, IdentifierArgs, RegisterArgs};
use super::open::{environment, home, open};
use super::passphrase::{Purpose, obtain};
use super::recovery::show_words;
use crate::exit::{Exit, Failure};
use crate::output::{self, utc};

/// Makes the device if it is not there yet, and asks for its box.
pub async fn register(args: &RegisterArgs) -> Result<(), Failure> {
    let identifier = identifier_of(&args.identifier)?;
    let servers = servers_of(&args.servers, args.ca.as_deref())?;
    let device = make_or_open(args, &servers)?;
    let registered = match args.reset {
        true => device.register_reset(&identifier, !args.private).await?,
        false => device.register(&identifier, !args.private).await?,
    };
    // Shown until the box is authorised: a device can have been made and its output lost.
    let recovery_seed = device.recovery_seed();
    let recovery_key = recovery_seed.map(|seed| recovery::to_text(&seed));
    if args.device.json {
        return output::json(&json!({
            "box": registered.box_id.to_string(),
            "device": device.who_am_i()?.device.to_string(),
            "identifier": identifier.as_str(),
            "code_ttl_ms": u64::try_from(registered.code_ttl.as_millis()).unwrap_or(u64::MAX),
            "recovery_key": recovery_key.as_deref(),
        }));
    }
    let minutes = registered.code_ttl.as_secs() / 60;
    output::line(format!("Box {}", registered.box_id));
    output::line(format!(
        "A code is on its way to {}. It is accepted for {minutes} minutes.",
        identifier.as_str()
    ));
    if let Some(words) = recovery_key {
        output::line(
            "\nYour recovery key. Write it down, with the box above, and keep it away from this device:",
        );
        show_words(&words);
        output::line(
            "rossby recovery confirm checks what you wrote down, and takes it from this device. Until then, who steals the device can \
             come back whatever you do.\n",
        );
    }
    output::line("Next: rossby authorize CODE");
    Ok(())
}

/// Proves the identifier.
pub async fn authorize(args: &AuthorizeArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let address = match device.authorize(&args.code).await {
        Err(DeviceError::ResetWaits(at)) => return waits(args, at),
        other => other?,
    };
    if args.device.json {
        return output::json(&json!({
            "box": address.box_id.to_string(),
            "device": address.device.to_string(),
            "authorised": true,
        }));
    }
    output::line(format!(
        "Box {} is yours. Next: rossby send TO TEXT",
        address.box_id
    ));
    Ok(())
}

/// Says when what is proven can be had.
fn waits(args: &AuthorizeArgs, at: Timestamp) -> Result<(), Failure> {
    if args.device.json {
        return output::json(&json!({
            "authorised": false,
            "completes_at_ms": at.as_millis(),
        }));
    }
    output::line(format!(
        "It is proven. The devices of the box that has it are told, and can keep it until {}.",
        utc(at.as_millis())
    ));
    output::line(
        "Next, after that and within as long again: rossby register --reset once more, and rossby authorize with the \
         code that it sends.",
    );
    Ok(())
}

pub(super) fn identifier_of(args: &IdentifierArgs) -> Result<Identifier, Failure> {
    let identifier = given_identifier(args.phone.as_deref(), args.email.as_deref())?;
    identifier.ok_or_else(|| Failure::new(Exit::Usage, "give --phone or --email"))
}

/// The phone or email that was given, if any.
pub(super) fn given_identifier(
    phone: Option<&str>,
    email: Option<&str>,
) -> Result<Option<Identifier>, Failure> {
    let identifier = match (phone, email) {
        (Some(phone), _) => Identifier::phone(phone),
        (None, Some(email)) => Identifier::email(email),
        (None, None) => return Ok(None),
    };
    let identifier = identifier.map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(Some(identifier))
}

/// The servers that were given, if any, and whom to trust.
pub(super) fn servers_of(servers: &[String], ca: Option<&Path>) -> Result<Servers, Failure> {
    let read = |text: &String| {
        text.parse()
            .map_err(|error| Failure::new(Exit::Usage, format!("{text}: {error}")))
    };
    let addresses = servers.iter().map(read).collect::<Result<_, _>>()?;
    let ca_pem = match ca {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            let what = format!("cannot read {}: {error}", path.display());
            Failure::new(Exit::Config, what)
        })?),
    };
    let servers = Servers { addresses, ca_pem };
    check_trust(ca, &servers)?;
    Ok(servers)
}

/// Says at once that a server over TLS can't be trusted, which no try would change.
fn check_trust(ca: Option<&Path>, servers: &Servers) -> Result<(), Failure> {
    if let (Some(pem), Some(path)) = (&servers.ca_pem, ca)
        && !pem.contains("-----BEGIN CERTIFICATE-----")
    {
        let what = format!("{} holds no certificate in PEM", path.display());
        return Err(Failure::new(Exit::Config, what));
    }
    if servers.ca_pem.is_none() && servers.addresses.iter().any(ServerAddress::is_secure) {
        let failure = Failure::new(Exit::Config, "no authority is known to trust the server by");
        return Err(failure.help("give the service's certificate authority with --ca FILE"));
    }
    Ok(())
}

fn make_or_open(args: &RegisterArgs, servers: &Servers) -> Result<Device, Failure> {
    let home = home(&args.device)?;
    if Device::is_in(&home) {
        let mut device = open(&args.device)?;
        if !servers.addresses.is_empty() {
            device.use_servers(servers)?;
        }
        return Ok(device);
    }
    if servers.addresses.is_empty() {
        let failure = Failure::new(Exit::Usage, "no server is given");
        return Err(failure.help("give one with --server, for example --server 127.0.0.1:7470"));
    }
    let passphrase = obtain(&args.device, Purpose::Choose)?;
    let environment = environment(&args.device);
    Ok(Device::create(
        &home,
        &passphrase,
        KdfCost::STANDARD,
        servers,
        environment,
    )?)
}
