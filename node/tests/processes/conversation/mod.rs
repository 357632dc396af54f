//! People and their devices: the real commands against real nodes.

mod abuse;
mod account;
mod devices;
mod groups;
mod identifiers;
mod keys;
mod losing;
mod messages;
mod queue;
mod recovery;
mod registration;
mod resetting;
mod safety;
mod talk;
mod trouble;
mod words;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::people::last_code;
use crate::support::{Cluster, Node, eventually, rossby, stderr};

const PASSPHRASE: &str = "correct horse battery staple";

/// A figure of a node, of which there must be one line that begins so.
fn figure(node: &Node, name: &str) -> u64 {
    let (_, page) = node.page("/metrics").expect("no metrics");
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let found = lines
        .next()
        .unwrap_or_else(|| panic!("no {name} in {page}"));
    found.trim().parse().expect("not a number")
}

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

    /// Starts a command that may take as long as an election does.
    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(&[args, &["--timeout", "30"]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("rossby did not run")
    }

    /// Registers with every node of the cluster, and more arguments.
    fn register(&self, cluster: &Cluster, more: &[&str]) -> Output {
        self.register_at(cluster, 0, more)
    }

    /// The same, with this one before all others: the box is at home there.
    fn register_at(&self, cluster: &Cluster, first: usize, more: &[&str]) -> Output {
        let mut servers = servers(cluster);
        servers.rotate_left(first);
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

/// The flags that name every node of a cluster.
fn servers(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.nodes().iter();
    nodes
        .map(|node| format!("--server={}", node.client_address()))
        .collect()
}

fn texts(messages: &Value) -> Vec<String> {
    let messages = messages.as_array().unwrap().iter();
    messages
        .map(|message| message["text"].as_str().unwrap_or("?").to_owned())
        .collect()
}

/// A node with limits of its own, as they stand in a configuration file.
fn with_limits(limits: &str) -> (TempDir, Cluster) {
    let (folder, flag) = limited(limits);
    (folder, Cluster::single_with(1, &[&flag]))
}

/// A configuration file with limits, and the flag that names it.
fn limited(limits: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("rossby.toml");
    std::fs::write(&config, format!("[limits]\n{limits}\n")).unwrap();
    let flag = format!("--config={}", config.display());
    (folder, flag)
}

/// A person with a box of their own.
fn person(cluster: &Cluster, name: &str) -> Person {
    person_at(cluster, name, 0)
}

/// The same, at home where one of the nodes is.
fn person_at(cluster: &Cluster, name: &str, first: usize) -> Person {
    let person = Person::named(cluster, name);
    let output = person.register_at(cluster, first, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    person.ok(&["authorize", &person.code(cluster)]);
    person
}
