//! The new state of each group that is recovered, made beside the old one.
//!
//! ```text
//!   <data>/checkpoints/2, log ──► <data>/recovering/checkpoints/1028   the same rows under the new number, all entries
//!                                                                       of the log, marked as restored, one member
//! ```
//!
//! Nothing of the old state is touched. The placement group comes last: its state takes the new map in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_api::placement::MapKeeper;
use rossby_domain::command::Place;
use rossby_domain::ids::{Epoch, GroupId, NodeId, ReplicaId};
use rossby_domain::placement::{
    Change, ClusterMap, PLACEMENT_GROUP, PLACEMENT_PARTITION, Successor,
};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Query, Routed};
use rossby_raft::{Member, Rebirth, RecoverError, conclude, replay};
use rossby_seams::clock::{Clock as _, SystemClock};
use rossby_storage::LogPosition;
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, HeldReplica, RemovedReplica};
use rossby_storage::sled_base::SledBase;
use rossby_storage::store::{GroupStore, Store, StoredCheckpoint};
use rossby_storage::wal::{GroupLog, Wal};

use super::intent::{Intent, Move};
use super::known::{Left, Report};
use crate::exit::{Exit, Failure};
use crate::output::{self, size};

/// Where it is built.
const FOLDER: &str = "recovering";
/// Beside copies of the checkpoints: what log and base need.
const SPARE_BYTES: u64 = 256 << 20;

/// What is recovered.
pub struct Work<'a> {
    /// The directory, which is locked.
    pub data: &'a DataDirectory,
    /// Its cluster.
    pub cluster: &'a ClusterIdentity,
    /// Its log, for reading.
    pub log: &'a Wal,
    /// What is left in it.
    pub report: &'a Report,
    /// The groups to recover.
    pub groups: &'a BTreeSet<GroupId>,
    /// The nodes that are gone for good.
    pub lost: &'a BTreeSet<NodeId>,
    /// Memory for the base that is needed meanwhile.
    pub cache_bytes: u64,
}

/// Builds the new states; what is left to do with them. Whatever an earlier try left behind is removed first.
///
/// # Errors
/// If it can't be done: nothing was changed.
pub fn build(work: &Work<'_>) -> Result<Intent, Failure> {
    let folder = folder(work.data.path());
    clear(&folder)?;
    check_room(work)?;
    let built = build_in(work, &folder);
    if built.is_err() {
        // The next try clears it otherwise.
        let _ = fs::remove_dir_all(&folder);
    }
    built
}

/// The folder that it is built in.
pub fn folder(data: &Path) -> PathBuf {
    data.join(FOLDER)
}

/// The checkpoint of a group in it.
pub fn checkpoint_of(data: &Path, group: GroupId) -> PathBuf {
    folder(data).join("checkpoints").join(group.to_string())
}

fn build_in(work: &Work<'_>, folder: &Path) -> Result<Intent, Failure> {
    let disk = work.data.disk();
    let checkpoints = folder.join("checkpoints");
    let base = SledBase::open(&folder.join("base"), work.cache_bytes).map_err(failed)?;
    let store = Store::open(Arc::clone(disk), &checkpoints, Arc::new(base)).map_err(failed)?;
    let shop = Shop {
        work,
        checkpoints,
        store,
    };
    let placement = work.groups.contains(&PLACEMENT_GROUP);
    let placement = placement
        .then(|| shop.replayed(PLACEMENT_GROUP, PLACEMENT_GROUP))
        .transpose()?;
    let map = match &placement {
        Some(replayed) => read_map(&replayed.state)?,
        None => ClusterMap::clone(&MapKeeper::open(Arc::clone(disk), work.data.path()).newest()),
    };
    if map.groups().is_empty() {
        let text = "this node knows no cluster map, so what the groups own can't be told";
        return Err(Failure::new(Exit::Refused, text).help(
            "recover the placement group (0) first, or have this node run beside one that knows it",
        ));
    }
    let mut moves = Vec::new();
    let mut successors = BTreeMap::new();
    for group in work
        .groups
        .iter()
        .filter(|group| **group != PLACEMENT_GROUP)
    {
        let number = map.number_after(*group);
        let replayed = shop.replayed(*group, number)?;
        let (step, _) = shop.finished(replayed, number, |_| Vec::new())?;
        let replica = step.new.replica;
        let group = *group;
        successors.insert(
            group,
            Successor {
                group: number,
                replica,
            },
        );
        moves.push(step);
    }
    let change = |groups: BTreeMap<GroupId, Successor>| Change::Recover {
        node: work.report.node,
        lost: work.lost.clone(),
        groups,
    };
    let Some(replayed) = placement else {
        return Ok(Intent::new(moves, change(successors), None));
    };
    let (based_on, epoch) = (map.version(), ownership(&replayed.state)?);
    let place = |replica: ReplicaId| {
        let group = PLACEMENT_GROUP;
        successors.insert(group, Successor { group, replica });
        let change = change(successors.clone());
        vec![Routed {
            partition: PLACEMENT_PARTITION,
            epoch,
            command: Command::Place(Place { based_on, change }),
        }]
    };
    let (step, state) = shop.finished(replayed, PLACEMENT_GROUP, place)?;
    moves.push(step);
    let map = read_map(&state)?;
    Ok(Intent::new(moves, change(successors), Some(map)))
}

