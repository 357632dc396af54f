//! The last trial of a world with regions: one of them is lost, on top of what is down, and what was foretold by
//! who votes where is held against what becomes of the groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{Change, Lost, Membership, SurvivalGoal, Writes, explain};
use rossby_raft::Group;
use rossby_seams::disk::PowerLoss;
use rossby_seams::transport::Cut;
use tokio::time::{Instant, sleep, timeout};

use super::{LIVENESS, World};
use crate::observe::{What, Who};

/// How long a group that goes on may take to elect another leader.
const ELECTED_WITHIN: Duration = Duration::from_secs(30);
/// After so long no lease of before is good any more, by which a leader answers without a quorum.
const LEASES_OVER: Duration = Duration::from_secs(10);
/// How long one confirmation by a quorum may take.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long the plan may be at work on another goal, in milliseconds.
const ON_THE_WAY_MS: (u64, u64) = (500, 20_000);

impl World {
    /// Loses a region, and says what was foretold of it and what came true.
    pub(super) async fn lose_a_region(&self) {
        let dice = self.common.dice.stream("trial");
        // Half of the trials find the groups on their way to another goal.
        if dice.permille(500) {
            let goal = match self.operator.newest_map().goal() {
                SurvivalGoal::Node => SurvivalGoal::Region,
                SurvivalGoal::Region => SurvivalGoal::Node,
            };
            self.operator.change_map(Change::SetGoal(goal)).await;
            let (least, most) = ON_THE_WAY_MS;
            sleep(dice.millis(least, most)).await;
        }
        let mut down = BTreeSet::new();
        let there = self.nodes.iter().filter(|node| node.is_there());
        let there: Vec<_> = there.collect();
        if dice.permille(400)
            && let Some(node) = dice.pick(&there)
        {
            node.crash(PowerLoss::KeepAll);
            down.insert(node.id);
        }
        let map = self.operator.newest_map();
        let regions: Vec<_> = map.regions().into_iter().cloned().collect();
        let Some(region) = dice.pick(&regions) else {
            return;
        };
        let memberships = self.memberships();
        let explanation = explain(&map, &memberships, &down);
        let lost = Lost::Region(region.clone());
        let mut losses = explanation.regions.iter();
        let Some(loss) = losses.find(|loss| loss.lost == lost) else {
            return;
        };
        for group in memberships.keys() {
            let harm = loss.groups.get(group);
            let foretold = What::Foretold {
                group: *group,
                goes_on: harm.is_none_or(|harm| !harm.unavailable),
                keeps_all: harm.is_none_or(|harm| harm.writes == Writes::Safe),
                committed: self.committed(*group),
            };
            self.recorder.saw(Who::World, foretold);
        }
        let what = format!("loss of region {region} for the trial, with {down:?} down");
        self.recorder.saw(Who::World, What::FaultOn(what.clone()));
        let is_there = |node: NodeId| self.common.layout.region(node) == *region;
        for node in &self.nodes {
            for other in &self.nodes {
                if is_there(node.id) && !is_there(other.id) {
                    let network = &self.common.network;
                    network.cut_both(node.id, other.id, Cut::Silent);
                }
            }
        }
        let groups: Vec<GroupId> = memberships.keys().copied().collect();
        self.watch(&groups, &is_there).await;
        self.recorder.saw(Who::World, What::FaultOff(what));
        self.faults.heal().await;
        if timeout(LIVENESS, self.operator.settle()).await.is_err() {
            let what = "the groups do not come back after the trial".to_owned();
            self.recorder.accuse("liveness after healing", what);
        }
    }

    /// Says of each group whether it goes on outside the region, once it does or its time is over.
    async fn watch(&self, groups: &[GroupId], is_lost: &dyn Fn(NodeId) -> bool) {
        sleep(LEASES_OVER).await;
        let until = Instant::now() + ELECTED_WITHIN;
        let mut waited_for: BTreeSet<GroupId> = groups.iter().copied().collect();
        while !waited_for.is_empty() && Instant::now() < until {
            sleep(LOOK).await;
            for group in groups {
                if !waited_for.contains(group) {
                    continue;
                }
                for replica in self.replicas_outside(*group, is_lost) {
                    let deadline = Instant::now() + CONFIRMED_WITHIN;
                    if replica.leads() && replica.linearize(deadline).await.is_ok() {
                        let applied = replica.status().applied_index;
                        let group = *group;
                        let came = What::CameTrue { group, applied };
                        self.recorder.saw(Who::World, came);
                        waited_for.remove(&group);
                        break;
                    }
                }
            }
        }
        for group in waited_for {
            let applied = None;
            let came = What::CameTrue { group, applied };
            self.recorder.saw(Who::World, came);
        }
    }

    fn replicas_outside(
        &self,
        group: GroupId,
        is_lost: &dyn Fn(NodeId) -> bool,
    ) -> Vec<Arc<Group>> {
        let lives = self.common.lives().filter(|life| !is_lost(life.node));
        lives.filter_map(|life| life.replicas.get(group)).collect()
    }

    /// Who votes in each group, by the leader, or else by who has most of the latest term's log: one that was removed
    /// unawares is in that term too.
    fn memberships(&self) -> BTreeMap<GroupId, Membership> {
        let mut known = BTreeMap::new();
        for group in self.operator.groups() {
            let replicas = self.replicas_outside(group, &|_| false);
            let statuses = replicas.iter().map(|replica| replica.status());
            let latest = statuses
                .max_by_key(|status| (status.role == "leader", status.term, status.last_log_index));
            let Some(status) = latest.filter(|status| !status.joint) else {
                continue;
            };
            let of = |wanted: bool| {
                let members = status.members.iter();
                let members = members.filter(|(_, _, voter, _)| *voter == wanted);
                members.map(|(_, member, ..)| member.node).collect()
            };
            let membership = Membership {
                leader: None,
                voters: of(true),
                coming: None,
                learners: of(false),
            };
            known.insert(group, membership);
        }
        known
    }

    /// The last entry of a group that any replica knows to be committed.
    fn committed(&self, group: GroupId) -> Option<u64> {
        let replicas = self.replicas_outside(group, &|_| false);
        let committed = replicas
            .iter()
            .filter_map(|replica| replica.status().committed_index);
        committed.max()
    }
}
