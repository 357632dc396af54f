//! The planner's single decisions.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::NodeId;
use rossby_domain::placement::{
    Change, ClusterMap, Health, Membership, PLACEMENT_GROUP, Patience, Report, Step, SurvivalGoal,
    plan,
};

use super::{FIRST, draining, founded, ids};

const LONG_MS: u64 = 24 * 3_600_000;
const UP: Health = Health::Up { for_ms: LONG_MS };
const DEAD: Health = Health::Down { for_ms: LONG_MS };

fn report(leader: u64, voters: &[u64]) -> Report {
    Report {
        membership: Membership {
            leader: Some(NodeId(leader)),
            voters: ids(voters),
            ..Membership::default()
        },
        caught_up: ids(voters),
        leads_for_ms: LONG_MS,
        busy: false,
    }
}

/// All nodes of a map are up but for these.
fn health(map: &ClusterMap, but: &[(u64, Health)]) -> BTreeMap<NodeId, Health> {
    let mut health: BTreeMap<_, _> = map.nodes().keys().map(|node| (*node, UP)).collect();
    health.extend(but.iter().map(|(node, how)| (NodeId(*node), *how)));
    health
}

/// The first group's step.
fn next(map: &ClusterMap, report: &Report, but: &[(u64, Health)]) -> Option<Step> {
    let reports = [(FIRST, report.clone())].into();
    let steps = plan(map, &reports, &health(map, but), &Patience::default());
    steps.get(&FIRST).cloned()
}

fn replace(old: u64, new: u64) -> Option<Step> {
    let (old, new) = (NodeId(old), NodeId(new));
    Some(Step::Replace { old, new })
}

fn lead(to: u64) -> Option<Step> {
    Some(Step::TransferLeader { to: NodeId(to) })
}

fn add(nodes: &[u64]) -> Option<Step> {
    Some(Step::Add { nodes: ids(nodes) })
}

fn remove(nodes: &[u64]) -> Option<Step> {
    Some(Step::Remove { nodes: ids(nodes) })
}

fn drain(map: &ClusterMap, node: u64) -> ClusterMap {
    let entry = draining(map.nodes()[&NodeId(node)].clone());
    let node = NodeId(node);
    map.after(&Change::PutNode { node, entry }).unwrap()
}

#[test]
fn a_dead_node_is_replaced_in_its_region_and_only_after_the_grace_period() {
    let map = founded("aabbccc", SurvivalGoal::Region);
    let map = drain(&map, 2);
    // One voter a region; regions b and c have a second node.
    let group = report(1, &[1, 3, 5]);
    let grace = Patience::default().dead_after_ms;
    assert_eq!(next(&map, &group, &[]), None);
    let short = Health::Down { for_ms: grace - 1 };
    assert_eq!(next(&map, &group, &[(3, short)]), None);
    let long = Health::Down { for_ms: grace };
    assert_eq!(next(&map, &group, &[(3, long)]), replace(3, 4));
    // Whoever comes must be up.
    let just_down = Health::Down { for_ms: 1 };
    assert_eq!(
        next(&map, &group, &[(5, long), (6, just_down)]),
        replace(5, 7)
    );
    assert_eq!(next(&map, &group, &[(3, long), (4, just_down)]), None);
    // Of the others two must be up.
    assert_eq!(next(&map, &group, &[(3, long), (5, long)]), None);
}

#[test]
fn a_node_that_nothing_is_known_of_is_neither_chosen_nor_replaced() {
    let map = founded("aaab", SurvivalGoal::Node);
    let group = report(1, &[1, 2]);
    let mut health = health(&map, &[]);
    assert_eq!(next(&map, &group, &[]), add(&[3]));
    health.remove(&NodeId(3));
    health.remove(&NodeId(4));
    let reports = [(FIRST, group)].into();
    let steps = plan(&map, &reports, &health, &Patience::default());
    assert_eq!(steps.get(&FIRST), None);
}

