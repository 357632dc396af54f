//! How a process begins: its log, its state, the identity that names its replicas, and then those.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_api::placement::{MapKeeper, NodeDirectory, Orders, Replicas, first_members};
use rossby_api::{
    Directory, DoorLimits, MailboxConfig, MailboxService, Metrics, Router, SoleGroup,
};
use rossby_domain::ids::NodeId;
use rossby_domain::placement::ClusterMap;
use rossby_raft::{Blocking, Group, Groups, GroupsConfig, InitializeError, StartError};
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::Disk;
use rossby_seams::random::SeededRandom;
use rossby_seams::transport::{Link, SharedTransport, Transport, TransportError};
use rossby_storage::datadir::{ClusterIdentity, DataDirectoryError, HeldReplica, Identity};
use rossby_storage::store::Store;
use rossby_storage::wal::{Wal, WalError, WalOptions, WalWriter};
use tokio_util::sync::CancellationToken;

use super::clock::WorldClock;
use super::dice::Dice;
use super::life::{Data, Life, LifeError, LifeWitness, bury};
use super::node::Common;
use super::peers::LifePeers;

/// The cluster's name, which is in every Hawk MAC.
const CLUSTER_NAME: &str = "simulated";
/// How long one sync takes, at least and at most, in milliseconds.
const SYNC_MS: (u64, u64) = (1, 4);

/// What a process begins with.
pub(super) struct Birth {
    pub(super) node: NodeId,
    pub(super) common: Arc<Common>,
    pub(super) clock: Arc<WorldClock>,
    pub(super) slowness_ms: Arc<AtomicU64>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) base: Arc<MemoryBase>,
    pub(super) data: Data,
    pub(super) dice: Dice,
}

impl Birth {
    /// Starts the process for these replicas, in the order of `rossby_node`: the log, then the identity
    /// that names the replicas, then the groups. `map` is one that it was given.
    pub(super) async fn live(
        self,
        held: &BTreeSet<HeldReplica>,
        map: Option<Arc<ClusterMap>>,
    ) -> Result<Arc<Life>, LifeError> {
        let gone = CancellationToken::new();
        // Given up or failed half-way, nothing of it is seen any more.
        let ends = gone.clone().drop_guard();
        let (wal_folder, checkpoints) = {
            let data = self.data.lock();
            (data.wal(), data.checkpoints())
        };
        let options = WalOptions {
            // The least that the largest entry fits into.
            segment_bytes: 4 << 20,
            cache_bytes: 256 << 10,
        };
        let (wal, writer) = Wal::open(Arc::clone(&self.disk), &wal_folder, options)?;
        let store = Store::open(
            Arc::clone(&self.disk),
            &checkpoints,
            Arc::clone(&self.base) as _,
        )?;
        self.take_places(held)?;
        let keeper = self.keeper(map);
        let writer = tokio::spawn(write(
            writer,
            self.dice.stream("sync"),
            Arc::clone(&self.slowness_ms),
        ));
        let witness = Arc::new(LifeWitness {
            common: Arc::clone(&self.common),
            node: self.node,
            gone: gone.clone(),
            readers: Mutex::default(),
        });
        let groups = Groups::witnessed(self.groups(&gone, &wal, &store), witness.clone());
        self.common.network.register(self.node, groups.clone());
        let started = self.start(&groups, &witness, keeper.as_deref(), held);
        let started = match started.await {
            Ok(started) => started,
            Err(error) => {
                writer.abort();
                return Err(error);
            }
        };
        let replicas = Arc::<Replicas>::default();
        let router = self.router(&gone, &started, &replicas, keeper.as_ref());
        let life = Arc::new(Life {
            node: self.node,
            mailbox: Arc::new(self.mailbox(&router)),
            gone,
            replicas,
            router,
            orders: Orders::default(),
            keeper,
            parts: self,
            groups,
            store,
            wal,
            writer,
            witness,
        });
        for group in started {
            life.take_in(group);
        }
        life.work();
        ends.disarm();
        Ok(life)
    }

