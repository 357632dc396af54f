//! What a person says: typed and versioned, so that a device that does not know a kind can keep it
//! and say so.

use std::fmt;

use rossby_domain::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use super::layout::MAX_CONTENT_BYTES;

const KIND_TEXT: u16 = 1;
const KIND_FILE: u16 = 2;
const TEXT_VERSION: u8 = 1;
const FILE_VERSION: u8 = 1;

/// Bytes of a file's name.
pub const MAX_FILE_NAME_BYTES: usize = 255;
/// Bytes of a media type.
pub const MAX_MEDIA_TYPE_BYTES: usize = 127;

/// Why something can not be content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The bytes are not content.
    #[error("malformed content: {0}")]
    Malformed(#[from] WireError),
    /// A text that is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// A file name that is empty, too long, or could lead out of a folder.
    #[error("a file name must be 1 to 255 bytes without separators or control characters")]
    FileName,
    /// A media type that is too long or not printable ASCII.
    #[error("a media type must be at most 127 printable ASCII characters")]
    MediaType,
    /// More than an envelope holds.
    #[error("the content has {bytes} bytes; an envelope holds {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most there can be.
        limit: usize,
    },
}

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
        let printable = media_type
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if media_type.len() > MAX_MEDIA_TYPE_BYTES || !printable {
            return Err(ContentError::MediaType);
        }
        Ok(Self {
            name: name.to_owned(),
            media_type: media_type.to_owned(),
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
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({} bytes)", self.bytes.len())
    }
}

/// What an envelope says. `Debug` shows its kind and size only.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A file.
    File(File),
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
        let bytes = match self {
            Self::Text(text) => {
                let mut bytes = Writer::default().u16(KIND_TEXT).u8(TEXT_VERSION).finish();
                bytes.extend_from_slice(text.as_bytes());
                bytes
            }
            Self::File(file) => Writer::default()
                .u16(KIND_FILE)
                .u8(FILE_VERSION)
                .bytes(file.name.as_bytes())
                .bytes(file.media_type.as_bytes())
                .bytes(&file.bytes)
                .finish(),
            Self::Unknown {
                kind,
                version,
                body,
            } => {
                let mut bytes = Writer::default().u16(*kind).u8(*version).finish();
                bytes.extend_from_slice(body);
                bytes
            }
        };
        let bytes = Zeroizing::new(bytes);
        if bytes.len() > MAX_CONTENT_BYTES {
            return Err(ContentError::TooLarge {
                bytes: bytes.len(),
                limit: MAX_CONTENT_BYTES,
            });
        }
        Ok(bytes)
    }

    /// The content in these bytes. A kind, or a version of one, that is not known is no error.
    ///
    /// # Errors
    /// [`ContentError`] if a kind that is known is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let (head, body) = bytes.split_at_checked(3).ok_or(WireError::Truncated)?;
        let mut head = Reader::new(head);
        match (head.u16()?, head.u8()?) {
            (KIND_TEXT, TEXT_VERSION) => std::str::from_utf8(body)
                .map(|text| Self::Text(text.to_owned()))
                .map_err(|_| ContentError::NotUtf8),
            (KIND_FILE, FILE_VERSION) => decode_file(body).map(Self::File),
            (kind, version) => Ok(Self::Unknown {
                kind,
                version,
                body: body.to_vec(),
            }),
        }
    }
}

fn decode_file(body: &[u8]) -> Result<File, ContentError> {
    let mut reader = Reader::new(body);
    let name = std::str::from_utf8(reader.bytes(MAX_FILE_NAME_BYTES, "file name")?)
        .map_err(|_| ContentError::FileName)?;
    let media_type = std::str::from_utf8(reader.bytes(MAX_MEDIA_TYPE_BYTES, "media type")?)
        .map_err(|_| ContentError::MediaType)?;
    let bytes = reader.bytes(MAX_CONTENT_BYTES, "file")?.to_vec();
    reader.finish()?;
    File::new(name, media_type, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_files_come_back_as_they_were(
            text in ".{0,200}",
            name in "[a-z0-9 .]{3,40}",
            bytes in proptest::collection::vec(any::<u8>(), 0..500),
        ) {
            let text = Content::Text(text);
            prop_assert_eq!(Content::decode(&text.encode().unwrap()).unwrap(), text);
            let file = Content::File(File::new(&name, "text/plain", bytes).unwrap());
            prop_assert_eq!(Content::decode(&file.encode().unwrap()).unwrap(), file);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Ok(content) = Content::decode(&bytes) {
                let encoded = content.encode().unwrap();
                prop_assert_eq!(encoded.as_slice(), bytes.as_slice());
            }
        }
    }

    #[test]
    fn an_unknown_kind_and_an_unknown_version_are_kept() {
        for bytes in [[9, 9, 1, 42], [0, 1, 2, 42]] {
            let content = Content::decode(&bytes).unwrap();
            assert!(matches!(content, Content::Unknown { .. }));
            assert_eq!(content.encode().unwrap().as_slice(), bytes);
        }
    }

    #[test]
    fn a_file_name_can_not_lead_out_of_a_folder() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\0b",
            "a\nb",
            &"a".repeat(256),
        ] {
            assert_eq!(
                File::new(name, "", vec![]),
                Err(ContentError::FileName),
                "{name:?}"
            );
            let bytes = Writer::default()
                .u16(KIND_FILE)
                .u8(FILE_VERSION)
                .bytes(name.as_bytes())
                .bytes(b"")
                .bytes(b"x")
                .finish();
            assert!(Content::decode(&bytes).is_err(), "{name:?}");
        }
    }

    #[test]
    fn more_than_an_envelope_holds_is_refused() {
        let fits = Content::Text("a".repeat(MAX_CONTENT_BYTES - 3));
        assert_eq!(fits.encode().unwrap().len(), MAX_CONTENT_BYTES);
        let over = Content::Text("a".repeat(MAX_CONTENT_BYTES - 2));
        assert!(matches!(over.encode(), Err(ContentError::TooLarge { .. })));
    }
}
