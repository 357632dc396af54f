//! Mail that nobody wants: what its recipients do about it, and the operator, and the doors by themselves.

use serde_json::{Value, json};

use super::{Person, figure, person};
use crate::support::{Cluster, Node, run, run_ok, stderr};

/// Gives an order about a box to a node; what it answered.
fn order(node: &Node, what: &str, who: &Person) -> Value {
    let data = node.data().display().to_string();
    let said = run_ok(["box", what, &who.box_id(), "--data", &data, "--json"]);
    serde_json::from_str(&said).expect("not JSON")
}

#[test]
fn who_is_reported_and_suspended_stays_so_whatever_restarts_and_can_read_all_the_while() {
    let mut cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.fails(5, &["report", &bob.email]);
    bob.ok(&["send", &alice.email, "buy now"]);
    bob.ok(&["send", &alice.email, "buy more"]);
    assert_eq!(alice.hear().len(), 2);
    alice.ok(&["report", &bob.box_id()]);
    let reported = alice.json(&["report", &bob.box_id(), "--block"]);
    let expected = json!({ "box": bob.box_id(), "reported": true, "blocked": true });
    assert_eq!(reported, expected);
    let blocked = bob.fails(8, &["send", &alice.email, "buy all"]);
    assert!(blocked.contains("UNKNOWN_RECIPIENT"), "{blocked}");
    alice.ok(&["unblock", &bob.box_id()]);

    let node = cluster.node(1);
    let shown = order(node, "show", &bob);
    assert_eq!(
        (&shown["reports"], &shown["state"]),
        (&json!(1), &json!("active"))
    );
    assert_eq!(order(node, "show", &alice)["reports"], 0);
    let data = node.data().display().to_string();
    let shown = run_ok(["box", "show", &bob.box_id(), "--data", &data]);
    assert!(shown.contains("boxes that have reported it: 1"), "{shown}");
    let changed = |set: &Value| set["changed"].as_bool().unwrap();
    assert!(changed(&order(node, "suspend", &bob)));
    assert!(!changed(&order(node, "suspend", &bob)));
    let refused = bob.fails(5, &["send", &alice.email, "from a suspended box"]);
    assert!(refused.contains("SUSPENDED"), "{refused}");
    alice.ok(&["send", &bob.email, "you can read this"]);

    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let (data, secrets) = (node.data(), node.secrets());
    let (from, to) = (data.display().to_string(), backup.display().to_string());
    run_ok(["backup", "--data", &from, "--out", &to]);
    node.kill();
    node.start();
    node.wait_ready();
    assert_eq!(order(node, "show", &bob)["state"], "suspended");
    assert_eq!(bob.hear(), ["you can read this"]);
    assert_eq!(bob.json(&["inbox", "--status"])["suspended"], true);
    assert!(changed(&order(node, "unsuspend", &bob)));
    // What was refused was kept, and goes now.
    bob.ok(&["send", "--retry"]);
    assert_eq!(alice.hear(), ["from a suspended box"]);
    let unknown = run([
        "box",
        "suspend",
        "745d76d5-7363-8aa1-89c6-96bc6c5f9df6",
        "--data",
        &data.display().to_string(),
    ]);
    assert!(!unknown.status.success());

    let mut restored = Cluster::restored(&backup, &secrets, 1, false, &[]);
    let node = restored.node(1);
    node.start();
    node.wait_ready();
    let shown = order(node, "show", &bob);
    assert_eq!(
        (&shown["reports"], &shown["state"]),
        (&json!(1), &json!("suspended"))
    );
}

