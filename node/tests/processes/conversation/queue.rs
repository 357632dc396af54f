//! What waits in a box, for how long, and who may use its last room.

use serde_json::json;

use super::person;
use crate::support::{Cluster, stderr};

#[test]
fn a_person_sees_what_waits_and_says_for_how_long_it_may() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["send", &bob.email, "for an hour", "--ttl", "1h"]);
    let before = bob.json(&["inbox", "--status"]);
    assert_eq!((&before["depth"], &before["last"]), (&json!(1), &json!(1)));
    assert_eq!(before["ttl_seconds"], 30 * 86_400);
    assert!(before["bytes"].as_u64() > Some(0) && before["oldest_ms"].is_u64());
    assert!(
        bob.ok(&["inbox", "--status"])
            .contains("1 wait in this box")
    );
    alice.ok(&["groups", "create", "Two", &bob.email]);
    alice.ok(&["groups", "send", "Two", "for long"]);
    alice.ok(&["groups", "send", "Two", "not for long", "--ttl", "1s"]);
    alice.ok(&["send", &bob.email, "for a moment", "--ttl", "1s"]);
    // Time itself is what is to pass.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(bob.hear(), ["for an hour", "for long"]);

    assert_eq!(
        bob.json(&["box", "ttl", "7d"]),
        json!({ "ttl_seconds": 7 * 86_400 })
    );
    assert!(bob.ok(&["box", "ttl"]).contains("may wait 7d"));
    bob.fails(2, &["box", "ttl", "59s"]);
    bob.fails(2, &["box", "ttl", "soon"]);
    alice.fails(2, &["send", &bob.email, "never", "--ttl", "0s"]);
    assert!(bob.ok(&["box", "ttl", "default"]).contains("may wait 30d"));
}

#[test]
fn when_a_box_is_nearly_full_those_whom_it_has_written_to_still_get_through() {
    let cluster = Cluster::single_with_settings(
        "[limits]\nqueue_envelopes = 10\nsender_share_percent = 100\n",
    );
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let carol = person(&cluster, "carol");
    for person in [&bob, &carol] {
        person.ok(&["contacts", "add", &alice.email]);
    }
    alice.ok(&["send", &carol.email, "write to me"]);
    assert_eq!(carol.hear(), ["write to me"]);
    let full = loop {
        let sent = bob.run(&["send", &alice.email, "and another"]);
        if !sent.status.success() {
            break stderr(&sent);
        }
    };
    assert!(full.contains("QUEUE_FULL"), "{full}");
    assert_eq!(alice.json(&["inbox", "--status"])["depth"], 9);
    carol.ok(&["send", &alice.email, "I do"]);
    assert_eq!(alice.hear().last().unwrap(), "I do");
}
