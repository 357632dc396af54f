//! A clock far ahead of the log: all goes on, but no mail expires before somebody says that it is right.

use rossby_domain::command::{Command, Expire, Outcome};
use rossby_domain::ids::{NodeId, Sequence};
use rossby_domain::time::{DAY_MS, Timestamp};
use rossby_domain::{Answer, Query};
use rossby_raft::{ClockJump, ProposeError, ReadError};
use rossby_seams::disk::PowerLoss;

use super::world::{NOON, Node, Settings, World, device, letter, partition, patience, queue};

/// When a letter of noon has long expired.
const LATER: Timestamp = NOON.plus_millis(40 * DAY_MS);

impl World {
    /// Kills all nodes and starts them again, with their clocks at `now`; the leader knows the time.
    async fn restart_at(&mut self, now: Timestamp) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        let disks: Vec<_> = nodes
            .into_iter()
            .map(|id| (id, self.kill(id, PowerLoss::DropUnsynced)))
            .collect();
        for (id, disk) in disks {
            self.start_at(id, disk, now).await;
        }
        self.leader_who_knows_the_time().await;
    }

    async fn leader_who_knows_the_time(&self) -> &Node {
        self.leader_where(|node| {
            let blocked = node.group.status().expiry_blocked.is_some();
            node.group.leads_surely() && (blocked || node.group.expires_by().is_some())
        })
        .await
    }

    fn set_clocks(&self, now: Timestamp) {
        for node in self.nodes.values() {
            node.clock.set(now);
        }
    }

    /// Removes what has expired; how many rows that were.
    async fn expire(&self) -> u32 {
        let expire = Command::Expire(Expire { limit: 100 });
        let replies = self.propose(vec![(partition(), expire)]).await;
        match replies.as_slice() {
            [Ok(Outcome::Expired { removed, .. })] => *removed,
            other => panic!("{other:?}"),
        }
    }
}

async fn with_a_letter(nodes: u64) -> World {
    let world = World::new(Settings {
        nodes,
        ..Settings::default()
    })
    .await;
    // So that mail may expire by the noon of the log.
    world.leader_who_knows_the_time().await;
    world.send(1, 1).await;
    world
}

/// All that a jump does and undoes, in a group of this many nodes.
async fn a_jump_blocks_expiry_until_it_is_confirmed(nodes: u64) {
    let mut world = with_a_letter(nodes).await;
    world.restart_at(LATER).await;

    let leader = world.leader_who_knows_the_time().await;
    let jump = ClockJump {
        last: NOON,
        now: LATER,
    };
    assert_eq!(leader.group.status().expiry_blocked, Some(jump));
    assert!(leader.group.expires_by().is_none());
    // Letters come and go, and none is hidden.
    world.send(1, 2).await;
    assert_eq!(queue(leader).await, [(1, 1, 1), (1, 2, 2)]);
    assert_eq!(world.expire().await, 0);

    // What was written meanwhile is no word on the time: it is asked for again.
    world.restart_at(LATER).await;
    let leader = world.leader_who_knows_the_time().await;
    assert_eq!(leader.group.status().expiry_blocked, Some(jump));
    assert_eq!(queue(leader).await, [(1, 1, 1), (1, 2, 2)]);

    let confirmed = leader.group.confirm_time(patience()).await;
    assert_eq!(confirmed, Ok(Some(jump)));
    assert_eq!(leader.group.status().expiry_blocked, None);
    assert_eq!(queue(leader).await, [(1, 2, 2)]);
    assert!(world.expire().await >= 1);
    assert_eq!(leader.group.confirm_time(patience()).await, Ok(None));

    // A command by the confirmed time has made it last.
    world.restart_at(LATER.plus_millis(DAY_MS)).await;
    let leader = world.leader_who_knows_the_time().await;
    assert_eq!(leader.group.status().expiry_blocked, None);
    assert_eq!(queue(leader).await, [(1, 2, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_node_whose_clock_jumped_expires_nothing_until_it_is_confirmed() {
    a_jump_blocks_expiry_until_it_is_confirmed(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_whose_clocks_jumped_expire_nothing_until_it_is_confirmed() {
    a_jump_blocks_expiry_until_it_is_confirmed(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_of_rest_is_no_jump_also_if_only_the_log_knows_the_time() {
    let mut world = with_a_letter(1).await;
    world.restart_at(NOON.plus_millis(7 * DAY_MS)).await;
    let leader = world.leader_who_knows_the_time().await;
    assert_eq!(leader.group.status().expiry_blocked, None);
    // The second week begins where the last command was.
    world.send(1, 2).await;
    world.restart_at(NOON.plus_millis(14 * DAY_MS)).await;
    let leader = world.leader_who_knows_the_time().await;
    assert!(leader.group.expires_by().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_while_its_node_leads_expires_nothing_and_heals_when_set_right() {
    let world = with_a_letter(1).await;
    world.set_clocks(LATER);
    let leader = world.leader().await;
    assert!(leader.group.expires_by().is_none());
    world.send(1, 2).await;
    assert_eq!(world.expire().await, 0);
    assert_eq!(queue(leader).await, [(1, 1, 1), (1, 2, 2)]);
    // What was stamped with the wrong time hides nothing later.
    world.set_clocks(NOON.plus_millis(DAY_MS));
    assert!(leader.group.expires_by().is_some());
    world.send(1, 3).await;
    world.expire().await;
    assert_eq!(queue(leader).await.len(), 3);
}

/// By less than what is a jump, so that nothing but the other clocks can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_own_clock_alone_is_ahead_hides_no_letter() {
    let world = with_a_letter(3).await;
    let (partition, mut command) = letter(1, 2, 64);
    if let Command::Enqueue(enqueue) = &mut command {
        enqueue.ttl_ms = Some(60_000);
    }
    world.propose(vec![(partition, command)]).await;
    let leader = world.leader_who_knows_the_time().await;
    assert_eq!(queue(leader).await, [(1, 1, 1), (1, 2, 2)]);
    leader.clock.set(NOON.plus_millis(3_600_000));
    let query = Query::Fetch {
        device: device(),
        after: Sequence(0),
        max_envelopes: 10,
        max_bytes: 1 << 20,
    };
    match leader.group.read(partition, &query, patience()).await {
        Ok(Answer::Page(Some(page))) => assert_eq!(page.envelopes.len(), 2),
        // It hands over as soon as it notices.
        Err(ReadError::NotLeader { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_takes_a_confirmation() {
    let world = with_a_letter(3).await;
    let leader = world.leader().await.id;
    let follower = world.nodes.values().find(|node| node.id != leader).unwrap();
    let refused = follower.group.confirm_time(patience()).await;
    assert!(
        matches!(refused, Err(ProposeError::NotLeader { .. })),
        "{refused:?}"
    );
}
