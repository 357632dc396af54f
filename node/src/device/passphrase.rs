//! Where the passphrase comes from, and the words of a recovery key: a file descriptor, the environment, or the
//! person.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Take};

use rossby_client::crypto::recovery;
use rossby_client::crypto::secret::Secret;
use rossby_client::store::Passphrase;
use zeroize::Zeroizing;

use super::args::{DeviceArgs, WordsArgs};
use crate::exit::{Exit, Failure};

const VARIABLE: &str = "ROSSBY_PASSPHRASE";
const WORDS_VARIABLE: &str = "ROSSBY_RECOVERY_KEY";
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
    let text = match args.passphrase_fd {
        Some(descriptor) => read(descriptor, "passphrase", |mut from, line| {
            from.read_line(line).map(drop)
        })?,
        None => match from_environment(VARIABLE)? {
            Some(text) => text,
            None => from_person(purpose)?,
        },
    };
    let line = text.trim_end_matches(['\r', '\n']);
    Passphrase::new(line).map_err(|_| {
        Failure::new(Exit::Usage, "the passphrase is empty")
            .help("a device without one must be asked for with --no-passphrase")
    })
}

/// The recovery key whose words, or digits, are given.
///
/// # Errors
/// If none are given, or they are not a recovery key's. What was given is never repeated.
pub fn obtain_recovery_key(args: &WordsArgs) -> Result<Secret<32>, Failure> {
    let text = match args.words_fd {
        Some(descriptor) => read(descriptor, "recovery key", |mut from, text| {
            from.read_to_string(text).map(drop)
        })?,
        None => match from_environment(WORDS_VARIABLE)? {
            Some(text) => text,
            None => {
                let instead = format!("give it in {WORDS_VARIABLE} or with --words-fd");
                check_terminal("recovery key", &instead)?;
                ask(
                    "recovery key",
                    "The words of the recovery key (not shown): ",
                )?
            }
        },
    };
    recovery::from_text(&text).map_err(|error| Failure::new(Exit::Usage, error))
}

fn from_environment(variable: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    match std::env::var(variable) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::new(
            Exit::Usage,
            format!("{variable} is not UTF-8"),
        )),
    }
}

/// What a file descriptor holds, as far as it is read.
fn read(
    descriptor: u32,
    what: &str,
    read: impl FnOnce(BufReader<Take<File>>, &mut String) -> std::io::Result<()>,
) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    File::open(format!("/dev/fd/{descriptor}"))
        .and_then(|file| read(BufReader::new(file.take(MAX_BYTES)), &mut text))
        .map_err(|error| {
            let what = format!("cannot read the {what} from descriptor {descriptor}: {error}");
            Failure::new(Exit::Usage, what)
        })?;
    Ok(text)
}

fn from_person(purpose: Purpose) -> Result<Zeroizing<String>, Failure> {
    let instead = format!("give it in {VARIABLE} or with --passphrase-fd");
    check_terminal("passphrase", &instead)?;
    if purpose == Purpose::Open {
        return ask("passphrase", "Passphrase: ");
    }
    let chosen = ask("passphrase", "A new passphrase for this device: ")?;
    if ask("passphrase", "The same again: ")? == chosen {
        Ok(chosen)
    } else {
        Err(Failure::new(Exit::Usage, "the two passphrases differ"))
    }
}

fn check_terminal(what: &str, instead: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    let what = format!("there is no terminal to ask for the {what}");
    Err(Failure::new(Exit::Usage, what).help(instead))
}

fn ask(what: &str, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let typed = rpassword::prompt_password(prompt);
    typed
        .map(Zeroizing::new)
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot ask for the {what}: {error}")))
}
