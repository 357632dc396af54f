//! Brings codes from the outbox to their people.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::MarkCodeSent;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, PartitionId};
use rossby_domain::query::OutboxItem;
use rossby_domain::{Answer, Command, Query};
use tracing::warn;

use super::{Trouble, Worker, Workers};
use crate::rpc::{SealedCode, code_context};
use crate::secrets::SealPurpose;

/// Codes taken from one partition in one pass.
const BATCH: u32 = 32;
/// Sendings remembered while their receipt can't be written; beyond it some may go out twice.
const MAX_UNMARKED: usize = 100_000;

/// Names one sending of a code.
type Sending = (IdentifierHash, BoxId, u64);

#[derive(Default)]
pub(super) struct CourierWorker {
    /// Delivered, but their rows may still be there: while the group can't commit, nobody should
    /// get the same code again and again.
    unmarked: HashSet<Sending>,
}

#[async_trait]
impl Worker for CourierWorker {
    const NAME: &'static str = "courier";
    const PERIOD: Duration = Duration::from_millis(250);

    async fn pass(&mut self, workers: &Workers) -> Result<(), Trouble> {
        let mut failed = 0_u32;
        for partition in workers.partitions.all() {
            let query = Query::Outbox {
                partition,
                limit: BATCH,
            };
            let Answer::Outbox(items) = workers.group.read_local(partition, &query)? else {
                return Err(Trouble::Other("unexpected answer to Outbox"));
            };
            if !items.is_empty() {
                failed += self.deliver_all(workers, partition, items).await?;
            }
        }
        match failed {
            0 => Ok(()),
            _ => Err(Trouble::Other(
                "some verification codes could not be delivered",
            )),
        }
    }
}

impl CourierWorker {
    /// Delivers the codes of one partition and marks them sent; how many could not be delivered.
    async fn deliver_all(
        &mut self,
        workers: &Workers,
        partition: PartitionId,
        items: Vec<OutboxItem>,
    ) -> Result<u32, Trouble> {
        let now = workers.clock.now();
        let (mut failed, mut receipts) = (0, Vec::new());
        for item in items {
            let sending = (item.identifier, item.box_id, item.serial);
            if item.expires_at <= now {
                continue;
            }
            if !self.unmarked.contains(&sending) {
                if !deliver(workers, &item).await {
                    failed += 1;
                    continue;
                }
                if self.unmarked.len() >= MAX_UNMARKED {
                    self.unmarked.clear();
                }
                self.unmarked.insert(sending);
            }
            receipts.push(sending);
        }
        if receipts.is_empty() {
            return Ok(failed);
        }
        let commands = receipts.iter().map(|(identifier, box_id, serial)| {
            let receipt = MarkCodeSent {
                identifier: *identifier,
                box_id: *box_id,
                serial: *serial,
            };
            (partition, Command::MarkCodeSent(receipt))
        });
        workers.propose(commands.collect()).await?;
        receipts.iter().for_each(|sending| {
            self.unmarked.remove(sending);
        });
        Ok(failed)
    }
}

/// Opens one code and hands it over.
async fn deliver(workers: &Workers, item: &OutboxItem) -> bool {
    let context = code_context(&item.identifier, &item.box_id);
    let code = match workers
        .secrets
        .open(SealPurpose::Code, &context, &item.sealed)
    {
        Ok(text) => SealedCode::decode(&text),
        Err(error) => {
            warn!(%error, "a verification code in the outbox does not open");
            workers.metrics.courier_failed();
            return false;
        }
    };
    let Ok(SealedCode { identifier, code }) = code else {
        warn!("a verification code in the outbox can't be read");
        workers.metrics.courier_failed();
        return false;
    };
    match workers.courier.deliver(&identifier, &code).await {
        Ok(()) => {
            workers.metrics.courier_sent();
            true
        }
        Err(error) => {
            warn!(%error, "the courier failed");
            workers.metrics.courier_failed();
            false
        }
    }
}
