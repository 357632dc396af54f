//! What the group owns, as last applied here: a cache that stamps each command with the epoch of
//! its partition. It is only a hint: apply checks again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rossby_domain::ids::{Epoch, PartitionCount, PartitionId};

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
    // All that are owned, of so many.
    owned: Option<(PartitionCount, Arc<[PartitionId]>)>,
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

    /// The partitions that are owned, of so many; `read` looks one up in the applied state.
    pub(crate) fn owned<E>(
        &self,
        count: PartitionCount,
        read: impl Fn(PartitionId) -> Result<Option<Epoch>, E>,
    ) -> Result<Arc<[PartitionId]>, E> {
        let generation = {
            let state = self.state.lock();
            if let Some((of, owned)) = &state.owned
                && *of == count
            {
                return Ok(owned.clone());
            }
            state.generation
        };
        let mut owned = Vec::new();
        for partition in count.all() {
            if self.epoch(partition, || read(partition))?.is_some() {
                owned.push(partition);
            }
        }
        let owned: Arc<[PartitionId]> = owned.into();
        let mut state = self.state.lock();
        if state.generation == generation {
            state.owned = Some((count, owned.clone()));
        }
        Ok(owned)
    }

    /// Forgets all: an ownership changed.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.epochs.clear();
        state.owned = None;
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
    fn what_is_owned_is_looked_for_once_until_ownership_changes() {
        let cache = Ownership::default();
        let read = |partition: PartitionId| {
            let is_even = partition.number().is_multiple_of(2);
            Ok::<_, ()>(is_even.then_some(Epoch(1)))
        };
        let four = PartitionCount::new(4).unwrap();
        let numbers = |owned: Arc<[PartitionId]>| -> Vec<u16> {
            owned.iter().map(|partition| partition.number()).collect()
        };
        assert_eq!(numbers(cache.owned(four, read).unwrap()), [0, 2]);
        assert_eq!(numbers(cache.owned(four, |_| Err(())).unwrap()), [0, 2]);
        cache.clear();
        assert_eq!(cache.owned(four, |_| Err(())), Err(()));
        assert_eq!(numbers(cache.owned(four, read).unwrap()), [0, 2]);
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
