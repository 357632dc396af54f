//! What the leader of a group does by itself: takes over partitions, brings codes to people,
//! finishes half-done registrations, and removes what has expired.
//!
//! ```text
//!   adopt     partition not owned yet   ──► Adopt
//!   courier   row in an outbox          ──► Courier::deliver ──► MarkCodeSent
//!   finisher  box pending, claim verified ─► ActivateBox
//!   expiry    partition owned           ──► Expire
//! ```
//!
//! Each runs on every node and works only while its replica leads. Each step may be done twice, by
//! an old leader and a new one: every command here is idempotent. Nothing a person owns is logged.

use std::sync::Arc;

use rossby_domain::ids::PartitionCount;
use rossby_domain::limits::Limits;
use rossby_raft::Group;
use rossby_seams::clock::Clock;
use rossby_seams::random::Random;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::courier::Courier;
use crate::metrics::Metrics;
use crate::secrets::ClusterSecrets;

/// The workers of one group on one node.
#[derive(Clone)]
pub struct Workers {
    /// This node's replica of the group.
    pub group: Arc<Group>,
    /// The cluster's number of partitions.
    pub partitions: PartitionCount,
    /// The limits that partitions are taken over with.
    pub limits: Limits,
    /// Opens what waits in the outbox.
    pub secrets: Arc<ClusterSecrets>,
    /// Who brings codes to people.
    pub courier: Arc<dyn Courier>,
    /// Tells whether a code is still worth sending.
    pub clock: Arc<dyn Clock>,
    /// Spreads the workers of different nodes in time.
    pub random: Arc<dyn Random>,
    /// Where deliveries are counted.
    pub metrics: Arc<Metrics>,
}

impl Workers {
    /// Starts them all; they end when `stop` is cancelled.
    pub fn spawn(self, _tasks: &TaskTracker, _stop: &CancellationToken) {
        todo!()
    }
}
