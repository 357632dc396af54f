//! Register, step 3: a pending claim and its code.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::claim::CodeMac;
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;

/// Opens (or renews, with a new code) a box's pending claim to an identifier. Pending claims are
/// not exclusive: several boxes may try, each with its own code, attempts and expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenClaim {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that claims it.
    pub box_id: BoxId,
    /// Whether others may find the box by it, once verified.
    pub discoverable: bool,
    /// The keyed hash of the code that will be sent.
    pub code: CodeMac,
    /// Identifier and code, sealed under the cluster's seal key, for the courier.
    pub sealed_code: Bytes,
}
