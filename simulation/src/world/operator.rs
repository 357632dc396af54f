//! The operator of the world: gives orders about the members, as `rossby cluster` does, and gives
//! them again until they are done.
//!
//! Twin of `rossby_node`'s `serve/members.rs`: from any node to the leader, there one step at a time,
//! and what is not the group's to do (ask, invite) over the network in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use rossby_api::placement::{By, latest};
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{
    Change, ClusterMap, Health, PLACEMENT_GROUP, PlacementRefusal, plan,
};
use rossby_raft::{ChangeError, Group, GroupStatus, Leadership, Order, Refused};
use tokio::time::{Instant, sleep};

use super::dice::Dice;
use super::joining::Token;
use super::layout::{GROUP, Layout, member};
use super::life::{AT_THE_LEADER, CarryError, Life, MapTrouble};
use super::node::{Common, Node};
use crate::observe::{What, Who};

/// Between two tries.
pub(super) const AGAIN: Duration = Duration::from_millis(500);
/// Between two looks whether a step of the plan is over.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The membership is as ordered.
    Done,
    /// It makes no sense.
    Refused(Refused),
}

/// How a change of the map ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It is made, or was so already.
    Made,
    /// It makes no map.
    Refused(PlacementRefusal),
}

/// Why an order did not end this time.
enum Trouble {
    Refused(Refused),
    /// Nobody leads, somebody does not answer, or the outcome is not known.
    Passing,
}

/// The operator.
pub struct Operator {
    pub(super) common: Arc<Common>,
    nodes: Vec<Arc<Node>>,
    pub(super) dice: Dice,
    /// What was last found to be left to do.
    unsettled: Mutex<String>,
    /// The join tokens that he holds, by the nodes that they are for.
    pub(super) tokens: Mutex<BTreeMap<NodeId, Arc<Token>>>,
}

impl Operator {
    /// The operator of these nodes.
    #[must_use]
    pub fn new(common: Arc<Common>, nodes: Vec<Arc<Node>>) -> Self {
        let dice = common.dice.stream("operator");
        Self {
            common,
            nodes,
            dice,
            unsettled: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    pub(super) fn saw(&self, what: What) {
        self.common.recorder.saw(Who::World, what);
    }

    /// Gives an order, again and again until it is done or makes no sense. Dropped, it leaves the
    /// order where it is.
    pub async fn order(&self, group: GroupId, order: Order) -> Ended {
        let what = show(group, &order);
        self.saw(What::FaultOn(what.clone()));
        let ended = loop {
            match self.once(group, &order).await {
                Ok(true) => break Ended::Done,
                Ok(false) | Err(Trouble::Passing) => {}
                Err(Trouble::Refused(refused)) => {
                    if !self.help(group, &refused).await {
                        break Ended::Refused(refused);
                    }
                }
            }
            sleep(AGAIN).await;
        };
        self.saw(What::FaultOff(match &ended {
            Ended::Done => what,
            Ended::Refused(refused) => format!("{what}: {refused}"),
        }));
        ended
    }

    /// Does what a refusal says, if it can be done; whether the order may be given again.
    async fn help(&self, group: GroupId, refused: &Refused) -> bool {
        match refused {
            // Faults end.
            Refused::WouldLoseQuorum { .. } => true,
            Refused::HoldsOther { node, .. } => {
                let mut nodes = self.nodes.iter();
                let Some(node) = nodes.find(|known| known.id == *node) else {
                    return false;
                };
                // It may hold other groups too, and lets go of this one by itself.
                if self.common.layout.has_map() {
                    return true;
                }
                node.wipe();
                // Its power may fail meanwhile; then it starts again.
                let _ = node.start().await;
                true
            }
            Refused::Underway { node } => {
                let order = Order::Remove {
                    nodes: [*node].into(),
                    half_added_only: true,
                };
                self.saw(What::FaultOn(show(group, &order)));
                while !matches!(self.once(group, &order).await, Ok(true)) {
                    sleep(AGAIN).await;
                }
                self.saw(What::FaultOff(show(group, &order)));
                true
            }
            _ => false,
        }
    }

    /// Gives an order once; whether it is done.
    async fn once(&self, group: GroupId, order: &Order) -> Result<bool, Trouble> {
        let (life, replica) = self.leader(group).await.ok_or(Trouble::Passing)?;
        let leading = lead(&life, &replica, order).boxed();
        let led = life.gone.run_until_cancelled(leading);
        led.await.unwrap_or(Err(Trouble::Passing))
    }

    /// The leader of a group, as some node knows it, if it can be reached from there.
    async fn leader(&self, group: GroupId) -> Option<(Arc<Life>, Arc<Group>)> {
        let running = self.nodes.iter().filter_map(|node| {
            let life = node.life()?;
            let replica = life.replicas.get(group)?;
            Some((life, replica))
        });
        let running: Vec<_> = running.collect();
        let (life, replica) = self.dice.pick(&running)?;
        match replica.leadership() {
            Leadership::Here { .. } => Some((Arc::clone(life), Arc::clone(replica))),
            Leadership::Elsewhere(leader) => {
                let way = self.common.network.travel(life.node, leader.node)?;
                sleep(way).await;
                let life = self.common.life(leader.node)?;
                let replica = life.replicas.get(group)?;
                Some((life, replica))
            }
            Leadership::Unknown => None,
        }
    }

    /// The members of a group, as its leader sees them.
    pub async fn status(&self, group: GroupId) -> Option<GroupStatus> {
        let (_, replica) = self.leader(group).await?;
        let status = replica.status();
        (status.role == "leader").then_some(status)
    }

    /// The newest map that any node knows; the one of before the founding where there is none.
    #[must_use]
    pub fn newest_map(&self) -> Arc<ClusterMap> {
        let maps = self.common.lives().filter_map(|life| life.map());
        maps.max_by_key(|map| map.version()).unwrap_or_default()
    }

    /// All groups.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        if !self.common.layout.has_map() {
            return vec![GROUP];
        }
        let map = self.newest_map();
        let data = map.groups().keys().copied();
        std::iter::once(PLACEMENT_GROUP).chain(data).collect()
    }

