//! Beginning anew after everything is lost: the email comes to a new box, unless a device of the old one keeps it.

use rossby_seams::clock::{Clock as _, SystemClock};
use serde_json::Value;

use super::{Person, person, with_limits};
use crate::support::{Cluster, eventually, stderr};

/// A node with this delay.
fn hasty_cluster(delay_ms: u64) -> (tempfile::TempDir, Cluster) {
    with_limits(&hasty(delay_ms))
}

/// Limits with this delay.
pub(super) fn hasty(delay_ms: u64) -> String {
    format!("code_pause_ms = 1\ncodes_per_day = 1000\nreset_delay_ms = {delay_ms}")
}

/// Waits until the email of a box can go, as that box is told.
pub(super) fn wait_out(old: &Person) {
    let listed = old.json(&["identifiers", "list"]);
    let goes_at = listed[0]["goes_at_ms"].as_u64().expect("it stays");
    eventually("the delay is over", || {
        (SystemClock.now().as_millis() > goes_at).then_some(())
    });
}

/// Asks for a code for the email, which may be another box's.
pub(super) fn ask(new: &Person, cluster: &Cluster) -> String {
    let before = new.code(cluster);
    let output = new.register(cluster, &["--reset"]);
    assert!(output.status.success(), "{}", stderr(&output));
    eventually("another code", || {
        Some(new.code(cluster)).filter(|code| *code != before)
    })
}

/// The same, and gives it.
fn prove(new: &Person, cluster: &Cluster) -> Value {
    new.json(&["authorize", &ask(new, cluster)])
}

/// A new home of a person who has proven their email.
pub(super) fn anew(cluster: &Cluster, of: &Person, name: &str) -> Person {
    let mut new = Person::named(cluster, name);
    new.email.clone_from(&of.email);
    let refused = new.register(cluster, &[]);
    let said = stderr(&refused);
    assert!(
        said.contains("IDENTIFIER_TAKEN") && said.contains("--reset"),
        "{said}"
    );
    assert_eq!(prove(&new, cluster)["authorised"], false);
    new
}

#[test]
fn who_lost_everything_begins_anew_and_contacts_are_told_loudly() {
    let (_config, cluster) = hasty_cluster(2_000);
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    bob.ok(&["contacts", "add", &alice.email]);
    let new = anew(&cluster, &alice, "new");
    let told = alice.run(&["inbox"]);
    assert!(
        stderr(&told).contains("SOMEBODY HAS PROVEN"),
        "{}",
        stderr(&told)
    );
    bob.ok(&["send", &alice.email, "for the old box"]);
    wait_out(&alice);
    assert_eq!(prove(&new, &cluster)["authorised"], true);
    assert_ne!(new.box_id(), alice.box_id());
    let told = bob.fails(9, &["contacts", "add", &alice.email]);
    assert!(told.contains("--accept-moved"), "{told}");
    bob.ok(&["contacts", "add", &alice.email, "--accept-moved"]);
    bob.ok(&["send", &alice.email, "welcome back"]);
    assert_eq!(new.hear(), ["welcome back"]);
    assert_eq!(alice.hear(), ["for the old box"]);
    assert_eq!(alice.json(&["identifiers", "list"]), serde_json::json!([]));
}

#[test]
fn a_device_that_is_left_keeps_the_email() {
    let (_config, cluster) = hasty_cluster(600_000);
    let alice = person(&cluster, "alice");
    let thief = anew(&cluster, &alice, "thief");
    let listed = alice.json(&["identifiers", "list"]);
    assert!(listed[0]["goes_at_ms"].is_u64(), "{listed}");
    alice.ok(&["identifiers", "keep", "--email", &alice.email]);
    let code = ask(&thief, &cluster);
    let refused = thief.fails(5, &["authorize", &code]);
    assert!(refused.contains("RESET_VETOED"), "{refused}");
    let listed = alice.json(&["identifiers", "list"]);
    assert!(listed[0]["goes_at_ms"].is_null(), "{listed}");
    alice.fails(5, &["identifiers", "keep", "--email", &alice.email]);
}
