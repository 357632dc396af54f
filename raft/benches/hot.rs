//! How long the hot pieces of this crate take: frames between peers. See docs/BENCHMARKS.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "benches"
)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rossby_domain::command::{Enqueue, EnvelopeDigest};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Command, Routed};
use rossby_raft::bench::AppendFrame;
use rossby_storage::codec::Batch;

/// A batch of so many letters of 1 KiB.
fn batch(letters: u64) -> Batch {
    let partition = PartitionId::new(7).unwrap();
    let recipient = BoxId::derive(partition, &[1; 32]);
    let sender = DeviceAddress {
        box_id: BoxId::derive(partition, &[2; 32]),
        device: DeviceId::from_bytes([3; 16]),
    };
    let letter = |counter| {
        let body = Bytes::from(vec![0xa5; 1024]);
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
        Routed {
            partition,
            epoch: Epoch(1),
            command: Command::Enqueue(enqueue),
        }
    };
    Batch {
        stamp: Timestamp::from_millis(1_795_000_000_000),
        may_expire: false,
        commands: (1..=letters).map(letter).collect(),
    }
}

/// One entry of a letter, one of 64, and 16 entries of one letter each.
fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (entries, letters) in [(1, 1), (1, 64), (16, 1)] {
        let frame = AppendFrame::of(&batch(letters), entries).unwrap();
        let bytes = frame.encode();
        let shape = format!("{entries}x{letters}");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("encode", &shape), |bencher| {
            bencher.iter(|| frame.encode());
        });
        group.bench_function(BenchmarkId::new("decode", &shape), |bencher| {
            bencher.iter(|| AppendFrame::decode(&bytes).unwrap());
        });
    }
    group.finish();
}

criterion_group!(hot, frames);
criterion_main!(hot);
