//! Where the passphrase comes from: a file descriptor, the environment, or the person.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _};

use rossby_client::store::Passphrase;
use zeroize::Zeroizing;

use super::args::DeviceArgs;
use crate::exit::{Exit, Failure};

const VARIABLE: &str = "ROSSBY_PASSPHRASE";
/// More than anybody types.
const MAX_BYTES: u64 = 64 * 1024;

/// Whether a passphrase is being chosen or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// For a new device: asked for twice.
    Choose,
    /// For a device that is there.
    Open,
}

/// The passphrase.
///
/// # Errors
/// If there is none and none was said to be wanted, or it can not be read.
pub fn obtain(args: &DeviceArgs, purpose: Purpose) -> Result<Passphrase, Failure> {
    if args.no_passphrase {
        return Ok(Passphrase::none());
    }
    let text = match (args.passphrase_fd, std::env::var(VARIABLE)) {
        (Some(descriptor), _) => from_descriptor(descriptor)?,
        (None, Ok(text)) => Zeroizing::new(text),
        (None, Err(std::env::VarError::NotUnicode(_))) => {
            return Err(Failure::new(
                Exit::Usage,
                format!("{VARIABLE} is not UTF-8"),
            ));
        }
        (None, Err(std::env::VarError::NotPresent)) => from_person(purpose)?,
    };
    Passphrase::new(&text).map_err(|_| {
        Failure::new(Exit::Usage, "the passphrase is empty")
            .help("a device without one must be asked for with --no-passphrase")
    })
}

fn from_descriptor(descriptor: u32) -> Result<Zeroizing<String>, Failure> {
    let unreadable = |error: std::io::Error| {
        let what = format!("cannot read the passphrase from descriptor {descriptor}: {error}");
        Failure::new(Exit::Usage, what)
    };
    let file = File::open(format!("/dev/fd/{descriptor}")).map_err(unreadable)?;
    let mut line = Zeroizing::new(String::new());
    BufReader::new(file.take(MAX_BYTES))
        .read_line(&mut line)
        .map_err(unreadable)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

fn from_person(purpose: Purpose) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        let what = "there is no terminal to ask for the passphrase";
        return Err(Failure::new(Exit::Usage, what)
            .help(format!("give it in {VARIABLE} or with --passphrase-fd")));
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map(Zeroizing::new)
            .map_err(|error| {
                Failure::new(
                    Exit::Usage,
                    format!("cannot ask for the passphrase: {error}"),
                )
            })
    };
    if purpose == Purpose::Open {
        return ask("Passphrase: ");
    }
    let chosen = ask("A new passphrase for this device: ")?;
    if ask("The same again: ")? == chosen {
        Ok(chosen)
    } else {
        Err(Failure::new(Exit::Usage, "the two passphrases differ"))
    }
}
