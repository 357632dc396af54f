//! `rossby devices link`: this device, from its keys to its place in a box.

use std::time::Duration;

use rossby_client::Device;
use rossby_client::DeviceError;
use rossby_client::device::{Linking, Welcome};
use rossby_client::linking::LinkCode;
use rossby_client::store::KdfCost;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::args::LinkArgs;
use super::open::{environment, home};
use super::passphrase::{Purpose, obtain};
use super::qr;
use super::register::servers_of;
use crate::exit::{Exit, Failure};
use crate::output;

/// How long between two questions to the service.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the code, waits for its approval, and takes this device's place.
pub async fn run(args: &LinkArgs) -> Result<(), Failure> {
    let linking = match make_or_open(args)? {
        Start::New(linking) => *linking,
        Start::Linked(device) => return again(args, &device).await,
    };
    let code = linking.code();
    let digits = code.comparison().map_err(Failure::from)?;
    if !args.device.json {
        show(&code, &digits, args.wait > 0);
    }
    match wait(args, &linking).await? {
        None if args.device.json => output::json(&json!({
            "linked": false,
            "device": code.device().to_string(),
            "code": code.to_text(),
            "compare": digits,
        })),
        None => Err(
            Failure::new(Exit::Unavailable, "no device has approved it yet")
                .help("the same command goes on with the same code"),
        ),
        Some(welcome) => {
            let device = linking.accept(welcome).await?;
            told(args, &device)
        }
    }
}

enum Start {
    New(Box<Linking>),
    Linked(Box<Device>),
}

fn make_or_open(args: &LinkArgs) -> Result<Start, Failure> {
    let home = home(&args.device)?;
    let environment = environment(&args.device);
    if Device::is_in(&home) {
        let passphrase = obtain(&args.device, Purpose::Open)?;
        return match Linking::open(&home, &passphrase, environment.clone()) {
            Ok(linking) => Ok(Start::New(Box::new(linking))),
            Err(DeviceError::AlreadyRegistered) => {
                let device = Device::open(&home, &passphrase, environment)?;
                Ok(Start::Linked(Box::new(device)))
            }
            Err(error) => Err(error.into()),
        };
    }
    let servers = servers_of(&args.servers, args.ca.as_deref())?;
    if servers.addresses.is_empty() {
        let failure = Failure::new(Exit::Usage, "no server is given");
        return Err(failure.help("give one with --server, for example --server 127.0.0.1:7470"));
    }
    let passphrase = obtain(&args.device, Purpose::Choose)?;
    let (cost, name) = (KdfCost::STANDARD, args.name.clone());
    let linking = Linking::create(&home, &passphrase, cost, &servers, name, environment)?;
    Ok(Start::New(Box::new(linking)))
}

fn show(code: &LinkCode, digits: &str, waits: bool) {
    if let Some(drawn) = qr::in_blocks(&code.to_digits()) {
        output::line(drawn);
    }
    output::line("On a device that has the box:");
    output::line(format!("  rossby devices approve {}", code.to_text()));
    output::line(format!(
        "It must show the same digits as this one: {digits}"
    ));
    if waits {
        output::note("waiting to be approved; Ctrl-C and the same command again goes on");
    }
}

/// Asks until there is a place, or the time is over. Who is away for a while is asked again.
async fn wait(args: &LinkArgs, linking: &Linking) -> Result<Option<Welcome>, Failure> {
    let until = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let failed = match linking.ask().await {
            Ok(Some(welcome)) => return Ok(Some(welcome)),
            Ok(None) => None,
            Err(error) if error.may_pass() => Some(error),
            Err(error) => return Err(error.into()),
        };
        if Instant::now() + PAUSE > until {
            return match failed {
                Some(error) => Err(error.into()),
                None => Ok(None),
            };
        }
        sleep(PAUSE).await;
    }
}

/// A device that has its place asks for it again, in case the service lets it in no more.
async fn again(args: &LinkArgs, device: &Device) -> Result<(), Failure> {
    if !device.who_am_i()?.authorised {
        return Err(DeviceError::AlreadyRegistered.into());
    }
    device.rejoin().await?;
    told(args, device)
}

fn told(args: &LinkArgs, device: &Device) -> Result<(), Failure> {
    let me = device.who_am_i()?;
    let box_id = me
        .box_id
        .map(|box_id| box_id.to_string())
        .unwrap_or_default();
    if args.device.json {
        return output::json(&json!({
            "linked": true,
            "device": me.device.to_string(),
            "box": box_id,
        }));
    }
    output::line(format!("This device belongs to box {box_id} now."));
    output::line(
        "Is that not the box that rossby whoami shows on the other device? Then somebody else",
    );
    output::line("has approved the code: delete this device's directory, and link it anew.");
    Ok(())
}
