//! Who leads: watching it, handing it over, and giving it up when the clock is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState};
use rossby_domain::ids::{NodeId, ReplicaId};
use tokio::time::{Instant, timeout_at};

use crate::Member;
use crate::answers::{Leadership, ProposeError};
use crate::clock_quorum::Verdict;
use crate::core::{Core, Reign, leader_member};
use crate::expiry;
use crate::looks::Errand;
use crate::types::TypeConfig;

/// For so many of the longest election timeouts a leader without a quorum is silent, and then not.
const PROBE: u32 = 2;
/// How long a leader with a wrong clock waits for its successor before it tries again.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Tells the group's watchers who leads, until the group stops.
pub(crate) async fn watch(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    loop {
        look(&core);
        tokio::select! {
            biased;
            () = core.stop.cancelled() => break,
            () = core.failed.cancelled() => break,
            changed = metrics.changed() => if changed.is_err() { break },
        }
    }
    {
        let _alone = core.observing.lock();
        core.tell_leadership(Leadership::Unknown);
    }
    // Whatever failed, openraft must not go on without it.
    if core.raft.shutdown().await.is_err() {
        tracing::debug!(group = %core.id, "openraft had ended before it was told to");
    }
    // Not before: whoever waits for the end of openraft first and is dropped meanwhile leaves it in a state in
    // which it panics when it is asked next (`join_core_task` of alpha.37).
    core.stop.cancel();
}

/// Looks who leads. Not only when a figure changes: a leader that falls silent changes none.
pub(crate) fn look(core: &Arc<Core>) {
    if core.observe() {
        // A new leader does not wait for its turn to learn the group's time.
        expiry::look(core);
    }
}

impl Core {
    fn leadership_now(&self, metrics: &RaftMetrics<TypeConfig>) -> Leadership {
        if metrics.running_state.is_err() {
            return Leadership::Unknown;
        }
        if metrics.state == ServerState::Leader {
            return Leadership::Here {
                term: metrics.current_term,
            };
        }
        // openraft goes on naming a leader that it has long not heard from, and this replica
        // itself after a restart.
        let lives = self.heard.within(self.timing.election_max);
        match leader_member(metrics) {
            Some(member) if lives && metrics.current_leader != Some(metrics.id) => {
                Leadership::Elsewhere(member)
            }
            _ => Leadership::Unknown,
        }
    }

    /// A leader without a quorum falls silent now and then, so that the others can elect. (openraft's own
    /// `quorum_loss_probe_interval` would take a rest for a loss.)
    fn probe(&self, metrics: &RaftMetrics<TypeConfig>) {
        let silent = metrics.state == ServerState::Leader
            && self.rest.is_awake()
            && self.quorum_missed_for(metrics).is_some_and(|missed| {
                let slot = missed.as_nanos() / (self.timing.election_max * PROBE).as_nanos().max(1);
                slot.is_multiple_of(2)
            });
        if self.silent.swap(silent, Ordering::AcqRel) != silent {
            self.raft.runtime_config().heartbeat(!silent);
        }
    }

    /// For how long the leader's lease has been over, if it is.
    fn quorum_missed_for(&self, metrics: &RaftMetrics<TypeConfig>) -> Option<Duration> {
        let mut voters = metrics.membership_config.voter_ids();
        if voters.next() == Some(self.replica) && voters.next().is_none() {
            return None;
        }
        let heard = metrics.last_quorum_acked.map(|heard| heard.elapsed());
        let led = (*self.reign.lock()).map(|reign| reign.began.elapsed());
        let roused = self.rest.roused().map(|roused| roused.elapsed());
        let since = [heard, led, roused].into_iter().flatten().min()?;
        since.checked_sub(self.timing.election_max)
    }

    /// Whether that has changed.
    fn observe(&self) -> bool {
        let _alone = self.observing.lock();
        if self.has_ended() {
            return false;
        }
        let present = self.with_metrics(|metrics| {
            self.book.set(metrics.membership_config.nodes());
            self.note_end(metrics);
            self.leadership_now(metrics)
        });
        match &present {
            Leadership::Here { term } => {
                let mut reign = self.reign.lock();
                if reign.is_none_or(|reign| reign.term != *term) {
                    *reign = Some(Reign {
                        term: *term,
                        began: Instant::now(),
                    });
                    self.handing_over.store(false, Ordering::Release);
                }
            }
            Leadership::Elsewhere(_) | Leadership::Unknown => *self.reign.lock() = None,
        }
        self.with_metrics(|metrics| self.probe(metrics));
        self.tell_leadership(present)
    }

