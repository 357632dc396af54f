//! Placement: which nodes there are, in which regions, which groups they carry, and which group owns
//! which partition.
//!
//! ```text
//!   Change ──► ClusterMap::after(change) ──► the next version        (in group 0's log: command::Place)
//!                     │                                             (Admit, IssueToken, RevokeToken: admission.rs)
//!                     ├── route   partition ─► group ─► nodes        (a hint: owners are fenced in their own logs)
//!                     ├── desired map ─► who should vote in a group  (by the survival goal)
//!                     ├── plan    map, memberships, health ─► steps  (pure; one step of a group at a time)
//!                     └── explain map, memberships ─► what survives the loss of a region or node
//! ```
//!
//! Invariants:
//! - A version is never given twice and never goes back; each change makes the next one, and in a state
//!   restored from a backup one above all that were lost.
//! - A partition that has an owner keeps it: changes only hand out spare partitions. So no two groups
//!   ever own one at the same time, whatever map anybody still believes in. The exception is a group whose quorum
//!   was lost for good (recover.rs): its successor owns all that it owned, at higher epochs.
//! - The memberships of groups are the truth, the map is the intent: nothing here says who votes, only who
//!   should.
//! - A map from a peer or a file is checked as it is decoded: there is no value of one that does not hold.

mod admission;
mod change;
mod check;
mod desired;
mod explain;
mod growth;
mod map;
mod membership;
mod names;
mod plan;
mod recover;

use crate::ids::{GroupId, PartitionId};

pub use admission::{
    AdmissionRefusal, Admissions, JoinAttempt, JoinToken, Joiner, MAX_TOKEN_MS, MAX_TOKENS,
    TokenDigest, TokenRegion, TokenUse, TokenWanted,
};
pub use change::{Beginning, Change, FoundingGroup, MapHistoryRow, PlacementRefusal};
pub use check::InvalidMap;
pub use desired::{Birth, Load, Nodes, VOTERS_AT_HOME, birth, founders, placement_voters};
pub use explain::{Consequence, Explanation, Harm, Lost, Writes, explain};
pub use growth::next_group;
pub use map::{ClusterMap, GroupEntry, NodeEntry, NodeState, Owner, Successor, SurvivalGoal};
pub use membership::Membership;
pub use names::{RegionName, RegionNameError};
pub use plan::{Health, Patience, Report, Step, plan};

/// The group that owns the cluster map.
pub const PLACEMENT_GROUP: GroupId = GroupId(0);
/// The partition of the placement group's own key space that the map is in.
pub const PLACEMENT_PARTITION: PartitionId = PartitionId::FIRST;
