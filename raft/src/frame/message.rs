//! The messages inside frames.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError, Writer};
use rossby_storage::LogPosition;
use rossby_storage::store::FileName;

use crate::members::Standing;
use crate::types::{
    Entry, LogId, TypeConfig, Vote, decode_payload, encode_payload, log_id, position, read_bool,
    read_count, read_log_id, read_vote, write_log_id, write_vote,
};

pub(crate) type Append = AppendEntriesRequest<TypeConfig>;
pub(crate) type AppendOutcome = AppendEntriesResponse<TypeConfig>;
pub(crate) type StreamOutcome = StreamAppendResult<TypeConfig>;
type Ballot = VoteRequest<TypeConfig>;
type BallotOutcome = VoteResponse<TypeConfig>;
type Transfer = TransferLeaderRequest<TypeConfig>;
type TransferError = TransferLeaderError<TypeConfig>;

/// The most entries in one append.
const MAX_ENTRIES: u32 = 4096;
/// The most bytes of an entry.
const MAX_ENTRY_BYTES: usize = super::MAX_FRAME_BYTES;
/// The most files of a checkpoint that a follower may ask for: those of all partitions that a cluster
/// can have: a base, sixteen deltas, and one more of a restored partition.
const MAX_FILES: u32 = 4096 * 18;
/// The most groups that one beat may name.
pub(crate) const MAX_RESTING: u32 = 65_536;

/// Which replica a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
}

/// What can be asked of a peer.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Append(Append),
    Vote(Ballot),
    PreVote(Ballot),
    Transfer(Transfer),
    /// I would send you the checkpoint with this manifest: what of it do you lack?
    SnapshotBegin {
        manifest: Bytes,
    },
    /// The next piece of a file of the checkpoint that was begun.
    SnapshotChunk {
        transfer: u64,
        file: FileName,
        offset: u64,
        bytes: Bytes,
    },
    /// All was sent: make it your state.
    SnapshotInstall {
        transfer: u64,
        vote: Vote,
    },
    /// What time is it? Asked of the node, whatever the target.
    Clock,
    /// Is this replica of the group still a member of it? Asked of any replica of the group.
    Standing {
        replica: ReplicaId,
    },
    /// You lead: up to which entry is everything that was acknowledged before this question?
    ReadIndex,
    /// I lead you, and nothing is asked of us: rest, if this is the last entry that you have (`rest/`).
    Rest {
        vote: Vote,
        last: LogId,
    },
    /// This node lives, and leads these groups at rest, each in this term. Said to the node, whatever the
    /// target.
    Beat {
        resting: Vec<(GroupId, u64)>,
    },
}

/// What a peer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Append(AppendOutcome),
    Vote(BallotOutcome),
    Transfer(Result<(), TransferError>),
    /// The files that are missing, each from which offset on.
    SnapshotMissing {
        transfer: u64,
        missing: Vec<(FileName, u64)>,
    },
    SnapshotWritten,
    SnapshotInstalled(Vote),
    Clock(Timestamp),
    Standing(Standing),
    ReadIndex(u64),
    /// Whether the replica rests.
    Rest(bool),
    /// Of the groups of a beat, those that do not rest here.
    Beat {
        awake: Vec<GroupId>,
    },
}

/// Why a peer does not do what it was asked. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the node has no replica of that group")]
    UnknownGroup,
    #[error("the node's replica of that group is {actual}")]
    WrongReplica { actual: ReplicaId },
    #[error("the replica has stopped")]
    Stopped,
    #[error("the node has no room for more entries")]
    NoRoom,
    #[error("the node is too busy")]
    Busy,
    #[error("no such checkpoint transfer is under way")]
    UnknownTransfer,
    #[error("the checkpoint could not be taken in")]
    BadCheckpoint,
    #[error("the replica was removed from the group")]
    Removed,
    #[error("the sender is on another node")]
    OtherNode,
    #[error("the replica does not lead, or has no quorum")]
    NotLeading,
}

