//! People and their devices: the real commands against real nodes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{self, Cluster, certs, eventually, rossby, stderr};

const PASSPHRASE: &str = "correct horse battery staple";

/// A person, as a folder with their device.
struct Person {
    home: PathBuf,
    email: String,
}

impl Person {
    fn named(cluster: &Cluster, name: &str) -> Self {
        let home = cluster.path().join(format!("device-{name}"));
        Self {
            home,
            email: format!("{name}@example.org"),
        }
    }

    /// A command of theirs, ready to run.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = rossby();
        command
            .args(args)
            .env("ROSSBY_HOME", &self.home)
            .env("ROSSBY_PASSPHRASE", PASSPHRASE);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("rossby did not run")
    }

    /// Runs a command that must succeed; what it printed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_str(&self.ok(&args)).expect("not JSON")
    }

    /// Runs a command that must fail with this exit code; what it said.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            stderr(&output)
        );
        stderr(&output)
    }

    /// Registers with every node of the cluster, and more arguments.
    fn register(&self, cluster: &Cluster, more: &[&str]) -> Output {
        let servers: Vec<String> = cluster
            .nodes()
            .iter()
            .map(|node| format!("--server={}", node.client_address()))
            .collect();
        let mut args = vec!["register", "--email", &self.email, "--json"];
        args.extend(servers.iter().map(String::as_str));
        args.extend(more);
        self.run(&args)
    }

    /// The code that was sent to this person last.
    fn code(&self, cluster: &Cluster) -> String {
        eventually("a code from the courier", || {
            last_code(cluster, &self.email)
        })
    }

    fn box_id(&self) -> String {
        self.json(&["whoami"])["box"].as_str().unwrap().to_owned()
    }

    /// The texts that came in since the last look.
    fn hear(&self) -> Vec<String> {
        texts(&self.json(&["inbox"])["messages"])
    }

    /// All texts that ever came in.
    fn heard(&self) -> Vec<String> {
        let all = self.json(&["inbox", "--all"]);
        let all = all["messages"].as_array().unwrap();
        let received = all.iter().filter(|message| message["direction"] == "in");
        texts(&Value::Array(received.cloned().collect()))
    }
}

fn texts(messages: &Value) -> Vec<String> {
    let messages = messages.as_array().unwrap().iter();
    messages
        .map(|message| message["text"].as_str().unwrap_or("?").to_owned())
        .collect()
}

/// The last code for an identifier that any node's courier brought.
fn last_code(cluster: &Cluster, identifier: &str) -> Option<String> {
    let codes = cluster.nodes().iter().flat_map(|node| {
        let text = std::fs::read_to_string(node.codes()).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let mut codes: Vec<(u64, String)> = codes
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let at = fields.next()?.parse().ok()?;
            (fields.next()? == identifier).then_some(())?;
            Some((at, fields.next()?.to_owned()))
        })
        .collect();
    codes.sort();
    codes.pop().map(|(_, code)| code)
}

/// A person with a box of their own.
fn person(cluster: &Cluster, name: &str) -> Person {
    let person = Person::named(cluster, name);
    let output = person.register(cluster, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    person.ok(&["authorize", &person.code(cluster)]);
    person
}

/// Copies a device's files, as a backup does.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn two_people_meet_and_write_to_each_other() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let added = alice.json(&["contacts", "add", &bob.email, "--name", "Bob"]);
    assert_eq!(added["box"], bob.box_id());
    assert_eq!(added["chain_version"], 0);

    let sent = alice.json(&["send", "bob", "Guten Morgen, Bob"]);
    assert_eq!(sent["status"], "delivered");
    assert_eq!(sent["sequence"], 1);
    alice.ok(&["send", &bob.email, "und noch etwas"]);
    alice.ok(&["send", &bob.box_id(), "und noch etwas mehr"]);
    assert_eq!(
        bob.hear(),
        ["Guten Morgen, Bob", "und noch etwas", "und noch etwas mehr"]
    );
    assert!(bob.hear().is_empty(), "nothing comes twice");

    // Whoever writes first is no stranger to an answer.
    bob.ok(&["send", &alice.box_id(), "Morgen!"]);
    assert_eq!(alice.hear(), ["Morgen!"]);
    let shown = alice.ok(&["inbox", "--all"]);
    assert!(shown.contains("you to Bob: Guten Morgen, Bob"), "{shown}");
    assert!(shown.contains("Bob: Morgen!"), "{shown}");

    let number = alice.json(&["contacts", "show", "Bob"])["safety_number"].clone();
    assert_eq!(
        number,
        bob.json(&["contacts", "show", &alice.box_id()])["safety_number"]
    );
    assert_eq!(number.as_str().unwrap().split(' ').count(), 12);
    let listed = bob.json(&["contacts", "list"]);
    assert_eq!(listed[0]["box"], alice.box_id());
    assert_eq!(listed[0]["added"], false);
    bob.ok(&["contacts", "remove", &alice.box_id()]);
    assert_eq!(bob.json(&["contacts", "list"]), serde_json::json!([]));
}