    /// Changes the map, from any node, again and again until it is made or refused.
    pub async fn change_map(&self, change: Change) -> Changed {
        let what = format!("change of the map: {change:?}");
        self.saw(What::FaultOn(what.clone()));
        let changed = loop {
            if let Some(changed) = self.change_once(&change).await {
                break changed;
            }
            sleep(AGAIN).await;
        };
        self.saw(What::FaultOff(match &changed {
            Changed::Made => what,
            Changed::Refused(refused) => format!("{what}: {refused}"),
        }));
        changed
    }

    async fn change_once(&self, change: &Change) -> Option<Changed> {
        let life = self.any_life()?;
        let changing = life.change_map(change.clone()).boxed();
        match life.gone.run_until_cancelled(changing).await? {
            Ok(_) => Some(Changed::Made),
            Err(MapTrouble::Refused(refusal)) => Some(Changed::Refused(refusal)),
            Err(MapTrouble::Passing | MapTrouble::Unknown) => None,
        }
    }

    /// A process that runs.
    pub(super) fn any_life(&self) -> Option<Arc<Life>> {
        let lives: Vec<Arc<Life>> = self.common.lives().collect();
        self.dice.pick(&lives).cloned()
    }

    /// Has a node that belongs to nothing yet enter the cluster, without a replica.
    pub async fn take_in(&self, node: &Node) {
        if node.waits() && self.common.layout.has_map() {
            let entered = node.take_places([].into(), Some(self.newest_map())).await;
            if let Err(error) = entered {
                tracing::info!(node = %node.id, %error, "did not enter");
            }
        }
    }

    /// Ends what faults and orders left half-way: every member has a vote and runs, and whoever was
    /// removed has learned it. Where there is a map, every group is as it asks for.
    pub async fn settle(&self) {
        loop {
            sleep(AGAIN).await;
            for node in &self.nodes {
                if self.newest_map().nodes().contains_key(&node.id) {
                    self.take_in(node).await;
                }
            }
            if let Some(home) = self.left_unborn() {
                let _ = self.add_group_once(&home, None).await;
            }
            let mut unsettled = None;
            for group in self.groups() {
                if !self.settle_group(group).await {
                    unsettled = Some(format!(
                        "the members of group {group} are not as they should be"
                    ));
                }
            }
            match unsettled.or_else(|| self.unplanned()) {
                Some(what) => *self.unsettled.lock() = what,
                None => return,
            }
        }
    }

    /// What keeps the world from being settled, for reports.
    #[must_use]
    pub fn unsettled(&self) -> String {
        self.unsettled.lock().clone()
    }

    /// What is left to do for the plan, or which node does not know its map.
    fn unplanned(&self) -> Option<String> {
        if !self.common.layout.has_map() {
            return None;
        }
        let map = self.newest_map();
        for life in self.common.lives() {
            let known = life.map().unwrap_or_default().version();
            if known != map.version() && map.nodes().contains_key(&life.node) {
                let (node, newest) = (life.node, map.version());
                return Some(format!("node {node} knows map {known}, not {newest}"));
            }
        }
        let told = self
            .common
            .lives()
            .map(|life| (life.node, Some(life.reports())));
        let reports = latest(told.collect());
        for group in self.groups() {
            match reports.get(&group) {
                None => return Some(format!("nobody reports of group {group}")),
                Some(report) if report.busy => return Some(format!("group {group} is busy")),
                Some(_) => {}
            }
        }
        let up = Health::Up { for_ms: u64::MAX };
        let health = map.nodes().keys().map(|node| (*node, up)).collect();
        let steps = plan(&map, &reports, &health, &Layout::patience());
        (!steps.is_empty()).then(|| format!("planned: {steps:?}"))
    }

