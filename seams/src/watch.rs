//! A value that many watch: only the latest counts, and whoever waits is told of every change.
//!
//! Like `tokio::sync::watch`, but waiters are woken in the order in which they began to wait.
//! Tokio's are woken in an order that it draws from a generator nobody can seed, which would make
//! each run of a simulation a different one.
//!
//! Invariant: a change that was made before [`Receiver::changed`] was called, or while it waits, is
//! never missed.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// Makes a watched value.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: RwLock::new(State {
            value,
            version: 0,
            closed: false,
        }),
        changed: Notify::new(),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    (sender, Receiver { shared, seen: 0 })
}

/// Every sender is gone: there will be no further change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left to change the watched value")]
pub struct Closed;

/// Nobody watches; the value comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody watches the value")]
pub struct Unwatched<T>(pub T);

#[derive(Debug)]
struct Shared<T> {
    state: RwLock<State<T>>,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    /// Counts the changes.
    version: u64,
    closed: bool,
}

impl<T> Shared<T> {
    fn watched(self: &Arc<Self>, seen: u64) -> Receiver<T> {
        self.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver {
            shared: Arc::clone(self),
            seen,
        }
    }
}

/// The watched value, which can not change while this lives: keep it short, and never across an
/// await.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, State<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// Changes the value. Clones change the same one.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Puts a new value in place and tells everybody.
    ///
    /// # Errors
    /// [`Unwatched`] if there is no receiver; the old value then stays.
    pub fn send(&self, value: T) -> Result<(), Unwatched<T>> {
        if self.shared.receivers.load(Ordering::Acquire) == 0 {
            return Err(Unwatched(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Puts a new value in place, watched or not, and tells everybody; the old value.
    pub fn send_replace(&self, value: T) -> T {
        let mut new = value;
        self.send_modify(|old| std::mem::swap(old, &mut new));
        new
    }

    /// Changes the value in place and tells everybody.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value in place, and tells everybody if `modify` says that it did.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut state = self.shared.state.write();
            let modified = modify(&mut state.value);
            state.version += u64::from(modified);
            modified
        };
        if modified {
            self.shared.changed.notify_waiters();
        }
        modified
    }

    /// The value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.state.read())
    }

    /// A receiver that has seen the value as it is now.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.shared.state.read().version;
        self.shared.watched(seen)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::AcqRel);
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.state.write().closed = true;
            self.shared.changed.notify_waiters();
        }
    }
}

/// Watches the value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// The value, which does not count as seen.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.state.read())
    }

    /// The value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.state.read();
        self.seen = state.version;
        Ref(state)
    }

    /// Waits until there is a value that was not seen, which then counts as seen. Nothing is lost
    /// if the wait is given up.
    ///
    /// # Errors
    /// [`Closed`] if there is none and all senders are gone.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Made before the look, so that a change in between wakes it.
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state.read();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.closed {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }

    /// Waits until the value `holds`, which may be at once. It then counts as seen.
    ///
    /// # Errors
    /// [`Closed`] if it does not and all senders are gone.
    pub async fn wait_for(&mut self, mut holds: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        loop {
            if holds(&self.borrow_and_update()) {
                return Ok(());
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.watched(self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    /// Long enough that only a hang reaches it.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_change_is_seen_once_whether_it_comes_before_or_while_waiting() {
        let (sender, mut receiver) = channel(0);
        sender.send(1).unwrap();
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow(), 1);
        let waiting = tokio::spawn(async move {
            receiver.changed().await.unwrap();
            *receiver.borrow_and_update()
        });
        tokio::task::yield_now().await;
        sender.send(2).unwrap();
        let seen = tokio::time::timeout(PATIENCE, waiting).await;
        assert_eq!(seen.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn what_was_seen_or_silently_changed_wakes_nobody() {
        let (sender, mut receiver) = channel(0);
        sender.send(1).unwrap();
        assert_eq!(*receiver.borrow_and_update(), 1);
        assert!(!sender.send_if_modified(|value| {
            *value = 2;
            false
        }));
        drop(sender);
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(*receiver.borrow(), 2);
    }

    #[tokio::test]
    async fn the_last_change_is_seen_even_after_all_senders_are_gone() {
        let (sender, mut receiver) = channel(0);
        let second = sender.clone();
        drop(sender);
        second.send_replace(7);
        drop(second);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.changed().await, Err(Closed));
    }

    #[test]
    fn a_value_that_nobody_watches_is_given_back() {
        let (sender, receiver) = channel(0);
        drop(receiver);
        assert_eq!(sender.send(1), Err(Unwatched(1)));
        assert_eq!(*sender.borrow(), 0);
        let _watching = sender.subscribe();
        assert_eq!(sender.send(1), Ok(()));
    }

    #[tokio::test]
    async fn waiters_are_woken_in_the_order_in_which_they_came() {
        const WAITERS: usize = 100;
        let (sender, receiver) = channel(());
        let (waiting, woken) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..WAITERS {
            let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
            let waiting = Arc::clone(&waiting);
            tasks.spawn(async move {
                waiting.fetch_add(1, Ordering::AcqRel);
                receiver.changed().await.unwrap();
                woken.lock().push(number);
            });
        }
        while waiting.load(Ordering::Acquire) < WAITERS {
            tokio::task::yield_now().await;
        }
        sender.send(()).unwrap();
        tokio::time::timeout(PATIENCE, tasks.join_all())
            .await
            .unwrap();
        assert_eq!(*woken.lock(), (0..WAITERS).collect::<Vec<_>>());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_change_is_missed_between_threads() {
        const CHANGES: u64 = 20_000;
        let (sender, receiver) = channel(0);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let mut receiver = receiver.clone();
            tasks.spawn(async move {
                let mut last = 0;
                while receiver.changed().await.is_ok() {
                    let now = *receiver.borrow_and_update();
                    assert!(now >= last, "went back from {last} to {now}");
                    last = now;
                }
                last
            });
        }
        for value in 1..=CHANGES {
            sender.send(value).unwrap();
        }
        drop(sender);
        let seen = tokio::time::timeout(PATIENCE, tasks.join_all()).await;
        assert_eq!(seen.unwrap(), vec![CHANGES; 4]);
    }
}
