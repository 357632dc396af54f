//! Carries orders out, one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, Instant as _, ServerState};
use parking_lot::Mutex;
use rossby_domain::ids::{NodeId, ReplicaId};
use tokio::time::{Instant, timeout_at};

use super::plan::{Members, Newcomers, Order, Refused, Seat, Step, next_step};
use super::standing::next_replica;
use crate::answers::{ProposeError, ReadError};
use crate::core::{Core, Metrics};
use crate::leadership;
use crate::looks::Errand;
use crate::types::{LogId, TypeConfig};
use crate::{Group, Member};

/// Between two looks at what changes by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What is left of the deadline for saying that somebody did not answer.
const MARGIN: Duration = Duration::from_millis(500);
/// So many election timeouts are waited for those who have not answered since the order came.
const HEARD_WITHIN: u32 = 8;
/// So many heartbeats a newcomer is waited for at a time, before it is told how far it is.
const CATCH_UP: u32 = 5;

type Changes = ChangeMembers<ReplicaId, Member>;

/// How far an order has come. The same order again goes on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advance {
    /// It must be known who runs at the newcomers' addresses.
    Ask,
    /// This replica was added, without a vote: its node must be told to start it.
    Invite {
        /// The new replica.
        replica: ReplicaId,
        /// Where it is to run.
        member: Member,
    },
    /// The new replica is on its way to what the others have.
    CatchingUp {
        /// The new replica.
        replica: ReplicaId,
        /// How many entries it lacks; not known before it has answered.
        behind: Option<u64>,
        /// Bytes of checkpoints that this leader has shipped so far, to whomever.
        shipped_bytes: u64,
    },
    /// The leader was to leave: another one leads now.
    HandedOver {
        /// Who leads.
        leader: Member,
    },
    /// The membership is as ordered.
    Done {
        /// The replica that the order was about, if it is a member.
        replica: Option<ReplicaId>,
        /// How many voters there are.
        voters: usize,
    },
}

/// Why an order went no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It makes no sense, or would do harm. Nothing was done.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another replica leads. Nothing was done.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// No quorum, or nobody to hand over to. Nothing was done.
    #[error("the group has no quorum")]
    NoQuorum,
    /// The deadline passed, or leadership was lost, before the outcome was known.
    #[error("the outcome is not known")]
    Unknown,
    /// The replica has stopped; the reason is in the log.
    #[error("the group has stopped on this node")]
    Stopped,
}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { leader } => Self::NotLeader { leader },
            ReadError::NoQuorum | ReadError::TooManyFiles => Self::NoQuorum,
            ReadError::Stopped => Self::Stopped,
        }
    }
}

impl From<ProposeError> for ChangeError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeader { leader },
            ProposeError::Stopped => Self::Stopped,
            ProposeError::Unknown => Self::Unknown,
            _ => Self::NoQuorum,
        }
    }
}

/// The members, as the figures of the leader show them; nothing if this replica does not lead. Who
/// was not heard after `since` does not answer: a node that died a moment before must not count.
fn view(core: &Core, metrics: &Metrics, since: Instant) -> Option<Members> {
    if metrics.state != ServerState::Leader {
        return None;
    }
    let membership = &metrics.membership_config;
    let voters: Vec<ReplicaId> = membership.voter_ids().collect();
    let last = metrics.last_log_index.unwrap_or_default();
    let seat = |(replica, member): (&ReplicaId, &Member)| {
        let own = *replica == core.replica;
        let heard = metrics
            .heartbeat
            .as_ref()
            .and_then(|all| *all.get(replica)?);
        let matching = metrics
            .replication
            .as_ref()
            .and_then(|all| all.get(replica)?.as_ref().map(|id| id.index));
        let seat = Seat {
            member: member.clone(),
            voter: voters.contains(replica),
            answers: own || heard.is_some_and(|heard| heard.elapsed() < since.elapsed()),
            behind: if own {
                Some(0)
            } else {
                matching.map(|index| last.saturating_sub(index))
            },
        };
        (*replica, seat)
    };
    Some(Members {
        leader: core.replica,
        seats: membership.nodes().map(seat).collect(),
        joint: membership.get_joint_config().len() > 1,
    })
}

/// The members, and what a change of them is guarded by.
struct Look {
    members: Members,
    membership_at: Option<LogId>,
    next_replica: ReplicaId,
}

fn look(core: &Core, since: Instant) -> Result<Look, ChangeError> {
    core.with_metrics(|metrics| {
        let leader = crate::core::leader_member(metrics);
        let members = view(core, metrics, since).ok_or(ChangeError::NotLeader { leader })?;
        Ok(Look {
            members,
            membership_at: *metrics.membership_config.log_id(),
            next_replica: next_replica(metrics.last_log_index),
        })
    })
}

impl Group {
    /// Carries an order about the members on, as far as this replica can by itself. What comes back
    /// says what is to be done before the same order is given again; the work of a step that was
    /// begun is done even if this is dropped. `newcomers` is what runs at the newcomers' addresses, of those
    /// that were asked and not invited since.
    ///
    /// # Errors
    /// [`ChangeError`], by the deadline at the latest. After any of them the same order can be
    /// given again.
    pub async fn advance(
        &self,
        order: &Order,
        newcomers: &Newcomers,
        deadline: Instant,
    ) -> Result<Advance, ChangeError> {
        self.advance_beside(order, newcomers, &BTreeSet::new(), deadline)
            .await
    }

