//! The service that is measured: one that runs already, or one of our own.

use std::net::SocketAddr;
use std::path::PathBuf;

use rossby_bench::process::usage;
use rossby_bench::service::Place;
use rossby_client::connection::ServerAddress;

use super::args::TargetArgs;
use super::floor::is_in_memory;
use super::http;
use super::local::LocalCluster;
use crate::exit::{Exit, Failure};

/// A node, as far as it is known.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) server: ServerAddress,
    pub(super) http: Option<SocketAddr>,
    pub(super) pid: Option<u32>,
    /// Its data directory, if we gave it one.
    pub(super) data: Option<PathBuf>,
}

/// The service that is measured.
#[derive(Debug)]
pub(super) struct Target {
    /// The one that is asked first comes first.
    pub(super) nodes: Vec<Node>,
    pub(super) codes: PathBuf,
    /// Whether the data of our own nodes reaches no disk.
    pub(super) in_memory: bool,
    ca_pem: Option<String>,
    /// Stopped when it is dropped.
    pub(super) _own: Option<LocalCluster>,
}

impl Target {
    /// Finds the service, or starts it.
    ///
    /// # Errors
    /// If an argument makes no sense, or a node does not start.
    pub(super) async fn find(args: &TargetArgs) -> Result<Self, Failure> {
        let mut target = match args.local {
            Some(count) => Self::start(args, count).await?,
            None => Self::running(args)?,
        };
        target.put_leader_first().await;
        Ok(target)
    }

    async fn start(args: &TargetArgs, count: u64) -> Result<Self, Failure> {
        let own = LocalCluster::start(count, args.data.as_deref(), args.keep).await?;
        Ok(Self {
            nodes: own.nodes()?,
            codes: own.codes(),
            in_memory: is_in_memory(own.folder())?,
            ca_pem: None,
            _own: Some(own),
        })
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
            _own: None,
        })
    }

    /// A client that asks the leader is spared the way over another node.
    async fn put_leader_first(&mut self) {
        for index in 0..self.nodes.len() {
            let Some(http) = self.nodes.get(index).and_then(|node| node.http) else {
                continue;
            };
            let page = http::page(http, "/metrics").await;
            let leads = page.and_then(|page| http::figure(&page, "rossby_raft_leader"));
            if leads == Some(1) {
                self.nodes.rotate_left(index);
                return;
            }
        }
    }

    /// The memory of each node now, as far as it can be seen.
    pub(super) fn resident_bytes(&self) -> Vec<Option<u64>> {
        let resident = |node: &Node| Some(usage(node.pid?)?.rss_bytes);
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
