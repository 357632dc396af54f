//! The log: from an append to the word that it is durable, on a real disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::FileDisk;
use rossby_storage::LogPosition;
use rossby_storage::wal::{GroupLog, LogRecord, Wal, WalOptions, spawn_writer};
use tokio::runtime::Runtime;

use crate::mailboxes::noise;

const ENTRY_BYTES: usize = 1024;
/// After so much the log is purged, as after a checkpoint.
const KEPT_BYTES: usize = 64 << 20;

/// So many entries in one append: one drain, one write and one fdatasync.
pub fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_append");
    for entries in [1_usize, 16, 256] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut log = Log::open(folder.path());
        group.throughput(Throughput::Elements(entries as u64));
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let records = log.records(entries);
                    let began = Instant::now();
                    log.append(records);
                    spent += began.elapsed();
                    log.purge_now_and_then(entries);
                }
                spent
            });
        });
    }
    group.finish();
}

struct Log {
    wal: Wal,
    log: GroupLog,
    runtime: Runtime,
    body: Bytes,
    last: u64,
    since_purge: usize,
}

impl Log {
    fn open(folder: &Path) -> Self {
        let disk = Arc::new(FileDisk);
        let (wal, writer) = Wal::open(disk, folder, WalOptions::default()).unwrap();
        spawn_writer(writer).unwrap();
        let log = wal.log(GroupId(1), ReplicaId(1)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self {
            wal,
            log,
            runtime: runtime.unwrap(),
            body: noise(ENTRY_BYTES, 1),
            last: 0,
            since_purge: 0,
        }
    }

    fn position(&self) -> LogPosition {
        let index = self.last;
        LogPosition { term: 1, index }
    }

    fn records(&mut self, count: usize) -> Vec<LogRecord> {
        let record = |_| {
            self.last += 1;
            LogRecord {
                position: self.position(),
                bytes: self.body.clone(),
            }
        };
        (0..count).map(record).collect()
    }

    fn append(&self, records: Vec<LogRecord>) {
        let (durable, wait) = sync_channel(1);
        let tell = Box::new(move |result| durable.send(result).unwrap());
        self.log.append(records, tell).unwrap();
        wait.recv().unwrap().unwrap();
    }

    fn purge_now_and_then(&mut self, entries: usize) {
        self.since_purge += entries * ENTRY_BYTES;
        if self.since_purge >= KEPT_BYTES {
            self.since_purge = 0;
            let upto = self.position();
            self.runtime.block_on(self.log.purge(upto)).unwrap();
            assert_eq!(self.wal.pinned_bytes(GroupId(1)), 0);
        }
    }
}
