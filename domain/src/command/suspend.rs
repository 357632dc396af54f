//! Suspending a box.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::BoxId;
use crate::rejection::Rejection;
use crate::tables::Tables;

/// Suspends a box, or lets it send again, by order of the operator. Whoever is asked to send for a suspended box
/// refuses, as with a device that is revoked: the leader of its group, which has this in its log. It goes on
/// receiving, and its devices go on reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspend {
    /// The box.
    pub box_id: BoxId,
    /// Suspended from now on, or not.
    pub suspended: bool,
}

impl Suspend {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?;
        let Some(mut profile) = profile.filter(|profile| profile.active) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let changed = profile.suspended != self.suspended;
        if changed {
            profile.suspended = self.suspended;
            tables.put_profile(&self.box_id, &profile)?;
        }
        Ok(Ok(Outcome::SuspensionSet { changed }))
    }
}
