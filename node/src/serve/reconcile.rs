//! The plan's loop (`rossby_api::placement`), as this node gives it the others to ask and to order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rossby_api::admin::OperatorError;
use rossby_api::peer::PlannedStep;
use rossby_api::placement::{Ground, Known, Told, kind, reconcile};
use rossby_domain::ids::{GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap, PLACEMENT_GROUP, Patience, Step};
use rossby_proto::v1;
use rossby_raft::Member;
use tokio::time::timeout;

use super::init::{failed, unavailable};
use super::members::ANYWHERE;
use super::node::Node;
use super::placement::of_peer;

/// Who does not answer within this is down.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The steps of plans that were begun here, by kind.
#[derive(Debug, Clone, Default)]
pub struct StepCounters(Family<KindLabel, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl StepCounters {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        let help = "Steps towards what the cluster map asks for that were begun by this node";
        registry.register("rossby_placement_steps", help, counters.0.clone());
        counters
    }

    fn count(&self, step: &Step) {
        let kind = kind(step);
        self.0.get_or_create(&KindLabel { kind }).inc();
    }
}

impl Node {
    /// Plans and has the steps carried out, whenever this node leads the placement group, until it stops.
    pub(super) async fn reconcile(self: Arc<Self>) {
        if !self.parts.config.placement.reconcile || self.parts.peers.is_none() {
            return;
        }
        let (patience, stop) = (self.patience(), self.stop_tasks.clone());
        reconcile(self, patience, stop).await;
    }

    fn patience(&self) -> Patience {
        let settings = &self.parts.config.placement;
        let stable_ms = settings.stable_s.saturating_mul(1000);
        Patience {
            dead_after_ms: settings.replace_after_s.saturating_mul(1000),
            stable_ms,
            cool_down_ms: stable_ms,
        }
    }
}

#[async_trait]
impl Ground for Node {
    fn leads_placement(&self) -> bool {
        let replicas = self.membership().map(|membership| &membership.replicas);
        let group = replicas.and_then(|replicas| replicas.get(PLACEMENT_GROUP));
        group.is_some_and(|group| group.leads_surely())
    }

    fn map(&self) -> Arc<ClusterMap> {
        let known = self.membership().map(|membership| membership.map.newest());
        known.unwrap_or_default()
    }

    async fn ask_all(&self, map: &ClusterMap) -> Told {
        let others = map.nodes().iter().filter(|(node, _)| **node != self.id());
        let asking = others.map(|(node, entry)| async move {
            let asked = async {
                let peers = self.parts.peers.as_ref()?;
                let connection = peers.get(*node, &entry.peer_address).await.ok()?;
                let mut client = connection.client();
                let request = v1::ReportsRequest {
                    map_version: map.version().0,
                    peer_address: self.parts.advertised.peers.clone(),
                };
                let answer = client.reports(request).await.ok()?;
                serde_json::from_slice(&answer.into_inner().reports).ok()
            };
            (*node, timeout(ANSWER_WITHIN, asked).await.ok().flatten())
        });
        let mut told: Told = join_all(asking).await.into_iter().collect();
        told.insert(self.id(), Some(self.own_reports()));
        told
    }

    fn begun(&self, step: &Step) {
        self.parts.steps.count(step);
    }

    async fn give_step(
        &self,
        leader: NodeId,
        group: GroupId,
        planned: PlannedStep,
    ) -> Result<(), OperatorError> {
        if leader == self.id() {
            return self.lead_step(group, planned).await;
        }
        let map = self.entered()?.map.newest();
        let entry = map.nodes().get(&leader);
        let entry = entry.ok_or_else(|| unavailable(format!("node {leader} is not in the map")))?;
        let connection = self.peers()?.get(leader, &entry.peer_address).await;
        let mut client = connection.map_err(unavailable)?.client();
        let request = v1::TakeStepRequest {
            group_id: group.0,
            step: serde_json::to_vec(&planned).map_err(failed)?.into(),
        };
        match timeout(ANYWHERE, client.take_step(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => {
                let leader = Member {
                    node: leader,
                    peer_address: entry.peer_address.clone(),
                    client_address: entry.client_address.clone(),
                };
                Err(of_peer(&leader, &status))
            }
            Err(_) => Err(OperatorError::Unknown(format!(
                "node {leader}, which leads, does not answer"
            ))),
        }
    }

    fn under_way(&self, steps: Vec<v1::StepUnderWay>) {
        *self.under_way.lock() = steps;
    }

    async fn known_groups(&self) -> Result<Known, OperatorError> {
        // Its own, of the same name.
        Self::known_groups(self).await
    }

    async fn change_map(&self, change: Change) -> Result<MapVersion, OperatorError> {
        self.change_map_anywhere(change).await
    }

    async fn found_replica(
        &self,
        group: GroupId,
        map: &Arc<ClusterMap>,
        founder: (ReplicaId, NodeId),
        initialise: bool,
    ) -> Result<(), OperatorError> {
        self.place_founder(group, map, founder, initialise).await
    }
}
