//! The types that openraft works with here, their bytes, and their mapping to those of the storage
//! layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::type_config::alias::{
    CommittedLeaderIdOf, EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::vote::leader_id_std;
use rossby_domain::Reply;
use rossby_domain::ids::{NodeId, ReplicaId};
use rossby_domain::wire::{Reader, WireError, Writer};
use rossby_storage::LogPosition;
use rossby_storage::codec::{Batch, CodecError, encode_batch};
use rossby_storage::store::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::Member;
use crate::runtime::Runtime;

openraft::declare_raft_types!(
    /// A Raft whose entries are batches of commands. `leader_id_std`: at most one leader per term.
    pub TypeConfig:
        D = Proposal,
        R = Replies,
        NodeId = ReplicaId,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, ReplicaId>,
        AsyncRuntime = Runtime,
);

pub(crate) type LogId = LogIdOf<TypeConfig>;
pub(crate) type Vote = VoteOf<TypeConfig>;
pub(crate) type Entry = EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<ReplicaId, Member>;
pub(crate) type StoredMembership = StoredMembershipOf<TypeConfig>;
/// A checkpoint; none only where one was asked for and the disk was full.
pub(crate) type SnapshotData = Option<Checkpoint>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;

/// The version of the bytes of an entry.
const ENTRY_VERSION: u8 = 1;
const KIND_BLANK: u8 = 0;
const KIND_BATCH: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;
/// Version and kind.
const ENTRY_HEADER_BYTES: usize = 2;

/// The most members of a group.
const MAX_MEMBERS: u32 = 1024;
/// The most sets of voters in a membership: two while it changes.
const MAX_CONFIGS: u32 = 8;
const MAX_ADDRESS_BYTES: usize = 1024;

/// Why the bytes of an entry are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by a version of this program that knows more.
    #[error("entry version {0} is not known")]
    Version(u8),
    /// Of no kind that there is.
    #[error("entry kind {0} is not known")]
    Kind(u8),
    /// Damaged inside.
    #[error("entry is malformed: {0}")]
    Malformed(#[from] WireError),
}

/// A batch of commands on its way through the log: the bytes of its entry, made once by the
/// proposer, and from there stored, sent and read without being copied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proposal(Bytes);

impl Proposal {
    /// The entry of a batch.
    ///
    /// # Errors
    /// [`CodecError`] if the batch can not be encoded.
    pub fn new(batch: &Batch) -> Result<Self, CodecError> {
        let encoded = encode_batch(batch)?;
        let mut entry = BytesMut::with_capacity(ENTRY_HEADER_BYTES + encoded.len());
        entry.put_u8(ENTRY_VERSION);
        entry.put_u8(KIND_BATCH);
        entry.put(encoded);
        Ok(Self(entry.freeze()))
    }

    /// The batch, as the storage layer encoded it.
    #[must_use]
    pub fn batch(&self) -> &[u8] {
        self.0.get(ENTRY_HEADER_BYTES..).unwrap_or_default()
    }
}

// Commands hold what users wrote: only their size may reach a log.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answered, command by command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Replies(pub Vec<Reply>);

/// The bytes of an entry's payload.
pub(crate) fn encode_payload(payload: &EntryPayload<Proposal, ReplicaId, Member>) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::from_static(&[ENTRY_VERSION, KIND_BLANK]),
        EntryPayload::Normal(proposal) => proposal.0.clone(),
        EntryPayload::Membership(membership) => {
            let mut bytes = vec![ENTRY_VERSION, KIND_MEMBERSHIP];
            bytes.extend(encode_membership(membership));
            Bytes::from(bytes)
        }
    }
}

/// The payload in these bytes.
pub(crate) fn decode_payload(
    bytes: Bytes,
) -> Result<EntryPayload<Proposal, ReplicaId, Member>, EntryError> {
    let header = bytes
        .first_chunk::<ENTRY_HEADER_BYTES>()
        .ok_or(WireError::Truncated)?;
    let [version, kind] = *header;
    if version != ENTRY_VERSION {
        return Err(EntryError::Version(version));
    }
    match kind {
        KIND_BLANK => match bytes.len() - ENTRY_HEADER_BYTES {
            0 => Ok(EntryPayload::Blank),
            left => Err(WireError::Trailing(left).into()),
        },
        KIND_BATCH => Ok(EntryPayload::Normal(Proposal(bytes))),
        KIND_MEMBERSHIP => {
            let membership =
                decode_membership(bytes.get(ENTRY_HEADER_BYTES..).unwrap_or_default())?;
            Ok(EntryPayload::Membership(membership))
        }
        kind => Err(EntryError::Kind(kind)),
    }
}

