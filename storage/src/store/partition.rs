//! A partition of a group: its layers over its rows in the base, and who may look at them when.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use rossby_domain::ids::PartitionId;

use super::base_rows::BasePartition;
use super::envelopes::StoredEnvelopes;
use super::layer::{Gauge, Layer};
use super::layers::Layers;
use super::view::View;

/// A partition of a group.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) base: BasePartition,
    layers: RwLock<Layers>,
}

impl Partition {
    pub(crate) fn new(
        id: PartitionId,
        base: BasePartition,
        envelopes: StoredEnvelopes,
        gauge: Gauge,
    ) -> Self {
        Self {
            id,
            base,
            layers: RwLock::new(Layers::new(envelopes, gauge)),
        }
    }

    /// The partition at one instant, which lasts as long as the view.
    pub(crate) fn read(&self) -> View<'_, RwLockReadGuard<'_, Layers>> {
        View::new(self.layers.read(), &self.base)
    }

    /// The partition for the one writer of its group. Readers wait while the view lives.
    pub(crate) fn write(&self) -> View<'_, RwLockWriteGuard<'_, Layers>> {
        View::new(self.layers.write(), &self.base)
    }

    /// Freezes what changed since the last cut; `None` if nothing did.
    pub(crate) fn freeze(&self) -> Option<Arc<Layer>> {
        self.layers.write().freeze()
    }

    /// The envelopes in files.
    pub(crate) fn envelopes(&self) -> StoredEnvelopes {
        self.layers.read().envelopes().clone()
    }

    /// Drops the frozen layer, which the base and these files now hold.
    pub(crate) fn settle(&self, frozen: &Arc<Layer>, envelopes: StoredEnvelopes) {
        let old = self.layers.write().settle(frozen, envelopes);
        // Files that nobody else needs are removed, while others read on.
        drop(old);
    }

    /// Takes back a freeze whose checkpoint did not come about.
    pub(crate) fn thaw(&self, frozen: &Arc<Layer>) {
        self.layers.write().thaw(frozen);
    }

    /// Forgets all changes: their group is closed.
    pub(crate) fn clear(&self) {
        self.layers.write().clear();
    }
}
