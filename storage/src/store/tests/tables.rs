//! A partition's view must behave as `MemoryTables` does, wherever its rows happen to be.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use rossby_domain::claim::{Claim, CodeBudget, CodeMac, Delivery, PendingClaim};
use rossby_domain::contest::Contest;
use rossby_domain::dedupe::SenderRow;
use rossby_domain::envelope::Envelope;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, GroupId, MapVersion, PartitionId, Sequence,
};
use rossby_domain::placement::{
    Admissions, ClusterMap, MapHistoryRow, TokenDigest, TokenRegion, TokenWanted,
};
use rossby_domain::profile::{Intent, Profile, SealedProfile};
use rossby_domain::report::ReportMark;
use rossby_domain::tables::{
    DueKey, InboxKey, MemoryTables, Meta, OutboxRow, QueueState, ReadTables, Tables,
};
use rossby_domain::time::Timestamp;
use rossby_seams::base::{Base, MemoryBase};
use rossby_seams::disk::MemoryDisk;

use super::cases;
use super::world::founding;
use crate::store::base_rows::BaseHandle;
use crate::store::cut::write_partition;
use crate::store::envelopes::StoredEnvelopes;
use crate::store::files::{FileName, GroupFiles, Pin};
use crate::store::layer::{Gauge, Layer};
use crate::store::manifest::PartitionFiles;
use crate::store::partition::Partition;
use crate::store::rows::{Table, is_envelope, whole};

const KINDS: u8 = 3;

fn box_id(number: u8) -> BoxId {
    BoxId::derive(partition_id(), &[number; 32])
}

fn partition_id() -> PartitionId {
    PartitionId::new(5).unwrap()
}

fn address(number: u8) -> DeviceAddress {
    DeviceAddress {
        box_id: box_id(number % 2),
        device: DeviceId::from_bytes([number; 16]),
    }
}

fn identifier(number: u8) -> IdentifierHash {
    IdentifierHash::from_bytes([number; 32])
}

fn inbox_key(number: u8) -> InboxKey {
    match number % 2 {
        0 => InboxKey::Identifier(identifier(number)),
        _ => InboxKey::Device(DeviceId::from_bytes([number; 16])),
    }
}

fn due_key(number: u8) -> DueKey {
    match number % 4 {
        0 => DueKey::Queue(box_id(number)),
        1 => DueKey::PendingClaim(identifier(number), box_id(number)),
        2 => DueKey::CodeBudget(identifier(number)),
        _ => DueKey::Intent(box_id(number)),
    }
}

fn at(number: u8) -> Timestamp {
    Timestamp::from_millis(u64::from(number) * 1000)
}