#[test]
fn what_is_done_too_often_is_refused_and_counted_and_no_figure_names_anybody() {
    let settings = "[doors]
envelopes_burst = 3
envelopes_every_ms = 3600000
lookups_burst = 2
lookups_every_ms = 3600000
codes_per_network_per_day = 2
";
    let mut cluster = Cluster::single_with_settings(settings);
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    for number in 0..3 {
        alice.ok(&["send", &bob.email, &format!("number {number}")]);
    }
    let refused = alice.fails(5, &["send", &bob.email, "one too many"]);
    assert!(refused.contains("RATE_LIMITED"), "{refused}");
    // It is kept, not lost.
    assert!(
        alice
            .fails(5, &["send", "--retry"])
            .contains("RATE_LIMITED")
    );
    assert_eq!(bob.hear(), ["number 0", "number 1", "number 2"]);
    let is_refused = || {
        let added = alice.run(&["contacts", "add", "nobody@example.org"]);
        stderr(&added).contains("RATE_LIMITED")
    };
    assert!(
        (0..5).any(|_| is_refused()),
        "one may look up as often as one likes"
    );
    let carol = Person::named(&cluster, "carol").register(&cluster, &[]);
    assert!(
        stderr(&carol).contains("TOO_MANY_CODES"),
        "{}",
        stderr(&carol)
    );
    bob.ok(&["report", &alice.box_id()]);
    let node = cluster.node(1);
    order(node, "suspend", &alice);
    alice.fails(5, &["send", &bob.email, "from a suspended box"]);

    assert_eq!(
        figure(
            node,
            "rossby_rate_limited_total{limit=\"envelopes_to_recipient\"}"
        ),
        2
    );
    assert!(figure(node, "rossby_rate_limited_total{limit=\"lookups\"}") >= 1);
    let codes = figure(
        node,
        "rossby_rate_limited_total{limit=\"codes_of_network\"}",
    );
    assert_eq!(codes, 1);
    let refused = figure(
        node,
        "rossby_envelopes_refused_total{rpc=\"Send\",code=\"RATE_LIMITED\"}",
    );
    assert_eq!(refused, 2);
    assert!(
        figure(
            node,
            "rossby_calls_total{rpc=\"LookupKey\",code=\"RATE_LIMITED\"}"
        ) >= 1
    );
    assert_eq!(
        figure(node, "rossby_calls_total{rpc=\"Send\",code=\"SUSPENDED\"}"),
        1
    );
    assert_eq!(figure(node, "rossby_spam_reports_total"), 1);
    let reported = |at_least: &str| {
        let data = node.data().display().to_string();
        let said = run_ok(["box", "reported", at_least, "--data", &data, "--json"]);
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let found = json!([{ "box": alice.box_id(), "reports": 1, "suspended": true }]);
    assert_eq!(reported("--at-least=1"), found);
    assert_eq!(reported("--at-least=2"), json!([]));
    assert_eq!(figure(node, "rossby_suspensions_total{act=\"suspend\"}"), 1);
    let (_, page) = node.page("/metrics").unwrap();
    for name in [&alice.email, &bob.email, &alice.box_id(), &bob.box_id()] {
        assert!(!page.contains(name.as_str()), "{name}");
    }
    // Nor can a device, a hash or the like: these are all that figures are told apart by.
    let labels = page.lines().filter(|line| !line.starts_with('#'));
    let labels = labels.filter_map(|line| line.split_once('{')?.1.split_once('}'));
    let names =
        labels.flat_map(|(labels, _)| labels.split("\",").map(|label| label.split_once('=')));
    let names: std::collections::BTreeSet<_> =
        names.map(|label| label.expect("no label").0).collect();
    let harmless = [
        "act", "code", "courier", "group", "kind", "le", "limit", "outcome", "reason", "rpc",
    ];
    let others: Vec<_> = names
        .iter()
        .filter(|name| !harmless.contains(name))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn what_comes_too_often_goes_out_in_the_same_command_when_it_may() {
    let settings = "[doors]\nenvelopes_burst = 1\nenvelopes_every_ms = 1500\n";
    let mut cluster = Cluster::single_with_settings(settings);
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let node = cluster.node(1);
    order(node, "suspend", &alice);
    let words = ["one", "two", "three"];
    for word in words {
        alice.fails(5, &["send", &bob.email, word]);
    }
    order(node, "unsuspend", &alice);
    alice.ok(&["send", "--retry"]);
    let limited = "rossby_rate_limited_total{limit=\"envelopes_to_recipient\"}";
    assert!(figure(node, limited) >= 1);
    assert_eq!(bob.hear(), words);
}
