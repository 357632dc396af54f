//! How long the hot pieces of this crate take: the log, the state, the codec. See docs/BENCHMARKS.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "benches"
)]

mod codec;
mod mailboxes;
mod state;
mod wal;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    hot,
    wal::append,
    state::apply,
    state::read,
    state::checkpoint,
    codec::batches,
    codec::rows
);
criterion_main!(hot);
