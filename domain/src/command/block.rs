//! Blocking a sender.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::BoxId;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

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

impl Block {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let Some(mut profile) = tables
            .profile(&self.box_id)?
            .filter(|profile| profile.active)
        else {
            return Ok(Err(Rejection::UnknownBox));
        };
        if profile.blocked.contains(&self.other) == self.blocked {
            return Ok(Ok(Outcome::BlockChanged));
        }
        if self.blocked {
            let limit = meta.limits.blocked_boxes;
            if profile.blocked.len() as u64 >= u64::from(limit) {
                return Ok(Err(Rejection::TooManyBlocked { limit }));
            }
            profile.blocked.insert(self.other);
        } else {
            profile.blocked.remove(&self.other);
        }
        tables.put_profile(&self.box_id, &profile)?;
        Ok(Ok(Outcome::BlockChanged))
    }
}
