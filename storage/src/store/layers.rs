//! The rows of a partition: two layers in memory over the base.
//!
//! ```text
//!   live     what was applied since the last cut
//!   frozen   what the checkpoint being written holds, until it has reached the base (or nothing)
//!   base     what was in the last checkpoint that reached the base; of envelopes, that checkpoint's files
//! ```
//!
//! A read asks them in this order; a scan merges them. Invariant: `frozen` over the base shows the
//! state at the last cut at any moment, also while `frozen` is moving down chunk by chunk.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::base_rows::{BasePages, BasePartition};
use super::envelopes::{EnvelopeRows, StoredEnvelopes};
use super::error::StoreError;
use super::known::Known;
use super::layer::{Gauge, Layer, Slot};
use super::rows::{self, KeyRange, Table};

/// The layers of a partition.
#[derive(Debug)]
pub(crate) struct Layers {
    live: Layer,
    frozen: Option<Arc<Layer>>,
    envelopes: StoredEnvelopes,
    // Readers find out too.
    known: Mutex<Known>,
}

impl Layers {
    pub(crate) fn new(envelopes: StoredEnvelopes, gauge: Gauge) -> Self {
        Self {
            live: Layer::new(gauge),
            frozen: None,
            envelopes,
            known: Mutex::default(),
        }
    }

    /// What is known of some rows, decoded.
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    pub(crate) fn envelopes(&self) -> &StoredEnvelopes {
        &self.envelopes
    }

    /// Freezes what changed since the last cut; `None` if nothing did.
    pub(crate) fn freeze(&mut self) -> Option<Arc<Layer>> {
        if self.live.is_empty() {
            return None;
        }
        debug_assert!(self.frozen.is_none(), "one round at a time");
        let empty = Layer::new(self.live.gauge());
        let frozen = Arc::new(std::mem::replace(&mut self.live, empty));
        self.frozen = Some(Arc::clone(&frozen));
        Some(frozen)
    }

    /// Drops the frozen layer, which the base and these files now hold; what is not needed any more.
    pub(crate) fn settle(
        &mut self,
        frozen: &Arc<Layer>,
        envelopes: StoredEnvelopes,
    ) -> Option<(Arc<Layer>, StoredEnvelopes)> {
        let held = self.frozen.take_if(|held| Arc::ptr_eq(held, frozen))?;
        Some((held, std::mem::replace(&mut self.envelopes, envelopes)))
    }

    /// Takes back a freeze whose checkpoint did not come about.
    pub(crate) fn thaw(&mut self, frozen: &Arc<Layer>) {
        if let Some(held) = self.frozen.take_if(|held| Arc::ptr_eq(held, frozen)) {
            self.live.slide_over(&held);
        }
    }

