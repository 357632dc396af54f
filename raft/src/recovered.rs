//! A group that goes on from one replica, whose quorum was lost for good: what the state of that replica must become
//! before it runs again.
//!
//! ```text
//!   checkpoint ─► all of the log, committed or not ─► marks, commands ─► the only member ─► checkpoint
//! ```
//!
//! Entries that are not known to be committed are applied: an acknowledged one may be among them, and one that
//! was not has an outcome that nobody knows. What the lost replicas had beyond them is gone. They may have been in
//! later terms and at higher indexes, and have added replicas there, so the log goes on far above.

use openraft::EntryPayload;
use rossby_domain::ids::{PartitionId, ReplicaId};
use rossby_domain::placement::{ClusterMap, PLACEMENT_PARTITION};
use rossby_domain::time::Timestamp;
use rossby_domain::{Rejection, Reply, Routed};
use rossby_storage::LogPosition;
use rossby_storage::codec::{Batch, CodecError, encode_batch};
use rossby_storage::store::{GroupStore, StoreError};
use rossby_storage::wal::GroupLog;

use crate::log_store::{LogStore, MAX_APPEND_BYTES};
use crate::members::next_replica;
use crate::types::decode_payload;
use crate::{Member, ReplicaFault, sole_member};

/// No lost replica wrote so many entries more than the one that is left. At ten thousand a second it would have
/// taken years.
const BEYOND: u64 = 1 << 40;

/// How a group goes on.
#[derive(Debug, Clone)]
pub struct Rebirth {
    /// The node that it goes on at.
    pub member: Member,
    /// Now, not before anything that the state knows.
    pub at: Timestamp,
    /// All partitions that the group may ever own.
    pub partitions: Vec<PartitionId>,
    /// The cluster map to go on with, if it is not the one that the log holds.
    pub map: Option<ClusterMap>,
}

/// Why a group can't go on from a replica.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Its log can't be read.
    #[error(transparent)]
    Replica(#[from] ReplicaFault),
    /// Its state can't be read or changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The commands can't be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A command was refused.
    #[error("the recovery itself was refused: {0:?}")]
    Refused(Rejection),
    /// It has neither entries nor a checkpoint.
    #[error("the replica holds nothing")]
    Empty,
    /// openraft takes it for no group.
    #[error("one node makes no group")]
    Membership,
}

/// Makes the state of a replica that was brought as far as its log reaches ([`replay`]) that of the only replica of its
/// group, which gets a new id. `commands` are what the new replica does first; they are told its id. Where its log must
/// begin ([`crate::begin_restored_log`]), and its id. The state is in memory then: a checkpoint has to follow.
///
/// # Errors
/// [`RecoverError`]; the state is of no use then.
pub fn conclude(
    log: &GroupLog,
    state: &mut GroupStore,
    rebirth: &Rebirth,
    commands: impl FnOnce(ReplicaId) -> Vec<Routed>,
) -> Result<(LogPosition, ReplicaId), RecoverError> {
    let held = log.state().last.max(state.applied().position);
    let held = held.ok_or(RecoverError::Empty)?;
    let vote = LogStore::new(log.clone()).vote();
    let vote_term = vote
        .map_err(ReplicaFault::Vote)?
        .map_or(0, |vote| vote.leader_id.term);
    let term = held.term.max(vote_term).saturating_add(1);
    let beyond = |more: u64| LogPosition {
        term,
        index: held.index.saturating_add(BEYOND).saturating_add(more),
    };
    let last = beyond(3);
    let replica = next_replica(Some(last.index.saturating_sub(1)));
    state.apply_restoration(beyond(0), rebirth.at, &rebirth.partitions)?;
    if let Some(map) = &rebirth.map {
        state.apply_map(beyond(1), PLACEMENT_PARTITION, map)?;
    }
    let batch = encode_batch(&Batch {
        stamp: rebirth.at,
        may_expire: false,
        commands: commands(replica),
    })?;
    let replies = state.apply_batch(beyond(2), &batch)?;
    if let Some(refusal) = replies.into_iter().find_map(Reply::err) {
        return Err(RecoverError::Refused(refusal));
    }
    let membership =
        sole_member(replica, rebirth.member.clone()).ok_or(RecoverError::Membership)?;
    state.apply_membership(last, membership)?;
    Ok((last, replica))
}

/// Applies all that the log of a replica that does not run holds beyond its state. `passed` looks at the state after each
/// batch.
///
/// # Errors
/// [`RecoverError`]; the state is of no use then.
pub fn replay(
    log: &GroupLog,
    state: &mut GroupStore,
    mut passed: impl FnMut(&GroupStore) -> Result<(), StoreError>,
) -> Result<(), RecoverError> {
    let applied = state.applied().position;
    let mut next = applied.map_or(0, |applied| applied.index.saturating_add(1));
    next = next.max(log.first_index().unwrap_or_default());
    loop {
        let read = log.read_limited(next, u64::MAX, MAX_APPEND_BYTES);
        let records = read.map_err(ReplicaFault::Log)?;
        let Some(last) = records.last() else {
            return Ok(());
        };
        next = last.position.index.saturating_add(1);
        for record in records {
            let (at, index) = (record.position, record.position.index);
            let payload = decode_payload(record.bytes)
                .map_err(|source| ReplicaFault::Entry { index, source })?;
            match payload {
                EntryPayload::Blank => state.apply_blank(at)?,
                EntryPayload::Normal(proposal) => {
                    state.apply_batch(at, proposal.batch())?;
                    passed(state)?;
                }
                EntryPayload::Membership(membership) => {
                    let bytes = crate::types::encode_membership(&membership).into();
                    state.apply_membership(at, bytes)?;
                }
            }
        }
    }
}
