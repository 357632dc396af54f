//! The sockets of a node: bound first, so that all addresses are known before anything starts,
//! then served until they are told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rossby_api::admin::AdminListener;
use rossby_api::http::{HttpListener, Pages};
use rossby_api::listener::tls::PeerTls;
use rossby_api::listener::{ListenError, Listener, Shed};
use rossby_api::{Door, MailboxServer};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tracing::{error, warn};

use super::node::{Advertised, Node};
use super::ready;
use crate::config::Config;
use crate::exit::{Exit, Failure};

/// The addresses in use, for people and scripts.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// The process that uses them.
    pub pid: u32,
    /// The node.
    pub node: u64,
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where peers connect, if they can.
    pub peers: Option<SocketAddr>,
    /// Where metrics and health are.
    pub http: SocketAddr,
    /// Where orders are taken.
    pub admin: String,
}

/// Bound sockets that serve nobody yet.
pub struct Doors {
    clients: Listener,
    peers: Option<Listener>,
    http: HttpListener,
    admin: AdminListener,
    addresses: Addresses,
}

impl Doors {
    /// Binds all sockets.
    ///
    /// # Errors
    /// If an address can't be had, or a certificate can't be used.
    pub async fn bind(config: &Config, peer_tls: Option<&PeerTls>) -> Result<Self, Failure> {
        let bad = |error: &dyn std::fmt::Display| Failure::new(Exit::Config, error);
        let client_tls = config.client_tls().map_err(|error| bad(&error))?;
        let clients = Listener::clients(config.clients.listen, client_tls)
            .await
            .map_err(taken)?;
        let peers = match (config.peers.listen, peer_tls) {
            (Some(address), Some(tls)) => Some(
                Listener::peers(address, Arc::clone(&tls.server))
                    .await
                    .map_err(taken)?,
            ),
            _ => None,
        };
        let http = config.http.listen;
        let http = HttpListener::bind(http).await.map_err(|source| {
            taken(ListenError::Bind {
                address: http,
                source,
            })
        })?;
        let socket = config.admin_socket();
        let admin = AdminListener::bind(&socket)
            .map_err(|error| bad(&format!("admin.socket {}: {error}", socket.display())))?;
        let addresses = Addresses {
            pid: std::process::id(),
            node: config.node,
            clients: clients.address(),
            peers: peers.as_ref().map(Listener::address),
            http: http.address(),
            admin: std::path::absolute(&socket)
                .unwrap_or(socket)
                .display()
                .to_string(),
        };
        Ok(Self {
            clients,
            peers,
            http,
            admin,
            addresses,
        })
    }

    /// The addresses in use.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where others reach this node.
    #[must_use]
    pub fn advertised(&self, config: &Config) -> Advertised {
        let or = |set: &Option<crate::config::HostPort>, bound: Option<SocketAddr>| {
            let set = set.as_ref().map(ToString::to_string);
            set.or_else(|| bound.map(|bound| bound.to_string()))
                .unwrap_or_default()
        };
        Advertised {
            clients: or(&config.clients.advertise, Some(self.addresses.clients)),
            peers: or(&config.peers.advertise, self.addresses.peers),
        }
    }

    /// Opens them all.
    ///
    /// # Errors
    /// If the reflection service can't be made of the compiled descriptors.
    pub async fn serve(self, node: &Arc<Node>, registry: Registry) -> Result<Serving, Failure> {
        let stop = Stops::default();
        let (health, health_service) = tonic_health::server::health_reporter();
        // Before anybody can ask: it begins by calling everything healthy that it knows.
        ready::report(node, &health, false).await;
        let reflection = rossby_api::reflection::service()
            .map_err(|error| Failure::new(Exit::Failure, error))?;
        let config = &node.parts.config;
        let door: Arc<dyn Door> = node.entrance.clone();
        let calls = usize::try_from(config.clients.max_calls).unwrap_or(usize::MAX);
        let mailbox = Shed::new(MailboxServer::new(door, config.doors), calls);
        let routes = Routes::new(mailbox)
            .add_service(health_service)
            .add_service(reflection);
        let max = usize::try_from(config.clients.max_connections).unwrap_or(usize::MAX);
        let mut servers = vec![(
            "client listener",
            spawn(
                "client listener",
                self.clients
                    .serve_clients(routes, max, stop.clients.clone()),
            ),
        )];
        if let Some(peers) = self.peers {
            node.peer_server.set_joining(node.clone());
            let routes = Routes::new(node.peer_server.clone().into_service());
            let serve = peers.serve_peers(routes, stop.others.clone());
            servers.push(("peer listener", spawn("peer listener", serve)));
        }
        let pages = Pages::new(Arc::new(registry), node.clone());
        let serve = self.http.serve(pages, stop.others.clone());
        servers.push(("http listener", spawn("http listener", serve)));
        let serve = self.admin.serve(node.clone(), stop.others.clone());
        servers.push(("admin socket", spawn("admin socket", serve)));
        Ok(Serving {
            servers,
            stop,
            health,
        })
    }
}

fn taken(error: ListenError) -> Failure {
    let in_use = matches!(&error, ListenError::Bind { source, .. }
        if source.kind() == std::io::ErrorKind::AddrInUse);
    let failure = Failure::new(Exit::Config, error);
    if in_use {
        return failure.help("another program listens there, perhaps another node; choose another");
    }
    failure
}

/// When the sockets close: clients first, so that calls in flight can still reach the peers.
#[derive(Default)]
struct Stops {
    clients: CancellationToken,
    others: CancellationToken,
}

/// Open sockets.
pub struct Serving {
    servers: Vec<(&'static str, JoinHandle<()>)>,
    stop: Stops,
    /// Tells gRPC clients whether the node is ready.
    pub health: HealthReporter,
}

impl Serving {
    /// Whether all servers run. They end only when told to, or when they fail as a whole.
    #[must_use]
    pub fn failed(&self) -> Option<&'static str> {
        self.servers
            .iter()
            .find(|(_, task)| task.is_finished())
            .map(|(name, _)| *name)
    }

    /// Takes no more calls from clients and finishes those in flight, for so long at most.
    pub async fn stop_clients(&mut self, patience: Duration) {
        self.stop.clients.cancel();
        if let Some((name, task)) = self.servers.first_mut() {
            end(name, task, patience).await;
        }
    }

    /// Closes all other sockets, waiting for so long at most for each.
    pub async fn stop_others(&mut self, patience: Duration) {
        self.stop.others.cancel();
        for (name, task) in self.servers.iter_mut().skip(1) {
            end(name, task, patience).await;
        }
    }
}

async fn end(name: &str, task: &mut JoinHandle<()>, patience: Duration) {
    if tokio::time::timeout(patience, &mut *task).await.is_err() {
        warn!(listener = name, "closing it with connections still open");
        task.abort();
    }
}

fn spawn<E: std::fmt::Display + Send>(
    name: &'static str,
    server: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = server.await {
            error!(listener = name, %error, "the server failed");
        }
    })
}
