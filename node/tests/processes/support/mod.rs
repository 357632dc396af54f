//! Clusters of real `rossby` processes on loopback, for tests.
//!
//! ```no_run
//! let mut cluster = Cluster::of(3);            // certificates, three processes, `cluster init`, all ready
//! let leader = cluster.leader();
//! cluster.node(leader).kill();                 // kill -9
//! cluster.node(leader).start();
//! cluster.node(leader).wait_ready();
//! ```
//!
//! Ports are asked of the system and held for the life of the cluster, so that a node finds its own
//! again after a restart. Everything a node says is kept in its folder, and shown when a test fails.
//! Dropping a cluster kills its processes and removes its files.

mod admin;
pub mod faults;
mod http;
pub mod people;
mod ports;
mod process;
pub mod search;
pub mod strace;
pub mod trace;
pub mod witness;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use admin::{digests, digests_if_held};
pub use process::Node;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing here takes as long, even on a busy machine; a test that hangs fails by it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether there is time for more than the quick form of a test (`ROSSBY_LONG=1`).
pub fn long() -> bool {
    std::env::var_os("ROSSBY_LONG").is_some()
}

/// Copies the files of a folder, and all below it, as a backup does.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("can't make the folder");
    for entry in std::fs::read_dir(from).expect("no such folder") {
        let entry = entry.expect("can't list the folder");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("no type");
        if kind.is_dir() {
            copy(&source, &target);
        } else if kind.is_file() {
            std::fs::copy(source, target).expect("can't copy");
        }
    }
}

/// A `rossby` command, with no setting inherited from who runs the tests.
pub fn rossby() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rossby"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROSSBY_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `rossby` to its end, which must come.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let mut command = rossby();
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("rossby did not run");
    let pid = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    // One that goes on for ever (a node that should have refused to start) is ended.
    let watchdog = std::thread::spawn(move || {
        let overdue = end.recv_timeout(PATIENCE).is_err();
        if overdue {
            let _ = kill_process(pid, Signal::KILL);
        }
        overdue
    });
    let output = child.wait_with_output().expect("no output");
    let _ = ended.send(());
    let overdue = watchdog.join().expect("the watchdog failed");
    assert!(!overdue, "it did not end: {}", stderr(&output));
    output
}

/// Runs `rossby`, which must do what it is told; what it printed.
pub fn run_ok<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = run(args);
    assert!(
        output.status.success(),
        "rossby failed: {}",
        stderr(&output)
    );
    String::from_utf8(output.stdout).expect("not UTF-8")
}

/// What a command said on standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until `look` finds something; `what` says what is missing when the patience is over.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nodes of one cluster, or on their way to one.
pub struct Cluster {
    nodes: Vec<Node>,
    folder: TempDir,
}

impl Cluster {
    /// A running single node that made a cluster by itself.
    pub fn single() -> Self {
        Self::single_numbered(1)
    }

    /// The same, of a node with another number.
    pub fn single_numbered(id: u64) -> Self {
        Self::single_with(id, &[])
    }

