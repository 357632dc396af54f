//! A voice message.

use std::fmt;

use rossby_domain::wire::{Reader, Writer};

use super::{ContentError, fields};

/// A voice message. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Voice {
    media_type: String,
    duration_ms: u32,
    bytes: Vec<u8>,
}

impl Voice {
    /// A voice message. A duration of 0 means "not known".
    ///
    /// # Errors
    /// [`ContentError::MediaType`].
    pub fn new(media_type: &str, duration_ms: u32, bytes: Vec<u8>) -> Result<Self, ContentError> {
        Ok(Self {
            media_type: fields::media_type(media_type, "audio/")?,
            duration_ms,
            bytes,
        })
    }

    /// What the sender says that it is, for example `audio/ogg`.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// How long it is, as the sender says; 0 if not known.
    #[must_use]
    pub fn duration_ms(&self) -> u32 {
        self.duration_ms
    }

    /// The recording itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        writer
            .bytes(self.media_type.as_bytes())
            .u32(self.duration_ms)
            .bytes(&self.bytes)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let media_type = fields::read_media_type(reader)?;
        let duration_ms = reader.u32()?;
        Self::new(
            &media_type,
            duration_ms,
            fields::read_data(reader, "voice message")?,
        )
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Voice({} bytes)", self.bytes.len())
    }
}
