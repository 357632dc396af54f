//! How long envelopes may wait in a box.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::BoxId;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Sets the longest that an envelope may wait in a box, from the next one on: those that wait already keep the time that
/// they were given. The shortest of this, the cluster's limit and what the sender asks for counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTtl {
    /// The box.
    pub box_id: BoxId,
    /// In milliseconds; `None` for as long as the cluster allows.
    pub longest_ms: Option<u64>,
}

impl SetTtl {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?;
        let Some(mut profile) = profile.filter(|profile| profile.active) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        if profile.longest_ttl_ms != self.longest_ms {
            profile.longest_ttl_ms = self.longest_ms;
            tables.put_profile(&self.box_id, &profile)?;
        }
        let ttl_ms = profile.ttl_ms(&meta.limits);
        Ok(Ok(Outcome::TtlSet { ttl_ms }))
    }
}
