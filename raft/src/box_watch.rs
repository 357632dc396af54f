//! Waiting for a box to change: the state machine tells, and whoever waits looks for themselves.
//!
//! A watch remembers one change until it is waited for. So whoever begins to watch first and reads
//! then misses nothing: what was applied before the read is in it, and what comes later wakes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rossby_domain::ids::BoxId;
use tokio::sync::Notify;

/// Who waits for which box, on one replica.
#[derive(Debug, Default)]
pub(crate) struct BoxWatches(Mutex<BTreeMap<BoxId, Vec<Arc<Notify>>>>);

impl BoxWatches {
    /// Begins to watch a box.
    pub(crate) fn watch(self: &Arc<Self>, box_id: BoxId) -> BoxWatch {
        let wake = Arc::new(Notify::new());
        let mut watches = self.0.lock();
        watches.entry(box_id).or_default().push(Arc::clone(&wake));
        drop(watches);
        BoxWatch {
            watches: Arc::clone(self),
            box_id,
            wake,
        }
    }

    /// These boxes have changed: what changed can be read by now.
    pub(crate) fn changed(&self, boxes: &[BoxId]) {
        if boxes.is_empty() {
            return;
        }
        let watches = self.0.lock();
        if watches.is_empty() {
            return;
        }
        let waiting = boxes.iter().filter_map(|box_id| watches.get(box_id));
        waiting.flatten().for_each(|wake| wake.notify_one());
    }

    /// Any box may have changed.
    pub(crate) fn all_changed(&self) {
        let watches = self.0.lock();
        watches
            .values()
            .flatten()
            .for_each(|wake| wake.notify_one());
    }

    fn forget(&self, box_id: &BoxId, wake: &Arc<Notify>) {
        let mut watches = self.0.lock();
        if let Some(waiting) = watches.get_mut(box_id) {
            waiting.retain(|other| !Arc::ptr_eq(other, wake));
            if waiting.is_empty() {
                watches.remove(box_id);
            }
        }
    }
}

/// A watch on a box, as this replica applies it. Ends when it is dropped.
#[derive(Debug)]
pub struct BoxWatch {
    watches: Arc<BoxWatches>,
    box_id: BoxId,
    wake: Arc<Notify>,
}

impl BoxWatch {
    /// Waits until the box has changed since the watch began or this last returned. May return
    /// without a change. Nothing is missed if it is dropped before it returns.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

impl Drop for BoxWatch {
    fn drop(&mut self) {
        self.watches.forget(&self.box_id, &self.wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;
    use rossby_domain::ids::PartitionId;

    use super::*;

    fn box_id(number: u8) -> BoxId {
        BoxId::derive(PartitionId::new(1).unwrap(), &[number; 32])
    }

    /// Whether a watch has something to tell now.
    fn is_woken(watch: &BoxWatch) -> bool {
        let waiting = pin!(watch.changed());
        matches!(
            waiting.poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(())
        )
    }

    proptest! {
        // Each step is (what, box): 0 begins a watch, 1 changes the box, 2 asks all its watches.
        #[test]
        fn a_watch_tells_exactly_whether_its_box_changed_since_it_was_last_asked(
            steps in prop::collection::vec((0..4_u8, 0..3_u8), 1..60)
        ) {
            let watches = Arc::new(BoxWatches::default());
            let mut open: Vec<(u8, BoxWatch, bool)> = Vec::new();
            for (what, number) in steps {
                match what {
                    0 => open.push((number, watches.watch(box_id(number)), false)),
                    1 => {
                        watches.changed(&[box_id(number)]);
                        for (of, _, due) in &mut open {
                            *due |= *of == number;
                        }
                    }
                    2 => {
                        for (_, watch, due) in open.iter_mut().filter(|(of, ..)| *of == number) {
                            prop_assert_eq!(is_woken(watch), *due);
                            *due = false;
                        }
                    }
                    _ => open.retain(|(of, ..)| *of != number),
                }
            }
            drop(open);
            prop_assert!(watches.0.lock().is_empty(), "a watch outlives its end");
        }
    }

    #[test]
    fn a_new_state_wakes_everybody() {
        let watches = Arc::new(BoxWatches::default());
        let (one, two) = (watches.watch(box_id(1)), watches.watch(box_id(2)));
        watches.all_changed();
        assert!(is_woken(&one) && is_woken(&two));
    }
}
