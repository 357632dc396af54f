//! Tables in memory: for tests, and as the plainest statement of what the operations mean.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{DueKey, InboxKey, Meta, OutboxRow, QueueState, ReadTables, Tables};
use crate::chain::KeyRecord;
use crate::claim::{Claim, CodeBudget, PendingClaim};
use crate::dedupe::SenderRow;
use crate::envelope::Envelope;
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceAddress, DeviceId, MapVersion, Sequence};
use crate::placement::{Admissions, ClusterMap, MapHistoryRow};
use crate::profile::{Intent, Profile, SealedProfile};
use crate::report::ReportMark;
use crate::time::Timestamp;

/// A partition's tables in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryTables {
    inbox: BTreeMap<InboxKey, Claim>,
    keys: BTreeMap<BoxId, KeyRecord>,
    profiles: BTreeMap<BoxId, Profile>,
    queue: BTreeMap<(BoxId, Sequence), Envelope>,
    queue_states: BTreeMap<BoxId, QueueState>,
    senders: BTreeMap<(BoxId, DeviceAddress), SenderRow>,
    pending_claims: BTreeMap<(IdentifierHash, BoxId), PendingClaim>,
    code_budgets: BTreeMap<IdentifierHash, CodeBudget>,
    outbox: BTreeMap<(IdentifierHash, BoxId), OutboxRow>,
    intents: BTreeMap<BoxId, Intent>,
    due: BTreeSet<(Timestamp, DueKey)>,
    meta: Meta,
    map: Option<ClusterMap>,
    map_changes: BTreeMap<MapVersion, MapHistoryRow>,
    admissions: Admissions,
    reports: BTreeSet<(BoxId, ReportMark)>,
    sealed_profiles: BTreeMap<BoxId, SealedProfile>,
}

/// A rule of a table that its caller broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryTablesError {
    /// An insert found a row.
    #[error("the row to be inserted exists")]
    Exists,
    /// An envelope was appended that is not after all others.
    #[error("the envelope to be appended is not the last")]
    NotLast,
}

fn insert<K: Ord, V>(
    table: &mut BTreeMap<K, V>,
    key: K,
    value: V,
) -> Result<(), MemoryTablesError> {
    if table.contains_key(&key) {
        return Err(MemoryTablesError::Exists);
    }
    table.insert(key, value);
    Ok(())
}

/// The rows whose key has this first half, from this second half on.
fn of_first<A: Copy + Ord, B: Copy + Ord, V>(
    table: &BTreeMap<(A, B), V>,
    first: A,
    from: Bound<B>,
) -> impl Iterator<Item = (B, &V)> {
    table
        .range((from.map(|second| (first, second)), Bound::Unbounded))
        .take_while(move |((key, _), _)| *key == first)
        .map(|((_, key), value)| (*key, value))
}

fn count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

impl ReadTables for MemoryTables {
    type Error = MemoryTablesError;

    fn claim(&self, key: &InboxKey) -> Result<Option<Claim>, Self::Error> {
        Ok(self.inbox.get(key).cloned())
    }

    fn key_record(&self, box_id: &BoxId) -> Result<Option<KeyRecord>, Self::Error> {
        Ok(self.keys.get(box_id).cloned())
    }

    fn profile(&self, box_id: &BoxId) -> Result<Option<Profile>, Self::Error> {
        Ok(self.profiles.get(box_id).cloned())
    }

    fn envelopes(
        &self,
        box_id: &BoxId,
        after: Sequence,
        max_envelopes: u32,
        max_bytes: u64,
    ) -> Result<Vec<Envelope>, Self::Error> {
        let mut found = Vec::new();
        let mut bytes = 0_u64;
        let rows = of_first(&self.queue, *box_id, Bound::Excluded(after));
        for (_, envelope) in rows.take(count(max_envelopes)) {
            bytes = bytes.saturating_add(envelope.body.len() as u64);
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(envelope.clone());
        }
        Ok(found)
    }

