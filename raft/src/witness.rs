//! A door for whoever watches a replica from outside: a simulation that judges what it promised.
//!
//! Invariant: a witness is told and never asked. Without one nothing is done or kept.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{Epoch, GroupId, PartitionId, ReplicaId};
use rossby_storage::LogPosition;

/// What a replica has just done, as it knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It runs, with what it found on its disk.
    Started {
        /// The saved vote.
        vote: Option<SavedVote>,
        /// The last entry of its log, or the purge mark if there is none.
        last: Option<LogPosition>,
        /// The purge mark.
        purged: Option<LogPosition>,
        /// Its checkpoint, which is all that its state reflects yet.
        checkpoint: Option<LogPosition>,
    },
    /// `save_vote` is about to return: the vote is durable.
    Voted(SavedVote),
    /// Entries went into the log, durable or not.
    Appended(Vec<(LogPosition, Bytes)>),
    /// What was appended up to here was reported durable.
    Flushed(LogPosition),
    /// It is about to drop the entries after this index; all for `None`.
    Truncating(Option<u64>),
    /// It is about to drop the entries up to here.
    Purging(LogPosition),
    /// It has learned that this much is committed.
    Committed(LogPosition),
    /// It has applied an entry of these bytes.
    Applied(LogPosition, Bytes),
    /// The entry that it has just applied was carried out in these partitions, as their owner at these epochs.
    Ruled(BTreeSet<(PartitionId, Epoch)>),
    /// The entry that it has just applied changed the members.
    Members {
        /// The entry.
        at: LogPosition,
        /// The voters: two sets while a change of them is half-way.
        voters: Vec<BTreeSet<ReplicaId>>,
        /// The members without a vote.
        learners: BTreeSet<ReplicaId>,
    },
    /// Its manifest names this position.
    CheckpointPublished(LogPosition),
    /// It has taken over a checkpoint of another replica.
    CheckpointInstalled(LogPosition),
}

/// A vote as it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedVote {
    /// The term.
    pub term: u64,
    /// For whom.
    pub candidate: ReplicaId,
    /// Whether the candidate has won: a leader is accepted, or is this replica.
    pub won: bool,
}

impl SavedVote {
    pub(crate) fn of(vote: &crate::types::Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            candidate: vote.leader_id.voted_for,
            won: vote.committed,
        }
    }
}

/// Who is told. Calls must return at once.
pub trait Witness: Debug + Send + Sync {
    /// A replica has done this.
    fn saw(&self, group: GroupId, replica: ReplicaId, deed: Deed);
}

/// One replica's line to its witness, if it has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line(Option<(Arc<dyn Witness>, GroupId, ReplicaId)>);

impl Line {
    pub(crate) fn new(
        witness: Option<&Arc<dyn Witness>>,
        group: GroupId,
        replica: ReplicaId,
    ) -> Self {
        Self(witness.map(|witness| (witness.clone(), group, replica)))
    }

    /// Tells what was done; it is worked out only if somebody listens.
    pub(crate) fn tell(&self, deed: impl FnOnce() -> Deed) {
        if let Some((witness, group, replica)) = &self.0 {
            witness.saw(*group, *replica, deed());
        }
    }
}
