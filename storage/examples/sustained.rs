//! What a stream of sends costs the store: applies batches of envelopes without pause (or at a rate), with
//! checkpoint rounds on a second thread as a node triggers them, and says what each part took.
//!
//! ```text
//!   cargo run --release -p rossby-storage --example sustained -- FOLDER [SECONDS] [ENVELOPES-A-SECOND]
//! ```
//!
//! FOLDER must not exist, and is removed. SECONDS (20) is how long, ENVELOPES-A-SECOND how fast (0: as fast
//! as it goes).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a tool for developers: it may fail loudly, and it measures time"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
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
use rossby_domain::{Command as Order, Routed};
use rossby_seams::disk::{Disk, FileDisk};
use rossby_storage::LogPosition;
use rossby_storage::codec::{Batch, encode_batch};
use rossby_storage::sled_base::SledBase;
use rossby_storage::store::{CheckpointCut, GroupStore, Store};

const GROUP: GroupId = GroupId(1);
const EPOCH: Epoch = Epoch(1);
const PARTITIONS: u16 = 256;
const BOXES: u16 = 1000;
const SENDERS: usize = 64;
const BODY_BYTES: usize = 1024;
const BATCH: usize = 64;
const CACHE_BYTES: u64 = 64 << 20;
/// As a node is configured, unless told otherwise.
const ROUND_LOG_BYTES: u64 = 64 << 20;
const OVERLAY_BUDGET_BYTES: u64 = 512 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = PathBuf::from(args.first().expect("name a folder"));
    let number = |at: usize, default| {
        args.get(at)
            .map_or(default, |text| text.parse::<u64>().expect("a number"))
    };
    let (seconds, rate) = (number(1, 20), number(2, 0));
    assert!(!folder.exists(), "the folder is there already");
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    disk.create_directory(&folder).unwrap();
    let base = SledBase::open_or_replace(&folder.join("base"), CACHE_BYTES).unwrap();
    let store = Store::open(disk, &folder.join("checkpoints"), Arc::new(base)).unwrap();
    let mut load = Load::new(store.group(GROUP).unwrap());
    load.register();
    load.run(&store, Duration::from_secs(seconds), rate);
    drop(load);
    drop(store);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split(' ').next().unwrap();
    Duration::from_nanos(nanos.parse().unwrap())
}

/// CPU time of all threads that this process has now.
fn process_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of_task).sum())
}

/// What rounds took.
#[derive(Default)]
struct Rounds {
    count: u32,
    write: (Duration, Duration),
    publish: (Duration, Duration),
}

impl Rounds {
    fn run(cuts: &mpsc::Receiver<CheckpointCut>, done: &mpsc::Sender<()>) -> Self {
        let mut rounds = Self::default();
        while let Ok(cut) = cuts.recv() {
            let before = (Instant::now(), thread_cpu());
            let written = cut.write().unwrap();
            let between = (Instant::now(), thread_cpu());
            written.publish().unwrap();
            rounds.count += 1;
            rounds.write.0 += between.0 - before.0;
            rounds.write.1 += between.1.saturating_sub(before.1);
            rounds.publish.0 += between.0.elapsed();
            rounds.publish.1 += thread_cpu().saturating_sub(between.1);
            if done.send(()).is_err() {
                break;
            }
        }
        rounds
    }
}

struct Load {
    group: GroupStore,
    index: u64,
    boxes: Vec<DeviceAddress>,
    noise: u64,
    counters: Vec<u64>,
}

impl Load {
    fn new(group: GroupStore) -> Self {
        Self {
            group,
            index: 0,
            boxes: (0..BOXES).map(address).collect(),
            noise: 1,
            counters: vec![0; SENDERS],
        }
    }

    fn register(&mut self) {
        let partitions = PartitionCount::new(PARTITIONS).unwrap();
        let limits = Limits {
            queue_bytes: u64::MAX / 4,
            queue_envelopes: u32::MAX,
            sender_share_percent: 100,
            ..Limits::default()
        };
        let adopt = |partition| routed(partition, Order::Adopt(Adopt { limits }));
        let adoptions = partitions.all().map(adopt).collect();
        self.apply(&encoded(adoptions));
        for number in 0..BOXES {
            self.apply(&encoded(registration(number)));
        }
    }

    fn random(&mut self) -> u64 {
        // xorshift64: noise enough for this.
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        self.noise
    }

    /// An entry of envelopes, each from another device, into boxes at random.
    fn entry(&mut self) -> Bytes {
        let mut letters = Vec::with_capacity(BATCH);
        for at in 0..BATCH {
            let sender = at % SENDERS;
            self.counters[sender] += 1;
            let chosen = self.random() as usize % self.boxes.len();
            let recipient = self.boxes[chosen].box_id;
            let mut body = Vec::with_capacity(BODY_BYTES);
            // Not a version of the envelope that the service reads keys from.
            body.extend_from_slice(&[0xff; 8]);
            while body.len() < BODY_BYTES {
                body.extend_from_slice(&self.random().to_be_bytes());
            }
            let body = Bytes::from(body);
            let enqueue = Enqueue {
                recipient,
                id: EnvelopeId {
                    sender: self.boxes[sender],
                    counter: Counter(self.counters[sender]),
                },
                chain_version: 0,
                ttl_ms: None,
                digest: EnvelopeDigest::of(&recipient, 0, None, &body),
                body,
            };
            letters.push(routed(recipient.partition(), Order::Enqueue(enqueue)));
        }
        encoded(letters)
    }

    fn apply(&mut self, entry: &Bytes) {
        self.index += 1;
        let at = LogPosition {
            term: 1,
            index: self.index,
        };
        let replies = self.group.apply_batch(at, entry).unwrap();
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    }

