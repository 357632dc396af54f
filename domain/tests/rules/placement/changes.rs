//! From one version of the map to the next.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rossby_domain::ids::{
    Epoch, GroupId, MapVersion, NodeId, PartitionCount, PartitionId, ReplicaId,
};
use rossby_domain::placement::{
    Beginning, Change, ClusterMap, FoundingGroup, InvalidMap, NodeEntry, Owner, PlacementRefusal,
    RegionName, Successor, SurvivalGoal,
};

use super::{draining, entry, found, founded, nodes, region};

fn refused(map: &ClusterMap, change: &Change) -> PlacementRefusal {
    map.after(change).unwrap_err()
}

fn put(node: u64, entry: NodeEntry) -> Change {
    Change::PutNode {
        node: NodeId(node),
        entry,
    }
}

fn born(letter: char, founders: &[u64]) -> FoundingGroup {
    let numbered = (1..)
        .map(ReplicaId)
        .zip(founders.iter().copied().map(NodeId));
    FoundingGroup {
        home: region(letter),
        founders: numbered.collect(),
    }
}

fn add_group(group: u32, born: FoundingGroup, partitions: u16) -> Change {
    Change::AddGroup {
        group: GroupId(group),
        born,
        partitions,
    }
}

/// The partitions of a map as it was, on one node, above a version; some owners spoiled.
fn restore(map: &ClusterMap, above: u64, spoiled: &[(u16, Option<(u32, u64)>)]) -> Change {
    let mut owners = map.owners().clone();
    for (partition, owner) in spoiled {
        let partition = PartitionId::new(*partition).unwrap();
        match owner {
            None => owners.remove(&partition),
            Some((group, epoch)) => {
                let (group, epoch) = (GroupId(*group), Epoch(*epoch));
                owners.insert(partition, Owner { group, epoch })
            }
        };
    }
    let groups = map.groups().keys();
    Change::Restore {
        above: MapVersion(above),
        beginning: Beginning {
            goal: SurvivalGoal::Node,
            partitions: map.partitions(),
            nodes: nodes("a"),
            groups: groups.map(|group| (*group, born('a', &[1]))).collect(),
        },
        owners,
    }
}

