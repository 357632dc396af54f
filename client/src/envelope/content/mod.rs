//! What a person says: typed and versioned, so that a device that does not know a kind can keep it
//! and say so.
//!
//! ```text
//!   said by itself   text, picture, location, file, voice
//!   about others     reply (holds one of those), reaction, edit, delete, receipt     acts.rs
//!                    each names them by who wrote them and when                      message_id.rs
//!   between devices  control
//! ```
//!
//! Invariants: one value, one encoding; what was read is written as the same bytes. No kind holds more
//! than its limits say, whoever wrote it. What is done to a message counts only if its author did it
//! ([`Content::counts_from`]).

mod acts;
mod control;
mod error;
mod fields;
mod file;
mod location;
mod message_id;
mod picture;
#[cfg(test)]
mod tests;
mod voice;

use std::fmt;

use rossby_domain::ids::BoxId;
use rossby_domain::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

pub use self::acts::{Edit, MAX_RECEIPT_MESSAGES, Reaction, Receipt, ReceiptState, Reply};
pub use self::control::Control;
pub use self::error::ContentError;
pub use self::file::File;
pub use self::location::{Location, PER_DEGREE};
pub use self::message_id::MessageId;
pub use self::picture::Picture;
pub use self::voice::Voice;
use super::layout::MAX_CONTENT_BYTES;

/// A kind and the version of it that is written here.
type Kind = (u16, u8);

const TEXT: Kind = (1, 1);
const FILE: Kind = (2, 1);
const PICTURE: Kind = (3, 1);
const LOCATION: Kind = (4, 1);
const VOICE: Kind = (5, 1);
const REACTION: Kind = (6, 1);
const REPLY: Kind = (7, 1);
const EDIT: Kind = (8, 1);
const DELETE: Kind = (9, 1);
const RECEIPT: Kind = (10, 1);
const CONTROL: Kind = (11, 1);

/// What an envelope says. `Debug` shows its kind and size only.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A file.
    File(File),
    /// A picture.
    Picture(Picture),
    /// A place.
    Location(Location),
    /// A voice message.
    Voice(Voice),
    /// A reaction to an earlier message.
    Reaction(Reaction),
    /// An answer to an earlier message.
    Reply(Reply),
    /// Another text for an earlier message.
    Edit(Edit),
    /// An earlier message is taken back.
    Delete(MessageId),
    /// How far messages have come.
    Receipt(Receipt),
    /// Word between devices.
    Control(Control),
    /// Something that this version does not know. Kept whole, for a later one.
    Unknown {
        /// Its kind.
        kind: u16,
        /// The version of that kind.
        version: u8,
        /// The rest of it.
        body: Vec<u8>,
    },
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::File(file) => file.fmt(f),
            Self::Picture(picture) => picture.fmt(f),
            Self::Location(location) => location.fmt(f),
            Self::Voice(voice) => voice.fmt(f),
            Self::Reaction(reaction) => reaction.fmt(f),
            Self::Reply(reply) => reply.fmt(f),
            Self::Edit(edit) => edit.fmt(f),
            Self::Delete(message) => write!(f, "Delete({message})"),
            Self::Receipt(receipt) => receipt.fmt(f),
            Self::Control(control) => control.fmt(f),
            Self::Unknown {
                kind,
                version,
                body,
            } => {
                write!(f, "Unknown({kind}, {version}, {} bytes)", body.len())
            }
        }
    }
}

