//! The passphrase, and what it costs to try one.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::StoreError;
use crate::crypto::secret::Secret;

/// A passphrase. Wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// A passphrase, which must not be empty.
    ///
    /// # Errors
    /// [`StoreError::EmptyPassphrase`].
    pub fn new(text: &str) -> Result<Self, StoreError> {
        if text.is_empty() {
            return Err(StoreError::EmptyPassphrase);
        }
        Ok(Self(Zeroizing::new(text.as_bytes().to_vec())))
    }

    /// No passphrase: whoever can read the files can read everything. To be asked for by name.
    #[must_use]
    pub fn none() -> Self {
        Self(Zeroizing::new(Vec::new()))
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What Argon2id (RFC 9106) must spend for each try of a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfCost {
    /// The cost that protects a real home: the second choice of RFC 9106, section 4.
    pub const STANDARD: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 4,
    };
    /// A cost that protects nothing, for tests and simulations, which make thousands of homes.
    pub const NONE: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    /// A file from elsewhere must not make us spend without end.
    const LARGEST: Self = Self {
        memory_kib: 4 * 1024 * 1024,
        passes: 64,
        lanes: 64,
    };

    /// Whether these are values that we would spend.
    pub(super) fn is_sane(&self) -> bool {
        self.memory_kib <= Self::LARGEST.memory_kib
            && self.passes <= Self::LARGEST.passes
            && self.lanes <= Self::LARGEST.lanes
    }

    /// The key that wraps the master key.
    pub(super) fn derive(
        &self,
        passphrase: &Passphrase,
        salt: &[u8; 16],
    ) -> Result<Secret<32>, StoreError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| StoreError::KeyFile("impossible Argon2 parameters"))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&passphrase.0, salt, key.as_mut_slice())
            .map_err(|_| StoreError::KeyFile("Argon2 refused its parameters"))?;
        Ok(Secret::new(*key))
    }
}
