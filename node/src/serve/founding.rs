//! How a cluster comes to be: the plan, written down before anything else happens, so that whoever
//! picks it up after a crash makes the same cluster and not a second one.

use std::collections::BTreeMap;

use rossby_api::admin::InitPlan;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_raft::Member;
use serde::{Deserialize, Serialize};

/// The one group that a new cluster has. Group 0 is kept for placement.
pub const FIRST_GROUP: GroupId = GroupId(1);

/// The plan's file in the data directory.
pub const FILE: &str = "founding";

/// A cluster that this node founds: its identity and its first members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Into how many partitions it is cut.
    pub partitions: PartitionCount,
    /// The replicas of [`FIRST_GROUP`]; the founder is one of them.
    pub members: BTreeMap<ReplicaId, Member>,
}

impl Founding {
    /// A plan for these members. Replicas are numbered in the order of the nodes, from 1.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        name: String,
        partitions: PartitionCount,
        mut members: Vec<Member>,
    ) -> Self {
        members.sort_by_key(|member| member.node);
        let members = (1..).map(ReplicaId).zip(members).collect();
        Self {
            cluster,
            name,
            partitions,
            members,
        }
    }

    /// The replica of a node.
    #[must_use]
    pub fn replica_of(&self, node: NodeId) -> Option<ReplicaId> {
        self.members
            .iter()
            .find(|(_, member)| member.node == node)
            .map(|(&replica, _)| replica)
    }

    /// Whether an operator's plan is for this cluster.
    #[must_use]
    pub fn is_of(&self, plan: &InitPlan) -> bool {
        let mut planned: Vec<_> = plan.nodes.iter().map(|(node, _)| *node).collect();
        planned.sort_unstable();
        let own: Vec<_> = self.members.values().map(|member| member.node).collect();
        self.name == plan.name && self.partitions == plan.partitions && own == planned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            peer_address: format!("10.0.0.{node}:7472"),
            client_address: format!("10.0.0.{node}:7470"),
        }
    }

    fn founding() -> Founding {
        let members = vec![member(30), member(10), member(20)];
        let cluster = ClusterId::from_random([7; 16]);
        Founding::new(cluster, "test".to_owned(), PartitionCount::DEFAULT, members)
    }

    #[test]
    fn replicas_are_numbered_in_the_order_of_the_nodes() {
        let founding = founding();
        assert_eq!(founding.replica_of(NodeId(10)), Some(ReplicaId(1)));
        assert_eq!(founding.replica_of(NodeId(30)), Some(ReplicaId(3)));
        assert_eq!(founding.replica_of(NodeId(1)), None);
    }

    #[test]
    fn a_plan_is_the_same_whatever_the_order_of_its_nodes_and_else_another() {
        let founding = founding();
        let plan = |nodes: &[u64], name: &str| InitPlan {
            name: name.to_owned(),
            partitions: PartitionCount::DEFAULT,
            nodes: nodes
                .iter()
                .map(|&node| (NodeId(node), String::new()))
                .collect(),
        };
        assert!(founding.is_of(&plan(&[20, 30, 10], "test")));
        assert!(!founding.is_of(&plan(&[20, 30, 10], "other")));
        assert!(!founding.is_of(&plan(&[20, 30], "test")));
        assert!(!founding.is_of(&plan(&[20, 30, 40], "test")));
    }
}
