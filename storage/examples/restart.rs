//! How long a node's state takes to start: fills a store with envelopes, then opens it after a
//! shutdown in good order, and after one that was none.
//!
//! ```text
//!   cargo run --release -p rossby-storage --example restart -- FOLDER [MIB]
//! ```
//!
//! FOLDER must not exist; it holds about three times MIB (2048) while this runs, and is removed. The
//! figures of docs/OPERATIONS.md are made with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a tool for developers: it may fail loudly, and it measures time"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use rossby_domain::{Command, Routed};
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

fn main() {
    let mut args = std::env::args_os().skip(1);
    let folder = PathBuf::from(args.next().expect("name a folder"));
    let mib: u64 = args.next().map_or(2048, |mib| {
        mib.to_str().and_then(|mib| mib.parse().ok()).expect("MiB")
    });
    assert!(!folder.exists(), "the folder is there already");
    let began = Instant::now();
    let (store, group) = open(&folder);
    let group = fill(group, mib << 20);
    report("filled, with all checkpoints", began.elapsed());
    drop(group);
    let began = Instant::now();
    store.close().unwrap();
    report("closed in good order", began.elapsed());
    drop(store);
    let began = Instant::now();
    let opened = open(&folder);
    report("opened after a shutdown in good order", began.elapsed());
    // Not closed: as after a kill, or a power cut.
    drop(opened);
    let began = Instant::now();
    let base = folder.join("base");
    assert!(!Store::base_was_closed(&FileDisk, &checkpoints(&folder)).unwrap());
    SledBase::delete(&base).unwrap();
    let opened = open(&folder);
    report("opened after a kill: the base is rebuilt", began.elapsed());
    drop(opened);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn report(what: &str, took: Duration) {
    println!("{:8.1} s  {what}", took.as_secs_f64());
}

fn checkpoints(folder: &Path) -> PathBuf {
    folder.join("checkpoints")
}

fn open(folder: &Path) -> (Store, GroupStore) {
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    disk.create_directory(folder).unwrap();
    let base = SledBase::open_or_replace(&folder.join("base"), CACHE_BYTES).unwrap();
    let store = Store::open(disk, &checkpoints(folder), Arc::new(base)).unwrap();
    let group = store.group(GROUP).unwrap();
    (store, group)
}

/// Applies envelopes until there are so many bytes of them, with a checkpoint now and then, as a
/// node does.
fn fill(mut group: GroupStore, bytes: u64) -> GroupStore {
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
            routed(partition, Command::Adopt(Adopt { limits }))
        })
        .collect();
    commands.extend(partitions.all().flat_map(registration));
    apply(&mut group, &mut index, commands);
    let mut filled = 0_u64;
    let mut since = 0_u64;
    let mut counter = 0;
    let mut noise = 1_u64;
    while filled < bytes {
        counter += 1;
        for chunk in partitions.all().collect::<Vec<_>>().chunks(BATCH) {
            let letters: Vec<_> = chunk
                .iter()
                .map(|partition| letter(*partition, counter, &mut noise))
                .collect();
            filled += (letters.len() * BODY_BYTES) as u64;
            since += (letters.len() * BODY_BYTES) as u64;
            apply(&mut group, &mut index, letters);
        }
        if since >= ROUND_BYTES || filled >= bytes {
            since = 0;
            group.cut().unwrap().write().unwrap().publish().unwrap();
        }
    }
    group
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

fn routed(partition: PartitionId, command: Command) -> Routed {
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
        recovery_key: device_key,
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
        Command::ClaimDevice(ClaimDevice { device, box_id }),
        Command::CreateBox(CreateBox {
            box_id,
            record: record(partition),
            identifier,
            sealed_identifier: Bytes::from_static(b"sealed"),
            discoverable: true,
        }),
        Command::OpenClaim(OpenClaim {
            identifier,
            box_id,
            discoverable: true,
            code,
            sealed_code: Bytes::from_static(b"sealed"),
        }),
        Command::VerifyClaim(VerifyClaim {
            identifier,
            box_id,
            code,
        }),
        Command::ActivateBox(ActivateBox {
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
    routed(partition, Command::Enqueue(enqueue))
}
