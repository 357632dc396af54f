//! The courier's receipt.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::claim::{Delivery, PendingClaim};
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::tables::Tables;

/// Takes one sending of a code out of the outbox. Not being there any more is fine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkCodeSent {
    /// The identifier that the code was sent to.
    pub identifier: IdentifierHash,
    /// The box that asked for it.
    pub box_id: BoxId,
    /// The sending, as read from the outbox.
    pub serial: u64,
}

impl MarkCodeSent {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let row = tables.outbox_row(&self.identifier, &self.box_id)?;
        // A later code may have taken the row's place meanwhile; it still has to be sent.
        if row.is_some_and(|row| row.serial == self.serial) {
            tables.delete_outbox_row(&self.identifier, &self.box_id)?;
            let pending = tables.pending_claim(&self.identifier, &self.box_id)?;
            let delayed = |pending: &PendingClaim| {
                pending.serial == self.serial && pending.delivery != Delivery::Normal
            };
            if let Some(mut pending) = pending.filter(delayed) {
                pending.delivery = Delivery::Normal;
                tables.put_pending_claim(&self.identifier, &self.box_id, &pending)?;
            }
        }
        Ok(Ok(Outcome::CodeMarkedSent))
    }
}
