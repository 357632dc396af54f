//! A node of the world: a disk that outlives its process, and a process now and then.
//!
//! A process here is what the `rossby` binary wires (`life.rs`). It ends without ceremony: from that
//! moment nothing of it is seen, its disk answers no more and its links are broken, whatever its tasks
//! still do until they notice. What it belongs to stands in its data directory, as it does for real.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use rossby_api::ClusterSecrets;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, ReplicaId};
use rossby_domain::limits::Limits;
use rossby_domain::placement::ClusterMap;
use rossby_raft::{Group, Newcomer, StartError};
use rossby_seams::base::{Base, MemoryBase};
use rossby_seams::disk::{Disk, MemoryDisk, PowerLoss};
use rossby_seams::transport::MemoryNetwork;
use rossby_storage::datadir::{DataDirectory, HeldReplica, RemovedReplica};
use rossby_storage::wal::WalError;
use tokio::time::sleep;

use super::birth::Birth;
use super::clock::WorldClock;
use super::courier::Codes;
use super::dice::Dice;
use super::layout::{GROUP, Layout};
use super::life::{Data, Life, LifeError, bury};
use super::recorder::Recorder;
use super::trap::Trap;
use crate::observe::{Loss, What, Who};

/// The data directory of every node.
const DATA: &str = "/data";

/// What all nodes have in common.
pub struct Common {
    /// Everything that is seen.
    pub recorder: Arc<Recorder>,
    /// What connects the nodes.
    pub network: MemoryNetwork,
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's secrets.
    pub secrets: Arc<ClusterSecrets>,
    /// The regions, the nodes and the first groups.
    pub layout: Layout,
    /// Limits of what is stored.
    pub limits: Limits,
    /// Where codes are brought to.
    pub codes: Codes,
    /// Waits for a telling moment, if it is set.
    pub trap: Trap,
    /// Where a checkpoint is due.
    pub checkpoint_log_bytes: u64,
    /// The nodes, once there are any.
    pub nodes: OnceLock<BTreeMap<NodeId, Weak<Node>>>,
    /// Of 1,000 pieces of work for other nodes, how many go where a wrong map would send them.
    pub astray_permille: AtomicU64,
    /// Draws which.
    pub astray_dice: Dice,
    /// Draws the seeds of processes.
    pub dice: Dice,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").finish_non_exhaustive()
    }
}

impl Common {
    /// A node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<Arc<Node>> {
        self.nodes.get()?.get(&node)?.upgrade()
    }

    /// The process on a node, unless it has ended.
    #[must_use]
    pub fn life(&self, node: NodeId) -> Option<Arc<Life>> {
        let life = self.node(node)?.life()?;
        (!life.gone.is_cancelled()).then_some(life)
    }

    /// All processes that run.
    pub fn lives(&self) -> impl Iterator<Item = Arc<Life>> {
        let nodes = self.nodes.get().into_iter().flat_map(BTreeMap::keys);
        nodes.filter_map(|node| self.life(*node))
    }

    /// The groups that are led somewhere, as far as their leaders know.
    pub fn led_groups(&self) -> impl Iterator<Item = (GroupId, NodeId)> {
        self.lives().flat_map(|life| {
            let led = |group: &Arc<Group>| group.leads().then_some((group.id(), life.node));
            life.replicas
                .all()
                .iter()
                .filter_map(led)
                .collect::<Vec<_>>()
        })
    }

    /// Whether the next work for another node goes astray.
    pub fn goes_astray(&self) -> bool {
        let permille = self.astray_permille.load(Ordering::SeqCst);
        permille > 0 && self.astray_dice.permille(permille)
    }

    /// Asks a node for something, there and back; `None` if no answer came.
    pub async fn visit<T, F>(
        &self,
        from: NodeId,
        to: NodeId,
        ask: impl FnOnce(Arc<Node>) -> F,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        sleep(self.network.travel(from, to)?).await;
        // It goes on with it whatever becomes of who asked.
        let answered = tokio::spawn(ask(self.node(to)?)).await;
        sleep(self.network.travel(to, from)?).await;
        answered.ok()
    }
}