/// A state with all that the log of its replica holds.
struct Replayed<'a> {
    left: &'a Left,
    log: GroupLog,
    state: GroupStore,
}

/// Where states are built.
struct Shop<'a> {
    work: &'a Work<'a>,
    checkpoints: PathBuf,
    store: Store,
}

impl<'a> Shop<'a> {
    /// The state of a group under a number that may be another, with all that the log holds.
    fn replayed(&self, group: GroupId, number: GroupId) -> Result<Replayed<'a>, Failure> {
        let work = self.work;
        let left = work.report.group(group);
        let left = left.ok_or_else(|| failed(format!("no replica of group {group} is here")))?;
        output::note(format!("recovering group {group} ..."));
        let disk = work.data.disk();
        let published =
            StoredCheckpoint::published(Arc::clone(disk), &work.data.checkpoints(), group)
                .map_err(failed)?;
        if let Some(published) = published {
            published
                .rewrite(Arc::clone(disk), &self.checkpoints, number)
                .map_err(failed)?;
        }
        let mut state = self.store.group(number).map_err(failed)?;
        let log = work.log.log(group, left.replica).map_err(failed)?;
        replay(&log, &mut state).map_err(failed)?;
        Ok(Replayed { left, log, state })
    }

    /// Makes it the state of the only replica of its group.
    fn finished(
        &self,
        replayed: Replayed<'_>,
        number: GroupId,
        commands: impl FnOnce(ReplicaId) -> Vec<Routed>,
    ) -> Result<(Move, GroupStore), Failure> {
        let Replayed {
            left,
            log,
            mut state,
        } = replayed;
        let own = self.work.report.node;
        let member = left.members.iter().find(|member| member.node == own);
        let member = member.ok_or_else(|| failed("this node is no member"))?;
        let rebirth = Rebirth {
            member: Member {
                node: own,
                peer_address: member.peer_address.clone(),
                client_address: member.client_address.clone(),
            },
            at: moment(&state)?,
            partitions: match number {
                PLACEMENT_GROUP => vec![PLACEMENT_PARTITION],
                _ => self.work.cluster.partitions.all().collect(),
            },
        };
        let (position, replica) =
            conclude(&log, &mut state, &rebirth, commands).map_err(|error| match error {
                RecoverError::Refused(_) => Failure::new(Exit::Refused, error),
                error => failed(error),
            })?;
        publish(&mut state)?;
        let step = Move {
            old: RemovedReplica {
                group: left.group,
                replica: left.replica,
            },
            new: HeldReplica {
                group: number,
                replica,
                initialise: false,
            },
            position,
        };
        Ok((step, state))
    }
}

fn publish(state: &mut GroupStore) -> Result<LogPosition, Failure> {
    let cut = state.cut();
    let cut = cut.ok_or_else(|| failed("there is nothing to write"))?;
    let written = cut.write().map_err(failed)?;
    let published = written.publish().map_err(failed)?;
    Ok(published.position())
}

/// When the state is recovered: now, but later than all that it knows, since what is given out from now on is told
/// from older things by the time.
fn moment(state: &GroupStore) -> Result<Timestamp, Failure> {
    let times = state.reader().times().map_err(failed)?;
    let mut moment = SystemClock.now().max(times.clock);
    if times.restored_at > Timestamp::default() {
        moment = moment.max(times.restored_at.plus_millis(1000));
    }
    Ok(moment)
}

fn read_map(state: &GroupStore) -> Result<ClusterMap, Failure> {
    match ask(state, &Query::Map)? {
        Answer::Map(map) => Ok(map),
        _ => Err(failed("the placement group holds no map")),
    }
}

fn ownership(state: &GroupStore) -> Result<Epoch, Failure> {
    match ask(state, &Query::Ownership(PLACEMENT_PARTITION))? {
        Answer::Ownership {
            epoch: Some(epoch), ..
        } => Ok(epoch),
        _ => Err(failed("the placement group has not begun its work")),
    }
}

fn ask(state: &GroupStore, query: &Query) -> Result<Answer, Failure> {
    let reader = state.reader();
    reader
        .query(PLACEMENT_PARTITION, Timestamp::default(), query)
        .map_err(failed)
}

/// Removes what was built, or what an earlier try left behind.
///
/// # Errors
/// The disk's.
pub fn clear(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("{}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

fn check_room(work: &Work<'_>) -> Result<(), Failure> {
    let mut needed = SPARE_BYTES;
    for group in work.groups {
        let folder = work.data.checkpoints().join(group.to_string());
        // Once as files and once in the base.
        needed = needed.saturating_add(crate::inspect::bytes_below(&folder).saturating_mul(2));
    }
    let path = work.data.path();
    let free = work.data.disk().free_bytes(path).map_err(failed)?;
    if free >= needed {
        return Ok(());
    }
    let text = format!(
        "{}: {} are needed, {} are free",
        path.display(),
        size(needed),
        size(free)
    );
    Err(Failure::new(Exit::Failure, text)
        .help("make room: the new state is made beside the old one"))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Storage, error)
}
