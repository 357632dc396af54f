//! How long the hot pieces of this crate take: sealing, opening and signing. See docs/BENCHMARKS.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "benches"
)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rossby_client::connection::Signer;
use rossby_client::crypto::secret::SecretBytes;
use rossby_client::envelope::{
    Arrival, Content, ConversationId, Letter, Recipient, Sender, open, seal,
};
use rossby_client::identity::Identity;
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_seams::random::{OsRandom, SeededRandom};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

/// Somebody with one device.
struct Person {
    identity: Identity,
    address: DeviceAddress,
}

impl Person {
    fn new(seed: u64) -> Self {
        let identity = Identity::generate(&SeededRandom::new(seed)).unwrap();
        let birth = PartitionId::new(7).unwrap();
        let address = DeviceAddress {
            box_id: BoxId::derive(birth, &identity.record().genesis_hash()),
            device: identity.device(),
        };
        Self { identity, address }
    }
}

fn envelopes(criterion: &mut Criterion) {
    let (ada, ben) = (Person::new(1), Person::new(2));
    let sender = Sender {
        address: ada.address,
        signing_key: ada.identity.signing_key(),
        record: ada.identity.record(),
    };
    let recipient = Recipient {
        address: ben.address,
        keys: ben.identity.kem_keys(),
        record: ben.identity.record(),
        sender_record: ada.identity.record(),
    };
    let mut group = criterion.benchmark_group("envelope");
    for bytes in [1024_usize, 64 << 10] {
        let content = Content::Text("x".repeat(bytes));
        let letter = Letter {
            recipient: ben.address.box_id,
            recipient_record: ben.identity.record(),
            counter: Counter(1),
            conversation: ConversationId::direct(&ada.address.box_id, &ben.address.box_id),
            written_at: NOW,
            content: &content,
        };
        group.bench_function(BenchmarkId::new("seal", bytes), |bencher| {
            bencher.iter(|| seal(&OsRandom, &sender, &letter).unwrap());
        });
        let body = seal(&OsRandom, &sender, &letter).unwrap();
        let arrival = Arrival {
            sender: ada.address,
            counter: Counter(1),
            body: &body,
        };
        group.bench_function(BenchmarkId::new("open", bytes), |bencher| {
            bencher.iter(|| open(&recipient, &arrival).unwrap());
        });
    }
    group.finish();
}

fn hawk(criterion: &mut Criterion) {
    let signer = Signer {
        address: Person::new(1).address,
        token: SecretBytes::new(vec![3; 32]),
        host: "bench.rossby".to_owned(),
    };
    let message = vec![0xa5; 1024];
    let sign = || signer.sign("/rossby.v1.Mailbox/Send", &message, NOW, &[7; 16]);
    criterion.bench_function("hawk_sign/1024", |bencher| bencher.iter(|| sign().unwrap()));
}

criterion_group!(hot, envelopes, hawk);
criterion_main!(hot);
