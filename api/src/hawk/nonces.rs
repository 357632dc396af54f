//! Nonces that were used, so that a request captured on its way can't be played again.
//!
//! A nonce is remembered as long as its request would still be inside the time window, and never
//! forgotten earlier: when there is no room, new requests are refused instead. The store knows only
//! what came to this leader in this term; [`super::Guard`] refuses what an earlier leader may have seen.

use std::collections::{BTreeMap, HashMap, HashSet};

use rossby_domain::ids::DeviceAddress;
use sha2::{Digest as _, Sha256};

/// A device's nonce, hashed to a fixed size.
type Key = (DeviceAddress, [u8; 16]);

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is new and remembered from now on.
    New,
    /// It was used before.
    Replayed,
    /// There is no room to remember it.
    Full,
}

/// The nonces that a leader has seen in one term.
#[derive(Debug)]
pub struct Nonces {
    seen: HashSet<Key>,
    /// The same keys by the second that they were signed for.
    by_second: BTreeMap<u64, Vec<Key>>,
    per_device: HashMap<DeviceAddress, u32>,
    capacity: u32,
    per_device_capacity: u32,
    /// Everything signed before this second is out of the window, and forgotten. Never goes back,
    /// also when the clock does.
    floor: u64,
}

impl Nonces {
    /// Room for `capacity` nonces, a quarter of them for any one device.
    pub fn new(capacity: u32) -> Self {
        Self {
            seen: HashSet::new(),
            by_second: BTreeMap::new(),
            per_device: HashMap::new(),
            capacity,
            per_device_capacity: (capacity / 4).max(1),
            floor: 0,
        }
    }

    /// Remembers a nonce signed for `ts_secs`. `floor_secs` is the oldest second in the window.
    pub fn record(
        &mut self,
        address: &DeviceAddress,
        nonce: &str,
        ts_secs: u64,
        floor_secs: u64,
    ) -> Recorded {
        self.forget_before(floor_secs);
        // What has been forgotten can't be told from what is new.
        if ts_secs < self.floor {
            return Recorded::Replayed;
        }
        let key = (*address, hash(nonce, ts_secs));
        if self.seen.contains(&key) {
            return Recorded::Replayed;
        }
        let of_device = self.per_device.get(address).copied().unwrap_or(0);
        if self.len() >= u64::from(self.capacity) || of_device >= self.per_device_capacity {
            return Recorded::Full;
        }
        self.seen.insert(key);
        self.by_second.entry(ts_secs).or_default().push(key);
        self.per_device.insert(*address, of_device + 1);
        Recorded::New
    }

    /// How many are remembered.
    pub fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    fn forget_before(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        while let Some(second) = self.by_second.first_entry() {
            if *second.key() >= self.floor {
                break;
            }
            for key in second.remove() {
                self.seen.remove(&key);
                match self.per_device.get_mut(&key.0) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => {
                        self.per_device.remove(&key.0);
                    }
                }
            }
        }
    }
}

fn hash(nonce: &str, ts_secs: u64) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(ts_secs.to_be_bytes())
        .chain_update(nonce)
        .finalize();
    let mut short = [0; 16];
    short
        .iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::{BoxId, DeviceId, PartitionId};

    use super::*;

    fn device(number: u8) -> DeviceAddress {
        let box_id = BoxId::derive(PartitionId::new(0).unwrap(), &[1; 32]);
        DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([number; 16]),
        }
    }

    #[test]
    fn a_nonce_counts_once_per_device() {
        let mut nonces = Nonces::new(100);
        assert_eq!(nonces.record(&device(1), "a", 10, 0), Recorded::New);
        assert_eq!(nonces.record(&device(1), "a", 10, 0), Recorded::Replayed);
        assert_eq!(nonces.record(&device(2), "a", 10, 0), Recorded::New);
        assert_eq!(nonces.record(&device(1), "b", 10, 0), Recorded::New);
    }

    #[test]
    fn a_full_store_refuses_rather_than_forgets_and_has_room_again_later() {
        let mut nonces = Nonces::new(4);
        for number in 0..4 {
            assert_eq!(nonces.record(&device(number), "a", 10, 0), Recorded::New);
        }
        assert_eq!(nonces.record(&device(9), "a", 10, 0), Recorded::Full);
        assert_eq!(nonces.record(&device(0), "a", 10, 0), Recorded::Replayed);
        assert_eq!(nonces.record(&device(9), "a", 11, 11), Recorded::New);
        assert_eq!(nonces.len(), 1);
    }

    #[test]
    fn one_device_can_not_fill_the_store() {
        let mut nonces = Nonces::new(8);
        assert_eq!(nonces.record(&device(1), "a", 10, 0), Recorded::New);
        assert_eq!(nonces.record(&device(1), "b", 10, 0), Recorded::New);
        assert_eq!(nonces.record(&device(1), "c", 10, 0), Recorded::Full);
        assert_eq!(nonces.record(&device(2), "c", 10, 0), Recorded::New);
    }

    proptest! {
        /// Whatever the clock does, nothing is admitted twice.
        #[test]
        fn nothing_is_admitted_twice(
            steps in proptest::collection::vec((0_u8..3, 0_u8..4, 0_u64..40, 0_u64..40), 1..200)
        ) {
            let mut nonces = Nonces::new(1000);
            let mut admitted = HashSet::new();
            for (who, nonce, ts, floor) in steps {
                let new = nonces.record(&device(who), &nonce.to_string(), ts, floor) == Recorded::New;
                if new {
                    prop_assert!(admitted.insert((who, nonce, ts)));
                }
            }
        }
    }
}
