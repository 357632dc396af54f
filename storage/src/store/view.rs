//! The tables of one partition over its rows.

use std::marker::PhantomData;
use std::ops::{ControlFlow, Deref, DerefMut};

use bytes::Bytes;
use rossby_domain::chain::KeyRecord;
use rossby_domain::claim::{Claim, CodeBudget, PendingClaim};
use rossby_domain::dedupe::SenderRow;
use rossby_domain::envelope::Envelope;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, MapVersion, Sequence};
use rossby_domain::placement::{Admissions, ClusterMap, MapHistoryRow};
use rossby_domain::profile::{Intent, Profile, SealedProfile};
use rossby_domain::report::ReportMark;
use rossby_domain::tables::{DueKey, InboxKey, Meta, OutboxRow, QueueState, ReadTables, Tables};
use rossby_domain::time::Timestamp;

use super::base_rows::BasePartition;
use super::error::{REMEDY_REPLICA, StoreError};
use super::layers::Layers;
use super::rows::{self, KeyRange, Table};
use crate::codec::{CodecError, Versioned, decode_value, encode_value};

/// Rows of one page of the base in a scan of small rows.
const PAGE_ROWS: usize = 64;
/// Rows of one page of the base in a scan of envelopes, which may be 96 KiB each.
const ENVELOPE_PAGE_ROWS: usize = 16;

/// One partition at one instant. `L` is a lock's guard: shared for reading, exclusive for writing.
pub(crate) struct View<'a, L> {
    layers: L,
    base: &'a BasePartition,
}

impl<'a, L: Deref<Target = Layers>> View<'a, L> {
    pub(crate) fn new(layers: L, base: &'a BasePartition) -> Self {
        Self { layers, base }
    }

    /// Visits all rows in order of key.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&[u8], &Bytes)) -> Result<(), StoreError> {
        let everything = KeyRange::everything();
        self.layers
            .scan(self.base, &everything, ENVELOPE_PAGE_ROWS, |key, value| {
                visit(key, value);
                Ok(ControlFlow::Continue(()))
            })
    }

    fn read<T: Versioned>(&self, row: Row<T>) -> Result<Option<T>, StoreError> {
        Ok(self.read_with_length(row)?.map(|(value, _)| value))
    }

    /// A row, and the length of its encoded form.
    fn read_with_length<T: Versioned>(
        &self,
        row: Row<T>,
    ) -> Result<Option<(T, usize)>, StoreError> {
        let Some(bytes) = self.layers.get(self.base, &row.key)? else {
            return Ok(None);
        };
        let value = decode_value(&bytes).map_err(|e| damaged(row.table, &e))?;
        Ok(Some((value, bytes.len())))
    }

    /// Up to `limit` rows within a range, each made into something by its key and value.
    fn list<T: Versioned, R>(
        &self,
        table: Table,
        range: &KeyRange,
        limit: u32,
        make: impl Fn(&[u8], T) -> Option<R>,
    ) -> Result<Vec<R>, StoreError> {
        self.list_raw(table, range, limit, |key, bytes| {
            make(key, decode_value(bytes).map_err(|e| damaged(table, &e))?)
                .ok_or_else(|| damaged_key(table))
        })
    }

    fn list_raw<R>(
        &self,
        _table: Table,
        range: &KeyRange,
        limit: u32,
        make: impl Fn(&[u8], &Bytes) -> Result<R, StoreError>,
    ) -> Result<Vec<R>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        if limit > 0 {
            self.layers
                .scan(self.base, range, PAGE_ROWS.min(limit), |key, bytes| {
                    found.push(make(key, bytes)?);
                    Ok(stop_if(found.len() >= limit))
                })?;
        }
        Ok(found)
    }
}

