//! A node that was removed from its cluster: it says so, and does nothing else.

use rossby_domain::ids::{ClusterId, GroupId, ReplicaId};
use rossby_storage::datadir::{DataDirectory, Identity};
use tracing::{error, info};

use super::node::{Node, NodeError};

impl Node {
    /// That this node was removed, and what to do, if it was.
    pub(super) fn removed(&self) -> Option<String> {
        self.removed.get().map(|(cluster, replica)| {
            let replica = replica.map_or_else(String::new, |replica| {
                format!(" (its replica {replica} can not come back)")
            });
            format!(
                "this node was removed from cluster {cluster}{replica}: stop it, or start it with an empty \
                 directory and add it as a new node with `rossby cluster add-node`"
            )
        })
    }

    /// Writes down that a replica of this node was removed.
    pub(super) fn bury(
        &self,
        data: &mut DataDirectory,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<(), NodeError> {
        let Some(identity) = data.identity() else {
            return Ok(());
        };
        let identity = identity.without(group, replica);
        data.save(identity)?;
        info!(%group, %replica, "a replica of this node was removed from its group");
        Ok(())
    }

    /// Lets go of the replicas that were removed from their groups. A node that has none left, and is not in
    /// the map any more, was removed from its cluster.
    ///
    /// # Errors
    /// [`NodeError`] if it can't be written down.
    pub(super) async fn take_leave(&self) -> Result<(), NodeError> {
        let Some(membership) = self.membership() else {
            return Ok(());
        };
        let groups = membership.replicas.all();
        let map = membership.map.newest();
        for group in groups.iter().filter(|group| !group.is_dismissed()) {
            let Some(successor) = map.supersedes(group.id(), group.replica()) else {
                continue;
            };
            error!(
                group = %group.id(), replica = %group.replica(), successor = %successor.group,
                "this node's group was recovered with loss of data, without what this node holds: its replica is \
                 void, and stops for good"
            );
            group.dismiss().await;
        }
        let dismissed: Vec<_> = groups.iter().filter(|group| group.is_dismissed()).collect();
        if !dismissed.is_empty() {
            let mut data = self.data.lock().await;
            for group in dismissed {
                self.bury(&mut data, group.id(), group.replica())?;
                membership.replicas.remove(group.id());
            }
        }
        if self.removed.get().is_some() || !membership.replicas.is_empty() {
            return Ok(());
        }
        let is_known = !map.nodes().is_empty();
        if is_known && !map.nodes().contains_key(&self.id()) {
            let data = self.data.lock().await;
            // Whoever holds the lock may have been taking it in.
            if membership.replicas.is_empty() {
                self.bear_removal(membership.cluster.id, removed_from(data.identity()));
            }
        }
        Ok(())
    }

    /// Takes note that this node was removed, and tells the operator.
    pub(super) fn bear_removal(&self, cluster: ClusterId, replica: Option<ReplicaId>) {
        let _ = self.removed.set((cluster, replica));
        if let Some(removed) = self.removed() {
            error!("{removed}");
        }
    }
}

/// The last replica that a node was removed from, if it was from any. The groups of boxes count first: that is
/// the replica that people know.
pub(super) fn removed_from(identity: Option<&Identity>) -> Option<ReplicaId> {
    let last = identity?.removed.iter().next_back()?;
    Some(last.replica)
}
