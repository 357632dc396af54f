//! `rossby check` says what is wrong with a stopped node's data, and where, and changes nothing;
//! `rossby rebuild` refuses what would lose the only copy.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use serde_json::Value;

use crate::support::people::{Person, email};
use crate::support::search::files;
use crate::support::{self, Cluster, copy, run, stderr};

/// Names, times and bytes of all that is in a folder.
fn all_of(folder: &Path) -> BTreeMap<PathBuf, (i64, i64, Vec<u8>)> {
    let held = files(folder).into_iter().map(|path| {
        let found = fs::metadata(&path).unwrap();
        let bytes = if found.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        (path, (found.mtime(), found.mtime_nsec(), bytes))
    });
    held.collect()
}

/// Runs `rossby check`, which must not change anything; how it ended, and its report.
fn check(data: &Path) -> (i32, Value) {
    let before = all_of(data);
    let output = run(["check", "--json", "--data", &data.display().to_string()]);
    assert_eq!(all_of(data), before, "the inspection changed something");
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (output.status.code().unwrap(), report)
}

fn findings<'a>(report: &'a Value, severity: &str) -> Vec<&'a Value> {
    let all = report["findings"].as_array().unwrap();
    all.iter()
        .filter(|finding| finding["severity"] == severity)
        .collect()
}

/// A node that has letters in its checkpoint and in its log.
fn written(runtime: &tokio::runtime::Runtime, cluster: &mut Cluster) {
    runtime.block_on(async {
        let ada = Person::with_box(cluster, email("ada"), 0).await;
        let ben = Person::with_box(cluster, email("ben"), 0).await;
        ada.add(&ben).await;
        for number in 0..4 {
            if number == 2 {
                for node in cluster.nodes() {
                    node.checkpoint();
                }
            }
            let content = Content::Text(format!("letter {number}"));
            let sent = ada.device.send(&ben.box_id(), &content).await.unwrap();
            assert!(matches!(sent.delivery, Delivery::Delivered(_)));
        }
    });
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn only(folder: &Path, suffix: &str) -> PathBuf {
    let found = files(folder)
        .into_iter()
        .find(|path| path.display().to_string().ends_with(suffix));
    found.unwrap_or_else(|| panic!("no {suffix} in {}", folder.display()))
}

#[test]
fn a_sound_directory_is_read_to_its_last_row_and_left_as_it_was() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::single();
    written(&runtime, &mut cluster);
    let node = cluster.node(1);
    let data = node.data();
    // Not while it runs.
    let output = run(["check", "--data", &data.display().to_string()]);
    assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("stop it first"),
        "{}",
        stderr(&output)
    );

    node.kill();
    let (code, report) = check(&data);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["verdict"], "sound");
    assert_eq!(report["node"], 1);
    assert_eq!(report["groups"][0]["member_nodes"], serde_json::json!([1]));
    let rows = &report["groups"][0]["checkpoint"]["rows"];
    assert_eq!(rows["queue"], 2, "{report:#}");
    assert_eq!(rows["profiles"], 2, "{report:#}");
    assert!(
        report["groups"][0]["entries"].as_u64().unwrap() > 2,
        "{report:#}"
    );
    assert!(
        report["base"].as_str().unwrap().contains("rebuilds"),
        "{report:#}"
    );
    assert!(!findings(&report, "harmless").is_empty(), "{report:#}");

    node.start();
    node.wait_ready();
    node.terminate();
    let (code, report) = check(&data);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["log"]["tail"], "closed in good order");
    assert_eq!(report["base"], "closed in good order");
    assert_eq!(report["findings"], serde_json::json!([]));
    // And for people.
    let output = run(["check", "--data", &data.display().to_string()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Sound: the node can start."), "{text}");
}

#[test]
fn damage_is_named_with_its_file_and_what_to_do() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::single();
    written(&runtime, &mut cluster);
    let folder = cluster.path().to_owned();
    let node = cluster.node(1);
    node.kill();
    let whole = node.data();
    for (case, (suffix, at)) in [
        (".wal", 600),
        (".rows", 40),
        ("/manifest", 40),
        ("data/node", 90),
        ("/founding", 50),
    ]
    .into_iter()
    .enumerate()
    {
        let data = folder.join(format!("case-{case}/data"));
        copy(&whole, &data);
        let path = only(&data, suffix);
        flip(&path, at);
        let (code, report) = check(&data);
        assert_eq!(code, 10, "{suffix}: {report:#}");
        assert_eq!(report["verdict"], "damaged", "{suffix}");
        let damage = findings(&report, "damage");
        let named = damage.iter().any(|finding| {
            let text = format!("{} {}", finding["path"], finding["what"]);
            text.contains(&path.display().to_string())
        });
        assert!(named, "{suffix}: {report:#}");
        if suffix == ".wal" {
            assert!(damage[0]["offset"].as_u64().unwrap() >= 512, "{report:#}");
        }
        let advice = report["advice"].to_string();
        assert!(advice.contains("restore"), "{suffix}: {advice}");
        // The node says no to the same directory.
        let mut args = node.command_line();
        args.retain(|arg| !arg.starts_with("--data="));
        args.push(format!("--data={}", data.display()));
        let refused = run(&args);
        assert_eq!(refused.status.code(), Some(10), "{}", stderr(&refused));
        // And it holds the only copy.
        let rebuild = ["rebuild", "--force", "--data", &data.display().to_string()];
        let refused = run(rebuild);
        assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("backup"), "{}", stderr(&refused));
    }
}

