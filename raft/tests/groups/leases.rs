//! Reads by the leader's lease: they cost nobody a word, and end with the lease, whatever ends it.

use std::time::Duration;

use bytes::Bytes;
use rossby_domain::ids::NodeId;
use rossby_raft::{Group, ProposeError, ReadCounts, ReadError, Timing};
use rossby_seams::disk::PowerLoss;
use rossby_seams::transport::Cut;
use tokio::time::Instant;

use super::world::{GROUP, Node, Settings, World, all_rest, letter, patience, queue, replica};

/// More than a lease lasts, in milliseconds.
const OVER_MS: u64 = 500;

async fn leased() -> World {
    World::new(Settings {
        lease_reads: true,
        ..Settings::default()
    })
    .await
}

/// The leader, once its lease is good. Its clock stands still, and the lease with it.
async fn leader(world: &World) -> &Node {
    world
        .leader_where(|node| node.group.leads_by_lease() && node.group.expires_by().is_some())
        .await
}

fn others(world: &World, leader: &Node) -> Vec<NodeId> {
    let all = world.nodes.keys().copied();
    all.filter(|node| *node != leader.id).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

fn more(group: &Group, before: ReadCounts) -> (u64, u64) {
    let now = group.read_counts();
    (
        now.by_lease - before.by_lease,
        now.by_quorum - before.by_quorum,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_by_the_lease_needs_no_other_node_and_ends_with_the_lease() {
    let world = leased().await;
    world.send(1, 1).await;
    let old = leader(&world).await;
    for other in others(&world, old) {
        world.network.cut_both(old.id, other, Cut::Silent);
    }
    let before = old.group.read_counts();
    for _ in 0..50 {
        assert_eq!(queue(old).await.len(), 1);
    }
    let (by_lease, by_quorum) = more(&old.group, before);
    assert_eq!((by_lease >= 50, by_quorum), (true, 0));

    old.clock.advance_millis(OVER_MS);
    let before = old.group.read_counts();
    let read = old.group.linearize(soon()).await;
    assert!(
        matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })),
        "{read:?}"
    );
    assert_eq!(more(&old.group, before), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_setting_a_quorum_is_asked() {
    let world = World::three().await;
    world.send(1, 1).await;
    let leader = leader(&world).await;
    let before = leader.group.read_counts();
    assert_eq!(queue(leader).await.len(), 1);
    let (by_lease, by_quorum) = more(&leader.group, before);
    assert_eq!((by_lease, by_quorum >= 1), (0, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hands_over_answers_by_its_lease_no_more() {
    let world = leased().await;
    let old = leader(&world).await;
    let to = others(&world, old)[0];
    // The successor hears of it late or never: the old leader can not know.
    world.network.cut_both(old.id, to, Cut::Silent);
    let before = old.group.read_counts();
    let given = Instant::now() + Duration::from_millis(200);
    let handed = old.group.transfer_leader(Some(to), given).await;
    assert!(
        matches!(handed, Err(ProposeError::Unknown)) || handed.is_ok_and(|new| new.node != old.id),
    );
    assert!(!old.group.leads_by_lease());
    let read = old.group.linearize(soon()).await;
    assert!(read.is_err(), "{read:?}");
    let (by_lease, _) = more(&old.group, before);
    assert_eq!(by_lease, 0);
    world.network.heal();
    world.send(1, 1).await;
}

/// The leader after this one, which is cut off. Its clock shows what passes, so that the lease ends before the others elect.
async fn deposed<'w>(world: &'w World, old: &Node) -> &'w Node {
    let began = Instant::now();
    let mut shown = 0;
    loop {
        let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
        old.clock.advance_millis(passed - shown);
        shown = passed;
        let mut others = world.nodes.values().filter(|node| node.id != old.id);
        if let Some(new) = others.find(|node| node.group.leads_surely()) {
            return new;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nobody leads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_never_answers_with_what_was_the_latest_once() {
    let world = leased().await;
    world.send(1, 1).await;
    let old = leader(&world).await;
    for other in others(&world, old) {
        world.network.cut_both(old.id, other, Cut::Silent);
    }
    let new = deposed(&world, old).await;
    let sent = new.group.propose(vec![letter(1, 2, 64)], patience()).await;
    sent.unwrap();
    for _ in 0..20 {
        let read = old.group.linearize(soon()).await;
        assert!(
            matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })),
            "{read:?}"
        );
    }
    world.network.heal();
}

/// What a replica answers to a ballot (version 1, a call, the fourth request from the top) for a far term and a longer log than
/// anybody has: whether it grants it.
async fn votes_for(world: &World, candidate: NodeId, voter: NodeId) -> Option<bool> {
    let transport = world.network.transport(candidate);
    let link = transport.connect(voter, "").await.ok()?;
    let vote = [
        &1_000_u64.to_be_bytes()[..],
        &replica(candidate).0.to_be_bytes(),
        &[0],
    ];
    let log = [&[1][..], &999_u64.to_be_bytes(), &999_u64.to_be_bytes()];
    let to = [&GROUP.0.to_be_bytes()[..], &replica(voter).0.to_be_bytes()];
    let ballot = [&to.concat()[..], &[2], &vote.concat(), &log.concat(), &[0]];
    let call = [&[1, 1][..], &[0; 8], &ballot.concat()].concat();
    link.outgoing.send(Bytes::from(call)).await.ok()?;
    let mut incoming = link.incoming;
    let _hello = incoming.recv().await?;
    let answer = incoming.recv().await?;
    // Version, kind, id, "it went well", "a vote", the vote: then whether it is granted.
    assert_eq!(answer[10..12], [0, 2], "{answer:?}");
    Some(answer[12 + 17] == 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_again_votes_for_nobody_at_first() {
    let mut world = leased().await;
    let leader = leader(&world).await.id;
    let all: Vec<NodeId> = world.nodes.keys().copied().collect();
    let [voter, candidate] = all
        .into_iter()
        .filter(|node| *node != leader)
        .collect::<Vec<_>>()[..]
    else {
        panic!("not three nodes");
    };
    // It hears from its leader no more, and has just promised it not to vote for another.
    world.network.cut_both(leader, voter, Cut::Broken);
    let disk = world.kill(voter, PowerLoss::KeepAll);
    let starts = Instant::now();
    world.start(voter, disk).await;
    while votes_for(&world, candidate, voter).await != Some(true) {
        assert!(starts.elapsed() < Duration::from_secs(30), "never votes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // As long as a lease may last that rests on it, and longer.
    assert!(starts.elapsed() >= Timing::lan().election_min);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_at_rest_has_no_lease_for_long_and_asks_a_quorum_once_it_wakes() {
    let world = leased().await;
    world.send(1, 1).await;
    let until = patience();
    loop {
        let leader = leader(&world).await;
        all_rest(&world).await;
        // Beats say that it leads, and renew no lease.
        leader.clock.advance_millis(OVER_MS);
        let before = leader.group.read_counts();
        leader.group.linearize(patience()).await.unwrap();
        if more(&leader.group, before) == (0, 1) {
            break;
        }
        // A beat that came late wakes a group, and then it has a lease.
        assert!(
            Instant::now() < until,
            "by the lease of before, whenever it rests"
        );
    }
    // Awake it has one again.
    world.leader_where(|node| node.group.leads_by_lease()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_deposed_while_its_group_rested_never_answers_with_what_was_the_latest_once()
 {
    for how in [Cut::Silent, Cut::Broken] {
        let world = leased().await;
        world.send(1, 1).await;
        let old = leader(&world).await;
        all_rest(&world).await;
        for other in others(&world, old) {
            world.network.cut_both(old.id, other, how);
        }
        let new = deposed(&world, old).await;
        let sent = new.group.propose(vec![letter(1, 2, 64)], patience()).await;
        sent.unwrap();
        let before = old.group.read_counts();
        for _ in 0..20 {
            let read = old.group.linearize(soon()).await;
            assert!(
                matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })),
                "{read:?}"
            );
        }
        assert_eq!(more(&old.group, before), (0, 0));
        world.network.heal();
        // Whoever leads from now on shows both.
        let leads = world.leader().await;
        assert_eq!(queue(leads).await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_promise_differently_do_not_speak_to_each_other_and_say_why() {
    let mut world = leased().await;
    world.send(1, 1).await;
    let old = leader(&world).await;
    let (leader, hasty) = (old.id, others(&world, old)[0]);
    let term = old.group.status().term;

    let disk = world.kill(hasty, PowerLoss::KeepAll);
    world.timing = Timing {
        heartbeat: Duration::from_millis(20),
        election_min: Duration::from_millis(50),
        election_max: Duration::from_millis(100),
    };
    world.start(hasty, disk).await;
    let says_why = |node: NodeId, of: NodeId| {
        let trouble = world.nodes[&node].group.status().trouble;
        let mut of_it = trouble.iter().filter(|(about, ..)| **about == replica(of));
        of_it.any(|(_, why)| why.contains("raft.election_min_ms is"))
    };
    world
        .until("both sides say why", |_| {
            says_why(leader, hasty) && says_why(hasty, leader)
        })
        .await;
    assert_eq!(world.send(1, 2).await.0, 2);
    // Many of its election timeouts later nobody has followed it.
    let until = Instant::now() + Duration::from_secs(2);
    world
        .until("it would have been elected", |_| Instant::now() > until)
        .await;
    assert!(world.nodes[&leader].group.leads_surely());
    assert_eq!(world.nodes[&leader].group.status().term, term);

    let disk = world.kill(hasty, PowerLoss::KeepAll);
    world.timing = Timing::lan();
    world.start(hasty, disk).await;
    world.same_everywhere().await;
}
