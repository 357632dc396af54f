//! The service that is measured: one that runs already, or one of our own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rossby_bench::process;
use rossby_bench::service::Place;
use rossby_client::connection::ServerAddress;
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_domain::placement::PLACEMENT_GROUP;
use tokio::time::{Instant, sleep};

use super::args::TargetArgs;
use super::floor::{check_folder, is_in_memory};
use super::http;
use super::local::{LocalCluster, Shape};
use super::progress::Step;
use super::watch::checkpoints;
use crate::exit::{Exit, Failure};

/// No checkpoint takes as long on a machine that works.
const SETTLING: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A node, as far as it is known.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) server: ServerAddress,
    pub(super) http: Option<SocketAddr>,
    pub(super) pid: Option<u32>,
    /// Its data directory, if we gave it one.
    pub(super) data: Option<PathBuf>,
}

/// Who leads each group of boxes, and in which term.
pub(super) type Leaders = BTreeMap<u32, (ServerAddress, u64)>;

/// The service that is measured.
#[derive(Debug)]
pub(super) struct Target {
    /// The one that is asked first comes first.
    pub(super) nodes: Vec<Node>,
    pub(super) codes: PathBuf,
    /// Whether the data of our own nodes reaches no disk.
    pub(super) in_memory: bool,
    ca_pem: Option<String>,
    /// Who led which group at the beginning, as far as nodes told.
    leaders_at_first: Leaders,
    /// Stopped when it is dropped.
    own: Option<LocalCluster>,
}

impl Target {
    /// Finds the service, or starts it.
    ///
    /// # Errors
    /// If an argument makes no sense, or a node does not start.
    pub(super) async fn find(args: &TargetArgs) -> Result<Self, Failure> {
        Self::find_shaped(args, Shape::default()).await
    }

