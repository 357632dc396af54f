//! Register, step 1: the device's directory entry.

use serde::{Deserialize, Serialize};

use crate::ids::{BoxId, DeviceId};

/// Binds a device id to a box. If an earlier try with the same genesis record bound it to a box
/// born in another partition, that box is the outcome; a different genesis record is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimDevice {
    /// The device, which signed the request.
    pub device: DeviceId,
    /// The box that it wants to make.
    pub box_id: BoxId,
}