impl<L: DerefMut<Target = Layers>> View<'_, L> {
    /// Sets a row; the length of its encoded form.
    fn put<T: Versioned>(&mut self, row: Row<T>, value: &T) -> Result<usize, StoreError> {
        let value = encoded(row.table, value)?;
        let length = value.len();
        self.layers.put(self.base, row.key, value)?;
        Ok(length)
    }

    /// [`Self::put`] for rows that are hardly ever deleted.
    fn put_lasting<T: Versioned>(&mut self, row: Row<T>, value: &T) -> Result<usize, StoreError> {
        let value = encoded(row.table, value)?;
        let length = value.len();
        self.layers.put_lasting(row.key, value);
        Ok(length)
    }

    fn insert<T: Versioned>(
        &mut self,
        row: Row<T>,
        value: &T,
        clash: &'static str,
    ) -> Result<usize, StoreError> {
        if self.layers.get(self.base, &row.key)?.is_some() {
            return Err(StoreError::Inconsistent(clash));
        }
        self.put(row, value)
    }

    fn delete<T>(&mut self, row: Row<T>) -> Result<(), StoreError> {
        self.layers.delete(row.key);
        Ok(())
    }
}

/// A row's place and the type of its value.
struct Row<T> {
    table: Table,
    key: Vec<u8>,
    value: PhantomData<T>,
}

impl<T> Row<T> {
    fn new(table: Table, key: Vec<u8>) -> Self {
        Self {
            table,
            key,
            value: PhantomData,
        }
    }
}

// Each table's rows, with the type of value that it holds.
fn claim(key: &InboxKey) -> Row<Claim> {
    Row::new(Table::Inbox, rows::inbox(key))
}
fn key_record(box_id: &BoxId) -> Row<KeyRecord> {
    Row::new(Table::Keys, rows::of_box(Table::Keys, box_id))
}
fn profile(box_id: &BoxId) -> Row<Profile> {
    Row::new(Table::Profiles, rows::of_box(Table::Profiles, box_id))
}
fn queue_state(box_id: &BoxId) -> Row<QueueState> {
    Row::new(Table::QueueState, rows::of_box(Table::QueueState, box_id))
}
fn sender(box_id: &BoxId, sender: &DeviceAddress) -> Row<SenderRow> {
    Row::new(Table::Dedupe, rows::dedupe(box_id, sender))
}
fn pending_claim(identifier: &IdentifierHash, box_id: &BoxId) -> Row<PendingClaim> {
    Row::new(
        Table::PendingClaims,
        rows::of_try(Table::PendingClaims, identifier, box_id),
    )
}
fn code_budget(identifier: &IdentifierHash) -> Row<CodeBudget> {
    Row::new(
        Table::CodeBudgets,
        rows::of_identifier(Table::CodeBudgets, identifier),
    )
}
fn outbox_row(identifier: &IdentifierHash, box_id: &BoxId) -> Row<OutboxRow> {
    Row::new(
        Table::Outbox,
        rows::of_try(Table::Outbox, identifier, box_id),
    )
}
fn intent(box_id: &BoxId) -> Row<Intent> {
    Row::new(Table::Intents, rows::of_box(Table::Intents, box_id))
}
fn meta() -> Row<Meta> {
    Row::new(Table::Meta, rows::meta())
}
fn map() -> Row<ClusterMap> {
    Row::new(Table::Map, rows::map())
}
fn admissions() -> Row<Admissions> {
    Row::new(Table::Admissions, rows::admissions())
}
fn sealed_profile(box_id: &BoxId) -> Row<SealedProfile> {
    let key = rows::of_box(Table::SealedProfiles, box_id);
    Row::new(Table::SealedProfiles, key)
}
fn map_change(version: MapVersion) -> Row<MapHistoryRow> {
    Row::new(Table::MapHistory, rows::map_change(version))
}