#[test]
fn a_cluster_made_of_a_backup_has_the_old_owners_and_a_version_above_the_old_ones() {
    let mut old = founded("abc", SurvivalGoal::Region);
    old = old.after(&add_group(4, born('b', &[2]), 7)).unwrap();
    let none = ClusterMap::default();
    let map = none.after(&restore(&old, 900, &[])).unwrap();
    assert_eq!(map.version(), MapVersion(901));
    assert_eq!(map.owners(), old.owners());
    assert!(map.groups().keys().eq(old.groups().keys()));
    assert_eq!(map.check(), Ok(()));
    assert_eq!(
        refused(&old, &restore(&old, 900, &[])),
        PlacementRefusal::AlreadyFounded
    );
    let owner = |spoiled: (u16, Option<(u32, u64)>)| refused(&none, &restore(&old, 1, &[spoiled]));
    let of = |number| PlacementRefusal::Owner(PartitionId::new(number).unwrap());
    assert_eq!(owner((3, Some((9, 1)))), of(3));
    assert_eq!(owner((3, Some((1, 0)))), of(3));
    assert_eq!(owner((300, Some((1, 1)))), of(300));
    // One of the directory.
    assert_eq!(owner((3, None)), of(3));
    let without_4: Vec<_> = (200..256).map(|number| (number, None)).collect();
    assert_eq!(
        refused(&none, &restore(&old, 1, &without_4)),
        PlacementRefusal::Size
    );
    assert_eq!(
        refused(&none, &restore(&old, u64::MAX, &[])),
        PlacementRefusal::Size
    );
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap()
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, bincode::error::DecodeError> {
    let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
    bincode::serde::decode_from_slice(bytes, config).map(|(value, _)| value)
}

#[test]
fn a_new_cluster_shares_out_all_but_the_last_eighth_in_turn() {
    let map = founded("abc", SurvivalGoal::Region);
    assert_eq!(map.version(), MapVersion(1));
    assert_eq!(map.groups().len(), 3);
    assert_eq!(map.owners().len(), 224);
    assert_eq!(map.spare().map(PartitionId::number).min(), Some(224));
    let counts: Vec<_> = map
        .groups()
        .keys()
        .map(|group| map.partitions_of(*group).count())
        .collect();
    assert_eq!(counts, [75, 75, 74]);
    // Boxes are born at home; where no group is at home, anywhere.
    let births = map.births(&region('b'));
    assert!(births.iter().all(|p| map.owner(*p) == Some(GroupId(2))));
    assert_eq!(births.len(), 75);
    assert_eq!(map.births(&region('z')).len(), 224);
}

#[test]
fn a_cluster_is_founded_once_and_before_all_else() {
    let none = ClusterMap::default();
    let other = [
        put(1, entry(1, 'a')),
        Change::RemoveNode(NodeId(1)),
        Change::SetGoal(SurvivalGoal::Region),
        add_group(1, born('a', &[1]), 1),
    ];
    for change in other {
        assert_eq!(refused(&none, &change), PlacementRefusal::NotFounded);
    }
    let map = founded("aaa", SurvivalGoal::Node);
    let again = found(&nodes("aaa"), SurvivalGoal::Node);
    assert_eq!(refused(&map, &again), PlacementRefusal::AlreadyFounded);
}

#[test]
fn a_cluster_that_can_not_be_is_not_founded() {
    let found = |nodes: BTreeMap<NodeId, NodeEntry>, groups: &[(u32, FoundingGroup)]| {
        let groups = groups.iter().cloned();
        ClusterMap::default().after(&Change::Found(Beginning {
            goal: SurvivalGoal::Node,
            partitions: PartitionCount::new(2).unwrap(),
            nodes,
            groups: groups.map(|(id, born)| (GroupId(id), born)).collect(),
        }))
    };
    let one = |letter| (1, born(letter, &[1]));
    assert!(found(nodes("a"), &[one('a')]).is_ok());
    let cases = [
        (found(nodes(""), &[one('a')]), PlacementRefusal::Size),
        (found(nodes("a"), &[]), PlacementRefusal::Size),
        (
            // A partition for each of three groups, and there are two.
            found(
                nodes("a"),
                &[one('a'), (2, born('a', &[1])), (3, born('a', &[1]))],
            ),
            PlacementRefusal::Size,
        ),
        (
            found([(NodeId(0), entry(1, 'a'))].into(), &[one('a')]),
            PlacementRefusal::Zero,
        ),
        (
            found(nodes("a"), &[(0, born('a', &[1]))]),
            PlacementRefusal::Zero,
        ),
        (
            found([(NodeId(1), draining(entry(1, 'a')))].into(), &[one('a')]),
            PlacementRefusal::NoSuchRegion(region('a')),
        ),
        (
            found(nodes("a"), &[one('b')]),
            PlacementRefusal::NoSuchRegion(region('b')),
        ),
        (
            found(nodes("a"), &[(1, born('a', &[2]))]),
            PlacementRefusal::Founders(GroupId(1)),
        ),
    ];
    for (outcome, refusal) in cases {
        assert_eq!(outcome, Err(refusal));
    }
    let many = nodes(&"a".repeat(1025));
    let many = many.into_keys().map(|node| {
        let entry = NodeEntry {
            peer_address: format!("node-{node}:7471"),
            client_address: String::new(),
            ..entry(1, 'a')
        };
        (node, entry)
    });
    assert_eq!(
        found(many.collect(), &[one('a')]),
        Err(PlacementRefusal::Size)
    );
}

#[test]
fn a_node_comes_is_drained_and_goes() {
    let map = founded("aaa", SurvivalGoal::Node);
    let map = map.after(&put(4, entry(4, 'b'))).unwrap();
    assert_eq!(
        refused(&map, &put(4, entry(4, 'b'))),
        PlacementRefusal::Unchanged
    );
    assert_eq!(
        refused(&map, &put(4, entry(4, 'c'))),
        PlacementRefusal::OtherRegion(NodeId(4))
    );
    assert_eq!(
        refused(&map, &Change::RemoveNode(NodeId(4))),
        PlacementRefusal::NotDraining(NodeId(4))
    );
    assert_eq!(
        refused(&map, &Change::RemoveNode(NodeId(5))),
        PlacementRefusal::UnknownNode(NodeId(5))
    );
    let map = map.after(&put(4, draining(entry(4, 'b')))).unwrap();
    assert!(!map.is_active(NodeId(4)));
    let map = map.after(&Change::RemoveNode(NodeId(4))).unwrap();
    assert_eq!(map.version(), MapVersion(4));
    assert_eq!(map.nodes(), founded("aaa", SurvivalGoal::Node).nodes());
}

#[test]
fn a_home_keeps_an_active_node() {
    let map = founded("ab", SurvivalGoal::Node);
    assert_eq!(
        refused(&map, &put(2, draining(entry(2, 'b')))),
        PlacementRefusal::NobodyLeft(region('b'))
    );
    let map = map.after(&put(3, entry(3, 'b'))).unwrap();
    assert!(map.after(&put(2, draining(entry(2, 'b')))).is_ok());
}

#[test]
fn a_node_has_addresses_of_its_own() {
    let map = founded("aa", SurvivalGoal::Node);
    let peer = |text: &str| NodeEntry {
        peer_address: text.to_owned(),
        ..entry(3, 'a')
    };
    let clients = |text: &str| NodeEntry {
        client_address: text.to_owned(),
        ..entry(3, 'a')
    };
    let long = "x".repeat(256);
    let bad = [
        peer(""),
        peer(&long),
        peer("with space:1"),
        peer("10.0.0.1:7471"),
        clients(&long),
        clients("new\nline"),
        clients("10.0.0.1:7470"),
    ];
    for entry in bad {
        let refusal = PlacementRefusal::Address(NodeId(3));
        assert_eq!(refused(&map, &put(3, entry)), refusal);
    }
    // Clients need not be told of a node, nor of two of them.
    let map = map.after(&put(3, clients(""))).unwrap();
    let quiet = NodeEntry {
        client_address: String::new(),
        ..entry(4, 'a')
    };
    let map = map.after(&put(4, quiet)).unwrap();
    // It may move to another address, and another may have the old one.
    let moved = NodeEntry {
        peer_address: "10.9.9.9:1".to_owned(),
        ..entry(1, 'a')
    };
    let map = map.after(&put(1, moved)).unwrap();
    let heir = NodeEntry {
        peer_address: "10.0.0.1:7471".to_owned(),
        ..entry(5, 'a')
    };
    assert!(map.after(&put(5, heir)).is_ok());
}

#[test]
fn only_a_node_by_itself_may_have_no_door_for_peers() {
    let doorless = NodeEntry {
        peer_address: String::new(),
        ..entry(1, 'a')
    };
    let map = founded("a", SurvivalGoal::Node);
    let map = map.after(&put(1, doorless)).unwrap();
    assert_eq!(map.check(), Ok(()));
    let refusal = PlacementRefusal::Address(NodeId(1));
    assert_eq!(refused(&map, &put(2, entry(2, 'a'))), refusal);
    let map = map.after(&put(1, entry(1, 'a'))).unwrap();
    assert!(map.after(&put(2, entry(2, 'a'))).is_ok());
}

#[test]
fn a_group_that_comes_gets_spare_partitions_only() {
    let map = founded("aaab", SurvivalGoal::Node);
    let next = map.after(&add_group(3, born('b', &[4]), 30)).unwrap();
    assert_eq!(next.partitions_of(GroupId(3)).count(), 30);
    assert_eq!(next.spare().count(), 2);
    for (partition, owner) in map.owners() {
        assert_eq!(next.owners().get(partition), Some(owner));
    }
    let cases = [
        (
            add_group(4, born('b', &[4]), 3),
            PlacementRefusal::NotEnoughSpare { left: 2 },
        ),
        (add_group(4, born('b', &[4]), 0), PlacementRefusal::Zero),
        (add_group(0, born('b', &[4]), 1), PlacementRefusal::Zero),
        (
            add_group(3, born('b', &[4]), 1),
            PlacementRefusal::GroupExists(GroupId(3)),
        ),
        (
            add_group(4, born('z', &[4]), 1),
            PlacementRefusal::NoSuchRegion(region('z')),
        ),
    ];
    for (change, refusal) in cases {
        assert_eq!(refused(&next, &change), refusal);
    }
    let ten: Vec<u64> = (1..=10).collect();
    for founders in [vec![], vec![4, 4], vec![9], ten] {
        let change = add_group(4, born('b', &founders), 1);
        let refusal = PlacementRefusal::Founders(GroupId(4));
        assert_eq!(refused(&next, &change), refusal);
    }
    let mut zero = born('b', &[4]);
    zero.founders = [(ReplicaId(0), NodeId(4))].into();
    assert_eq!(
        refused(&next, &add_group(4, zero, 1)),
        PlacementRefusal::Zero
    );
}

#[test]
fn a_goal_takes_regions_and_keeps_them() {
    let two = founded("aabb", SurvivalGoal::Node);
    let goal = Change::SetGoal(SurvivalGoal::Region);
    let too_few = PlacementRefusal::TooFewRegions { regions: 2 };
    assert_eq!(refused(&two, &goal), too_few);
    let same = Change::SetGoal(SurvivalGoal::Node);
    assert_eq!(refused(&two, &same), PlacementRefusal::Unchanged);
    let three = two.after(&put(5, entry(5, 'c'))).unwrap();
    let three = three.after(&goal).unwrap();
    assert_eq!(three.goal(), SurvivalGoal::Region);
    let away = put(5, draining(entry(5, 'c')));
    assert_eq!(refused(&three, &away), too_few);
    let found = found(&nodes("aab"), SurvivalGoal::Region);
    assert_eq!(refused(&ClusterMap::default(), &found), too_few);
}

#[test]
fn a_change_says_no_less_than_what_it_weighs() {
    let long = NodeEntry {
        region: RegionName::new(&"r".repeat(32)).unwrap(),
        peer_address: "p".repeat(255),
        client_address: "c".repeat(255),
        ..entry(1, 'a')
    };
    let nodes = (1..=50).map(|node| (NodeId(u64::MAX - node), long.clone()));
    let founders = (1..=9).map(|n| (ReplicaId(u64::MAX - n), NodeId(u64::MAX - n)));
    let group = FoundingGroup {
        home: long.region.clone(),
        founders: founders.collect(),
    };
    let groups = (1..=50).map(|n| (GroupId(u32::MAX - n), group.clone()));
    let changes = [
        Change::Found(Beginning {
            goal: SurvivalGoal::Region,
            partitions: PartitionCount::DEFAULT,
            nodes: nodes.collect(),
            groups: groups.collect(),
        }),
        put(u64::MAX, long),
        add_group(u32::MAX, group, u16::MAX),
        restore(&founded("abc", SurvivalGoal::Region), u64::MAX, &[]),
    ];
    for change in changes {
        assert!(encode(&change).len() <= change.weight_bytes());
    }
}

/// A change, good or not.
fn change() -> impl Strategy<Value = Change> {
    let letter = prop::sample::select(vec!['a', 'b', 'c', 'd']);
    let goal = prop::sample::select(vec![SurvivalGoal::Node, SurvivalGoal::Region]);
    let node = 0..10_u64;
    let placed = (node.clone(), letter.clone(), node.clone(), any::<bool>());
    let put = placed.prop_map(|(node, letter, address, drain)| {
        let entry = entry(address, letter);
        let entry = if drain { draining(entry) } else { entry };
        put(node, entry)
    });
    let founders = proptest::collection::vec(node.clone(), 0..4);
    let group = (0..6_u32, letter, founders, 0..20_u16);
    let group = group.prop_map(|(group, letter, founders, partitions)| {
        add_group(group, born(letter, &founders), partitions)
    });
    let spoiled = (0..260_u16, proptest::option::of((0..5_u32, 0..3_u64)));
    let spoiled = proptest::collection::vec(spoiled, 0..4);
    let restored = ("[abcd]{1,6}", any::<u64>(), spoiled).prop_map(|(letters, above, spoiled)| {
        restore(&founded(&letters, SurvivalGoal::Node), above, &spoiled)
    });
    let successor = (0..8_u32, 0..2048_u64).prop_map(|(group, replica)| Successor {
        group: GroupId(group),
        replica: ReplicaId(replica),
    });
    let successors = proptest::collection::btree_map((0..6_u32).prop_map(GroupId), successor, 0..3);
    let gone = proptest::collection::btree_set(node.clone().prop_map(NodeId), 0..4);
    let recovered = (node.clone(), gone, successors).prop_map(|(node, lost, groups)| {
        let node = NodeId(node);
        Change::Recover { node, lost, groups }
    });
    prop_oneof![
        6 => put,
        2 => recovered,
        1 => restored,
        3 => node.prop_map(|node| Change::RemoveNode(NodeId(node))),
        2 => group,
        1 => goal.clone().prop_map(Change::SetGoal),
        1 => ("[abcd]{1,6}", goal).prop_map(|(letters, goal)| found(&nodes(&letters), goal)),
    ]
}

/// Who owns what this one owned, after a change.
fn heir(owner: &Owner, change: &Change) -> Owner {
    let successor = match change {
        Change::Recover { groups, .. } => groups.get(&owner.group),
        _ => None,
    };
    successor.map_or(*owner, |successor| Owner {
        group: successor.group,
        epoch: Epoch(owner.epoch.0 + 1),
    })
}

proptest! {
    #[test]
    fn whatever_is_changed_a_map_holds_and_an_owner_stays(
        changes in proptest::collection::vec(change(), 1..60),
    ) {
        let mut map = ClusterMap::default();
        let start = founded("aabbc", SurvivalGoal::Node);
        if changes.len() % 4 != 0 {
            map = start;
        }
        for change in changes {
            let Ok(next) = map.after(&change) else { continue };
            match &change {
                Change::Restore { above, .. } => prop_assert_eq!(next.version(), above.next()),
                _ => prop_assert_eq!(next.version(), map.version().next()),
            }
            prop_assert_eq!(next.check(), Ok(()));
            for (partition, owner) in map.owners() {
                prop_assert_eq!(next.owners().get(partition), Some(&heir(owner, &change)));
            }
            prop_assert_eq!(&decode::<ClusterMap>(&encode(&next)).unwrap(), &next);
            map = next;
        }
    }

    #[test]
    fn damaged_bytes_are_no_map_or_one_that_holds(
        at: prop::sample::Index,
        to: u8,
        whole: bool,
        letters in "[abcd]{1,6}",
    ) {
        let mut bytes = encode(&founded(&letters, SurvivalGoal::Node));
        let at = at.index(bytes.len());
        if whole {
            bytes[at] = to;
        } else {
            bytes.truncate(at);
        }
        if let Ok(map) = decode::<ClusterMap>(&bytes) {
            prop_assert_eq!(map.check(), Ok(()));
        }
    }

    #[test]
    fn random_bytes_are_no_map_or_one_that_holds(bytes: Vec<u8>) {
        if let Ok(map) = decode::<ClusterMap>(&bytes) {
            prop_assert_eq!(map.check(), Ok(()));
        }
    }
}

/// The serialised form of a map, open to all that a map is not.
#[derive(serde::Serialize, Clone)]
struct Open {
    version: u64,
    goal: SurvivalGoal,
    partitions: u16,
    nodes: BTreeMap<u64, NodeEntry>,
    groups: BTreeMap<u32, FoundingGroup>,
    owners: BTreeMap<u16, (u32, u64)>,
    successors: BTreeMap<u32, (u32, u64)>,
}

#[test]
fn each_thing_that_can_not_be_is_found_by_its_name() {
    let good = Open {
        version: 3,
        goal: SurvivalGoal::Node,
        partitions: 4,
        nodes: [(1, entry(1, 'a')), (2, entry(2, 'b'))].into(),
        groups: [(1, born('a', &[1])), (2, born('b', &[2]))].into(),
        owners: [(0, (1, 1)), (1, (2, 1)), (3, (1, 7))].into(),
        successors: [(0, (0, 2000)), (7, (2, 1)), (5, (7, 1))].into(),
    };
    assert!(decode::<ClusterMap>(&encode(&good)).is_ok());
    let check = |spoil: &dyn Fn(&mut Open), expected: InvalidMap| {
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = decode::<ClusterMap>(&encode(&bad)).unwrap_err().to_string();
        assert!(error.contains(&expected.to_string()), "{error}");
    };
    check(&|map| map.version = 0, InvalidMap::Version(MapVersion(0)));
    let last = MapVersion(u64::MAX);
    check(&|map| map.version = last.0, InvalidMap::Version(last));
    check(&|map| map.nodes.clear(), InvalidMap::Size);
    check(&|map| map.groups.clear(), InvalidMap::Size);
    check(&|map| map.goal = SurvivalGoal::Region, InvalidMap::Goal);
    let put = |node: u64, entry: NodeEntry| {
        move |map: &mut Open| drop(map.nodes.insert(node, entry.clone()))
    };
    check(&put(0, entry(9, 'a')), InvalidMap::Node(NodeId(0)));
    check(&put(9, entry(1, 'a')), InvalidMap::Node(NodeId(9)));
    let away = draining(entry(2, 'b'));
    check(&put(2, away), InvalidMap::Group(GroupId(2)));
    let group = |group: u32, born: FoundingGroup| {
        move |map: &mut Open| drop(map.groups.insert(group, born.clone()))
    };
    check(&group(0, born('a', &[1])), InvalidMap::Group(GroupId(0)));
    // A group that owns nothing.
    check(&group(3, born('a', &[1])), InvalidMap::Group(GroupId(3)));
    check(&group(2, born('b', &[])), InvalidMap::Group(GroupId(2)));
    let own = |partition: u16, owner: (u32, u64)| {
        move |map: &mut Open| {
            map.owners.insert(partition, owner);
        }
    };
    let of = |number| PartitionId::new(number).unwrap();
    check(&own(4, (1, 1)), InvalidMap::Owner(of(4)));
    check(&own(2, (5, 1)), InvalidMap::Owner(of(2)));
    check(&own(2, (1, 0)), InvalidMap::Owner(of(2)));
    let spare = |map: &mut Open| {
        map.owners.insert(2, (2, 1));
        map.owners.remove(&1);
    };
    check(&spare, InvalidMap::Directory(of(1)));
    let succeed = |group: u32, successor: (u32, u64)| {
        move |map: &mut Open| {
            map.successors.insert(group, successor);
        }
    };
    let not = |group| InvalidMap::Group(GroupId(group));
    check(&succeed(1, (2, 1)), not(1));
    check(&succeed(0, (2, 1)), not(0));
    check(&succeed(8, (0, 1)), not(8));
    check(&succeed(8, (8, 1)), not(8));
    check(&succeed(8, (2, 0)), not(8));
}
