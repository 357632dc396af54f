//! A process that holds replicas, as long as it lives: what the `rossby` binary wires, but for the listeners. How
//! it begins is in `birth.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rossby_api::admin::OperatorError;
use rossby_api::peer::{GroupReport, PlannedStep};
use rossby_api::placement::{
    By, MapKeeper, Orders, PlannedChange, Replicas, begin_step, reconcile, reports,
};
use rossby_api::{Code, MailboxService, Router, Workers};
use rossby_domain::command::Place;
use rossby_domain::ids::{GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{
    Change, ClusterMap, PLACEMENT_GROUP, PLACEMENT_PARTITION, PlacementRefusal,
};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};
use rossby_raft::{
    Advance, Blocking, ChangeError, Deed, Group, Groups, InitializeError, Newcomers, Order,
    StartError, Witness,
};
use rossby_seams::random::SeededRandom;
use rossby_storage::datadir::{DataDirectory, DataDirectoryError, HeldReplica};
use rossby_storage::store::{Reader, Store, StoreError};
use rossby_storage::wal::{Wal, WalError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::birth::{Birth, metrics};
use super::layout::Layout;
use super::node::Common;
use super::peers::LifeGround;
use super::trap::Moment;
use crate::observe::{Digest, ReplicaEvent, What, Who, events_of};

/// States are compared at every entry whose index is a multiple of this.
const COMPARE_EVERY: u64 = 16;
/// Between two looks whether a process has stopped by itself.
const LOOK: Duration = Duration::from_millis(250);
/// Between two tries to bring the first map into the log, and how long one may take.
const FOUND_AGAIN: Duration = Duration::from_millis(200);
const FOUND_WITHIN: Duration = Duration::from_secs(5);
/// How long one try to read or change the map may take.
pub(super) const MAP_WITHIN: Duration = Duration::from_secs(5);
/// How long one call may carry an order on, and how long leadership may take to go elsewhere.
pub(super) const AT_THE_LEADER: Duration = Duration::from_secs(20);
const TRANSFER_WITHIN: Duration = Duration::from_secs(10);

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
    /// A group was not brought to life.
    #[error("the group's beginning: {0}")]
    Initialize(#[from] InitializeError),
    /// A replica is to bring a group to life that is in no map.
    #[error("the plan of group {0} is missing")]
    NoPlan(GroupId),
    /// The map could not be written down.
    #[error("the map: {0}")]
    Map(io::Error),
    /// The process ended while it started.
    #[error("it ended while it started")]
    Ended,
}

/// A data directory that a process has open.
pub(super) type Data = Arc<Mutex<DataDirectory>>;

/// A process.
pub struct Life {
    /// Where it runs.
    pub node: NodeId,
    /// Ends with it.
    pub gone: CancellationToken,
    /// Its replicas.
    pub replicas: Arc<Replicas>,
    /// Its service.
    pub mailbox: Arc<MailboxService>,
    /// What it knows of where things are.
    pub router: Arc<Router>,
    /// Which groups have their members changed here.
    pub orders: Orders,
    /// The newest map that it knows, where there is one.
    pub(super) keeper: Option<Arc<MapKeeper>>,
    pub(super) parts: Birth,
    pub(super) groups: Arc<Groups>,
    pub(super) store: Store,
    pub(super) wal: Wal,
    pub(super) writer: JoinHandle<()>,
    pub(super) witness: Arc<LifeWitness>,
}

impl Life {
    /// Takes a started replica in, with the work that belongs to it.
    pub(super) fn take_in(self: &Arc<Self>, group: Arc<Group>) {
        let (id, stop) = (group.id(), self.gone.child_token());
        let common = &self.parts.common;
        let dice = self.parts.dice.stream(&format!("group {id}"));
        let workers = Workers {
            group: Arc::clone(&group),
            router: Arc::clone(&self.router),
            partitions: common.layout.partitions,
            limits: common.limits,
            secrets: Arc::clone(&common.secrets),
            courier: Arc::new(common.codes.clone()),
            random: Arc::new(SeededRandom::new(dice.seed_of("workers"))),
            metrics: metrics(),
        };
        workers.spawn(&TaskTracker::new(), &stop);
        if let Some(keeper) = self.keeper.as_ref().filter(|_| id == PLACEMENT_GROUP) {
            tokio::spawn(Arc::clone(keeper).follow(Arc::clone(&group), stop.clone()));
        }
        tokio::spawn(look_on(Arc::clone(self), Arc::clone(&group)));
        self.replicas.insert(group, stop);
    }

    /// What it does beside the work of its groups, where there is a map.
    pub(super) fn work(self: &Arc<Self>) {
        let Some(keeper) = &self.keeper else { return };
        let (gone, source) = (self.gone.clone(), self.parts.peers(&self.gone));
        tokio::spawn(Arc::clone(keeper).keep(Blocking::Inline, gone.clone()));
        let groups = Arc::clone(&self.groups);
        tokio::spawn(Arc::clone(keeper).introduce(self.node, groups, gone.clone()));
        tokio::spawn(tell_maps(Arc::clone(&self.witness), Arc::clone(keeper)));
        tokio::spawn(found_map(Arc::clone(self)));
        let life = Arc::clone(self);
        tokio::spawn(async move {
            let random = SeededRandom::new(life.parts.dice.seed_of("maps"));
            let asked = life.keeper.iter().map(|keeper| {
                keeper.ask_others(&source, (life.node, &life.replicas), &random, &life.gone)
            });
            futures_util::future::join_all(asked).await;
        });
        tokio::spawn(reconcile(Arc::new(self.ground()), Layout::patience(), gone));
    }

    /// It and the others, as the plan and orders of placement meet them.
    pub(super) fn ground(self: &Arc<Self>) -> LifeGround {
        LifeGround {
            life: Arc::clone(self),
            peers: self.parts.peers(&self.gone),
        }
    }

    /// Has the placement group change the map. Twin of `change_map_anywhere` in `rossby_node`.
    pub(super) async fn change_map(&self, change: Change) -> Result<MapVersion, MapTrouble> {
        let deadline = Instant::now() + MAP_WITHIN;
        let map = self.read_map(deadline).await.ok_or(MapTrouble::Passing)?;
        let command = || {
            let (based_on, change) = (map.version(), change.clone());
            let place = Command::Place(Place { based_on, change });
            vec![(PLACEMENT_PARTITION, place)]
        };
        let proposed = self.router.propose(PLACEMENT_GROUP, command, deadline);
        let proposed = proposed.await.map_err(|error| match error.code() {
            Code::OutcomeUnknown => MapTrouble::Unknown,
            _ => MapTrouble::Passing,
        });
        match proposed?.replies.pop() {
            Some(Ok(Outcome::Placed { version })) => Ok(version),
            Some(Err(Rejection::PlacementRefused(PlacementRefusal::Unchanged))) => {
                Ok(map.version())
            }
            Some(Err(Rejection::PlacementRefused(refusal))) => Err(MapTrouble::Refused(refusal)),
            _ => Err(MapTrouble::Passing),
        }
    }

    /// The map as the placement group has it now; `None` if nobody tells, or it is not founded yet.
    pub(super) async fn read_map(&self, deadline: Instant) -> Option<ClusterMap> {
        let asked = self
            .router
            .ask(PLACEMENT_GROUP, PLACEMENT_PARTITION, Query::Map, deadline);
        match asked.await {
            Ok(Answer::Map(map)) if map.version() > MapVersion(0) => Some(map),
            _ => None,
        }
    }

    /// Holds one more replica, in the order of `rossby_node`: in the identity first, then running.
    pub(super) async fn hold(self: &Arc<Self>, held: HeldReplica) -> Result<(), LifeError> {
        let held = BTreeSet::from([held]);
        self.parts.take_places(&held)?;
        let keeper = self.keeper.as_deref();
        let starting = self.parts.start(&self.groups, &self.witness, keeper, &held);
        let started = self.gone.run_until_cancelled(starting).await;
        for group in started.ok_or(LifeError::Ended)?? {
            self.take_in(group);
        }
        Ok(())
    }

    /// Takes a map in that it was given.
    pub(super) fn offer(&self, map: Option<Arc<ClusterMap>>) {
        if let (Some(keeper), Some(map)) = (&self.keeper, map) {
            keeper.offer(map);
        }
    }

    /// Writes the newest map down: whoever brings a group to life finds its first members there, after a crash too.
    pub(super) fn keep_map(&self) -> Result<(), LifeError> {
        let written = self.keeper.as_ref().map(|keeper| keeper.write_newest());
        written.transpose().map(drop).map_err(LifeError::Map)
    }

    /// The newest map that it knows, where there is one.
    #[must_use]
    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.keeper.as_ref().map(|keeper| keeper.newest())
    }

    /// Which replica of a group it holds.
    #[must_use]
    pub fn replica(&self, group: GroupId) -> Option<ReplicaId> {
        self.replicas.get(group).map(|group| group.replica())
    }

    /// What the groups that are led here tell whoever plans.
    pub(super) fn reports(&self) -> Vec<GroupReport> {
        let directory = self.router.directory();
        reports(self.node, &self.replicas, directory, &self.orders)
    }

    /// Carries a step of the plan on, if the group is led here.
    pub(super) async fn lead_step(
        &self,
        group: GroupId,
        planned: PlannedStep,
    ) -> Result<(), OperatorError> {
        let unavailable = |text: String| OperatorError::Unavailable(text);
        let replica = self.replicas.get(group);
        let replica = replica.ok_or_else(|| unavailable("no replica here".to_owned()))?;
        let map = self.map().unwrap_or_default();
        let (_running, change) = begin_step(&replica, &self.orders, &map, planned)?;
        let carried = match change {
            PlannedChange::Leader(to) => {
                let deadline = Instant::now() + TRANSFER_WITHIN;
                let led = replica.transfer_leader(Some(to), deadline).await;
                return led
                    .map(drop)
                    .map_err(|error| unavailable(error.to_string()));
            }
            PlannedChange::Members(order) => {
                let deadline = Instant::now() + AT_THE_LEADER;
                self.carry_on(&replica, &order, By::Plan, deadline).await
            }
        };
        carried
            .map(drop)
            .map_err(|error| unavailable(error.to_string()))
    }

    /// Carries an order about the members of a group on by as much as can be done at once; whether it is done.
    /// Twin of `carry_on` in `rossby_node`.
    pub(super) async fn carry_on(
        &self,
        group: &Group,
        order: &Order,
        by: By,
        deadline: Instant,
    ) -> Result<bool, CarryError> {
        let mut newcomers = Newcomers::new();
        loop {
            let copies = self.copies_of(group.id(), by);
            let advanced = group.advance_beside(order, &newcomers, &copies, deadline);
            match advanced.await? {
                Advance::Ask => {
                    for new in order.newcomers() {
                        let id = group.id();
                        let common = &self.parts.common;
                        let asked =
                            common.visit(self.node, new.node, async move |node| node.describe(id));
                        let found = asked.await.flatten().ok_or(CarryError::Silent(new.node))?;
                        newcomers.insert(new.node, found);
                    }
                }
                Advance::Invite { replica, member } => {
                    let (id, map) = (group.id(), self.map());
                    let common = &self.parts.common;
                    let inviting = common.visit(self.node, member.node, async move |node| {
                        let held = HeldReplica {
                            group: id,
                            replica,
                            initialise: false,
                        };
                        let joined = node.join(held, map).await;
                        if let Err(error) = &joined {
                            tracing::info!(node = %node.id, %error, "did not join");
                        }
                        joined.is_ok()
                    });
                    if inviting.await != Some(true) {
                        return Err(CarryError::Silent(member.node));
                    }
                    newcomers.remove(&member.node);
                }
                Advance::CatchingUp { .. } | Advance::HandedOver { .. } => return Ok(false),
                Advance::Done { .. } => return Ok(true),
            }
        }
    }

    /// The nodes on which a member without a vote is no half-done order's. Twin of `copies_of` in `rossby_node`.
    fn copies_of(&self, group: GroupId, by: By) -> BTreeSet<NodeId> {
        let map = self.map().unwrap_or_default();
        let nodes = map.nodes().keys().copied();
        let stays = |node: &NodeId| by == By::Plan || map.keeps_copy(group, *node);
        nodes.filter(stays).collect()
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

/// Why the map was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MapTrouble {
    /// It makes no map.
    Refused(PlacementRefusal),
    /// Nothing was done: somebody does not answer, or another change came first.
    Passing,
    /// Nobody knows.
    Unknown,
}

/// Why an order went no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarryError {
    /// In the group.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// This node did not do what it was asked for.
    #[error("node {0} does not answer")]
    Silent(NodeId),
}

