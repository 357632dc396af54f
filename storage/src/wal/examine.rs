//! Looking at a log without going on with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::Disk;

use super::segment::{self, Segment};
use super::{Handle, Wal, WalError, WalOptions, assemble, recovery};

/// What a log consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSurvey {
    /// Segments that hold records.
    pub segments: u64,
    /// Their length on disk, in bytes.
    pub bytes: u64,
    /// Records in them, of all groups, each read back whole.
    pub records: u64,
    /// The groups, and the replica whose log it is.
    pub groups: Vec<(GroupId, ReplicaId)>,
    /// Replicas that were removed from this node.
    pub removed: Vec<(GroupId, ReplicaId)>,
    /// How it ends.
    pub tail: LogTail,
}

/// How a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTail {
    /// There is no record.
    Empty,
    /// It was closed in good order.
    Closed,
    /// It was not closed, and its last drain is whole.
    Whole,
    /// Its last drain was cut off before anybody was told that it is durable. The next start
    /// leaves it behind.
    Torn {
        /// The segment.
        path: PathBuf,
        /// Where the cut-off part begins.
        offset: u64,
    },
}

/// Recovers the log in `directory` as a start would, and goes no further: the handle reads, and
/// takes nothing. Over an [`rossby_seams::disk::Inspection`] nothing is changed.
///
/// # Errors
/// Those of [`Wal::open`].
pub fn examine(
    disk: Arc<dyn Disk>,
    directory: &Path,
    options: WalOptions,
) -> Result<(Wal, LogSurvey), WalError> {
    let recovered = recovery::recover(&*disk, directory, options.segment_bytes as u32)?;
    let segments = recovered.segments.values();
    let last = recovered.segments.last_key_value();
    let tail = match last {
        None => LogTail::Empty,
        Some((_, segment)) if recovered.continues_at.is_none() => LogTail::Torn {
            path: segment.path.clone(),
            offset: u64::from(recovered.end.offset),
        },
        Some(_) if recovered.sealed => LogTail::Closed,
        Some(_) => LogTail::Whole,
    };
    let groups = recovered.ledger.groups.iter();
    let survey = LogSurvey {
        segments: recovered.segments.len() as u64,
        bytes: segments.map(|segment| u64::from(segment.bytes)).sum(),
        records: recovered.records,
        groups: groups.map(|(id, group)| (*id, group.replica)).collect(),
        removed: recovered.ledger.removed.iter().copied().collect(),
        tail,
    };
    let writer = assemble(disk, directory, options, recovered);
    let shared = Arc::clone(&writer.shared);
    // Closes the log: nobody will ever write to it.
    drop(writer);
    let handle = Arc::new(Handle { shared });
    Ok((Wal { handle }, survey))
}

/// All segments that hold damage of their own, as far as each can be read by itself: the first
/// damage in each. For a log that [`examine`] refuses, since recovery stops at the first.
///
/// # Errors
/// [`WalError::Io`].
pub fn damaged_segments(disk: &dyn Disk, directory: &Path) -> Result<Vec<WalError>, WalError> {
    let mut damage = Vec::new();
    for (number, path) in segment::list(disk, directory)? {
        let read = Segment::open(disk, &path, number).and_then(recovery::readable);
        match read {
            Ok((_, found)) => damage.extend(found),
            Err(error @ WalError::Io { .. }) => return Err(error),
            Err(error) => damage.push(error),
        }
    }
    Ok(damage)
}
