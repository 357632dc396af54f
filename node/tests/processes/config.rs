//! `rossby config check` and `config show`: what is taken, what is refused, and in which words.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{self, rossby, run, run_ok, stderr};

fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rossby.toml");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

/// What `config check` makes of a file.
fn check(path: &Path) -> Output {
    run([
        "config".as_ref(),
        "check".as_ref(),
        "--config".as_ref(),
        path.as_os_str(),
    ])
}

#[test]
fn the_defaults_are_good() {
    run_ok(["config", "check"]);
}

#[test]
fn a_file_that_is_wrong_is_refused_with_the_place_and_the_reason() {
    let table = [
        ("node = 1\nnod = 2\n", "line 2", "unknown field `nod`"),
        (
            "[clients]\n\nlistn = \"127.0.0.1:1\"\n",
            "line 3",
            "unknown field `listn`",
        ),
        ("[clints]\n", "line 1", "unknown field `clints`"),
        ("node = \"one\"\n", "line 1", "invalid type"),
        (
            "[clients]\nlisten = \"localhost\"\n",
            "line 2",
            "invalid socket address",
        ),
        (
            "[peers]\nadvertise = \"no-port\"\n",
            "line 2",
            "expected HOST:PORT",
        ),
        (
            "[courier]\nkind = \"pigeon\"\n",
            "line 2",
            "unknown variant `pigeon`",
        ),
        (
            "[limits]\nqueue_envelopes = -1\n",
            "line 2",
            "invalid value",
        ),
        ("node = 1\nnode = 2\n", "line 2", "duplicate key"),
        ("this is no TOML", "line 1", "TOML parse error"),
    ];
    for (content, place, reason) in table {
        let (_folder, path) = file(content);
        let output = check(&path);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{content}: {said}");
        assert!(
            said.contains(place) && said.contains(reason),
            "{content}: {said}"
        );
    }
}

