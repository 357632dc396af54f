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
use rossby_storage::store::{GroupStore, Store, StoreError, StoredCheckpoint};
use rossby_storage::wal::{GroupLog, Wal};

use super::intent::{Intent, Move};
use super::known::{Left, Report};
use super::maps::{Course, number_after};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::room::check_room;

/// What to do if there is no room.
const MAKE_ROOM: &str = "make room: the new state is made beside the old one";
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
    /// The newest map that any node knows which is left.
    pub map: &'a ClusterMap,
    /// Numbers that no group may get.
    pub taken: BTreeSet<GroupId>,
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
    refuse_full(work)?;
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
        Some(replayed) => replayed.map()?,
        None => work.map.clone(),
    };
    let others = work.groups.iter().copied();
    let others: Vec<GroupId> = others.filter(|group| *group != PLACEMENT_GROUP).collect();
    refuse_unknown(&map, placement.is_some(), &others)?;
    let mut moves = Vec::new();
    let mut successors = BTreeMap::new();
    let mut taken = work.taken.clone();
    for group in others {
        let number = number_after(&map, group, &taken);
        taken.insert(number);
        let replayed = shop.replayed(group, number)?;
        let (step, _) = shop.finished(replayed, number, |_| Vec::new())?;
        let replica = step.new.replica;
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
    let map = read_map(&state).map_err(failed)?;
    Ok(Intent::new(moves, change(successors), Some(map)))
}

/// The map must tell what the groups own.
fn refuse_unknown(map: &ClusterMap, is_last_word: bool, groups: &[GroupId]) -> Result<(), Failure> {
    if map.groups().is_empty() {
        let text = "this node knows no cluster map, so what the groups own can't be told";
        return Err(Failure::new(Exit::Refused, text).help(
            "recover the placement group (0) first, or have this node run beside one that knows it",
        ));
    }
    // A placement group that is left alone may know of groups that this node has not heard of.
    let is_unknown = |group: &&GroupId| is_last_word && !map.groups().contains_key(group);
    match groups.iter().find(is_unknown) {
        None => Ok(()),
        Some(group) => {
            let text = format!("no cluster map that is left tells what group {group} owns");
            Err(Failure::new(Exit::Refused, text).help(
                "bring the reports of the other nodes that are left: one of them may know a newer map. If none does, \
                 name with --group what can be recovered without this group",
            ))
        }
    }
}

/// A state with all that the log of its replica holds.
struct Replayed<'a> {
    left: &'a Left,
    log: GroupLog,
    state: GroupStore,
    /// The map that takes the place of the one in the state.
    taken_over: Option<&'a ClusterMap>,
}

impl Replayed<'_> {
    /// The map that the placement group goes on with.
    fn map(&self) -> Result<ClusterMap, Failure> {
        match self.taken_over {
            Some(map) => Ok(map.clone()),
            None => read_map(&self.state).map_err(failed),
        }
    }
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
        let mut course = match group {
            PLACEMENT_GROUP => {
                let committed = read_map(&state).map_err(failed)?;
                Some(Course::from(&committed, work.map))
            }
            _ => None,
        };
        let passed = |state: &GroupStore| {
            if let Some(course) = &mut course {
                course.pass(&read_map(state)?);
            }
            Ok(())
        };
        replay(&log, &mut state, passed).map_err(failed)?;
        let taken_over = course.and_then(Course::taken_over);
        if let Some(map) = taken_over {
            let version = map.version();
            output::note(format!(
                "the cluster map of version {version} takes the place of the one in the placement group's log, which \
                 does not come to it"
            ));
        }
        Ok(Replayed {
            left,
            log,
            state,
            taken_over,
        })
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
            taken_over,
        } = replayed;
        let own = self.work.report.node;
        let mut members = left.all_members();
        let member = members.find(|member| member.replica == left.replica);
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
            map: taken_over.cloned(),
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

fn read_map(state: &GroupStore) -> Result<ClusterMap, StoreError> {
    match ask(state, &Query::Map)? {
        Answer::Map(map) => Ok(map),
        _ => Ok(ClusterMap::default()),
    }
}

fn ownership(state: &GroupStore) -> Result<Epoch, Failure> {
    match ask(state, &Query::Ownership(PLACEMENT_PARTITION)).map_err(failed)? {
        Answer::Ownership {
            epoch: Some(epoch), ..
        } => Ok(epoch),
        _ => Err(failed("the placement group has not begun its work")),
    }
}

fn ask(state: &GroupStore, query: &Query) -> Result<Answer, StoreError> {
    let reader = state.reader();
    reader.query(PLACEMENT_PARTITION, Timestamp::default(), query)
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

fn refuse_full(work: &Work<'_>) -> Result<(), Failure> {
    let mut needed = SPARE_BYTES;
    for group in work.groups {
        let folder = work.data.checkpoints().join(group.to_string());
        // Once as files and once in the base.
        needed = needed.saturating_add(crate::inspect::bytes_below(&folder).saturating_mul(2));
    }
    check_room(&**work.data.disk(), work.data.path(), needed, MAKE_ROOM)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Storage, error)
}
