//! Who should vote at birth.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_domain::placement::{
    Load, NodeState, Nodes, RegionName, SurvivalGoal, birth, founders, placement_voters,
};

use super::{draining, entry, ids, nodes, region};

/// Regions of nodes, a home, and how many vote in each region.
type Case = (&'static str, char, &'static [(char, usize)]);

const GOALS: [SurvivalGoal; 2] = [SurvivalGoal::Node, SurvivalGoal::Region];

fn of(letters: &str, home: char, goal: SurvivalGoal, at_home: usize) -> BTreeSet<NodeId> {
    founders(&nodes(letters), &region(home), goal, at_home, &Load::new())
}

/// How many of these are in each region.
fn spread(nodes: &Nodes, voters: &BTreeSet<NodeId>) -> BTreeMap<RegionName, usize> {
    let mut counts = BTreeMap::new();
    for voter in voters {
        *counts.entry(nodes[voter].region.clone()).or_default() += 1;
    }
    counts
}

fn counts(letters: &str, voters: &BTreeSet<NodeId>) -> Vec<(char, usize)> {
    let spread = spread(&nodes(letters), voters).into_iter();
    let letter = |region: RegionName| region.as_str().chars().last().unwrap();
    spread
        .map(|(region, count)| (letter(region), count))
        .collect()
}

#[test]
fn the_goal_region_spreads_over_three_regions_with_two_at_home_if_there_is_room() {
    let region = SurvivalGoal::Region;
    let cases: [Case; 8] = [
        ("abc", 'b', &[('a', 1), ('b', 1), ('c', 1)]),
        // Four nodes are not enough for five voters, nor is one at home for two there.
        ("aabc", 'a', &[('a', 1), ('b', 1), ('c', 1)]),
        ("abbcc", 'a', &[('a', 1), ('b', 1), ('c', 1)]),
        // A third node at home would make a majority there.
        ("aaabc", 'a', &[('a', 1), ('b', 1), ('c', 1)]),
        ("aabbc", 'a', &[('a', 2), ('b', 2), ('c', 1)]),
        ("aaabbbccc", 'c', &[('a', 2), ('b', 1), ('c', 2)]),
        ("aabcd", 'a', &[('a', 2), ('b', 1), ('c', 1), ('d', 1)]),
        ("abcd", 'd', &[('a', 1), ('b', 1), ('d', 1)]),
    ];
    for (letters, home, expected) in cases {
        let voters = of(letters, home, region, 3);
        assert_eq!(counts(letters, &voters), expected, "{letters} {home}");
    }
}

#[test]
fn the_goal_node_stays_at_home_with_an_odd_number_where_that_is_safer() {
    let node = SurvivalGoal::Node;
    assert_eq!(of("abbbbb", 'b', node, 3), ids(&[2, 3, 4]));
    assert_eq!(of("abbbbb", 'b', node, 5), ids(&[2, 3, 4, 5, 6]));
    assert_eq!(of("abbbb", 'b', node, 5), ids(&[2, 3, 4]));
    // Two: then what is acknowledged is on two disks.
    assert_eq!(of("abb", 'b', node, 3), ids(&[2, 3]));
    assert_eq!(of("abb", 'a', node, 3), ids(&[1]));
}

#[test]
fn in_the_only_region_all_nodes_vote_up_to_nine() {
    for goal in GOALS {
        assert_eq!(of("aaaa", 'a', goal, 3).len(), 4);
        assert_eq!(of(&"a".repeat(12), 'a', goal, 3).len(), 9);
    }
    assert_eq!(placement_voters(&nodes("aaaa"), &Load::new()).len(), 4);
    let many = nodes(&"a".repeat(12));
    assert_eq!(placement_voters(&many, &Load::new()).len(), 9);
}

#[test]
fn the_placement_group_has_one_voter_in_each_of_three_or_five_regions() {
    let cases: [(&str, &[(char, usize)]); 8] = [
        ("aabbcc", &[('a', 1), ('b', 1), ('c', 1)]),
        ("abcd", &[('a', 1), ('b', 1), ('c', 1)]),
        ("abcde", &[('a', 1), ('b', 1), ('c', 1), ('d', 1), ('e', 1)]),
        (
            "abcdefg",
            &[('a', 1), ('b', 1), ('c', 1), ('d', 1), ('e', 1)],
        ),
        ("aabb", &[('a', 2), ('b', 1)]),
        ("abb", &[('a', 1), ('b', 2)]),
        ("abbb", &[('a', 1), ('b', 2)]),
        ("ab", &[('a', 1), ('b', 1)]),
    ];
    for (letters, expected) in cases {
        let voters = placement_voters(&nodes(letters), &Load::new());
        assert_eq!(counts(letters, &voters), expected, "{letters}");
    }
}

