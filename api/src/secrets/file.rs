//! `cluster.keys`: a text file, so that an operator can see what it is and keep it safe.
//!
//! ```text
//!   rossby cluster keys, version 1
//!   # comments and empty lines are skipped
//!   <purpose> <id> <64 hexadecimal digits>       the last of each purpose is the current one
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::ring::{Key, Ring};
use super::{ClusterSecrets, KEY_BYTES, KeyPurpose};

const FIRST_LINE: &str = "rossby cluster keys, version 1";
const COMMENT: &str = "\
# Whoever has this file can impersonate every device to this cluster and read identifiers at rest
# (no messages). Keep it out of backups of the data directory, with mode 0600, the same on every node.
";
/// A file beyond this is no `cluster.keys`.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Why the secrets can't be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file can't be read or written.
    #[error("cluster.keys: {0}")]
    Io(#[from] std::io::Error),
    /// Others than the owner may open the file.
    #[error("cluster.keys can be opened by others than its owner (mode {mode:o}): chmod 600 it")]
    TooOpen {
        /// The file's permission bits.
        mode: u32,
    },
    /// The file is not what it should be. Nothing of it is repeated here.
    #[error("cluster.keys, line {line}: {problem}")]
    Malformed {
        /// The line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

pub fn load(path: &Path) -> Result<ClusterSecrets, SecretsError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(SecretsError::TooOpen { mode });
    }
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(SecretsError::Malformed {
            line: 0,
            problem: "not a file of cluster keys",
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES as usize));
    file.take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    decode(&text)
}

pub fn save(secrets: &ClusterSecrets, path: &Path) -> Result<(), SecretsError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = Path::new(&unfinished);
    // Left by a crash: it never was the file.
    match std::fs::remove_file(unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(unfinished)?;
    file.write_all(encode(secrets).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(unfinished, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

pub fn encode(secrets: &ClusterSecrets) -> Zeroizing<String> {
    use std::fmt::Write as _;

    // Large enough to never move, so that no copy is left behind in memory.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES as usize));
    text.push_str(FIRST_LINE);
    text.push('\n');
    text.push_str(COMMENT);
    for purpose in KeyPurpose::ALL {
        for key in secrets.ring(purpose).oldest_first() {
            // Writing to a String never fails.
            let _ = write!(text, "{} {} ", purpose.as_str(), key.id());
            key.bytes().iter().for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            });
            text.push('\n');
        }
    }
    text
}

pub fn decode(text: &str) -> Result<ClusterSecrets, SecretsError> {
    let mut lines = text.lines().zip(1..);
    if lines.next().map(|(line, _)| line.trim_end()) != Some(FIRST_LINE) {
        return Err(SecretsError::Malformed {
            line: 1,
            problem: "not a file of cluster keys, or of a version that is not known here",
        });
    }
    let mut keys: [Vec<Key>; 3] = Default::default();
    for (line, number) in lines {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (purpose, key) = key_of(line).map_err(|problem| SecretsError::Malformed {
            line: number,
            problem,
        })?;
        let [peppers, tokens, seals] = &mut keys;
        match purpose {
            KeyPurpose::Pepper => peppers.push(key),
            KeyPurpose::Token => tokens.push(key),
            KeyPurpose::Seal => seals.push(key),
        }
    }
    let ring = |keys| {
        let problem = "each purpose needs one to four keys, their ids rising";
        Ring::new(keys).ok_or(SecretsError::Malformed { line: 0, problem })
    };
    let [pepper, token, seal] = keys;
    Ok(ClusterSecrets {
        pepper: ring(pepper)?,
        token: ring(token)?,
        seal: ring(seal)?,
    })
}

fn key_of(line: &str) -> Result<(KeyPurpose, Key), &'static str> {
    let mut words = line.split_ascii_whitespace();
    let (Some(purpose), Some(id), Some(digits), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("expected purpose, id and key");
    };
    let purpose = KeyPurpose::ALL
        .into_iter()
        .find(|known| known.as_str() == purpose)
        .ok_or("unknown purpose")?;
    let id = id.parse().map_err(|_| "the id is not a number")?;
    let bytes = bytes_of(digits).ok_or("the key is not 64 hexadecimal digits")?;
    Ok((purpose, Key::new(id, bytes)))
}

fn bytes_of(digits: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = pair.iter().try_fold(0_u8, |sum, digit| {
            let value = char::from(*digit).to_digit(16)?;
            Some(sum << 4 | u8::try_from(value).ok()?)
        })?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;
    use rossby_seams::random::SeededRandom;

    use super::*;

    fn secrets() -> ClusterSecrets {
        let random = SeededRandom::new(7);
        let mut secrets = ClusterSecrets::generate(&random).unwrap();
        secrets.rotate(KeyPurpose::Seal, &random).unwrap();
        secrets
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_its_owner_can_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.keys");
        secrets().save(&path).unwrap();
        secrets().save(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        let loaded = ClusterSecrets::load(&path).unwrap();
        assert_eq!(*loaded.encode(), *secrets().encode());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_open_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.keys");
        secrets().save(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o700] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = ClusterSecrets::load(&path);
            assert!(matches!(refused, Err(SecretsError::TooOpen { mode: m }) if m == mode));
        }
    }

    #[test]
    fn a_bad_line_is_named_but_not_repeated() {
        let text = secrets().encode().replace("token 1 ", "token 1 zz");
        let error = ClusterSecrets::decode(&text).unwrap_err().to_string();
        assert_eq!(
            error,
            "cluster.keys, line 5: the key is not 64 hexadecimal digits"
        );
    }

    #[test]
    fn a_missing_purpose_a_repeated_id_and_another_version_are_refused() {
        let text = secrets().encode();
        let without: String = text
            .lines()
            .filter(|l| !l.starts_with("pepper"))
            .map(|l| format!("{l}\n"))
            .collect();
        let twice = text.replace("seal 2", "seal 1");
        let newer = text.replace("version 1", "version 2");
        for bad in [without, twice, newer, String::new()] {
            assert!(matches!(
                ClusterSecrets::decode(&bad),
                Err(SecretsError::Malformed { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn random_text_is_refused_without_a_panic(text in "\\PC*") {
            let whole = format!("{FIRST_LINE}\n{text}");
            prop_assert!(ClusterSecrets::decode(&whole).is_err());
        }
    }
}
