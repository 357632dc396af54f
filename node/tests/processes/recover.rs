//! What is left when a majority of the nodes is gone for good goes on: real processes, real disks that are lost.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rossby_api::placement::SealedFile;
use rossby_client::connection::Patience;
use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use rossby_domain::ids::{BoxId, GroupId, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap, FoundingGroup, RegionName, Successor};
use rossby_seams::disk::FileDisk;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::joining::{join, members, order};
use crate::support::people::{Person, email};
use crate::support::strace::strace_works;
use crate::support::{Cluster, copy, digests, eventually, long, run, stderr};

/// The number of a recovered group lies so far above the highest that is known, and so does that of a new node once the
/// placement group was recovered.
const BEYOND: u64 = 1024;

async fn tell(from: &Person, to: &BoxId, text: &str) {
    let sent = from.device.send(to, &Content::Text(text.to_owned())).await;
    let sent = sent.unwrap();
    assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
}

/// Fetches all there is; how many messages were new.
async fn fetch(person: &Person) -> usize {
    let received = person.device.receive().await.unwrap();
    assert!(received.interrupted.is_none(), "{:?}", received.interrupted);
    received.messages.len()
}

/// The command with a node's settings, on its directory or on another one.
fn command(cluster: &mut Cluster, at: u64, data: Option<&Path>, flags: &[&str]) -> Vec<String> {
    let mut args = vec!["recover".to_owned()];
    args.extend(cluster.node(at).command_line().into_iter().skip(1));
    if let Some(data) = data {
        args.retain(|arg| !arg.starts_with("--data="));
        args.push(format!("--data={}", data.display()));
    }
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    args
}

fn recover(cluster: &mut Cluster, at: u64, flags: &[&str]) -> Output {
    run(command(cluster, at, None, flags))
}

/// The same, which is refused.
fn refused(cluster: &mut Cluster, at: u64, flags: &[&str], code: i32, what: &str) {
    let output = recover(cluster, at, flags);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
    assert!(said.contains(what), "{flags:?}: {said}");
}

