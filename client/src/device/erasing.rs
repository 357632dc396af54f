//! Taking what was deleted out of the store, in the transaction that deletes it.
//!
//! What a deleted message said is erased, and what its edits said; that there was a message stays. It is
//! erased as well if it comes after its deletion.

use std::collections::BTreeSet;

use super::{Device, DeviceError, Message, acts};
use crate::conversation::Conversation;
use crate::crypto::secret::SecretBytes;
use crate::envelope::{Content, Edit, MessageId};
use crate::store::{ActsRow, Batch, MessageKey, MessageRow, MessageState, Outcome, StoreError};

impl Device {
    /// The rows here that deletions among these new ones are about. All messages are read for that, but
    /// once only, and not for a deletion that does not count.
    pub(super) fn erased_by(
        &self,
        fresh: &[(MessageKey, MessageRow)],
    ) -> Result<Vec<MessageKey>, DeviceError> {
        let deleted: BTreeSet<_> = fresh.iter().filter_map(deletion).collect();
        if deleted.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.store.all::<MessageRow>()?.into_iter();
        Ok(rows
            .filter(|row| subject(row).is_some_and(|subject| deleted.contains(&subject)))
            .map(|(key, _)| key)
            .collect())
    }
}

/// The message that a row takes back, if it may.
fn deletion(row: &(MessageKey, MessageRow)) -> Option<(Conversation, MessageId)> {
    match acts::said_by(row)? {
        (conversation, id, act @ Content::Delete(message))
            if act.counts_from(&id.sender.box_id) =>
        {
            Some((conversation, message))
        }
        _ => None,
    }
}

/// Erases the rows whose message is deleted.
pub(super) fn erase(batch: &mut Batch<'_>, keys: &[MessageKey]) -> Result<(), StoreError> {
    for key in keys {
        if let Some(row) = batch.get::<MessageRow>(key)? {
            let mut row = (*key, row);
            if blank_if_deleted(batch, &mut row)? {
                batch.put(key, &row.1)?;
            }
        }
    }
    Ok(())
}

/// Takes what a row says out of it if its message is deleted; whether that was so.
pub(super) fn blank_if_deleted(
    batch: &Batch<'_>,
    row: &mut (MessageKey, MessageRow),
) -> Result<bool, StoreError> {
    let Some(subject) = subject(row) else {
        return Ok(false);
    };
    let acts = batch.get::<ActsRow>(&subject)?;
    let deleted = acts.is_some_and(|acts| acts.deleted);
    if deleted {
        blank(&mut row.1.state);
    }
    Ok(deleted)
}

/// The message whose deletion takes away what a row says: itself, or the one that it edits.
fn subject(row: &(MessageKey, MessageRow)) -> Option<(Conversation, MessageId)> {
    let message = Message::of_row(row.clone());
    let subject = match &message.content {
        Some(edit @ Content::Edit(Edit { message: about, .. }))
            if edit.counts_from(&message.sender.box_id) =>
        {
            *about
        }
        _ => message.id()?,
    };
    Some((message.conversation(), subject))
}

/// An edit stays one, of nothing.
fn blank(state: &mut MessageState) {
    let content = match state {
        MessageState::Received { content, .. }
        | MessageState::Sent { content }
        | MessageState::Refused { content, .. }
        | MessageState::Doubtful { content } => content,
        // What is still to be sent says what it says until then; what is not readable says nothing.
        MessageState::ToGroup { outcomes, .. }
            if outcomes
                .values()
                .any(|outcome| *outcome == Outcome::Pending) =>
        {
            return;
        }
        MessageState::ToGroup { content, .. } => content,
        MessageState::Pending { .. }
        | MessageState::Unreadable { .. }
        | MessageState::Withdrawn => {
            return;
        }
    };
    let left = match Content::decode(content.expose()) {
        Ok(Content::Edit(Edit { message, .. })) => {
            let text = String::new();
            Content::Edit(Edit { message, text }).encode().ok()
        }
        _ => None,
    };
    *content = SecretBytes::new(left.map_or_else(Vec::new, |left| left.to_vec()));
}
