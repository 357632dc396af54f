//! How long the hot pieces of this crate take: Hawk, as every request meets it. See docs/BENCHMARKS.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "benches"
)]

use std::cell::Cell;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rossby_api::RpcPath;
use rossby_api::hawk::{Caller, Credentials, Guard, GuardConfig, Presented, Reign, SignedRequest};
use rossby_api::secrets::ClusterSecrets;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, GroupId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_seams::random::SeededRandom;

const HOST: &str = "bench.rossby";
const BEGIN_SECS: u64 = 1_795_000_000;
/// How many requests the service sees in a second of its time here: so many nonces are remembered for
/// the window.
const REQUESTS_PER_SECOND: u64 = 1000;

/// A guard, and a device that it knows.
struct World {
    guard: Guard,
    secrets: ClusterSecrets,
    address: DeviceAddress,
    requests: Cell<u64>,
}

/// A request as it came.
struct Request {
    header: String,
    at: Timestamp,
}

impl World {
    fn new() -> Self {
        let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[7; 32]);
        let device = DeviceId::from_bytes([9; 16]);
        Self {
            guard: Guard::new(GuardConfig {
                host: HOST.to_owned(),
                window_ms: 60_000,
                ahead_ms: 5_000,
                nonces: 1_000_000,
            }),
            secrets: ClusterSecrets::generate(&SeededRandom::new(1)).unwrap(),
            address: DeviceAddress { box_id, device },
            requests: Cell::new(0),
        }
    }

    /// The next request.
    fn request(&self, message: &[u8]) -> Request {
        let number = self.requests.get();
        self.requests.set(number + 1);
        let ts_secs = BEGIN_SECS + number / REQUESTS_PER_SECOND;
        let token = self.secrets.token(&self.address, 1);
        let signed = SignedRequest {
            address: self.address,
            token: token.as_bytes(),
            host: HOST,
            path: RpcPath::Send,
            ts_secs,
            nonce: &format!("nonce-{number:016}"),
        };
        Request {
            header: signed.authorization(message).unwrap(),
            at: Timestamp::from_millis(ts_secs * 1000),
        }
    }

    /// What a leader does with it: reads the header, makes the token, and checks all of it.
    fn admit(&self, request: &Request, message: &[u8]) -> Caller {
        let presented = Presented::parse(&request.header).unwrap();
        let tokens = self.secrets.accepted_tokens(presented.address(), 1);
        let credentials = Credentials {
            tokens: tokens.collect(),
            known: true,
        };
        let reign = Reign {
            group: GroupId(1),
            term: 1,
            since: Timestamp::from_millis((BEGIN_SECS - 100) * 1000),
            covered: request.at,
        };
        let admitted = self.guard.admit(
            presented,
            RpcPath::Send,
            message,
            credentials,
            reign,
            request.at,
        );
        admitted.unwrap()
    }
}

fn hawk(criterion: &mut Criterion) {
    let world = World::new();
    let mut group = criterion.benchmark_group("hawk");
    for bytes in [64_usize, 1024, 64 << 10] {
        let message = vec![0xa5; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("admit", bytes), |bencher| {
            bencher.iter_batched(
                || world.request(&message),
                |request| world.admit(&request, &message),
                BatchSize::SmallInput,
            );
        });
    }
    let message = vec![0xa5; 1024];
    let caller = world.admit(&world.request(&message), &message);
    let reply = Bytes::from(vec![0x5a; 64]);
    group.throughput(Throughput::Bytes(64));
    group.bench_function(BenchmarkId::new("vouch", 64), |bencher| {
        bencher.iter(|| world.guard.vouch(&caller, &reply).unwrap());
    });
    group.finish();
    let header = world.request(&message).header;
    let mut group = criterion.benchmark_group("hawk_of_which");
    group.bench_function("parse", |bencher| {
        bencher.iter(|| Presented::parse(&header).unwrap());
    });
    group.bench_function("token", |bencher| {
        bencher.iter(|| world.secrets.token(&world.address, 1));
    });
    group.finish();
}

criterion_group!(hot, hawk);
criterion_main!(hot);
