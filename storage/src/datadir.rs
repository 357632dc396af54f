//! The data directory: its lock, its layout, and the identity file that says whose it is.
//!
//! ```text
//!   <data>/lock           held by the one process that uses the directory
//!         /node           the identity: written once, when the node enters its cluster
//!         /wal/           the log
//!         /checkpoints/   the state
//!         /base/          the key-value base, rebuildable
//! ```
//!
//! Small files like the identity are sealed: a line of JSON, then a line with its CRC-32C. They are
//! replaced in one durable step, and a flipped bit in one is an error, never another value.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_seams::disk::{self, Disk, DiskLock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The form of the identity file, so that a later one can be told apart.
const VERSION: u32 = 1;
/// The identity file's name.
const IDENTITY: &str = "node";
/// What the second line of a sealed file begins with.
const SEAL: &str = "crc32c ";

/// Why the data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process, or another holder in this one, uses it.
    #[error("{} is in use by another rossby process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what was written. Nothing is guessed from it.
    #[error("{} is damaged: {reason}; restore it from a copy, or set up this node anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// Written by a newer release.
    #[error("{} has format version {found}; this release reads up to {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl DataDirError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's number of partitions.
    pub partitions: PartitionCount,
    /// Its number.
    pub node: NodeId,
    /// The group that it serves.
    pub group: GroupId,
    /// Its replica of it.
    pub replica: ReplicaId,
    /// Tells the cluster's secrets from others, without telling anything of them.
    pub secrets_check: String,
}

/// The identity as it is stored.
#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u32,
    identity: serde_json::Value,
}

/// A data directory, locked for this process.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl DataDir {
    /// Takes the directory, made if missing, for this process alone.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] if somebody uses it, [`DataDirError::Io`] if it can't be made.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, DataDirError> {
        disk.create_directory(path)
            .map_err(DataDirError::io(path))?;
        let lock = path.join("lock");
        let lock = disk.lock(&lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => DataDirError::InUse {
                path: path.to_owned(),
            },
            _ => DataDirError::Io {
                path: lock,
                source: error,
            },
        })?;
        Ok(Self {
            disk,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The disk that it is on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the log.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// The folder of the checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The folder of the key-value base.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        self.path.join("base")
    }

    /// Whose directory it is, if it belongs to a node of a cluster.
    ///
    /// # Errors
    /// [`DataDirError`] if the file is damaged, of a newer release, or can't be read.
    pub fn identity(&self) -> Result<Option<Identity>, DataDirError> {
        let Some(stored) = self.read_sealed::<Versioned>(IDENTITY)? else {
            return Ok(None);
        };
        let path = self.path.join(IDENTITY);
        if stored.version != VERSION {
            return Err(DataDirError::Version {
                path,
                found: stored.version,
            });
        }
        match serde_json::from_value(stored.identity) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => Err(DataDirError::Damaged {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Gives the directory to a node of a cluster, durably.
    ///
    /// # Errors
    /// [`DataDirError::Io`] if it can't be written.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        let identity =
            serde_json::to_value(identity).map_err(|error| self.unwritable(IDENTITY, &error))?;
        self.replace_sealed(
            IDENTITY,
            &Versioned {
                version: VERSION,
                identity,
            },
        )
    }

    /// Reads a small sealed file of the directory; `None` if there is none.
    ///
    /// # Errors
    /// [`DataDirError`] if it is damaged or can't be read.
    pub fn read_sealed<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataDirError> {
        let path = self.path.join(name);
        match disk::read(&*self.disk, &path) {
            Ok(bytes) => match open_seal(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(reason) => Err(DataDirError::Damaged { path, reason }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DataDirError::Io { path, source }),
        }
    }

    /// Replaces a small sealed file of the directory in one durable step.
    ///
    /// # Errors
    /// [`DataDirError::Io`] if it can't be written.
    pub fn replace_sealed(&self, name: &str, value: &impl Serialize) -> Result<(), DataDirError> {
        let bytes = seal(value).map_err(|error| self.unwritable(name, &error))?;
        let path = self.path.join(name);
        disk::replace(&*self.disk, &path, &bytes).map_err(DataDirError::io(&path))
    }

    fn unwritable(&self, name: &str, error: &serde_json::Error) -> DataDirError {
        DataDirError::Io {
            path: self.path.join(name),
            source: io::Error::other(error.to_string()),
        }
    }
}

fn seal(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(value)?;
    let check = crc32c::crc32c(&bytes);
    bytes.extend(format!("\n{SEAL}{check:08x}\n").into_bytes());
    Ok(bytes)
}

fn open_seal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
    let (json, rest) = text.split_once('\n').ok_or("the checksum is missing")?;
    let found = rest
        .strip_prefix(SEAL)
        .and_then(|rest| rest.strip_suffix('\n'));
    if found != Some(format!("{:08x}", crc32c::crc32c(json.as_bytes())).as_str()) {
        return Err("the checksum does not match".to_owned());
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use rossby_seams::disk::{MemoryDisk, PowerLoss};

    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId::from_random([3; 16]),
            cluster_name: "test".to_owned(),
            partitions: PartitionCount::DEFAULT,
            node: NodeId(2),
            group: GroupId(1),
            replica: ReplicaId(4),
            secrets_check: "ab".to_owned(),
        }
    }

    fn open(disk: &MemoryDisk) -> Result<DataDir, DataDirError> {
        DataDir::open(Arc::new(disk.clone()), Path::new("/data"))
    }

    #[test]
    fn a_directory_is_one_holders_until_it_lets_go() {
        let disk = MemoryDisk::default();
        let first = open(&disk).unwrap();
        assert!(matches!(open(&disk), Err(DataDirError::InUse { .. })));
        drop(first);
        open(&disk).unwrap();
    }

    #[test]
    fn an_identity_is_there_after_power_loss() {
        let disk = MemoryDisk::default();
        let data = open(&disk).unwrap();
        assert_eq!(data.identity().unwrap(), None);
        data.set_identity(&identity()).unwrap();
        drop(data);
        let data = open(&disk.crash(PowerLoss::DropUnsynced)).unwrap();
        assert_eq!(data.identity().unwrap(), Some(identity()));
    }

    #[test]
    fn any_flipped_bit_in_the_identity_is_noticed() {
        let disk = MemoryDisk::default();
        let data = open(&disk).unwrap();
        data.set_identity(&identity()).unwrap();
        let path = Path::new("/data/node");
        let written = disk::read(&disk, path).unwrap();
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            disk::replace(&disk, path, &flipped).unwrap();
            let found = data.identity();
            assert!(
                matches!(found, Err(DataDirError::Damaged { .. })),
                "bit {bit}: {found:?}"
            );
        }
        disk::replace(&disk, path, &written[..written.len() / 2]).unwrap();
        assert!(matches!(data.identity(), Err(DataDirError::Damaged { .. })));
    }

    #[test]
    fn an_identity_of_a_newer_release_is_told_from_a_damaged_one() {
        let disk = MemoryDisk::default();
        let data = open(&disk).unwrap();
        let later = Versioned {
            version: 2,
            identity: serde_json::json!({ "more": true }),
        };
        data.replace_sealed(IDENTITY, &later).unwrap();
        assert!(matches!(
            data.identity(),
            Err(DataDirError::Version { found: 2, .. })
        ));
    }
}
