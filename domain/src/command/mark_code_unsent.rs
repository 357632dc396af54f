//! The courier's bad news.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::claim::Delivery;
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::tables::Tables;

/// Notes beside a pending claim that its code could not be sent, for whoever waits for it. Once the
/// courier has given up, the code leaves the outbox. Another sending, or none, is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkCodeUnsent {
    /// The identifier that the code is for.
    pub identifier: IdentifierHash,
    /// The box that asked for it.
    pub box_id: BoxId,
    /// The sending, as read from the outbox.
    pub serial: u64,
    /// Whether it will not be tried again.
    pub gave_up: bool,
}

impl MarkCodeUnsent {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let (identifier, box_id) = (&self.identifier, &self.box_id);
        let row = tables.outbox_row(identifier, box_id)?;
        // Not there: it was handed over after all, by another leader, or its life is over.
        if row.is_some_and(|row| row.serial == self.serial) {
            let pending = tables.pending_claim(identifier, box_id)?;
            if let Some(mut pending) = pending.filter(|pending| pending.serial == self.serial) {
                pending.delivery = match self.gave_up {
                    true => Delivery::Failed,
                    false => Delivery::Delayed,
                };
                tables.put_pending_claim(identifier, box_id, &pending)?;
            }
            if self.gave_up {
                tables.delete_outbox_row(identifier, box_id)?;
            }
        }
        Ok(Ok(Outcome::CodeMarkedUnsent))
    }
}
