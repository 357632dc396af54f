//! The way to the service: a few connections, each as a device would have one.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_client::connection::{
    Connection, Exchange, GrpcWire, Patience, ServerAddress, Wire, WireError, WireReply, WireStream,
};
use rossby_seams::clock::SystemClock;
use rossby_seams::random::OsRandom;

use crate::drive::code_of_wire;

/// Where the service is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its nodes; the clients ask the first one, until they know better.
    pub servers: Vec<ServerAddress>,
    /// The certificate authority that they are trusted by, PEM.
    pub ca_pem: Option<String>,
}

/// Connections to a service, for many clients together.
#[derive(Debug)]
pub struct Service {
    connections: Vec<Arc<Connection>>,
    tries: Arc<FailedTries>,
}

impl Service {
    /// So many connections, to the nodes that lead the clients' boxes, as devices find them; or, with
    /// `every_node`, so many to each node, whoever leads. Where one fails, the next node is asked.
    #[must_use]
    pub fn new(place: &Place, connections: usize, every_node: bool) -> Self {
        let tries = Arc::new(FailedTries::default());
        let nodes = if every_node { place.servers.len() } else { 1 };
        let all = (0..connections.max(1)).flat_map(|_| 0..nodes);
        let connections = all.map(|first| {
            let mut servers = place.servers.clone();
            servers.rotate_left(first);
            // A wire has one connection to each server.
            let wire = Watched {
                wire: GrpcWire::new(place.ca_pem.clone()),
                tries: Arc::clone(&tries),
            };
            let connection = Connection::new(
                Arc::new(wire),
                servers,
                Arc::new(SystemClock),
                Arc::new(OsRandom),
                Patience::default(),
            );
            Arc::new(if every_node {
                connection
            } else {
                connection.learning(None)
            })
        });
        Self {
            connections: connections.collect(),
            tries,
        }
    }

    /// The connection of the client with this number.
    #[must_use]
    pub fn connection(&self, client: usize) -> Arc<Connection> {
        let index = client % self.connections.len().max(1);
        #[allow(clippy::indexing_slicing)]
        // There is at least one, and the index is below their number.
        Arc::clone(&self.connections[index])
    }

    /// The tries that failed until now and were, or may have been, made good by another; by code.
    #[must_use]
    pub fn failed_tries(&self) -> BTreeMap<String, u64> {
        self.tries.0.lock().clone()
    }
}

/// Tries that failed, by code.
#[derive(Debug, Default)]
struct FailedTries(Mutex<BTreeMap<String, u64>>);

/// The real wire, with a look at what fails on it: the SDK tries again by itself, and what it hides
/// from a person is what somebody who measures wants to know.
struct Watched {
    wire: GrpcWire,
    tries: Arc<FailedTries>,
}

impl Watched {
    fn note(&self, error: &WireError) {
        let code = code_of_wire(error).to_owned();
        *self.tries.0.lock().entry(code).or_default() += 1;
    }
}

#[async_trait]
impl Wire for Watched {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let result = self.wire.exchange(exchange).await;
        result.inspect_err(|error| self.note(error))
    }

    async fn open(&self, exchange: Exchange<'_>) -> Result<Box<dyn WireStream>, WireError> {
        let result = self.wire.open(exchange).await;
        result.inspect_err(|error| self.note(error))
    }
}
