//! What the groups that this node leads tell whoever plans, and the steps of the plan that it carries on as
//! their leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::NodeId;
use rossby_domain::placement::{ClusterMap, Membership, Report, Step};
use rossby_raft::{Group, GroupStatus, Member, Order};

use super::orders::{Orders, StepGuard};
use super::replicas::Replicas;
use crate::admin::OperatorError;
use crate::peer::{GroupReport, PlannedStep};
use crate::router::Directory;

/// A member that lacks no more entries than this has caught up.
const CAUGHT_UP_ENTRIES: u64 = 256;

/// What the groups that this node surely leads tell.
#[must_use]
pub fn reports(
    own: NodeId,
    replicas: &Replicas,
    directory: &dyn Directory,
    orders: &Orders,
) -> Vec<GroupReport> {
    let report = |group: &Arc<Group>| {
        let leads_for = group.leads_for().filter(|_| group.leads_surely())?;
        let status = group.status();
        let assigned = directory.assigned(group.id());
        let owned = assigned.iter().filter(|(partition, epoch)| {
            group.epoch(*partition).is_some_and(|owned| owned >= *epoch)
        });
        Some(GroupReport {
            group: group.id(),
            term: status.term,
            owned: u16::try_from(owned.count()).unwrap_or(u16::MAX),
            report: report(own, &status, leads_for, orders.is_busy(group.id())),
        })
    };
    replicas.all().iter().filter_map(report).collect()
}

/// What a step of the plan is for the group that it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedChange {
    /// Another voter leads.
    Leader(NodeId),
    /// The members change.
    Members(Order),
}

/// Begins a step of the plan in a group that is led here, if it is its turn and the voters are still those that
/// it was planned for. The turn ends with the guard.
///
/// # Errors
/// [`OperatorError::Unavailable`]; the step is given again, or another.
pub fn begin_step<'a>(
    replica: &Group,
    orders: &'a Orders,
    map: &ClusterMap,
    planned: PlannedStep,
) -> Result<(StepGuard<'a>, PlannedChange), OperatorError> {
    let running = orders
        .begin_step(replica.id())
        .ok_or_else(|| unavailable("another change of the members is under way".to_owned()))?;
    let members = replica.status().members.into_iter();
    let voting = members.filter_map(|(_, member, votes, _)| votes.then_some(member.node));
    if voting.collect::<BTreeSet<_>>() != planned.voters {
        let text = "the voters have changed since that was planned";
        return Err(unavailable(text.to_owned()));
    }
    let change = match planned.step {
        Step::TransferLeader { to } => PlannedChange::Leader(to),
        Step::Replace { old, new } => PlannedChange::Members(Order::Replace {
            old,
            new: known_member(map, new)?,
        }),
        Step::Add { nodes } => {
            let new = nodes.into_iter().map(|node| known_member(map, node));
            PlannedChange::Members(Order::Add(new.collect::<Result<_, _>>()?))
        }
        Step::AddLearner { node } => {
            PlannedChange::Members(Order::AddLearner(known_member(map, node)?))
        }
        Step::Remove { nodes } => PlannedChange::Members(Order::Remove {
            nodes,
            half_added_only: false,
        }),
    };
    Ok((running, change))
}

/// A node of the map as a member of a group.
fn known_member(map: &ClusterMap, node: NodeId) -> Result<Member, OperatorError> {
    let entry = map.nodes().get(&node);
    let entry = entry.ok_or_else(|| unavailable(format!("node {node} is not in the map here")))?;
    Ok(Member {
        node,
        peer_address: entry.peer_address.clone(),
        client_address: entry.client_address.clone(),
    })
}

fn unavailable(text: String) -> OperatorError {
    OperatorError::Unavailable(text)
}

/// A group as its leader sees it.
fn report(leader: NodeId, status: &GroupStatus, leads_for: Duration, busy: bool) -> Report {
    let of = |wanted: bool| -> BTreeSet<NodeId> {
        let members = status.members.iter();
        let members = members.filter(|(_, _, voter, _)| *voter == wanted);
        members.map(|(_, member, ..)| member.node).collect()
    };
    let voters = of(true);
    let last = status.last_log_index.unwrap_or_default();
    let caught_up = status.members.iter().filter(|(_, member, _, matched)| {
        let lacks = matched.map(|index| last.saturating_sub(index));
        member.node == leader || lacks.is_some_and(|lacks| lacks <= CAUGHT_UP_ENTRIES)
    });
    Report {
        caught_up: caught_up.map(|(_, member, ..)| member.node).collect(),
        membership: Membership {
            leader: Some(leader),
            // Both the old and the new ones: nothing is planned before it is over.
            coming: status.joint.then(|| voters.clone()),
            learners: of(false).difference(&voters).copied().collect(),
            voters,
        },
        leads_for_ms: u64::try_from(leads_for.as_millis()).unwrap_or(u64::MAX),
        busy,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rossby_domain::ids::{GroupId, ReplicaId};

    use super::*;

    fn status(joint: bool) -> GroupStatus {
        let member = |node: u64, voter: bool, matched: Option<u64>| {
            let member = Member {
                node: NodeId(node),
                peer_address: format!("node{node}:1"),
                client_address: String::new(),
            };
            (ReplicaId(node), member, voter, matched)
        };
        GroupStatus {
            group: GroupId(1),
            replica: ReplicaId(1),
            role: "leader",
            term: 3,
            leader: None,
            last_log_index: Some(1000),
            committed_index: Some(1000),
            applied_index: Some(1000),
            checkpoint_index: None,
            purged_index: None,
            members: vec![
                member(1, true, None),
                member(2, true, Some(990)),
                member(3, true, Some(10)),
                member(4, false, None),
            ],
            resting: false,
            joint,
            trouble: BTreeMap::new(),
            removed: false,
            failure: None,
            expiry_blocked: None,
            time_ahead_ms: 0,
        }
    }

    #[test]
    fn a_leader_tells_who_votes_and_who_has_caught_up() {
        let nodes = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let told = report(NodeId(1), &status(false), Duration::from_secs(7), false);
        assert_eq!(told.membership.voters, nodes(&[1, 2, 3]));
        assert_eq!(told.membership.learners, nodes(&[4]));
        assert_eq!(told.membership.coming, None);
        assert_eq!(told.caught_up, nodes(&[1, 2]));
        assert_eq!((told.leads_for_ms, told.busy), (7_000, false));
        let joint = report(NodeId(1), &status(true), Duration::ZERO, true);
        assert!(joint.membership.coming.is_some() && joint.busy);
    }
}
