//! The write-ahead log: one per node, shared by all its groups.
//!
//! ```text
//!   GroupLog ── append, truncate, purge, vote, committed ──► one queue, in order
//!      ▲  │ read                                                  │ drain
//!      │  └──► cache of the newest entries ─ or ─► segment        ▼
//!      │                                              ▲        WalWriter: one write, one fdatasync
//!      └────────── told, in order ────────────────────┴───────────┘
//! ```
//!
//! Invariants:
//! - Nobody is told that something is durable before the fdatasync that covers it has succeeded.
//! - After a failed write or sync nothing is ever reported durable again.
//! - A sector that was synced is never written again, but for recovery putting the same bytes back.
//! - What is read is what was written, or an error: every read checks the record's checksums.
//! - Power loss alone never makes the log refuse to open (`recovery.rs` says how that is told from damage).

mod error;
mod examine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod index;
mod ledger;
mod log;
mod record;
mod recovery;
mod segment;
mod shared;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::Disk;
use tokio::sync::oneshot;

pub use self::error::WalError;
pub use self::examine::{LogSurvey, LogTail, damaged_segments, examine};
pub use self::log::GroupLog;
pub use self::writer::WalWriter;

use self::index::Index;
use self::record::{Kind, Place, Record};
use self::recovery::Recovered;
use self::shared::{Done, GroupState, Inner, Item, Shared};
use self::writer::Next;
use crate::LogPosition;

/// The most that one drain takes, unless a single record is larger.
const DRAIN_LIMIT_BYTES: u64 = 4 << 20;
/// Entries that may have passed [`Wal::accepts_entries`] and not been appended yet.
const ADMITTED_BYTES: u64 = 16 << 20;
/// Appends that are not larger go through on a full disk, as votes do: a new leader's first entry, and a
/// change of members. A replica that could not write them would have to stop.
const SMALL_APPEND_BYTES: u64 = 1024;
const SEGMENT_MIN_BYTES: u64 = 16 << 10;
const SEGMENT_MAX_BYTES: u64 = 1 << 30;
const SEGMENT_UNIT_BYTES: u64 = 4096;

/// Settings of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOptions {
    /// Bytes of a segment file: a multiple of 4096 from 16 KiB to 1 GiB. An entry can have up to a
    /// quarter of this. Existing segments keep their size.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory over all groups. Entries that are not durable yet are
    /// kept besides.
    pub cache_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

/// One entry of a group's log: opaque bytes at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it stands.
    pub position: LogPosition,
    /// What it says.
    pub bytes: Bytes,
}

/// What a group's log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogState {
    /// The last entry that was purged.
    pub purged: Option<LogPosition>,
    /// The last entry, which may be the purged one.
    pub last: Option<LogPosition>,
    /// The vote, as the raft layer encoded it.
    pub vote: Option<Bytes>,
    /// The last position saved as committed.
    pub committed: Option<LogPosition>,
}

/// Called once, when an append is durable or has failed.
pub type OnDurable = Box<dyn FnOnce(Result<(), WalError>) + Send + 'static>;

/// The log of a node. Clones share it; when the last one, and the last [`GroupLog`], is gone, the log
/// closes.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").finish_non_exhaustive()
    }
}

/// What all handles share; closes the log when the last one is dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inner.lock().closed = true;
        self.shared.wake();
    }
}

