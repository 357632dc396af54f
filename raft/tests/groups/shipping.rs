//! Checkpoints on their way to followers that lack the log before them, over links that break.

use std::time::Duration;

use rossby_domain::ids::NodeId;
use rossby_seams::disk::PowerLoss;

use super::members::{Sender, add, replace};
use super::world::{Settings, World, letter, queue, sequence};

const LETTERS: u64 = 80;
const LETTER_BYTES: usize = 90_000;
/// What the letters of [`fill`] weigh in a checkpoint.
const FILLED_BYTES: u64 = LETTERS * LETTER_BYTES as u64;
/// Whoever is sent a checkpoint is cut off after the first, the second and the third piece.
const BREAKS: [u64; 3] = [1 << 20, 2 << 20, 3 << 20];
/// Less than the least that is sent twice if nothing goes on where it stopped.
const SLACK: u64 = 1 << 20;

/// So slow that no checkpoint is due because of it for a while.
const PACE: Duration = Duration::from_millis(20);

const SETTINGS: Settings = Settings {
    nodes: 3,
    checkpoint_log_bytes: 1 << 20,
    overlay_budget_bytes: 1 << 30,
    sync_delay: Duration::ZERO,
    rest: true,
    lease_reads: false,
};

impl World {
    /// A state of some megabytes, in checkpoints; the beginning of the log is gone.
    async fn fill(&self) {
        for counter in 1..=LETTERS {
            let replies = self.propose(vec![letter(2, counter, LETTER_BYTES)]).await;
            assert_eq!(sequence(&replies[0]).0, counter);
        }
        for node in self.nodes.values() {
            node.group.checkpoint().await.unwrap();
        }
        // A follower that is down holds back the rest for a while.
        self.until("the beginning of the log is purged", |world| {
            let mut nodes = world.nodes.values();
            nodes.all(|node| node.group.status().purged_index > Some(LETTERS / 4))
        })
        .await;
    }

    async fn caught_up(&self, node: NodeId) {
        let all = self.leader().await.group.status().applied_index;
        self.until("the follower has all", |world| {
            world.nodes[&node].group.status().applied_index >= all
        })
        .await;
    }

    /// Whose checkpoint is sent, and which.
    async fn source(&self) -> (u64, Option<u64>) {
        let status = self.leader().await.group.status();
        (status.term, status.checkpoint_index)
    }
}

/// What was staged is all there was to send, and next to nothing twice.
fn assert_sent_once(staged: u64) {
    assert!(staged >= FILLED_BYTES, "only {staged} bytes came in");
    assert!(
        staged < FILLED_BYTES + SLACK,
        "{staged} bytes came in to carry {FILLED_BYTES}"
    );
}

/// Whether it could be seen: which files a checkpoint has is each replica's own affair, so another one
/// may have to be sent whole.
async fn a_laggard_is_sent_what_it_lacks() -> bool {
    let mut world = World::new(SETTINGS).await;
    let leader = world.leader().await.id;
    let laggard = *world.nodes.keys().find(|node| **node != leader).unwrap();
    let disk = world.kill(laggard, PowerLoss::KeepAll);
    world.fill().await;
    let source = world.source().await;

    let load = Sender::at_the_pace_of(PACE);
    load.meet(&world).await;
    world.breaks_after = BREAKS.to_vec();
    world.start(laggard, disk).await;
    world.caught_up(laggard).await;
    load.meet(&world).await;
    let answered = load.end().await;
    if world.source().await != source {
        return false;
    }
    let tap = &world.nodes[&laggard].tap;
    assert_eq!(tap.breaks_left(), 0);
    assert_sent_once(tap.staged());
    world.same_everywhere().await;
    let letters = queue(world.leader().await).await;
    assert!(letters.len() as u64 >= LETTERS + answered);
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_laggard_is_sent_what_it_lacks_and_no_more_under_load_and_over_breaking_links() {
    for _ in 0..5 {
        if a_laggard_is_sent_what_it_lacks().await {
            return;
        }
    }
    panic!("another checkpoint each time");
}

/// Whether it could be seen.
async fn newcomers_are_filled() -> bool {
    let mut world = World::new(SETTINGS).await;
    world.fill().await;
    let source = world.source().await;
    let load = Sender::at_the_pace_of(PACE);
    load.meet(&world).await;
    world.breaks_after = BREAKS.to_vec();
    assert_eq!(world.order(&add(4)).await, Ok(4));
    load.meet(&world).await;
    let leader = world.leader().await.id;
    let dead = world
        .nodes
        .keys()
        .find(|node| **node != leader && node.0 < 4);
    let dead = *dead.unwrap();
    world.kill(dead, PowerLoss::DropUnsynced);
    assert_eq!(world.order(&replace(dead, 5)).await, Ok(4));
    load.meet(&world).await;
    let answered = load.end().await;
    if world.source().await != source {
        return false;
    }
    for newcomer in [4, 5].map(NodeId) {
        let tap = &world.nodes[&newcomer].tap;
        assert_eq!(tap.breaks_left(), 0);
        assert_sent_once(tap.staged());
    }
    // And each has a vote that counts.
    let other = world
        .nodes
        .keys()
        .find(|node| **node != leader && node.0 < 4);
    let other = *other.unwrap();
    world.kill(other, PowerLoss::DropUnsynced);
    world.send(4, 1).await;
    world.same_everywhere().await;
    let letters = queue(world.leader().await).await;
    assert!(letters.len() as u64 > LETTERS + answered);
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_is_filled_by_a_checkpoint_under_load_and_over_breaking_links_and_has_a_vote_then()
 {
    for _ in 0..5 {
        if newcomers_are_filled().await {
            return;
        }
    }
    panic!("another checkpoint each time");
}
