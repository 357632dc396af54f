//! The groups of a node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use parking_lot::{Mutex, RwLock};
use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_seams::clock::Clock;
use rossby_seams::random::Random;
use rossby_seams::transport::{Link, LinkAcceptor, SharedTransport};
use rossby_seams::watch;
use rossby_storage::store::{GroupStore, Store, StoreError};
use rossby_storage::wal::{GroupLog, Wal, WalError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::answers::Leadership;
use crate::blocking::Blocking;
use crate::book::{Acquaintances, AddressBook};
use crate::clock_quorum::ClockQuorum;
use crate::core::Core;
use crate::expiry::Expiry;
use crate::heard::Heard;
use crate::inbound::{Inbound, InboundConfig, Replica};
use crate::lease::{Abstinence, Lease};
use crate::links::Links;
use crate::log_store::LogStore;
use crate::looks::{self, Looks};
use crate::network::Network;
use crate::reads::Reads;
use crate::rest::{self, Rest};
use crate::runtime::with_random;
use crate::service_time::ServiceTime;
use crate::shipping::Shipping;
use crate::state_machine::{Raft, StateMachine};
use crate::timing::Timing;
use crate::witness::{Deed, Line, SavedVote, Witness};
use crate::{Group, Member};

/// How long a group that shuts down waits for its successor.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long it then waits for what was appended to be durable.
const SYNC: Duration = Duration::from_secs(10);
/// openraft's own limit on a checkpoint shipment; ours are per piece (`network.rs`).
const SHIPMENT_TIMEOUT_MS: u64 = 60 * 60 * 1000;
/// Entries in one append, at most: their bytes are bounded by the log store.
const MAX_APPEND_ENTRIES: u64 = 1024;

/// What the groups of a node share.
pub struct GroupsConfig {
    /// This node.
    pub node: NodeId,
    /// Raft's intervals.
    pub timing: Timing,
    /// Whether groups of which nothing is asked rest.
    pub rest: bool,
    /// The clock that stamps commands.
    pub clock: Arc<dyn Clock>,
    /// Spreads election timeouts and attempts to open links, so that nodes do not act in step.
    pub random: Arc<dyn Random>,
    /// The way to other nodes.
    pub transport: SharedTransport,
    /// The node's log.
    pub wal: Wal,
    /// The node's state.
    pub store: Store,
    /// Where blocking work runs.
    pub blocking: Blocking,
    /// A checkpoint is written once a group pins this many bytes of log.
    pub checkpoint_log_bytes: u64,
    /// The leader sheds proposals above 70% of this many bytes of overlay, followers refuse
    /// entries above all of it.
    pub overlay_budget_bytes: u64,
    /// Whether a leader answers reads without asking its peers while its lease is good (`lease.rs`).
    pub lease_reads: bool,
}

/// Why a group could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It runs already.
    #[error("group {0} runs already")]
    Running(GroupId),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// Its log could not be opened.
    #[error("the log could not be opened")]
    Log(#[from] WalError),
    /// Its state could not be recovered.
    #[error("the state could not be recovered")]
    Store(#[from] StoreError),
    /// The intervals do not fit together.
    #[error("the intervals do not fit together: {0}")]
    Timing(String),
    /// Log and state could not be brought together.
    #[error("log and state could not be brought together: {0}")]
    Recovery(String),
}

/// The groups of a node. Also takes in the links that peers open.
pub struct Groups {
    config: GroupsConfig,
    witness: Option<Arc<dyn Witness>>,
    links: Links,
    inbound: Inbound,
    clocks: Arc<ClockQuorum>,
    acquaintances: Arc<Acquaintances>,
    running: Arc<RwLock<BTreeMap<GroupId, Running>>>,
    stop: CancellationToken,
}

struct Running {
    group: Arc<Group>,
    log: GroupLog,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups")
            .field("node", &self.config.node)
            .finish_non_exhaustive()
    }
}

impl Groups {
    /// No groups yet. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(config: GroupsConfig) -> Arc<Self> {
        Self::watched(config, None)
    }

    /// The same, with a witness of what its replicas do.
    #[must_use]
    pub fn witnessed(config: GroupsConfig, witness: Arc<dyn Witness>) -> Arc<Self> {
        Self::watched(config, Some(witness))
    }

    fn watched(config: GroupsConfig, witness: Option<Arc<dyn Witness>>) -> Arc<Self> {
        let stop = CancellationToken::new();
        let links = Links::new(
            config.transport.clone(),
            config.random.clone(),
            config.timing.promise_ms(),
            stop.clone(),
        );
        let inbound = Inbound::new(InboundConfig {
            clock: config.clock.clone(),
            wal: config.wal.clone(),
            store: config.store.clone(),
            overlay_budget_bytes: config.overlay_budget_bytes,
            blocking: config.blocking,
            promise_ms: config.timing.promise_ms(),
            stop: stop.clone(),
        });
        let clocks = ClockQuorum::new(config.node, config.clock.clone(), links.clone());
        let clocks = Arc::new(clocks);
        let running: Arc<RwLock<BTreeMap<GroupId, Running>>> = Arc::default();
        let groups = running.clone();
        let members = move || -> Vec<Member> {
            groups
                .read()
                .values()
                .flat_map(|running| running.group.core.members())
                .collect()
        };
        tokio::spawn(clocks.clone().run(members, stop.clone()));
        let groups = running.clone();
        let cores = move || -> Vec<Arc<Core>> {
            let groups = groups.read();
            let core = |running: &Running| running.group.core.clone();
            groups.values().map(core).collect()
        };
        tokio::spawn(looks::run(cores.clone(), config.timing, stop.clone()));
        if config.rest {
            tokio::spawn(rest::run(cores, links.clone(), config.timing, stop.clone()));
        }
        Arc::new(Self {
            config,
            witness,
            links,
            inbound,
            clocks,
            acquaintances: Arc::default(),
            running,
            stop,
        })
    }

    /// Tells whom a replica may ask that knows no member of its group yet: the other nodes of the cluster.
    /// They take the place of those told before.
    pub fn introduce(&self, nodes: Vec<Member>) {
        self.acquaintances.set(nodes);
    }

    /// Starts this node's replica of a group, recovered from log and checkpoint.
    ///
    /// # Errors
    /// [`StartError`]; the group does not run then.
    pub async fn start(
        &self,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<Arc<Group>, StartError> {
        if self.stop.is_cancelled() {
            return Err(StartError::ShuttingDown);
        }
        if self.running.read().contains_key(&group) {
            return Err(StartError::Running(group));
        }
        let config = &self.config;
        let log = config.wal.log(group, replica)?;
        // Long, if the base has to be rebuilt; the node's other tasks go on.
        let store = config.store.clone();
        let recovered = config.blocking.run(move || store.group(group)).await;
        let state = recovered.map_err(|error| StartError::Recovery(error.to_string()))??;
        check_recovered(&log, &state)?;
        let reader = state.reader();
        let witness = Line::new(self.witness.as_ref(), group, replica);
        let log_store = LogStore::new(log.clone()).witnessed(witness.clone());
        tell_start(&witness, &log_store, &log, &state);
        // A vote that can't be read stops the start.
        let has_voted = !matches!(log_store.vote(), Ok(None));
        let machine = StateMachine::new(state, log.clone(), config.blocking).witnessed(witness);
        let (ownership, disk_full) = (machine.ownership(), machine.disk_full());
        let rounds = machine.rounds();
        let (watches, news) = (machine.watches(), machine.news());
        let shipping = Arc::new(Shipping::default());
        let heard = Arc::new(Heard::default());
        let book = Arc::new(AddressBook::default());
        let lease = Arc::new(Lease::new(config.clock.clone(), config.timing));
        let network = Network {
            group,
            replica,
            links: self.links.clone(),
            heartbeat: config.timing.heartbeat,
            blocking: config.blocking,
            shipping: shipping.clone(),
            book: book.clone(),
            lease: lease.clone(),
        };
        let raft_config = Arc::new(raft_config(group, config.timing)?);
        let raft = Raft::new(replica, raft_config, network, log_store, machine);
        let raft = with_random(config.random.clone(), raft)
            .await
            .map_err(|error| StartError::Recovery(error.to_string()))?;
        let rest = Rest::new(
            raft.clone(),
            heard.clone(),
            config.timing,
            config.random.clone(),
            config.rest,
        );
        let core = Core {
            id: group,
            replica,
            raft: raft.clone(),
            reader,
            ownership,
            watches,
            news,
            wal: config.wal.clone(),
            store: config.store.clone(),
            clocks: self.clocks.clone(),
            links: self.links.clone(),
            book,
            acquaintances: self.acquaintances.clone(),
            timing: config.timing,
            shipping,
            disk_full,
            rounds,
            checkpoint_log_bytes: config.checkpoint_log_bytes,
            overlay_budget_bytes: config.overlay_budget_bytes,
            leadership: watch::channel(Leadership::Unknown).0,
            observing: Mutex::default(),
            heard: heard.clone(),
            reign: Mutex::default(),
            handing_over: AtomicBool::new(false),
            failure: Mutex::default(),
            expiry: Expiry::default(),
            time: ServiceTime::default(),
            lease,
            lease_reads: config.lease_reads,
            reads: Reads::default(),
            rest: rest.clone(),
            silent: AtomicBool::new(false),
            looks: Looks::new(replica, config.checkpoint_log_bytes),
            dismissed: CancellationToken::new(),
            failed: CancellationToken::new(),
            stop: self.stop.child_token(),
        };
        let abstinence = Abstinence::begin(has_voted, config.timing);
        let served = Replica::new(group, replica, raft.clone(), heard, rest, abstinence);
        // A group of one need not wait for anybody's vote.
        let alone = core.voter_nodes() == [config.node];
        let started = Group::start(core);
        self.inbound.add(Arc::new(served));
        self.running.write().insert(
            group,
            Running {
                group: started.clone(),
                log,
            },
        );
        tokio::spawn(self.part_with(started.clone()));
        if alone {
            let elected = raft.trigger().elect(false).await;
            elected.map_err(|error| StartError::Recovery(error.to_string()))?;
        }
        Ok(started)
    }

    /// Lets go of a replica once it was removed from its group.
    fn part_with(&self, group: Arc<Group>) -> impl Future<Output = ()> + use<> {
        let (inbound, running) = (self.inbound.clone(), self.running.clone());
        let stop = self.stop.clone();
        async move {
            tokio::select! {
                biased;
                () = group.dismissed() => {}
                () = stop.cancelled() => return,
            }
            inbound.remove(group.id());
            running.write().remove(&group.id());
        }
    }

    /// A running group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Option<Arc<Group>> {
        self.running
            .read()
            .get(&group)
            .map(|running| running.group.clone())
    }

    /// Stops all groups: leadership is handed over where possible, then everything is synced.
    /// Takes a bounded time.
    pub async fn shutdown(&self) {
        let running = std::mem::take(&mut *self.running.write());
        let stopping = running
            .into_values()
            .map(|running| self.stop_group(running));
        futures_util::future::join_all(stopping).await;
        self.stop.cancel();
    }

    async fn stop_group(&self, running: Running) {
        let Running { group, log } = running;
        let others = group
            .core
            .voter_nodes()
            .iter()
            .any(|node| *node != self.config.node);
        if others && matches!(group.leadership(), Leadership::Here { .. }) {
            match group
                .transfer_leader(None, Instant::now() + HAND_OVER)
                .await
            {
                Ok(leader) => tracing::info!(group = %group.id(), %leader, "handed over"),
                Err(error) => tracing::warn!(group = %group.id(), %error, "could not hand over"),
            }
        }
        self.inbound.remove(group.id());
        // First, so that nobody takes the end of openraft for a failure.
        group.core.stop.cancel();
        if group.core.raft.shutdown().await.is_err() {
            tracing::warn!(group = %group.id(), "openraft did not end in good order");
        }
        if let Some(last) = log.state().last {
            match timeout(SYNC, log.wait_durable(last.index)).await {
                Ok(Ok(())) => {}
                // Said before, by what failed.
                Ok(Err(error)) => tracing::debug!(group = %group.id(), %error, "log not synced"),
                Err(_) => tracing::warn!(group = %group.id(), "log not synced in time"),
            }
        }
    }
}

