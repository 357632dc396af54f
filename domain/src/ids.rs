//! Identities: who, where and which. Every id is a newtype with a validating constructor, so an
//! id of one kind can never be passed for another and an invalid one can not be built.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Why a text or a byte string is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a UUID, or not the version and variant that this id needs.
    #[error("not a valid {kind}: expected {expected}")]
    Malformed {
        /// What was being read, for example `box id`.
        kind: &'static str,
        /// The form that was expected.
        expected: &'static str,
    },
    /// A partition number at or above [`PartitionId::LIMIT`].
    #[error("partition {0} is out of range (0 to 4095)")]
    PartitionOutOfRange(u16),
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number_id!(
    /// A Raft group: the unit of agreement, serving some partitions. Group 0 is the placement group.
    GroupId,
    u32
);
number_id!(
    /// A group's copy on a node. Given out once per (group, node, incarnation) and never reused;
    /// this is the Raft node id.
    ReplicaId,
    u64
);
number_id!(
    /// A process with a disk.
    NodeId,
    u64
);
number_id!(
    /// The version of an ownership: rises each time a partition changes hands.
    Epoch,
    u64
);
number_id!(
    /// The version of the cluster map: rises with each change. 0 means "none yet".
    MapVersion,
    u64
);
number_id!(
    /// An envelope's place in its box. The first envelope of a box has sequence 1; 0 means "none".
    Sequence,
    u64
);
number_id!(
    /// A sender device's own count of its envelopes to one box. The first is 1; 0 means "none".
    Counter,
    u64
);

impl Sequence {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl MapVersion {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Counter {
    /// The counter after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Which cluster a data directory and its peers belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(Uuid);

impl ClusterId {
    /// Makes a cluster id from 16 random bytes (UUIDv4, RFC 9562).
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The id with these bytes, as [`Self::as_bytes`] gives them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClusterId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| IdError::Malformed {
                kind: "cluster id",
                expected: "a UUID",
            })
    }
}

/// A slice of the key space: the unit of ownership and of movement between groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PartitionId(u16);

impl PartitionId {
    /// One more than the highest partition number: 12 bits of a Box ID name it.
    pub const LIMIT: u16 = 4096;
    /// The first partition, which every cluster has.
    pub const FIRST: Self = Self(0);

    /// A partition number, below [`Self::LIMIT`].
    ///
    /// # Errors
    /// [`IdError::PartitionOutOfRange`] for a number at or above the limit.
    pub fn new(number: u16) -> Result<Self, IdError> {
        if number < Self::LIMIT {
            Ok(Self(number))
        } else {
            Err(IdError::PartitionOutOfRange(number))
        }
    }