/// Why a node did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No process runs there.
    #[error("nothing runs there")]
    Off,
    /// Only a member brings a group to life.
    #[error("it belongs to no cluster yet")]
    Stranger,
    /// It holds another replica, or held one.
    #[error("it holds replica {0}")]
    Taken(ReplicaId),
    /// Its process did not get that far.
    #[error(transparent)]
    Life(#[from] LifeError),
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
    /// Held while it takes a place in the group.
    joining: tokio::sync::Mutex<()>,
}

struct State {
    disk: MemoryDisk,
    base: Arc<MemoryBase>,
    /// Processes that were begun, and that were ended.
    begun: u64,
    ended: u64,
    process: Process,
    /// Bits of its disk were flipped.
    is_damaged: bool,
}

/// What runs on a node.
enum Process {
    /// Nothing, and there is no such machine: it may come later.
    Absent,
    /// Nothing.
    Off,
    /// A process that belongs to no group yet, and waits to be told.
    Waits(Data),
    /// A process whose replica was removed from its group. It keeps its directory open, and that is all.
    Removed(ReplicaId, #[expect(dead_code, reason = "held")] Data),
    /// A process with a replica.
    Runs(Arc<Life>),
}

/// What a process starts with.
struct Boot {
    disk: MemoryDisk,
    base: Arc<MemoryBase>,
    number: u64,
    ended: u64,
}

impl Node {
    /// A node with an empty disk, and no process yet; or one that may come later.
    #[must_use]
    pub fn new(id: NodeId, clock: WorldClock, common: Arc<Common>) -> Self {
        let process = match common.layout.to_come.contains_key(&id) {
            true => Process::Absent,
            false => Process::Off,
        };
        Self {
            id,
            clock: Arc::new(clock),
            common,
            slowness_ms: Arc::default(),
            state: Mutex::new(State {
                disk: MemoryDisk::default(),
                base: Arc::default(),
                begun: 0,
                ended: 0,
                process,
                is_damaged: false,
            }),
            joining: tokio::sync::Mutex::default(),
        }
    }

    /// Its process, if one runs and holds a replica.
    #[must_use]
    pub fn life(&self) -> Option<Arc<Life>> {
        match &self.state.lock().process {
            Process::Runs(life) => Some(Arc::clone(life)),
            _ => None,
        }
    }

    /// Whether it is a spare: its process belongs to no group.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        let state = self.state.lock();
        match &state.process {
            Process::Absent | Process::Waits(_) | Process::Removed(..) => true,
            Process::Off => false,
            Process::Runs(life) => life.replicas.is_empty(),
        }
    }

