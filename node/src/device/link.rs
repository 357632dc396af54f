//! `rossby devices link`: this device, from its keys to its place in a box.

use std::io::IsTerminal as _;
use std::time::Duration;

use rossby_client::Device;
use rossby_client::DeviceError;
use rossby_client::device::{Linking, Welcome};
use rossby_client::linking::{Challenge, LinkCode};
use rossby_client::store::KdfCost;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::args::LinkArgs;
use super::devices::{ask, confirmed};
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
    if !args.device.json {
        show(&code);
    }
    let challenge = match args.challenge {
        Some(challenge) => Some(challenge),
        None => challenge(args)?,
    };
    let digits = challenge.map(|challenge| code.comparison(&challenge));
    let digits = digits.transpose().map_err(Failure::from)?;
    if !args.device.json {
        say(digits.as_deref(), args.wait > 0);
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
            check_box(args, &code, challenge, &welcome)?;
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

fn show(code: &LinkCode) {
    if let Some(drawn) = qr::to_show(&code.to_digits()) {
        output::line(drawn);
    }
    output::line("On a device that has the box:");
    output::line(format!("  rossby devices approve {}", code.to_text()));
}

/// The digits that the other device has drawn, if there is somebody to type them.
fn challenge(args: &LinkArgs) -> Result<Option<Challenge>, Failure> {
    if args.device.json || args.wait == 0 || !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    loop {
        let typed =
            ask("The six digits that it shows then (or Enter, to compare the box instead): ")?;
        if typed.is_empty() {
            return Ok(None);
        }
        match Challenge::from_text(&typed) {
            Ok(challenge) => return Ok(Some(challenge)),
            Err(error) => output::note(error),
        }
    }
}

fn say(digits: Option<&str>, waits: bool) {
    if let Some(digits) = digits {
        output::line(format!(
            "It must show the same digits as this one: {digits}"
        ));
    }
    if waits {
        output::note("waiting to be approved; Ctrl-C and the same command again goes on");
    }
}

/// Whether the box is the one that it should be: before anything is stored, and anything said in it.
fn check_box(
    args: &LinkArgs,
    code: &LinkCode,
    challenge: Option<Challenge>,
    welcome: &Welcome,
) -> Result<(), Failure> {
    let box_id = welcome.address().box_id;
    let is_right = match (args.box_id, args.yes) {
        (Some(expected), _) => expected == box_id,
        (None, true) => true,
        (None, false) => confirmed(&question(code, challenge, welcome)?)?,
    };
    if is_right {
        return Ok(());
    }
    let what = format!("this device was approved for box {box_id}; nothing was stored");
    Err(Failure::new(Exit::Failure, what).help(
        "is that another's? Then delete this device's directory, and link it anew; otherwise give the same command again",
    ))
}

fn question(
    code: &LinkCode,
    challenge: Option<Challenge>,
    welcome: &Welcome,
) -> Result<String, Failure> {
    let Some(challenge) = challenge else {
        let box_id = welcome.address().box_id;
        return Ok(format!(
            "It was approved for box {box_id}. Does rossby whoami show that one on the other device?"
        ));
    };
    let genesis = welcome.record().genesis_hash();
    let digits = code.box_comparison(&challenge, &genesis);
    let digits = digits.map_err(Failure::from)?;
    Ok(format!(
        "It is approved. Does the other device show these digits now: {digits}?"
    ))
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
    Ok(())
}