impl<L: Deref<Target = Layers>> ReadTables for View<'_, L> {
    type Error = StoreError;

    fn claim(&self, key: &InboxKey) -> Result<Option<Claim>, StoreError> {
        self.read(claim(key))
    }

    fn key_record(&self, box_id: &BoxId) -> Result<Option<KeyRecord>, StoreError> {
        if let Some(known) = self.layers.known().record(box_id) {
            return Ok(Some(known.clone()));
        }
        let Some((found, length)) = self.read_with_length(key_record(box_id))? else {
            return Ok(None);
        };
        self.layers
            .known()
            .set_record(box_id, found.clone(), length);
        Ok(Some(found))
    }

    fn profile(&self, box_id: &BoxId) -> Result<Option<Profile>, StoreError> {
        if let Some(known) = self.layers.known().profile(box_id) {
            return Ok(Some(known.clone()));
        }
        let Some((found, length)) = self.read_with_length(profile(box_id))? else {
            return Ok(None);
        };
        self.layers
            .known()
            .set_profile(box_id, found.clone(), length);
        Ok(Some(found))
    }

    fn envelopes(
        &self,
        box_id: &BoxId,
        after: Sequence,
        max_envelopes: u32,
        max_bytes: u64,
    ) -> Result<Vec<Envelope>, StoreError> {
        let limit = usize::try_from(max_envelopes).unwrap_or(usize::MAX);
        let mut found: Vec<Envelope> = Vec::new();
        let Some(range) = rows::queue_after(box_id, after).filter(|_| limit > 0) else {
            return Ok(found);
        };
        let mut bytes: u64 = 0;
        self.layers.scan(
            self.base,
            &range,
            ENVELOPE_PAGE_ROWS.min(limit),
            |_, value| {
                let envelope: Envelope =
                    decode_value(value).map_err(|e| damaged(Table::Queue, &e))?;
                bytes = bytes.saturating_add(envelope.body.len() as u64);
                if !found.is_empty() && bytes > max_bytes {
                    return Ok(ControlFlow::Break(()));
                }
                found.push(envelope);
                Ok(stop_if(found.len() >= limit))
            },
        )?;
        Ok(found)
    }

    fn queue_state(&self, box_id: &BoxId) -> Result<Option<QueueState>, StoreError> {
        if let Some(known) = self.layers.known().queue(box_id) {
            return Ok(Some(*known));
        }
        let Some((found, length)) = self.read_with_length(queue_state(box_id))? else {
            return Ok(None);
        };
        self.layers.known().set_queue(box_id, found, length);
        Ok(Some(found))
    }

    fn sender(
        &self,
        box_id: &BoxId,
        address: &DeviceAddress,
    ) -> Result<Option<SenderRow>, StoreError> {
        let key = (*box_id, *address);
        if let Some(known) = self.layers.known().sender(&key) {
            return Ok(Some(known.clone()));
        }
        let Some((found, length)) = self.read_with_length(sender(box_id, address))? else {
            return Ok(None);
        };
        self.layers.known().set_sender(&key, found.clone(), length);
        Ok(Some(found))
    }

    fn senders_of(
        &self,
        box_id: &BoxId,
        sender: &BoxId,
    ) -> Result<Vec<(DeviceId, SenderRow)>, StoreError> {
        let range = rows::dedupe_of_sender(box_id, sender);
        self.list(Table::Dedupe, &range, u32::MAX, |key, row| {
            Some((rows::sender_of(key)?.device, row))
        })
    }

    fn senders(&self, box_id: &BoxId, limit: u32) -> Result<Vec<DeviceAddress>, StoreError> {
        let (table, range) = (Table::Dedupe, rows::dedupe_of_box(box_id));
        self.list_raw(table, &range, limit, |key, _| {
            rows::sender_of(key).ok_or_else(|| damaged_key(table))
        })
    }

    fn pending_claim(
        &self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<Option<PendingClaim>, StoreError> {
        self.read(pending_claim(identifier, box_id))
    }

    fn pending_claims(
        &self,
        identifier: &IdentifierHash,
        limit: u32,
    ) -> Result<Vec<(BoxId, PendingClaim)>, StoreError> {
        let table = Table::PendingClaims;
        let range = KeyRange::of_prefix(rows::of_identifier(table, identifier));
        self.list(table, &range, limit, |key, row| {
            Some((rows::try_of(table, key)?.1, row))
        })
    }

    fn code_budget(&self, identifier: &IdentifierHash) -> Result<Option<CodeBudget>, StoreError> {
        self.read(code_budget(identifier))
    }

    fn outbox_row(
        &self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<Option<OutboxRow>, StoreError> {
        self.read(outbox_row(identifier, box_id))
    }

    fn outbox(
        &self,
        after: Option<&(IdentifierHash, BoxId)>,
        limit: u32,
    ) -> Result<Vec<(IdentifierHash, BoxId, OutboxRow)>, StoreError> {
        self.list(
            Table::Outbox,
            &rows::tries_after(Table::Outbox, after),
            limit,
            |key, row| {
                let (identifier, box_id) = rows::try_of(Table::Outbox, key)?;
                Some((identifier, box_id, row))
            },
        )
    }

    fn intent(&self, box_id: &BoxId) -> Result<Option<Intent>, StoreError> {
        self.read(intent(box_id))
    }

    fn intents(
        &self,
        after: Option<&BoxId>,
        limit: u32,
    ) -> Result<Vec<(BoxId, Intent)>, StoreError> {
        self.list(
            Table::Intents,
            &rows::boxes_after(Table::Intents, after),
            limit,
            |key, row| Some((rows::box_of(Table::Intents, key)?, row)),
        )
    }

    fn due(&self, upto: Timestamp, limit: u32) -> Result<Vec<(Timestamp, DueKey)>, StoreError> {
        self.list_raw(Table::Due, &rows::due_upto(upto), limit, |key, _| {
            rows::due_of(key).ok_or_else(|| damaged_key(Table::Due))
        })
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        if let Some(known) = self.layers.known().meta {
            return Ok(known);
        }
        let found = self.read(meta())?;
        self.layers.known().meta = found;
        Ok(found.unwrap_or_default())
    }

    fn cluster_map(&self) -> Result<Option<ClusterMap>, StoreError> {
        self.read(map())
    }

    fn map_changes(&self, after: MapVersion, limit: u32) -> Result<Vec<MapHistoryRow>, StoreError> {
        let Some(range) = rows::map_changes_after(after) else {
            return Ok(Vec::new());
        };
        self.list(
            Table::MapHistory,
            &range,
            limit,
            |key, row: MapHistoryRow| (rows::map_change(row.version) == key).then_some(row),
        )
    }

    fn admissions(&self) -> Result<Admissions, StoreError> {
        Ok(self.read(admissions())?.unwrap_or_default())
    }

    fn has_report(&self, box_id: &BoxId, mark: &ReportMark) -> Result<bool, StoreError> {
        let key = rows::report(box_id, mark);
        Ok(self.layers.get(self.base, &key)?.is_some())
    }

    fn count_reports(&self, box_id: &BoxId, limit: u32) -> Result<u32, StoreError> {
        let range = rows::reports_of(box_id);
        let found = self.list_raw(Table::Reports, &range, limit, |_, _| Ok(()))?;
        Ok(u32::try_from(found.len()).unwrap_or(u32::MAX))
    }

    fn reported(&self, after: Option<&BoxId>, limit: u32) -> Result<Vec<BoxId>, StoreError> {
        let mut boxes = Vec::new();
        let mut range = rows::reports_after(after);
        while boxes.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            let first = self.list_raw(Table::Reports, &range, 1, |key, _| {
                rows::report_of(key).ok_or_else(|| damaged_key(Table::Reports))
            })?;
            let Some((box_id, _)) = first.into_iter().next() else {
                break;
            };
            range = rows::reports_after(Some(&box_id));
            boxes.push(box_id);
        }
        Ok(boxes)
    }

    fn sealed_profile(&self, box_id: &BoxId) -> Result<Option<SealedProfile>, StoreError> {
        self.read(sealed_profile(box_id))
    }
}

