//! A node that was removed from its cluster: it says so, and does nothing else.

use rossby_domain::ids::{ClusterId, ReplicaId};
use rossby_storage::datadir::{DataDirectory, Identity};
use tracing::error;

use super::founding::FIRST_GROUP;
use super::node::{Node, NodeError};

impl Node {
    /// That this node was removed, and what to do, if it was.
    pub(super) fn removed(&self) -> Option<String> {
        self.removed.get().map(|(cluster, replica)| {
            format!(
                "this node was removed from cluster {cluster} (its replica {replica} can not come back): \
                 stop it, or start it with an empty directory and add it as a new node with `rossby \
                 cluster add-node`"
            )
        })
    }

    /// Writes down that a replica of this node was removed.
    pub(super) fn bury(
        &self,
        data: &mut DataDirectory,
        replica: ReplicaId,
    ) -> Result<(), NodeError> {
        let Some(identity) = data.identity() else {
            return Ok(());
        };
        let identity = identity.without(FIRST_GROUP, replica);
        let cluster = identity.cluster.as_ref().map(|cluster| cluster.id);
        data.save(identity)?;
        if let Some(cluster) = cluster {
            self.bear_removal(cluster, replica);
        }
        Ok(())
    }

    /// Takes note that this node was removed, and tells the operator.
    pub(super) fn bear_removal(&self, cluster: ClusterId, replica: ReplicaId) {
        let _ = self.removed.set((cluster, replica));
        if let Some(removed) = self.removed() {
            error!("{removed}");
        }
    }
}

/// The cluster that a node was removed from, and its last replica there.
pub(super) fn removed_from(identity: Option<&Identity>) -> Option<(ClusterId, ReplicaId)> {
    let identity = identity?;
    let cluster = identity.cluster.as_ref()?.id;
    let mut removed = identity.removed.iter();
    let last = removed.rfind(|removed| removed.group == FIRST_GROUP)?;
    Some((cluster, last.replica))
}
