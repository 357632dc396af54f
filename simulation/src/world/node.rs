//! A node of the world: a disk that outlives its process, and a process now and then.
//!
//! A process here is what the `rossby` binary wires: log, state, groups, mailbox service and
//! workers, but for the listeners. It ends without ceremony: from that moment nothing of it is seen,
//! its disk answers no more and its links are broken, whatever its tasks still do until they notice.

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_api::{ClusterSecrets, DoorLimits, MailboxConfig, MailboxService, Metrics, Workers};
use rossby_domain::ids::{GroupId, NodeId, PartitionCount, PartitionId, ReplicaId};
use rossby_domain::limits::Limits;
use rossby_raft::{
    Blocking, Deed, Group, Groups, GroupsConfig, Member, StartError, Timing, Witness,
};
use rossby_seams::base::{Base, MemoryBase};
use rossby_seams::disk::{Disk, MemoryDisk, PowerLoss};
use rossby_seams::random::SeededRandom;
use rossby_seams::transport::{Link, MemoryNetwork, SharedTransport, Transport, TransportError};
use rossby_storage::store::{Reader, Store, StoreError};
use rossby_storage::wal::{Wal, WalError, WalOptions, WalWriter};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::WorldClock;
use super::courier::Codes;
use super::dice::Dice;
use super::recorder::Recorder;
use super::trap::{Moment, Trap};
use crate::observe::{Digest, Loss, ReplicaEvent, What, Who, events_of};

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