    fn queue_state(&self, box_id: &BoxId) -> Result<Option<QueueState>, Self::Error> {
        Ok(self.queue_states.get(box_id).copied())
    }

    fn sender(
        &self,
        box_id: &BoxId,
        sender: &DeviceAddress,
    ) -> Result<Option<SenderRow>, Self::Error> {
        Ok(self.senders.get(&(*box_id, *sender)).cloned())
    }

    fn senders_of(
        &self,
        box_id: &BoxId,
        sender: &BoxId,
    ) -> Result<Vec<(DeviceId, SenderRow)>, Self::Error> {
        let first = DeviceAddress {
            box_id: *sender,
            device: DeviceId::from_bytes([0; 16]),
        };
        Ok(of_first(&self.senders, *box_id, Bound::Included(first))
            .take_while(|(address, _)| address.box_id == *sender)
            .map(|(address, row)| (address.device, row.clone()))
            .collect())
    }

    fn senders(&self, box_id: &BoxId, limit: u32) -> Result<Vec<DeviceAddress>, Self::Error> {
        let first = DeviceAddress {
            box_id: BoxId::least(),
            device: DeviceId::from_bytes([0; 16]),
        };
        let rows = of_first(&self.senders, *box_id, Bound::Included(first));
        Ok(rows
            .take(count(limit))
            .map(|(address, _)| address)
            .collect())
    }

    fn pending_claim(
        &self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<Option<PendingClaim>, Self::Error> {
        Ok(self.pending_claims.get(&(*identifier, *box_id)).cloned())
    }

    fn pending_claims(
        &self,
        identifier: &IdentifierHash,
        limit: u32,
    ) -> Result<Vec<(BoxId, PendingClaim)>, Self::Error> {
        let rows = of_first(
            &self.pending_claims,
            *identifier,
            Bound::Included(BoxId::least()),
        );
        Ok(rows
            .take(count(limit))
            .map(|(box_id, claim)| (box_id, claim.clone()))
            .collect())
    }

    fn code_budget(&self, identifier: &IdentifierHash) -> Result<Option<CodeBudget>, Self::Error> {
        Ok(self.code_budgets.get(identifier).cloned())
    }

    fn outbox_row(
        &self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<Option<OutboxRow>, Self::Error> {
        Ok(self.outbox.get(&(*identifier, *box_id)).cloned())
    }

    fn outbox(
        &self,
        after: Option<&(IdentifierHash, BoxId)>,
        limit: u32,
    ) -> Result<Vec<(IdentifierHash, BoxId, OutboxRow)>, Self::Error> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let rows = self.outbox.range((start, Bound::Unbounded));
        let rows = rows.take(count(limit));
        Ok(rows
            .map(|((identifier, id), row)| (*identifier, *id, row.clone()))
            .collect())
    }

    fn intent(&self, box_id: &BoxId) -> Result<Option<Intent>, Self::Error> {
        Ok(self.intents.get(box_id).copied())
    }

    fn intents(
        &self,
        after: Option<&BoxId>,
        limit: u32,
    ) -> Result<Vec<(BoxId, Intent)>, Self::Error> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let rows = self.intents.range((start, Bound::Unbounded));
        let rows = rows.take(count(limit));
        Ok(rows.map(|(box_id, intent)| (*box_id, *intent)).collect())
    }

    fn due(&self, upto: Timestamp, limit: u32) -> Result<Vec<(Timestamp, DueKey)>, Self::Error> {
        let entries = self.due.iter().take_while(|(at, _)| *at <= upto);
        Ok(entries.take(count(limit)).copied().collect())
    }

    fn meta(&self) -> Result<Meta, Self::Error> {
        Ok(self.meta)
    }

    fn cluster_map(&self) -> Result<Option<ClusterMap>, Self::Error> {
        Ok(self.map.clone())
    }

