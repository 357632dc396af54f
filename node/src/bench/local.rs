//! A cluster of our own: processes of this very program, each with its own folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rossby_domain::ids::{GroupId, PartitionId};
use rossby_domain::placement::RegionName;
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::http;
use super::processes::Processes;
use super::progress::Step;
use super::target::Node;
use crate::cli::{PlacementArgs, SocketArgs};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::placement::View;

/// Load comes from few devices, each of which sends more than a person's may.
const UNRATED: [&str; 4] = [
    "ROSSBY_DOORS_ENVELOPES_BURST",
    "ROSSBY_DOORS_DEVICE_ENVELOPES_PER_MINUTE",
    "ROSSBY_DOORS_LOOKUPS_BURST",
    "ROSSBY_DOORS_CODES_PER_NETWORK_PER_DAY",
];
/// Nothing takes a node as long on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a node that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(10);

/// Nodes that run until this is stopped or dropped.
#[derive(Debug)]
pub(super) struct LocalCluster {
    nodes: Vec<LocalNode>,
    /// Before the folder, which can only be removed when nobody writes there any more.
    processes: Processes,
    folder: Folder,
    /// Of each node: they share this machine's processors.
    threads: usize,
    /// Whether their groups rest.
    rest: bool,
    /// In which partitions boxes are born, by which groups; told once there are several groups.
    births: Vec<(PartitionId, GroupId)>,
}

#[derive(Debug)]
struct LocalNode {
    id: u64,
    pid: Option<u32>,
    addresses: Addresses,
}

/// What a node writes about itself.
#[derive(Debug, Deserialize)]
struct Addresses {
    clients: SocketAddr,
    peers: Option<SocketAddr>,
    http: SocketAddr,
}

/// Where everything is, and whether it stays.
#[derive(Debug)]
enum Folder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// The replicas of a group on three nodes or more.
pub(super) const REPLICAS: u64 = 3;
/// Of the partitions of a new cluster, the part that nobody owns yet.
const SPARE: u16 = 8;
/// The fewest and most partitions of a cluster.
const PARTITIONS: (u16, u16) = (256, 4096);

/// How a cluster is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Groups of boxes.
    pub(super) groups: u16,
    /// Whether they rest when nothing is asked of them.
    pub(super) rest: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            groups: 1,
            rest: true,
        }
    }
}

impl Shape {
    /// As many partitions as leave a spare one for each group that is added.
    fn partitions(self) -> u16 {
        let (least, most) = PARTITIONS;
        let wanted = self.groups.saturating_mul(SPARE).min(most);
        wanted.next_power_of_two().clamp(least, most)
    }

    /// What each group that is added gets of the spare partitions.
    fn each(self) -> u16 {
        let added = self.groups.saturating_sub(1).max(1);
        (self.partitions() / SPARE / added).max(1)
    }
}

/// What each of so many nodes has of this machine's processors, at least one.
fn threads_each(nodes: u64) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let nodes = usize::try_from(nodes).unwrap_or(usize::MAX);
    (processors / nodes.max(1)).max(1)
}

