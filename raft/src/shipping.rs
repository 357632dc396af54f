//! Which checkpoints are on their way to followers: the log is not purged meanwhile, so that a
//! follower can go on from the checkpoint it was sent. Bounded, since a follower may never end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A shipment holds the log back for at most this long.
pub(crate) const HOLD_LIMIT: Duration = Duration::from_secs(600);

/// The shipments of one replica.
#[derive(Debug, Default)]
pub(crate) struct Shipping {
    state: Mutex<(u64, BTreeMap<u64, Instant>)>,
    sent_bytes: AtomicU64,
}

impl Shipping {
    /// Notes that a shipment begins; it ends when the result is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Shipment {
        let mut state = self.state.lock();
        state.0 += 1;
        let id = state.0;
        state.1.insert(id, Instant::now());
        Shipment {
            shipping: self.clone(),
            id,
        }
    }

    /// Notes that so many bytes have arrived.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes that have arrived so far, of all shipments.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Whether a shipment that began lately is under way.
    pub(crate) fn holds(&self) -> bool {
        self.state
            .lock()
            .1
            .values()
            .any(|began| began.elapsed() < HOLD_LIMIT)
    }
}

/// A shipment under way.
#[derive(Debug)]
pub(crate) struct Shipment {
    shipping: Arc<Shipping>,
    id: u64,
}

impl Drop for Shipment {
    fn drop(&mut self) {
        self.shipping.state.lock().1.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_is_held_while_a_checkpoint_ships_but_not_for_ever() {
        let shipping = Arc::new(Shipping::default());
        assert!(!shipping.holds());
        let first = shipping.begin();
        assert!(shipping.holds());
        tokio::time::advance(HOLD_LIMIT).await;
        assert!(!shipping.holds());
        let second = shipping.begin();
        drop(first);
        assert!(shipping.holds());
        drop(second);
        assert!(!shipping.holds());
    }
}
