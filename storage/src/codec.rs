//! Bytes of commands in the log and of values in the tables: bincode behind version bytes.
//!
//! ```text
//!   version (1 byte) ── bincode 2, standard configuration (little-endian, variable-length integers)
//! ```
//!
//! This is the only file that names bincode, which is pinned and no longer maintained. Equal values
//! have equal bytes, on which the digests of a partition rest (guarantee P10): no type that is
//! stored may hold a map or set of random order.
//!
//! Decoding takes all of its input or refuses, and never allocates much more than its input is
//! long, whatever the input says.

use bytes::Bytes;
use rossby_domain::Routed;
use rossby_domain::chain::KeyRecord;
use rossby_domain::claim::{Claim, CodeBudget, CodeMac, Delivery, PendingClaim};
use rossby_domain::command::EnvelopeDigest;
use rossby_domain::contest::Contest;
use rossby_domain::dedupe::{Accepted, SenderRow};
use rossby_domain::envelope::Envelope;
use rossby_domain::ids::{Counter, Epoch, Sequence};
use rossby_domain::limits::{FirstLimits, Limits};
use rossby_domain::placement::{Admissions, ClusterMap, MapHistoryRow};
use rossby_domain::profile::{Intent, Profile, SealedProfile};
use rossby_domain::restored::Restored;
use rossby_domain::tables::{Meta, OutboxRow, QueueState};
use rossby_domain::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of a [`Batch`] that this build writes, and the newest that it reads.
const BATCH_VERSION: u8 = 1;

/// The most bytes that an encoded value may have.
pub const MAX_ENCODED_BYTES: usize = 64 * 1024 * 1024;

/// The commands of one drain, as one log entry carries them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// When they were proposed, by the leader's checked clock.
    pub stamp: Timestamp,
    /// Whether mail may expire by that time; not while the leader doubts its clock.
    pub may_expire: bool,
    /// The commands, applied in this order.
    pub commands: Vec<Routed>,
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is not even a version byte.
    #[error("there are no bytes")]
    Empty,
    /// Written by a newer build, or not by Rossby at all.
    #[error("format version {found}; this build reads up to version {supported}")]
    Version {
        /// The version byte.
        found: u8,
        /// The newest version that this build reads.
        supported: u8,
    },
    /// Longer than [`MAX_ENCODED_BYTES`].
    #[error("{length} bytes are more than the {MAX_ENCODED_BYTES} allowed")]
    TooLong {
        /// How long.
        length: usize,
    },
    /// The bytes after the version are not a value of this type.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes are left over after the value.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// The value has no encoding.
    #[error("can not be encoded: {0}")]
    Unencodable(String),
}

/// A type with versioned bytes.
///
/// When its shape changes, [`Self::VERSION`] rises, the old shape is kept as a private type, and
/// [`Self::upgrade`] reads it and converts it, one step per version. Values are rewritten in the new
/// version only when a command changes them, and only once the whole group reads it (the feature
/// level), so that replicas stay byte-identical.
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version that is written.
    const VERSION: u8;

    /// Reads an older version, without its version byte.
    ///
    /// # Errors
    /// [`CodecError`] if there was no such version or the bytes are not of it.
    fn upgrade(version: u8, _body: &[u8]) -> Result<Self, CodecError> {
        Err(CodecError::Version {
            found: version,
            supported: Self::VERSION,
        })
    }

    /// The bytes, behind their version byte, in an older version that says just the same, if one
    /// does. They are what is written then: builds that know no later version go on reading it.
    fn downgrade(&self) -> Option<Result<Vec<u8>, CodecError>> {
        None
    }

    /// Appends the bytes behind the version byte.
    ///
    /// # Errors
    /// [`CodecError::Unencodable`].
    fn encode_body(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        encode_by_serde(self, bytes)
    }

    /// Reads the bytes behind the version byte, if that is [`Self::VERSION`].
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not a value of this type.
    fn decode_body(body: &[u8]) -> Result<Self, CodecError> {
        decode_body(body)
    }
}

macro_rules! first_version {
    ($($type:ty),* $(,)?) => {
        $(impl Versioned for $type {
            const VERSION: u8 = 1;
        })*
    };
}

