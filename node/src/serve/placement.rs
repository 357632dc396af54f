//! What this node learns and orders of placement: who leads which group, the map's history, and changes of the
//! map, which the leader of the placement group makes.
//!
//! ```text
//!   any node ─► leader of group 0: read the map ─► Place { based_on, change } ─► the log ─► next version
//!   any node ─► every node of the map: Status ─► what the leader of each group tells
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rossby_api::admin::{OperatorError, PlacementView, group_status};
use rossby_api::peer::Connections;
use rossby_api::placement::{Known, best};
use rossby_domain::command::{HISTORY_ROWS, Place};
use rossby_domain::ids::{GroupId, MapVersion, NodeId};
use rossby_domain::placement::{
    Change, ClusterMap, NodeEntry, NodeState, PLACEMENT_GROUP, PLACEMENT_PARTITION,
    PlacementRefusal, SurvivalGoal,
};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};
use rossby_proto::v1;
use rossby_raft::{Group, Leadership, Member, ReadError};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::init::{failed, named, refused, unavailable};
use super::node::Node;
use super::operator::of_propose;

/// How long a change of the map may take at the leader, and as the node that hands it on waits.
const AT_THE_LEADER: Duration = Duration::from_secs(10);
const ANYWHERE: Duration = Duration::from_secs(15);
/// How long a node may take to tell how its groups are.
const STATUS_WITHIN: Duration = Duration::from_secs(2);
/// A change is made anew when another came first, this many times.
const TRIES: u32 = 8;
/// Between two looks whether the first map is in the log.
const FOUND_AGAIN: Duration = Duration::from_millis(200);

/// What is known of each group, which nodes did not answer, and the steps under way.
type Told = (Vec<v1::KnownGroup>, Vec<NodeId>, Vec<v1::StepUnderWay>);

impl Node {
    /// What is known of each group: from its leader if that answers, else from the member that is in the
    /// latest term; and who did not answer.
    pub(super) async fn known_groups(&self) -> Result<Known, OperatorError> {
        let (known, silent, _) = self.told_by_all().await?;
        Ok((known, silent))
    }

    async fn told_by_all(&self) -> Result<Told, OperatorError> {
        let membership = self.entered()?;
        let own = membership.replicas.all();
        let mut told: Vec<v1::GroupStatus> = own
            .iter()
            .map(|group| group_status(group.status()))
            .collect();
        let map = membership.map.newest();
        let others = map
            .nodes()
            .iter()
            .filter(|(node, entry)| **node != self.id() && !entry.peer_address.is_empty());
        let asking = others.map(|(node, entry)| async {
            let asked = match &self.parts.peers {
                Some(peers) => ask_status(peers, *node, entry).await,
                None => None,
            };
            asked.ok_or(*node)
        });
        let mut silent = Vec::new();
        let mut steps = self.under_way.lock().clone();
        for answer in join_all(asking).await {
            match answer {
                Ok(status) => {
                    told.extend(status.groups);
                    steps.extend(status.steps);
                }
                Err(node) => silent.push(node),
            }
        }
        Ok((best(told), silent, steps))
    }

    /// The node that leads a group, as far as can be learnt.
    pub(super) async fn find_leader(&self, group: GroupId) -> Result<Leadership, OperatorError> {
        let membership = self.entered()?;
        if let Some(replica) = membership.replicas.get(group) {
            match replica.leadership() {
                Leadership::Unknown => {}
                known => return Ok(known),
            }
        }
        let (known, _) = self.known_groups().await?;
        let mut statuses = known.into_iter().filter_map(|known| known.status);
        let status = statuses.find(|status| status.group_id == group.0);
        let leader = status.and_then(|status| {
            let leader = status.leader_node_id;
            let mut members = status.members.into_iter();
            members.find(|member| member.node_id == leader)
        });
        match leader {
            // It would have said so itself.
            Some(leader) if leader.node_id == self.id().0 => Ok(Leadership::Unknown),
            Some(leader) => Ok(Leadership::Elsewhere(Member {
                node: NodeId(leader.node_id),
                peer_address: leader.peer_address,
                client_address: leader.client_address,
            })),
            None => Ok(Leadership::Unknown),
        }
    }

    /// The version of the map in this node's replica of the placement group; `None` if it has none.
    pub(super) fn founded_version(&self) -> Option<MapVersion> {
        let group = self.membership()?.replicas.get(PLACEMENT_GROUP)?;
        match group.read_local(PLACEMENT_PARTITION, &Query::Map) {
            Ok(Answer::Map(map)) => Some(map.version()),
            _ => None,
        }
    }

