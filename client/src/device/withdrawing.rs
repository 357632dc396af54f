//! Not sending what waits to be sent.
//!
//! A message that waits goes out with what is sent next to the same box, and that may be never what its
//! owner wants: the recipient's identity may have changed meanwhile. Withdrawn, it is not sent (again),
//! and what it said is erased. A reply may have been lost, so it may have been stored nonetheless; then
//! [`Device::delete`] takes it back there.

use std::collections::BTreeMap;

use rossby_domain::ids::{BoxId, EnvelopeId};

use super::messages::{Message, Status};
use super::sending::Outgoing;
use super::settling::group_key;
use super::words::is_word;
use super::{Device, DeviceError};
use crate::connection::Signer;
use crate::crypto::secret::SecretBytes;
use crate::store::{Batch, MessageRow, MessageState, Outcome, PendingRow, StoreError};

impl Device {
    /// Withdraws a message that waits to be sent, also one whose sending an identity's change has stopped. Of one
    /// that was said in a group, what waits for some members.
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
        let to: Vec<BoxId> = match message.group {
            Some(_) => message.outcomes.keys().copied().collect(),
            None => vec![message.recipient],
        };
        let waiting = self.waiting(&to, false)?.into_values().flatten();
        let waiting: Vec<_> = waiting
            .filter(|outgoing| outgoing.row.order == message.order)
            .filter(|outgoing| !is_word(outgoing.row.content.expose()))
            .collect();
        if waiting.is_empty() {
            return Err(sent);
        }
        Ok(self
            .store
            .write(|batch| withdraw(batch, &signer, waiting))?)
    }
}

/// Withdraws what waits. Its place among the messages is kept.
pub(super) fn withdraw(
    batch: &mut Batch<'_>,
    signer: &Signer,
    waiting: impl IntoIterator<Item = Outgoing>,
) -> Result<(), StoreError> {
    for outgoing in waiting {
        let (to, counter, row) = (outgoing.recipient, outgoing.counter, outgoing.row);
        batch.remove::<PendingRow>(&(to, counter))?;
        if is_word(row.content.expose()) {
            continue;
        }
        if row.group.is_some() {
            let key = group_key(signer.address, row.written_at);
            if let Some(mut message) = batch.get::<MessageRow>(&key)? {
                withdraw_one(&mut message.state, to);
                batch.put(&key, &message)?;
            }
            continue;
        }
        let id = EnvelopeId {
            sender: signer.address,
            counter,
        };
        let message = MessageRow {
            order: row.order,
            sequence: None,
            at: row.written_at,
            state: MessageState::Withdrawn,
        };
        batch.put(&(id, to), &message)?;
    }
    Ok(())
}

/// Withdraws what was said in a group from one member. Once nobody has it or may have it, it is erased.
fn withdraw_one(state: &mut MessageState, to: BoxId) {
    let MessageState::ToGroup {
        content, outcomes, ..
    } = state
    else {
        return;
    };
    outcomes.insert(to, Outcome::Withdrawn);
    let is_nowhere = |outcomes: &BTreeMap<BoxId, Outcome>| {
        let mut all = outcomes.values();
        all.all(|outcome| matches!(outcome, Outcome::Withdrawn | Outcome::Refused { .. }))
    };
    if is_nowhere(outcomes) {
        *content = SecretBytes::new(Vec::new());
    }
}
