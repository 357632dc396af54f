//! The keys of all tables, in one place.
//!
//! A partition's rows are ordered by `table u8 | key`. In the base, which holds all partitions of a
//! node, `group u32 | partition u16` stands in front. Numbers are big-endian, so that bytes sort as
//! the numbers do. The tables are those of `domain/src/tables/mod.rs`:
//!
//! | prefix | table | key |
//! |---|---|---|
//! | 1 | inbox | 1, identifier hash (32) or 2, device (16) |
//! | 2 | keys | box (16) |
//! | 3 | profiles | box (16) |
//! | 4 | queue | box (16), sequence u64 |
//! | 5 | queue state | box (16) |
//! | 6 | dedupe | box (16), sender box (16), sender device (16) |
//! | 7 | pending claims | identifier hash (32), box (16) |
//! | 8 | code budgets | identifier hash (32) |
//! | 9 | outbox | identifier hash (32), box (16) |
//! | 10 | intents | box (16) |
//! | 11 | due | time u64, kind u8, box and/or identifier hash |
//! | 12 | meta | |
//! | 13 | map | |
//! | 14 | map history | version u64 |
//! | 15 | admissions | |
//! | 16 | reports | box (16), mark (16) |
//! | 17 | sealed profiles | box (16) |
//!
//! Keys are never reused for another meaning: a new table gets a new prefix.

use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{
    BoxId, DeviceAddress, DeviceId, GroupId, MapVersion, PartitionId, Sequence,
};
use rossby_domain::report::ReportMark;
use rossby_domain::tables::{DueKey, InboxKey};
use rossby_domain::time::Timestamp;

/// The bytes of an envelope's key, without the table's prefix: box and sequence.
pub(crate) const ENVELOPE_KEY_BYTES: usize = 24;
/// An envelope's key, without the table's prefix.
pub(crate) type EnvelopeKey = [u8; ENVELOPE_KEY_BYTES];

/// The bytes in front of a partition's rows in the base.
pub(crate) const PARTITION_PREFIX_BYTES: usize = 6;

/// A table's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    /// Directory: identifier or device -> claim.
    Inbox = 1,
    /// Box -> key record.
    Keys = 2,
    /// Box -> profile.
    Profiles = 3,
    /// Box, sequence -> envelope.
    Queue = 4,
    /// Box -> counts of its queue.
    QueueState = 5,
    /// Box, sender -> what the box remembers of the sender.
    Dedupe = 6,
    /// Identifier, box -> pending claim.
    PendingClaims = 7,
    /// Identifier -> codes sent.
    CodeBudgets = 8,
    /// Identifier, box -> code on its way.
    Outbox = 9,
    /// Box -> half-done registration.
    Intents = 10,
    /// Time, what -> nothing.
    Due = 11,
    /// The partition's one row.
    Meta = 12,
    /// The cluster map: one row.
    Map = 13,
    /// Version -> the change that made it.
    MapHistory = 14,
    /// Who may join the cluster: one row.
    Admissions = 15,
    /// Box, report -> nothing.
    Reports = 16,
    /// Box -> what its owner shows, sealed.
    SealedProfiles = 17,
}

impl Table {
    /// The table whose rows begin with this byte.
    pub(crate) fn of_prefix(prefix: u8) -> Option<Self> {
        let all = [
            Self::Inbox,
            Self::Keys,
            Self::Profiles,
            Self::Queue,
            Self::QueueState,
            Self::Dedupe,
            Self::PendingClaims,
            Self::CodeBudgets,
            Self::Outbox,
            Self::Intents,
            Self::Due,
            Self::Meta,
            Self::Map,
            Self::MapHistory,
            Self::Admissions,
            Self::Reports,
            Self::SealedProfiles,
        ];
        all.into_iter().find(|table| *table as u8 == prefix)
    }

    /// Its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Keys => "keys",
            Self::Profiles => "profiles",
            Self::Queue => "queue",
            Self::QueueState => "queue state",
            Self::Dedupe => "dedupe",
            Self::PendingClaims => "pending claims",
            Self::CodeBudgets => "code budgets",
            Self::Outbox => "outbox",
            Self::Intents => "intents",
            Self::Due => "due",
            Self::Meta => "meta",
            Self::Map => "map",
            Self::MapHistory => "map history",
            Self::Admissions => "admissions",
            Self::Reports => "reports",
            Self::SealedProfiles => "sealed profiles",
        }
    }

    /// A key of this table, from its parts in order.
    fn key(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        key.push(self as u8);
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }
}

