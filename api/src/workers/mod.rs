//! What the leader of a group does by itself: takes over partitions, brings codes to people,
//! finishes half-done registrations, and removes what has expired.
//!
//! ```text
//!   adopt     given to the group by the map, not owned yet ──► Adopt
//!   courier   row in an outbox            ──► Courier::deliver ──► MarkCodeSent
//!   finisher  box pending, claim verified ──► ActivateBox
//!   expiry    something is due, or a day  ──► Expire
//! ```
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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::courier::Courier;
use crate::metrics::Metrics;
use crate::router::Router;
use crate::secrets::ClusterSecrets;

/// How long a worker waits for one proposal.
const PATIENCE: Duration = Duration::from_secs(5);
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
        tasks.spawn(run(self.clone(), adopt::Adopter, stop.clone()));
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
    /// Between passes.
    const PERIOD: Duration;

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble>;
}

async fn run<W: Worker>(workers: Workers, mut worker: W, stop: CancellationToken) {
    let mut pause = workers.jittered(W::PERIOD);
    let mut leadership = workers.group.watch_leadership();
    loop {
        // Most replicas follow, and have nothing to do: they do not even look.
        let turn = async {
            let leads = until_leading(&mut leadership).await;
            tokio::time::sleep(pause).await;
            leads
        };
        if stop.run_until_cancelled(turn).await != Some(true) {
            break;
        }
        pause = workers.jittered(W::PERIOD);
        // An old leader that was cut off must not act on what it no longer knows.
        if !workers.group.leads_surely() {
            continue;
        }
        match stop.run_until_cancelled(worker.pass(&workers)).await {
            None => break,
            Some(Ok(())) => {}
            // Leadership changed meanwhile: the new leader does it.
            Some(Err(Trouble::Propose(ProposeError::NotLeader { .. })))
            | Some(Err(Trouble::Read(ReadError::NotLeader { .. }))) => {
                debug!(worker = W::NAME, "no longer leading");
            }
            Some(Err(trouble)) => {
                warn!(worker = W::NAME, %trouble, "a worker will try again");
                pause *= TROUBLE_PERIODS;
            }
        }
    }
}

/// Waits until this replica leads; whether it does, since one that has ended never will.
async fn until_leading(leadership: &mut Receiver<Leadership>) -> bool {
    loop {
        if matches!(*leadership.borrow_and_update(), Leadership::Here { .. }) {
            return true;
        }
        if leadership.changed().await.is_err() {
            return false;
        }
    }
}
