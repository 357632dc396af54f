//! Bytes of commands in the log and of values in the tables: bincode behind version bytes.

use bytes::Bytes;
use rossby_domain::Routed;
use rossby_domain::time::Timestamp;

/// The commands of one drain, as one log entry carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When they were proposed, by the leader's checked clock.
    pub stamp: Timestamp,
    /// The commands, applied in this order.
    pub commands: Vec<Routed>,
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CodecError {
    // helper C defines the variants
}

/// The bytes of a batch.
pub fn encode_batch(_batch: &Batch) -> Result<Bytes, CodecError> {
    todo!()
}

/// The batch in these bytes.
pub fn decode_batch(_bytes: &[u8]) -> Result<Batch, CodecError> {
    todo!()
}
