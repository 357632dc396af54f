//! The write-ahead log against a model, against power loss at every step, and against flipped bits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod behaviour;
mod crash;
mod damage;
mod harness;
mod model;
