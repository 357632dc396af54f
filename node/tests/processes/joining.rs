//! Nodes join by a token and take the place of others, while people write to each other: real processes, real
//! orders.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::people::{Person, email};
use crate::support::{Cluster, Node, eventually, peer_args, rossby, run, stderr};
use crate::survival::{Chat, Choices};

/// Nobody is waited for as long as in earnest.
const IMPATIENT: &str = "[placement]\nreplace_after_s = 2\nstable_s = 1\n";

/// Gives an order at a node; what it said as JSON, in its last line.
pub fn order(cluster: &mut Cluster, at: u64, words: &[&str]) -> Value {
    let data = cluster.node(at).data().display().to_string();
    let output = run(words.iter().copied().chain(["--json", "--data", &data]));
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// The same, which is refused.
fn refused(cluster: &mut Cluster, at: u64, words: &[&str], code: i32) -> String {
    let data = cluster.node(at).data().display().to_string();
    let output = run(words.iter().copied().chain(["--data", &data]));
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    stderr(&output)
}

/// A token for a new node, in a file of its own: the node's number, and the file.
fn token(cluster: &mut Cluster, at: u64, flags: &[&str]) -> (u64, PathBuf) {
    let words = [&["node", "token"], flags].concat();
    let issued = order(cluster, at, &words);
    let node = issued["node"].as_u64().unwrap();
    let file = cluster.path().join(format!("token-{node}"));
    write_private(&file, issued["token"].as_str().unwrap());
    (node, file)
}

fn write_private(file: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, format!("{text}\n")).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A node that does not run yet and joins at these members by the token in a file.
fn joiner(cluster: &mut Cluster, id: u64, seeds: &[u64], region: &str, token: &Path) -> Node {
    let mut args = peer_args(cluster.path(), id);
    let settings = cluster.path().join("rossby.toml");
    if settings.exists() {
        args.push(format!("--config={}", settings.display()));
    }
    args.push(format!("--region={region}"));
    args.push(format!("--join-token-file={}", token.display()));
    for seed in seeds {
        let address = cluster.node(*seed).peer_address();
        args.push(format!("--join={address}"));
    }
    let mut node = Node::new(cluster.path(), id, args);
    node.unnumbered();
    node
}

/// Joins a node and waits until it is ready.
pub fn join(cluster: &mut Cluster, at: u64, region: &str, flags: &[&str]) -> u64 {
    let (id, file) = token(cluster, at, flags);
    let mut node = joiner(cluster, id, &[at], region, &file);
    node.start();
    cluster.take(node);
    cluster.node(id).wait_ready();
    id
}

/// The nodes in each group, and whether each of them has a vote.
pub fn members(cluster: &mut Cluster, at: u64) -> Vec<BTreeSet<(u64, bool)>> {
    let shown = order(cluster, at, &["cluster", "groups"]);
    let groups = shown["groups"].as_array().unwrap().iter();
    let of_group = |group: &Value| {
        let members = group["members"].as_array().unwrap().iter();
        let member = |member: &Value| {
            (
                member["node"].as_u64().unwrap(),
                member["voter"].as_bool().unwrap(),
            )
        };
        members.map(member).collect()
    };
    groups.map(of_group).collect()
}

#[test]
fn a_node_that_joins_under_load_takes_the_place_of_an_old_one_unnoticed() {
    let mut cluster = Cluster::in_regions_with(&["asia", "asia", "eu", "us"], IMPATIENT);
    let chat = Chat::start(&cluster, &Choices::new());
    chat.wait_progress(10);
    let new = join(&mut cluster, 3, "asia", &["--region", "asia"]);
    assert_eq!(new, 5);
    chat.wait_progress(10);
    let wrong = [
        ("1", "3", 5, "is in region eu"),
        ("1", "1", 2, "own place"),
        ("1", "77", 2, "no node 77"),
    ];
    for (old, new, code, what) in wrong {
        let said = refused(&mut cluster, 4, &["node", "replace", old, new], code);
        assert!(said.contains(what), "{said}");
    }
    let replaced = order(&mut cluster, 4, &["node", "replace", "1", "5"]);
    assert_eq!(replaced["state"], "removed", "{replaced}");
    cluster.node(1).wait_log("was removed from cluster");
    chat.wait_progress(10);
    for group in members(&mut cluster, 5) {
        assert!(group.iter().all(|(node, voter)| *node != 1 && *voter));
        assert!(group.contains(&(5, true)) || group.contains(&(2, true)));
    }
    let nodes = order(&mut cluster, 5, &["cluster", "nodes"]);
    let nodes = nodes["nodes"].as_array().unwrap().clone();
    let numbers: Vec<_> = nodes.iter().map(|node| node["node"].clone()).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
    assert!(
        nodes
            .iter()
            .all(|node| node["answers"] == true && node["state"] == "active")
    );
    let held = nodes[3]["groups"].as_array().unwrap();
    assert!(!held.is_empty(), "node 5 took nobody's place: {nodes:?}");
    // It is a member for good: neither the token nor the number is needed again.
    cluster.node(5).kill();
    std::fs::remove_file(cluster.path().join("token-5")).unwrap();
    cluster.node(5).start();
    cluster.node(5).wait_ready();
    chat.wait_progress(10);
    chat.finish(&cluster);
}

#[test]
fn a_single_node_grows_by_tokens_and_a_new_region_only_by_one_that_says_so() {
    let mut cluster = Cluster::of(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for expected in [2, 3] {
        let id = join(&mut cluster, 1, "local", &[]);
        assert_eq!(id, expected);
    }
    let voters = |cluster: &mut Cluster, nodes: [u64; 3]| {
        eventually(&format!("{nodes:?} vote in both groups"), || {
            let all = nodes.map(|node| (node, true)).into();
            let members = members(cluster, 2);
            members.iter().all(|group| *group == all).then_some(())
        });
    };
    voters(&mut cluster, [1, 2, 3]);
    assert_eq!(join(&mut cluster, 2, "local", &["--region", "local"]), 4);
    // The first is not needed any more, since there is one to spare.
    order(&mut cluster, 3, &["node", "decommission", "1"]);
    voters(&mut cluster, [2, 3, 4]);
    cluster.node(1).kill();
    runtime.block_on(Person::with_box(&cluster, email("ada"), 1));
    let said = refused(&mut cluster, 2, &["node", "token", "--region", "eu"], 5);
    assert!(said.contains("no active node is in region eu"), "{said}");
    let flags = ["--region", "eu", "--new-region", "--node", "9"];
    assert_eq!(join(&mut cluster, 2, "eu", &flags), 9);
    // The placement group moves into the new region meanwhile.
    let data = cluster.node(9).data().display().to_string();
    let added = eventually("the new region has a group", || {
        let words = ["group", "add", "--region", "eu", "--json", "--data", &data];
        let output = run(words);
        let added = output.status.success().then_some(output.stdout)?;
        serde_json::from_slice::<Value>(&added).ok()
    });
    assert_eq!(added["nodes"], serde_json::json!([9]));
    // Numbers are not given again.
    let said = refused(&mut cluster, 2, &["node", "token", "--node", "1"], 5);
    assert!(said.contains("up to 9"), "{said}");
}

#[test]
fn wrong_tokens_and_wrong_places_are_refused_and_change_nothing() {
    let mut cluster = Cluster::of(3);
    let (id, file) = token(&mut cluster, 1, &["--valid-for", "30d"]);
    let good = std::fs::read_to_string(&file).unwrap();
    let version =
        |cluster: &mut Cluster| order(cluster, 1, &["placement", "show"])["version"].clone();
    let before = version(&mut cluster);
    let mut node = joiner(&mut cluster, id, &[1], "local", &file);
    let ends = |node: &mut Node, code: i32, what: &str| {
        let output = run(node.command_line());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(what), "{said}");
    };
    // No token, no whole token, a token that others can read.
    write_private(&file, "hello");
    ends(&mut node, 3, "not a join token");
    write_private(&file, &good.trim()[..40]);
    ends(&mut node, 3, "not whole");
    std::fs::remove_file(&file).unwrap();
    ends(&mut node, 3, "token-4");
    write_private(&file, good.trim());
    // Another number, another region, another cluster, another authority.
    node.args().push("--node=3".to_owned());
    ends(&mut node, 3, "the join token is for node 4");
    node.args().pop();
    node.args().push("--region=eu".to_owned());
    node.args().retain(|arg| arg != "--region=local");
    ends(&mut node, 5, "no active node is in region eu");
    node.args().retain(|arg| arg != "--region=eu");
    let mut stranger = Cluster::of(1);
    let elsewhere = stranger.node(1).peer_address();
    let seed = node
        .args()
        .iter()
        .position(|arg| arg.starts_with("--join="))
        .unwrap();
    let seed = node.args().remove(seed);
    node.args().push(format!("--join={elsewhere}"));
    ends(&mut node, 5, "can't be trusted");
    node.args().pop();
    node.args().push(seed.clone());
    // A token that this cluster never gave.
    let (_, forged) = token(&mut stranger, 1, &["--node", "4"]);
    let forged = std::fs::read_to_string(forged).unwrap();
    write_private(&file, forged.trim());
    ends(&mut node, 5, "another cluster");
    write_private(&file, good.trim());
    // A token that was taken back at one node is good at no other. Its file is found by nobody afterwards.
    let (leaked, leaked_file) = token(&mut cluster, 1, &["--region", "local"]);
    let revoke = ["node", "token", "revoke", &leaked.to_string()];
    for _ in 0..2 {
        let revoked = order(&mut cluster, 2, &revoke);
        assert_eq!(revoked["state"], "revoked", "{revoked}");
    }
    let mut late = joiner(&mut cluster, leaked, &[3, 1], "local", &leaked_file);
    ends(&mut late, 5, "the join token was revoked");
    let said = refused(&mut cluster, 3, &["node", "token", "revoke", "77"], 2);
    assert!(said.contains("no join token for node 77"), "{said}");
    // A directory that is not empty.
    std::fs::create_dir_all(node.data().join("wal")).unwrap();
    std::fs::remove_file(node.data().join("joining")).unwrap();
    ends(&mut node, 10, "joins with an empty directory");
    std::fs::remove_dir_all(node.data()).unwrap();
    assert_eq!(version(&mut cluster), before);
    assert!(!node.secrets().exists(), "secrets were given away");
    // With a seed that is down it waits, and says so; it comes in by the other.
    cluster.node(1).pause();
    node.start();
    node.wait_log("it is asked again");
    cluster.node(1).resume();
    node.wait_ready();
    let secrets = |node: &Node| std::fs::read(node.secrets()).unwrap();
    assert_eq!(secrets(&node), secrets(cluster.node(1)));
    let listed = order(&mut cluster, 3, &["node", "token", "list"]);
    let of = |at: usize, name: &str| listed["tokens"][at][name].clone();
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 2, "{listed}");
    let used = (of(0, "node"), of(0, "state"), of(0, "region"));
    assert_eq!(used, (id.into(), "used".into(), Value::Null));
    assert_eq!(of(0, "peer_address"), node.peer_address().to_string());
    let revoked = (of(1, "node"), of(1, "state"), of(1, "region"));
    assert_eq!(revoked, (leaked.into(), "revoked".into(), "local".into()));
    let said = refused(
        &mut cluster,
        2,
        &["node", "token", "revoke", &id.to_string()],
        5,
    );
    assert!(said.contains("has joined by its token"), "{said}");
    // The token is used: another directory does not come in by it.
    node.terminate();
    let data = node.data();
    std::fs::rename(&data, data.with_extension("aside")).unwrap();
    ends(&mut node, 5, "was used before");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(data.with_extension("aside"), &data).unwrap();
    node.start();
    node.wait_ready();
    // It holds no replica: without its map it knows nobody, and is found by whoever plans.
    let held = node.status().unwrap()["groups"].clone();
    assert_eq!(held, serde_json::json!([]));
    node.kill();
    std::fs::remove_file(node.data().join("map")).unwrap();
    node.start();
    node.wait_ready();
    // None of them is kept in clear, nor logged.
    let secret = good.trim().trim_start_matches("rossby-join-1-").to_owned();
    cluster.take(node);
    for node in cluster.nodes() {
        assert!(!node.log().contains(&secret), "the token is in a log");
    }
}

