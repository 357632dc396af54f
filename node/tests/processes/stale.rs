//! A leader that was paused past its lease wakes up to requests that have waited for it, and knows of nothing: it shows
//! nothing that is the latest no more, and what is written through it is written by its successor or not at all.

use std::net::SocketAddr;

use rossby_client::connection::Patience;
use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::people::{Person, email, one_patient_try};
use crate::support::{Cluster, Node, eventually};

const READERS: [&str; 5] = ["ben", "cem", "dot", "eva", "fay"];
/// How often each reader looks after the leader has woken up.
const LOOKS: usize = 10;

/// Reads of the boxes that a node has answered, by its lease or by a quorum.
fn reads(node: &Node, by: &str) -> u64 {
    let (_, page) = node.page("/metrics").expect("no metrics");
    let name = format!("rossby_reads_by_{by}_total{{group=\"1\"}} ");
    let count = page.lines().find_map(|line| line.strip_prefix(&name));
    count.expect("not told").parse().expect("not a number")
}

/// Connections to an address of IPv4 of which the listening process has not read all yet.
fn unread(at: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("no table of connections");
    // proc(5): number, local address, remote address, state (01: established), bytes to send and to read.
    let waits = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_local = fields[1].ends_with(&format!(":{:04X}", at.port()));
        is_local && fields[3] == "01" && !fields[4].ends_with(":00000000")
    };
    table.lines().skip(1).filter(waits).count()
}

/// What a reader has, if the node answered: everything that was acknowledged before it asked.
async fn look(reader: &Person, writer: &Person, expected: &[&str]) {
    match reader.device.receive().await {
        Ok(received) if received.interrupted.is_none() => {
            assert_eq!(reader.texts_from(&writer.box_id()), expected, "stale");
        }
        Ok(received) => {
            let error = received.interrupted.expect("just seen");
            assert!(error.may_pass(), "{error}");
        }
        Err(error) => assert!(error.may_pass(), "{error}"),
    }
}

async fn write(from: &Person, to: &Person, text: &str) -> Delivery {
    let content = Content::Text(text.to_owned());
    let sent = from.device.send(&to.box_id(), &content).await;
    sent.expect("not even kept").delivery
}

/// A look that is on its way before the leader wakes up, and more after it.
fn looks(runtime: &Runtime, reader: Person, writer: &std::sync::Arc<Person>) -> JoinHandle<Person> {
    let writer = std::sync::Arc::clone(writer);
    runtime.spawn(async move {
        for _ in 0..LOOKS {
            look(&reader, &writer, &["before", "after"]).await;
        }
        reader
    })
}

#[test]
fn a_leader_that_wakes_up_shows_nothing_stale_and_writes_nothing_alone() {
    let runtime = Runtime::new().unwrap();
    let mut cluster = Cluster::of(3);
    let address = |node: &Node| format!("http://{}", node.client_address());
    let (ada, gus, readers) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let gus = Person::with_box(&cluster, email("gus"), 1).await;
        let mut readers = Vec::new();
        for name in READERS {
            let reader = Person::with_box(&cluster, email(name), 2).await;
            for writer in [&ada, &gus] {
                writer.add(&reader).await;
            }
            readers.push(reader);
        }
        (ada, gus, readers)
    });
    let old = cluster.leader();
    let others: Vec<String> = cluster
        .nodes()
        .iter()
        .filter(|node| node.id() != old)
        .map(address)
        .collect();
    let old_address = [address(cluster.node(old))];
    // Ada speaks to the others, everybody else to the leader alone.
    let ada = std::sync::Arc::new(ada.reopened(&others, Patience::default()));
    let gus = gus.reopened(&old_address, one_patient_try());
    let readers: Vec<Person> = readers
        .into_iter()
        .map(|reader| reader.reopened(&old_address, one_patient_try()))
        .collect();
    let by_lease = reads(cluster.node(old), "lease");
    runtime.block_on(async {
        for reader in &readers {
            let sent = write(&ada, reader, "before").await;
            assert!(matches!(sent, Delivery::Delivered(_)), "{sent:?}");
        }
        for reader in &readers {
            while reader.texts_from(&ada.box_id()) != ["before"] {
                look(reader, &ada, &["before"]).await;
            }
        }
    });
    assert!(
        reads(cluster.node(old), "lease") > by_lease,
        "reads go by the lease"
    );

    cluster.node(old).pause();
    let new = cluster.leader();
    assert_ne!(new, old);
    runtime.block_on(async {
        for reader in &readers {
            let sent = write(&ada, reader, "after").await;
            assert!(matches!(sent, Delivery::Delivered(_)), "{sent:?}");
        }
    });
    let to = readers[0].box_id();
    let looking: Vec<_> = readers
        .into_iter()
        .map(|reader| looks(&runtime, reader, &ada))
        .collect();
    let writing = runtime.spawn(async move {
        let content = Content::Text("through the old leader".to_owned());
        let sent = gus.device.send(&to, &content).await;
        (sent.expect("not even kept").delivery, gus)
    });
    // The first thing that the leader sees is what waits for it.
    let at = cluster.node(old).client_address();
    eventually("all requests wait for the old leader", || {
        (unread(at) > READERS.len()).then_some(())
    });
    cluster.node(old).resume();
    let readers: Vec<Person> = looking
        .into_iter()
        .map(|looking| runtime.block_on(looking).expect("stale"))
        .collect();
    let (written, gus) = runtime.block_on(writing).unwrap();

    // Whatever it was told, it is there once, after it was said again if need be.
    let all = cluster.nodes().iter().map(address).collect::<Vec<_>>();
    let gus = gus.reopened(&all, Patience::default());
    match written {
        Delivery::Delivered(_) => {}
        Delivery::Pending(error) => {
            assert!(error.may_pass(), "{error}");
            let resent = runtime.block_on(gus.device.resend()).unwrap();
            assert!(
                matches!(resent[..], [ref sent] if matches!(sent.delivery, Delivery::Delivered(_)))
            );
        }
        other => panic!("refused: {other:?}"),
    }
    for reader in readers {
        let reader = reader.reopened(&all, Patience::default());
        let received = runtime.block_on(reader.device.receive()).unwrap();
        assert!(received.interrupted.is_none(), "{received:?}");
        assert_eq!(reader.texts_from(&ada.box_id()), ["before", "after"]);
        if reader.box_id() == to {
            assert_eq!(reader.texts_from(&gus.box_id()), ["through the old leader"]);
        }
    }
    eventually("all copies are the same", || {
        let mut digests = cluster.nodes().iter().map(Node::lasting_digests);
        let first = digests.next()?;
        digests.all(|other| other == first).then_some(())
    });
    for node in cluster.nodes() {
        assert!(!node.log().contains("panicked"), "node {}", node.id());
    }
}

#[test]
fn whether_reads_go_by_leases_is_a_setting() {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rossby.toml");
    for (setting, by, not_by) in [("true", "lease", None), ("false", "quorum", Some("lease"))] {
        std::fs::write(&file, format!("[raft]\nlease_reads = {setting}\n")).unwrap();
        let cluster = Cluster::single_with(1, &[&format!("--config={}", file.display())]);
        runtime.block_on(async {
            let ada = Person::with_box(&cluster, email("ada"), 0).await;
            ada.device.receive().await.unwrap();
        });
        let node = &cluster.nodes()[0];
        assert!(reads(node, by) > 0, "{setting}");
        if let Some(not_by) = not_by {
            assert_eq!(reads(node, not_by), 0);
        }
    }
}