    /// Starts the replicas, and has one that is to do so bring its group to life; one that was removed, which its
    /// log knows, is buried instead.
    pub(super) async fn start(
        &self,
        groups: &Groups,
        witness: &LifeWitness,
        keeper: Option<&MapKeeper>,
        held: &BTreeSet<HeldReplica>,
    ) -> Result<Vec<Arc<Group>>, LifeError> {
        let mut started = Vec::new();
        for held in held {
            // It runs already if an earlier try came no further.
            let running = groups.get(held.group);
            let running = running.filter(|running| running.replica() == held.replica);
            let group = match running {
                Some(running) => Ok(running),
                None => groups.start(held.group, held.replica).await,
            };
            match group {
                Ok(group) => {
                    if held.initialise {
                        initialize(&group, keeper).await?;
                    }
                    witness.readers.lock().insert(held.group, group.reader());
                    started.push(group);
                }
                Err(StartError::Log(WalError::ReplicaRemoved { .. }))
                    if self.common.layout.has_map() =>
                {
                    bury(&self.data, held.group, held.replica)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(started)
    }

    /// What the directory kept of the map, and what else is known of it.
    fn keeper(&self, given: Option<Arc<ClusterMap>>) -> Option<Arc<MapKeeper>> {
        let (_, first) = self.common.layout.first.as_ref()?;
        let data = self.data.lock();
        let keeper = MapKeeper::open(Arc::clone(data.disk()), data.path());
        keeper.offer(Arc::new(first.clone()));
        if let Some(given) = given {
            keeper.offer(given);
        }
        Some(Arc::new(keeper))
    }

    /// Writes down which replicas live here.
    pub(super) fn take_places(
        &self,
        held: &BTreeSet<HeldReplica>,
    ) -> Result<(), DataDirectoryError> {
        let mut data = self.data.lock();
        let known = data.identity().cloned();
        let mut identity = known.unwrap_or_else(|| Identity::new(self.node));
        identity.cluster = Some(ClusterIdentity {
            id: self.common.cluster,
            name: CLUSTER_NAME.to_owned(),
            partitions: self.common.layout.partitions,
            secrets_check: None,
        });
        identity.replicas.extend(held);
        data.save(identity)
    }

    fn groups(&self, gone: &CancellationToken, wal: &Wal, store: &Store) -> GroupsConfig {
        GroupsConfig {
            node: self.node,
            timing: self.common.layout.timing(),
            rest: true,
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.dice.seed_of("raft"))),
            transport: Arc::new(LifeTransport {
                transport: self.common.network.transport(self.node),
                gone: gone.clone(),
            }),
            wal: wal.clone(),
            store: store.clone(),
            blocking: Blocking::Inline,
            checkpoint_log_bytes: self.common.checkpoint_log_bytes,
            overlay_budget_bytes: 64 << 20,
            lease_reads: true,
        }
    }

    fn router(
        &self,
        gone: &CancellationToken,
        started: &[Arc<Group>],
        replicas: &Arc<Replicas>,
        keeper: Option<&Arc<MapKeeper>>,
    ) -> Arc<Router> {
        let partitions = self.common.layout.partitions;
        let directory: Arc<dyn Directory> = match (keeper, started) {
            (None, [group, ..]) => Arc::new(SoleGroup::new(Arc::clone(group), partitions)),
            (keeper, _) => Arc::new(NodeDirectory {
                node: self.node,
                region: self.common.layout.region(self.node),
                // Without a map there is a group.
                map: keeper.map_or_else(|| self.no_map(), Arc::clone),
                replicas: Arc::clone(replicas),
            }),
        };
        Router::new(self.node, directory, Arc::new(self.peers(gone)))
    }

    fn no_map(&self) -> Arc<MapKeeper> {
        let data = self.data.lock();
        Arc::new(MapKeeper::open(Arc::clone(data.disk()), data.path()))
    }

    pub(super) fn peers(&self, gone: &CancellationToken) -> LifePeers {
        LifePeers::new(self.node, Arc::clone(&self.common), gone.clone())
    }

    fn mailbox(&self, router: &Arc<Router>) -> MailboxService {
        let common = &self.common;
        MailboxService::new(MailboxConfig {
            router: Arc::clone(router),
            secrets: Arc::clone(&common.secrets),
            partitions: common.layout.partitions,
            cluster_name: CLUSTER_NAME.to_owned(),
            random: Arc::new(SeededRandom::new(self.dice.seed_of("mailbox"))),
            // People here write as fast as the world turns.
            limits: DoorLimits::default().unrated(),
            stored_limits: common.limits,
            courier: Arc::new(common.codes.clone()),
            metrics: metrics(),
        })
    }
}

/// Gives a new group its first members, if that was not done before. Twin of `initialize` in `rossby_node`.
async fn initialize(group: &Group, keeper: Option<&MapKeeper>) -> Result<(), LifeError> {
    if group.is_initialized().await? {
        return Ok(());
    }
    let members = keeper.and_then(|keeper| first_members(&keeper.newest(), group.id()));
    let members = members.ok_or(LifeError::NoPlan(group.id()))?;
    match group.initialize(members).await {
        Ok(()) | Err(InitializeError::AlreadyInitialized) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Figures that nobody reads.
pub(super) fn metrics() -> Arc<Metrics> {
    Metrics::register(&mut prometheus_client::registry::Registry::default())
}

/// The log's writer as a task: each drain takes the time of a sync.
async fn write(mut writer: WalWriter, dice: Dice, slowness_ms: Arc<AtomicU64>) {
    while !writer.is_over() {
        writer.ready().await;
        let slowness = slowness_ms.load(Ordering::SeqCst);
        let (least, most) = SYNC_MS;
        tokio::time::sleep(dice.millis(least, most) + Duration::from_millis(slowness)).await;
        writer.drain();
    }
}

/// A way to the other nodes that ends with the process.
#[derive(Debug)]
struct LifeTransport {
    transport: SharedTransport,
    gone: CancellationToken,
}

#[async_trait]
impl Transport for LifeTransport {
    async fn connect(&self, node: NodeId, address: &str) -> Result<Link, TransportError> {
        let connecting = self.transport.connect(node, address);
        match self.gone.run_until_cancelled(connecting).await {
            Some(connected) if !self.gone.is_cancelled() => connected,
            _ => Err(TransportError::Unreachable {
                node,
                address: address.to_owned(),
                reason: "this process has ended".to_owned(),
            }),
        }
    }
}
