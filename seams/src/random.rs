//! Randomness.

use parking_lot::Mutex;

/// The source of randomness failed; nothing that needs it may go on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the operating system gave no randomness: {0}")]
pub struct RandomError(String);

/// A source of random bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `buffer` with random bytes.
    ///
    /// # Errors
    /// [`RandomError`] if the source is not available; `buffer` is then unspecified.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError>;
}

/// Draws `N` random bytes.
///
/// # Errors
/// [`RandomError`] if the source is not available.
pub fn bytes<const N: usize>(random: &dyn Random) -> Result<[u8; N], RandomError> {
    let mut buffer = [0; N];
    random.fill(&mut buffer)?;
    Ok(buffer)
}

/// The operating system's generator, fit for keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(buffer).map_err(|error| RandomError(error.to_string()))
    }
}

/// A reproducible stream for simulations and tests (SplitMix64, Steele et al. 2014).
/// Never for keys outside them.
#[derive(Debug)]
pub struct SeededRandom(Mutex<u64>);

impl SeededRandom {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        let mut state = self.0.lock();
        for chunk in buffer.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            for (byte, drawn) in chunk.iter_mut().zip(z.to_le_bytes()) {
                *byte = drawn;
            }
        }
        Ok(())
    }
}
