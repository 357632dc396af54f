//! What an operator orders of placement by way of the map: nodes that leave or stay, and new groups, of which
//! `rossby_api::placement` has all but how a founder gets its place.

use std::sync::Arc;

use rossby_api::admin::OperatorError;
use rossby_api::peer::{Joining as _, Placement, Role};
use rossby_domain::ids::{GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap, NodeEntry, NodeState};
use rossby_proto::v1;
use zeroize::Zeroizing;

use super::init::{failed, place, unavailable};
use super::node::Node;

impl Node {
    /// Has a node leave its groups, or takes that back; the map from which on it holds, and whether it was
    /// otherwise before.
    pub(super) async fn drain_or_activate(
        &self,
        node: NodeId,
        draining: bool,
    ) -> Result<(MapVersion, bool), OperatorError> {
        let map = self.entered()?.map.newest();
        let known = map.nodes().get(&node);
        let known =
            known.ok_or_else(|| OperatorError::Invalid(format!("there is no node {node}")))?;
        let state = match draining {
            true => NodeState::Draining,
            false => NodeState::Active,
        };
        let changed = known.state != state;
        let entry = NodeEntry {
            state,
            ..known.clone()
        };
        let change = Change::PutNode { node, entry };
        let version = self.change_map_anywhere(change).await?;
        Ok((version, changed))
    }

    /// Has a founder start its replica, on this node or another.
    pub(super) async fn place_founder(
        &self,
        group: GroupId,
        map: &Arc<ClusterMap>,
        (replica, node): (ReplicaId, NodeId),
        initialise: bool,
    ) -> Result<(), OperatorError> {
        let cluster = &self.entered()?.cluster;
        let secrets = self.load_secrets().map_err(failed)?.encode();
        if node == self.id() {
            let placement = Placement {
                cluster: cluster.id,
                cluster_name: cluster.name.clone(),
                partitions: cluster.partitions,
                role: Role::Replica {
                    group,
                    replica,
                    map: Arc::clone(map),
                    initialise,
                },
                secrets: Zeroizing::new(secrets.to_string()),
            };
            return self.join(placement).await.map_err(failed);
        }
        let entry = map.nodes().get(&node);
        let entry = entry.ok_or_else(|| unavailable(format!("node {node} is not in the map")))?;
        let request = v1::CreateReplicaRequest {
            cluster_id: cluster.id.to_string(),
            cluster_name: cluster.name.clone(),
            partition_count: u32::from(cluster.partitions.get()),
            group_id: group.0,
            replica_id: replica.0,
            cluster_keys: secrets.as_bytes().to_vec().into(),
            map: serde_json::to_vec(&**map).map_err(failed)?.into(),
            initialise,
            ..Default::default()
        };
        place(self.peers()?, node, &entry.peer_address, request).await
    }
}
