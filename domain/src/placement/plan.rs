//! The planner: from the map, who votes now and which nodes are up, to the next step of each group.
//!
//! ```text
//!   joint, or a step under way? ──yes──► nothing
//!        │ no
//!   an abandoned learner? ──yes──► Remove it
//!        │ no
//!   who should vote: those who do, as far as they fit the shape (desired.rs); for others, who is up
//!        │
//!        ├── one comes for one ──► Replace       ┐ each only if the old and the new voters have a live
//!        ├── more come         ──► Add, by two   │ majority, whoever comes is up, and what would survive
//!        ├── fewer stay        ──► Remove, by two┘ a loss before still does
//!        │        └── the leader itself leaves ──► TransferLeader first
//!        ├── all vote as they should, the leader is away ──► TransferLeader home, when it may
//!        └── a copy away from home is missing (goal `node`) ──► AddLearner
//! ```
//!
//! Nothing is remembered between two plans: a step that broke off is planned again, with the same
//! newcomer, since a node that has a learner already is preferred. Numbers of voters change by two where
//! they are odd, in one joint change, since with an even number one more region could hold half of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::change::{LEAST_REGIONS, MAX_FOUNDERS};
use super::desired::{Load, RELUCTANT, Shape, VOTERS_AT_HOME};
use super::map::{ClusterMap, SurvivalGoal};
use super::membership::{Membership, has_majority, survives};
use super::{PLACEMENT_GROUP, RegionName};
use crate::ids::{GroupId, NodeId};

/// How long the planner waits, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After so long a node that is down is replaced.
    pub dead_after_ms: u64,
    /// So long a node must have been up before a leader goes home to it.
    pub stable_ms: u64,
    /// So long a leader must have led before it goes home.
    pub cool_down_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            dead_after_ms: 10 * 60_000,
            stable_ms: 60_000,
            cool_down_ms: 60_000,
        }
    }
}

/// What is observed of a node. Of one that nothing is known of, nothing is assumed: it is neither
/// chosen nor replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// It has answered for so long.
    Up {
        /// Milliseconds.
        for_ms: u64,
    },
    /// It has not answered for so long.
    Down {
        /// Milliseconds.
        for_ms: u64,
    },
}

/// What a group's leader reports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Its members.
    pub membership: Membership,
    /// The members that lack hardly anything of its log.
    pub caught_up: BTreeSet<NodeId>,
    /// How long it has led, in milliseconds.
    pub leads_for_ms: u64,
    /// Whether it is about to change its members, by whoever's order.
    pub busy: bool,
}

/// What to do next with a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Another node gets a vote in a node's place, in one joint change.
    Replace {
        /// Who leaves.
        old: NodeId,
        /// Who comes.
        new: NodeId,
    },
    /// These get votes, in one joint change once all of them have caught up.
    Add {
        /// One or two.
        nodes: BTreeSet<NodeId>,
    },
    /// These leave, voters or learners, in one joint change.
    Remove {
        /// Who.
        nodes: BTreeSet<NodeId>,
    },
    /// Another voter leads.
    TransferLeader {
        /// Who.
        to: NodeId,
    },
    /// A node keeps a copy without a vote.
    AddLearner {
        /// Which.
        node: NodeId,
    },
}

/// The next step of each group that needs one. A group without a report has none.
#[must_use]
pub fn plan(
    map: &ClusterMap,
    reports: &BTreeMap<GroupId, Report>,
    health: &BTreeMap<NodeId, Health>,
    patience: &Patience,
) -> BTreeMap<GroupId, Step> {
    let mut load = Load::new();
    for node in reports
        .values()
        .flat_map(|report| report.membership.replicas())
    {
        *load.entry(node).or_default() += 1;
    }
    let mut steps = BTreeMap::new();
    for (group, report) in reports {
        let home = map.groups().get(group).map(|entry| &entry.home);
        if home.is_none() && *group != PLACEMENT_GROUP {
            continue;
        }
        let group_now = GroupNow {
            map,
            home,
            report,
            health,
            patience,
        };
        let Some(step) = group_now.step(&load) else {
            continue;
        };
        for node in step.newcomers() {
            // So that not every group chooses the same one.
            *load.entry(node).or_default() += 1;
        }
        steps.insert(*group, step);
    }
    steps
}

