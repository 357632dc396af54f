//! From an order and what the membership is now to the one next step. Pure.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{NodeId, ReplicaId};

use crate::Member;

/// More voters than this make every write slower and nothing safer.
pub const MAX_VOTERS: usize = 9;
/// A learner that lacks no more entries than this has caught up: the rest is under way.
const CAUGHT_UP_ENTRIES: u64 = 256;

/// What an operator wants the membership to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// A node becomes a voter. For a member it corrects the addresses.
    Add(Member),
    /// A node is no longer a member.
    Remove {
        /// The node.
        node: NodeId,
        /// Only what an addition or replacement left half done is taken back.
        half_added_only: bool,
    },
    /// A node takes the place of another, or its own place with an empty directory.
    Replace {
        /// The node that leaves, alive or not.
        old: NodeId,
        /// The node that comes.
        new: Member,
    },
}

impl Order {
    /// The node that comes, if one does.
    #[must_use]
    pub fn newcomer(&self) -> Option<&Member> {
        match self {
            Self::Add(new) | Self::Replace { new, .. } => Some(new),
            Self::Remove { .. } => None,
        }
    }
}

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
    /// Ask who runs at the newcomer's address.
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
    /// Have another replica lead first.
    HandOver,
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
            Ok(Step::HandOver)
        }
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

/// The next step of an order. `newcomer` is what runs at the newcomer's address, if it was asked.
pub(crate) fn next_step(
    order: &Order,
    members: &Members,
    newcomer: Option<Newcomer>,
) -> Result<Step, Refused> {
    if members.joint {
        return Ok(Step::Finish);
    }
    let about = match order {
        Order::Add(new) | Order::Replace { new, .. } => new.node,
        Order::Remove { node, .. } => *node,
    };
    let foreign = |seat: &&Seat| !seat.voter && seat.member.node != about;
    if let Some(seat) = members.seats.values().find(foreign) {
        let node = seat.member.node;
        return Err(Refused::Underway { node });
    }
    match order {
        Order::Add(new) => add(new, members, newcomer),
        Order::Remove {
            node,
            half_added_only,
        } => remove(*node, *half_added_only, members),
        Order::Replace { old, new } => replace(*old, new, members, newcomer),
    }
}

fn add(new: &Member, members: &Members, newcomer: Option<Newcomer>) -> Result<Step, Refused> {
    let Some(newcomer) = newcomer else {
        return Ok(Step::Ask);
    };
    let Some(voter) = members.voter_on(new.node) else {
        let mut voters = members.voters();
        if voters.len() >= MAX_VOTERS {
            return Err(Refused::TooMany);
        }
        return bring_in(new, members, newcomer, |learner| {
            voters.insert(learner);
            voters
        });
    };
    if members.learner_on(new.node).is_some() {
        return Err(Refused::Underway { node: new.node });
    }
    let address = new.peer_address.clone();
    match newcomer {
        Newcomer::Free => Err(Refused::Wiped {
            node: new.node,
            address,
        }),
        Newcomer::Holds(held) if held != voter => Err(Refused::HoldsOther {
            node: new.node,
            replica: held,
        }),
        Newcomer::Holds(_) => match members.seats.get(&voter) {
            Some(seat) if seat.member != *new => Ok(Step::SetMember(voter, new.clone())),
            _ => Ok(Step::Done(Some(voter))),
        },
    }
}

/// Makes the newcomer a learner, has it catch up, then gives it the place that `voters` says.
fn bring_in(
    new: &Member,
    members: &Members,
    newcomer: Newcomer,
    voters: impl FnOnce(ReplicaId) -> BTreeSet<ReplicaId>,
) -> Result<Step, Refused> {
    match (members.learner_on(new.node), newcomer) {
        (None, Newcomer::Free) => Ok(Step::AddLearner(new.clone())),
        // It was added but never told, or its directory was emptied since. Under a replica id that
        // may have been in use it must not begin anew.
        (Some(learner), Newcomer::Free) => Ok(Step::DropLearner(learner)),
        (Some(learner), Newcomer::Holds(held)) if held == learner => {
            let moved = members.seats.get(&learner).map(|seat| &seat.member) != Some(new);
            if moved {
                Ok(Step::SetMember(learner, new.clone()))
            } else if members.has_caught_up(learner) {
                members.to_voters(voters(learner))
            } else {
                Ok(Step::CatchUp(learner))
            }
        }
        (_, Newcomer::Holds(replica)) => Err(Refused::HoldsOther {
            node: new.node,
            replica,
        }),
    }
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
    bring_in(new, members, newcomer, |learner| {
        let mut voters = members.voters();
        voters.remove(&leaving);
        voters.insert(learner);
        voters
    })
}

fn remove(node: NodeId, half_added_only: bool, members: &Members) -> Result<Step, Refused> {
    if let Some(learner) = members.learner_on(node) {
        return Ok(Step::DropLearner(learner));
    }
    let Some(leaving) = members.voter_on(node) else {
        return Ok(Step::Done(None));
    };
    if half_added_only {
        return Ok(Step::Done(Some(leaving)));
    }
    let mut voters = members.voters();
    voters.remove(&leaving);
    if voters.is_empty() {
        return Err(Refused::LastVoter { node });
    }
    members.to_voters(voters)
}

#[cfg(test)]
mod tests;
