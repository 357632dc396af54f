//! Load on a running service, through its public API, by the SDK that devices use; and what the machine
//! could do at best.
//!
//! ```text
//!   service.rs ──► account.rs ──► workload/ ──► drive.rs ──► summary.rs, rounds.rs
//!   connections    boxes, by      what one      clients in a   throughput and percentiles,
//!   to the nodes   codes.rs,      client does   closed loop    beside checkpoints and without
//!                  births.rs                       │
//!                                process.rs: what it cost      floor/: echo, disk
//! ```
//!
//! Closed loop: each client begins its next operation when the one before has been answered. Every
//! request is signed with Hawk, and every answer is verified, as on a device. Nothing here knows a
//! server crate: a service that somebody else runs is measured in the same way.

pub mod account;
pub mod births;
pub mod codes;
pub mod drive;
mod error;
pub mod floor;
pub mod process;
pub mod rounds;
pub mod service;
pub mod summary;
pub mod workload;

pub use error::BenchError;
