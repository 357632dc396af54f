//! The only one who writes to the log.
//!
//! A drain: take what waits, lay it out as one run of sectors, write it with one write and one
//! fdatasync, then tell everybody, in order. After it, and on nobody's time: a piece of the next
//! segment is filled, old segments are freed, space is looked at.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_domain::planted::{Bug, planted};
use rossby_seams::disk::Disk;

use super::WalError;
use super::ledger::{Change, Ledger};
use super::record::{Header, Kind, Place, Record, SECTOR_BYTES};
use super::segment::{self, FIRST_RECORD, Preparation, Segment, mix};
use super::shared::{Done, Item, Shared};

/// The least that is filled of the next segment at a time: one sync each.
const FILL_STEP_BYTES: u32 = 256 << 10;
/// How far the filling of the next segment is ahead of the use of the present one.
const FILL_LEAD: u32 = 2;

/// The writer: one drain of the queue at a time. Production runs it on a thread
/// ([`super::spawn_writer`]), simulation as a task. When it is dropped the log is closed, and what
/// still waits is told so.
#[derive(Debug)]
pub struct WalWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) cache_bytes: u64,
    /// What was written so far.
    pub(super) ledger: Ledger,
    /// The segment in use and where the next drain starts; none before the first drain, and after
    /// a torn tail.
    pub(super) current: Option<(Arc<Segment>, u32)>,
    /// The end of the last drain.
    pub(super) synced: Place,
    pub(super) next: Next,
    /// A digest of all that was written, which new segments draw their salt from.
    pub(super) chain: u64,
    /// Whether the last record says that the log was closed in order.
    pub(super) sealed: bool,
    pub(super) buffer: Vec<u8>,
}

/// The segment to use next.
#[derive(Debug)]
pub(super) enum Next {
    /// Its number; not begun.
    Missing(u32),
    Filling(Preparation),
    Ready(Segment),
}

/// An entry that was laid out, and where.
struct Placed {
    group: GroupId,
    replica: ReplicaId,
    index: u64,
    ticket: u32,
    place: Place,
}

impl WalWriter {
    /// Waits for work and does one drain: writes, one fdatasync, then tells everybody.
    /// `false` when the log is closed (all handles dropped, or shut down) and the queue is empty, or
    /// the log has failed.
    pub fn run_once(&mut self) -> bool {
        {
            let shared = Arc::clone(&self.shared);
            let mut inner = shared.inner.lock();
            while !inner.has_work() && inner.failure.is_none() {
                shared.work.wait(&mut inner);
            }
        }
        self.drain() || !self.is_over()
    }

    /// Waits for work without blocking the thread: for a writer that runs as a task.
    pub async fn ready(&self) {
        loop {
            let notified = self.shared.ready.notified();
            if self.shared.inner.lock().has_work() {
                return;
            }
            notified.await;
        }
    }

