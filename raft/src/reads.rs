//! Linearizable reads (Raft thesis, section 6.4): the leader makes sure that it still leads, once for all reads that came
//! before ([`Rounds`]), then waits until what was committed at the start is applied here.
//!
//! - By its lease, if reads may go by it and it is good (`lease.rs` says why that is safe): nobody is asked.
//! - Else by ReadIndex: one round of heartbeats to a quorum. No clock is trusted for it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, RaftState, ServerState};
use rossby_domain::ids::ReplicaId;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::answers::ReadError;
use crate::core::{Core, leader_member};
use crate::frame::{Answer, Request, Target};
use crate::state_machine::Raft;
use crate::types::{TypeConfig, position};

/// Between two tries to reach a leader.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How long a leader may take to be confirmed.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// On a leader that a quorum confirms: the entry up to which everything was committed when this was
/// called.
pub(crate) async fn read_index(raft: &Raft) -> Option<u64> {
    let option = LinearizerOption::new(Some(Duration::ZERO), true);
    let asked = timeout(ANSWER_WITHIN, raft.get_read_linearizer(option)).await;
    let linearizer = asked.ok()?.ok()?;
    Some(linearizer.read_log_id().index())
}

/// How many reads a replica has confirmed since it started, by what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Its lease, so that nobody was asked.
    pub by_lease: u64,
    /// A quorum's word.
    pub by_quorum: u64,
}

/// By what a round was confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum By {
    #[default]
    Quorum,
    Lease,
}

/// The reads of a replica.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    rounds: Rounds,
    by_lease: AtomicU64,
    by_quorum: AtomicU64,
}

impl Reads {
    fn count(&self, by: By) {
        let counter = match by {
            By::Lease => &self.by_lease,
            By::Quorum => &self.by_quorum,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> ReadCounts {
        ReadCounts {
            by_lease: self.by_lease.load(Ordering::Relaxed),
            by_quorum: self.by_quorum.load(Ordering::Relaxed),
        }
    }
}

/// Rounds of confirming leadership, one at a time. Whoever comes while one is under way can't use it,
/// since it may have begun too early; all of those share the next.
#[derive(Debug, Default)]
struct Rounds {
    begun: AtomicU64,
    /// The last one that succeeded.
    confirmed: Mutex<(u64, By)>,
}

impl Rounds {
    /// Returns once a round that began after this call has succeeded; runs it, unless another does.
    async fn join(
        &self,
        round: impl Future<Output = Result<By, ReadError>>,
    ) -> Result<By, ReadError> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut confirmed = self.confirmed.lock().await;
        let (last, by) = *confirmed;
        if last > before {
            return Ok(by);
        }
        let own = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let by = round.await?;
        *confirmed = (own, by);
        Ok(by)
    }
}

/// What the core of openraft knows of a term that it leads.
struct Led {
    term: u64,
    voters: Vec<BTreeSet<ReplicaId>>,
    /// All that was ever acknowledged is in the log up to here.
    committed: u64,
}

impl Led {
    /// `None` if this replica does not lead, or has committed nothing in its term yet: then it does not know what
    /// earlier leaders did.
    fn of(state: &RaftState<TypeConfig>, own: ReplicaId) -> Option<Self> {
        let vote = state.vote_ref();
        let leads = state.server_state == ServerState::Leader
            && vote.committed
            && vote.leader_id.voted_for == own;
        let term = vote.leader_id.term;
        let committed = position(state.local_committed()?);
        (leads && committed.term == term).then(|| Self {
            term,
            voters: state
                .membership_state
                .effective()
                .membership()
                .get_joint_config()
                .clone(),
            committed: committed.index,
        })
    }
}

impl Core {
    pub(crate) async fn confirm_leadership(&self, deadline: Instant) -> Result<(), ReadError> {
        // What can't be answered is refused before it waits for its turn.
        if !(self.lease_reads && self.leads_by_lease()) {
            self.admit_read()?;
        }
        self.rest.stir().await;
        let confirming = self.reads.rounds.join(async {
            if self.lease_reads && self.confirm_by_lease().await? {
                return Ok(By::Lease);
            }
            self.confirm_by_quorum(deadline).await?;
            Ok(By::Quorum)
        });
        let by = timeout_at(deadline, confirming)
            .await
            .unwrap_or(Err(ReadError::NoQuorum))?;
        self.rest.settle().await;
        self.reads.count(by);
        Ok(())
    }

    /// Has a group that rests take writes: openraft takes none before a quorum has confirmed the leader again.
    pub(crate) async fn rouse(&self, deadline: Instant) -> Result<(), ReadError> {
        self.rest.note_asked();
        if self.rest.is_awake() {
            return Ok(());
        }
        self.confirm_leadership(deadline).await
    }

