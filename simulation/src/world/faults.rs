//! Faults: what goes wrong, when, and for how long. All of it is drawn from the seed.
//!
//! Each fault begins, lasts and ends by itself; several may last at a time. When the steps are
//! over, [`Faults::heal`] ends them all for good.

mod growth;
mod members;
mod regions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rossby_domain::ids::NodeId;
use rossby_domain::time::DAY_MS;
use rossby_raft::Leadership;
use rossby_seams::disk::{DiskFault, PowerLoss};
use rossby_seams::transport::{Conditions, Cut};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::dice::Dice;
use super::node::{Common, Node};
use super::operator::Operator;
use super::trap::Moment;
use super::wire::Ways;
use crate::observe::{What, Who};

/// As far as the power may fail in the midst of what a node does, in writes.
const MID_WRITE: u64 = 60;
/// How long it is waited for the power to fail in the midst of something.
const MID_WRITE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a trap stays set.
const MOMENT_PATIENCE: Duration = Duration::from_secs(15);
/// How far ahead a failing operation may lie.
const MID_OPERATION: u64 = 40;
/// Between two tries to start a node.
const START_AGAIN: Duration = Duration::from_secs(2);

/// The kinds of faults, and how often each is drawn.
const KINDS: &[(Kind, u64)] = &[
    (Kind::Crash, 20),
    (Kind::CrashMidWrite, 14),
    (Kind::CrashAtMoment, 16),
    (Kind::Restart, 5),
    (Kind::PowerLossEverywhere, 5),
    (Kind::OneWayCut, 10),
    (Kind::Isolation, 10),
    (Kind::LongIsolation, 12),
    (Kind::LonelyLeader, 10),
    (Kind::Weather, 10),
    (Kind::BadWays, 6),
    (Kind::DiskError, 7),
    (Kind::DiskFull, 7),
    (Kind::SlowDisk, 6),
    (Kind::Frozen, 6),
    (Kind::SmallClockJump, 4),
    (Kind::ClockJump, 5),
    (Kind::LongClockJump, 3),
    (Kind::ChangeOfMembers, 10),
    (Kind::LostDisk, 5),
    (Kind::TurnedBit, 7),
];

/// Those that are drawn beside them where there are regions.
const KINDS_OF_REGIONS: &[(Kind, u64)] = &[
    (Kind::RegionCut, 22),
    (Kind::RegionLoss, 12),
    (Kind::ChangeOfPlacement, 34),
    (Kind::WorkAstray, 14),
    (Kind::ClockDrift, 8),
    (Kind::GroupAdded, 12),
    (Kind::JoinByToken, 24),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Crash,
    CrashMidWrite,
    CrashAtMoment,
    Restart,
    PowerLossEverywhere,
    OneWayCut,
    Isolation,
    LongIsolation,
    LonelyLeader,
    Weather,
    BadWays,
    DiskError,
    DiskFull,
    SlowDisk,
    Frozen,
    SmallClockJump,
    ClockJump,
    LongClockJump,
    ChangeOfMembers,
    LostDisk,
    TurnedBit,
    RegionCut,
    RegionLoss,
    ChangeOfPlacement,
    WorkAstray,
    ClockDrift,
    GroupAdded,
    JoinByToken,
}

/// The faults of a world.
pub struct Faults {
    common: Arc<Common>,
    nodes: Vec<Arc<Node>>,
    ways: Arc<Ways>,
    dice: Dice,
    /// Node by node: held while its process is ended or started, or its disk is at fault.
    turns: Vec<Arc<tokio::sync::Mutex<()>>>,
    cuts: AtomicU64,
    operator: Arc<Operator>,
    /// A member that has lost its disk and has not been replaced yet. Locked while the members change.
    lost: tokio::sync::Mutex<Option<NodeId>>,
}

