//! Removes what has outlived its time, a bounded step at a time, and only where something is due.
//!
//! Half-done registrations are finished first. After a long outage a box may be due although its
//! claim was verified; were it dropped, its identifier would belong to a box that is not there, and
//! nobody could ever register it again.
//!
//! While the leader doubts its clock nothing is proposed. An idle cluster writes one command a day
//! (and one when a leader is new, or its time was confirmed), so that the log knows the time: after
//! a rest the leader would doubt its clock without it.

use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::Expire;
use rossby_domain::ids::PartitionId;
use rossby_domain::time::{DAY_MS, Timestamp};
use rossby_domain::{Answer, Command, Outcome, Query};
use rossby_raft::{Group, ProposeError};
use tokio::time::Instant;

use super::{More, PATIENCE, Trouble, Worker, Workers, finisher};

/// Rows that one command removes.
const STEP: u32 = 256;
/// Steps in one partition in one pass; the rest waits for the next, so that no partition starves.
const MAX_STEPS: u32 = 16;
/// The log is told the time at least this often, in milliseconds.
const TELL_MS: u64 = DAY_MS;

/// What the worker remembers between passes.
#[derive(Default)]
pub(super) struct Expiry {
    /// The term in which the log was last told the time, and the time.
    told: Option<(u64, Timestamp)>,
}

#[async_trait]
impl Worker for Expiry {
    const NAME: &'static str = "expiry";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn pass(&mut self, workers: &Workers) -> Result<More, Trouble> {
        let Some(now) = workers.group.expires_by() else {
            self.told = None;
            // Soon it may be known.
            return Ok(More::Yes);
        };
        self.tell(workers, now).await?;
        let mut trouble = Ok(More::No);
        let mut silent = finisher::Silent::default();
        for &partition in workers.owned().iter() {
            if !is_due(workers, partition, now)? {
                continue;
            }
            // What another group keeps it from must not keep all else from expiring.
            let what = finisher::What::Verified;
            match finisher::finish(workers, partition, &mut silent, what).await {
                Ok(_) => {}
                Err(elsewhere @ Trouble::Elsewhere(_)) => {
                    trouble = Err(elsewhere);
                    continue;
                }
                Err(error) => return Err(error),
            }
            // What is left then is the next pass's: each step is applied, which calls it.
            for _ in 0..MAX_STEPS {
                if !step(workers, partition).await? {
                    break;
                }
            }
        }
        trouble
    }
}

impl Expiry {
    async fn tell(&mut self, workers: &Workers, now: Timestamp) -> Result<(), Trouble> {
        let term = workers.group.led_term().unwrap_or_default();
        let is_told = self
            .told
            .is_some_and(|(in_term, at)| in_term == term && now.millis_since(at) < TELL_MS);
        let owned = workers.owned().first().copied();
        if let (false, Some(partition)) = (is_told, owned) {
            tell_time(&workers.group, partition, Instant::now() + PATIENCE).await?;
            self.told = Some((term, now));
        }
        Ok(())
    }
}

/// Has the log carry the time to one partition, which is enough for later leaders to know it.
///
/// # Errors
/// As of [`Group::propose`].
pub async fn tell_time(
    group: &Group,
    partition: PartitionId,
    deadline: Instant,
) -> Result<(), ProposeError> {
    // Moves the clock and removes nothing: registrations may be half done.
    let command = Command::Expire(Expire { limit: 0 });
    group.propose(vec![(partition, command)], deadline).await?;
    Ok(())
}

fn is_due(workers: &Workers, partition: PartitionId, now: Timestamp) -> Result<bool, Trouble> {
    match workers
        .group
        .read_local(partition, &Query::NextDue(partition))?
    {
        Answer::NextDue(at) => Ok(at.is_some_and(|at| at <= now)),
        _ => Err(Trouble::Other("unexpected answer to NextDue")),
    }
}

/// One step; whether there is more.
async fn step(workers: &Workers, partition: PartitionId) -> Result<bool, Trouble> {
    let command = Command::Expire(Expire { limit: STEP });
    let replies = workers.propose(vec![(partition, command)]).await?;
    Ok(matches!(
        replies.first(),
        Some(Ok(Outcome::Expired { more: true, .. }))
    ))
}
