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
/// Bytes of a name here, less a number and a dash before it.
const MAX_NAME_BYTES: usize = 255 - 4;
/// A longer ending is none.
const MAX_ENDING_BYTES: usize = 16;

/// Fetches what is new, and shows it.
pub async fn run(args: &InboxArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    resend_quietly(&device).await?;
    // What a listener stored and did not come to show.
    let mut new = device.unshown()?;
    let (received, expired, interrupted) = match device.receive().await {
        Ok(received) => (
            received.messages,
            Some(received.status.expired_total),
            received.interrupted,
        ),
        // What this device has already can be shown without the service.
        Err(error) if args.all => (Vec::new(), None, Some(error)),
        Err(error) => return Err(error.into()),
    };
    new.extend(received);
    let messages = if args.all { device.messages()? } else { new };
    let (saved, unsaved) = match &args.save {
        Some(folder) => save_files(folder, &messages),
        None => Default::default(),
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
    if let Some(last) = messages.last() {
        device.mark_shown(last.order.saturating_add(1))?;
    }
    // Only now: the messages are shown, whatever became of their files.
    match (interrupted, unsaved) {
        (None, None) => Ok(()),
        (None, Some(failure)) => Err(failure),
        (Some(error), _) => {
            let failure = Failure::from(error);
            let what = format!("not all could be fetched: {}", failure.message);
            Err(Failure::new(failure.exit, what).help("what is shown is stored; try again"))
        }
    }
}

/// Writes the received files into a folder: where each message's file is, and what went wrong first.
pub(super) fn save_files(
    folder: &Path,
    messages: &[Message],
) -> (BTreeMap<u64, PathBuf>, Option<Failure>) {
    let (mut saved, mut unsaved) = (BTreeMap::new(), None);
    for message in messages
        .iter()
        .filter(|message| message.direction == Direction::In)
    {
        if let Some(Content::File(file)) = &message.content {
            match save(folder, file) {
                Ok(path) => {
                    saved.insert(message.order, path);
                }
                Err(error) => {
                    unsaved.get_or_insert_with(|| {
                        let what = format!("cannot save a file in {}: {error}", folder.display());
                        Failure::new(Exit::Failure, what)
                            .help("rossby inbox --all --save DIR tries again")
                    });
                }
            }
        }
    }
    (saved, unsaved)
}

/// Writes a file under its own name, or the first free one like it.
fn save(folder: &Path, file: &File) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let name = local_name(file.name());
    for number in 0..MAX_NAMES {
        let path = match number {
            0 => folder.join(&name),
            number => folder.join(format!("{number}-{name}")),
        };
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(mut open) => {
                return match open.write_all(file.bytes()) {
                    Ok(()) => Ok(path),
                    Err(error) => {
                        // Half a file would pass for the whole.
                        let _ = std::fs::remove_file(&path);
                        Err(error)
                    }
                };
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// A sender's name for a file, as one that is harmless here: not hidden, for in a home directory a
/// shell may run what is, no option of a command, and short enough to have a number put before it.
fn local_name(name: &str) -> String {
    let mut local = match name.strip_prefix(['.', '-']) {
        Some(rest) => format!("_{rest}"),
        None => name.to_owned(),
    };
    if local.len() > MAX_NAME_BYTES {
        let ending = match local.rsplit_once('.') {
            Some((_, ending)) if ending.len() <= MAX_ENDING_BYTES => format!(".{ending}"),
            _ => String::new(),
        };
        let room = MAX_NAME_BYTES - ending.len();
        let cut = (0..=room).rev().find(|at| local.is_char_boundary(*at));
        local.truncate(cut.unwrap_or_default());
        local.push_str(&ending);
    }
    local
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

    #[test]
    fn no_name_of_a_senders_is_hidden_an_option_or_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}.png", "é".repeat(125));
        for name in [".bash_login", "..x", "-rf", "a.txt", &long] {
            let file = File::new(name, "", b"x".to_vec()).unwrap();
            for _ in 0..2 {
                let path = save(folder.path(), &file).unwrap();
                let saved = path.file_name().unwrap().to_str().unwrap();
                assert!(!saved.starts_with(['.', '-']), "{saved}");
                assert!(
                    !name.ends_with(".png") || saved.ends_with(".png"),
                    "{saved}"
                );
            }
        }
    }

    #[test]
    fn a_file_that_can_not_be_saved_hides_no_message() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        std::fs::write(&taken, "not a folder").unwrap();
        let file = File::new("a.txt", "", b"x".to_vec()).unwrap();
        assert!(save(&taken, &file).is_err());
        let (saved, unsaved) = save_files(&taken, &[message(Content::File(file))]);
        assert!(saved.is_empty() && unsaved.is_some());
    }

    fn message(content: Content) -> Message {
        use rossby_client::device::Status;
        use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, PartitionId};
        let box_id = BoxId::derive(PartitionId::new(1).unwrap(), &[1; 32]);
        Message {
            order: 0,
            direction: Direction::In,
            sender: DeviceAddress {
                box_id,
                device: DeviceId::from_bytes([1; 16]),
            },
            recipient: box_id,
            counter: 1,
            sequence: None,
            at: rossby_domain::time::Timestamp::default(),
            content: Some(content),
            status: Status::Received,
        }
    }
}
