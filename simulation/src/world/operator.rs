//! The operator of the world: gives orders about the members, as `rossby cluster` does, and gives
//! them again until they are done.
//!
//! Twin of `rossby_node`'s `serve/members.rs`: from any node to the leader, there one step at a time,
//! and what is not the group's to do (ask, invite) over the network in memory.

use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::{NodeId, ReplicaId};
use rossby_raft::{Advance, ChangeError, GroupStatus, Leadership, Newcomers, Order, Refused};
use tokio::time::{Instant, sleep};

use super::dice::Dice;
use super::life::Life;
use super::node::{Common, Node, member};
use crate::observe::{What, Who};

/// How long one call may carry an order on.
const AT_THE_LEADER: Duration = Duration::from_secs(20);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(500);

/// How an order ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The membership is as ordered.
    Done,
    /// It makes no sense.
    Refused(Refused),
}

/// Why an order did not end this time.
enum Trouble {
    Refused(Refused),
    /// Nobody leads, somebody does not answer, or the outcome is not known.
    Passing,
}

/// The operator.
pub struct Operator {
    common: Arc<Common>,
    nodes: Vec<Arc<Node>>,
    dice: Dice,
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
        }
    }

    fn saw(&self, what: What) {
        self.common.recorder.saw(Who::World, what);
    }

    /// Gives an order, again and again until it is done or makes no sense. Dropped, it leaves the
    /// order where it is.
    pub async fn order(&self, order: Order) -> Ended {
        let what = show(&order);
        self.saw(What::FaultOn(what.clone()));
        let ended = loop {
            match self.once(&order).await {
                Ok(true) => break Ended::Done,
                Ok(false) | Err(Trouble::Passing) => {}
                Err(Trouble::Refused(refused)) => {
                    if !self.help(&refused).await {
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
    async fn help(&self, refused: &Refused) -> bool {
        match refused {
            // Faults end.
            Refused::WouldLoseQuorum { .. } => true,
            Refused::HoldsOther { node, .. } => {
                let mut nodes = self.nodes.iter();
                let Some(node) = nodes.find(|known| known.id == *node) else {
                    return false;
                };
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
                self.saw(What::FaultOn(show(&order)));
                while !matches!(self.once(&order).await, Ok(true)) {
                    sleep(AGAIN).await;
                }
                self.saw(What::FaultOff(show(&order)));
                true
            }
            _ => false,
        }
    }

    /// Gives an order once; whether it is done.
    async fn once(&self, order: &Order) -> Result<bool, Trouble> {
        let (node, life) = self.leader().await.ok_or(Trouble::Passing)?;
        let led = life.gone.run_until_cancelled(self.lead(node, &life, order));
        led.await.unwrap_or(Err(Trouble::Passing))
    }

    /// The leader, as some node knows it, if it can be reached from there.
    async fn leader(&self) -> Option<(NodeId, Arc<Life>)> {
        let running = self.nodes.iter().filter_map(|node| {
            let life = node.life()?;
            Some((node.id, life))
        });
        let running: Vec<_> = running.collect();
        let (node, life) = self.dice.pick(&running)?;
        match life.group.leadership() {
            Leadership::Here { .. } => Some((*node, Arc::clone(life))),
            Leadership::Elsewhere(leader) => {
                let way = self.common.network.travel(*node, leader.node)?;
                sleep(way).await;
                let leads = self.nodes.iter().find(|node| node.id == leader.node)?;
                Some((leader.node, leads.life()?))
            }
            Leadership::Unknown => None,
        }
    }

    async fn lead(&self, leader: NodeId, life: &Life, order: &Order) -> Result<bool, Trouble> {
        let deadline = Instant::now() + AT_THE_LEADER;
        let mut newcomers = Newcomers::new();
        loop {
            match life.group.advance(order, &newcomers, deadline).await {
                Ok(Advance::Ask) => newcomers = self.ask(leader, order).await?,
                Ok(Advance::Invite { replica, member }) => {
                    self.invite(leader, member.node, replica).await?;
                    newcomers.remove(&member.node);
                }
                Ok(Advance::CatchingUp { .. } | Advance::HandedOver { .. }) => return Ok(false),
                Ok(Advance::Done { .. }) => return Ok(true),
                Err(ChangeError::Refused(refused)) => return Err(Trouble::Refused(refused)),
                Err(_) => return Err(Trouble::Passing),
            }
        }
    }

    /// Asks a node for something, there and back.
    async fn visit<T, F>(
        &self,
        from: NodeId,
        to: NodeId,
        ask: impl FnOnce(Arc<Node>) -> F,
    ) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let network = &self.common.network;
        let there = network.travel(from, to).ok_or(Trouble::Passing)?;
        sleep(there).await;
        let mut nodes = self.nodes.iter();
        let node = nodes.find(|node| node.id == to).ok_or(Trouble::Passing)?;
        // It goes on with it whatever becomes of who asked.
        let answered = tokio::spawn(ask(Arc::clone(node))).await;
        let back = network.travel(to, from).ok_or(Trouble::Passing)?;
        sleep(back).await;
        answered.map_err(|_| Trouble::Passing)
    }

    async fn ask(&self, leader: NodeId, order: &Order) -> Result<Newcomers, Trouble> {
        let mut newcomers = Newcomers::new();
        for new in order.newcomers() {
            let asked = self.visit(leader, new.node, async |node| node.describe());
            let found = asked.await?.ok_or(Trouble::Passing)?;
            newcomers.insert(new.node, found);
        }
        Ok(newcomers)
    }

    async fn invite(
        &self,
        leader: NodeId,
        newcomer: NodeId,
        replica: ReplicaId,
    ) -> Result<(), Trouble> {
        let joining = self.visit(leader, newcomer, async move |node| {
            let joined = node.join(replica).await;
            if let Err(error) = &joined {
                tracing::info!(node = %node.id, %error, "did not join");
            }
            joined.is_ok()
        });
        match joining.await? {
            true => Ok(()),
            false => Err(Trouble::Passing),
        }
    }

    /// The members, as the leader sees them.
    pub async fn status(&self) -> Option<GroupStatus> {
        let (_, life) = self.leader().await?;
        let status = life.group.status();
        (status.role == "leader").then_some(status)
    }

    /// Ends what faults and orders left half-way: every member has a vote and runs, and whoever was
    /// removed has learned it.
    pub async fn settle(&self) {
        loop {
            sleep(AGAIN).await;
            let Some(status) = self.status().await.filter(|status| !status.joint) else {
                continue;
            };
            let half_added = status.members.iter().find(|(_, _, voter, _)| !voter);
            if let Some((_, half_added, ..)) = half_added {
                let order = Order::Remove {
                    nodes: [half_added.node].into(),
                    half_added_only: true,
                };
                self.order(order).await;
                continue;
            }
            let runs = |replica: ReplicaId, node: NodeId| {
                let mut nodes = self.nodes.iter();
                let node = nodes.find(|known| known.id == node);
                let life = node.and_then(|node| node.life());
                life.is_some_and(|life| life.replica() == replica)
            };
            let mut members = status.members.iter();
            let gone = members.find(|(replica, member, ..)| !runs(*replica, member.node));
            if let Some((_, gone, ..)) = gone {
                self.order(Order::Replace {
                    old: gone.node,
                    new: member(gone.node),
                })
                .await;
                continue;
            }
            let others = self.nodes.iter().filter_map(|node| node.life());
            let mut others = others.filter(|life| {
                let replica = life.replica();
                status.members.iter().all(|(known, ..)| *known != replica)
            });
            if others.all(|life| life.group.is_dismissed()) {
                return;
            }
        }
    }
}

fn show(order: &Order) -> String {
    match order {
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
    }
}

fn list(nodes: impl Iterator<Item = NodeId>) -> String {
    let nodes: Vec<String> = nodes.map(|node| format!("node {node}")).collect();
    nodes.join(" and ")
}
