//! Messages and files between people, and what of them others can see.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use rossby_client::device::LookupBy;
use rossby_client::envelope::Content;
use rossby_domain::identifier::Identifier;
use serde_json::{Value, json};

use super::{PASSPHRASE, person, texts};
use crate::support::Cluster;
use crate::support::people::{self, email, last_code};
use crate::support::search::{Secrets, files};

#[test]
fn two_people_meet_and_write_to_each_other() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let added = alice.json(&["contacts", "add", &bob.email, "--name", "Bob"]);
    assert_eq!(added["box"], bob.box_id());
    assert_eq!(added["chain_version"], 0);

    let sent = alice.json(&["send", "bob", "Guten Morgen, Bob"]);
    assert_eq!(sent["status"], "delivered");
    assert_eq!(sent["sequence"], 1);
    alice.ok(&["send", &bob.email, "und noch etwas"]);
    alice.ok(&["send", &bob.box_id(), "und noch etwas mehr"]);
    assert_eq!(
        bob.hear(),
        ["Guten Morgen, Bob", "und noch etwas", "und noch etwas mehr"]
    );
    assert!(bob.hear().is_empty(), "nothing comes twice");

    // Whoever writes first is no stranger to an answer.
    bob.ok(&["send", &alice.box_id(), "Morgen!"]);
    assert_eq!(alice.hear(), ["Morgen!"]);
    // Both see one conversation, each in their own words.
    let said = [
        "Guten Morgen, Bob",
        "und noch etwas",
        "und noch etwas mehr",
        "Morgen!",
    ];
    for (person, other) in [(&alice, "Bob".to_owned()), (&bob, alice.box_id())] {
        let history = person.json(&["history", &other]);
        assert_eq!(texts(&history["messages"]), said);
        let last = person.json(&["history", &other, "--last", "1"]);
        assert_eq!(texts(&last["messages"]), ["Morgen!"]);
    }
    let nobody = alice.fails(8, &["history", "nobody@example.org"]);
    assert!(nobody.contains("no contact, nor a group"), "{nobody}");
    let shown = alice.ok(&["inbox", "--all"]);
    assert!(shown.contains("you to Bob: Guten Morgen, Bob"), "{shown}");
    assert!(shown.contains("Bob: Morgen!"), "{shown}");

    let number = alice.json(&["contacts", "show", "Bob"])["safety_number"].clone();
    assert_eq!(
        number,
        bob.json(&["contacts", "show", &alice.box_id()])["safety_number"]
    );
    assert_eq!(number.as_str().unwrap().split(' ').count(), 12);
    let listed = bob.json(&["contacts", "list"]);
    assert_eq!(listed[0]["box"], alice.box_id());
    assert_eq!(listed[0]["added"], false);
    bob.ok(&["contacts", "remove", &alice.box_id()]);
    assert_eq!(bob.json(&["contacts", "list"]), serde_json::json!([]));
}

#[test]
fn files_arrive_whole_and_overwrite_nothing() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let file = cluster.path().join("map.bin");
    let bytes: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let path = file.display().to_string();
    let file_args = [
        "send",
        &bob.email,
        "--file",
        &path,
        "--media-type",
        "image/x-map",
    ];
    alice.ok(&file_args);
    let folder = cluster.path().join("saved");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("map.bin"), "mine").unwrap();
    let inbox = bob.json(&["inbox", "--save", &folder.display().to_string()]);
    let message = &inbox["messages"][0]["file"];
    assert_eq!(message["name"], "map.bin");
    assert_eq!(message["media_type"], "image/x-map");
    assert_eq!(message["bytes"], 70_000);
    let saved = PathBuf::from(message["saved"].as_str().unwrap());
    assert_eq!(std::fs::read(saved).unwrap(), bytes);
    assert_eq!(
        std::fs::read_to_string(folder.join("map.bin")).unwrap(),
        "mine"
    );

    std::fs::write(&file, vec![0; 100_000]).unwrap();
    let said = alice.fails(5, &file_args);
    assert!(said.contains("too large"), "{said}");
    assert!(bob.hear().is_empty());
}