/// A change of the tables, or of where the rows are. Keys come from a few, values from a number.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim(u8, u8),
    DropClaim(u8),
    Profile(u8, u8),
    DropProfile(u8),
    Append(u8, u8),
    Purge(u8, u8),
    QueueState(u8, u8),
    DropQueueState(u8),
    Sender(u8, u8, u8),
    DropSender(u8, u8),
    Pending(u8, u8, u8),
    DropPending(u8, u8),
    Budget(u8, u8),
    DropBudget(u8),
    Outbox(u8, u8, u8),
    DropOutbox(u8, u8),
    Intent(u8, u8),
    DropIntent(u8),
    Due(u8, u8),
    DropDue(u8, u8),
    Meta(u8),
    Map(u8),
    MapChange(u8, u8),
    DropMapChange(u8),
    Admissions(u8),
    Report(u8, u8),
    SealedProfile(u8, u8),
    Unreport(u8, u32),
    DropSealedProfile(u8),
    Freeze,
    Settle,
    Thaw,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KINDS;
    let value = any::<u8>();
    let one = (key.clone(), value);
    let two = (key.clone(), key.clone(), value);
    let pair = (key.clone(), key.clone());
    prop_oneof![
        1 => one.clone().prop_map(|(a, v)| Step::Claim(a, v)),
        1 => key.clone().prop_map(Step::DropClaim),
        1 => one.clone().prop_map(|(a, v)| Step::Profile(a, v)),
        1 => key.clone().prop_map(Step::DropProfile),
        4 => one.clone().prop_map(|(a, v)| Step::Append(a, v)),
        4 => (key.clone(), 0..12_u8).prop_map(|(a, s)| Step::Purge(a, s)),
        1 => one.clone().prop_map(|(a, v)| Step::QueueState(a, v)),
        1 => key.clone().prop_map(Step::DropQueueState),
        2 => two.clone().prop_map(|(a, b, v)| Step::Sender(a, b, v)),
        1 => pair.clone().prop_map(|(a, b)| Step::DropSender(a, b)),
        1 => two.clone().prop_map(|(a, b, v)| Step::Pending(a, b, v)),
        1 => pair.clone().prop_map(|(a, b)| Step::DropPending(a, b)),
        1 => one.clone().prop_map(|(a, v)| Step::Budget(a, v)),
        1 => key.clone().prop_map(Step::DropBudget),
        1 => two.prop_map(|(a, b, v)| Step::Outbox(a, b, v)),
        1 => pair.clone().prop_map(|(a, b)| Step::DropOutbox(a, b)),
        1 => one.clone().prop_map(|(a, v)| Step::Intent(a, v)),
        1 => key.clone().prop_map(Step::DropIntent),
        2 => pair.clone().prop_map(|(a, b)| Step::Due(a, b)),
        2 => pair.prop_map(|(a, b)| Step::DropDue(a, b)),
        1 => one.clone().prop_map(|(_, v)| Step::Meta(v)),
        1 => one.clone().prop_map(|(_, v)| Step::Map(v)),
        2 => one.clone().prop_map(|(a, v)| Step::MapChange(a, v)),
        1 => one.prop_map(|(a, v)| Step::SealedProfile(a, v)),
        1 => key.clone().prop_map(Step::DropSealedProfile),
        1 => key.prop_map(Step::DropMapChange),
        1 => any::<u8>().prop_map(Step::Admissions),
        2 => (0..KINDS, 0..3_u8).prop_map(|(a, v)| Step::Report(a, v)),
        1 => (0..KINDS, 0..3_u32).prop_map(|(a, limit)| Step::Unreport(a, limit)),
        3 => Just(Step::Freeze),
        2 => Just(Step::Settle),
        2 => Just(Step::Thaw),
    ]
}

