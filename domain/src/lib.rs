//! The rules of Rossby: what a box, a device, a claim, a key record and an envelope are, which
//! commands change them and which queries read them.
//!
//! Pure: no I/O, no async, no clock, no randomness, no protobuf, no storage engine. A replica that
//! applies the same commands to the same tables ends with the same bytes (guarantee P10), because
//! nothing else can enter.
//!
//! ```text
//!   Command ──► apply(tables, context, command) ──► Outcome | Rejection      (writes, via the log)
//!   Query   ──► answer(tables, now, query)      ──► Answer                   (reads)
//!                      │
//!                      └── Tables: one method per thing that a table allows (tables/mod.rs)
//! ```
//!
//! Start reading at [`command`], then [`tables`], then the file of one command.

pub mod apply;
pub mod chain;
pub mod claim;
pub mod command;
pub mod contest;
pub mod dedupe;
pub mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod identifier;
pub mod ids;
pub mod limits;
pub mod mac;
mod outside;
pub mod placement;
pub mod planted;
pub mod profile;
pub mod query;
mod queue;
pub mod rejection;
pub mod report;
pub mod restored;
pub mod statement;
pub mod tables;
pub mod time;
pub mod wire;

pub use apply::{Context, apply};
pub use command::{Command, Outcome, Reply, Routed};
pub use query::{Answer, Query, answer};
pub use rejection::Rejection;