#[test]
fn settings_that_make_no_sense_together_are_refused() {
    let table = [
        ("node = 0", "node: nodes are numbered from 1"),
        ("[cluster]\npartitions = 100", "power of two"),
        ("[cluster]\nname = \"My Cluster\"", "cluster.name"),
        ("[clients]\nlisten = \"10.0.0.1:7470\"", "needs TLS"),
        ("[clients]\nlisten = \"[2001:db8::1]:7470\"", "needs TLS"),
        (
            "[clients]\nlisten = \"10.0.0.1:7470\"",
            "allow_console_courier",
        ),
        (
            "[clients]\nadvertise = \"mail.example.org:7470\"",
            "allow_console_courier",
        ),
        (
            "[courier]\nkind = \"gateways\"",
            "courier.kind: gateways needs",
        ),
        (
            "[courier]\nkind = \"gateways\"\n[courier.smtp]\nhost = \"mail.example.org\"",
            "courier.smtp.from",
        ),
        (
            "[courier]\nkind = \"gateways\"\n[courier.smtp]\nhost = \"mail.example.org\"\n\
             from = \"a@b.example\"\nsecurity = \"plain\"",
            "courier.smtp.security: plain text",
        ),
        (
            "[courier]\nkind = \"gateways\"\n[courier.smtp]\nhost = \"mail.example.org\"\n\
             from = \"a@b.example\"\nuser = \"u\"",
            "ROSSBY_COURIER_SMTP_PASSWORD",
        ),
        (
            "[courier]\nkind = \"gateways\"\n[courier.smtp]\nhost = \"mail.example.org\"\n\
             from = \"a@b.example\"\nuser = \"u\"\npassword_file = \"/nowhere\"",
            "courier.smtp.password_file: /nowhere: No such file",
        ),
        (
            "[courier]\nkind = \"gateways\"\n[courier.webhook]\nurl = \"http://sms.example.org/\"",
            "courier.webhook.url: http is for",
        ),
        (
            "[courier]\nkind = \"gateways\"\n[courier.webhook]\nurl = \"https://sms.example.org/\"\n\
             body = \"{number}\"",
            "courier.webhook.body",
        ),
        (
            "[courier]\nkind = \"gateways\"\n[courier.webhook]\nurl = \"https://sms.example.org/\"\n\
             [courier.text]\nbody = \"Hello\"",
            "courier.text.body: must hold {code}",
        ),
        ("[clients]\nlisten = \"0.0.0.0:7470\"", "clients.advertise"),
        (
            "[clients]\ntls_cert = \"/nowhere.crt\"",
            "clients.tls_key: is missing",
        ),
        (
            "[clients]\ntls_key = \"/nowhere.key\"",
            "clients.tls_cert: is missing",
        ),
        (
            "[clients]\ntls_cert = \"/a.crt\"\ntls_key = \"/a.key\"",
            "/a.crt: No such file",
        ),
        ("[clients]\ntls_ca = \"/a.crt\"", "clients.tls_ca: needs"),
        ("[clients]\nmax_connections = 0", "max_connections"),
        (
            "[peers]\nlisten = \"127.0.0.1:7472\"",
            "peers.cert: is missing",
        ),
        ("[peers]\nlisten = \"0.0.0.0:7472\"", "peers.advertise"),
        ("[peers]\ncert = \"/a.crt\"", "peers.listen is not"),
        (
            "[http]\nlisten = \"127.0.0.1:7470\"",
            "the same as clients.listen",
        ),
        (
            "data = \"/d\"\nsecrets = \"/d/../d/./keys\"",
            "inside the data directory",
        ),
        (
            "[admin]\nsocket = \"/SOCKET\"",
            "longer than a Unix socket's path",
        ),
        ("[raft]\nheartbeat_ms = 400", "at least twice"),
        (
            "[raft]\nprofile = \"wan\"\nelection_max_ms = 2500",
            "raft.election_max_ms",
        ),
        ("[raft]\nelection_max_ms = 500", "raft.election_max_ms"),
        ("[limits]\nsender_share_percent = 0", "sender_share_percent"),
        ("[limits]\nenvelope_bytes = 262145", "limits.envelope_bytes"),
        ("[limits]\nenvelope_bytes = 200000", "doors.envelope_bytes"),
        ("[limits]\npending_box_ttl_ms = 60000", "pending_box_ttl_ms"),
        ("[limits]\nenvelope_bytes = 9000000", "envelope_bytes"),
        ("[limits]\nqueue_envelopes = 9", "limits.queue_envelopes"),
        ("[doors]\nrequest_bytes = 100", "doors.request_bytes"),
        ("[storage]\nsegment_bytes = 1", "storage.segment_bytes"),
        ("[log]\nfilter = \"loud=very\"", "not a log filter"),
    ];
    for (content, reason) in table {
        let (_folder, path) = file(&content.replace("SOCKET", &"s".repeat(200)));
        let output = check(&path);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{content}: {said}");
        assert!(said.contains(reason), "{content}: {said}");
        // A node does not start with them either.
        let output = run(["serve".as_ref(), "--config".as_ref(), path.as_os_str()]);
        assert_eq!(
            output.status.code(),
            Some(3),
            "{content}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let (_folder, path) = file("node = 0\n[clients]\nlisten = \"0.0.0.0:1\"\n");
    let output = check(&path);
    let said = stderr(&output);
    for part in [
        "node:",
        "clients.listen:",
        "clients.advertise:",
        "courier.kind:",
    ] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
}

#[test]
fn strangers_may_come_if_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    support::make_authority(folder.path());
    support::peer_args(folder.path(), 1);
    let certs = support::certs(folder.path()).display().to_string();
    let mut args = vec![
        "config".to_owned(),
        "check".to_owned(),
        "--listen=0.0.0.0:7470".to_owned(),
        "--advertise=mail.example.org:7470".to_owned(),
        format!("--tls-cert={certs}/node-1.crt"),
        format!("--tls-key={certs}/node-1.key"),
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    args.push("--allow-console-courier".to_owned());
    run_ok(&args);
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("cluster.keys");
    std::fs::write(&secrets, "x").unwrap();
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = run([
        "config".to_owned(),
        "check".to_owned(),
        format!("--secrets={}", secrets.display()),
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let (_folder, path) = file("node = 2\n[log]\nfilter = \"warn\"\n[cluster]\nname = \"file\"\n");
    let output = rossby()
        .args(["config", "show", "--json", "--log", "debug", "--config"])
        .arg(&path)
        .env("ROSSBY_NODE", "3")
        .env("ROSSBY_LOG_FILTER", "error")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let settings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = |key: &str| {
        let all = settings.as_array().unwrap();
        let found = all.iter().find(|setting| setting["key"] == key).unwrap();
        (
            found["value"].clone(),
            found["source"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        find("log.filter"),
        ("debug".into(), "flag --log".to_owned())
    );
    assert_eq!(
        find("node"),
        (3.into(), "environment ROSSBY_NODE".to_owned())
    );
    assert_eq!(
        find("cluster.name"),
        ("file".into(), format!("file {}", path.display()))
    );
    assert_eq!(find("log.format"), ("text".into(), "default".to_owned()));
}

#[test]
fn a_variable_of_the_wrong_kind_is_refused_and_an_unknown_one_is_mentioned() {
    let output = rossby()
        .args(["config", "check"])
        .env("ROSSBY_NODE", "one")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("environment ROSSBY_NODE"),
        "{}",
        stderr(&output)
    );
    let output = rossby()
        .args(["config", "check"])
        .env("ROSSBY_NOED", "1")
        .env("ROSSBY_PASSPHRASE", "a device's")
        .env("ROSSBY_HOME", "a device's")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("ROSSBY_NOED: not a setting"),
        "{}",
        stderr(&output)
    );
    // What the other commands read is not mentioned.
    for other in ["ROSSBY_PASSPHRASE", "ROSSBY_HOME"] {
        assert!(!stderr(&output).contains(other), "{}", stderr(&output));
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = run(["config", "check", "--config", "/nowhere/rossby.toml"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("/nowhere/rossby.toml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_wrong_command_line_is_told_from_everything_else() {
    assert_eq!(run(["serve", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(
        run(["cluster", "init", "--node", "x"]).status.code(),
        Some(2)
    );
    // No node runs there.
    let output = run(["cluster", "status", "--data", "/nowhere"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}