/// What it said in its last line.
fn last(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// Every wrong use is refused, and changes nothing.
fn refuse_wrong_uses(cluster: &mut Cluster, left: u64, lost: &[u64]) {
    let both = format!("{},{}", lost[0], lost[1]);
    let (one, own) = (lost[0].to_string(), left.to_string());
    refused(cluster, left, &[], 5, "nothing to recover");
    refused(cluster, left, &["--lost", &both], 5, "this loses data");
    refused(
        cluster,
        left,
        &["--lost", &one, "--data-loss"],
        5,
        "nothing to recover",
    );
    let flags = ["--lost", &one, "--group=1", "--data-loss"];
    refused(cluster, left, &flags, 5, "has a majority");
    refused(
        cluster,
        left,
        &["--lost", &own, "--data-loss"],
        2,
        "which is not lost",
    );
    refused(
        cluster,
        left,
        &["--lost", "9", "--data-loss"],
        2,
        "no node 9",
    );
    let flags = ["--lost", &both, "--group=7", "--data-loss"];
    refused(cluster, left, &flags, 5, "no replica of group 7");
    let flags = ["--lost", &both, "--report=/dev/null", "--data-loss"];
    refused(cluster, left, &flags, 3, "/dev/null");
    let secrets = cluster.node(left).secrets();
    std::fs::rename(&secrets, secrets.with_extension("aside")).unwrap();
    refused(
        cluster,
        left,
        &["--lost", &both, "--data-loss"],
        3,
        "cluster.keys",
    );
    std::fs::rename(secrets.with_extension("aside"), &secrets).unwrap();
    // A node that answers is not lost.
    let _listener = std::net::TcpListener::bind(cluster.node(lost[1]).peer_address()).unwrap();
    refused(
        cluster,
        left,
        &["--lost", &both, "--data-loss"],
        5,
        "it is not lost",
    );
}

/// Killed anywhere, it is finished by the same command, or was not begun.
fn interrupt(cluster: &mut Cluster, left: u64, lost: &str) {
    if !strace_works() {
        return;
    }
    let trial = cluster.path().join("trial");
    let flags = ["--data-loss", "--json", "--lost", lost];
    let args = command(cluster, left, Some(&trial), &flags);
    let trace = cluster.path().join("trace");
    let data = cluster.node(left).data();
    let traced = |what: &[&str]| {
        let _ = std::fs::remove_dir_all(&trial);
        copy(&data, &trial);
        let status = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=rename", "-o"])
            .arg(&trace)
            .args(what)
            .arg(env!("CARGO_BIN_EXE_rossby"))
            .args(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.unwrap().success()
    };
    assert!(traced(&[]));
    let calls = std::fs::read_to_string(&trace).unwrap().lines().count();
    assert!(calls > 10, "{calls} renames");
    let points: Vec<usize> = match long() {
        true => (1..4).chain(calls - 11..=calls).collect(),
        false => vec![calls - 4],
    };
    for point in points {
        assert!(!traced(&[
            "-e",
            &format!("inject=rename:signal=KILL:when={point}")
        ]));
        if trial.join("recovery").exists() {
            let mut serve = cluster.node(left).command_line();
            serve.retain(|arg| !arg.starts_with("--data="));
            serve.push(format!("--data={}", trial.display()));
            let output = run(serve);
            assert_eq!(output.status.code(), Some(10));
            assert!(stderr(&output).contains("was interrupted"));
            let checked = run(["check", "--data", &trial.display().to_string()]);
            assert_eq!(checked.status.code(), Some(10));
        }
        let done = last(&run(&args));
        assert_eq!(done["recovered"].as_array().unwrap().len(), 2, "{done}");
        assert!(!trial.join("recovery").exists() && !trial.join("recovering").exists());
        let checked = run(["check", "--json", "--data", &trial.display().to_string()]);
        let groups = last(&checked)["groups"].as_array().unwrap().clone();
        let held: Vec<_> = groups
            .iter()
            .map(|group| (group["group"].clone(), group["replica"].is_u64()))
            .collect();
        assert_eq!(
            held,
            [((1 + BEYOND).into(), true), (0.into(), true)],
            "killed at {point}"
        );
    }
    std::fs::remove_dir_all(&trial).unwrap();
}

const MAP: SealedFile = SealedFile {
    name: "map",
    what: "rossby cluster map",
};

/// The map in a data directory.
fn map_in(data: &Path) -> ClusterMap {
    MAP.read(&FileDisk, data).unwrap().unwrap()
}

/// A map that the node has heard of from others counts, although its own placement group has not come to it.
fn go_on_with_a_newer_map(cluster: &mut Cluster, left: u64, lost: &[u64]) {
    let trial = cluster.path().join("trial");
    copy(&cluster.node(left).data(), &trial);
    let both = format!("{},{}", lost[0], lost[1]);
    let flags = ["--lost", &both, "--data-loss", "--json"];
    let known = map_in(&trial);
    let mut heard = |change: &Change, flags: &[&str]| {
        let map = known.after(change).unwrap();
        MAP.write(&FileDisk, &trial, &map).unwrap();
        run(command(cluster, left, Some(&trial), flags))
    };
    let successor = Successor {
        group: GroupId(1025),
        replica: ReplicaId(99),
    };
    let elsewhere = Change::Recover {
        node: NodeId(lost[0]),
        lost: [NodeId(lost[1])].into(),
        groups: [(GroupId(1), successor)].into(),
    };
    let refused = heard(&elsewhere, &["--lost", &lost[0].to_string(), "--group=1"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(stderr(&refused).contains("was recovered before, as group 1025"));
    let more = Change::AddGroup {
        group: GroupId(7),
        born: FoundingGroup {
            home: RegionName::default(),
            founders: [(ReplicaId(1), NodeId(lost[0]))].into(),
        },
        partitions: 2,
    };
    let done = last(&heard(&more, &flags));
    assert_eq!(done["recovered"][0]["successor"], 7 + BEYOND, "{done}");
    let map = map_in(&trial);
    let owned = |group: u32| map.partitions_of(GroupId(group)).count();
    assert_eq!(owned(7), 2);
    assert_eq!(owned(1031), known.partitions_of(GroupId(1)).count());
    std::fs::write(trial.join("map"), "torn").unwrap();
    let torn = run(command(cluster, left, Some(&trial), &flags));
    assert_eq!(torn.status.code(), Some(10));
    assert!(stderr(&torn).contains("move the file `map` away"));
    std::fs::remove_dir_all(&trial).unwrap();
}

#[test]
fn what_is_left_of_three_nodes_goes_on_takes_new_ones_in_and_an_old_one_does_no_harm() {
    let runtime = Runtime::new().unwrap();
    let mut cluster = Cluster::of(3);
    let left = cluster.leader();
    let lost: Vec<u64> = (1..=3).filter(|node| *node != left).collect();
    let both = format!("{},{}", lost[0], lost[1]);
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 1).await;
        for number in 0..3 {
            tell(&ada, &ben.box_id(), &format!("early {number}")).await;
        }
        assert_eq!(fetch(&ben).await, 3);
        for number in 0..2 {
            tell(&ada, &ben.box_id(), &format!("waiting {number}")).await;
        }
        (ada, ben)
    });
    refused(&mut cluster, left, &["--lost", &both], 10, "in use");
    // What the leader acknowledged it has. The other disks turn up again later.
    let kept = cluster.path().join("kept");
    for node in &lost {
        cluster.node(*node).kill();
        let data = cluster.node(*node).data();
        copy(&data, &kept.join(node.to_string()));
        cluster.node(*node).wipe();
    }
    eventually("the node that is left has no quorum", || {
        let (status, _) = cluster.node(left).page("/readyz")?;
        (status == 503).then_some(())
    });
    cluster.node(left).terminate();
    refuse_wrong_uses(&mut cluster, left, &lost);
    interrupt(&mut cluster, left, &both);
    go_on_with_a_newer_map(&mut cluster, left, &lost);

    let output = recover(
        &mut cluster,
        left,
        &["--lost", &both, "--json", "--dry-run"],
    );
    let told = last(&output);
    let expected = serde_json::json!({"0": "recoverable", "1": "recoverable"});
    assert_eq!(told["verdicts"], expected, "{told}");
    let report = &told["groups"][1];
    assert!(report["last"]["index"].as_u64() >= report["committed"]["index"].as_u64());
    let done = last(&recover(
        &mut cluster,
        left,
        &["--lost", &both, "--json", "--data-loss"],
    ));
    assert_eq!(done["recovered"][0]["successor"], 1 + BEYOND, "{done}");
    refused(
        &mut cluster,
        left,
        &["--data-loss"],
        5,
        "nothing to recover",
    );
    cluster.node(left).start();
    cluster.node(left).wait_ready();
    runtime.block_on(async {
        // All that was there is there, nothing comes twice, and new letters come.
        assert_eq!(fetch(&ben).await, 2);
        tell(&ada, &ben.box_id(), "new").await;
        assert_eq!(fetch(&ben).await, 1);
        let texts = ben.texts_from(&ada.box_id());
        assert_eq!(
            texts,
            [
                "early 0",
                "early 1",
                "early 2",
                "waiting 0",
                "waiting 1",
                "new"
            ]
        );
        tell(&ben, &ada.box_id(), "back").await;
        assert_eq!(fetch(&ada).await, 1);
        let dot =
            Person::with_box(&cluster, email("dot"), usize::try_from(left).unwrap() - 1).await;
        tell(&dot, &ben.box_id(), "hello").await;
        assert_eq!(fetch(&ben).await, 1);
    });

    // The old disks turn up, a majority of the old groups: their replicas are void, and they belong nowhere.
    for node in &lost {
        let data = cluster.node(*node).data();
        copy(&kept.join(node.to_string()), &data);
        cluster.node(*node).start();
    }
    for node in &lost {
        let node = cluster.node(*node);
        node.wait_log("was recovered with loss of data");
        node.wait_log("was removed from cluster");
        node.kill();
    }

    // New nodes take the places of the lost ones, under numbers that none had.
    let new = [4, 5].map(|number| number + BEYOND);
    for expected in new {
        assert_eq!(join(&mut cluster, left, "local", &[]), expected);
    }
    eventually("both groups have three voters again", || {
        let all = [left, new[0], new[1]].map(|node| (node, true)).into();
        let members = members(&mut cluster, left);
        let whole = members.iter().all(|group| *group == all);
        (whole && members.len() == 2).then_some(())
    });
    cluster.node(left).kill();
    let addresses: Vec<_> = new
        .map(|node| format!("http://{}", cluster.node(node).client_address()))
        .into();
    runtime.block_on(async {
        let ada = ada.reopened(&addresses, Patience::default());
        let ben = ben.reopened(&addresses, Patience::default());
        tell(&ada, &ben.box_id(), "last").await;
        assert_eq!(fetch(&ben).await, 1);
        // No sequence ever stood for two letters.
        for (sequence, names) in ben.witness.seen().fetched {
            assert_eq!(names.len(), 1, "sequence {sequence}");
        }
    });
}

#[test]
fn a_region_that_lost_its_majority_goes_on_while_the_others_never_stopped() {
    let runtime = Runtime::new().unwrap();
    let apart = "[placement]\nreconcile = false\n";
    let regions = ["asia", "asia", "asia", "eu", "us"];
    let mut cluster = Cluster::in_regions_to_survive(&regions, apart, "node");
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 3).await;
        for number in 0..2 {
            tell(&ben, &ada.box_id(), &format!("early {number}")).await;
        }
        (ada, ben)
    });
    let left = eventually("somebody leads in asia", || {
        let status = cluster.node(1).status()?;
        let groups = status["groups"].as_array()?.clone();
        let asia = groups.iter().find(|group| group["group"] == 1)?;
        asia["leader_node"].as_u64()
    });
    let lost: Vec<u64> = (1..=3).filter(|node| *node != left).collect();
    for node in &lost {
        cluster.node(*node).kill();
        cluster.node(*node).wipe();
    }
    cluster.node(left).terminate();
    let both = format!("{},{}", lost[0], lost[1]);
    let done = last(&recover(
        &mut cluster,
        left,
        &["--lost", &both, "--json", "--data-loss"],
    ));
    let recovered = done["recovered"].as_array().unwrap();
    assert_eq!(recovered.len(), 1, "{done}");
    assert_eq!(
        (&recovered[0]["group"], &recovered[0]["successor"]),
        (&1.into(), &(3 + BEYOND).into())
    );
    cluster.node(left).start();
    cluster
        .node(left)
        .wait_log("goes on with what was recovered");
    assert!(!cluster.node(left).data().join("recovered").exists());
    let groups = eventually("a node elsewhere knows", || {
        let shown = order(&mut cluster, 4, &["cluster", "groups"]);
        let groups = shown["groups"].as_array()?.clone();
        let numbers: Vec<_> = groups
            .iter()
            .filter_map(|group| group["group"].as_u64())
            .collect();
        (!numbers.contains(&1)).then_some(numbers)
    });
    assert_eq!(groups, [0, 2, 3, 3 + BEYOND]);
    cluster.node(left).wait_ready();
    runtime.block_on(async {
        assert_eq!(fetch(&ada).await, 2);
        tell(&ben, &ada.box_id(), "late").await;
        assert_eq!(fetch(&ada).await, 1);
        tell(&ada, &ben.box_id(), "back").await;
        assert_eq!(fetch(&ben).await, 1);
    });
}

