//! How somebody comes to a box: codes, identifiers, and whom a device trusts.

use serde_json::Value;

use super::{Person, person};
use crate::support::{self, Cluster, certs, stderr};

#[test]
fn a_code_is_needed_and_may_be_tried_five_times() {
    let cluster = Cluster::single();
    let alice = Person::named(&cluster, "alice");
    let output = alice.register(&cluster, &[]);
    let registered: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(registered["identifier"], alice.email.as_str());
    assert_eq!(
        registered["recovery_key"]
            .as_str()
            .unwrap()
            .split(' ')
            .count(),
        24
    );
    alice.fails(7, &["inbox"]);
    let code = alice.code(&cluster);
    let wrong = if code == "00000000" {
        "00000001"
    } else {
        "00000000"
    };
    for left in [4, 3, 2, 1] {
        let said = alice.fails(5, &["authorize", wrong]);
        assert!(said.contains("WRONG_CODE"), "{said}");
        assert!(said.contains(&format!("attempts left: {left}")), "{said}");
    }
    alice.fails(5, &["authorize", wrong]);
    let said = alice.fails(5, &["authorize", &code]);
    assert!(said.contains("CODE_EXHAUSTED"), "{said}");
    // Another code too soon.
    let output = alice.register(&cluster, &[]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        stderr(&output).contains("TOO_MANY_CODES"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("try again in"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_identifier_belongs_to_one_box_and_a_device_too() {
    let cluster = Cluster::single();
    let alice = person(&cluster, "alice");
    let mut imposter = Person::named(&cluster, "imposter");
    imposter.email.clone_from(&alice.email);
    let output = imposter.register(&cluster, &[]);
    assert_eq!(output.status.code(), Some(5));
    let said = stderr(&output);
    assert!(
        said.contains("IDENTIFIER_TAKEN") && said.contains("link devices"),
        "{said}"
    );
    let output = alice.register(&cluster, &[]);
    assert_eq!(output.status.code(), Some(5));
    alice.fails(5, &["authorize", "12345678"]);
}

#[test]
fn who_does_not_wish_to_be_found_is_like_who_is_not_there() {
    let cluster = Cluster::single();
    let alice = person(&cluster, "alice");
    let bob = Person::named(&cluster, "bob");
    assert!(bob.register(&cluster, &["--private"]).status.success());
    bob.ok(&["authorize", &bob.code(&cluster)]);
    let hidden = alice.fails(8, &["send", &bob.email, "hello?"]);
    let absent = alice.fails(8, &["send", "nobody@example.org", "hello?"]);
    assert_eq!(hidden, absent);
    alice.ok(&["send", &bob.box_id(), "by your box id"]);
    assert_eq!(bob.hear(), ["by your box id"]);
}

#[test]
fn over_tls_only_the_services_own_authority_is_trusted() {
    let mut cluster = Cluster::waiting(1);
    let folder = certs(cluster.path()).display().to_string();
    cluster.node(1).terminate();
    cluster.node(1).args().extend([
        format!("--tls-cert={folder}/node-1.crt"),
        format!("--tls-key={folder}/node-1.key"),
    ]);
    cluster.node(1).start();
    cluster.node(1).wait_alive();
    assert!(cluster.init().status.success());
    cluster.node(1).wait_ready();
    let port = cluster.node(1).client_address().port();
    let alice = Person::named(&cluster, "alice");
    let server = format!("https://localhost:{port}");
    let register = [
        "register",
        "--email",
        &alice.email,
        "--server",
        &server,
        "--timeout",
        "3",
    ];
    let authority = format!("{folder}/ca.crt");
    // Without an authority, or with another one, nothing is sent.
    assert!(alice.fails(3, &register).contains("--ca"));
    let other = cluster.path().join("other");
    support::run_ok(["cert", "ca", "--out", &other.display().to_string()]);
    let other = other.join("ca.crt").display().to_string();
    alice.fails(3, &[&register[..], &["--ca", &other]].concat());
    alice.ok(&[&register[..], &["--ca", &authority]].concat());
    alice.ok(&["authorize", &alice.code(&cluster)]);
    alice.ok(&["send", &alice.box_id(), "to myself"]);
    let plain = format!("http://127.0.0.1:{port}");
    let bob = Person::named(&cluster, "bob");
    let args = [
        "register",
        "--email",
        &bob.email,
        "--server",
        &plain,
        "--timeout",
        "2",
    ];
    assert_ne!(bob.run(&args).status.code(), Some(0));
}
