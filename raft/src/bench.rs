//! What the benches need of the inside of this crate (`raft/benches`, docs/BENCHMARKS.md).

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_storage::LogPosition;
use rossby_storage::codec::{Batch, CodecError};

use crate::frame::{Append, Frame, Target};
use crate::types::{Entry, Proposal, Vote, log_id};

/// The frame by which a leader sends entries to a follower.
#[derive(Debug)]
pub struct AppendFrame(Frame);

impl AppendFrame {
    /// A frame of so many entries, each with this batch.
    ///
    /// # Errors
    /// [`CodecError`] if the batch can not be encoded.
    pub fn of(batch: &Batch, entries: u64) -> Result<Self, CodecError> {
        const TERM: u64 = 1;
        let at = |index| log_id(LogPosition { term: TERM, index });
        let proposal = Proposal::new(batch)?;
        let entry = |index| Entry {
            log_id: at(index),
            payload: openraft::EntryPayload::Normal(proposal.clone()),
        };
        let append = Append {
            vote: Vote::new_committed(TERM, ReplicaId(1)),
            prev_log_id: Some(at(1)),
            entries: (2..)
                .map(entry)
                .zip(0..entries)
                .map(|(entry, _)| entry)
                .collect(),
            leader_commit: Some(at(1)),
        };
        let to = Target {
            group: GroupId(1),
            replica: ReplicaId(2),
        };
        Ok(Self(Frame::StreamAppend { id: 7, to, append }))
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// The frame in these bytes; `None` if there is another, or none.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let frame = Frame::decode(bytes).ok()?;
        matches!(frame, Frame::StreamAppend { .. }).then_some(Self(frame))
    }
}
