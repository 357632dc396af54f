//! Subscriptions: streams that bring the envelopes of a box as they come.
//!
//! ```text
//!   rpc::subscribe ──► Places::take      one per device (the newest), so many per node
//!        │
//!        └──► Subscription: a task       room to send? ──► BoxReader::read ──► send ──► wait
//!                  ▲                                        │                             │
//!                  │      leads? (ReadIndex) ─► may the device read? ─► the next page     │
//!                  └──────────── the box has changed (raft::BoxWatch), or a sign of life ─┘
//! ```
//!
//! Invariants:
//! - Nothing is read for a subscriber that has not taken what came before: the store is the buffer,
//!   and one page is all the memory that a slow subscriber holds.
//! - Each page is read behind a confirmation by a quorum that this node still leads, in the same
//!   reign in which the subscription began, and behind a check that the device may still read.
//! - The watch on the box begins before the first read, so no change falls between a read and the
//!   wait after it.
//! - A subscription moves nothing. Where it stands is known to its subscriber alone.

mod ending;
mod places;
mod reader;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use ending::Ending;
pub(crate) use places::Places;
pub(crate) use reader::{BoxReader, PageLimits};
pub(crate) use serve::{Patience, Subscription};
