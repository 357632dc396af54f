//! A group through checkpoint rounds, restarts and power loss must always be what its log says.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use rossby_domain::Routed;
use rossby_domain::ids::PartitionId;
use rossby_seams::base::{Base, MemoryBase};
use rossby_seams::disk::{MemoryDisk, PowerLoss};

use super::bases::{CountingBase, FailingBase, ForgetfulBase};
use super::cases;
use super::world::{GROUP, Model, acknowledge, entry, letter, open, position, try_open};
use crate::LogPosition;
use crate::sled_base::SledBase;
use crate::store::base_rows::BaseHandle;
use crate::store::{CheckpointCut, GroupStore, Store, StoreError, WrittenCheckpoint};

#[derive(Debug, Clone)]
enum Step {
    Apply(u64, Vec<Routed>),
    Cut,
    Write,
    Publish,
    /// The round is given up.
    Drop,
    /// Shutdown in good order.
    Restart,
    /// The group alone.
    Reopen,
    /// Power loss, with the base as it happens to be.
    Crash(PowerLoss),
    /// The base is gone at the next start.
    LoseBase,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => entry().prop_map(|(wait, commands)| Step::Apply(wait, commands)),
        4 => Just(Step::Cut),
        4 => Just(Step::Write),
        4 => Just(Step::Publish),
        1 => Just(Step::Drop),
        1 => Just(Step::Restart),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash(PowerLoss::DropUnsynced)),
        1 => any::<u64>().prop_map(|seed| Step::Crash(PowerLoss::KeepSome { seed })),
        1 => Just(Step::Crash(PowerLoss::KeepAll)),
        1 => Just(Step::LoseBase),
    ]
}

/// How a base is found at a start.
#[derive(Debug, Clone, Copy)]
enum Found {
    AsItWas,
    AfterPowerLoss(u64),
    Empty,
}

/// Opens the base as it is found.
type MakeBase<'a> = &'a dyn Fn(Found) -> Arc<dyn Base>;

struct Node<'a> {
    disk: MemoryDisk,
    make_base: MakeBase<'a>,
    open: Option<(Store, GroupStore)>,
    cut: Option<CheckpointCut>,
    written: Option<WrittenCheckpoint>,
    published: Option<LogPosition>,
}

impl<'a> Node<'a> {
    fn new(make_base: MakeBase<'a>) -> Self {
        let disk = MemoryDisk::default();
        let open = try_open(&disk, make_base(Found::Empty)).unwrap();
        Self {
            disk,
            make_base,
            open: Some(open),
            cut: None,
            written: None,
            published: None,
        }
    }

    fn group(&mut self) -> &mut GroupStore {
        &mut self.open.as_mut().unwrap().1
    }

    /// Starts again: the state is the last published checkpoint, and the log brings the rest.
    fn start(&mut self, base: Found, model: &Model) {
        (self.cut, self.written, self.open) = (None, None, None);
        self.open = Some(try_open(&self.disk, (self.make_base)(base)).unwrap());
        self.started(model);
    }

    fn started(&mut self, model: &Model) {
        let published = self.published;
        assert_eq!(self.group().applied().position, published);
        assert_eq!(self.group().current().map(|c| c.position()), published);
        model.catch_up(self.group());
        model.check(self.group());
    }