#[test]
fn with_one_node_in_each_of_three_regions_nobody_is_replaced() {
    let map = founded("abc", SurvivalGoal::Region);
    for dead in 1..=3 {
        let leader = if dead == 1 { 2 } else { 1 };
        assert_eq!(
            next(&map, &report(leader, &[1, 2, 3]), &[(dead, DEAD)]),
            None
        );
    }
    // Where there is a fourth region, it takes the dead one's place.
    let map = founded("abcd", SurvivalGoal::Region);
    assert_eq!(
        next(&map, &report(1, &[1, 2, 3]), &[(3, DEAD)]),
        replace(3, 4)
    );
}

#[test]
fn nothing_is_done_while_something_is_under_way() {
    let map = founded("aabbccc", SurvivalGoal::Region);
    let dead = [(3, DEAD)];
    let group = report(1, &[1, 3, 5]);
    assert!(next(&map, &group, &dead).is_some());
    let busy = Report {
        busy: true,
        ..group.clone()
    };
    assert_eq!(next(&map, &busy, &dead), None);
    let mut joint = group.clone();
    joint.membership.coming = Some(ids(&[1, 4, 5]));
    assert_eq!(next(&map, &joint, &dead), None);
    let mut headless = group;
    headless.membership.leader = None;
    assert_eq!(next(&map, &headless, &dead), None);
}

#[test]
fn a_leader_goes_home_when_home_is_ready() {
    let map = founded("abc", SurvivalGoal::Region);
    let away = report(2, &[1, 2, 3]);
    assert_eq!(next(&map, &away, &[]), lead(1));
    assert_eq!(next(&map, &report(1, &[1, 2, 3]), &[]), None);
    let patience = Patience::default();
    let fresh = Health::Up {
        for_ms: patience.stable_ms - 1,
    };
    assert_eq!(next(&map, &away, &[(1, fresh)]), None);
    let stable = Health::Up {
        for_ms: patience.stable_ms,
    };
    assert_eq!(next(&map, &away, &[(1, stable)]), lead(1));
    let behind = Report {
        caught_up: ids(&[2, 3]),
        ..away.clone()
    };
    assert_eq!(next(&map, &behind, &[]), None);
    let hot = Report {
        leads_for_ms: patience.cool_down_ms - 1,
        ..away.clone()
    };
    assert_eq!(next(&map, &hot, &[]), None);
    // The placement group is at home everywhere.
    let reports = [(PLACEMENT_GROUP, away)].into();
    let steps = plan(&map, &reports, &health(&map, &[]), &patience);
    assert!(steps.is_empty());
}

#[test]
fn a_leader_that_leaves_hands_over_first() {
    let map = drain(&founded("aaaa", SurvivalGoal::Node), 1);
    let group = report(1, &[1, 2, 3]);
    assert_eq!(next(&map, &group, &[]), lead(2));
    assert_eq!(next(&map, &report(2, &[1, 2, 3]), &[]), replace(1, 4));
    // To one that can lead.
    let behind = Report {
        caught_up: ids(&[1, 3]),
        ..group
    };
    assert_eq!(next(&map, &behind, &[]), lead(3));
}

#[test]
fn the_only_voter_gets_company_before_it_leaves() {
    let map = drain(&founded("aab", SurvivalGoal::Node), 1);
    assert_eq!(next(&map, &report(1, &[1]), &[]), add(&[2]));
    assert_eq!(next(&map, &report(1, &[1, 2]), &[]), lead(2));
    assert_eq!(next(&map, &report(2, &[1, 2]), &[]), remove(&[1]));
}

#[test]
fn voters_come_and_go_by_two_where_an_even_number_would_break_the_goal() {
    let map = founded("aabbc", SurvivalGoal::Region);
    assert_eq!(next(&map, &report(1, &[1, 3, 5]), &[]), add(&[2, 4]));
    // Four can't grow by two, and one more is enough.
    assert_eq!(next(&map, &report(1, &[1, 3, 4, 5]), &[]), add(&[2]));
    let map = drain(&map, 2);
    assert_eq!(
        next(&map, &report(1, &[1, 2, 3, 4, 5]), &[]),
        remove(&[2, 4])
    );
    // Nor is there a need for an even number at home.
    let map = drain(&drain(&founded("aaaaa", SurvivalGoal::Node), 4), 5);
    let five = report(1, &[1, 2, 3, 4, 5]);
    assert_eq!(next(&map, &five, &[]), remove(&[4, 5]));
}

