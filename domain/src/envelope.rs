//! Envelopes: what waits in a box.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{EnvelopeId, Sequence};
use crate::time::Timestamp;

/// A stored ciphertext with what is written on its outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Its place in the box.
    pub sequence: Sequence,
    /// Who sent it, under which counter.
    pub id: EnvelopeId,
    /// When it was enqueued, by the partition's clock.
    pub enqueued_at: Timestamp,
    /// When it is dropped if some device still has not acknowledged it.
    pub expires_at: Timestamp,
    /// The sealed content; opaque here.
    pub body: Bytes,
}

impl Envelope {
    /// Whether its time is over at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }
}