    /// The same; what is started has this shape.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn find_shaped(args: &TargetArgs, shape: Shape) -> Result<Self, Failure> {
        let mut target = match args.local {
            Some(count) => Self::start(args, count, shape).await?,
            None => Self::running(args)?,
        };
        target.put_leader_first().await;
        Ok(target)
    }

    async fn start(args: &TargetArgs, count: u64, shape: Shape) -> Result<Self, Failure> {
        let data = args.data.as_deref();
        let own = LocalCluster::start(count, shape, data, args.keep).await?;
        Ok(Self {
            nodes: own.nodes()?,
            codes: own.codes(),
            in_memory: is_in_memory(own.folder())?,
            ca_pem: None,
            leaders_at_first: Leaders::new(),
            own: Some(own),
        })
    }

    /// Finds what is wrong with the arguments before anything takes its time.
    ///
    /// # Errors
    /// If one makes no sense.
    pub(super) fn check_arguments(args: &TargetArgs) -> Result<(), Failure> {
        if args.local.is_none() {
            Self::running(args)?;
        } else if let Some(folder) = &args.data {
            check_folder(folder)?;
        }
        Ok(())
    }

    fn running(args: &TargetArgs) -> Result<Self, Failure> {
        let usage = |text: String| Failure::new(Exit::Usage, text);
        for (flag, given) in [("--http", args.http.len()), ("--pid", args.pid.len())] {
            if given != 0 && given != args.servers.len() {
                let servers = args.servers.len();
                return Err(usage(format!(
                    "{given} times {flag}, but {servers} times --server: give it once for each, in the same order"
                )));
            }
        }
        let codes = args.codes.clone();
        let codes = codes.ok_or_else(|| usage("--server needs --codes".to_owned()))?;
        // The file itself comes with the first code.
        if let Some(folder) = codes.parent()
            && folder != Path::new("")
        {
            check_folder(folder)?;
        }
        if let Some(pid) = args.pid.iter().find(|pid| process::usage(**pid).is_none()) {
            let text =
                format!("--pid {pid}: no process here has this number, or it is not to be seen");
            return Err(usage(text));
        }
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|error| Failure::new(Exit::Config, format!("{}: {error}", path.display())))
        };
        let ca_pem = args.ca.as_ref().map(read).transpose()?;
        let node = |(index, text): (usize, &String)| -> Result<Node, Failure> {
            let server = text.parse();
            Ok(Node {
                server: server.map_err(|error| usage(format!("--server {text}: {error}")))?,
                http: args.http.get(index).copied(),
                pid: args.pid.get(index).copied(),
                data: None,
            })
        };
        let nodes = args.servers.iter().enumerate().map(node);
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            codes,
            in_memory: false,
            ca_pem,
            leaders_at_first: Leaders::new(),
            own: None,
        })
    }

    /// A client that asks the leader is spared the way over another node.
    async fn put_leader_first(&mut self) {
        self.leaders_at_first = self.leaders().await;
        let first = self.leaders_at_first.values().next();
        let is_first = |node: &Node| first.is_some_and(|(leader, _)| *leader == node.server);
        let index = self.nodes.iter().position(is_first);
        self.nodes.rotate_left(index.unwrap_or_default());
    }

    /// Who leads, as far as nodes tell.
    async fn leaders(&self) -> Leaders {
        let mut leaders = Leaders::new();
        for node in &self.nodes {
            let Some(http) = node.http else {
                continue;
            };
            let page = http::page(http, "/metrics").await.unwrap_or_default();
            let terms = http::by_group(&page, "rossby_raft_term");
            for (group, leads) in http::by_group(&page, "rossby_raft_leader") {
                if group != PLACEMENT_GROUP.0 && leads == 1 {
                    let term = terms.get(&group).copied().unwrap_or_default();
                    leaders.insert(group, (node.server.clone(), term));
                }
            }
        }
        leaders
    }

    /// Who led each group of boxes at the beginning, if nodes told.
    pub(super) fn leader_at_first(&self, group: GroupId) -> Option<&ServerAddress> {
        self.leaders_at_first.get(&group.0).map(|(node, _)| node)
    }

    /// In which partitions boxes are born, by which groups; empty if there is one group, or it is not known.
    pub(super) fn births(&self) -> &[(PartitionId, GroupId)] {
        self.own.as_ref().map_or(&[], LocalCluster::births)
    }

    /// What has become of the nodes since the beginning: whether others lead, if they tell.
    ///
    /// # Errors
    /// If a node of our own has ended.
    pub(super) async fn check(&mut self) -> Result<Vec<String>, Failure> {
        if let Some(own) = &mut self.own {
            own.check()?;
        }
        if self.leaders_at_first.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.leaders().await;
        let changed = self.leaders_at_first.iter();
        let changed = changed.filter(|(group, led)| now.get(group) != Some(led));
        let note = |(group, (_, before)): (&u32, &(ServerAddress, u64))| match now.get(group) {
            Some((leader, term)) => format!(
                "the leader of group {group} changed meanwhile: {leader} leads now, in term {term} after {before}"
            ),
            None => format!("no node says any more that it leads group {group}"),
        };
        Ok(changed.map(note).collect())
    }

    /// Waits until no node writes a checkpoint, as far as they tell; but not for ever.
    pub(super) async fn settled(&self) {
        let deadline = Instant::now() + SETTLING;
        for http in self.nodes.iter().filter_map(|node| node.http) {
            while let Some((begun, ended)) = checkpoints(http).await
                && begun > ended
                && Instant::now() < deadline
            {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Waits until so many replicas rest on all nodes together; but not for ever. How many do.
    pub(super) async fn resting(&self, wanted: u64) -> u64 {
        let deadline = Instant::now() + SETTLING;
        loop {
            let mut resting = 0;
            for http in self.nodes.iter().filter_map(|node| node.http) {
                let page = http::page(http, "/metrics").await.unwrap_or_default();
                resting += http::figure(&page, "rossby_raft_resting").unwrap_or_default();
            }
            if resting >= wanted || Instant::now() > deadline {
                return resting;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the nodes for no figures any more: ten times a second would cost them more than groups at rest do.
    pub(super) fn leave_alone(&mut self) {
        self.leaders_at_first.clear();
        for node in &mut self.nodes {
            node.http = None;
        }
    }

    /// Stops the nodes, if they are our own.
    ///
    /// # Errors
    /// If they don't end, or their folder can't be removed.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        match self.own {
            Some(own) => {
                let _step = Step::open("Stopping nodes");
                own.stop().await
            }
            None => Ok(()),
        }
    }

    /// The memory of each node now, as far as it can be seen.
    pub(super) fn resident_bytes(&self) -> Vec<Option<u64>> {
        let resident = |node: &Node| Some(process::usage(node.pid?)?.rss_bytes);
        self.nodes.iter().map(resident).collect()
    }

    /// Where clients find it.
    pub(super) fn place(&self) -> Place {
        Place {
            servers: self.nodes.iter().map(|node| node.server.clone()).collect(),
            ca_pem: self.ca_pem.clone(),
        }
    }
}
