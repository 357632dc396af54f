//! Looking at a replica that does not run: whether its log, its vote and its checkpoint can be read
//! and fit together.

use std::collections::BTreeSet;
use std::io;

use openraft::EntryPayload;
use rossby_domain::ids::ReplicaId;
use rossby_storage::LogPosition;
use rossby_storage::codec::{CodecError, decode_batch};
use rossby_storage::store::GroupStore;
use rossby_storage::wal::{GroupLog, WalError};

use crate::Member;
use crate::groups::check_recovered;
use crate::log_store::{LogStore, MAX_APPEND_BYTES};
use crate::types::{EntryError, Membership, decode_payload, stored_membership};

/// What a replica consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaSurvey {
    /// Entries in the log, each read and decoded.
    pub entries: u64,
    /// Commands in them.
    pub commands: u64,
    /// The first entry that is there.
    pub first: Option<u64>,
    /// The last entry, which may be purged.
    pub last: Option<LogPosition>,
    /// The last entry that was purged.
    pub purged: Option<LogPosition>,
    /// The term of the vote.
    pub vote_term: Option<u64>,
    /// The last entry that this replica knows to be committed. Later ones may be, too.
    pub committed: Option<LogPosition>,
    /// The group's members as this replica knows them last, and whether each has a vote.
    pub members: Vec<(ReplicaId, Member, bool)>,
    /// The sets of voters of each of which a majority must agree: two while they change.
    pub electorates: Vec<BTreeSet<ReplicaId>>,
}

impl ReplicaSurvey {
    fn note_members(&mut self, membership: &Membership) {
        self.members = members(membership);
        self.electorates = membership.get_joint_config().clone();
    }
}

/// Why a replica can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaFault {
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The vote can't be read.
    #[error("the vote can not be read: {0}")]
    Vote(io::Error),
    /// An entry can't be read.
    #[error("entry {index} can not be read: {source}")]
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        source: EntryError,
    },
    /// The commands of an entry can't be read.
    #[error("the commands of entry {index} can not be read: {source}")]
    Commands {
        /// Its index.
        index: u64,
        /// Why.
        source: CodecError,
    },
    /// The members in the checkpoint can't be read.
    #[error("the members in the checkpoint can not be read: {0}")]
    Members(io::Error),
    /// Log and checkpoint do not fit together.
    #[error("log and checkpoint do not fit together: {0}")]
    Mismatch(String),
}

/// The members that a checkpoint knows of.
///
/// # Errors
/// [`ReplicaFault::Members`].
pub fn members_of(state: &GroupStore) -> Result<Vec<(ReplicaId, Member, bool)>, ReplicaFault> {
    Ok(members(&applied_membership(state)?))
}

fn applied_membership(state: &GroupStore) -> Result<Membership, ReplicaFault> {
    let stored = stored_membership(state.applied().membership).map_err(ReplicaFault::Members)?;
    Ok(stored.membership().clone())
}

fn members(membership: &Membership) -> Vec<(ReplicaId, Member, bool)> {
    let voters: Vec<_> = membership.voter_ids().collect();
    membership
        .nodes()
        .map(|(replica, member)| (*replica, member.clone(), voters.contains(replica)))
        .collect()
}

/// Reads all of a replica's log, and holds it against its state, as recovered from the checkpoint.
///
/// # Errors
/// [`ReplicaFault`]: with that, the replica must not run.
pub fn survey(log: &GroupLog, state: &GroupStore) -> Result<ReplicaSurvey, ReplicaFault> {
    check_recovered(log, state).map_err(|error| ReplicaFault::Mismatch(error.to_string()))?;
    let held = log.state();
    let vote = LogStore::new(log.clone()).vote();
    let mut found = ReplicaSurvey {
        first: log.first_index(),
        last: held.last,
        purged: held.purged,
        vote_term: vote
            .map_err(ReplicaFault::Vote)?
            .map(|vote| vote.leader_id.term),
        // What is in the checkpoint was committed, whatever was noted.
        committed: held.committed.max(state.applied().position),
        ..ReplicaSurvey::default()
    };
    found.note_members(&applied_membership(state)?);
    let applied = state.applied().position;
    let mut term = held.purged.map_or(0, |purged| purged.term);
    let mut next = found.first.unwrap_or_default();
    loop {
        let records = log.read_limited(next, u64::MAX, MAX_APPEND_BYTES)?;
        let Some(last) = records.last() else {
            return Ok(found);
        };
        next = last.position.index.saturating_add(1);
        for record in records {
            let at = record.position;
            if at.term < term {
                let text = format!("entry {} has a lower term than the one before it", at.index);
                return Err(ReplicaFault::Mismatch(text));
            }
            term = at.term;
            if applied.is_some_and(|applied| applied.index == at.index && applied != at) {
                let text = format!(
                    "entry {} is not the one that the checkpoint holds",
                    at.index
                );
                return Err(ReplicaFault::Mismatch(text));
            }
            // Entries that the checkpoint holds too say nothing newer of the members than it does.
            let is_newer = applied.is_none_or(|applied| applied.index < at.index);
            read_entry(&mut found, at.index, record.bytes, is_newer)?;
        }
    }
}

fn read_entry(
    found: &mut ReplicaSurvey,
    index: u64,
    bytes: bytes::Bytes,
    is_newer: bool,
) -> Result<(), ReplicaFault> {
    let payload = decode_payload(bytes).map_err(|source| ReplicaFault::Entry { index, source })?;
    found.entries += 1;
    match payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(proposal) => {
            let batch = decode_batch(proposal.batch())
                .map_err(|source| ReplicaFault::Commands { index, source })?;
            found.commands += batch.commands.len() as u64;
        }
        EntryPayload::Membership(membership) if is_newer => found.note_members(&membership),
        EntryPayload::Membership(_) => {}
    }
    Ok(())
}
