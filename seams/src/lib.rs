//! The five doors to the outside. Everything that a process can not decide by itself comes in
//! through one of these small traits, so that a whole cluster can run in one process on simulated
//! time, chance, disks and network (`docs/ARCHITECTURE.md`, "Seams").
//!
//! ```text
//!   Clock      what time is it?             SystemClock        ManualClock
//!   Random     bytes nobody can guess       OsRandom           SeededRandom
//!   Disk       files of log and checkpoints FileDisk           MemoryDisk (drops what was not synced)
//!   Base       the rebuildable key-value    storage::SledBase  MemoryBase
//!   Transport  frames from node to node     api::PeerTransport MemoryNetwork
//! ```
//!
//! Invariant: no other crate reads a clock, draws randomness, or touches log and checkpoint files
//! but through these. Pacing (timeouts, intervals) is tokio's timer, which simulation can drive.
//! Where the order of waking matters to a simulation, [`watch`] stands in for tokio's.

pub mod base;
pub mod clock;
pub mod disk;
pub mod random;
pub mod transport;
pub mod watch;
