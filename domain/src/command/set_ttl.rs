//! How long envelopes may wait in a box.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::BoxId;
use crate::limits::SHORTEST_TTL_MS;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Sets the longest that an envelope may wait in a box, from the next one on: those that wait already keep the time that
/// they were given. The shortest of this, the cluster's limit and what the sender asks for counts.
///
/// Each statement has the number after that of the last one, so that what a device once signed is good no second time. The
/// last one again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTtl {
    /// The box.
    pub box_id: BoxId,
    /// In milliseconds; `None` for as long as the cluster allows.
    pub longest_ms: Option<u64>,
    /// The number of the statement.
    pub number: u64,
}

impl SetTtl {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?;
        let Some(mut profile) = profile.filter(|profile| profile.active) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let longest_ms = self
            .longest_ms
            .map(|longest_ms| longest_ms.max(SHORTEST_TTL_MS));
        let current = profile.ttl_number;
        let is_last = self.number == current && profile.longest_ttl_ms == longest_ms;
        if !is_last {
            if current.checked_add(1) != Some(self.number) {
                return Ok(Err(Rejection::TtlNumberUsed { current }));
            }
            profile.longest_ttl_ms = longest_ms;
            profile.ttl_number = self.number;
            tables.put_profile(&self.box_id, &profile)?;
        }
        let ttl_ms = profile.ttl_ms(&meta.limits);
        Ok(Ok(Outcome::TtlSet { ttl_ms }))
    }
}
