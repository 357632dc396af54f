//! A whole node's storage, from the empty folder to the end: identity, log, checkpoints, start-up and
//! shutdown together, under power loss and kills at every step, and under damage at every byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod checker;
mod damage;
mod history;
mod kills;
mod player;
mod power;

/// Whether there is time for more than the quick form of a test.
fn is_long() -> bool {
    std::env::var_os("ROSSBY_LONG").is_some()
}
