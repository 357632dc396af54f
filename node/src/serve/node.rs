//! A node: what it is made of, and how it comes to belong to a cluster.
//!
//! ```text
//!   begin ─┬─ identity on disk ───────────────────────────► enter ─► running
//!          ├─ no peer listener: found a cluster of one ───► enter ─► running
//!          └─ otherwise wait for `cluster init`, here or at the founder ─► enter ─► running
//! ```
//!
//! Every step leaves the disk in a state from which the next start goes on: secrets first, then
//! the founder's plan, then the identity, then the first membership of the group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rossby_api::courier::{
    ConsoleCourier, Courier, CourierError, OutboxFileCourier, SettingsError,
};
use rossby_api::peer::{Connections, NoPeers, PeerDoor, PeerExecutors, PeerServer, PeerTransport};
use rossby_api::router::{Alone, Peers};
use rossby_api::{
    ClusterSecrets, MailboxConfig, MailboxService, Metrics, Relay, Router, SoleGroup, Workers,
};
use rossby_domain::ids::{ClusterId, NodeId, PartitionCount, ReplicaId};
use rossby_raft::{Group, InitializeError, Member, StartError};
use rossby_seams::clock::Clock;
use rossby_seams::disk::Disk;
use rossby_seams::random::{self, Random, RandomError};
use rossby_seams::transport::{LinkAcceptor, SharedTransport};
use rossby_storage::datadir::{
    ClusterIdentity, DataDirectory, DataDirectoryError, HeldReplica, Identity,
};
use rossby_storage::wal::WalError;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::engine::{Engine, EngineError, EngineParts};
use super::entrance::Entrance;
use super::founding::{FIRST_GROUP, Founding, Place, PlanError};
use super::removal::removed_from;
use super::space::Space;
use crate::config::{Config, CourierKind};

