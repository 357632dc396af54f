//! The cluster map on its way to an operator.

use std::sync::Arc;

use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{ClusterMap, RegionName, SurvivalGoal};
use rossby_proto::v1;
use tonic::Status;

use super::OperatorError;

/// A group that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// The group.
    pub group: GroupId,
    /// Where its first replicas are.
    pub founders: Vec<NodeId>,
    /// How many partitions it got.
    pub partitions: u16,
}

/// The cluster, as far as a node could learn of it when it was asked.
#[derive(Debug, Clone)]
pub struct PlacementView {
    /// The newest map that the node knows.
    pub map: Arc<ClusterMap>,
    /// What is known of each group.
    pub groups: Vec<v1::KnownGroup>,
    /// Who was asked and did not answer.
    pub silent: Vec<NodeId>,
    /// The steps that are under way, if whoever plans them answers.
    pub steps: Vec<v1::StepUnderWay>,
}

pub(super) fn response(view: PlacementView) -> Result<v1::PlacementResponse, Status> {
    let map =
        serde_json::to_vec(&*view.map).map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::PlacementResponse {
        map: map.into(),
        groups: view.groups,
        silent_node_ids: view.silent.into_iter().map(|node| node.0).collect(),
        steps: view.steps,
    })
}

/// A survival goal in words; `None` for none.
pub(crate) fn goal(text: &str) -> Result<Option<SurvivalGoal>, OperatorError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<SurvivalGoal>() {
        Ok(goal) => Ok(Some(goal)),
        Err(error) => Err(OperatorError::Invalid(error.to_string())),
    }
}

/// The group that is asked for.
pub(crate) fn group_wanted(
    request: &v1::AddGroupRequest,
) -> Result<(RegionName, Option<u16>), OperatorError> {
    let invalid = |text: String| OperatorError::Invalid(text);
    let home = RegionName::new(&request.region).map_err(|error| invalid(error.to_string()))?;
    let partitions = u16::try_from(request.partitions)
        .map_err(|_| invalid("there are not as many partitions".to_owned()))?;
    Ok((home, (partitions > 0).then_some(partitions)))
}

pub(super) fn group_added(added: &NewGroup) -> v1::AddGroupResponse {
    v1::AddGroupResponse {
        group_id: added.group.0,
        founder_node_ids: added.founders.iter().map(|node| node.0).collect(),
        partitions: u32::from(added.partitions),
    }
}
