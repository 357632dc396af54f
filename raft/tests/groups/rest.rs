//! A group of which nothing is asked rests, and wakes whatever becomes of its leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::{GroupId, NodeId};
use rossby_raft::{Group, Leadership};
use rossby_seams::disk::PowerLoss;
use rossby_seams::transport::Cut;
use tokio::time::Instant;

use super::world::{
    Node, Settings, World, all_rest, letter, member, patience, queue, replica, sequence,
};

/// Longer than any election timeout.
const LONG: Duration = Duration::from_secs(3);

async fn three_at_rest() -> World {
    let world = World::three().await;
    world.send(1, 1).await;
    all_rest(&world).await;
    world
}

/// The leader and the others.
async fn parts(world: &World) -> (&Node, Vec<&Node>) {
    let leader = world.leader().await;
    let others = world.nodes.values().filter(|node| node.id != leader.id);
    (leader, others.collect())
}

fn term(node: &Node) -> u64 {
    node.group.status().term
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_rests_for_as_long_as_nothing_is_asked_and_wakes_for_what_is() {
    let world = three_at_rest().await;
    let (leader, others) = parts(&world).await;
    let at_first = term(leader);
    let until = Instant::now() + LONG;
    world
        .until("an election timeout is over", |_| {
            assert!(leader.group.leads_surely(), "{:?}", world.status());
            let follow = |node: &&Node| matches!(node.group.leadership(), Leadership::Elsewhere(_));
            assert!(others.iter().all(follow), "{:?}", world.status());
            Instant::now() > until
        })
        .await;
    assert!(world.nodes.values().all(|node| node.group.rests()));

    assert_eq!(world.send(1, 2).await.0, 2);
    assert!(!leader.group.rests());
    all_rest(&world).await;
    assert_eq!(queue(leader).await.len(), 2);
    assert!(!leader.group.rests());
    all_rest(&world).await;
    // A follower asks its leader.
    let follower = others[0];
    follower.group.checkpoint_of_now(patience()).await.unwrap();
    assert_eq!(term(follower), at_first);
    all_rest(&world).await;
    let to = Some(follower.id);
    leader.group.transfer_leader(to, patience()).await.unwrap();
    world.leader_where(|node| node.id == follower.id).await;
    assert_eq!(world.send(1, 3).await.0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_rests_and_wakes() {
    let settings = Settings {
        nodes: 1,
        ..Settings::default()
    };
    let world = World::new(settings).await;
    for counter in 1..=2 {
        all_rest(&world).await;
        assert_eq!(world.send(1, counter).await.0, counter);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_does_not_rest_where_it_must_not() {
    let settings = Settings {
        rest: false,
        ..Settings::default()
    };
    let world = World::new(settings).await;
    world.send(1, 1).await;
    let until = Instant::now() + LONG + LONG;
    world
        .until("it could rest for long", |world| {
            assert!(world.nodes.values().all(|node| !node.group.rests()));
            Instant::now() > until
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_at_rest_elects_another_leader_when_the_node_of_its_leader_dies_or_is_cut_off() {
    for cut in [None, Some(Cut::Broken), Some(Cut::Silent)] {
        let mut world = three_at_rest().await;
        let (leader, others) = parts(&world).await;
        let (old, at_first) = (leader.id, term(leader));
        match cut {
            None => drop(world.kill(old, PowerLoss::KeepAll)),
            Some(how) => {
                for other in others {
                    world.network.cut_both(old, other.id, how);
                }
            }
        }
        let new = world
            .leader_where(|node| node.id != old && node.group.leads_surely())
            .await;
        assert!(term(new) > at_first);
        let letters = vec![letter(1, 2, 64)];
        let replies = new.group.propose(letters, patience()).await.unwrap();
        assert_eq!(sequence(&replies[0]).0, 2);
        if cut.is_some() {
            assert!(!world.nodes[&old].group.leads_surely());
            world.network.heal();
            // Also the one that slept through the election.
            all_rest(&world).await;
            world.same_everywhere().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_one_direction_wakes_the_group_and_costs_no_leader() {
    for from_leader in [true, false] {
        for how in [Cut::Broken, Cut::Silent] {
            let world = three_at_rest().await;
            let (leader, others) = parts(&world).await;
            let at_first = term(leader);
            let (from, to) = match from_leader {
                true => (leader.id, others[0].id),
                false => (others[0].id, leader.id),
            };
            world.network.cut(from, to, how);
            let wakes = |_: &World| !leader.group.rests() && !others[0].group.rests();
            world.until("both sides of the cut wake", wakes).await;
            // It has long given its leader up, and campaigned.
            let until = Instant::now() + LONG;
            world
                .until("an election timeout is over", |_| Instant::now() > until)
                .await;
            assert!(leader.group.leads_surely());
            assert_eq!(term(leader), at_first);
            let letters = vec![letter(1, 2, 64)];
            leader.group.propose(letters, patience()).await.unwrap();
            world.network.heal();
            all_rest(&world).await;
            assert_eq!(term(leader), at_first);
            world.same_everywhere().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_again_wakes_the_group_and_is_not_taken_for_a_leader_that_rests() {
    let mut world = three_at_rest().await;
    let (leader, others) = parts(&world).await;
    let (leader, follower, at_first) = (leader.id, others[0].id, term(leader));
    let disk = world.kill(follower, PowerLoss::DropUnsynced);
    world.start(follower, disk).await;
    all_rest(&world).await;
    assert_eq!(term(&world.nodes[&leader]), at_first);
    assert!(world.nodes[&leader].group.leads_surely());

    let disk = world.kill(leader, PowerLoss::DropUnsynced);
    world.start(leader, disk).await;
    assert_eq!(world.send(1, 2).await.0, 2);
    assert!(term(world.leader().await) > at_first);
    all_rest(&world).await;
    world.same_everywhere().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_fails_alone_is_left_out_of_the_beats_of_its_node() {
    const OTHER: GroupId = GroupId(2);
    let world = World::three().await;
    world.send(1, 1).await;
    // A second group that the same node leads goes on having it beat.
    let mut started: BTreeMap<NodeId, Arc<Group>> = BTreeMap::new();
    for node in world.nodes.values() {
        let group = node.groups.start(OTHER, replica(node.id)).await.unwrap();
        started.insert(node.id, group);
    }
    let (leader, others) = parts(&world).await;
    let members = world
        .nodes
        .keys()
        .map(|node| (replica(*node), member(*node)));
    let group = &started[&leader.id];
    group.initialize(members.collect()).await.unwrap();
    world
        .until("the second group is led", |_| {
            started.values().any(|group| group.leads_surely())
        })
        .await;
    if let Some(elsewhere) = started.values().find(|group| group.leads())
        && !group.leads()
    {
        elsewhere
            .transfer_leader(Some(leader.id), patience())
            .await
            .unwrap();
    }
    world
        .until("all rest", |world| {
            group.leads()
                && started.values().all(|group| group.rests())
                && world.nodes.values().all(|node| node.group.rests())
        })
        .await;
    assert!(leader.group.leads_surely());

    // A checkpoint that can not be written ends one replica, and not the log of all.
    leader.disk.stop_at_mutation(leader.disk.mutations() + 1);
    leader.group.checkpoint().await.unwrap_err();
    let new = world
        .leader_where(|node| node.id != leader.id && node.group.leads_surely())
        .await;
    assert!(others.iter().any(|other| other.id == new.id));
    let letters = vec![letter(1, 2, 64)];
    new.group.propose(letters, patience()).await.unwrap();
}