impl Refusal {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        match self {
            Self::UnknownGroup => writer.u8(1),
            Self::WrongReplica { actual } => writer.u8(2).u64(actual.0),
            Self::Stopped => writer.u8(3),
            Self::NoRoom => writer.u8(4),
            Self::Busy => writer.u8(5),
            Self::UnknownTransfer => writer.u8(6),
            Self::BadCheckpoint => writer.u8(7),
            Self::Removed => writer.u8(8),
            Self::OtherNode => writer.u8(9),
            Self::NotLeading => writer.u8(10),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            1 => Self::UnknownGroup,
            2 => Self::WrongReplica {
                actual: ReplicaId(reader.u64()?),
            },
            3 => Self::Stopped,
            4 => Self::NoRoom,
            5 => Self::Busy,
            6 => Self::UnknownTransfer,
            7 => Self::BadCheckpoint,
            8 => Self::Removed,
            9 => Self::OtherNode,
            10 => Self::NotLeading,
            _ => return Err(WireError::Invalid("refusal")),
        })
    }
}

impl Request {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        match self {
            Self::Append(append) => write_append(writer.u8(1), append),
            Self::Vote(ballot) => write_ballot(writer.u8(2), ballot),
            Self::PreVote(ballot) => write_ballot(writer.u8(3), ballot),
            Self::Transfer(transfer) => {
                let writer = write_vote(writer.u8(4), transfer.from_leader());
                let writer = writer.u64(transfer.to_node_id().0);
                write_log_id(writer, transfer.last_log_id())
            }
            Self::SnapshotBegin { manifest } => writer.u8(5).bytes(manifest),
            Self::SnapshotChunk {
                transfer,
                file,
                offset,
                bytes,
            } => write_file(writer.u8(6).u64(*transfer), file)
                .u64(*offset)
                .bytes(bytes),
            Self::SnapshotInstall { transfer, vote } => {
                write_vote(writer.u8(7).u64(*transfer), vote)
            }
            Self::Clock => writer.u8(8),
            Self::Standing { replica } => writer.u8(9).u64(replica.0),
            Self::ReadIndex => writer.u8(10),
            Self::Rest { vote, last } => {
                let writer = write_vote(writer.u8(11), vote);
                let at = position(last);
                writer.u64(at.term).u64(at.index)
            }
            Self::Beat { resting } => {
                let count = u32::try_from(resting.len()).unwrap_or(u32::MAX);
                let writer = writer.u8(12).u32(count);
                resting.iter().fold(writer, |writer, (group, term)| {
                    writer.u32(group.0).u64(*term)
                })
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>, frame: &Bytes) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            1 => Self::Append(read_append(reader, frame)?),
            2 => Self::Vote(read_ballot(reader)?),
            3 => Self::PreVote(read_ballot(reader)?),
            4 => {
                let from = read_vote(reader)?;
                let to = ReplicaId(reader.u64()?);
                Self::Transfer(Transfer::new(from, to, read_log_id(reader)?))
            }
            5 => Self::SnapshotBegin {
                manifest: read_shared(reader, frame, "manifest")?,
            },
            6 => Self::SnapshotChunk {
                transfer: reader.u64()?,
                file: read_file(reader)?,
                offset: reader.u64()?,
                bytes: read_shared(reader, frame, "piece")?,
            },
            7 => Self::SnapshotInstall {
                transfer: reader.u64()?,
                vote: read_vote(reader)?,
            },
            8 => Self::Clock,
            9 => Self::Standing {
                replica: ReplicaId(reader.u64()?),
            },
            10 => Self::ReadIndex,
            11 => Self::Rest {
                vote: read_vote(reader)?,
                last: log_id(LogPosition {
                    term: reader.u64()?,
                    index: reader.u64()?,
                }),
            },
            12 => {
                let count = read_count(reader, MAX_RESTING, "resting groups")?;
                let read = |_| Ok((GroupId(reader.u32()?), reader.u64()?));
                let resting = (0..count).map(read).collect::<Result<_, WireError>>()?;
                Self::Beat { resting }
            }
            _ => return Err(WireError::Invalid("request")),
        })
    }
}