/// Does a step on tables; `sequences` are those given out last, per box.
fn run<T: Tables<Error: std::fmt::Debug>>(tables: &mut T, sequences: &[u64], step: Step) {
    let done = match step {
        Step::Claim(a, v) => match tables.claim(&inbox_key(a)).unwrap() {
            Some(_) => Ok(()),
            None => tables.insert_claim(&inbox_key(a), &claim(v)),
        },
        Step::DropClaim(a) => tables.delete_claim(&inbox_key(a)),
        Step::Profile(a, v) => tables.put_profile(&box_id(a), &profile(v)),
        Step::DropProfile(a) => tables.delete_profile(&box_id(a)),
        Step::Append(a, v) => {
            tables.append_envelope(&box_id(a), &envelope(sequences[usize::from(a)], v))
        }
        Step::Purge(a, s) => {
            let sequence = sequences[usize::from(a)].min(s.into());
            tables.purge_envelope(&box_id(a), Sequence(sequence))
        }
        Step::QueueState(a, v) => {
            let state = QueueState {
                depth: v.into(),
                ..QueueState::default()
            };
            tables.put_queue_state(&box_id(a), &state)
        }
        Step::Sender(a, b, v) => {
            let row = SenderRow {
                waiting: v.into(),
                ..SenderRow::default()
            };
            tables.put_sender(&box_id(a), &address(b), &row)
        }
        Step::DropQueueState(a) => tables.delete_queue_state(&box_id(a)),
        Step::DropSender(a, b) => tables.delete_sender(&box_id(a), &address(b)),
        Step::Pending(a, b, v) => tables.put_pending_claim(&identifier(a), &box_id(b), &pending(v)),
        Step::DropPending(a, b) => tables.delete_pending_claim(&identifier(a), &box_id(b)),
        Step::Budget(a, v) => tables.put_code_budget(&identifier(a), &budget(v)),
        Step::DropBudget(a) => tables.delete_code_budget(&identifier(a)),
        Step::Outbox(a, b, v) => tables.put_outbox_row(&identifier(a), &box_id(b), &outbox(v)),
        Step::DropOutbox(a, b) => tables.delete_outbox_row(&identifier(a), &box_id(b)),
        Step::Intent(a, v) => tables.put_intent(&box_id(a), &intent(v)),
        Step::DropIntent(a) => tables.delete_intent(&box_id(a)),
        Step::Due(t, k) => tables.add_due(at(t), &due_key(k)),
        Step::DropDue(t, k) => tables.remove_due(at(t), &due_key(k)),
        Step::Meta(v) => tables.put_meta(&Meta {
            clock: at(v),
            ..Meta::default()
        }),
        Step::Map(v) => tables.put_cluster_map(&cluster_map(v)),
        Step::MapChange(a, v) => {
            let row = map_change(a, v);
            let before = MapVersion(row.version.0 - 1);
            let known = tables.map_changes(before, 1).unwrap();
            match known
                .first()
                .is_some_and(|known| known.version == row.version)
            {
                true => Ok(()),
                false => tables.add_map_change(&row),
            }
        }
        Step::DropMapChange(a) => tables.delete_map_change(map_change(a, 0).version),
        Step::Admissions(v) => tables.put_admissions(&admissions(v)),
        Step::Report(a, v) => tables.add_report(&box_id(a), &ReportMark([v; 16])),
        Step::SealedProfile(a, v) => {
            let sealed = Bytes::from(vec![v; usize::from(v)]);
            let version = v.into();
            tables.put_sealed_profile(&box_id(a), &SealedProfile { version, sealed })
        }
        Step::Unreport(a, limit) => tables.delete_reports(&box_id(a), limit).map(drop),
        Step::DropSealedProfile(a) => tables.delete_sealed_profile(&box_id(a)),
        Step::Freeze | Step::Settle | Step::Thaw => Ok(()),
    };
    done.unwrap();
}

fn claim(v: u8) -> Claim {
    Claim {
        box_id: box_id(v),
        generation: v.into(),
        discoverable: true,
        code: None,
        contest: Contest::default(),
    }
}

fn profile(v: u8) -> Profile {
    Profile {
        blocked: [box_id(v)].into(),
        ..Profile::default()
    }
}

fn envelope(sequence: u64, v: u8) -> Envelope {
    Envelope {
        sequence: Sequence(sequence),
        id: EnvelopeId {
            sender: address(v),
            counter: Counter(sequence),
        },
        enqueued_at: at(v),
        expires_at: at(v),
        body: Bytes::from(vec![v; 10]),
    }
}

fn pending(v: u8) -> PendingClaim {
    PendingClaim {
        code: CodeMac([v; 32]),
        serial: v.into(),
        discoverable: false,
        attempts_left: v,
        expires_at: at(v),
        delivery: [Delivery::Normal, Delivery::Delayed, Delivery::Failed][usize::from(v) % 3],
    }
}

fn budget(v: u8) -> CodeBudget {
    CodeBudget {
        day_start: at(v),
        sent_today: v.into(),
        next_at: at(v),
    }
}

fn outbox(v: u8) -> OutboxRow {
    OutboxRow {
        serial: v.into(),
        sealed: Bytes::from(vec![v; 3]),
        expires_at: at(v),
    }
}

fn intent(v: u8) -> Intent {
    Intent {
        device: DeviceId::from_bytes([v; 16]),
        expires_at: at(v),
    }
}

fn cluster_map(v: u8) -> ClusterMap {
    ClusterMap::default().after(&founding(v)).unwrap()
}

