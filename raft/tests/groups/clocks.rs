//! Clocks that were wrong together and have been set right: the log's time is ahead of them, and the
//! group goes on from there.

use std::time::Duration;

use rossby_domain::Rejection;
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{Command, Expire, ProveReset, StartReset, VetoReset};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::NodeId;
use rossby_domain::time::{DAY_MS, Timestamp};
use rossby_raft::{Hours, ProposeError};
use rossby_seams::disk::PowerLoss;
use tokio::time::Instant;

use super::world::{NOON, Node, Settings, World, device, letter, partition, patience, queue};

const YEARS_AHEAD: Timestamp = NOON.plus_millis(10 * 365 * DAY_MS);
const A_MINUTE_LATER: Timestamp = NOON.plus_millis(60_000);

async fn lone_node() -> World {
    let world = World::new(Settings {
        nodes: 1,
        ..Settings::default()
    })
    .await;
    // So that mail may expire by the noon of the log.
    leader_who_knows_the_time(&world).await;
    world
}

fn hours(node: &Node) -> Option<Hours> {
    node.group.hours(node.group.led_term()?)
}

/// Has whoever leads cover its time; that time.
async fn cover(world: &World) -> Timestamp {
    let deadline = patience();
    loop {
        // Before it knows the log's time, a leader's is its own clock's.
        let leader = world
            .leader_where(|node| node.group.leads_surely() && hours(node).is_some())
            .await;
        let now = leader.group.service_time_by(deadline).await;
        let covered = leader.group.cover(partition(), now, deadline).await;
        if covered.is_ok() && hours(leader).is_some_and(|hours| hours.covered >= now) {
            return now;
        }
        assert!(Instant::now() < deadline, "never covered: {covered:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// It learns by what mail may expire a moment after it knows the service's time.
async fn leader_who_knows_the_time(world: &World) -> &Node {
    let knows = |node: &Node| node.group.leads_surely() && node.group.expires_by().is_some();
    world.leader_where(knows).await
}

fn expiry_clock(node: &Node) -> Timestamp {
    node.group.reader().times().unwrap().expiry_clock
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clocks_of_three_that_were_years_ahead_leave_a_group_that_serves_on() {
    let world = World::three().await;
    leader_who_knows_the_time(&world).await;
    world.send(1, 1).await;
    let expiry_before = expiry_clock(world.leader().await);
    for id in [NodeId(1), NodeId(2)] {
        world.nodes[&id].clock.set(YEARS_AHEAD);
    }
    world
        .leader_where(|node| node.group.leads_surely() && node.group.service_time() >= YEARS_AHEAD)
        .await;
    // Nothing but reads: the log is told all the same.
    let reached = cover(&world).await;
    assert!(reached >= YEARS_AHEAD);

    for node in world.nodes.values() {
        node.clock.set(A_MINUTE_LATER);
    }
    let next = cover(&world).await;
    assert!(next >= reached, "{next} after {reached}");
    assert!(next < reached.plus_millis(DAY_MS));
    assert_eq!(world.send(1, 2).await.0, 2);

    let old = world.leader().await;
    assert!(old.group.status().time_ahead_ms > 9 * 365 * DAY_MS);
    let term = old.group.led_term().unwrap();
    let covered = hours(old).unwrap().covered;
    old.group.transfer_leader(None, patience()).await.unwrap();
    let new = world
        .leader_where(|node| node.id != old.id && node.group.leads_surely())
        .await;
    new.group.linearize(patience()).await.unwrap();
    assert!(hours(new).unwrap().since >= covered);
    assert_eq!(old.group.hours(term), None);
    let last = cover(&world).await;
    assert!(last >= next);
    // No mail has expired by any of it, and what may is told by the clocks that are right.
    assert_eq!(queue(world.leader().await).await.len(), 2);
    assert_eq!(expiry_clock(new).max(A_MINUTE_LATER), A_MINUTE_LATER);
    assert!(expiry_clock(new) >= expiry_before);
    assert_eq!(new.group.status().expiry_blocked, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_node_goes_on_from_the_time_in_its_log_after_a_restart_too() {
    let mut world = lone_node().await;
    world.send(1, 1).await;
    world.leader().await.clock.set(YEARS_AHEAD);
    let reached = cover(&world).await;
    let disk = world.kill(NodeId(1), PowerLoss::DropUnsynced);
    world.start_at(NodeId(1), disk, A_MINUTE_LATER).await;
    let next = cover(&world).await;
    assert!(reached <= next && next < reached.plus_millis(DAY_MS));
    let leader = leader_who_knows_the_time(&world).await;
    assert!(hours(leader).unwrap().since >= reached);

    // Expiry goes by the clock that is right: a worker's command carries it, others do not.
    assert_eq!(leader.group.expires_by(), Some(A_MINUTE_LATER));
    world.send(1, 2).await;
    assert!(expiry_clock(leader) < A_MINUTE_LATER);
    let expire = Command::Expire(Expire { limit: 100 });
    world.propose(vec![(partition(), expire)]).await;
    assert_eq!(expiry_clock(leader), A_MINUTE_LATER);
    assert_eq!(queue(leader).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_a_reset_go_by_the_time_that_mail_expires_by_though_the_log_s_is_ahead() {
    for step in steps_of_a_reset() {
        let world = lone_node().await;
        let leader = world.leader().await;
        leader.clock.set(YEARS_AHEAD);
        cover(&world).await;
        leader.clock.set(A_MINUTE_LATER);
        let replies = world.propose(vec![(partition(), step)]).await;
        // There is nothing to reset, and that is all that is wrong with it.
        let refused = [
            Err(Rejection::NoCodeRequested),
            Err(Rejection::IdentifierChanged),
        ];
        assert!(refused.contains(&replies[0]), "{replies:?}");
        assert_eq!(expiry_clock(leader), A_MINUTE_LATER);
    }
}

/// Those that judge by it.
fn steps_of_a_reset() -> [Command; 3] {
    let identifier = IdentifierHash::from_bytes([1; 32]);
    let box_id = device().box_id;
    let prove = ProveReset {
        identifier,
        box_id,
        code: CodeMac([3; 32]),
    };
    let (start, veto) = (
        StartReset {
            identifier,
            box_id,
            serial: 1,
        },
        VetoReset {
            identifier,
            box_id,
            serial: 1,
        },
    );
    [
        Command::ProveReset(prove),
        Command::StartReset(start),
        Command::VetoReset(veto),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_was_only_shown_can_be_taken_back() {
    let world = lone_node().await;
    cover(&world).await;
    let leader = world.leader().await;
    leader.clock.set(YEARS_AHEAD);
    assert!(leader.group.service_time() >= YEARS_AHEAD);
    leader.clock.set(A_MINUTE_LATER);
    assert!(leader.group.service_time() < YEARS_AHEAD);
    assert!(cover(&world).await < YEARS_AHEAD);
    assert_eq!(leader.group.status().time_ahead_ms, 0);
}

/// A board without a battery boots in 1970.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_forgot_the_time_takes_the_log_s_and_lets_mail_expire_by_it() {
    let mut world = lone_node().await;
    world.send(1, 1).await;
    let disk = world.kill(NodeId(1), PowerLoss::DropUnsynced);
    world.start_at(NodeId(1), disk, Timestamp::default()).await;
    assert!(cover(&world).await >= NOON);
    let leader = leader_who_knows_the_time(&world).await;
    assert_eq!(leader.group.status().expiry_blocked, None);
    assert!(leader.group.expires_by() >= Some(NOON));
    world.send(1, 2).await;
    assert_eq!(queue(leader).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_covered_on_a_full_disk_since_reads_go_on_there() {
    let world = lone_node().await;
    let leader = world.leader().await;
    leader.disk.set_capacity(leader.disk.used_bytes());
    let full = async {
        for counter in 1..10_000 {
            let letter = vec![letter(1, counter, 50_000)];
            match leader.group.propose(letter, patience()).await {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        panic!("the disk is never full")
    };
    assert_eq!(full.await, ProposeError::DiskFull);
    for minutes in 1..=3 {
        let now = NOON.plus_millis(minutes * 60_000);
        leader.clock.set(now);
        leader
            .group
            .cover(partition(), now, patience())
            .await
            .unwrap();
        assert!(hours(leader).unwrap().covered >= now);
    }
}

/// It hands over; until then its own clock says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_out_of_step_stamps_no_time_of_its_own() {
    let world = World::three().await;
    cover(&world).await;
    let leader = world.leader().await;
    leader.clock.set(YEARS_AHEAD);
    assert!(leader.group.service_time() < NOON.plus_millis(DAY_MS));
    let until = NOON.plus_millis(1_000);
    let covered = leader.group.cover(partition(), until, patience()).await;
    // If it leads no more, it says so.
    assert!(
        matches!(
            covered,
            Ok(()) | Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum)
        ),
        "{covered:?}"
    );
    assert!(cover(&world).await < NOON.plus_millis(DAY_MS));
}
