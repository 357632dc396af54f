//! A node: what it is made of, and how it comes to belong to a cluster.
//!
//! ```text
//!   begin ─┬─ identity on disk ───────────────────────────► enter ─► running
//!          ├─ no peer listener: found a cluster of one ───► enter ─► running
//!          └─ otherwise wait for `cluster init`, here or at the founder ─► enter ─► running
//! ```
//!
//! Every step leaves the disk in a state from which the next start goes on: secrets first, then
//! the founders' plan, then the identity, then the first members of the groups (`enter.rs`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex as Brief;
use rossby_api::courier::{Courier, CourierError, SettingsError};
use rossby_api::peer::{Connections, PeerServer};
use rossby_api::placement::{MapKeeper, Orders, Replicas};
use rossby_api::{ClusterSecrets, Metrics, Router};
use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_domain::placement::{NodeEntry, NodeState, PlacementRefusal, SurvivalGoal};
use rossby_proto::v1;
use rossby_raft::{InitializeError, Member, StartError};
use rossby_seams::clock::Clock;
use rossby_seams::disk::Disk;
use rossby_seams::random::{self, Random, RandomError};
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, DataDirectoryError};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::engine::{Engine, EngineError};
use super::enter::Place;
use super::entrance::Entrance;
use super::founding::{Founding, PlanError};
use super::joining::{JoinFailure, JoinPlan};
use super::mark;
use super::reconcile::StepCounters;
use super::removal::removed_from;
use super::space::Space;
use crate::config::Config;

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
    /// What tells the data directory from another one.
    #[error("{path}: {reason}")]
    Mark {
        /// Its file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What this node promised before it was started.
    #[error(
        "{path}: {reason}. The file can be removed once the node has been stopped for longer than any \
         raft.election_min_ms that it ever had"
    )]
    Promise {
        /// Its file.
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
    /// A group did not start.
    #[error("group {0} can't start: {1}")]
    Start(GroupId, #[source] StartError),
    /// A group could not be given its first members.
    #[error("group {0} can't be initialised: {1}")]
    Initialize(GroupId, #[source] InitializeError),
    /// The nodes make no cluster.
    #[error("these nodes make no cluster: {0}")]
    Founding(#[from] PlacementRefusal),
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
    /// It was not taken in by its token.
    #[error(transparent)]
    Join(#[from] JoinFailure),
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
    /// The steps of plans that it began.
    pub steps: StepCounters,
    /// The connections to peers, unless it has none.
    pub peers: Option<Arc<Connections>>,
    /// What it joins a cluster by, if it is to and belongs to none yet.
    pub join: Option<JoinPlan>,
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
    pub(super) membership: OnceLock<Membership>,
    /// Whether it knows what it belongs to, if anything.
    begun: AtomicBool,
    /// What tells its data directory from one that takes its place, once it waits for a cluster in it.
    pub(super) mark: OnceLock<String>,
    /// Who takes this node for a member, though it belongs to no cluster.
    pub(super) missed: OnceLock<Missed>,
    /// Whether the log says so.
    pub(super) told_missed: AtomicBool,
    /// What keeps it from being taken in by its token.
    pub(super) joining: Brief<Option<String>>,
    /// While it leads the placement group: the steps of the plan that are under way.
    pub(super) under_way: Brief<Vec<v1::StepUnderWay>>,
    /// The cluster that it was removed from, and its last replica there, if it had any.
    pub(super) removed: OnceLock<(ClusterId, Option<ReplicaId>)>,
    /// Which groups have their members changed here.
    pub(super) orders: Orders,
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
    /// The cluster.
    pub cluster: ClusterIdentity,
    /// Its storage and groups.
    pub engine: Engine,
    /// Its replicas.
    pub replicas: Arc<Replicas>,
    /// The newest cluster map that it knows.
    pub map: Arc<MapKeeper>,
    /// Reaches the groups of the cluster, by what this node knows of placement.
    pub(super) router: Arc<Router>,
    /// The plan that it founded the cluster by, if it did.
    pub(super) founding: Option<Founding>,
    pub(super) secrets: Arc<ClusterSecrets>,
    pub(super) courier: Arc<dyn Courier>,
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
            mark: OnceLock::new(),
            missed: OnceLock::new(),
            told_missed: AtomicBool::new(false),
            joining: Brief::default(),
            under_way: Brief::default(),
            removed: OnceLock::new(),
            orders: Orders::default(),
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
        if let Some(place) = Place::of(data)? {
            return self.go_on_in(data, place).await;
        }
        if let Some(plan) = &self.parts.join {
            return self.join_by(data, plan).await;
        }
        if self.parts.peers.is_some() {
            let _ = self.mark.set(mark::of(data, &*self.parts.random)?);
            info!(
                "this node belongs to no cluster yet: waiting for `rossby cluster init`, or `rossby cluster add-node`"
            );
            return Ok(());
        }
        let founding = match Founding::read(data)? {
            Some(founding) => founding,
            None => self.plan_alone(data)?,
        };
        let place = self.founder(founding)?;
        self.enter(data, place).await
    }

    /// Goes on in the cluster that the data directory names.
    async fn go_on_in(&self, data: &mut DataDirectory, place: Place) -> Result<(), NodeError> {
        let has_log = has_log(data)?;
        if let Some(first) = place.held.first() {
            if !has_log {
                return Err(NodeError::LogLost {
                    path: data.wal().display().to_string(),
                    replica: first.replica,
                });
            }
            return self.enter(data, place).await;
        }
        let cluster = place.cluster.id;
        // A directory that was made new holds nothing of the old replicas, and can be taken in again.
        if has_log {
            let kept = MapKeeper::open(Arc::clone(data.disk()), data.path()).newest();
            let founds = place.founding.as_ref();
            let named = kept.nodes().contains_key(&self.id())
                || (kept.nodes().is_empty()
                    && founds.is_some_and(|plan| plan.nodes.contains_key(&self.id())));
            match removed_from(data.identity()) {
                // One that joined by a token may never have had any.
                replica if !named && (replica.is_some() || !kept.nodes().is_empty()) => {
                    self.bear_removal(cluster, replica);
                    return Ok(());
                }
                _ if named => return self.enter(data, place).await,
                None if founds.is_none() && self.parts.peers.is_some() => {
                    // It joined by a token, and nothing that it has names another node.
                    warn!(
                        %cluster,
                        "the cluster map is lost, and this node holds no replica: it waits to be told by the \
                         member that plans, or for `rossby cluster add-node` on a member"
                    );
                    return self.enter(data, place).await;
                }
                _ => {}
            }
        }
        if self.parts.peers.is_none() {
            return Err(NodeError::Unplaced(cluster));
        }
        info!(%cluster, "this node holds no replica: waiting for `rossby cluster replace-node`");
        Ok(())
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
        let nodes = BTreeMap::from([(self.id(), self.own_entry())]);
        let name = cluster.name.clone();
        self.plan(data, name, partitions, None, nodes, BTreeMap::new())
    }

    /// Makes the secrets and the plan of a new cluster, durably and in this order.
    pub(super) fn plan(
        &self,
        data: &DataDirectory,
        name: String,
        partitions: PartitionCount,
        goal: Option<SurvivalGoal>,
        nodes: BTreeMap<NodeId, NodeEntry>,
        marks: BTreeMap<NodeId, String>,
    ) -> Result<Founding, NodeError> {
        let cluster = ClusterId::from_random(random::bytes(&*self.parts.random)?);
        let mut founding = Founding::new(cluster, name, partitions, goal, nodes)?;
        founding.marks = marks;
        if !self.parts.config.secrets.exists() {
            let secrets = ClusterSecrets::generate(&*self.parts.random)?;
            self.save_secrets(&secrets)?;
        }
        founding.write(data)?;
        info!(
            %cluster, nodes = founding.nodes.len(), groups = founding.groups.len(),
            "founding a cluster"
        );
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

    /// This node as the map shows it.
    #[must_use]
    pub fn own_entry(&self) -> NodeEntry {
        NodeEntry {
            region: self.parts.config.region.clone(),
            peer_address: self.parts.advertised.peers.clone(),
            client_address: self.parts.advertised.clients.clone(),
            state: NodeState::Active,
        }
    }

    /// This node's place by the plan of a cluster that it founds.
    pub(super) fn founder(&self, founding: Founding) -> Result<Place, NodeError> {
        Ok(Place {
            cluster: ClusterIdentity {
                id: founding.cluster,
                name: founding.name.clone(),
                partitions: founding.partitions,
                secrets_check: Some(self.secrets_check(&self.load_secrets()?)?),
            },
            held: founding.held_by(self.id()),
            founding: Some(founding),
            map: None,
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

fn listed(errors: &[SettingsError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("\n")
}
