//! Disks that are full, broken or slow, under real nodes: writes are refused by name and recover by
//! themselves, nothing acknowledged is lost, and metrics and log say what is the matter.

use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use tokio::runtime::Runtime;

use crate::support::faults::{Injection, SmallDisk};
use crate::support::people::{Person, email};
use crate::support::strace::strace_works;
use crate::support::witness::Ending;
use crate::support::{Cluster, Node, eventually, run, stderr};

/// Segments and reserve of a size that fits a small disk.
const SMALL: &str = "[storage]\nsegment_bytes = 16777216\nreserve_bytes = 16777216\n";
const DISK_MEBIBYTES: u32 = 128;

/// Two people, one of whom writes to the other.
struct Pair {
    runtime: Runtime,
    ada: Person,
    ben: Person,
    written: Vec<String>,
}

impl Pair {
    fn new(cluster: &Cluster) -> Self {
        let runtime = Runtime::new().unwrap();
        let (ada, ben) = runtime.block_on(async {
            let ada = Person::with_box(cluster, email("ada"), 0).await;
            let ben = Person::with_box(cluster, email("ben"), 0).await;
            ada.add(&ben).await;
            (ada, ben)
        });
        let written = Vec::new();
        Self {
            runtime,
            ada,
            ben,
            written,
        }
    }

    /// Writes a letter. Whether it was taken at once.
    fn write(&mut self) -> bool {
        let text = format!("letter {}", self.written.len());
        self.written.push(text.clone());
        let content = Content::Text(text);
        let to = self.ben.box_id();
        let sent = self.ada.device.send(&to, &content);
        match self.runtime.block_on(sent).unwrap().delivery {
            Delivery::Delivered(_) => true,
            Delivery::Pending(error) => {
                assert!(error.may_pass(), "{error}");
                false
            }
            other => panic!("{other:?}"),
        }
    }

    /// Sends what is pending, until it is taken.
    fn resend(&self) {
        eventually("what is pending is taken", || {
            let sent = self.runtime.block_on(self.ada.device.resend()).ok()?;
            let through = |sent: &rossby_client::device::Sent| {
                matches!(sent.delivery, Delivery::Delivered(_))
            };
            (sent.iter().all(through) && self.ada.device.pending().unwrap() == 0).then_some(())
        });
    }

    /// Reads what is there; how many letters came.
    fn read(&self) -> usize {
        let received = self.runtime.block_on(self.ben.device.receive());
        received.map_or(0, |received| received.messages.len())
    }

    /// Reads until all that was ever written is there, each letter once and in order.
    fn assert_all_came(&self) {
        eventually("all letters came", || {
            self.read();
            (self.ben.texts_from(&self.ada.box_id()).len() >= self.written.len()).then_some(())
        });
        assert_eq!(self.ben.texts_from(&self.ada.box_id()), self.written);
    }

    fn was_refused(&self, code: &str) -> bool {
        let tries = self.ada.witness.seen().tries;
        tries.contains(&("Send", Ending::Refused(code.to_owned())))
    }
}