fn admissions(v: u8) -> Admissions {
    let mut admissions = Admissions::default();
    let wanted = TokenWanted {
        node: None,
        region: TokenRegion::Any,
        valid_for_ms: 60_000,
    };
    let issued = admissions.issue(&cluster_map(v), TokenDigest([v; 32]), &wanted, at(v));
    issued.unwrap();
    admissions
}

fn map_change(a: u8, v: u8) -> MapHistoryRow {
    MapHistoryRow {
        version: MapVersion(u64::from(a) * 255 + 1),
        at: at(v),
        change: founding(v),
    }
}

/// All that the tables show, through every reading method.
fn shown<T: ReadTables<Error: std::fmt::Debug>>(tables: &T) -> Vec<String> {
    let mut all = Vec::new();
    for a in 0..KINDS {
        all.push(format!("{:?}", tables.claim(&inbox_key(a)).unwrap()));
        all.push(format!("{:?}", tables.key_record(&box_id(a)).unwrap()));
        all.push(format!("{:?}", tables.profile(&box_id(a)).unwrap()));
        all.push(format!("{:?}", tables.queue_state(&box_id(a)).unwrap()));
        all.push(format!("{:?}", tables.code_budget(&identifier(a)).unwrap()));
        all.push(format!("{:?}", tables.intent(&box_id(a)).unwrap()));
        for (after, count, bytes) in [
            (0, 100, u64::MAX),
            (3, 2, u64::MAX),
            (1, 100, 25),
            (2, 9, 0),
        ] {
            let page = tables.envelopes(&box_id(a), Sequence(after), count, bytes);
            all.push(format!("{:?}", page.unwrap()));
        }
        for limit in [1, 100] {
            all.push(format!(
                "{:?}",
                tables.pending_claims(&identifier(a), limit).unwrap()
            ));
            all.push(format!("{:?}", tables.due(at(a), limit).unwrap()));
            let senders = tables.senders(&box_id(a), limit).unwrap();
            all.push(format!("{senders:?}"));
        }
        for b in 0..KINDS {
            all.push(format!(
                "{:?}",
                tables.sender(&box_id(a), &address(b)).unwrap()
            ));
            all.push(format!(
                "{:?}",
                tables.senders_of(&box_id(a), &box_id(b)).unwrap()
            ));
            all.push(format!(
                "{:?}",
                tables.pending_claim(&identifier(a), &box_id(b)).unwrap()
            ));
            all.push(format!(
                "{:?}",
                tables.outbox_row(&identifier(a), &box_id(b)).unwrap()
            ));
        }
    }
    for limit in [0, 2, 100] {
        for after in [None, Some(&(identifier(1), box_id(1)))] {
            all.push(format!("{:?}", tables.outbox(after, limit).unwrap()));
        }
        for a in 0..KINDS {
            let count = tables.count_reports(&box_id(a), limit).unwrap();
            let has_one = tables.has_report(&box_id(a), &ReportMark([1; 16]));
            all.push(format!("{count} {}", has_one.unwrap()));
        }
        for after in [None, Some(&box_id(0)), Some(&box_id(KINDS))] {
            all.push(format!("{:?}", tables.reported(after, limit).unwrap()));
            all.push(format!("{:?}", tables.intents(after, limit).unwrap()));
        }
    }
    all.push(format!("{:?}", tables.meta().unwrap()));
    all.push(format!("{:?}", tables.cluster_map().unwrap()));
    all.push(format!("{:?}", tables.admissions().unwrap()));
    for a in 0..KINDS {
        all.push(format!("{:?}", tables.sealed_profile(&box_id(a)).unwrap()));
    }
    for (after, limit) in [(0, 0), (0, 2), (0, 100), (1, 100), (u64::MAX, 100)] {
        let rows = tables.map_changes(MapVersion(after), limit);
        all.push(format!("{:?}", rows.unwrap()));
    }
    all
}

