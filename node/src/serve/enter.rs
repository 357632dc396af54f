//! Entering a cluster, and holding one more replica in it.
//!
//! ```text
//!   Place ─► secrets ─► log ─► identity ─► replicas, each with its workers ─► doors ─► map
//! ```
//!
//! The identity names every replica before it starts. So whatever a crash leaves behind, the next start
//! goes on with the same replicas, and nothing that was once promised is promised otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;

use rossby_api::courier::{ConsoleCourier, Courier, OutboxFileCourier};
use rossby_api::peer::{NoPeers, PeerDoor, PeerExecutors, PeerTransport};
use rossby_api::placement::{MapKeeper, NodeDirectory, Replicas, first_members};
use rossby_api::router::{Alone, Peers};
use rossby_api::{Directory, MailboxConfig, MailboxService, Relay, Router, Workers};
use rossby_domain::placement::{ClusterMap, PLACEMENT_GROUP};
use rossby_raft::{Blocking, Group, InitializeError, StartError};
use rossby_seams::transport::{LinkAcceptor, SharedTransport};
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, HeldReplica, Identity};
use rossby_storage::wal::WalError;
use tracing::info;

use super::engine::{Engine, EngineParts};
use super::founding::{Founding, PlanError};
use super::node::{Membership, Node, NodeError};
use super::promise;
use crate::config::CourierKind;

/// A node's place in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The cluster.
    pub cluster: ClusterIdentity,
    /// The replicas that the node holds.
    pub held: BTreeSet<HeldReplica>,
    /// The plan that it founds the cluster by, if it does.
    pub founding: Option<Founding>,
    /// A map that it was given.
    pub map: Option<Arc<ClusterMap>>,
}

impl Place {
    /// The place that a data directory records, if it does.
    ///
    /// # Errors
    /// [`PlanError`] if the plan is needed and can't be read.
    pub fn of(data: &DataDirectory) -> Result<Option<Self>, PlanError> {
        let Some(identity) = data.identity() else {
            return Ok(None);
        };
        let Some(cluster) = identity.cluster.clone() else {
            return Ok(None);
        };
        Ok(Some(Self {
            cluster,
            held: identity.replicas.clone(),
            founding: Founding::read(data)?,
            map: None,
        }))
    }
}

impl Node {
    /// Enters a cluster: writes the identity down, starts the replicas and opens the doors. In a cluster that
    /// it has entered, the node holds what is new of the replicas. The caller holds the lock on `data`.
    pub(super) async fn enter(
        &self,
        data: &mut DataDirectory,
        place: Place,
    ) -> Result<(), NodeError> {
        if let Some(membership) = self.membership() {
            offer_all(&membership.map, &place);
            return self.hold(data, membership, &place.held).await;
        }
        let secrets = Arc::new(self.secrets_of(&place.cluster)?);
        let courier = self.courier()?;
        promise::begin(data, self.parts.config.raft.timing().election_min).await?;
        let keeper = MapKeeper::open(Arc::clone(data.disk()), data.path());
        offer_all(&keeper, &place);
        // The log comes first: a directory that names a replica but has no log has lost it.
        let engine = self.open_engine(data)?;
        let (replicas, map) = (Arc::<Replicas>::default(), Arc::new(keeper));
        let directory: Arc<dyn Directory> = Arc::new(NodeDirectory {
            node: self.id(),
            region: self.parts.config.region.clone(),
            map: Arc::clone(&map),
            replicas: Arc::clone(&replicas),
        });
        let peers: Arc<dyn Peers> = match &self.parts.peers {
            Some(peers) => Arc::new(PeerExecutors::new(Arc::clone(peers))),
            None => Arc::new(Alone),
        };
        let membership = Membership {
            cluster: place.cluster,
            engine,
            replicas,
            map,
            router: Router::new(self.id(), directory, peers),
            founding: place.founding,
            secrets,
            courier,
        };
        // Before the first replica, which opens links at once: one that does not name the cluster is refused.
        if let Some(peers) = &self.parts.peers {
            peers.join(membership.cluster.id);
        }
        if let Err(error) = self.hold(data, &membership, &place.held).await {
            for group in membership.replicas.all() {
                membership.replicas.remove(group.id());
            }
            // The log must have one writer: the next try opens it again.
            membership.engine.close().await;
            return Err(error);
        }
        self.open_doors(&membership);
        let keep = Arc::clone(&membership.map).keep(Blocking::Threads, self.stop_tasks.clone());
        self.tasks.spawn(keep);
        let groups = Arc::clone(&membership.engine.groups);
        let map = Arc::clone(&membership.map);
        let introduce = map.introduce(self.id(), groups, self.stop_tasks.clone());
        self.tasks.spawn(introduce);
        info!(
            cluster = %membership.cluster.id, replicas = membership.replicas.all().len(),
            "this node is a member"
        );
        // Set last: whoever sees it can use it. The lock on `data` makes this the only call.
        let _ = self.membership.set(membership);
        Ok(())
    }

