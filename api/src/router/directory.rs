//! What a node knows of placement: which group owns what, and where its replicas may be.

use std::sync::Arc;

use rossby_domain::ids::{Epoch, GroupId, PartitionCount, PartitionId};
use rossby_domain::placement::ClusterMap;
use rossby_raft::{Group, Member};
use rossby_seams::watch::Receiver;

/// The first ownership of a partition.
const FIRST_EPOCH: Epoch = Epoch(1);

/// What the mailbox, its router and the workers know of placement. A hint: who owns a partition stands in
/// the owner's own log.
pub trait Directory: Send + Sync + 'static {
    /// The group that owns a partition by this node's map; `None` for a spare one.
    fn owner(&self, partition: PartitionId) -> Option<GroupId>;

    /// This node's replica of a group, if it runs one.
    fn replica(&self, group: GroupId) -> Option<Arc<Group>>;

    /// Where replicas of a group may be, for a first question; the likeliest leader first. Not this
    /// node.
    fn nodes(&self, group: GroupId) -> Vec<Member>;

    /// The partitions in which boxes that register at this node are born. Empty only while the node
    /// knows no map.
    fn births(&self) -> Vec<PartitionId>;

    /// The partitions that the map gives a group, and at which epoch: what its leader adopts.
    fn assigned(&self, group: GroupId) -> Vec<(PartitionId, Epoch)>;

    /// The newest map that this node knows, for clients; `None` where placement needs none.
    fn map(&self) -> Option<Arc<ClusterMap>> {
        None
    }

    /// Tells of newer maps, where there is one.
    fn watch_map(&self) -> Option<Receiver<Arc<ClusterMap>>> {
        None
    }
}

/// The placement of a cluster with one group, which owns everything and has a replica on every node.
#[derive(Debug)]
pub struct SoleGroup {
    group: Arc<Group>,
    partitions: PartitionCount,
}

impl SoleGroup {
    /// The placement by which this group owns all of so many partitions.
    #[must_use]
    pub fn new(group: Arc<Group>, partitions: PartitionCount) -> Self {
        Self { group, partitions }
    }
}

impl Directory for SoleGroup {
    fn owner(&self, _: PartitionId) -> Option<GroupId> {
        Some(self.group.id())
    }

    fn replica(&self, group: GroupId) -> Option<Arc<Group>> {
        (group == self.group.id()).then(|| Arc::clone(&self.group))
    }

    fn nodes(&self, _: GroupId) -> Vec<Member> {
        // The replica here knows who leads.
        Vec::new()
    }

    fn births(&self) -> Vec<PartitionId> {
        self.partitions.all().collect()
    }

    fn assigned(&self, group: GroupId) -> Vec<(PartitionId, Epoch)> {
        if group != self.group.id() {
            return Vec::new();
        }
        let all = self.partitions.all();
        all.map(|partition| (partition, FIRST_EPOCH)).collect()
    }
}