/// A partition over a base and files in memory, and the freeze that is under way.
struct Rows {
    base: Arc<MemoryBase>,
    files: Arc<GroupFiles>,
    stored: Option<PartitionFiles>,
    pins: Vec<Pin>,
    partition: Partition,
    frozen: Option<Arc<Layer>>,
}

impl Rows {
    fn new() -> Self {
        let base = Arc::new(MemoryBase::default());
        let handle = BaseHandle::new(Arc::clone(&base) as Arc<dyn Base>);
        let rows = handle.partition(GroupId(1), partition_id());
        let none = StoredEnvelopes::default();
        let partition = Partition::new(partition_id(), rows, none, Gauge::default());
        let disk = Arc::new(MemoryDisk::default());
        Self {
            base,
            files: GroupFiles::open(disk, Path::new("/c"), GroupId(1)).unwrap(),
            stored: None,
            pins: Vec::new(),
            partition,
            frozen: None,
        }
    }

    fn freeze(&mut self) {
        if self.frozen.is_none() {
            self.frozen = self.partition.freeze();
        }
    }

    /// Moves the frozen layer down; what is shown must not change half-way.
    fn settle(&mut self, check: impl Fn(&Self)) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        let (stored, pins) = (self.stored.take(), &mut self.pins);
        self.stored = write_partition(&self.files, partition_id(), stored, &frozen, pins).unwrap();
        let rows = frozen.iter().count();
        let mut writer = self.partition.base.writer();
        for (number, (key, slot)) in frozen.iter().enumerate() {
            if !is_envelope(key) {
                writer.push(key, slot.value().map(Bytes::as_ref)).unwrap();
            }
            if number == rows / 2 {
                writer.flush().unwrap();
                check(self);
            }
        }
        writer.flush().unwrap();
        let pin = |name: &FileName| self.pins.iter().find(|pin| pin.name() == name).cloned();
        let envelopes = self.stored.as_ref().map(|stored| {
            let before = self.partition.envelopes();
            before.next(stored, pin).unwrap()
        });
        self.partition
            .settle(&frozen, envelopes.unwrap_or_default());
    }

    /// What was known of rows is forgotten.
    fn restart(&mut self) {
        let (base, gauge) = (self.partition.base.clone(), Gauge::default());
        let pin = |name: &FileName| self.pins.iter().find(|pin| pin.name() == name).cloned();
        let none = StoredEnvelopes::default();
        let stored = self
            .stored
            .as_ref()
            .map(|stored| none.next(stored, pin).unwrap());
        let stored = stored.unwrap_or_default();
        self.partition = Partition::new(partition_id(), base, stored, gauge);
    }

    fn thaw(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            self.partition.thaw(&frozen);
        }
    }

    /// Rows in the base, and envelopes in files.
    fn stored_rows(&self) -> usize {
        let envelopes = self.partition.envelopes();
        let queue = whole(Table::Queue);
        let mut envelopes = envelopes.rows(&queue).unwrap();
        let mut rows = self.base.range(&[0], &[0xff; 8], usize::MAX).unwrap().len();
        while envelopes.next().unwrap().is_some() {
            rows += 1;
        }
        rows
    }

    fn visible_rows(&self) -> usize {
        let mut rows = 0;
        self.partition.read().for_each(|_, _| rows += 1).unwrap();
        rows
    }
}

/// Steps on one row of two tables, so that it goes through all that can happen to a row.
fn dense_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(|v| Step::Profile(0, v)),
        3 => Just(Step::DropProfile(0)),
        1 => Just(Step::Due(0, 0)),
        1 => Just(Step::DropDue(0, 0)),
        3 => Just(Step::Freeze),
        2 => Just(Step::Settle),
        2 => Just(Step::Thaw),
    ]
}

/// What the tables show of those two rows.
fn densely_shown<T: ReadTables<Error: std::fmt::Debug>>(tables: &T) -> Vec<String> {
    let profile = tables.profile(&box_id(0)).unwrap();
    vec![
        format!("{profile:?}"),
        format!("{:?}", tables.due(at(0), 9).unwrap()),
    ]
}

