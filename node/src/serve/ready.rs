//! Whether the node can serve, and whether it must end.

use rossby_api::http::Readiness;
use rossby_raft::Leadership;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::node::{Membership, Node};

impl Readiness for Node {
    fn ready(&self) -> Result<(), String> {
        if self.stop_tasks.is_cancelled() {
            return Err("this node is shutting down".to_owned());
        }
        match self.membership() {
            Some(membership) => ready(membership),
            None if self.parts.peers.is_some() => {
                Err("this node belongs to no cluster yet: run `rossby cluster init`".to_owned())
            }
            None => Err("this node is starting".to_owned()),
        }
    }
}

fn ready(membership: &Membership) -> Result<(), String> {
    let Membership {
        identity, group, ..
    } = membership;
    if let Some(failure) = group.status().failure {
        return Err(format!("group {} has stopped: {failure}", identity.group));
    }
    if group.leadership() == Leadership::Unknown {
        return Err(format!(
            "group {} has no leader that this node sees",
            identity.group
        ));
    }
    let missing = identity
        .partitions
        .all()
        .filter(|&partition| group.epoch(partition).is_none())
        .count();
    if missing > 0 {
        let all = identity.partitions.get();
        return Err(format!("{missing} of {all} partitions have no owner yet"));
    }
    Ok(())
}

/// Tells gRPC clients whether the node is ready.
pub async fn report(health: &HealthReporter, ready: bool) {
    let status = if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for service in ["", rossby_api::grpc::SERVICE_NAME] {
        health.set_service_status(service, status).await;
    }
}
