//! Blocking a sender.

use serde::{Deserialize, Serialize};

use crate::ids::BoxId;

/// Blocks a sender, or lifts the block. To a blocked sender the box does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The box that blocks.
    pub box_id: BoxId,
    /// The box that is blocked.
    pub other: BoxId,
    /// Blocked from now on, or not.
    pub blocked: bool,
}
