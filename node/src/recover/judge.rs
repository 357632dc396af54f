//! Whether a group may go on from a replica: pure, from what the nodes that are left tell.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::NodeId;
use rossby_storage::LogPosition;

/// What is known of a group's members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// The nodes of the sets of voters of each of which a majority must agree, one for each voter.
    pub electorates: Vec<Vec<NodeId>>,
    /// The nodes of all members, with a vote or without.
    pub all: BTreeSet<NodeId>,
}

impl Members {
    /// Takes other nodes for members too, who may have become that without `own` having heard of it. Whether `own`
    /// is one, it knows.
    pub fn hear<'a>(&mut self, own: NodeId, others: impl Iterator<Item = &'a NodeId>) {
        self.all.extend(others.filter(|node| **node != own));
    }

    /// Whether enough voters are left without these nodes.
    pub fn have_quorum_without(&self, lost: &BTreeSet<NodeId>) -> bool {
        let has_majority = |voters: &Vec<NodeId>| {
            let left = voters.iter().filter(|node| !lost.contains(node)).count();
            left > voters.len() / 2
        };
        !self.electorates.is_empty() && self.electorates.iter().all(has_majority)
    }
}

/// What may be done with a group on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The nodes that are not lost are a majority: it needs nothing but them.
    HasQuorum,
    /// As far as the replica here knows, it is no member.
    NoMember,
    /// The replica of this other node reaches further.
    Elsewhere(NodeId),
    /// It is not known what these have, which are not said to be lost.
    Unheard(BTreeSet<NodeId>),
    /// It can go on from the replica here.
    Recoverable,
}

