//! Who belongs to a group, and how that changes while it serves.
//!
//! ```text
//!   order ─► plan (pure) ─► one step ─► openraft, guarded by the membership that was looked at
//!     ▲                        │
//!     └── the same order again ◄── what is not the group's to do: ask, invite, wait
//! ```
//!
//! Invariants:
//! - The membership is the truth, and no order is kept beside it: each step is derived from what
//!   the membership is now. So the same order, given again by anybody, goes on where it stopped.
//! - A step is taken only if the membership is still the one that it was derived from, and one that
//!   a leader of its own term has confirmed. Two operators do not interleave.
//! - A member gets a vote only once its log has caught up; all that an order brings or takes change in
//!   one joint step, a member that leaves and one that comes in its place among them.
//! - Replica ids are never used twice (`standing.rs`).

mod change;
mod plan;
mod standing;

pub(crate) use change::{JointLook, look_for_joint};
pub(crate) use standing::{
    Standing, StandingLook, dismiss, look_for_standing, next_replica, standing,
};

pub use change::{Advance, ChangeError};
pub use plan::{MAX_VOTERS, Members, Newcomer, Newcomers, Order, Refused, Seat};
