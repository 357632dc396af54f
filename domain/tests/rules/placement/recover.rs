//! Groups whose quorum was lost for good go on from one replica.

use std::collections::BTreeMap;

use rossby_domain::command::{Admit, IssueToken};
use rossby_domain::ids::{Epoch, GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{
    AdmissionRefusal, Change, ClusterMap, Health, JoinAttempt, Joiner, Membership, PLACEMENT_GROUP,
    PLACEMENT_PARTITION, Patience, PlacementRefusal, Report, Step, Successor, SurvivalGoal,
    TokenDigest, TokenRegion, TokenWanted, plan,
};
use rossby_domain::{Command, Outcome, Rejection};

use super::place::Seat;
use super::{FIRST, entry, found, founded, ids, nodes, region};

fn successor(group: u32, replica: u64) -> Successor {
    Successor {
        group: GroupId(group),
        replica: ReplicaId(replica),
    }
}

fn recover(node: u64, lost: &[u64], groups: &[(u32, Successor)]) -> Change {
    let groups = groups
        .iter()
        .map(|(group, successor)| (GroupId(*group), *successor));
    Change::Recover {
        node: NodeId(node),
        lost: ids(lost),
        groups: groups.collect(),
    }
}

#[test]
fn all_that_a_lost_group_owned_its_successor_owns_an_epoch_later() {
    let map = founded("abc", SurvivalGoal::Region);
    let change = recover(
        2,
        &[1, 3],
        &[(0, successor(0, 5000)), (1, successor(4, 6000))],
    );
    let next = map.after(&change).unwrap();
    assert_eq!(next.check(), Ok(()));
    let owned: Vec<_> = map.partitions_of(FIRST).map(|(at, _)| at).collect();
    let inherited: Vec<_> = next.partitions_of(GroupId(4)).collect();
    assert_eq!(
        inherited,
        owned.iter().map(|at| (*at, Epoch(2))).collect::<Vec<_>>()
    );
    assert_eq!(next.partitions_of(FIRST).count(), 0);
    // What was not recovered is as it was.
    let others = |map: &ClusterMap| map.partitions_of(GroupId(2)).collect::<Vec<_>>();
    assert_eq!(others(&next), others(&map));
    // The lost nodes are gone, and with them the regions that nobody is left in.
    assert!(next.nodes().keys().eq(&[NodeId(2)]));
    assert_eq!(next.goal(), SurvivalGoal::Node);
    assert!(
        next.groups()
            .values()
            .all(|group| group.home == region('b'))
    );
    let born = &next.groups()[&GroupId(4)].founders;
    assert_eq!(*born, BTreeMap::from([(ReplicaId(6000), NodeId(2))]));
}

#[test]
fn every_old_replica_of_a_recovered_group_is_void_and_no_other() {
    let map = founded("aaa", SurvivalGoal::Node);
    let change = recover(
        1,
        &[2, 3],
        &[(0, successor(0, 5000)), (1, successor(2, 6000))],
    );
    let next = map.after(&change).unwrap();
    let is_void = |group: u32, replica: u64| {
        let found = next.supersedes(GroupId(group), ReplicaId(replica));
        found.map(|successor| successor.group.0)
    };
    assert_eq!(is_void(0, 3), Some(0));
    assert_eq!(is_void(0, 4999), Some(0));
    assert_eq!(is_void(0, 5000), None);
    assert_eq!(is_void(0, 5001), None);
    assert_eq!(is_void(1, 1), Some(2));
    assert_eq!(is_void(1, u64::MAX), Some(2));
    assert_eq!(is_void(2, 6000), None);
    assert_eq!(map.supersedes(FIRST, ReplicaId(1)), None);
}

#[test]
fn numbers_never_come_again_and_differ_for_whoever_recovers_by_the_same_map() {
    let map = founded("abc", SurvivalGoal::Region);
    let numbers = [0, 1, 2, 3].map(|group| map.number_after(GroupId(group)).0);
    assert_eq!(numbers, [0, 1027, 1028, 1029]);
    // The second is recovered by whoever has heard of the first, the third by whoever has not.
    let next = map
        .after(&recover(1, &[2], &[(1, successor(1027, 9))]))
        .unwrap();
    assert_eq!(next.number_after(GroupId(2)), GroupId(2051));
    let next = next
        .after(&recover(1, &[], &[(2, successor(2051, 9))]))
        .unwrap();
    let next = next
        .after(&recover(1, &[], &[(3, successor(1029, 9))]))
        .unwrap();
    // A successor that is lost in its turn.
    assert_eq!(next.number_after(GroupId(1027)), GroupId(3075));
    let last = next
        .after(&recover(3, &[1], &[(1027, successor(3075, 9))]))
        .unwrap();
    assert_eq!(last.check(), Ok(()));
    assert!(last.groups().keys().eq(&[1029, 2051, 3075].map(GroupId)));
    let owned = last.partitions_of(GroupId(3075)).map(|(_, epoch)| epoch);
    assert!(owned.eq(std::iter::repeat_n(Epoch(3), 75)));
}

#[test]
fn what_was_told_before_is_no_obstacle_to_what_is_told_with_it() {
    let map = founded("abc", SurvivalGoal::Region);
    let first = (1, successor(1027, 9));
    let once = map.after(&recover(1, &[2], &[first])).unwrap();
    let again = once.after(&recover(1, &[2], &[first]));
    assert_eq!(again.unwrap_err(), PlacementRefusal::Unchanged);
    let both = recover(1, &[2], &[first, (2, successor(1028, 9))]);
    let both = once.after(&both).unwrap();
    assert_eq!(both.check(), Ok(()));
    assert!(both.groups().keys().eq(&[3, 1027, 1028].map(GroupId)));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let map = founded("aaa", SurvivalGoal::Node);
    let refused = |change: &Change| map.after(change).unwrap_err();
    let not = |group| PlacementRefusal::NotRecoverable(GroupId(group));
    let first = (1, successor(2, 9));
    assert_eq!(
        refused(&recover(1, &[1, 2], &[first])),
        PlacementRefusal::NotLost(NodeId(1))
    );
    assert_eq!(
        refused(&recover(9, &[2], &[first])),
        PlacementRefusal::UnknownNode(NodeId(9))
    );
    assert_eq!(refused(&recover(1, &[2], &[])), PlacementRefusal::Unchanged);
    assert_eq!(refused(&recover(1, &[2], &[(7, successor(8, 9))])), not(7));
    assert_eq!(refused(&recover(1, &[2], &[(1, successor(1, 9))])), not(1));
    assert_eq!(refused(&recover(1, &[2], &[(1, successor(0, 9))])), not(1));
    assert_eq!(refused(&recover(1, &[2], &[(0, successor(3, 9))])), not(0));
    assert_eq!(
        refused(&recover(1, &[2], &[(1, successor(2, 0))])),
        PlacementRefusal::Zero
    );
    // Twice, whoever was first.
    let next = map
        .after(&recover(1, &[2], &[first, (0, successor(0, 70))]))
        .unwrap();
    for again in [
        (1, successor(2, 10)),
        (1, successor(3, 9)),
        (2, successor(1, 9)),
    ] {
        let group = again.0;
        assert_eq!(
            next.after(&recover(3, &[1], &[again])).unwrap_err(),
            not(group)
        );
    }
    assert_eq!(
        next.after(&recover(3, &[1], &[(0, successor(0, 70))]))
            .unwrap_err(),
        PlacementRefusal::Unchanged
    );
    assert!(
        next.after(&recover(3, &[1], &[(0, successor(0, 71))]))
            .is_ok()
    );
}

/// Issues a token with this digest; the number that it is for.
fn issue(seat: &mut Seat, digest: u8) -> NodeId {
    let issue = Command::IssueToken(IssueToken {
        digest: TokenDigest([digest; 32]),
        wanted: TokenWanted {
            node: None,
            region: TokenRegion::Any,
            valid_for_ms: 3_600_000,
        },
    });
    match seat.apply(PLACEMENT_PARTITION, issue) {
        Ok(Outcome::TokenIssued { node, .. }) => node,
        other => panic!("{other:?}"),
    }
}

/// A node that shows the token with this digest.
fn admit(seat: &mut Seat, digest: u8, node: u64) -> Result<Outcome, Rejection> {
    let joiner = Joiner {
        token: TokenDigest([digest; 32]),
        attempt: JoinAttempt([digest; 16]),
        node: NodeId(node),
        entry: entry(node, 'a'),
    };
    seat.apply(PLACEMENT_PARTITION, Command::Admit(Admit { joiner }))
}

#[test]
fn the_numbers_of_lost_nodes_are_not_given_again() {
    let mut seat = Seat::new();
    let found = found(&nodes("aaa"), SurvivalGoal::Node);
    seat.place(0, &found).unwrap();
    let change = recover(1, &[2, 3], &[(1, successor(2, 9))]);
    let placed = Ok(Outcome::Placed {
        version: MapVersion(2),
    });
    assert_eq!(seat.place(1, &change), placed);
    // The same again, after a lost reply.
    assert_eq!(seat.place(1, &change), placed);
    assert_eq!(issue(&mut seat, 7), NodeId(4));
}

#[test]
fn what_a_lost_placement_group_may_have_given_and_let_in_is_passed_over() {
    let mut seat = Seat::new();
    let found = found(&nodes("aaa"), SurvivalGoal::Node);
    seat.place(0, &found).unwrap();
    for (digest, number) in [(4, 4), (5, 5)] {
        assert_eq!(issue(&mut seat, digest), NodeId(number));
    }
    admit(&mut seat, 4, 4).unwrap();
    let lost = [(0, successor(0, 5000)), (1, successor(1025, 6000))];
    seat.place(2, &recover(1, &[2, 3], &lost)).unwrap();
    // The lost ones may have let a node in by what is an unused token here, and have given 6 to another one.
    let refused = Rejection::AdmissionRefused(AdmissionRefusal::Revoked);
    assert_eq!(admit(&mut seat, 5, 5), Err(refused));
    assert_eq!(issue(&mut seat, 6), NodeId(5 + 1024 + 1));
    admit(&mut seat, 6, 1030).unwrap();
    // Who is in, and lost the answer, is let in again.
    assert!(admit(&mut seat, 4, 4).is_ok());
    assert!(seat.map().nodes().keys().eq(&[1, 4, 1030].map(NodeId)));
    let again = recover(4, &[1, 1030], &[(0, successor(0, 9000))]);
    let version = seat.map().version().0;
    seat.place(version, &again).unwrap();
    assert_eq!(issue(&mut seat, 8), NodeId(1030 + 1024 + 1));
}

#[test]
fn a_lost_node_that_still_votes_elsewhere_is_replaced_at_once() {
    let map = founded("aaabc", SurvivalGoal::Node);
    let map = map
        .after(&recover(1, &[2, 3], &[(1, successor(4, 9))]))
        .unwrap();
    let membership = Membership {
        leader: Some(NodeId(4)),
        voters: ids(&[2, 4, 5]),
        ..Membership::default()
    };
    let report = Report {
        membership,
        caught_up: ids(&[4, 5]),
        ..Report::default()
    };
    let up = |node| (NodeId(node), Health::Up { for_ms: 90_000 });
    let steps = plan(
        &map,
        &BTreeMap::from([(PLACEMENT_GROUP, report)]),
        &BTreeMap::from([1, 4, 5].map(up)),
        &Patience::default(),
    );
    let expected = Step::Replace {
        old: NodeId(2),
        new: NodeId(1),
    };
    assert_eq!(steps, BTreeMap::from([(PLACEMENT_GROUP, expected)]));
}
