//! RemoveIdentifier, step 2: the identifier is free for others.

use serde::{Deserialize, Serialize};

use super::open_claim::remove_pending;
use super::{Outcome, Reply};
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::tables::{InboxKey, Tables};

/// Takes from a box what it has of an identifier: its pending claim, and its verified one if that is of the named
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
        let own = tables.claim(&key)?.filter(|claim| claim.box_id == box_id);
        let mut held = own.map(|claim| claim.generation);
        if held.is_some_and(|held| held <= generation) {
            tables.delete_claim(&key)?;
            held = None;
        }
        Ok(Ok(Outcome::ClaimReleased { held }))
    }
}