impl Wal {
    /// Opens the log in `directory`, made if missing, and recovers what it holds. Reads all of it:
    /// what was reported durable is there, whole and in order, or this fails.
    ///
    /// # Errors
    /// [`WalError::Corrupt`], [`WalError::UnknownVersion`], [`WalError::SegmentSize`],
    /// [`WalError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: WalOptions,
    ) -> Result<(Self, WalWriter), WalError> {
        let bytes = options.segment_bytes;
        let possible = (SEGMENT_MIN_BYTES..=SEGMENT_MAX_BYTES).contains(&bytes);
        if !possible || !bytes.is_multiple_of(SEGMENT_UNIT_BYTES) {
            return Err(WalError::SegmentSize(bytes));
        }
        disk.create_directory(directory)
            .map_err(WalError::io("create", directory))?;
        let recovered = recovery::recover(&*disk, directory, bytes as u32)?;
        if recovered.continues_at.is_none() && !recovered.segments.is_empty() {
            tracing::info!("the last drain of the log was cut off; it goes on in a new segment");
        }
        let mut writer = assemble(disk, directory, options, recovered);
        if writer.current.is_none() {
            // The first drain needs a segment at once; and a folder that can't hold one should be
            // known now.
            while !matches!(writer.next, Next::Ready(_)) {
                writer.prepare(u32::MAX)?;
            }
        }
        writer.free_segments()?;
        writer.measure_room()?;
        let shared = Arc::clone(&writer.shared);
        Ok((
            Self {
                handle: Arc::new(Handle { shared }),
            },
            writer,
        ))
    }

    /// The log of one replica. A group that the log does not know yet begins empty.
    ///
    /// # Errors
    /// [`WalError::ReplicaRemoved`] if this replica was removed, [`WalError::OtherReplica`] if the log
    /// holds another replica of the group, which must be removed first.
    pub fn log(&self, group: GroupId, replica: ReplicaId) -> Result<GroupLog, WalError> {
        self.handle.shared.inner.lock().group(group, replica)?;
        Ok(GroupLog {
            handle: Arc::clone(&self.handle),
            group,
            replica,
        })
    }

    /// Bytes of log that can not be freed because of this group: from its oldest live entry to the
    /// end, whoever wrote them. Tells when a checkpoint (and then a purge) is worth it. 0 after
    /// everything was purged.
    #[must_use]
    pub fn pinned_bytes(&self, group: GroupId) -> u64 {
        let shared = &self.handle.shared;
        let inner = shared.inner.lock();
        let Some(oldest) = inner
            .groups
            .get(&group)
            .and_then(|group| group.index.oldest())
        else {
            return 0;
        };
        let distance = |place: Place| {
            u64::from(place.segment) * u64::from(shared.segment_bytes) + u64::from(place.offset)
        };
        distance(inner.end).saturating_sub(distance(oldest))
    }

    /// Whether appends are accepted now, as far as space on disk goes, with a margin for those that
    /// were let in before and are still on their way. Recovers by itself.
    #[must_use]
    pub fn accepts_entries(&self) -> bool {
        let shared = &self.handle.shared;
        let mut inner = shared.inner.lock();
        let margin = ADMITTED_BYTES.min(u64::from(shared.segment_bytes) / 4);
        let needed = inner.queued_bytes.saturating_add(margin);
        let room = needed < inner.room_bytes && !inner.disk_full;
        let accepts = room && inner.check_open().is_ok();
        if !accepts {
            inner.look_again = true;
            drop(inner);
            shared.wake();
        }
        accepts
    }

    /// Why the log has failed, if it has: nothing more will ever be written to it.
    #[must_use]
    pub fn failure(&self) -> Option<WalError> {
        self.handle.shared.inner.lock().failure.clone()
    }

    /// Removes a replica from this node for good: its entries and vote are dropped, and its id is
    /// never accepted again. Returns when that is durable.
    ///
    /// # Errors
    /// The log has failed or is closed: the removal may or may not be durable.
    pub async fn remove_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), WalError> {
        let receiver = {
            let mut inner = self.handle.shared.inner.lock();
            inner.check_open()?;
            let (sender, receiver) = oneshot::channel();
            if inner.removed.insert((group, replica)) {
                forget(&mut inner, group, replica);
                let body = Bytes::new();
                let kind = Kind::Remove;
                inner.push(
                    Record {
                        kind,
                        group,
                        replica,
                        position: None,
                        body,
                    },
                    0,
                );
            }
            inner.queue.push_back(Item::Done(Done::Send(sender)));
            receiver
        };
        self.handle.shared.wake();
        receiver.await.unwrap_or(Err(WalError::Closed))
    }

    /// Whether this replica was removed from this node.
    #[must_use]
    pub fn is_removed(&self, group: GroupId, replica: ReplicaId) -> bool {
        let inner = self.handle.shared.inner.lock();
        inner.removed.contains(&(group, replica))
    }

    /// Closes the log: what was submitted is still written, everything later is refused.
    pub fn shut_down(&self) {
        self.handle.shared.inner.lock().closed = true;
        self.handle.shared.wake();
    }
}

fn forget(inner: &mut Inner, group: GroupId, replica: ReplicaId) {
    if inner
        .groups
        .get(&group)
        .is_some_and(|state| state.replica == replica)
    {
        inner.marks.remove(&group);
        let waiters = inner
            .groups
            .remove(&group)
            .map(|state| state.waiters)
            .unwrap_or_default();
        for (_, sender) in waiters {
            Done::Send(sender).tell(Err(WalError::ReplicaRemoved { group, replica }));
        }
    }
}

/// The log's state in memory, from what recovery found.
fn assemble(
    disk: Arc<dyn Disk>,
    directory: &Path,
    options: WalOptions,
    mut recovered: Recovered,
) -> WalWriter {
    let mut inner = Inner {
        end: recovered.end,
        ..Inner::default()
    };
    for (id, group) in &recovered.ledger.groups {
        let slots: VecDeque<_> = recovered.entries.remove(id).unwrap_or_default();
        let first = group.range().map_or(0, |(first, _)| first);
        let state = GroupState {
            replica: group.replica,
            vote: group.vote.clone(),
            committed: group.committed,
            index: Index::recovered(group.purged, first, slots),
            waiters: Vec::new(),
        };
        inner.groups.insert(*id, state);
    }
    inner.removed.clone_from(&recovered.ledger.removed);
    inner.segments.clone_from(&recovered.segments);
    let last = recovered
        .segments
        .last_key_value()
        .map(|(_, segment)| Arc::clone(segment));
    let shared = Shared {
        inner: Mutex::new(inner),
        // Whole in a segment with its beginning and other records.
        entry_limit: (options.segment_bytes / 4) as usize,
        segment_bytes: options.segment_bytes as u32,
        drain_bytes: DRAIN_LIMIT_BYTES.min(options.segment_bytes / 8),
        ..Shared::default()
    };
    WalWriter {
        shared: Arc::new(shared),
        disk,
        directory: directory.to_owned(),
        cache_bytes: options.cache_bytes,
        ledger: recovered.ledger,
        current: last.zip(recovered.continues_at),
        synced: recovered.end,
        next: recovered
            .prepared
            .map_or(Next::Missing(recovered.next_number), Next::Ready),
        chain: recovered.chain,
        sealed: recovered.sealed,
        buffer: Vec::new(),
    }
}

/// Runs the writer on a thread of its own until the log closes or fails.
///
/// # Errors
/// [`WalError::Io`] if the system gives no thread.
pub fn spawn_writer(mut writer: WalWriter) -> Result<JoinHandle<()>, WalError> {
    let builder = std::thread::Builder::new().name("rossby-wal".into());
    let spawned = builder.spawn(move || while writer.run_once() {});
    spawned.map_err(WalError::io("start a thread for", Path::new("rossby-wal")))
}