/// Judges a group by its members as node `own` knows them, the nodes that are `lost`, and how far the log of each
/// replica that is left reaches. The furthest log, by the term of its last entry and then by its index, holds all that any
/// of them knows to be committed. Of several, that of the lowest node is taken.
#[must_use]
pub fn judge(
    own: NodeId,
    members: &Members,
    lost: &BTreeSet<NodeId>,
    reach: &BTreeMap<NodeId, Option<LogPosition>>,
) -> Verdict {
    if !members.all.contains(&own) {
        return Verdict::NoMember;
    }
    if members.have_quorum_without(lost) {
        return Verdict::HasQuorum;
    }
    let left = reach.iter().filter(|(node, _)| !lost.contains(node));
    let furthest = left.max_by_key(|(node, last)| (**last, std::cmp::Reverse(**node)));
    if let Some((node, _)) = furthest
        && *node != own
    {
        return Verdict::Elsewhere(*node);
    }
    let unheard = members.all.difference(lost);
    let unheard: BTreeSet<NodeId> = unheard
        .filter(|node| **node != own && !reach.contains_key(node))
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

    fn members(electorates: &[&[u64]], learners: &[u64]) -> Members {
        let sets = electorates
            .iter()
            .map(|voters| voters.iter().copied().map(NodeId).collect::<Vec<_>>());
        let electorates: Vec<_> = sets.collect();
        let mut all = ids(learners);
        all.extend(electorates.iter().flatten());
        Members { electorates, all }
    }

    fn reach(ends: &[(u64, u64, u64)]) -> BTreeMap<NodeId, Option<LogPosition>> {
        let end = |&(node, term, index): &(u64, u64, u64)| {
            (NodeId(node), Some(LogPosition { term, index }))
        };
        ends.iter().map(end).collect()
    }

    #[test]
    fn others_that_are_heard_make_nobody_a_member_and_stand_in_the_way_until_they_tell() {
        let mut without = members(&[&[2, 3, 4]], &[]);
        without.hear(NodeId(1), ids(&[1, 5]).iter());
        let judged = judge(NodeId(1), &without, &ids(&[2, 3]), &reach(&[(1, 1, 9)]));
        assert_eq!(judged, Verdict::NoMember);
        let mut known = members(&[&[1, 2, 3]], &[]);
        known.hear(NodeId(1), ids(&[1, 5]).iter());
        let lost = ids(&[2, 3]);
        let silent = judge(NodeId(1), &known, &lost, &reach(&[(1, 1, 9)]));
        assert_eq!(silent, Verdict::Unheard(ids(&[5])));
        let further = judge(NodeId(1), &known, &lost, &reach(&[(1, 1, 9), (5, 2, 3)]));
        assert_eq!(further, Verdict::Elsewhere(NodeId(5)));
    }

    fn three(own: u64, lost: &[u64], ends: &[(u64, u64, u64)]) -> Verdict {
        let three = members(&[&[1, 2, 3]], &[]);
        judge(NodeId(own), &three, &ids(lost), &reach(ends))
    }

    #[test]
    fn a_group_that_can_go_on_by_itself_is_left_alone() {
        assert_eq!(three(1, &[], &[(1, 1, 9)]), Verdict::HasQuorum);
        assert_eq!(three(1, &[2], &[(1, 1, 9)]), Verdict::HasQuorum);
        assert_eq!(three(1, &[2, 3], &[(1, 1, 9)]), Verdict::Recoverable);
        // Half-way from one set of voters to another both must have a majority.
        let joint = members(&[&[1, 2, 3], &[1, 4, 5]], &[]);
        let one_side = judge(NodeId(1), &joint, &ids(&[4, 5]), &reach(&[(1, 1, 9)]));
        assert_ne!(one_side, Verdict::HasQuorum);
        let one_each = judge(NodeId(1), &joint, &ids(&[2, 4]), &reach(&[(1, 1, 9)]));
        assert_eq!(one_each, Verdict::HasQuorum);
    }

    #[test]
    fn a_later_term_reaches_further_than_any_number_of_entries() {
        let five = members(&[&[1, 2, 3, 4, 5]], &[]);
        let lost = ids(&[3, 4, 5]);
        let ends = reach(&[(1, 3, 1000), (2, 4, 20)]);
        assert_eq!(
            judge(NodeId(1), &five, &lost, &ends),
            Verdict::Elsewhere(NodeId(2))
        );
        assert_eq!(judge(NodeId(2), &five, &lost, &ends), Verdict::Recoverable);
        // A tie has one winner, whoever asks.
        let ends = reach(&[(1, 4, 20), (2, 4, 20)]);
        assert_eq!(judge(NodeId(1), &five, &lost, &ends), Verdict::Recoverable);
        assert_eq!(
            judge(NodeId(2), &five, &lost, &ends),
            Verdict::Elsewhere(NodeId(1))
        );
    }

    #[test]
    fn who_is_neither_lost_nor_heard_stands_in_the_way_copies_without_a_vote_too() {
        let group = members(&[&[1, 2, 3]], &[7]);
        let lost = ids(&[2, 3]);
        let alone = reach(&[(1, 1, 9)]);
        let verdict = judge(NodeId(1), &group, &lost, &alone);
        assert_eq!(verdict, Verdict::Unheard(ids(&[7])));
        // A copy without a vote may be all that is left.
        let all = ids(&[1, 2, 3]);
        assert_eq!(
            judge(NodeId(7), &group, &all, &reach(&[(7, 1, 4)])),
            Verdict::Recoverable
        );
        assert_eq!(
            judge(NodeId(9), &group, &all, &reach(&[(9, 1, 4)])),
            Verdict::NoMember
        );
    }

    proptest! {
        /// Whoever is asked: one node at most may recover a group, and none that lacks an entry which is committed.
        #[test]
        fn one_node_recovers_and_it_has_all_that_is_left_of_what_was_committed(
            ends in proptest::collection::vec((1..4_u64, 1..6_u64), 5),
            lost in proptest::collection::btree_set(1..6_u64, 0..6),
        ) {
            let five = members(&[&[1, 2, 3, 4, 5]], &[]);
            let lost: BTreeSet<NodeId> = lost.into_iter().map(NodeId).collect();
            let all = (1..).zip(&ends).map(|(node, (term, index))| (node, *term, *index));
            let all = reach(&all.collect::<Vec<_>>());
            let left: BTreeSet<NodeId> = five.all.difference(&lost).copied().collect();
            let known: BTreeMap<_, _> =
                all.into_iter().filter(|(node, _)| left.contains(node)).collect();
            let mut recovers = Vec::new();
            for own in &left {
                match judge(*own, &five, &lost, &known) {
                    Verdict::Recoverable => recovers.push(*own),
                    Verdict::HasQuorum => prop_assert!(left.len() >= 3),
                    Verdict::Elsewhere(other) => prop_assert!(known[&other] >= known[own]),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(recovers.len(), usize::from((1..3).contains(&left.len())));
            if let Some(own) = recovers.first() {
                prop_assert!(known.values().all(|last| *last <= known[own]));
            }
        }
    }
}
