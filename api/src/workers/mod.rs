//! What the leader of a group does by itself: takes over partitions, brings codes to people,
//! finishes half-done registrations, and removes what has expired.
//!
//! ```text
//!   adopt     given to the group by the map, not owned yet ──► Adopt
//!   courier   row in an outbox            ──► Courier::deliver ──► MarkCodeSent
//!   finisher  box pending, claim verified ──► ActivateBox
//!             identifier leaves its box   ──► ReleaseClaim, DropIdentifier
//!   expiry    something is due, or a day  ──► Expire
//! ```
//!
//! A worker that has done all there is waits until its group applies something, or it is called: by a new map, or a code in
//! an outbox. So a group of which nothing is asked costs a look every few seconds.
//!
//! Each runs on every node and works only while its replica surely leads, and only on what its group
//! owns; what the finisher needs to know of other groups it asks them. Each step may be done twice, by an
//! old leader and a new one: every command here is idempotent. Nothing that belongs to a person is
//! logged.

mod adopt;
mod courier;
mod expiry;
mod finisher;

pub use expiry::tell_time;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::ids::{PartitionCount, PartitionId};
use rossby_domain::limits::Limits;
use rossby_domain::{Command, Reply};
use rossby_raft::{Group, Leadership, ProposeError, ReadError};
use rossby_seams::random::{Random, bytes};
use rossby_seams::watch::Receiver;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::courier::Courier;
use crate::metrics::Metrics;
use crate::router::Router;
use crate::secrets::ClusterSecrets;

/// How long a worker waits for one proposal.
const PATIENCE: Duration = Duration::from_secs(5);
/// A worker with nothing to do waits for its group to apply something, and looks this often all the same: time passes too,
/// and no work may depend on a call alone.
const IDLE: Duration = Duration::from_secs(5);
/// After trouble, a worker waits this many of its periods.
const TROUBLE_PERIODS: u32 = 10;

/// The workers of one group on one node.
#[derive(Clone)]
pub struct Workers {
    /// This node's replica of the group.
    pub group: Arc<Group>,
    /// Says what the group is to take over, and reaches other groups.
    pub router: Arc<Router>,
    /// The cluster's number of partitions.
    pub partitions: PartitionCount,
    /// The limits that partitions are taken over with.
    pub limits: Limits,
    /// Opens what waits in the outbox.
    pub secrets: Arc<ClusterSecrets>,
    /// Who brings codes to people.
    pub courier: Arc<dyn Courier>,
    /// Spreads the workers of different nodes in time.
    pub random: Arc<dyn Random>,
    /// Where deliveries are counted.
    pub metrics: Arc<Metrics>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts them all; they end when `stop` is cancelled.
    pub fn spawn(self, tasks: &TaskTracker, stop: &CancellationToken) {
        tasks.spawn(run(self.clone(), adopt::Adopter::default(), stop.clone()));
        tasks.spawn(run(
            self.clone(),
            courier::CourierWorker::default(),
            stop.clone(),
        ));
        tasks.spawn(run(self.clone(), finisher::Finisher, stop.clone()));
        tasks.spawn(run(self, expiry::Expiry::default(), stop.clone()));
    }

    /// The partitions that the group owns, as its log says.
    fn owned(&self) -> Arc<[PartitionId]> {
        self.group.owned(self.partitions)
    }

    /// Proposes commands for partitions, in order.
    async fn propose(
        &self,
        commands: Vec<(PartitionId, Command)>,
    ) -> Result<Vec<Reply>, ProposeError> {
        self.group
            .propose(commands, Instant::now() + PATIENCE)
            .await
    }

    /// A period, spread by a quarter either way.
    fn jittered(&self, period: Duration) -> Duration {
        let [drawn] = bytes(self.random.as_ref()).unwrap_or([128]);
        period * 3 / 4 + period * u32::from(drawn) / 512
    }
}

/// Why a pass did not go through. The next one tries again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Another group gave no answer: why, for the log.
    #[error("another group: {0}")]
    Elsewhere(String),
    #[error("{0}")]
    Other(&'static str),
}

/// One kind of work. A pass does what there is to do now.
#[async_trait]
trait Worker: Send {
    /// For the log.
    const NAME: &'static str;
    /// Between passes, while there is something to do.
    const PERIOD: Duration;

    async fn pass(&mut self, workers: &Workers) -> Result<More, Trouble>;

    /// Waits for what should not wait for its turn: the next pass is at once. It may be given up at any time.
    async fn called(&mut self, _: &Workers) {
        std::future::pending().await
    }
}

/// Whether the next pass would find something to do, though nothing is applied until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

/// When the next pass is.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// In a period.
    Soon,
    /// Once something is applied, or after a while.
    WhenTold,
    /// After trouble.
    Later,
}

