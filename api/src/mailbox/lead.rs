//! Reaching the group of a partition, at its leader.

use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::{BoxId, PartitionId};
use rossby_domain::{Answer, Command, Outcome, Query, Reply};
use rossby_raft::{Group, Leadership};
use tokio::time::Instant;

use super::{Failure, MailboxService};
use crate::error::{ApiError, Code};

/// Kept from a deadline, so that our typed answer comes before the caller's own timer fires.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// A group that this node leads.
pub(crate) struct Led {
    pub group: Arc<Group>,
    /// The term.
    pub term: u64,
}

impl MailboxService {
    /// The partition that a box lives in; `None` if its id names one that this cluster has not,
    /// so that no such box can exist.
    pub(crate) fn home(&self, box_id: &BoxId) -> Option<PartitionId> {
        let partition = box_id.partition();
        (partition.number() < self.config.partitions.get()).then_some(partition)
    }

    /// This node's replica of the group that owns a partition.
    pub(crate) fn group(&self, partition: PartitionId) -> Result<Arc<Group>, Failure> {
        self.config
            .directory
            .group(partition)
            .ok_or_else(|| Code::NotInCluster.into())
    }

    /// The group of a partition, if this node leads it. While nobody does, waits for a leader.
    pub(crate) async fn lead(
        &self,
        partition: PartitionId,
        deadline: Instant,
    ) -> Result<Led, Failure> {
        let group = self.group(partition)?;
        let mut changes = group.watch_leadership();
        let give_up = deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline);
        loop {
            let leadership = changes.borrow_and_update().clone();
            match leadership {
                Leadership::Here { term } => {
                    if group.led_term() == Some(term) {
                        return Ok(Led { group, term });
                    }
                }
                Leadership::Elsewhere(member) => return Err(Failure::NotLeader(Some(member))),
                Leadership::Unknown => {}
            }
            match tokio::time::timeout_at(give_up, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ApiError::unavailable("the group has stopped").into()),
                Err(_) => return Err(ApiError::unavailable("no leader is known").into()),
            }
        }
    }

    /// Proposes one command and waits for what became of it.
    pub(crate) async fn propose(
        &self,
        partition: PartitionId,
        command: Command,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let led = self.lead(partition, deadline).await?;
        let replies = led
            .group
            .propose(vec![(partition, command)], deadline)
            .await?;
        let reply = replies.into_iter().next();
        reply.ok_or_else(|| ApiError::internal("a proposal without a reply").into())
    }

    /// Asks one question, linearizably.
    pub(crate) async fn ask(
        &self,
        partition: PartitionId,
        query: Query,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let led = self.lead(partition, deadline).await?;
        Ok(led.group.read(partition, &query, deadline).await?)
    }

    /// What a client is told of a rejection, by the time of the partition that it came from.
    pub(crate) fn refusal(
        &self,
        partition: PartitionId,
        rejection: &rossby_domain::Rejection,
        unknown: Code,
    ) -> ApiError {
        let group = self.config.directory.group(partition);
        let now = group.map(|group| group.service_time());
        ApiError::of_rejection(rejection, unknown, now.unwrap_or_default())
    }
}

/// An outcome that does not belong to its command: a mistake of ours, not of the caller.
pub(crate) fn unexpected_outcome(outcome: &Outcome) -> Failure {
    // The variant's name only: an outcome may name a box.
    let shown = format!("{outcome:?}");
    let name = shown.split([' ', '(', '{']).next().unwrap_or_default();
    ApiError::internal(format!("unexpected outcome {name}")).into()
}

/// An answer that does not belong to its query.
pub(crate) fn unexpected_answer(query: &'static str) -> Failure {
    ApiError::internal(format!("unexpected answer to {query}")).into()
}
