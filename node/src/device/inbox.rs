//! `rossby inbox`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rossby_client::device::{Direction, Message};
use rossby_client::envelope::{Content, File};
use serde_json::json;

use super::args::InboxArgs;
use super::open::open;
use super::send::resend_quietly;
use super::show;
use crate::exit::{Exit, Failure};
use crate::output;

/// Names tried for one file before giving up.
const MAX_NAMES: u32 = 1000;

/// Fetches what is new, and shows it.
pub async fn run(args: &InboxArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    resend_quietly(&device).await?;
    let (new, expired, interrupted) = match device.receive().await {
        Ok(received) => (
            received.messages,
            Some(received.status.expired_total),
            received.interrupted,
        ),
        // What this device has already can be shown without the service.
        Err(error) if args.all => (Vec::new(), None, Some(error)),
        Err(error) => return Err(error.into()),
    };
    let messages = if args.all { device.messages()? } else { new };
    let mut saved = BTreeMap::new();
    // A message is new once only: it is shown even if its file can't be saved.
    let unsaved = match &args.save {
        Some(folder) => save_files(folder, &messages, &mut saved).err(),
        None => None,
    };
    let contacts = device.contacts()?;
    if args.device.json {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| show::message(message, &contacts, saved.get(&message.order)))
            .collect();
        output::json(&json!({
            "messages": messages,
            "expired_unread": expired,
            "interrupted": interrupted.as_ref().map(ToString::to_string),
        }))?;
    } else {
        if messages.is_empty() && interrupted.is_none() {
            output::note("nothing new");
        }
        for message in &messages {
            output::line(show::message_line(
                message,
                &contacts,
                saved.get(&message.order),
            ));
        }
    }
    if let Some(failure) = unsaved {
        return Err(failure.help("all of them are kept: rossby inbox --all --save DIR"));
    }
    match interrupted {
        None => Ok(()),
        Some(error) => {
            let failure = Failure::from(error);
            let what = format!("not all could be fetched: {}", failure.message);
            Err(Failure::new(failure.exit, what).help("what is shown is stored; try again"))
        }
    }
}

/// Writes the received files into a folder, and adds where each message's file is.
fn save_files(
    folder: &Path,
    messages: &[Message],
    saved: &mut BTreeMap<u64, PathBuf>,
) -> Result<(), Failure> {
    for message in messages
        .iter()
        .filter(|message| message.direction == Direction::In)
    {
        if let Some(Content::File(file)) = &message.content {
            let path = save(folder, file).map_err(|error| {
                let what = format!("cannot save a file in {}: {error}", folder.display());
                Failure::new(Exit::Failure, what)
            })?;
            saved.insert(message.order, path);
        }
    }
    Ok(())
}

/// Writes a file under its own name, or the first free one like it.
fn save(folder: &Path, file: &File) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    for number in 0..MAX_NAMES {
        let path = match number {
            0 => folder.join(file.name()),
            number => folder.join(format!("{number}-{}", file.name())),
        };
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(mut open) => {
                open.write_all(file.bytes())?;
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| File::new("a.txt", "", text.as_bytes().to_vec()).unwrap();
        let first = save(folder.path(), &file("one")).unwrap();
        let second = save(folder.path(), &file("two")).unwrap();
        assert_eq!(first, folder.path().join("a.txt"));
        assert_eq!(second, folder.path().join("1-a.txt"));
        assert_eq!(std::fs::read_to_string(first).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(second).unwrap(), "two");
    }
}