    /// Whether the lease is good; then all is applied that was committed before. The order matters: see
    /// `lease.rs`.
    async fn confirm_by_lease(&self) -> Result<bool, ReadError> {
        let own = self.replica;
        let looking = self.raft.with_raft_state(move |state| Led::of(state, own));
        let Some(led) = looking.await.map_err(|_| ReadError::Stopped)? else {
            return Ok(false);
        };
        if !self.lease.is_good(led.term, own, &led.voters) {
            return Ok(false);
        }
        self.wait_applied(led.committed).await?;
        Ok(true)
    }

    async fn confirm_by_quorum(&self, deadline: Instant) -> Result<(), ReadError> {
        let left = deadline.saturating_duration_since(Instant::now());
        // A quorum's word from before this read does not count: zero age.
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(left);
        let linearizer = match self.raft.get_read_linearizer(option).await {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                return Err(ReadError::NotLeader {
                    leader: forward.leader_node,
                });
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                return Err(ReadError::NoQuorum);
            }
            Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
        };
        match linearizer.await_ready(&self.raft).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ReadError::Stopped),
        }
    }

    /// Waits until the entry at this index is applied here.
    async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        let mut metrics = self.raft.metrics();
        loop {
            let (applied, runs) = {
                let metrics = metrics.borrow_watched();
                let applied = metrics.last_applied.as_ref().map(|id| id.index);
                (applied, metrics.running_state.is_ok())
            };
            if !runs {
                return Err(ReadError::Stopped);
            }
            if applied >= Some(index) {
                return Ok(());
            }
            metrics.changed().await.map_err(|_| ReadError::Stopped)?;
        }
    }

    /// Waits until this replica, whether it leads or not, has applied all that was acknowledged
    /// before this call. Without a leader it asks again until the deadline.
    pub(crate) async fn catch_up(&self, deadline: Instant) -> Result<(), ReadError> {
        let catching_up = async {
            loop {
                if self.has_ended() {
                    return Err(ReadError::Stopped);
                }
                if self.catch_up_once(deadline).await? {
                    return Ok(());
                }
                sleep(TRY_AGAIN).await;
            }
        };
        timeout_at(deadline, catching_up)
            .await
            .unwrap_or(Err(ReadError::NoQuorum))
    }

    async fn catch_up_once(&self, deadline: Instant) -> Result<bool, ReadError> {
        let leader =
            self.with_metrics(|metrics| metrics.current_leader.zip(leader_member(metrics)));
        let Some((replica, member)) = leader else {
            return Ok(false);
        };
        if replica == self.replica {
            return match self.linearize(deadline).await {
                Err(ReadError::Stopped) => Err(ReadError::Stopped),
                other => Ok(other.is_ok()),
            };
        }
        let to = Target {
            group: self.id,
            replica,
        };
        let asked = self.links.call(&member, to, Request::ReadIndex, deadline);
        let Ok(Answer::ReadIndex(index)) = asked.await else {
            return Ok(false);
        };
        self.wait_applied(index).await.map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn those_that_come_while_a_round_is_under_way_share_the_next() {
        let rounds = Arc::new(Rounds::default());
        let (end, ended) = oneshot::channel::<()>();
        let first = async {
            ended.await.unwrap();
            Ok(By::Quorum)
        };
        let mut first = Box::pin(rounds.join(first));
        assert!(first.as_mut().now_or_never().is_none());
        // Each counts if it runs: exactly one may.
        let ran = AtomicU64::new(0);
        let next = || {
            rounds.join(async {
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(By::Lease)
            })
        };
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(next())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        end.send(()).unwrap();
        first.await.unwrap();
        for one in waiting {
            assert_eq!(one.await, Ok(By::Lease), "by what the round was");
        }
        assert_eq!(ran.load(Ordering::SeqCst), 1);
        next().await.unwrap();
        assert_eq!(
            ran.load(Ordering::SeqCst),
            2,
            "an old round serves nobody new"
        );
    }

    #[tokio::test]
    async fn a_round_that_failed_or_was_given_up_serves_nobody() {
        let rounds = Rounds::default();
        let failed = rounds.join(async { Err(ReadError::NoQuorum) }).await;
        assert!(matches!(failed, Err(ReadError::NoQuorum)));
        let given_up = Box::pin(rounds.join(std::future::pending())).now_or_never();
        assert!(given_up.is_none());
        let ran = AtomicBool::new(false);
        let own = rounds.join(async {
            ran.store(true, Ordering::SeqCst);
            Ok(By::Quorum)
        });
        own.await.unwrap();
        assert!(ran.load(Ordering::SeqCst));
    }
}
