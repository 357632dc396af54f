//! What goes wrong, on the device and at the service, and what becomes of the messages.

use std::fs::File;

use super::{Person, person};
use crate::support::{Cluster, copy, stderr};

#[test]
fn every_failure_has_its_exit_code() {
    let cluster = Cluster::single();
    let alice = Person::named(&cluster, "alice");
    alice.fails(7, &["whoami"]);
    alice.fails(2, &["register", "--email", "alice@example.org"]);
    alice.fails(
        2,
        &[
            "register",
            "--email",
            "not an address",
            "--server",
            "127.0.0.1:1",
        ],
    );
    alice.fails(
        2,
        &["register", "--phone", "12345", "--server", "127.0.0.1:1"],
    );
    let remote = [
        "register",
        "--email",
        "a@example.org",
        "--server",
        "http://192.0.2.1:1",
    ];
    assert!(alice.fails(2, &remote).contains("this machine only"));
    let alice = person(&cluster, "alice");
    assert!(
        alice
            .fails(8, &["send", "Zebedee", "hi"])
            .contains("no contact called")
    );
    alice.fails(2, &["send", "Zebedee"]);
    let mut wrong = alice.command(&["whoami"]);
    let output = wrong.env("ROSSBY_PASSPHRASE", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(stderr(&output).contains("wrong passphrase"));
    let output = alice
        .command(&["whoami"])
        .env("ROSSBY_PASSPHRASE", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let lock = File::options()
        .write(true)
        .open(alice.home.join("lock"))
        .unwrap();
    lock.lock().unwrap();
    assert!(alice.fails(10, &["whoami"]).contains("another process"));
    drop(lock);
    std::fs::write(alice.home.join("key"), "not a key").unwrap();
    alice.fails(10, &["whoami"]);
}

#[test]
fn what_can_not_be_sent_now_is_kept_and_sent_once_later() {
    let mut cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    alice.ok(&["send", "Bob", "zero"]);
    cluster.node(1).kill();
    for words in ["one", "two"] {
        let said = alice.fails(4, &["send", "Bob", words, "--timeout", "1"]);
        assert!(said.contains("the message is kept"), "{said}");
    }
    assert_eq!(alice.json(&["whoami"])["pending"], 2);
    alice.fails(4, &["send", "--retry", "--timeout", "1"]);
    cluster.node(1).start();
    cluster.node(1).wait_ready();
    let retried = alice.json(&["send", "--retry"]);
    assert_eq!(retried["pending"], 0);
    assert_eq!(retried["sent"].as_array().unwrap().len(), 2);
    alice.ok(&["send", "Bob", "three"]);
    assert_eq!(bob.hear(), ["zero", "one", "two", "three"]);
    let again = alice.ok(&["send", "--retry"]);
    assert!(again.contains("nothing is waiting"), "{again}");
    assert!(bob.hear().is_empty());
}

#[test]
fn a_restored_device_loses_no_mail_and_repeats_none() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    alice.ok(&["send", "Bob", "one"]);
    bob.ok(&["send", &alice.email, "hello"]);
    let backup = cluster.path().join("backup");
    copy(&alice.home, &backup);
    alice.ok(&["send", "Bob", "two"]);
    assert_eq!(alice.hear(), ["hello"]);
    copy(&backup, &alice.home);
    alice.ok(&["send", "Bob", "three"]);
    alice.ok(&["send", "Bob", "four"]);
    assert_eq!(bob.hear(), ["one", "two", "three", "four"]);
    assert!(
        alice.hear().is_empty(),
        "acknowledged by the device that was lost"
    );
}

#[test]
fn a_conversation_survives_the_loss_of_the_leader() {
    let mut cluster = Cluster::of(3);
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    bob.ok(&["contacts", "add", &alice.email, "--name", "Alice"]);
    let mut said = Vec::new();
    for round in 0..9 {
        let words = round.to_string();
        if round == 3 {
            let leader = cluster.leader();
            cluster.node(leader).kill();
        }
        // Kept if the new leader is not there in time; what comes after takes it along.
        let output = alice.run(&["send", "Bob", &words, "--timeout", "30"]);
        assert!(
            matches!(output.status.code(), Some(0 | 4 | 6)),
            "{}",
            stderr(&output)
        );
        said.push(words);
    }
    alice.ok(&["send", "--retry", "--timeout", "30"]);
    assert_eq!(alice.json(&["whoami"])["pending"], 0);
    bob.ok(&["inbox", "--timeout", "30"]);
    assert_eq!(bob.heard(), said, "all of it, once, in order");
    bob.ok(&["send", "Alice", "got it", "--timeout", "30"]);
    assert_eq!(alice.hear(), ["got it"]);
}

#[test]
fn what_has_come_in_is_shown_even_if_it_can_not_be_saved_or_the_service_is_gone() {
    let mut cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let file = cluster.path().join("map.txt");
    std::fs::write(&file, "here").unwrap();
    let path = file.display().to_string();
    alice.ok(&["send", &bob.box_id(), "--file", &path]);
    // A file stands where the folder should be.
    let output = bob.run(&["inbox", "--save", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("map.txt"));
    assert!(
        stderr(&output).contains("--all --save"),
        "{}",
        stderr(&output)
    );
    cluster.node(1).kill();
    let output = bob.run(&["inbox", "--all", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("map.txt"));
}