/// What the log no longer holds must be in the state: a replica that went on without it would
/// answer from a state with a hole.
pub(crate) fn check_recovered(log: &GroupLog, state: &GroupStore) -> Result<(), StartError> {
    let purged = log.state().purged;
    let applied = state.applied().position;
    if purged > applied {
        let reason = format!(
            "the log begins after {purged:?}, but the checkpoint only reaches {applied:?}; restore \
             this node's data directory from a backup, or have this replica rebuilt from its peers"
        );
        return Err(StartError::Recovery(reason));
    }
    Ok(())
}

fn tell_start(witness: &Line, log_store: &LogStore, log: &GroupLog, state: &GroupStore) {
    witness.tell(|| {
        let found = log.state();
        Deed::Started {
            // A vote that can't be read stops the start.
            vote: log_store
                .vote()
                .ok()
                .flatten()
                .map(|vote| SavedVote::of(&vote)),
            last: found.last,
            purged: found.purged,
            checkpoint: state.applied().position,
        }
    });
}

impl Drop for Groups {
    fn drop(&mut self) {
        // What was not shut down in good order at least ends.
        self.stop.cancel();
    }
}

impl LinkAcceptor for Groups {
    fn accept(&self, link: Link) {
        self.inbound.serve(link);
    }
}

fn raft_config(group: GroupId, timing: Timing) -> Result<Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: SHIPMENT_TIMEOUT_MS,
        max_payload_entries: MAX_APPEND_ENTRIES,
        // Checkpoints and purges are ours to order, by bytes (`checkpoints.rs`).
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // A node that was cut off must not depose a working leader when it comes back.
        enable_pre_vote: Some(true),
        // A restarted leader may have lost entries that were not durable here but are committed
        // by the others: leading on in the same term, it would give their places to other entries.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::Timing(error.to_string()))
}
