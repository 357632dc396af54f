//! Removing what has outlived its time.

use serde::{Deserialize, Serialize};

/// Removes up to `limit` rows of the routed partition that have expired by the partition's clock:
/// envelopes, codes, pending claims, and boxes that were never authorised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expire {
    /// At most this many rows.
    pub limit: u32,
}
