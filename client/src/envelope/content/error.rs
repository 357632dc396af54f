//! Why something can not be content.

use rossby_domain::wire::WireError;

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
    /// A media type that is too long, not printable ASCII, or not of the kind that it must be.
    #[error(
        "a media type must be at most 127 printable ASCII characters, a picture's begin with image/ and a voice \
         message's with audio/"
    )]
    MediaType,
    /// A picture without a width or a height.
    #[error("a picture must be 1 to 65535 pixels wide and high")]
    PictureSize,
    /// A caption that is too long.
    #[error("a caption must have at most 4096 bytes")]
    Caption,
    /// Not a place on the earth.
    #[error("a latitude must be from -90 to 90 degrees, a longitude from -180 to 180")]
    Place,
    /// A label that is too long or has control characters.
    #[error("a label must have at most 255 bytes and no control characters")]
    Label,
    /// A reaction that is too long, or has spaces or control characters.
    #[error("a reaction must have at most 64 bytes, no spaces and no control characters")]
    Emoji,
    /// A reply that holds what can not stand by itself.
    #[error("a reply must hold a text, a picture, a location, a file or a voice message")]
    Reply,
    /// A receipt for nothing, for too much, or in another than the canonical order.
    #[error("a receipt must name 1 to 256 messages, each once and in order")]
    Receipt,
    /// More than an envelope holds.
    #[error("the content has {bytes} bytes; an envelope holds {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most there can be.
        limit: usize,
    },
}
