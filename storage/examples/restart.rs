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

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{Genesis, KemKey, KeyRecord, SUITE_XWING, XWING_PUBLIC_KEY_BYTES};
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{
    ActivateBox, Adopt, ClaimDevice, CreateBox, Enqueue, EnvelopeDigest, OpenClaim, VerifyClaim,
};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, GroupId, PartitionCount,
    PartitionId,
};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_domain::{Command as Order, Routed};
use rossby_seams::disk::{Disk, FileDisk};
use rossby_storage::LogPosition;
use rossby_storage::codec::{Batch, encode_batch};
use rossby_storage::sled_base::SledBase;
use rossby_storage::store::{GroupStore, Store};

const GROUP: GroupId = GroupId(1);
const EPOCH: Epoch = Epoch(1);
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
    let mut index = 0;
    let mut commands: Vec<Routed> = partitions
        .all()
        .map(|partition| {
            let limits = Limits {
                queue_bytes: u64::MAX / 4,
                queue_envelopes: u32::MAX,
                sender_share_percent: 100,
                ..Limits::default()
            };
            routed(partition, Order::Adopt(Adopt { limits }))
        })
        .collect();
    commands.extend(partitions.all().flat_map(registration));
    apply(&mut group, &mut index, commands);
    let mut filled = 0_u64;
    let mut since = 0_u64;
    let mut counter = 0;
    let mut noise = 1_u64;
    let mut rows = 0;
    while filled < bytes {
        counter += 1;
        for chunk in partitions.all().collect::<Vec<_>>().chunks(BATCH) {
            let letters: Vec<_> = chunk
                .iter()
                .map(|partition| letter(*partition, counter, &mut noise))
                .collect();
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

fn apply(group: &mut GroupStore, index: &mut u64, commands: Vec<Routed>) {
    *index += 1;
    let batch = Batch {
        stamp: Timestamp::from_millis(1_795_000_000_000),
        may_expire: false,
        commands,
    };
    let at = LogPosition {
        term: 1,
        index: *index,
    };
    let replies = group
        .apply_batch(at, &encode_batch(&batch).unwrap())
        .unwrap();
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
}

fn routed(partition: PartitionId, command: Order) -> Routed {
    Routed {
        partition,
        epoch: EPOCH,
        command,
    }
}

fn seed(partition: PartitionId) -> [u8; 32] {
    let [a, b] = partition.number().to_be_bytes();
    let mut seed = [7; 32];
    (seed[0], seed[1]) = (a, b);
    seed
}

fn record(partition: PartitionId) -> KeyRecord {
    let key = SigningKey::from_bytes(&seed(partition));
    let public = Bytes::from(vec![1; XWING_PUBLIC_KEY_BYTES]);
    let device_key = key.verifying_key().to_bytes();
    let statement = KemKey::statement(&DeviceId::of_key(&device_key), SUITE_XWING, 1, &public);
    let genesis = Genesis {
        device_key,
        recovery_key: SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
        nonce: seed(partition),
    };
    let kem = KemKey {
        suite: SUITE_XWING,
        counter: 1,
        public,
        signature: key.sign(&statement).to_bytes(),
    };
    KeyRecord::new(genesis, kem).unwrap()
}

fn address(partition: PartitionId) -> DeviceAddress {
    let genesis = record(partition);
    DeviceAddress {
        box_id: BoxId::derive(partition, &genesis.genesis_hash()),
        device: genesis.genesis().device(),
    }
}

/// One box in each partition.
fn registration(partition: PartitionId) -> Vec<Routed> {
    let DeviceAddress { box_id, device } = address(partition);
    let identifier = IdentifierHash::from_bytes(seed(partition));
    let code = CodeMac([1; 32]);
    let commands = [
        Order::ClaimDevice(ClaimDevice { device, box_id }),
        Order::CreateBox(CreateBox {
            box_id,
            record: record(partition),
            identifier,
            sealed_identifier: Bytes::from_static(b"sealed"),
            discoverable: true,
        }),
        Order::OpenClaim(OpenClaim {
            identifier,
            box_id,
            discoverable: true,
            code,
            sealed_code: Bytes::from_static(b"sealed"),
        }),
        Order::VerifyClaim(VerifyClaim {
            identifier,
            box_id,
            code,
        }),
        Order::ActivateBox(ActivateBox {
            box_id,
            device,
            identifier,
            generation: 2,
        }),
    ];
    commands
        .into_iter()
        .map(|command| routed(partition, command))
        .collect()
}

/// A letter to oneself, of bytes that do not compress.
fn letter(partition: PartitionId, counter: u64, noise: &mut u64) -> Routed {
    let mut body = Vec::with_capacity(BODY_BYTES);
    // Not a version of the envelope that the service reads keys from.
    body.extend_from_slice(&[0xff; 8]);
    while body.len() < BODY_BYTES {
        // xorshift64: noise enough for this.
        *noise ^= *noise << 13;
        *noise ^= *noise >> 7;
        *noise ^= *noise << 17;
        body.extend_from_slice(&noise.to_be_bytes());
    }
    let body = Bytes::from(body);
    let sender = address(partition);
    let recipient = sender.box_id;
    let enqueue = Enqueue {
        recipient,
        id: EnvelopeId {
            sender,
            counter: Counter(counter),
        },
        chain_version: 0,
        ttl_ms: None,
        digest: EnvelopeDigest::of(&recipient, 0, None, &body),
        body,
    };
    routed(partition, Order::Enqueue(enqueue))
}
