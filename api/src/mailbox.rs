//! The mailbox service of a node: who is asking, then the call itself.

use std::sync::Arc;

use async_trait::async_trait;
use rossby_domain::ids::{PartitionCount, PartitionId};
use rossby_raft::Group;
use rossby_seams::clock::Clock;
use rossby_seams::random::Random;

use crate::call::{Call, CallError, CallReply, Door};
use crate::limits::DoorLimits;
use crate::metrics::Metrics;
use crate::secrets::ClusterSecrets;

/// Which group serves a partition, as far as this node runs a replica of it.
pub trait Directory: Send + Sync + 'static {
    /// This node's replica of the group that owns the partition; `None` if the node has none.
    fn group(&self, partition: PartitionId) -> Option<Arc<Group>>;
}

impl<F> Directory for F
where
    F: Fn(PartitionId) -> Option<Arc<Group>> + Send + Sync + 'static,
{
    fn group(&self, partition: PartitionId) -> Option<Arc<Group>> {
        self(partition)
    }
}

/// What the service is made of.
pub struct MailboxConfig {
    /// The groups that this node runs replicas of.
    pub directory: Arc<dyn Directory>,
    /// The cluster's secrets.
    pub secrets: Arc<ClusterSecrets>,
    /// The cluster's number of partitions.
    pub partitions: PartitionCount,
    /// The cluster's name: the host in the Hawk MAC.
    pub cluster_name: String,
    /// The clock that requests are held against.
    pub clock: Arc<dyn Clock>,
    /// Where codes and sealing nonces come from.
    pub random: Arc<dyn Random>,
    /// Limits of the doors.
    pub limits: DoorLimits,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
}

/// The mailbox service of a node.
pub struct MailboxService {
    pub(crate) config: MailboxConfig,
}

impl MailboxService {
    /// The service.
    #[must_use]
    pub fn new(config: MailboxConfig) -> Self {
        Self { config }
    }

    /// Answers one call, or says who should.
    ///
    /// # Errors
    /// [`CallError::Elsewhere`] if another node leads the caller's group and the call was not
    /// relayed yet; otherwise [`CallError::Refused`].
    pub async fn handle(&self, _call: Call) -> Result<CallReply, CallError> {
        todo!()
    }
}

#[async_trait]
impl Door for MailboxService {
    /// Without a relay: a call for another node is refused as unavailable.
    async fn call(&self, call: Call) -> Result<CallReply, tonic::Status> {
        self.handle(call).await.map_err(Into::into)
    }
}