impl Content {
    /// The bytes of the content, within what an envelope holds.
    ///
    /// # Errors
    /// [`ContentError::TooLarge`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, ContentError> {
        let bytes = self.write();
        if bytes.len() > MAX_CONTENT_BYTES {
            return Err(ContentError::TooLarge {
                bytes: bytes.len(),
                limit: MAX_CONTENT_BYTES,
            });
        }
        Ok(bytes)
    }

    /// The bytes of the content, however many.
    fn write(&self) -> Zeroizing<Vec<u8>> {
        let head = |(kind, version): Kind| Writer::default().u16(kind).u8(version);
        let bare = |kind: Kind, rest: &[u8]| {
            let mut bytes = head(kind).finish();
            bytes.extend_from_slice(rest);
            bytes
        };
        Zeroizing::new(match self {
            Self::Text(text) => bare(TEXT, text.as_bytes()),
            Self::File(file) => file.write(head(FILE)).finish(),
            Self::Picture(picture) => picture.write(head(PICTURE)).finish(),
            Self::Location(location) => location.write(head(LOCATION)).finish(),
            Self::Voice(voice) => voice.write(head(VOICE)).finish(),
            Self::Reaction(reaction) => reaction.write(head(REACTION)).finish(),
            Self::Reply(reply) => reply.write(head(REPLY)).finish(),
            Self::Edit(edit) => edit.write(head(EDIT)).finish(),
            Self::Delete(message) => message.write(head(DELETE)).finish(),
            Self::Receipt(receipt) => receipt.write(head(RECEIPT)).finish(),
            Self::Control(control) => control.write(head(CONTROL)).finish(),
            Self::Unknown {
                kind,
                version,
                body,
            } => bare((*kind, *version), body),
        })
    }

    /// The content in these bytes. A kind, or a version of one, that is not known is no error.
    ///
    /// # Errors
    /// [`ContentError`] if a kind that is known is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let (kind, body) = split(bytes)?;
        let mut reader = Reader::new(body);
        let rest = &mut reader;
        let content = match kind {
            TEXT => {
                return std::str::from_utf8(body)
                    .map(|text| Self::Text(text.to_owned()))
                    .map_err(|_| ContentError::NotUtf8);
            }
            FILE => Self::File(File::read(rest)?),
            PICTURE => Self::Picture(Picture::read(rest)?),
            LOCATION => Self::Location(Location::read(rest)?),
            VOICE => Self::Voice(Voice::read(rest)?),
            REACTION => Self::Reaction(Reaction::read(rest)?),
            REPLY => Self::Reply(Reply::read(rest)?),
            EDIT => Self::Edit(Edit::read(rest)?),
            DELETE => Self::Delete(MessageId::read(rest)?),
            RECEIPT => Self::Receipt(Receipt::read(rest)?),
            CONTROL => Self::Control(Control::read(rest)?),
            kind => return Ok(unknown(kind, body)),
        };
        reader.finish()?;
        Ok(content)
    }

    /// The content in bytes that were kept by an earlier version, which may not have known the kind and
    /// so not have refused what is malformed: that stays unknown.
    ///
    /// # Errors
    /// [`ContentError::Malformed`] if there is not even a kind.
    pub fn decode_kept(bytes: &[u8]) -> Result<Self, ContentError> {
        match Self::decode(bytes) {
            Err(_) => {
                let (kind, body) = split(bytes)?;
                Ok(unknown(kind, body))
            }
            decoded => decoded,
        }
    }

    /// Whether it is said by itself, and so can stand in a reply.
    fn stands_alone(&self) -> bool {
        match self {
            Self::Text(_)
            | Self::File(_)
            | Self::Picture(_)
            | Self::Location(_)
            | Self::Voice(_)
            | Self::Unknown { .. } => true,
            Self::Reaction(_)
            | Self::Reply(_)
            | Self::Edit(_)
            | Self::Delete(_)
            | Self::Receipt(_)
            | Self::Control(_) => false,
        }
    }

    /// The same of content in its bytes.
    fn bytes_stand_alone(bytes: &[u8]) -> Result<bool, ContentError> {
        let (kind, _) = split(bytes)?;
        let about_others = [REACTION, REPLY, EDIT, DELETE, RECEIPT, CONTROL];
        Ok(!about_others.contains(&kind))
    }

    /// What a person says with it: itself, or what a reply holds. `None` if it does something to others.
    #[must_use]
    pub fn said(&self) -> Option<&Self> {
        match self {
            Self::Reply(reply) => Some(reply.content()),
            content => content.stands_alone().then_some(content),
        }
    }

    /// The messages that it refers to.
    #[must_use]
    pub fn about(&self) -> &[MessageId] {
        match self {
            Self::Reaction(reaction) => std::slice::from_ref(reaction.to()),
            Self::Reply(reply) => std::slice::from_ref(reply.to()),
            Self::Edit(edit) => std::slice::from_ref(&edit.message),
            Self::Delete(message) => std::slice::from_ref(message),
            Self::Receipt(receipt) => receipt.messages(),
            _ => &[],
        }
    }

    /// Whether it counts, coming from this box: only who wrote a message can change it or take it back.
    #[must_use]
    pub fn counts_from(&self, author: &BoxId) -> bool {
        match self {
            Self::Edit(Edit { message, .. }) | Self::Delete(message) => {
                message.sender.box_id == *author
            }
            _ => true,
        }
    }

    /// The content with another text; `None` if it has none that could be another.
    #[must_use]
    pub fn with_text(self, text: &str) -> Option<Self> {
        let changed = match self {
            Self::Text(_) => Self::Text(text.to_owned()),
            Self::Picture(picture) => Self::Picture(picture.with_caption(text).ok()?),
            Self::Reply(reply) => {
                let content = reply.content().clone().with_text(text)?;
                Self::Reply(Reply::new(*reply.to(), content).ok()?)
            }
            _ => return None,
        };
        // An edit holds a text, and not all that stands beside it.
        changed.encode().is_ok().then_some(changed)
    }
}

/// The kind, and what is behind it.
fn split(bytes: &[u8]) -> Result<(Kind, &[u8]), WireError> {
    let (head, body) = bytes.split_at_checked(3).ok_or(WireError::Truncated)?;
    let mut head = Reader::new(head);
    Ok(((head.u16()?, head.u8()?), body))
}

fn unknown((kind, version): Kind, body: &[u8]) -> Content {
    Content::Unknown {
        kind,
        version,
        body: body.to_vec(),
    }
}
