//! The state: entries applied, pages read, checkpoints written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use rossby_domain::command::Acknowledge;
use rossby_domain::ids::{GroupId, PartitionCount, Sequence};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query, Routed};
use rossby_seams::disk::FileDisk;
use rossby_storage::codec::encode_batch;
use rossby_storage::sled_base::{DEFAULT_CACHE_BYTES, SledBase};
use rossby_storage::store::{GroupStore, Store};
use tempfile::TempDir;

use crate::mailboxes::{self, Mailbox, adoption, apply_encoded, batch, noise};

const BOXES: u32 = 1024;
const BATCH: usize = 64;
const BODY_BYTES: usize = 1024;
/// Envelopes of a page, as a device finds them after a while.
const PAGE: usize = 100;

/// A group's state machine over a real disk and a real base, with boxes in it.
struct World {
    group: GroupStore,
    _store: Store,
    _folder: TempDir,
    boxes: Vec<Mailbox>,
    index: u64,
    counter: u64,
    next: usize,
    body: Bytes,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let base = SledBase::open(&folder.path().join("base"), DEFAULT_CACHE_BYTES).unwrap();
        let disk = Arc::new(FileDisk);
        let checkpoints = folder.path().join("checkpoints");
        let store = Store::open(disk, &checkpoints, Arc::new(base)).unwrap();
        let partitions: Vec<_> = PartitionCount::new(256).unwrap().all().collect();
        let places = partitions.iter().cycle().zip(0..BOXES);
        let mut world = Self {
            group: store.group(GroupId(1)).unwrap(),
            _store: store,
            _folder: folder,
            boxes: places
                .map(|(partition, number)| Mailbox::new(*partition, number))
                .collect(),
            index: 0,
            counter: 0,
            next: 0,
            body: noise(BODY_BYTES, 1),
        };
        world.apply(partitions.into_iter().map(adoption).collect());
        let registrations = world.boxes.iter().flat_map(Mailbox::registration).collect();
        world.apply(registrations);
        world
    }

    fn apply(&mut self, commands: Vec<Routed>) -> Vec<Outcome> {
        mailboxes::apply(&mut self.group, &mut self.index, commands)
    }

    /// Applies commands; how long that took, from the entry's bytes to the replies.
    fn timed(&mut self, commands: Vec<Routed>) -> (Vec<Outcome>, Duration) {
        let bytes = encode_batch(&batch(commands)).unwrap();
        let began = Instant::now();
        let outcomes = apply_encoded(&mut self.group, &mut self.index, &bytes);
        (outcomes, began.elapsed())
    }

    /// A letter to a box, by its neighbour.
    fn letter(&mut self, to: usize) -> Routed {
        self.counter += 1;
        let sender = self.boxes[(to + 1) % self.boxes.len()].address;
        self.boxes[to].letter(sender, self.counter, self.body.clone())
    }

    /// The next boxes in turn.
    fn next_boxes(&mut self) -> Vec<usize> {
        let first = self.next;
        self.next = (first + BATCH) % self.boxes.len();
        (first..first + BATCH).collect()
    }

    /// Letters to some boxes.
    fn letters(&mut self, to: &[usize]) -> Vec<Routed> {
        to.iter().map(|&to| self.letter(to)).collect()
    }

    /// The acknowledgement of all that was put into some boxes.
    fn acknowledgements(&self, boxes: &[usize], outcomes: &[Outcome]) -> Vec<Routed> {
        let pairs = boxes.iter().zip(outcomes);
        pairs
            .map(|(number, outcome)| match outcome {
                Outcome::Enqueued { sequence } => self.acknowledgement(*number, *sequence),
                other => panic!("not a letter: {other:?}"),
            })
            .collect()
    }

    fn acknowledgement(&self, number: usize, upto: Sequence) -> Routed {
        let mailbox = &self.boxes[number];
        let device = mailbox.address;
        mailbox.routed(Command::Acknowledge(Acknowledge { device, upto }))
    }

    /// Writes a checkpoint, after which all rows are in the base and none in memory.
    fn settle(&mut self) {
        let cut = self.group.cut().unwrap();
        cut.write().unwrap().publish().unwrap();
    }
}

