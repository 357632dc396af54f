//! What the state machine tells of what it applies, for those who have work to do because of it.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use rossby_domain::ids::PartitionId;
use rossby_seams::watch;
use tokio::sync::Notify;

/// What was applied, on one replica.
#[derive(Debug)]
pub(crate) struct News {
    /// Counts the entries of commands, and the states that were taken over whole.
    entries: watch::Sender<u64>,
    posted: Mutex<BTreeSet<PartitionId>>,
    post: Notify,
}

impl Default for News {
    fn default() -> Self {
        Self {
            entries: watch::channel(0).0,
            posted: Mutex::default(),
            post: Notify::new(),
        }
    }
}

impl News {
    /// Commands were applied, or all is new; these partitions got codes into their outbox.
    pub(crate) fn applied(&self, posted: &[PartitionId]) {
        self.entries.send_modify(|entries| *entries += 1);
        if !posted.is_empty() {
            self.posted.lock().extend(posted);
            self.post.notify_one();
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.entries.subscribe()
    }

    /// Waits until codes were posted since this last returned; where. Nothing is lost if the wait is given up.
    pub(crate) async fn posted(&self) -> BTreeSet<PartitionId> {
        loop {
            let posted = std::mem::take(&mut *self.posted.lock());
            if !posted.is_empty() {
                return posted;
            }
            self.post.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn partition(number: u16) -> PartitionId {
        PartitionId::new(number).unwrap()
    }

    #[tokio::test]
    async fn what_was_posted_is_told_once_and_lost_by_no_wait_that_is_given_up() {
        let news = News::default();
        assert!(news.posted().now_or_never().is_none());
        let mut entries = news.watch();
        news.applied(&[]);
        assert!(entries.changed().now_or_never().is_some());
        assert!(news.posted().now_or_never().is_none());

        let waiting = Box::pin(news.posted());
        news.applied(&[partition(2), partition(1)]);
        drop(waiting);
        news.applied(&[partition(2)]);
        let told = news.posted().now_or_never();
        assert_eq!(told, Some([partition(1), partition(2)].into()));
        assert!(news.posted().now_or_never().is_none());
    }
}
