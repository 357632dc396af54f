//! Nodes come and go while the cluster serves: real processes, real orders, and people who write to each
//! other meanwhile.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rossby_client::connection::Patience;
use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::people::{Person, email};
use crate::support::witness::assert_one_history;
use crate::support::{Cluster, eventually, make_authority, peer_args, rossby, stderr};

/// The nodes with a vote, and those without, as a node's status shows them.
fn members(cluster: &mut Cluster, at: u64) -> Option<(BTreeSet<u64>, BTreeSet<u64>)> {
    let status = cluster.node(at).status()?;
    let members = status["groups"][0]["members"].as_array()?.clone();
    let of = |voter: bool| {
        let members = members.iter().filter(|member| member["voter"] == voter);
        members
            .map(|member| member["node"].as_u64().unwrap())
            .collect()
    };
    Some((of(true), of(false)))
}

/// Waits until a node shows exactly these voters and nobody else.
fn wait_members(cluster: &mut Cluster, at: u64, voters: &[u64]) {
    let expected = (voters.iter().copied().collect(), BTreeSet::new());
    eventually(&format!("node {at} sees the voters {voters:?}"), || {
        (members(cluster, at)? == expected).then_some(())
    });
}

#[test]
fn a_cluster_grows_from_one_to_three_and_shrinks_back_to_one() {
    let mut cluster = Cluster::of(1);
    for id in [2, 3] {
        cluster.add_waiting(id);
        let new = cluster.at(id);
        let said = cluster.order_ok(1, &["add-node", &new]);
        assert!(said.contains(&format!("{id} nodes have a vote")), "{said}");
        cluster.node(id).wait_ready();
        // Again: nothing changes.
        let again = cluster.order_ok(1, &["add-node", &new]);
        assert_eq!(Some(again.as_str()), said.split_inclusive('\n').next_back());
    }
    for id in 1..=3 {
        wait_members(&mut cluster, id, &[1, 2, 3]);
    }
    for id in [1, 2] {
        // Whoever leads: the leader hands over first.
        let said = cluster.order_ok(3, &["remove-node", &id.to_string()]);
        assert!(said.contains(&format!("Node {id} is no member")), "{said}");
        cluster.node(id).wait_log("was removed from cluster");
    }
    wait_members(&mut cluster, 3, &[3]);
    cluster.node(3).wait_ready();
    let output = cluster.order(3, &["remove-node", "3"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}

/// Two people of whom one writes to the other until told to stop.
struct Letters {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    people: Arc<(Person, Person)>,
    writer: JoinHandle<usize>,
}

impl Letters {
    fn begin(cluster: &Cluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let people = runtime.block_on(async {
            let ada = Person::with_box(cluster, email("ada"), 0).await;
            let ben = Person::with_box(cluster, email("ben"), 1).await;
            ada.add(&ben).await;
            ben.add(&ada).await;
            (ada, ben)
        });
        let people = Arc::new(people);
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (from, stopped, count) = (people.clone(), stop.clone(), acknowledged.clone());
        let writer = runtime.spawn(async move {
            let mut written = 0;
            while !stopped.load(Ordering::SeqCst) {
                written += 1;
                let content = Content::Text(format!("letter {written}"));
                let sent = from.0.device.send(&from.1.box_id(), &content).await;
                if matches!(sent.unwrap().delivery, Delivery::Delivered(_)) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
            written
        });
        Self {
            runtime,
            stop,
            acknowledged,
            people,
            writer,
        }
    }

    /// Waits until a few more are acknowledged.
    fn go_on(&self) {
        let goal = self.acknowledged.load(Ordering::SeqCst) + 3;
        eventually("letters get through", || {
            assert!(!self.writer.is_finished(), "the writer could not go on");
            (self.acknowledged.load(Ordering::SeqCst) >= goal).then_some(())
        });
    }

    /// Ends the writing: all that was written came, once and in order.
    fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (ada, ben) = &*self.people;
        let written = self.runtime.block_on(async {
            let written = self.writer.await.expect("the writer failed");
            // What was not acknowledged is sent again.
            for sent in ada.device.resend().await.expect("can't send") {
                assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
            }
            loop {
                let received = ben.device.receive().await.expect("can't read");
                assert!(received.interrupted.is_none(), "{received:?}");
                if received.messages.is_empty() && received.status.depth == 0 {
                    return written;
                }
            }
        });
        let expected: Vec<_> = (1..=written)
            .map(|number| format!("letter {number}"))
            .collect();
        assert_eq!(ben.texts_from(&ada.box_id()), expected);
        let (reader, seen) = (ben.box_id(), ada.witness.seen());
        assert_one_history(
            reader.as_bytes(),
            &ben.witness.seen(),
            &[(ada.box_id().as_bytes(), &seen)],
        );
    }
}

#[test]
fn no_acknowledged_letter_is_lost_while_a_cluster_grows_and_a_dead_node_is_replaced() {
    let mut cluster = Cluster::of(1);
    let letters = Letters::begin(&cluster);
    for id in [2, 3] {
        cluster.add_waiting(id);
        let new = cluster.at(id);
        cluster.order_ok(1, &["add-node", &new]);
        letters.go_on();
    }
    cluster.node(3).kill();
    letters.go_on();
    cluster.add_waiting(4);
    let new = cluster.at(4);
    let said = cluster.order_ok(2, &["replace-node", "3", &new]);
    assert!(said.contains("3 nodes have a vote"), "{said}");
    wait_members(&mut cluster, 1, &[1, 2, 4]);
    letters.go_on();
    // What was replaced while it was dead finds out, and says what it is.
    cluster.node(3).start();
    cluster.node(3).wait_log("was removed from cluster");
    let standing = |cluster: &mut Cluster| cluster.node(3).status().unwrap()["standing"].clone();
    assert_eq!(standing(&mut cluster), "removed");
    let (status, body) = cluster.node(3).page("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("empty directory"), "{body}");
    // Also after a restart; and nobody takes it in with that directory.
    cluster.node(3).terminate();
    cluster.node(3).start();
    cluster.node(3).wait_alive();
    eventually("it knows that it was removed", || {
        (standing(&mut cluster) == "removed").then_some(())
    });
    let again = cluster.at(3);
    let output = cluster.order(1, &["add-node", &again]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("empty directory"),
        "{}",
        stderr(&output)
    );
    letters.go_on();
    letters.finish();
}

#[test]
fn a_single_node_without_a_door_for_peers_is_restarted_with_one_and_grows() {
    let mut cluster = Cluster::single();
    let runtime = Runtime::new().unwrap();
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 0).await;
        ada.add(&ben).await;
        let content = Content::Text("before".to_owned());
        let sent = ada.device.send(&ben.box_id(), &content).await.unwrap();
        assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
        (ada, ben)
    });
    make_authority(cluster.path());
    let door = peer_args(cluster.path(), 1);
    cluster.node(1).terminate();
    cluster.node(1).args().extend(door);
    cluster.node(1).start();
    cluster.node(1).wait_ready();
    for id in [2, 3] {
        cluster.add_waiting(id);
        let new = cluster.at(id);
        cluster.order_ok(1, &["add-node", &new]);
        cluster.node(id).wait_ready();
    }
    // The first node is not needed any more.
    cluster.node(1).kill();
    let others: Vec<_> = [2, 3]
        .map(|id| format!("http://{}", cluster.node(id).client_address()))
        .into();
    runtime.block_on(async {
        let ben = ben.reopened(&others, Patience::default());
        let received = ben.device.receive().await.unwrap();
        assert!(received.interrupted.is_none(), "{received:?}");
        assert_eq!(ben.texts_from(&ada.box_id()), ["before"]);
    });
}

