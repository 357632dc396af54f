//! The tables of a partition, and all that may be done to each.
//!
//! A value of [`Tables`] is the view of **one** partition, so no command can touch two. Each table
//! has just the operations that the design allows: the directory can not be updated, a queue can
//! only be appended to and purged.
//!
//! | prefix | table | key | value | operations |
//! |---|---|---|---|---|
//! | 1 | inbox | identifier or device | [`Claim`] | read, insert, delete |
//! | 2 | keys | box | [`KeyRecord`] | read, insert, update |
//! | 3 | profiles | box | [`Profile`] | all |
//! | 4 | queue | box, sequence | [`Envelope`] | append, read, purge |
//! | 5 | queue state | box | [`QueueState`] | read, put; delete with the box |
//! | 6 | dedupe | box, sender box, sender device | [`SenderRow`] | read, put; delete with the box |
//! | 7 | pending claims | identifier, box | [`PendingClaim`] | all |
//! | 8 | code budgets | identifier | [`CodeBudget`] | all |
//! | 9 | outbox | identifier, box | [`OutboxRow`] | all |
//! | 10 | intents | box | [`Intent`] | all |
//! | 11 | due | time, [`DueKey`] | nothing | insert, read in order of time, delete |
//! | 12 | meta | nothing | [`Meta`] | read, put |
//! | 13 | map | nothing | [`ClusterMap`] | read, put |
//! | 14 | map history | version | [`MapHistoryRow`] | append, read, delete |
//! | 15 | admissions | nothing | [`Admissions`] | read, put |
//! | 16 | reports | box, [`ReportMark`] | nothing | read, insert, count, delete |
//! | 17 | sealed profiles | box | [`SealedProfile`] | read, put |
//!
//! Prefixes, key encodings and the versions of values are in `storage` (`store/rows.rs`); keys sort
//! as this table writes them, numbers big-endian.

mod memory;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::KeyRecord;
use crate::claim::{Claim, CodeBudget, PendingClaim};
use crate::dedupe::SenderRow;
use crate::envelope::Envelope;
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceAddress, DeviceId, Epoch, MapVersion, Sequence};
use crate::limits::Limits;
use crate::placement::{Admissions, ClusterMap, MapHistoryRow};
use crate::profile::{Intent, Profile, SealedProfile};
use crate::report::ReportMark;
use crate::restored::Restored;
use crate::time::Timestamp;

pub use memory::{MemoryTables, MemoryTablesError};

/// A key of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InboxKey {
    /// A phone number or an email address.
    Identifier(IdentifierHash),
    /// A device.
    Device(DeviceId),
}

/// Counts of a box's queue, so that no read has to walk it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueState {
    /// The sequence given out last.
    pub last: Sequence,
    /// Envelopes in the queue.
    pub depth: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Envelopes that expired unread.
    pub expired_total: u64,
    /// Every envelope up to here has been purged: no scan has to begin before it.
    pub purged_upto: Sequence,
    /// How far the sweep for expired envelopes has come, while it is under way.
    pub swept_upto: Sequence,
}

/// A code on its way to the courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Names this sending.
    pub serial: u64,
    /// Identifier and code, sealed under the cluster's seal key.
    pub sealed: Bytes,
    /// When the code is no longer worth sending.
    pub expires_at: Timestamp,
}

/// What becomes due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DueKey {
    /// Some envelopes of this box may have expired, or wait to be purged.
    Queue(BoxId),
    /// A pending claim, its code and its outbox row.
    PendingClaim(IdentifierHash, BoxId),
    /// A code budget whose day is over.
    CodeBudget(IdentifierHash),
    /// A box that never was authorised.
    Intent(BoxId),
}

/// What the partition knows of itself: its one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The latest time that a command carried in. Never goes back.
    pub clock: Timestamp,
    /// Up to when mail may expire, and boxes that were never authorised: the latest time carried in
    /// by a command that allowed it. Never goes back, and is never later than `clock`.
    pub expiry_clock: Timestamp,
    /// The ownership epoch, if this group owns the partition.
    pub epoch: Option<Epoch>,
    /// The limits that apply enforces.
    pub limits: Limits,
    /// The last claim generation given out.
    pub last_generation: u64,
    /// The last serial of a code sending given out.
    pub last_serial: u64,
    /// When the state was restored from a backup, if it ever was.
    pub restored: Restored,
}

impl Meta {
    /// Gives out a claim generation.
    pub(crate) fn next_generation(&mut self) -> u64 {
        let last = self.last_generation.max(self.restored.floor());
        self.last_generation = last.saturating_add(1);
        self.last_generation
    }

    /// Gives out the serial of a code sending.
    pub(crate) fn next_serial(&mut self) -> u64 {
        let last = self.last_serial.max(self.restored.floor());
        self.last_serial = last.saturating_add(1);
        self.last_serial
    }