// The values of the tables, in the order of `domain/src/tables/mod.rs`.
first_version!(
    KeyRecord,
    Envelope,
    QueueState,
    CodeBudget,
    OutboxRow,
    Intent,
    MapHistoryRow,
    Admissions,
    SealedProfile,
);

/// [`Accepted`] as bincode knows it without serde: the same bytes, but the digest in one piece. By serde
/// each of its bytes is a value of its own, which is most of the work of every send.
type NativeAccepted = (u64, u64, [u8; 16]);
/// The fields of a [`SenderRow`] behind the window.
type NativeCounts = (bool, u32, u64);

impl Versioned for SenderRow {
    const VERSION: u8 = 1;

    fn encode_body(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        encode_native(self.accepted.len() as u64, bytes)?;
        for accepted in &self.accepted {
            let Accepted {
                counter,
                sequence,
                digest,
            } = accepted;
            encode_native((counter.0, sequence.0, digest.0), bytes)?;
        }
        encode_native((self.forgotten, self.waiting, self.waiting_bytes), bytes)
    }

    fn decode_body(body: &[u8]) -> Result<Self, CodecError> {
        let (accepted, counts): (Vec<NativeAccepted>, NativeCounts) = decode_native(body)?;
        let (forgotten, waiting, waiting_bytes) = counts;
        let accepted = accepted.into_iter();
        let accepted = accepted.map(|(counter, sequence, digest)| Accepted {
            counter: Counter(counter),
            sequence: Sequence(sequence),
            digest: EnvelopeDigest(digest),
        });
        Ok(Self {
            accepted: accepted.collect(),
            forgotten,
            waiting,
            waiting_bytes,
        })
    }
}

impl Versioned for PendingClaim {
    const VERSION: u8 = 2;

    fn upgrade(version: u8, body: &[u8]) -> Result<Self, CodecError> {
        match version {
            1 => decode_body::<PendingClaimV1>(body).map(Into::into),
            found => Err(CodecError::Version {
                found,
                supported: Self::VERSION,
            }),
        }
    }
}

/// A pending claim from before couriers told how far its code has come.
#[derive(Serialize, Deserialize)]
struct PendingClaimV1 {
    code: CodeMac,
    serial: u64,
    discoverable: bool,
    attempts_left: u8,
    expires_at: Timestamp,
}

impl From<PendingClaimV1> for PendingClaim {
    fn from(earlier: PendingClaimV1) -> Self {
        Self {
            code: earlier.code,
            serial: earlier.serial,
            discoverable: earlier.discoverable,
            attempts_left: earlier.attempts_left,
            expires_at: earlier.expires_at,
            delivery: Delivery::Normal,
        }
    }
}

impl Versioned for Claim {
    const VERSION: u8 = 2;

    /// Version 1 ended before what is contested, as if nothing were.
    fn upgrade(version: u8, body: &[u8]) -> Result<Self, CodecError> {
        if version != 1 {
            return Err(CodecError::Version {
                found: version,
                supported: Self::VERSION,
            });
        }
        decode_body(&[body, &UNCONTESTED].concat())
    }

    fn downgrade(&self) -> Option<Result<Vec<u8>, CodecError>> {
        (self.contest == Contest::default()).then(|| {
            let mut bytes = encode_as(1, self)?;
            bytes.truncate(bytes.len().saturating_sub(UNCONTESTED.len()));
            Ok(bytes)
        })
    }
}

/// Nothing, three times, which stands last in a [`Claim`].
const UNCONTESTED: [u8; 3] = [0, 0, 0];

impl Versioned for Profile {
    const VERSION: u8 = 3;

    /// Version 1 ended before the identifiers that are on their way out, as if there were none, and as if anyone
    /// could send to every box. Version 2 ended before how long its owner lets envelopes wait, as if that were as
    /// long as the cluster does, as if no box were suspended or deleted, and as if none were to lose an identifier.
    fn upgrade(version: u8, body: &[u8]) -> Result<Self, CodecError> {
        let missing = match version {
            1 => PROFILE_BEYOND_1,
            2 => PROFILE_BEYOND_2,
            found => {
                return Err(CodecError::Version {
                    found,
                    supported: Self::VERSION,
                });
            }
        };
        decode_body(&[body, missing].concat())
    }

