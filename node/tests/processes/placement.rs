//! Groups become what the map asks for by themselves: real processes, of which some die or are told to leave,
//! while people write to each other.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::faults::Injection;
use crate::support::people::{Person, email};
use crate::support::strace::strace_works;
use crate::support::{Cluster, eventually, run, stderr};
use crate::survival::{Chat, Choices};

/// Nobody is waited for as long as in earnest.
const IMPATIENT: &str = "[placement]\nreplace_after_s = 2\nstable_s = 1\n";

/// The groups of a node's `placement show`, that of placement last.
fn groups(shown: &Value) -> Vec<&Value> {
    let groups = shown["groups"].as_array().expect("no groups").iter();
    groups.chain([&shown["placement"]]).collect()
}

fn nodes_of(group: &Value, voters_only: bool) -> BTreeSet<u64> {
    let members = group["members"].as_array().expect("no members").iter();
    let members = members.filter(|member| !voters_only || member["voter"] == true);
    members
        .map(|member| member["node"].as_u64().expect("no node"))
        .collect()
}

/// Waits until all leaders tell what `look` asks for.
fn wait_placed(cluster: &mut Cluster, at: u64, what: &str, look: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    eventually(what, || {
        let shown = cluster.placement(at, &["show"]);
        let told = groups(&shown)
            .iter()
            .all(|group| group["from_leader"] == true);
        let found = told && look(&shown);
        if !found && last != shown {
            eprintln!("{what}: {shown}");
            last = shown;
        }
        found.then_some(())
    });
}

/// Gives an order with the words of the command line, at a node.
fn give(cluster: &mut Cluster, at: u64, words: &[&str]) -> std::process::Output {
    let data = cluster.node(at).data().display().to_string();
    run(words.iter().copied().chain(["--data", &data]))
}

fn give_ok(cluster: &mut Cluster, at: u64, words: &[&str]) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let output = give(cluster, at, &words);
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

#[test]
fn a_dead_node_is_replaced_by_a_spare_one_and_leaders_go_home() {
    let mut cluster = Cluster::in_regions_with(&["asia", "asia", "eu", "us"], IMPATIENT);
    let chat = Chat::start(&cluster, &Choices::new());
    chat.wait_progress(10);
    // Those of asia share the groups, so each of them is missed.
    cluster.node(1).kill();
    wait_placed(&mut cluster, 3, "node 1 is replaced", |shown| {
        let all = groups(shown);
        all.iter().all(|group| {
            let nodes = nodes_of(group, false);
            nodes == BTreeSet::from([2, 3, 4]) && nodes_of(group, true) == nodes
        })
    });
    wait_placed(&mut cluster, 3, "leaders are at home", |shown| {
        let leaders: Vec<_> = groups(shown)
            .iter()
            .map(|group| group["leader_node"].clone())
            .collect();
        leaders[..3] == [2, 3, 4]
    });
    chat.wait_progress(20);
    let explained = cluster.placement(3, &["explain"]);
    assert_eq!(explained["now"]["partitions_unavailable"], 0, "{explained}");
    // It comes back, hears that it was replaced, and is a spare one.
    cluster.node(1).start();
    // Before that it holds none because it has not taken them in yet.
    cluster.node(1).wait_ready();
    eventually("node 1 holds no replica", || {
        let status = cluster.node(1).status()?;
        let none = status["groups"].as_array()?.is_empty() && status["placement"].is_null();
        none.then_some(())
    });
    assert!(
        (2..=4).any(
            |id| cluster.node(id).page("/metrics").is_some_and(|(_, page)| {
                page.contains("rossby_placement_steps_total{kind=\"replace\"}")
            })
        ),
        "no step was counted"
    );
    chat.finish(&cluster);
}

#[test]
fn a_drained_node_is_empty_and_a_decommissioned_one_is_gone() {
    let mut cluster = Cluster::in_regions_with(&["asia", "asia", "eu", "us"], IMPATIENT);
    let chat = Chat::start(&cluster, &Choices::new());
    chat.wait_progress(10);
    // No other node of its region: the map refuses.
    let refused = give(&mut cluster, 1, &["node", "drain", "3"]);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    give_ok(&mut cluster, 3, &["node", "drain", "1"]);
    let shown = cluster.placement(3, &["show"]);
    for group in groups(&shown) {
        assert!(!nodes_of(group, false).contains(&1), "{shown}");
    }
    chat.wait_progress(10);
    let set = give_ok(&mut cluster, 3, &["node", "activate", "1"]);
    assert_eq!(set["changed"], true);
    give_ok(&mut cluster, 4, &["node", "decommission", "1"]);
    cluster.node(1).wait_log("was removed from cluster");
    chat.wait_progress(10);
    chat.finish(&cluster);
}

