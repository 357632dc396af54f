//! Where each entry of a group is, and the newest entries themselves.

use std::collections::VecDeque;

use bytes::Bytes;

use super::record::Place;
use crate::LogPosition;

/// What is known of one entry: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) term: u64,
    /// Segment 0: not written yet, so the entry is in the cache only.
    place: Place,
    pub(super) body_bytes: u32,
    /// Tells an entry from another one that had the same index before a truncation.
    ticket: u32,
}

const _: () = assert!(size_of::<Slot>() == 24);

impl Slot {
    pub(super) fn waiting(term: u64, body_bytes: u32, ticket: u32) -> Self {
        Self {
            term,
            place: Place::default(),
            body_bytes,
            ticket,
        }
    }

    pub(super) fn written(term: u64, body_bytes: u32, place: Place) -> Self {
        Self {
            term,
            place,
            body_bytes,
            ticket: 0,
        }
    }

    /// Where the entry is on disk, once it is durable.
    pub(super) fn place(&self) -> Option<Place> {
        (self.place.segment != 0).then_some(self.place)
    }
}

/// The log of one group: no gaps, an optional purge mark below.
///
/// Entries become durable in order, so the waiting ones are always the last; and they are always in
/// the cache, which holds the newest entries without gaps.
#[derive(Debug, Default)]
pub(super) struct Index {
    first: u64,
    slots: VecDeque<Slot>,
    cache: VecDeque<Bytes>,
    cached_bytes: u64,
    purged: Option<LogPosition>,
}

impl Index {
    /// The index of what recovery found.
    pub(super) fn recovered(
        purged: Option<LogPosition>,
        first: u64,
        slots: VecDeque<Slot>,
    ) -> Self {
        Self {
            first,
            slots,
            purged,
            ..Self::default()
        }
    }

    pub(super) fn purged(&self) -> Option<LogPosition> {
        self.purged
    }

    /// One more than the last index.
    fn end(&self) -> u64 {
        self.first.saturating_add(self.slots.len() as u64)
    }

    /// The index of the first entry that is there.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    pub(super) fn last(&self) -> Option<LogPosition> {
        match self.slots.back() {
            Some(slot) => Some(LogPosition {
                term: slot.term,
                index: self.end() - 1,
            }),
            None => self.purged,
        }
    }

    /// The index that the next entry must have; any will do for an empty log.
    pub(super) fn expected(&self) -> Option<u64> {
        self.last().map(|last| last.index.saturating_add(1))
    }

    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    fn offset(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first)?)
            .ok()
            .filter(|at| *at < self.slots.len())
    }

    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(self.offset(index)?)
    }

    pub(super) fn cached(&self, index: u64) -> Option<&Bytes> {
        let uncached = self.slots.len() - self.cache.len();
        self.cache.get(self.offset(index)?.checked_sub(uncached)?)
    }

    /// Adds the entry at [`Self::expected`] (or at `index`, if the log is empty).
    pub(super) fn append(&mut self, index: u64, slot: Slot, body: Bytes) {
        if self.slots.is_empty() {
            self.first = index;
        }
        self.cached_bytes += body.len() as u64;
        self.slots.push_back(slot);
        self.cache.push_back(body);
    }

    /// Drops entries after `kept`, or all. Whether there were any.
    pub(super) fn truncate_after(&mut self, kept: Option<u64>) -> bool {
        let kept = kept
            .and_then(|kept| kept.checked_add(1)?.checked_sub(self.first))
            .unwrap_or(0);
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        let mut any = false;
        while self.slots.len() > kept {
            any = true;
            self.slots.pop_back();
            self.uncache(VecDeque::pop_back);
        }
        any
    }

    /// Drops entries up to `upto` and remembers it. `false` if that much was purged before.
    pub(super) fn purge(&mut self, upto: LogPosition) -> bool {
        if self.purged >= Some(upto) {
            return false;
        }
        self.purged = Some(upto);
        while !self.slots.is_empty() && self.first <= upto.index {
            if self.cache.len() == self.slots.len() {
                self.uncache(VecDeque::pop_front);
            }
            self.slots.pop_front();
            self.first += 1;
        }
        true
    }

    fn uncache(&mut self, pop: impl FnOnce(&mut VecDeque<Bytes>) -> Option<Bytes>) {
        if let Some(body) = pop(&mut self.cache) {
            self.cached_bytes -= body.len() as u64;
        }
    }

    /// Notes where an entry is, now that it is durable; nothing if it is no longer that entry.
    pub(super) fn settle(&mut self, index: u64, ticket: u32, place: Place) {
        let slot = self.offset(index).and_then(|at| self.slots.get_mut(at));
        if let Some(slot) = slot.filter(|slot| slot.ticket == ticket && slot.place.segment == 0) {
            slot.place = place;
        }
    }

    /// Whether the entry at `index` is durable, or purged; `None` if there is none.
    pub(super) fn is_durable(&self, index: u64) -> Option<bool> {
        let purged = self.purged.is_some_and(|purged| index <= purged.index);
        if purged {
            Some(true)
        } else {
            self.slot(index).map(|slot| slot.place().is_some())
        }
    }

    /// Where the oldest live entry is, if it is durable.
    pub(super) fn oldest(&self) -> Option<Place> {
        self.slots.front().and_then(Slot::place)
    }

    /// Frees the oldest cached entry, unless it is not durable yet. The bytes freed.
    pub(super) fn evict_one(&mut self) -> Option<u64> {
        let uncached = self.slots.len() - self.cache.len();
        self.slots.get(uncached)?.place()?;
        let before = self.cached_bytes;
        self.uncache(VecDeque::pop_front);
        Some(before - self.cached_bytes)
    }
}