pub(crate) fn read_bool(reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Invalid("flag")),
    }
}

pub(crate) fn read_count(
    reader: &mut Reader<'_>,
    limit: u32,
    what: &'static str,
) -> Result<u32, WireError> {
    let count = reader.u32()?;
    if count > limit {
        Err(WireError::TooLong(what))
    } else {
        Ok(count)
    }
}

pub(crate) fn write_vote(writer: Writer, vote: &Vote) -> Writer {
    let leader = &vote.leader_id;
    writer
        .u64(leader.term)
        .u64(leader.voted_for.0)
        .u8(u8::from(vote.committed))
}

pub(crate) fn read_vote(reader: &mut Reader<'_>) -> Result<Vote, WireError> {
    let term = reader.u64()?;
    let voted_for = ReplicaId(reader.u64()?);
    Ok(if read_bool(reader)? {
        Vote::new_committed(term, voted_for)
    } else {
        Vote::new(term, voted_for)
    })
}

pub(crate) fn write_log_id(writer: Writer, id: Option<&LogId>) -> Writer {
    match id.map(position) {
        None => writer.u8(0),
        Some(at) => writer.u8(1).u64(at.term).u64(at.index),
    }
}

pub(crate) fn read_log_id(reader: &mut Reader<'_>) -> Result<Option<LogId>, WireError> {
    if !read_bool(reader)? {
        return Ok(None);
    }
    let at = LogPosition {
        term: reader.u64()?,
        index: reader.u64()?,
    };
    Ok(Some(log_id(at)))
}

/// The bytes of a membership, as entries and checkpoints hold it.
pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    write_membership(Writer::default(), membership).finish()
}

/// The membership in these bytes.
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, EntryError> {
    let mut reader = Reader::new(bytes);
    let membership = read_membership(&mut reader)?;
    reader.finish()?;
    Ok(membership)
}

fn write_membership(writer: Writer, membership: &Membership) -> Writer {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let configs = membership.get_joint_config();
    let writer = configs
        .iter()
        .fold(writer.u32(count(configs.len())), |writer, voters| {
            let writer = writer.u32(count(voters.len()));
            voters
                .iter()
                .fold(writer, |writer, voter| writer.u64(voter.0))
        });
    let writer = writer.u32(count(membership.nodes().count()));
    membership
        .nodes()
        .fold(writer, |writer, (replica, member)| {
            writer
                .u64(replica.0)
                .u64(member.node.0)
                .bytes(member.peer_address.as_bytes())
                .bytes(member.client_address.as_bytes())
        })
}

fn read_membership(reader: &mut Reader<'_>) -> Result<Membership, WireError> {
    let mut configs = Vec::new();
    for _ in 0..read_count(reader, MAX_CONFIGS, "sets of voters")? {
        let mut voters = BTreeSet::new();
        for _ in 0..read_count(reader, MAX_MEMBERS, "voters")? {
            voters.insert(ReplicaId(reader.u64()?));
        }
        configs.push(voters);
    }
    let mut members = BTreeMap::new();
    for _ in 0..read_count(reader, MAX_MEMBERS, "members")? {
        let replica = ReplicaId(reader.u64()?);
        let node = NodeId(reader.u64()?);
        let peer_address = read_address(reader)?;
        let client_address = read_address(reader)?;
        members.insert(
            replica,
            Member {
                node,
                peer_address,
                client_address,
            },
        );
    }
    if configs.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|_| WireError::Invalid("membership"))
}

fn read_address(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let bytes = reader.bytes(MAX_ADDRESS_BYTES, "address")?;
    String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Invalid("address"))
}

/// Where an entry stands, as the storage layer says it.
pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        index: id.index,
    }
}

/// Where an entry stands, as openraft says it.
pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId::new(
        CommittedLeaderIdOf::<TypeConfig>::new(position.term),
        position.index,
    )
}

/// The membership that the storage layer keeps for us.
pub(crate) fn stored_membership(
    stored: Option<(Option<LogPosition>, Bytes)>,
) -> io::Result<StoredMembership> {
    let Some((at, bytes)) = stored else {
        return Ok(StoredMembership::default());
    };
    let membership = decode_membership(&bytes).map_err(invalid_data)?;
    Ok(StoredMembership::new(at.map(log_id), membership))
}

/// What openraft wants to know of a checkpoint.
pub(crate) fn snapshot_meta(checkpoint: &Checkpoint) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: Some(log_id(checkpoint.position())),
        last_membership: stored_membership(checkpoint.membership())?,
    })
}

/// An error of ours where openraft wants one of the system.
pub(crate) fn invalid_data(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A failure of the storage layer where openraft wants one of the system. It stops the replica.
pub(crate) fn storage_failure(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
