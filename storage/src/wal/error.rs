//! Why the log failed, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{GroupId, ReplicaId};

/// Why the log failed. [`WalError::Io`] and [`WalError::Corrupt`] from a write are final: from then on
/// every operation gives the same error until the node is started again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
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
    /// The bytes on disk are not those that were written.
    #[error(
        "the log is damaged: {} at byte {offset}: {what}. This replica's memory can not be trusted any \
         more. Do not edit the log. Check the disk, move the data directory away, and let the node \
         join again as a new replica: it gets its data from the other nodes",
        path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The log was written by a version of Rossby that this one does not know.
    #[error(
        "{} has log format {found}, but this version of rossby knows format {supported} only: start the \
         version that wrote it, or a later one",
        path.display()
    )]
    UnknownVersion {
        /// The segment.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format supported.
        supported: u32,
    },
    /// The options make no sense.
    #[error(
        "segments of {0} bytes are not possible: choose a multiple of 4096 from 16 KiB to 1 GiB"
    )]
    SegmentSize(u64),
    /// The disk is full: entries are refused until space returns. Votes still go through.
    #[error("the disk is full: free some space, the log then goes on by itself")]
    DiskFull,
    /// The log was shut down.
    #[error("the log is closed")]
    Closed,
    /// This replica was removed from this node for good; its id is never used again.
    #[error("replica {replica} of group {group} was removed from this node and can not come back")]
    ReplicaRemoved {
        /// The group.
        group: GroupId,
        /// The removed replica.
        replica: ReplicaId,
    },
    /// The log holds another replica of the group.
    #[error("the log holds replica {held} of group {group}, not {asked}")]
    OtherReplica {
        /// The group.
        group: GroupId,
        /// The replica that was asked for.
        asked: ReplicaId,
        /// The replica whose log this is.
        held: ReplicaId,
    },
    /// An entry does not follow the last one.
    #[error("entry {found} does not follow the log of group {group}, which goes on at {expected}")]
    NotContiguous {
        /// The group.
        group: GroupId,
        /// The index that comes next.
        expected: u64,
        /// The index that was given.
        found: u64,
    },
    /// An entry, or a vote, is larger than the log can hold.
    #[error("an entry of {bytes} bytes is over the log's limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// There is no such entry: never appended, or truncated.
    #[error("the log of group {group} has no entry {index}")]
    NoSuchEntry {
        /// The group.
        group: GroupId,
        /// The index.
        index: u64,
    },
}

impl WalError {
    /// For `map_err`: an I/O error with what was being done, and to what.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// Whether this is the system saying that no space is left.
    pub(super) fn is_no_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded)
            }
            _ => false,
        }
    }
}
