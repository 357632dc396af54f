//! Couriers: who brings a verification code to its person.

mod console;
mod outbox_file;

use async_trait::async_trait;
use rossby_domain::identifier::Identifier;

pub use console::ConsoleCourier;
pub use outbox_file::OutboxFileCourier;

/// Why a code was not delivered. It stays in the outbox and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// The file can't be written.
    #[error("the courier's outbox file: {0}")]
    File(#[from] std::io::Error),
    /// The file may be read or written by others than its owner.
    #[error(
        "the courier's outbox file is open to others than its owner (mode {mode:o}); it must be 600"
    )]
    TooOpen {
        /// The file's permission bits.
        mode: u32,
    },
}

/// Brings verification codes to people.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// Delivers a code. It may be called twice for one code, after a crash.
    ///
    /// # Errors
    /// [`CourierError`] if it could not be handed over.
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError>;
}