impl Answer {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        match self {
            Self::Append(outcome) => write_append_outcome(writer.u8(1), outcome),
            Self::Vote(outcome) => {
                let writer = write_vote(writer.u8(2), &outcome.vote);
                let writer = writer.u8(u8::from(outcome.vote_granted));
                write_log_id(writer, outcome.last_log_id.as_ref())
            }
            Self::Transfer(outcome) => write_transfer_outcome(writer.u8(3), outcome),
            Self::SnapshotMissing { transfer, missing } => {
                let count = u32::try_from(missing.len()).unwrap_or(u32::MAX);
                let writer = writer.u8(4).u64(*transfer).u32(count);
                missing.iter().fold(writer, |writer, (file, offset)| {
                    write_file(writer, file).u64(*offset)
                })
            }
            Self::SnapshotWritten => writer.u8(5),
            Self::SnapshotInstalled(vote) => write_vote(writer.u8(6), vote),
            Self::Clock(now) => writer.u8(7).u64(now.as_millis()),
            Self::Standing(standing) => writer.u8(8).u8(match standing {
                Standing::Member => 0,
                Standing::Removed => 1,
                Standing::Unknown => 2,
            }),
            Self::ReadIndex(index) => writer.u8(9).u64(*index),
            Self::Rest(rests) => writer.u8(10).u8(u8::from(*rests)),
            Self::Beat { awake } => {
                let count = u32::try_from(awake.len()).unwrap_or(u32::MAX);
                let writer = writer.u8(11).u32(count);
                awake
                    .iter()
                    .fold(writer, |writer, group| writer.u32(group.0))
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            1 => Self::Append(read_append_outcome(reader)?),
            2 => {
                let vote = read_vote(reader)?;
                let granted = read_bool(reader)?;
                Self::Vote(BallotOutcome::new(vote, read_log_id(reader)?, granted))
            }
            3 => Self::Transfer(read_transfer_outcome(reader)?),
            4 => {
                let transfer = reader.u64()?;
                let count = read_count(reader, MAX_FILES, "files")?;
                let read = |_| Ok((read_file(reader)?, reader.u64()?));
                Self::SnapshotMissing {
                    transfer,
                    missing: (0..count).map(read).collect::<Result<_, _>>()?,
                }
            }
            5 => Self::SnapshotWritten,
            6 => Self::SnapshotInstalled(read_vote(reader)?),
            7 => Self::Clock(Timestamp::from_millis(reader.u64()?)),
            8 => Self::Standing(match reader.u8()? {
                0 => Standing::Member,
                1 => Standing::Removed,
                2 => Standing::Unknown,
                _ => return Err(WireError::Invalid("standing")),
            }),
            9 => Self::ReadIndex(reader.u64()?),
            10 => Self::Rest(read_bool(reader)?),
            11 => {
                let count = read_count(reader, MAX_RESTING, "groups")?;
                let read = |_| Ok(GroupId(reader.u32()?));
                let awake = (0..count).map(read).collect::<Result<_, WireError>>()?;
                Self::Beat { awake }
            }
            _ => return Err(WireError::Invalid("answer")),
        })
    }
}

/// A byte string of variable length that shares the frame's memory.
fn read_shared(
    reader: &mut Reader<'_>,
    frame: &Bytes,
    what: &'static str,
) -> Result<Bytes, WireError> {
    let bytes = reader.bytes(super::MAX_FRAME_BYTES, what)?;
    Ok(frame.slice_ref(bytes))
}

fn write_ballot(writer: Writer, ballot: &Ballot) -> Writer {
    let writer = write_vote(writer, &ballot.vote);
    write_log_id(writer, ballot.last_log_id.as_ref()).u8(u8::from(ballot.leadership_transfer))
}

fn read_ballot(reader: &mut Reader<'_>) -> Result<Ballot, WireError> {
    let vote = read_vote(reader)?;
    let mut ballot = Ballot::new(vote, read_log_id(reader)?);
    ballot.leadership_transfer = read_bool(reader)?;
    Ok(ballot)
}

pub(super) fn write_append(writer: Writer, append: &Append) -> Writer {
    let writer = write_vote(writer, &append.vote);
    let writer = write_log_id(writer, append.prev_log_id.as_ref());
    let writer = write_log_id(writer, append.leader_commit.as_ref());
    let count = u32::try_from(append.entries.len()).unwrap_or(u32::MAX);
    append
        .entries
        .iter()
        .fold(writer.u32(count), |writer, entry| {
            let at = position(&entry.log_id);
            writer
                .u64(at.term)
                .u64(at.index)
                .bytes(&encode_payload(&entry.payload))
        })
}

