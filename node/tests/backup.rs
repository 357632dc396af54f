//! Backups of running nodes, and clusters restored from them: with real processes and real devices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]
#![allow(clippy::indexing_slicing, missing_docs)] // A test may fail loudly.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rossby_client::connection::Patience;
use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use rossby_domain::ids::BoxId;
use serde_json::Value;
use support::people::{Person, email};
use support::{Cluster, Node, eventually, run, run_ok, stderr};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Backs a node up; what it said.
fn back_up(node: &Node, out: &Path) -> Value {
    let text = run_ok([
        "backup".as_ref(),
        "--json".as_ref(),
        "--data".as_ref(),
        node.data().as_os_str(),
        "--out".as_ref(),
        out.as_os_str(),
    ]);
    serde_json::from_str(&text).unwrap()
}

fn verify(backup: &Path) -> std::process::Output {
    run([
        "backup".as_ref(),
        "verify".as_ref(),
        "--json".as_ref(),
        backup.as_os_str(),
    ])
}

async fn tell(from: &Person, to: &BoxId, text: &str) {
    let sent = from.device.send(to, &Content::Text(text.to_owned())).await;
    let sent = sent.unwrap();
    assert!(
        matches!(sent.delivery, Delivery::Delivered(_)),
        "{text}: {sent:?}"
    );
}

/// Fetches all there is; how many messages were new.
async fn fetch(person: &Person) -> usize {
    let received = person.device.receive().await.unwrap();
    assert!(received.interrupted.is_none(), "{:?}", received.interrupted);
    received.messages.len()
}

/// The same device, which now asks the nodes of another cluster.
fn moved(person: Person, cluster: &Cluster) -> Person {
    let nodes = cluster.nodes().iter();
    let addresses: Vec<_> = nodes
        .map(|node| format!("http://{}", node.client_address()))
        .collect();
    person.reopened(&addresses, Patience::default())
}

/// Two people who write all the time, until they are told to stop; what was acknowledged, in order.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<(Person, Person)>,
}

impl Load {
    fn start(runtime: &Runtime, from: Person, to: Person) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let task = runtime.spawn(async move {
            let to_box = to.box_id();
            let mut number = 0;
            while !stopped.load(Ordering::Acquire) {
                tell(&from, &to_box, &format!("load {number}")).await;
                number += 1;
                count.store(number, Ordering::Release);
            }
            (from, to)
        });
        Self { stop, sent, task }
    }

    /// How many were acknowledged by now, once it is more than `than`.
    fn more_than(&self, than: usize) -> usize {
        eventually("more load", || {
            let sent = self.sent.load(Ordering::Acquire);
            (sent > than).then_some(sent)
        })
    }
}

#[test]
fn a_cluster_restored_from_an_online_backup_serves_the_devices_of_the_old_one() {
    let runtime = runtime();
    let mut old = Cluster::of(3);
    let backups = tempfile::tempdir().unwrap();
    let (ada, ben, cem) = runtime.block_on(async {
        let ada = Person::with_box(&old, email("ada"), 0).await;
        let ben = Person::with_box(&old, email("ben"), 1).await;
        let cem = Person::with_box(&old, email("cem"), 2).await;
        (ada, ben, cem)
    });
    let (eve, fay) = runtime.block_on(async {
        let eve = Person::with_box(&old, email("eve"), 0).await;
        (eve, Person::with_box(&old, email("fay"), 1).await)
    });
    runtime.block_on(async {
        for number in 0..3 {
            tell(&ada, &ben.box_id(), &format!("early {number}")).await;
            tell(&ada, &cem.box_id(), &format!("early {number}")).await;
        }
        assert_eq!(fetch(&ben).await, 3);
    });
    let load = Load::start(&runtime, eve, fay);

    // A follower first, then the leader; the second time into the same folder.
    let leader = old.leader();
    let follower = old
        .nodes()
        .iter()
        .map(Node::id)
        .find(|id| *id != leader)
        .unwrap();
    let backup = backups.path().join("rossby");
    let before_first = load.more_than(0);
    let first = back_up(old.node(follower), &backup);
    assert_eq!(first["node"], follower);
    assert!(first["copied_bytes"].as_u64() > Some(0));
    assert_eq!(
        fs::metadata(&backup).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let before = load.more_than(before_first);
    let second = back_up(old.node(leader), &backup);
    assert_eq!(second["node"], leader);
    assert!(second["complete_to_ms"].as_u64() > first["complete_to_ms"].as_u64());
    load.more_than(before + 1);

    // What comes after the backup is lost, but for what a device has.
    runtime.block_on(async {
        for number in 0..4 {
            tell(&ada, &ben.box_id(), &format!("late {number}")).await;
            tell(&ada, &cem.box_id(), &format!("late {number}")).await;
        }
        assert_eq!(fetch(&ben).await, 4);
    });
    load.stop.store(true, Ordering::Release);
    let (_, fay) = runtime.block_on(load.task).unwrap();
    let secrets = old.nodes()[0].secrets();
    for id in 1..=3 {
        old.node(id).kill();
    }

    let checked = verify(&backup);
    assert!(checked.status.success(), "{}", stderr(&checked));
    let mut new = Cluster::restored(&backup, &secrets, 1, true, &[]);
    new.node(1).start();
    new.node(1).wait_ready();
    runtime.block_on(async {
        let (ada, ben) = (moved(ada, &new), moved(ben, &new));
        let (cem, fay) = (moved(cem, &new), moved(fay, &new));
        // Ben was ahead: nothing comes twice. Cem was behind: what was before the backup is there.
        assert_eq!(fetch(&ben).await, 0);
        assert_eq!(fetch(&cem).await, 3);
        // All that was acknowledged before the backup began is in it.
        fetch(&fay).await;
        let loads = fay.device.messages().unwrap().len();
        assert!(loads >= before, "{loads} of {before}");
        let lost = texts(&ben, &ada.box_id());
        assert_eq!(lost.len(), 7);
        // New mail reaches those ahead and those behind, and comes back.
        for person in [&ben, &cem] {
            tell(&ada, &person.box_id(), "new").await;
            assert_eq!(fetch(person).await, 1);
            assert_eq!(texts(person, &ada.box_id()).last().unwrap(), "new");
            tell(person, &ada.box_id(), "back").await;
        }
        assert_eq!(fetch(&ada).await, 2);
        assert_eq!(
            texts(&cem, &ada.box_id()),
            ["early 0", "early 1", "early 2", "new"]
        );
        // No sequence of the old cluster stands for another letter in the new one.
        for (sequence, names) in ben.witness.seen().fetched {
            assert_eq!(names.len(), 1, "sequence {sequence}");
        }
        // Somebody new can join, and is found.
        let dot = Person::with_box(&new, email("dot"), 0).await;
        tell(&dot, &ben.box_id(), "hello").await;
        assert_eq!(fetch(&ben).await, 1);
    });
}

fn texts(person: &Person, sender: &BoxId) -> Vec<String> {
    person.texts_from(sender)
}
