//! Finishes half-done registrations: the claim was verified, but whoever asked for it never came to
//! activate the box.

use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::ActivateBox;
use rossby_domain::ids::PartitionId;
use rossby_domain::query::PendingBox;
use rossby_domain::{Answer, Command, Query};

use super::{Trouble, Worker, Workers};

/// Pending boxes looked at per partition in one pass.
const BATCH: u32 = 1000;

pub(super) struct Finisher;

#[async_trait]
impl Worker for Finisher {
    const NAME: &'static str = "finisher";
    const PERIOD: Duration = Duration::from_secs(3);

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble> {
        for partition in workers.partitions.all() {
            let query = Query::PendingBoxes {
                partition,
                limit: BATCH,
            };
            let Answer::PendingBoxes(pending) = workers.group.read_local(partition, &query)? else {
                return Err(Trouble::Other("unexpected answer to PendingBoxes"));
            };
            let commands: Result<Vec<_>, Trouble> = pending
                .iter()
                .filter_map(|pending| activation(workers, partition, pending).transpose())
                .collect();
            match commands? {
                none if none.is_empty() => {}
                // A rejection means that the box is gone or no longer asks: nothing to finish.
                commands => drop(workers.propose(commands).await?),
            }
        }
        Ok(())
    }
}

/// The command that finishes a registration, if its claim was verified.
fn activation(
    workers: &Workers,
    partition: PartitionId,
    pending: &PendingBox,
) -> Result<Option<(PartitionId, Command)>, Trouble> {
    let directory = pending.identifier.partition(workers.partitions);
    let query = Query::VerifiedClaim(pending.identifier);
    let Answer::VerifiedClaim(claim) = workers.group.read_local(directory, &query)? else {
        return Err(Trouble::Other("unexpected answer to VerifiedClaim"));
    };
    Ok(claim
        .filter(|(box_id, _)| *box_id == pending.box_id)
        .map(|(_, generation)| {
            let command = ActivateBox {
                box_id: pending.box_id,
                device: pending.device,
                identifier: pending.identifier,
                generation,
            };
            (partition, Command::ActivateBox(command))
        }))
}