pub fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut world = World::new();
    group.bench_function("enqueue_64", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let boxes = world.next_boxes();
                let letters = world.letters(&boxes);
                let (outcomes, took) = world.timed(letters);
                spent += took;
                let acknowledgements = world.acknowledgements(&boxes, &outcomes);
                world.apply(acknowledgements);
            }
            spent
        });
    });
    group.bench_function("acknowledge_64", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let boxes = world.next_boxes();
                let letters = world.letters(&boxes);
                let outcomes = world.apply(letters);
                let acknowledgements = world.acknowledgements(&boxes, &outcomes);
                spent += world.timed(acknowledgements).1;
            }
            spent
        });
    });
    // As in the first round after each checkpoint: what is known of the boxes is in the base.
    group.bench_function("enqueue_64_from_base", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                if world.next == 0 {
                    world.settle();
                }
                let boxes = world.next_boxes();
                let letters = world.letters(&boxes);
                let (outcomes, took) = world.timed(letters);
                spent += took;
                let acknowledgements = world.acknowledgements(&boxes, &outcomes);
                world.apply(acknowledgements);
            }
            spent
        });
    });
    // A device that acknowledges one by one what waits in a long queue.
    const WAITING: usize = 256;
    group.throughput(Throughput::Elements(1));
    group.bench_function("acknowledge_1_of_256", |bencher| {
        let letters = world.letters(&[0; WAITING]);
        let outcomes = world.apply(letters);
        let mut waiting: std::collections::VecDeque<_> = outcomes.into();
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let oldest = waiting.pop_front().unwrap();
                let acknowledgement = world.acknowledgements(&[0], &[oldest]);
                spent += world.timed(acknowledgement).1;
                let letter = world.letters(&[0]);
                waiting.extend(world.apply(letter));
            }
            spent
        });
        let rest = waiting.pop_back().unwrap();
        let acknowledgement = world.acknowledgements(&[0], &[rest]);
        world.apply(acknowledgement);
    });
    group.finish();
}

pub fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read_100_envelopes");
    group.throughput(Throughput::Elements(PAGE as u64));
    let mut world = World::new();
    let letters = world.letters(&[0; PAGE]);
    world.apply(letters);
    let reader = world.group.reader();
    let (partition, device) = (world.boxes[0].partition, world.boxes[0].address);
    let query = Query::Fetch {
        device,
        after: Sequence(0),
        max_envelopes: 256,
        max_bytes: 1 << 20,
    };
    let now = Timestamp::from_millis(1_795_000_000_000);
    let page = || match reader.query(partition, now, &query).unwrap() {
        Answer::Page(Some(page)) => assert_eq!(page.envelopes.len(), PAGE),
        other => panic!("no page: {other:?}"),
    };
    group.bench_function("overlay", |bencher| bencher.iter(page));
    let cut = world.group.cut().unwrap();
    group.bench_function("frozen", |bencher| bencher.iter(page));
    cut.write().unwrap().publish().unwrap();
    group.bench_function("base", |bencher| bencher.iter(page));
    group.finish();
}

/// A round in which every box got a letter, and lost the one before: cut, written, synced, published and
/// taken to the base.
pub fn checkpoint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkpoint");
    group.throughput(Throughput::Elements(BOXES.into()));
    group.sample_size(20);
    let mut world = World::new();
    world.settle();
    let mut before: Vec<Routed> = Vec::new();
    group.bench_function("round_1024_envelopes", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                world.apply(std::mem::take(&mut before));
                let boxes: Vec<_> = (0..world.boxes.len()).collect();
                let letters = world.letters(&boxes);
                let outcomes = world.apply(letters);
                before = world.acknowledgements(&boxes, &outcomes);
                let began = Instant::now();
                world.settle();
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
}