    fn downgrade(&self) -> Option<Result<Vec<u8>, CodecError>> {
        let says_2 = self.longest_ttl_ms.is_none()
            && !self.suspended
            && !self.deleted
            && self.resets.is_empty()
            && self.ttl_number == 0;
        let says_1 = says_2 && self.leaving.is_empty() && self.allowed.is_none();
        let (version, missing) = match (says_1, says_2) {
            (true, _) => (1, PROFILE_BEYOND_1),
            (_, true) => (2, PROFILE_BEYOND_2),
            _ => return None,
        };
        let shortened = encode_as(version, self).map(|mut bytes| {
            bytes.truncate(bytes.len().saturating_sub(missing.len()));
            bytes
        });
        Some(shortened)
    }
}

/// What stands in a [`Profile`] behind what version 1 has, if it says nothing: an empty set, nothing twice, no, none, no, and
/// an empty map.
const PROFILE_BEYOND_1: &[u8] = &[0, 0, 0, 0, 0, 0, 0];
/// The same behind what version 2 has.
const PROFILE_BEYOND_2: &[u8] = &[0, 0, 0, 0, 0];

impl Versioned for Meta {
    const VERSION: u8 = 3;

    /// Version 1 was of a state that was never restored from a backup; version 2 of one with the limits that there were
    /// first.
    fn upgrade(version: u8, body: &[u8]) -> Result<Self, CodecError> {
        match version {
            1 => decode_body::<MetaV1>(body).map(|old| old.with(Restored::default())),
            2 => decode_body::<(MetaV1, Restored)>(body).map(|(old, restored)| old.with(restored)),
            found => Err(CodecError::Version {
                found,
                supported: Self::VERSION,
            }),
        }
    }

    fn downgrade(&self) -> Option<Result<Vec<u8>, CodecError>> {
        let old = MetaV1 {
            clock: self.clock,
            expiry_clock: self.expiry_clock,
            epoch: self.epoch,
            limits: self.limits.into(),
            last_generation: self.last_generation,
            last_serial: self.last_serial,
        };
        let says_2 = Limits::from(old.limits) == self.limits;
        let says_1 = says_2 && self.restored == Restored::default();
        match (says_1, says_2) {
            (true, _) => Some(encode_as(1, &old)),
            (_, true) => Some(encode_as(2, &(old, self.restored))),
            _ => None,
        }
    }
}

/// The first fields of a [`Meta`], with the limits that there were first.
#[derive(Serialize, Deserialize)]
struct MetaV1 {
    clock: Timestamp,
    expiry_clock: Timestamp,
    epoch: Option<Epoch>,
    limits: FirstLimits,
    last_generation: u64,
    last_serial: u64,
}

impl MetaV1 {
    fn with(self, restored: Restored) -> Meta {
        Meta {
            clock: self.clock,
            expiry_clock: self.expiry_clock,
            epoch: self.epoch,
            limits: self.limits.into(),
            last_generation: self.last_generation,
            last_serial: self.last_serial,
            restored,
        }
    }
}

impl Versioned for ClusterMap {
    const VERSION: u8 = 2;

    /// Version 1 ended before the groups that were recovered, as if there were none.
    fn upgrade(version: u8, body: &[u8]) -> Result<Self, CodecError> {
        if version != 1 {
            return Err(CodecError::Version {
                found: version,
                supported: Self::VERSION,
            });
        }
        decode_body(&[body, &NO_SUCCESSORS].concat())
    }

    fn downgrade(&self) -> Option<Result<Vec<u8>, CodecError>> {
        self.successors().is_empty().then(|| {
            let mut bytes = encode_as(1, self)?;
            bytes.truncate(bytes.len().saturating_sub(NO_SUCCESSORS.len()));
            Ok(bytes)
        })
    }
}

/// A map without entries, which stands last in a [`ClusterMap`].
const NO_SUCCESSORS: [u8; 1] = [0];

impl Versioned for Batch {
    const VERSION: u8 = BATCH_VERSION;
}

/// The bytes of a batch.
///
/// # Errors
/// [`CodecError::TooLong`] if it is larger than a log entry may be.
pub fn encode_batch(batch: &Batch) -> Result<Bytes, CodecError> {
    encode_value(batch).map(Bytes::from)
}