#[test]
fn a_wiped_node_is_refused_under_its_old_id_and_says_how_to_come_back() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let wiped = if leader == 3 { 2 } else { 3 };
    cluster.node(wiped).kill();
    cluster.node(wiped).wipe();
    cluster.node(wiped).start();
    let way_out = format!("replace-node {wiped} {wiped}=");
    cluster.node(wiped).wait_log(&way_out);
    let status = cluster.node(wiped).status().unwrap();
    assert_eq!(status["standing"], "missed", "{status}");
    assert!(
        status["advice"].as_str().unwrap().contains(&way_out),
        "{status}"
    );
    // The others see it too.
    eventually("the leader has no link to it", || {
        let status = cluster.node(leader).status()?;
        let members = status["groups"][0]["members"].as_array()?.clone();
        let member = members.iter().find(|member| member["node"] == wiped)?;
        let trouble = member["trouble"].as_str()?;
        trouble.contains("its directory is empty").then_some(())
    });
    let place = cluster.at(wiped);
    let output = cluster.order(leader, &["add-node", &place]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains(&way_out), "{}", stderr(&output));
    let old = wiped.to_string();
    cluster.order_ok(leader, &["replace-node", &old, &place]);
    cluster.node(wiped).wait_ready();
    wait_members(&mut cluster, wiped, &[1, 2, 3]);
    // Again: there is nothing to replace.
    let before = cluster.node(wiped).status().unwrap()["groups"][0]["replica"].clone();
    cluster.order_ok(leader, &["replace-node", &old, &place]);
    let after = cluster.node(wiped).status().unwrap()["groups"][0]["replica"].clone();
    assert_eq!(before, after);
    // A directory that has lost its log only does not start at all.
    cluster.node(wiped).kill();
    std::fs::remove_dir_all(cluster.node(wiped).data().join("wal")).unwrap();
    cluster.node(wiped).start();
    let ended = cluster.node(wiped).wait();
    assert_eq!(
        ended.status.code(),
        Some(10),
        "{}",
        cluster.node(wiped).log()
    );
}

