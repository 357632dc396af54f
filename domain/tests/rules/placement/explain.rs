//! What survives a loss, in numbers and in words.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{
    ClusterMap, Consequence, Explanation, Lost, Membership, PLACEMENT_GROUP, SurvivalGoal, Writes,
    explain,
};

use super::{FIRST, founded, ids, region};

fn voters(numbers: &[u64]) -> Membership {
    Membership {
        voters: ids(numbers),
        ..Membership::default()
    }
}

/// The placement group's and the data groups' voters, in order.
fn members(of_each: &[&[u64]]) -> BTreeMap<GroupId, Membership> {
    let numbered = (0..).map(GroupId).zip(of_each.iter().copied());
    numbered
        .map(|(group, nodes)| (group, voters(nodes)))
        .collect()
}

fn words(of: &[Consequence]) -> Vec<&str> {
    of.iter().map(|one| one.sentence.as_str()).collect()
}

#[test]
fn three_regions_of_one_node_each_survive_any_region() {
    let map = founded("abc", SurvivalGoal::Region);
    let members = members(&[&[1, 2, 3][..]; 4]);
    let told = explain(&map, &members, &ids(&[]));
    assert_eq!(told.holds, Some(true));
    assert_eq!(told.now.sentence, "now: 0 partitions unavailable");
    assert_eq!(
        words(&told.regions),
        [
            "if region-a is lost now: 0 partitions unavailable, 0 acknowledged envelopes lost",
            "if region-b is lost now: 0 partitions unavailable, 0 acknowledged envelopes lost",
            "if region-c is lost now: 0 partitions unavailable, 0 acknowledged envelopes lost",
        ]
    );
    // With one down, any other loss takes the quorum, and still loses nothing.
    let told = explain(&map, &members, &ids(&[2]));
    assert_eq!(told.holds, Some(false));
    assert_eq!(told.now.sentence, "now: 0 partitions unavailable");
    assert_eq!(
        words(&told.nodes),
        [
            "if node 1 is lost now: 224 partitions unavailable, 0 acknowledged envelopes lost; \
             the cluster map can't be changed",
            "if node 2 is lost now: 0 partitions unavailable, 0 acknowledged envelopes lost",
            "if node 3 is lost now: 224 partitions unavailable, 0 acknowledged envelopes lost; \
             the cluster map can't be changed",
        ]
    );
    // With two, nothing can be done, and nothing more becomes unavailable.
    let told = explain(&map, &members, &ids(&[2, 3]));
    assert_eq!(
        told.now.sentence,
        "now: 224 partitions unavailable; the cluster map can't be changed"
    );
    assert_eq!(
        told.regions[0].sentence,
        "if region-a is lost now: 224 partitions unavailable (224 of them already), 0 acknowledged \
         envelopes lost; the cluster map can't be changed"
    );
}

#[test]
fn groups_at_home_in_one_region_go_with_it() {
    let map = founded("aaabbb", SurvivalGoal::Node);
    let members = members(&[&[1, 2, 4], &[1, 2, 3], &[4, 5, 6]]);
    let told = explain(&map, &members, &ids(&[]));
    // The goal is about nodes.
    assert_eq!(told.holds, Some(true));
    assert_eq!(
        words(&told.regions),
        [
            "if region-a is lost now: 112 partitions unavailable, acknowledged envelopes of 112 \
             partitions lost, not only the newest; the cluster map can't be changed, and its last \
             changes may be lost",
            "if region-b is lost now: 112 partitions unavailable, acknowledged envelopes of 112 \
             partitions lost, not only the newest",
        ]
    );
    let harm = &told.regions[0].groups[&FIRST];
    assert_eq!((harm.partitions, harm.unavailable), (112, true));
    assert_eq!(harm.writes, Writes::AllLost);
    let placement = &told.regions[0].groups[&PLACEMENT_GROUP];
    assert_eq!(placement.writes, Writes::NewestAtRisk);
}

#[test]
fn a_learner_elsewhere_keeps_all_but_the_newest() {
    let map = founded("aab", SurvivalGoal::Node);
    let mut members = members(&[&[1, 2, 3], &[1, 2], &[3]]);
    members.get_mut(&FIRST).unwrap().learners = ids(&[3]);
    let told = explain(&map, &members, &ids(&[]));
    assert_eq!(
        told.regions[0].sentence,
        "if region-a is lost now: 112 partitions unavailable, the newest acknowledged envelopes of \
         112 partitions may be lost; the cluster map can't be changed, and its last changes may be lost"
    );
    assert_eq!(told.regions[0].groups[&FIRST].writes, Writes::NewestAtRisk);
}

