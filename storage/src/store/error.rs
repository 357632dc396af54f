//! Why the store failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::GroupId;
use rossby_seams::base::BaseError;

use crate::LogPosition;
use crate::codec::CodecError;

/// Why the store failed. Unless a variant says otherwise it stops the replica: what the replica
/// holds in memory is no longer known to be right, while log and checkpoint still are.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk failed.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Bytes on the disk are not what was written. They are never served.
    #[error("{what} {location} is damaged: {detail}; {remedy}")]
    Corrupt {
        /// What kind of thing, for example `checkpoint file`.
        what: &'static str,
        /// Which one.
        location: String,
        /// How it shows.
        detail: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// Written by a newer build.
    #[error("{what} {location} has format version {found}; this build reads up to {supported}")]
    Version {
        /// What kind of thing.
        what: &'static str,
        /// Which one.
        location: String,
        /// Its version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// The base failed or is damaged. It is rebuilt from the checkpoint at the next start.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// An entry of the log can't be read as commands.
    #[error("log entry {position:?} can not be read: {source}")]
    Entry {
        /// Which entry.
        position: LogPosition,
        /// Why.
        source: CodecError,
    },
    /// The tables hold what they can't hold if every command was applied as it should be.
    #[error("inconsistent state: {0}")]
    Inconsistent(&'static str),
    /// An entry was applied out of order.
    #[error("entry {position:?} does not follow {applied:?}")]
    OutOfOrder {
        /// The entry.
        position: LogPosition,
        /// The last one applied.
        applied: LogPosition,
    },
    /// A checkpoint is older than what the group has. Nothing changed, and the replica goes on.
    #[error("checkpoint at {offered:?} is older than {held:?}")]
    Backwards {
        /// The checkpoint's position.
        offered: LogPosition,
        /// What the group has.
        held: LogPosition,
    },
    /// A checkpoint of another group. Nothing changed, and the replica goes on.
    #[error("checkpoint is of group {found}, not of group {expected}")]
    WrongGroup {
        /// The checkpoint's group.
        found: GroupId,
        /// The group that was asked.
        expected: GroupId,
    },
    /// A piece of a checkpoint that does not fit, or a file that is not part of it.
    /// Nothing changed, and the replica goes on.
    #[error("checkpoint transfer: {0}")]
    Transfer(&'static str),
    /// The group is already open, or its last checkpoint is still being written.
    #[error("group {0} is already open")]
    Busy(GroupId),
    /// The group or the store was closed.
    #[error("the store is closed")]
    Closed,
    /// The group failed before; the first failure is in the log.
    #[error("the group's state failed before")]
    Failed,
}

/// What to do about a damaged file of the truth on this disk.
pub(crate) const REMEDY_REPLICA: &str =
    "restore this node's data directory from a backup, or have this replica rebuilt from its peers";
/// What to do about damaged bytes from a peer.
pub(crate) const REMEDY_PEER: &str = "the transfer can be repeated; check the sender's disk";
/// What to do about damaged bytes in a backup.
pub(crate) const REMEDY_BACKUP: &str = "use another copy of the backup, or an earlier one";
/// What to do about a damaged base.
pub(crate) const REMEDY_BASE: &str = "restart the node: the base is rebuilt from the checkpoint";

impl StoreError {
    /// An I/O failure, to be used in `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source: Arc::new(source),
        }
    }

    /// Whether the disk is full: the same may succeed once there is space again.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether the process, or the system, has as many files open as it may: the same may succeed once others
    /// are closed.
    #[must_use]
    pub fn is_too_many_files(&self) -> bool {
        use rustix::io::Errno;
        let limits = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        matches!(self, Self::Io { source, .. } if limits.contains(&source.raw_os_error()))
    }
}