/// Keys from `start` up to but not including `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl KeyRange {
    /// What of it is within another; `None` if nothing is.
    pub(crate) fn within(&self, other: &Self) -> Option<Self> {
        let start = self.start.as_slice().max(&other.start);
        let end = self.end.as_slice().min(&other.end);
        (start < end).then(|| Self {
            start: start.to_vec(),
            end: end.to_vec(),
        })
    }

    /// All keys that begin so. A prefix of nothing but 0xff has no end; no table's keys are such.
    pub(crate) fn of_prefix(prefix: Vec<u8>) -> Self {
        let end = after_prefix(&prefix);
        Self { start: prefix, end }
    }

    /// All rows of a partition.
    pub(crate) fn everything() -> Self {
        Self {
            start: vec![0],
            end: vec![0xff],
        }
    }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

pub(crate) fn inbox(key: &InboxKey) -> Vec<u8> {
    match key {
        InboxKey::Identifier(hash) => Table::Inbox.key(&[&[1], hash.as_bytes()]),
        InboxKey::Device(device) => Table::Inbox.key(&[&[2], device.as_bytes()]),
    }
}

pub(crate) fn of_box(table: Table, box_id: &BoxId) -> Vec<u8> {
    table.key(&[box_id.as_bytes()])
}

/// The rows, in a table by box, of the boxes after `after`.
pub(crate) fn boxes_after(table: Table, after: Option<&BoxId>) -> KeyRange {
    let mut range = whole(table);
    if let Some(after) = after {
        // No key lies between a box's and the same with a zero behind it.
        range.start = of_box(table, after);
        range.start.push(0);
    }
    range
}

/// The rows, in a table by identifier and box, after those of `after`.
pub(crate) fn tries_after(table: Table, after: Option<&(IdentifierHash, BoxId)>) -> KeyRange {
    let mut range = whole(table);
    if let Some((identifier, box_id)) = after {
        range.start = of_try(table, identifier, box_id);
        range.start.push(0);
    }
    range
}

pub(crate) fn queue(box_id: &BoxId, sequence: Sequence) -> Vec<u8> {
    Table::Queue.key(&[box_id.as_bytes(), &sequence.0.to_be_bytes()])
}

/// The envelopes of a box after a sequence; `None` if there can be none.
pub(crate) fn queue_after(box_id: &BoxId, after: Sequence) -> Option<KeyRange> {
    let first = after.0.checked_add(1)?;
    let end = after_prefix(&of_box(Table::Queue, box_id));
    Some(KeyRange {
        start: queue(box_id, Sequence(first)),
        end,
    })
}

/// The envelope's key in a row's key; `None` for another table's row.
///
/// # Errors
/// The key begins as that of an envelope does, and does not go on so.
pub(crate) fn envelope_key(
    key: &[u8],
) -> Result<Option<EnvelopeKey>, std::array::TryFromSliceError> {
    match key.strip_prefix(&[Table::Queue as u8]) {
        Some(rest) => rest.try_into().map(Some),
        None => Ok(None),
    }
}

/// Whether a row, by its key, is an envelope.
pub(crate) fn is_envelope(key: &[u8]) -> bool {
    key.first() == Some(&(Table::Queue as u8))
}

/// The row's key of an envelope's.
pub(crate) fn envelope_row(key: &EnvelopeKey) -> Vec<u8> {
    Table::Queue.key(&[key])
}

/// Whether two envelopes are of the same box.
pub(crate) fn same_box(a: &EnvelopeKey, b: &EnvelopeKey) -> bool {
    a.first_chunk::<16>() == b.first_chunk::<16>()
}

pub(crate) fn dedupe(box_id: &BoxId, sender: &DeviceAddress) -> Vec<u8> {
    let sender_box = sender.box_id.as_bytes();
    Table::Dedupe.key(&[box_id.as_bytes(), sender_box, sender.device.as_bytes()])
}

pub(crate) fn dedupe_of_sender(box_id: &BoxId, sender: &BoxId) -> KeyRange {
    KeyRange::of_prefix(Table::Dedupe.key(&[box_id.as_bytes(), sender.as_bytes()]))
}

pub(crate) fn dedupe_of_box(box_id: &BoxId) -> KeyRange {
    KeyRange::of_prefix(of_box(Table::Dedupe, box_id))
}

pub(crate) fn of_identifier(table: Table, identifier: &IdentifierHash) -> Vec<u8> {
    table.key(&[identifier.as_bytes()])
}

pub(crate) fn of_try(table: Table, identifier: &IdentifierHash, box_id: &BoxId) -> Vec<u8> {
    table.key(&[identifier.as_bytes(), box_id.as_bytes()])
}

