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
    /// The members before those, while it is not known that these were committed. A leader changes members only once
    /// the last change of them was: there is no other membership that may be the committed one.
    pub members_before: Vec<(ReplicaId, Member, bool)>,
    /// The sets of voters of each of which a majority must agree, by the members that are known last: two while they
    /// change.
    pub electorates: Vec<BTreeSet<ReplicaId>>,
}

impl ReplicaSurvey {
    fn note_members(&mut self, membership: &Membership, is_committed: bool) {
        let before = std::mem::replace(&mut self.members, members(membership));
        self.members_before = match is_committed {
            true => Vec::new(),
            false => before,
        };
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
    found.note_members(&applied_membership(state)?, true);
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
        EntryPayload::Membership(membership) if is_newer => {
            let committed = found.committed.map(|committed| committed.index);
            found.note_members(&membership, Some(index) <= committed);
        }
        EntryPayload::Membership(_) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use rossby_domain::ids::GroupId;
    use rossby_seams::base::MemoryBase;
    use rossby_seams::disk::{Disk, MemoryDisk};
    use rossby_storage::store::Store;
    use rossby_storage::wal::{LogRecord, Wal, WalOptions};

    use super::*;
    use crate::types::encode_payload;

    fn change(electorates: &[&[u64]]) -> EntryPayload<crate::types::Proposal, ReplicaId, Member> {
        let sets = electorates
            .iter()
            .map(|set| set.iter().copied().map(ReplicaId).collect());
        let sets: Vec<BTreeSet<ReplicaId>> = sets.collect();
        let all = sets.iter().flatten();
        let members: BTreeMap<_, _> = all.map(|replica| (*replica, Member::default())).collect();
        EntryPayload::Membership(Membership::new(sets, members).unwrap())
    }

    fn ids(members: &[(ReplicaId, Member, bool)]) -> Vec<u64> {
        members.iter().map(|(replica, _, _)| replica.0).collect()
    }

    #[test]
    fn members_of_before_are_told_until_it_is_known_that_they_are_no_more() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let options = WalOptions::default();
        let (wal, mut writer) = Wal::open(Arc::clone(&disk), Path::new("/wal"), options).unwrap();
        let writer = std::thread::spawn(move || while writer.run_once() {});
        let base = Arc::new(MemoryBase::default());
        let store = Store::open(disk, Path::new("/checkpoints"), base).unwrap();
        let state = store.group(GroupId(1)).unwrap();
        let log = wal.log(GroupId(1), ReplicaId(1)).unwrap();
        let at = |index| LogPosition { term: 1, index };
        let append = |index, payload| {
            let bytes = encode_payload(&payload);
            let position = at(index);
            log.append(vec![LogRecord { position, bytes }], Box::new(|_| {}))
                .unwrap();
        };
        let told = || {
            let found = survey(&log, &state).unwrap();
            let voters = found.electorates.len();
            (ids(&found.members), ids(&found.members_before), voters)
        };
        append(1, change(&[&[1, 2, 3]]));
        append(2, EntryPayload::Blank);
        append(3, change(&[&[1, 2, 3], &[1, 4, 5]]));
        log.save_committed(Some(at(2))).unwrap();
        assert_eq!(told(), (vec![1, 2, 3, 4, 5], vec![1, 2, 3], 2));
        log.save_committed(Some(at(3))).unwrap();
        assert_eq!(told(), (vec![1, 2, 3, 4, 5], vec![], 2));
        append(4, change(&[&[1, 4, 5]]));
        assert_eq!(told(), (vec![1, 4, 5], vec![1, 2, 3, 4, 5], 1));
        wal.shut_down();
        writer.join().unwrap();
    }
}
