//! Orders and answers as they are sent, and back.

use rossby_domain::ids::{GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_proto::v1;
use rossby_raft::{ClockJump, GroupStatus};

use super::{InitPlan, MembersOrder, MembersProgress, NodeStatus, OperatorError};

/// A node's status, as it is sent.
pub(crate) fn status(status: NodeStatus) -> v1::StatusResponse {
    let (cluster_id, cluster_name) = status
        .cluster
        .map(|(id, name)| (id.to_string(), name))
        .unwrap_or_default();
    v1::StatusResponse {
        node_id: status.node.0,
        version: status.version,
        cluster_id,
        cluster_name,
        groups: status.groups.into_iter().map(group_status).collect(),
        standing: status.standing.as_str().to_owned(),
        advice: status.advice.unwrap_or_default(),
        region: status.region.to_string(),
        map_version: status.map_version.0,
        data_groups: u32::try_from(status.data_groups).unwrap_or(u32::MAX),
        steps: status.steps,
    }
}

/// The order in a request.
pub(crate) fn members_order(
    request: v1::ChangeMembersRequest,
) -> Result<(GroupId, MembersOrder), OperatorError> {
    use v1::change_members_request::Order;
    let invalid = |text: &str| OperatorError::Invalid(text.to_owned());
    let node = |id: u64| match id {
        0 => Err(invalid("nodes are numbered from 1")),
        id => Ok(NodeId(id)),
    };
    let order = match request.order {
        None => return Err(invalid("the order is empty")),
        Some(Order::Add(new)) => MembersOrder::Add(node(new.node_id)?, new.peer_address),
        Some(Order::Remove(remove)) => MembersOrder::Remove {
            node: node(remove.node_id)?,
            half_added_only: remove.half_added_only,
        },
        Some(Order::Replace(replace)) => {
            let new = replace
                .new
                .ok_or_else(|| invalid("the new node is missing"))?;
            MembersOrder::Replace {
                old: node(replace.old_node_id)?,
                new: node(new.node_id)?,
                peer_address: new.peer_address,
            }
        }
    };
    Ok((GroupId(request.group_id), order))
}

/// An order as a request.
#[must_use]
pub fn members_request(group: GroupId, order: &MembersOrder) -> v1::ChangeMembersRequest {
    use v1::change_members_request::Order;
    let member = |node: NodeId, address: &str| v1::MemberNode {
        node_id: node.0,
        peer_address: address.to_owned(),
    };
    let order = match order {
        MembersOrder::Add(node, address) => Order::Add(member(*node, address)),
        MembersOrder::Remove {
            node,
            half_added_only,
        } => Order::Remove(v1::RemoveNode {
            node_id: node.0,
            half_added_only: *half_added_only,
        }),
        MembersOrder::Replace {
            old,
            new,
            peer_address,
        } => Order::Replace(v1::ReplaceNode {
            old_node_id: old.0,
            new: Some(member(*new, peer_address)),
        }),
    };
    v1::ChangeMembersRequest {
        group_id: group.0,
        order: Some(order),
        whole_node: false,
    }
}

pub(crate) fn members_progress(progress: MembersProgress) -> v1::ChangeMembersResponse {
    match progress {
        MembersProgress::CatchingUp {
            replica,
            behind,
            shipped_bytes,
        } => v1::ChangeMembersResponse {
            replica_id: replica.0,
            behind_entries: behind,
            shipped_bytes,
            ..Default::default()
        },
        MembersProgress::HandedOver { leader } => v1::ChangeMembersResponse {
            new_leader_node_id: leader.0,
            ..Default::default()
        },
        MembersProgress::Done { replica, voters } => v1::ChangeMembersResponse {
            done: true,
            replica_id: replica.unwrap_or_default().0,
            voters: u32::try_from(voters).unwrap_or(u32::MAX),
            ..Default::default()
        },
    }
}

/// How far an order has come, as another node answered.
#[must_use]
pub fn members_answer(response: &v1::ChangeMembersResponse) -> MembersProgress {
    let replica = ReplicaId(response.replica_id);
    if response.done {
        MembersProgress::Done {
            replica: (replica.0 != 0).then_some(replica),
            voters: usize::try_from(response.voters).unwrap_or(usize::MAX),
        }
    } else if response.new_leader_node_id != 0 {
        MembersProgress::HandedOver {
            leader: NodeId(response.new_leader_node_id),
        }
    } else {
        MembersProgress::CatchingUp {
            replica,
            behind: response.behind_entries,
            shipped_bytes: response.shipped_bytes,
        }
    }
}

pub(crate) fn plan(request: v1::InitClusterRequest) -> Result<InitPlan, OperatorError> {
    let partitions = u16::try_from(request.partition_count)
        .ok()
        .and_then(|count| PartitionCount::new(count).ok())
        .ok_or_else(|| {
            OperatorError::Invalid("partitions must be a power of two from 1 to 4096".to_owned())
        })?;
    let nodes: Vec<_> = request
        .nodes
        .into_iter()
        .map(|node| (NodeId(node.node_id), node.peer_address))
        .collect();
    Ok(InitPlan {
        name: request.cluster_name,
        partitions,
        nodes,
        survive: super::placement::goal(&request.survive)?,
    })
}

pub(super) fn clock_jump(jump: ClockJump) -> v1::ClockJump {
    v1::ClockJump {
        last_ms: jump.last.as_millis(),
        now_ms: jump.now.as_millis(),
    }
}

/// A group's figures, as they are sent.
#[must_use]
pub fn group_status(status: GroupStatus) -> v1::GroupStatus {
    let (leader_replica_id, leader_node_id) = status
        .leader
        .map(|(replica, member)| (replica.0, member.node.0))
        .unwrap_or_default();
    let trouble = status.trouble;
    v1::GroupStatus {
        group_id: status.group.0,
        replica_id: status.replica.0,
        role: status.role.to_owned(),
        term: status.term,
        leader_replica_id,
        leader_node_id,
        last_log_index: status.last_log_index.unwrap_or_default(),
        committed_index: status.committed_index.unwrap_or_default(),
        applied_index: status.applied_index.unwrap_or_default(),
        checkpoint_index: status.checkpoint_index.unwrap_or_default(),
        members: status
            .members
            .into_iter()
            .map(|(replica, member, voter, matched_index)| v1::Member {
                replica_id: replica.0,
                node_id: member.node.0,
                peer_address: member.peer_address,
                client_address: member.client_address,
                voter,
                matched_index,
                trouble: trouble.get(&replica).cloned().unwrap_or_default(),
            })
            .collect(),
        failure: status.failure.unwrap_or_default(),
        expiry_blocked: status.expiry_blocked.map(clock_jump),
        joint: status.joint,
        time_ahead_ms: status.time_ahead_ms,
    }
}