#[test]
fn a_group_that_is_added_serves_boxes_that_are_born_in_its_region() {
    let mut cluster = Cluster::in_regions_with(&["asia", "eu", "us"], IMPATIENT);
    let added = give_ok(&mut cluster, 1, &["group", "add", "--region", "eu"]);
    assert_eq!(
        (&added["group"], &added["partitions"]),
        (&4.into(), &16.into())
    );
    let nowhere = give(&mut cluster, 1, &["group", "add", "--region", "mars"]);
    assert_eq!(nowhere.status.code(), Some(5), "{}", stderr(&nowhere));
    // Its partitions are the highest that were spare.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let born_there = runtime.block_on(async {
        for number in 0..200 {
            let person = Person::with_box(&cluster, email(&format!("ben{number}")), 1).await;
            if person.box_id().partition().number() >= 240 {
                return true;
            }
        }
        false
    });
    assert!(born_there, "no box is born in the new group");
    // Its members outlive a restart of all.
    for id in 1..=3 {
        cluster.node(id).kill();
    }
    for id in 1..=3 {
        cluster.node(id).start();
    }
    for id in 1..=3 {
        cluster.node(id).wait_ready();
    }
    wait_placed(&mut cluster, 2, "the new group is led from home", |shown| {
        let group = &shown["groups"][3];
        group["leader_node"] == 2 && nodes_of(group, true).len() == 3
    });
}

#[test]
fn a_group_whose_founder_dies_before_it_lives_is_brought_to_life_by_the_cluster() {
    if !strace_works() {
        return;
    }
    let mut cluster = Cluster::in_regions_with(&["asia", "eu", "us"], IMPATIENT);
    wait_placed(&mut cluster, 1, "all have leaders", |_| true);
    let shown = cluster.placement(1, &["show"]);
    // Not the one that writes the map.
    let leader = shown["placement"]["leader_node"].as_u64().unwrap();
    let (founder, region) = [(2, "eu"), (3, "us")]
        .into_iter()
        .find(|(node, _)| *node != leader)
        .unwrap();
    // It dies of the new map, and so before it is told of its replica.
    let dying = Injection::into(cluster.node(founder), "fdatasync:error=EIO");
    let order = ["group", "add", "--region", region];
    let failed = give(&mut cluster, 1, &order);
    assert!(!failed.status.success());
    cluster.node(founder).wait();
    drop(dying);
    let shown = cluster.placement(1, &["show"]);
    assert_eq!(shown["groups"].as_array().unwrap().len(), 4, "{shown}");
    assert_eq!(shown["groups"][3]["leader_node"], Value::Null, "{shown}");
    cluster.node(founder).start();
    wait_placed(&mut cluster, 1, "the group lives", |shown| {
        nodes_of(&shown["groups"][3], true) == BTreeSet::from([1, 2, 3])
    });
    for id in 1..=3 {
        cluster.node(id).wait_ready();
    }
}

#[test]
fn another_survival_goal_moves_voters() {
    let regions = ["asia", "asia", "asia", "eu", "us"];
    let mut cluster = Cluster::in_regions_with(&regions, IMPATIENT);
    let at_home = |shown: &Value| nodes_of(&shown["groups"][0], true);
    wait_placed(
        &mut cluster,
        4,
        "asia's group is in three regions",
        |shown| {
            let nodes = at_home(shown);
            nodes.len() == 3 && nodes.contains(&4) && nodes.contains(&5)
        },
    );
    cluster.placement(4, &["set", "survive", "node"]);
    wait_placed(&mut cluster, 4, "asia's group is at home", |shown| {
        at_home(shown) == BTreeSet::from([1, 2, 3])
    });
    wait_placed(
        &mut cluster,
        4,
        "other regions have copies of it",
        |shown| nodes_of(&shown["groups"][0], false) == BTreeSet::from([1, 2, 3, 4, 5]),
    );
    let explained = cluster.placement(4, &["explain"]);
    assert_eq!(explained["holds"], true, "{explained}");
    // They have all that the voters have, and are refused a say.
    let copies = [1, 4, 5].map(|id| cluster.node(id).data().join("admin.sock"));
    eventually("the copies are the same", || {
        let all = copies
            .clone()
            .map(|socket| crate::support::digests_if_held(socket, 1));
        let same = all.iter().all(|digests| *digests == all[0]);
        (same && all[0].is_some()).then_some(())
    });
    let asia = &explained["regions"][0];
    assert_eq!(asia["groups"]["1"]["unavailable"], true, "{asia}");
    assert_eq!(asia["groups"]["1"]["writes"], "newest_at_risk", "{asia}");
    cluster.placement(4, &["set", "survive", "region"]);
    wait_placed(
        &mut cluster,
        4,
        "asia's group is in three regions again",
        |shown| {
            let nodes = at_home(shown);
            nodes.len() == 3 && nodes.contains(&4) && nodes.contains(&5)
        },
    );
    let explained = cluster.placement(4, &["explain"]);
    assert_eq!(explained["holds"], true, "{explained}");
}
