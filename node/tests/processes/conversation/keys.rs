//! A device's own keys, as its owner changes and sees them.

use serde_json::json;

use super::person;
use crate::support::Cluster;

#[test]
fn keys_are_changed_by_hand_or_by_themselves_and_their_history_is_shown() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let first = bob.json(&["keys", "history"]);
    assert_eq!(first.as_array().unwrap().len(), 1);
    assert_eq!(first[0]["state"], "current");
    alice.ok(&["send", &bob.email, "to the first key"]);
    let rotated = bob.json(&["keys", "rotate"]);
    assert_eq!(rotated, json!({ "counter": 2, "kept": 2 }));
    alice.ok(&["send", &bob.email, "to either"]);
    assert_eq!(bob.hear(), ["to the first key", "to either"]);
    let both = bob.json(&["keys", "history"]);
    let states: Vec<_> = both
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["state"])
        .collect();
    assert_eq!(states, ["previous", "current"], "{both}");

    assert_eq!(
        bob.json(&["keys", "schedule"])["every_seconds"],
        24 * 60 * 60
    );
    bob.ok(&["keys", "schedule", "--every-hours", "48"]);
    let shown = bob.ok(&["keys", "schedule"]);
    assert!(shown.contains("48 hours old"), "{shown}");
    bob.ok(&["keys", "schedule", "--off"]);
    let every = &bob.json(&["keys", "schedule"])["every_seconds"];
    assert_eq!(every, &json!(null));
    bob.fails(2, &["keys", "schedule", "--every-hours", "0"]);
}
