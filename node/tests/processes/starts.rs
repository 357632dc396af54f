//! The real program, killed at its system calls while it starts: the next start comes up with all
//! that was acknowledged, whatever the one before had done by then.
use std::fs;
use std::path::PathBuf;

use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use tokio::runtime::Runtime;

use crate::support::faults::DoomedStart;
use crate::support::people::{Person, email};
use crate::support::strace::strace_works;
use crate::support::{Cluster, copy, eventually, long, run, stderr};

/// The calls by which a start gets anything onto the disk, and one of each to be killed at in the quick
/// form.
const CALLS: [(&str, u32); 12] = [
    ("pwrite64", 2),
    ("fdatasync", 1),
    ("fsync", 2),
    ("rename", 1),
    ("unlink", 1),
    ("unlinkat", 3),
    ("mkdir", 1),
    ("chmod", 1),
    ("sync_file_range", 1),
    ("write", 9),
    ("openat", 20),
    ("flock", 1),
];

const LETTERS: usize = 6;

/// A node with letters before and after a checkpoint, and what its folder is to hold at each start.
struct Subject {
    cluster: Cluster,
    runtime: Runtime,
    ada: Person,
    ben: Person,
    digests: Vec<(u32, Vec<u8>)>,
    origin: PathBuf,
}

impl Subject {
    /// Closed in good order, or killed.
    fn new(closed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("small.toml");
        fs::write(
            &settings,
            "[storage]\nsegment_bytes = 16777216\nreserve_bytes = 1048576\n",
        )
        .unwrap();
        let mut cluster = Cluster::single_with(1, &[&format!("--config={}", settings.display())]);
        let kept = cluster.path().join("small.toml");
        fs::copy(&settings, &kept).unwrap();
        *cluster.node(1).args() = vec![format!("--config={}", kept.display())];
        let runtime = Runtime::new().unwrap();
        let (ada, ben) = runtime.block_on(async {
            let ada = Person::with_box(&cluster, email("ada"), 0).await;
            let ben = Person::with_box(&cluster, email("ben"), 0).await;
            ada.add(&ben).await;
            for number in 0..LETTERS {
                if number == LETTERS / 2 {
                    cluster.nodes()[0].checkpoint();
                }
                let content = Content::Text(format!("letter {number}"));
                let sent = ada.device.send(&ben.box_id(), &content).await.unwrap();
                assert!(matches!(sent.delivery, Delivery::Delivered(_)));
            }
            (ada, ben)
        });
        let origin = cluster.path().join("origin");
        let node = cluster.node(1);
        node.wait_quiet();
        let digests = node.lasting_digests();
        if closed {
            node.terminate();
        } else {
            node.kill();
        }
        copy(&node.data(), &origin);
        Self {
            cluster,
            runtime,
            ada,
            ben,
            digests,
            origin,
        }
    }

    fn restore(&mut self) {
        let data = self.cluster.node(1).data();
        fs::remove_dir_all(&data).unwrap();
        copy(&self.origin, &data);
    }

    /// Starts the node once, to be killed; whether it was.
    fn killed_at(&mut self, call: &str, number: u32) -> bool {
        let node = self.cluster.node(1);
        DoomedStart::begin(node, call, number).died(node)
    }

    /// Starts the node as ever: it has just what was acknowledged.
    fn assert_comes_up(&mut self, what: &str) {
        let node = self.cluster.node(1);
        node.start();
        eventually(
            &format!("{what}: the node is ready\n{}", node.log()),
            || node.page("/readyz").filter(|(status, _)| *status == 200),
        );
        // A log is applied anew, behind the scenes, after the node is ready.
        eventually(&format!("{what}: the state is what it was"), || {
            (node.lasting_digests() == self.digests).then_some(())
        });
        node.kill();
    }

    /// The letters come, each once and in order, and the folder is sound.
    fn assert_all_is_there(mut self) {
        let node = self.cluster.node(1);
        node.start();
        node.wait_ready();
        let received = self.runtime.block_on(self.ben.device.receive()).unwrap();
        assert_eq!(received.messages.len(), LETTERS);
        let expected: Vec<_> = (0..LETTERS)
            .map(|number| format!("letter {number}"))
            .collect();
        assert_eq!(self.ben.texts_from(&self.ada.box_id()), expected);
        node.terminate();
        let output = run(["check", "--data", &node.data().display().to_string()]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

/// Start after start is killed, each on what the one before left behind.
fn kill_one_after_the_other(closed: bool) {
    if !strace_works() {
        return;
    }
    let mut subject = Subject::new(closed);
    let mut kills = 0;
    for (call, number) in CALLS {
        kills += u32::from(subject.killed_at(call, number));
    }
    eprintln!("{kills} starts were killed");
    assert!(kills >= 5, "only {kills} starts were killed");
    subject.assert_comes_up("after all of them");
    subject.assert_all_is_there();
}

#[test]
fn starts_killed_one_after_the_other_lose_nothing_after_a_kill() {
    kill_one_after_the_other(false);
}

#[test]
fn starts_killed_one_after_the_other_lose_nothing_after_a_shutdown_in_good_order() {
    kill_one_after_the_other(true);
}

/// At every call of every kind, each time from the same folder.
fn kill_at_each(closed: bool) {
    if !long() || !strace_works() {
        return;
    }
    let mut subject = Subject::new(closed);
    let mut total = 0;
    for (call, _) in CALLS {
        // What is not about the disk is many times more.
        let step = if matches!(call, "write" | "openat") {
            7
        } else {
            1
        };
        let mut kills = 0;
        for number in (1..).step_by(step) {
            subject.restore();
            let killed = subject.killed_at(call, number);
            subject.assert_comes_up(&format!("killed at {call} {number}"));
            if !killed {
                break;
            }
            kills += 1;
        }
        eprintln!("{call}: {kills} starts killed");
        total += kills;
    }
    assert!(total > 40, "only {total} starts were killed");
    subject.assert_all_is_there();
}

#[test]
fn a_start_after_a_kill_can_be_killed_at_any_call() {
    kill_at_each(false);
}

#[test]
fn a_start_after_a_shutdown_in_good_order_can_be_killed_at_any_call() {
    kill_at_each(true);
}

#[test]
fn the_first_start_of_all_can_be_killed_at_any_call() {
    if !strace_works() {
        return;
    }
    let mut kills = 0;
    for (call, quick) in CALLS {
        let first = if long() { 1 } else { quick };
        let step = if matches!(call, "write" | "openat") {
            7
        } else {
            1
        };
        for number in (first..).step_by(step) {
            let mut cluster = Cluster::unborn(1);
            let node = cluster.node(1);
            let killed = DoomedStart::begin(node, call, number).died(node);
            node.start();
            node.wait_ready();
            node.kill();
            if !killed {
                break;
            }
            kills += 1;
            if !long() {
                break;
            }
        }
    }
    eprintln!("{kills} first starts were killed");
    assert!(kills >= if long() { 40 } else { 5 }, "only {kills}");
}