    /// Whether there is such a machine.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self.state.lock().process, Process::Absent)
    }

    /// Sets the machine up, with an empty disk and no process yet, if it is not there.
    pub fn set_up(&self) {
        let mut state = self.state.lock();
        if let Process::Absent = state.process {
            state.process = Process::Off;
        }
    }

    /// Takes the machine away for good.
    pub fn put_away(&self) {
        self.wipe();
        self.state.lock().process = Process::Absent;
    }

    /// Whether its process belongs to no cluster yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.state.lock().process, Process::Waits(_))
    }

    /// What its process says of itself when it is asked to come into a group; `None` if nothing runs.
    #[must_use]
    pub fn describe(&self, group: GroupId) -> Option<Newcomer> {
        match &self.state.lock().process {
            Process::Absent | Process::Off => None,
            Process::Waits(_) => Some(Newcomer::Free),
            Process::Removed(replica, _) => Some(Newcomer::Holds(*replica)),
            Process::Runs(life) => Some(match life.replica(group) {
                Some(replica) => Newcomer::Holds(replica),
                None => Newcomer::Free,
            }),
        }
    }

    /// Its disk as it is now.
    #[must_use]
    pub fn disk(&self) -> MemoryDisk {
        self.state.lock().disk.clone()
    }

    /// Its disk is damaged from now on, until it gets an empty one.
    pub fn note_damage(&self) {
        self.state.lock().is_damaged = true;
    }

    /// Whether its disk is damaged.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.state.lock().is_damaged
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

    /// Lets its clock run this many millionths fast, or slow, for this long at most.
    pub fn let_clock_drift(&self, ppm: i64, time: Duration) {
        self.clock.drift(ppm);
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let upto_ms = self.clock.offset() + time.saturating_mul(ppm) / 1_000_000;
        self.saw(What::ClockDrifts { ppm, upto_ms });
    }

    fn saw(&self, what: What) {
        self.common.recorder.saw(Who::Node(self.id), what);
    }

    /// Ends its process, if one runs, and leaves the disk as `loss` says.
    pub fn crash(&self, loss: PowerLoss) {
        let process = {
            let mut state = self.state.lock();
            if let Process::Absent = state.process {
                return;
            }
            state.disk = state.disk.crash(loss);
            state.base = copy(&state.base);
            state.ended += 1;
            std::mem::replace(&mut state.process, Process::Off)
        };
        self.common.network.unregister(self.id);
        let Process::Runs(life) = process else {
            return;
        };
        self.saw(What::Crashed {
            loss: match loss {
                PowerLoss::KeepAll => Loss::None,
                PowerLoss::DropUnsynced => Loss::Unsynced,
                PowerLoss::KeepSome { .. } => Loss::Torn,
            },
        });
        life.end();
    }

    /// Ends its process in good order, as `rossby` does when it is told to stop.
    pub async fn shut_down(&self) {
        let Some(life) = self.life() else { return };
        if life.shut_down().await {
            self.crash(PowerLoss::KeepAll);
        }
    }

    /// Ends its process, and gives it an empty disk.
    pub fn wipe(&self) {
        self.crash(PowerLoss::KeepAll);
        {
            let mut state = self.state.lock();
            state.disk = MemoryDisk::default();
            state.base = Arc::default();
            state.is_damaged = false;
        }
        self.saw(What::Wiped);
    }

    /// Starts a process on the disk as it is.
    ///
    /// # Errors
    /// [`LifeError`]; it was observed, too.
    pub async fn start(&self) -> Result<(), LifeError> {
        if !matches!(self.state.lock().process, Process::Off) {
            return Ok(());
        }
        let started = self.begin().await;
        if let Err(error) = &started {
            self.saw(What::StartRefused {
                reason: whole(error),
            });
        }
        started
    }

    /// Starts a process whose power will fail on the way: that it can not start says nothing.
    ///
    /// # Errors
    /// [`LifeError`]; it was not observed.
    pub async fn start_in_vain(&self) -> Result<(), LifeError> {
        self.begin().await
    }

    fn boot(&self) -> Boot {
        let mut state = self.state.lock();
        state.begun += 1;
        Boot {
            disk: state.disk.clone(),
            base: Arc::clone(&state.base),
            number: state.begun,
            ended: state.ended,
        }
    }

    /// Goes on as what the data directory says, as `rossby_node` does.
    async fn begin(&self) -> Result<(), LifeError> {
        let boot = self.boot();
        let disk: Arc<dyn Disk> = Arc::new(boot.disk.clone());
        let data = DataDirectory::open(disk, Path::new(DATA))?;
        data.expect(self.id, Some(self.common.cluster))?;
        let identity = data.identity();
        let held = identity.map_or_else(BTreeSet::new, |known| known.replicas.clone());
        let is_of_cluster = identity.is_some_and(|known| known.cluster.is_some());
        let removed = identity.and_then(|known| {
            let RemovedReplica { replica, .. } = known.removed.last()?;
            Some(*replica)
        });
        let has_log = has_log(&data)?;
        let data = Arc::new(Mutex::new(data));
        let ended = boot.ended;
        let has_map = self.common.layout.has_map();
        let process = match (held.first(), removed) {
            (Some(held), _) if !has_log => return Err(LifeError::LogLost(held.replica)),
            (None, Some(replica)) if has_log && !has_map => Process::Removed(replica, data),
            (None, _) if !(has_log && has_map && is_of_cluster) => Process::Waits(data),
            (first, _) => match self.live(boot, &data, &held, None).await {
                // With a map it goes on, and may get another replica.
                Err(LifeError::Start(StartError::Log(WalError::ReplicaRemoved { .. }))) => {
                    let replica = first.map(|held| held.replica).unwrap_or_default();
                    bury(&data, GROUP, replica)?;
                    Process::Removed(replica, data)
                }
                life => Process::Runs(life?),
            },
        };
        self.enter(process, ended)
    }

    async fn live(
        &self,
        boot: Boot,
        data: &Data,
        held: &BTreeSet<HeldReplica>,
        map: Option<Arc<ClusterMap>>,
    ) -> Result<Arc<Life>, LifeError> {
        let (dice, ended) = (&self.common.dice, boot.ended);
        let birth = Birth {
            node: self.id,
            common: Arc::clone(&self.common),
            clock: Arc::clone(&self.clock),
            slowness_ms: Arc::clone(&self.slowness_ms),
            disk: Arc::new(boot.disk),
            base: boot.base,
            data: Arc::clone(data),
            dice: dice.stream(&format!("node {} life {}", self.id, boot.number)),
        };
        // Boxed, here and elsewhere: all futures together are deep enough to tire the compiler.
        let life = birth.live(held, map).boxed().await;
        // Whoever lost its power was taken off the network then, and its successor may be on it.
        if life.is_err() && self.state.lock().ended == ended {
            self.common.network.unregister(self.id);
        }
        life
    }

    /// The process is what runs, unless it lost its power while it started.
    fn enter(&self, process: Process, ended: u64) -> Result<(), LifeError> {
        let mut state = self.state.lock();
        if state.ended == ended {
            state.process = process;
            return Ok(());
        }
        drop(state);
        if let Process::Runs(life) = process {
            life.end();
        }
        Err(LifeError::Ended)
    }

    /// Has a process take a place in a group, as a replica. Twin of `join` in `rossby_node`: doing it
    /// again does nothing.
    ///
    /// # Errors
    /// [`JoinError`]. After [`JoinError::Life`] it can be tried again.
    pub async fn join(
        &self,
        held: HeldReplica,
        map: Option<Arc<ClusterMap>>,
    ) -> Result<(), JoinError> {
        let running = match &self.state.lock().process {
            Process::Runs(life) => Some(Arc::clone(life)),
            _ => None,
        };
        let Some(life) = running else {
            if held.initialise {
                return Err(JoinError::Stranger);
            }
            return self.take_places(BTreeSet::from([held]), map).await;
        };
        let _alone = self.joining.lock().await;
        match life.replica(held.group) {
            Some(own) if own == held.replica => Ok(()),
            Some(own) => Err(JoinError::Taken(own)),
            None => {
                life.offer(map);
                if held.initialise {
                    life.keep_map()?;
                }
                Ok(life.hold(held).await?)
            }
        }
    }

    /// The directory of a process that belongs to no cluster yet.
    pub(super) fn waiting(&self) -> Option<Data> {
        match &self.state.lock().process {
            Process::Waits(data) => Some(Arc::clone(data)),
            _ => None,
        }
    }

    /// Has a process that waits begin with these replicas, or with none where there is a map.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn take_places(
        &self,
        mut held: BTreeSet<HeldReplica>,
        map: Option<Arc<ClusterMap>>,
    ) -> Result<(), JoinError> {
        let _alone = self.joining.lock().await;
        let data = match &self.state.lock().process {
            Process::Absent | Process::Off => return Err(JoinError::Off),
            Process::Runs(life) => {
                let mut new = held
                    .iter()
                    .filter(|new| life.replica(new.group) != Some(new.replica));
                return match new.next() {
                    None => Ok(()),
                    Some(new) => Err(JoinError::Taken(
                        life.replica(new.group).unwrap_or_default(),
                    )),
                };
            }
            Process::Removed(held, _) => return Err(JoinError::Taken(*held)),
            Process::Waits(data) => Arc::clone(data),
        };
        {
            let data = data.lock();
            for known in data.identity().iter().flat_map(|known| &known.replicas) {
                let mut other = held.iter().filter(|new| new.group == known.group);
                if other.any(|new| new.replica != known.replica) {
                    return Err(JoinError::Taken(known.replica));
                }
                held.insert(*known);
            }
        }
        let boot = self.boot();
        let ended = boot.ended;
        let life = self.live(boot, &data, &held, map).await?;
        Ok(self.enter(Process::Runs(life), ended)?)
    }
}

/// An error with all that it came from.
fn whole(error: &LifeError) -> String {
    let first = std::error::Error::source(error);
    let sources = std::iter::successors(first, |error| error.source());
    // Some say what they came from themselves.
    sources.fold(error.to_string(), |said, source| {
        let source = source.to_string();
        match said.contains(&source) {
            true => said,
            false => format!("{said}: {source}"),
        }
    })
}

fn has_log(data: &DataDirectory) -> Result<bool, LifeError> {
    match data.disk().list(&data.wal()) {
        Ok(files) => Ok(!files.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LifeError::Look(error)),
    }
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