impl Faults {
    /// The faults of these nodes.
    #[must_use]
    pub fn new(
        common: Arc<Common>,
        nodes: Vec<Arc<Node>>,
        ways: Arc<Ways>,
        operator: Arc<Operator>,
    ) -> Self {
        let dice = common.dice.stream("faults");
        let turns = nodes.iter().map(|_| Arc::default()).collect();
        Self {
            common,
            nodes,
            ways,
            dice,
            turns,
            cuts: AtomicU64::new(0),
            operator,
            lost: tokio::sync::Mutex::default(),
        }
    }

    /// Lets things go wrong until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut lasting = JoinSet::new();
        loop {
            sleep(self.dice.millis(300, 6_000)).await;
            while lasting.try_join_next().is_some() {}
            if lasting.len() < 3 {
                let kind = self.draw();
                lasting.spawn(Arc::clone(&self).happen(kind));
            }
        }
    }

    fn draw(&self) -> Kind {
        let of_regions = match self.common.layout.has_map() {
            true => KINDS_OF_REGIONS,
            false => &[],
        };
        let kinds = || KINDS.iter().chain(of_regions);
        let total: u64 = kinds().map(|(_, often)| often).sum();
        let mut drawn = self.dice.between(1, total);
        for (kind, often) in kinds() {
            if drawn <= *often {
                return *kind;
            }
            drawn -= often;
        }
        Kind::Crash
    }

    fn on(&self, what: &str) {
        let what = What::FaultOn(what.to_owned());
        self.common.recorder.saw(Who::World, what);
    }

    fn off(&self, what: &str) {
        let what = What::FaultOff(what.to_owned());
        self.common.recorder.saw(Who::World, what);
    }

    /// One of the nodes that are no spares.
    fn some_node(&self) -> (Arc<Node>, Arc<tokio::sync::Mutex<()>>) {
        let all = 0..self.nodes.len();
        #[expect(clippy::indexing_slicing, reason = "one for each node")]
        let used: Vec<usize> = all.filter(|at| !self.nodes[*at].is_spare()).collect();
        let at = self.dice.pick(&used).copied().unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "both have one for each node")]
        (Arc::clone(&self.nodes[at]), Arc::clone(&self.turns[at]))
    }

    fn others(&self, node: NodeId) -> Vec<NodeId> {
        let there = self.nodes.iter().filter(|node| node.is_there());
        let ids = there.map(|node| node.id);
        ids.filter(|id| *id != node).collect()
    }

    fn loss(&self) -> PowerLoss {
        match self.dice.between(0, 2) {
            0 => PowerLoss::KeepAll,
            1 => PowerLoss::DropUnsynced,
            _ => PowerLoss::KeepSome {
                seed: self.dice.draw(),
            },
        }
    }

    async fn happen(self: Arc<Self>, kind: Kind) {
        match kind {
            Kind::Crash => self.crash().await,
            Kind::CrashMidWrite => self.crash_mid_write().await,
            Kind::CrashAtMoment => self.crash_at_moment().await,
            Kind::Restart => self.restart().await,
            Kind::PowerLossEverywhere => self.power_loss_everywhere().await,
            Kind::OneWayCut => self.one_way_cut().await,
            Kind::Isolation => self.isolation(1_000, 6_000).await,
            Kind::LongIsolation => self.isolation(10_000, 25_000).await,
            Kind::LonelyLeader => self.lonely_leader().await,
            Kind::Weather => self.weather().await,
            Kind::BadWays => self.bad_ways().await,
            Kind::DiskError => self.disk_error().await,
            Kind::DiskFull => self.disk_full().await,
            Kind::SlowDisk => self.slow_disk().await,
            Kind::Frozen => self.frozen().await,
            Kind::SmallClockJump => self.clock_jump(200, 8_000).await,
            Kind::ClockJump => self.clock_jump(11_000, 3_600_000).await,
            Kind::LongClockJump => self.clock_jump(8 * DAY_MS, 60 * DAY_MS).await,
            Kind::ChangeOfMembers if self.common.layout.has_map() => {
                Box::pin(self.change_placement()).await;
            }
            Kind::ChangeOfMembers => Box::pin(self.change_members()).await,
            Kind::LostDisk => Box::pin(self.lose_disk(false)).await,
            Kind::TurnedBit => Box::pin(self.lose_disk(true)).await,
            Kind::RegionCut => self.region_cut().await,
            Kind::RegionLoss => self.region_loss().await,
            Kind::ChangeOfPlacement => Box::pin(self.change_placement()).await,
            Kind::WorkAstray => self.work_astray().await,
            Kind::ClockDrift => self.clock_drift().await,
            Kind::GroupAdded => Box::pin(self.add_group()).await,
            Kind::JoinByToken => self.join_by_token().await,
        }
    }

    async fn crash(&self) {
        let (node, turn) = self.some_node();
        let _turn = turn.lock().await;
        node.crash(self.loss());
        sleep(self.dice.millis(50, 8_000)).await;
        self.start(&node).await;
    }

    /// The power fails between two writes of something that the node does.
    async fn crash_mid_write(&self) {
        let (node, turn) = self.some_node();
        let _turn = turn.lock().await;
        let loss = self.loss();
        let while_starting = self.dice.permille(300);
        if while_starting {
            node.crash(loss);
        }
        let disk = node.disk();
        let at = disk.mutations() + self.dice.between(1, MID_WRITE);
        disk.stop_at_mutation(at);
        if while_starting {
            // Whether it starts or not: its power fails now or soon.
            let _refused = node.start_in_vain().await;
        }
        let patience = tokio::time::Instant::now() + MID_WRITE_PATIENCE;
        while disk.mutations() + 1 < at && tokio::time::Instant::now() < patience {
            sleep(Duration::from_millis(1)).await;
        }
        node.crash(loss);
        sleep(self.dice.millis(50, 4_000)).await;
        self.start(&node).await;
    }

    /// The power fails right after a promise: a vote, a report that something is durable, a
    /// checkpoint. Mostly on a node whose disk is slow, so that its log lags behind what it knows.
    async fn crash_at_moment(&self) {
        let Some(moment) = self.dice.pick(&Moment::ALL).copied() else {
            return;
        };
        let (slow, _) = self.some_node();
        let is_slow = self.dice.permille(700);
        let whose = (is_slow && moment != Moment::Vote).then_some(slow.id);
        let Some(trap) = self.common.trap.set(moment, whose) else {
            return;
        };
        let what = format!("a trap for {moment:?}");
        self.on(&what);
        if is_slow {
            slow.set_slowness(self.dice.millis(50, 700));
        }
        let bait = if moment == Moment::Vote {
            self.end_the_reign()
        } else {
            None
        };
        let sprung = timeout(MOMENT_PATIENCE, trap.sprung()).await;
        drop(trap);
        if let Ok(victim) = sprung {
            sleep(self.dice.millis(0, 3)).await;
            self.lose_power(victim, PowerLoss::DropUnsynced).await;
        }
        slow.set_slowness(Duration::ZERO);
        if let Some((leader, _turn)) = bait {
            self.start(&leader).await;
        }
        self.off(&what);
    }

    /// Kills the leader, if there is one and nothing else befalls it, so that the others vote.
    fn end_the_reign(&self) -> Option<(Arc<Node>, OwnedMutexGuard<()>)> {
        let at = self.nodes.iter().position(leads)?;
        let (leader, turn) = (self.nodes.get(at)?, self.turns.get(at)?);
        let turn = Arc::clone(turn).try_lock_owned().ok()?;
        leader.crash(PowerLoss::KeepAll);
        Some((Arc::clone(leader), turn))
    }

    /// Crashes a node, unless something else befalls it, and starts it again.
    async fn lose_power(&self, id: NodeId, loss: PowerLoss) {
        let mut all = self.nodes.iter().zip(&self.turns);
        let Some((node, turn)) = all.find(|(node, _)| node.id == id) else {
            return;
        };
        let Ok(_turn) = turn.try_lock() else { return };
        node.crash(loss);
        sleep(self.dice.millis(50, 3_000)).await;
        self.start(node).await;
    }

    async fn restart(&self) {
        let (node, turn) = self.some_node();
        let _turn = turn.lock().await;
        let what = format!("restart of node {}", node.id);
        self.on(&what);
        node.shut_down().await;
        self.off(&what);
        sleep(self.dice.millis(50, 2_000)).await;
        self.start(&node).await;
    }

    async fn power_loss_everywhere(&self) {
        self.on("power loss on every node");
        let mut turns = Vec::new();
        for turn in &self.turns {
            turns.push(turn.lock().await);
        }
        for node in &self.nodes {
            node.crash(self.loss());
        }
        self.off("power loss on every node");
        sleep(self.dice.millis(50, 3_000)).await;
        for node in self.nodes.iter().filter(|node| node.is_there()) {
            sleep(self.dice.millis(0, 1_000)).await;
            self.start(node).await;
        }
    }

    /// Starts a node, again and again if its disk has no room.
    async fn start(&self, node: &Node) {
        while let Err(error) = node.start().await {
            tracing::info!(node = %node.id, %error, "did not start");
            sleep(START_AGAIN).await;
        }
    }

    /// Cuts last side by side; they end together.
    fn cut_ends(&self) {
        if self.cuts.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.common.network.heal();
            self.off("cuts");
        }
    }

    async fn one_way_cut(&self) {
        let (node, _) = self.some_node();
        let from = node.id;
        let others = self.others(from);
        let Some(to) = self.dice.pick(&others) else {
            return;
        };
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.on(&format!("silent cut from node {from} to node {to}"));
        self.common.network.cut(from, *to, Cut::Silent);
        sleep(self.dice.millis(500, 8_000)).await;
        self.cut_ends();
    }

    async fn isolation(&self, least: u64, most: u64) {
        let (node, _) = self.some_node();
        let how = if self.dice.permille(500) {
            Cut::Silent
        } else {
            Cut::Broken
        };
        self.isolate(node.id, how, self.dice.millis(least, most))
            .await;
    }

    /// The others elect another leader, and people still reach this one.
    async fn lonely_leader(&self) {
        if let Some(leader) = self.nodes.iter().find(|node| leads(node)) {
            let time = self.dice.millis(3_000, 6_000);
            self.isolate(leader.id, Cut::Silent, time).await;
        }
    }

    async fn isolate(&self, node: NodeId, how: Cut, time: Duration) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        self.on(&format!("{how:?} isolation of node {node}"));
        for other in self.others(node) {
            self.common.network.cut_both(node, other, how);
        }
        sleep(time).await;
        self.cut_ends();
    }

    async fn weather(&self) {
        let conditions = Conditions {
            delay: self.dice.millis(1, 120),
            jitter: self.dice.millis(0, 150),
            lost_permille: u16::try_from(self.dice.between(0, 60)).unwrap_or_default(),
        };
        self.on(&format!(
            "weather: {:?} and up to {:?} more, {} of 1000 lost",
            conditions.delay, conditions.jitter, conditions.lost_permille
        ));
        self.common.network.set_usual(conditions);
        self.set_ways_between_regions(Some(conditions));
        sleep(self.dice.millis(2_000, 15_000)).await;
        self.common.network.set_usual(calm());
        self.set_ways_between_regions(None);
        self.off("weather");
    }

    async fn bad_ways(&self) {
        self.on("bad ways between devices and nodes");
        let lost = self.dice.between(50, 400);
        self.ways.lost_permille.store(lost, Ordering::SeqCst);
        let slowness = self.dice.between(0, 500);
        self.ways.slowness_ms.store(slowness, Ordering::SeqCst);
        sleep(self.dice.millis(2_000, 10_000)).await;
        self.ways.lost_permille.store(0, Ordering::SeqCst);
        self.ways.slowness_ms.store(0, Ordering::SeqCst);
        self.off("bad ways between devices and nodes");
    }

    async fn disk_error(&self) {
        let (node, turn) = self.some_node();
        let _turn = turn.lock().await;
        let what = format!("input/output error on node {}", node.id);
        self.on(&what);
        let disk = node.disk();
        let at = disk.operations() + self.dice.between(1, MID_OPERATION);
        disk.fail_operation(at, DiskFault::Io);
        sleep(self.dice.millis(1_000, 8_000)).await;
        node.crash(self.loss());
        self.off(&what);
        sleep(self.dice.millis(50, 2_000)).await;
        self.start(&node).await;
    }

    async fn disk_full(&self) {
        let (node, turn) = self.some_node();
        let _turn = turn.lock().await;
        let what = format!("full disk on node {}", node.id);
        self.on(&what);
        let disk = node.disk();
        disk.set_capacity(disk.used_bytes() + self.dice.between(0, 200_000));
        sleep(self.dice.millis(1_000, 15_000)).await;
        node.disk().set_capacity(u64::MAX);
        self.off(&what);
    }

    async fn slow_disk(&self) {
        let (node, _) = self.some_node();
        let what = format!("slow disk on node {}", node.id);
        self.on(&what);
        node.set_slowness(self.dice.millis(20, 700));
        sleep(self.dice.millis(2_000, 12_000)).await;
        node.set_slowness(Duration::ZERO);
        self.off(&what);
    }

    /// Nothing goes in or out, and nothing reaches the disk, while its clocks go on.
    async fn frozen(&self) {
        let (node, _) = self.some_node();
        let what = format!("frozen node {}", node.id);
        let time = self.dice.millis(500, 9_000);
        self.on(&what);
        node.set_slowness(time);
        self.ways.frozen.lock().insert(node.id);
        let held = Conditions {
            delay: time,
            ..calm()
        };
        for other in self.others(node.id) {
            let network = &self.common.network;
            network.set_conditions(node.id, other, Some(held));
            network.set_conditions(other, node.id, Some(held));
        }
        sleep(time).await;
        node.set_slowness(Duration::ZERO);
        self.ways.frozen.lock().remove(&node.id);
        for other in self.others(node.id) {
            let usual = self.common.layout.conditions(node.id, other);
            self.common.network.set_conditions(node.id, other, usual);
            self.common.network.set_conditions(other, node.id, usual);
        }
        self.off(&what);
    }

    async fn clock_jump(&self, least: u64, most: u64) {
        let (node, _) = self.some_node();
        let jump = i64::try_from(self.dice.between(least, most)).unwrap_or_default();
        let offset = if self.dice.permille(500) { jump } else { -jump };
        node.set_clock(offset);
        sleep(self.dice.millis(1_000, 15_000)).await;
        node.set_clock(0);
    }

    /// Frames between regions take their time from now on.
    pub fn set_up_ways(&self) {
        self.set_ways_between_regions(None);
    }

    /// Ends every fault for good, but for what is half-way between members. Whatever still lasted must
    /// have been dropped before.
    pub async fn heal(&self) {
        self.common.network.heal();
        self.common.network.set_usual(calm());
        self.ways.lost_permille.store(0, Ordering::SeqCst);
        self.ways.slowness_ms.store(0, Ordering::SeqCst);
        self.ways.frozen.lock().clear();
        self.ways.cut_off.lock().clear();
        self.common.astray_permille.store(0, Ordering::SeqCst);
        self.set_ways_between_regions(None);
        for node in &self.nodes {
            node.disk().set_capacity(u64::MAX);
            node.set_slowness(Duration::ZERO);
            if node.clock.is_off() {
                node.set_clock(0);
            }
            // Faults that were planted in a disk are gone with the process that had it open, and a
            // replica that has stopped by itself starts again.
            node.crash(PowerLoss::KeepAll);
            if node.is_damaged() {
                node.wipe();
            }
            self.start(node).await;
        }
    }
}

/// Whether it leads any of its groups.
fn leads(node: &Arc<Node>) -> bool {
    let life = node.life();
    let groups = life.map(|life| life.replicas.all()).unwrap_or_default();
    let mut groups = groups.iter();
    groups.any(|group| matches!(group.leadership(), Leadership::Here { .. }))
}

/// The network on a quiet day.
#[must_use]
pub fn calm() -> Conditions {
    Conditions {
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(4),
        lost_permille: 0,
    }
}
