//! From an order and what the membership is now to the one next step. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{NodeId, ReplicaId};
use rossby_domain::planted::{Bug, planted};

use crate::Member;

/// More voters than this make every write slower and nothing safer.
pub const MAX_VOTERS: usize = 9;
/// A learner that lacks no more entries than this has caught up: the rest is under way.
const CAUGHT_UP_ENTRIES: u64 = 256;

/// What an operator wants the membership to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Nodes become voters, all at once in one joint change. For a member it corrects the addresses.
    Add(Vec<Member>),
    /// Nodes are no longer members; those with votes lose them in one joint change.
    Remove {
        /// The nodes.
        nodes: BTreeSet<NodeId>,
        /// Only what an addition or replacement left half done is taken back.
        half_added_only: bool,
    },
    /// A node keeps a copy without a vote, for as long as nobody takes it out.
    AddLearner(Member),
    /// A node takes the place of another, or its own place with an empty directory.
    Replace {
        /// The node that leaves, alive or not.
        old: NodeId,
        /// The node that comes.
        new: Member,
    },
}

impl Order {
    /// The nodes that come.
    #[must_use]
    pub fn newcomers(&self) -> &[Member] {
        match self {
            Self::Add(new) => new,
            Self::Replace { new, .. } | Self::AddLearner(new) => std::slice::from_ref(new),
            Self::Remove { .. } => &[],
        }
    }

    /// The same, to be corrected.
    pub fn newcomers_mut(&mut self) -> &mut [Member] {
        match self {
            Self::Add(new) => new,
            Self::Replace { new, .. } | Self::AddLearner(new) => std::slice::from_mut(new),
            Self::Remove { .. } => &mut [],
        }
    }

    /// Whether a member without a vote on this node belongs to this order.
    fn is_about(&self, node: NodeId) -> bool {
        match self {
            Self::Remove { nodes, .. } => nodes.contains(&node),
            Self::Add(_) | Self::AddLearner(_) | Self::Replace { .. } => {
                self.newcomers().iter().any(|new| new.node == node)
            }
        }
    }
}

/// What runs at the addresses of the nodes that come, as far as they were asked.
pub type Newcomers = BTreeMap<NodeId, Newcomer>;

/// What runs at the address of a node that comes, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomer {
    /// A node that belongs to no cluster.
    Free,
    /// A node that holds this replica of the group.
    Holds(ReplicaId),
}

/// One replica, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Where it is.
    pub member: Member,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it answered lately.
    pub answers: bool,
    /// How many entries it lacks; not known before it has answered.
    pub behind: Option<u64>,
}

/// A group's members at one moment, as its leader sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The replica that leads.
    pub leader: ReplicaId,
    /// All replicas.
    pub seats: BTreeMap<ReplicaId, Seat>,
    /// Whether a change of voters is half-way: both the old and the new ones must agree.
    pub joint: bool,
}

/// The one thing to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask who runs at the newcomers' addresses.
    Ask,
    /// End a change of voters that is half-way.
    Finish,
    /// Add a member without a vote, under a new replica id.
    AddLearner(Member),
    /// Take a member without a vote out.
    DropLearner(ReplicaId),
    /// Correct the addresses of a member.
    SetMember(ReplicaId, Member),
    /// Wait for a learner to catch up.
    CatchUp(ReplicaId),
    /// Have another replica lead first: one that stays, if any answers.
    HandOver(Option<NodeId>),
    /// Make these, and nobody else, the voters.
    SetVoters(BTreeSet<ReplicaId>),
    /// Nothing: the membership is as ordered. The replica that the order was about, if there is one.
    Done(Option<ReplicaId>),
}

