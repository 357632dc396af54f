//! Bytes of entries and of rows.

use criterion::{Criterion, Throughput};
use rossby_domain::Routed;
use rossby_domain::chain::KeyRecord;
use rossby_domain::command::EnvelopeDigest;
use rossby_domain::dedupe::{Accepted, SenderRow, WINDOW};
use rossby_domain::envelope::Envelope;
use rossby_domain::ids::{Counter, EnvelopeId, PartitionId, Sequence};
use rossby_domain::time::Timestamp;
use rossby_storage::codec::{decode_batch, decode_value, encode_batch, encode_value};

use crate::mailboxes::{Mailbox, batch, noise};

const BATCH: u64 = 64;
const BODY_BYTES: usize = 1024;

fn mailbox(number: u32) -> Mailbox {
    Mailbox::new(PartitionId::new(7).unwrap(), number)
}

/// An entry of letters.
pub fn batches(criterion: &mut Criterion) {
    let (ada, ben) = (mailbox(1), mailbox(2));
    let letter = |number| ben.letter(ada.address, number, noise(BODY_BYTES, number));
    let letters: Vec<Routed> = (1..=BATCH).map(letter).collect();
    let batch = batch(letters);
    let bytes = encode_batch(&batch).unwrap();
    let mut group = criterion.benchmark_group("codec_batch_64");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("encode", |bencher| bencher.iter(|| encode_batch(&batch)));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode_batch(&bytes).unwrap());
    });
    group.finish();
}

/// The rows that a send writes and reads.
pub fn rows(criterion: &mut Criterion) {
    let (ada, ben) = (mailbox(1), mailbox(2));
    let envelope = Envelope {
        sequence: Sequence(7),
        id: EnvelopeId {
            sender: ada.address,
            counter: Counter(7),
        },
        enqueued_at: Timestamp::from_millis(1_795_000_000_000),
        expires_at: Timestamp::from_millis(1_797_000_000_000),
        body: noise(BODY_BYTES, 1),
    };
    let mut group = criterion.benchmark_group("codec_row");
    let bytes = encode_value(&envelope).unwrap();
    group.bench_function("envelope_encode", |bencher| {
        bencher.iter(|| encode_value(&envelope));
    });
    group.bench_function("envelope_decode", |bencher| {
        bencher.iter(|| decode_value::<Envelope>(&bytes).unwrap());
    });
    let bytes = encode_value(&ben.record).unwrap();
    group.bench_function("key_record_decode", |bencher| {
        bencher.iter(|| decode_value::<KeyRecord>(&bytes).unwrap());
    });
    // What a box remembers of a sender who has written often.
    let accepted = (1..=WINDOW as u64).map(|number| Accepted {
        counter: Counter(number),
        sequence: Sequence(number),
        digest: EnvelopeDigest([7; 16]),
    });
    let sender = SenderRow {
        accepted: accepted.collect(),
        ..SenderRow::default()
    };
    let bytes = encode_value(&sender).unwrap();
    group.bench_function("sender_encode", |bencher| {
        bencher.iter(|| encode_value(&sender));
    });
    group.bench_function("sender_decode", |bencher| {
        bencher.iter(|| decode_value::<SenderRow>(&bytes).unwrap());
    });
    group.finish();
}
