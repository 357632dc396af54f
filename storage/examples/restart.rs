//! How long a node's state takes to start, and how much memory: fills a store with envelopes, then opens
//! it after a shutdown in good order, and after one that was none.
//!
//! ```text
//!   cargo run --release -p rossby-storage --example restart -- FOLDER [MIB]
//! ```
//!
//! FOLDER must not exist; it holds about three times MIB (2048) while this runs, and is removed. Each
//! step runs in a process of its own, as root with an empty page cache.
//! The figures of docs/OPERATIONS.md are made with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a tool for developers: it may fail loudly, and it measures time"
)]

#[path = "../benches/hot/mailboxes.rs"]
mod mailboxes;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use rossby_domain::Routed;
use rossby_domain::ids::{GroupId, PartitionCount};
use rossby_seams::disk::{Disk, FileDisk};
use rossby_storage::sled_base::SledBase;
use rossby_storage::store::{GroupStore, Store};

use crate::mailboxes::{Mailbox, adoption, apply, noise};

const GROUP: GroupId = GroupId(1);
const PARTITIONS: u16 = 64;
const BODY_BYTES: usize = 8 * 1024;
const BATCH: usize = 64;
const ROUND_BYTES: u64 = 64 << 20;
const CACHE_BYTES: u64 = 64 << 20;

/// What a process of this program does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Fill,
    StartClean,
    StartKilled,
}

const STEPS: [(Step, &str); 3] = [
    (Step::Fill, "fill"),
    (Step::StartClean, "start-clean"),
    (Step::StartKilled, "start-killed"),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = PathBuf::from(args.first().expect("name a folder"));
    let mib: u64 = args
        .get(1)
        .map_or(2048, |mib| mib.parse().expect("a number of MiB"));
    if let Some(name) = args.get(2) {
        let (step, _) = STEPS.iter().find(|(_, step)| step == name).unwrap();
        return step.run(&folder, mib << 20);
    }
    assert!(!folder.exists(), "the folder is there already");
    for (_, step) in STEPS {
        forget_cached_files();
        let ended = Command::new(std::env::current_exe().unwrap())
            .arg(&folder)
            .args([&mib.to_string(), step])
            .status();
        assert!(ended.unwrap().success(), "{step} failed");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

impl Step {
    fn run(self, folder: &Path, bytes: u64) {
        let began = Instant::now();
        match self {
            Self::Fill => {
                let (store, group) = open(folder);
                let (group, rows) = fill(group, bytes);
                report("filled, with all checkpoints", began);
                println!("{rows:10} envelopes");
                close(&store, group);
            }
            Self::StartClean => {
                let (store, group) = open(folder);
                report("started after a shutdown in good order", began);
                close(&store, group);
            }
            Self::StartKilled => {
                // What a kill leaves, as far as the next start can tell.
                drop(Store::open(Arc::new(FileDisk), &checkpoints(folder), base(folder)).unwrap());
                let began = Instant::now();
                assert!(!Store::base_was_closed(&FileDisk, &checkpoints(folder)).unwrap());
                // As a node does.
                SledBase::delete(&folder.join("base")).unwrap();
                let (store, group) = open(folder);
                report("started after a kill: the base is rebuilt", began);
                close(&store, group);
            }
        }
    }
}

fn close(store: &Store, group: GroupStore) {
    drop(group);
    let began = Instant::now();
    store.close().unwrap();
    report("closed in good order", began);
}

fn report(what: &str, began: Instant) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap_or("not known").trim();
    println!(
        "{:8.1} s  {what} (memory at its peak: {peak})",
        began.elapsed().as_secs_f64()
    );
}

/// So that what is measured is the disk too.
fn forget_cached_files() {
    let synced = Command::new("sync").status();
    let dropped = std::fs::write("/proc/sys/vm/drop_caches", "1");
    if synced.is_err() || dropped.is_err() {
        println!("not root: files may be in the page cache");
    }
}

fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

fn open(folder: &Path) -> (Store, GroupStore) {
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    disk.create_directory(folder).unwrap();
    let store = Store::open(disk, &checkpoints(folder), base(folder)).unwrap();
    let group = store.group(GROUP).unwrap();
    (store, group)
}

fn base(folder: &Path) -> Arc<SledBase> {
    Arc::new(SledBase::open_or_replace(&folder.join("base"), CACHE_BYTES).unwrap())
}

/// Applies envelopes until there are so many bytes of them, with a checkpoint now and then, as a
/// node does.
fn fill(mut group: GroupStore, bytes: u64) -> (GroupStore, u64) {
    let partitions = PartitionCount::new(PARTITIONS).unwrap();
    // One box in each partition.
    let boxes: Vec<_> = (0..)
        .zip(partitions.all())
        .map(|(number, partition)| Mailbox::new(partition, number))
        .collect();
    let mut index = 0;
    let mut commands: Vec<Routed> = partitions.all().map(adoption).collect();
    commands.extend(boxes.iter().flat_map(Mailbox::registration));
    apply(&mut group, &mut index, commands);
    let mut filled = 0_u64;
    let mut since = 0_u64;
    let mut counter = 0;
    let mut rows = 0;
    while filled < bytes {
        counter += 1;
        for chunk in boxes.chunks(BATCH) {
            // Letters to oneself.
            let letter = |(mailbox, seed): (&Mailbox, u64)| {
                mailbox.letter(mailbox.address, counter, noise(BODY_BYTES, seed))
            };
            let letters: Vec<_> = chunk.iter().zip(rows..).map(letter).collect();
            rows += letters.len() as u64;
            filled += (letters.len() * BODY_BYTES) as u64;
            since += (letters.len() * BODY_BYTES) as u64;
            apply(&mut group, &mut index, letters);
        }
        if since >= ROUND_BYTES || filled >= bytes {
            since = 0;
            group.cut().unwrap().write().unwrap().publish().unwrap();
        }
    }
    (group, rows)
}
