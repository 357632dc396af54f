//! Which checkpoints are on their way to followers: the log is not purged meanwhile, so that a
//! follower can go on from the checkpoint it was sent. Bounded, over all attempts to send to it, since
//! a follower may never end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::ReplicaId;
use tokio::time::Instant;

/// A follower holds the log back for at most this long, until it has a checkpoint.
pub(crate) const HOLD_LIMIT: Duration = Duration::from_secs(600);

/// The shipments of one replica.
#[derive(Debug, Default)]
pub(crate) struct Shipping {
    followers: Mutex<BTreeMap<ReplicaId, Attempts>>,
    sent_bytes: AtomicU64,
}

/// The attempts to bring one follower a checkpoint.
#[derive(Debug)]
struct Attempts {
    /// When the first one began.
    since: Instant,
    /// When the last one began or ended.
    last: Instant,
    /// How many are under way.
    under_way: usize,
}

impl Shipping {
    /// Notes that a shipment begins; it ends when the result is dropped.
    pub(crate) fn begin(self: &Arc<Self>, to: ReplicaId) -> Shipment {
        let now = Instant::now();
        let mut followers = self.followers.lock();
        let attempts = followers.entry(to).or_insert(Attempts {
            since: now,
            last: now,
            under_way: 0,
        });
        // It did without one in between: this is another story.
        if attempts.under_way == 0 && attempts.last.elapsed() >= HOLD_LIMIT {
            attempts.since = now;
        }
        attempts.last = now;
        attempts.under_way += 1;
        Shipment {
            shipping: self.clone(),
            to,
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

    /// Whether a shipment is under way to a follower that has not held the log back for too long.
    pub(crate) fn holds(&self) -> bool {
        let followers = self.followers.lock();
        let mut attempts = followers.values();
        attempts.any(|attempts| attempts.under_way > 0 && attempts.since.elapsed() < HOLD_LIMIT)
    }
}

/// A shipment under way.
#[derive(Debug)]
pub(crate) struct Shipment {
    shipping: Arc<Shipping>,
    to: ReplicaId,
}

impl Shipment {
    /// Notes that it has arrived: the follower may hold the log back for as long again.
    pub(crate) fn arrived(&self) {
        if let Some(attempts) = self.shipping.followers.lock().get_mut(&self.to) {
            attempts.since = Instant::now();
        }
    }
}

impl Drop for Shipment {
    fn drop(&mut self) {
        if let Some(attempts) = self.shipping.followers.lock().get_mut(&self.to) {
            attempts.under_way = attempts.under_way.saturating_sub(1);
            attempts.last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_is_held_while_a_checkpoint_ships_but_not_for_ever() {
        let shipping = Arc::new(Shipping::default());
        assert!(!shipping.holds());
        let first = shipping.begin(ReplicaId(2));
        assert!(shipping.holds());
        tokio::time::advance(HOLD_LIMIT).await;
        assert!(!shipping.holds());
        let second = shipping.begin(ReplicaId(3));
        drop(first);
        assert!(shipping.holds());
        drop(second);
        assert!(!shipping.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_whose_shipments_all_break_off_does_not_hold_the_log_for_ever() {
        let shipping = Arc::new(Shipping::default());
        let mut held = Duration::ZERO;
        let attempt = Duration::from_secs(20);
        loop {
            let shipment = shipping.begin(ReplicaId(2));
            if !shipping.holds() {
                break;
            }
            tokio::time::advance(attempt).await;
            held += attempt;
            assert!(held <= HOLD_LIMIT, "held for {held:?}");
            drop(shipment);
        }
        // Once it has one, or has done without one for a while, it may take its time for the next.
        shipping.begin(ReplicaId(2)).arrived();
        let next = shipping.begin(ReplicaId(2));
        assert!(shipping.holds());
        tokio::time::advance(HOLD_LIMIT).await;
        drop(next);
        tokio::time::advance(HOLD_LIMIT).await;
        let later = shipping.begin(ReplicaId(2));
        assert!(shipping.holds());
        drop(later);
        assert!(!shipping.holds());
    }
}
