//! The data directory: its lock, its layout, and the identity file that says whose it is.
//!
//! ```text
//!   <data>/lock           held by the running process
//!   <data>/node           the identity: which node, which cluster, which replicas
//!   <data>/founding       the plan of the cluster, on nodes that founded it (crate `node`)
//!   <data>/mark           tells this directory from one that takes its place (crate `node`)
//!   <data>/promise        what its replicas promise their leaders (crate `node`)
//!   <data>/joining        names the try of a node to join a cluster by a token (crate `node`)
//!   <data>/map            the newest cluster map that the node knows (crate `node`)
//!   <data>/recovery       a recovery with loss of data that is under way (crate `node`)
//!   <data>/recovered      what the placement group must still be told of one (crate `node`)
//!   <data>/wal/           the write-ahead log
//!   <data>/checkpoints/   the checkpoints of each group
//!   <data>/base/          the rebuildable key-value store
//!   <data>/admin.sock     the operator's door
//! ```
//!
//! The identity is one line that names format and checksum, then JSON that a person can read. It is
//! replaced in one step, and only in ways that make sense: a directory never changes its node or its
//! cluster, and a replica that was removed never comes back.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_seams::disk::{self, Disk, DiskLock};
use serde::{Deserialize, Serialize};

/// The version of the identity file and of the layout.
pub const FORMAT: u32 = 2;

const LOCK: &str = "lock";
const IDENTITY: &str = "node";
const HEADLINE: &str = "rossby data directory";
/// Far more than any node's replicas need; keeps a wrong file from being read into memory.
const IDENTITY_LIMIT_BYTES: u64 = 16 << 20;

/// Why a data directory can not be used, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DataDirectoryError {
    /// Another process, or another part of this one, holds the lock.
    #[error(
        "{} is in use by another rossby process: stop that one, or give this node a data directory of \
         its own",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The system does not let this user in.
    #[error(
        "no permission to {doing} {}: the data directory must belong to the user that rossby runs as, \
         with mode 0700",
        path.display()
    )]
    NoPermission {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
    },
    /// Written by a version of Rossby that this one does not know.
    #[error(
        "{} has format {found}, but this version of rossby knows format {supported} only: start the \
         version that wrote it, or a later one",
        path.display()
    )]
    UnknownVersion {
        /// The identity file.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format supported.
        supported: u32,
    },
    /// The identity file is not what was written.
    #[error(
        "{} is damaged ({what}): do not edit it. Check the disk, move the data directory away, and let \
         the node join again: it gets its data from the other nodes",
        path.display()
    )]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The directory is another node's.
    #[error(
        "{} belongs to node {found}, not to node {asked}: give each node a data directory of its own",
        path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        asked: NodeId,
    },
    /// The directory is part of another cluster.
    #[error(
        "{} belongs to cluster {found}, not to cluster {asked}: use another data directory, or the \
         configuration of that cluster",
        path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Which it belongs to.
        found: ClusterId,
        /// Which was asked for.
        asked: ClusterId,
    },
    /// A replica that was removed from this node was to be used again.
    #[error("replica {replica} of group {group} was removed from this node and can not come back")]
    ReplicaRemoved {
        /// The group.
        group: GroupId,
        /// The removed replica.
        replica: ReplicaId,
    },
    /// Two replicas of one group were to live on this node.
    #[error("group {group} already has a replica on this node")]
    SecondReplica {
        /// The group.
        group: GroupId,
    },
    /// The disk failed.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
}

/// Which cluster a directory belongs to, and what is fixed at the cluster's birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterIdentity {
    /// The cluster.
    pub id: ClusterId,
    /// Its name, which clients sign requests for.
    pub name: String,
    /// How many partitions it has.
    pub partitions: PartitionCount,
    /// Tells the cluster's secrets from others, without telling anything of them. Made and compared
    /// by whoever holds the secrets.
    pub secrets_check: Option<String>,
}

/// A replica that this node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldReplica {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Whether this replica brings the group to life: one does, once; all others join.
    pub initialise: bool,
}

/// A replica that this node held once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedReplica {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
}

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its cluster, once it is in one.
    pub cluster: Option<ClusterIdentity>,
    /// The replicas it holds, one per group.
    pub replicas: BTreeSet<HeldReplica>,
    /// The replicas it held and never will again.
    pub removed: BTreeSet<RemovedReplica>,
}

impl Identity {
    /// A node that is in no cluster yet.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            cluster: None,
            replicas: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }

    /// The replica of a group that this node holds.
    #[must_use]
    pub fn replica(&self, group: GroupId) -> Option<&HeldReplica> {
        self.replicas.iter().find(|held| held.group == group)
    }

    /// This identity without a replica, which is remembered as removed.
    #[must_use]
    pub fn without(&self, group: GroupId, replica: ReplicaId) -> Self {
        let mut next = self.clone();
        next.replicas
            .retain(|held| (held.group, held.replica) != (group, replica));
        next.removed.insert(RemovedReplica { group, replica });
        next
    }

    fn check(&self) -> Result<(), DataDirectoryError> {
        let mut groups = BTreeSet::new();
        for HeldReplica { group, replica, .. } in self.replicas.iter().copied() {
            if self.removed.contains(&RemovedReplica { group, replica }) {
                return Err(DataDirectoryError::ReplicaRemoved { group, replica });
            }
            if !groups.insert(group) {
                return Err(DataDirectoryError::SecondReplica { group });
            }
        }
        Ok(())
    }
}

/// A node's data directory. While it is open, no other process can open it.
#[derive(Debug)]
pub struct DataDirectory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    identity: Option<Identity>,
    _lock: Box<dyn DiskLock>,
}