/// The batch in these bytes. Bodies of envelopes are copied once, out of `bytes`.
///
/// # Errors
/// [`CodecError`] if the bytes are not a batch that this build can read.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, CodecError> {
    decode_value(bytes)
}

/// The bytes of a value, behind its version.
///
/// # Errors
/// [`CodecError::TooLong`], or [`CodecError::Unencodable`] if the type can not be encoded.
pub fn encode_value<T: Versioned>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = match value.downgrade() {
        Some(older) => older?,
        None => {
            let mut bytes = vec![T::VERSION];
            value.encode_body(&mut bytes)?;
            bytes
        }
    };
    if bytes.len() > MAX_ENCODED_BYTES {
        return Err(CodecError::TooLong {
            length: bytes.len(),
        });
    }
    Ok(bytes)
}

fn encode_as<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![version];
    encode_by_serde(value, &mut bytes)?;
    Ok(bytes)
}

fn encode_by_serde<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .map(drop)
        .map_err(|error| CodecError::Unencodable(error.to_string()))
}

fn encode_native<T: bincode::Encode>(value: T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::encode_into_std_write(value, bytes, bincode::config::standard())
        .map(drop)
        .map_err(|error| CodecError::Unencodable(error.to_string()))
}

/// The value in these bytes, upgraded to the present version.
///
/// # Errors
/// [`CodecError`] if the bytes are not a value of this type that this build can read.
pub fn decode_value<T: Versioned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version == T::VERSION {
        T::decode_body(body)
    } else {
        T::upgrade(version, body)
    }
}

/// Decodes what follows a version byte.
///
/// bincode counts what it has read against a limit, and a length that a container claims before it
/// allocates it. The limit is a constant in the type, so the tightest of a few is chosen. It counts
/// integers at full width, up to 16 bytes for one in the input: hence the factor.
pub(crate) fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    const FACTOR: usize = 16;
    const SMALL: usize = 4 * 1024;
    const MEDIUM: usize = 256 * 1024;
    const LARGE: usize = 4 * 1024 * 1024;
    match body.len() {
        length if length <= SMALL => decode_within::<T, { SMALL * FACTOR }>(body),
        length if length <= MEDIUM => decode_within::<T, { MEDIUM * FACTOR }>(body),
        length if length <= LARGE => decode_within::<T, { LARGE * FACTOR }>(body),
        length if length <= MAX_ENCODED_BYTES => {
            decode_within::<T, { MAX_ENCODED_BYTES * FACTOR }>(body)
        }
        length => Err(CodecError::TooLong { length }),
    }
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(body: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    whole(body, bincode::serde::decode_from_slice(body, config))
}

/// The same for a small value that is read without serde.
fn decode_native<T: bincode::Decode<()>>(body: &[u8]) -> Result<T, CodecError> {
    const LIMIT: usize = 64 * 1024;
    let config = bincode::config::standard().with_limit::<LIMIT>();
    whole(body, bincode::decode_from_slice(body, config))
}