impl Step {
    fn newcomers(&self) -> Vec<NodeId> {
        match self {
            Self::Replace { new, .. } => vec![*new],
            Self::Add { nodes } => nodes.iter().copied().collect(),
            Self::AddLearner { node } => vec![*node],
            Self::Remove { .. } | Self::TransferLeader { .. } => Vec::new(),
        }
    }
}

fn remove_one(node: NodeId) -> Step {
    Step::Remove {
        nodes: BTreeSet::from([node]),
    }
}

/// One group at the moment of planning.
struct GroupNow<'a> {
    map: &'a ClusterMap,
    /// `None` for the placement group.
    home: Option<&'a RegionName>,
    report: &'a Report,
    health: &'a BTreeMap<NodeId, Health>,
    patience: &'a Patience,
}

impl GroupNow<'_> {
    fn voters(&self) -> &BTreeSet<NodeId> {
        &self.report.membership.voters
    }

    fn is_up(&self, node: NodeId) -> bool {
        matches!(self.health.get(&node), Some(Health::Up { .. }))
    }

    fn is_down(&self, node: NodeId) -> bool {
        matches!(self.health.get(&node), Some(Health::Down { .. }))
    }

    /// Down for longer than anybody waits.
    fn is_dead(&self, node: NodeId) -> bool {
        let dead_after = self.patience.dead_after_ms;
        matches!(self.health.get(&node), Some(Health::Down { for_ms }) if *for_ms >= dead_after)
    }

    fn is_at_home(&self, node: NodeId) -> bool {
        let entry = self.map.nodes().get(&node);
        entry.is_some_and(|entry| self.home == Some(&entry.region))
    }

    fn step(&self, load: &Load) -> Option<Step> {
        let leader = self.report.membership.leader?;
        let is_changing = self.report.membership.coming.is_some() || self.report.busy;
        if is_changing || !has_majority(self.voters(), |node| self.is_up(node)) {
            return None;
        }
        let target = self.target(load);
        let copies = self.copies(&target, load);
        let change = self.membership_step(leader, &target, &copies);
        // Last, since one that never catches up must not stand in the way.
        change
            .or_else(|| self.step_home(leader, &target))
            .or_else(|| self.add_copy(&copies))
    }

    /// Who should vote. Whoever votes now and fits goes on; one that is dead is kept if nobody can take
    /// its place, and one that is draining likewise.
    fn target(&self, load: &Load) -> BTreeSet<NodeId> {
        let nodes = self.map.nodes();
        let shape = match self.home {
            Some(home) => Shape::of_data(nodes, home, self.map.goal(), self.wanted_at(home)),
            None => Shape::of_placement(nodes, self.voters(), self.wanted_in_one_region()),
        };
        shape.fill(nodes, load, |node| {
            let votes = self.voters().contains(&node);
            let learns = self.report.membership.learners.contains(&node);
            match (votes, self.map.is_active(node)) {
                (true, true) if !self.is_dead(node) => Some(0),
                (false, true) if self.is_up(node) => Some(if learns { 1 } else { 2 }),
                (true, true) => Some(RELUCTANT),
                (true, false) => Some(RELUCTANT + 1),
                (false, _) => None,
            }
        })
    }

    /// Who should keep a copy without a vote: with the goal `node`, in regions where nobody votes.
    fn copies(&self, target: &BTreeSet<NodeId>, load: &Load) -> BTreeSet<NodeId> {
        let home = self.home.filter(|_| self.map.goal() == SurvivalGoal::Node);
        let Some(home) = home else {
            return BTreeSet::new();
        };
        let nodes = self.map.nodes();
        let voters = self.voters().union(target);
        // One that is draining may have to stay, but not for long.
        let voters = voters.filter(|node| self.map.is_active(**node));
        let voting = voters.filter_map(|node| Some(&nodes.get(node)?.region));
        let regions: BTreeSet<&RegionName> = voting.chain([home]).collect();
        let shape = Shape::of_copies(regions.len());
        shape.fill(nodes, load, |node| {
            let has_voters = regions.contains(&nodes.get(&node)?.region);
            if has_voters || !self.map.is_active(node) {
                return None;
            }
            match self.report.membership.learners.contains(&node) {
                true if self.is_dead(node) => Some(RELUCTANT),
                true => Some(0),
                false => self.is_up(node).then_some(1),
            }
        })
    }

    /// A copy that is missing, or was added and never came as far as to follow.
    fn add_copy(&self, copies: &BTreeSet<NodeId>) -> Option<Step> {
        let learners = &self.report.membership.learners;
        let lacking = copies.iter().filter(|node| {
            let follows = learners.contains(node) && self.report.caught_up.contains(node);
            self.is_up(**node) && !follows
        });
        let next = lacking.min_by_key(|node| (learners.contains(node), **node))?;
        Some(Step::AddLearner { node: *next })
    }

    /// A group that has more voters at home than usual keeps as many.
    fn wanted_at(&self, home: &RegionName) -> usize {
        let nodes = self.map.nodes();
        let there = self.voters().iter().filter_map(|node| nodes.get(node));
        let there = there.filter(|entry| entry.region == *home).count();
        there.clamp(VOTERS_AT_HOME, MAX_FOUNDERS)
    }

    fn wanted_in_one_region(&self) -> usize {
        self.voters().len().clamp(VOTERS_AT_HOME, MAX_FOUNDERS)
    }

    fn membership_step(
        &self,
        leader: NodeId,
        target: &BTreeSet<NodeId>,
        copies: &BTreeSet<NodeId>,
    ) -> Option<Step> {
        let learners = &self.report.membership.learners;
        let mut coming: Vec<NodeId> = target.difference(self.voters()).copied().collect();
        coming.sort_by_key(|node| (!learners.contains(node), *node));
        let mut leaving: Vec<NodeId> = self.voters().difference(target).copied().collect();
        leaving.sort_by_key(|node| (!self.is_dead(*node), self.map.is_active(*node), *node));

        let mut others = learners.difference(copies);
        let unwanted = others.find(|node| !coming.contains(node));
        if let Some(learner) = unwanted {
            let may_return = self.is_down(*learner) && !self.is_dead(*learner);
            let waits = may_return && self.map.is_active(*learner);
            return (!waits).then_some(remove_one(*learner));
        }
        let replace = self.replace(leader, &coming, &leaving);
        let add = || self.add(&coming, target.len());
        let remove = || self.remove(leader, &leaving, target);
        let step = replace.or_else(add).or_else(remove)?;
        // One change at a time: a learner for a later one would stand in the way of this one.
        let comes = step.newcomers();
        let mut others = learners.difference(copies);
        let beside = others.find(|node| !comes.contains(node));
        match (&step, beside) {
            (Step::TransferLeader { .. }, _) | (_, None) => Some(step),
            (_, Some(learner)) => Some(remove_one(*learner)),
        }
    }

    fn replace(&self, leader: NodeId, coming: &[NodeId], leaving: &[NodeId]) -> Option<Step> {
        let pairs = leaving
            .iter()
            .flat_map(|old| coming.iter().map(move |new| (*old, *new)));
        let mut pairs: Vec<_> = pairs.collect();
        // The leader last; whoever learns already first, then who is in the same region, for which
        // nobody's quorum changes.
        let learners = &self.report.membership.learners;
        pairs.sort_by_key(|(old, new)| {
            let is_new = !learners.contains(new);
            (*old == leader, is_new, !self.map.share_region(*old, *new))
        });
        let fits = |(old, new): &(NodeId, NodeId)| {
            let mut after = self.voters().clone();
            after.remove(old);
            after.insert(*new);
            self.may_become(&after)
        };
        let (old, new) = pairs.into_iter().find(fits)?;
        if old == leader {
            return self.hand_over(leader, leaving);
        }
        Some(Step::Replace { old, new })
    }

    fn add(&self, coming: &[NodeId], most: usize) -> Option<Step> {
        // The only voter can't be replaced: somebody else must vote first.
        let most = most.max(2);
        self.numbers().into_iter().find_map(|count| {
            let nodes: BTreeSet<NodeId> = coming.get(..count)?.iter().copied().collect();
            let after: BTreeSet<NodeId> = self.voters().union(&nodes).copied().collect();
            let fits = after.len() <= most && self.may_become(&after);
            fits.then_some(Step::Add { nodes })
        })
    }

    /// By how many voters the group may grow or shrink. An even number becomes odd by one, an odd number
    /// stays so by two.
    fn numbers(&self) -> [usize; 2] {
        if self.voters().len().is_multiple_of(2) {
            [1, 2]
        } else {
            [2, 1]
        }
    }

    fn remove(
        &self,
        leader: NodeId,
        leaving: &[NodeId],
        target: &BTreeSet<NodeId>,
    ) -> Option<Step> {
        let nodes = self.numbers().into_iter().find_map(|count| {
            let nodes: BTreeSet<NodeId> = leaving.get(..count)?.iter().copied().collect();
            let after: BTreeSet<NodeId> = self.voters().difference(&nodes).copied().collect();
            let fits = after.len() >= target.len() && self.may_become(&after);
            fits.then_some(nodes)
        })?;
        if nodes.contains(&leader) {
            // Not to another that leaves: they would hand it to and fro.
            let to_one_that_stays = |step: &Step| match step {
                Step::TransferLeader { to } => target.contains(to),
                _ => false,
            };
            return self.hand_over(leader, leaving).filter(to_one_that_stays);
        }
        Some(Step::Remove { nodes })
    }

    /// Whether the group may go from its voters to these: both have a live majority, whoever comes is up,
    /// and the loss that the voters would survive now, or with all of them up, they survive after that.
    fn may_become(&self, after: &BTreeSet<NodeId>) -> bool {
        let up = |node: NodeId| self.is_up(node);
        let newcomers = || after.difference(self.voters());
        let stays = |goal, alive: &dyn Fn(NodeId) -> bool| {
            survives(self.map, goal, after, alive)
                || !survives(self.map, goal, self.voters(), alive)
        };
        // Who survives the loss of a region survives that of a node, which is worth keeping whatever the
        // goal is. The placement group is spread over regions whatever the goal is, if there are enough.
        let is_kept = |goal| stays(goal, &up) && stays(goal, &|_| true);
        let by_region = self.map.goal() == SurvivalGoal::Region
            || (self.home.is_none() && self.map.active_regions().len() >= LEAST_REGIONS);
        has_majority(after, up)
            && newcomers().all(|node| self.is_up(*node))
            && is_kept(SurvivalGoal::Node)
            && (!by_region || is_kept(SurvivalGoal::Region))
    }

    /// Has another voter lead: one that stays if it can be, and at home if there is one.
    fn hand_over(&self, leader: NodeId, leaving: &[NodeId]) -> Option<Step> {
        let able = self.voters().iter();
        let able = able.filter(|node| **node != leader && self.can_lead(**node));
        let to =
            able.min_by_key(|node| (leaving.contains(node), !self.is_at_home(**node), **node))?;
        Some(Step::TransferLeader { to: *to })
    }

    fn can_lead(&self, node: NodeId) -> bool {
        self.is_up(node) && self.report.caught_up.contains(&node) && self.map.is_active(node)
    }

    fn step_home(&self, leader: NodeId, target: &BTreeSet<NodeId>) -> Option<Step> {
        let cools_down = self.report.leads_for_ms < self.patience.cool_down_ms;
        if self.home.is_none() || self.is_at_home(leader) || cools_down {
            return None;
        }
        let is_stable = |node: NodeId| {
            let stable_ms = self.patience.stable_ms;
            matches!(self.health.get(&node), Some(Health::Up { for_ms }) if *for_ms >= stable_ms)
        };
        let there = target.intersection(self.voters());
        let mut able = there
            .filter(|node| self.is_at_home(**node) && self.can_lead(**node) && is_stable(**node));
        able.next().map(|to| Step::TransferLeader { to: *to })
    }
}