#[test]
fn what_interrupted_work_left_behind_is_not_damage() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::single();
    written(&runtime, &mut cluster);
    let node = cluster.node(1);
    node.terminate();
    let data = node.data();
    let group = data.join("checkpoints/1");
    for path in [
        data.join("wal/0000000099.wal-unfinished"),
        group.join("writing-0.tmp"),
        group.join(format!("{}.rows", "ab".repeat(32))),
        data.join("node.tmp"),
    ] {
        fs::write(path, "half").unwrap();
    }
    fs::write(data.join("stranger"), "?").unwrap();
    let (code, report) = check(&data);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(findings(&report, "harmless").len(), 3, "{report:#}");
    assert_eq!(findings(&report, "note").len(), 1, "{report:#}");
    node.start();
    node.wait_ready();
}

#[test]
fn a_file_taken_from_elsewhere_is_noticed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::single();
    written(&runtime, &mut cluster);
    let folder = cluster.path().to_owned();
    let node = cluster.node(1);
    node.terminate();
    let whole = node.data();
    // The log without the checkpoint that it begins after would be a hole; here nothing was purged,
    // so an identity that is missing, or a log that is, has to show.
    let lost = folder.join("lost/data");
    copy(&whole, &lost);
    fs::remove_file(lost.join("node")).unwrap();
    let (code, report) = check(&lost);
    assert_eq!(code, 10, "{report:#}");
    let swapped = folder.join("swapped/data");
    copy(&whole, &swapped);
    let rows: Vec<_> = files(&swapped)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|is| is == "rows"))
        .collect();
    assert!(rows.len() > 1);
    fs::copy(&rows[0], &rows[1]).unwrap();
    let (code, report) = check(&swapped);
    assert_eq!(code, 10, "{report:#}");
    let text = report["findings"].to_string();
    assert!(text.contains(&rows[1].display().to_string()), "{text}");
}

#[test]
fn a_directory_that_is_not_there_is_an_error_and_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("nowhere");
    for command in ["check", "rebuild"] {
        let output = run([command, "--data", &data.display().to_string()]);
        assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
        assert!(!data.exists());
    }
}

#[test]
fn a_rebuilt_node_keeps_its_place_in_mind_and_waits_to_be_taken_in() {
    let mut cluster = Cluster::of(3);
    cluster.leader();
    let node = cluster.node(3);
    node.kill();
    let data = node.data();
    let name = data.display().to_string();
    let refused = run(["rebuild", "--data", &name]);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("nothing is wrong"));

    flip(&only(&data, ".wal"), 600);
    let held = all_of(&data);
    let (code, report) = check(&data);
    assert_eq!(code, 10, "{report:#}");
    // Without a checkpoint and with a log that can't be read, the plan tells this node of the others.
    let output = run(["rebuild", "--data", &name]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("replace-node 3 3="), "{said}");
    // All that was there is there still, under another name.
    let beside = fs::read_dir(data.parent().unwrap()).unwrap();
    let aside = beside
        .map(|entry| entry.unwrap().path())
        .find(|path| path.display().to_string().contains(".set-aside-"));
    // Only the space that was set aside for a full disk is given back.
    assert_eq!(all_of(&aside.unwrap()).len(), held.len() - 1);

    node.start();
    node.wait_alive();
    let (status, _) = node.page("/readyz").unwrap();
    assert_eq!(status, 503);
    node.kill();
    // It founds nothing by itself.
    let mut args = node.command_line();
    args.retain(|arg| !arg.starts_with("--peer"));
    let refused = run(&args);
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    let again = run(["rebuild", "--data", &name]);
    assert_eq!(again.status.code(), Some(5), "{}", stderr(&again));
    assert!(stderr(&again).contains("nothing to rebuild"));
}

#[test]
fn a_damaged_follower_is_rebuilt_taken_in_again_and_holds_every_letter() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let victim = if leader == 3 { 2 } else { 3 };
    written(&runtime, &mut cluster);
    let node = cluster.node(victim);
    node.kill();
    let data = node.data();
    flip(&only(&data, ".rows"), 40);
    // It says no, with the way out.
    let refused = run(node.command_line());
    assert_eq!(refused.status.code(), Some(10), "{}", stderr(&refused));
    let (code, report) = check(&data);
    assert_eq!(code, 10, "{report:#}");
    assert!(
        report["advice"].to_string().contains("rossby rebuild"),
        "{report:#}"
    );
    let output = run(["rebuild", "--force", "--data", &data.display().to_string()]);
    assert!(output.status.success(), "{}", stderr(&output));
    node.start();
    node.wait_alive();
    let new = cluster.at(victim);
    cluster.order_ok(leader, &["replace-node", &victim.to_string(), &new]);
    cluster.node(victim).wait_ready();
    support::eventually("the copies agree", || {
        let all: Vec<_> = cluster.nodes().iter().map(support::Node::digests).collect();
        all.iter().all(|copy| *copy == all[0]).then_some(())
    });
    let status = cluster.node(victim).status().unwrap();
    let members = status["groups"][0]["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{status:#}");
}