    fn run(&mut self, store: &Store, length: Duration, rate: u64) {
        let (cuts, to_do) = mpsc::channel();
        let (done, rounds_done) = mpsc::channel();
        let rounds = std::thread::spawn(move || Rounds::run(&to_do, &done));
        let (began, cpu_before) = (Instant::now(), process_cpu());
        let [mut making, mut applying, mut stalled] = [Duration::ZERO; 3];
        let (mut envelopes, mut log_bytes, mut busy) = (0_u64, 0_u64, false);
        let mut slowest: Vec<Duration> = Vec::new();
        let mut peak = 0;
        while began.elapsed() < length {
            let start = thread_cpu();
            let entry = self.entry();
            log_bytes += entry.len() as u64;
            let made = (Instant::now(), thread_cpu());
            self.apply(&entry);
            slowest.push(made.0.elapsed());
            making += made.1.saturating_sub(start);
            applying += thread_cpu().saturating_sub(made.1);
            envelopes += BATCH as u64;
            let overlay = store.overlay_bytes();
            peak = peak.max(overlay);
            busy = busy && rounds_done.try_recv().is_err();
            let full = overlay >= OVERLAY_BUDGET_BYTES / 100 * 35;
            if !busy && (log_bytes >= ROUND_LOG_BYTES || full) {
                cuts.send(self.group.cut().unwrap()).unwrap();
                (busy, log_bytes) = (true, 0);
            }
            let before = Instant::now();
            if overlay >= OVERLAY_BUDGET_BYTES / 100 * 70 {
                rounds_done.recv().unwrap();
                busy = false;
            }
            stalled += before.elapsed();
            if let Some(due) = (envelopes * 1_000_000_000).checked_div(rate) {
                let due = began + Duration::from_nanos(due);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        let ran = began.elapsed();
        drop(cuts);
        let rounds = rounds.join().unwrap();
        let all = process_cpu().saturating_sub(cpu_before);
        let per = |time: Duration| time.as_secs_f64() * 1e6 / envelopes as f64;
        slowest.sort_unstable();
        let quantile = |of: f64| slowest[(slowest.len() as f64 * of) as usize].as_secs_f64() * 1e6;
        println!(
            "{envelopes} envelopes, {:.0} a second, {} rounds, overlay at most {} MiB, {:.1} s stalled",
            envelopes as f64 / ran.as_secs_f64(),
            rounds.count,
            peak >> 20,
            stalled.as_secs_f64(),
        );
        println!(
            "an entry of {BATCH} was applied in {:.0} us (p50), {:.0} us (p99), {:.0} us (p99.9)",
            quantile(0.5),
            quantile(0.99),
            quantile(0.999)
        );
        println!("CPU us per envelope:");
        println!("{:8.2} making it (the load's own)", per(making));
        println!("{:8.2} apply", per(applying));
        println!(
            "{:8.2} rounds: write files ({:.2} s of waiting and work)",
            per(rounds.write.1),
            rounds.write.0.as_secs_f64()
        );
        println!(
            "{:8.2} rounds: publish, settle ({:.2} s)",
            per(rounds.publish.1),
            rounds.publish.0.as_secs_f64()
        );
        println!("{:8.2} all but making", per(all.saturating_sub(making)));
    }
}

fn encoded(commands: Vec<Routed>) -> Bytes {
    let batch = Batch {
        stamp: Timestamp::from_millis(1_795_000_000_000),
        may_expire: false,
        commands,
    };
    encode_batch(&batch).unwrap()
}

fn routed(partition: PartitionId, command: Order) -> Routed {
    Routed {
        partition,
        epoch: EPOCH,
        command,
    }
}

fn seed(number: u16) -> [u8; 32] {
    let [a, b] = number.to_be_bytes();
    let mut seed = [7; 32];
    (seed[0], seed[1]) = (a, b);
    seed
}

fn partition(number: u16) -> PartitionId {
    PartitionId::new(number % PARTITIONS).unwrap()
}

fn record(number: u16) -> KeyRecord {
    let key = SigningKey::from_bytes(&seed(number));
    let public = Bytes::from(vec![1; XWING_PUBLIC_KEY_BYTES]);
    let device_key = key.verifying_key().to_bytes();
    let statement = KemKey::statement(&DeviceId::of_key(&device_key), SUITE_XWING, 1, &public);
    let genesis = Genesis {
        device_key,
        recovery_key: SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
        nonce: seed(number),
    };
    let kem = KemKey {
        suite: SUITE_XWING,
        counter: 1,
        public,
        signature: key.sign(&statement).to_bytes(),
    };
    KeyRecord::new(genesis, kem).unwrap()
}

fn address(number: u16) -> DeviceAddress {
    let record = record(number);
    DeviceAddress {
        box_id: BoxId::derive(partition(number), &record.genesis_hash()),
        device: record.genesis().device(),
    }
}

fn registration(number: u16) -> Vec<Routed> {
    let DeviceAddress { box_id, device } = address(number);
    let identifier = IdentifierHash::from_bytes(seed(number));
    let code = CodeMac([1; 32]);
    let commands = [
        Order::ClaimDevice(ClaimDevice { device, box_id }),
        Order::CreateBox(CreateBox {
            box_id,
            record: record(number),
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
    ];
    let partition = partition(number);
    // The fourth box of a partition is given its third and fourth generation, and so on.
    let generation = 2 + 2 * u64::from(number / PARTITIONS);
    let activate = ActivateBox {
        box_id,
        device,
        identifier,
        generation,
    };
    commands
        .into_iter()
        .chain([Order::ActivateBox(activate)])
        .map(|command| routed(partition, command))
        .collect()
}