/// Why an order is not carried out, and what to do instead. Giving it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another change was begun and not ended.
    #[error(
        "node {node} is half added by another order: give that order again to finish it, or take it \
         back with `rossby cluster remove-node {node} --half-added`"
    )]
    Underway {
        /// The node that is half added.
        node: NodeId,
    },
    /// The node to leave is the only voter.
    #[error(
        "node {node} is the only one with a vote: without it the cluster and its data are gone. Add \
         another node first"
    )]
    LastVoter {
        /// The node.
        node: NodeId,
    },
    /// The voters that would be left could not agree on anything.
    #[error(
        "of the {voters} nodes that would vote then, only {answering} answer, and {needed} are needed: \
         the cluster would stand still. Not answering: {}. Start what is down, or replace or remove it \
         first",
        list(silent)
    )]
    WouldLoseQuorum {
        /// How many voters there would be.
        voters: usize,
        /// How many of them answer.
        answering: usize,
        /// How many must.
        needed: usize,
        /// Those that do not.
        silent: Vec<NodeId>,
    },
    /// The group is large enough.
    #[error("a group has at most {MAX_VOTERS} voters: remove a node first, or replace one")]
    TooMany,
    /// The node to be replaced is not there.
    #[error("node {node} has no vote, so there is nothing to replace: see `rossby cluster status`")]
    NotAVoter {
        /// The node.
        node: NodeId,
    },
    /// The node that should come has a vote already.
    #[error(
        "node {new} has a vote already: to do without node {old}, use `rossby cluster remove-node {old}`"
    )]
    AlreadyAVoter {
        /// The node that should leave.
        old: NodeId,
        /// The node that should come.
        new: NodeId,
    },
    /// A member's directory is empty.
    #[error(
        "node {node} is a member, but its directory is empty: if its disk was lost, run `rossby cluster \
         replace-node {node} {node}={address}`; if not, start it with its own directory"
    )]
    Wiped {
        /// The node.
        node: NodeId,
        /// Where it was asked.
        address: String,
    },
    /// The newcomer holds a replica that has no place in the group.
    #[error(
        "node {node} holds replica {replica}, which is not a member (any more): start it with an empty \
         directory, then give the order again"
    )]
    HoldsOther {
        /// The node.
        node: NodeId,
        /// What it holds.
        replica: ReplicaId,
    },
    /// A node to be replaced by itself runs with its old directory.
    #[error(
        "node {node} runs with the directory that it had: take the half-done replacement back with \
         `rossby cluster remove-node {node} --half-added`, or start the node with an empty directory"
    )]
    StillAlive {
        /// The node.
        node: NodeId,
    },
}

fn list(nodes: &[NodeId]) -> String {
    let nodes: Vec<_> = nodes.iter().map(|node| format!("node {node}")).collect();
    nodes.join(", ")
}

impl Members {
    fn voter_on(&self, node: NodeId) -> Option<ReplicaId> {
        let mut on = self.seats.iter();
        on.find(|(_, seat)| seat.voter && seat.member.node == node)
            .map(|(replica, _)| *replica)
    }

    fn learner_on(&self, node: NodeId) -> Option<ReplicaId> {
        let mut on = self.seats.iter();
        on.find(|(_, seat)| !seat.voter && seat.member.node == node)
            .map(|(replica, _)| *replica)
    }

    fn voters(&self) -> BTreeSet<ReplicaId> {
        let voters = self.seats.iter().filter(|(_, seat)| seat.voter);
        voters.map(|(replica, _)| *replica).collect()
    }

    fn has_caught_up(&self, replica: ReplicaId) -> bool {
        if planted(Bug::PromotedBeforeCaughtUp) {
            return true;
        }
        self.seats.get(&replica).is_some_and(|seat| {
            seat.answers
                && seat
                    .behind
                    .is_some_and(|behind| behind <= CAUGHT_UP_ENTRIES)
        })
    }

    /// The step to these voters, if they could go on by themselves.
    fn to_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<Step, Refused> {
        if voters.len() > MAX_VOTERS {
            return Err(Refused::TooMany);
        }
        self.check_quorum(&voters)?;
        if voters.contains(&self.leader) {
            Ok(Step::SetVoters(voters))
        } else {
            Ok(Step::HandOver(self.successor(&voters)))
        }
    }

    /// Of those that vote and go on doing so, the one that answers and lacks the least.
    fn successor(&self, staying: &BTreeSet<ReplicaId>) -> Option<NodeId> {
        let staying = self.seats.iter().filter(|(replica, seat)| {
            seat.voter && seat.answers && staying.contains(replica) && **replica != self.leader
        });
        let furthest = staying.min_by_key(|(_, seat)| seat.behind.unwrap_or(u64::MAX));
        furthest.map(|(_, seat)| seat.member.node)
    }