#[test]
fn files_arrive_whole_and_overwrite_nothing() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let file = cluster.path().join("map.bin");
    let bytes: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let path = file.display().to_string();
    let file_args = [
        "send",
        &bob.email,
        "--file",
        &path,
        "--media-type",
        "image/x-map",
    ];
    alice.ok(&file_args);
    let folder = cluster.path().join("saved");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("map.bin"), "mine").unwrap();
    let inbox = bob.json(&["inbox", "--save", &folder.display().to_string()]);
    let message = &inbox["messages"][0]["file"];
    assert_eq!(message["name"], "map.bin");
    assert_eq!(message["media_type"], "image/x-map");
    assert_eq!(message["bytes"], 70_000);
    let saved = PathBuf::from(message["saved"].as_str().unwrap());
    assert_eq!(std::fs::read(saved).unwrap(), bytes);
    assert_eq!(
        std::fs::read_to_string(folder.join("map.bin")).unwrap(),
        "mine"
    );

    std::fs::write(&file, vec![0; 100_000]).unwrap();
    let said = alice.fails(5, &file_args);
    assert!(said.contains("too large"), "{said}");
    assert!(bob.hear().is_empty());
}

#[test]
fn text_can_come_from_standard_input_and_the_passphrase_from_a_descriptor() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let mut child = alice
        .command(&["send", &bob.email, "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"two\nlines\n")
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mut child = bob
        .command(&["inbox", "--json", "--passphrase-fd", "0"])
        .env_remove("ROSSBY_PASSPHRASE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{PASSPHRASE}\n").as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let inbox: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(texts(&inbox["messages"]), ["two\nlines"]);
}

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
        17
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
fn to_a_blocked_sender_the_box_is_like_one_that_is_not_there() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let carol = person(&cluster, "carol");
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    alice.ok(&["send", "Bob", "hello"]);
    bob.hear();
    bob.ok(&["block", &alice.box_id()]);
    let blocked = alice.fails(8, &["send", "Bob", "are you there?"]);
    assert!(blocked.contains("UNKNOWN_RECIPIENT"), "{blocked}");
    assert_eq!(
        alice.fails(8, &["contacts", "add", &bob.email]),
        alice.fails(8, &["contacts", "add", "nobody@example.org"])
    );
    carol.ok(&["send", &bob.email, "only alice is blocked"]);
    bob.ok(&["unblock", &alice.box_id()]);
    alice.ok(&["send", "Bob", "again"]);
    assert_eq!(bob.hear(), ["only alice is blocked", "again"]);
    let all = alice.json(&["inbox", "--all"]);
    assert_eq!(all["messages"][1]["status"], "refused");
    assert_eq!(all["messages"][1]["code"], "UNKNOWN_RECIPIENT");
}

