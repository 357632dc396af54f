//! Identity chains and key records.
//!
//! ```text
//!   genesis {first device key, recovery key, nonce} ──► link 1 ──► link 2 ──► ...      (the chain)
//!   per device: a KEM key signed by that device, under its own counter, current and previous
//! ```
//!
//! The chain changes rarely, keeps all its links, and each link is signed by a live device or by the
//! recovery key. KEM keys rotate beside it. Both are verified wherever they are built from foreign
//! bytes ([`KeyRecord::decode`]): a [`KeyRecord`] in hand is a verified one, on a device as on a
//! server.

mod record;

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::ids::DeviceId;
use crate::wire::{Reader, WireError, Writer};

pub use record::KeyRecord;

/// Links that a chain may have. None is ever so long that a device can not be removed: the end is kept for that.
pub const MAX_LINKS: usize = 256;
/// Live devices that a chain may name.
pub const MAX_DEVICES: usize = 8;
/// The most links of a chain that a device still adds another to. What is above is the recovery key's, so
/// that a stolen device can not fill the chain with devices that come and go, and stay for ever.
pub const MAX_LINKS_BY_DEVICES: usize = 192;
/// The most links of a chain that any key adds a device to. All devices but the last can be removed then.
pub const MAX_LINKS_BY_RECOVERY: usize = MAX_LINKS - MAX_DEVICES;
/// The only KEM suite so far: X-Wing (X25519 with ML-KEM-768).
pub const SUITE_XWING: u8 = 1;
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
    NotAllowed(LinkRefusal),
    /// A KEM key is for a device that is not live, or not newer than the one it replaces.
    #[error("a KEM key is not allowed here: {0}")]
    BadKemKey(&'static str),
}

/// Why a chain does not allow a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LinkRefusal {
    /// It has as many links as one may have that a device is added to by this signer.
    #[error("the chain is full: its signer can add no more devices to it")]
    ChainFull,
    /// Only a live device, or the recovery key, signs links.
    #[error("the signer is not live")]
    SignerNotLive,
    /// The recovery key and the device keys must differ.
    #[error("the recovery key is a device key")]
    RecoveryKey,
    /// The device to be added is there.
    #[error("the device is live already")]
    AlreadyLive,
    /// A device that was ever removed can not come back.
    #[error("the device was removed")]
    Removed,
    /// There are as many devices as there may be.
    #[error("too many devices")]
    TooManyDevices,
    /// The device to be removed is not there.
    #[error("the device is not live")]
    NotLive,
    /// Nobody would be left to read.
    #[error("the last device can not be removed")]
    LastDevice,
}

/// Whether a signature is good. Strict (RFC 8032, and no keys or points of small order), so that
/// all verifiers agree.
#[must_use]
pub fn verify_signature(
    key: &SigningPublicKey,
    message: &[u8],
    signature: &SignatureBytes,
) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| {
        key.verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    })
}

/// Refuses a public key under which no signature, or any, would verify.
fn check_key(key: &SigningPublicKey) -> Result<(), ChainError> {
    match VerifyingKey::from_bytes(key) {
        Ok(key) if !key.is_weak() => Ok(()),
        _ => Err(ChainError::BadKey),
    }
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

impl Genesis {
    /// The hash that the Box ID and the first link name.
    #[must_use]
    pub fn hash(&self) -> ChainHash {
        Sha256::digest(self.write(Writer::labelled("rossby genesis v1")).finish()).into()
    }

    /// The first device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        DeviceId::of_key(&self.device_key)
    }

    fn write(&self, writer: Writer) -> Writer {
        writer
            .fixed(&self.device_key)
            .fixed(&self.recovery_key)
            .fixed(&self.nonce)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            device_key: reader.fixed()?,
            recovery_key: reader.fixed()?,
            nonce: reader.fixed()?,
        })
    }
}

/// What a link does to the set of live devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Adds a device. A device that was ever removed can not come back.
    AddDevice {
        /// Its Ed25519 public key.
        key: SigningPublicKey,
    },
    /// Removes a device, for ever. The last one can not be removed.
    RemoveDevice {
        /// The device.
        device: DeviceId,
    },
}

impl Change {
    fn write(&self, writer: Writer) -> Writer {
        match self {
            Self::AddDevice { key } => writer.u8(1).fixed(key),
            Self::RemoveDevice { device } => writer.u8(2).fixed(device.as_bytes()),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8()? {
            1 => Ok(Self::AddDevice {
                key: reader.fixed()?,
            }),
            2 => Ok(Self::RemoveDevice {
                device: DeviceId::from_bytes(reader.fixed()?),
            }),
            _ => Err(WireError::Invalid("kind of change")),
        }
    }
}

/// Who signed a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// A device that was live before the link.
    Device(DeviceId),
    /// The recovery key of the genesis.
    Recovery,
}