    /// Holds these replicas beside those that it holds: in the identity first, then running.
    async fn hold(
        &self,
        data: &mut DataDirectory,
        membership: &Membership,
        held: &BTreeSet<HeldReplica>,
    ) -> Result<(), NodeError> {
        let mut identity = data
            .identity()
            .cloned()
            .unwrap_or_else(|| Identity::new(self.id()));
        identity.cluster = Some(membership.cluster.clone());
        identity.replicas.extend(held);
        data.save(identity)?;
        for held in held {
            if membership.replicas.get(held.group).is_some() {
                continue;
            }
            match self.start(membership, *held).await {
                // Its removal was written to the log, but not yet to the identity.
                Err(NodeError::Start(_, StartError::Log(WalError::ReplicaRemoved { .. }))) => {
                    self.bury(data, held.group, held.replica)?;
                }
                started => started?,
            }
        }
        Ok(())
    }

    /// Starts a replica with the work that belongs to it.
    async fn start(&self, membership: &Membership, held: HeldReplica) -> Result<(), NodeError> {
        let HeldReplica {
            group: id,
            replica,
            initialise,
        } = held;
        // It runs already if an earlier try came no further.
        let groups = &membership.engine.groups;
        let running = groups
            .get(id)
            .filter(|running| running.replica() == replica);
        let group = match running {
            Some(running) => running,
            None => {
                let started = groups.start(id, replica).await;
                started.map_err(|error| NodeError::Start(id, error))?
            }
        };
        if initialise {
            self.initialize(membership, &group).await?;
        }
        let stop = self.stop_tasks.child_token();
        let workers = Workers {
            group: Arc::clone(&group),
            router: Arc::clone(&membership.router),
            partitions: membership.cluster.partitions,
            limits: self.parts.config.limits,
            secrets: Arc::clone(&membership.secrets),
            courier: Arc::clone(&membership.courier),
            random: Arc::clone(&self.parts.random),
            metrics: Arc::clone(&self.parts.metrics),
        };
        workers.spawn(&self.tasks, &stop);
        if id == PLACEMENT_GROUP {
            let map = Arc::clone(&membership.map);
            let follow = map.follow(Arc::clone(&group), stop.clone());
            self.tasks.spawn(follow);
        }
        info!(group = %id, %replica, "this node holds a replica");
        membership.replicas.insert(group, stop);
        Ok(())
    }

    /// Gives a new group its first members, if that was not done before.
    async fn initialize(&self, membership: &Membership, group: &Group) -> Result<(), NodeError> {
        // Before anything is asked of the map: it forgets founders that have left since.
        let initialized = group.is_initialized().await;
        if initialized.map_err(|error| NodeError::Initialize(group.id(), error))? {
            return Ok(());
        }
        let founding = membership.founding.as_ref();
        let members = founding.map(|plan| plan.members(group.id()));
        let members = members.filter(|members| !members.is_empty());
        // A group that came later is in the map only, which was written down first.
        let members = members.or_else(|| first_members(&membership.map.newest(), group.id()));
        let members = members.ok_or_else(|| PlanError::missing(&self.parts.config.data))?;
        match group.initialize(members).await {
            Ok(()) | Err(InitializeError::AlreadyInitialized) => Ok(()),
            Err(error) => Err(NodeError::Initialize(group.id(), error)),
        }
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

    fn open_doors(&self, membership: &Membership) {
        let cluster = &membership.cluster;
        let mailbox = Arc::new(MailboxService::new(MailboxConfig {
            router: Arc::clone(&membership.router),
            secrets: Arc::clone(&membership.secrets),
            partitions: cluster.partitions,
            cluster_name: cluster.name.clone(),
            random: Arc::clone(&self.parts.random),
            limits: self.parts.config.doors,
            stored_limits: self.parts.config.limits,
            courier: Arc::clone(&membership.courier),
            metrics: Arc::clone(&self.parts.metrics),
        }));
        let links: Arc<dyn LinkAcceptor> = membership.engine.groups.clone();
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

/// Takes in what a place tells of the map.
fn offer_all(keeper: &MapKeeper, place: &Place) {
    let planned = place.founding.as_ref().map(Founding::map);
    if let Some(Ok(first)) = planned {
        keeper.offer(Arc::new(first));
    }
    if let Some(map) = &place.map {
        keeper.offer(Arc::clone(map));
    }
}
