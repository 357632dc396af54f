//! What a node looks at now and then for each of its replicas. All of them share one timer, so that what a replica costs of
//! which nothing is asked is a look now and then, and nobody is woken for it.
//!
//! What is looked for stands where it belongs: `leadership.rs`, `members/`, `checkpoints.rs`, `expiry.rs`. A look itself waits
//! for nothing. What comes of it may take long: that is an [`Errand`], on a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rossby_domain::ids::ReplicaId;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::checkpoints::{self, LogLook};
use crate::core::Core;
use crate::expiry::{self, TimeLook};
use crate::leadership::{self, ClockLook};
use crate::members::{self, JointLook, StandingLook};
use crate::timing::Timing;

/// Between two looks at what has no pace of its own.
const PERIOD: Duration = Duration::from_secs(1);

/// What a replica remembers from one look to the next.
#[derive(Debug)]
pub(crate) struct Looks {
    pub(crate) clock: ClockLook,
    pub(crate) log: LogLook,
    pub(crate) time: TimeLook,
    pub(crate) standing: StandingLook,
    pub(crate) joint: JointLook,
}

impl Looks {
    pub(crate) fn new(replica: ReplicaId, checkpoint_log_bytes: u64) -> Self {
        Self {
            clock: ClockLook::default(),
            log: LogLook::new(replica, checkpoint_log_bytes),
            time: TimeLook::default(),
            standing: StandingLook::default(),
            joint: JointLook::default(),
        }
    }
}

/// Looks after all replicas of a node, until stopped.
pub(crate) async fn run(
    cores: impl Fn() -> Vec<Arc<Core>> + Send + 'static,
    timing: Timing,
    stop: CancellationToken,
) {
    let mut next = Instant::now() + PERIOD;
    let mut next_of_leaders = Instant::now() + timing.election_max;
    loop {
        let sleeping = sleep_until(next.min(next_of_leaders));
        if stop.run_until_cancelled(sleeping).await.is_none() {
            return;
        }
        let now = Instant::now();
        let due = |next: &mut Instant, pace: Duration| {
            let due = *next <= now;
            if due {
                *next = now + pace;
            }
            due
        };
        let (is_due, of_leaders_is_due) = (
            due(&mut next, PERIOD),
            due(&mut next_of_leaders, timing.election_max),
        );
        for core in cores() {
            if of_leaders_is_due && !core.has_ended() {
                leadership::look(&core);
                members::look_for_standing(&core);
            }
            if is_due && !core.has_ended() {
                leadership::look_at_clock(&core);
                checkpoints::look(&core);
                expiry::look(&core);
                members::look_for_joint(&core);
            }
        }
    }
}

/// What comes of a look, done once at a time.
#[derive(Debug, Default)]
pub(crate) struct Errand(Arc<AtomicBool>);

impl Errand {
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Has it done, unless it is under way.
    pub(crate) fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        if self.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let ends = Ends(Arc::clone(&self.0));
        tokio::spawn(async move {
            work.await;
            drop(ends);
        });
    }
}

/// However the work ends.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn an_errand_is_done_once_at_a_time_and_again_whatever_became_of_it() {
        let errand = Errand::default();
        let (end, ended) = oneshot::channel::<()>();
        errand.begin(async { ended.await.unwrap() });
        let (second, never) = oneshot::channel::<()>();
        errand.begin(async { second.send(()).unwrap() });
        assert!(never.await.is_err(), "while the first is under way");
        // It panics.
        drop(end);
        while errand.is_under_way() {
            tokio::task::yield_now().await;
        }
        let (third, done) = oneshot::channel::<()>();
        errand.begin(async { third.send(()).unwrap() });
        done.await.unwrap();
    }
}