    /// The same, in a group that keeps copies without a vote on some nodes: those are nobody's half-done
    /// order.
    ///
    /// # Errors
    /// As [`Group::advance`].
    pub async fn advance_beside(
        &self,
        order: &Order,
        newcomers: &Newcomers,
        copies: &BTreeSet<NodeId>,
        deadline: Instant,
    ) -> Result<Advance, ChangeError> {
        let core = &self.core;
        let began = Instant::now();
        let heard_by = deadline.min(began + core.timing.election_max * HEARD_WITHIN);
        let heard_by = heard_by.checked_sub(MARGIN).unwrap_or(began);
        let caught_up_by = heard_by.min(began + core.timing.heartbeat * CATCH_UP);
        loop {
            // A leader that has not committed anything of its own yet must not change the members.
            core.linearize(deadline).await?;
            let look = look(core, began)?;
            let step = match next_step(order, &look.members, newcomers, copies) {
                Err(Refused::WouldLoseQuorum { .. }) if Instant::now() < heard_by => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                step => step?,
            };
            let changes = match step {
                Step::Ask => return Ok(Advance::Ask),
                Step::Done(replica) => {
                    let voters = look.members.seats.values().filter(|seat| seat.voter);
                    let voters = voters.count();
                    return Ok(Advance::Done { replica, voters });
                }
                Step::HandOver(to) => {
                    let leader = leadership::transfer(core, to, deadline).await?;
                    return Ok(Advance::HandedOver { leader });
                }
                Step::CatchUp(_) if Instant::now() < caught_up_by => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                Step::CatchUp(replica) => {
                    let seat = look.members.seats.get(&replica);
                    let behind = seat.and_then(|seat| seat.behind);
                    return Ok(Advance::CatchingUp {
                        replica,
                        behind,
                        shipped_bytes: core.shipping.sent_bytes(),
                    });
                }
                Step::AddLearner(member) => {
                    let replica = look.next_replica;
                    let changes = Changes::AddNodes(BTreeMap::from([(replica, member.clone())]));
                    if change(core, changes, look.membership_at, deadline).await? {
                        tracing::info!(group = %core.id, node = %member.node, %replica, "added, without a vote yet");
                        return Ok(Advance::Invite { replica, member });
                    }
                    continue;
                }
                Step::Finish => Changes::AddVoterIds([].into()),
                Step::DropLearner(replica) => Changes::RemoveNodes([replica].into()),
                Step::SetMember(replica, member) => Changes::SetNodes([(replica, member)].into()),
                Step::SetVoters(voters) => Changes::ReplaceAllVoters(voters),
            };
            change(core, changes, look.membership_at, deadline).await?;
        }
    }

    /// Whether this replica was removed from its group. It has stopped for good then.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.core.dismissed.is_cancelled()
    }

    /// Waits until this replica was removed from its group and has stopped for good.
    pub async fn dismissed(&self) {
        self.core.dismissed.cancelled().await;
    }
}

/// Changes the membership, if it is still the one of that log id; whether it was.
async fn change(
    core: &Core,
    changes: Changes,
    membership_at: Option<LogId>,
    deadline: Instant,
) -> Result<bool, ChangeError> {
    let raft = core.raft.clone();
    let (group, what) = (core.id, changes.to_string());
    let guard = Precondition::<TypeConfig>::LastMembershipLogId {
        last_membership_log_id: membership_at,
    };
    // On its own task: who gives up waiting must not leave a change of voters half-way.
    let changing =
        tokio::spawn(async move { raft.change_membership_if(changes, false, [guard]).await });
    match timeout_at(deadline, changing).await {
        Ok(Ok(Ok(_))) => {
            tracing::info!(%group, %what, "the members have changed");
            Ok(true)
        }
        Ok(Ok(Err(error))) => match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                let leader = forward.leader_node;
                Err(ChangeError::NotLeader { leader })
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                Err(ChangeError::Unknown)
            }
            // Somebody else was faster, or is at it: look again at what there is now.
            RaftError::APIError(
                ClientWriteError::PreconditionFailed(_)
                | ClientWriteError::ChangeMembershipError(_),
            ) => {
                tracing::debug!(%group, %error, "the members have changed meanwhile");
                tokio::time::sleep(LOOK_AGAIN).await;
                Ok(false)
            }
            RaftError::Fatal(_) => Err(ChangeError::Stopped),
        },
        Ok(Err(_)) | Err(_) => Err(ChangeError::Unknown),
    }
}

/// What is remembered of a change that stands half-way.
#[derive(Debug, Default)]
pub(crate) struct JointLook {
    seen: Mutex<Option<LogId>>,
    ending: Errand,
}

/// Ends changes of voters that a leader before this one, or one whose operator went away, left
/// half-way: until then both the old and the new voters must agree on everything.
pub(crate) fn look_for_joint(core: &Arc<Core>) {
    let half_way = core.with_metrics(|metrics| {
        let membership = &metrics.membership_config;
        let leads = metrics.state == ServerState::Leader;
        let joint = leads && membership.get_joint_config().len() > 1;
        joint.then_some(*membership.log_id()).flatten()
    });
    let seen = std::mem::replace(&mut *core.looks.joint.seen.lock(), half_way);
    // Seen twice: whoever began it is not about to end it. One in work is done much sooner.
    if half_way.is_some() && half_way == seen {
        let leader = Arc::clone(core);
        core.looks.joint.ending.begin(async move {
            let deadline = Instant::now() + leader.timing.election_max;
            let finish = Changes::AddVoterIds([].into());
            let changed = change(&leader, finish, half_way, deadline).await;
            tracing::info!(group = %leader.id, ?changed, "ended a change of members that was half-way");
        });
    }
}