impl Signer {
    fn write(&self, writer: Writer) -> Writer {
        match self {
            Self::Device(device) => writer.u8(1).fixed(device.as_bytes()),
            Self::Recovery => writer.u8(2),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8()? {
            1 => Ok(Self::Device(DeviceId::from_bytes(reader.fixed()?))),
            2 => Ok(Self::Recovery),
            _ => Err(WireError::Invalid("kind of signer")),
        }
    }
}

/// One change of an identity's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The version that the chain has with this link: 1 for the first.
    pub version: u64,
    /// The head before it.
    pub previous: ChainHash,
    /// What it does.
    pub change: Change,
    /// Who signed it.
    pub signer: Signer,
    /// Over [`Link::signed_bytes`].
    pub signature: SignatureBytes,
}

impl Link {
    /// What the signer of a link signs.
    #[must_use]
    pub fn signed_bytes(
        version: u64,
        previous: &ChainHash,
        change: &Change,
        signer: &Signer,
    ) -> Vec<u8> {
        let writer = Writer::labelled("rossby link v1")
            .u64(version)
            .fixed(previous);
        signer.write(change.write(writer)).finish()
    }

    /// The head of a chain that ends with this link.
    #[must_use]
    pub fn hash(&self) -> ChainHash {
        Sha256::digest(self.write(Writer::labelled("rossby link hash v1")).finish()).into()
    }

    /// The canonical bytes, as they stand in a key record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.write(Writer::default()).finish()
    }

    /// The link in these canonical bytes. Whether it fits a chain, and its signature, are not checked
    /// ([`KeyRecord::extend`]).
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let link = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(link)
    }

    fn write(&self, writer: Writer) -> Writer {
        let writer = self
            .change
            .write(writer.u64(self.version).fixed(&self.previous));
        self.signer.write(writer).fixed(&self.signature)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            version: reader.u64()?,
            previous: reader.fixed()?,
            change: Change::read(reader)?,
            signer: Signer::read(reader)?,
            signature: reader.fixed()?,
        })
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(serde::de::Error::custom)
    }
}

/// A device's public key for encapsulation, signed by the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KemKey {
    /// The suite: [`SUITE_XWING`].
    pub suite: u8,
    /// Rises with each key of the device.
    pub counter: u64,
    /// The public key, [`XWING_PUBLIC_KEY_BYTES`] long.
    pub public: Bytes,
    /// By the device, over [`KemKey::statement`].
    pub signature: SignatureBytes,
}

impl KemKey {
    /// What the device signs.
    #[must_use]
    pub fn statement(device: &DeviceId, suite: u8, counter: u64, public: &[u8]) -> Vec<u8> {
        Writer::labelled("rossby kem key v1")
            .fixed(device.as_bytes())
            .u8(suite)
            .u64(counter)
            .bytes(public)
            .finish()
    }

    /// Whether the device with this signing key signed it.
    #[must_use]
    pub fn is_signed_by(&self, signing_key: &SigningPublicKey) -> bool {
        let device = DeviceId::of_key(signing_key);
        let statement = Self::statement(&device, self.suite, self.counter, &self.public);
        verify_signature(signing_key, &statement, &self.signature)
    }

    /// Whether it is the same key under the same counter, whatever its signature.
    #[must_use]
    pub fn is_same_key(&self, other: &Self) -> bool {
        (self.suite, self.counter, &self.public) == (other.suite, other.counter, &other.public)
    }

    /// The canonical bytes, as they stand in a key record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.write(Writer::default()).finish()
    }

    /// The key in these canonical bytes. Its form is checked, its signature is not.
    ///
    /// # Errors
    /// [`ChainError::Malformed`], [`ChainError::BadKemKey`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        let mut reader = Reader::new(bytes);
        let key = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(key)
    }

    fn check_form(&self) -> Result<(), ChainError> {
        if self.suite != SUITE_XWING {
            return Err(ChainError::BadKemKey("unknown suite"));
        }
        if self.public.len() != XWING_PUBLIC_KEY_BYTES {
            return Err(ChainError::BadKemKey("wrong length"));
        }
        Ok(())
    }

    fn write(&self, writer: Writer) -> Writer {
        writer
            .u8(self.suite)
            .u64(self.counter)
            .bytes(&self.public)
            .fixed(&self.signature)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ChainError> {
        let key = Self {
            suite: reader.u8()?,
            counter: reader.u64()?,
            public: Bytes::copy_from_slice(reader.bytes(XWING_PUBLIC_KEY_BYTES, "KEM public key")?),
            signature: reader.fixed()?,
        };
        key.check_form()?;
        Ok(key)
    }
}

impl Serialize for KemKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for KemKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        Self::decode(&bytes).map_err(serde::de::Error::custom)
    }
}

/// A live device's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKeys {
    /// The device.
    pub device: DeviceId,
    /// Its Ed25519 public key.
    pub signing_key: SigningPublicKey,
    /// The key to encapsulate to.
    pub kem: KemKey,
    /// The key before, for envelopes that were sealed before a rotation.
    pub previous_kem: Option<KemKey>,
}
