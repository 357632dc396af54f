//! Who may have a subscription: one per device, the newest, and so many per node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::DeviceAddress;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Ending;
use super::ending::stopping;
use crate::error::{ApiError, Code};

/// How long a device is asked to wait while there is no place.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// The places for subscriptions on a node. Clones are the same places.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Taken {
    last_serial: u64,
    by_device: HashMap<DeviceAddress, Held>,
}

#[derive(Debug)]
struct Held {
    serial: u64,
    replaced: CancellationToken,
    room: Arc<OwnedSemaphorePermit>,
}

impl Places {
    /// This many places.
    pub(crate) fn new(count: u32) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Self(Arc::new(Inner {
            free: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            taken: Mutex::default(),
            closed: CancellationToken::new(),
        }))
    }

    /// A place for a device's subscription. An earlier one of the same device ends.
    pub(crate) fn take(&self, device: DeviceAddress) -> Result<Place, ApiError> {
        let mut taken = self.0.taken.lock();
        let room = match taken.by_device.get(&device) {
            // Its successor needs no room of its own.
            Some(earlier) if !self.0.closed.is_cancelled() => Arc::clone(&earlier.room),
            _ => Arc::new(self.take_room()?),
        };
        taken.last_serial += 1;
        let (serial, replaced) = (taken.last_serial, CancellationToken::new());
        let held = Held {
            serial,
            replaced: replaced.clone(),
            room: Arc::clone(&room),
        };
        if let Some(earlier) = taken.by_device.insert(device, held) {
            earlier.replaced.cancel();
        }
        Ok(Place {
            places: self.clone(),
            device,
            serial,
            replaced,
            _room: room,
        })
    }

    /// Room for a subscription that is only relayed.
    pub(crate) fn take_room(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.0.closed.is_cancelled() {
            return Err(stopping());
        }
        let full = |_| ApiError::from(Code::TooManySubscriptions).with_retry_after(FULL_PAUSE);
        Arc::clone(&self.0.free).try_acquire_owned().map_err(full)
    }

    /// All subscriptions end, and none begins any more.
    pub(crate) fn close(&self) {
        self.0.closed.cancel();
    }

    /// When [`Self::close`] was called.
    pub(crate) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }
}

/// A device's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    device: DeviceAddress,
    serial: u64,
    replaced: CancellationToken,
    _room: Arc<OwnedSemaphorePermit>,
}

impl Place {
    /// Waits until the place is lost.
    pub(crate) async fn lost(&self) -> Ending {
        tokio::select! {
            () = self.replaced.cancelled() => Ending::Replaced,
            () = self.places.closed() => Ending::Stopping,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.taken.lock();
        let held = taken.by_device.get(&self.device);
        if held.is_some_and(|held| held.serial == self.serial) {
            taken.by_device.remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::{BoxId, DeviceId, PartitionId};

    use super::*;

    fn device(number: u8) -> DeviceAddress {
        let box_id = BoxId::derive(PartitionId::new(0).unwrap(), &[1; 32]);
        DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([number; 16]),
        }
    }

    fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>) -> Code {
        result.unwrap_err().code()
    }

    #[tokio::test]
    async fn a_full_node_refuses_devices_and_relays_until_somebody_leaves() {
        let places = Places::new(2);
        let first = places.take(device(1)).unwrap();
        let relayed = places.take_room().unwrap();
        assert_eq!(refused(places.take(device(2))), Code::TooManySubscriptions);
        assert_eq!(refused(places.take_room()), Code::TooManySubscriptions);
        drop(relayed);
        let second = places.take(device(2)).unwrap();
        drop(first);
        drop(second);
        assert!(places.0.taken.lock().by_device.is_empty());
        assert_eq!(places.0.free.available_permits(), 2);
    }

    #[tokio::test]
    async fn the_newest_of_a_device_takes_the_place_of_the_older_also_on_a_full_node() {
        let places = Places::new(1);
        let older = places.take(device(1)).unwrap();
        let newer = places.take(device(1)).unwrap();
        assert!(matches!(older.lost().await, Ending::Replaced));
        // Its end must not take the newer one's place away.
        drop(older);
        let newest = places.take(device(1)).unwrap();
        assert!(matches!(newer.lost().await, Ending::Replaced));
        drop(newer);
        assert_eq!(refused(places.take(device(2))), Code::TooManySubscriptions);
        drop(newest);
        places.take(device(2)).unwrap();
    }

    #[tokio::test]
    async fn a_node_that_stops_takes_nobody_and_sends_everybody_away() {
        let places = Places::new(9);
        let place = places.take(device(1)).unwrap();
        places.close();
        assert!(matches!(place.lost().await, Ending::Stopping));
        assert_eq!(refused(places.take(device(1))), Code::Unavailable);
        assert_eq!(refused(places.take(device(2))), Code::Unavailable);
        assert_eq!(refused(places.take_room()), Code::Unavailable);
    }
}