    /// Does what is next for one group; whether there is nothing to do.
    async fn settle_group(&self, group: GroupId) -> bool {
        let Some(status) = self.status(group).await.filter(|status| !status.joint) else {
            return false;
        };
        let votes = |node: NodeId| {
            let mut voters = status.members.iter().filter(|(_, _, voter, _)| *voter);
            voters.any(|(_, voter, ..)| voter.node == node)
        };
        // Where there is a map, the plan keeps copies without a vote, goes on with others or takes them back. But
        // that a node begins anew only an operator orders: he does so again.
        let has_map = self.common.layout.has_map();
        let mut learners = status.members.iter().filter(|(_, _, voter, _)| !voter);
        let half_added = learners.find(|(_, learner, ..)| !has_map || votes(learner.node));
        if let Some((_, half_added, ..)) = half_added {
            let node = half_added.node;
            let order = match has_map {
                true => Order::Replace {
                    old: node,
                    new: member(node),
                },
                false => Order::Remove {
                    nodes: [node].into(),
                    half_added_only: true,
                },
            };
            self.order(group, order).await;
            return false;
        }
        let runs = |replica, node| {
            let life = self.common.life(node);
            life.is_some_and(|life| life.replica(group) == Some(replica))
        };
        let mut members = status.members.iter();
        let gone = members.find(|(replica, member, ..)| !runs(*replica, member.node));
        if let Some((_, gone, voter, _)) = gone {
            if !voter {
                // The plan has it begin anew.
                return false;
            }
            let order = Order::Replace {
                old: gone.node,
                new: member(gone.node),
            };
            self.order(group, order).await;
            return false;
        }
        let replicas = self
            .common
            .lives()
            .filter_map(|life| life.replicas.get(group));
        let mut others = replicas.filter(|replica| {
            let replica = replica.replica();
            status.members.iter().all(|(known, ..)| *known != replica)
        });
        // Where there is a map, a node lets go of a replica that was removed, and keeps its others.
        others.all(|replica| !has_map && replica.is_dismissed())
    }
}

/// Carries an order on at the leader, unless a step of the plan is; whether it is done.
async fn lead(life: &Life, group: &Group, order: &Order) -> Result<bool, Trouble> {
    let deadline = Instant::now() + AT_THE_LEADER;
    let running = loop {
        if let Some(running) = life.orders.begin_order(group.id()) {
            break running;
        }
        if Instant::now() > deadline {
            return Err(Trouble::Passing);
        }
        sleep(LOOK_AGAIN).await;
    };
    match life.carry_on(group, order, By::Operator, deadline).await {
        Ok(true) => {
            running.done();
            Ok(true)
        }
        Ok(false) => Ok(false),
        Err(CarryError::Change(ChangeError::Refused(refused))) => {
            let is_planned = life.orders.is_planned(group.id());
            running.forget();
            match refused {
                // What the cluster does by itself comes to its end in a while.
                Refused::Underway { .. } if is_planned => Err(Trouble::Passing),
                refused => Err(Trouble::Refused(refused)),
            }
        }
        Err(_) => Err(Trouble::Passing),
    }
}

fn show(group: GroupId, order: &Order) -> String {
    let what = match order {
        Order::Add(new) => {
            let nodes = new.iter().map(|new| new.node);
            format!("order to add {}", list(nodes))
        }
        Order::Remove {
            nodes,
            half_added_only,
        } => {
            let nodes = list(nodes.iter().copied());
            match half_added_only {
                false => format!("order to remove {nodes}"),
                true => format!("order to take back the adding of {nodes}"),
            }
        }
        Order::AddLearner(new) => format!("order to keep a copy on node {}", new.node),
        Order::Replace { old, new } if *old == new.node => {
            format!("order to have node {old} begin anew")
        }
        Order::Replace { old, new } => {
            format!("order to put node {} in node {old}'s place", new.node)
        }
    };
    match group {
        GROUP => what,
        group => format!("{what}, in group {group}"),
    }
}

fn list(nodes: impl Iterator<Item = NodeId>) -> String {
    let nodes: Vec<String> = nodes.map(|node| format!("node {node}")).collect();
    nodes.join(" and ")
}
