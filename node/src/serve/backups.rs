//! A backup of a group that has no replica on the node that was asked for it: it comes from one that has.

use std::time::Duration;

use rossby_api::admin::OperatorError;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_proto::v1;
use tokio::time::timeout;
use tonic::Streaming;

use super::init::unavailable;
use super::node::Node;

/// How long a peer may take to have a checkpoint written before it sends anything.
const HEAD_WITHIN: Duration = Duration::from_secs(30 * 60);

impl Node {
    /// The parts of a backup from a peer: its leader, else the member that knows most; `None` if this node has
    /// a replica of the group.
    pub(super) async fn backup_of_peer(
        &self,
        request: &v1::BackupRequest,
    ) -> Result<Option<Streaming<v1::BackupPart>>, OperatorError> {
        let group = GroupId(request.group_id);
        if self.entered()?.replicas.get(group).is_some() {
            return Ok(None);
        }
        let (known, _) = self.known_groups().await?;
        let mut statuses = known.into_iter().filter_map(|known| known.status);
        let status = statuses.find(|status| status.group_id == group.0);
        let status = status.unwrap_or_default();
        let mut members: Vec<_> = status.members.iter().collect();
        members.sort_by_key(|member| member.replica_id != status.replica_id);
        let members = members.into_iter().map(|member| member.node_id);
        let leader = (status.leader_node_id != 0).then_some(status.leader_node_id);
        let mut last = unavailable(format!(
            "no node that answers has a replica of group {group}"
        ));
        let mut asked = Vec::new();
        for node in leader.into_iter().chain(members).map(NodeId) {
            if asked.contains(&node) {
                continue;
            }
            asked.push(node);
            match self.parts_from(node, request.clone()).await {
                Ok(parts) => return Ok(Some(parts)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn parts_from(
        &self,
        node: NodeId,
        request: v1::BackupRequest,
    ) -> Result<Streaming<v1::BackupPart>, OperatorError> {
        let map = self.entered()?.map.newest();
        let entry = map.nodes().get(&node);
        let entry = entry.ok_or_else(|| unavailable(format!("node {node} is not in the map")))?;
        let connection = self.peers()?.get(node, &entry.peer_address).await;
        let mut client = connection.map_err(unavailable)?.client();
        match timeout(HEAD_WITHIN, client.backup(request)).await {
            Ok(Ok(parts)) => Ok(parts.into_inner()),
            Ok(Err(status)) => Err(OperatorError::of_peer(&status)),
            Err(_) => Err(unavailable(format!("node {node} does not answer"))),
        }
    }
}
