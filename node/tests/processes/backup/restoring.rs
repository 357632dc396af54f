//! Clusters made of a backup, and the devices of the old cluster in them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rossby_client::connection::{Patience, WireError};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{back_up, runtime, single_with_backup, tell, verify, with_backup};
use crate::regions::group_of;
use crate::support::people::{Person, email};
use crate::support::{Cluster, Node, eventually, run_ok, stderr};

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
    let gus = runtime.block_on(async {
        let gus = Person::with_box(&old, email("gus"), 0).await;
        tell(&ada, &gus.box_id(), "late").await;
        assert_eq!(fetch(&gus).await, 1);
        gus
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
        let lost = ben.texts_from(&ada.box_id());
        assert_eq!(lost.len(), 7);
        // New mail reaches those ahead and those behind, and comes back.
        for person in [&ben, &cem] {
            tell(&ada, &person.box_id(), "new").await;
            assert_eq!(fetch(person).await, 1);
            assert_eq!(person.texts_from(&ada.box_id()).last().unwrap(), "new");
            tell(person, &ada.box_id(), "back").await;
        }
        assert_eq!(fetch(&ada).await, 2);
        assert_eq!(
            cem.texts_from(&ada.box_id()),
            ["early 0", "early 1", "early 2", "new"]
        );
        // No sequence of the old cluster stands for another letter in the new one.
        for (sequence, names) in ben.witness.seen().fetched {
            assert_eq!(names.len(), 1, "sequence {sequence}");
        }
        // Who came after the backup registers again, with the same device, and has the same box.
        let gus = moved(gus, &new);
        assert!(gus.device.receive().await.is_err());
        let gus_box = gus.box_id();
        gus.join(&new).await;
        assert_eq!(gus.box_id(), gus_box);
        tell(&ada, &gus_box, "new").await;
        assert_eq!(fetch(&gus).await, 1);
        assert_eq!(gus.texts_from(&ada.box_id()), ["late", "new"]);
        // Somebody new can join, and is found.
        let dot = Person::with_box(&new, email("dot"), 0).await;
        tell(&dot, &ben.box_id(), "hello").await;
        assert_eq!(fetch(&ben).await, 1);
    });
}

#[test]
fn three_regions_that_are_lost_are_restored_from_one_backup_with_all_their_groups() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    // Each group is in its own region alone: two of them come from other nodes than the one that is asked.
    let apart = "[placement]\nreconcile = false\n";
    let mut old = Cluster::in_regions_to_survive(&["asia", "eu", "us"], apart, "node");
    let people = runtime.block_on(async {
        let mut people = Vec::new();
        for (at, name) in ["ada", "ben", "cem"].into_iter().enumerate() {
            people.push(Person::with_box(&old, email(name), at).await);
        }
        for from in &people {
            for to in people.iter().filter(|to| to.box_id() != from.box_id()) {
                tell(from, &to.box_id(), "early").await;
            }
        }
        people
    });
    let homes: Vec<u64> = people.iter().map(group_of).collect();
    assert_eq!(homes, [1, 2, 3]);
    let said = back_up(&old.nodes()[0], &backup);
    let groups = said["groups"].as_array().unwrap().iter();
    let from: Vec<_> = groups
        .map(|group| (group["group"].as_u64(), group["node"].as_u64()))
        .collect();
    assert_eq!(from, [1, 2, 3].map(|number| (Some(number), Some(number))));
    // Into the same folder again: nothing that is there is copied again, whoever sends it.
    runtime.block_on(tell(&people[0], &people[2].box_id(), "in time"));
    let again = back_up(&old.nodes()[1], &backup);
    assert!(
        again["copied_files"].as_u64() < again["files"].as_u64(),
        "{again}"
    );
    assert!(again["complete_to_ms"].as_u64() > said["complete_to_ms"].as_u64());
    runtime.block_on(tell(&people[1], &people[2].box_id(), "late"));
    let before = old.placement(1, &["show"]);
    let secrets = old.node(1).secrets();
    for id in 1..=3 {
        old.node(id).kill();
        old.node(id).wipe();
    }

    let checked = verify(&backup);
    assert!(checked.status.success(), "{}", stderr(&checked));
    let mut new = Cluster::restored(&backup, &secrets, 1, true, &[]);
    new.node(1).start();
    new.node(1).wait_ready();
    let after = new.placement(1, &["show"]);
    let owned = |shown: &Value| -> Vec<(Value, Value)> {
        let groups = shown["groups"].as_array().unwrap().iter();
        let owned = groups.map(|group| (group["group"].clone(), group["partitions"].clone()));
        owned.collect()
    };
    assert_eq!(owned(&after), owned(&before));
    // So that devices that know the old map believe the new one.
    assert!(after["version"].as_u64() > before["version"].as_u64());
    // The history is of group 0's log, which may be applied a moment after the map is known from its file.
    let made = eventually("the history begins anew", || {
        new.placement(1, &["history"])[0]["what"]
            .as_str()
            .map(str::to_owned)
    });
    assert_eq!(made, "made of a backup: 1 node, 3 groups");
    runtime.block_on(async {
        let people: Vec<Person> = people.into_iter().map(|who| moved(who, &new)).collect();
        for (reader, expected) in people.iter().zip([2, 2, 3]) {
            assert_eq!(fetch(reader).await, expected);
        }
        let boxes: Vec<_> = people.iter().map(Person::box_id).collect();
        assert_eq!(people[2].texts_from(&boxes[0]), ["early", "in time"]);
        assert_eq!(people[2].texts_from(&boxes[1]), ["early"]);
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            tell(&people[from], &boxes[to], "new").await;
            assert_eq!(fetch(&people[to]).await, 1);
            assert_eq!(people[to].texts_from(&boxes[from]).last().unwrap(), "new");
        }
        let dot = Person::with_box(&new, email("dot"), 0).await;
        tell(&dot, &boxes[1], "hello").await;
        assert_eq!(fetch(&people[1]).await, 1);
    });
}

