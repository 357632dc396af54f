//! Takes over the partitions that the map gives the group, and no others: when a cluster is new, and
//! when a group gets spare ones.

use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::Adopt;
use rossby_domain::{Command, Routed};
use tokio::time::Instant;
use tracing::info;

use super::{PATIENCE, Trouble, Worker, Workers};

pub(super) struct Adopter;

#[async_trait]
impl Worker for Adopter {
    const NAME: &'static str = "adopt";
    const PERIOD: Duration = Duration::from_millis(200);

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble> {
        let assigned = workers.router.directory().assigned(workers.group.id());
        let missing = assigned
            .into_iter()
            .filter(|(partition, epoch)| workers.group.epoch(*partition) < Some(*epoch));
        let commands: Vec<Routed> = missing
            .map(|(partition, epoch)| Routed {
                partition,
                epoch,
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
        // A rejection means that it is owned by now, at that epoch or a later one: as good.
        let adopted = replies.iter().filter(|reply| reply.is_ok()).count();
        info!(group = %workers.group.id(), partitions = adopted, of = count, "took over partitions");
        Ok(())
    }
}