#[test]
fn while_a_change_of_voters_is_half_way_both_majorities_count() {
    let map = founded("aabc", SurvivalGoal::Region);
    let mut members = members(&[&[1, 3, 4][..]; 4]);
    let half_way = members.get_mut(&FIRST).unwrap();
    half_way.coming = Some(ids(&[1, 2, 4]));
    let told = explain(&map, &members, &ids(&[]));
    // Of the old voters region a has one, of the new ones two.
    let harm = &told.regions[0].groups[&FIRST];
    assert!(harm.unavailable);
    assert_eq!(harm.writes, Writes::NewestAtRisk);
    assert_eq!(told.holds, Some(false));
    assert!(told.regions[1].groups.is_empty());
}

#[test]
fn what_is_not_known_is_said() {
    let map = founded("abc", SurvivalGoal::Region);
    let mut members = members(&[&[1, 2, 3][..]; 4]);
    members.remove(&GroupId(3));
    let told = explain(&map, &members, &ids(&[]));
    assert_eq!(told.holds, None);
    assert_eq!(
        told.now.sentence,
        "now: 0 partitions unavailable; nothing is known of 74 partitions"
    );
    members.remove(&PLACEMENT_GROUP);
    let told = explain(&map, &members, &ids(&[]));
    assert_eq!(
        told.regions[2].sentence,
        "if region-c is lost now: 0 partitions unavailable, 0 acknowledged envelopes lost; nothing is \
         known of 74 partitions and of the placement group"
    );
}

/// What can be said by trying: whether a group goes on without some nodes, and whether a write that some
/// majority has is on any node that is left.
fn try_out(
    voters: &BTreeSet<NodeId>,
    gone: &BTreeSet<NodeId>,
    down: &BTreeSet<NodeId>,
) -> (bool, bool) {
    let voters: Vec<NodeId> = voters.iter().copied().collect();
    let sets = (0..1_u32 << voters.len()).map(|bits| {
        let member = |i: &usize| bits >> i & 1 == 1;
        (0..voters.len())
            .filter(member)
            .map(|i| voters[i])
            .collect::<BTreeSet<_>>()
    });
    let quorums: Vec<_> = sets.filter(|set| set.len() * 2 > voters.len()).collect();
    let is_left = |node: &NodeId| !gone.contains(node);
    let goes_on = quorums.iter().any(|quorum| {
        quorum
            .iter()
            .all(|node| is_left(node) && !down.contains(node))
    });
    let loses = quorums.iter().any(|quorum| !quorum.iter().any(is_left));
    (goes_on, loses)
}

fn check(map: &ClusterMap, members: &BTreeMap<GroupId, Membership>, down: &BTreeSet<NodeId>) {
    let Explanation {
        now,
        regions,
        nodes,
        ..
    } = explain(map, members, down);
    for one in [vec![now], regions, nodes].concat() {
        let gone = map.nodes().iter().filter(|(node, entry)| match &one.lost {
            Lost::Nothing => false,
            Lost::Region(region) => entry.region == *region,
            Lost::Node(lost) => *node == lost,
        });
        let gone: BTreeSet<NodeId> = gone.map(|(node, _)| *node).collect();
        let (mut unavailable, mut at_risk) = (0, 0);
        for (group, membership) in members {
            let partitions = map.partitions_of(*group).count() as u32;
            let (goes_on, loses) = try_out(&membership.voters, &gone, down);
            unavailable += if goes_on { 0 } else { partitions };
            at_risk += if loses { partitions } else { 0 };
            assert_eq!(one.groups.contains_key(group), !goes_on || loses, "{one:?}");
        }
        assert_eq!(one.partitions_unavailable, unavailable, "{one:?}");
        assert_eq!(one.partitions_at_risk, at_risk, "{one:?}");
    }
}

proptest! {
    #[test]
    fn the_numbers_are_those_of_trying_every_quorum(
        placed in proptest::collection::vec(proptest::collection::btree_set(1..=7_u64, 1..6), 5),
        down in proptest::collection::btree_set(1..=7_u64, 0..4),
    ) {
        let map = founded("aabbccd", SurvivalGoal::Region);
        let placed: Vec<Vec<u64>> = placed.into_iter().map(|set| set.into_iter().collect()).collect();
        let placed: Vec<&[u64]> = placed.iter().map(Vec::as_slice).collect();
        check(&map, &members(&placed), &down.into_iter().map(NodeId).collect());
    }
}

#[test]
fn a_region_without_voters_is_missed_by_nobody() {
    let map = founded("abcd", SurvivalGoal::Region);
    let members = members(&[&[1, 2, 3][..]; 5]);
    let told = explain(&map, &members, &ids(&[]));
    let last = told.regions.last().unwrap();
    assert_eq!(last.lost, Lost::Region(region('d')));
    assert!(last.groups.is_empty());
}