#[test]
fn a_restored_node_grows_to_three_that_serve_the_letters_of_the_backup() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let (mut old, ada, ben) = single_with_backup(&runtime, &backup);
    let secrets = old.node(1).secrets();
    old.node(1).kill();
    let mut new = Cluster::restored(&backup, &secrets, 1, true, &[]);
    new.node(1).start();
    new.node(1).wait_ready();
    for id in [2, 3] {
        new.add_waiting(id);
        let place = new.at(id);
        new.order_ok(1, &["add-node", &place]);
        new.node(id).wait_ready();
    }
    // The restored node is lost: the two that it filled know all that it knew.
    new.node(1).kill();
    runtime.block_on(async {
        let (ada, ben) = (moved(ada, &new), moved(ben, &new));
        assert_eq!(fetch(&ben).await, 1);
        assert_eq!(ben.texts_from(&ada.box_id()), ["early"]);
        tell(&ada, &ben.box_id(), "new").await;
        assert_eq!(fetch(&ben).await, 1);
        assert_eq!(ben.texts_from(&ada.box_id()), ["early", "new"]);
    });
}

#[test]
fn a_request_that_was_recorded_before_the_restoring_is_refused_after_it() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let (mut old, ada, ben) = single_with_backup(&runtime, &backup);
    // After the backup, so that nothing in it knows of these.
    runtime.block_on(async {
        tell(&ada, &ben.box_id(), "late").await;
        fetch(&ben).await;
    });
    let recorded = [ada.witness.captured("Send"), ben.witness.captured("Fetch")];
    let secrets = old.node(1).secrets();
    old.node(1).kill();
    let mut new = Cluster::restored(&backup, &secrets, 1, false, &[]);
    new.node(1).start();
    new.node(1).wait_ready();
    let server = format!("http://{}", new.node(1).client_address());
    for recorded in &recorded {
        let answer = runtime.block_on(recorded.play_at(&server));
        match answer {
            Err(WireError::Refused(refusal)) => {
                assert_eq!(refusal.code, "UNAUTHENTICATED", "{refusal:?}");
                // Its time was not the only thing that could be wrong: this is.
                assert!(refusal.server_time.is_some(), "{refusal:?}");
            }
            other => panic!("{}: {other:?}", recorded.path),
        }
    }
    // The devices themselves sign anew, and go on.
    runtime.block_on(async {
        let (ada, ben) = (moved(ada, &new), moved(ben, &new));
        tell(&ada, &ben.box_id(), "new").await;
        fetch(&ben).await;
        assert_eq!(ben.texts_from(&ada.box_id()).last().unwrap(), "new");
    });
}

#[test]
fn the_last_node_of_a_cluster_gives_all_that_it_has() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let mut old = Cluster::of(2);
    let leader = old.leader();
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&old, email("ada"), 0).await;
        let ben = Person::with_box(&old, email("ben"), 1).await;
        (ada, ben)
    });
    old.node(leader).checkpoint();
    runtime.block_on(tell(&ada, &ben.box_id(), "after the last checkpoint"));
    let secrets = old.node(leader).secrets();
    old.node(3 - leader).kill();
    // What needs a majority says so, and what is left to do.
    let lost = (3 - leader).to_string();
    let output = old.order(leader, &["remove-node", &lost, "--patience", "1"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("--as-it-is"),
        "{}",
        stderr(&output)
    );
    let said = run_ok([
        "backup".to_owned(),
        "--json".to_owned(),
        "--as-it-is".to_owned(),
        format!("--data={}", old.node(leader).data().display()),
        format!("--out={}", backup.display()),
    ]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["complete_to_ms"], Value::Null);
    old.node(leader).kill();
    let mut new = Cluster::restored(&backup, &secrets, 1, false, &[]);
    new.node(1).start();
    new.node(1).wait_ready();
    runtime.block_on(async {
        let (ada, ben) = (moved(ada, &new), moved(ben, &new));
        fetch(&ben).await;
        assert_eq!(ben.texts_from(&ada.box_id()), ["after the last checkpoint"]);
    });
}

#[test]
fn with_revoked_tokens_a_device_needs_a_code_and_then_goes_on() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    // Codes are rationed, and this test has no minute to wait for the second.
    let config = folder.path().join("rossby.toml");
    fs::write(&config, "[limits]\ncode_pause_ms = 1\n").unwrap();
    let flag = format!("--config={}", config.display());
    let old = Cluster::single_with(1, &[&flag]);
    let (mut old, ada, ben) = with_backup(&runtime, old, &backup);
    let secrets = old.nodes()[0].secrets();
    old.node(1).kill();
    let mut new = Cluster::restored(&backup, &secrets, 1, false, &["--revoke-tokens"]);
    new.node(1).start();
    new.node(1).wait_ready();
    runtime.block_on(async {
        let (ada, ben) = (moved(ada, &new), moved(ben, &new));
        assert!(ben.device.receive().await.is_err());
        for person in [&ada, &ben] {
            person.join(&new).await;
        }
        assert_eq!(fetch(&ben).await, 1);
        tell(&ada, &ben.box_id(), "new").await;
        assert_eq!(fetch(&ben).await, 1);
    });
}
