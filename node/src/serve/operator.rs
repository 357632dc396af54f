//! What the operator's orders do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rossby_api::admin::{
    BackupSource, InitPlan, IssuedToken, KnownToken, MadeCluster, MembersOrder, MembersProgress,
    NewGroup, NodeStatus, Operator, OperatorError, PlacementView, Standing, box_view, reported,
    suspend,
};
use rossby_api::placement::grow;
use rossby_api::workers::tell_time;
use rossby_domain::ids::{BoxId, GroupId, MapVersion, NodeId, PartitionId};
use rossby_domain::placement::{PLACEMENT_GROUP, RegionName, SurvivalGoal, TokenWanted};
use rossby_domain::query::{BoxView, ReportedBox};
use rossby_proto::v1;
use rossby_raft::{
    BackupError, CheckpointError, ClockJump, Group, GroupStatus, ProposeError, ReadError,
};
use rossby_storage::store::StoreError;
use tokio::time::Instant;
use tonic::Streaming;
use tracing::info;

use super::node::{Membership, Node};

/// How long a new leader may take.
pub(super) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a confirmation of the time may take until it is in the log.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to learn what was acknowledged, before a backup.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);

impl Node {
    /// What runs in the cluster that this node has entered.
    pub(super) fn entered(&self) -> Result<&Membership, OperatorError> {
        // Asked first: what it belongs to is known by then.
        let begun = self.has_begun();
        self.membership().ok_or_else(|| match begun {
            true => OperatorError::Refused("this node belongs to no cluster yet".to_owned()),
            false => OperatorError::Unavailable("this node is starting".to_owned()),
        })
    }

    /// This node's replica of a group.
    pub(super) fn replica_of(&self, group: GroupId) -> Result<Arc<Group>, OperatorError> {
        let replica = self.entered()?.replicas.get(group);
        replica.ok_or_else(|| {
            OperatorError::Invalid(format!("this node has no replica of group {group}"))
        })
    }
}

#[async_trait]
impl Operator for Node {
    fn status(&self) -> NodeStatus {
        let begun = self.has_begun();
        let membership = self.membership();
        let map = membership.map(|membership| membership.map.newest());
        let removed = self.removed();
        let missed = self.advice_if_missed();
        let standing = match (&removed, membership, &missed) {
            (Some(_), ..) => Standing::Removed,
            (None, Some(_), _) => Standing::Member,
            (None, None, Some(_)) => Standing::Missed,
            (None, None, None) if !begun => Standing::Starting,
            (None, None, None) => Standing::Waiting,
        };
        NodeStatus {
            standing,
            advice: removed.or(missed).or_else(|| self.joining.lock().clone()),
            node: self.id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: membership.map(|member| (member.cluster.id, member.cluster.name.clone())),
            groups: membership.map(statuses).unwrap_or_default(),
            region: self.parts.config.region.clone(),
            map_version: map.as_ref().map(|map| map.version()).unwrap_or_default(),
            data_groups: map.map_or(0, |map| map.groups().len()),
            steps: self.under_way.lock().clone(),
        }
    }

    async fn init_cluster(&self, plan: InitPlan) -> Result<MadeCluster, OperatorError> {
        self.init(plan).await
    }

