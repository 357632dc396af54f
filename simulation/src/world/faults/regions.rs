//! What befalls regions and what is asked of placement: cuts, losses of whole regions, nodes that come and go,
//! another goal, work that goes astray, clocks that run fast or slow.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{Change, NodeState, RegionName, SurvivalGoal};
use rossby_raft::Order;
use rossby_seams::transport::{Conditions, Cut};
use tokio::time::{sleep, timeout};

use super::Faults;
use crate::observe::AdmissionEvent;
use crate::world::layout::member;
use crate::world::operator::Changed;

/// How long the operator waits for a change of the map; it is made or not, whatever he does.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long he waits for a node that is to leave to be empty.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at that.
const LOOK: Duration = Duration::from_secs(1);
/// How much faster or slower a clock runs at most, in millionths: with what it has gained when it is set right
/// within what clocks may differ by.
const DRIFT_PPM: u64 = 200_000;
/// How long it does, in milliseconds.
const DRIFT_MS: (u64, u64) = (5_000, 40_000);
/// A group has as many voters at least if one of them may lose its disk.
const VOTERS_TO_LOSE_ONE: usize = 3;

impl Faults {
    pub(super) fn some_region(&self) -> Option<RegionName> {
        let layout = &self.common.layout;
        let regions: Vec<RegionName> = layout.all_regions().into_iter().cloned().collect();
        self.dice.pick(&regions).cloned()
    }

    /// The nodes of a region, and all others.
    fn split(&self, region: &RegionName) -> (Vec<NodeId>, Vec<NodeId>) {
        let ids = self.nodes.iter().map(|node| node.id);
        ids.partition(|node| self.common.layout.region(*node) == *region)
    }

    /// Nothing comes into a region and nothing gets out, or only one of both.
    pub(super) async fn region_cut(&self) {
        let Some(region) = self.some_region() else {
            return;
        };
        let (inside, outside) = self.split(&region);
        let how = match self.dice.permille(600) {
            true => Cut::Silent,
            false => Cut::Broken,
        };
        let (goes_out, comes_in) = match self.dice.between(0, 3) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        self.cuts.fetch_add(1, Ordering::SeqCst);
        let ways = match (goes_out, comes_in) {
            (true, true) => "both ways",
            (true, false) => "nothing gets out",
            _ => "nothing gets in",
        };
        self.on(&format!("{how:?} cut of region {region}, {ways}"));
        for node in &inside {
            for other in &outside {
                if goes_out {
                    self.common.network.cut(*node, *other, how);
                }
                if comes_in {
                    self.common.network.cut(*other, *node, how);
                }
            }
        }
        self.ways.cut_off.lock().insert(region.clone());
        sleep(self.dice.millis(3_000, 30_000)).await;
        self.ways.cut_off.lock().remove(&region);
        self.cut_ends();
    }

    /// All nodes of a region end, and come back after a while.
    pub(super) async fn region_loss(&self) {
        let Some(region) = self.some_region() else {
            return;
        };
        let what = format!("loss of region {region}");
        self.on(&what);
        let (inside, _) = self.split(&region);
        let all = self.nodes.iter().zip(&self.turns);
        let nodes: Vec<_> = all.filter(|(node, _)| inside.contains(&node.id)).collect();
        let mut turns = Vec::new();
        for (_, turn) in &nodes {
            turns.push(turn.lock().await);
        }
        for (node, _) in &nodes {
            node.crash(self.loss());
        }
        sleep(self.dice.millis(1_000, 25_000)).await;
        self.off(&what);
        for (node, _) in nodes.iter().filter(|(node, _)| node.is_there()) {
            sleep(self.dice.millis(0, 1_000)).await;
            self.start(node).await;
        }
    }

    /// A change of the map: another goal, a node that is to leave or to stay, or one that comes or goes.
    pub(super) async fn change_placement(&self) {
        // One operator is at work at a time.
        let Ok(mut lost) = self.lost.try_lock() else {
            return;
        };
        if let Some(node) = *lost {
            if Box::pin(self.begin_anew(node)).await {
                *lost = None;
            }
            return;
        }
        let map = self.operator.newest_map();
        let nodes: Vec<(NodeId, NodeState)> = map
            .nodes()
            .iter()
            .map(|(node, entry)| (*node, entry.state))
            .collect();
        let absent = self
            .nodes
            .iter()
            .filter(|node| node.is_there() && !self.operator.has_token(node.id))
            .find(|node| !map.nodes().contains_key(&node.id));
        let draining = nodes
            .iter()
            .find(|(_, state)| *state == NodeState::Draining);
        match (self.dice.between(0, 9), absent, draining) {
            (0 | 1, ..) => {
                let goal = match map.goal() {
                    SurvivalGoal::Node => SurvivalGoal::Region,
                    SurvivalGoal::Region => SurvivalGoal::Node,
                };
                self.change(Change::SetGoal(goal)).await;
            }
            (2..=4, Some(absent), _) => {
                let entry = self.common.layout.entry(absent.id);
                let node = absent.id;
                self.operator.note(node, AdmissionEvent::Put);
                if self.change(Change::PutNode { node, entry }).await {
                    self.operator.take_in(absent).await;
                }
            }
            (5 | 6, _, Some((node, _))) => {
                self.set_state(*node, NodeState::Active).await;
            }
            (7.., _, Some((node, _))) => Box::pin(self.decommission(*node)).await,
            _ => {
                if let Some((node, NodeState::Active)) = self.dice.pick(&nodes) {
                    self.set_state(*node, NodeState::Draining).await;
                }
            }
        }
    }

