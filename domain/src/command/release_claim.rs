//! RemoveIdentifier, step 2: the identifier is free for others.

use serde::{Deserialize, Serialize};

use super::open_claim::remove_pending;
use super::reset::put;
use super::{Outcome, Reply};
use crate::contest::Reset;
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::tables::{InboxKey, Tables};

/// Takes from a box what it has of an identifier: its pending claim, its reset of another box's, and its verified one if that is of the named
/// generation or an earlier one. A later one is told, and stays: the box lists the identifier as it was before,
/// and whoever releases it goes on with that; or this comes late, and the box has come by it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseClaim {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that lets go of it.
    pub box_id: BoxId,
    /// The generation of its claim, as far as it is known; 0 for none.
    pub generation: u64,
}

impl ReleaseClaim {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let Self {
            identifier,
            box_id,
            generation,
        } = self;
        if let Some(pending) = tables.pending_claim(&identifier, &box_id)? {
            remove_pending(tables, &identifier, &box_id, &pending)?;
        }
        let key = InboxKey::Identifier(identifier);
        let claim = tables.claim(&key)?;
        let is_own_reset = |reset: &Reset| reset.box_id == box_id;
        let mut contested = claim.clone();
        if let Some(contested) = &mut contested
            && contested.contest.reset.as_ref().is_some_and(is_own_reset)
        {
            contested.contest.reset = None;
            put(tables, &identifier, contested)?;
        }
        let own = claim.filter(|claim| claim.box_id == box_id);
        let mut held = own.map(|claim| claim.generation);
        if held.is_some_and(|held| held <= generation) {
            tables.delete_claim(&key)?;
            held = None;
        }
        Ok(Ok(Outcome::ClaimReleased { held }))
    }
}
