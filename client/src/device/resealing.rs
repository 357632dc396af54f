//! Numbering and sealing anew: what a refusal of the recipient's keys, or of a counter, asks for.
//!
//! Each takes the pending envelope from one stored state to the next in one transaction, so that a
//! crash leaves one of the two.

use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{BoxId, Counter, EnvelopeId};

use super::contacts::LookupBy;
use super::sending::{Draft, Outgoing};
use super::words::is_word;
use super::{Device, DeviceError, Found};
use crate::connection::{Refusal, Signer};
use crate::envelope::Content;
use crate::store::{Batch, CounterRow, MessageRow, MessageState, PendingRow, StoreError};

/// No device is this many envelopes behind the service's count. Who claims so wants its counters used
/// up, or two of its messages under one.
const FURTHEST_BEHIND: u64 = 1 << 32;

impl Device {
    pub(super) fn compare_counter(&self, found: &Found) -> Result<(), DeviceError> {
        let used = Counter(found.next_counter.0.saturating_sub(1));
        self.store.write(|batch| {
            let ours = batch.get::<CounterRow>(&found.box_id)?.unwrap_or_default();
            let last = ours.last.max(plausible(ours.last, used)?);
            let compared_at = self.environment.clock.now();
            Ok(batch.put(&found.box_id, &CounterRow { last, compared_at })?)
        })
    }

    /// Seals an envelope for the recipient's new keys, under the same counter: the refusal did not
    /// consume it.
    pub(super) async fn reseal_for_new_keys(
        &self,
        signer: &Signer,
        outgoing: &mut Outgoing,
        refusal: &Refusal,
    ) -> Result<(), DeviceError> {
        let to = outgoing.recipient;
        let record = match &refusal.key_record {
            Some(bytes) => {
                let record = KeyRecord::decode(bytes)?;
                if !to.is_of_genesis(&record.genesis_hash()) {
                    return Err(DeviceError::Untrue("the key record is not the recipient's"));
                }
                let next_counter = outgoing.counter;
                self.hold(&Found {
                    box_id: to,
                    record: record.clone(),
                    next_counter,
                    profile: None,
                })?;
                record
            }
            None => {
                let found = self.lookup(&LookupBy::Box(to)).await?;
                self.hold(&found)?;
                found.record
            }
        };
        self.reseal(signer, outgoing, outgoing.counter, &record)
    }

    /// Seals an envelope under the next free counter.
    pub(super) fn renumber(
        &self,
        signer: &Signer,
        outgoing: &mut Outgoing,
        refusal: &Refusal,
    ) -> Result<(), DeviceError> {
        let record = self
            .pinned_record(&outgoing.recipient)?
            .ok_or(DeviceError::Damaged("contact"))?;
        let next = refusal.next_counter.unwrap_or_default();
        let counter = self.store.write(|batch| {
            take_counter(
                batch,
                &outgoing.recipient,
                Counter(next.0.saturating_sub(1)),
            )
        })?;
        self.reseal(signer, outgoing, counter, &record)
    }

    pub(super) fn reseal(
        &self,
        signer: &Signer,
        outgoing: &mut Outgoing,
        counter: Counter,
        record: &KeyRecord,
    ) -> Result<(), DeviceError> {
        let to = outgoing.recipient;
        let content = Content::decode(outgoing.row.content.expose())?;
        let draft = Draft {
            content: &content,
            written_at: outgoing.row.written_at,
            order: outgoing.row.order,
            group: outgoing.row.group,
            ttl_ms: outgoing.row.ttl_ms,
        };
        let body = self.seal(signer, &to, record, counter, &draft)?;
        let row = PendingRow {
            body: body.to_vec(),
            chain_version: record.version(),
            ..outgoing.row.clone()
        };
        self.store.write(|batch| {
            remove_pending(batch, signer, &to, outgoing.counter)?;
            put_pending(batch, signer, &to, counter, &row)
        })?;
        outgoing.counter = counter;
        outgoing.row = row;
        Ok(())
    }
}

/// The next counter for a box, above `used`.
pub(super) fn take_counter(
    batch: &mut Batch<'_>,
    to: &BoxId,
    used: Counter,
) -> Result<Counter, DeviceError> {
    let row = batch.get::<CounterRow>(to)?.unwrap_or_default();
    let highest = row.last.max(plausible(row.last, used)?);
    // Never the same one twice, not even the last of all.
    let next = highest.0.checked_add(1);
    let last = next.map(Counter).ok_or(DeviceError::Damaged("counter"))?;
    batch.put(to, &CounterRow { last, ..row })?;
    Ok(last)
}

/// The service's word on which counter was used last, if it can be believed.
fn plausible(ours: Counter, used: Counter) -> Result<Counter, DeviceError> {
    if used.0.saturating_sub(ours.0) > FURTHEST_BEHIND {
        return Err(DeviceError::Untrue(
            "the counter is far beyond all that was sent",
        ));
    }
    Ok(used)
}

pub(super) fn put_pending(
    batch: &mut Batch<'_>,
    signer: &Signer,
    to: &BoxId,
    counter: Counter,
    row: &PendingRow,
) -> Result<(), StoreError> {
    let id = EnvelopeId {
        sender: signer.address,
        counter,
    };
    let state = MessageState::Pending {
        content: row.content.clone(),
    };
    let message = MessageRow {
        order: row.order,
        sequence: None,
        at: row.written_at,
        state,
    };
    batch.put(&(*to, counter), row)?;
    // A message to a group has one row for all.
    if row.group.is_some() || is_word(row.content.expose()) {
        return Ok(());
    }
    batch.put(&(id, *to), &message)
}

fn remove_pending(
    batch: &mut Batch<'_>,
    signer: &Signer,
    to: &BoxId,
    counter: Counter,
) -> Result<(), StoreError> {
    let id = EnvelopeId {
        sender: signer.address,
        counter,
    };
    batch.remove::<PendingRow>(&(*to, counter))?;
    batch.remove::<MessageRow>(&(id, *to))
}