    fn run(&mut self, step: Step, model: &mut Model) {
        match step {
            Step::Apply(wait, commands) => {
                model.append(wait, commands);
                model.catch_up(self.group());
            }
            Step::Cut => {
                let busy = self.cut.is_some() || self.written.is_some();
                let published = self.published;
                let nothing_new = published == self.group().applied().position;
                let cut = self.group().cut();
                assert_eq!(cut.is_none(), busy || nothing_new);
                self.cut = cut.or(self.cut.take());
            }
            Step::Write => {
                if let Some(cut) = self.cut.take() {
                    self.written = Some(cut.write().unwrap());
                }
            }
            Step::Publish => {
                if let Some(written) = self.written.take() {
                    let at = written.position();
                    assert_eq!(written.publish().unwrap().position(), at);
                    self.published = Some(at);
                }
            }
            Step::Drop => (self.cut, self.written) = (None, None),
            Step::Restart => {
                self.open.as_ref().unwrap().0.close().unwrap();
                self.start(Found::AsItWas, model);
            }
            Step::Reopen => {
                (self.cut, self.written) = (None, None);
                let (store, group) = self.open.take().unwrap();
                drop(group);
                assert_eq!(store.overlay_bytes(), 0);
                let group = store.group(GROUP).unwrap();
                self.open = Some((store, group));
                self.started(model);
            }
            Step::Crash(loss) => {
                self.disk = self.disk.crash(loss);
                let base = match loss {
                    PowerLoss::KeepAll => Found::AsItWas,
                    PowerLoss::KeepSome { seed } => Found::AfterPowerLoss(seed),
                    PowerLoss::DropUnsynced => Found::AfterPowerLoss(model.log.len() as u64),
                };
                self.start(base, model);
            }
            Step::LoseBase => {
                self.open.as_ref().unwrap().0.close().unwrap();
                self.start(Found::Empty, model);
            }
        }
        model.check(self.group());
    }
}

fn forgetful_base() -> impl Fn(Found) -> Arc<dyn Base> {
    let kept = std::sync::Mutex::new(Arc::new(ForgetfulBase::default()));
    move |found| {
        let mut kept = kept.lock().unwrap();
        match found {
            Found::AsItWas => {}
            Found::AfterPowerLoss(seed) => *kept = Arc::new(kept.after_loss(seed)),
            Found::Empty => *kept = Arc::new(ForgetfulBase::default()),
        }
        Arc::clone(&kept) as Arc<dyn Base>
    }
}

fn sled_base(folder: &tempfile::TempDir) -> impl Fn(Found) -> Arc<dyn Base> {
    let path = folder.path().join("base");
    move |found| {
        if matches!(found, Found::Empty) {
            SledBase::delete(&path).unwrap();
        }
        Arc::new(SledBase::open(&path, 1024 * 1024).unwrap())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..60)
}

fn run_all(make_base: MakeBase<'_>, steps: Vec<Step>) {
    let mut model = Model::new();
    let mut node = Node::new(make_base);
    model.catch_up(node.group());
    for step in steps {
        node.run(step, &mut model);
    }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn a_group_is_what_its_log_says_through_rounds_restarts_and_power_loss(steps in steps()) {
        run_all(&forgetful_base(), steps);
    }
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn the_same_over_sled(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        run_all(&sled_base(&folder), steps);
    }
}

/// A group with a published checkpoint at its second entry.
fn with_checkpoint(disk: &MemoryDisk, base: Arc<dyn Base>) -> (Model, Store, GroupStore) {
    let mut model = Model::new();
    let (store, mut group) = try_open(disk, base).unwrap();
    model.append(1, vec![letter(0, 1, 1, Bytes::from_static(b"hello"))]);
    model.catch_up(&mut group);
    group.cut().unwrap().write().unwrap().publish().unwrap();
    (model, store, group)
}

#[test]
fn apply_writes_to_memory_only_and_envelopes_never_reach_the_base() {
    let disk = MemoryDisk::default();
    let base = Arc::new(CountingBase::default());
    let (mut model, _store, mut group) = with_checkpoint(&disk, Arc::clone(&base) as Arc<dyn Base>);
    base.take();
    let mutations = disk.mutations();
    for counter in 2..40 {
        let body = Bytes::from(vec![counter as u8; 90_000]);
        model.append(0, vec![letter(0, 1, counter, body)]);
    }
    model.catch_up(&mut group);
    assert_eq!((base.take(), disk.mutations()), (0, mutations));
    group.cut().unwrap().write().unwrap().publish().unwrap();
    // The states of a queue and of a sender, what is due, the clock, and twice the index.
    let moved = base.take();
    assert!((1..=8).contains(&moved), "{moved} rows");
    model.check(&group);
}

