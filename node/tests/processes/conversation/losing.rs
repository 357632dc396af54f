//! Devices that are lost while a node or a region is lost: what was begun comes to its end, by itself or given again.

use std::process::{Child, Output, Stdio};

use rossby_api::ClusterSecrets;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, PartitionCount};
use serde_json::{Value, json};

use super::devices::link;
use super::recovery::{VARIABLE, said};
use super::resetting::{anew, ask, hasty, wait_out};
use super::{Person, limited, person, person_at, servers};
use crate::regions::wait_leaders;
use crate::support::{Cluster, eventually, stderr};

/// The group that a box belongs to by the first map: partitions are handed out in turn.
fn group_of(box_id: &str) -> u16 {
    let box_id: BoxId = box_id.parse().unwrap();
    box_id.partition().number() % 3 + 1
}

/// Whether a command that was under way when a node died was done; if not, it is given again.
fn is_done(child: Child) -> bool {
    let output = child.wait_with_output().unwrap();
    assert!(
        matches!(output.status.code(), Some(0 | 4 | 6)),
        "{}",
        stderr(&output)
    );
    output.status.success()
}

/// What a command said, given again if need be.
fn at_last(child: Child, again: impl FnOnce() -> Output) -> Value {
    let output = child.wait_with_output().unwrap();
    match output.status.code() {
        Some(4 | 6) => said(&again()),
        _ => said(&output),
    }
}

#[test]
fn a_reset_and_a_no_come_to_their_end_though_a_region_falls_silent_and_dies_in_their_midst() {
    let settings = format!("[limits]\n{}\n", hasty(2_000));
    let mut cluster = Cluster::in_regions_with(&["asia", "eu", "us"], &settings);
    wait_leaders(&mut cluster, 1);
    let bob = person_at(&cluster, "bob", 1);
    let alice = person_at(&cluster, "alice", 2);
    let laptop = link(&cluster, &alice, "laptop", 1);
    // Both are at home in asia.
    let thief = anew(&cluster, &alice, "thief");
    let new = anew(&cluster, &bob, "new");
    let (old_box, new_box) = (bob.box_id(), new.box_id());
    let homes = [&old_box, &alice.box_id(), &new_box].map(|id| group_of(id));
    assert_eq!(homes, [2, 3, 1]);
    wait_out(&bob);
    let code = ask(&new, &cluster);

    cluster.node(1).pause();
    let (authorize, keep) = (
        ["authorize", &code, "--json"],
        ["identifiers", "keep", "--email", &alice.email],
    );
    let (completing, keeping) = (new.start(&authorize), laptop.start(&keep));
    wait_leaders(&mut cluster, 2);
    cluster.node(1).kill();
    let authorised = at_last(completing, || new.run(&authorize));
    assert_eq!(authorised["box"], new_box.as_str());
    if !is_done(keeping) {
        // It may have counted.
        let again = laptop.run(&keep);
        assert!(
            matches!(again.status.code(), Some(0 | 5)),
            "{}",
            stderr(&again)
        );
    }
    // Its own delay was over too. At most it begins anew, once the pause after a "no" is over, which is as short here.
    let refused = thief.run(&["authorize", &ask(&thief, &cluster), "--json"]);
    match refused.status.code() {
        Some(0) => assert_eq!(said(&refused)["authorised"], false),
        _ => assert!(
            stderr(&refused).contains("RESET_VETOED"),
            "{}",
            stderr(&refused)
        ),
    }
    let kept = alice.json(&["identifiers", "list"]);
    assert_eq!(kept[0]["verified"], true);
    let left = bob.json(&["identifiers", "list"]);
    let mut left = left.as_array().unwrap().iter();
    assert!(left.all(|own| own["verified"] == false));
    let found = alice.json(&["contacts", "add", &new.email]);
    assert_eq!(found["box"], new_box.as_str());
}

/// The names of people whose emails a group knows, by the first map.
fn known_to(cluster: &Cluster, group: u16) -> impl Iterator<Item = String> {
    let secrets = ClusterSecrets::load(&cluster.nodes()[0].secrets()).unwrap();
    let partitions = PartitionCount::new(256).unwrap();
    let names = (0..).map(|number| format!("alice-{number}"));
    names.filter(move |name| {
        let email = Identifier::email(&format!("{name}@example.org")).unwrap();
        let directory = secrets.identifier_hash(&email).partition(partitions);
        directory.number() % 3 + 1 == group
    })
}

