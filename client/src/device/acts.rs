//! What is done to messages after they were written: edits, deletions, reactions.
//!
//! ```text
//!   an edit, a deletion, a reaction ──► note(): does it count? ──► ActsRow of that message
//!     received, or stored in their box                                  │
//!                                             a message as shown ◄──────┘ Device::dress
//! ```
//!
//! Invariants. An edit or a deletion counts only from the box that wrote the message, and any act only
//! within the conversation of the message. Of several edits, and of several reactions of one person, the
//! last by its writer's clock counts; a deletion counts for good. So what a message looks like does not
//! rest on the order in which its acts came in, nor on whether they came before the message.

use std::collections::BTreeMap;
use std::fmt;

use rossby_domain::ids::BoxId;

use super::{Device, DeviceError, Message};
use crate::conversation::Conversation;
use crate::crypto::secret::SecretBytes;
use crate::envelope::{Content, MessageId};
use crate::store::{
    ActsRow, Batch, LastAct, MessageKey, MessageRow, MessageState, Outcome, ReceiptsRow, StoreError,
};

/// What was done to a message since it was written. `Debug` does not show the reactions.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Acts {
    /// Whether its author gave it another text, which is the one that it has here.
    pub edited: bool,
    /// Whether its author took it back. Its content is not shown then.
    pub deleted: bool,
    /// Reactions to it, by the box that they are from.
    pub reactions: BTreeMap<BoxId, String>,
}

impl fmt::Debug for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acts")
            .field("edited", &self.edited)
            .field("deleted", &self.deleted)
            .finish_non_exhaustive()
    }
}

/// What a row says that counts for the conversation: for which, as which message, what. Nothing before it
/// is stored where it goes: what a device shows is what the others are shown.
pub(super) fn said_by(
    ((envelope, recipient), row): &(MessageKey, MessageRow),
) -> Option<(Conversation, MessageId, Content)> {
    let sender = envelope.sender;
    let (conversation, written_at, content) = match &row.state {
        MessageState::Received {
            content,
            conversation,
            written_at,
        } => {
            let conversation = Conversation::of(*conversation, recipient, &sender.box_id);
            (conversation, *written_at, content)
        }
        // By this device, or by another one of its box.
        MessageState::Sent { content } => (Conversation::With(*recipient), row.at, content),
        MessageState::ToGroup {
            group,
            content,
            outcomes,
        } if is_anywhere(outcomes) => (Conversation::In(*group), row.at, content),
        _ => return None,
    };
    let content = Content::decode(content.expose()).ok()?;
    Some((conversation, MessageId { sender, written_at }, content))
}

/// Whether a message to a group is stored with any member, or another device says so.
pub(super) fn is_anywhere(outcomes: &BTreeMap<BoxId, Outcome>) -> bool {
    outcomes.is_empty()
        || outcomes
            .values()
            .any(|outcome| outcome.sequence().is_some())
}

/// Whether a row does something to an earlier message, other than saying more.
pub(super) fn changes_another(row: &(MessageKey, MessageRow)) -> bool {
    let acts = |content| {
        matches!(
            content,
            Content::Edit(_) | Content::Delete(_) | Content::Reaction(_)
        )
    };
    said_by(row).is_some_and(|(_, _, content)| acts(content))
}

/// Notes what the message of a row does to an earlier one.
pub(super) fn note_row(
    batch: &mut Batch<'_>,
    row: &(MessageKey, MessageRow),
) -> Result<(), StoreError> {
    match said_by(row) {
        Some((conversation, id, content)) => note(batch, &conversation, &id, &content),
        None => Ok(()),
    }
}

/// Notes what a message does to an earlier one of the conversation. `id` is its own.
fn note(
    batch: &mut Batch<'_>,
    conversation: &Conversation,
    id: &MessageId,
    content: &Content,
) -> Result<(), StoreError> {
    if !matches!(
        content,
        Content::Edit(_) | Content::Delete(_) | Content::Reaction(_)
    ) {
        return Ok(());
    }
    for about in content.about() {
        let key = (*conversation, *about);
        let mut row = batch.get::<ActsRow>(&key)?.unwrap_or_default();
        if row.take(id, content) {
            batch.put(&key, &row)?;
        }
    }
    Ok(())
}

impl ActsRow {
    /// Takes one act in; whether that changed anything.
    fn take(&mut self, id: &MessageId, act: &Content) -> bool {
        let author = id.sender.box_id;
        if !act.counts_from(&author) {
            return false;
        }
        let last = |text: &str| LastAct {
            at: id.written_at,
            by: id.sender.device,
            text: SecretBytes::new(text.as_bytes().to_vec()),
        };
        match act {
            Content::Delete(_) => {
                self.edit = None;
                !std::mem::replace(&mut self.deleted, true)
            }
            Content::Edit(_) if self.deleted => false,
            Content::Edit(edit) => replace_earlier(&mut self.edit, last(&edit.text)),
            Content::Reaction(reaction) => {
                let mut own = self.reactions.remove(&author);
                let changed = replace_earlier(&mut own, last(reaction.emoji()));
                self.reactions
                    .extend(own.map(|reaction| (author, reaction)));
                changed
            }
            _ => false,
        }
    }
}

