//! Fields that several kinds have.

use rossby_domain::wire::{Reader, WireError};

use super::ContentError;
use crate::envelope::layout::MAX_CONTENT_BYTES;

/// Bytes of a media type.
pub const MAX_MEDIA_TYPE_BYTES: usize = 127;

/// A media type, of this family (`image/`) if one is asked for.
pub(super) fn media_type(text: &str, family: &str) -> Result<String, ContentError> {
    let printable = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if text.len() > MAX_MEDIA_TYPE_BYTES || !printable || !text.starts_with(family) {
        return Err(ContentError::MediaType);
    }
    Ok(text.to_owned())
}

/// Reads a media type.
pub(super) fn read_media_type(reader: &mut Reader<'_>) -> Result<String, ContentError> {
    let bytes = reader.bytes(MAX_MEDIA_TYPE_BYTES, "media type")?;
    String::from_utf8(bytes.to_vec()).map_err(|_| ContentError::MediaType)
}

/// Reads a text of at most so many bytes.
pub(super) fn read_text(
    reader: &mut Reader<'_>,
    limit: usize,
    what: &'static str,
) -> Result<String, ContentError> {
    let bytes = reader.bytes(limit, what)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| ContentError::NotUtf8)
}

/// Reads what a file, a picture or a voice message is made of.
pub(super) fn read_data(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<u8>, WireError> {
    Ok(reader.bytes(MAX_CONTENT_BYTES, what)?.to_vec())
}
