//! Streams: calls that are answered by message after message, until either side ends them.
//!
//! A stream is open once its first message is here and vouched for. Each message is vouched for at its
//! own place, so that none can be left out, repeated or exchanged on the way.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use rossby_proto::v1;
use tokio::time::{Instant, timeout};

use super::hawk::SignedRequest;
use super::route::Tries;
use super::{CallError, Connection, Signer, Subscribe, Tried, WireError};

/// The messages of a stream as they come.
#[async_trait]
pub trait WireStream: Send {
    /// The next message; `None` at the end. Nothing is lost if it is dropped before it returns.
    async fn next(&mut self) -> Result<Option<Bytes>, WireError>;
}

/// How a stream ended.
#[derive(Debug)]
pub enum StreamEnd {
    /// In good order: its time was over.
    Over,
    /// The service ended it, or it broke.
    Broken(CallError),
}

/// An open subscription.
pub struct OpenStream {
    wire: Box<dyn WireStream>,
    signed: SignedRequest,
    server: usize,
    number: u64,
    first: Option<v1::FetchResponse>,
    silence: Duration,
}

impl std::fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenStream")
            .field("messages", &self.number)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes one try at opening a subscription. The servers take turns: `attempt` counts the tries
    /// since the last stream ended.
    ///
    /// # Errors
    /// [`CallError`], and how long the service asks to wait before the next try.
    pub async fn subscribe(
        &self,
        request: &v1::SubscribeRequest,
        signer: &Signer,
        attempt: usize,
    ) -> Result<OpenStream, (CallError, Duration)> {
        let message = Bytes::from(request.encode_to_vec());
        let patience = self.patience.attempt;
        self.learn();
        let next = {
            let route = self.route.lock();
            let mut tries = Tries::default();
            let mut next = || route.next(Some(&signer.address.box_id), &mut tries);
            // One that learns knows better than by turns who failed.
            let passed = if route.learns {
                0
            } else {
                attempt % route.len().max(1)
            };
            for _ in 0..passed {
                let _ = next();
            }
            next()
        };
        let Some((server, address)) = next else {
            let why = "no server is known".to_owned();
            return Err((CallError::Unavailable(why), Duration::ZERO));
        };
        let prepared = self.prepare::<Subscribe>(&message, Some(signer), &address, patience);
        let (exchange, signed) = prepared.map_err(|error| (error, Duration::ZERO))?;
        let began = Instant::now();
        let Some(signed) = signed else {
            return Err((CallError::Sign, Duration::ZERO));
        };
        let opening = async {
            let mut wire = self.wire.open(exchange).await?;
            let first = wire.next().await?;
            Ok((wire, first))
        };
        let opened = timeout(patience, opening)
            .await
            .unwrap_or_else(|_| Err(WireError::Lost("no answer in time".to_owned())));
        let (wire, first) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.note_error(server, &error, &mut Tries::default());
                return Err(match self.after_error::<()>(error, Some(signed)) {
                    Tried::Again { wait, error, .. } => (error, wait),
                    Tried::Failed(error) => (error, Duration::ZERO),
                    Tried::Done(()) => (CallError::Sign, Duration::ZERO),
                });
            }
        };
        let mut stream = OpenStream {
            wire,
            signed,
            server,
            number: 0,
            first: None,
            silence: self.patience.silence,
        };
        let Some(first) = first else {
            let error = CallError::Unavailable("a stream ended before it began".to_owned());
            return Err((error, Duration::ZERO));
        };
        let first = stream
            .read(&first)
            .map_err(|error| (error, Duration::ZERO))?;
        stream.first = Some(first);
        self.route.lock().answered(server, began.elapsed());
        Ok(stream)
    }

    /// The server of a stream that broke is not the first to be asked again.
    pub fn leave(&self, stream: &OpenStream) {
        self.route.lock().passed_over(stream.server);
    }

    /// Half to all of the pause before a try, which doubles with each.
    ///
    /// # Errors
    /// [`CallError::Random`].
    pub fn pause_before(&self, attempt: u32) -> Result<Duration, CallError> {
        let doubled = self
            .patience
            .first_pause
            .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
        self.jittered(doubled.min(self.patience.longest_pause))
    }
}

impl OpenStream {
    /// The next page. Nothing is lost if it is dropped before it returns.
    ///
    /// # Errors
    /// How the stream ended.
    pub async fn next(&mut self) -> Result<v1::FetchResponse, StreamEnd> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        // The service gives signs of life: a connection that is dead in one direction only, or in a
        // way that nobody is told of, is silent for longer than that.
        let next = match timeout(self.silence, self.wire.next()).await {
            Ok(next) => next,
            Err(_) => {
                let why = "the service has fallen silent".to_owned();
                return Err(StreamEnd::Broken(CallError::Unavailable(why)));
            }
        };
        match next {
            Ok(Some(message)) => self.read(&message).map_err(StreamEnd::Broken),
            Ok(None) => Err(StreamEnd::Over),
            Err(WireError::Refused(refusal)) => Err(StreamEnd::Broken(CallError::Refused(refusal))),
            Err(WireError::NotSent(why) | WireError::NotTheService(why) | WireError::Lost(why)) => {
                Err(StreamEnd::Broken(CallError::Unavailable(why)))
            }
        }
    }

    fn read(&mut self, message: &Bytes) -> Result<v1::FetchResponse, CallError> {
        let unreadable = |_| CallError::BadReply("it can not be read");
        let message = v1::SubscribeResponse::decode(message.clone()).map_err(unreadable)?;
        let header = &message.server_authorization;
        if !self
            .signed
            .is_nth_vouched(header, &message.page, self.number)
        {
            return Err(CallError::BadReply("it is not signed by the service"));
        }
        self.number += 1;
        v1::FetchResponse::decode(message.page).map_err(unreadable)
    }
}
