//! What this node tells whoever plans, and the steps of the plan that it carries on as a group's leader
//! (`rossby_api::placement`).

use rossby_api::admin::OperatorError;
use rossby_api::peer::{GroupReport, PlannedStep};
use rossby_api::placement::{By, PlannedChange, begin_step, reports};
use rossby_domain::ids::GroupId;
use tokio::time::Instant;

use super::members::AT_THE_LEADER;
use super::node::Node;
use super::operator::{TRANSFER_TIMEOUT, of_propose};

impl Node {
    /// What the groups that this node surely leads tell.
    pub(super) fn own_reports(&self) -> Vec<GroupReport> {
        let Some(membership) = self.membership() else {
            return Vec::new();
        };
        let directory = membership.router.directory();
        reports(self.id(), &membership.replicas, directory, &self.orders)
    }

    /// Carries a step of the plan on, if this node leads the group.
    pub(super) async fn lead_step(
        &self,
        group: GroupId,
        planned: PlannedStep,
    ) -> Result<(), OperatorError> {
        let replica = self.replica_of(group)?;
        let map = self.entered()?.map.newest();
        let (_running, change) = begin_step(&replica, &self.orders, &map, planned)?;
        match change {
            PlannedChange::Leader(to) => {
                let deadline = Instant::now() + TRANSFER_TIMEOUT;
                let leader = replica.transfer_leader(Some(to), deadline).await;
                leader.map(drop).map_err(of_propose)
            }
            PlannedChange::Members(order) => {
                let deadline = Instant::now() + AT_THE_LEADER;
                let carried = self.carry_on(&replica, order, By::Plan, deadline).await;
                carried.map(drop).map_err(OperatorError::from)
            }
        }
    }
}