    /// The generation of the token that a device is given next. The first one is 1.
    pub(crate) fn token_after(&self, generation: u64) -> u64 {
        generation.max(self.restored.floor()).saturating_add(1)
    }

    /// The sequence up to which a box has given them out, or may have before it was restored.
    pub(crate) fn last_sequence(&self, state: &QueueState) -> Sequence {
        state.last.max(self.restored.sequence())
    }
}

/// Reading a partition's tables.
pub trait ReadTables {
    /// What can go wrong below: I/O or corruption. It stops the replica; it is never an answer.
    type Error;

    /// inbox: the claim of an identifier or device.
    fn claim(&self, key: &InboxKey) -> Result<Option<Claim>, Self::Error>;
    /// keys: the box's one current key record.
    fn key_record(&self, box_id: &BoxId) -> Result<Option<KeyRecord>, Self::Error>;
    /// profiles.
    fn profile(&self, box_id: &BoxId) -> Result<Option<Profile>, Self::Error>;
    /// queue: envelopes after `after`, in order, at most `max_envelopes`, stopping before the one
    /// that would take the bodies beyond `max_bytes` (but always at least one if there is one).
    fn envelopes(
        &self,
        box_id: &BoxId,
        after: Sequence,
        max_envelopes: u32,
        max_bytes: u64,
    ) -> Result<Vec<Envelope>, Self::Error>;
    /// queue state: `None` if nothing was ever enqueued.
    fn queue_state(&self, box_id: &BoxId) -> Result<Option<QueueState>, Self::Error>;
    /// dedupe: what the box remembers of one sender device.
    fn sender(
        &self,
        box_id: &BoxId,
        sender: &DeviceAddress,
    ) -> Result<Option<SenderRow>, Self::Error>;
    /// dedupe: what the box remembers of all devices of a sender box, in order of device.
    fn senders_of(
        &self,
        box_id: &BoxId,
        sender: &BoxId,
    ) -> Result<Vec<(DeviceId, SenderRow)>, Self::Error>;
    /// dedupe: the first senders that the box remembers something of, in order.
    fn senders(&self, box_id: &BoxId, limit: u32) -> Result<Vec<DeviceAddress>, Self::Error>;
    /// pending claims: one box's try at an identifier.
    fn pending_claim(
        &self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<Option<PendingClaim>, Self::Error>;
    /// pending claims: up to `limit` tries at an identifier.
    fn pending_claims(
        &self,
        identifier: &IdentifierHash,
        limit: u32,
    ) -> Result<Vec<(BoxId, PendingClaim)>, Self::Error>;
    /// code budgets.
    fn code_budget(&self, identifier: &IdentifierHash) -> Result<Option<CodeBudget>, Self::Error>;
    /// outbox: one row.
    fn outbox_row(
        &self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<Option<OutboxRow>, Self::Error>;
    /// outbox: the first rows after `after`'s, in order of key.
    fn outbox(
        &self,
        after: Option<&(IdentifierHash, BoxId)>,
        limit: u32,
    ) -> Result<Vec<(IdentifierHash, BoxId, OutboxRow)>, Self::Error>;
    /// intents: one row.
    fn intent(&self, box_id: &BoxId) -> Result<Option<Intent>, Self::Error>;
    /// intents: the first rows after `after`'s, in order of box.
    fn intents(
        &self,
        after: Option<&BoxId>,
        limit: u32,
    ) -> Result<Vec<(BoxId, Intent)>, Self::Error>;
    /// due: the first entries up to and including a time, in order.
    fn due(&self, upto: Timestamp, limit: u32) -> Result<Vec<(Timestamp, DueKey)>, Self::Error>;
    /// meta: the default if it was never put.
    fn meta(&self) -> Result<Meta, Self::Error>;
    /// map: `None` before the cluster was founded, and in all groups but the placement group.
    fn cluster_map(&self) -> Result<Option<ClusterMap>, Self::Error>;
    /// map history: the first changes that made a later version than `after`, in order.
    fn map_changes(&self, after: MapVersion, limit: u32)
    -> Result<Vec<MapHistoryRow>, Self::Error>;
    /// admissions: none if they were never put.
    fn admissions(&self) -> Result<Admissions, Self::Error>;
    /// reports: whether a box has this report.
    fn has_report(&self, box_id: &BoxId, mark: &ReportMark) -> Result<bool, Self::Error>;
    /// reports: how many a box has, up to `limit`.
    fn count_reports(&self, box_id: &BoxId, limit: u32) -> Result<u32, Self::Error>;
    /// reports: the first boxes after this one that have any, in order.
    fn reported(&self, after: Option<&BoxId>, limit: u32) -> Result<Vec<BoxId>, Self::Error>;
    /// sealed profiles.
    fn sealed_profile(&self, box_id: &BoxId) -> Result<Option<SealedProfile>, Self::Error>;
}

/// Changing a partition's tables.
pub trait Tables: ReadTables {
    /// inbox: adds a claim. The caller has seen that there is none; a table that finds one keeps it
    /// and reports its own error, since the replica's state is then not what it was taken for.
    fn insert_claim(&mut self, key: &InboxKey, claim: &Claim) -> Result<(), Self::Error>;
    /// inbox: removes a claim.
    fn delete_claim(&mut self, key: &InboxKey) -> Result<(), Self::Error>;
    /// keys: adds a box's key record (same rule as [`Self::insert_claim`]).
    fn insert_key_record(&mut self, box_id: &BoxId, record: &KeyRecord) -> Result<(), Self::Error>;
    /// keys: replaces a box's key record.
    fn update_key_record(&mut self, box_id: &BoxId, record: &KeyRecord) -> Result<(), Self::Error>;
    /// keys: removes the record of a box that never was authorised, or is deleted.
    fn delete_key_record(&mut self, box_id: &BoxId) -> Result<(), Self::Error>;
    /// profiles.
    fn put_profile(&mut self, box_id: &BoxId, profile: &Profile) -> Result<(), Self::Error>;
    /// profiles.
    fn delete_profile(&mut self, box_id: &BoxId) -> Result<(), Self::Error>;
    /// queue: adds an envelope after all others of the box.
    fn append_envelope(&mut self, box_id: &BoxId, envelope: &Envelope) -> Result<(), Self::Error>;
    /// queue: removes an envelope for good.
    fn purge_envelope(&mut self, box_id: &BoxId, sequence: Sequence) -> Result<(), Self::Error>;
    /// queue state.
    fn put_queue_state(&mut self, box_id: &BoxId, state: &QueueState) -> Result<(), Self::Error>;
    /// queue state: of a box that is deleted.
    fn delete_queue_state(&mut self, box_id: &BoxId) -> Result<(), Self::Error>;
    /// dedupe.
    fn put_sender(
        &mut self,
        box_id: &BoxId,
        sender: &DeviceAddress,
        row: &SenderRow,
    ) -> Result<(), Self::Error>;
    /// dedupe: of a box that is deleted.
    fn delete_sender(&mut self, box_id: &BoxId, sender: &DeviceAddress) -> Result<(), Self::Error>;
    /// pending claims.
    fn put_pending_claim(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
        claim: &PendingClaim,
    ) -> Result<(), Self::Error>;
    /// pending claims.
    fn delete_pending_claim(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<(), Self::Error>;
    /// code budgets.
    fn put_code_budget(
        &mut self,
        identifier: &IdentifierHash,
        budget: &CodeBudget,
    ) -> Result<(), Self::Error>;
    /// code budgets.
    fn delete_code_budget(&mut self, identifier: &IdentifierHash) -> Result<(), Self::Error>;
    /// outbox.
    fn put_outbox_row(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
        row: &OutboxRow,
    ) -> Result<(), Self::Error>;
    /// outbox.
    fn delete_outbox_row(
        &mut self,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<(), Self::Error>;
    /// intents.
    fn put_intent(&mut self, box_id: &BoxId, intent: &Intent) -> Result<(), Self::Error>;
    /// intents.
    fn delete_intent(&mut self, box_id: &BoxId) -> Result<(), Self::Error>;
    /// due: idempotent.
    fn add_due(&mut self, at: Timestamp, key: &DueKey) -> Result<(), Self::Error>;
    /// due: idempotent.
    fn remove_due(&mut self, at: Timestamp, key: &DueKey) -> Result<(), Self::Error>;
    /// meta.
    fn put_meta(&mut self, meta: &Meta) -> Result<(), Self::Error>;
    /// map.
    fn put_cluster_map(&mut self, map: &ClusterMap) -> Result<(), Self::Error>;
    /// map history: under the version that the change made, of which there is none yet.
    fn add_map_change(&mut self, row: &MapHistoryRow) -> Result<(), Self::Error>;
    /// map history.
    fn delete_map_change(&mut self, version: MapVersion) -> Result<(), Self::Error>;
    /// admissions.
    fn put_admissions(&mut self, admissions: &Admissions) -> Result<(), Self::Error>;
    /// reports: idempotent.
    fn add_report(&mut self, box_id: &BoxId, mark: &ReportMark) -> Result<(), Self::Error>;
    /// sealed profiles.
    fn put_sealed_profile(
        &mut self,
        box_id: &BoxId,
        profile: &SealedProfile,
    ) -> Result<(), Self::Error>;
    /// reports: removes up to `limit` of a box's; how many.
    fn delete_reports(&mut self, box_id: &BoxId, limit: u32) -> Result<u32, Self::Error>;
    /// sealed profiles.
    fn delete_sealed_profile(&mut self, box_id: &BoxId) -> Result<(), Self::Error>;
}
