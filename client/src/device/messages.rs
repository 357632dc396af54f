//! Messages as their owner sees them.

use std::collections::BTreeMap;

use rossby_domain::ids::{BoxId, DeviceAddress, Sequence};
use rossby_domain::time::Timestamp;

use super::{Acts, Device, DeviceError, Progress, acts};
use crate::conversation::Conversation;
use crate::envelope::{Content, ContentError, MessageId};
use crate::group::GroupId;
use crate::store::{
    ActsRow, MarksRow, MessageKey, MessageRow, MessageState, Outcome, ReceiptsRow, ShownRow,
};

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To this device.
    In,
    /// From this device.
    Out,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Received and verified.
    Received,
    /// Received, and it can not be shown.
    Unreadable {
        /// A stable name of the reason.
        code: String,
        /// The reason in words.
        reason: String,
    },
    /// Not yet known to be stored in the recipient's box; it will be sent again.
    Pending,
    /// Stored in the recipient's box.
    Sent,
    /// Refused for good.
    Refused {
        /// The service's code.
        code: String,
        /// Its words.
        reason: String,
    },
    /// It may or may not have been stored; it will not be sent again.
    Doubtful,
    /// Taken back before it was known to be stored; it will not be sent again.
    Withdrawn,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place among all messages of this device.
    pub order: u64,
    /// Which way it went.
    pub direction: Direction,
    /// The device that sent it.
    pub sender: DeviceAddress,
    /// The box that it went to; of what this box sent to a group, its own.
    pub recipient: BoxId,
    /// The group that it was said in, if it was.
    pub group: Option<GroupId>,
    /// What became of it for each member, if this device sent it to a group.
    pub outcomes: BTreeMap<BoxId, Outcome>,
    /// The sender device's counter for that box; of what was sent to a group, when it was written.
    pub counter: u64,
    /// Its place in that box, where it is known.
    pub sequence: Option<Sequence>,
    /// When it came in, by the service's clock, or when it was written here.
    pub at: Timestamp,
    /// When it was written, by its sender's clock; `None` if it is not readable.
    pub written_at: Option<Timestamp>,
    /// What it says, by the last of its edits; `None` if it is not readable, or deleted.
    pub content: Option<Content>,
    /// What became of it.
    pub status: Status,
    /// What was done to it since.
    pub acts: Acts,
    /// How far it has come with each recipient who tells, if this box sent it.
    pub receipts: BTreeMap<BoxId, Progress>,
}

impl Message {
    /// A stored message. One whose content can not be read is shown as such: it must not hide the others.
    pub(super) fn of_row((key, row): (MessageKey, MessageRow)) -> Self {
        let (id, recipient) = key;
        let mut outcomes = BTreeMap::new();
        let mut group = None;
        let written_at = written_at(&row);
        let (direction, content, status) = match row.state {
            MessageState::Received {
                content,
                conversation,
                ..
            } => {
                let conversation = Conversation::of(conversation, &recipient, &id.sender.box_id);
                if let Conversation::In(id) = conversation {
                    group = Some(id);
                }
                (Direction::In, Some(content), Status::Received)
            }
            MessageState::Unreadable { code, reason, .. } => {
                (Direction::In, None, Status::Unreadable { code, reason })
            }
            MessageState::Pending { content } => (Direction::Out, Some(content), Status::Pending),
            MessageState::Sent { content } => (Direction::Out, Some(content), Status::Sent),
            MessageState::Refused {
                content,
                code,
                reason,
            } => (
                Direction::Out,
                Some(content),
                Status::Refused { code, reason },
            ),
            MessageState::Doubtful { content } => (Direction::Out, Some(content), Status::Doubtful),
            MessageState::Withdrawn => (Direction::Out, None, Status::Withdrawn),
            MessageState::ToGroup {
                group: id,
                content,
                outcomes: of_each,
            } => {
                let status = of_all(&of_each);
                (group, outcomes) = (Some(id), of_each);
                (Direction::Out, Some(content), status)
            }
        };
        // Of what was erased, nothing is left.
        let content = content.filter(|bytes| !bytes.expose().is_empty());
        let content = content.map(|bytes| Content::decode_kept(bytes.expose()));
        let (content, status) = match content.transpose() {
            Ok(content) => (content, status),
            Err(error) => (None, damaged(&error)),
        };
        Self {
            order: row.order,
            direction,
            sender: id.sender,
            recipient,
            group,
            outcomes,
            counter: id.counter.0,
            sequence: row.sequence,
            at: row.at,
            written_at,
            content,
            status,
            acts: Acts::default(),
            receipts: BTreeMap::new(),
        }
    }

