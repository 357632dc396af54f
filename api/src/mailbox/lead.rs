//! Reaching groups: the caller's own, which must be led here, and any other, wherever it is led.

use std::sync::Arc;

use rossby_domain::ids::{BoxId, DeviceAddress, GroupId, PartitionId};
use rossby_domain::{Answer, Command, Outcome, Query};
use rossby_raft::{Group, Leadership};
use tokio::time::Instant;

use super::{Failure, MailboxService};
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::router::ANSWER_MARGIN;

/// A group that this node leads.
pub(crate) struct Led {
    pub group: Arc<Group>,
    /// The term.
    pub term: u64,
}

impl MailboxService {
    /// The partition that a box lives in, and the group that owns it; `None` if the cluster has no such
    /// partition, so that no such box can exist.
    ///
    /// # Errors
    /// If nobody owns it by this node's map: it may have been handed out a moment ago, and only a newer map
    /// can tell.
    pub(crate) fn home(&self, box_id: &BoxId) -> Result<Option<(PartitionId, GroupId)>, ApiError> {
        let partition = box_id.partition();
        if partition.number() >= self.config.partitions.get() {
            return Ok(None);
        }
        let directory = self.config.router.directory();
        match directory.owner(partition) {
            Some(group) => Ok(Some((partition, group))),
            // Without a map nobody can tell.
            None if directory.births().is_empty() => Err(Code::NotInCluster.into()),
            None => Err(ApiError::unavailable("nobody owns that partition yet")),
        }
    }

    /// The group that owns a partition which has an owner.
    pub(crate) fn owner(&self, partition: PartitionId) -> Result<GroupId, ApiError> {
        let owner = self.config.router.directory().owner(partition);
        owner.ok_or_else(|| Code::NotInCluster.into())
    }

    /// The caller's group, if this node leads it. While nobody does, waits for a leader, but not if the
    /// call was relayed: then whoever relayed it may know another.
    pub(crate) async fn lead(&self, group: GroupId, call: &Call) -> Result<Led, Failure> {
        let router = &self.config.router;
        let Some(replica) = router.directory().replica(group) else {
            let leader = router.likely_leader(group);
            return Err(Failure::NotLeader { group, leader });
        };
        let mut changes = replica.watch_leadership();
        let deadline = call.deadline;
        let give_up = deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline);
        loop {
            let leadership = changes.borrow_and_update().clone();
            match leadership {
                Leadership::Here { term } => {
                    if replica.led_term() == Some(term) {
                        return Ok(Led {
                            group: replica,
                            term,
                        });
                    }
                }
                Leadership::Elsewhere(member) => {
                    let leader = Some(member);
                    return Err(Failure::NotLeader { group, leader });
                }
                Leadership::Unknown => {}
            }
            if call.relayed {
                let leader = None;
                return Err(Failure::NotLeader { group, leader });
            }
            match tokio::time::timeout_at(give_up, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ApiError::unavailable("the group has stopped").into()),
                Err(_) => return Err(ApiError::unavailable("no leader is known").into()),
            }
        }
    }

    /// Has a command change the caller's own box, here or not at all.
    pub(crate) async fn change_own(
        &self,
        caller: DeviceAddress,
        command: Command,
        call: &Call,
    ) -> Result<Outcome, Failure> {
        let (partition, group) = self.home(&caller.box_id)?.ok_or(Code::Unauthenticated)?;
        let led = self.lead(group, call).await?;
        let proposing = led.group.propose(vec![(partition, command)], call.deadline);
        let replies = proposing.await;
        let replies = replies.map_err(|error| Failure::of_propose(group, error))?;
        let reply = replies.into_iter().next().ok_or_else(unreplied)?;
        reply.map_err(|rejection| {
            let now = led.group.service_time();
            ApiError::of_rejection(&rejection, Code::Unauthenticated, now).into()
        })
    }

    /// Asks about the caller's own box, linearizably, here or not at all.
    pub(crate) async fn ask_own(
        &self,
        caller: DeviceAddress,
        query: Query,
        call: &Call,
    ) -> Result<Answer, Failure> {
        let (partition, group) = self.home(&caller.box_id)?.ok_or(Code::Unauthenticated)?;
        let led = self.lead(group, call).await?;
        let answer = led.group.read(partition, &query, call.deadline).await;
        answer.map_err(|error| Failure::of_read(group, error))
    }

    /// Has a command change a partition, wherever its group is led. `unknown` is the code for a box or
    /// device that is not there.
    pub(crate) async fn change(
        &self,
        partition: PartitionId,
        command: Command,
        unknown: Code,
        deadline: Instant,
    ) -> Result<Outcome, ApiError> {
        let group = self.owner(partition)?;
        let commands = || vec![(partition, command.clone())];
        let router = &self.config.router;
        let mut proposed = router.propose(group, commands, deadline).await?;
        let reply = proposed.replies.pop().ok_or_else(unreplied)?;
        reply.map_err(|rejection| proposed.refusal(&rejection, unknown))
    }

    /// Asks about a partition, linearizably, wherever its group is led.
    pub(crate) async fn ask(
        &self,
        partition: PartitionId,
        query: Query,
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        let group = self.owner(partition)?;
        let router = &self.config.router;
        router.ask(group, partition, query, deadline).await
    }
}

fn unreplied() -> ApiError {
    ApiError::internal("a proposal without a reply")
}

/// An outcome that does not belong to its command: a mistake of ours, not of the caller.
pub(crate) fn unexpected_outcome(outcome: &Outcome) -> ApiError {
    // The variant's name only: an outcome may name a box.
    let shown = format!("{outcome:?}");
    let name = shown.split([' ', '(', '{']).next().unwrap_or_default();
    ApiError::internal(format!("unexpected outcome {name}"))
}

/// An answer that does not belong to its query.
pub(crate) fn unexpected_answer(query: &'static str) -> ApiError {
    ApiError::internal(format!("unexpected answer to {query}"))
}