/// Why a node can't go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataDirectoryError),
    /// The founder's plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The cluster's secrets.
    #[error("{path}: {reason}")]
    Secrets {
        /// Their file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log is gone, and with it what the replica once promised.
    #[error("the log of replica {replica} is not in {path} any more")]
    LogLost {
        /// Where it was.
        path: String,
        /// The replica.
        replica: ReplicaId,
    },
    /// The log could not be looked for.
    #[error("could not look into {path}: {source}")]
    Look {
        /// Where.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The storage.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The group did not start.
    #[error("group {FIRST_GROUP} can't start: {0}")]
    Start(#[from] StartError),
    /// The group could not be given its first members.
    #[error("group {FIRST_GROUP} can't be initialised: {0}")]
    Initialize(#[from] InitializeError),
    /// It is of a cluster but holds no replica, and nobody can give it one.
    #[error(
        "this node belongs to cluster {0} but holds no replica, since it was rebuilt: start it with \
         --peer-listen and its certificates, as before, and have it taken in with \
         `rossby cluster replace-node`"
    )]
    Unplaced(ClusterId),
    /// The courier can't work.
    #[error("the courier: {0}")]
    Courier(#[from] CourierError),
    /// The courier's settings are wrong.
    #[error("{}", listed(.0))]
    CourierSettings(Vec<SettingsError>),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Where this node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// By clients, `host:port`.
    pub clients: String,
    /// By peers, `host:port`; empty without a peer listener.
    pub peers: String,
}

/// What a node is made of.
pub struct Parts {
    /// Its settings.
    pub config: Config,
    /// The disk that its data directory is on.
    pub disk: Arc<dyn Disk>,
    /// That disk's space.
    pub space: Space,
    /// Where it is reached.
    pub advertised: Advertised,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The source of keys and codes.
    pub random: Arc<dyn Random>,
    /// The figures of the doors.
    pub metrics: Arc<Metrics>,
    /// The connections to peers, unless it has none.
    pub peers: Option<Arc<Connections>>,
}

/// A node.
pub struct Node {
    pub(super) parts: Parts,
    /// Its service for peers.
    pub peer_server: PeerServer,
    /// Its door for clients.
    pub entrance: Arc<Entrance>,
    /// Its own work in the background.
    pub tasks: TaskTracker,
    /// Ends that work.
    pub stop_tasks: CancellationToken,
    /// Whether gRPC's health service says that this node serves.
    pub told_ready: AtomicBool,
    membership: OnceLock<Membership>,
    /// Whether it knows what it belongs to, if anything.
    begun: AtomicBool,
    /// Who takes this node for a member, though it belongs to no cluster.
    pub(super) missed: OnceLock<Missed>,
    /// Whether the log says so.
    pub(super) told_missed: AtomicBool,
    /// The cluster that it was removed from, and its last replica there.
    pub(super) removed: OnceLock<(ClusterId, ReplicaId)>,
    /// Its data directory. Locked while the node enters a cluster, so that it enters one only.
    pub(super) data: Mutex<DataDirectory>,
}

/// A cluster that takes this node for a member, though it belongs to none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missed {
    pub(super) by: NodeId,
    pub(super) cluster: ClusterId,
    /// When it was first seen: a node that is being added is called a moment before it is invited.
    pub(super) since: Instant,
}

/// What runs once the node belongs to a cluster.
pub struct Membership {
    /// The node's place in the cluster.
    pub place: Place,
    /// Its storage and groups.
    pub engine: Engine,
    /// Its replica.
    pub group: Arc<Group>,
}

impl Node {
    /// A node that does nothing yet.
    #[must_use]
    pub fn new(parts: Parts, data: DataDirectory) -> Arc<Self> {
        Arc::new(Self {
            parts,
            peer_server: PeerServer::new(),
            entrance: Arc::new(Entrance::default()),
            tasks: TaskTracker::new(),
            stop_tasks: CancellationToken::new(),
            told_ready: AtomicBool::new(false),
            membership: OnceLock::new(),
            begun: AtomicBool::new(false),
            missed: OnceLock::new(),
            told_missed: AtomicBool::new(false),
            removed: OnceLock::new(),
            data: Mutex::new(data),
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.parts.config.node)
    }

    /// What it runs as a member of a cluster, once it is one.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.get()
    }

    /// Goes on where the last run ended: enters the cluster it belongs to, or founds one of its own
    /// if it can have no peers, or waits to be told.
    ///
    /// # Errors
    /// [`NodeError`] if what is on the disk can't be used.
    pub async fn begin(&self) -> Result<(), NodeError> {
        let mut data = self.data.lock().await;
        let begun = self.go_on(&mut data).await;
        if begun.is_ok() {
            self.begun.store(true, Ordering::Release);
        }
        begun
    }

    async fn go_on(&self, data: &mut DataDirectory) -> Result<(), NodeError> {
        data.expect(self.id(), None)?;
        if let Some(place) = Place::of(data.identity()) {
            let replica = place.held.replica;
            if !has_log(data)? {
                return Err(NodeError::LogLost {
                    path: data.wal().display().to_string(),
                    replica,
                });
            }
            return match self.enter(data, place).await {
                Err(NodeError::Start(StartError::Log(WalError::ReplicaRemoved { .. }))) => {
                    self.bury(data, replica)
                }
                entered => entered,
            };
        }
        // A directory that was made new holds nothing of the old replica, and can be taken in again.
        if let Some((cluster, replica)) = removed_from(data.identity())
            && has_log(data)?
        {
            self.bear_removal(cluster, replica);
            return Ok(());
        }
        let cluster = data
            .identity()
            .and_then(|identity| identity.cluster.as_ref());
        if let Some(cluster) = cluster {
            if self.parts.peers.is_none() {
                return Err(NodeError::Unplaced(cluster.id));
            }
            info!(cluster = %cluster.id, "this node holds no replica: waiting for `rossby cluster replace-node`");
            return Ok(());
        }
        if self.parts.peers.is_some() {
            info!(
                "this node belongs to no cluster yet: waiting for `rossby cluster init`, or `rossby cluster add-node`"
            );
            return Ok(());
        }
        let founding = match Founding::read(data)? {
            Some(founding) => founding,
            None => self.plan_alone(data)?,
        };
        let place = self.founder(&founding)?;
        self.enter(data, place).await
    }

    /// Whether it knows what it belongs to, if anything.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether it belongs to no cluster, and waits for one.
    pub(super) fn waits(&self) -> bool {
        self.has_begun() && self.membership().is_none() && self.removed.get().is_none()
    }

    fn plan_alone(&self, data: &DataDirectory) -> Result<Founding, NodeError> {
        let cluster = &self.parts.config.cluster;
        // The settings were checked before anything started.
        let partitions = PartitionCount::new(cluster.partitions).unwrap_or_default();
        self.plan(
            data,
            cluster.name.clone(),
            partitions,
            vec![self.own_member()],
        )
    }

    /// Makes the secrets and the plan of a new cluster, durably and in this order.
    pub(super) fn plan(
        &self,
        data: &DataDirectory,
        name: String,
        partitions: PartitionCount,
        members: Vec<Member>,
    ) -> Result<Founding, NodeError> {
        if !self.parts.config.secrets.exists() {
            let secrets = ClusterSecrets::generate(&*self.parts.random)?;
            self.save_secrets(&secrets)?;
        }
        let cluster = ClusterId::from_random(random::bytes(&*self.parts.random)?);
        let founding = Founding::new(cluster, name, partitions, members);
        founding.write(data)?;
        info!(%cluster, nodes = founding.members.len(), "founding a cluster");
        Ok(founding)
    }

    /// This node as a member of a group.
    #[must_use]
    pub fn own_member(&self) -> Member {
        Member {
            node: self.id(),
            peer_address: self.parts.advertised.peers.clone(),
            client_address: self.parts.advertised.clients.clone(),
        }
    }

    /// The founder's place by its own plan.
    pub(super) fn founder(&self, founding: &Founding) -> Result<Place, NodeError> {
        Ok(Place {
            cluster: ClusterIdentity {
                id: founding.cluster,
                name: founding.name.clone(),
                partitions: founding.partitions,
                secrets_check: Some(self.secrets_check(&self.load_secrets()?)?),
            },
            held: HeldReplica {
                group: FIRST_GROUP,
                // A plan without its founder is never written; the group would refuse replica 0.
                replica: founding.replica_of(self.id()).unwrap_or_default(),
                initialise: true,
            },
        })
    }

    /// Enters a cluster: writes the identity down, starts the group and opens the doors. The caller
    /// holds `entering`. Does nothing if the node is in it.
    pub(super) async fn enter(
        &self,
        data: &mut DataDirectory,
        place: Place,
    ) -> Result<(), NodeError> {
        if self.membership.get().is_some() {
            return Ok(());
        }
        let secrets = Arc::new(self.secrets_of(&place.cluster)?);
        let courier = self.courier()?;
        let mut identity = data
            .identity()
            .cloned()
            .unwrap_or_else(|| Identity::new(self.id()));
        identity.cluster = Some(place.cluster.clone());
        identity.replicas.insert(place.held);
        // The log comes first: a directory that names a replica but has no log has lost it.
        let engine = self.open_engine(data)?;
        let started = match data.save(identity) {
            Ok(()) => self.start(data, &place, &engine).await,
            Err(error) => Err(error.into()),
        };
        let group = match started {
            Ok(group) => group,
            Err(error) => {
                // The log must have one writer: the next try opens it again.
                engine.close().await;
                return Err(error);
            }
        };
        let bringer = Arc::clone(&courier);
        let router = self.router(&place.cluster, &group);
        let workers = Workers {
            group: Arc::clone(&group),
            router: Arc::clone(&router),
            partitions: place.cluster.partitions,
            limits: self.parts.config.limits,
            secrets: Arc::clone(&secrets),
            courier,
            random: Arc::clone(&self.parts.random),
            metrics: Arc::clone(&self.parts.metrics),
        };
        workers.spawn(&self.tasks, &self.stop_tasks);
        self.open_doors(&place.cluster, &engine, router, secrets, bringer);
        let cluster = place.cluster.id;
        info!(%cluster, group = %group.id(), replica = %group.replica(), "this node is a member");
        // Set last: whoever sees it can use it. The lock on `data` makes this the only call.
        let _ = self.membership.set(Membership {
            place,
            engine,
            group,
        });
        Ok(())
    }

    async fn start(
        &self,
        data: &DataDirectory,
        place: &Place,
        engine: &Engine,
    ) -> Result<Arc<Group>, NodeError> {
        let HeldReplica {
            group,
            replica,
            initialise,
        } = place.held;
        let group = engine.groups.start(group, replica).await?;
        if initialise {
            initialize(data, &group).await?;
        }
        Ok(group)
    }

    fn open_engine(&self, data: &DataDirectory) -> Result<Engine, NodeError> {
        let transport: SharedTransport = match &self.parts.peers {
            Some(peers) => Arc::new(PeerTransport::new(Arc::clone(peers))),
            None => Arc::new(NoPeers),
        };
        let parts = EngineParts {
            node: self.id(),
            clock: Arc::clone(&self.parts.clock),
            transport,
        };
        // Blocks this worker thread; the runtime moves its other tasks to another one.
        let open = || Engine::open(&self.parts.config, data, parts);
        Ok(tokio::task::block_in_place(open)?)
    }

    /// One group owns every partition.
    fn router(&self, cluster: &ClusterIdentity, group: &Arc<Group>) -> Arc<Router> {
        let directory = SoleGroup::new(Arc::clone(group), cluster.partitions);
        let peers: Arc<dyn Peers> = match &self.parts.peers {
            Some(peers) => Arc::new(PeerExecutors::new(Arc::clone(peers))),
            None => Arc::new(Alone),
        };
        Router::new(self.id(), Arc::new(directory), peers)
    }

    fn open_doors(
        &self,
        cluster: &ClusterIdentity,
        engine: &Engine,
        router: Arc<Router>,
        secrets: Arc<ClusterSecrets>,
        courier: Arc<dyn Courier>,
    ) {
        let mailbox = Arc::new(MailboxService::new(MailboxConfig {
            router,
            secrets,
            partitions: cluster.partitions,
            cluster_name: cluster.name.clone(),
            random: Arc::clone(&self.parts.random),
            limits: self.parts.config.doors,
            stored_limits: self.parts.config.limits,
            courier,
            metrics: Arc::clone(&self.parts.metrics),
        }));
        if let Some(peers) = &self.parts.peers {
            peers.join(cluster.id);
        }
        let links: Arc<dyn LinkAcceptor> = engine.groups.clone();
        let door: Arc<dyn PeerDoor> = mailbox.clone();
        self.peer_server.open(cluster.id, links, door);
        self.entrance
            .open(Relay::new(mailbox, self.parts.peers.clone()));
    }

    fn courier(&self) -> Result<Arc<dyn Courier>, NodeError> {
        Ok(match self.parts.config.courier.kind {
            CourierKind::Console => Arc::new(ConsoleCourier::new()),
            CourierKind::Gateways => {
                let gateways = self.parts.config.gateways();
                Arc::new(gateways.map_err(NodeError::CourierSettings)?)
            }
            CourierKind::File => {
                let path = self.parts.config.courier_file();
                Arc::new(OutboxFileCourier::new(
                    &path,
                    Arc::clone(&self.parts.clock),
                )?)
            }
        })
    }
}

/// Whether there is any log in a data directory.
fn has_log(data: &DataDirectory) -> Result<bool, NodeError> {
    match data.disk().list(&data.wal()) {
        Ok(files) => Ok(!files.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(NodeError::Look {
            path: data.wal().display().to_string(),
            source,
        }),
    }
}

/// Gives a new group its first members, if that was not done before.
async fn initialize(data: &DataDirectory, group: &Group) -> Result<(), NodeError> {
    // Read first: whether damage to it is noticed must not hang on how soon the group tells its members.
    let founding = Founding::read(data)?.ok_or_else(|| PlanError::missing(data))?;
    if !group.status().members.is_empty() {
        return Ok(());
    }
    match group.initialize(founding.members).await {
        Ok(()) | Err(InitializeError::AlreadyInitialized) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn listed(errors: &[SettingsError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("\n")
}