/// Runs steps on the model and on rows, and compares what they show.
fn compare(
    steps: Vec<Step>,
    of_model: impl Fn(&MemoryTables) -> Vec<String>,
    of_rows: impl Fn(&Rows) -> Vec<String>,
) {
    let mut model = MemoryTables::default();
    let mut rows = Rows::new();
    let mut sequences = [0; KINDS as usize];
    for step in steps {
        if let Step::Append(a, _) = step {
            sequences[usize::from(a)] += 1;
        }
        run(&mut model, &sequences, step);
        run(&mut rows.partition.write(), &sequences, step);
        match step {
            Step::Freeze => rows.freeze(),
            Step::Settle => rows.settle(|rows| assert_eq!(of_model(&model), of_rows(rows))),
            Step::Thaw => rows.thaw(),
            _ => {}
        }
        assert_eq!(of_model(&model), of_rows(&rows));
    }
    // Once all has moved down, base and files hold the rows that are there and nothing else.
    rows.settle(|_| {});
    rows.freeze();
    rows.settle(|_| {});
    assert!(rows.partition.freeze().is_none());
    assert_eq!(rows.stored_rows(), rows.visible_rows());
    assert_eq!(of_model(&model), of_rows(&rows));
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn rows_are_what_the_model_says_wherever_they_are(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        compare(steps, shown, |rows| shown(&rows.partition.read()));
    }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn a_row_is_what_the_model_says_whatever_happened_to_it(
        steps in proptest::collection::vec(dense_step(), 1..60),
    ) {
        compare(steps, densely_shown, |rows| densely_shown(&rows.partition.read()));
    }
}

#[test]
fn an_envelope_purged_before_the_next_checkpoint_leaves_no_trace() {
    let mut rows = Rows::new();
    let gauge = Gauge::default();
    let (base, none) = (rows.partition.base.clone(), StoredEnvelopes::default());
    rows.partition = Partition::new(partition_id(), base, none, gauge.clone());
    rows.partition
        .write()
        .append_envelope(&box_id(0), &envelope(1, 1))
        .unwrap();
    assert!(gauge.bytes() > 0);
    rows.partition
        .write()
        .purge_envelope(&box_id(0), Sequence(1))
        .unwrap();
    assert_eq!(gauge.bytes(), 0);
    assert!(
        rows.partition.freeze().is_none(),
        "nothing is left to write"
    );
}

#[test]
fn a_freeze_taken_back_forgets_what_was_born_in_it_and_purged_since() {
    let mut rows = Rows::new();
    rows.partition
        .write()
        .append_envelope(&box_id(0), &envelope(1, 1))
        .unwrap();
    rows.freeze();
    rows.partition
        .write()
        .purge_envelope(&box_id(0), Sequence(1))
        .unwrap();
    rows.thaw();
    assert!(rows.partition.freeze().is_none());
}

#[test]
fn a_flipped_bit_in_the_base_is_an_error_and_no_answer() {
    let mut rows = Rows::new();
    rows.partition
        .write()
        .put_profile(&box_id(0), &profile(7))
        .unwrap();
    rows.freeze();
    rows.settle(|_| {});
    let pairs = rows.base.range(&[0], &[0xff; 8], usize::MAX).unwrap();
    let (key, value) = pairs.into_iter().next().unwrap();
    for bit in 0..value.len() * 8 {
        let mut damaged = value.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        rows.base.write(vec![(key.clone(), Some(damaged))]).unwrap();
        rows.restart();
        let found = rows.partition.read().profile(&box_id(0));
        assert!(
            matches!(found, Err(crate::store::StoreError::Corrupt { .. })),
            "{found:?}"
        );
    }
    // A value under another row's key is damage too.
    let other = crate::store::rows::of_box(crate::store::rows::Table::Profiles, &box_id(1));
    let other = [&key[..crate::store::rows::PARTITION_PREFIX_BYTES], &other].concat();
    rows.base.write(vec![(other, Some(value))]).unwrap();
    assert!(rows.partition.read().profile(&box_id(1)).is_err());
}

