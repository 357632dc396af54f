//! Whether a group may go on from a replica: pure, from what the nodes that are left tell.
//!
//! Each replica acts by the last membership in its log, whether that is committed or not, and so may know of another one than
//! the rest. A group has a majority if any replica that is left would be elected by its own; who may be a member by what any
//! of them knows must be heard.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{NodeId, ReplicaId};
use rossby_domain::placement::Successor;
use rossby_storage::LogPosition;

/// What a replica that is left tells of its group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Voice {
    /// The replica.
    pub replica: ReplicaId,
    /// Its last entry.
    pub last: Option<LogPosition>,
    /// The sets of voters of each of which a majority must agree, by the last membership in its log.
    pub electorates: Vec<BTreeSet<ReplicaId>>,
    /// All who may be members, with a vote or without: by that membership, and by the one before if it may be that one
    /// which is committed.
    pub members: BTreeMap<ReplicaId, NodeId>,
}

impl Voice {
    fn voters(&self) -> impl Iterator<Item = &ReplicaId> {
        self.electorates.iter().flatten()
    }

    /// Whether these replicas are a majority, as it sees it.
    fn is_majority(&self, votes: impl Fn(&ReplicaId) -> bool) -> bool {
        let agrees = |voters: &BTreeSet<ReplicaId>| {
            let votes = voters.iter().filter(|replica| votes(replica)).count();
            votes > voters.len() / 2
        };
        !self.electorates.is_empty() && self.electorates.iter().all(agrees)
    }

    /// Whether it would be elected by these: nobody votes for one whose log ends before the own.
    fn is_elected(&self, by: &BTreeMap<NodeId, &Voice>) -> bool {
        let votes = |replica: &ReplicaId| {
            let mut voters = by.values();
            voters.any(|voter| voter.replica == *replica && voter.last <= self.last)
        };
        self.voters().any(|voter| *voter == self.replica) && self.is_majority(votes)
    }
}

/// What may be done with a group on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The nodes that are not lost are a majority: it needs nothing but them. If it takes some of whom nothing is
    /// known: these.
    HasQuorum(BTreeSet<NodeId>),
    /// As far as the replica here knows, it is no member.
    NoMember,
    /// It was recovered before, and the replica here is void.
    Recovered(Successor),
    /// The replica of this other node reaches further.
    Elsewhere(NodeId),
    /// It is not known what these have, which are not said to be lost.
    Unheard(BTreeSet<NodeId>),
    /// It can go on from the replica here.
    Recoverable,
}

