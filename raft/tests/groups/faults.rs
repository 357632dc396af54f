//! What a group does when nodes, networks, clocks and disks fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rossby_domain::ids::NodeId;
use rossby_raft::{CheckpointError, Leadership, ProposeError, ReadError};
use rossby_seams::disk::PowerLoss;
use rossby_seams::transport::Cut;
use tokio::time::Instant;

use super::world::{NOON, Node, Settings, World, letter, patience, queue, sequence};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_refuses_in_time_and_the_others_go_on_and_all_heal() {
    for silent in [false, true] {
        let world = World::three().await;
        assert_eq!(world.send(1, 1).await.0, 1);
        let old = world.leader().await;
        if silent {
            for other in world.nodes.keys().filter(|other| **other != old.id) {
                world.network.cut_both(old.id, *other, Cut::Silent);
            }
        } else {
            world.network.isolate(old.id);
        }
        // At first it can not know; then it says so before trying.
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut refused = old.group.propose(vec![letter(2, 1, 64)], deadline).await;
        while refused == Err(ProposeError::Unknown) {
            let deadline = Instant::now() + Duration::from_secs(3);
            refused = old.group.propose(vec![letter(2, 1, 64)], deadline).await;
        }
        assert!(
            matches!(
                refused,
                Err(ProposeError::NoQuorum | ProposeError::NotLeader { .. })
            ),
            "{refused:?}"
        );
        let read = old
            .group
            .linearize(Instant::now() + Duration::from_secs(3))
            .await;
        assert!(
            matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })),
            "{read:?}"
        );
        assert!(!old.group.leads_surely());

        let new = world
            .leader_where(|node| node.id != old.id && node.group.leads_surely())
            .await;
        let replies = new
            .group
            .propose(vec![letter(1, 2, 64)], patience())
            .await
            .unwrap();
        assert_eq!(sequence(&replies[0]).0, 2);

        world.network.heal();
        world
            .until("the old leader follows", |_| {
                matches!(old.group.leadership(), Leadership::Elsewhere(_))
            })
            .await;
        world.send(1, 3).await;
        let letters = queue(world.leader().await).await;
        let own: Vec<u64> = letters
            .iter()
            .filter(|letter| letter.0 == 1)
            .map(|letter| letter.1)
            .collect();
        assert_eq!(own, [1, 2, 3]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_does_not_depose_the_leader() {
    let world = World::three().await;
    let leader = world.leader().await;
    let term = leader.group.status().term;
    let cut_off = world
        .nodes
        .values()
        .find(|node| node.id != leader.id)
        .unwrap();
    world.network.isolate(cut_off.id);
    // It gives its leader up, and may campaign as often as it likes.
    world
        .until("the node misses its leader", |_| {
            cut_off.group.leadership() == Leadership::Unknown
        })
        .await;
    world.send(1, 1).await;
    world.network.heal();
    world
        .until("the node follows", |_| {
            cut_off.group.status().applied_index == leader.group.status().applied_index
                && matches!(cut_off.group.leadership(), Leadership::Elsewhere(_))
        })
        .await;
    assert_eq!(leader.group.status().term, term);
    assert!(matches!(leader.group.leadership(), Leadership::Here { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_on_all_nodes_at_once_loses_nothing_that_was_answered() {
    let sync_delay = Duration::from_millis(5);
    let settings = Settings {
        sync_delay,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    let rounds: u64 = if std::env::var_os("ROSSBY_LONG").is_some() {
        20
    } else {
        3
    };
    let answered: Arc<Mutex<BTreeMap<(u8, u64), u64>>> = Arc::default();
    let mut next = 1;
    for round in 0..rounds {
        let leader = world.leader().await.group.clone();
        let senders = (1..=4u8).map(|sender| {
            let (leader, answered) = (leader.clone(), answered.clone());
            tokio::spawn(async move {
                for counter in next.. {
                    let soon = Instant::now() + Duration::from_secs(3);
                    let reply = leader
                        .propose(vec![letter(sender, counter, 200)], soon)
                        .await;
                    let Ok(replies) = reply else { return counter };
                    let place = sequence(&replies[0]).0;
                    answered.lock().insert((sender, counter), place);
                }
                unreachable!("counters do not end")
            })
        });
        let senders: Vec<_> = senders.collect();
        let wanted = answered.lock().len() + 40;
        world
            .until("some letters are answered", |_| {
                answered.lock().len() >= wanted
            })
            .await;

        let loss = match round % 2 {
            0 => PowerLoss::DropUnsynced,
            _ => PowerLoss::KeepSome { seed: round },
        };
        let disks: Vec<_> = world
            .nodes
            .values()
            .map(|node| (node.id, node.disk.crash(loss)))
            .collect();
        for node in 1..=3 {
            world.kill(NodeId(node), PowerLoss::DropUnsynced);
        }
        next = join_all(senders)
            .await
            .into_iter()
            .map(Result::unwrap)
            .max()
            .unwrap();
        for (node, disk) in disks {
            world.start(node, disk).await;
        }

        let letters = queue(world.leader().await).await;
        let found: BTreeMap<_, _> = letters.iter().map(|l| ((l.0, l.1), l.2)).collect();
        assert_eq!(found.len(), letters.len(), "a letter is there twice");
        for (letter, place) in answered.lock().iter() {
            assert_eq!(found.get(letter), Some(place), "answered letter {letter:?}");
        }
        for sender in 1..=4u8 {
            let own = letters.iter().filter(|letter| letter.0 == sender);
            assert!(
                own.is_sorted_by_key(|letter| (letter.1, letter.2)),
                "order of {sender}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_the_purged_log_is_sent_the_checkpoint() {
    // Small enough that a laggard can not hold the log back.
    let settings = Settings {
        checkpoint_log_bytes: 4 * 1024,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    let leader = world.leader().await.id;
    let laggard = *world.nodes.keys().find(|node| **node != leader).unwrap();
    let disk = world.kill(laggard, PowerLoss::KeepAll);
    let mut counter = 0;
    loop {
        counter += 1;
        world.send(1, counter).await;
        let status = world.leader().await.group.status();
        if status.checkpoint_index > status.applied_index.map(|applied| applied / 2)
            && counter > 200
        {
            break;
        }
    }
    let checkpoint = world.leader().await.group.checkpoint().await.unwrap();
    world
        .until("the log is purged", |world| {
            world
                .nodes
                .values()
                .all(|node| node.group.status().purged_index > Some(100))
        })
        .await;
    world.start(laggard, disk).await;
    world
        .until("the laggard has all", |world| {
            let status = world.nodes[&laggard].group.status();
            status.applied_index >= Some(checkpoint) && status.checkpoint_index.is_some()
        })
        .await;
    world.send(1, counter + 1).await;
    let leader = world.leader().await;
    let all = queue(leader).await;
    assert_eq!(all.len() as u64, counter + 1);
    if leader.id != laggard {
        leader
            .group
            .transfer_leader(Some(laggard), patience())
            .await
            .unwrap();
    }
    let laggard = world.leader_where(|node| node.id == laggard).await;
    assert_eq!(queue(laggard).await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_wrong_clock_stops_stamping_and_hands_over() {
    let world = World::three().await;
    world.send(1, 1).await;
    let leader = world.leader().await;
    leader.clock.set(NOON.plus_millis(60_000));
    let soon = Instant::now() + Duration::from_secs(3);
    let refused = leader.group.propose(vec![letter(1, 2, 64)], soon).await;
    assert!(
        matches!(
            refused,
            Err(ProposeError::ClockUnsafe | ProposeError::NotLeader { .. })
        ),
        "{refused:?}"
    );
    let successor = world.leader_where(|node| node.id != leader.id).await;
    assert_ne!(successor.id, leader.id);
    assert_eq!(world.send(1, 2).await.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reign_begins_no_earlier_than_what_the_leader_before_has_stamped() {
    let world = World::three().await;
    let old = world.leader().await;
    // Ahead of the others, but in step.
    let ahead = NOON.plus_millis(8_000);
    old.clock.set(ahead);
    world.send(1, 1).await;
    let soon = Instant::now() + Duration::from_secs(20);
    old.group.transfer_leader(None, soon).await.unwrap();
    let new = world.leader_where(|node| node.id != old.id).await;
    new.group.linearize(soon).await.unwrap();
    let term = new.group.led_term().unwrap();
    assert!(new.group.hours(term).unwrap().since >= ahead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_a_peer_breaks_its_link_and_nothing_else() {
    let world = World::three().await;
    let leader = world.leader().await;
    let stranger = world.network.transport(NodeId(9));
    world.network.register(NodeId(9), leader.groups.clone());
    for byte in 0..=255u8 {
        let link = stranger.connect(leader.id, "").await.unwrap();
        let mut incoming = link.incoming;
        link.outgoing
            .send(Bytes::from(vec![byte; usize::from(byte)]))
            .await
            .unwrap();
        let _hello = incoming.recv().await;
        assert_eq!(incoming.recv().await, None);
    }
    assert_eq!(world.send(1, 1).await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_no_answers_is_cut_off() {
    let world = World::three().await;
    let leader = world.leader().await;
    let stranger = world.network.transport(NodeId(9));
    world.network.register(NodeId(9), leader.groups.clone());
    let link = stranger.connect(leader.id, "").await.unwrap();
    // Version 1, a call, its id, nobody in particular, "what time is it?".
    let call = [&[1, 1][..], &[0; 8], &[0; 12], &[8]].concat();
    let asking = async { while link.outgoing.send(Bytes::from(call.clone())).await.is_ok() {} };
    tokio::time::timeout_at(patience(), asking).await.unwrap();
    assert_eq!(world.send(1, 1).await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_disk_stops_the_replica_and_says_why() {
    let world = World::three().await;
    let leader = world.leader().await;
    leader.disk.stop_at_mutation(leader.disk.mutations() + 1);
    let soon = Instant::now() + Duration::from_secs(3);
    let lost = leader.group.propose(vec![letter(1, 1, 64)], soon).await;
    assert!(
        matches!(
            lost,
            Ok(_) | Err(ProposeError::Unknown | ProposeError::Stopped)
        ),
        "{lost:?}"
    );
    world
        .until("the replica stopped", |_| {
            leader.group.status().role == "stopped"
        })
        .await;
    assert!(leader.group.status().failure.is_some());
    let refused = leader
        .group
        .propose(vec![letter(1, 1, 64)], patience())
        .await;
    assert_eq!(refused, Err(ProposeError::Stopped));
    assert_eq!(
        leader.group.linearize(patience()).await,
        Err(ReadError::Stopped)
    );
    // From this or the first try.
    assert_eq!(world.send(1, 1).await.0, 1);
}

/// Sends letters until the disk is full; how many were answered.
async fn fill_the_disk(leader: &Node) -> u64 {
    leader.disk.set_capacity(leader.disk.used_bytes());
    let mut answered = 0;
    let refused = loop {
        let soon = Instant::now() + Duration::from_secs(5);
        let letters = vec![letter(1, answered + 1, 50_000)];
        match leader.group.propose(letters, soon).await {
            Ok(replies) => answered = sequence(&replies[0]).0,
            Err(error) => break error,
        }
        assert!(answered < 10_000, "the disk is never full");
    };
    assert_eq!(refused, ProposeError::DiskFull);
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers_when_there_is_space_again() {
    let settings = Settings {
        nodes: 1,
        ..Settings::default()
    };
    let world = World::new(settings).await;
    let leader = world.leader().await;
    let answered = fill_the_disk(leader).await;
    assert_eq!(
        leader.group.checkpoint().await,
        Err(CheckpointError::DiskFull)
    );
    assert_eq!(queue(leader).await.len() as u64, answered, "reads go on");

    leader.disk.set_capacity(u64::MAX);
    assert_eq!(world.send(1, answered + 1).await.0, answered + 1);
    assert!(leader.group.checkpoint().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_elected_while_its_disk_is_full_does_not_stop() {
    let mut world = World::new(Settings {
        nodes: 1,
        ..Settings::default()
    })
    .await;
    let leader = world.leader().await;
    let answered = fill_the_disk(leader).await;

    // What a new leader says of itself goes into the log too, small as it is.
    let id = leader.id;
    let disk = world.kill(id, PowerLoss::KeepAll);
    let used = disk.used_bytes();
    // Room for the small files of a start, and for no segment of the log.
    disk.set_capacity(used + 64 * 1024);
    world.start(id, disk).await;
    let leader = world.leader().await;
    leader.group.linearize(patience()).await.unwrap();
    assert_eq!(queue(leader).await.len() as u64, answered, "reads go on");
    let soon = Instant::now() + Duration::from_secs(5);
    let refused = leader
        .group
        .propose(vec![letter(1, answered + 1, 64)], soon);
    assert_eq!(refused.await, Err(ProposeError::DiskFull));

    leader.disk.set_capacity(u64::MAX);
    assert_eq!(world.send(1, answered + 1).await.0, answered + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lost_its_tail_to_power_loss_does_not_lead_on_without_it() {
    let mut world = World::three().await;
    let slow = NodeId(2);
    let disk = world.kill(slow, PowerLoss::KeepAll);
    world.settings.sync_delay = Duration::from_millis(100);
    world.start(slow, disk).await;
    // Another may win while the slow one saves its vote.
    let leader = loop {
        world.send(1, 1).await;
        let leader = world.leader().await;
        if leader.id == slow {
            break leader;
        }
        let _ = leader.group.transfer_leader(Some(slow), patience()).await;
    };
    // Answered by the fsync of the other two, while the leader's own is still under way.
    let letters = (1..=5).map(|counter| {
        leader
            .group
            .propose(vec![letter(2, counter, 64)], patience())
    });
    for replies in join_all(letters).await {
        sequence(&replies.unwrap()[0]);
    }
    let disk = world.nodes[&slow].disk.crash(PowerLoss::DropUnsynced);
    world.kill(slow, PowerLoss::DropUnsynced);
    world.start(slow, disk).await;
    for counter in 6..=10 {
        world.send(2, counter).await;
    }
    let letters = queue(world.leader().await).await;
    let own: Vec<u64> = letters
        .iter()
        .filter(|letter| letter.0 == 2)
        .map(|letter| letter.1)
        .collect();
    assert_eq!(own, (1..=10).collect::<Vec<u64>>());
    world.same_everywhere().await;
}