fn metric(node: &Node, name: &str) -> f64 {
    let (_, page) = node.page("/metrics").expect("no metrics");
    let line = page
        .lines()
        .find(|line| line.split([' ', '{']).next() == Some(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    let value = value.unwrap_or_else(|| panic!("no {name} in\n{page}"));
    value.parse().unwrap()
}

/// Nodes on small disks; `None` where there can be none.
fn on_small_disks(count: u64) -> Option<(Cluster, Vec<SmallDisk>)> {
    let folder = tempfile::tempdir().unwrap();
    drop(SmallDisk::mount(folder.path(), 1)?);
    let settings = folder.path().join("small.toml");
    std::fs::write(&settings, SMALL).unwrap();
    let flag = format!("--config={}", settings.display());
    let mut disks = Vec::new();
    let mut cluster = Cluster::prepared(count, &[&flag], |node| {
        disks.extend(SmallDisk::mount(&node.data(), DISK_MEBIBYTES));
    });
    // The settings must outlive this function: nodes are started again.
    let kept = cluster.path().join("small.toml");
    std::fs::write(&kept, SMALL).unwrap();
    for id in 1..=count {
        let args = cluster.node(id).args();
        args.retain(|arg| !arg.starts_with("--config="));
        args.push(format!("--config={}", kept.display()));
    }
    Some((cluster, disks))
}

#[test]
fn a_full_disk_refuses_writes_by_name_serves_reads_and_recovers_by_itself() {
    let Some((mut cluster, disks)) = on_small_disks(1) else {
        return;
    };
    let mut pair = Pair::new(&cluster);
    assert!(pair.write());
    let node = cluster.node(1);
    assert!(metric(node, "rossby_disk_reserve_held") > 0.0);
    disks[0].fill();
    eventually("writes are refused", || (!pair.write()).then_some(()));
    assert!(
        pair.was_refused("DISK_FULL"),
        "{:?}",
        pair.ada.witness.seen().tries.last()
    );
    eventually("the metric says so", || {
        (metric(node, "rossby_disk_refusing") > 0.0).then_some(())
    });
    assert!(node.log().contains("the disk is full"), "{}", node.log());
    // Reads go on, and the node does too.
    assert!(pair.read() > 0);
    let (status, _) = node.page("/readyz").unwrap();
    assert_eq!(status, 200);

    // Killed on the full disk, it starts and serves reads.
    node.kill();
    node.start();
    node.wait_ready();
    assert!(!pair.write());
    pair.read();
    disks[0].free();
    pair.resend();
    eventually("the metric says so", || {
        (metric(node, "rossby_disk_refusing") < 1.0).then_some(())
    });
    eventually("the reserve is held again", || {
        (metric(node, "rossby_disk_reserve_held") > 0.0).then_some(())
    });
    assert!(
        node.log().contains("there is space on the disk again"),
        "{}",
        node.log()
    );
    pair.assert_all_came();
    node.checkpoint();
    node.terminate();
    let data = node.data().display().to_string();
    let output = run(["check", "--data", &data]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_node_starts_on_a_disk_that_somebody_else_filled_to_the_last_byte() {
    let Some((mut cluster, disks)) = on_small_disks(1) else {
        return;
    };
    let mut pair = Pair::new(&cluster);
    assert!(pair.write());
    let node = cluster.node(1);
    for kill in [false, true] {
        eventually("the reserve is held", || {
            (metric(node, "rossby_disk_reserve_held") > 0.0).then_some(())
        });
        if kill {
            node.kill();
        } else {
            node.terminate();
        }
        disks[0].fill();
        node.start();
        node.wait_ready();
        assert!(pair.read() > 0);
        assert!(!pair.write());
        disks[0].free();
        pair.resend();
    }
    pair.assert_all_came();
}

#[test]
fn a_full_disk_of_one_node_does_not_stop_the_others() {
    let Some((mut cluster, disks)) = on_small_disks(3) else {
        return;
    };
    let mut pair = Pair::new(&cluster);
    let leader = cluster.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    disks[follower as usize - 1].fill();
    eventually("the follower takes no more", || {
        assert!(pair.write(), "the others are a majority");
        let node = cluster.node(follower);
        (metric(node, "rossby_disk_refusing") > 0.0).then_some(())
    });
    for _ in 0..5 {
        assert!(pair.write());
    }
    assert_eq!(cluster.leader(), leader);
    disks[follower as usize - 1].free();
    same_copies(&cluster);

    // The leader's: it says no, and hands over when it is told to.
    disks[leader as usize - 1].fill();
    eventually("the leader refuses", || {
        pair.write();
        pair.was_refused("DISK_FULL").then_some(())
    });
    let data = cluster.node(leader).data().display().to_string();
    let to = follower.to_string();
    let output = run(["cluster", "transfer-leader", "--data", &data, "--to", &to]);
    assert!(output.status.success(), "{}", stderr(&output));
    pair.resend();
    assert!(pair.write());
    disks[leader as usize - 1].free();
    pair.assert_all_came();
    same_copies(&cluster);
}

fn same_copies(cluster: &Cluster) {
    eventually("the copies agree", || {
        let all: Vec<_> = cluster.nodes().iter().map(Node::digests).collect();
        all.iter().all(|copy| *copy == all[0]).then_some(())
    });
}

#[test]
fn a_disk_that_reports_an_error_stops_the_node_which_says_so_once_and_loses_nothing() {
    if !strace_works() {
        return;
    }
    let mut cluster = Cluster::single();
    let mut pair = Pair::new(&cluster);
    for _ in 0..3 {
        assert!(pair.write());
    }
    let node = cluster.node(1);
    let broken = Injection::into(node, "fdatasync:error=EIO");
    assert!(!pair.write());
    let stopped = node.wait();
    drop(broken);
    assert_eq!(stopped.status.code(), Some(10));
    let log = node.log();
    let errors: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" ERROR "))
        .collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("sync"), "{log}");
    assert!(!log.contains("in good order"), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("see to the disk"), "{log}");
    node.start();
    node.wait_ready();
    pair.resend();
    pair.assert_all_came();
}

#[test]
fn a_slow_disk_of_one_node_slows_nobody_and_is_seen() {
    if !strace_works() {
        return;
    }
    let mut cluster = Cluster::of(3);
    let mut pair = Pair::new(&cluster);
    let leader = cluster.leader();
    let slow = if leader == 1 { 2 } else { 1 };
    let before = metric(cluster.node(slow), "rossby_disk_sync_seconds_sum");
    let injection = Injection::into(cluster.node(slow), "fdatasync:delay_enter=1500000");
    eventually("the slow disk is seen", || {
        assert!(pair.write(), "two disks are quick");
        let node = cluster.node(slow);
        let waited = metric(node, "rossby_disk_sync_seconds_sum") - before;
        (waited > 1.5 && node.log().contains("the disk is slow")).then_some(())
    });
    assert_eq!(cluster.leader(), leader);
    drop(injection);
    pair.assert_all_came();
    same_copies(&cluster);
}