#[test]
fn every_failure_has_its_exit_code() {
    let cluster = Cluster::single();
    let alice = Person::named(&cluster, "alice");
    alice.fails(7, &["whoami"]);
    alice.fails(2, &["register", "--email", "alice@example.org"]);
    alice.fails(
        2,
        &[
            "register",
            "--email",
            "not an address",
            "--server",
            "127.0.0.1:1",
        ],
    );
    alice.fails(
        2,
        &["register", "--phone", "12345", "--server", "127.0.0.1:1"],
    );
    let remote = [
        "register",
        "--email",
        "a@example.org",
        "--server",
        "http://192.0.2.1:1",
    ];
    assert!(alice.fails(2, &remote).contains("this machine only"));
    let alice = person(&cluster, "alice");
    assert!(
        alice
            .fails(8, &["send", "Zebedee", "hi"])
            .contains("no contact called")
    );
    alice.fails(2, &["send", "Zebedee"]);
    let mut wrong = alice.command(&["whoami"]);
    let output = wrong.env("ROSSBY_PASSPHRASE", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(stderr(&output).contains("wrong passphrase"));
    let output = alice
        .command(&["whoami"])
        .env("ROSSBY_PASSPHRASE", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let lock = File::options()
        .write(true)
        .open(alice.home.join("lock"))
        .unwrap();
    lock.lock().unwrap();
    assert!(alice.fails(10, &["whoami"]).contains("another process"));
    drop(lock);
    std::fs::write(alice.home.join("key"), "not a key").unwrap();
    alice.fails(10, &["whoami"]);
}

#[test]
fn what_can_not_be_sent_now_is_kept_and_sent_once_later() {
    let mut cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    alice.ok(&["send", "Bob", "zero"]);
    cluster.node(1).kill();
    for words in ["one", "two"] {
        let said = alice.fails(4, &["send", "Bob", words, "--timeout", "1"]);
        assert!(said.contains("the message is kept"), "{said}");
    }
    assert_eq!(alice.json(&["whoami"])["pending"], 2);
    alice.fails(4, &["send", "--retry", "--timeout", "1"]);
    cluster.node(1).start();
    cluster.node(1).wait_ready();
    let retried = alice.json(&["send", "--retry"]);
    assert_eq!(retried["pending"], 0);
    assert_eq!(retried["sent"].as_array().unwrap().len(), 2);
    alice.ok(&["send", "Bob", "three"]);
    assert_eq!(bob.hear(), ["zero", "one", "two", "three"]);
    let again = alice.ok(&["send", "--retry"]);
    assert!(again.contains("nothing is waiting"), "{again}");
    assert!(bob.hear().is_empty());
}

#[test]
fn a_restored_device_loses_no_mail_and_repeats_none() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    alice.ok(&["send", "Bob", "one"]);
    bob.ok(&["send", &alice.email, "hello"]);
    let backup = cluster.path().join("backup");
    copy(&alice.home, &backup);
    alice.ok(&["send", "Bob", "two"]);
    assert_eq!(alice.hear(), ["hello"]);
    copy(&backup, &alice.home);
    alice.ok(&["send", "Bob", "three"]);
    alice.ok(&["send", "Bob", "four"]);
    assert_eq!(bob.hear(), ["one", "two", "three", "four"]);
    assert!(
        alice.hear().is_empty(),
        "acknowledged by the device that was lost"
    );
}

#[test]
fn a_conversation_survives_the_loss_of_the_leader() {
    let mut cluster = Cluster::of(3);
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["contacts", "add", &bob.email, "--name", "Bob"]);
    bob.ok(&["contacts", "add", &alice.email, "--name", "Alice"]);
    let mut said = Vec::new();
    for round in 0..9 {
        let words = round.to_string();
        if round == 3 {
            let leader = cluster.leader();
            cluster.node(leader).kill();
        }
        // Kept if the new leader is not there in time; what comes after takes it along.
        let output = alice.run(&["send", "Bob", &words, "--timeout", "30"]);
        assert!(
            matches!(output.status.code(), Some(0 | 4 | 6)),
            "{}",
            stderr(&output)
        );
        said.push(words);
    }
    alice.ok(&["send", "--retry", "--timeout", "30"]);
    assert_eq!(alice.json(&["whoami"])["pending"], 0);
    bob.ok(&["inbox", "--timeout", "30"]);
    assert_eq!(bob.heard(), said, "all of it, once, in order");
    bob.ok(&["send", "Alice", "got it", "--timeout", "30"]);
    assert_eq!(alice.hear(), ["got it"]);
}

#[test]
fn what_has_come_in_is_shown_even_if_it_can_not_be_saved_or_the_service_is_gone() {
    let mut cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let file = cluster.path().join("map.txt");
    std::fs::write(&file, "here").unwrap();
    let path = file.display().to_string();
    alice.ok(&["send", &bob.box_id(), "--file", &path]);
    // A file stands where the folder should be.
    let output = bob.run(&["inbox", "--save", &path]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("map.txt"));
    assert!(
        stderr(&output).contains("--all --save"),
        "{}",
        stderr(&output)
    );
    cluster.node(1).kill();
    let output = bob.run(&["inbox", "--all", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("map.txt"));
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

#[test]
fn nothing_private_is_in_clear_in_any_data_or_log() {
    let mut cluster = Cluster::single();
    let (alice, bob) = (
        person(&cluster, "alice-canary"),
        person(&cluster, "bob-canary"),
    );
    let canary = "the canary sings at midnight";
    alice.ok(&["send", &bob.email, canary]);
    bob.hear();
    cluster.node(1).checkpoint();
    cluster.node(1).terminate();
    let code = last_code(&cluster, &alice.email).unwrap();
    let mut files = Vec::new();
    files_below(&cluster.node(1).data(), &mut files);
    files_below(&alice.home, &mut files);
    files_below(&bob.home, &mut files);
    files.push(cluster.path().join("node-1/err"));
    files.push(cluster.path().join("node-1/out"));
    assert!(files.len() > 8, "{files:?}");
    for needle in [canary, "alice-canary", "bob-canary", &code, PASSPHRASE] {
        let found: Vec<_> = files.iter().filter(|file| holds(file, needle)).collect();
        assert!(found.is_empty(), "{needle} is in {found:?}");
    }
    // The search is one that finds: the courier's outbox has the codes and the identifiers.
    let outbox = cluster.node(1).codes();
    assert!(holds(&outbox, "alice-canary") && holds(&outbox, &code));
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
}

fn holds(file: &Path, needle: &str) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}
