//! Randomness drawn in advance, in the shape that the cryptographic crates ask for.

use std::convert::Infallible;

use hpke::rand_core::{TryCryptoRng, TryRng};
use rossby_seams::random::{Random, RandomError, bytes};
use zeroize::Zeroizing;

/// `N` random bytes, given out once.
///
/// The crates' generators can not fail; ours can. So the bytes are drawn first, where a failure can
/// still be told, and handed over afterwards. Asking for more than was drawn is a mistake of ours:
/// it yields zeroes and is remembered, and the caller must check [`Drawn::is_sound`] before it uses
/// what came out.
pub(super) struct Drawn<const N: usize> {
    bytes: Zeroizing<[u8; N]>,
    used: usize,
    overdrawn: bool,
}

impl<const N: usize> Drawn<N> {
    pub(super) fn from(random: &dyn Random) -> Result<Self, RandomError> {
        Ok(Self {
            bytes: Zeroizing::new(bytes(random)?),
            used: 0,
            overdrawn: false,
        })
    }

    /// Whether no more was asked for than had been drawn.
    pub(super) fn is_sound(&self) -> bool {
        !self.overdrawn
    }
}

impl<const N: usize> TryRng for Drawn<N> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        let end = self.used.saturating_add(destination.len());
        match self.bytes.get(self.used..end) {
            Some(source) => {
                destination.copy_from_slice(source);
                self.used = end;
            }
            None => {
                destination.fill(0);
                self.overdrawn = true;
            }
        }
        Ok(())
    }
}

impl<const N: usize> TryCryptoRng for Drawn<N> {}

#[cfg(test)]
mod tests {
    use super::*;
    use rossby_seams::random::SeededRandom;

    #[test]
    fn drawing_more_than_there_is_is_noticed() {
        let mut drawn = Drawn::<8>::from(&SeededRandom::new(1)).unwrap();
        drawn.try_next_u32().unwrap();
        drawn.try_next_u32().unwrap();
        assert!(drawn.is_sound());
        drawn.try_next_u32().unwrap();
        assert!(!drawn.is_sound());
    }
}
