//! Putting what came in into a folder.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rossby_client::device::{Direction, Message};
use rossby_client::envelope::Content;
use rossby_domain::ids::DeviceId;

use super::show;
use crate::exit::{Exit, Failure};

/// Names tried for one file before giving up.
const MAX_NAMES: u32 = 1000;
/// Bytes of a name here, less a number and a dash before it.
const MAX_NAME_BYTES: usize = 255 - 4;
/// A longer ending is none.
const MAX_ENDING_BYTES: usize = 16;

/// Writes the files that this device has not sent itself into a folder: where each message's file is, and
/// what went wrong first.
pub fn save_files(
    folder: &Path,
    messages: &[Message],
    this: DeviceId,
) -> (BTreeMap<u64, PathBuf>, Option<Failure>) {
    let (mut saved, mut unsaved) = (BTreeMap::new(), None);
    for message in messages
        .iter()
        .filter(|message| message.direction == Direction::In || message.sender.device != this)
    {
        let content = message.content.as_ref().and_then(Content::said);
        let Some((name, bytes)) = content.and_then(|content| file_of(content, message.order))
        else {
            continue;
        };
        match save(folder, &name, bytes) {
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
    (saved, unsaved)
}

/// What of a message is a file, and the name for it. Pictures and voice messages have none of their own.
fn file_of(content: &Content, number: u64) -> Option<(String, &[u8])> {
    match content {
        Content::File(file) => Some((file.name().to_owned(), file.bytes())),
        Content::Picture(picture) => {
            let ending = ending_of(picture.media_type());
            Some((format!("picture-{number}.{ending}"), picture.bytes()))
        }
        Content::Voice(voice) => {
            let ending = ending_of(voice.media_type());
            Some((format!("voice-{number}.{ending}"), voice.bytes()))
        }
        _ => None,
    }
}

/// How the name of a file ends that is said to be this: only endings that nothing runs.
fn ending_of(media_type: &str) -> &'static str {
    let name = media_type.split(';').next().unwrap_or_default();
    match name.trim().to_ascii_lowercase().as_str() {
        "image/gif" => "gif",
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "audio/flac" => "flac",
        "audio/mp4" => "m4a",
        "audio/mpeg" => "mp3",
        "audio/ogg" => "ogg",
        "audio/wav" => "wav",
        "audio/webm" => "webm",
        _ => "bin",
    }
}

/// Writes a file under its own name, or the first free one like it.
fn save(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let name = local_name(name);
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
                return match open.write_all(bytes) {
                    Ok(()) => Ok(path),
                    Err(error) => {
                        // Half a file would pass for the whole.
                        let _ = std::fs::remove_file(&path);
                        Err(error)
                    }
                };
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && holds(&path, bytes) => {
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Whether a file was saved there before.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let is_file = std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && usize::try_from(found.len()) == Ok(bytes.len()));
    is_file && std::fs::read(path).is_ok_and(|there| there == bytes)
}

/// A sender's name for a file, as one that is harmless here: not hidden, for in a home directory a
/// shell may run what is, no option of a command, and short enough to have a number put before it.
fn local_name(name: &str) -> String {
    let name = show::safe(name).replace('\u{fffd}', "_");
    let mut local = match name.strip_prefix(['.', '-']) {
        Some(rest) => format!("_{rest}"),
        None => name,
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
    use rossby_client::envelope::File;

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let first = save(folder.path(), "a.txt", b"one").unwrap();
        let second = save(folder.path(), "a.txt", b"two").unwrap();
        assert_eq!(first, folder.path().join("a.txt"));
        assert_eq!(second, folder.path().join("1-a.txt"));
        assert_eq!(std::fs::read_to_string(first).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(second).unwrap(), "two");
        // And nothing is saved twice.
        let again = save(folder.path(), "a.txt", b"two").unwrap();
        assert_eq!(again, folder.path().join("1-a.txt"));
    }

    #[test]
    fn no_name_of_a_senders_is_hidden_an_option_or_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}.png", "é".repeat(125));
        for name in [".bash_login", "..x", "-rf", "a.txt", &long] {
            for _ in 0..2 {
                let path = save(folder.path(), name, b"x").unwrap();
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
        let message = message(Content::File(file));
        let (saved, unsaved) = save_files(&taken, &[message], DeviceId::from_bytes([2; 16]));
        assert!(saved.is_empty() && unsaved.is_some());
    }

    #[test]
    fn pictures_and_voice_messages_are_saved_also_from_answers_and_never_as_programs() {
        use rossby_client::envelope::{Picture, Reply, Voice};
        let folder = tempfile::tempdir().unwrap();
        let picture = Picture::new("image/jpeg", (1, 1), "", b"p".to_vec()).unwrap();
        let voice = Voice::new("audio/x-../../evil", 0, b"v".to_vec()).unwrap();
        let mut picture = message(Content::Picture(picture));
        let to = picture.id().unwrap();
        picture.order = 3;
        let mut voice = message(Content::Reply(
            Reply::new(to, Content::Voice(voice)).unwrap(),
        ));
        voice.order = 4;
        let (saved, unsaved) = save_files(
            folder.path(),
            &[picture, voice],
            DeviceId::from_bytes([2; 16]),
        );
        assert!(unsaved.is_none());
        assert_eq!(saved[&3], folder.path().join("picture-3.jpg"));
        assert_eq!(saved[&4], folder.path().join("voice-4.bin"));
        assert_eq!(std::fs::read(&saved[&4]).unwrap(), b"v");
    }

    fn message(content: Content) -> Message {
        Message {
            order: 0,
            ..show::example::message(content)
        }
    }
}