#[test]
fn an_order_whose_node_dies_is_not_said_to_have_failed() {
    let mut cluster = Cluster::single();
    cluster.node(1).pause();
    let data = cluster.node(1).data().display().to_string();
    let socket = format!("{data}/admin.sock");
    let connected = || {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        sockets
            .lines()
            .filter(|line| line.ends_with(&socket))
            .count()
    };
    let before = connected();
    let order = ["cluster", "remove-node", "9", "--patience", "1"];
    let child = rossby()
        .args(order)
        .args(["--data", &data])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It looks first whether there is a node, then gives the order.
    eventually("the order is given", || {
        (connected() >= before + 2).then_some(())
    });
    cluster.node(1).kill();
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    match output.status.code() {
        Some(6) => assert!(said.contains("give the same order again"), "{said}"),
        // It was not out yet.
        Some(4) => assert!(said.contains("nothing was changed"), "{said}"),
        other => panic!("{other:?}: {said}"),
    }
}

#[test]
fn wrong_orders_are_refused_with_what_to_do() {
    let mut alone = Cluster::single();
    let output = alone.order(1, &["add-node", "2=127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("--peer-listen"),
        "{}",
        stderr(&output)
    );
    let output = alone.order(1, &["remove-node", "1"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));

    let mut cluster = Cluster::of(1);
    let refused = |cluster: &mut Cluster, words: &[&str], code: i32| {
        let output = cluster.order(1, words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    };
    refused(&mut cluster, &["add-node", "2"], 2);
    refused(&mut cluster, &["add-node", "0=127.0.0.1:9"], 2);
    let nobody = ["add-node", "2=127.0.0.1:9", "--patience", "1"];
    refused(&mut cluster, &nobody, 4);
    refused(&mut cluster, &["replace-node", "7", "8=127.0.0.1:9"], 5);
    // Another node's number.
    cluster.add_waiting(2);
    let other = cluster.at(2).replace("2=", "3=");
    let said = refused(&mut cluster, &["add-node", &other], 5);
    assert!(said.contains("number and address"), "{said}");
    // No peer listens there: it is the door of the devices.
    let door = format!("2={}", cluster.node(1).client_address());
    let said = refused(&mut cluster, &["add-node", &door], 5);
    assert!(said.contains("--peer-listen"), "{said}");
    // A node of another cluster's authority.
    let stranger = Cluster::waiting(1);
    let place = stranger.at(1);
    let said = refused(&mut cluster, &["add-node", &place], 5);
    assert!(said.contains("authority"), "{said}");
    // A node that is no member has nothing to say about members.
    let output = cluster.order(2, &["remove-node", "1"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert_eq!(
        members(&mut cluster, 1),
        Some(([1].into(), BTreeSet::new())),
        "a refused order has changed something"
    );
    // None is a member that was never added.
    cluster.order_ok(1, &["remove-node", "9"]);
}