pub(super) fn read_append(reader: &mut Reader<'_>, frame: &Bytes) -> Result<Append, WireError> {
    let vote = read_vote(reader)?;
    let prev_log_id = read_log_id(reader)?;
    let leader_commit = read_log_id(reader)?;
    let count = read_count(reader, MAX_ENTRIES, "entries")?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    for _ in 0..count {
        let at = LogPosition {
            term: reader.u64()?,
            index: reader.u64()?,
        };
        // openraft takes the order of entries for granted.
        if at.index != next {
            return Err(WireError::Invalid("entry index"));
        }
        next = next.saturating_add(1);
        let bytes = frame.slice_ref(reader.bytes(MAX_ENTRY_BYTES, "entry")?);
        let payload = decode_payload(bytes).map_err(|_| WireError::Invalid("entry"))?;
        entries.push(Entry {
            log_id: log_id(at),
            payload,
        });
    }
    Ok(Append {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

fn write_append_outcome(writer: Writer, outcome: &AppendOutcome) -> Writer {
    match outcome {
        AppendOutcome::Success => writer.u8(0),
        AppendOutcome::PartialSuccess(matching) => write_log_id(writer.u8(1), matching.as_ref()),
        AppendOutcome::Conflict => writer.u8(2),
        AppendOutcome::HigherVote(vote) => write_vote(writer.u8(3), vote),
    }
}

fn read_append_outcome(reader: &mut Reader<'_>) -> Result<AppendOutcome, WireError> {
    Ok(match reader.u8()? {
        0 => AppendOutcome::Success,
        1 => AppendOutcome::PartialSuccess(read_log_id(reader)?),
        2 => AppendOutcome::Conflict,
        3 => AppendOutcome::HigherVote(read_vote(reader)?),
        _ => return Err(WireError::Invalid("append outcome")),
    })
}

pub(super) fn write_stream_outcome(outcome: &StreamOutcome, writer: Writer) -> Writer {
    match outcome {
        Ok(matching) => write_log_id(writer.u8(0), matching.as_ref()),
        Err(StreamAppendError::Conflict(at)) => write_log_id(writer.u8(1), Some(at)),
        Err(StreamAppendError::HigherVote(vote)) => write_vote(writer.u8(2), vote),
    }
}

pub(super) fn read_stream_outcome(reader: &mut Reader<'_>) -> Result<StreamOutcome, WireError> {
    Ok(match reader.u8()? {
        0 => Ok(read_log_id(reader)?),
        1 => {
            let at = read_log_id(reader)?.ok_or(WireError::Invalid("conflict"))?;
            Err(StreamAppendError::Conflict(at))
        }
        2 => Err(StreamAppendError::HigherVote(read_vote(reader)?)),
        _ => return Err(WireError::Invalid("stream outcome")),
    })
}

fn write_transfer_outcome(writer: Writer, outcome: &Result<(), TransferError>) -> Writer {
    match outcome {
        Ok(()) => writer.u8(0),
        Err(TransferError::VoteChanged { expected, actual }) => {
            write_vote(write_vote(writer.u8(1), expected), actual)
        }
        Err(TransferError::LogNotFlushed { expected, actual }) => write_log_id(
            write_log_id(writer.u8(2), expected.as_ref()),
            actual.as_ref(),
        ),
    }
}

fn read_transfer_outcome(reader: &mut Reader<'_>) -> Result<Result<(), TransferError>, WireError> {
    Ok(match reader.u8()? {
        0 => Ok(()),
        1 => Err(TransferError::VoteChanged {
            expected: read_vote(reader)?,
            actual: read_vote(reader)?,
        }),
        2 => Err(TransferError::LogNotFlushed {
            expected: read_log_id(reader)?,
            actual: read_log_id(reader)?,
        }),
        _ => return Err(WireError::Invalid("transfer outcome")),
    })
}

fn write_file(writer: Writer, file: &FileName) -> Writer {
    writer.fixed(&file.digest).u64(file.length)
}

fn read_file(reader: &mut Reader<'_>) -> Result<FileName, WireError> {
    Ok(FileName {
        digest: reader.fixed()?,
        length: reader.u64()?,
    })
}
