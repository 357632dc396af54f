//! The recovery key: written down, taken from the device, and used where that is stolen.

use std::fs::File;
use std::process::Output;

use serde_json::{Value, json};

use super::{Person, person};
use crate::support::{Cluster, stderr};

pub(super) const VARIABLE: &str = "ROSSBY_RECOVERY_KEY";

/// Runs a command of a person that is given these words.
fn with_words(person: &Person, words: &str, args: &[&str]) -> Output {
    let mut command = person.command(args);
    command.env(VARIABLE, words).output().unwrap()
}

pub(super) fn said(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_stolen_phone_is_shut_out_by_the_words_on_paper() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let words = alice.ok(&["recovery", "show"]);
    assert_eq!(words.split_whitespace().count(), 24);
    let shown: Value = alice.json(&["recovery", "show"]);
    assert_eq!(shown["box"], alice.box_id());
    let wrong = words.replacen(words.split_whitespace().next().unwrap(), "rossby", 1);
    let refused = with_words(&alice, &wrong, &["recovery", "confirm"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("word 1 is none"),
        "{}",
        stderr(&refused)
    );
    let theirs = bob.ok(&["recovery", "show"]);
    let refused = with_words(&alice, &theirs, &["recovery", "forget"]);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    // As it is read from a file.
    let paper = cluster.path().join("paper");
    std::fs::write(&paper, &words).unwrap();
    let given = |args: &[&str]| {
        let mut command = alice.command(args);
        said(&command.stdin(File::open(&paper).unwrap()).output().unwrap())
    };
    let kept = given(&["recovery", "confirm", "--keep", "--words-fd=0", "--json"]);
    assert_eq!(kept, json!({ "confirmed": true, "forgotten": false }));
    alice.ok(&["recovery", "show"]);
    let taken = given(&["recovery", "confirm", "--words-fd=0", "--json"]);
    assert_eq!(taken, json!({ "confirmed": true, "forgotten": true }));
    alice.fails(8, &["recovery", "show"]);

    bob.ok(&["send", &alice.email, "on the phone"]);
    let mut new = Person::named(&cluster, "new");
    new.email.clone_from(&alice.email);
    let server = format!("--server={}", cluster.nodes()[0].client_address());
    let email = new.email.clone();
    let take_up = [
        "recovery",
        "use",
        "--email",
        &email,
        &server,
        "--revoke-others",
        "--json",
    ];
    let refused = with_words(&new, &theirs, &take_up);
    assert_eq!(refused.status.code(), Some(5));
    assert!(
        stderr(&refused).contains("NOT_RECOVERABLE"),
        "{}",
        stderr(&refused)
    );
    let taken = said(&with_words(&new, &words, &take_up));
    assert_eq!(taken["box"], alice.box_id().as_str());
    assert_eq!(taken["devices"], 1);
    let told = alice.fails(7, &["inbox"]);
    assert!(told.contains("or no longer"), "{told}");
    bob.ok(&["send", &new.email, "on the new one"]);
    assert_eq!(new.hear(), ["on the new one"]);
    new.ok(&["send", &bob.email, "it is me"]);
    assert_eq!(bob.hear(), ["it is me"]);
    let confirmed = said(&with_words(
        &new,
        &words,
        &["recovery", "confirm", "--json"],
    ));
    assert_eq!(confirmed, json!({ "confirmed": true, "forgotten": false }));
}
