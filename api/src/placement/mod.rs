//! What a node knows of placement, and what it does for it: the newest map, its replicas, and, while it leads
//! the placement group, the steps towards what the map asks for.
//!
//! ```text
//!   map        the newest map, from group 0's log or a peer ──► directory ──► router, workers
//!   replicas   this node's replicas                         ──┘    │
//!   reports    what the groups led here tell ──► reconcile (on the leader of group 0) ──► plan (crate domain)
//!   orders     whose turn it is in a group   ◄── a step, at the group's leader ◄───────────────┘
//!   grow       an order to add a group, which the loop finishes if it broke off
//!   admission  join tokens, issued, revoked and taken by group 0; attempt: what a joiner keeps of its try
//! ```
//!
//! How other nodes are reached is not known here: [`MapSource`] and [`Ground`] are what is asked of them.

mod admission;
mod attempt;
mod directory;
mod grow;
mod map;
mod orders;
mod reconcile;
mod replicas;
mod reports;
mod sealed;

pub use admission::{
    ADMISSION_WITHIN, Issued, admit, issue_token, of_placement_group, revoke_token,
};
pub use attempt::{AttemptError, begin_attempt, begun_attempt, end_attempt};
pub use directory::NodeDirectory;
pub use grow::{best, first_members, grow, hear_of};
pub use map::{MapKeeper, MapSource};
pub use orders::{By, OrderGuard, Orders, StepGuard};
pub use reconcile::{Ground, Known, Told, kind, latest, reconcile};
pub use replicas::Replicas;
pub use reports::{PlannedChange, begin_step, reports};
pub use sealed::SealedFile;