    /// Changes the map, here or at the leader of the placement group; the version of the map then. That
    /// nothing would change is no error.
    pub(super) async fn change_map_anywhere(
        &self,
        change: Change,
    ) -> Result<MapVersion, OperatorError> {
        let leader = match self.find_leader(PLACEMENT_GROUP).await? {
            Leadership::Here { .. } => return self.lead_change(change).await,
            Leadership::Elsewhere(leader) => leader,
            Leadership::Unknown => {
                return Err(unavailable("the placement group has no leader now"));
            }
        };
        let peers = self.peers()?;
        let connection = peers.get(leader.node, &leader.peer_address).await;
        let mut client = connection.map_err(unavailable)?.client();
        let change = serde_json::to_vec(&change).map_err(failed)?.into();
        let asking = client.change_map(v1::ChangeMapRequest { change });
        match tokio::time::timeout(ANYWHERE, asking).await {
            Ok(Ok(response)) => Ok(MapVersion(response.into_inner().map_version)),
            Ok(Err(status)) => Err(of_peer(&leader, &status)),
            Err(_) => Err(OperatorError::Unknown(
                "the leader of the placement group does not answer".to_owned(),
            )),
        }
    }

    /// Changes the map, if this node leads the placement group.
    pub(super) async fn lead_change(&self, change: Change) -> Result<MapVersion, OperatorError> {
        let membership = self.entered()?;
        let group = self.replica_of(PLACEMENT_GROUP)?;
        let deadline = Instant::now() + AT_THE_LEADER;
        for _ in 0..TRIES {
            let map = read_map(&group, deadline).await?;
            let command = Command::Place(Place {
                based_on: map.version(),
                change: change.clone(),
            });
            let proposed = group.propose(vec![(PLACEMENT_PARTITION, command)], deadline);
            let replies = proposed.await.map_err(of_propose)?;
            match replies.into_iter().next() {
                Some(Ok(Outcome::Placed { version })) => {
                    let map = read_map(&group, deadline).await?;
                    membership.map.offer(Arc::new(map));
                    return Ok(version);
                }
                Some(Err(Rejection::MapChanged { .. })) => {}
                Some(Err(Rejection::PlacementRefused(PlacementRefusal::Unchanged))) => {
                    return Ok(map.version());
                }
                Some(Err(Rejection::PlacementRefused(PlacementRefusal::NotFounded))) => {
                    return Err(unavailable("the cluster is just being founded"));
                }
                Some(Err(Rejection::PlacementRefused(refusal))) => return Err(refused(refusal)),
                Some(Err(Rejection::NotOwner { .. })) => {
                    return Err(unavailable("the placement group is just beginning"));
                }
                other => return Err(failed(format!("unexpected reply to a change: {other:?}"))),
            }
        }
        Err(unavailable("others change the map all the time"))
    }

    /// What changed in the map, from this node's replica of the placement group.
    pub(super) async fn own_history(&self) -> Result<Bytes, OperatorError> {
        let group = self.replica_of(PLACEMENT_GROUP)?;
        let query = Query::MapHistory {
            after: MapVersion(0),
            limit: u32::try_from(HISTORY_ROWS).unwrap_or(u32::MAX),
        };
        // However old: the history only grows, and whoever asks sees how far it reaches.
        match group.read_local(PLACEMENT_PARTITION, &query) {
            Ok(Answer::MapHistory(rows)) => {
                let rows = serde_json::to_vec(&rows).map_err(failed)?;
                Ok(rows.into())
            }
            Ok(other) => Err(failed(format!("unexpected answer: {other:?}"))),
            Err(error) => Err(of_read(&error)),
        }
    }

    /// The same, from whoever has a replica of the placement group.
    pub(super) async fn history_anywhere(&self) -> Result<Bytes, OperatorError> {
        let membership = self.entered()?;
        if membership.replicas.get(PLACEMENT_GROUP).is_some() {
            return self.own_history().await;
        }
        let peers = self.peers()?;
        for member in membership.router.directory().nodes(PLACEMENT_GROUP) {
            let asked = async {
                let connection = peers.get(member.node, &member.peer_address).await.ok()?;
                let request = v1::PlacementHistoryRequest {};
                connection.client().map_history(request).await.ok()
            };
            if let Ok(Some(answer)) = tokio::time::timeout(STATUS_WITHIN, asked).await {
                return Ok(answer.into_inner().history);
            }
        }
        Err(unavailable(
            "no node with a replica of the placement group answers",
        ))
    }

    /// The map and what is known of the groups.
    pub(super) async fn placement_view(&self) -> Result<PlacementView, OperatorError> {
        let (groups, silent, steps) = self.told_by_all().await?;
        let map = self.entered()?.map.newest();
        if map.version() == MapVersion(0) {
            return Err(unavailable("this node does not know the cluster map yet"));
        }
        Ok(PlacementView {
            map,
            groups,
            silent,
            steps,
        })
    }

    /// Sets what the cluster is to survive.
    pub(super) async fn set_goal(&self, goal: SurvivalGoal) -> Result<MapVersion, OperatorError> {
        self.change_map_anywhere(Change::SetGoal(goal)).await
    }