impl LocalCluster {
    /// Starts so many nodes and makes a cluster of them.
    pub(super) async fn start(
        count: u64,
        shape: Shape,
        parent: Option<&Path>,
        keep: bool,
    ) -> Result<Self, Failure> {
        let step = Step::open("Starting nodes");
        let mut cluster = Self {
            nodes: Vec::new(),
            processes: Processes::default(),
            folder: make_folder(parent, keep)?,
            threads: threads_each(count),
            rest: shape.rest,
            births: Vec::new(),
        };
        if count > 1 {
            let certs = cluster.path("certs");
            command(&["cert", "ca", "--out", &certs]).await?;
        }
        for id in 1..=count {
            cluster.add(id, count > 1).await?;
        }
        if count > 1 {
            cluster.found(shape.partitions()).await?;
        }
        for node in &cluster.nodes {
            cluster.wait_ready(node).await?;
        }
        drop(step);
        if shape.groups > 1 {
            cluster.grow(shape).await?;
            cluster.wait_known(shape.groups).await?;
            cluster.births = cluster.ask_births().await?;
        }
        Ok(cluster)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn add(&mut self, id: u64, with_peers: bool) -> Result<(), Failure> {
        let data = self.data_of(id);
        let mut args = vec![
            "serve".to_owned(),
            format!("--node={id}"),
            format!("--data={}", data.display()),
            format!(
                "--secrets={}",
                self.path(&format!("secrets-{id}/cluster.keys"))
            ),
            "--listen=127.0.0.1:0".to_owned(),
            "--http=127.0.0.1:0".to_owned(),
            "--courier=file".to_owned(),
            format!("--courier-file={}", self.codes().display()),
            "--log=warn".to_owned(),
        ];
        if with_peers {
            let certs = self.path("certs");
            let number = id.to_string();
            let names = ["cert", "node", "--ca", &certs, "--node", &number];
            command(&[&names[..], &["--ip", "127.0.0.1", "--out", &certs]].concat()).await?;
            args.push("--peer-listen=127.0.0.1:0".to_owned());
            args.push(format!("--peer-cert={certs}/node-{id}.crt"));
            args.push(format!("--peer-key={certs}/node-{id}.key"));
            args.push(format!("--peer-ca={certs}/ca.crt"));
        }
        let log = self.log_of(id);
        let log_file = File::create(&log).map_err(|error| cannot_write(&log, &error))?;
        let child = rossby()?
            .args(args)
            .env("ROSSBY_THREADS", self.threads.to_string())
            .env("ROSSBY_RAFT_REST", self.rest.to_string())
            .envs(UNRATED.map(|limit| (limit, "0")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .kill_on_drop(true)
            // Ctrl-C is for us: we stop the nodes.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::new(Exit::Failure, format!("node {id}: {error}")))?;
        let pid = child.id();
        let child = self.processes.add(id, child);
        let addresses = wait_for_addresses(&data, child, &log).await?;
        self.nodes.push(LocalNode { id, pid, addresses });
        Ok(())
    }

    async fn found(&self, partitions: u16) -> Result<(), Failure> {
        let mut args = vec!["cluster".to_owned(), "init".to_owned()];
        args.push(format!("--partitions={partitions}"));
        args.push(format!("--data={}", self.path("node-1")));
        for node in &self.nodes {
            if let Some(peers) = node.addresses.peers {
                args.push(format!("--node={}={peers}", node.id));
            }
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        command(&args).await
    }

    /// Adds groups to the first one.
    async fn grow(&self, shape: Shape) -> Result<(), Failure> {
        let step = Step::of("Adding groups", shape.groups.into());
        let region = format!("--region={}", RegionName::default());
        let partitions = format!("--partitions={}", shape.each());
        let data = format!("--data={}", self.path("node-1"));
        for number in 2..=shape.groups {
            command(&["group", "add", &region, &partitions, &data]).await?;
            step.reached(number.into());
        }
        Ok(())
    }

    /// Waits until each node knows of all groups and of what they own, since it lets boxes be born by that.
    async fn wait_known(&self, groups: u16) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut applied = BTreeMap::<u32, BTreeSet<u64>>::new();
            let mut versions = BTreeSet::new();
            for node in &self.nodes {
                let page = http::page(node.addresses.http, "/metrics").await;
                let page = page.unwrap_or_default();
                versions.insert(http::figure(&page, "rossby_map_version"));
                for (group, index) in http::by_group(&page, "rossby_raft_applied_index") {
                    applied.entry(group).or_default().insert(index);
                }
            }
            let is_known = applied.len() > usize::from(groups)
                && applied.values().all(|indexes| indexes.len() == 1)
                && versions.len() == 1;
            if is_known {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(did_not("the groups do not come to rest", &self.log_of(1)));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn ask_births(&self) -> Result<Vec<(PartitionId, GroupId)>, Failure> {
        let args = PlacementArgs {
            socket: SocketArgs {
                socket: None,
                data: self.data_of(1),
            },
            json: false,
        };
        let map = View::ask(&args).await?.map;
        let births = map.births(&RegionName::default()).into_iter();
        let owned = |partition| Some((partition, map.owner(partition)?));
        Ok(births.filter_map(owned).collect())
    }

    /// In which partitions boxes are born, in the service's order, and by which groups. Empty if there is one
    /// group.
    pub(super) fn births(&self) -> &[(PartitionId, GroupId)] {
        &self.births
    }

    async fn wait_ready(&self, node: &LocalNode) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while http::page(node.addresses.http, "/readyz").await.is_none() {
            if Instant::now() > deadline {
                let what = format!("node {} is not ready", node.id);
                return Err(did_not(&what, &self.log_of(node.id)));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Where everything is.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data_of(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    fn log_of(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("node-{id}.log"))
    }

    /// Whether all nodes still run.
    ///
    /// # Errors
    /// If one has ended, with its last words.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.processes.ended() {
            Some(id) => Err(did_not(
                &format!("node {id} ended during the run"),
                &self.log_of(id),
            )),
            None => Ok(()),
        }
    }

    /// Ends all nodes and removes the folder; or, if it stays, asks them to end, so that they can be
    /// started again from what they would leave any time.
    ///
    /// # Errors
    /// If a node does not end, or the folder can't be removed.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        match self.folder {
            Folder::Kept(_) => self.processes.end(Signal::TERM, PATIENCE).await,
            Folder::Temporary(folder) => {
                self.processes.end(Signal::KILL, DYING).await?;
                let path = folder.path().to_owned();
                folder.close().map_err(|error| {
                    Failure::new(
                        Exit::Failure,
                        format!("{} can't be removed: {error}", path.display()),
                    )
                })
            }
        }
    }

    /// Where the nodes' courier leaves codes.
    pub(super) fn codes(&self) -> PathBuf {
        self.folder.path().join("codes.tsv")
    }

    /// The nodes, for whoever drives them.
    pub(super) fn nodes(&self) -> Result<Vec<Node>, Failure> {
        let node = |node: &LocalNode| {
            let server = node.addresses.clients.to_string().parse();
            Ok(Node {
                server: server.map_err(|error| Failure::new(Exit::Failure, error))?,
                http: Some(node.addresses.http),
                pid: node.pid,
                data: Some(self.data_of(node.id)),
            })
        };
        self.nodes.iter().map(node).collect()
    }
}

/// A folder of its own, in this one or where the system has such; gone with what is returned.
pub(super) fn temporary_folder(parent: Option<&Path>, prefix: &str) -> Result<TempDir, Failure> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(&parent);
    made.map_err(|error| Failure::new(Exit::Config, format!("{}: {error}", parent.display())))
}

fn make_folder(parent: Option<&Path>, keep: bool) -> Result<Folder, Failure> {
    let made = temporary_folder(parent, "rossby-bench-")?;
    if !keep {
        return Ok(Folder::Temporary(made));
    }
    let path = made.keep();
    output::note(format!("Data and logs stay in {}", path.display()));
    Ok(Folder::Kept(path))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("{}: {error}", path.display()))
}

/// This program again, with no setting inherited.
fn rossby() -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::new(Exit::Failure, error))?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROSSBY_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs a command of this program to its end.
async fn command(args: &[&str]) -> Result<(), Failure> {
    let output = rossby()?
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.map_err(|error| Failure::new(Exit::Failure, error))?;
    if output.status.success() {
        return Ok(());
    }
    let words = args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(
        Exit::Failure,
        format!("rossby {words}: {said}"),
    ))
}

async fn wait_for_addresses(
    data: &Path,
    child: &mut Child,
    log: &Path,
) -> Result<Addresses, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(data.join("addresses.json")).unwrap_or_default();
        // It may be half written.
        if let Ok(addresses) = serde_json::from_str(&text) {
            return Ok(addresses);
        }
        let ended = child.try_wait().ok().flatten().is_some();
        if ended || Instant::now() > deadline {
            return Err(did_not("a node did not start", log));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A node did not do what it should: its own words are the reason.
fn did_not(what: &str, log: &Path) -> Failure {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    Failure::new(Exit::Failure, format!("{what}:\n{last}"))
}
