//! The other processes, as one of them reaches them over the network in memory.
//!
//! Twin of `rossby_api::peer`: what was handed to a peer and not answered is lost. What is asked for and done
//! there is the real thing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use rossby_api::admin::{OperatorError, group_status};
use rossby_api::peer::PlannedStep;
use rossby_api::placement::{Ground, Known, MapSource, Told, best};
use rossby_api::router::{Execute, ExecuteError, Executed, Peers};
use rossby_domain::ids::{GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap, PLACEMENT_GROUP, Step};
use rossby_proto::v1;
use rossby_raft::Member;
use rossby_storage::datadir::HeldReplica;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::life::{Life, MapTrouble};
use super::node::{Common, Node};
use crate::observe::{What, Who};

/// Kept from the deadline, so that a peer's answer comes before it is given up.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// Who does not answer the plan within this is down, as for a real node.
const REPORT_WITHIN: Duration = Duration::from_secs(2);
/// How long a step may take at its leader.
const STEP_WITHIN: Duration = Duration::from_secs(25);

/// The other processes, as one of them reaches them.
#[derive(Clone)]
pub(super) struct LifePeers {
    node: NodeId,
    common: Arc<Common>,
    gone: CancellationToken,
}

/// Why nothing came back.
enum NoAnswer {
    /// Nothing got there.
    Unreached,
    /// It may have been done.
    Lost,
}

impl LifePeers {
    pub(super) fn new(node: NodeId, common: Arc<Common>, gone: CancellationToken) -> Self {
        Self { node, common, gone }
    }

    /// Has a process do something, which goes on there whatever becomes of who asked.
    async fn ask<T, F>(
        &self,
        to: NodeId,
        deadline: Instant,
        work: impl FnOnce(Arc<Life>) -> F,
    ) -> Result<T, NoAnswer>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let network = &self.common.network;
        if self.gone.is_cancelled() {
            return Err(NoAnswer::Unreached);
        }
        let there = network.travel(self.node, to).ok_or(NoAnswer::Unreached)?;
        if timeout_at(deadline, sleep(there)).await.is_err() {
            return Err(NoAnswer::Unreached);
        }
        let life = self.common.life(to).ok_or(NoAnswer::Unreached)?;
        let gone = life.gone.clone();
        let work = work(life);
        let working = tokio::spawn(async move { gone.run_until_cancelled(work).await });
        let Ok(Ok(Some(done))) = timeout_at(deadline, working).await else {
            return Err(NoAnswer::Lost);
        };
        let back = network.travel(to, self.node).ok_or(NoAnswer::Lost)?;
        sleep(back).await;
        Ok(done)
    }

    /// Where work goes that another map than this node's would send elsewhere: to who leads another group, as
    /// work for that group.
    fn astray(&self, member: &Member, request: Execute) -> (NodeId, Execute) {
        let usual = (member.node, request.clone());
        if request.group == PLACEMENT_GROUP || !self.common.goes_astray() {
            return usual;
        }
        let others: Vec<(GroupId, NodeId)> = self
            .common
            .led_groups()
            .filter(|(group, _)| *group != request.group && *group != PLACEMENT_GROUP)
            .collect();
        match self.common.astray_dice.pick(&others) {
            Some((group, leader)) => {
                let group = *group;
                (*leader, Execute { group, ..request })
            }
            None => usual,
        }
    }
}

#[async_trait]
impl Peers for LifePeers {
    async fn execute(
        &self,
        member: &Member,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError> {
        let (to, request) = self.astray(member, request);
        let given_up = deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline);
        let asked = self.ask(to, deadline, |life| async move {
            life.mailbox.execute(request, given_up).await
        });
        match asked.await {
            Ok(result) => result,
            Err(NoAnswer::Unreached) => {
                Err(ExecuteError::Unreachable("nothing runs there".to_owned()))
            }
            Err(NoAnswer::Lost) => Err(ExecuteError::Lost("nothing came back".to_owned())),
        }
    }
}

#[async_trait]
impl MapSource for LifePeers {
    async fn newer(
        &self,
        node: NodeId,
        _address: &str,
        known: MapVersion,
    ) -> Result<Option<ClusterMap>, String> {
        let asked = self.ask(node, Instant::now() + REPORT_WITHIN, |life| async move {
            life.map().filter(|map| map.version() > known)
        });
        let map = asked.await.map_err(|_| "no answer".to_owned())?;
        Ok(map.map(|map| (*map).clone()))
    }
}