    fn map_changes(
        &self,
        after: MapVersion,
        limit: u32,
    ) -> Result<Vec<MapHistoryRow>, Self::Error> {
        let rows = (Bound::Excluded(after), Bound::Unbounded);
        let rows = self.map_changes.range(rows).take(count(limit));
        Ok(rows.map(|(_, row)| row.clone()).collect())
    }

    fn admissions(&self) -> Result<Admissions, Self::Error> {
        Ok(self.admissions.clone())
    }

    fn has_report(&self, box_id: &BoxId, mark: &ReportMark) -> Result<bool, Self::Error> {
        Ok(self.reports.contains(&(*box_id, *mark)))
    }

    fn count_reports(&self, box_id: &BoxId, limit: u32) -> Result<u32, Self::Error> {
        let of_box = self.reports.iter().filter(|(of, _)| of == box_id);
        let found = of_box.take(count(limit)).count();
        Ok(u32::try_from(found).unwrap_or(u32::MAX))
    }

    fn reported(&self, after: Option<&BoxId>, limit: u32) -> Result<Vec<BoxId>, Self::Error> {
        let boxes: BTreeSet<BoxId> = self.reports.iter().map(|(of, _)| *of).collect();
        let later = boxes
            .into_iter()
            .filter(|of| after.is_none_or(|after| of > after));
        Ok(later.take(count(limit)).collect())
    }

    fn sealed_profile(&self, box_id: &BoxId) -> Result<Option<SealedProfile>, Self::Error> {
        Ok(self.sealed_profiles.get(box_id).cloned())
    }
}

impl Tables for MemoryTables {
    fn insert_claim(&mut self, key: &InboxKey, claim: &Claim) -> Result<(), Self::Error> {
        insert(&mut self.inbox, *key, claim.clone())
    }

    fn delete_claim(&mut self, key: &InboxKey) -> Result<(), Self::Error> {
        self.inbox.remove(key);
        Ok(())
    }

    fn insert_key_record(&mut self, box_id: &BoxId, record: &KeyRecord) -> Result<(), Self::Error> {
        insert(&mut self.keys, *box_id, record.clone())
    }

    fn update_key_record(&mut self, box_id: &BoxId, record: &KeyRecord) -> Result<(), Self::Error> {
        self.keys.insert(*box_id, record.clone());
        Ok(())
    }

    fn delete_key_record(&mut self, box_id: &BoxId) -> Result<(), Self::Error> {
        self.keys.remove(box_id);
        Ok(())
    }

    fn put_profile(&mut self, box_id: &BoxId, profile: &Profile) -> Result<(), Self::Error> {
        self.profiles.insert(*box_id, profile.clone());
        Ok(())
    }

    fn delete_profile(&mut self, box_id: &BoxId) -> Result<(), Self::Error> {
        self.profiles.remove(box_id);
        Ok(())
    }

    fn append_envelope(&mut self, box_id: &BoxId, envelope: &Envelope) -> Result<(), Self::Error> {
        let rest = Bound::Included(envelope.sequence);
        if of_first(&self.queue, *box_id, rest).next().is_some() {
            return Err(MemoryTablesError::NotLast);
        }
        self.queue
            .insert((*box_id, envelope.sequence), envelope.clone());
        Ok(())
    }

    fn purge_envelope(&mut self, box_id: &BoxId, sequence: Sequence) -> Result<(), Self::Error> {
        self.queue.remove(&(*box_id, sequence));
        Ok(())
    }

    fn put_queue_state(&mut self, box_id: &BoxId, state: &QueueState) -> Result<(), Self::Error> {
        self.queue_states.insert(*box_id, *state);
        Ok(())
    }

    fn put_sender(
        &mut self,
        box_id: &BoxId,
        sender: &DeviceAddress,
        row: &SenderRow,
    ) -> Result<(), Self::Error> {
        self.senders.insert((*box_id, *sender), row.clone());
        Ok(())
    }

    fn delete_queue_state(&mut self, box_id: &BoxId) -> Result<(), Self::Error> {
        self.queue_states.remove(box_id);
        Ok(())
    }