    /// Forgets all changes.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(StoredEnvelopes::default(), self.live.gauge());
    }

    /// What memory says of a key; `None` if it says nothing.
    fn slot(&self, key: &[u8]) -> Option<&Slot> {
        self.live
            .get(key)
            .or_else(|| self.frozen.as_ref()?.get(key))
    }

    pub(crate) fn get(
        &self,
        base: &BasePartition,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        match self.slot(key) {
            Some(slot) => Ok(slot.value().cloned()),
            None => base.get(key),
        }
    }

    /// Sets a row that is hardly ever deleted. Whether a layer below shows it is not asked: should it be
    /// deleted after all, it leaves a trace where it need not.
    pub(crate) fn put_lasting(&mut self, key: Vec<u8>, value: Bytes) {
        self.live.set_lasting(key, value);
    }

    /// Sets a row.
    pub(crate) fn put(
        &mut self,
        base: &BasePartition,
        key: Vec<u8>,
        value: Bytes,
    ) -> Result<(), StoreError> {
        let born = match self.live.get(&key) {
            Some(Slot::Put { born, .. }) => *born,
            Some(Slot::Deleted) => false,
            None => match self.frozen.as_ref().and_then(|frozen| frozen.get(&key)) {
                Some(slot) => slot.value().is_none(),
                None => base.get(&key)?.is_none(),
            },
        };
        self.live.set(key, Slot::Put { value, born });
        Ok(())
    }

    /// Sets a row under a key that never was used before, so that the base need not be asked.
    pub(crate) fn put_new(&mut self, key: Vec<u8>, value: Bytes) -> Result<(), StoreError> {
        let was_frozen = self
            .frozen
            .as_ref()
            .is_some_and(|frozen| frozen.get(&key).is_some());
        if was_frozen || !self.live.set_new(key, Slot::Put { value, born: true }) {
            return Err(StoreError::Inconsistent("a new row's key was used before"));
        }
        Ok(())
    }

    /// Deletes a row, if there is one.
    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        match self.live.get(&key) {
            Some(Slot::Put { born: true, .. }) => self.live.remove(&key),
            _ => self.live.set(key, Slot::Deleted),
        }
    }

    /// Visits the rows within a range in order of key, until the visitor breaks off.
    pub(crate) fn scan(
        &self,
        base: &BasePartition,
        range: &KeyRange,
        page_rows: usize,
        mut visit: impl FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let queue = rows::whole(Table::Queue);
        let all = KeyRange::everything();
        let (before, after) = (
            KeyRange {
                start: all.start,
                end: queue.start.clone(),
            },
            KeyRange {
                start: queue.end.clone(),
                end: all.end,
            },
        );
        for part in [before, queue.clone(), after] {
            let Some(range) = range.within(&part) else {
                continue;
            };
            let flow = if part == queue {
                let files = self.envelopes.rows(&range).map(Lower::Files);
                base.noted(files.and_then(|lower| self.merge(&range, lower, &mut visit)))?
            } else {
                let lower = Lower::Base(base.pages(&range, page_rows));
                self.merge(&range, lower, &mut visit)?
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits what memory and `lower` have within a range.
    fn merge(
        &self,
        range: &KeyRange,
        mut lower: Lower<'_>,
        visit: &mut impl FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut upper = Upper {
            live: self.live.range(range).peekable(),
            frozen: self
                .frozen
                .as_ref()
                .map(|frozen| frozen.range(range).peekable()),
        };
        loop {
            let order = match (upper.peek_key(), lower.peek_key()?) {
                (None, None) => return Ok(ControlFlow::Continue(())),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(above), Some(below)) => above.cmp(below),
            };
            let flow = if order == Ordering::Greater {
                lower.visit_next(visit)?
            } else {
                if order == Ordering::Equal {
                    lower.skip()?;
                }
                match upper.next() {
                    Some((key, Slot::Put { value, .. })) => visit(key, value)?,
                    _ => ControlFlow::Continue(()),
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
    }
}

/// What is below memory.
enum Lower<'a> {
    Base(BasePages<'a>),
    Files(EnvelopeRows<'a>),
}

impl Lower<'_> {
    fn peek_key(&mut self) -> Result<Option<&[u8]>, StoreError> {
        match self {
            Self::Base(pages) => pages.peek_key(),
            Self::Files(rows) => rows.peek_key(),
        }
    }

    fn skip(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Base(pages) => pages.next().map(drop),
            Self::Files(rows) => rows.next().map(drop),
        }
    }

    fn visit_next(
        &mut self,
        visit: &mut impl FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let visited = match self {
            Self::Base(pages) => pages.next()?.map(|(key, value)| visit(&key, &value)),
            Self::Files(rows) => rows.next()?.map(|(key, value)| visit(&key, &value)),
        };
        visited.unwrap_or(Ok(ControlFlow::Continue(())))
    }
}

type Slots<'a> = Peekable<std::collections::btree_map::Range<'a, Vec<u8>, Slot>>;

/// The live layer over the frozen one.
struct Upper<'a> {
    live: Slots<'a>,
    frozen: Option<Slots<'a>>,
}

impl<'a> Upper<'a> {
    fn peek_key(&mut self) -> Option<&'a [u8]> {
        let live = self.live.peek().map(|(key, _)| key.as_slice());
        let frozen = self
            .frozen
            .as_mut()
            .and_then(|slots| slots.peek())
            .map(|(key, _)| key.as_slice());
        match (live, frozen) {
            (Some(live), Some(frozen)) => Some(live.min(frozen)),
            (one, other) => one.or(other),
        }
    }

    fn next(&mut self) -> Option<(&'a [u8], &'a Slot)> {
        let key = self.peek_key()?;
        let live = self
            .live
            .next_if(|(candidate, _)| candidate.as_slice() == key);
        let frozen = self
            .frozen
            .as_mut()
            .and_then(|slots| slots.next_if(|(candidate, _)| candidate.as_slice() == key));
        live.or(frozen).map(|(key, slot)| (key.as_slice(), slot))
    }
}
