//! Finishes half-done registrations: the claim was verified, but whoever asked for it never came to
//! activate the box.

use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::ActivateBox;
use rossby_domain::ids::PartitionId;
use rossby_domain::query::PendingBox;
use rossby_domain::{Answer, Command, Query};

use super::{Trouble, Worker, Workers};

/// Pending boxes looked at in one step.
const BATCH: u32 = 256;

pub(super) struct Finisher;

#[async_trait]
impl Worker for Finisher {
    const NAME: &'static str = "finisher";
    const PERIOD: Duration = Duration::from_secs(3);

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble> {
        for partition in workers.partitions.all() {
            finish(workers, partition).await?;
        }
        Ok(())
    }
}

/// Finishes all half-done registrations of a partition.
pub(super) async fn finish(workers: &Workers, partition: PartitionId) -> Result<(), Trouble> {
    let mut after = None;
    loop {
        let query = Query::PendingBoxes {
            partition,
            after,
            limit: BATCH,
        };
        let Answer::PendingBoxes(pending) = workers.group.read_local(partition, &query)? else {
            return Err(Trouble::Other("unexpected answer to PendingBoxes"));
        };
        let Some(last) = pending.last() else {
            return Ok(());
        };
        after = Some(last.box_id);
        let mut commands = Vec::new();
        for pending in &pending {
            for activation in activations(workers, pending)? {
                commands.push((partition, Command::ActivateBox(activation)));
            }
        }
        if !commands.is_empty() {
            // A rejection means that the box is gone or no longer asks: nothing to finish.
            workers.propose(commands).await?;
        }
    }
}

/// The commands that finish a registration: one for each of its identifiers that was verified.
fn activations(workers: &Workers, pending: &PendingBox) -> Result<Vec<ActivateBox>, Trouble> {
    let mut found = Vec::new();
    for identifier in &pending.identifiers {
        let directory = identifier.partition(workers.partitions);
        let query = Query::VerifiedClaim(*identifier);
        let Answer::VerifiedClaim(claim) = workers.group.read_local(directory, &query)? else {
            return Err(Trouble::Other("unexpected answer to VerifiedClaim"));
        };
        let own = claim.filter(|(box_id, _)| *box_id == pending.box_id);
        found.extend(own.map(|(_, generation)| ActivateBox {
            box_id: pending.box_id,
            device: pending.device,
            identifier: *identifier,
            generation,
        }));
    }
    Ok(found)
}