    async fn change_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        self.order_members(group, order).await
    }

    fn check_one_group(&self) -> Result<(), OperatorError> {
        let membership = self.membership();
        let groups = membership.map_or(0, |membership| membership.map.newest().groups().len());
        if groups > 1 {
            return Err(OperatorError::Invalid(format!(
                "this cluster has {groups} groups of boxes: say which one with --group NUMBER; 0 is the \
                 placement group, and `rossby placement show` lists them all. A whole node leaves with `rossby \
                 node decommission NUMBER`"
            )));
        }
        Ok(())
    }

    async fn transfer_leader(
        &self,
        group: GroupId,
        to: Option<NodeId>,
    ) -> Result<NodeId, OperatorError> {
        let deadline = Instant::now() + TRANSFER_TIMEOUT;
        let group = self.replica_of(group)?;
        can_lead(&group.status(), to)?;
        let leader = group.transfer_leader(to, deadline).await;
        leader.map(|leader| leader.node).map_err(of_propose)
    }

    async fn digests(
        &self,
        group: GroupId,
    ) -> Result<(u64, Vec<(PartitionId, [u8; 32])>), OperatorError> {
        let reader = self.replica_of(group)?.reader();
        let digests = tokio::task::spawn_blocking(move || reader.digests()).await;
        let (position, digests) = digests
            .map_err(|error| OperatorError::Failed(error.to_string()))?
            .map_err(of_store)?;
        Ok((position.map_or(0, |position| position.index), digests))
    }

    async fn checkpoint(&self, group: GroupId) -> Result<u64, OperatorError> {
        let group = self.replica_of(group)?;
        group.checkpoint().await.map_err(of_checkpoint)
    }

    async fn confirm_time(&self, group: GroupId) -> Result<Option<ClockJump>, OperatorError> {
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let group = self.replica_of(group)?;
        let jump = group.confirm_time(deadline).await.map_err(of_propose)?;
        let assigned = self.entered()?.router.directory().assigned(group.id());
        let mut partitions = assigned.into_iter().map(|(partition, _)| partition);
        // In the log it holds for later leaders too.
        if let Some(partition) = partitions.find(|partition| group.epoch(*partition).is_some()) {
            tell_time(&group, partition, deadline)
                .await
                .map_err(of_propose)?;
        }
        Ok(jump)
    }

    async fn backup(&self, group: GroupId, as_it_is: bool) -> Result<BackupSource, OperatorError> {
        let membership = self.entered()?;
        let group = self.replica_of(group)?;
        let now = self.parts.clock.now();
        let checkpoint = if as_it_is {
            let made = group.checkpoint_of_applied().await;
            made.map_err(of_checkpoint)?
        } else {
            let deadline = Instant::now() + CATCH_UP_TIMEOUT;
            let made = group.checkpoint_of_now(deadline).await;
            made.map_err(of_backup)?
        };
        Ok(BackupSource {
            cluster: membership.cluster.clone(),
            node: self.id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            group: group.id(),
            replica: group.replica(),
            complete_to: (!as_it_is).then_some(now),
            checkpoint,
            secrets: std::path::absolute(&self.parts.config.secrets)
                .unwrap_or_else(|_| self.parts.config.secrets.clone()),
        })
    }

    async fn backup_elsewhere(
        &self,
        request: &v1::BackupRequest,
    ) -> Result<Option<Streaming<v1::BackupPart>>, OperatorError> {
        self.backup_of_peer(request).await
    }

    async fn placement(&self) -> Result<PlacementView, OperatorError> {
        self.placement_view().await
    }

    async fn placement_history(&self) -> Result<Bytes, OperatorError> {
        self.history_anywhere().await
    }

    async fn set_survive(&self, goal: SurvivalGoal) -> Result<MapVersion, OperatorError> {
        self.set_goal(goal).await
    }

    async fn settle_node(&self, node: NodeId) -> Result<bool, OperatorError> {
        self.settle(node).await
    }

    async fn set_draining(
        &self,
        node: NodeId,
        draining: bool,
    ) -> Result<(MapVersion, bool), OperatorError> {
        self.drain_or_activate(node, draining).await
    }

    async fn add_group(
        &self,
        home: RegionName,
        partitions: Option<u16>,
    ) -> Result<NewGroup, OperatorError> {
        self.entered()?;
        grow(self, home, partitions).await
    }

    async fn issue_token(&self, wanted: TokenWanted) -> Result<IssuedToken, OperatorError> {
        self.issue(wanted).await
    }

    async fn tokens(&self) -> Result<Vec<KnownToken>, OperatorError> {
        self.known_tokens().await
    }

    async fn revoke_token(&self, node: NodeId) -> Result<(), OperatorError> {
        self.revoke(node).await
    }

    async fn suspend_box(&self, box_id: BoxId, suspended: bool) -> Result<bool, OperatorError> {
        let changed = suspend(&self.entered()?.router, box_id, suspended).await?;
        if changed {
            // Which box is in the order, not in the log.
            info!(suspended, "an operator changed whether a box may send");
            self.parts.metrics.suspension_set(suspended);
        }
        Ok(changed)
    }

    async fn show_box(&self, box_id: BoxId) -> Result<BoxView, OperatorError> {
        box_view(&self.entered()?.router, box_id).await
    }

    async fn reported_boxes(&self, at_least: u32) -> Result<Vec<ReportedBox>, OperatorError> {
        reported(&self.entered()?.router, at_least).await
    }
}

/// The groups of a node: those of boxes first.
fn statuses(membership: &Membership) -> Vec<GroupStatus> {
    let mut groups = membership.replicas.all();
    groups.sort_by_key(|group| (group.id() == PLACEMENT_GROUP, group.id()));
    groups.iter().map(|group| group.status()).collect()
}

/// Refuses what waiting will not change: a node without a vote, or nobody else to hand over to.
fn can_lead(status: &GroupStatus, to: Option<NodeId>) -> Result<(), OperatorError> {
    let mut voters = status.members.iter().filter(|(.., voter, _)| *voter);
    match to {
        Some(to) if voters.any(|(_, member, ..)| member.node == to) => Ok(()),
        Some(to) => Err(OperatorError::Refused(format!(
            "node {to} has no vote in group {}, so it can not lead it",
            status.group
        ))),
        None if voters.count() == 1 => Err(OperatorError::Refused(format!(
            "group {} has one voter only: there is nobody to hand leadership to",
            status.group
        ))),
        None => Ok(()),
    }
}

pub(super) fn of_propose(error: ProposeError) -> OperatorError {
    match error {
        ProposeError::NotLeader {
            leader: Some(leader),
        } => OperatorError::Refused(format!("{leader} leads the group: give the order there")),
        ProposeError::NotLeader { leader: None } | ProposeError::NoQuorum => {
            OperatorError::Unavailable(error.to_string())
        }
        ProposeError::ClockUnsafe | ProposeError::Overloaded | ProposeError::DiskFull => {
            OperatorError::Unavailable(error.to_string())
        }
        ProposeError::Unknown => OperatorError::Unknown(error.to_string()),
        ProposeError::Stopped | ProposeError::Unencodable => {
            OperatorError::Failed(error.to_string())
        }
    }
}

fn of_backup(error: BackupError) -> OperatorError {
    match error {
        BackupError::Read(ReadError::Stopped) => OperatorError::Failed(error.to_string()),
        BackupError::Read(_) => OperatorError::Unavailable(format!(
            "{error}, so it is not known what was acknowledged. Start the nodes that are down; if a \
             majority is lost for good, take what this node has with --as-it-is"
        )),
        BackupError::Checkpoint(error) => of_checkpoint(error),
    }
}

fn of_store(error: StoreError) -> OperatorError {
    match error {
        // A replica that is being let go of.
        StoreError::Closed => OperatorError::Unavailable(format!("{error}: try again")),
        _ => OperatorError::Failed(error.to_string()),
    }
}

fn of_checkpoint(error: CheckpointError) -> OperatorError {
    match error {
        CheckpointError::NothingApplied => OperatorError::Refused(error.to_string()),
        CheckpointError::DiskFull => OperatorError::Unavailable(error.to_string()),
        CheckpointError::Stopped => OperatorError::Failed(error.to_string()),
    }
}
