//! Memory and log under more than they are made for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_raft::{Leadership, ProposeError};
use rossby_seams::disk::{Disk as _, PowerLoss};
use tokio::time::Instant;

use super::disk::{Breaks, Tap};
use super::world::{Settings, World, letter, member, queue, sequence};

const BUDGET: u64 = 4 << 20;
const SENDERS: u8 = 12;
const LETTER_BYTES: usize = 60_000;
/// What all of them may have on its way at once, and as much again for what is stored beside it.
const UNDER_WAY: u64 = 2 * SENDERS as u64 * LETTER_BYTES as u64;

/// Many who send at once, each one letter after the other.
struct Flood {
    stop: Arc<AtomicBool>,
    shed: Arc<AtomicU64>,
    answered: Arc<Mutex<BTreeMap<(u8, u64), u64>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Flood {
    fn begin(world: &World) -> Self {
        let mut flood = Self {
            stop: Arc::default(),
            shed: Arc::default(),
            answered: Arc::default(),
            tasks: Vec::new(),
        };
        for sender in 1..=SENDERS {
            let groups: Vec<_> = world
                .nodes
                .values()
                .map(|node| node.group.clone())
                .collect();
            let (stop, shed) = (flood.stop.clone(), flood.shed.clone());
            let answered = flood.answered.clone();
            flood.tasks.push(tokio::spawn(async move {
                let mut counter = 1;
                while !stop.load(Ordering::SeqCst) {
                    for group in &groups {
                        let soon = Instant::now() + Duration::from_secs(3);
                        let letters = vec![letter(sender, counter, LETTER_BYTES)];
                        match group.propose(letters, soon).await {
                            Ok(replies) => {
                                let place = sequence(&replies[0]).0;
                                answered.lock().insert((sender, counter), place);
                                counter += 1;
                            }
                            Err(ProposeError::Overloaded) => {
                                shed.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(_) => {}
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        flood
    }

    fn answered(&self) -> usize {
        self.answered.lock().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_shed_by_name_within_the_budget_and_nothing_answered_is_lost() {
    let settings = Settings {
        overlay_budget_bytes: BUDGET,
        ..Settings::default()
    };
    let world = World::new(settings).await;
    // Memory can't be freed: the disks stand still where checkpoints are written.
    world.nodes.values().for_each(|node| node.tap.hold());
    let flood = Flood::begin(&world);
    let most = AtomicU64::new(0);
    let look = |world: &World| {
        for node in world.nodes.values() {
            most.fetch_max(node.store.overlay_bytes(), Ordering::SeqCst);
        }
    };
    let enough = 10 * u64::from(SENDERS);
    world
        .until("the flood is shed", |world| {
            look(world);
            flood.shed.load(Ordering::SeqCst) >= enough
        })
        .await;
    let before = flood.answered();
    assert!(
        (before * LETTER_BYTES) as u64 > BUDGET / 3,
        "shed too early: {before}"
    );
    let held = most.load(Ordering::SeqCst);
    assert!(held <= BUDGET, "{held} bytes in memory");
    // Reads go on meanwhile.
    assert!(queue(world.leader().await).await.len() >= before);

    world.nodes.values().for_each(|node| node.tap.release());
    world
        .until("letters are taken again", |world| {
            look(world);
            flood.answered() >= before + 60
        })
        .await;
    flood.stop.store(true, Ordering::SeqCst);
    for task in flood.tasks {
        task.await.unwrap();
    }
    // A follower that writes its checkpoint later than the leader goes up to the budget, and takes
    // what is under way then.
    let most = most.load(Ordering::SeqCst);
    assert!(most <= BUDGET + UNDER_WAY, "{most} bytes in memory");
    let letters = queue(world.leader().await).await;
    let found: BTreeMap<_, _> = letters.iter().map(|l| ((l.0, l.1), l.2)).collect();
    assert_eq!(found.len(), letters.len(), "a letter is there twice");
    for (letter, place) in flood.answered.lock().iter() {
        assert_eq!(found.get(letter), Some(place), "answered letter {letter:?}");
    }
}

/// The numbers of the log's segments on a node's disk.
fn segments(world: &World) -> Vec<u32> {
    let files = world.nodes[&NodeId(1)]
        .disk
        .list(Path::new("/wal"))
        .unwrap();
    let wal = files
        .iter()
        .filter(|path| path.extension().is_some_and(|is| is == "wal"));
    let mut numbers: Vec<u32> = wal
        .map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_does_not_keep_the_log_of_a_busy_one() {
    const IDLE: GroupId = GroupId(2);
    let settings = Settings {
        nodes: 1,
        checkpoint_log_bytes: 1 << 20,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    let replica = ReplicaId(900);
    let groups = world.nodes[&NodeId(1)].groups.clone();
    let idle = groups.start(IDLE, replica).await.unwrap();
    let members = BTreeMap::from([(replica, member(NodeId(1)))]);
    idle.initialize(members).await.unwrap();
    world
        .until("the idle group has a leader", |_| {
            matches!(idle.leadership(), Leadership::Here { .. })
        })
        .await;
    let first = segments(&world)[0];
    // Three segments and more.
    for counter in 1..=150 {
        world.propose(vec![letter(1, counter, 90_000)]).await;
    }
    world
        .until(
            "what the idle group wrote is in its checkpoint, and the log is freed",
            |world| idle.status().purged_index.is_some() && segments(world)[0] >= first + 2,
        )
        .await;
    // And it is all there after power loss.
    let last = idle.status().applied_index;
    drop((idle, groups));
    let disk = world.kill(NodeId(1), PowerLoss::DropUnsynced);
    world.start(NodeId(1), disk).await;
    let groups = &world.nodes[&NodeId(1)].groups;
    let idle = groups.start(IDLE, replica).await.unwrap();
    world
        .until("the idle group leads on with all it had", |_| {
            matches!(idle.leadership(), Leadership::Here { .. })
                && idle.status().applied_index >= last
        })
        .await;
    assert_eq!(queue(world.leader().await).await.len(), 150);
}

#[tokio::test]
async fn a_long_recovery_does_not_keep_the_other_tasks_of_a_node_from_running() {
    let settings = Settings {
        nodes: 1,
        ..Settings::default()
    };
    let mut world = World::new(settings).await;
    world.send(1, 1).await;
    let disk = world.kill(NodeId(1), PowerLoss::DropUnsynced);
    let tap = Tap::new(Breaks::default());
    tap.hold();
    world.next_tap = Some(tap.clone());
    // On one thread: if the start keeps it, nobody ever lets the start go on.
    let other = async {
        tap.has_held().await;
        tap.release();
    };
    tokio::join!(world.start(NodeId(1), disk), other);
    assert_eq!(queue(world.leader().await).await.len(), 1);
}
