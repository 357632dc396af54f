//! One node: a process that can be started, stopped, killed and looked at.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::ports::Port;
use super::{admin, eventually, http, rossby, run};

/// How a node ended.
#[derive(Debug)]
pub struct Stopped {
    /// Its exit status.
    pub status: ExitStatus,
}

/// A node: its folder, its ports, and its process while it runs.
pub struct Node {
    id: u64,
    folder: PathBuf,
    clients: Port,
    peers: Port,
    http: Port,
    args: Vec<String>,
    child: Option<Child>,
    paused: bool,
    numbered: bool,
    rated: bool,
}

/// Tests do in a moment what people do in a day.
const UNRATED: [&str; 4] = [
    "ROSSBY_DOORS_ENVELOPES_BURST",
    "ROSSBY_DOORS_DEVICE_ENVELOPES_PER_MINUTE",
    "ROSSBY_DOORS_LOOKUPS_BURST",
    "ROSSBY_DOORS_CODES_PER_NETWORK_PER_DAY",
];

impl Node {
    /// A node that does not run yet, in `<folder>/node-<id>`. With certificates in `args` it listens
    /// for peers.
    pub fn new(folder: &Path, id: u64, args: Vec<String>) -> Self {
        let own = folder.join(format!("node-{id}"));
        std::fs::create_dir(&own).expect("no folder for the node");
        let (clients, peers, http) = (Port::any(), Port::any(), Port::any());
        Self {
            id,
            folder: own,
            clients,
            peers,
            http,
            args,
            child: None,
            paused: false,
            numbered: true,
            rated: false,
        }
    }

    /// Lets callers do no more at its doors than they may by its settings.
    pub fn rated(&mut self) {
        self.rated = true;
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The cluster's secrets as it keeps them.
    pub fn secrets(&self) -> PathBuf {
        self.folder.join("secrets/cluster.keys")
    }

    /// The outbox of its courier, which is the file courier.
    pub fn codes(&self) -> PathBuf {
        self.folder.join("secrets/codes.jsonl")
    }

    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.clients.address()
    }

    /// Where peers connect.
    pub fn peer_address(&self) -> SocketAddr {
        self.peers.address()
    }

    /// Where metrics and health are.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// The flags it is started with from now on, besides those of its place.
    pub fn args(&mut self) -> &mut Vec<String> {
        &mut self.args
    }

    /// It is not told its number.
    pub fn unnumbered(&mut self) {
        self.numbered = false;
    }

    /// All its flags.
    pub fn command_line(&self) -> Vec<String> {
        let mut args = vec![
            "serve".to_owned(),
            format!("--data={}", self.data().display()),
            format!("--secrets={}", self.secrets().display()),
            format!("--listen={}", self.clients.address()),
            format!("--http={}", self.http.address()),
        ];
        if self.numbered {
            args.push(format!("--node={}", self.id));
        }
        if !self.args.iter().any(|arg| arg.starts_with("--courier=")) {
            args.push("--courier=file".to_owned());
        }
        if self.args.iter().any(|arg| arg.starts_with("--peer-cert")) {
            args.push(format!("--peer-listen={}", self.peers.address()));
        }
        args.extend(self.args.iter().cloned());
        args
    }

