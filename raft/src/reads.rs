//! Linearizable reads by ReadIndex (Raft thesis, section 6.4): the leader confirms that it still
//! leads, with one heartbeat round that all reads share that came before it ([`Rounds`]), then waits until what was
//! committed at the start is applied here. No clock is trusted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::answers::ReadError;
use crate::core::{Core, leader_member};
use crate::frame::{Answer, Request, Target};
use crate::state_machine::Raft;

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

/// Rounds of confirming leadership, one at a time. Whoever comes while one is under way can't use it,
/// since it may have begun too early; all of those share the next.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    begun: AtomicU64,
    /// The last one that succeeded.
    confirmed: Mutex<u64>,
}

impl Rounds {
    /// Returns once a round that began after this call has succeeded; runs it, unless another does.
    async fn join(
        &self,
        round: impl Future<Output = Result<(), ReadError>>,
    ) -> Result<(), ReadError> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut confirmed = self.confirmed.lock().await;
        if *confirmed > before {
            return Ok(());
        }
        let own = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        round.await?;
        *confirmed = own;
        Ok(())
    }
}

impl Core {
    pub(crate) async fn confirm_leadership(&self, deadline: Instant) -> Result<(), ReadError> {
        self.admit_read()?;
        self.rest.stir().await;
        let confirming = self.reads.join(async {
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
        });
        let confirmed = timeout_at(deadline, confirming)
            .await
            .unwrap_or(Err(ReadError::NoQuorum));
        if confirmed.is_ok() {
            self.rest.settle().await;
        }
        confirmed
    }

    /// Has a group that rests take writes: openraft takes none before a quorum has confirmed the leader again.
    pub(crate) async fn rouse(&self, deadline: Instant) -> Result<(), ReadError> {
        self.rest.note_asked();
        if self.rest.is_awake() {
            return Ok(());
        }
        self.confirm_leadership(deadline).await
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
                return Ok(true);
            }
            metrics.changed().await.map_err(|_| ReadError::Stopped)?;
        }
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
            Ok(())
        };
        let mut first = Box::pin(rounds.join(first));
        assert!(first.as_mut().now_or_never().is_none());
        // Each counts if it runs: exactly one may.
        let ran = AtomicU64::new(0);
        let next = || {
            rounds.join(async {
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(next())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        end.send(()).unwrap();
        first.await.unwrap();
        for one in waiting {
            one.await.unwrap();
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
            Ok(())
        });
        own.await.unwrap();
        assert!(ran.load(Ordering::SeqCst));
    }
}
