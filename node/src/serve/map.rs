//! Asking other nodes for the newest cluster map, as long as it does not come by itself.

use async_trait::async_trait;
use rossby_api::placement::MapSource;
use rossby_domain::ids::{MapVersion, NodeId};
use rossby_domain::placement::ClusterMap;
use rossby_proto::v1;

use super::node::Node;

#[async_trait]
impl MapSource for Node {
    async fn newer(
        &self,
        node: NodeId,
        address: &str,
        known: MapVersion,
    ) -> Result<Option<ClusterMap>, String> {
        let peers = self.parts.peers.as_ref().ok_or("no peers")?;
        let connection = peers.get(node, address).await.map_err(|e| e.to_string())?;
        let request = v1::NewerMapRequest {
            known_version: known.0,
            peer_address: self.parts.advertised.peers.clone(),
        };
        let answer = connection.client().get_map(request).await;
        let answer = answer.map_err(|status| status.message().to_owned())?;
        let map = answer.into_inner().map;
        if map.is_empty() {
            return Ok(None);
        }
        let map = serde_json::from_slice(&map).map(Some);
        map.map_err(|error| format!("what it told is no cluster map: {error}"))
    }
}

impl Node {
    /// Asks other nodes for newer maps, until this node stops.
    pub(super) async fn ask_for_maps(&self) {
        let Some(membership) = self.membership().filter(|_| self.parts.peers.is_some()) else {
            return;
        };
        let (map, replicas) = (&membership.map, &membership.replicas);
        let (random, stop) = (&*self.parts.random, &self.stop_tasks);
        map.ask_others(self, (self.id(), replicas), random, stop)
            .await;
    }
}