/// What a process knows of its groups.
fn statuses(life: &Life) -> Vec<v1::GroupStatus> {
    let replicas = life.replicas.all();
    let statuses = replicas.iter().map(|group| group_status(group.status()));
    statuses.collect()
}

/// A process and the others, as the plan's loop and orders of placement meet them.
pub(super) struct LifeGround {
    pub(super) life: Arc<Life>,
    pub(super) peers: LifePeers,
}

#[async_trait]
impl Ground for LifeGround {
    fn leads_placement(&self) -> bool {
        let placement = self.life.replicas.get(PLACEMENT_GROUP);
        placement.is_some_and(|group| group.leads_surely()) && !self.life.gone.is_cancelled()
    }

    fn map(&self) -> Arc<ClusterMap> {
        self.life.map().unwrap_or_default()
    }

    async fn ask_all(&self, map: &ClusterMap) -> Told {
        let asking = map.nodes().keys().map(|node| async move {
            if *node == self.life.node {
                return (*node, Some(self.life.reports()));
            }
            let within = Instant::now() + REPORT_WITHIN;
            let asked = self
                .peers
                .ask(*node, within, |life| async move { life.reports() });
            (
                *node,
                timeout(REPORT_WITHIN, asked)
                    .await
                    .ok()
                    .and_then(Result::ok),
            )
        });
        join_all(asking).await.into_iter().collect()
    }

    fn begun(&self, step: &Step) {
        let what = What::Planned(format!("{step:?}"));
        self.peers
            .common
            .recorder
            .saw(Who::Node(self.life.node), what);
    }

    async fn give_step(
        &self,
        leader: NodeId,
        group: GroupId,
        planned: PlannedStep,
    ) -> Result<(), OperatorError> {
        if leader == self.life.node {
            return self.life.lead_step(group, planned).await;
        }
        let within = Instant::now() + STEP_WITHIN;
        let asked = self.peers.ask(leader, within, |life| async move {
            life.lead_step(group, planned).await
        });
        match asked.await {
            Ok(result) => result,
            Err(NoAnswer::Unreached) => {
                Err(OperatorError::Unavailable("nothing runs there".to_owned()))
            }
            Err(NoAnswer::Lost) => Err(OperatorError::Unknown("nothing came back".to_owned())),
        }
    }

    fn under_way(&self, _: Vec<v1::StepUnderWay>) {}

    async fn known_groups(&self) -> Result<Known, OperatorError> {
        let map = self.map();
        let asking = map.nodes().keys().map(|node| async move {
            if *node == self.life.node {
                return Ok(statuses(&self.life));
            }
            let within = Instant::now() + REPORT_WITHIN;
            let asked = self
                .peers
                .ask(*node, within, |life| async move { statuses(&life) });
            asked.await.map_err(|_| *node)
        });
        let (mut told, mut silent) = (Vec::new(), Vec::new());
        for answer in join_all(asking).await {
            match answer {
                Ok(statuses) => told.extend(statuses),
                Err(node) => silent.push(node),
            }
        }
        Ok((best(told), silent))
    }

    async fn change_map(&self, change: Change) -> Result<MapVersion, OperatorError> {
        let changed = self.life.change_map(change).await;
        changed.map_err(|trouble| match trouble {
            MapTrouble::Refused(refusal) => OperatorError::Refused(refusal.to_string()),
            MapTrouble::Passing => OperatorError::Unavailable("the map is as it was".to_owned()),
            MapTrouble::Unknown => OperatorError::Unknown("nothing came back".to_owned()),
        })
    }

    async fn found_replica(
        &self,
        group: GroupId,
        map: &Arc<ClusterMap>,
        (replica, node): (ReplicaId, NodeId),
        initialise: bool,
    ) -> Result<(), OperatorError> {
        let held = HeldReplica {
            group,
            replica,
            initialise,
        };
        let (map, common) = (Some(Arc::clone(map)), &self.peers.common);
        let placing = common.visit(self.life.node, node, async move |node: Arc<Node>| {
            node.join(held, map).await
        });
        match placing.await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(OperatorError::Failed(error.to_string())),
            None => Err(OperatorError::Unavailable("nothing came back".to_owned())),
        }
    }
}