    /// Puts a node in the map, or corrects its addresses.
    pub(super) async fn put_node(
        &self,
        node: NodeId,
        entry: NodeEntry,
    ) -> Result<(), OperatorError> {
        let known = self.entered()?.map.newest();
        if known.nodes().get(&node) == Some(&entry) {
            return Ok(());
        }
        let change = Change::PutNode { node, entry };
        self.change_map_anywhere(change).await.map(drop)
    }

    /// Takes a node out of the map, if it is in no group; whether it is out.
    pub(super) async fn settle(&self, node: NodeId) -> Result<bool, OperatorError> {
        let membership = self.entered()?;
        let is_named = |map: &ClusterMap| map.nodes().contains_key(&node);
        if !is_named(&membership.map.newest()) {
            return Ok(true);
        }
        let (known, _) = self.known_groups().await?;
        let map = membership.map.newest();
        for group in std::iter::once(&PLACEMENT_GROUP).chain(map.groups().keys()) {
            let of_group = |known: &&v1::KnownGroup| {
                let status = known.status.as_ref();
                known.from_leader && status.is_some_and(|status| status.group_id == group.0)
            };
            let leader = known.iter().find(of_group);
            let status = leader.and_then(|known| known.status.as_ref());
            let status = status.ok_or_else(|| {
                unavailable(format!("{} has no leader that answers", named(*group)))
            })?;
            if status.members.iter().any(|member| member.node_id == node.0) {
                return Ok(false);
            }
        }
        let Some(entry) = map.nodes().get(&node) else {
            return Ok(true);
        };
        let entry = NodeEntry {
            state: NodeState::Draining,
            ..entry.clone()
        };
        self.put_node(node, entry).await?;
        self.change_map_anywhere(Change::RemoveNode(node)).await?;
        info!(%node, "a node is out of the cluster map");
        Ok(true)
    }

    /// Writes the first map to the placement group's log, whenever this node leads that group, until it is
    /// there.
    pub(super) async fn found_map(&self) {
        let Some(membership) = self.membership() else {
            return;
        };
        let Some(plan) = &membership.founding else {
            return;
        };
        while !self.stop_tasks.is_cancelled() {
            let group = membership.replicas.get(PLACEMENT_GROUP);
            let Some(group) = group else { return };
            match self.founded_version() {
                Some(version) if version > MapVersion(0) => return,
                _ => {}
            }
            // Its workers take the partition over first.
            if group.leads_surely() && group.epoch(PLACEMENT_PARTITION).is_some() {
                match self.lead_change(plan.change()).await {
                    Ok(version) => info!(%version, "the cluster map is founded"),
                    Err(error) => debug!(%error, "the cluster map is not founded yet"),
                }
            }
            let pause = sleep(FOUND_AGAIN);
            let _ = self.stop_tasks.run_until_cancelled(pause).await;
        }
    }

    /// Tells the map where this node is reached now, if that has changed.
    pub(super) async fn publish_own_entry(&self) -> Result<(), OperatorError> {
        let own = self.own_entry();
        let map = self.entered()?.map.newest();
        match map.nodes().get(&self.id()) {
            Some(known) if known.peer_address.is_empty() => {
                let entry = NodeEntry {
                    region: known.region.clone(),
                    state: known.state,
                    ..own
                };
                self.put_node(self.id(), entry).await
            }
            _ => Ok(()),
        }
    }
}

async fn read_map(group: &Group, deadline: Instant) -> Result<ClusterMap, OperatorError> {
    let read = group.read(PLACEMENT_PARTITION, &Query::Map, deadline);
    match read.await {
        Ok(Answer::Map(map)) => Ok(map),
        Ok(other) => Err(failed(format!("unexpected answer: {other:?}"))),
        Err(error) => Err(of_read(&error)),
    }
}

fn of_read(error: &ReadError) -> OperatorError {
    match error {
        ReadError::Stopped => failed(error),
        _ => unavailable(error),
    }
}

/// What a leader that was asked for something said, or that it went away.
pub(super) fn of_peer(leader: &Member, status: &tonic::Status) -> OperatorError {
    use std::error::Error as _;
    // Its own words would not say who went away.
    if status.source().is_some() {
        return OperatorError::Unknown(format!(
            "node {}, which led, went away before it answered",
            leader.node
        ));
    }
    OperatorError::of_peer(status)
}

async fn ask_status(
    peers: &Connections,
    node: NodeId,
    entry: &NodeEntry,
) -> Option<v1::StatusResponse> {
    let asked = async {
        let connection = peers.get(node, &entry.peer_address).await.ok()?;
        let answer = connection
            .client()
            .status(v1::StatusRequest {})
            .await
            .ok()?;
        Some(answer.into_inner())
    };
    let answered = tokio::time::timeout(STATUS_WITHIN, asked).await;
    answered.ok().flatten()
}
