//! Takes over the partitions that the map gives the group, and no others: when a cluster is new, and
//! when a group gets spare ones.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::{Adopt, SetResetDelay};
use rossby_domain::limits::Limits;
use rossby_domain::placement::ClusterMap;
use rossby_domain::{Command, Outcome, Reply, Routed};
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
        let routed = |(partition, epoch)| {
            commands(&workers.limits).map(move |command| Routed {
                partition,
                epoch,
                command,
            })
        };
        let commands: Vec<Routed> = missing.flat_map(routed).collect();
        if commands.is_empty() {
            return Ok(More::No);
        }
        let adopts = |routed: &&Routed| matches!(routed.command, Command::Adopt(_));
        let count = commands.iter().filter(adopts).count();
        let replies = workers
            .group
            .propose_routed(commands, Instant::now() + PATIENCE)
            .await?;
        // A rejection means that it is owned by now, at that epoch or a later one: as good.
        let is_adopted = |reply: &&Reply| matches!(reply, Ok(Outcome::Adopted { .. }));
        let adopted = replies.iter().filter(is_adopted).count();
        info!(group = %workers.group.id(), partitions = adopted, of = count, "took over partitions");
        Ok(More::No)
    }
}

/// What takes over a partition with these limits. Those that it does not say are the defaults.
fn commands(limits: &Limits) -> impl Iterator<Item = Command> + use<> {
    let (limits, reset_delay_ms) = (*limits, limits.reset_delay_ms);
    let is_other = reset_delay_ms != Limits::default().reset_delay_ms;
    let delay = is_other.then_some(Command::SetResetDelay(SetResetDelay { reset_delay_ms }));
    [Command::Adopt(Adopt { limits })].into_iter().chain(delay)
}
