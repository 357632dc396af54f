//! Not sending what waits to be sent.
//!
//! A message that waits goes out with what is sent next to the same box, and that may be never what its
//! owner wants: the recipient's identity may have changed meanwhile. Withdrawn, it is not sent (again),
//! and what it said is erased. A reply may have been lost, so it may have been stored nonetheless; then
//! [`Device::delete`] takes it back there.

use rossby_domain::ids::EnvelopeId;

use super::messages::{Message, Status};
use super::sending::Outgoing;
use super::{Device, DeviceError};
use crate::connection::Signer;
use crate::store::{Batch, MessageRow, MessageState, PendingRow, StoreError};

impl Device {
    /// Withdraws a message that waits to be sent, also one whose sending an identity's change has stopped.
    ///
    /// # Errors
    /// [`DeviceError::Unfit`] if it does not wait any more.
    pub async fn withdraw(&self, message: &Message) -> Result<(), DeviceError> {
        let sent = DeviceError::Unfit("it does not wait to be sent");
        if message.status != Status::Pending {
            return Err(sent);
        }
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let mut waiting = self.waiting(&message.recipient, false)?;
        waiting.retain(|outgoing| outgoing.row.order == message.order);
        if waiting.is_empty() {
            return Err(sent);
        }
        Ok(self
            .store
            .write(|batch| withdraw(batch, &signer, &waiting))?)
    }
}

/// Withdraws what waits. Its place among the messages is kept.
pub(super) fn withdraw(
    batch: &mut Batch<'_>,
    signer: &Signer,
    waiting: &[Outgoing],
) -> Result<(), StoreError> {
    for outgoing in waiting {
        let (to, counter) = (outgoing.recipient, outgoing.counter);
        batch.remove::<PendingRow>(&(to, counter))?;
        let id = EnvelopeId {
            sender: signer.address,
            counter,
        };
        let row = MessageRow {
            order: outgoing.row.order,
            sequence: None,
            at: outgoing.row.written_at,
            state: MessageState::Withdrawn,
        };
        batch.put(&(id, to), &row)?;
    }
    Ok(())
}
