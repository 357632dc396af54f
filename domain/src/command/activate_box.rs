//! Authorize, step 2: the box comes to life.

use serde::{Deserialize, Serialize};

use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceId};

/// Authorises a box and its first device, after the box's claim was verified.
/// Repeating it gives the same token generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivateBox {
    /// The box.
    pub box_id: BoxId,
    /// Its first device.
    pub device: DeviceId,
    /// The identifier that was verified.
    pub identifier: IdentifierHash,
    /// The generation of the verified claim.
    pub generation: u64,
}
