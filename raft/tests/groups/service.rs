//! What a healthy group does.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use rossby_domain::command::Outcome;
use rossby_domain::ids::{NodeId, PartitionId};
use rossby_domain::{Query, Rejection};
use rossby_raft::{InitializeError, Leadership, ProposeError, ReadError};
use rossby_seams::disk::{MemoryDisk, PowerLoss};
use tokio::time::{Instant, timeout_at};

use super::world::{
    GROUP, Settings, World, letter, open_claim, partition, patience, queue, replica, sequence,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_alone_serves_and_remembers() {
    let settings = Settings {
        nodes: 1,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    assert_eq!(world.send(1, 1).await.0, 1);
    let disk = world.kill(NodeId(1), PowerLoss::DropUnsynced);
    world.start(NodeId(1), disk).await;
    assert_eq!(world.send(1, 2).await.0, 2);
    assert_eq!(queue(world.leader().await).await, [(1, 1, 1), (1, 2, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_proposals_share_entries_and_each_gets_its_own_replies() {
    let world = World::three().await;
    let leader = world.leader().await;
    let before = leader.group.status().last_log_index.unwrap();
    let senders = (0..200).map(|sender| {
        let letters = vec![letter(sender, 1, 64), letter(sender, 2, 64)];
        leader.group.propose(letters, patience())
    });
    let mut places = BTreeSet::new();
    for replies in join_all(senders).await {
        let replies = replies.unwrap();
        let (first, second) = (sequence(&replies[0]), sequence(&replies[1]));
        assert!(first < second, "a sender's letters keep their order");
        places.extend([first, second]);
    }
    assert_eq!(places.len(), 400);
    let entries = leader.group.status().last_log_index.unwrap() - before;
    assert!(
        entries < 200,
        "{entries} entries for 200 concurrent callers"
    );
    assert_eq!(queue(leader).await.len(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_apply_the_same_to_the_same_bytes() {
    let world = World::three().await;
    for counter in 1..=20 {
        world.send(1, counter).await;
    }
    let digests = |world: &World| {
        let nodes = world.nodes.values();
        let digests = nodes.map(|node| node.group.reader().digests().unwrap());
        digests.collect::<Vec<_>>()
    };
    world
        .until("all applied the same", |world| {
            let digests = digests(world);
            digests.iter().all(|one| one.0 == digests[0].0)
        })
        .await;
    let digests = digests(&world);
    assert!(digests.iter().all(|one| one.1 == digests[0].1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_refuses_and_names_the_leader() {
    let world = World::three().await;
    let leader = world.leader().await;
    let follower = world
        .nodes
        .values()
        .find(|node| node.id != leader.id)
        .unwrap();
    world
        .until("the follower knows its leader", |_| {
            matches!(follower.group.leadership(), Leadership::Elsewhere(_))
        })
        .await;
    let refused = follower
        .group
        .propose(vec![letter(1, 1, 64)], patience())
        .await;
    let Err(ProposeError::NotLeader {
        leader: Some(named),
    }) = refused
    else {
        panic!("not refused: {refused:?}")
    };
    assert_eq!(named.node, leader.id);
    let refused = follower.group.linearize(patience()).await;
    assert!(
        matches!(refused, Err(ReadError::NotLeader { leader: Some(_) })),
        "{refused:?}"
    );
    assert!(!follower.group.leads_surely());
    assert_eq!(follower.group.led_term(), None);
    assert!(leader.group.led_term().is_some());
    let local = follower
        .group
        .read_local(partition(), &Query::Ownership(partition()));
    assert!(local.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_owned_is_a_rejection_beside_the_replies_of_others() {
    let world = World::three().await;
    let foreign = PartitionId::new(9).unwrap();
    let (_, command) = letter(1, 1, 64);
    let replies = world
        .propose(vec![(foreign, command), letter(1, 1, 64), letter(1, 2, 64)])
        .await;
    assert_eq!(replies[0], Err(Rejection::NotOwner { owned: None }));
    assert_eq!((sequence(&replies[1]).0, sequence(&replies[2]).0), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_sent() {
    let world = World::three().await;
    for _ in 0..3 {
        let leader = world.leader().await;
        let target = world
            .nodes
            .keys()
            .find(|node| **node != leader.id)
            .copied()
            .unwrap();
        let chosen = leader
            .group
            .transfer_leader(Some(target), patience())
            .await
            .unwrap();
        assert_eq!(chosen.node, target);
        world.leader_where(|node| node.id == target).await;
        world.send(1, 1).await;
    }
    let follower = {
        let leader = world.leader().await;
        world
            .nodes
            .values()
            .find(|node| node.id != leader.id)
            .unwrap()
    };
    let refused = follower.group.transfer_leader(None, patience()).await;
    assert!(
        matches!(refused, Err(ProposeError::NotLeader { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_hands_leadership_over() {
    let mut world = World::three().await;
    world.send(1, 1).await;
    let leader = world.leader().await.id;
    let node = &world.nodes[&leader];
    let groups = node.groups.clone();
    groups.shutdown().await;
    assert!(groups.get(GROUP).is_none());
    let successor = world.leader_where(|node| node.id != leader).await.id;
    assert_ne!(successor, leader);
    let stopped = world.nodes[&leader]
        .group
        .propose(vec![letter(1, 2, 64)], patience())
        .await;
    assert_eq!(stopped, Err(ProposeError::Stopped));
    world.kill(leader, PowerLoss::KeepAll);
    assert_eq!(world.send(1, 2).await.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_brought_to_life_once() {
    let world = World::three().await;
    let node = &world.nodes[&NodeId(2)];
    let knows = |_: &World| node.group.status().members.len() == 3;
    world.until("it knows the members", knows).await;
    let members = node.group.status().members;
    let members: std::collections::BTreeMap<_, _> = members
        .into_iter()
        .map(|(replica, member, ..)| (replica, member))
        .collect();
    assert_eq!(members.len(), 3);
    let again = node.group.initialize(members).await;
    assert_eq!(again, Err(InitializeError::AlreadyInitialized));
    assert_eq!(node.group.replica(), replica(NodeId(2)));
}

/// Its figures may show no members for a moment; who goes by them takes the group for a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_again_knows_at_once_that_its_group_has_come_to_life() {
    let mut world = World::three().await;
    let disk = world.kill(NodeId(1), PowerLoss::DropUnsynced);
    world.start(NodeId(1), disk).await;
    world.start(NodeId(4), MemoryDisk::default()).await;
    let knows = async |node| world.nodes[&NodeId(node)].group.is_initialized().await;
    assert_eq!(knows(1).await, Ok(true));
    assert_eq!(knows(4).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_leader_sheds() {
    let settings = Settings {
        nodes: 1,
        overlay_budget_bytes: 64 * 1024,
        ..Settings::default()
    };
    let world = World::new(settings).await;
    let leader = world.leader().await;
    let mut counter = 0;
    let refused = loop {
        counter += 1;
        let soon = Instant::now() + Duration::from_secs(5);
        if let Err(error) = leader
            .group
            .propose(vec![letter(1, counter, 4096)], soon)
            .await
        {
            break error;
        }
        assert!(counter < 100, "never shed");
    };
    assert_eq!(refused, ProposeError::Overloaded);
    // Its log is far from asking for a checkpoint, but what waits in memory does.
    world.send(1, counter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_too_large_for_one_entry_keeps_its_order_over_several() {
    let world = World::three().await;
    let letters: Vec<_> = (1..=24).map(|counter| letter(1, counter, 90_000)).collect();
    let leader = world.leader().await;
    let replies = leader.group.propose(letters, patience()).await.unwrap();
    let places: Vec<u64> = replies.iter().map(|reply| sequence(reply).0).collect();
    assert_eq!(places, (1..=24).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_work_to_do_is_told_of_what_is_applied_and_where_codes_wait() {
    let world = World::three().await;
    let mut applied: Vec<_> = world
        .nodes
        .values()
        .map(|node| node.group.watch_applied())
        .collect();
    let opened = world.propose(vec![open_claim()]).await;
    assert_eq!(opened, [Ok(Outcome::ClaimOpened)]);
    for (node, applied) in world.nodes.values().zip(&mut applied) {
        let posted = timeout_at(patience(), node.group.codes_posted()).await;
        assert_eq!(posted.unwrap(), [partition()].into());
        timeout_at(patience(), applied.changed())
            .await
            .unwrap()
            .unwrap();
    }
}
