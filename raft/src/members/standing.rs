//! Which replicas belong to a group, did once, or may yet: so that one that was removed can never
//! disturb the others, and learns what became of it.
//!
//! **Replica ids.** The members that a group is born with have ids below [`FIRST_GIVEN`]. A later
//! one gets [`FIRST_GIVEN`] plus the index of the entry that comes after all that the leader has when it
//! adds it. Let M be the index of a committed membership, and I that of the membership that added
//! the replica, right after a membership before it in the log. Then either M >= I, and M is beyond the
//! index that made the id, or M lies before it. So ids grow and never come again, and a committed
//! membership alone tells of any id that is not in it whether it was removed or is not known yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rossby_domain::ids::ReplicaId;
use rossby_domain::planted::{Bug, planted};
use tokio::time::Instant;

use crate::Member;
use crate::answers::Leadership;
use crate::core::Core;
use crate::frame::{Answer, Request, Target};
use crate::looks::Errand;
use crate::types::StoredMembership;

/// Ids below this are of the members that a group is born with.
const FIRST_GIVEN: u64 = 1024;
/// A replica that knows no member asks all nodes at every so many looks at which no leader spoke to it: most wait
/// for nothing but their group's first election.
const STRANGERS_EVERY: u64 = 10;

/// What a replica is to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A member.
    Member,
    /// It was a member once.
    Removed,
    /// Not a member as far as is known here, but it may have become one meanwhile.
    Unknown,
}

/// The id of a replica that is added by a leader whose last entry is at this index.
pub(crate) fn next_replica(last_index: Option<u64>) -> ReplicaId {
    if planted(Bug::ReplicaIdReused) {
        return ReplicaId(FIRST_GIVEN);
    }
    ReplicaId(FIRST_GIVEN.saturating_add(last_index.map_or(0, |index| index.saturating_add(1))))
}

/// What a replica is, by a committed membership.
pub(crate) fn standing(committed: &StoredMembership, replica: ReplicaId) -> Standing {
    if committed.get_node(&replica).is_some() {
        return Standing::Member;
    }
    let Some(at) = committed.log_id() else {
        return Standing::Unknown;
    };
    match replica.0.checked_sub(FIRST_GIVEN) {
        Some(index) if index > at.index => Standing::Unknown,
        _ => Standing::Removed,
    }
}

impl Core {
    /// All other replicas that this one knows of.
    fn others(&self) -> Vec<(ReplicaId, Member)> {
        self.with_metrics(|metrics| {
            let all = metrics.membership_config.nodes();
            all.filter(|(replica, _)| **replica != self.replica)
                .map(|(replica, member)| (*replica, member.clone()))
                .collect()
        })
    }

    /// Whom a replica asks that knows no member: all nodes. What a replica is to its group, any replica of that
    /// tells, whatever its id.
    fn strangers(&self) -> Vec<(ReplicaId, Member)> {
        if self.with_metrics(|metrics| metrics.membership_config.nodes().next().is_some()) {
            return Vec::new();
        }
        let nodes = self.acquaintances.all().into_iter();
        nodes.map(|node| (ReplicaId::default(), node)).collect()
    }
}

/// The question of whether this replica is still a member.
#[derive(Debug, Default)]
pub(crate) struct StandingLook {
    errand: Errand,
    /// How often in a row no leader spoke to it.
    unled: AtomicU64,
}

/// Asks the others, whenever no leader speaks to this replica, whether it is still one of them; ends
/// it for good if it is not.
pub(crate) fn look_for_standing(core: &Arc<Core>) {
    let StandingLook { errand, unled } = &core.looks.standing;
    if *core.leadership.borrow() != Leadership::Unknown {
        return unled.store(0, Ordering::Relaxed);
    }
    let times = unled.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let mut whom = core.others();
    if whom.is_empty() && times.is_multiple_of(STRANGERS_EVERY) {
        whom = core.strangers();
    }
    if !whom.is_empty() {
        errand.begin(ask_all(Arc::clone(core), whom));
    }
}

