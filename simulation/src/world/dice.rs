//! Chance: everything that a world draws comes from its seed.

use std::time::Duration;

use rossby_seams::random::{SeededRandom, bytes};

/// One stream of draws. Streams of different labels go on independently of each other, so that one
/// more draw here does not change what is drawn there.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    random: SeededRandom,
}

impl Dice {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            random: SeededRandom::new(seed),
        }
    }

    /// The seed of another stream of the same world.
    #[must_use]
    pub fn seed_of(&self, label: &str) -> u64 {
        // FNV-1a (Fowler, Noll, Vo) over the seed and the label.
        let seed = self.seed.to_le_bytes();
        seed.iter()
            .chain(label.as_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
    }

    /// Another stream of the same world.
    #[must_use]
    pub fn stream(&self, label: &str) -> Self {
        Self::new(self.seed_of(label))
    }

    /// Any number.
    pub fn draw(&self) -> u64 {
        bytes(&self.random)
            .map(u64::from_le_bytes)
            .unwrap_or_default()
    }

    /// A number from `least` to `most`.
    pub fn between(&self, least: u64, most: u64) -> u64 {
        let span = most.saturating_sub(least).saturating_add(1);
        least + self.draw().checked_rem(span).unwrap_or_default()
    }

    /// A time from `least` to `most` milliseconds.
    pub fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    /// Whether something happens that happens this often of 1,000 times.
    pub fn permille(&self, often: u64) -> bool {
        self.between(0, 999) < often
    }

    /// One of these.
    pub fn pick<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        let last = u64::try_from(among.len()).ok()?.checked_sub(1)?;
        among.get(usize::try_from(self.between(0, last)).ok()?)
    }
}
