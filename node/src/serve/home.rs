//! A node's data directory as this crate uses it: whose it is, and which cluster it founds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_seams::disk::{self, Disk, DiskLock};
use serde::{Deserialize, Serialize};

use super::founding::Founding;

/// Why the data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Somebody uses it.
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
    /// A file is damaged, or not ours.
    #[error("{} can't be used: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Who a node is. Written once, when it enters its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    version: u32,
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

/// The form of the file, so that a later one can be told apart.
const VERSION: u32 = 1;

impl Identity {
    /// An identity.
    #[must_use]
    pub fn new(
        cluster: (ClusterId, String, PartitionCount),
        node: NodeId,
        (group, replica): (GroupId, ReplicaId),
        secrets_check: String,
    ) -> Self {
        let (cluster, cluster_name, partitions) = cluster;
        Self {
            version: VERSION,
            cluster,
            cluster_name,
            partitions,
            node,
            group,
            replica,
            secrets_check,
        }
    }
}

/// A data directory, locked for this process.
#[derive(Debug)]
pub struct Home {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl Home {
    /// Takes the directory, made if missing, for this process alone.
    ///
    /// # Errors
    /// [`HomeError`] if it is in use or can't be made.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, HomeError> {
        let io = |source| HomeError::Io {
            path: path.to_owned(),
            source,
        };
        disk.create_directory(path).map_err(io)?;
        let lock = disk
            .lock(&path.join("lock"))
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => HomeError::InUse {
                    path: path.to_owned(),
                },
                _ => io(error),
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

    /// Where the addresses in use are written once the node is ready.
    #[must_use]
    pub fn addresses(&self) -> PathBuf {
        self.path.join("addresses.json")
    }

    /// Whose directory it is, if it belongs to a cluster.
    ///
    /// # Errors
    /// [`HomeError`] if the file is damaged or can't be read.
    pub fn identity(&self) -> Result<Option<Identity>, HomeError> {
        self.read("node", |bytes| {
            let identity: Identity =
                serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            if identity.version == VERSION {
                Ok(identity)
            } else {
                Err(format!(
                    "version {} is not known to this release",
                    identity.version
                ))
            }
        })
    }

    /// Gives the directory to a node of a cluster, durably.
    ///
    /// # Errors
    /// [`HomeError`] if it can't be written.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), HomeError> {
        self.replace("node", &serde_json::to_vec_pretty(identity))
    }

    /// The cluster that this node founds, if it does.
    ///
    /// # Errors
    /// [`HomeError`] if the file is damaged or can't be read.
    pub fn founding(&self) -> Result<Option<Founding>, HomeError> {
        self.read("founding", Founding::decode)
    }

    /// Writes down the cluster that this node founds, durably.
    ///
    /// # Errors
    /// [`HomeError`] if it can't be written.
    pub fn set_founding(&self, founding: &Founding) -> Result<(), HomeError> {
        self.replace("founding", &founding.encode())
    }

    fn read<T>(
        &self,
        name: &str,
        decode: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, HomeError> {
        let path = self.path.join(name);
        match disk::read(&*self.disk, &path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(reason) => Err(HomeError::Damaged { path, reason }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }

    fn replace(
        &self,
        name: &str,
        content: &Result<Vec<u8>, serde_json::Error>,
    ) -> Result<(), HomeError> {
        let path = self.path.join(name);
        let write = |content: &[u8]| disk::replace(&*self.disk, &path, content);
        match content {
            Ok(content) => write(content),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
        .map_err(|source| HomeError::Io { path, source })
    }
}
