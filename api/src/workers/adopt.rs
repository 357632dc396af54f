//! Takes over partitions that nobody owns yet: all of them, when a cluster is new.

use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::Adopt;
use rossby_domain::ids::Epoch;
use rossby_domain::{Command, Routed};
use tokio::time::Instant;
use tracing::info;

use super::{PATIENCE, Trouble, Worker, Workers};

/// The first ownership of a partition.
const FIRST_EPOCH: Epoch = Epoch(1);

pub(super) struct Adopter;

#[async_trait]
impl Worker for Adopter {
    const NAME: &'static str = "adopt";
    const PERIOD: Duration = Duration::from_millis(200);

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble> {
        let unowned = workers
            .partitions
            .all()
            .filter(|p| workers.group.epoch(*p).is_none());
        let commands: Vec<Routed> = unowned
            .map(|partition| Routed {
                partition,
                epoch: FIRST_EPOCH,
                command: Command::Adopt(Adopt {
                    limits: workers.limits,
                }),
            })
            .collect();
        if commands.is_empty() {
            return Ok(());
        }
        let count = commands.len();
        let replies = workers
            .group
            .propose_routed(commands, Instant::now() + PATIENCE)
            .await?;
        // A rejection means that it is owned by now, at some epoch: as good.
        let adopted = replies.iter().filter(|reply| reply.is_ok()).count();
        info!(partitions = adopted, of = count, "took over partitions");
        Ok(())
    }
}