#[test]
fn a_goal_that_holds_is_not_broken_to_drain_a_node() {
    let map = drain(&founded("aaa", SurvivalGoal::Node), 3);
    assert_eq!(next(&map, &report(1, &[1, 2, 3]), &[]), None);
    // Nor to stay at home with a single node.
    let map = founded("abc", SurvivalGoal::Node);
    assert_eq!(next(&map, &report(1, &[1, 2, 3]), &[]), None);
}

#[test]
fn a_learner_goes_on_where_it_was_and_an_abandoned_one_goes() {
    let map = founded("aabbbcc", SurvivalGoal::Region);
    let map = drain(&map, 2);
    let dead = [(3, DEAD)];
    let mut group = report(1, &[1, 3, 6]);
    assert_eq!(next(&map, &group, &dead), replace(3, 4));
    group.membership.learners = ids(&[5]);
    assert_eq!(next(&map, &group, &dead), replace(3, 5));
    // The node is back: nobody needs the learner.
    assert_eq!(next(&map, &group, &[]), remove(&[5]));
    // A learner that is down for a moment is waited for.
    let moment = Health::Down { for_ms: 1 };
    assert_eq!(next(&map, &group, &[(3, DEAD), (5, moment)]), None);
    assert_eq!(next(&map, &group, &[(3, DEAD), (5, DEAD)]), remove(&[5]));
}

#[test]
fn two_groups_do_not_choose_the_same_node_if_another_is_as_good() {
    let map = founded("aabbbcc", SurvivalGoal::Region);
    let map = drain(&map, 2);
    let map = drain(&map, 7);
    let group = report(1, &[1, 3, 6]);
    let reports = [(FIRST, group.clone()), (PLACEMENT_GROUP, group)].into();
    let steps = plan(
        &map,
        &reports,
        &health(&map, &[(3, DEAD)]),
        &Patience::default(),
    );
    let chosen: BTreeSet<_> = steps.values().cloned().collect();
    let both = [replace(3, 4), replace(3, 5)]
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(chosen, both);
}

#[test]
fn with_the_goal_node_two_other_regions_keep_a_copy_without_a_vote() {
    let copy = |node: u64| {
        let node = NodeId(node);
        Some(Step::AddLearner { node })
    };
    let map = founded("aaabbccd", SurvivalGoal::Node);
    let mut group = report(1, &[1, 2, 3]);
    assert_eq!(next(&map, &group, &[]), copy(4));
    group.membership.learners = ids(&[4]);
    // It was added and does not follow yet; and meanwhile another region gets one.
    assert_eq!(next(&map, &group, &[]), copy(6));
    assert_eq!(next(&map, &group, &[(6, DEAD)]), copy(7));
    group.membership.learners = ids(&[4, 6]);
    assert_eq!(next(&map, &group, &[]), copy(4));
    group.caught_up = ids(&[1, 2, 3, 4, 6]);
    assert_eq!(next(&map, &group, &[]), None);
    // One that is down is waited for, and taken out when another can have its place.
    let moment = Health::Down { for_ms: 1 };
    assert_eq!(next(&map, &group, &[(4, moment)]), None);
    assert_eq!(next(&map, &group, &[(4, DEAD)]), remove(&[4]));
    assert_eq!(next(&drain(&map, 6), &group, &[]), remove(&[6]));
    // Voters come and go beside them.
    group.membership.voters = ids(&[1, 2]);
    assert_eq!(next(&map, &group, &[]), add(&[3]));
    // Where they are to vote, one after the other, they are the first to do so.
    let map = map.after(&Change::SetGoal(SurvivalGoal::Region)).unwrap();
    group.membership.voters = ids(&[1, 2, 3]);
    assert_eq!(next(&map, &group, &[]), remove(&[6]));
    group.membership.learners = ids(&[4]);
    assert_eq!(next(&map, &group, &[]), replace(3, 4));
}

#[test]
fn a_region_with_voters_needs_no_copy_beside_them() {
    let map = founded("abc", SurvivalGoal::Node);
    assert_eq!(next(&map, &report(1, &[1, 2, 3]), &[]), None);
    let map = founded("abcd", SurvivalGoal::Node);
    let all_away = report(1, &[1, 2, 3]);
    assert_eq!(next(&map, &all_away, &[]), None);
}