    /// What names it in other messages, on all devices; `None` if it is not readable.
    #[must_use]
    pub fn id(&self) -> Option<MessageId> {
        let sender = self.sender;
        let named = |written_at| MessageId { sender, written_at };
        self.written_at.map(named)
    }

    /// The conversation that it is of.
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        match self.group {
            Some(group) => Conversation::In(group),
            None => Conversation::With(self.peer()),
        }
    }

    /// The other person's box.
    #[must_use]
    pub fn peer(&self) -> BoxId {
        match self.direction {
            Direction::In => self.sender.box_id,
            Direction::Out => self.recipient,
        }
    }
}

/// When a message was written, by its sender's clock; `None` if it is not readable.
pub(super) fn written_at(row: &MessageRow) -> Option<Timestamp> {
    match &row.state {
        MessageState::Received { written_at, .. } => Some(*written_at),
        MessageState::Unreadable { .. } => None,
        _ => Some(row.at),
    }
}

/// What became of a message to several, in one word: what is left to do, or else the best of it.
fn of_all(outcomes: &BTreeMap<BoxId, Outcome>) -> Status {
    let has = |wanted: fn(&Outcome) -> bool| outcomes.values().any(wanted);
    if has(|outcome| *outcome == Outcome::Pending) {
        return Status::Pending;
    }
    if acts::is_anywhere(outcomes) {
        return Status::Sent;
    }
    if has(|outcome| *outcome == Outcome::Doubtful) {
        return Status::Doubtful;
    }
    let refused = outcomes.values().find_map(|outcome| match outcome {
        Outcome::Refused { code, reason } => Some((code.clone(), reason.clone())),
        _ => None,
    });
    match refused {
        Some((code, reason)) => Status::Refused { code, reason },
        None => Status::Withdrawn,
    }
}

fn damaged(error: &ContentError) -> Status {
    Status::Unreadable {
        code: "DAMAGED".to_owned(),
        reason: error.to_string(),
    }
}

impl Device {
    /// All messages of this device, oldest first.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn messages(&self) -> Result<Vec<Message>, DeviceError> {
        let acts: BTreeMap<_, _> = self.store.all::<ActsRow>()?.into_iter().collect();
        let receipts: BTreeMap<_, _> = self.store.all::<ReceiptsRow>()?.into_iter().collect();
        let dressed = |row| {
            let message = Message::of_row(row);
            let Some(id) = message.id() else {
                return message;
            };
            let key = (message.conversation(), id);
            let message = match receipts.get(&key) {
                Some(row) => message.received_as(row),
                None => message,
            };
            match acts.get(&key) {
                Some(row) => message.after(row),
                None => message,
            }
        };
        let rows = self.store.all::<MessageRow>()?.into_iter();
        let mut messages: Vec<_> = rows.map(dressed).collect();
        messages.sort_by_key(|message| message.order);
        Ok(messages)
    }

    /// What was said in a conversation, oldest first. All devices that have the same messages show them in the same order: that
    /// of the instants that their writers put on them, where an answer comes after what it answers, then of their devices. What
    /// can not be read stands where it came in.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn history(&self, conversation: &Conversation) -> Result<Vec<Message>, DeviceError> {
        let mut messages = self.messages()?;
        messages.retain(|message| message.conversation() == *conversation);
        messages.sort_by_key(|message| (message.written_at.unwrap_or(message.at), message.sender));
        Ok(messages)
    }

    /// What came in and was not yet marked as shown, oldest first: what a listener stored and was
    /// killed before it had shown it. On a device that never listened, nothing is.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn unshown(&self) -> Result<Vec<Message>, DeviceError> {
        let Some(shown) = self.store.get::<ShownRow>(&())? else {
            let marks = self.store.get::<MarksRow>(&())?.unwrap_or_default();
            self.mark_shown(marks.next_order)?;
            return Ok(Vec::new());
        };
        let mut messages = self.messages()?;
        // What another device of this box sent came in too.
        let this = self.identity().device();
        messages.retain(|message| {
            let came_in = message.direction == Direction::In || message.sender.device != this;
            came_in && message.order >= shown.next_order
        });
        Ok(messages)
    }

    /// Marks every message before this order as shown. Never goes back.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn mark_shown(&self, next_order: u64) -> Result<(), DeviceError> {
        Ok(self.store.write(|batch| {
            let before = batch.get::<ShownRow>(&())?.map(|shown| shown.next_order);
            let next_order = before.unwrap_or_default().max(next_order);
            batch.put(&(), &ShownRow { next_order })
        })?)
    }
}