#[test]
fn of_two_copies_that_are_left_the_better_one_goes_on_and_each_is_told_so() {
    let runtime = Runtime::new().unwrap();
    let soon = "[placement]\nstable_s = 1\n";
    let mut cluster = Cluster::in_regions_to_survive(&["asia", "eu", "us"], soon, "node");
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 0).await;
        tell(&ada, &ben.box_id(), "on three").await;
        (ada, ben)
    });
    let copies_agree = |cluster: &mut Cluster, nodes: &[u64]| {
        let sockets = nodes.iter().map(|node| cluster.node(*node).data());
        let sockets: Vec<_> = sockets.map(|data| data.join("admin.sock")).collect();
        eventually("the copies are the same", || {
            let mut all = sockets.iter().map(|socket| digests(socket.clone(), 1));
            let first = all.next()?;
            all.all(|other| other == first).then_some(())
        });
    };
    eventually("asia's group has its copies", || {
        let asia = [(1, true), (2, false), (3, false)].into();
        members(&mut cluster, 1).contains(&asia).then_some(())
    });
    copies_agree(&mut cluster, &[1, 2, 3]);
    cluster.node(3).terminate();
    runtime.block_on(tell(&ada, &ben.box_id(), "on two"));
    copies_agree(&mut cluster, &[1, 2]);
    cluster.node(1).kill();
    cluster.node(1).wipe();
    cluster.node(2).terminate();

    let report = |cluster: &mut Cluster, at: u64| {
        let output = recover(cluster, at, &["--lost", "1", "--json", "--dry-run"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let file = cluster.path().join(format!("report-{at}"));
        std::fs::write(&file, &output.stdout).unwrap();
        format!("--report={}", file.display())
    };
    let [of_two, of_three] = [2, 3].map(|at| report(&mut cluster, at));
    let lose = ["--lost", "1", "--data-loss", "--json"];
    let asia = ["--lost", "1", "--data-loss", "--group=1"];
    let told = [&asia[..], &[&of_two]].concat();
    refused(&mut cluster, 3, &told, 5, "on node 2 reaches further");
    refused(&mut cluster, 2, &asia, 5, "node 3 may have more of group 1");
    let flags = ["--lost", "1,3", &of_three];
    refused(&mut cluster, 2, &flags, 2, "a report of node 3");
    let done = last(&recover(
        &mut cluster,
        2,
        &[&lose[..], &[&of_three]].concat(),
    ));
    let recovered = done["recovered"].as_array().unwrap();
    assert_eq!(recovered.len(), 1, "{done}");
    assert_eq!(
        (&recovered[0]["group"], &recovered[0]["successor"]),
        (&1.into(), &(3 + BEYOND).into())
    );
    // Before anybody else hears of it, the other one does not do the same.
    let of_two = report(&mut cluster, 2);
    let flags = ["--lost", "1", "--group=1", &of_two];
    refused(&mut cluster, 3, &flags, 5, "was recovered before");

    cluster.node(2).start();
    cluster.node(3).start();
    cluster.node(2).wait_log("goes on with what was recovered");
    cluster.node(3).wait_log("was recovered with loss of data");
    let addresses: Vec<_> = [2, 3]
        .map(|node| format!("http://{}", cluster.node(node).client_address()))
        .into();
    runtime.block_on(async {
        let ada = ada.reopened(&addresses, Patience::default());
        let ben = ben.reopened(&addresses, Patience::default());
        assert_eq!(fetch(&ben).await, 2);
        tell(&ada, &ben.box_id(), "after").await;
        assert_eq!(fetch(&ben).await, 1);
        let texts = ben.texts_from(&ada.box_id());
        assert_eq!(texts, ["on three", "on two", "after"]);
    });
}
