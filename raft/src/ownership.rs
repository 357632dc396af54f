//! What the group owns, as last applied here: a cache that stamps each command with the epoch of
//! its partition. It is only a hint: apply checks again.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rossby_domain::ids::{Epoch, PartitionId};

/// Epochs of the partitions, read through on demand and forgotten when an ownership changes.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    // Counts the times the cache was emptied, so that a read that began before is not kept.
    generation: u64,
    epochs: BTreeMap<PartitionId, Option<Epoch>>,
}

impl Ownership {
    /// The epoch of a partition; `read` looks it up in the applied state.
    pub(crate) fn epoch<E>(
        &self,
        partition: PartitionId,
        read: impl FnOnce() -> Result<Option<Epoch>, E>,
    ) -> Result<Option<Epoch>, E> {
        let generation = {
            let state = self.state.lock();
            if let Some(epoch) = state.epochs.get(&partition) {
                return Ok(*epoch);
            }
            state.generation
        };
        let epoch = read()?;
        let mut state = self.state.lock();
        if state.generation == generation {
            state.epochs.insert(partition, epoch);
        }
        Ok(epoch)
    }

    /// Forgets all: an ownership changed.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.epochs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionId {
        PartitionId::new(7).unwrap()
    }

    #[test]
    fn an_epoch_is_read_once_until_ownership_changes() {
        let cache = Ownership::default();
        let first = cache.epoch(partition(), || Ok::<_, ()>(Some(Epoch(1))));
        assert_eq!(first, Ok(Some(Epoch(1))));
        assert_eq!(cache.epoch(partition(), || Err(())), Ok(Some(Epoch(1))));
        cache.clear();
        let second = cache.epoch(partition(), || Ok::<_, ()>(Some(Epoch(2))));
        assert_eq!(second, Ok(Some(Epoch(2))));
    }

    #[test]
    fn a_read_that_an_ownership_change_overtook_is_not_kept() {
        let cache = Ownership::default();
        let stale = cache.epoch(partition(), || {
            cache.clear();
            Ok::<_, ()>(None)
        });
        assert_eq!(stale, Ok(None));
        let fresh = cache.epoch(partition(), || Ok::<_, ()>(Some(Epoch(1))));
        assert_eq!(fresh, Ok(Some(Epoch(1))));
    }
}