#[test]
fn a_flipped_bit_in_a_file_of_envelopes_is_an_error_and_no_answer() {
    let mut rows = Rows::new();
    let kept = envelope(1, 1);
    rows.partition
        .write()
        .append_envelope(&box_id(0), &kept)
        .unwrap();
    rows.freeze();
    rows.settle(|_| {});
    let name = rows.stored.as_ref().unwrap().base;
    let path = rows.files.path(&name.digest);
    let file = rows.files.disk.open(&path).unwrap();
    let mut bytes = vec![0; usize::try_from(name.length).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let page = |rows: &Rows| {
        rows.partition
            .read()
            .envelopes(&box_id(0), Sequence(0), 9, 99)
    };
    assert_eq!(page(&rows).unwrap(), [kept]);
    for at in 0..bytes.len() {
        file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
        rows.restart();
        let found = page(&rows);
        let is_refused = matches!(found, Err(crate::store::StoreError::Corrupt { .. }));
        // The end of the blocks is for those who read them all.
        let unread = bytes.len() - 20 - 60 - 4..bytes.len() - 20 - 60;
        assert!(is_refused || unread.contains(&at), "{at}: {found:?}");
        file.write_all_at(&[bytes[at]], at as u64).unwrap();
    }
}

/// A step with envelopes of any size.
#[derive(Debug, Clone, Copy)]
enum Large {
    /// To a box, of so many bytes.
    Append(u8, usize),
    /// From a box, which one of those it ever had.
    Purge(u8, usize),
    /// A checkpoint.
    Settle,
}

fn large() -> impl Strategy<Value = Large> {
    prop_oneof![
        4 => (0..KINDS, 0..40_000_usize).prop_map(|(a, bytes)| Large::Append(a, bytes)),
        4 => (0..KINDS, 0..900_usize).prop_map(|(a, bytes)| Large::Append(a, bytes)),
        4 => (0..KINDS, any::<usize>()).prop_map(|(a, which)| Large::Purge(a, which)),
        2 => Just(Large::Settle),
    ]
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn pages_of_envelopes_over_many_blocks_and_files_are_what_the_model_says(
        steps in proptest::collection::vec(large(), 1..120),
        looks in proptest::collection::vec((0..KINDS, 0..60_u64, 1..20_u32, 0..200_000_u64), 1..20),
    ) {
        let mut model = MemoryTables::default();
        let mut rows = Rows::new();
        let mut sequences = [0_u64; KINDS as usize];
        for step in steps {
            match step {
                Large::Append(a, bytes) => {
                    let last = &mut sequences[usize::from(a)];
                    *last += 1;
                    let mut new = envelope(*last, 1);
                    new.body = Bytes::from(vec![*last as u8; bytes]);
                    model.append_envelope(&box_id(a), &new).unwrap();
                    rows.partition.write().append_envelope(&box_id(a), &new).unwrap();
                }
                Large::Purge(a, which) => {
                    // Only what is there is purged.
                    let there = model.envelopes(&box_id(a), Sequence(0), u32::MAX, u64::MAX).unwrap();
                    if let Some(gone) = there.get(which % there.len().max(1)) {
                        model.purge_envelope(&box_id(a), gone.sequence).unwrap();
                        rows.partition.write().purge_envelope(&box_id(a), gone.sequence).unwrap();
                    }
                }
                Large::Settle => {
                    rows.freeze();
                    rows.settle(|_| {});
                }
            }
        }
        for settled in [false, true] {
            for &(a, after, count, bytes) in &looks {
                let after = Sequence(after);
                prop_assert_eq!(
                    rows.partition.read().envelopes(&box_id(a), after, count, bytes).unwrap(),
                    model.envelopes(&box_id(a), after, count, bytes).unwrap()
                );
            }
            if !settled {
                rows.freeze();
                rows.settle(|_| {});
            }
        }
    }
}
