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
use crate::signals::{Hearing, Signal};

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
    /// What is for who listens now.
    pub hearing: Hearing,
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
        let Self {
            source,
            after,
            patience,
            place,
            hearing,
            vouch,
            metrics,
        } = self;
        let bringing = Bringing {
            source: &source,
            patience,
            vouch: &vouch,
            metrics: &metrics,
        };
        let ending = tokio::select! {
            biased;
            ending = interrupted(&source, &place, patience.ends_at, &messages) => ending,
            ending = bringing.bring(after, hearing, &messages) => ending,
        };
        metrics.subscription_ended(ending.reason());
        let unread = patience.unread;
        // From here on a newer one needs not replace it.
        drop(place);
        if let Some(status) = ending.into_status() {
            // It may be gone, or still not read: then the end of the stream says it.
            let _ = timeout(unread, messages.send(Err(status))).await;
        }
    }
}

/// Waits for what ends a subscription from outside, whatever it is doing.
async fn interrupted<S: Source>(
    source: &S,
    place: &Place,
    ends_at: Instant,
    messages: &mpsc::Sender<Result<Bytes, Status>>,
) -> Ending {
    tokio::select! {
        () = messages.closed() => Ending::Gone,
        ending = place.lost() => ending,
        ending = source.deposed() => ending,
        () = sleep_until(ends_at) => Ending::Over,
    }
}

/// A subscription at work.
struct Bringing<'a, S> {
    source: &'a S,
    patience: Patience,
    vouch: &'a Vouch,
    metrics: &'a Metrics,
}

impl<S: Source> Bringing<'_, S> {
    /// Brings page after page, until something is wrong.
    async fn bring(
        &self,
        mut after: Sequence,
        mut hearing: Hearing,
        messages: &mpsc::Sender<Result<Bytes, Status>>,
    ) -> Ending {
        let mut number = 0;
        let mut heard = Vec::new();
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
            if last.is_some() || !heard.is_empty() || Instant::now() >= sign_of_life_at {
                match self.message(page, std::mem::take(&mut heard), number) {
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
                biased;
                () = self.source.changed() => self.metrics.subscription_woke(),
                () = sleep_until(sign_of_life_at) => {}
                // Only once no mail waits.
                signal = hearing.next() => {
                    heard.push(signal);
                    heard.extend(hearing.waiting());
                }
            }
        }
    }

    fn message(&self, page: Page, heard: Vec<Signal>, number: u64) -> Result<Bytes, Ending> {
        let mut page = convert::page(page);
        page.signals = heard.into_iter().map(convert::signal).collect();
        let page = convert::encode(&page);
        let server_authorization = (self.vouch)(&page, number)
            .map_err(|error| Ending::Failed(format!("hawk: {error}")))?;
        Ok(convert::encode(&v1::SubscribeResponse {
            page,
            server_authorization,
        }))
    }
}
