//! What a group does when its members change, and those who change them die.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::{NodeId, ReplicaId};
use rossby_raft::{Advance, ChangeError, Group, Newcomer, Newcomers, Order, Refused};
use rossby_seams::disk::{MemoryDisk, PowerLoss};
use rossby_storage::wal::{Wal, WalError};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::world::{
    GROUP, NOON, Node, Settings, WAL, World, letter, member, patience, queue, replica,
};

pub fn add(node: u64) -> Order {
    Order::Add(vec![member(NodeId(node))])
}

fn remove(node: NodeId) -> Order {
    Order::Remove {
        nodes: [node].into(),
        half_added_only: false,
    }
}

/// The answer of a node that belongs to no cluster.
fn free(node: u64) -> Newcomers {
    [(NodeId(node), Newcomer::Free)].into()
}

pub fn replace(old: NodeId, new: u64) -> Order {
    let new = member(NodeId(new));
    Order::Replace { old, new }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

/// Long enough to see that somebody does not answer.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(15)
}

impl World {
    /// Gives an order until it is done or refused, as an operator would; the number of voters.
    pub async fn order(&mut self, order: &Order) -> Result<usize, Refused> {
        let deadline = patience();
        let mut newcomers = Newcomers::new();
        loop {
            assert!(
                Instant::now() < deadline,
                "never done: {order:?} {:?}",
                self.status()
            );
            let leader = self.leader().await.group.clone();
            match leader.advance(order, &newcomers, later()).await {
                Ok(Advance::Ask) => newcomers = self.newcomers(order),
                Ok(Advance::Invite { replica, member }) => {
                    let disk = MemoryDisk::default();
                    self.start_as(member.node, replica, disk, NOON).await;
                    newcomers.remove(&member.node);
                }
                Ok(Advance::Done { voters, .. }) => return Ok(voters),
                Err(ChangeError::Refused(refused)) => return Err(refused),
                Ok(Advance::CatchingUp { .. } | Advance::HandedOver { .. }) | Err(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    /// What runs at the newcomer's address: a node of this world, or one that waits.
    fn newcomers(&self, order: &Order) -> Newcomers {
        let answer = |node: NodeId| match self.nodes.get(&node) {
            Some(node) => Newcomer::Holds(node.group.replica()),
            None => Newcomer::Free,
        };
        let new = order.newcomers().iter();
        new.map(|new| (new.node, answer(new.node))).collect()
    }

    /// A node that does not lead.
    async fn follower(&self) -> &Node {
        let leader = self.leader().await.id;
        self.nodes.values().find(|node| node.id != leader).unwrap()
    }

    /// Waits until a node has applied who the members are: whom it then asks what became of it.
    async fn acquainted(&self, node: NodeId) {
        self.until("the node knows the members", |world| {
            let status = world.nodes[&node].group.status();
            status.applied_index.is_some() && !status.members.is_empty()
        })
        .await;
    }

    /// Waits until these nodes are the members, each with a vote, as all of them see it.
    async fn settled(&self, nodes: &[u64]) {
        let expected: Vec<_> = nodes.iter().map(|node| (NodeId(*node), true)).collect();
        let sees = |node: &u64| {
            let status = self.nodes[&NodeId(*node)].group.status();
            let members = status.members.iter();
            let mut members: Vec<_> = members
                .map(|(_, member, voter, _)| (member.node, *voter))
                .collect();
            members.sort_unstable();
            !status.joint && members == expected
        };
        self.until("the members are as ordered", |_| nodes.iter().all(sees))
            .await;
    }
}

/// Somebody who sends letters to whichever replica takes them, one after the other.
pub struct Sender {
    groups: Arc<Mutex<Vec<Arc<Group>>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Sender {
    fn start() -> Self {
        Self::at_the_pace_of(Duration::from_millis(1))
    }

    /// With such a pause after each letter.
    pub fn at_the_pace_of(pause: Duration) -> Self {
        let groups: Arc<Mutex<Vec<Arc<Group>>>> = Arc::default();
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (all, stopped, count) = (groups.clone(), stop.clone(), answered.clone());
        let task = tokio::spawn(async move {
            let mut counter = 1;
            while !stopped.load(Ordering::SeqCst) {
                let everybody = all.lock().clone();
                for group in everybody {
                    let sent = group.propose(vec![letter(1, counter, 64)], soon()).await;
                    if matches!(sent.as_deref(), Ok([Ok(_)])) {
                        count.store(counter, Ordering::SeqCst);
                        counter += 1;
                        break;
                    }
                }
                tokio::time::sleep(pause).await;
            }
        });
        Self {
            groups,
            stop,
            answered,
            task,
        }
    }

    /// Tells it who there is now, and waits until letters get through.
    pub async fn meet(&self, world: &World) {
        *self.groups.lock() = world
            .nodes
            .values()
            .map(|node| node.group.clone())
            .collect();
        let before = self.answered.load(Ordering::SeqCst);
        world
            .until("letters get through", |_| {
                self.answered.load(Ordering::SeqCst) > before + 2
            })
            .await;
    }

    /// Ends it; how many letters were answered.
    pub async fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.answered.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_grows_changes_and_shrinks_under_load_and_loses_no_letter() {
    let settings = Settings {
        nodes: 1,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    let sender = Sender::start();
    sender.meet(&world).await;
    for (node, voters) in [(2, 2), (3, 3)] {
        assert_eq!(world.order(&add(node)).await, Ok(voters));
        sender.meet(&world).await;
    }
    // Again: nothing changes.
    assert_eq!(world.order(&add(3)).await, Ok(3));
    // A dead one is replaced.
    let dead = world.follower().await.id;
    world.kill(dead, PowerLoss::DropUnsynced);
    assert_eq!(world.order(&replace(dead, 4)).await, Ok(3));
    sender.meet(&world).await;
    // The leader goes, twice, until one is left.
    for voters in [2, 1] {
        let leader = world.leader().await.id;
        assert_eq!(world.order(&remove(leader)).await, Ok(voters));
        let gone = world.nodes.remove(&leader).unwrap();
        let ended = tokio::time::timeout_at(patience(), gone.group.dismissed()).await;
        assert!(ended.is_ok(), "the removed replica goes on");
        sender.meet(&world).await;
        world.nodes.insert(leader, gone);
        world.kill(leader, PowerLoss::KeepAll);
    }
    let answered = sender.end().await;
    let last = world.leader().await;
    let letters = queue(last).await;
    let counters: Vec<u64> = letters.iter().map(|letter| letter.1).collect();
    let all: Vec<u64> = (1..=counters.len() as u64).collect();
    assert_eq!(counters, all, "the queue has gaps");
    assert!(all.len() as u64 >= answered, "an answered letter is lost");
    let node = last.id;
    assert_eq!(
        world.order(&remove(node)).await,
        Err(Refused::LastVoter { node })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_cut_off_when_it_was_removed_ends_for_good_and_disturbs_nobody() {
    let mut world = World::three().await;
    let gone = world.follower().await.id;
    world.acquainted(gone).await;
    world.network.isolate(gone);
    assert_eq!(world.order(&remove(gone)).await, Ok(2));
    world.send(1, 1).await;
    assert!(!world.nodes[&gone].group.is_dismissed());
    world.network.heal();
    let removed = &world.nodes[&gone];
    let ended = tokio::time::timeout_at(patience(), removed.group.dismissed()).await;
    assert!(ended.is_ok(), "it goes on: {:?}", removed.group.status());
    assert_eq!(removed.group.status().role, "removed");
    world.send(1, 2).await;
    // Its id is never taken again, before and after a restart.
    let disk = world.kill(gone, PowerLoss::DropUnsynced);
    let (wal, _writer) = Wal::open(Arc::new(disk), Path::new("/wal"), WAL).unwrap();
    let refused = wal.log(GROUP, replica(gone));
    assert!(
        matches!(refused, Err(WalError::ReplicaRemoved { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_dropped_before_it_heard_of_any_member_learns_it_from_other_nodes() {
    let mut world = World::three().await;
    let (order, new) = (add(4), NodeId(4));
    let invited = loop {
        let leader = world.leader().await;
        let advanced = leader.group.advance(&order, &free(4), later()).await;
        if let Ok(Advance::Invite { replica, .. }) = advanced {
            break replica;
        }
    };
    world.network.isolate(new);
    world
        .start_as(new, invited, MemoryDisk::default(), NOON)
        .await;
    world.network.isolate(new);
    let take_back = Order::Remove {
        nodes: [new].into(),
        half_added_only: true,
    };
    assert_eq!(world.order(&take_back).await, Ok(3));
    world.network.heal();
    let dropped = &world.nodes[&new];
    assert!(dropped.group.status().members.is_empty());
    dropped
        .groups
        .introduce((1..=3).map(|node| member(NodeId(node))).collect());
    let ended = tokio::time::timeout_at(patience(), dropped.group.dismissed()).await;
    assert!(ended.is_ok(), "it goes on: {:?}", dropped.group.status());
    assert_eq!(dropped.group.status().role, "removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_a_removed_replica_is_not_free_before_its_log_knows_of_the_removal() {
    let mut world = World::three().await;
    let gone = world.follower().await.id;
    world.acquainted(gone).await;
    world.network.isolate(gone);
    assert_eq!(world.order(&remove(gone)).await, Ok(2));
    let disk = world.nodes[&gone].disk.clone();
    disk.stop_at_mutation(disk.mutations() + 1);
    world.network.heal();
    world
        .until("it has stopped", |world| {
            world.nodes[&gone].group.status().role == "stopped"
        })
        .await;
    assert!(!world.nodes[&gone].group.is_dismissed());
    // It is told again when it starts the next time.
    let disk = world.kill(gone, PowerLoss::DropUnsynced);
    world.start(gone, disk).await;
    let removed = world.nodes[&gone].group.dismissed();
    let ended = tokio::time::timeout_at(patience(), removed).await;
    assert!(ended.is_ok(), "{:?}", world.nodes[&gone].group.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_comes_back_after_it_was_replaced_and_ends_whoever_it_was() {
    let mut world = World::three().await;
    for leads in [false, true] {
        let dead = match leads {
            true => world.leader().await.id,
            false => world.follower().await.id,
        };
        world.acquainted(dead).await;
        let old = world.nodes[&dead].group.replica();
        let disk = world.kill(dead, PowerLoss::KeepAll);
        // Never through four voters.
        let new = dead.0 + 3;
        assert_eq!(world.order(&replace(dead, new)).await, Ok(3));
        assert_eq!(world.order(&replace(dead, new)).await, Ok(3));
        world.send(2, 1 + u64::from(leads)).await;
        world.start_as(dead, old, disk, NOON).await;
        let back = &world.nodes[&dead];
        let ended = tokio::time::timeout_at(patience(), back.group.dismissed()).await;
        assert!(ended.is_ok(), "it goes on: {:?}", back.group.status());
        world.kill(dead, PowerLoss::DropUnsynced);
        world.send(3, 1 + u64::from(leads)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_takes_its_own_place_under_a_new_replica_id() {
    let mut world = World::three().await;
    world.send(1, 1).await;
    let wiped = world.follower().await.id;
    let old = world.nodes[&wiped].group.replica();
    world.kill(wiped, PowerLoss::DropUnsynced);
    assert_eq!(world.order(&replace(wiped, wiped.0)).await, Ok(3));
    let new = world.nodes[&wiped].group.replica();
    assert_ne!(new, old);
    world.settled(&[1, 2, 3]).await;
    // Again: it is a member, so there is nothing to replace.
    assert_eq!(world.order(&replace(wiped, wiped.0)).await, Ok(3));
    assert_eq!(world.nodes[&wiped].group.replica(), new);
    // And it counts: with another one gone, the group goes on.
    let other = world.nodes.keys().find(|node| **node != wiped).copied();
    world.kill(other.unwrap(), PowerLoss::DropUnsynced);
    world.send(1, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_adds_a_member_and_dies_the_same_order_is_finished_by_the_next_leader() {
    let mut world = World::three().await;
    let order = add(4);
    // The leader has added the member, and dies before anybody told it.
    let first = loop {
        let leader = world.leader().await;
        let advanced = leader.group.advance(&order, &free(4), later()).await;
        if let Ok(Advance::Invite { replica, .. }) = advanced {
            break replica;
        }
    };
    let other = remove(NodeId(1));
    let underway = Refused::Underway { node: NodeId(4) };
    assert_eq!(world.order(&other).await, Err(underway));
    let leader = world.leader().await.id;
    world.kill(leader, PowerLoss::DropUnsynced);
    assert_eq!(world.order(&order).await, Ok(4));
    let second = world.nodes[&NodeId(4)].group.replica();
    assert!(second > first, "{second:?} after {first:?}");
    // What is half done can be taken back as well.
    let order = add(5);
    loop {
        let leader = world.leader().await;
        let advanced = leader.group.advance(&order, &free(5), later()).await;
        if matches!(advanced, Ok(Advance::Invite { .. })) {
            break;
        }
    }
    let take_back = Order::Remove {
        nodes: [NodeId(5)].into(),
        half_added_only: true,
    };
    assert_eq!(world.order(&take_back).await, Ok(4));
    assert_eq!(world.order(&take_back).await, Ok(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_between_the_old_and_the_new_voters_leaves_no_joint_group() {
    let moments: &[u64] = match std::env::var_os("ROSSBY_LONG") {
        Some(_) => &[0, 5, 10, 20, 40, 80, 160],
        None => &[0, 30],
    };
    for &moment in moments {
        let mut world = World::three().await;
        world.network.set_delay(Duration::from_millis(10));
        let leader = world.leader().await.id;
        let group = world.nodes[&leader].group.clone();
        let leaving = world.follower().await.id;
        let order = remove(leaving);
        let changing =
            tokio::spawn(async move { group.advance(&order, &Newcomers::new(), later()).await });
        world
            .until("the change has begun", |world| {
                let status = world.nodes[&leader].group.status();
                status.joint || status.members.len() == 2 || changing.is_finished()
            })
            .await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let disk = world.kill(leader, PowerLoss::DropUnsynced);
        let _ = changing.await;
        // With nobody to give the order again: whatever was begun comes to an end by itself.
        world.start(leader, disk).await;
        world
            .until("nobody is half-way", |world| {
                let live = |node: &&Node| !node.group.is_dismissed();
                let mut status = world
                    .nodes
                    .values()
                    .filter(live)
                    .map(|node| node.group.status());
                status.all(|status| !status.joint)
            })
            .await;
        assert_eq!(world.order(&remove(leaving)).await, Ok(2));
        world.send(1, 1).await;
        let rest: Vec<u64> = (1..=3).filter(|node| *node != leaving.0).collect();
        world.settled(&rest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_cost_the_quorum_is_refused() {
    let mut world = World::three().await;
    let dead = world.follower().await.id;
    world.kill(dead, PowerLoss::DropUnsynced);
    let alive = world.follower().await.id;
    let refused = world.order(&remove(alive)).await;
    assert_eq!(
        refused,
        Err(Refused::WouldLoseQuorum {
            voters: 2,
            answering: 1,
            needed: 2,
            silent: vec![dead],
        })
    );
    let node = NodeId(9);
    assert_eq!(
        world.order(&replace(node, 5)).await,
        Err(Refused::NotAVoter { node })
    );
    let refused = world.order(&replace(dead, alive.0)).await;
    let new = alive;
    assert_eq!(refused, Err(Refused::AlreadyAVoter { old: dead, new }));
    // An empty node at a member's address.
    let leader = world.leader().await.group.clone();
    let wiped = leader.advance(&add(dead.0), &free(dead.0), later()).await;
    assert!(
        matches!(wiped, Err(ChangeError::Refused(Refused::Wiped { .. }))),
        "{wiped:?}"
    );
    let stranger = [(NodeId(5), Newcomer::Holds(ReplicaId(77)))].into();
    let held = leader.advance(&add(5), &stranger, later()).await;
    assert!(
        matches!(held, Err(ChangeError::Refused(Refused::HoldsOther { .. }))),
        "{held:?}"
    );
    // The dead one may go.
    assert_eq!(world.order(&remove(dead)).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_is_called_at_its_new_address() {
    let mut world = World::three().await;
    let moved = world.follower().await.id;
    let mut there = member(moved);
    there.peer_address = "elsewhere:1".to_owned();
    assert_eq!(world.order(&Order::Add(vec![there.clone()])).await, Ok(3));
    let known = |node: &Node| {
        let status = node.group.status();
        status
            .members
            .iter()
            .any(|(_, member, ..)| *member == there)
    };
    world
        .until("all know the new address", |world| {
            world.nodes.values().all(known)
        })
        .await;
    world.send(1, 1).await;
}