pub(crate) fn due(at: Timestamp, key: &DueKey) -> Vec<u8> {
    let time = at.as_millis().to_be_bytes();
    match key {
        DueKey::Queue(box_id) => Table::Due.key(&[&time, &[1], box_id.as_bytes()]),
        DueKey::PendingClaim(identifier, box_id) => {
            Table::Due.key(&[&time, &[2], identifier.as_bytes(), box_id.as_bytes()])
        }
        DueKey::CodeBudget(identifier) => Table::Due.key(&[&time, &[3], identifier.as_bytes()]),
        DueKey::Intent(box_id) => Table::Due.key(&[&time, &[4], box_id.as_bytes()]),
    }
}

/// What is due up to and including a time.
pub(crate) fn due_upto(upto: Timestamp) -> KeyRange {
    let start = Table::Due.key(&[]);
    let end = match upto.as_millis().checked_add(1) {
        Some(after) => Table::Due.key(&[&after.to_be_bytes()]),
        None => after_prefix(&start),
    };
    KeyRange { start, end }
}

pub(crate) fn whole(table: Table) -> KeyRange {
    KeyRange::of_prefix(table.key(&[]))
}

pub(crate) fn meta() -> Vec<u8> {
    Table::Meta.key(&[])
}

pub(crate) fn map() -> Vec<u8> {
    Table::Map.key(&[])
}

pub(crate) fn admissions() -> Vec<u8> {
    Table::Admissions.key(&[])
}

pub(crate) fn report(box_id: &BoxId, mark: &ReportMark) -> Vec<u8> {
    Table::Reports.key(&[box_id.as_bytes(), &mark.0])
}

pub(crate) fn reports_of(box_id: &BoxId) -> KeyRange {
    KeyRange::of_prefix(of_box(Table::Reports, box_id))
}

/// The reports of all boxes after this one.
pub(crate) fn reports_after(after: Option<&BoxId>) -> KeyRange {
    let mut range = whole(Table::Reports);
    if let Some(after) = after {
        range.start = reports_of(after).end;
    }
    range
}

pub(crate) fn map_change(version: MapVersion) -> Vec<u8> {
    Table::MapHistory.key(&[&version.0.to_be_bytes()])
}

/// The changes that made later versions than this; `None` if there can be none.
pub(crate) fn map_changes_after(after: MapVersion) -> Option<KeyRange> {
    let first = after.0.checked_add(1)?;
    let end = whole(Table::MapHistory).end;
    Some(KeyRange {
        start: map_change(MapVersion(first)),
        end,
    })
}

