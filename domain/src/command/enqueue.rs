//! Send: one envelope into one box.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::EnvelopeDigest;
use crate::ids::{BoxId, EnvelopeId};

/// Puts an envelope at the end of a box's queue, once: see [`crate::dedupe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueue {
    /// The box it is for.
    pub recipient: BoxId,
    /// Who sends it, under which counter.
    pub id: EnvelopeId,
    /// The version of the recipient's chain that it was sealed for.
    pub chain_version: u64,
    /// How long it may wait, in milliseconds; capped by the box's limit. `None` is that limit.
    pub ttl_ms: Option<u64>,
    /// Tells two texts under one id apart. Computed by the proposer from the fields here.
    pub digest: EnvelopeDigest,
    /// The sealed envelope.
    pub body: Bytes,
}
