//! An account that its owner deletes.

use super::{Person, person, with_limits};
use crate::support::{eventually, stderr};

#[test]
fn a_deleted_account_leaves_nobody_on_the_service_and_nothing_on_the_device() {
    // There is no minute to wait for the second code.
    let (_config, cluster) = with_limits("code_pause_ms = 1");
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["send", &bob.email, "hello"]);
    let box_id = bob.box_id();
    let asked = bob.fails(1, &["account", "delete"]);
    assert!(
        asked.contains(&box_id) && asked.contains("nothing was changed"),
        "{asked}"
    );
    assert_eq!(bob.hear(), ["hello"]);
    let deleted = bob.json(&["account", "delete", "--yes"]);
    assert_eq!(deleted["box"], box_id.as_str());
    assert!(!bob.home.exists());

    let refused = alice.fails(8, &["send", &box_id, "are you there?"]);
    assert!(refused.contains("UNKNOWN_RECIPIENT"), "{refused}");
    alice.fails(8, &["contacts", "add", &bob.email]);
    // The email is free; who registers it is somebody else to those who knew its owner.
    let before = bob.code(&cluster);
    let again = Person::named(&cluster, "bob");
    let output = again.register(&cluster, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let code = eventually("another code", || {
        Some(again.code(&cluster)).filter(|code| *code != before)
    });
    again.ok(&["authorize", &code]);
    assert_ne!(again.box_id(), box_id);
    let told = alice.fails(9, &["contacts", "add", &again.email]);
    assert!(told.contains("--accept-moved"), "{told}");
}
