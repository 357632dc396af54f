//! A node of the world: a disk that outlives its process, and a process now and then.
//!
//! A process here is what the `rossby` binary wires (`life.rs`). It ends without ceremony: from that
//! moment nothing of it is seen, its disk answers no more and its links are broken, whatever its tasks
//! still do until they notice. What it belongs to stands in its data directory, as it does for real.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rossby_api::ClusterSecrets;
use rossby_domain::ids::{ClusterId, NodeId, PartitionCount, ReplicaId};
use rossby_domain::limits::Limits;
use rossby_raft::{Member, Newcomer, StartError};
use rossby_seams::base::{Base, MemoryBase};
use rossby_seams::disk::{Disk, MemoryDisk, PowerLoss};
use rossby_seams::transport::MemoryNetwork;
use rossby_storage::datadir::{DataDirectory, RemovedReplica};
use rossby_storage::wal::WalError;

use super::clock::WorldClock;
use super::courier::Codes;
use super::dice::Dice;
use super::life::{Birth, Data, GROUP, Life, LifeError, bury};
use super::peers::Lives;
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
    /// The processes that run.
    pub lives: Lives,
    /// Draws the seeds of processes.
    pub dice: Dice,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").finish_non_exhaustive()
    }
}

/// Why a node did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No process runs there.
    #[error("nothing runs there")]
    Off,
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

/// The replica on a node that the group is born with.
#[must_use]
pub fn first_replica(node: NodeId) -> ReplicaId {
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
                begun: 0,
                ended: 0,
                process: Process::Off,
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
        matches!(state.process, Process::Waits(_) | Process::Removed(..))
    }

    /// What its process says of itself when it is asked to come; `None` if nothing runs.
    #[must_use]
    pub fn describe(&self) -> Option<Newcomer> {
        match &self.state.lock().process {
            Process::Off => None,
            Process::Waits(_) => Some(Newcomer::Free),
            Process::Removed(replica, _) => Some(Newcomer::Holds(*replica)),
            Process::Runs(life) => Some(Newcomer::Holds(life.replica())),
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

    fn saw(&self, what: What) {
        self.common.recorder.saw(Who::Node(self.id), what);
    }

    /// Ends its process, if one runs, and leaves the disk as `loss` says.
    pub fn crash(&self, loss: PowerLoss) {
        let process = {
            let mut state = self.state.lock();
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
        let holds = data.identity().and_then(|known| known.replica(GROUP));
        let holds = holds.map(|held| held.replica);
        let removed = data.identity().and_then(|known| {
            let RemovedReplica { replica, .. } = known.removed.last()?;
            Some(*replica)
        });
        let has_log = has_log(&data)?;
        let data = Arc::new(Mutex::new(data));
        let ended = boot.ended;
        let process = match (holds, removed) {
            (Some(replica), _) if !has_log => return Err(LifeError::LogLost(replica)),
            (Some(replica), _) => match self.live(boot, &data, replica).await {
                Err(LifeError::Start(StartError::Log(WalError::ReplicaRemoved { .. }))) => {
                    bury(&data, replica)?;
                    Process::Removed(replica, data)
                }
                life => Process::Runs(life?),
            },
            (None, Some(replica)) if has_log => Process::Removed(replica, data),
            (None, _) => Process::Waits(data),
        };
        self.enter(process, ended)
    }

    async fn live(
        &self,
        boot: Boot,
        data: &Data,
        replica: ReplicaId,
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
        let life = birth.live(replica).await;
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

    /// Has a process that waits take its place in the group, as this replica. Twin of `join` in
    /// `rossby_node`: doing it again does nothing.
    ///
    /// # Errors
    /// [`JoinError`]. After [`JoinError::Life`] it can be tried again.
    pub async fn join(&self, replica: ReplicaId) -> Result<(), JoinError> {
        let _alone = self.joining.lock().await;
        let data = match &self.state.lock().process {
            Process::Off => return Err(JoinError::Off),
            Process::Runs(life) if life.replica() == replica => return Ok(()),
            Process::Runs(life) => return Err(JoinError::Taken(life.replica())),
            Process::Removed(held, _) => return Err(JoinError::Taken(*held)),
            Process::Waits(data) => Arc::clone(data),
        };
        let held = {
            let data = data.lock();
            let held = data.identity().and_then(|known| known.replica(GROUP));
            held.map(|held| held.replica)
        };
        if let Some(held) = held.filter(|held| *held != replica) {
            return Err(JoinError::Taken(held));
        }
        let boot = self.boot();
        let ended = boot.ended;
        let life = self.live(boot, &data, replica).await?;
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