    /// The same, with more flags.
    pub fn single_with(id: u64, flags: &[&str]) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            folder: folder(),
        };
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        cluster.nodes.push(Node::new(cluster.path(), id, flags));
        cluster.nodes[0].start();
        cluster.nodes[0].wait_ready();
        cluster
    }

    /// The same, with settings as in a file, and with the rates of its doors.
    pub fn single_with_settings(settings: &str) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            folder: folder(),
        };
        let file = cluster.path().join("rossby.toml");
        std::fs::write(&file, settings).expect("no settings");
        let flags = vec![format!("--config={}", file.display())];
        let mut node = Node::new(cluster.path(), 1, flags);
        node.rated();
        node.start();
        node.wait_ready();
        cluster.nodes.push(node);
        cluster
    }

    /// A single node that was never started.
    pub fn unborn(id: u64) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            folder: folder(),
        };
        cluster
            .nodes
            .push(Node::new(cluster.path(), id, Vec::new()));
        cluster
    }

    /// A running cluster of `count` nodes, each looked after by `prepare` before it starts.
    pub fn prepared(count: u64, flags: &[&str], mut prepare: impl FnMut(&Node)) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            folder: folder(),
        };
        if count > 1 {
            make_authority(cluster.path());
        }
        for id in 1..=count {
            let mut args = Vec::new();
            if count > 1 {
                args = peer_args(cluster.path(), id);
            }
            args.extend(flags.iter().map(|&flag| flag.to_owned()));
            let mut node = Node::new(cluster.path(), id, args);
            prepare(&node);
            node.start();
            cluster.nodes.push(node);
        }
        for node in &cluster.nodes {
            node.wait_alive();
        }
        if count > 1 {
            let output = cluster.init();
            assert!(output.status.success(), "{}", stderr(&output));
        }
        for node in &cluster.nodes {
            node.wait_ready();
        }
        cluster
    }

    /// A running cluster of `count` nodes, all ready.
    pub fn of(count: u64) -> Self {
        Self::of_with(count, &[])
    }

    /// The same, with more flags for each node.
    pub fn of_with(count: u64, flags: &[&str]) -> Self {
        let cluster = Self::waiting_with(count, flags);
        let output = cluster.init();
        assert!(
            output.status.success(),
            "cluster init failed: {}",
            stderr(&output)
        );
        for node in &cluster.nodes {
            node.wait_ready();
        }
        cluster
    }

    /// Running nodes with certificates of one authority, which belong to no cluster yet.
    pub fn waiting(count: u64) -> Self {
        Self::waiting_with(count, &[])
    }

    /// The same, with more flags for each node.
    pub fn waiting_with(count: u64, flags: &[&str]) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            folder: folder(),
        };
        make_authority(cluster.path());
        for id in 1..=count {
            let mut args = peer_args(cluster.path(), id);
            args.extend(flags.iter().map(|&flag| flag.to_owned()));
            cluster.nodes.push(Node::new(cluster.path(), id, args));
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        for node in &cluster.nodes {
            node.wait_waiting();
        }
        cluster
    }

    /// Running nodes, one in each of these regions, which belong to no cluster yet.
    pub fn waiting_in_regions(regions: &[&str]) -> Self {
        Self::waiting_in_regions_with(regions, "")
    }

    /// The same, with settings as in a file.
    fn waiting_in_regions_with(regions: &[&str], settings: &str) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            folder: folder(),
        };
        make_authority(cluster.path());
        let file = cluster.path().join("rossby.toml");
        std::fs::write(&file, settings).expect("no settings");
        for (id, region) in (1..).zip(regions) {
            let mut args = peer_args(cluster.path(), id);
            args.push(format!("--region={region}"));
            args.push(format!("--config={}", file.display()));
            let mut node = Node::new(cluster.path(), id, args);
            node.start();
            cluster.nodes.push(node);
        }
        for node in &cluster.nodes {
            node.wait_waiting();
        }
        cluster
    }

    /// A running cluster of one node in each of these regions.
    pub fn in_regions(regions: &[&str]) -> Self {
        Self::in_regions_with(regions, "")
    }

    /// The same, with settings as in a file.
    pub fn in_regions_with(regions: &[&str], settings: &str) -> Self {
        let cluster = Self::waiting_in_regions_with(regions, settings);
        let output = cluster.init();
        assert!(output.status.success(), "{}", stderr(&output));
        for node in &cluster.nodes {
            node.wait_ready();
        }
        cluster
    }

    /// The same, of one that is to survive the loss of a `node` or a `region`.
    pub fn in_regions_to_survive(regions: &[&str], settings: &str, goal: &str) -> Self {
        let cluster = Self::waiting_in_regions_with(regions, settings);
        let output = cluster.init_with(&["--survive", goal]);
        assert!(output.status.success(), "{}", stderr(&output));
        for node in &cluster.nodes {
            node.wait_ready();
        }
        cluster
    }

    /// Asks a node about placement; what it answers as JSON.
    pub fn placement(&mut self, at: u64, words: &[&str]) -> serde_json::Value {
        let output = self.placement_output(at, words, true);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("not JSON")
    }

    /// Asks a node about placement; all that came of it.
    pub fn placement_output(&mut self, at: u64, words: &[&str], json: bool) -> Output {
        let data = self.node(at).data().display().to_string();
        let args = ["placement"].iter().chain(words).copied();
        let json = json.then_some("--json");
        run(args.chain(["--data", &data]).chain(json))
    }

    /// Node `id` of a cluster that is restored from a backup of another, with a copy of that one's
    /// secrets. It does not run yet. With `peers` it is one that others can join.
    pub fn restored(backup: &Path, secrets: &Path, id: u64, peers: bool, flags: &[&str]) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            folder: folder(),
        };
        let mut args = Vec::new();
        if peers {
            make_authority(cluster.path());
            args = peer_args(cluster.path(), id);
        }
        let node = Node::new(cluster.path(), id, args);
        std::fs::create_dir(node.secrets().parent().expect("no folder")).expect("no folder");
        std::fs::copy(secrets, node.secrets()).expect("no secrets");
        let mut command = vec!["restore".to_owned(), format!("--from={}", backup.display())];
        command.extend(node.command_line().into_iter().skip(1));
        command.extend(flags.iter().map(|&flag| flag.to_owned()));
        run_ok(command);
        cluster.nodes.push(node);
        cluster
    }

    /// Runs `cluster init` at node 1 for all nodes.
    pub fn init(&self) -> Output {
        self.init_with(&[])
    }

    /// The same, with more flags.
    pub fn init_with(&self, flags: &[&str]) -> Output {
        let mut args = vec!["cluster".to_owned(), "init".to_owned()];
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        args.extend([
            "--data".to_owned(),
            self.nodes[0].data().display().to_string(),
        ]);
        for node in &self.nodes {
            args.push("--node".to_owned());
            args.push(format!("{}={}", node.id(), node.peer_address()));
        }
        run(args)
    }

    /// One more node, running, with certificates of the same authority, which belongs to no cluster.
    pub fn add_waiting(&mut self, id: u64) {
        let args = peer_args(self.path(), id);
        let mut node = Node::new(self.path(), id, args);
        node.start();
        node.wait_alive();
        self.nodes.push(node);
    }

    /// Takes a node in that was made elsewhere.
    pub fn take(&mut self, node: Node) {
        self.nodes.push(node);
    }

    /// `id=host:port` of a node.
    pub fn at(&self, id: u64) -> String {
        let node = self.nodes.iter().find(|node| node.id() == id);
        format!("{id}={}", node.expect("no such node").peer_address())
    }

    /// Gives an order about the members to a node, in the words of the command line.
    pub fn order(&mut self, at: u64, words: &[&str]) -> Output {
        let data = self.node(at).data().display().to_string();
        let args = ["cluster"].iter().chain(words).copied();
        run(args.chain(["--data", &data]))
    }

    /// The same, which must be carried out.
    pub fn order_ok(&mut self, at: u64, words: &[&str]) -> String {
        let output = self.order(at, words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("not UTF-8")
    }

    /// The folder of everything.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A node by its number.
    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes
            .iter_mut()
            .find(|node| node.id() == id)
            .expect("no such node")
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that leads, once all running nodes agree on one that runs.
    pub fn leader(&self) -> u64 {
        eventually("a leader that all nodes agree on", || {
            let running: Vec<_> = self.nodes.iter().filter(|node| node.is_running()).collect();
            let leaders: Vec<_> = running.iter().map(|node| node.leader()).collect();
            let first = (*leaders.first()?)?;
            let agreed = leaders.iter().all(|leader| *leader == Some(first));
            let alive = running.iter().any(|node| node.id() == first);
            (agreed && alive).then_some(first)
        })
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("rossby-test-")
        .tempdir()
        .expect("no temporary folder")
}

/// Makes a certificate authority in `<folder>/certs`.
pub fn make_authority(folder: &Path) {
    run_ok([
        "cert".as_ref(),
        "ca".as_ref(),
        "--out".as_ref(),
        certs(folder).as_os_str(),
    ]);
}

/// Makes a node's certificate in `<folder>/certs`, good for clients on this machine too; the flags
/// that make a node use it.
pub fn peer_args(folder: &Path, id: u64) -> Vec<String> {
    let certs = certs(folder).display().to_string();
    let id = id.to_string();
    let names = ["--dns", "localhost", "--ip", "127.0.0.1"];
    let mut args = vec![
        "cert", "node", "--ca", &certs, "--node", &id, "--out", &certs,
    ];
    args.extend(names);
    run_ok(args);
    vec![
        format!("--peer-cert={certs}/node-{id}.crt"),
        format!("--peer-key={certs}/node-{id}.key"),
        format!("--peer-ca={certs}/ca.crt"),
    ]
}

/// Where the certificates are.
pub fn certs(folder: &Path) -> PathBuf {
    folder.join("certs")
}
