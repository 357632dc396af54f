//! Takes over the partitions that the map gives the group, and no others: when a cluster is new, and
//! when a group gets spare ones.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::Adopt;
use rossby_domain::placement::ClusterMap;
use rossby_domain::{Command, Routed};
use rossby_seams::watch::Receiver;
use tokio::time::Instant;
use tracing::info;

use super::{More, PATIENCE, Trouble, Worker, Workers};

#[derive(Default)]
pub(super) struct Adopter {
    maps: Option<Receiver<Arc<ClusterMap>>>,
}

#[async_trait]
impl Worker for Adopter {
    const NAME: &'static str = "adopt";
    const PERIOD: Duration = Duration::from_millis(200);

    /// A newer map may give the group more.
    async fn called(&mut self, workers: &Workers) {
        if self.maps.is_none() {
            self.maps = workers.router.directory().watch_map();
        }
        let told = match &mut self.maps {
            Some(maps) => maps.changed().await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    }

    async fn pass(&mut self, workers: &Workers) -> Result<More, Trouble> {
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
            return Ok(More::No);
        }
        let count = commands.len();
        let replies = workers
            .group
            .propose_routed(commands, Instant::now() + PATIENCE)
            .await?;
        // A rejection means that it is owned by now, at that epoch or a later one: as good.
        let adopted = replies.iter().filter(|reply| reply.is_ok()).count();
        info!(group = %workers.group.id(), partitions = adopted, of = count, "took over partitions");
        Ok(More::No)
    }
}
