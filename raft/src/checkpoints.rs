//! When a group's checkpoint is written and its log purged: by bytes of log, not by entries; and
//! before what waits in memory makes the leader shed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use rossby_domain::ids::ReplicaId;
use tokio::time::timeout;

use crate::answers::CheckpointError;
use crate::core::Core;
use crate::looks::Errand;

/// How long a checkpoint is waited for before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A checkpoint is written above this share of the overlay budget, in hundredths: half of what makes
/// the leader shed.
const CHECKPOINT_PERCENT: u64 = 35;
/// A follower that lags holds the log back up to this many times the size that asks for a
/// checkpoint. One that lags further is sent a checkpoint.
const LAGGARD_FACTOR: u64 = 4;

/// How much log there is when a replica's first checkpoint is written: not as much on all, since it takes a
/// processor some time, and a send waits only for a majority.
fn first_at(checkpoint_log_bytes: u64, replica: ReplicaId) -> u64 {
    const TURNS: u64 = 3;
    checkpoint_log_bytes / TURNS * (1 + replica.0 % TURNS)
}

/// Up to where the log may be purged.
pub(crate) fn purge_point(log: &LogFigures) -> Option<u64> {
    if log.shipping {
        return None;
    }
    let checkpoint = log.checkpoint?;
    let patient = log.pinned_bytes < log.checkpoint_log_bytes.saturating_mul(LAGGARD_FACTOR);
    let upto = match log.slowest {
        Some(slowest) if patient => checkpoint.min(slowest?),
        _ => checkpoint,
    };
    (log.purged.is_none_or(|purged| purged < upto)).then_some(upto)
}

/// What decides how much log is kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogFigures {
    /// The index of the last checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// The index that was purged last.
    pub(crate) purged: Option<u64>,
    /// On a leader with followers: how far the slowest one's log matches, if at all.
    pub(crate) slowest: Option<Option<u64>>,
    /// Whether a checkpoint is on its way to a follower.
    pub(crate) shipping: bool,
    pub(crate) pinned_bytes: u64,
    pub(crate) checkpoint_log_bytes: u64,
}

/// What is remembered of the log.
#[derive(Debug)]
pub(crate) struct LogLook {
    /// How much log there is when the next checkpoint is written.
    next_at: AtomicU64,
    tending: Errand,
}

impl LogLook {
    pub(crate) fn new(replica: ReplicaId, checkpoint_log_bytes: u64) -> Self {
        Self {
            next_at: AtomicU64::new(first_at(checkpoint_log_bytes, replica)),
            tending: Errand::default(),
        }
    }
}

/// Looks after the log.
pub(crate) fn look(core: &Arc<Core>) {
    let log = &core.looks.log;
    if log.tending.is_under_way() || core.check_log().is_err() {
        return;
    }
    let next_at = log.next_at.load(Ordering::Acquire);
    let pinned = core.wal.pinned_bytes(core.id);
    let writes = pinned >= next_at || core.memory_asks();
    if writes || purge_point(&core.log_figures()).is_some() {
        log.tending.begin(tend(Arc::clone(core), writes));
    }
    // Also where something holds the log back, the next is worth it only after as much again.
    let step = pinned.saturating_add(core.checkpoint_log_bytes);
    let next_at = if pinned >= next_at {
        step
    } else {
        next_at.min(step)
    };
    log.next_at.store(next_at, Ordering::Release);
}

async fn tend(core: Arc<Core>, writes: bool) {
    if writes && let Err(error) = core.checkpoint().await {
        tracing::warn!(group = %core.id, %error, "no checkpoint");
    }
    if let Some(upto) = purge_point(&core.log_figures())
        && core.raft.trigger().purge_log(upto).await.is_err()
    {
        tracing::debug!(group = %core.id, "openraft has ended: nothing is purged");
    }
}

impl Core {
    /// Whether so much waits in memory that only a checkpoint keeps the leader from shedding, or
    /// ends it: small entries may weigh more in memory than in the log.
    fn memory_asks(&self) -> bool {
        self.store.overlay_bytes() >= self.overlay_budget_bytes / 100 * CHECKPOINT_PERCENT
    }