#[test]
fn text_can_come_from_standard_input_and_the_passphrase_from_a_descriptor() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let mut child = alice
        .command(&["send", &bob.email, "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"two\nlines\n")
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mut child = bob
        .command(&["inbox", "--json", "--passphrase-fd", "0"])
        .env_remove("ROSSBY_PASSPHRASE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{PASSPHRASE}\n").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let inbox: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(texts(&inbox["messages"]), ["two\nlines"]);
}

#[test]
fn to_a_blocked_sender_the_box_is_like_one_that_is_not_there() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let carol = person(&cluster, "carol");
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    alice.ok(&["send", "Bob", "hello"]);
    bob.hear();
    bob.ok(&["block", &alice.box_id()]);
    let blocked = alice.fails(8, &["send", "Bob", "are you there?"]);
    assert!(blocked.contains("UNKNOWN_RECIPIENT"), "{blocked}");
    assert_eq!(
        alice.fails(8, &["contacts", "add", &bob.email]),
        alice.fails(8, &["contacts", "add", "nobody@example.org"])
    );
    carol.ok(&["send", &bob.email, "only alice is blocked"]);
    bob.ok(&["unblock", &alice.box_id()]);
    alice.ok(&["send", "Bob", "again"]);
    assert_eq!(bob.hear(), ["only alice is blocked", "again"]);
    let all = alice.json(&["inbox", "--all"]);
    assert_eq!(all["messages"][1]["status"], "refused");
    assert_eq!(all["messages"][1]["code"], "UNKNOWN_RECIPIENT");
}

#[test]
fn nothing_private_is_in_clear_in_any_data_or_log() {
    let mut cluster = Cluster::single();
    let (alice, bob) = (
        person(&cluster, "alice-canary"),
        person(&cluster, "bob-canary"),
    );
    let canary = "the canary sings at midnight";
    alice.ok(&["send", &bob.email, canary]);
    bob.hear();
    cluster.node(1).checkpoint();
    cluster.node(1).terminate();
    let code = last_code(&cluster, &alice.email).unwrap();
    let mut secrets = Secrets::default();
    for text in [canary, "alice-canary", "bob-canary", &code, PASSPHRASE] {
        secrets.add_text(text, text);
    }
    let data = cluster.node(1).data();
    for folder in [&data, &alice.home, &bob.home] {
        assert!(!files(folder).is_empty());
        assert_eq!(secrets.in_folder(folder), []);
    }
    let log = cluster.node(1).log() + &cluster.node(1).out();
    assert_eq!(secrets.in_bytes(log.as_bytes()), [].into());
    // The search is one that finds: the courier's outbox has the codes and the identifiers.
    let outbox = std::fs::read(cluster.node(1).codes()).unwrap();
    let found = secrets.in_bytes(&outbox);
    assert!(found.contains("alice-canary (as it is)"), "{found:?}");
    assert!(found.contains(&format!("{code} (as it is)")), "{found:?}");
}

#[tokio::test]
async fn what_a_later_version_says_is_shown_for_what_it_is_and_kept() {
    let cluster = Cluster::single();
    let alice = person(&cluster, "alice");
    let bob = people::Person::with_box(&cluster, email("bob"), 0).await;
    let by = LookupBy::Identifier(Identifier::email(&alice.email).unwrap());
    let added = bob.device.add_contact(&by, None, false).await.unwrap();
    let later = Content::Unknown {
        kind: 99,
        version: 3,
        body: b"a poll".to_vec(),
    };
    bob.device.send(&added.box_id, &later).await.unwrap();
    let line = alice.ok(&["inbox"]);
    let said = "[something that this version does not know, kind 99; it is kept]";
    assert!(line.contains(said), "{line}");
    let kept = alice.json(&["inbox", "--all"])["messages"][0].clone();
    let expected = json!({ "kind": 99, "version": 3, "bytes": 6 });
    assert_eq!(
        (&kept["unknown"], &kept["status"]),
        (&expected, &"received".into())
    );
}