    async fn change(&self, change: Change) -> bool {
        let changing = timeout(PATIENCE, self.operator.change_map(change));
        changing.await == Ok(Changed::Made)
    }

    async fn set_state(&self, node: NodeId, state: NodeState) -> bool {
        let mut entry = self.common.layout.entry(node);
        entry.state = state;
        // Its removal by an order before this one may be made only now.
        self.operator.note(node, AdmissionEvent::Put);
        self.change(Change::PutNode { node, entry }).await
    }

    /// A node that is to leave goes out of the map once it is in no group, and gets an empty disk.
    async fn decommission(&self, id: NodeId) {
        let what = format!("decommissioning of node {id}");
        self.on(&what);
        let left = timeout(DRAINED_WITHIN, async {
            while !self.is_in_no_group(id).await {
                sleep(LOOK).await;
            }
        });
        let left = left.await.is_ok() && self.change(Change::RemoveNode(id)).await;
        let mut all = self.nodes.iter().zip(&self.turns);
        if let Some((node, turn)) = all.find(|(node, _)| node.id == id).filter(|_| left) {
            let _turn = turn.lock().await;
            // Its number is never given again.
            if self.operator.has_token(id) {
                node.put_away();
            } else {
                node.wipe();
                self.start(node).await;
            }
        }
        self.off(&what);
    }

    async fn is_in_no_group(&self, node: NodeId) -> bool {
        for group in self.operator.groups() {
            let status = self.operator.status(group).await;
            let Some(status) = status.filter(|status| !status.joint) else {
                return false;
            };
            let mut members = status.members.iter();
            if members.any(|(_, member, ..)| member.node == node) {
                return false;
            }
        }
        true
    }

    /// The groups in which a node votes, if it may lose its disk: each has enough others.
    pub(super) async fn may_lose(&self, node: NodeId) -> Option<Vec<GroupId>> {
        let mut groups = Vec::new();
        for group in self.operator.groups() {
            let status = self.operator.status(group).await;
            let status = status.filter(|status| !status.joint)?;
            let voters = status.members.iter().filter(|(_, _, voter, _)| *voter);
            let voters: Vec<NodeId> = voters.map(|(_, member, ..)| member.node).collect();
            if voters.contains(&node) {
                if voters.len() < VOTERS_TO_LOSE_ONE {
                    return None;
                }
                groups.push(group);
            }
        }
        (!groups.is_empty()).then_some(groups)
    }

    /// Has a node that lost its disk begin anew in all its groups; whether that came to its end in time.
    pub(super) async fn begin_anew(&self, node: NodeId) -> bool {
        let mut is_done = true;
        for group in self.operator.groups() {
            let Some(status) = self.operator.status(group).await else {
                is_done = false;
                continue;
            };
            let mut members = status.members.iter();
            if members.all(|(_, member, ..)| member.node != node) {
                continue;
            }
            let order = Order::Replace {
                old: node,
                new: member(node),
            };
            is_done &= self.order_in_time(group, order).await;
        }
        let mut nodes = self.nodes.iter();
        if let Some(node) = nodes.find(|known| known.id == node).filter(|_| is_done) {
            self.operator.take_in(node).await;
        }
        is_done
    }

    /// Work for other nodes goes where a wrong map would send it.
    pub(super) async fn work_astray(&self) {
        self.on("work goes astray");
        let permille = self.dice.between(100, 600);
        self.common
            .astray_permille
            .store(permille, Ordering::SeqCst);
        sleep(self.dice.millis(3_000, 15_000)).await;
        self.common.astray_permille.store(0, Ordering::SeqCst);
        self.off("work goes astray");
    }

    /// A clock runs fast or slow, and is set right after a while.
    pub(super) async fn clock_drift(&self) {
        let (node, _) = self.some_node();
        let most = i64::try_from(self.dice.between(1_000, DRIFT_PPM)).unwrap_or_default();
        let ppm = if self.dice.permille(500) { most } else { -most };
        let (least, most) = DRIFT_MS;
        let time = self.dice.millis(least, most);
        node.let_clock_drift(ppm, time);
        sleep(time).await;
        node.set_clock(0);
    }

    /// How frames travel between regions from now on: as they usually do, or worse.
    pub(super) fn set_ways_between_regions(&self, worse: Option<Conditions>) {
        for node in &self.nodes {
            for other in self.others(node.id) {
                let usual = self.common.layout.conditions(node.id, other);
                let now = usual.map(|usual| match worse {
                    Some(worse) => Conditions {
                        delay: usual.delay + worse.delay,
                        jitter: usual.jitter + worse.jitter,
                        lost_permille: worse.lost_permille,
                    },
                    None => usual,
                });
                self.common.network.set_conditions(node.id, other, now);
            }
        }
    }
}
