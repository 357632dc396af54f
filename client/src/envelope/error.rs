//! Why an envelope could not be sealed or opened.

use rossby_domain::wire::WireError;
use rossby_seams::random::RandomError;

use super::content::ContentError;
use crate::crypto::kem::KemError;

/// Why something could not be sealed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SealError {
    /// The content does not fit or is not valid.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The recipient has no device that could open it.
    #[error("the recipient has no device to seal to")]
    NoDevices,
    /// A key of the recipient is not usable.
    #[error(transparent)]
    Kem(#[from] KemError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The content could not be encrypted.
    #[error("encryption failed")]
    Encrypt,
}

/// Why an envelope can not be opened. Nothing of it is shown then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are not an envelope.
    #[error("malformed envelope: {0}")]
    Malformed(#[from] WireError),
    /// A layout of another version of Rossby.
    #[error("envelope version {0} is not known here")]
    UnknownVersion(u8),
    /// A suite of another version of Rossby.
    #[error("encryption suite {0} is not known here")]
    UnknownSuite(u8),
    /// No wrap is for this device.
    #[error("the envelope was not sealed to this device")]
    NotForThisDevice,
    /// It was sealed to a KEM key that this device no longer has, or never had.
    #[error("the envelope was sealed to key {key_counter} of this device, which it does not have")]
    NoSuchKey {
        /// The counter of that key.
        key_counter: u64,
    },
    /// The wrap does not open: damaged, or spliced in from elsewhere.
    #[error("the content key can not be unwrapped")]
    Unwrap,
    /// The content key is not the one that the envelope commits to.
    #[error("the content key does not match its commitment")]
    Commitment,
    /// The content does not decrypt: damaged.
    #[error("the content can not be decrypted")]
    Decrypt,
    /// Signed by, or as, another device than the one that the server names.
    #[error("the envelope was signed for another sender than it came from")]
    WrongSender,
    /// Meant for another box.
    #[error("the envelope was written to another box")]
    WrongRecipient,
    /// Signed under another counter than the one that the server names.
    #[error("the envelope was signed under another counter than it came with")]
    WrongCounter,
    /// The sender's chain has moved on beyond the record at hand. Look it up and try again.
    #[error("the sender's key record at hand is older than version {needed}")]
    SenderRecordTooOld {
        /// The version that the envelope names.
        needed: u64,
    },
    /// The sender names a chain that is not the one we know: somebody shows us, or them, another.
    #[error("the sender's identity chain is not the one that is known here")]
    SenderChainForked,
    /// The sender was shown a chain of ours that is not ours.
    #[error("the sender was shown another identity chain of this box than the real one")]
    OwnChainForked,
    /// The sender was shown a version of our chain that we do not have yet.
    #[error("the sender knows version {0} of this box's chain, which this device does not have")]
    OwnRecordTooOld(u64),
    /// The device was not one of the sender's at that version of their chain.
    #[error("the sending device is not one of the sender's")]
    UnknownDevice,
    /// Not signed by the sender's device.
    #[error("the envelope's signature is not valid")]
    BadSignature,
    /// Bytes other than zero behind the content.
    #[error("the envelope's padding is not valid")]
    BadPadding,
    /// Verified, and yet not content.
    #[error("{0}")]
    Content(#[from] ContentError),
}

impl OpenError {
    /// A stable name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "MALFORMED",
            Self::UnknownVersion(_) => "UNKNOWN_VERSION",
            Self::UnknownSuite(_) => "UNKNOWN_SUITE",
            Self::NotForThisDevice => "NOT_FOR_THIS_DEVICE",
            Self::NoSuchKey { .. } => "NO_SUCH_KEY",
            Self::Unwrap => "CANNOT_UNWRAP",
            Self::Commitment => "BAD_COMMITMENT",
            Self::Decrypt => "CANNOT_DECRYPT",
            Self::WrongSender => "WRONG_SENDER",
            Self::WrongRecipient => "WRONG_RECIPIENT",
            Self::WrongCounter => "WRONG_COUNTER",
            Self::SenderRecordTooOld { .. } => "SENDER_RECORD_TOO_OLD",
            Self::SenderChainForked => "SENDER_CHAIN_FORKED",
            Self::OwnChainForked => "OWN_CHAIN_FORKED",
            Self::OwnRecordTooOld(_) => "OWN_RECORD_TOO_OLD",
            Self::UnknownDevice => "UNKNOWN_DEVICE",
            Self::BadSignature => "BAD_SIGNATURE",
            Self::BadPadding => "BAD_PADDING",
            Self::Content(_) => "BAD_CONTENT",
        }
    }
}
