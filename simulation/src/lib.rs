//! The deterministic world: whole clusters and their clients in one process, on simulated time,
//! network and disks, with the real domain, storage, raft and client code.
//!
//! ```text
//!   world (seed) ──► observations ──► judge ──► invariants (one file each) ──► Violation
//!                         │                          └── known: oracle (what clients did and know)
//!                         │                                     and the replicas' logs
//!                         └──► trace (same seed, same lines) and timeline (for people)
//! ```
//!
//! Everything that the judgement needs is an [`observe::Observation`]. The invariants see nothing
//! else, so each can be tested with a history that was made up.

pub mod invariants;
pub mod judge;
pub mod known;
pub mod observe;
pub mod oracle;
pub mod replica_logs;
pub mod timeline;
pub mod world;
