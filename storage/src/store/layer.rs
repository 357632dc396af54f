//! One layer of changes in memory, and what it weighs.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::rows::KeyRange;

/// What a row costs beside its key and value: map entry, allocations, handle. An estimate.
const ROW_OVERHEAD_BYTES: u64 = 128;

/// Bytes in the layers of a node. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a layer says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The row has this value.
    Put {
        value: Bytes,
        /// No layer below shows the key, so deleting the row leaves no trace: an envelope that is
        /// fetched and acknowledged soon is never written below.
        born: bool,
    },
    /// The row is deleted, whatever is below.
    Deleted,
}

impl Slot {
    /// The row's value; `None` if it is deleted.
    pub(crate) fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Deleted => None,
        }
    }
}

/// Changes to a partition's rows, sorted by key.
#[derive(Debug)]
pub(crate) struct Layer {
    rows: BTreeMap<Vec<u8>, Slot>,
    bytes: u64,
    gauge: Gauge,
}

impl Layer {
    pub(crate) fn new(gauge: Gauge) -> Self {
        Self {
            rows: BTreeMap::new(),
            bytes: 0,
            gauge,
        }
    }

    pub(crate) fn gauge(&self) -> Gauge {
        self.gauge.clone()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.rows.get(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys and values, and the overhead.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn set(&mut self, key: Vec<u8>, slot: Slot) {
        let added = weight(&key, &slot);
        let removed = match self.rows.entry(key) {
            btree_map::Entry::Occupied(mut held) => {
                let removed = weight(held.key(), held.get());
                held.insert(slot);
                removed
            }
            btree_map::Entry::Vacant(empty) => {
                empty.insert(slot);
                0
            }
        };
        self.weigh(added, removed);
    }

    /// Sets a row whose key this layer does not have; whether it had none.
    pub(crate) fn set_new(&mut self, key: Vec<u8>, slot: Slot) -> bool {
        let added = weight(&key, &slot);
        let btree_map::Entry::Vacant(empty) = self.rows.entry(key) else {
            return false;
        };
        empty.insert(slot);
        self.weigh(added, 0);
        true
    }

    /// Sets a row; one that was born in this layer stays so.
    pub(crate) fn set_lasting(&mut self, key: Vec<u8>, value: Bytes) {
        let (added, removed) = match self.rows.entry(key) {
            btree_map::Entry::Occupied(mut held) => {
                let removed = weight(held.key(), held.get());
                let born = matches!(held.get(), Slot::Put { born: true, .. });
                let slot = Slot::Put { value, born };
                let added = weight(held.key(), &slot);
                held.insert(slot);
                (added, removed)
            }
            btree_map::Entry::Vacant(empty) => {
                let slot = Slot::Put { value, born: false };
                let added = weight(empty.key(), &slot);
                empty.insert(slot);
                (added, 0)
            }
        };
        self.weigh(added, removed);
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(old) = self.rows.remove(key) {
            self.weigh(0, weight(key, &old));
        }
    }

    /// Takes up all that `below` says and this layer does not, as if there had been one layer.
    pub(crate) fn slide_over(&mut self, below: &Layer) {
        for (key, old) in below.iter() {
            let merged = match (self.get(key), old) {
                (None, old) => Some(old.clone()),
                (Some(Slot::Put { value, .. }), Slot::Put { born, .. }) => Some(Slot::Put {
                    value: value.clone(),
                    born: *born,
                }),
                (Some(Slot::Put { value, .. }), Slot::Deleted) => Some(Slot::Put {
                    value: value.clone(),
                    born: false,
                }),
                // Born below, deleted here: it never was.
                (Some(Slot::Deleted), Slot::Put { born: true, .. }) => None,
                (Some(Slot::Deleted), _) => Some(Slot::Deleted),
            };
            match merged {
                Some(slot) => self.set(key.clone(), slot),
                None => self.remove(key),
            }
        }
    }

    fn weigh(&mut self, added: u64, removed: u64) {
        self.bytes = self.bytes.saturating_add(added).saturating_sub(removed);
        self.gauge.0.fetch_add(added, Ordering::Relaxed);
        self.gauge.0.fetch_sub(removed, Ordering::Relaxed);
    }

    pub(crate) fn iter(&self) -> btree_map::Iter<'_, Vec<u8>, Slot> {
        self.rows.iter()
    }

    /// The slots within a range. The caller has seen that `start < end`.
    pub(crate) fn range(&self, range: &KeyRange) -> btree_map::Range<'_, Vec<u8>, Slot> {
        let bounds = (
            Bound::Included(range.start.as_slice()),
            Bound::Excluded(range.end.as_slice()),
        );
        self.rows.range::<[u8], _>(bounds)
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn weight(key: &[u8], slot: &Slot) -> u64 {
    let value = slot.value().map_or(0, Bytes::len);
    u64::try_from(key.len().saturating_add(value))
        .unwrap_or(u64::MAX)
        .saturating_add(ROW_OVERHEAD_BYTES)
}
