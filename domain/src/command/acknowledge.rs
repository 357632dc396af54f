//! A device has stored what it fetched.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceAddress, Sequence};

/// Moves a device's cursor up to `upto` (never back) and purges what every authorised device of
/// the box has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// The device.
    pub device: DeviceAddress,
    /// The last sequence that it has stored.
    pub upto: Sequence,
}
