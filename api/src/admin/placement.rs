//! The cluster map on its way to an operator.

use std::sync::Arc;

use rossby_domain::ids::NodeId;
use rossby_domain::placement::{ClusterMap, SurvivalGoal};
use rossby_proto::v1;
use tonic::Status;

use super::OperatorError;

/// The cluster, as far as a node could learn of it when it was asked.
#[derive(Debug, Clone)]
pub struct PlacementView {
    /// The newest map that the node knows.
    pub map: Arc<ClusterMap>,
    /// What is known of each group.
    pub groups: Vec<v1::KnownGroup>,
    /// Who was asked and did not answer.
    pub silent: Vec<NodeId>,
}

pub(super) fn response(view: PlacementView) -> Result<v1::PlacementResponse, Status> {
    let map =
        serde_json::to_vec(&*view.map).map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::PlacementResponse {
        map: map.into(),
        groups: view.groups,
        silent_node_ids: view.silent.into_iter().map(|node| node.0).collect(),
    })
}

/// A survival goal in words; `None` for none.
pub(super) fn goal(text: &str) -> Result<Option<SurvivalGoal>, OperatorError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<SurvivalGoal>() {
        Ok(goal) => Ok(Some(goal)),
        Err(error) => Err(OperatorError::Invalid(error.to_string())),
    }
}
