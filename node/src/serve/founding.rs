//! How a cluster comes to be: the plan, written down before anything else happens, so that whoever
//! picks it up after a crash makes the same cluster and not a second one.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use rossby_api::admin::InitPlan;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_raft::Member;
use rossby_seams::disk;
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, HeldReplica, Identity};
use serde::{Deserialize, Serialize};

/// The one group that a new cluster has. Group 0 is kept for placement.
pub const FIRST_GROUP: GroupId = GroupId(1);

/// The plan's file in the data directory.
const FILE: &str = "founding";
/// What the file begins with; names its format.
const HEADLINE: &str = "rossby founding plan format=1 crc32c=";

/// Why a plan can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct PlanError {
    path: PathBuf,
    reason: String,
}

impl PlanError {
    fn new(data: &DataDirectory, reason: impl ToString) -> Self {
        Self {
            path: data.path().join(FILE),
            reason: reason.to_string(),
        }
    }

    /// The plan is gone, although the group has not got its first members.
    pub fn missing(data: &DataDirectory) -> Self {
        Self::new(
            data,
            "the founder's plan is missing; move the data directory away and begin anew",
        )
    }
}

/// A node's place in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The cluster.
    pub cluster: ClusterIdentity,
    /// The node's replica.
    pub held: HeldReplica,
}

impl Place {
    /// The place that a data directory records, if it does.
    #[must_use]
    pub fn of(identity: Option<&Identity>) -> Option<Self> {
        let identity = identity?;
        let cluster = identity.cluster.clone()?;
        Some(Self {
            cluster,
            held: *identity.replica(FIRST_GROUP)?,
        })
    }
}

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

    /// Reads the plan in a data directory, if there is one.
    ///
    /// # Errors
    /// [`PlanError`] if it is damaged or can't be read.
    pub fn read(data: &DataDirectory) -> Result<Option<Self>, PlanError> {
        match disk::read(&**data.disk(), &data.path().join(FILE)) {
            Ok(bytes) => unseal(&bytes)
                .map(Some)
                .map_err(|reason| PlanError::new(data, reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PlanError::new(data, error)),
        }
    }

    /// Writes the plan into a data directory, durably and in one step.
    ///
    /// # Errors
    /// [`PlanError`] if it can't be written.
    pub fn write(&self, data: &DataDirectory) -> Result<(), PlanError> {
        let bytes = seal(self).map_err(|error| PlanError::new(data, error))?;
        disk::replace(&**data.disk(), &data.path().join(FILE), &bytes)
            .map_err(|error| PlanError::new(data, error))
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

/// JSON under a line with its checksum: a flipped bit is an error, never another plan.
fn seal(founding: &Founding) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_string_pretty(founding)?;
    let checksum = crc32c::crc32c(body.as_bytes());
    Ok(format!("{HEADLINE}{checksum:08x}\n{body}").into_bytes())
}

fn unseal(bytes: &[u8]) -> Result<Founding, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
    let (head, body) = text.split_once('\n').ok_or("it is not whole")?;
    let checksum = head
        .strip_prefix(HEADLINE)
        .ok_or("not a plan that this release knows")?;
    if checksum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
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

    #[test]
    fn any_flipped_bit_in_the_plan_is_noticed() {
        let written = seal(&founding()).unwrap();
        assert_eq!(unseal(&written), Ok(founding()));
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&flipped).is_err(), "bit {bit} made no difference");
        }
        assert!(unseal(&written[..written.len() / 2]).is_err());
        assert!(unseal(b"").is_err());
    }
}
