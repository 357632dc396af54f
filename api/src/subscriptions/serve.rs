//! The task of one subscription.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rossby_domain::ids::Sequence;
use rossby_domain::query::Page;
use rossby_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Ending;
use super::places::Place;
use super::reader::Source;
use crate::call::CallStream;
use crate::convert;
use crate::metrics::Metrics;

/// How long a subscription waits for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// When its time is over.
    pub ends_at: Instant,
    /// After how long without mail it gives a sign of life.
    pub keepalive: Duration,
    /// How long the subscriber may leave unread what was sent.
    pub unread: Duration,
}

/// Vouches for a message at its place in the stream.
pub(crate) type Vouch = Box<dyn Fn(&Bytes, u64) -> Result<String, hawk::Error> + Send + Sync>;

/// A subscription that has not begun.
pub(crate) struct Subscription<S> {
    /// The box. Was made before anything is read from it.
    pub source: S,
    /// What the subscriber has already.
    pub after: Sequence,
    pub patience: Patience,
    pub place: Place,
    pub vouch: Vouch,
    pub metrics: Arc<Metrics>,
}

impl<S: Source> Subscription<S> {
    /// Starts the task; what it sends.
    pub(crate) fn start(self) -> CallStream {
        // Room for one: the next page is read once this one is taken.
        let (messages, stream) = mpsc::channel(1);
        tokio::spawn(self.run(messages));
        Box::pin(ReceiverStream::new(stream))
    }

    async fn run(self, messages: mpsc::Sender<Result<Bytes, Status>>) {
        self.metrics.subscription_began();
        let ending = tokio::select! {
            biased;
            ending = self.interrupted(&messages) => ending,
            ending = self.bring(&messages) => ending,
        };
        self.metrics.subscription_ended(ending.reason());
        let unread = self.patience.unread;
        // From here on a newer one needs not replace it.
        drop(self.place);
        if let Some(status) = ending.into_status() {
            // It may be gone, or still not read: then the end of the stream says it.
            let _ = timeout(unread, messages.send(Err(status))).await;
        }
    }

    /// Waits for what ends a subscription from outside, whatever it is doing.
    async fn interrupted(&self, messages: &mpsc::Sender<Result<Bytes, Status>>) -> Ending {
        tokio::select! {
            () = messages.closed() => Ending::Gone,
            ending = self.place.lost() => ending,
            ending = self.source.deposed() => ending,
            () = sleep_until(self.patience.ends_at) => Ending::Over,
        }
    }

    /// Brings page after page, until something is wrong.
    async fn bring(&self, messages: &mpsc::Sender<Result<Bytes, Status>>) -> Ending {
        let (mut after, mut number) = (self.after, 0);
        // The first page goes out even if it is empty: it says that the subscription has begun.
        let mut sign_of_life_at = Instant::now();
        loop {
            let room = match timeout(self.patience.unread, messages.reserve()).await {
                Ok(Ok(room)) => room,
                Ok(Err(_)) => return Ending::Gone,
                Err(_) => return Ending::NotRead,
            };
            let page = match self.source.read(after).await {
                Ok(page) => page,
                Err(ending) => return ending,
            };
            if number == 0 && after > page.status.last {
                return Ending::BeyondQueue(page.status.last);
            }
            let more = page.more;
            let last = page.envelopes.last().map(|envelope| envelope.sequence);
            if last.is_some() || Instant::now() >= sign_of_life_at {
                match self.message(page, number) {
                    Ok(message) => room.send(Ok(message)),
                    Err(ending) => return ending,
                }
                number += 1;
                after = last.unwrap_or(after);
                sign_of_life_at = Instant::now() + self.patience.keepalive;
            } else {
                drop(room);
            }
            if more {
                continue;
            }
            tokio::select! {
                () = self.source.changed() => self.metrics.subscription_woke(),
                () = sleep_until(sign_of_life_at) => {}
            }
        }
    }

    fn message(&self, page: Page, number: u64) -> Result<Bytes, Ending> {
        let page = convert::encode(&convert::page(page));
        let server_authorization = (self.vouch)(&page, number)
            .map_err(|error| Ending::Failed(format!("hawk: {error}")))?;
        Ok(convert::encode(&v1::SubscribeResponse {
            page,
            server_authorization,
        }))
    }
}