impl DataDirectory {
    /// Opens a data directory, made with mode 0700 if missing, locks it and reads whose it is.
    ///
    /// # Errors
    /// [`DataDirectoryError::InUse`], [`DataDirectoryError::NoPermission`],
    /// [`DataDirectoryError::UnknownVersion`], [`DataDirectoryError::Damaged`],
    /// [`DataDirectoryError::Io`]. Nothing was changed then, but for the folder and the lock file.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, DataDirectoryError> {
        disk.create_directory(path)
            .map_err(failed("create", path))?;
        let lock = disk
            .lock(&path.join(LOCK))
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => DataDirectoryError::InUse {
                    path: path.to_owned(),
                },
                _ => failed("lock", &path.join(LOCK))(error),
            })?;
        let identity = read_identity(&*disk, &path.join(IDENTITY))?;
        Ok(Self {
            disk,
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// Whose directory it is, without opening it; `None` if it is nobody's yet or there is none.
    ///
    /// # Errors
    /// As [`Self::open`], but for the lock.
    pub fn peek(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, DataDirectoryError> {
        read_identity(disk, &path.join(IDENTITY))
    }

    /// Whose directory it is; `None` until [`Self::save`] was called for the first time.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Checks that the directory is this node's, and of this cluster, as far as it is either yet.
    ///
    /// # Errors
    /// [`DataDirectoryError::OtherNode`], [`DataDirectoryError::OtherCluster`].
    pub fn expect(
        &self,
        node: NodeId,
        cluster: Option<ClusterId>,
    ) -> Result<(), DataDirectoryError> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        if identity.node != node {
            let (path, found) = (self.path.clone(), identity.node);
            return Err(DataDirectoryError::OtherNode {
                path,
                found,
                asked: node,
            });
        }
        match (identity.cluster.as_ref().map(|found| found.id), cluster) {
            (Some(found), Some(asked)) if found != asked => Err(DataDirectoryError::OtherCluster {
                path: self.path.clone(),
                found,
                asked,
            }),
            _ => Ok(()),
        }
    }

    /// Replaces the identity, durably and in one step. Replicas that were removed stay so.
    ///
    /// # Errors
    /// [`DataDirectoryError::OtherNode`] or [`DataDirectoryError::OtherCluster`] if it would become
    /// another's, [`DataDirectoryError::ReplicaRemoved`], [`DataDirectoryError::SecondReplica`]: nothing
    /// was changed. [`DataDirectoryError::Io`]: the old or the new identity is on disk.
    pub fn save(&mut self, mut identity: Identity) -> Result<(), DataDirectoryError> {
        self.expect(
            identity.node,
            identity.cluster.as_ref().map(|cluster| cluster.id),
        )?;
        if let Some(before) = &self.identity {
            identity.removed.extend(&before.removed);
            identity.cluster = identity.cluster.or_else(|| before.cluster.clone());
        }
        identity.check()?;
        if self.identity.as_ref() == Some(&identity) {
            // A start writes nothing, so it needs no space.
            return Ok(());
        }
        let path = self.path.join(IDENTITY);
        let bytes = encode(&identity).map_err(failed("encode", &path))?;
        disk::replace(&*self.disk, &path, &bytes).map_err(failed("write", &path))?;
        self.identity = Some(identity);
        Ok(())
    }

    /// The disk that the directory is on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the write-ahead log.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// The folder of the checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The folder of the rebuildable key-value store.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        self.path.join("base")
    }

    /// The operator's socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> DataDirectoryError + use<> {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DataDirectoryError::NoPermission {
                doing,
                path: path.clone(),
            }
        }
        _ => DataDirectoryError::Io {
            doing,
            path: path.clone(),
            source: Arc::new(source),
        },
    }
}

fn read_identity(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, DataDirectoryError> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", path))?,
    };
    let damaged = |what: String| DataDirectoryError::Damaged {
        path: path.to_owned(),
        what,
    };
    let length = file.len().map_err(failed("measure", path))?;
    let length = usize::try_from(length.min(IDENTITY_LIMIT_BYTES)).unwrap_or(0);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)
        .map_err(failed("read", path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("not text".into()))?;
    let (head, body) = text.split_once('\n').unwrap_or((text, ""));
    let fields = head
        .strip_prefix(HEADLINE)
        .map(|fields| fields.split_whitespace());
    let mut fields = fields.ok_or_else(|| damaged("it does not begin as it should".into()))?;
    let (version, checksum) = (fields.next(), fields.next());
    let version = version.and_then(|version| version.strip_prefix("format="));
    let found = version.and_then(|version| version.parse().ok());
    let found = found.ok_or_else(|| damaged("it names no format".into()))?;
    if found != FORMAT {
        let (path, supported) = (path.to_owned(), FORMAT);
        return Err(DataDirectoryError::UnknownVersion {
            path,
            found,
            supported,
        });
    }
    if checksum != Some(&format!("crc32c={:08x}", crc32c::crc32c(body.as_bytes()))) {
        return Err(damaged("its checksum does not match".into()));
    }
    let identity: Identity =
        serde_json::from_str(body).map_err(|error| damaged(error.to_string()))?;
    identity
        .check()
        .map_err(|error| damaged(error.to_string()))?;
    Ok(Some(identity))
}

fn encode(identity: &Identity) -> io::Result<Vec<u8>> {
    let body = serde_json::to_string_pretty(identity)? + "\n";
    let checksum = crc32c::crc32c(body.as_bytes());
    Ok(format!("{HEADLINE} format={FORMAT} crc32c={checksum:08x}\n{body}").into_bytes())
}