    /// Starts the process.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "node {} runs already", self.id);
        let mut command = rossby();
        if !self.rated {
            command.envs(UNRATED.map(|limit| (limit, "0")));
        }
        let child = command
            .args(self.command_line())
            .stdin(Stdio::null())
            .stdout(self.output("out"))
            .stderr(self.output("err"))
            .spawn()
            .expect("rossby did not start");
        self.child = Some(child);
    }

    /// A file that takes what it prints (`out`) or logs (`err`).
    pub fn output(&self, name: &str) -> File {
        let path = self.folder.join(name);
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .expect("no file for the output")
    }

    /// All that it printed on standard output.
    pub fn out(&self) -> String {
        std::fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("err")).unwrap_or_default()
    }

    /// Whether its process was started and is neither stopped nor paused by the test.
    pub fn is_running(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("the node does not run");
        Pid::from_child(child)
    }

    /// How long it has kept a processor busy, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.pid().as_raw_nonzero());
        let stat = std::fs::read_to_string(path).expect("the node is gone");
        // After the name in parentheses, fields 14 and 15 of proc(5): user and system time.
        let (_, fields) = stat.rsplit_once(')').expect("not a stat file");
        let times = fields.split_whitespace().skip(11).take(2);
        times
            .map(|ticks| ticks.parse::<u64>().expect("not a number"))
            .sum()
    }

    /// Its disk is lost: the data directory is gone. It must not run.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "node {} runs", self.id);
        std::fs::remove_dir_all(self.data()).expect("the data can't be removed");
    }

    /// Waits until it has logged a text.
    pub fn wait_log(&self, text: &str) {
        eventually(
            &format!("node {} logs {text:?}\n{}", self.id, self.log()),
            || self.log().contains(text).then_some(()),
        );
    }

    /// A page of its metrics and health.
    pub fn page(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.http.address(), path)
    }

    /// Waits until it answers at all.
    pub fn wait_alive(&self) {
        eventually(
            &format!("node {} is alive\n{}", self.id, self.log()),
            || self.page("/livez").filter(|(status, _)| *status == 200),
        );
    }

    /// Waits until it knows that it belongs to no cluster.
    pub fn wait_waiting(&self) {
        eventually(&format!("node {} waits for a cluster", self.id), || {
            let (_, said) = self.page("/readyz")?;
            said.contains("belongs to no cluster yet").then_some(())
        });
    }

    /// Waits until it is ready.
    pub fn wait_ready(&self) {
        let mut said = String::new();
        eventually(&format!("node {} is ready", self.id), || {
            let (status, body) = self.page("/readyz")?;
            said = body;
            (status == 200).then_some(())
        });
    }

    /// The node that it takes for the leader.
    pub fn leader(&self) -> Option<u64> {
        self.status()?["groups"][0]["leader_node"].as_u64()
    }

    /// Its `cluster status`.
    pub fn status(&self) -> Option<serde_json::Value> {
        let data = self.data().display().to_string();
        let output = run(["cluster", "status", "--json", "--data", &data]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).expect("not JSON"))
    }

    /// The digests of its copy of the partitions of group 1.
    pub fn digests(&self) -> admin::Digests {
        self.digests_of(1)
    }

    /// The digests of its copy of a group's partitions.
    pub fn digests_of(&self, group: u32) -> admin::Digests {
        admin::digests(self.data().join("admin.sock"), group)
    }

    /// The groups that it has replicas of: those of boxes, and 0 for the placement group.
    pub fn groups(&self) -> Vec<u32> {
        let status = self.status().expect("no status");
        let of_boxes = status["groups"].as_array().expect("no groups").iter();
        of_boxes
            .chain([&status["placement"]])
            .filter_map(|group| u32::try_from(group["group"].as_u64()?).ok())
            .collect()
    }

    /// The digests that outlive a restart: of all partitions but the first, where each new leader tells
    /// the log the time (`rossby_api::workers::tell_time`), soon or late after it was chosen.
    pub fn lasting_digests(&self) -> Vec<(u32, Vec<u8>)> {
        let (_, mut digests) = self.digests();
        digests.retain(|(partition, _)| *partition != 0);
        digests
    }

    /// Waits until the node has done all that it does by itself after what people did: nothing was
    /// applied for longer than a pass of the courier takes to come round (workers/courier.rs).
    pub fn wait_quiet(&self) {
        let mut looks = 0;
        let mut last = self.digests();
        eventually("the node is quiet", || {
            let next = self.digests();
            looks = if next == last { looks + 1 } else { 0 };
            last = next;
            (looks == 20).then_some(())
        });
    }

    /// Has it write a checkpoint; the index.
    pub fn checkpoint(&self) -> u64 {
        admin::checkpoint(self.data().join("admin.sock"))
    }

    /// Kills it at once (SIGKILL), as a power cut of the process.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.paused = false;
        self.wait();
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub fn terminate(&mut self) -> Stopped {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Stops the process where it is (SIGSTOP): it keeps its connections and says nothing. No thread
    /// of it runs any more when this returns.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        eventually("every thread stands still", || {
            let stands = |task: std::io::Result<std::fs::DirEntry>| {
                let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
                // After the name in parentheses: the state, proc(5).
                let (_, fields) = stat.rsplit_once(") ")?;
                fields.starts_with('T').then_some(())
            };
            let all = std::fs::read_dir(&tasks).ok()?;
            all.map(stands).collect::<Option<Vec<()>>>().map(drop)
        });
    }

    /// Lets a paused process go on (SIGCONT), as if no time had passed for it.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the node is gone");
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Stopped {
        let mut child = self.child.take().expect("the node does not run");
        let status = eventually(&format!("node {} ends", self.id), || {
            child.try_wait().expect("can't wait for the node")
        });
        Stopped { status }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- node {}\n{}{}", self.id, self.out(), self.log());
        }
    }
}