/// Writes down that a replica was removed from its group, so that it never starts again.
pub(super) fn bury(
    data: &Data,
    group: GroupId,
    replica: ReplicaId,
) -> Result<(), DataDirectoryError> {
    let mut data = data.lock();
    match data.identity().map(|known| known.without(group, replica)) {
        Some(identity) => data.save(identity),
        None => Ok(()),
    }
}

/// Says when a replica has stopped by itself, and buries one that was removed.
async fn look_on(life: Arc<Life>, group: Arc<Group>) {
    let (id, replica) = (group.id(), group.replica());
    loop {
        if group.is_dismissed() {
            life.witness.replica(id, replica, ReplicaEvent::Dismissed);
            if let Err(error) = bury(&life.parts.data, id, replica) {
                // Its log knows it too.
                tracing::info!(%error, "the removal was not written down");
            }
            // Where there is no other group, a process without a replica is one that was removed.
            if life.parts.common.layout.has_map() {
                life.replicas.remove(id);
            }
            return;
        }
        if let Some(reason) = group.status().failure {
            life.witness.node(What::Stopped { reason });
            return;
        }
        tokio::select! {
            biased;
            () = life.gone.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// Tells of each map that a process takes for the newest.
async fn tell_maps(witness: Arc<LifeWitness>, keeper: Arc<MapKeeper>) {
    let mut newest = keeper.watch();
    loop {
        let map = Arc::clone(&newest.borrow_and_update());
        witness.node(What::KnowsMap {
            version: map.version(),
            nodes: map.nodes().keys().copied().collect(),
            content: Digest::of(format!("{map:?}").as_bytes()),
        });
        tokio::select! {
            biased;
            () = witness.gone.cancelled() => return,
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}

/// Brings the first map into the placement group's log, whenever that is led here, until it is there. Twin
/// of `found_map` in `rossby_node`.
async fn found_map(life: Arc<Life>) {
    let Some((change, _)) = &life.parts.common.layout.first else {
        return;
    };
    loop {
        let waited = life.gone.run_until_cancelled(sleep(FOUND_AGAIN)).await;
        if waited.is_none() {
            return;
        }
        let Some(group) = life.replicas.get(PLACEMENT_GROUP) else {
            continue;
        };
        match group.read_local(PLACEMENT_PARTITION, &Query::Map) {
            Ok(Answer::Map(map)) if map.version() > MapVersion(0) => return,
            _ => {}
        }
        if group.leads_surely() && group.epoch(PLACEMENT_PARTITION).is_some() {
            let command = Command::Place(Place {
                based_on: MapVersion(0),
                change: change.clone(),
            });
            let deadline = Instant::now() + FOUND_WITHIN;
            let proposing = group.propose(vec![(PLACEMENT_PARTITION, command)], deadline);
            let proposed = life.gone.run_until_cancelled(proposing).await;
            tracing::debug!(?proposed, "founding the map");
        }
    }
}

/// Sees what a process does until it is gone.
#[derive(Debug)]
pub(super) struct LifeWitness {
    pub(super) common: Arc<Common>,
    pub(super) node: NodeId,
    pub(super) gone: CancellationToken,
    pub(super) readers: Mutex<BTreeMap<GroupId, Reader>>,
}

impl LifeWitness {
    pub(super) fn node(&self, what: What) {
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
        let reader = self.readers.lock().get(&group).cloned();
        let Some(Ok((Some(at), digests))) = reader.map(|reader| reader.digests()) else {
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
