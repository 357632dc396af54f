//! Safety numbers, and what a change of a verified person's identity stops.

use serde_json::json;

use super::person;
use crate::support::{Cluster, stderr};

#[test]
fn a_verified_person_who_is_someone_else_now_gets_nothing_until_that_is_dealt_with() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    alice.ok(&["send", "Bob", "hello"]);
    bob.hear();
    let shown = alice.ok(&["safety", "show", "Bob"]);
    assert!(shown.contains('█') && shown.contains('▄'), "{shown}");
    let number = bob.json(&["safety", "show", &alice.box_id()])["safety_number"].clone();
    let number = number.as_str().unwrap();
    let in_lines: Vec<&str> = number.split(' ').collect();
    assert!(shown.contains(&in_lines[4..8].join(" ")), "{shown}");

    // Nobody is asked where nobody can answer; slips are told apart from another number.
    alice.fails(2, &["safety", "verify", "Bob"]);
    alice.fails(2, &["safety", "verify", "Bob", "12345"]);
    let other = number.replace(['1', '2'], "3");
    let said = alice.fails(9, &["safety", "verify", "Bob", &other]);
    assert!(said.contains("stands between"), "{said}");
    let args = [&["safety", "verify", "Bob"][..], &in_lines].concat();
    assert_eq!(alice.json(&args)["verified"], true);
    let listed = alice.json(&["contacts", "list"]);
    assert_eq!(
        (&listed[0]["verified"], &listed[0]["identity_change"]),
        (&json!(true), &json!(null))
    );

    // Another service has someone else under Bob's address: as if someone had taken it over.
    let elsewhere = Cluster::single();
    let new_bob = person(&elsewhere, "bob");
    let again = alice.register(&elsewhere, &[]);
    assert!(again.status.success(), "{}", stderr(&again));
    alice.ok(&["authorize", &alice.code(&elsewhere)]);
    let moved = alice.fails(9, &["contacts", "add", &bob.email]);
    assert!(moved.contains("--accept-moved"), "{moved}");
    let stopped = alice.fails(9, &["send", "Bob", "is it you?"]);
    assert!(stopped.contains("rossby safety verify"), "{stopped}");

    let accept = [
        "contacts",
        "add",
        &bob.email,
        "--name",
        "New",
        "--accept-moved",
    ];
    let accepted = alice.run(&accept);
    assert!(accepted.status.success());
    assert!(
        stderr(&accepted).contains("WARNING"),
        "{}",
        stderr(&accepted)
    );
    let stopped = alice.fails(9, &["send", "New", "is it you?"]);
    assert!(stopped.contains("rossby safety accept"), "{stopped}");
    alice.fails(9, &["safety", "verify", "New", number]);
    assert_eq!(alice.json(&["inbox"])["messages"], json!([]));
    let change = alice.json(&["contacts", "show", "New"])["identity_change"].clone();
    assert_eq!(change["code"], "MOVED_FROM");
    assert_eq!(change["stops_sending"], true);

    let accepted = alice.json(&["safety", "accept", "New"]);
    assert_eq!(
        (&accepted["verified"], &accepted["identity_change"]),
        (&json!(false), &json!(null))
    );
    alice.ok(&["send", "New", "whoever you are"]);
    assert_eq!(new_bob.hear(), ["whoever you are"]);
}
