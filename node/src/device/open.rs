//! Opening the device of a command.

use std::path::PathBuf;
use std::time::Duration;

use rossby_client::connection::Patience;
use rossby_client::{Device, Environment};
use tokio::time::timeout;

use super::args::DeviceArgs;
use super::passphrase::{Purpose, obtain};
use crate::exit::{Exit, Failure};

/// How long what is for others may keep a person waiting, who has what they asked for. The next command makes up for it.
pub const PATIENCE: Duration = Duration::from_secs(2);
const HOME_NAME: &str = ".rossby";

/// The device's directory.
///
/// # Errors
/// If none is given and there is no home directory to have it in.
pub fn home(args: &DeviceArgs) -> Result<PathBuf, Failure> {
    if let Some(home) = &args.home {
        return Ok(home.clone());
    }
    std::env::home_dir()
        .map(|home| home.join(HOME_NAME))
        .ok_or_else(|| Failure::new(Exit::Usage, "there is no home directory").help("give --home"))
}

/// What the device takes from the outside.
pub fn environment(args: &DeviceArgs) -> Environment {
    let call = Duration::from_secs(args.timeout);
    Environment {
        patience: Patience {
            call,
            ..Patience::default()
        },
        ..Environment::default()
    }
}

/// Tells the box's other devices what was just said or chosen, if that does not take long.
pub async fn tell_own_devices(device: &Device) {
    let _ = timeout(PATIENCE, device.tell_own_devices()).await;
}

/// Opens the device.
///
/// # Errors
/// For example a wrong passphrase.
pub fn open(args: &DeviceArgs) -> Result<Device, Failure> {
    let home = home(args)?;
    // Before anybody is asked for a passphrase in vain.
    if !Device::is_in(&home) {
        let what = format!("there is no device in {}", home.display());
        return Err(Failure::new(Exit::Unauthenticated, what).help("make one with rossby register"));
    }
    let passphrase = obtain(args, Purpose::Open)?;
    Ok(Device::open(&home, &passphrase, environment(args))?)
}
