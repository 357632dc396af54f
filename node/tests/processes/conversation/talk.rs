//! What goes with messages: how far they have come, who their authors say they are, and that somebody is typing.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::{figure, person};
use crate::support::{Cluster, eventually};

#[test]
fn what_became_of_a_message_is_told_and_shown_unless_it_is_turned_off() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    bob.ok(&["contacts", "add", &alice.email, "--name", "Alice"]);
    alice.ok(&["send", "Bob", "lunch?"]);
    let shown = || alice.json(&["messages", "show", "0"])["receipts"].clone();
    assert_eq!(shown(), serde_json::json!([]));
    assert_eq!(bob.hear(), ["lunch?"]);
    // It came, and is no message.
    assert!(alice.hear().is_empty());
    let receipt = shown()[0].clone();
    assert_eq!(
        (&receipt["name"], &receipt["state"]),
        (&"Bob".into(), &"read".into())
    );
    assert!(receipt["read_at_ms"].as_u64() > Some(0), "{receipt}");
    let listed = alice.ok(&["messages", "list"]);
    assert!(listed.contains("you to Bob: lunch? [read "), "{listed}");
    let steps = alice.ok(&["messages", "show", "0"]);
    assert!(steps.contains("  read by Bob "), "{steps}");

    let off = bob.ok(&["receipts", "read", "off"]);
    assert!(off.contains("delivered on, read off"), "{off}");
    alice.ok(&["send", "Bob", "or dinner?"]);
    bob.hear();
    alice.hear();
    let listed = alice.ok(&["messages", "list"]);
    assert!(listed.contains("or dinner? [delivered "), "{listed}");
    assert_eq!(bob.json(&["receipts", "show"])["read"], false);
    let off = bob.ok(&["receipts", "delivered", "off"]);
    assert!(off.contains("delivered off, read off"), "{off}");
    alice.ok(&["send", "Bob", "or neither?"]);
    bob.hear();
    alice.hear();
    let listed = alice.ok(&["messages", "list"]);
    assert!(listed.contains("or neither?"), "{listed}");
    assert!(!listed.contains("or neither? ["), "{listed}");
    alice.fails(8, &["messages", "show", "99"]);
}

#[test]
fn a_contact_sees_what_somebody_calls_themselves_and_hears_them_type() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    bob.ok(&["contacts", "add", &alice.email, "--name", "Anna"]);
    let shown = alice.ok(&["profile", "set", "--name", "Anna B.", "--about", "harmless"]);
    assert!(shown.starts_with("Anna B.\n  harmless"), "{shown}");
    alice.ok(&["profile", "set", "--about", "mostly harmless"]);
    alice.ok(&["send", "Bob", "hello"]);
    let line = bob.ok(&["inbox"]);
    assert!(line.contains("Anna (says: Anna B.): hello"), "{line}");
    let claimed = bob.json(&["profile", "show", "Anna"]);
    assert_eq!(
        (&claimed["name"], &claimed["about"]),
        (&"Anna B.".into(), &"mostly harmless".into())
    );
    assert_eq!(claimed["withheld"], false);
    alice.fails(8, &["profile", "show", "--save", "nowhere.png"]);
    alice.fails(5, &["profile", "set", "--name", " Anna"]);

    let mut command = bob.command(&["listen", "--json", "--for", "30"]);
    let mut listener = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(listener.stderr.take().unwrap()).lines();
    let is_listening = |line: std::io::Result<String>| line.unwrap().contains("listening");
    assert!(said.any(is_listening), "it never listened");
    alice.ok(&["typing", "Bob"]);
    let mut heard = BufReader::new(listener.stdout.take().unwrap()).lines();
    let heard: Value = serde_json::from_str(&heard.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        (&heard["typing"], &heard["name"]),
        (&true.into(), &"Anna".into())
    );
    let delivered = "rossby_signals_total{outcome=\"delivered\"}";
    eventually("it is counted", || {
        (figure(&cluster.nodes()[0], delivered) == 1).then_some(())
    });
    listener.kill().unwrap();
    listener.wait().unwrap();
    alice.ok(&["profile", "clear"]);
    bob.ok(&["inbox"]);
    assert_eq!(bob.json(&["profile", "show", "Anna"])["name"], "");
}