    fn delete_sender(&mut self, box_id: &BoxId, sender: &DeviceAddress) -> Result<(), Self::Error> {
        self.senders.remove(&(*box_id, *sender));
        Ok(())
    }

    fn put_pending_claim(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
        claim: &PendingClaim,
    ) -> Result<(), Self::Error> {
        self.pending_claims
            .insert((*identifier, *box_id), claim.clone());
        Ok(())
    }

    fn delete_pending_claim(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<(), Self::Error> {
        self.pending_claims.remove(&(*identifier, *box_id));
        Ok(())
    }

    fn put_code_budget(
        &mut self,
        identifier: &IdentifierHash,
        budget: &CodeBudget,
    ) -> Result<(), Self::Error> {
        self.code_budgets.insert(*identifier, budget.clone());
        Ok(())
    }

    fn delete_code_budget(&mut self, identifier: &IdentifierHash) -> Result<(), Self::Error> {
        self.code_budgets.remove(identifier);
        Ok(())
    }

    fn put_outbox_row(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
        row: &OutboxRow,
    ) -> Result<(), Self::Error> {
        self.outbox.insert((*identifier, *box_id), row.clone());
        Ok(())
    }

    fn delete_outbox_row(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<(), Self::Error> {
        self.outbox.remove(&(*identifier, *box_id));
        Ok(())
    }

    fn put_intent(&mut self, box_id: &BoxId, intent: &Intent) -> Result<(), Self::Error> {
        self.intents.insert(*box_id, *intent);
        Ok(())
    }

    fn delete_intent(&mut self, box_id: &BoxId) -> Result<(), Self::Error> {
        self.intents.remove(box_id);
        Ok(())
    }

    fn add_due(&mut self, at: Timestamp, key: &DueKey) -> Result<(), Self::Error> {
        self.due.insert((at, *key));
        Ok(())
    }

    fn remove_due(&mut self, at: Timestamp, key: &DueKey) -> Result<(), Self::Error> {
        self.due.remove(&(at, *key));
        Ok(())
    }

    fn put_meta(&mut self, meta: &Meta) -> Result<(), Self::Error> {
        self.meta = *meta;
        Ok(())
    }

    fn put_cluster_map(&mut self, map: &ClusterMap) -> Result<(), Self::Error> {
        self.map = Some(map.clone());
        Ok(())
    }

    fn add_map_change(&mut self, row: &MapHistoryRow) -> Result<(), Self::Error> {
        insert(&mut self.map_changes, row.version, row.clone())
    }

    fn delete_map_change(&mut self, version: MapVersion) -> Result<(), Self::Error> {
        self.map_changes.remove(&version);
        Ok(())
    }

    fn put_admissions(&mut self, admissions: &Admissions) -> Result<(), Self::Error> {
        self.admissions = admissions.clone();
        Ok(())
    }

    fn add_report(&mut self, box_id: &BoxId, mark: &ReportMark) -> Result<(), Self::Error> {
        self.reports.insert((*box_id, *mark));
        Ok(())
    }

    fn put_sealed_profile(
        &mut self,
        box_id: &BoxId,
        profile: &SealedProfile,
    ) -> Result<(), Self::Error> {
        self.sealed_profiles.insert(*box_id, profile.clone());
        Ok(())
    }

    fn delete_reports(&mut self, box_id: &BoxId, limit: u32) -> Result<u32, Self::Error> {
        let of_box = self.reports.iter().filter(|(of, _)| of == box_id);
        let leaving: Vec<_> = of_box.take(count(limit)).copied().collect();
        for report in &leaving {
            self.reports.remove(report);
        }
        Ok(u32::try_from(leaving.len()).unwrap_or(u32::MAX))
    }

    fn delete_sealed_profile(&mut self, box_id: &BoxId) -> Result<(), Self::Error> {
        self.sealed_profiles.remove(box_id);
        Ok(())
    }
}