    /// Whether there is nothing left to do for ever.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let inner = self.shared.inner.lock();
        inner.failure.is_some() || (inner.closed && inner.queue.is_empty())
    }

    /// Does what waits now, if anything, without waiting for more. For simulation.
    /// `false` if there was nothing to write.
    pub fn drain(&mut self) -> bool {
        if self.shared.inner.lock().failure.is_some() {
            return false;
        }
        let (records, done, closing) = self.take();
        let nothing = records.is_empty() && done.is_empty();
        let mut outcome = if records.is_empty() {
            Ok(())
        } else {
            self.write(&records)
        };
        if outcome.is_ok() && closing && nothing {
            outcome = self.seal();
        }
        if outcome.is_ok() {
            done.into_iter().for_each(|done| done.tell(Ok(())));
            outcome = self.keep_house(&records);
            if let Err(failure) = outcome {
                self.fail(&failure, Vec::new());
            }
        } else if let Err(failure) = outcome {
            self.fail(&failure, done);
        }
        !nothing
    }

    /// Takes from the queue what one drain may hold.
    fn take(&self) -> (Vec<(Record, u32)>, Vec<Done>, bool) {
        let mut inner = self.shared.inner.lock();
        let (mut records, mut done) = (Vec::new(), Vec::new());
        let mut total = 0;
        inner.look_again = false;
        while let Some(item) = inner.queue.pop_front() {
            match item {
                Item::Done(waiter) => done.push(waiter),
                Item::Record { record, ticket } => {
                    let span = record.span() as u64;
                    if total + span > self.shared.drain_bytes && !records.is_empty() {
                        inner.queue.push_front(Item::Record { record, ticket });
                        break;
                    }
                    total += span;
                    inner.queued_bytes = inner.queued_bytes.saturating_sub(span);
                    records.push((record, ticket));
                }
            }
        }
        // A mark must not come before the entry it names.
        let closing = inner.closed && inner.queue.is_empty();
        if inner.queue.is_empty() && (closing || !records.is_empty()) {
            for group in std::mem::take(&mut inner.marks) {
                if let Some(state) = inner.groups.get(&group) {
                    let (replica, position) = (state.replica, state.committed);
                    let body = Bytes::new();
                    let kind = Kind::Committed;
                    records.push((
                        Record {
                            kind,
                            group,
                            replica,
                            position,
                            body,
                        },
                        0,
                    ));
                }
            }
        }
        (records, done, closing)
    }

    /// Writes and syncs one drain, then notes where its entries are.
    fn write(&mut self, records: &[(Record, u32)]) -> Result<(), WalError> {
        let bytes: usize = records.iter().map(|(record, _)| record.span()).sum();
        let fits = |(segment, offset): &(Arc<Segment>, u32)| {
            *offset as usize + bytes.next_multiple_of(SECTOR_BYTES) <= segment.bytes as usize
        };
        self.buffer.clear();
        if !self.current.as_ref().is_some_and(fits) {
            self.roll()?;
        }
        let Some((segment, offset)) = self.current.clone() else {
            return Err(WalError::Closed);
        };
        if self.buffer.len() + bytes > (segment.bytes - offset) as usize {
            let limit = self.shared.entry_limit;
            return Err(WalError::TooLarge {
                bytes: self.buffer.len() + bytes,
                limit,
            });
        }
        let mut placed = Vec::new();
        for (record, ticket) in records {
            let place = self.lay_out(record, &segment, offset)?;
            if let (Kind::Entry, Some(position)) = (record.kind, record.position) {
                let (group, replica, index) = (record.group, record.replica, position.index);
                placed.push(Placed {
                    group,
                    replica,
                    index,
                    ticket: *ticket,
                    place,
                });
            }
        }
        self.buffer
            .resize(self.buffer.len().next_multiple_of(SECTOR_BYTES), 0);
        let of_entries =
            |(record, _): &(Record, u32)| matches!(record.kind, Kind::Entry | Kind::Committed);
        if planted(Bug::AckBeforeFsync) && records.iter().all(of_entries) {
            segment.write_unsynced(&self.buffer, offset)?;
        } else {
            segment.write(&self.buffer, offset)?;
        }
        let end = offset + self.buffer.len() as u32;
        self.synced = segment.place(end);
        self.current = Some((segment, end));
        self.sealed = false;
        self.settle(placed);
        Ok(())
    }

    /// Starts the next segment: its first record holds the ledger.
    fn roll(&mut self) -> Result<(), WalError> {
        while !matches!(self.next, Next::Ready(_)) {
            self.prepare(u32::MAX)?;
        }
        let number = match &self.next {
            Next::Ready(segment) => segment.number + 1,
            _ => return Err(WalError::Closed),
        };
        let Next::Ready(segment) = std::mem::replace(&mut self.next, Next::Missing(number)) else {
            return Err(WalError::Closed);
        };
        let segment = Arc::new(segment);
        self.shared
            .inner
            .lock()
            .segments
            .insert(segment.number, Arc::clone(&segment));
        let (group, replica) = (GroupId(0), ReplicaId(0));
        let body = self.ledger.encode();
        let begin = Record {
            kind: Kind::Begin,
            group,
            replica,
            position: None,
            body,
        };
        if begin.span() + SECTOR_BYTES > (segment.bytes / 4) as usize {
            let limit = (segment.bytes / 4) as usize;
            return Err(WalError::TooLarge {
                bytes: begin.span(),
                limit,
            });
        }
        self.lay_out(&begin, &segment, FIRST_RECORD)?;
        self.current = Some((segment, FIRST_RECORD));
        Ok(())
    }

    /// Puts a record into the buffer, which will be written at `start`.
    fn lay_out(
        &mut self,
        record: &Record,
        segment: &Segment,
        start: u32,
    ) -> Result<Place, WalError> {
        let at = self.buffer.len();
        let place = segment.place(start + at as u32);
        if record.kind != Kind::Begin {
            let change = Change {
                kind: record.kind,
                group: record.group,
                replica: record.replica,
                position: record.position,
                body: &record.body,
            };
            let applied = self.ledger.apply(change, segment.number);
            applied.map_err(|what| segment.corrupt(place.offset as usize, what))?;
        }
        let header = Header {
            kind: record.kind,
            group: record.group,
            replica: record.replica,
            position: record.position,
            body_bytes: record.body.len() as u32,
            body_crc: crc32c::crc32c(&record.body),
            synced_upto: self.synced,
        };
        let head = header.encode(place, segment.salt);
        self.chain = mix(self.chain ^ u64::from(crc32c::crc32c(&head)));
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(&record.body);
        self.buffer.resize(at + record.span(), 0);
        Ok(place)
    }

    fn settle(&self, placed: Vec<Placed>) {
        let mut inner = self.shared.inner.lock();
        inner.end = self.synced;
        for Placed {
            group,
            replica,
            index,
            ticket,
            place,
        } in placed
        {
            let state = inner
                .groups
                .get_mut(&group)
                .filter(|state| state.replica == replica);
            if let Some(state) = state {
                state.index.settle(index, ticket, place);
            }
        }
        for (group, state) in &mut inner.groups {
            if !state.waiters.is_empty() {
                state.tell_waiters(*group);
            }
        }
        inner.evict(self.cache_bytes);
    }

    /// Says at the end that all was synced, if the segment has room for that.
    fn seal(&mut self) -> Result<(), WalError> {
        let room = self
            .current
            .as_ref()
            .is_some_and(|(segment, end)| *end < segment.bytes);
        if self.sealed || !room {
            return Ok(());
        }
        let (group, replica) = (GroupId(0), ReplicaId(0));
        let body = Bytes::new();
        let seal = Record {
            kind: Kind::Seal,
            group,
            replica,
            position: None,
            body,
        };
        self.write(&[(seal, 0)])?;
        self.sealed = true;
        Ok(())
    }

    /// What is done between drains.
    fn keep_house(&mut self, records: &[(Record, u32)]) -> Result<(), WalError> {
        let frees = |kind| matches!(kind, Kind::Truncate | Kind::Purge | Kind::Remove);
        if records.iter().any(|(record, _)| frees(record.kind)) {
            self.free_segments()?;
        }
        self.fill_ahead()?;
        self.measure_room()
    }

    /// Removes the oldest segments as long as they hold nothing live.
    pub(super) fn free_segments(&mut self) -> Result<(), WalError> {
        let Some((current, _)) = &self.current else {
            return Ok(());
        };
        let needed = self
            .ledger
            .oldest_needed()
            .unwrap_or(current.number)
            .min(current.number);
        loop {
            // Readers that found an entry before it was purged still hold the file.
            let mut inner = self.shared.inner.lock();
            match inner.segments.first_key_value() {
                Some((number, _)) if *number < needed => {}
                _ => return Ok(()),
            }
            let Some((_, oldest)) = inner.segments.pop_first() else {
                return Ok(());
            };
            drop(inner);
            // One by one, each synced: power loss must not leave a gap.
            segment::remove(&*self.disk, &oldest.path)?;
        }
    }

    /// Keeps the filling of the next segment ahead of the use of this one.
    fn fill_ahead(&mut self) -> Result<(), WalError> {
        let Some((_, used)) = self.current else {
            return Ok(());
        };
        let target = used.saturating_mul(FILL_LEAD);
        let filled = match &self.next {
            Next::Missing(_) => 0,
            Next::Filling(preparation) => preparation.filled(),
            Next::Ready(_) => return Ok(()),
        };
        if filled >= target {
            return Ok(());
        }
        let step = (target - filled).max(FILL_STEP_BYTES);
        let free = self.disk.free_bytes(&self.directory);
        let free = free.map_err(WalError::io("measure the space of", &self.directory))?;
        if free < u64::from(step) {
            // What is kept back on a full disk is for what can not wait.
            return Ok(());
        }
        match self.prepare(step) {
            Err(failure) if failure.is_no_space() => Ok(()),
            other => other,
        }
    }

    /// Goes on with the next segment by at most `limit` bytes.
    ///
    /// # Errors
    /// Without space what was filled is kept where it is safe, and the next try goes on from there.
    pub(super) fn prepare(&mut self, limit: u32) -> Result<(), WalError> {
        let number = match &mut self.next {
            Next::Ready(_) => return Ok(()),
            Next::Missing(number) => *number,
            Next::Filling(preparation) => {
                preparation.step(limit)?;
                if preparation.is_full() {
                    self.next = Next::Ready(preparation.finish(&*self.disk)?);
                }
                return Ok(());
            }
        };
        let (directory, bytes) = (&self.directory, self.shared.segment_bytes);
        let salt = mix(self.chain ^ u64::from(number));
        self.next = Next::Filling(Preparation::start(
            &*self.disk,
            directory,
            number,
            salt,
            bytes,
            self.synced,
        )?);
        self.prepare(limit)
    }

    /// Works out how much may be queued so that there is certainly space for it. A quarter of a
    /// segment always stays for votes, truncations and purges.
    pub(super) fn measure_room(&mut self) -> Result<(), WalError> {
        let free = self.disk.free_bytes(&self.directory);
        let free = free.map_err(WalError::io("measure the space of", &self.directory))?;
        let segment = u64::from(self.shared.segment_bytes);
        let here = self
            .current
            .as_ref()
            .map_or(0, |(segment, end)| segment.bytes - end);
        let (ready, to_fill) = match &self.next {
            Next::Missing(_) => (0, segment),
            Next::Filling(preparation) => (0, segment - u64::from(preparation.filled())),
            Next::Ready(_) => (segment - u64::from(FIRST_RECORD), 0),
        };
        let kept = self.shared.drain_bytes + segment / 4;
        let prepared = (u64::from(here) + ready).saturating_sub(kept);
        let possible = free.saturating_sub(to_fill).saturating_sub(segment) / 2;
        let mut inner = self.shared.inner.lock();
        inner.room_bytes = prepared.saturating_add(possible);
        // All that is prepared is kept then: nobody knows how long it has to last.
        inner.disk_full = free < segment / 4;
        Ok(())
    }

    /// The log has failed for good: everybody who waits, and who comes, is told.
    fn fail(&mut self, failure: &WalError, done: Vec<Done>) {
        let (queue, waiters) = {
            let mut inner = self.shared.inner.lock();
            inner.failure.get_or_insert_with(|| failure.clone());
            let groups = inner.groups.values_mut();
            let waiters: Vec<_> = groups
                .flat_map(|group| std::mem::take(&mut group.waiters))
                .collect();
            (std::mem::take(&mut inner.queue), waiters)
        };
        // Whoever runs the node says what that means for it.
        tracing::warn!(error = %failure, "the write-ahead log has stopped");
        let queued = queue.into_iter().filter_map(|item| match item {
            Item::Done(done) => Some(done),
            Item::Record { .. } => None,
        });
        let waiting = waiters.into_iter().map(|(_, sender)| Done::Send(sender));
        for done in done.into_iter().chain(queued).chain(waiting) {
            done.tell(Err(failure.clone()));
        }
    }
}

impl Drop for WalWriter {
    fn drop(&mut self) {
        let over = {
            let mut inner = self.shared.inner.lock();
            inner.closed = true;
            inner.queue.is_empty() && inner.groups.values().all(|group| group.waiters.is_empty())
        };
        if !over {
            self.fail(&WalError::Closed, Vec::new());
        }
    }
}