/// A command that ends with the test at the latest.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn groups_partitions_and_nodes_are_shown_and_watched_until_interrupted() {
    let mut cluster = Cluster::in_regions(&["asia", "eu", "us"]);
    let shown = eventually("the leaders know how far all copies are", || {
        let shown = order(&mut cluster, 2, &["cluster", "groups"]);
        let groups = shown["groups"].as_array().unwrap().iter();
        let members = |group: &Value| group["members"].as_array().unwrap().clone();
        let mut members = groups.flat_map(members);
        let known = members.all(|member| member["behind"].is_u64());
        known.then_some(shown)
    });
    assert_eq!(shown["silent"], serde_json::json!([]));
    let groups = shown["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(
        (&groups[0]["group"], &groups[0]["home"]),
        (&0.into(), &Value::Null)
    );
    for group in groups {
        assert_eq!(group["from_leader"], true, "{group}");
        assert!(group["leader_region"].is_string() && group["term"].as_u64() > Some(0));
        assert_eq!(group["members"].as_array().unwrap().len(), 3, "{group}");
    }
    let shown = order(&mut cluster, 2, &["cluster", "partitions"]);
    let partitions = shown["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 256);
    assert_eq!(
        (&partitions[0]["group"], &partitions[0]["epoch"]),
        (&1.into(), &1.into())
    );
    assert_eq!(partitions[255]["group"], Value::Null);
    cluster.node(3).kill();
    let data = cluster.node(2).data().display().to_string();
    eventually("node 3 is said not to answer", || {
        let output = run(["cluster", "nodes", "--data", &data]);
        let said = String::from_utf8(output.stdout).unwrap();
        let head = said.lines().next()?.starts_with("NODE  REGION");
        let down = said
            .lines()
            .any(|line| line.starts_with("3 ") && line.contains("does not answer"));
        (head && down).then_some(())
    });
    let watched: Vec<_> = [
        &["cluster", "groups"][..],
        &["cluster", "status"],
        &["placement", "show"],
    ]
    .into_iter()
    .map(|words| {
        let file = cluster.path().join(words.join("-"));
        let child = rossby()
            .args(words)
            .args(["--watch", "--json", "--data", &data])
            .stdout(std::fs::File::create(&file).unwrap())
            .spawn();
        (file, Ended(child.unwrap()))
    })
    .collect();
    for (file, mut child) in watched {
        eventually("it is shown again", || {
            let said = std::fs::read_to_string(&file).ok()?;
            let whole = said.lines().filter(|line| line.ends_with('}'));
            (whole.count() >= 2).then_some(())
        });
        let pid = rustix::process::Pid::from_child(&child.0);
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        let status = eventually("it ends", || child.0.try_wait().unwrap());
        assert!(status.success(), "{}: {status}", file.display());
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
    }
}
