//! What refers to earlier messages: replies, reactions, edits, receipts.

use std::fmt;

use rossby_domain::wire::{Reader, WireError, Writer};

use super::message_id::MessageId;
use super::{Content, ContentError, fields};
use crate::envelope::layout::MAX_CONTENT_BYTES;

/// Bytes of a reaction.
pub const MAX_EMOJI_BYTES: usize = 64;
/// Messages of one receipt.
pub const MAX_RECEIPT_MESSAGES: usize = 256;

/// Something said in answer to an earlier message.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    to: MessageId,
    content: Box<Content>,
}

impl Reply {
    /// An answer to a message.
    ///
    /// # Errors
    /// [`ContentError::Reply`] if the content is not one that can stand by itself.
    pub fn new(to: MessageId, content: Content) -> Result<Self, ContentError> {
        if !content.stands_alone() {
            return Err(ContentError::Reply);
        }
        let content = Box::new(content);
        Ok(Self { to, content })
    }

    /// The message that it answers.
    #[must_use]
    pub fn to(&self) -> &MessageId {
        &self.to
    }

    /// What it says.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        self.to.write(writer).bytes(&self.content.write())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let to = MessageId::read(reader)?;
        let content = reader.bytes(MAX_CONTENT_BYTES, "reply")?;
        // Before it is read: replies within replies would be read as deep as they go.
        if !Content::bytes_stand_alone(content)? {
            return Err(ContentError::Reply);
        }
        Self::new(to, Content::decode(content)?)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({:?})", self.content)
    }
}

/// A reaction to an earlier message. A person's last one counts. `Debug` does not show which.
#[derive(Clone, PartialEq, Eq)]
pub struct Reaction {
    to: MessageId,
    emoji: String,
}

impl Reaction {
    /// A reaction; an empty one takes the earlier one back.
    ///
    /// # Errors
    /// [`ContentError::Emoji`].
    pub fn new(to: MessageId, emoji: &str) -> Result<Self, ContentError> {
        let bad = |character: char| character.is_control() || character.is_whitespace();
        if emoji.len() > MAX_EMOJI_BYTES || emoji.chars().any(bad) {
            return Err(ContentError::Emoji);
        }
        let emoji = emoji.to_owned();
        Ok(Self { to, emoji })
    }

    /// The message that it is about.
    #[must_use]
    pub fn to(&self) -> &MessageId {
        &self.to
    }

    /// The emoji; empty if the reaction is taken back.
    #[must_use]
    pub fn emoji(&self) -> &str {
        &self.emoji
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        self.to.write(writer).bytes(self.emoji.as_bytes())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let to = MessageId::read(reader)?;
        let emoji = fields::read_text(reader, MAX_EMOJI_BYTES, "reaction")?;
        Self::new(to, &emoji)
    }
}

impl fmt::Debug for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reaction(..)")
    }
}

/// Another text in place of an earlier one's: a text's, a reply's, a picture's caption. The last one
/// counts. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Edit {
    /// The message that it is about.
    pub message: MessageId,
    /// The text that it has from now on.
    pub text: String,
}

impl Edit {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        self.message.write(writer).bytes(self.text.as_bytes())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let message = MessageId::read(reader)?;
        let text = fields::read_text(reader, MAX_CONTENT_BYTES, "text")?;
        Ok(Self { message, text })
    }
}

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Edit({} bytes)", self.text.len())
    }
}

/// How far messages have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptState {
    /// Stored on a device of the recipient.
    Delivered,
    /// Seen by the recipient.
    Read,
}

impl ReceiptState {
    fn number(self) -> u8 {
        match self {
            Self::Delivered => 1,
            Self::Read => 2,
        }
    }
}

/// Word of how far messages have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    state: ReceiptState,
    messages: Vec<MessageId>,
}

impl Receipt {
    /// Whether these are the bytes of content that is a receipt.
    #[must_use]
    pub fn is(content: &[u8]) -> bool {
        let head = Writer::default().u16(super::RECEIPT.0).u8(super::RECEIPT.1);
        content.starts_with(&head.finish())
    }

    /// A receipt for messages, given in any order.
    ///
    /// # Errors
    /// [`ContentError::Receipt`].
    pub fn new(state: ReceiptState, mut messages: Vec<MessageId>) -> Result<Self, ContentError> {
        messages.sort_unstable();
        messages.dedup();
        if messages.is_empty() || messages.len() > MAX_RECEIPT_MESSAGES {
            return Err(ContentError::Receipt);
        }
        Ok(Self { state, messages })
    }

    /// How far they have come.
    #[must_use]
    pub fn state(&self) -> ReceiptState {
        self.state
    }

    /// The messages, in the order of their ids.
    #[must_use]
    pub fn messages(&self) -> &[MessageId] {
        &self.messages
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        // Bound by MAX_RECEIPT_MESSAGES.
        let count = u16::try_from(self.messages.len()).unwrap_or(u16::MAX);
        let writer = writer.u8(self.state.number()).u16(count);
        self.messages
            .iter()
            .fold(writer, |writer, message| message.write(writer))
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let state = match reader.u8()? {
            1 => ReceiptState::Delivered,
            2 => ReceiptState::Read,
            _ => return Err(WireError::Invalid("receipt").into()),
        };
        let count = usize::from(reader.u16()?);
        if count > MAX_RECEIPT_MESSAGES {
            return Err(ContentError::Receipt);
        }
        let messages = (0..count)
            .map(|_| MessageId::read(reader))
            .collect::<Result<Vec<_>, _>>()?;
        let receipt = Self::new(state, messages.clone())?;
        if receipt.messages == messages {
            Ok(receipt)
        } else {
            Err(ContentError::Receipt)
        }
    }
}