/// Puts the act in the place of one before it. Two of one device at one instant, which no device of ours
/// makes, are ordered by their texts: some order must be the same everywhere.
fn replace_earlier(place: &mut Option<LastAct>, act: LastAct) -> bool {
    fn rank(act: &LastAct) -> impl Ord + '_ {
        (act.at, act.by, act.text.expose())
    }
    if place.as_ref().is_some_and(|last| rank(last) >= rank(&act)) {
        return false;
    }
    *place = Some(act);
    true
}

impl Message {
    /// The message as it is after what was done to it.
    pub(super) fn after(mut self, row: &ActsRow) -> Self {
        let text = |act: &LastAct| String::from_utf8(act.text.expose().to_vec()).ok();
        if self.content.as_ref().is_some_and(|it| it.said().is_none()) {
            // What was done to edits and the like is nothing.
            return self;
        }
        let reactions = row.reactions.iter();
        self.acts.reactions = reactions
            .filter_map(|(author, reaction)| Some((*author, text(reaction)?)))
            .filter(|(_, emoji)| !emoji.is_empty())
            .collect();
        if row.deleted {
            self.acts.deleted = true;
            self.content = None;
        } else if let Some(text) = row.edit.as_ref().and_then(text)
            && let Some(edited) = self.content.clone().and_then(|old| old.with_text(&text))
        {
            self.acts.edited = true;
            self.content = Some(edited);
        }
        self
    }
}

impl Device {
    /// A message with what was done to it.
    pub(super) fn dress(&self, message: Message) -> Result<Message, DeviceError> {
        let Some(id) = message.id() else {
            return Ok(message);
        };
        let key = (message.conversation(), id);
        let message = match self.store.get::<ReceiptsRow>(&key)? {
            Some(row) => message.received_as(&row),
            None => message,
        };
        Ok(match self.store.get::<ActsRow>(&key)? {
            Some(row) => message.after(&row),
            None => message,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::{DeviceAddress, DeviceId, PartitionId};
    use rossby_domain::time::Timestamp;

    use super::*;
    use crate::envelope::{Edit, Reaction};

    fn id(author: u8, device: u8, at: u64) -> MessageId {
        MessageId {
            sender: DeviceAddress {
                box_id: BoxId::derive(PartitionId::new(1).unwrap(), &[author; 32]),
                device: DeviceId::from_bytes([device; 16]),
            },
            written_at: Timestamp::from_millis(at),
        }
    }

    /// Acts on the message of box 1: by it and by another, from two devices each.
    fn acts() -> impl Strategy<Value = Vec<(MessageId, Content)>> {
        let act = (0_u8..3, 1_u8..3, 1_u8..3, 0_u64..4, 0_u8..3);
        let act = act.prop_map(|(what, author, device, at, text)| {
            let to = id(1, 1, 1);
            let content = match what {
                0 => Content::Edit(Edit {
                    message: to,
                    text: format!("edit {text}"),
                }),
                1 => {
                    let emoji = ["", "👍", "👎"][usize::from(text)];
                    Content::Reaction(Reaction::new(to, emoji).unwrap())
                }
                _ => Content::Delete(to),
            };
            (id(author, device, at), content)
        });
        proptest::collection::vec(act, 0..8)
    }

    proptest! {
        #[test]
        fn acts_do_the_same_in_whatever_order_and_however_often_they_come(
            acts in acts(),
            shuffled in any::<prop::sample::Index>(),
        ) {
            let mut straight = ActsRow::default();
            acts.iter().for_each(|(id, act)| {
                straight.take(id, act);
            });
            let mut turned = acts.clone();
            turned.reverse();
            if !turned.is_empty() {
                let by = shuffled.index(turned.len());
                turned.rotate_left(by);
            }
            turned.extend(acts.iter().take(3).cloned());
            let mut other = ActsRow::default();
            turned.iter().for_each(|(id, act)| {
                other.take(id, act);
            });
            prop_assert_eq!(&straight, &other);
            // And it is what the rule says, said in another way.
            let author = id(1, 1, 1).sender.box_id;
            let own = |(id, _): &&(MessageId, Content)| id.sender.box_id == author;
            let deleted = acts.iter().filter(own).any(|(_, act)| matches!(act, Content::Delete(_)));
            prop_assert_eq!(straight.deleted, deleted);
            let edits = acts.iter().filter(own).filter_map(|(id, act)| match act {
                Content::Edit(edit) => Some((id.written_at, id.sender.device, edit.text.as_bytes())),
                _ => None,
            });
            let last = straight.edit.as_ref().map(|last| (last.at, last.by, last.text.expose()));
            prop_assert_eq!(last, edits.max().filter(|_| !deleted));
        }
    }
}
