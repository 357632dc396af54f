//! The log of one replica, as the raft layer uses it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_domain::planted::{Bug, planted};
use tokio::sync::oneshot;

use super::index::Slot;
use super::record::{Kind, Record, span};
use super::segment::Segment;
use super::shared::{Done, GroupState, Inner, Item};
use super::{Handle, LogRecord, LogState, OnDurable, SMALL_APPEND_BYTES, WalError};
use crate::LogPosition;

/// The log of one replica. Clones share it.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) handle: Arc<Handle>,
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
}

impl fmt::Debug for GroupLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("GroupLog");
        shown
            .field("group", &self.group)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

/// Where the bytes of an entry are to be had.
enum Source {
    Memory(Bytes),
    Disk {
        segment: Arc<Segment>,
        offset: u32,
        body_bytes: u32,
    },
}

impl GroupLog {
    /// Whose log it is.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// What the log holds, submitted appends included. Nothing, if the replica was removed.
    #[must_use]
    pub fn state(&self) -> LogState {
        let mut inner = self.handle.shared.inner.lock();
        match inner.group(self.group, self.replica) {
            Ok(state) => LogState {
                purged: state.index.purged(),
                last: state.index.last(),
                vote: state.vote.clone(),
                committed: state.committed,
            },
            Err(_) => LogState::default(),
        }
    }

    /// The index of the first entry that is there.
    #[must_use]
    pub fn first_index(&self) -> Option<u64> {
        let mut inner = self.handle.shared.inner.lock();
        inner.group(self.group, self.replica).ok()?.index.first()
    }

    /// Appends entries that follow the last one (the first entry of an empty log may have any
    /// index). They can be read at once; `on_durable` is called, on the writer's thread and in the
    /// order of the calls, after the fdatasync that covers them.
    ///
    /// # Errors
    /// Nothing was appended and `on_durable` is never called: [`WalError::DiskFull`],
    /// [`WalError::NotContiguous`], [`WalError::TooLarge`], or the log has failed or is closed.
    pub fn append(&self, entries: Vec<LogRecord>, on_durable: OnDurable) -> Result<(), WalError> {
        let mut needed = 0;
        for entry in &entries {
            self.check_size(entry.bytes.len())?;
            needed += span(entry.bytes.len()) as u64;
        }
        self.submit(|inner| {
            let state = inner.group(self.group, self.replica)?;
            let mut expected = state.index.expected();
            for LogPosition { index: found, .. } in entries.iter().map(|entry| entry.position) {
                if let Some(expected) = expected.filter(|expected| *expected != found) {
                    let group = self.group;
                    return Err(WalError::NotContiguous {
                        group,
                        expected,
                        found,
                    });
                }
                expected = Some(found.saturating_add(1));
            }
            let small = needed <= SMALL_APPEND_BYTES;
            if !small && inner.queued_bytes.saturating_add(needed) > inner.room_bytes {
                inner.look_again = true;
                return Err(WalError::DiskFull);
            }
            for LogRecord { position, bytes } in entries {
                let ticket = inner.ticket();
                let slot = Slot::waiting(position.term, bytes.len() as u32, ticket);
                let state = inner.group(self.group, self.replica)?;
                state.index.append(position.index, slot, bytes.clone());
                inner.push(self.record(Kind::Entry, Some(position), bytes), ticket);
            }
            inner.queue.push_back(Item::Done(Done::Call(on_durable)));
            Ok(())
        })
    }

    /// Drops all entries after `index` (all of them for `None`); returns when that is durable.
    ///
    /// # Errors
    /// The log has failed or is closed: the truncation may or may not be durable.
    pub async fn truncate_after(&self, index: Option<u64>) -> Result<(), WalError> {
        self.submit_and_wait(|state| {
            let kept = index.map(|index| LogPosition { term: 0, index });
            let any = state.index.truncate_after(index);
            any.then(|| self.record(Kind::Truncate, kept, Bytes::new()))
        })
        .await
    }

    /// Drops all entries up to `upto`; returns when that is durable. An `upto` beyond the last
    /// entry empties the log, which then goes on after it.
    ///
    /// # Errors
    /// The log has failed or is closed: the purge may or may not be durable.
    pub async fn purge(&self, upto: LogPosition) -> Result<(), WalError> {
        self.submit_and_wait(|state| {
            let more = state.index.purge(upto);
            more.then(|| self.record(Kind::Purge, Some(upto), Bytes::new()))
        })
        .await
    }

    /// Saves the vote; returns when it is durable.
    ///
    /// # Errors
    /// [`WalError::TooLarge`], or the log has failed or is closed: the vote may or may not be durable.
    pub async fn save_vote(&self, vote: Bytes) -> Result<(), WalError> {
        self.check_size(vote.len())?;
        if planted(Bug::VoteNotSynced) {
            return self.leave_vote(vote);
        }
        self.submit_and_wait(|state| {
            state.vote = Some(vote.clone());
            Some(self.record(Kind::Vote, None, vote))
        })
        .await
    }

    /// A planted bug: the vote goes to disk with whatever is written next.
    fn leave_vote(&self, vote: Bytes) -> Result<(), WalError> {
        let mut inner = self.handle.shared.inner.lock();
        inner.check_open()?;
        inner.group(self.group, self.replica)?.vote = Some(vote.clone());
        inner.push(self.record(Kind::Vote, None, vote), 0);
        Ok(())
    }