/// What all nodes have in common.
pub struct Common {
    /// Everything that is seen.
    pub recorder: Arc<Recorder>,
    /// What connects the nodes.
    pub network: MemoryNetwork,
    /// The cluster's secrets.
    pub secrets: Arc<ClusterSecrets>,
    /// The number of partitions.
    pub partitions: PartitionCount,
    /// Limits of what is stored.
    pub limits: Limits,
    /// Where codes are brought to.
    pub codes: Codes,
    /// Waits for a telling moment, if it is set.
    pub trap: Trap,
    /// Where a checkpoint is due.
    pub checkpoint_log_bytes: u64,
    /// Draws the seeds of processes.
    pub dice: Dice,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").finish_non_exhaustive()
    }
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The log.
    #[error("the log: {0}")]
    Wal(#[from] WalError),
    /// The state.
    #[error("the state: {0}")]
    Store(#[from] StoreError),
    /// The group.
    #[error("the group: {0}")]
    Start(#[from] StartError),
}

/// A node.
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// Its wall clock.
    pub clock: Arc<WorldClock>,
    common: Arc<Common>,
    /// Added to each sync, in milliseconds.
    slowness_ms: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    disk: MemoryDisk,
    base: Arc<MemoryBase>,
    lives: u64,
    life: Option<Arc<Life>>,
}

/// A process.
pub struct Life {
    /// Ends with it.
    pub gone: CancellationToken,
    /// Its replica.
    pub group: Arc<Group>,
    /// Its service.
    pub mailbox: Arc<MailboxService>,
    groups: Arc<Groups>,
    store: Store,
    wal: Wal,
    writer: JoinHandle<()>,
}

/// The replica on a node. There is one life-long replica on each.
#[must_use]
pub fn replica(node: NodeId) -> ReplicaId {
    ReplicaId(node.0 + 100)
}

/// What the group's membership says of a node.
#[must_use]
pub fn member(node: NodeId) -> Member {
    Member {
        node,
        peer_address: format!("node-{node}"),
        client_address: format!("node-{node}"),
    }
}

impl Node {
    /// A node with an empty disk, and no process yet.
    #[must_use]
    pub fn new(id: NodeId, clock: WorldClock, common: Arc<Common>) -> Self {
        Self {
            id,
            clock: Arc::new(clock),
            common,
            slowness_ms: Arc::default(),
            state: Mutex::new(State {
                disk: MemoryDisk::default(),
                base: Arc::default(),
                lives: 0,
                life: None,
            }),
        }
    }

    /// Its process, if one runs.
    #[must_use]
    pub fn life(&self) -> Option<Arc<Life>> {
        self.state.lock().life.clone()
    }

    /// Its disk as it is now.
    #[must_use]
    pub fn disk(&self) -> MemoryDisk {
        self.state.lock().disk.clone()
    }

    /// Makes each sync take this much longer from now on.
    pub fn set_slowness(&self, slowness: Duration) {
        let millis = u64::try_from(slowness.as_millis()).unwrap_or(u64::MAX);
        self.slowness_ms.store(millis, Ordering::SeqCst);
    }

    /// Sets its clock this far from the world's time.
    pub fn set_clock(&self, offset_ms: i64) {
        self.clock.set_offset(offset_ms);
        self.saw(What::ClockSet { offset_ms });
    }

    fn saw(&self, what: What) {
        self.common.recorder.saw(Who::Node(self.id), what);
    }

    /// Ends its process, if one runs, and leaves the disk as `loss` says.
    pub fn crash(&self, loss: PowerLoss) {
        let life = {
            let mut state = self.state.lock();
            state.disk = state.disk.crash(loss);
            state.base = copy(&state.base);
            state.life.take()
        };
        let Some(life) = life else { return };
        self.saw(What::Crashed {
            loss: match loss {
                PowerLoss::KeepAll => Loss::None,
                PowerLoss::DropUnsynced => Loss::Unsynced,
                PowerLoss::KeepSome { .. } => Loss::Torn,
            },
        });
        life.gone.cancel();
        self.common.network.unregister(self.id);
        life.writer.abort();
    }

    /// Ends its process in good order, as `rossby` does when it is told to stop.
    pub async fn shut_down(&self) {
        let Some(life) = self.life() else { return };
        life.groups.shutdown().await;
        // It may have lost its power meanwhile.
        if life.gone.is_cancelled() {
            return;
        }
        if let Err(error) = life.store.close() {
            tracing::warn!(%error, "the base was not closed");
        }
        life.wal.shut_down();
        self.crash(PowerLoss::KeepAll);
    }

    /// Starts a process on the disk as it is.
    ///
    /// # Errors
    /// [`LifeError`]; it was observed, too.
    pub async fn start(&self) -> Result<(), LifeError> {
        if self.life().is_some() {
            return Ok(());
        }
        let started = self.begin().await;
        if let Err(error) = &started {
            self.common.network.unregister(self.id);
            self.saw(What::StartRefused {
                reason: error.to_string(),
            });
        }
        started
    }

    /// Starts a process whose power will fail on the way: that it can not start says nothing.
    ///
    /// # Errors
    /// [`LifeError`]; it was not observed.
    pub async fn start_in_vain(&self) -> Result<(), LifeError> {
        let started = self.begin().await;
        if started.is_err() {
            self.common.network.unregister(self.id);
        }
        started
    }

    async fn begin(&self) -> Result<(), LifeError> {
        let (disk, base, number) = {
            let mut state = self.state.lock();
            state.lives += 1;
            (state.disk.clone(), Arc::clone(&state.base), state.lives)
        };
        let common = &self.common;
        let dice = common
            .dice
            .stream(&format!("node {} life {number}", self.id));
        let gone = CancellationToken::new();
        // Given up or failed half-way, nothing of it is seen any more.
        let ends = gone.clone().drop_guard();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let options = WalOptions {
            // The least that the largest entry fits into.
            segment_bytes: 4 << 20,
            cache_bytes: 256 << 10,
        };
        let (wal, writer) = Wal::open(Arc::clone(&disk), Path::new("/data/wal"), options)?;
        let store = Store::open(disk, Path::new("/data/checkpoints"), base)?;
        let writer = tokio::spawn(write(
            writer,
            dice.stream("sync"),
            Arc::clone(&self.slowness_ms),
        ));
        let witness = Arc::new(LifeWitness {
            common: Arc::clone(common),
            node: self.id,
            gone: gone.clone(),
            reader: OnceLock::new(),
        });
        let config = GroupsConfig {
            node: self.id,
            timing: Timing::lan(),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(dice.seed_of("raft"))),
            transport: self.transport(&gone),
            wal: wal.clone(),
            store: store.clone(),
            blocking: Blocking::Inline,
            checkpoint_log_bytes: common.checkpoint_log_bytes,
            overlay_budget_bytes: 64 << 20,
        };
        let groups = Groups::witnessed(config, witness.clone());
        common.network.register(self.id, groups.clone());
        let group = match groups.start(GROUP, replica(self.id)).await {
            Ok(group) => group,
            Err(error) => {
                writer.abort();
                return Err(error.into());
            }
        };
        // Nobody but this sets it.
        let _ = witness.reader.set(group.reader());
        let life = Arc::new(Life {
            mailbox: Arc::new(self.mailbox(&group, &dice)),
            gone,
            group,
            groups,
            store,
            wal,
            writer,
        });
        self.work(&life, &dice);
        self.state.lock().life = Some(Arc::clone(&life));
        ends.disarm();
        tokio::spawn(look_on(life, witness));
        Ok(())
    }

    fn transport(&self, gone: &CancellationToken) -> SharedTransport {
        Arc::new(LifeTransport {
            transport: self.common.network.transport(self.id),
            gone: gone.clone(),
        })
    }

    fn mailbox(&self, group: &Arc<Group>, dice: &Dice) -> MailboxService {
        let common = &self.common;
        let served = Arc::clone(group);
        MailboxService::new(MailboxConfig {
            directory: Arc::new(move |_: PartitionId| Some(Arc::clone(&served))),
            secrets: Arc::clone(&common.secrets),
            partitions: common.partitions,
            cluster_name: CLUSTER_NAME.to_owned(),
            random: Arc::new(SeededRandom::new(dice.seed_of("mailbox"))),
            limits: DoorLimits::default(),
            stored_limits: common.limits,
            courier: Arc::new(common.codes.clone()),
            metrics: metrics(),
        })
    }

    fn work(&self, life: &Life, dice: &Dice) {
        let common = &self.common;
        let workers = Workers {
            group: Arc::clone(&life.group),
            partitions: common.partitions,
            limits: common.limits,
            secrets: Arc::clone(&common.secrets),
            courier: Arc::new(common.codes.clone()),
            random: Arc::new(SeededRandom::new(dice.seed_of("workers"))),
            metrics: metrics(),
        };
        workers.spawn(&TaskTracker::new(), &life.gone);
    }
}

fn metrics() -> Arc<Metrics> {
    Metrics::register(&mut prometheus_client::registry::Registry::default())
}

/// The base as the next process finds it. A copy, since this one's tasks may not have noticed yet
/// that they are dead.
fn copy(base: &MemoryBase) -> Arc<MemoryBase> {
    let copied = MemoryBase::default();
    // Memory does not fail.
    if let Ok(rows) = base.range(&[], &[u8::MAX; 64], usize::MAX) {
        let rows = rows.into_iter().map(|(key, value)| (key, Some(value)));
        let _ = copied.write(rows.collect());
    }
    Arc::new(copied)
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

/// Says when a replica has stopped by itself.
async fn look_on(life: Arc<Life>, witness: Arc<LifeWitness>) {
    loop {
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