#[test]
fn an_email_is_kept_though_another_is_known_to_a_lost_region_alone() {
    let settings = format!("[limits]\n{}\n", hasty(600_000));
    let regions = ["asia", "eu", "us"];
    let cluster = &mut Cluster::in_regions_to_survive(&regions, &settings, "node");
    wait_leaders(cluster, 1);
    let alice = person(cluster, &known_to(cluster, 2).next().unwrap());
    let lost = format!("{}@example.org", known_to(cluster, 3).next().unwrap());
    alice.ok(&["identifiers", "add", "--email", &lost]);
    let thief = anew(cluster, &alice, "thief");
    // Later it may be asked for in vain: the lost region may know the device.
    let code = ask(&thief, cluster);
    cluster.node(3).kill();
    let listed = alice.json(&["identifiers", "list"]);
    let uncertain = |own: &Value| own["uncertain"].as_bool().unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(
        listed.iter().map(uncertain).collect::<Vec<_>>(),
        [false, true]
    );
    alice.ok(&["identifiers", "keep", "--email", &alice.email]);
    let refused = thief.fails(5, &["authorize", &code]);
    assert!(refused.contains("RESET_VETOED"), "{refused}");
}

/// Whether a recovery has found its box.
fn looked_up(cluster: &Cluster) -> Option<()> {
    let found = "rossby_calls_total{rpc=\"LookupRecovery\",code=\"OK\"} ";
    let pages = cluster
        .nodes()
        .iter()
        .filter_map(|node| node.page("/metrics"));
    let mut pages = pages.map(|(_, page)| page);
    pages.any(|page| page.contains(found)).then_some(())
}

#[test]
fn a_recovery_and_a_deletion_come_to_their_end_though_the_leader_dies_in_their_midst() {
    let (_config, flag) = limited("code_pause_ms = 1");
    let mut cluster = Cluster::of_with(3, &[&flag]);
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let words = alice.ok(&["recovery", "show"]);
    let mut new = Person::named(&cluster, "new");
    new.email.clone_from(&alice.email);
    let servers = servers(&cluster);
    let mut recover = vec![
        "recovery",
        "use",
        "--email",
        &alice.email,
        "--revoke-others",
    ];
    recover.extend(servers.iter().map(String::as_str));
    recover.extend(["--json", "--timeout", "30"]);
    let given = || {
        let mut command = new.command(&recover);
        command.env(VARIABLE, &words);
        command
    };
    let leader = cluster.leader();
    let mut recovering = given();
    recovering.stdout(Stdio::piped());
    let recovering = recovering.spawn().unwrap();
    eventually("it has found the box", || looked_up(&cluster));
    cluster.node(leader).kill();
    let taken = at_last(recovering, || given().output().unwrap());
    assert_eq!(
        (&taken["box"], &taken["devices"]),
        (&json!(alice.box_id()), &json!(1))
    );
    let told = alice.fails(7, &["inbox"]);
    assert!(told.contains("or no longer"), "{told}");
    bob.ok(&["send", &new.email, "on the new one"]);
    assert_eq!(new.hear(), ["on the new one"]);

    cluster.node(leader).start();
    cluster.node(leader).wait_ready();
    let leader = cluster.leader();
    let box_id = bob.box_id();
    cluster.node(leader).pause();
    let delete = ["account", "delete", "--yes", "--json"];
    let deleting = bob.start(&delete);
    cluster.leader();
    cluster.node(leader).kill();
    let deleted = at_last(deleting, || bob.run(&delete));
    assert_eq!(deleted["box"], box_id.as_str());
    assert!(!bob.home.exists());
    let refused = new.fails(8, &["send", &box_id, "are you there?"]);
    assert!(refused.contains("UNKNOWN_RECIPIENT"), "{refused}");
    let again = Person::named(&cluster, "bob");
    let before = again.code(&cluster);
    let output = again.register(&cluster, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let code = eventually("another code", || {
        Some(again.code(&cluster)).filter(|code| *code != before)
    });
    again.ok(&["authorize", &code]);
    assert_ne!(again.box_id(), box_id);
}