    /// Notes the committed position. It goes to disk with a later drain; nobody waits for it.
    ///
    /// # Errors
    /// The log has failed or is closed.
    pub fn save_committed(&self, position: Option<LogPosition>) -> Result<(), WalError> {
        let mut inner = self.handle.shared.inner.lock();
        inner.check_open()?;
        inner.group(self.group, self.replica)?.committed = position;
        inner.marks.insert(self.group);
        Ok(())
    }

    /// Entries with `from <= index < to`, as many as there are without a gap from `from`.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] if the disk does not give back what was written; [`WalError::Io`].
    pub fn read(&self, from: u64, to: u64) -> Result<Vec<LogRecord>, WalError> {
        self.read_limited(from, to, u64::MAX)
    }

    /// Like [`Self::read`], but stops before the bodies add up to more than `limit_bytes`. The first
    /// entry is given whatever its size.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn read_limited(
        &self,
        from: u64,
        to: u64,
        limit_bytes: u64,
    ) -> Result<Vec<LogRecord>, WalError> {
        let mut entries = Vec::new();
        for (position, source) in self.locate(from, to, limit_bytes)? {
            let bytes = match source {
                Source::Memory(bytes) => bytes,
                Source::Disk {
                    segment,
                    offset,
                    body_bytes,
                } => self.fetch(&segment, offset, body_bytes, position)?,
            };
            entries.push(LogRecord { position, bytes });
        }
        Ok(entries)
    }

    fn locate(
        &self,
        from: u64,
        to: u64,
        limit_bytes: u64,
    ) -> Result<Vec<(LogPosition, Source)>, WalError> {
        let mut inner = self.handle.shared.inner.lock();
        inner.group(self.group, self.replica)?;
        let Inner {
            groups, segments, ..
        } = &*inner;
        let mut found = Vec::new();
        let mut total = 0_u64;
        let Some(index) = groups.get(&self.group).map(|state| &state.index) else {
            return Ok(found);
        };
        for at in from..to {
            let Some(slot) = index.slot(at) else { break };
            total = total.saturating_add(u64::from(slot.body_bytes));
            if total > limit_bytes && !found.is_empty() {
                break;
            }
            let on_disk = || {
                let place = slot.place()?;
                let segment = Arc::clone(segments.get(&place.segment)?);
                Some(Source::Disk {
                    segment,
                    offset: place.offset,
                    body_bytes: slot.body_bytes,
                })
            };
            let source = index
                .cached(at)
                .cloned()
                .map(Source::Memory)
                .or_else(on_disk);
            let missing = WalError::NoSuchEntry {
                group: self.group,
                index: at,
            };
            found.push((
                LogPosition {
                    term: slot.term,
                    index: at,
                },
                source.ok_or(missing)?,
            ));
        }
        Ok(found)
    }

    fn fetch(
        &self,
        segment: &Segment,
        offset: u32,
        body_bytes: u32,
        position: LogPosition,
    ) -> Result<Bytes, WalError> {
        let (header, body) = segment.read_record(offset, span(body_bytes as usize))?;
        let right = header.kind == Kind::Entry
            && (header.group, header.replica) == (self.group, self.replica)
            && header.position == Some(position);
        if right {
            Ok(body)
        } else {
            Err(segment.corrupt(
                offset as usize,
                "another record stands where the entry was written",
            ))
        }
    }

    /// Waits until the entry at `index` is durable.
    ///
    /// # Errors
    /// [`WalError::NoSuchEntry`] if it is not in the log or is truncated meanwhile; or the log has
    /// failed or is closed.
    pub async fn wait_durable(&self, index: u64) -> Result<(), WalError> {
        let receiver = {
            let mut inner = self.handle.shared.inner.lock();
            if let Some(failure) = &inner.failure {
                return Err(failure.clone());
            }
            let state = inner.group(self.group, self.replica)?;
            match state.index.is_durable(index) {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => {
                    return Err(WalError::NoSuchEntry {
                        group: self.group,
                        index,
                    });
                }
            }
            let (sender, receiver) = oneshot::channel();
            state.waiters.push((index, sender));
            receiver
        };
        receiver.await.unwrap_or(Err(WalError::Closed))
    }

    fn check_size(&self, bytes: usize) -> Result<(), WalError> {
        let limit = self.handle.shared.entry_limit;
        if bytes > limit {
            Err(WalError::TooLarge { bytes, limit })
        } else {
            Ok(())
        }
    }

    fn record(&self, kind: Kind, position: Option<LogPosition>, body: Bytes) -> Record {
        Record {
            kind,
            group: self.group,
            replica: self.replica,
            position,
            body,
        }
    }

    /// Changes the state and the queue in one step, and wakes the writer.
    fn submit(
        &self,
        change: impl FnOnce(&mut Inner) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        let shared = &self.handle.shared;
        let mut inner = shared.inner.lock();
        inner.check_open()?;
        let outcome = change(&mut inner);
        drop(inner);
        shared.wake();
        outcome
    }

    /// Changes the group's state and waits until that, and all before it, is durable.
    async fn submit_and_wait(
        &self,
        change: impl FnOnce(&mut GroupState) -> Option<Record>,
    ) -> Result<(), WalError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(|inner| {
            let state = inner.group(self.group, self.replica)?;
            let record = change(state);
            state.tell_waiters(self.group);
            if let Some(record) = record {
                inner.push(record, 0);
            }
            inner.queue.push_back(Item::Done(Done::Send(sender)));
            Ok(())
        })?;
        receiver.await.unwrap_or(Err(WalError::Closed))
    }
}
