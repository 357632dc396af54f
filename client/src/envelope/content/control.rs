//! What devices tell each other without a person's doing.

use std::fmt;

use rossby_domain::wire::{Reader, Writer};

use super::{ContentError, fields};

/// Word between devices, of some topic. This version knows none; what it gets is kept for a later one.
/// `Debug` shows its topic and size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Control {
    /// What it is about.
    pub topic: u16,
    /// What it says, in the form of that topic.
    pub body: Vec<u8>,
}

impl Control {
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
