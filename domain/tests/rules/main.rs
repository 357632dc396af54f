//! The rules, command by command and as a whole, over one partition in memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod abuse;
mod chain;
mod common;
mod deleting;
mod devices;
mod doubted_time;
mod enqueue;
mod fates;
mod identifiers;
mod keys;
mod mailbox;
mod model;
mod ownership;
mod parsers;
mod placement;
mod profiles;
mod registration;
mod resets;
mod restored;
mod unseen;
