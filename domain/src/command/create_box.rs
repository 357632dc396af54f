//! Register, step 2: the box itself, not yet authorised.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::KeyRecord;
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;

/// Makes a box that waits for its first identifier. The row is also the intent from which the
/// leader can finish a half-done Authorize. Repeating it, also with another identifier, is fine
/// while the box is not authorised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateBox {
    /// The box, derived from the record's genesis.
    pub box_id: BoxId,
    /// The key record: genesis, no links yet, the first device's KEM key. Verified by the proposer.
    pub record: KeyRecord,
    /// The identifier to be verified.
    pub identifier: IdentifierHash,
    /// The same, sealed under the cluster's seal key, for the box's own profile.
    pub sealed_identifier: Bytes,
    /// Whether others may find the box by this identifier.
    pub discoverable: bool,
}