    fn check_quorum(&self, voters: &BTreeSet<ReplicaId>) -> Result<(), Refused> {
        let seats = voters.iter().filter_map(|voter| self.seats.get(voter));
        let silent: Vec<_> = seats
            .filter(|seat| !seat.answers)
            .map(|seat| seat.member.node)
            .collect();
        let needed = voters.len() / 2 + 1;
        let answering = voters.len().saturating_sub(silent.len());
        if answering >= needed {
            return Ok(());
        }
        Err(Refused::WouldLoseQuorum {
            voters: voters.len(),
            answering,
            needed,
            silent,
        })
    }
}

/// The next step of an order. `newcomers` is what runs at the newcomers' addresses, of those that were
/// asked. Members without a vote on the nodes of `copies` are to stay so, and belong to no order.
pub(crate) fn next_step(
    order: &Order,
    members: &Members,
    newcomers: &Newcomers,
    copies: &BTreeSet<NodeId>,
) -> Result<Step, Refused> {
    if members.joint {
        return Ok(Step::Finish);
    }
    let foreign = |seat: &&Seat| {
        let node = seat.member.node;
        !seat.voter && !order.is_about(node) && !copies.contains(&node)
    };
    if let Some(seat) = members.seats.values().find(foreign) {
        let node = seat.member.node;
        return Err(Refused::Underway { node });
    }
    match order {
        Order::Add(new) => add(new, members, newcomers),
        Order::Remove {
            nodes,
            half_added_only,
        } => remove(nodes, *half_added_only, members),
        Order::AddLearner(new) => add_learner(new, members, newcomers.get(&new.node).copied()),
        Order::Replace { old, new } => {
            let newcomer = newcomers.get(&new.node).copied();
            replace(*old, new, members, newcomer)
        }
    }
}

/// A copy is of use once it has caught up. Whoever votes has one.
fn add_learner(
    new: &Member,
    members: &Members,
    newcomer: Option<Newcomer>,
) -> Result<Step, Refused> {
    if let Some(voter) = members.voter_on(new.node) {
        return Ok(Step::Done(Some(voter)));
    }
    let Some(newcomer) = newcomer else {
        return Ok(Step::Ask);
    };
    let (step, learner) = bring_in(new, members, newcomer)?;
    Ok(step.unwrap_or(Step::Done(learner)))
}

/// Whoever has no vote yet is prepared one after the other; then all of them get theirs at once, so that
/// the group never has the numbers of voters in between.
fn add(new: &[Member], members: &Members, newcomers: &Newcomers) -> Result<Step, Refused> {
    let asked = |new: &Member| Some((new.clone(), *newcomers.get(&new.node)?));
    let Some(asked) = new.iter().map(asked).collect::<Option<Vec<_>>>() else {
        return Ok(Step::Ask);
    };
    let mut voters = members.voters();
    let (mut steps, mut replicas) = (Vec::new(), Vec::new());
    // All are looked at before anything is done: one that can't come keeps the others from half coming.
    for (new, newcomer) in &asked {
        match members.voter_on(new.node) {
            Some(voter) => {
                steps.extend(correct(new, voter, members, *newcomer)?);
                replicas.push(voter);
            }
            None if voters.len() >= MAX_VOTERS => return Err(Refused::TooMany),
            None => {
                let (step, learner) = bring_in(new, members, *newcomer)?;
                steps.extend(step);
                // One that has no replica yet counts for the number.
                let coming = learner.unwrap_or(ReplicaId(u64::MAX - new.node.0));
                voters.insert(coming);
                replicas.push(coming);
            }
        }
    }
    let is_wait = |step: &Step| matches!(step, Step::CatchUp(_));
    // Those that come begin to catch up together.
    steps.sort_by_key(is_wait);
    match steps.into_iter().next() {
        Some(step) => Ok(step),
        None if voters == members.voters() => Ok(Step::Done(replicas.first().copied())),
        None => members.to_voters(voters),
    }
}

