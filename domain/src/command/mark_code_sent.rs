//! The courier's receipt.

use serde::{Deserialize, Serialize};

use crate::identifier::IdentifierHash;
use crate::ids::BoxId;

/// Takes one sending of a code out of the outbox. Not being there any more is fine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkCodeSent {
    /// The identifier that the code was sent to.
    pub identifier: IdentifierHash,
    /// The box that asked for it.
    pub box_id: BoxId,
    /// The sending, as read from the outbox.
    pub serial: u64,
}