/// Reads the parts of a key. `None` everywhere means: not a key of that table.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn of(table: Table, key: &'a [u8]) -> Option<Self> {
        key.split_first()
            .filter(|(prefix, _)| **prefix == table as u8)
            .map(|(_, rest)| Self(rest))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn box_id(&mut self) -> Option<BoxId> {
        BoxId::from_bytes(self.take()?).ok()
    }

    fn identifier(&mut self) -> Option<IdentifierHash> {
        self.take().map(IdentifierHash::from_bytes)
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

pub(crate) fn box_of(table: Table, key: &[u8]) -> Option<BoxId> {
    let mut parts = Parts::of(table, key)?;
    let box_id = parts.box_id()?;
    parts.end(box_id)
}

pub(crate) fn try_of(table: Table, key: &[u8]) -> Option<(IdentifierHash, BoxId)> {
    let mut parts = Parts::of(table, key)?;
    let value = (parts.identifier()?, parts.box_id()?);
    parts.end(value)
}

pub(crate) fn sender_of(key: &[u8]) -> Option<DeviceAddress> {
    let mut parts = Parts::of(Table::Dedupe, key)?;
    let (_box_id, box_id) = (parts.box_id()?, parts.box_id()?);
    let device = DeviceId::from_bytes(parts.take()?);
    parts.end(DeviceAddress { box_id, device })
}

pub(crate) fn due_of(key: &[u8]) -> Option<(Timestamp, DueKey)> {
    let mut parts = Parts::of(Table::Due, key)?;
    let at = Timestamp::from_millis(u64::from_be_bytes(parts.take()?));
    let key = match parts.take()? {
        [1] => DueKey::Queue(parts.box_id()?),
        [2] => DueKey::PendingClaim(parts.identifier()?, parts.box_id()?),
        [3] => DueKey::CodeBudget(parts.identifier()?),
        [4] => DueKey::Intent(parts.box_id()?),
        _ => return None,
    };
    parts.end((at, key))
}

pub(crate) fn report_of(key: &[u8]) -> Option<(BoxId, ReportMark)> {
    let mut parts = Parts::of(Table::Reports, key)?;
    let value = (parts.box_id()?, ReportMark(parts.take()?));
    parts.end(value)
}

/// What stands in front of a partition's rows in the base.
pub(crate) fn partition_prefix(
    group: GroupId,
    partition: PartitionId,
) -> [u8; PARTITION_PREFIX_BYTES] {
    let [a, b, c, d] = group.0.to_be_bytes();
    let [e, f] = partition.number().to_be_bytes();
    [a, b, c, d, e, f]
}

/// All rows of a group in the base, its index row included.
pub(crate) fn group_range(group: GroupId) -> KeyRange {
    KeyRange::of_prefix(group.0.to_be_bytes().to_vec())
}

/// The row that says which checkpoint the base holds of a group. It sorts after all partitions,
/// whose numbers stop at 4095.
pub(crate) fn group_index(group: GroupId) -> Vec<u8> {
    let mut key = group.0.to_be_bytes().to_vec();
    key.extend_from_slice(&[0xff, 0xff, 0]);
    key
}

/// The row that ties the base to the session that wrote it last. No group has the number u32::MAX.
pub(crate) fn session() -> Vec<u8> {
    vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn box_id() -> impl Strategy<Value = BoxId> {
        (0..4096_u16, any::<[u8; 32]>()).prop_map(|(partition, hash)| {
            BoxId::derive(PartitionId::new(partition).unwrap(), &hash)
        })
    }

    fn identifier() -> impl Strategy<Value = IdentifierHash> {
        any::<[u8; 32]>().prop_map(IdentifierHash::from_bytes)
    }

    fn due_key() -> impl Strategy<Value = DueKey> {
        prop_oneof![
            box_id().prop_map(DueKey::Queue),
            (identifier(), box_id()).prop_map(|(hash, id)| DueKey::PendingClaim(hash, id)),
            identifier().prop_map(DueKey::CodeBudget),
            box_id().prop_map(DueKey::Intent),
        ]
    }

    proptest! {
        #[test]
        fn due_keys_come_back_and_sort_by_time(
            a in (any::<u64>(), due_key()),
            b in (any::<u64>(), due_key()),
        ) {
            let [(at, first), (bt, second)] = [a, b].map(|(t, k)| (Timestamp::from_millis(t), k));
            prop_assert_eq!(due_of(&due(at, &first)), Some((at, first)));
            let order = due(at, &first).cmp(&due(bt, &second));
            prop_assert_eq!(order, (at, first).cmp(&(bt, second)));
            let range = due_upto(at);
            let within = due(bt, &second) >= range.start && due(bt, &second) < range.end;
            prop_assert_eq!(within, bt <= at);
        }

        #[test]
        fn queue_ranges_hold_what_comes_after(id in box_id(), after: u64, sequence: u64) {
            let key = queue(&id, Sequence(sequence));
            let within = queue_after(&id, Sequence(after))
                .is_some_and(|range| range.start <= key && key < range.end);
            prop_assert_eq!(within, sequence > after);
        }

        #[test]
        fn dedupe_ranges_hold_one_sender_box(id in box_id(), a in box_id(), b in box_id(), device: [u8; 16]) {
            let device = DeviceId::from_bytes(device);
            let range = dedupe_of_sender(&id, &a);
            for other in [a, b] {
                let key = dedupe(&id, &DeviceAddress { box_id: other, device });
                prop_assert_eq!(range.start <= key && key < range.end, other == a);
                let all = dedupe_of_box(&id);
                prop_assert!(all.start <= key && key < all.end);
                let address = DeviceAddress { box_id: other, device };
                prop_assert_eq!(sender_of(&key), Some(address));
            }
        }

        #[test]
        fn try_keys_come_back(hash in identifier(), id in box_id()) {
            prop_assert_eq!(try_of(Table::Outbox, &of_try(Table::Outbox, &hash, &id)), Some((hash, id)));
            prop_assert_eq!(try_of(Table::Intents, &of_try(Table::Outbox, &hash, &id)), None);
            prop_assert_eq!(box_of(Table::Intents, &of_box(Table::Intents, &id)), Some(id));
        }

        #[test]
        fn random_bytes_are_no_key_or_a_canonical_one(mut key in any::<Vec<u8>>()) {
            if let Some(prefix) = key.first_mut() {
                *prefix = Table::Due as u8;
            }
            if let Some((at, what)) = due_of(&key) {
                prop_assert_eq!(due(at, &what), key);
            }
        }
    }

    #[test]
    fn the_index_row_sorts_after_all_partitions_and_within_its_group() {
        let last = partition_prefix(GroupId(9), PartitionId::new(4095).unwrap());
        let index = group_index(GroupId(9));
        assert!(index.as_slice() > last.as_slice());
        let range = group_range(GroupId(9));
        assert!(range.start <= index && index < range.end);
        assert!(group_range(GroupId(10)).start >= range.end);
    }
}