    /// The partition's number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for PartitionId {
    type Error = IdError;
    fn try_from(number: u16) -> Result<Self, IdError> {
        Self::new(number)
    }
}

impl From<PartitionId> for u16 {
    fn from(id: PartitionId) -> u16 {
        id.0
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many partitions a cluster has: fixed at its birth, a power of two from 1 to 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PartitionCount(u16);

impl PartitionCount {
    /// The default number of partitions.
    pub const DEFAULT: Self = Self(256);

    /// A partition count.
    ///
    /// # Errors
    /// [`IdError::Malformed`] unless `count` is a power of two from 1 to 4096.
    pub fn new(count: u16) -> Result<Self, IdError> {
        if count.is_power_of_two() && count <= PartitionId::LIMIT {
            Ok(Self(count))
        } else {
            Err(IdError::Malformed {
                kind: "partition count",
                expected: "a power of two from 1 to 4096",
            })
        }
    }

    /// The number of partitions.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// Every partition of a cluster of this size.
    pub fn all(self) -> impl Iterator<Item = PartitionId> {
        (0..self.0).map(PartitionId)
    }

    /// The partitions that get an owner when a cluster is born: all but the last eighth, which is kept
    /// for groups to come. The directory's are among them.
    pub fn handed_out_at_birth(self) -> impl Iterator<Item = PartitionId> {
        (0..self.0 - self.0 / 8).map(PartitionId)
    }

    /// The partitions of the directory: the first half.
    pub fn directory(self) -> impl Iterator<Item = PartitionId> {
        (0..self.directory_size().0).map(PartitionId)
    }

    fn directory_size(self) -> Self {
        Self((self.0 / 2).max(1))
    }

    /// The partition of the directory that a uniformly distributed hash falls in: one of the first half,
    /// which always has an owner. The others hold boxes only, so that some of them can be spare.
    #[must_use]
    pub fn directory_of_hash(self, hash: &[u8; 32]) -> PartitionId {
        self.directory_size().of_hash(hash)
    }

    /// The partition that a uniformly distributed hash falls in.
    #[must_use]
    pub fn of_hash(self, hash: &[u8; 32]) -> PartitionId {
        let [a, b, ..] = *hash;
        PartitionId(u16::from_be_bytes([a, b]) & (self.0 - 1))
    }
}

impl Default for PartitionCount {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u16> for PartitionCount {
    type Error = IdError;
    fn try_from(count: u16) -> Result<Self, IdError> {
        Self::new(count)
    }
}

impl From<PartitionCount> for u16 {
    fn from(count: PartitionCount) -> u16 {
        count.0
    }
}

/// A box: one person's mailbox. A UUIDv8 (RFC 9562) of 12 bits of birth partition and 110 bits of
/// the hash of the box's genesis record, so that a box can not be bound to another identity.
///
/// Layout of the 122 free bits, most significant first: partition (12), hash (110).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct BoxId(Uuid);

impl BoxId {
    /// The partition in which a box with this genesis hash is born, of those that take boxes now; `None` if none
    /// does.
    #[must_use]
    pub fn birth(births: &[PartitionId], genesis_hash: &[u8; 32]) -> Option<PartitionId> {
        let [a, b, ..] = *genesis_hash;
        let drawn = usize::from(u16::from_be_bytes([a, b]));
        let chosen = drawn.checked_rem(births.len())?;
        births.get(chosen).copied()
    }

    /// The id of the box with this genesis hash, born in this partition.
    #[must_use]
    pub fn derive(birth: PartitionId, genesis_hash: &[u8; 32]) -> Self {
        let mut high = [0_u8; 16];
        high.copy_from_slice(&genesis_hash[..16]);
        // The top 110 bits of the hash, under the 12 bits of the partition.
        let hash = u128::from_be_bytes(high) >> 18;
        let free = (u128::from(birth.number()) << 110) | hash;
        // RFC 9562 section 5.8: custom_a (48 bits), ver (4), custom_b (12), var (2), custom_c (62).
        let custom_a = free >> 74;
        let custom_b = (free >> 62) & 0xfff;
        let custom_c = free & ((1 << 62) - 1);
        let value = (custom_a << 80) | (8 << 76) | (custom_b << 64) | (0b10 << 62) | custom_c;
        Self(Uuid::from_u128(value))
    }

    /// The box id in these 16 bytes.
    ///
    /// # Errors
    /// [`IdError::Malformed`] unless they are a UUIDv8 of the RFC 9562 variant.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, IdError> {
        Self::try_from(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the UUID, most significant first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The partition that this box was born in, which holds it for ever.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        PartitionId((self.free_bits() >> 110) as u16)
    }

    /// Whether this id was derived from a genesis record with this hash.
    #[must_use]
    pub fn is_of_genesis(&self, genesis_hash: &[u8; 32]) -> bool {
        *self == Self::derive(self.partition(), genesis_hash)
    }

    /// Whether both ids were derived from the same genesis record, wherever the boxes were born.
    #[must_use]
    pub fn shares_genesis_with(&self, other: &Self) -> bool {
        const HASH_BITS: u128 = (1 << 110) - 1;
        self.free_bits() & HASH_BITS == other.free_bits() & HASH_BITS
    }

    /// The id that sorts before all others.
    pub(crate) fn least() -> Self {
        Self::derive(PartitionId(0), &[0; 32])
    }

    fn free_bits(&self) -> u128 {
        let value = self.0.as_u128();
        let custom_a = value >> 80;
        let custom_b = (value >> 64) & 0xfff;
        let custom_c = value & ((1 << 62) - 1);
        (custom_a << 74) | (custom_b << 62) | custom_c
    }
}

impl TryFrom<Uuid> for BoxId {
    type Error = IdError;
    fn try_from(uuid: Uuid) -> Result<Self, IdError> {
        if uuid.get_version_num() == 8 && uuid.get_variant() == uuid::Variant::RFC4122 {
            Ok(Self(uuid))
        } else {
            Err(IdError::Malformed {
                kind: "box id",
                expected: "a UUID of version 8",
            })
        }
    }
}

impl From<BoxId> for Uuid {
    fn from(id: BoxId) -> Uuid {
        id.0
    }
}

impl FromStr for BoxId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::try_parse(text)
            .map_err(|_| IdError::Malformed {
                kind: "box id",
                expected: "a UUID of version 8",
            })
            .and_then(Self::try_from)
    }
}

impl fmt::Display for BoxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BoxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoxId({})", self.0)
    }
}

/// A device, named by its signing key: the first 16 bytes of the labelled SHA-256 of the key.
/// Nobody can take another device's id without its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId([u8; 16]);

impl DeviceId {
    /// The id of the device with this Ed25519 public key.
    #[must_use]
    pub fn of_key(signing_key: &[u8; 32]) -> Self {
        let hash: [u8; 32] = Sha256::new()
            .chain_update(b"rossby device v1")
            .chain_update(signing_key)
            .finalize()
            .into();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }

    /// The device id in these bytes (any 16 bytes are one).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The partition of the directory that holds this device's entry.
    #[must_use]
    pub fn partition(&self, count: PartitionCount) -> PartitionId {
        let hash = Sha256::new()
            .chain_update(b"rossby device directory v1")
            .chain_update(self.0);
        count.directory_of_hash(&hash.finalize().into())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

impl FromStr for DeviceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let malformed = || IdError::Malformed {
            kind: "device id",
            expected: "32 hexadecimal digits",
        };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        u128::from_str_radix(text, 16)
            .map(|n| Self(n.to_be_bytes()))
            .map_err(|_| malformed())
    }
}

/// A device of a box: whom a token belongs to and where an envelope comes from.
/// Written `<box id>/<device id>`; this text is the Hawk id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceAddress {
    /// The box.
    pub box_id: BoxId,
    /// The device in it.
    pub device: DeviceId,
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.box_id, self.device)
    }
}

impl FromStr for DeviceAddress {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (box_id, device) = text.split_once('/').ok_or(IdError::Malformed {
            kind: "device address",
            expected: "<box id>/<device id>",
        })?;
        Ok(Self {
            box_id: box_id.parse()?,
            device: device.parse()?,
        })
    }
}

/// Names an envelope for ever: its sender device and that device's counter for the recipient box.
/// Sending again under the same id never makes a second envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EnvelopeId {
    /// The sending device.
    pub sender: DeviceAddress,
    /// That device's counter for the recipient box.
    pub counter: Counter,
}