/// The value that was read from all of `body`.
fn whole<T>(
    body: &[u8],
    read: Result<(T, usize), bincode::error::DecodeError>,
) -> Result<T, CodecError> {
    let (value, used) = read.map_err(|error| CodecError::Malformed(error.to_string()))?;
    match body.len().saturating_sub(used) {
        0 => Ok(value),
        left => Err(CodecError::Trailing(left)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::Command;
    use rossby_domain::command::{Enqueue, Expire};
    use rossby_domain::identifier::IdentifierHash;
    use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, EnvelopeId, PartitionId};

    use super::*;

    fn box_id(seed: u8) -> BoxId {
        BoxId::derive(PartitionId::new(7).unwrap(), &[seed; 32])
    }

    fn batch() -> impl Strategy<Value = Batch> {
        let enqueue = (
            any::<u8>(),
            any::<u64>(),
            any::<Option<u64>>(),
            any::<Vec<u8>>(),
        )
            .prop_map(|(seed, counter, ttl_ms, body)| {
                let sender = DeviceAddress {
                    box_id: box_id(seed),
                    device: DeviceId::from_bytes([seed; 16]),
                };
                Command::Enqueue(Enqueue {
                    recipient: box_id(seed.wrapping_add(1)),
                    id: EnvelopeId {
                        sender,
                        counter: Counter(counter),
                    },
                    chain_version: counter,
                    ttl_ms,
                    digest: EnvelopeDigest([seed; 16]),
                    body: Bytes::from(body),
                })
            });
        let expire = any::<u32>().prop_map(|limit| Command::Expire(Expire { limit }));
        let routed = (0..4096_u16, any::<u64>(), prop_oneof![enqueue, expire]).prop_map(
            |(partition, epoch, command)| Routed {
                partition: PartitionId::new(partition).unwrap(),
                epoch: Epoch(epoch),
                command,
            },
        );
        (any::<u64>(), proptest::collection::vec(routed, 0..8)).prop_map(|(millis, commands)| {
            Batch {
                stamp: Timestamp::from_millis(millis),
                may_expire: millis.is_multiple_of(2),
                commands,
            }
        })
    }

    prop_compose! {
        fn sender_row()(
            accepted in proptest::collection::vec(any::<(u64, u64, [u8; 16])>(), 0..40),
            forgotten: bool,
            waiting: u32,
            waiting_bytes: u64,
        ) -> SenderRow {
            let accepted = accepted.into_iter().map(|(counter, sequence, digest)| Accepted {
                counter: Counter(counter),
                sequence: Sequence(sequence),
                digest: EnvelopeDigest(digest),
            });
            let accepted = accepted.collect();
            SenderRow { accepted, forgotten, waiting, waiting_bytes }
        }
    }

    proptest! {
        #[test]
        fn a_sender_row_has_the_bytes_that_serde_would_give_it(row in sender_row()) {
            let bytes = encode_value(&row).unwrap();
            prop_assert_eq!(&bytes, &encode_as(1, &row).unwrap());
            prop_assert_eq!(decode_value::<SenderRow>(&bytes), Ok(row));
        }

        #[test]
        fn random_bytes_are_read_as_a_sender_row_as_serde_would(bytes: Vec<u8>) {
            let native = SenderRow::decode_body(&bytes);
            let by_serde = decode_body::<SenderRow>(&bytes);
            prop_assert_eq!(native.ok(), by_serde.ok());
        }

        #[test]
        fn a_batch_comes_back_as_it_was(batch in batch()) {
            let bytes = encode_batch(&batch).unwrap();
            prop_assert_eq!(decode_batch(&bytes).unwrap(), batch);
        }

        #[test]
        fn random_bytes_are_refused_or_canonical(mut bytes in any::<Vec<u8>>()) {
            if let Some(version) = bytes.first_mut() {
                *version = BATCH_VERSION;
            }
            if let Ok(batch) = decode_batch(&bytes) {
                // An integer may be written longer than need be, so only the value must survive.
                let again = encode_batch(&batch).unwrap();
                prop_assert_eq!(decode_batch(&again).unwrap(), batch);
            }
        }

        #[test]
        fn a_damaged_batch_never_panics(batch in batch(), at: prop::sample::Index, to: u8) {
            let mut bytes = encode_batch(&batch).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode_batch(&bytes);
            bytes.truncate(at);
            prop_assert!(decode_batch(&bytes).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let batch = Batch {
            stamp: Timestamp::from_millis(1),
            may_expire: true,
            commands: Vec::new(),
        };
        let mut bytes = encode_batch(&batch).unwrap().to_vec();
        bytes[0] = 2;
        assert_eq!(
            decode_batch(&bytes),
            Err(CodecError::Version {
                found: 2,
                supported: 1
            })
        );
        assert_eq!(decode_batch(&[]), Err(CodecError::Empty));
    }

    #[test]
    fn a_map_says_the_old_way_that_no_group_was_recovered_and_both_ways_come_back() {
        use std::collections::{BTreeMap, BTreeSet};

        use rossby_domain::ids::{GroupId, NodeId, PartitionCount, ReplicaId};
        use rossby_domain::placement::{
            Beginning, Change, NodeEntry, NodeState, RegionName, Successor, SurvivalGoal,
            VOTERS_AT_HOME, birth,
        };

        let entry = |node: u64| NodeEntry {
            region: RegionName::default(),
            peer_address: format!("10.0.0.{node}:7472"),
            client_address: String::new(),
            state: NodeState::Active,
        };
        let nodes = BTreeMap::from([1, 2, 3].map(|node| (NodeId(node), entry(node))));
        let found = Change::Found(Beginning {
            goal: SurvivalGoal::Node,
            partitions: PartitionCount::DEFAULT,
            groups: birth(&nodes, SurvivalGoal::Node, VOTERS_AT_HOME).groups,
            nodes,
        });
        let map = ClusterMap::default().after(&found).unwrap();
        let bytes = encode_value(&map).unwrap();
        assert_eq!(bytes[0], 1);
        assert_eq!(decode_value::<ClusterMap>(&bytes), Ok(map.clone()));
        let successor = Successor {
            group: GroupId(2),
            replica: ReplicaId(5000),
        };
        let recover = Change::Recover {
            node: NodeId(1),
            lost: BTreeSet::from([NodeId(2), NodeId(3)]),
            groups: BTreeMap::from([(GroupId(1), successor)]),
        };
        let recovered = map.after(&recover).unwrap();
        let bytes = encode_value(&recovered).unwrap();
        assert_eq!(bytes[0], 2);
        assert_eq!(decode_value::<ClusterMap>(&bytes), Ok(recovered));
        let newer = [&[3], &bytes[1..]].concat();
        assert_eq!(
            decode_value::<ClusterMap>(&newer),
            Err(CodecError::Version {
                found: 3,
                supported: 2
            })
        );
    }

    #[test]
    fn a_profile_says_the_oldest_way_what_it_can_and_all_ways_come_back() {
        let profile = Profile {
            active: true,
            blocked: [box_id(1)].into(),
            ..Profile::default()
        };
        let bytes = encode_value(&profile).unwrap();
        assert_eq!(bytes[0], 1);
        assert_eq!(decode_value::<Profile>(&bytes), Ok(profile.clone()));
        let changing = Profile {
            leaving: [IdentifierHash::from_bytes([7; 32])].into(),
            ..profile
        };
        let for_contacts = Profile {
            allowed: Some([box_id(2)].into()),
            ..changing.clone()
        };
        let for_nobody = Profile {
            allowed: Some([].into()),
            leaving: [].into(),
            ..for_contacts.clone()
        };
        for changed in [for_contacts.clone(), for_nobody] {
            let bytes = encode_value(&changed).unwrap();
            assert_eq!(bytes[0], 2);
            assert_eq!(decode_value::<Profile>(&bytes), Ok(changed));
        }
        let said = [
            (for_contacts, Some(7), false, 1),
            (Profile::default(), None, true, 0),
            (Profile::default(), None, false, 300),
        ];
        for (plain, longest_ttl_ms, suspended, ttl_number) in said {
            let newest = Profile {
                longest_ttl_ms,
                suspended,
                ttl_number,
                ..plain
            };
            let bytes = encode_value(&newest).unwrap();
            assert_eq!(bytes[0], 3);
            assert_eq!(decode_value::<Profile>(&bytes), Ok(newest));
        }
        let bytes = encode_value(&changing).unwrap();
        assert_eq!(bytes[0], 2);
        assert_eq!(decode_value::<Profile>(&bytes), Ok(changing.clone()));
        let newer = [&[4], &bytes[1..]].concat();
        assert!(matches!(
            decode_value::<Profile>(&newer),
            Err(CodecError::Version { found: 4, .. })
        ));
        let deleted = Profile {
            deleted: true,
            ..changing
        };
        let bytes = encode_value(&deleted).unwrap();
        assert_eq!(bytes[0], 3);
        assert_eq!(decode_value::<Profile>(&bytes), Ok(deleted));
    }

    #[test]
    fn a_claim_says_the_old_way_that_nobody_contests_it_and_both_ways_come_back() {
        use rossby_domain::contest::{Former, Reset, Veto};
        let claim = Claim {
            box_id: box_id(1),
            generation: 7,
            discoverable: true,
            code: Some(CodeMac([5; 32])),
            contest: Contest::default(),
        };
        let bytes = encode_value(&claim).unwrap();
        assert_eq!(bytes[0], 1);
        assert_eq!(decode_value::<Claim>(&bytes), Ok(claim.clone()));
        let contest = Contest {
            reset: Some(Reset {
                box_id: box_id(2),
                serial: 8,
                code: CodeMac([6; 32]),
                discoverable: false,
                started: true,
                starts_by: Timestamp::from_millis(8),
                completes_at: Timestamp::from_millis(9),
                lapses_at: Timestamp::from_millis(10),
            }),
            veto: Some(Veto {
                box_id: box_id(3),
                until: Timestamp::from_millis(11),
                count: 2,
            }),
            former: Some(Former {
                box_id: box_id(4),
                generation: 6,
            }),
        };
        let contested = Claim { contest, ..claim };
        let bytes = encode_value(&contested).unwrap();
        assert_eq!(bytes[0], 2);
        assert_eq!(decode_value::<Claim>(&bytes), Ok(contested));
        let newer = [&[3], &bytes[1..]].concat();
        assert!(matches!(
            decode_value::<Claim>(&newer),
            Err(CodecError::Version { found: 3, .. })
        ));
    }

    #[test]
    fn a_partition_says_the_oldest_way_what_it_can_and_all_ways_come_back() {
        let meta = Meta {
            clock: Timestamp::from_millis(7),
            epoch: Some(Epoch(3)),
            last_serial: 9,
            ..Meta::default()
        };
        let bytes = encode_value(&meta).unwrap();
        assert_eq!(bytes[0], 1);
        assert_eq!(decode_value::<Meta>(&bytes).unwrap(), meta);
        let restored = Meta {
            restored: Restored::default().again(Timestamp::from_millis(1_795_359_845_000), true),
            ..meta
        };
        let bytes = encode_value(&restored).unwrap();
        assert_eq!(bytes[0], 2);
        assert_eq!(decode_value::<Meta>(&bytes).unwrap(), restored);
        let limits = Limits {
            reset_delay_ms: 8,
            ..Limits::default()
        };
        let limited = Meta { limits, ..meta };
        let bytes = encode_value(&limited).unwrap();
        assert_eq!(bytes[0], 3);
        assert_eq!(decode_value::<Meta>(&bytes).unwrap(), limited);
        let newer = [&[4], &bytes[1..]].concat();
        assert!(matches!(
            decode_value::<Meta>(&newer),
            Err(CodecError::Version { found: 4, .. })
        ));
    }

    /// The log of an earlier build holds limits as they were first.
    #[test]
    fn adopting_has_the_bytes_that_it_always_had() {
        use rossby_domain::command::Adopt;
        let limits = Limits {
            reset_delay_ms: 8,
            ..Limits::default()
        };
        let mut bytes = Vec::new();
        encode_by_serde(&Adopt { limits }, &mut bytes).unwrap();
        let mut first = Vec::new();
        encode_by_serde(&FirstLimits::from(limits), &mut first).unwrap();
        assert_eq!(bytes, first);
        let read: Adopt = decode_body(&bytes).unwrap();
        assert_eq!(read.limits, Limits::default());
    }

    #[test]
    fn bytes_after_the_value_are_refused() {
        let batch = Batch {
            stamp: Timestamp::from_millis(1),
            may_expire: true,
            commands: Vec::new(),
        };
        let mut bytes = encode_batch(&batch).unwrap().to_vec();
        bytes.push(0);
        assert_eq!(decode_batch(&bytes), Err(CodecError::Trailing(1)));
    }

    #[test]
    fn a_claimed_length_beyond_the_input_is_refused() {
        // Version, sealed bytes that claim to be 2^40 long (253 marks a 64-bit integer).
        let mut bytes = vec![1, 0, 253];
        bytes.extend_from_slice(&(1_u64 << 40).to_le_bytes());
        assert!(matches!(
            decode_value::<OutboxRow>(&bytes),
            Err(CodecError::Malformed(_))
        ));
        // The same, in as many commands: behind the stamp, and whether mail may expire by it.
        bytes.insert(2, 1);
        assert!(matches!(
            decode_batch(&bytes),
            Err(CodecError::Malformed(_))
        ));
    }
}