    fn log_figures(&self) -> LogFigures {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let slowest = metrics.replication.as_ref().and_then(|replication| {
            let followers = replication
                .iter()
                .filter(|(replica, _)| **replica != self.replica);
            followers
                .map(|(_, matching)| matching.as_ref().map(|id| id.index))
                .min()
        });
        LogFigures {
            checkpoint: metrics.snapshot.as_ref().map(|id| id.index),
            purged: metrics.purged.as_ref().map(|id| id.index),
            slowest,
            shipping: self.shipping.holds(),
            pinned_bytes: self.wal.pinned_bytes(self.id),
            checkpoint_log_bytes: self.checkpoint_log_bytes,
        }
    }

    /// Writes a checkpoint that covers all that is applied now; its index.
    pub(crate) async fn checkpoint(&self) -> Result<u64, CheckpointError> {
        let mut metrics = self.raft.metrics();
        let disk_full = self.disk_full.load(Ordering::Acquire);
        let figures = |metrics: &openraft::RaftMetrics<crate::types::TypeConfig>| {
            let index = |id: &Option<crate::types::LogId>| id.as_ref().map(|id| id.index);
            (index(&metrics.last_applied), index(&metrics.snapshot))
        };
        let (applied, _) = figures(&metrics.borrow_watched());
        let applied = applied.ok_or(CheckpointError::NothingApplied)?;
        loop {
            if let (_, Some(written)) = figures(&metrics.borrow_watched())
                && written >= applied
            {
                return Ok(written);
            }
            if self.disk_full.load(Ordering::Acquire) != disk_full {
                return Err(CheckpointError::DiskFull);
            }
            // Does nothing while one is being written; that one may be older than what we want.
            self.raft
                .trigger()
                .snapshot()
                .await
                .map_err(|_| CheckpointError::Stopped)?;
            let written = async {
                let before = figures(&metrics.borrow_watched()).1;
                loop {
                    metrics
                        .changed()
                        .await
                        .map_err(|_| CheckpointError::Stopped)?;
                    let metrics = metrics.borrow_watched();
                    if metrics.running_state.is_err() {
                        return Err(CheckpointError::Stopped);
                    }
                    if figures(&metrics).1 != before {
                        return Ok(());
                    }
                }
            };
            tokio::select! {
                biased;
                written = timeout(ASK_AGAIN, written) => written.unwrap_or(Ok(()))?,
                () = self.stop.cancelled() => return Err(CheckpointError::Stopped),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogFigures = LogFigures {
        checkpoint: Some(100),
        purged: None,
        slowest: None,
        shipping: false,
        pinned_bytes: 1000,
        checkpoint_log_bytes: 1000,
    };

    #[test]
    fn three_replicas_take_turns() {
        let at = [1, 2, 3].map(|replica| first_at(900, ReplicaId(replica)));
        assert_eq!(at, [600, 900, 300]);
    }

    #[test]
    fn purges_up_to_the_checkpoint_and_never_twice() {
        assert_eq!(purge_point(&LOG), Some(100));
        assert_eq!(
            purge_point(&LogFigures {
                purged: Some(99),
                ..LOG
            }),
            Some(100)
        );
        assert_eq!(
            purge_point(&LogFigures {
                purged: Some(100),
                ..LOG
            }),
            None
        );
        assert_eq!(
            purge_point(&LogFigures {
                checkpoint: None,
                ..LOG
            }),
            None
        );
    }

    #[test]
    fn nothing_is_purged_while_a_checkpoint_ships() {
        assert_eq!(
            purge_point(&LogFigures {
                shipping: true,
                ..LOG
            }),
            None
        );
    }

    #[test]
    fn a_laggard_holds_the_log_back_up_to_a_bound() {
        let lagging = LogFigures {
            slowest: Some(Some(40)),
            ..LOG
        };
        assert_eq!(purge_point(&lagging), Some(40));
        assert_eq!(
            purge_point(&LogFigures {
                pinned_bytes: 4000,
                ..lagging
            }),
            Some(100)
        );
        let ahead = LogFigures {
            slowest: Some(Some(140)),
            ..LOG
        };
        assert_eq!(purge_point(&ahead), Some(100));
        let silent = LogFigures {
            slowest: Some(None),
            ..LOG
        };
        assert_eq!(purge_point(&silent), None);
        assert_eq!(
            purge_point(&LogFigures {
                pinned_bytes: 4000,
                ..silent
            }),
            Some(100)
        );
    }
}
