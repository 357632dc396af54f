//! Identity chains and key records.
//!
//! ```text
//!   genesis {first device key, recovery key, nonce} ──► link 1 ──► link 2 ──► ...      (the chain)
//!   per device: a KEM key signed by that device, under its own counter, current and previous
//! ```
//!
//! The chain changes rarely, keeps all its links, and each link is signed by a live device or by the
//! recovery key. KEM keys rotate beside it. Both are verified wherever they are built from bytes:
//! a [`KeyRecord`] in hand is a verified one, on a device as on a server.

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::DeviceId;
use crate::wire::{Reader, WireError, Writer};

/// Links that a chain may have. A chain that is full can still be replaced by a new box.
pub const MAX_LINKS: usize = 256;
/// Live devices that a chain may name.
pub const MAX_DEVICES: usize = 8;
/// Bytes of an X-Wing public key (draft-connolly-cfrg-xwing-kem).
pub const XWING_PUBLIC_KEY_BYTES: usize = 1216;

/// The SHA-256 of a chain's head: of the genesis, or of the last link.
pub type ChainHash = [u8; 32];
/// An Ed25519 public key.
pub type SigningPublicKey = [u8; 32];
/// An Ed25519 signature.
pub type SignatureBytes = [u8; 64];

/// Why a chain, a link or a key record is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The bytes are not a key record.
    #[error("malformed key record: {0}")]
    Malformed(#[from] WireError),
    /// A public key is not a point, or one of small order.
    #[error("not a usable public key")]
    BadKey,
    /// A signature does not verify.
    #[error("bad signature on {0}")]
    BadSignature(&'static str),
    /// A link does not follow the head of the chain.
    #[error("a link does not follow its chain")]
    BrokenChain,
    /// A link is signed by, adds or removes a device in a way the chain does not allow.
    #[error("a link is not allowed here: {0}")]
    NotAllowed(&'static str),
    /// A KEM key is for a device that is not live, or not newer than the one it replaces.
    #[error("a KEM key is not allowed here: {0}")]
    BadKemKey(&'static str),
}

/// The first record of an identity. Its hash is what a Box ID is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The first device's Ed25519 public key.
    pub device_key: SigningPublicKey,
    /// The Ed25519 public key that overrides all devices.
    pub recovery_key: SigningPublicKey,
    /// Makes the hash unpredictable, and the box unlinkable to the keys alone.
    pub nonce: [u8; 32],
}

/// A verified key record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {}
