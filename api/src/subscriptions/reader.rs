//! Where a subscription's pages come from.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::ids::{DeviceAddress, PartitionId, Sequence};
use rossby_domain::query::Page;
use rossby_domain::{Answer, Query};
use rossby_raft::{BoxWatch, Group, Leadership};
use tokio::time::Instant;

use super::Ending;
use crate::mailbox::Standing;

/// A box, as a subscription sees it.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    /// The next page after a sequence, if this node still leads and the device may still read.
    async fn read(&self, after: Sequence) -> Result<Page, Ending>;

    /// Waits until there may be something new since this last returned, or since the source was
    /// made. Remembers what happens while nobody waits.
    async fn changed(&self);

    /// Waits until this node no longer leads in the reign in which the source was made.
    async fn deposed(&self) -> Ending;
}

/// How much is read at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLimits {
    pub max_envelopes: u32,
    pub max_bytes: u32,
}

/// The box of a device, at the leader of its group.
pub(crate) struct BoxReader {
    group: Arc<Group>,
    term: u64,
    partition: PartitionId,
    device: DeviceAddress,
    generation: u64,
    limits: PageLimits,
    /// How long a read may take.
    patience: Duration,
    watch: BoxWatch,
}

impl BoxReader {
    /// Begins to watch the box of a device that has just proven who it is.
    pub(crate) fn new(
        device: DeviceAddress,
        standing: Standing,
        limits: PageLimits,
        patience: Duration,
    ) -> Self {
        let Standing {
            led,
            partition,
            generation,
        } = standing;
        let watch = led.group.watch_box(device.box_id);
        Self {
            group: led.group,
            term: led.reign.term,
            partition,
            device,
            generation,
            limits,
            patience,
            watch,
        }
    }

    fn leads(&self, leadership: &Leadership) -> bool {
        *leadership == Leadership::Here { term: self.term }
    }
}

#[async_trait]
impl Source for BoxReader {
    async fn read(&self, after: Sequence) -> Result<Page, Ending> {
        self.group.linearize(Instant::now() + self.patience).await?;
        if !self.leads(&self.group.leadership()) {
            return Err(Ending::NotLeading("another reign has begun".to_owned()));
        }
        let query = Query::Fetch {
            device: self.device,
            after,
            max_envelopes: self.limits.max_envelopes,
            max_bytes: self.limits.max_bytes,
        };
        let page = match self.group.read_local(self.partition, &query)? {
            Answer::Page(Some(page)) => page,
            Answer::Page(None) => return Err(Ending::Revoked),
            _ => return Err(Ending::Failed("unexpected answer to Fetch".to_owned())),
        };
        // After the page: whoever may still read now might read all that is in it.
        let query = Query::DeviceAuth(self.device);
        match self.group.read_local(self.partition, &query)? {
            Answer::DeviceAuth(Some(generation)) if generation == self.generation => Ok(page),
            Answer::DeviceAuth(_) => Err(Ending::Revoked),
            _ => Err(Ending::Failed("unexpected answer to DeviceAuth".to_owned())),
        }
    }

    async fn changed(&self) {
        self.watch.changed().await;
    }

    async fn deposed(&self) -> Ending {
        let mut changes = self.group.watch_leadership();
        // An error means that the group has stopped.
        let _ = changes.wait_for(|now| !self.leads(now)).await;
        Ending::NotLeading("this node no longer leads".to_owned())
    }
}