async fn run<W: Worker>(workers: Workers, mut worker: W, stop: CancellationToken) {
    let mut watches = Watches {
        leadership: workers.group.watch_leadership(),
        applied: workers.group.watch_applied(),
    };
    let mut next = Next::Soon;
    loop {
        let (period, idle) = (workers.jittered(W::PERIOD), workers.jittered(IDLE));
        let turn = watches.turn(next, period, idle, worker.called(&workers));
        if stop.run_until_cancelled(turn).await != Some(true) {
            break;
        }
        next = Next::Soon;
        // An old leader that was cut off must not act on what it no longer knows.
        if !workers.group.leads_surely() {
            continue;
        }
        watches.begin_pass();
        match stop.run_until_cancelled(worker.pass(&workers)).await {
            None => break,
            Some(Ok(More::Yes)) => {}
            Some(Ok(More::No)) => next = Next::WhenTold,
            // Leadership changed meanwhile: the new leader does it.
            Some(Err(Trouble::Propose(ProposeError::NotLeader { .. })))
            | Some(Err(Trouble::Read(ReadError::NotLeader { .. }))) => {
                debug!(worker = W::NAME, "no longer leading");
            }
            Some(Err(trouble)) => {
                warn!(worker = W::NAME, %trouble, "a worker will try again");
                next = Next::Later;
            }
        }
    }
}

/// What a worker waits for.
struct Watches {
    leadership: Receiver<Leadership>,
    applied: Receiver<u64>,
}

impl Watches {
    /// What changes from now on may come too late for the pass that begins.
    fn begin_pass(&mut self) {
        let _ = self.applied.borrow_and_update();
        let _ = self.leadership.borrow_and_update();
    }

    /// Waits until it is time for a pass; whether there will ever be one.
    async fn turn(
        &mut self,
        next: Next,
        period: Duration,
        idle: Duration,
        called: impl Future<Output = ()>,
    ) -> bool {
        // Most replicas follow, and have nothing to do: they do not even look.
        if !self.until_leading().await {
            return false;
        }
        let in_a_period = Instant::now() + period;
        match next {
            Next::Later => sleep(period * TROUBLE_PERIODS).await,
            Next::Soon => tokio::select! {
                biased;
                () = called => {}
                () = sleep_until(in_a_period) => {}
            },
            Next::WhenTold => {
                let applied = async {
                    let _ = self.applied.changed().await;
                    sleep_until(in_a_period).await;
                };
                tokio::select! {
                    biased;
                    () = called => {}
                    // Whoever comes to lead looks at once, whatever it saw when it led before: also where it lost and won
                    // leadership during its last pass.
                    _ = self.leadership.changed() => {}
                    () = applied => {}
                    () = sleep(idle) => {}
                }
            }
        }
        true
    }

    /// Waits until this replica leads; whether it does, since one that has ended never will.
    async fn until_leading(&mut self) -> bool {
        loop {
            if matches!(*self.leadership.borrow(), Leadership::Here { .. }) {
                return true;
            }
            if self.leadership.changed().await.is_err() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;
    use rossby_seams::watch::{Sender, channel};

    use super::*;

    const PERIOD: Duration = Duration::from_millis(100);
    const HERE: Leadership = Leadership::Here { term: 7 };

    fn watches() -> (Watches, Sender<Leadership>, Sender<u64>) {
        let (leadership, leads) = channel(HERE);
        let (applied, applies) = channel(0);
        let watches = Watches {
            leadership: leads,
            applied: applies,
        };
        (watches, leadership, applied)
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_lost_and_won_leadership_during_a_pass_looks_again_at_once() {
        let (mut watches, leadership, _applied) = watches();
        watches.begin_pass();
        let idle = watches.turn(Next::WhenTold, PERIOD, IDLE, pending());
        assert!(idle.now_or_never().is_none(), "nothing to look for");
        leadership.send_replace(Leadership::Unknown);
        leadership.send_replace(HERE);
        let again = watches.turn(Next::WhenTold, PERIOD, IDLE, pending());
        assert_eq!(again.now_or_never(), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_applied_during_a_pass_is_looked_for_a_period_later() {
        let (mut watches, _leadership, applied) = watches();
        watches.begin_pass();
        applied.send_replace(1);
        let began = Instant::now();
        assert!(watches.turn(Next::WhenTold, PERIOD, IDLE, pending()).await);
        assert_eq!(began.elapsed(), PERIOD);
        watches.begin_pass();
        let began = Instant::now();
        assert!(watches.turn(Next::WhenTold, PERIOD, IDLE, pending()).await);
        assert_eq!(began.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_waits_until_it_leads_and_one_that_has_ended_never_looks() {
        let (mut watches, leadership, _applied) = watches();
        leadership.send_replace(Leadership::Unknown);
        let waits = watches.turn(Next::Soon, PERIOD, IDLE, pending());
        assert!(tokio::time::timeout(IDLE * 10, waits).await.is_err());
        leadership.send_replace(HERE);
        assert!(watches.turn(Next::Soon, PERIOD, IDLE, pending()).await);
        leadership.send_replace(Leadership::Unknown);
        drop(leadership);
        assert!(!watches.turn(Next::Soon, PERIOD, IDLE, pending()).await);
    }
}