#[test]
fn rows_move_to_the_base_in_small_chunks() {
    let base = Arc::new(CountingBase::default());
    let handle = BaseHandle::new(Arc::clone(&base) as Arc<dyn Base>);
    let partition = handle.partition(GROUP, PartitionId::new(1).unwrap());
    let mut writer = partition.writer();
    for number in 0..40_u8 {
        writer.push(&[1, number], Some(&[number; 90_000])).unwrap();
    }
    writer.flush().unwrap();
    assert_eq!(base.take(), 40);
}

#[test]
fn a_base_closed_in_good_order_is_used_as_it_is() {
    let disk = MemoryDisk::default();
    let base = Arc::new(CountingBase::default());
    let (model, store, group) = with_checkpoint(&disk, Arc::clone(&base) as Arc<dyn Base>);
    store.close().unwrap();
    drop((store, group));
    base.take();
    assert!(Store::base_was_closed(&disk, super::world::checkpoints()).unwrap());
    let (_store, mut group) = try_open(&disk, Arc::clone(&base) as Arc<dyn Base>).unwrap();
    assert!(!Store::base_was_closed(&disk, super::world::checkpoints()).unwrap());
    assert_eq!(base.take(), 0, "nothing was rebuilt");
    model.catch_up(&mut group);
    model.check(&group);
}

#[test]
fn a_base_that_lost_its_tail_is_rebuilt_though_it_was_closed() {
    let disk = MemoryDisk::default();
    let (model, store, group) = with_checkpoint(&disk, Arc::new(MemoryBase::default()));
    store.close().unwrap();
    drop((store, group));
    // The marker says closed; the base is an older one, or none.
    let base = Arc::new(CountingBase::default());
    let (_store, mut group) = try_open(&disk, Arc::clone(&base) as Arc<dyn Base>).unwrap();
    assert!(base.take() > 0, "the base was rebuilt");
    model.catch_up(&mut group);
    model.check(&group);
}

#[test]
fn a_checkpoint_published_after_the_store_was_closed_is_kept_and_the_base_catches_up() {
    let disk = MemoryDisk::default();
    let base = Arc::new(MemoryBase::default());
    let (mut model, store, mut group) = with_checkpoint(&disk, Arc::clone(&base) as Arc<dyn Base>);
    model.append(1, vec![letter(0, 1, 2, Bytes::from_static(b"again"))]);
    model.catch_up(&mut group);
    let written = group.cut().unwrap().write().unwrap();
    store.close().unwrap();
    assert_eq!(written.publish().unwrap().position(), position(3));
    model.check(&group);
    // It could not move on to the base, so there is no room for another.
    model.append(1, vec![acknowledge(1, 2)]);
    model.catch_up(&mut group);
    model.check(&group);
    assert!(group.cut().is_none());
    drop((store, group));
    let (_store, mut group) = try_open(&disk, base).unwrap();
    assert_eq!(group.applied().position, Some(position(3)));
    model.catch_up(&mut group);
    model.check(&group);
}

#[test]
fn a_group_is_open_once_and_its_readers_end_with_it() {
    let disk = MemoryDisk::default();
    let (_, store, mut group) = with_checkpoint(&disk, Arc::new(MemoryBase::default()));
    assert!(matches!(store.group(GROUP), Err(StoreError::Busy(GROUP))));
    group.apply_blank(position(3)).unwrap();
    let cut = group.cut().unwrap();
    let reader = group.reader();
    drop(group);
    assert!(matches!(reader.digests(), Err(StoreError::Closed)));
    // A checkpoint that is still being written would write to the base.
    assert!(matches!(store.group(GROUP), Err(StoreError::Busy(GROUP))));
    assert!(matches!(
        cut.write().unwrap().publish(),
        Err(StoreError::Closed)
    ));
    let group = store.group(GROUP).unwrap();
    assert_eq!(group.applied().position, Some(position(2)));
    assert!(matches!(reader.digests(), Err(StoreError::Closed)));
}