    /// Whether that is news. Only for who looks alone.
    fn tell_leadership(&self, present: Leadership) -> bool {
        self.leadership.send_if_modified(|leadership| {
            let changed = *leadership != present;
            *leadership = present;
            changed
        })
    }
}

/// Hands leadership over and waits for the new leader.
pub(crate) async fn transfer(
    core: &Core,
    to: Option<NodeId>,
    deadline: Instant,
) -> Result<Member, ProposeError> {
    // Without a quorum it is tried all the same.
    if let Err(error) = core.rouse(deadline).await {
        tracing::debug!(group = %core.id, %error, "hands over unconfirmed");
    }
    let (target, term) = core.with_metrics(|metrics| {
        if metrics.running_state.is_err() {
            return Err(ProposeError::Stopped);
        }
        if metrics.state != ServerState::Leader {
            return Err(ProposeError::NotLeader {
                leader: leader_member(metrics),
            });
        }
        let target = successor(core, metrics, to).ok_or(ProposeError::NoQuorum)?;
        Ok((target, metrics.current_term))
    })?;
    if target == core.replica {
        return core
            .with_metrics(leader_member)
            .ok_or(ProposeError::Unknown);
    }
    let mut metrics = core.raft.metrics();
    core.handing_over.store(true, Ordering::Release);
    core.raft
        .trigger()
        .transfer_leader(target)
        .await
        .map_err(|_| ProposeError::Stopped)?;
    let succeeded = async {
        loop {
            {
                let metrics = metrics.borrow_watched();
                if metrics.running_state.is_err() {
                    return Err(ProposeError::Stopped);
                }
                if metrics.current_term > term
                    && let Some(member) = leader_member(&metrics)
                {
                    return Ok(member);
                }
            }
            metrics.changed().await.map_err(|_| ProposeError::Stopped)?;
        }
    };
    timeout_at(deadline, succeeded)
        .await
        .unwrap_or(Err(ProposeError::Unknown))
}

/// The voter on a node; without one, the voter that was heard from lately with the longest log.
fn successor(
    core: &Core,
    metrics: &RaftMetrics<TypeConfig>,
    to: Option<NodeId>,
) -> Option<ReplicaId> {
    let membership = &metrics.membership_config;
    let node = |voter: &ReplicaId| membership.get_node(voter).map(|member| member.node);
    let mut voters = membership.voter_ids();
    if let Some(to) = to {
        return voters.find(|voter| node(voter) == Some(to));
    }
    let heard_lately = |voter: &ReplicaId| {
        let heard = metrics
            .heartbeat
            .as_ref()
            .and_then(|heard| *heard.get(voter)?);
        let limit = core.timing.election_max;
        heard.is_some_and(|heard| heard.elapsed() < limit)
            || node(voter)
                .is_some_and(|node| core.rest.acked_within(metrics.current_term, node, limit))
    };
    let matching = |voter: &ReplicaId| {
        metrics
            .replication
            .as_ref()
            .and_then(|all| *all.get(voter)?)
    };
    voters
        .filter(|voter| *voter != core.replica && heard_lately(voter))
        .max_by_key(|voter| matching(voter))
}

/// What is remembered of the clock.
#[derive(Debug, Default)]
pub(crate) struct ClockLook {
    was_wrong: AtomicBool,
    handing_over: Errand,
}

/// Gives leadership up, and does not strive for it, while this node's clock is out of step.
pub(crate) fn look_at_clock(core: &Arc<Core>) {
    let (_, verdict) = core.clocks.judge_now(&core.voter_nodes());
    let wrong = verdict == Verdict::OutOfStep;
    if core.looks.clock.was_wrong.swap(wrong, Ordering::AcqRel) != wrong {
        core.raft.runtime_config().elect(!wrong);
        if wrong {
            tracing::error!(
                group = %core.id,
                "this node's clock is out of step with its peers': it does not lead until it is set right"
            );
        } else {
            tracing::info!(group = %core.id, "this node's clock is in step again");
        }
    }
    if wrong && core.led_term().is_some() {
        let leader = Arc::clone(core);
        core.looks.clock.handing_over.begin(async move {
            let by = Instant::now() + HAND_OVER;
            if let Err(error) = transfer(&leader, None, by).await {
                tracing::warn!(group = %leader.id, %error, "leadership was not handed over");
            }
        });
    }
}
