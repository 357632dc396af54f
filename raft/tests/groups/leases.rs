//! Reads by the leader's lease: they cost nobody a word, and end with the lease, whatever ends it.

use std::time::Duration;

use bytes::Bytes;
use rossby_domain::ids::NodeId;
use rossby_raft::{Group, ProposeError, ReadCounts, ReadError, Timing};
use rossby_seams::disk::PowerLoss;
use rossby_seams::transport::Cut;
use tokio::time::Instant;

use super::world::{GROUP, Node, Settings, World, letter, patience, queue, replica};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_never_answers_with_what_was_the_latest_once() {
    let world = leased().await;
    world.send(1, 1).await;
    let old = leader(&world).await;
    for other in others(&world, old) {
        world.network.cut_both(old.id, other, Cut::Silent);
    }
    // Its clock shows what passes, so that the lease ends before the others elect.
    let began = Instant::now();
    let mut shown = 0;
    let new = loop {
        let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
        old.clock.advance_millis(passed - shown);
        shown = passed;
        let new = world
            .nodes
            .values()
            .find(|node| node.id != old.id && node.group.leads_surely());
        if let Some(new) = new {
            break new;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nobody leads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
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
