//! The runtime that openraft works on: tokio's, with two parts exchanged so that a simulation can
//! repeat a run. Randomness (openraft draws its election timeouts) comes from the node's
//! [`Random`], and watched values wake their watchers in a fixed order ([`rossby_seams::watch`]).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::rt::watch::{RecvError, SendError};
use openraft::rt::{AsyncRuntime, OptionalSend, OptionalSync, Watch, WatchReceiver, WatchSender};
use openraft_rt_tokio::TokioRuntime;
use rossby_seams::random::{OsRandom, Random, bytes};
use rossby_seams::watch;

tokio::task_local! {
    static RANDOM: Arc<dyn Random>;
}

/// Runs `future`, and every task that it spawns through [`Runtime`], with this randomness.
/// Without it, they draw from the operating system.
pub(crate) async fn with_random<F: Future>(random: Arc<dyn Random>, future: F) -> F::Output {
    RANDOM.scope(random, future).await
}

/// Tokio, with our randomness and our watched values.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Draw;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match RANDOM.try_with(Arc::clone) {
            Ok(random) => TokioRuntime::spawn(RANDOM.scope(random, future)),
            Err(_) => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Draw {
        Draw(
            RANDOM
                .try_with(Arc::clone)
                .unwrap_or_else(|_| Arc::new(OsRandom)),
        )
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// Draws from the [`Random`] of the task that it was made in.
pub struct Draw(Arc<dyn Random>);

impl rand::TryRng for Draw {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // Without randomness all nodes wait equally long for an election, which only delays it.
        Ok(bytes(&*self.0).map(u32::from_le_bytes).unwrap_or_default())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(bytes(&*self.0).map(u64::from_le_bytes).unwrap_or_default())
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Infallible> {
        if self.0.fill(buffer).is_err() {
            buffer.fill(0);
        }
        Ok(())
    }
}

/// Watched values that wake their watchers in order.
pub struct OrderedWatch;

/// The side that changes.
pub struct OrderedSender<T>(watch::Sender<T>);

impl<T> Clone for OrderedSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The side that watches.
pub struct OrderedReceiver<T>(watch::Receiver<T>);

impl<T> Clone for OrderedReceiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = OrderedSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = OrderedReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Self::Sender<T>, Self::Receiver<T>) {
        let (sender, receiver) = watch::channel(init);
        (OrderedSender(sender), OrderedReceiver(receiver))
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for OrderedSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0
            .send(value)
            .map_err(|unwatched| SendError(unwatched.0))
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> OrderedReceiver<T> {
        OrderedReceiver(self.0.subscribe())
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for OrderedReceiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        self.0.changed().await.map_err(|_| RecvError(()))
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.0.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use openraft::rt::testing::Suite;
    use rand::Rng as _;
    use rossby_seams::random::SeededRandom;

    use super::*;

    #[test]
    fn it_is_what_openraft_asks_of_a_runtime() {
        Suite::<Runtime>::test_all();
    }

    #[tokio::test]
    async fn tasks_draw_from_the_randomness_of_the_task_that_spawned_them() {
        let draw = |seed| {
            with_random(Arc::new(SeededRandom::new(seed)), async {
                let spawned = Runtime::spawn(async { Runtime::thread_rng().next_u64() });
                (Runtime::thread_rng().next_u32(), spawned.await.unwrap())
            })
        };
        assert_eq!(draw(1).await, draw(1).await);
        assert_ne!(draw(1).await, draw(2).await);
    }

    #[tokio::test]
    async fn without_any_the_system_is_asked() {
        let draw = || Runtime::thread_rng().next_u64();
        assert_ne!(draw(), draw());
    }
}
