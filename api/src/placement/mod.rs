//! What a node knows of placement, and what it does for it: the newest map, its replicas, and, while it leads
//! the placement group, the steps towards what the map asks for.
//!
//! ```text
//!   map        the newest map, from group 0's log or a peer ──► directory ──► router, workers
//!   replicas   this node's replicas                         ──┘    │
//!   reports    what the groups led here tell ──► reconcile (on the leader of group 0) ──► plan (crate domain)
//!   orders     whose turn it is in a group   ◄── a step, at the group's leader ◄───────────────┘
//! ```
//!
//! How other nodes are reached is not known here: [`MapSource`] and [`Ground`] are what is asked of them.

mod directory;
mod map;
mod orders;
mod reconcile;
mod replicas;
mod reports;
mod sealed;

pub use directory::NodeDirectory;
pub use map::{MapKeeper, MapSource};
pub use orders::{By, OrderGuard, Orders, StepGuard};
pub use reconcile::{Ground, Told, kind, latest, reconcile};
pub use replicas::Replicas;
pub use reports::{PlannedChange, begin_step, reports};
pub use sealed::SealedFile;
