//! What one client does, one file for each kind of load.

pub mod send;

use rossby_seams::random::{Random as _, SeededRandom};

/// Cheap chance for choosing a box: no key is made of it.
#[derive(Debug)]
pub(crate) struct Chance(SeededRandom);

impl Chance {
    /// The chance of the client with this number.
    pub(crate) fn of_client(number: usize) -> Self {
        Self(SeededRandom::new(number as u64))
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let mut drawn = [0; 8];
        // This source never fails.
        let _ = self.0.fill(&mut drawn);
        let bound = bound.max(1) as u64;
        usize::try_from(u64::from_le_bytes(drawn) % bound).unwrap_or(0)
    }
}
