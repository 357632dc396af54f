//! Rows of a partition that commands look at again and again, decoded.
//!
//! A send looks at five rows: the partition's meta, the recipient's profile, key record and queue state, and
//! what its box remembers of the sender. Most of them were looked at or written shortly before.
//!
//! Invariant: what is known of a row is what the layers over the base show of it. Freezing, settling and
//! taking back change where rows are, not what they are.
//!
//! Its memory is bounded by bytes, since a profile or a key record may be large: [`BUDGET_BYTES`] for each
//! partition, so at worst 16 MiB for the 256 partitions of a deployment. Once they are used up it begins anew.

use std::collections::BTreeMap;

use rossby_domain::chain::KeyRecord;
use rossby_domain::dedupe::SenderRow;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::profile::Profile;
use rossby_domain::tables::{Meta, QueueState};

/// What the rows that a partition knows may take: their length in encoded form, and a flat rate for each.
const BUDGET_BYTES: usize = 64 * 1024;
/// A larger row is not kept, lest it drive out all others.
const MAX_ROW_BYTES: usize = BUDGET_BYTES / 4;
/// The flat rate: the key, the place in the map, and what a decoded row takes beside its encoded form.
const FLAT_BYTES: usize = 256;

/// The rows that are known; never that there is none.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) meta: Option<Meta>,
    records: BTreeMap<BoxId, Row<KeyRecord>>,
    profiles: BTreeMap<BoxId, Row<Profile>>,
    queues: BTreeMap<BoxId, Row<QueueState>>,
    senders: BTreeMap<(BoxId, DeviceAddress), Row<SenderRow>>,
    /// What they take.
    bytes: usize,
}

#[derive(Debug)]
struct Row<T> {
    value: T,
    bytes: usize,
}

/// A map of rows in [`Known`].
macro_rules! rows {
    ($map:ident, $key:ty, $value:ty, $get:ident, $set:ident, $forget:ident) => {
        pub(crate) fn $get(&self, key: &$key) -> Option<&$value> {
            self.$map.get(key).map(|row| &row.value)
        }

        /// `encoded` is the length of its encoded form.
        pub(crate) fn $set(&mut self, key: &$key, value: $value, encoded: usize) {
            self.$forget(key);
            let bytes = encoded.saturating_add(FLAT_BYTES);
            if self.make_room(bytes) {
                self.bytes += bytes;
                self.$map.insert(*key, Row { value, bytes });
            }
        }

        pub(crate) fn $forget(&mut self, key: &$key) {
            if let Some(row) = self.$map.remove(key) {
                self.bytes = self.bytes.saturating_sub(row.bytes);
            }
        }
    };
}

impl Known {
    rows!(records, BoxId, KeyRecord, record, set_record, forget_record);
    rows!(
        profiles,
        BoxId,
        Profile,
        profile,
        set_profile,
        forget_profile
    );
    rows!(queues, BoxId, QueueState, queue, set_queue, forget_queue);
    rows!(
        senders,
        (BoxId, DeviceAddress),
        SenderRow,
        sender,
        set_sender,
        forget_sender
    );

    /// Makes room for a row; `false` if it is too large to be kept.
    fn make_room(&mut self, bytes: usize) -> bool {
        if bytes > MAX_ROW_BYTES {
            return false;
        }
        if self.bytes + bytes > BUDGET_BYTES {
            let meta = self.meta;
            *self = Self {
                meta,
                ..Self::default()
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::PartitionId;

    use super::*;

    fn box_of(number: u8) -> BoxId {
        BoxId::derive(PartitionId::new(1).unwrap(), &[number; 32])
    }

    /// A queue state that can be told from others.
    fn state(number: u64) -> QueueState {
        QueueState {
            bytes: number,
            ..QueueState::default()
        }
    }

    proptest! {
        #[test]
        fn what_is_known_is_what_was_set_last_and_never_takes_more_than_the_budget(
            steps in proptest::collection::vec((any::<u8>(), 0..20_000_usize, 0..8_u8), 1..400)
        ) {
            let mut known = Known::default();
            let mut last = BTreeMap::new();
            for (number, (key, bytes, kind)) in (0..).zip(steps) {
                let key = box_of(key % 64);
                if kind == 0 {
                    known.forget_queue(&key);
                    last.remove(&key);
                } else {
                    // Most rows are small.
                    let bytes = if kind == 1 { bytes } else { bytes / 40 };
                    known.set_queue(&key, state(number), bytes);
                    last.insert(key, state(number));
                    let small = bytes + FLAT_BYTES <= MAX_ROW_BYTES;
                    prop_assert_eq!(known.queue(&key).is_some(), small);
                }
                let taken: usize = known.queues.values().map(|row| row.bytes).sum();
                prop_assert_eq!(taken, known.bytes);
                prop_assert!(taken <= BUDGET_BYTES);
                for (key, row) in &known.queues {
                    prop_assert_eq!(Some(&row.value), last.get(key));
                }
            }
        }
    }
}
