//! What devices tell each other without a person's doing.

use std::fmt;

use rossby_domain::wire::{Reader, Writer};

use super::{ContentError, fields};

/// Word between devices, of some topic. What is of a topic that is not known is kept for a later version.
/// `Debug` shows its topic and size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Control {
    /// What it is about.
    pub topic: u16,
    /// What it says, in the form of that topic.
    pub body: Vec<u8>,
}

impl Control {
    /// The topic of groups: their pages ([`crate::group::Word`]).
    pub const GROUPS: u16 = 1;
    /// The topic of what a box shows of itself ([`crate::profile::ProfileWord`]).
    pub const PROFILE: u16 = 2;
    /// The topic of typing. In signals only: in an envelope it says nothing.
    pub const TYPING: u16 = 3;

    /// Whether these are the bytes of content that is about groups.
    #[must_use]
    pub fn is_about_groups(content: &[u8]) -> bool {
        Self::is_about(content, Self::GROUPS)
    }

    /// Whether these are the bytes of content that is of this topic.
    #[must_use]
    pub fn is_about(content: &[u8], topic: u16) -> bool {
        let head = Writer::default().u16(super::CONTROL.0).u8(super::CONTROL.1);
        content.starts_with(&head.u16(topic).finish())
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        writer.u16(self.topic).bytes(&self.body)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        Ok(Self {
            topic: reader.u16()?,
            body: fields::read_data(reader, "control message")?,
        })
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({}, {} bytes)", self.topic, self.body.len())
    }
}