/// What is to be corrected of a node that has a vote already.
fn correct(
    new: &Member,
    voter: ReplicaId,
    members: &Members,
    newcomer: Newcomer,
) -> Result<Option<Step>, Refused> {
    let node = new.node;
    if members.learner_on(node).is_some() {
        return Err(Refused::Underway { node });
    }
    match newcomer {
        Newcomer::Free => Err(Refused::Wiped {
            node,
            address: new.peer_address.clone(),
        }),
        Newcomer::Holds(held) if held != voter => Err(Refused::HoldsOther {
            node,
            replica: held,
        }),
        Newcomer::Holds(_) => Ok(match members.seats.get(&voter) {
            Some(seat) if seat.member != *new => Some(Step::SetMember(voter, new.clone())),
            _ => None,
        }),
    }
}

/// Makes the newcomer a learner and has it catch up; the step to that, if it is not done, and its replica,
/// if it has one.
fn bring_in(
    new: &Member,
    members: &Members,
    newcomer: Newcomer,
) -> Result<(Option<Step>, Option<ReplicaId>), Refused> {
    let learner = members.learner_on(new.node);
    let step = match (learner, newcomer) {
        (None, Newcomer::Free) => Some(Step::AddLearner(new.clone())),
        // It was added but never told, or its directory was emptied since. Under a replica id that
        // may have been in use it must not begin anew.
        (Some(learner), Newcomer::Free) => Some(Step::DropLearner(learner)),
        (Some(learner), Newcomer::Holds(held)) if held == learner => {
            let moved = members.seats.get(&learner).map(|seat| &seat.member) != Some(new);
            if moved {
                Some(Step::SetMember(learner, new.clone()))
            } else if members.has_caught_up(learner) {
                None
            } else {
                Some(Step::CatchUp(learner))
            }
        }
        (_, Newcomer::Holds(replica)) => {
            return Err(Refused::HoldsOther {
                node: new.node,
                replica,
            });
        }
    };
    Ok((step, learner))
}

fn replace(
    old: NodeId,
    new: &Member,
    members: &Members,
    newcomer: Option<Newcomer>,
) -> Result<Step, Refused> {
    let by_itself = old == new.node;
    let leaving = match (members.voter_on(old), members.voter_on(new.node)) {
        (None, Some(voter)) => return Ok(Step::Done(Some(voter))),
        (None, None) => return Err(Refused::NotAVoter { node: old }),
        (Some(_), Some(_)) if !by_itself => {
            let new = new.node;
            return Err(Refused::AlreadyAVoter { old, new });
        }
        (Some(leaving), _) => leaving,
    };
    let Some(newcomer) = newcomer else {
        return Ok(Step::Ask);
    };
    if by_itself && newcomer == Newcomer::Holds(leaving) {
        // It was replaced already, or never lost anything.
        return match members.learner_on(old) {
            None => Ok(Step::Done(Some(leaving))),
            Some(_) => Err(Refused::StillAlive { node: old }),
        };
    }
    // It leads, and nobody could take over before the other has a vote.
    if members.voters().len() == 1 {
        return Err(Refused::LastVoter { node: old });
    }
    match bring_in(new, members, newcomer)? {
        (Some(step), _) => Ok(step),
        (None, learner) => {
            let mut voters = members.voters();
            voters.remove(&leaving);
            voters.extend(learner);
            members.to_voters(voters)
        }
    }
}

fn remove(
    nodes: &BTreeSet<NodeId>,
    half_added_only: bool,
    members: &Members,
) -> Result<Step, Refused> {
    let mut on = nodes.iter();
    if let Some(learner) = on.find_map(|node| members.learner_on(*node)) {
        return Ok(Step::DropLearner(learner));
    }
    let leaving = nodes.iter().filter_map(|node| members.voter_on(*node));
    let leaving: BTreeSet<ReplicaId> = leaving.collect();
    if leaving.is_empty() || half_added_only {
        return Ok(Step::Done(leaving.first().copied()));
    }
    let voters: BTreeSet<ReplicaId> = members.voters().difference(&leaving).copied().collect();
    match (voters.is_empty(), nodes.first()) {
        (true, Some(node)) => Err(Refused::LastVoter { node: *node }),
        _ => members.to_voters(voters),
    }
}

#[cfg(test)]
mod tests;