#[test]
fn a_cluster_is_born_with_a_group_for_each_region_and_seats_in_order() {
    let birth = birth(&nodes("cabcab"), SurvivalGoal::Region, 3);
    let homes: Vec<_> = birth.groups.values().map(|group| &group.home).collect();
    assert_eq!(homes, [&region('a'), &region('b'), &region('c')]);
    assert!(birth.groups.keys().copied().eq((1..=3).map(GroupId)));
    let all = birth.groups.values().map(|group| &group.founders);
    for founders in all.chain([&birth.placement]) {
        let numbers = (1..).map(ReplicaId).take(founders.len());
        assert!(founders.keys().copied().eq(numbers));
        assert!(founders.values().is_sorted());
    }
}

#[test]
fn nobody_is_chosen_where_nobody_is() {
    assert_eq!(of("", 'a', SurvivalGoal::Node, 3), ids(&[]));
    assert_eq!(of("", 'a', SurvivalGoal::Region, 3), ids(&[]));
    assert_eq!(placement_voters(&nodes(""), &Load::new()), ids(&[]));
}

#[test]
fn groups_of_all_homes_load_nodes_evenly() {
    for letters in ["aaabbbccc", "aabbcc", "aabbccdd", "abcd"] {
        let birth = birth(&nodes(letters), SurvivalGoal::Region, 3);
        let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
        for node in nodes(letters).keys() {
            load.insert(*node, 0);
        }
        for group in birth.groups.values() {
            for node in group.founders.values() {
                *load.get_mut(node).unwrap() += 1;
            }
        }
        let (least, most) = (load.values().min().unwrap(), load.values().max().unwrap());
        assert!(most - least <= 1, "{letters}: {load:?}");
    }
}

proptest! {
    #[test]
    fn whatever_the_nodes_no_region_holds_a_majority_and_nobody_is_draining(
        letters in "[abcde]{1,12}",
        leaving in proptest::collection::btree_set(1..12_u64, 0..6),
        goal in prop::sample::select(GOALS.to_vec()),
        at_home in 1..6_usize,
    ) {
        let mut nodes = nodes(&letters);
        for node in leaving {
            if let Some(known) = nodes.get(&NodeId(node)).cloned() {
                nodes.insert(NodeId(node), draining(known));
            }
        }
        let active: Nodes = nodes
            .iter()
            .filter(|(_, entry)| entry.state == NodeState::Active)
            .map(|(node, entry)| (*node, entry.clone()))
            .collect();
        let regions = spread(&active, &active.keys().copied().collect());
        let born = birth(&nodes, goal, at_home);
        prop_assert_eq!(born.groups.len(), regions.len());
        prop_assert_eq!(&born, &birth(&nodes, goal, at_home));
        for group in born.groups.values() {
            let voters: BTreeSet<NodeId> = group.founders.values().copied().collect();
            prop_assert!(voters.iter().all(|node| active.contains_key(node)));
            let spread = spread(&nodes, &voters);
            prop_assert!(spread.contains_key(&group.home));
            if goal == SurvivalGoal::Region && regions.len() >= 3 {
                prop_assert!([3, 5].contains(&voters.len()));
                prop_assert!(spread.values().all(|count| count * 2 < voters.len()));
                prop_assert_eq!(spread.values().max(), spread.get(&group.home));
            } else {
                prop_assert_eq!(spread.len(), 1);
                prop_assert!(regions.len() == 1 || voters.len() <= at_home);
                let there = regions[&group.home];
                prop_assert!(voters.len() >= at_home.min(there).min(2));
            }
        }
        let placement: BTreeSet<NodeId> = born.placement.values().copied().collect();
        prop_assert!(placement.iter().all(|node| active.contains_key(node)));
        let spread = spread(&active, &placement);
        if regions.len() >= 3 {
            prop_assert!([3, 5].contains(&placement.len()));
            prop_assert!(spread.values().all(|count| *count == 1));
        } else {
            prop_assert_eq!(spread.len(), regions.len());
        }
    }

    #[test]
    fn of_equals_the_one_with_the_fewest_replicas_is_chosen(busy in 1..4_u64) {
        let nodes = nodes("aaabc");
        let load: Load = (1..=3).filter(|n| *n != busy).map(|n| (NodeId(n), 1)).collect();
        let voters = founders(&nodes, &region('a'), SurvivalGoal::Region, 3, &load);
        prop_assert!(voters.contains(&NodeId(busy)));
        let mut with_new = nodes.clone();
        with_new.insert(NodeId(9), entry(9, 'b'));
        prop_assert!(placement_voters(&with_new, &load).contains(&NodeId(busy)));
    }
}
