//! Agreement: Raft groups over openraft.
//!
//! ```text
//!   propose ─► batcher ─► openraft ─► log_store ─► storage::wal          (this node's log)
//!                            │  ▲
//!                            │  └──── inbound ◄── links of the peers ◄── seams::transport
//!                            ├─────► network ──► links ──► seams::transport ──► the peers
//!                            └─────► state_machine ─► storage::store     (apply, checkpoints)
//!   read ──► reads ──► (its lease is good, or a quorum confirms the leader) ──► storage::store::Reader
//! ```
//!
//! Invariants:
//! - What commands mean is not known here: they are bytes with a partition, and replies.
//! - Time enters a command when the leader proposes it, and only while its clock is in step with a
//!   quorum's (`clock_quorum.rs`). It never goes back (`service_time.rs`). Mail expires by it only if it does not run far ahead of the log
//!   (`expiry.rs`).
//! - No read shows what was the latest no more when it was asked for, whatever stood still meanwhile (`lease.rs`).
//! - A caller is told that nothing happened only if that is certain; otherwise the outcome is
//!   unknown.
//! - Members come and go while the group serves; who was removed never comes back (`members/`).
//! - A group of which nothing is asked rests: what it then costs does not grow with the number of groups (`rest/`).
//! - A storage failure stops the group on this node, for good, until the process is started again.

mod answers;
mod batcher;
#[doc(hidden)]
pub mod bench;
mod blocking;
mod book;
mod box_watch;
mod checkpoints;
mod clock_quorum;
mod core;
mod expiry;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod group;
mod groups;
mod heard;
mod inbound;
mod leadership;
mod lease;
mod links;
mod log_store;
mod looks;
mod member;
mod members;
mod network;
mod news;
mod ownership;
mod reads;
mod recovered;
mod rest;
mod restored;
mod rounds;
mod runtime;
mod service_time;
mod shipping;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod survey;
mod timing;
mod types;
mod witness;

pub use answers::{
    BackupError, CheckpointError, GroupStatus, InitializeError, Leadership, ProposeError, ReadError,
};
pub use blocking::Blocking;
pub use box_watch::BoxWatch;
pub use expiry::ClockJump;
pub use frame::MAX_FRAME_BYTES;
pub use group::Group;
pub use groups::{Groups, GroupsConfig, StartError};
pub use member::Member;
pub use members::{
    Advance, ChangeError, MAX_VOTERS, Members, Newcomer, Newcomers, Order, Refused, Seat,
};
pub use reads::ReadCounts;
pub use recovered::{Rebirth, RecoverError, conclude, replay};
pub use restored::{begin_restored_log, replicas_in, sole_member};
pub use rounds::CheckpointRounds;
pub use service_time::Hours;
pub use survey::{ReplicaFault, ReplicaSurvey, members_of, survey};
pub use timing::Timing;
pub use types::EntryError;
pub use witness::{Deed, SavedVote, Witness};