#[test]
fn an_entry_that_is_no_batch_stops_the_group() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Arc::new(MemoryBase::default()));
    let mut group = store.group(GROUP).unwrap();
    let reader = group.reader();
    assert!(matches!(
        group.apply_batch(position(1), &[1, 2, 3]),
        Err(StoreError::Entry { .. })
    ));
    assert_eq!(group.applied().position, None);
    assert!(matches!(
        group.apply_blank(position(2)),
        Err(StoreError::Failed)
    ));
    assert!(matches!(reader.digests(), Err(StoreError::Failed)));
    assert!(group.cut().is_none());
}

#[test]
fn entries_are_applied_in_order_and_once() {
    let disk = MemoryDisk::default();
    let store = open(&disk, Arc::new(MemoryBase::default()));
    let mut group = store.group(GROUP).unwrap();
    let membership = Bytes::from_static(b"one, two, three");
    group
        .apply_membership(position(1), membership.clone())
        .unwrap();
    group.apply_blank(position(2)).unwrap();
    assert!(matches!(
        group.apply_blank(position(2)),
        Err(StoreError::OutOfOrder { .. })
    ));
    group.cut().unwrap().write().unwrap().publish().unwrap();
    drop((group, store));
    let (_store, group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    let applied = group.applied();
    assert_eq!(applied.position, Some(position(2)));
    assert_eq!(applied.membership, Some((Some(position(1)), membership)));
}

#[test]
fn small_changes_become_deltas_and_deltas_are_merged_in_time() {
    let disk = MemoryDisk::default();
    let (mut model, _store, mut group) = with_checkpoint(&disk, Arc::new(MemoryBase::default()));
    let mut deltas_seen = 0;
    for counter in 2..100 {
        let body = Bytes::from(vec![counter as u8; if counter == 2 { 90_000 } else { 500 }]);
        model.append(0, vec![letter(0, 1, counter, body)]);
        model.catch_up(&mut group);
        let checkpoint = group.cut().unwrap().write().unwrap().publish().unwrap();
        for files in &checkpoint.contents().partitions {
            let deltas: u64 = files.deltas.iter().map(|file| file.length).sum();
            assert!(deltas <= files.base.length / 2);
            deltas_seen = deltas_seen.max(files.deltas.len());
        }
        drop(checkpoint);
        // Files that no manifest names are gone.
        let named = group.current().unwrap().files().len();
        let folder = super::world::checkpoints().join("1");
        let files = rossby_seams::disk::Disk::list(&disk, &folder).unwrap();
        assert_eq!(files.len(), named + 1, "{files:?}");
    }
    assert!(deltas_seen > 3, "{deltas_seen}");
    drop((group, _store));
    let (_store, group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    model.check(&group);
}

#[test]
fn a_base_that_fails_half_way_is_rebuilt_when_the_group_is_opened_again() {
    for writes in 0.. {
        let disk = MemoryDisk::default();
        let base = Arc::new(FailingBase::default());
        let handle = Arc::clone(&base) as Arc<dyn Base>;
        let (mut model, store, mut group) = with_checkpoint(&disk, handle);
        let before = group.applied().position;
        let letters = [0, 1, 2].map(|to| letter(3, to, 1, Bytes::from_static(b"hello")));
        model.append(1, letters.into());
        model.catch_up(&mut group);
        let written = group.cut().unwrap().write().unwrap();
        base.fail_after(writes);
        let published = written.publish();
        if published.is_ok() {
            assert!(writes > 3, "{writes}");
            break;
        }
        // The checkpoint is the new one all the same; only the base is behind.
        assert!(
            matches!(published, Err(StoreError::Base(_))),
            "{published:?}"
        );
        assert!(group.reader().digests().is_err());
        drop(group);
        let mut group = store.group(GROUP).unwrap();
        assert!(group.applied().position > before);
        model.catch_up(&mut group);
        model.check(&group);
    }
}
