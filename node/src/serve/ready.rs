//! Whether the node can serve, and whether it must end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rossby_api::http::Readiness;
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_raft::{Group, Leadership};
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
            Some(membership) => self.serves(membership),
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
            None => Err(self
                .joining
                .lock()
                .clone()
                .unwrap_or_else(|| "this node is starting".to_owned())),
        }
    }
}

impl Node {
    /// Whether the groups serve that people reach through this node first: those at home in its region.
    /// Others may be down with their regions, without this node being any the worse.
    fn serves(&self, membership: &Membership) -> Result<(), String> {
        let map = membership.map.newest();
        if map.owners().is_empty() {
            // With replicas it asks their members; without, it is told by whoever plans, if anybody does.
            let help = match membership.replicas.all().is_empty() {
                true => {
                    ": a member tells it within seconds, or else give `rossby cluster add-node` for it on one"
                }
                false => "",
            };
            return Err(format!("this node does not know the cluster map yet{help}"));
        }
        let groups = membership.replicas.of_boxes();
        let mut assigned: BTreeMap<GroupId, Vec<PartitionId>> = BTreeMap::new();
        for (partition, owner) in map.owners() {
            assigned.entry(owner.group).or_default().push(*partition);
        }
        let serves = |group: &Arc<Group>| {
            let assigned = assigned.get(&group.id());
            serves(group, assigned.map_or(&[], Vec::as_slice))
        };
        let at_home = |group: &Arc<Group>| {
            let entry = map.groups().get(&group.id());
            entry.is_some_and(|entry| entry.home == self.parts.config.region)
        };
        if groups.iter().any(at_home) {
            return groups
                .iter()
                .filter(|group| at_home(group))
                .try_for_each(serves);
        }
        // Away from all homes, any of them will do.
        let mut answers = groups.iter().map(serves);
        let first = answers.next().unwrap_or(Ok(()));
        match answers.any(|answer| answer.is_ok()) {
            true => Ok(()),
            false => first,
        }
    }
}

fn serves(group: &Group, assigned: &[PartitionId]) -> Result<(), String> {
    if let Some(failure) = group.failure() {
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
    let is_missing = |partition: &&PartitionId| group.epoch(**partition).is_none();
    let missing = assigned.iter().filter(is_missing).count();
    if missing > 0 {
        return Err(format!(
            "group {} has not taken over {missing} of its partitions yet",
            group.id()
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
