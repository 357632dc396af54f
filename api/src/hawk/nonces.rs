//! Nonces that were used, so that a request captured on its way can't be played again.
//!
//! A nonce is remembered as long as its request would still be inside the time window, and never
//! forgotten earlier: when there is no room, new requests are refused instead. The store knows only
//! what came to this leader in this term; [`super::Guard`] refuses what an earlier leader may have seen.
//!
//! A nonce takes 20 to 40 bytes: 16 of hash and a byte of control, in a table that is between 7/16 and 7/8
//! full. Its device takes as much again for each second in which it signed anything, and once more for the
//! whole window. Where most devices sign once or seldom, that is up to 120 bytes a nonce.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use rossby_domain::ids::DeviceAddress;
use sha2::{Digest as _, Sha256};

/// A device's nonce, hashed to a fixed size.
type Key = [u8; 16];
/// A device, hashed under a key that only this store knows. Two that meet here share an allowance.
type DeviceKey = u64;

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
    /// By the second that they were signed for, which is forgotten as a whole.
    seconds: BTreeMap<u64, Second>,
    per_device: HashMap<DeviceKey, u32>,
    len: u64,
    hasher: RandomState,
    capacity: u32,
    per_device_capacity: u32,
    /// Everything signed before this second is out of the window, and forgotten. Never goes back,
    /// also when the clock does.
    floor: u64,
}

/// What was signed for one second.
#[derive(Debug, Default)]
struct Second {
    seen: HashSet<Key>,
    per_device: HashMap<DeviceKey, u32>,
}

impl Nonces {
    /// Room for `capacity` nonces, a quarter of them for any one device.
    pub fn new(capacity: u32) -> Self {
        Self {
            seconds: BTreeMap::new(),
            per_device: HashMap::new(),
            len: 0,
            hasher: RandomState::new(),
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
        let key = hash(address, nonce);
        let second = self.seconds.get(&ts_secs);
        if second.is_some_and(|second| second.seen.contains(&key)) {
            return Recorded::Replayed;
        }
        let device = self.hasher.hash_one(address);
        let of_device = self.per_device.entry(device).or_default();
        if self.len >= u64::from(self.capacity) || *of_device >= self.per_device_capacity {
            if *of_device == 0 {
                self.per_device.remove(&device);
            }
            return Recorded::Full;
        }
        *of_device += 1;
        self.len += 1;
        let second = self.seconds.entry(ts_secs).or_default();
        second.seen.insert(key);
        *second.per_device.entry(device).or_default() += 1;
        Recorded::New
    }

    /// How many are remembered.
    pub fn len(&self) -> u64 {
        self.len
    }

    fn forget_before(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        while let Some(first) = self.seconds.first_entry() {
            if *first.key() >= self.floor {
                break;
            }
            let second = first.remove();
            self.len = self.len.saturating_sub(second.seen.len() as u64);
            for (device, count) in second.per_device {
                match self.per_device.get_mut(&device) {
                    Some(left) if *left > count => *left -= count,
                    _ => {
                        self.per_device.remove(&device);
                    }
                }
            }
        }
    }
}

fn hash(address: &DeviceAddress, nonce: &str) -> Key {
    let digest = Sha256::new()
        .chain_update(address.box_id.as_bytes())
        .chain_update(address.device.as_bytes())
        .chain_update(nonce)
        .finalize();
    let mut short = Key::default();
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
        /// Whatever the clock does, nothing is admitted twice, nothing is refused but for what is
        /// remembered or for want of room, and what is forgotten leaves its room.
        #[test]
        fn it_does_what_a_plain_set_does(
            capacity in 1_u32..60,
            steps in proptest::collection::vec((0_u8..3, 0_u8..4, 0_u64..40, 0_u64..40), 1..200)
        ) {
            let mut nonces = Nonces::new(capacity);
            let mut admitted = HashSet::new();
            let mut kept: Vec<(u8, u8, u64)> = Vec::new();
            let mut oldest = 0;
            for (who, nonce, ts, floor) in steps {
                let recorded = nonces.record(&device(who), &nonce.to_string(), ts, floor);
                oldest = floor.max(oldest);
                kept.retain(|(.., ts)| *ts >= oldest);
                let full = kept.len() >= capacity as usize
                    || kept.iter().filter(|(of, ..)| *of == who).count()
                        >= (capacity as usize / 4).max(1);
                let expected = if ts < oldest || kept.contains(&(who, nonce, ts)) {
                    Recorded::Replayed
                } else if full {
                    Recorded::Full
                } else {
                    Recorded::New
                };
                prop_assert_eq!(recorded, expected);
                if recorded == Recorded::New {
                    prop_assert!(admitted.insert((who, nonce, ts)));
                    kept.push((who, nonce, ts));
                }
                prop_assert_eq!(nonces.len(), kept.len() as u64);
                let devices: HashSet<u8> = kept.iter().map(|(who, ..)| *who).collect();
                prop_assert_eq!(nonces.per_device.len(), devices.len());
            }
        }
    }
}
