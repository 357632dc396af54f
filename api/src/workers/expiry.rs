//! Removes what has outlived its time, a bounded step at a time, and only where something is due:
//! an idle cluster writes nothing.
//!
//! Half-done registrations are finished first. After a long outage a box may be due although its
//! claim was verified; were it dropped, its identifier would belong to a box that is not there, and
//! nobody could ever register it again.

use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::Expire;
use rossby_domain::ids::PartitionId;
use rossby_domain::{Answer, Command, Outcome, Query};

use super::{Trouble, Worker, Workers, finisher};

/// Rows that one command removes.
const STEP: u32 = 256;
/// Steps in one partition in one pass; the rest waits for the next, so that no partition starves.
const MAX_STEPS: u32 = 16;

pub(super) struct Expiry;

#[async_trait]
impl Worker for Expiry {
    const NAME: &'static str = "expiry";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble> {
        for partition in workers.partitions.all() {
            if !is_due(workers, partition)? {
                continue;
            }
            finisher::finish(workers, partition).await?;
            for _ in 0..MAX_STEPS {
                if !step(workers, partition).await? {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn is_due(workers: &Workers, partition: PartitionId) -> Result<bool, Trouble> {
    match workers
        .group
        .read_local(partition, &Query::NextDue(partition))?
    {
        Answer::NextDue(at) => Ok(at.is_some_and(|at| at <= workers.clock.now())),
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
