//! A process that holds a replica: what the `rossby` binary wires, but for the listeners.

use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_api::{DoorLimits, MailboxConfig, MailboxService, Metrics, Router, SoleGroup, Workers};
use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_raft::{Blocking, Deed, Group, Groups, GroupsConfig, StartError, Timing, Witness};
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::Disk;
use rossby_seams::random::SeededRandom;
use rossby_seams::transport::{Link, SharedTransport, Transport, TransportError};
use rossby_storage::datadir::{
    ClusterIdentity, DataDirectory, DataDirectoryError, HeldReplica, Identity,
};
use rossby_storage::store::{Reader, Store, StoreError};
use rossby_storage::wal::{Wal, WalError, WalOptions, WalWriter};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::WorldClock;
use super::dice::Dice;
use super::node::Common;
use super::peers::LifePeers;
use super::trap::Moment;
use crate::observe::{Digest, ReplicaEvent, What, Who, events_of};

/// The one data group.
pub const GROUP: GroupId = GroupId(1);
/// The cluster's name, which is in every Hawk MAC.
const CLUSTER_NAME: &str = "simulated";
/// States are compared at every entry whose index is a multiple of this.
const COMPARE_EVERY: u64 = 16;
/// How long one sync takes, at least and at most, in milliseconds.
const SYNC_MS: (u64, u64) = (1, 4);
/// Between two looks whether a process has stopped by itself.
const LOOK: Duration = Duration::from_millis(250);

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The data directory.
    #[error("the data directory: {0}")]
    Data(#[from] DataDirectoryError),
    /// The folder of the log could not be looked into.
    #[error("the folder of the log: {0}")]
    Look(io::Error),
    /// The directory names a replica, but holds no log.
    #[error("the log of replica {0} is lost")]
    LogLost(ReplicaId),
    /// The log.
    #[error("the log: {0}")]
    Wal(#[from] WalError),
    /// The state.
    #[error("the state: {0}")]
    Store(#[from] StoreError),
    /// The group.
    #[error("the group: {0}")]
    Start(#[from] StartError),
    /// The process ended while it started.
    #[error("it ended while it started")]
    Ended,
}

/// A data directory that a process has open.
pub(super) type Data = Arc<Mutex<DataDirectory>>;

/// A process.
pub struct Life {
    /// Ends with it.
    pub gone: CancellationToken,
    /// Its replica.
    pub group: Arc<Group>,
    /// Its service.
    pub mailbox: Arc<MailboxService>,
    data: Data,
    groups: Arc<Groups>,
    store: Store,
    wal: Wal,
    writer: JoinHandle<()>,
}

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
    /// Starts the process for a replica, in the order of `rossby_node`: the log, then the identity
    /// that names the replica, then the group.
    pub(super) async fn live(self, replica: ReplicaId) -> Result<Arc<Life>, LifeError> {
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
        self.take_place(replica)?;
        let writer = tokio::spawn(write(
            writer,
            self.dice.stream("sync"),
            Arc::clone(&self.slowness_ms),
        ));
        let witness = Arc::new(LifeWitness {
            common: Arc::clone(&self.common),
            node: self.node,
            gone: gone.clone(),
            reader: OnceLock::new(),
        });
        let groups = Groups::witnessed(self.groups(&gone, &wal, &store), witness.clone());
        self.common.network.register(self.node, groups.clone());
        let group = match groups.start(GROUP, replica).await {
            Ok(group) => group,
            Err(error) => {
                writer.abort();
                return Err(error.into());
            }
        };
        // Nobody but this sets it.
        let _ = witness.reader.set(group.reader());
        let router = self.router(&gone, &group);
        let life = Arc::new(Life {
            mailbox: Arc::new(self.mailbox(&router)),
            data: self.data.clone(),
            gone,
            group,
            groups,
            store,
            wal,
            writer,
        });
        self.work(&life, router);
        self.common.lives.begin(self.node, &life);
        ends.disarm();
        tokio::spawn(look_on(Arc::clone(&life), witness));
        Ok(life)
    }

    /// Writes down which replica lives here.
    fn take_place(&self, replica: ReplicaId) -> Result<(), DataDirectoryError> {
        let mut data = self.data.lock();
        let known = data.identity().cloned();
        let mut identity = known.unwrap_or_else(|| Identity::new(self.node));
        identity.cluster = Some(ClusterIdentity {
            id: self.common.cluster,
            name: CLUSTER_NAME.to_owned(),
            partitions: self.common.partitions,
            secrets_check: None,
        });
        identity.replicas.insert(HeldReplica {
            group: GROUP,
            replica,
            initialise: false,
        });
        data.save(identity)
    }

    fn groups(&self, gone: &CancellationToken, wal: &Wal, store: &Store) -> GroupsConfig {
        GroupsConfig {
            node: self.node,
            timing: Timing::lan(),
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

    fn router(&self, gone: &CancellationToken, group: &Arc<Group>) -> Arc<Router> {
        let directory = SoleGroup::new(Arc::clone(group), self.common.partitions);
        let peers = LifePeers::new(self.node, Arc::clone(&self.common), gone.clone());
        Router::new(self.node, Arc::new(directory), Arc::new(peers))
    }

    fn mailbox(&self, router: &Arc<Router>) -> MailboxService {
        let common = &self.common;
        MailboxService::new(MailboxConfig {
            router: Arc::clone(router),
            secrets: Arc::clone(&common.secrets),
            partitions: common.partitions,
            cluster_name: CLUSTER_NAME.to_owned(),
            random: Arc::new(SeededRandom::new(self.dice.seed_of("mailbox"))),
            limits: DoorLimits::default(),
            stored_limits: common.limits,
            courier: Arc::new(common.codes.clone()),
            metrics: metrics(),
        })
    }

    fn work(&self, life: &Life, router: Arc<Router>) {
        let common = &self.common;
        let workers = Workers {
            group: Arc::clone(&life.group),
            router,
            partitions: common.partitions,
            limits: common.limits,
            secrets: Arc::clone(&common.secrets),
            courier: Arc::new(common.codes.clone()),
            random: Arc::new(SeededRandom::new(self.dice.seed_of("workers"))),
            metrics: metrics(),
        };
        workers.spawn(&TaskTracker::new(), &life.gone);
    }
}

impl Life {
    /// Which replica it holds.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.group.replica()
    }

    /// Ends it without ceremony.
    pub(super) fn end(&self) {
        self.gone.cancel();
        self.writer.abort();
    }

    /// Ends it in good order, as `rossby` does when it is told to stop; whether it came that far.
    pub(super) async fn shut_down(&self) -> bool {
        self.groups.shutdown().await;
        // It may have lost its power meanwhile.
        if self.gone.is_cancelled() {
            return false;
        }
        if let Err(error) = self.store.close() {
            tracing::warn!(%error, "the base was not closed");
        }
        self.wal.shut_down();
        true
    }
}

/// Writes down that a replica was removed from its group, so that it never starts again.
pub(super) fn bury(data: &Data, replica: ReplicaId) -> Result<(), DataDirectoryError> {
    let mut data = data.lock();
    match data.identity().map(|known| known.without(GROUP, replica)) {
        Some(identity) => data.save(identity),
        None => Ok(()),
    }
}

fn metrics() -> Arc<Metrics> {
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

/// Says when a replica has stopped by itself, and buries one that was removed.
async fn look_on(life: Arc<Life>, witness: Arc<LifeWitness>) {
    loop {
        if life.group.is_dismissed() {
            witness.replica(GROUP, life.replica(), ReplicaEvent::Dismissed);
            if let Err(error) = bury(&life.data, life.replica()) {
                // Its log knows it too.
                tracing::info!(%error, "the removal was not written down");
            }
            return;
        }
        if let Some(reason) = life.group.status().failure {
            witness.node(What::Stopped { reason });
            return;
        }
        tokio::select! {
            biased;
            () = life.gone.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
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

/// Sees what a process does until it is gone.
#[derive(Debug)]
struct LifeWitness {
    common: Arc<Common>,
    node: NodeId,
    gone: CancellationToken,
    reader: OnceLock<Reader>,
}

impl LifeWitness {
    fn node(&self, what: What) {
        if !self.gone.is_cancelled() {
            self.common.recorder.saw(Who::Node(self.node), what);
        }
    }

    fn replica(&self, group: GroupId, replica: ReplicaId, event: ReplicaEvent) {
        self.node(What::Replica {
            group,
            replica,
            event,
        });
    }

    fn compare(&self, group: GroupId, replica: ReplicaId) {
        let Some(Ok((Some(at), digests))) = self.reader.get().map(Reader::digests) else {
            return;
        };
        for (partition, digest) in digests {
            let event = ReplicaEvent::State {
                at,
                partition,
                digest: Digest::of(&digest),
            };
            self.replica(group, replica, event);
        }
    }
}

impl Witness for LifeWitness {
    fn saw(&self, group: GroupId, replica: ReplicaId, deed: Deed) {
        if let Some(moment) = Moment::of(&deed)
            && !self.gone.is_cancelled()
        {
            self.common.trap.pass(self.node, moment);
        }
        let applied = match &deed {
            Deed::Applied(position, _) => Some(position.index),
            _ => None,
        };
        for event in events_of(replica, deed) {
            self.replica(group, replica, event);
        }
        if applied.is_some_and(|index| index.is_multiple_of(COMPARE_EVERY)) {
            self.compare(group, replica);
        }
    }
}