async fn ask_all(core: Arc<Core>, others: Vec<(ReplicaId, Member)>) {
    let others = others.into_iter();
    let asking = others.map(|(replica, member)| ask(&core, replica, member));
    let answers = futures_util::future::join_all(asking).await;
    if answers.contains(&Some(Standing::Removed)) {
        dismiss(&core).await;
    }
}

async fn ask(core: &Core, replica: ReplicaId, member: Member) -> Option<Standing> {
    let to = Target {
        group: core.id,
        replica,
    };
    let request = Request::Standing {
        replica: core.replica,
    };
    let deadline = Instant::now() + core.timing.election_max;
    match core.links.call(&member, to, request, deadline).await {
        Ok(Answer::Standing(standing)) => Some(standing),
        _ => None,
    }
}

/// Ends this replica, and writes down that it can not come back.
pub(crate) async fn dismiss(core: &Core) {
    tracing::warn!(
        group = %core.id, replica = %core.replica,
        "this replica was removed from its group: it stops for good"
    );
    core.stop.cancel();
    // openraft writes to the log until it has ended.
    if core.raft.shutdown().await.is_err() {
        tracing::debug!(group = %core.id, "openraft had ended before it was told to");
    }
    if let Err(error) = core.wal.remove_replica(core.id, core.replica).await {
        // Its place is not free as long as the log takes it for a replica. It will be told again after the
        // next start.
        tracing::warn!(group = %core.id, %error, "the removal could not be written down");
        return;
    }
    core.dismissed.cancel();
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::types::{Membership, log_id};
    use rossby_storage::LogPosition;

    fn committed(index: u64, replicas: &BTreeSet<u64>) -> StoredMembership {
        let ids: BTreeSet<_> = replicas.iter().copied().map(ReplicaId).collect();
        let nodes: BTreeMap<_, _> = ids.iter().map(|id| (*id, Member::default())).collect();
        let membership = Membership::new(vec![ids], nodes).unwrap();
        StoredMembership::new(Some(log_id(LogPosition { term: 1, index })), membership)
    }

    #[derive(Debug, Clone)]
    enum Event {
        Entries(u8),
        Add,
        Remove(u8),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..4u8).prop_map(Event::Entries),
            Just(Event::Add),
            any::<u8>().prop_map(Event::Remove),
        ];
        proptest::collection::vec(event, 1..60)
    }

    proptest! {
        /// Whatever comes and goes: no id is given twice, and each membership, however old, tells
        /// of every id whether it had been removed by then.
        #[test]
        fn ids_never_come_again_and_any_membership_tells_who_was_removed(events in events()) {
            let mut last = 0;
            let mut now: BTreeSet<u64> = (1..=9).collect();
            let mut ever = now.clone();
            let mut history = vec![(0, now.clone(), ever.clone())];
            for event in events {
                match event {
                    Event::Entries(count) => last += u64::from(count),
                    Event::Add => {
                        let id = next_replica(Some(last)).0;
                        // Others may have been appended between the decision and the entry.
                        last += 1 + id % 3;
                        prop_assert!(ever.insert(id), "id {id} was given twice");
                        now.insert(id);
                        history.push((last, now.clone(), ever.clone()));
                    }
                    Event::Remove(which) if now.len() > 1 => {
                        let id = *now.iter().nth(usize::from(which) % now.len()).unwrap();
                        last += 1;
                        now.remove(&id);
                        history.push((last, now.clone(), ever.clone()));
                    }
                    Event::Remove(_) => {}
                }
            }
            for (index, members, known) in &history {
                let committed = committed(*index, members);
                for id in &ever {
                    let expected = if members.contains(id) {
                        Standing::Member
                    } else if known.contains(id) {
                        Standing::Removed
                    } else {
                        Standing::Unknown
                    };
                    prop_assert_eq!(standing(&committed, ReplicaId(*id)), expected);
                }
            }
        }
    }

    #[test]
    fn nothing_is_known_before_there_is_a_membership() {
        let none = StoredMembership::default();
        for id in [1, FIRST_GIVEN, u64::MAX] {
            assert_eq!(standing(&none, ReplicaId(id)), Standing::Unknown);
        }
    }
}
