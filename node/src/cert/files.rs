//! Certificates and keys as files.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// Where a certificate and its key are.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What is in them.
pub(super) struct Content {
    pub(super) certificate: String,
    pub(super) key: KeyPair,
}

impl Pair {
    /// A pair that is there.
    pub(super) fn existing(folder: &Path, name: &str) -> Self {
        Self {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        }
    }

    /// A pair to be made. Nothing may be in its way: a key that is overwritten is lost.
    pub(super) fn in_folder(folder: &Path, name: &str) -> Result<Self, Failure> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| write_failure(folder, &error))?;
        let pair = Self::existing(folder, name);
        for path in [&pair.certificate, &pair.key] {
            if path.symlink_metadata().is_ok() {
                return Err(write_failure(path, &io::ErrorKind::AlreadyExists.into()));
            }
        }
        Ok(pair)
    }

    pub(super) fn read(&self) -> Result<Content, Failure> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| {
                Failure::new(Exit::Failure, format!("{}: {error}", path.display()))
                    .help("`rossby cert ca --out DIR` makes an authority")
            })
        };
        let pem = Zeroizing::new(read(&self.key)?);
        let key = KeyPair::from_pem(&pem).map_err(|error| {
            Failure::new(Exit::Failure, format!("{}: {error}", self.key.display()))
        })?;
        Ok(Content {
            certificate: read(&self.certificate)?,
            key,
        })
    }

    /// Writes both, the key first: a certificate without its key is of no use.
    pub(super) fn write(&self, certificate: &str, key: &KeyPair) -> Result<(), Failure> {
        create(&self.key, 0o600, &Zeroizing::new(key.serialize_pem()))?;
        create(&self.certificate, 0o644, certificate)
    }
}

fn create(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| write_failure(path, &error))
}

fn write_failure(path: &Path, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Failure::new(
            Exit::Refused,
            format!("{} is there already", path.display()),
        )
        .help("move it away, or choose another folder with --out");
    }
    Failure::new(Exit::Failure, format!("{}: {error}", path.display()))
}
