//! What the operator's orders do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_api::admin::{
    BackupSource, InitPlan, MembersOrder, MembersProgress, NodeStatus, Operator, OperatorError,
    Standing,
};
use rossby_api::workers::tell_time;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionId};
use rossby_raft::{
    BackupError, CheckpointError, ClockJump, Group, GroupStatus, ProposeError, ReadError,
};
use tokio::time::Instant;

use super::node::{Membership, Node};

/// How long a new leader may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a confirmation of the time may take until it is in the log.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to learn what was acknowledged, before a backup.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);

impl Node {
    pub(super) fn member_of(&self, group: GroupId) -> Result<&Membership, OperatorError> {
        // Asked first: what it belongs to is known by then.
        let begun = self.has_begun();
        let membership = self.membership().ok_or_else(|| match begun {
            true => OperatorError::Refused("this node belongs to no cluster yet".to_owned()),
            false => OperatorError::Unavailable("this node is starting".to_owned()),
        })?;
        if membership.group.id() == group {
            Ok(membership)
        } else {
            Err(OperatorError::Invalid(format!(
                "this node has no replica of group {group}"
            )))
        }
    }

    fn group(&self, group: GroupId) -> Result<&Arc<Group>, OperatorError> {
        self.member_of(group).map(|membership| &membership.group)
    }
}

#[async_trait]
impl Operator for Node {
    fn status(&self) -> NodeStatus {
        let begun = self.has_begun();
        let membership = self.membership();
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
            advice: removed.or(missed),
            node: self.id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: membership
                .map(|member| (member.place.cluster.id, member.place.cluster.name.clone())),
            groups: membership
                .iter()
                .map(|member| member.group.status())
                .collect(),
        }
    }

    async fn init_cluster(&self, plan: InitPlan) -> Result<ClusterId, OperatorError> {
        self.init(plan).await
    }

    async fn change_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        self.order_members(group, order).await
    }

    async fn transfer_leader(
        &self,
        group: GroupId,
        to: Option<NodeId>,
    ) -> Result<NodeId, OperatorError> {
        let deadline = Instant::now() + TRANSFER_TIMEOUT;
        let group = self.group(group)?;
        can_lead(&group.status(), to)?;
        let leader = group.transfer_leader(to, deadline).await;
        leader.map(|leader| leader.node).map_err(of_propose)
    }

    async fn digests(
        &self,
        group: GroupId,
    ) -> Result<(u64, Vec<(PartitionId, [u8; 32])>), OperatorError> {
        let reader = self.group(group)?.reader();
        let digests = tokio::task::spawn_blocking(move || reader.digests()).await;
        let (position, digests) = digests
            .map_err(|error| OperatorError::Failed(error.to_string()))?
            .map_err(|error| OperatorError::Failed(error.to_string()))?;
        Ok((position.map_or(0, |position| position.index), digests))
    }

    async fn checkpoint(&self, group: GroupId) -> Result<u64, OperatorError> {
        self.group(group)?.checkpoint().await.map_err(of_checkpoint)
    }

    async fn confirm_time(&self, group: GroupId) -> Result<Option<ClockJump>, OperatorError> {
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let Membership { place, group, .. } = self.member_of(group)?;
        let jump = group.confirm_time(deadline).await.map_err(of_propose)?;
        let mut partitions = place.cluster.partitions.all();
        // In the log it holds for later leaders too.
        if let Some(partition) = partitions.find(|partition| group.epoch(*partition).is_some()) {
            tell_time(group, partition, deadline)
                .await
                .map_err(of_propose)?;
        }
        Ok(jump)
    }

    async fn backup(&self, group: GroupId, as_it_is: bool) -> Result<BackupSource, OperatorError> {
        let Membership { place, group, .. } = self.member_of(group)?;
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
            cluster: place.cluster.clone(),
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

fn of_propose(error: ProposeError) -> OperatorError {
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

fn of_checkpoint(error: CheckpointError) -> OperatorError {
    match error {
        CheckpointError::NothingApplied => OperatorError::Refused(error.to_string()),
        CheckpointError::DiskFull => OperatorError::Unavailable(error.to_string()),
        CheckpointError::Stopped => OperatorError::Failed(error.to_string()),
    }
}
