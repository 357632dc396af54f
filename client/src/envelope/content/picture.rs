//! A picture, to be shown where it stands.

use std::fmt;
use std::num::NonZeroU16;

use rossby_domain::wire::{Reader, Writer};

use super::{ContentError, fields};

/// Bytes of a caption.
pub const MAX_CAPTION_BYTES: usize = 4096;

/// A picture. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    media_type: String,
    width: NonZeroU16,
    height: NonZeroU16,
    caption: String,
    bytes: Vec<u8>,
}

impl Picture {
    /// A picture of so many pixels, with words about it or none. What its bytes really are, only who
    /// shows it finds out.
    ///
    /// # Errors
    /// [`ContentError::MediaType`], [`ContentError::PictureSize`], [`ContentError::Caption`].
    pub fn new(
        media_type: &str,
        (width, height): (u16, u16),
        caption: &str,
        bytes: Vec<u8>,
    ) -> Result<Self, ContentError> {
        let pixels = |count| NonZeroU16::new(count).ok_or(ContentError::PictureSize);
        let picture = Self {
            media_type: fields::media_type(media_type, "image/")?,
            width: pixels(width)?,
            height: pixels(height)?,
            caption: String::new(),
            bytes,
        };
        picture.with_caption(caption)
    }

    /// The picture with other words about it.
    ///
    /// # Errors
    /// [`ContentError::Caption`].
    pub fn with_caption(self, caption: &str) -> Result<Self, ContentError> {
        if caption.len() > MAX_CAPTION_BYTES {
            return Err(ContentError::Caption);
        }
        let caption = caption.to_owned();
        Ok(Self { caption, ..self })
    }

    /// What the sender says that it is, for example `image/png`.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Its width and height in pixels, as the sender says.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        (self.width.get(), self.height.get())
    }

    /// Words about it; empty if there are none.
    #[must_use]
    pub fn caption(&self) -> &str {
        &self.caption
    }

    /// The picture itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        writer
            .bytes(self.media_type.as_bytes())
            .u16(self.width.get())
            .u16(self.height.get())
            .bytes(self.caption.as_bytes())
            .bytes(&self.bytes)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let media_type = fields::read_media_type(reader)?;
        let size = (reader.u16()?, reader.u16()?);
        let caption = fields::read_text(reader, MAX_CAPTION_BYTES, "caption")?;
        let bytes = fields::read_data(reader, "picture")?;
        Self::new(&media_type, size, &caption, bytes)
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} bytes)", self.bytes.len())
    }
}
