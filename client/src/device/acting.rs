//! Doing something with an earlier message: answering, reacting, changing it, taking it back.
//!
//! Each is a message of its own to the same person, or group. It takes effect here when it is stored in their box,
//! as it does there: what this device shows is what they are shown.

use std::time::Duration;

use super::messages::{Message, Status};
use super::{Device, DeviceError, Sent};
use crate::conversation::Conversation;
use crate::envelope::{Content, Edit, MessageId, Reaction, Reply};

impl Device {
    /// The message with this place among all messages of this device.
    ///
    /// # Errors
    /// [`DeviceError::NoMessage`], [`DeviceError::Store`].
    pub fn message(&self, order: u64) -> Result<Message, DeviceError> {
        let found = self
            .messages()?
            .into_iter()
            .find(|message| message.order == order);
        found.ok_or(DeviceError::NoMessage)
    }

    /// The message with this id, which is the same on all devices.
    ///
    /// # Errors
    /// [`DeviceError::NoMessage`], [`DeviceError::Store`].
    pub fn message_by_id(&self, id: &MessageId) -> Result<Message, DeviceError> {
        let found = self
            .messages()?
            .into_iter()
            .find(|message| message.id() == Some(*id));
        found.ok_or(DeviceError::NoMessage)
    }

    /// Answers a message. The content is a text, a picture, a location, a file or a voice message.
    ///
    /// # Errors
    /// [`DeviceError::Unfit`] if there is nothing to answer; as [`Device::send`] or [`Device::send_to_group`].
    pub async fn reply(
        &self,
        message: &Message,
        content: Content,
    ) -> Result<Vec<Sent>, DeviceError> {
        self.reply_for(message, content, None).await
    }

    /// The same, with an answer that waits no longer than `ttl` ([`Device::send_for`]).
    ///
    /// # Errors
    /// As [`Device::reply`].
    pub async fn reply_for(
        &self,
        message: &Message,
        content: Content,
        ttl: Option<Duration>,
    ) -> Result<Vec<Sent>, DeviceError> {
        let reply = Content::Reply(Reply::new(named(message)?, content)?);
        match message.conversation() {
            Conversation::With(to) => Ok(vec![self.send_for(&to, &reply, ttl).await?]),
            Conversation::In(group) => self.send_to_group_for(&group, &reply, ttl).await,
        }
    }

    /// Reacts to a message, in place of an earlier reaction; `None` takes that back.
    ///
    /// # Errors
    /// [`DeviceError::Unfit`] if there is nothing to react to; as [`Device::send`] or [`Device::send_to_group`].
    pub async fn react(
        &self,
        message: &Message,
        emoji: Option<&str>,
    ) -> Result<Vec<Sent>, DeviceError> {
        let reaction = Reaction::new(named(message)?, emoji.unwrap_or_default())?;
        self.say_in(&message.conversation(), &Content::Reaction(reaction))
            .await
    }

    /// Gives an own message another text.
    ///
    /// # Errors
    /// [`DeviceError::NotTheAuthor`]; [`DeviceError::Unfit`] if it has no text, or not this much room
    /// for one; as [`Device::send`] or [`Device::send_to_group`].
    pub async fn edit(&self, message: &Message, text: &str) -> Result<Vec<Sent>, DeviceError> {
        let id = self.own(message)?;
        let content = message.content.clone();
        if content.and_then(|old| old.with_text(text)).is_none() {
            return Err(DeviceError::Unfit("it can't have this text"));
        }
        let text = text.to_owned();
        let edit = Content::Edit(Edit { message: id, text });
        self.say_in(&message.conversation(), &edit).await
    }

    /// Takes an own message back: who has it shows it no more. Nobody can know who has seen it before.
    /// What still waits to be sent is [withdrawn](Device::withdraw) with less ado.
    ///
    /// # Errors
    /// [`DeviceError::NotTheAuthor`]; [`DeviceError::Unfit`] if it is gone already; as
    /// [`Device::send`] or [`Device::send_to_group`].
    pub async fn delete(&self, message: &Message) -> Result<Vec<Sent>, DeviceError> {
        let id = match (message.id(), &message.status) {
            // A reply may have been lost: it may be there nonetheless.
            (Some(id), Status::Withdrawn) => id,
            _ => self.own(message)?,
        };
        self.say_in(&message.conversation(), &Content::Delete(id))
            .await
    }

    /// The id of a message of this box's own that others can refer to.
    fn own(&self, message: &Message) -> Result<MessageId, DeviceError> {
        let id = named(message)?;
        if self.is_own(&message.sender.box_id)? {
            Ok(id)
        } else {
            Err(DeviceError::NotTheAuthor)
        }
    }

    async fn say_in(
        &self,
        conversation: &Conversation,
        content: &Content,
    ) -> Result<Vec<Sent>, DeviceError> {
        match conversation {
            Conversation::With(to) => Ok(vec![self.send(to, content).await?]),
            Conversation::In(group) => self.send_to_group(group, content).await,
        }
    }
}

/// The id of a message that others can refer to: something said, and known to both.
fn named(message: &Message) -> Result<MessageId, DeviceError> {
    if message.acts.deleted {
        return Err(DeviceError::Unfit("it is deleted"));
    }
    if matches!(message.status, Status::Refused { .. }) {
        return Err(DeviceError::Unfit("it never arrived"));
    }
    let said = message.content.as_ref().and_then(Content::said);
    match (message.id(), said) {
        (Some(id), Some(_)) => Ok(id),
        (None, _) => Err(DeviceError::Unfit("it is not readable")),
        (_, None) => Err(DeviceError::Unfit("nothing is said in it")),
    }
}