/// Judges a group on node `own`, by what the replicas that are left tell, `own`'s among them. `gone` are the nodes that
/// are lost, or are left and have nothing of the group; `strangers` are others that may be members without any of them
/// having heard of it. The furthest log, by the term of its last entry and then by its index, holds all that any of them
/// knows to be committed. Of several, that of the lowest node is taken.
#[must_use]
pub fn judge(
    own: NodeId,
    told: &BTreeMap<NodeId, Voice>,
    strangers: &BTreeSet<NodeId>,
    gone: &BTreeSet<NodeId>,
) -> Verdict {
    let Some(voice) = told.get(&own) else {
        return Verdict::NoMember;
    };
    if !voice.members.contains_key(&voice.replica) {
        return Verdict::NoMember;
    }
    let heard: BTreeMap<NodeId, &Voice> = told
        .iter()
        .filter(|(node, _)| !gone.contains(node))
        .map(|(node, voice)| (*node, voice))
        .collect();
    if heard.values().any(|voice| voice.is_elected(&heard)) {
        return Verdict::HasQuorum(BTreeSet::new());
    }
    let is_unheard = |node: &&NodeId| !gone.contains(node) && !heard.contains_key(node);
    let voters = voice.voters().filter_map(|voter| voice.members.get(voter));
    let voters: BTreeSet<NodeId> = voters.filter(is_unheard).copied().collect();
    let may_vote = |replica: &ReplicaId| {
        let node = voice.members.get(replica);
        heard.values().any(|voice| voice.replica == *replica)
            || node.is_some_and(|node| voters.contains(node))
    };
    if !voters.is_empty() && voice.is_majority(may_vote) {
        return Verdict::HasQuorum(voters);
    }
    let furthest = heard
        .iter()
        .max_by_key(|(node, voice)| (voice.last, std::cmp::Reverse(**node)));
    if let Some((node, _)) = furthest
        && *node != own
    {
        return Verdict::Elsewhere(*node);
    }
    let members = heard.values().flat_map(|voice| voice.members.values());
    let unheard: BTreeSet<NodeId> = members
        .chain(strangers)
        .filter(is_unheard)
        .copied()
        .collect();
    if unheard.is_empty() {
        Verdict::Recoverable
    } else {
        Verdict::Unheard(unheard)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    /// A replica with the number of its node, like all others of its group, whose log ends there.
    fn voice(
        (node, term, index): (u64, u64, u64),
        electorates: &[&[u64]],
        others: &[u64],
    ) -> (NodeId, Voice) {
        let set = |voters: &&[u64]| voters.iter().copied().map(ReplicaId).collect();
        let members = electorates.iter().copied().flatten().chain(others);
        let voice = Voice {
            replica: ReplicaId(node),
            last: Some(LogPosition { term, index }),
            electorates: electorates.iter().map(set).collect(),
            members: members.map(|id| (ReplicaId(*id), NodeId(*id))).collect(),
        };
        (NodeId(node), voice)
    }

    /// Judges where all know the same members.
    fn judged(
        own: u64,
        electorates: &[&[u64]],
        others: &[u64],
        lost: &[u64],
        ends: &[(u64, u64, u64)],
    ) -> Verdict {
        let told = ends.iter().map(|end| voice(*end, electorates, others));
        judge(NodeId(own), &told.collect(), &ids(&[]), &ids(lost))
    }

    fn has_quorum(unheard: &[u64]) -> Verdict {
        Verdict::HasQuorum(ids(unheard))
    }

    #[test]
    fn strangers_make_nobody_a_member_and_stand_in_the_way_until_they_tell() {
        let (own, lost) = (NodeId(1), ids(&[2, 3]));
        let judge = |told: &[(NodeId, Voice)]| {
            judge(own, &told.iter().cloned().collect(), &ids(&[1, 5]), &lost)
        };
        let taken_out = voice((1, 1, 9), &[&[2, 3, 4]], &[]);
        assert_eq!(judge(&[taken_out]), Verdict::NoMember);
        let here = voice((1, 1, 9), &[&[1, 2, 3]], &[]);
        let alone = judge(std::slice::from_ref(&here));
        assert_eq!(alone, Verdict::Unheard(ids(&[5])));
        let there = voice((5, 2, 3), &[&[1, 2, 3]], &[5]);
        assert_eq!(judge(&[here, there]), Verdict::Elsewhere(NodeId(5)));
    }

    const THREE: &[&[u64]] = &[&[1, 2, 3]];
    const JOINT: &[&[u64]] = &[&[1, 2, 3], &[1, 4, 5]];

    #[test]
    fn a_group_that_can_go_on_by_itself_is_left_alone() {
        let alone = |lost: &[u64]| judged(1, THREE, &[], lost, &[(1, 1, 9)]);
        assert_eq!(alone(&[]), has_quorum(&[2, 3]));
        assert_eq!(alone(&[2]), has_quorum(&[3]));
        assert_eq!(alone(&[2, 3]), Verdict::Recoverable);
        // Once all are heard nothing is in doubt.
        let both = [(1, 1, 9), (3, 2, 4)];
        assert_eq!(judged(1, THREE, &[], &[2], &both), has_quorum(&[]));
        // Half-way from one set of voters to another both must have a majority.
        let one_side = judged(1, JOINT, &[], &[4, 5], &[(1, 1, 9)]);
        assert_eq!(one_side, Verdict::Unheard(ids(&[2, 3])));
        let one_each = judged(1, JOINT, &[], &[2, 4], &[(1, 1, 9)]);
        assert_eq!(one_each, has_quorum(&[3, 5]));
    }

    #[test]
    fn a_majority_by_members_that_others_never_heard_of_is_none_as_long_as_they_do_not_vote() {
        // 1 and 2 hold the change to new voters, who are lost. 3 never heard of it, and finds 1 or 2 enough.
        let lost = ids(&[4, 5, 6]);
        let change: &[&[u64]] = &[&[1, 2, 3], &[4, 5, 6]];
        let told: BTreeMap<_, _> = [
            voice((1, 2, 9), change, &[]),
            voice((2, 2, 9), change, &[]),
            voice((3, 2, 8), THREE, &[]),
        ]
        .into();
        let judge = |own| judge(NodeId(own), &told, &ids(&[]), &lost);
        assert_eq!(judge(3), Verdict::Elsewhere(NodeId(1)));
        assert_eq!(judge(1), Verdict::Recoverable);
        // If one of them alone holds it, the other two need neither it nor those that are lost.
        let mut told = told.clone();
        told.extend([voice((2, 2, 8), THREE, &[])]);
        for own in [1, 2, 3] {
            let judged = super::judge(NodeId(own), &told, &ids(&[]), &lost);
            assert_eq!(judged, has_quorum(&[]));
        }
    }

    #[test]
    fn a_group_that_goes_on_by_members_of_whom_only_others_tell_is_not_recovered() {
        // 1 is on its way out, and its log ends last. 4 and 5 have heard that they are enough with it.
        let told: BTreeMap<_, _> = [
            voice((1, 2, 9), JOINT, &[]),
            voice((4, 2, 8), &[&[1, 4, 5]], &[]),
            voice((5, 2, 8), &[&[1, 4, 5]], &[]),
        ]
        .into();
        let lost = ids(&[2, 3]);
        let judge = |told: &BTreeMap<_, _>| judge(NodeId(1), told, &ids(&[]), &lost);
        assert_eq!(judge(&told), has_quorum(&[]));
        // Members of which a report tells must be heard too.
        let some: BTreeMap<_, _> = [
            voice((1, 2, 9), THREE, &[]),
            voice((4, 2, 8), &[&[4, 5, 6]], &[]),
        ]
        .into();
        assert_eq!(judge(&some), Verdict::Unheard(ids(&[5, 6])));
    }

    #[test]
    fn a_node_whose_disk_was_lost_does_not_vote_for_the_replica_that_it_had() {
        // Node 2 has come back as replica 7, and both are voters on the way.
        let mut told = BTreeMap::from([
            voice((1, 1, 9), &[&[1, 2, 3], &[1, 7, 3]], &[]),
            voice((2, 1, 9), &[&[1, 2, 3], &[1, 7, 3]], &[]),
        ]);
        for voice in told.values_mut() {
            voice.members.insert(ReplicaId(7), NodeId(2));
        }
        told.entry(NodeId(2))
            .and_modify(|voice| voice.replica = ReplicaId(7));
        let judged = judge(NodeId(1), &told, &ids(&[]), &ids(&[3]));
        assert_eq!(judged, Verdict::Recoverable);
        // The replica that it had is no member any more, wherever it turns up.
        let old = voice((2, 1, 9), &[&[1, 7, 3]], &[]);
        let judged = judge(NodeId(2), &[old].into(), &ids(&[]), &ids(&[1, 3]));
        assert_eq!(judged, Verdict::NoMember);
    }

    #[test]
    fn who_was_taken_out_by_a_change_that_may_not_be_committed_may_be_a_member() {
        let lost = ids(&[2, 3, 4]);
        let told = voice((1, 1, 9), &[&[2, 3, 4]], &[1]);
        let judged = judge(NodeId(1), &[told].into(), &ids(&[]), &lost);
        assert_eq!(judged, Verdict::Recoverable);
    }

    #[test]
    fn a_later_term_reaches_further_than_any_number_of_entries() {
        let five: &[&[u64]] = &[&[1, 2, 3, 4, 5]];
        let of = |own, ends: &[_]| judged(own, five, &[], &[3, 4, 5], ends);
        let ends = [(1, 3, 1000), (2, 4, 20)];
        assert_eq!(of(1, &ends), Verdict::Elsewhere(NodeId(2)));
        assert_eq!(of(2, &ends), Verdict::Recoverable);
        // A tie has one winner, whoever asks.
        let ends = [(1, 4, 20), (2, 4, 20)];
        assert_eq!(of(1, &ends), Verdict::Recoverable);
        assert_eq!(of(2, &ends), Verdict::Elsewhere(NodeId(1)));
    }

    #[test]
    fn who_is_neither_lost_nor_heard_stands_in_the_way_copies_without_a_vote_too() {
        let verdict = judged(1, THREE, &[7], &[2, 3], &[(1, 1, 9)]);
        assert_eq!(verdict, Verdict::Unheard(ids(&[7])));
        // A copy without a vote may be all that is left.
        let copy = judged(7, THREE, &[7], &[1, 2, 3], &[(7, 1, 4)]);
        assert_eq!(copy, Verdict::Recoverable);
        let stranger = judged(9, THREE, &[7], &[1, 2, 3], &[(9, 1, 4)]);
        assert_eq!(stranger, Verdict::NoMember);
    }

    /// Whether a replica gets the votes that it needs, asked for one by one.
    fn wins(candidate: &Voice, left: &BTreeMap<NodeId, Voice>) -> bool {
        let mut votes = BTreeSet::new();
        for voter in left.values() {
            if candidate.last >= voter.last {
                votes.insert(voter.replica);
            }
        }
        let mut sets = candidate.electorates.iter();
        sets.all(|set| set.intersection(&votes).count() * 2 > set.len())
            && candidate.voters().any(|voter| *voter == candidate.replica)
    }

    proptest! {
        /// Whatever each knows of the members, and whoever is asked: one node at most may recover a group, none if anybody
        /// would be elected, and none that lacks an entry which another has.
        #[test]
        fn one_node_recovers_where_nobody_is_elected_and_it_reaches_furthest(
            ends in proptest::collection::vec((1..4_u64, 1..6_u64, 0..4_usize), 5),
            lost in proptest::collection::btree_set(1..6_u64, 0..6),
        ) {
            let all: [&[&[u64]]; 4] = [THREE, JOINT, &[&[1, 4, 5]], &[&[1, 2, 3, 4, 5]]];
            let voices = (1..).zip(&ends).map(|(node, (term, index, known))| {
                voice((node, *term, *index), all[*known], &[1, 2, 3, 4, 5])
            });
            let lost: BTreeSet<NodeId> = lost.into_iter().map(NodeId).collect();
            let mut left: BTreeMap<_, _> = voices.collect();
            let told = left.clone();
            left.retain(|node, _| !lost.contains(node));
            let goes_on = left.values().any(|candidate| wins(candidate, &left));
            let mut recovers = Vec::new();
            for own in left.keys() {
                // What is told of those that were lost meanwhile counts for nothing.
                match judge(*own, &told, &BTreeSet::new(), &lost) {
                    Verdict::Recoverable => recovers.push(*own),
                    Verdict::HasQuorum(unheard) => prop_assert!(goes_on && unheard.is_empty()),
                    Verdict::Elsewhere(other) => prop_assert!(left[&other].last >= left[own].last),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(recovers.len(), usize::from(!goes_on && !left.is_empty()));
            if let Some(own) = recovers.first() {
                prop_assert!(left.values().all(|voice| voice.last <= left[own].last));
            }
        }
    }
}
