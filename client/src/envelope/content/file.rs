//! A small file.

use std::fmt;

use rossby_domain::wire::{Reader, Writer};

use super::{ContentError, fields};

/// Bytes of a file's name.
pub const MAX_FILE_NAME_BYTES: usize = 255;

/// A small file. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    name: String,
    media_type: String,
    bytes: Vec<u8>,
}

impl File {
    /// A file. An empty media type means "not known".
    ///
    /// # Errors
    /// [`ContentError::FileName`], [`ContentError::MediaType`].
    pub fn new(name: &str, media_type: &str, bytes: Vec<u8>) -> Result<Self, ContentError> {
        let leads_out = matches!(name, "" | "." | "..") || name.contains(['/', '\\']);
        if leads_out || name.len() > MAX_FILE_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(ContentError::FileName);
        }
        Ok(Self {
            name: name.to_owned(),
            media_type: fields::media_type(media_type, "")?,
            bytes,
        })
    }

    /// Its name: no path, safe to join to a folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the sender says that it is, for example `image/png`; empty if not known.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        writer
            .bytes(self.name.as_bytes())
            .bytes(self.media_type.as_bytes())
            .bytes(&self.bytes)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let name = std::str::from_utf8(reader.bytes(MAX_FILE_NAME_BYTES, "file name")?)
            .map_err(|_| ContentError::FileName)?;
        let media_type = fields::read_media_type(reader)?;
        Self::new(name, &media_type, fields::read_data(reader, "file")?)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({} bytes)", self.bytes.len())
    }
}