impl<L: DerefMut<Target = Layers>> Tables for View<'_, L> {
    fn insert_claim(&mut self, key: &InboxKey, value: &Claim) -> Result<(), StoreError> {
        self.insert(claim(key), value, "a claim was inserted where there is one")?;
        Ok(())
    }

    fn delete_claim(&mut self, key: &InboxKey) -> Result<(), StoreError> {
        self.delete(claim(key))
    }

    fn insert_key_record(&mut self, box_id: &BoxId, record: &KeyRecord) -> Result<(), StoreError> {
        let clash = "a key record was inserted where there is one";
        let length = self.insert(key_record(box_id), record, clash)?;
        let mut known = self.layers.known();
        known.set_record(box_id, record.clone(), length);
        Ok(())
    }

    fn update_key_record(&mut self, box_id: &BoxId, record: &KeyRecord) -> Result<(), StoreError> {
        let length = self.put(key_record(box_id), record)?;
        let mut known = self.layers.known();
        known.set_record(box_id, record.clone(), length);
        Ok(())
    }

    fn delete_key_record(&mut self, box_id: &BoxId) -> Result<(), StoreError> {
        self.layers.known().forget_record(box_id);
        self.delete(key_record(box_id))
    }

    fn put_profile(&mut self, box_id: &BoxId, value: &Profile) -> Result<(), StoreError> {
        let length = self.put(profile(box_id), value)?;
        let mut known = self.layers.known();
        known.set_profile(box_id, value.clone(), length);
        Ok(())
    }

    fn delete_profile(&mut self, box_id: &BoxId) -> Result<(), StoreError> {
        self.layers.known().forget_profile(box_id);
        self.delete(profile(box_id))
    }

    fn append_envelope(&mut self, box_id: &BoxId, envelope: &Envelope) -> Result<(), StoreError> {
        // A queue's sequences only rise, so no row below can have this key.
        let value = encoded(Table::Queue, envelope)?;
        self.layers
            .put_new(rows::queue(box_id, envelope.sequence), value)
    }

    fn purge_envelope(&mut self, box_id: &BoxId, sequence: Sequence) -> Result<(), StoreError> {
        self.layers.delete(rows::queue(box_id, sequence));
        Ok(())
    }

    fn put_queue_state(&mut self, box_id: &BoxId, state: &QueueState) -> Result<(), StoreError> {
        let length = self.put_lasting(queue_state(box_id), state)?;
        self.layers.known().set_queue(box_id, *state, length);
        Ok(())
    }

    fn put_sender(
        &mut self,
        box_id: &BoxId,
        address: &DeviceAddress,
        row: &SenderRow,
    ) -> Result<(), StoreError> {
        let length = self.put_lasting(sender(box_id, address), row)?;
        let key = (*box_id, *address);
        self.layers.known().set_sender(&key, row.clone(), length);
        Ok(())
    }

    fn delete_queue_state(&mut self, box_id: &BoxId) -> Result<(), StoreError> {
        self.layers.known().forget_queue(box_id);
        self.delete(queue_state(box_id))
    }

    fn delete_sender(&mut self, box_id: &BoxId, address: &DeviceAddress) -> Result<(), StoreError> {
        self.layers.known().forget_sender(&(*box_id, *address));
        self.delete(sender(box_id, address))
    }

    fn put_pending_claim(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
        value: &PendingClaim,
    ) -> Result<(), StoreError> {
        self.put(pending_claim(identifier, box_id), value)?;
        Ok(())
    }

    fn delete_pending_claim(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<(), StoreError> {
        self.delete(pending_claim(identifier, box_id))
    }

    fn put_code_budget(
        &mut self,
        identifier: &IdentifierHash,
        budget: &CodeBudget,
    ) -> Result<(), StoreError> {
        self.put(code_budget(identifier), budget)?;
        Ok(())
    }

    fn delete_code_budget(&mut self, identifier: &IdentifierHash) -> Result<(), StoreError> {
        self.delete(code_budget(identifier))
    }

    fn put_outbox_row(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
        row: &OutboxRow,
    ) -> Result<(), StoreError> {
        self.put(outbox_row(identifier, box_id), row)?;
        Ok(())
    }

    fn delete_outbox_row(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<(), StoreError> {
        self.delete(outbox_row(identifier, box_id))
    }

    fn put_intent(&mut self, box_id: &BoxId, value: &Intent) -> Result<(), StoreError> {
        self.put(intent(box_id), value)?;
        Ok(())
    }

    fn delete_intent(&mut self, box_id: &BoxId) -> Result<(), StoreError> {
        self.delete(intent(box_id))
    }

    fn add_due(&mut self, at: Timestamp, key: &DueKey) -> Result<(), StoreError> {
        self.layers.put(self.base, rows::due(at, key), Bytes::new())
    }

    fn remove_due(&mut self, at: Timestamp, key: &DueKey) -> Result<(), StoreError> {
        self.layers.delete(rows::due(at, key));
        Ok(())
    }

    fn put_meta(&mut self, value: &Meta) -> Result<(), StoreError> {
        self.put_lasting(meta(), value)?;
        self.layers.known().meta = Some(*value);
        Ok(())
    }

    fn put_cluster_map(&mut self, value: &ClusterMap) -> Result<(), StoreError> {
        self.put_lasting(map(), value)?;
        Ok(())
    }

    fn add_map_change(&mut self, row: &MapHistoryRow) -> Result<(), StoreError> {
        let clash = "a change of the map was added where there is one";
        self.insert(map_change(row.version), row, clash)?;
        Ok(())
    }

    fn delete_map_change(&mut self, version: MapVersion) -> Result<(), StoreError> {
        self.delete(map_change(version))
    }

    fn put_admissions(&mut self, value: &Admissions) -> Result<(), StoreError> {
        self.put_lasting(admissions(), value)?;
        Ok(())
    }

    fn add_report(&mut self, box_id: &BoxId, mark: &ReportMark) -> Result<(), StoreError> {
        let key = rows::report(box_id, mark);
        self.layers.put(self.base, key, Bytes::new())
    }

    fn put_sealed_profile(
        &mut self,
        box_id: &BoxId,
        value: &SealedProfile,
    ) -> Result<(), StoreError> {
        self.put_lasting(sealed_profile(box_id), value)?;
        Ok(())
    }

    fn delete_reports(&mut self, box_id: &BoxId, limit: u32) -> Result<u32, StoreError> {
        let range = rows::reports_of(box_id);
        let keys = self.list_raw(Table::Reports, &range, limit, |key, _| Ok(key.to_vec()))?;
        let deleted = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        for key in keys {
            self.layers.delete(key);
        }
        Ok(deleted)
    }

    fn delete_sealed_profile(&mut self, box_id: &BoxId) -> Result<(), StoreError> {
        self.delete(sealed_profile(box_id))
    }
}

fn stop_if(enough: bool) -> ControlFlow<()> {
    if enough {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn encoded<T: Versioned>(table: Table, value: &T) -> Result<Bytes, StoreError> {
    encode_value(value)
        .map(Bytes::from)
        .map_err(|error| damaged(table, &error))
}

/// A value that has passed all checksums and still can't be read: written by another build, most
/// likely a newer one.
fn damaged(table: Table, error: &CodecError) -> StoreError {
    match error {
        CodecError::Version { found, supported } => StoreError::Version {
            what: "a row of table",
            location: table.name().to_owned(),
            found: (*found).into(),
            supported: (*supported).into(),
        },
        other => StoreError::Corrupt {
            what: "a row of table",
            location: table.name().to_owned(),
            detail: other.to_string(),
            remedy: REMEDY_REPLICA,
        },
    }
}

fn damaged_key(table: Table) -> StoreError {
    StoreError::Corrupt {
        what: "a row of table",
        location: table.name().to_owned(),
        detail: "its key is malformed".to_owned(),
        remedy: REMEDY_REPLICA,
    }
}

/// Whether a row, by its key within a partition, can be read as what its table holds; `None` if it
/// is of no table.
pub(crate) fn check_row(key: &[u8], value: &[u8]) -> Result<Option<Table>, StoreError> {
    let Some(table) = key.first().copied().and_then(Table::of_prefix) else {
        return Ok(None);
    };
    let decoded = match table {
        Table::Inbox => decode_value::<Claim>(value).map(drop),
        Table::Keys => decode_value::<KeyRecord>(value).map(drop),
        Table::Profiles => decode_value::<Profile>(value).map(drop),
        Table::Queue => decode_value::<Envelope>(value).map(drop),
        Table::QueueState => decode_value::<QueueState>(value).map(drop),
        Table::Dedupe => decode_value::<SenderRow>(value).map(drop),
        Table::PendingClaims => decode_value::<PendingClaim>(value).map(drop),
        Table::CodeBudgets => decode_value::<CodeBudget>(value).map(drop),
        Table::Outbox => decode_value::<OutboxRow>(value).map(drop),
        Table::Intents => decode_value::<Intent>(value).map(drop),
        Table::Due => {
            return match rows::due_of(key) {
                Some(_) => Ok(Some(table)),
                None => Err(damaged_key(table)),
            };
        }
        Table::Meta => decode_value::<Meta>(value).map(drop),
        Table::Map => decode_value::<ClusterMap>(value).map(drop),
        Table::MapHistory => match decode_value::<MapHistoryRow>(value) {
            Ok(row) if rows::map_change(row.version) != key => return Err(damaged_key(table)),
            decoded => decoded.map(drop),
        },
        Table::Admissions => decode_value::<Admissions>(value).map(drop),
        Table::Reports => {
            return match rows::report_of(key) {
                Some(_) => Ok(Some(table)),
                None => Err(damaged_key(table)),
            };
        }
        Table::SealedProfiles => decode_value::<SealedProfile>(value).map(drop),
    };
    decoded.map_err(|error| damaged(table, &error))?;
    Ok(Some(table))
}
