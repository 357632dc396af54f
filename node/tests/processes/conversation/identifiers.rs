//! More than one email for a box, and who may write to it.

use serde_json::json;

use super::person;
use crate::support::people::last_code;
use crate::support::{Cluster, eventually};

#[test]
fn a_second_email_leads_to_the_box_once_it_is_proven_and_the_first_one_can_go() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let work = "alice+box@work.example";
    let added = alice.ok(&["identifiers", "add", "--email", " Alice+Box@Work.example"]);
    assert!(added.contains("--code"), "{added}");
    let code = eventually("a code from the courier", || last_code(&cluster, work));
    bob.fails(8, &["contacts", "add", work]);
    let wrong = if code == "00000000" { "1" } else { "0" }.repeat(8);
    let said = alice.fails(
        5,
        &["identifiers", "add", "--email", work, "--code", &wrong],
    );
    assert!(said.contains("attempts left: 4"), "{said}");
    alice.ok(&["identifiers", "add", "--email", work, "--code", &code]);
    bob.ok(&["send", work, "are you there?"]);
    assert_eq!(alice.hear(), ["are you there?"]);

    let proven = |email: &str, discoverable: bool| {
        json!({
            "identifier": email, "verified": true, "discoverable": discoverable, "uncertain": false, "goes_at_ms": null,
        })
    };
    let own = |email: &str| proven(email, true);
    let listed = alice.json(&["identifiers", "list"]);
    assert_eq!(listed, json!([own(&alice.email), own(work)]));
    alice.fails(2, &["identifiers", "add", "--email", "älice@work.example"]);
    alice.fails(8, &["identifiers", "remove", "--email", &bob.email]);
    alice.ok(&["identifiers", "remove", "--email", &alice.email]);
    bob.fails(8, &["contacts", "add", &alice.email]);
    let said = alice.fails(5, &["identifiers", "remove", "--email", work]);
    assert!(said.contains("LAST_IDENTIFIER"), "{said}");
    assert_eq!(alice.json(&["identifiers", "list"]), json!([own(work)]));
    assert_eq!(alice.json(&["whoami"])["identifier"], work);
    let taken = bob.fails(5, &["identifiers", "add", "--email", work]);
    assert!(taken.contains("IDENTIFIER_TAKEN"), "{taken}");

    // One that nobody else finds.
    let home = "alice@home.example";
    alice.ok(&["identifiers", "add", "--email", home, "--private"]);
    let code = eventually("a code from the courier", || last_code(&cluster, home));
    alice.ok(&["identifiers", "add", "--email", home, "--code", &code]);
    assert_eq!(
        alice.json(&["identifiers", "list"]),
        json!([own(work), proven(home, false)])
    );
    bob.fails(8, &["contacts", "add", home]);
}

#[test]
fn a_box_that_accepts_contacts_only_does_not_exist_for_others() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let carol = person(&cluster, "carol");
    alice.ok(&["contacts", "add", &bob.email]);
    carol.ok(&["contacts", "add", &alice.email]);
    let both = |from: &str| json!({ "accepts": from, "chosen": from });
    assert_eq!(alice.json(&["accept"]), both("anyone"));
    let accepted = alice.json(&["accept", "contacts"]);
    assert_eq!(accepted, json!({ "accepts": "contacts", "named": 1 }));
    assert_eq!(alice.json(&["accept"]), both("contacts"));
    alice.fails(2, &["accept", "--allow", &bob.box_id()]);
    bob.ok(&["send", &alice.email, "from a contact"]);
    let to_nobody = carol.fails(8, &["send", &alice.email, "from a stranger"]);
    assert!(to_nobody.contains("UNKNOWN_RECIPIENT"), "{to_nobody}");
    carol.fails(8, &["contacts", "add", &alice.email]);
    assert_eq!(alice.hear(), ["from a contact"]);
    alice.ok(&["contacts", "add", &carol.email]);
    carol.ok(&["send", &alice.email, "a contact now"]);
    assert_eq!(alice.hear(), ["a contact now"]);
    alice.ok(&["contacts", "remove", &bob.email]);
    bob.fails(8, &["send", &alice.email, "no contact any more"]);
    // Whom nobody can look up is named by their box.
    let allowed = alice.json(&["accept", "contacts", "--allow", &bob.box_id()]);
    assert_eq!(allowed["accepts"], "contacts");
    bob.ok(&["send", &alice.email, "allowed by name"]);
    assert_eq!(alice.hear(), ["allowed by name"]);
    alice.fails(2, &["accept", "nobody"]);
    alice.ok(&["accept", "anyone"]);
    bob.ok(&["send", &alice.email, "anyone"]);
    assert_eq!(alice.hear(), ["anyone"]);
}
