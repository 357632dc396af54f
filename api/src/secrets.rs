//! The cluster's secrets.

use std::path::Path;

use rossby_seams::random::{Random, RandomError};
use zeroize::Zeroizing;

/// Why the secrets can't be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file can't be read or written.
    #[error("cluster.keys: {0}")]
    Io(#[from] std::io::Error),
}

/// The cluster's secrets.
pub struct ClusterSecrets {}

impl ClusterSecrets {
    /// New secrets.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn generate(_random: &dyn Random) -> Result<Self, RandomError> {
        todo!()
    }

    /// Reads the file, which must be open to its owner only.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn load(_path: &Path) -> Result<Self, SecretsError> {
        todo!()
    }

    /// Writes the file with mode 0600, in one atomic step.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn save(&self, _path: &Path) -> Result<(), SecretsError> {
        todo!()
    }

    /// The content of the file.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        todo!()
    }

    /// The secrets in this content of a file.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn decode(_text: &str) -> Result<Self, SecretsError> {
        todo!()
    }
}
