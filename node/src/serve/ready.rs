//! Whether the node can serve, and whether it must end.

use std::sync::atomic::Ordering;

use rossby_api::http::Readiness;
use rossby_raft::Leadership;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::node::{Membership, Node};

impl Readiness for Node {
    /// Whoever reads here that the node is ready finds the same in gRPC's health service: `watch`
    /// tells that one first.
    fn ready(&self) -> Result<(), String> {
        self.able()?;
        if !self.told_ready.load(Ordering::Acquire) {
            return Err("this node is about to serve".to_owned());
        }
        Ok(())
    }
}

impl Node {
    /// Why the node can't serve, if it can't.
    pub(super) fn able(&self) -> Result<(), String> {
        if self.stop_tasks.is_cancelled() {
            return Err("this node is shutting down".to_owned());
        }
        if let Some(removed) = self.removed() {
            return Err(removed);
        }
        match self.membership() {
            Some(membership) => ready(membership),
            None if self.parts.peers.is_some() && self.has_begun() => {
                if let Some(advice) = self.advice_if_missed() {
                    return Err(advice);
                }
                Err(
                    "this node belongs to no cluster yet: run `rossby cluster init`, or `rossby cluster \
                     add-node` on a node of a cluster"
                        .to_owned(),
                )
            }
            None => Err("this node is starting".to_owned()),
        }
    }
}

fn ready(membership: &Membership) -> Result<(), String> {
    let Membership { place, group, .. } = membership;
    if let Some(failure) = group.status().failure {
        return Err(format!("group {} has stopped: {failure}", group.id()));
    }
    match group.leadership() {
        Leadership::Unknown => {
            return Err(format!(
                "group {} has no leader that this node sees",
                group.id()
            ));
        }
        Leadership::Here { .. } if !group.leads_surely() => {
            return Err(format!(
                "this node leads group {} but sees no quorum",
                group.id()
            ));
        }
        Leadership::Here { .. } | Leadership::Elsewhere(_) => {}
    }
    let partitions = place.cluster.partitions;
    let missing = partitions
        .all()
        .filter(|&partition| group.epoch(partition).is_none())
        .count();
    if missing > 0 {
        return Err(format!(
            "{missing} of {} partitions have no owner yet",
            partitions.get()
        ));
    }
    Ok(())
}

/// Tells gRPC clients whether the node is ready.
pub async fn report(node: &Node, health: &HealthReporter, ready: bool) {
    if !ready {
        node.told_ready.store(false, Ordering::Release);
    }
    let status = if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for service in ["", rossby_api::grpc::SERVICE_NAME] {
        health.set_service_status(service, status).await;
    }
    if ready {
        node.told_ready.store(true, Ordering::Release);
    }
}
