//! People and their devices: the real commands against real nodes.

mod abuse;
mod account;
mod devices;
mod groups;
mod identifiers;
mod keys;
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
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::people::last_code;
use crate::support::{Cluster, eventually, rossby, stderr};

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

/// A node with limits of its own, as they stand in a configuration file.
fn with_limits(limits: &str) -> (TempDir, Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("rossby.toml");
    std::fs::write(&config, format!("[limits]\n{limits}\n")).unwrap();
    let flag = format!("--config={}", config.display());
    (folder, Cluster::single_with(1, &[&flag]))
}

/// A person with a box of their own.
fn person(cluster: &Cluster, name: &str) -> Person {
    let person = Person::named(cluster, name);
    let output = person.register(cluster, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    person.ok(&["authorize", &person.code(cluster)]);
    person
}
