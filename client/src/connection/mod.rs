//! From the device to the service: one call, however many tries and servers it takes.
//!
//! ```text
//!   Connection::call ──► sign (hawk.rs) ──► Wire::exchange (grpc.rs, or a simulated one)
//!         ▲                                      │
//!         └── next server, later ◄── may another try help? ◄── reply, refusal or silence
//! ```
//!
//! A call ends in the service's answer, in "nothing happened" or in "not known". What was not known
//! once stays so: if one try may have reached the service, a later "nothing was done" speaks for
//! itself only.
//!
//! Any server takes any call. A connection that learns ([`Connection::learning`]) goes to where the caller's
//! box is led, which spares a relay: whom to ask is in route.rs, what a map says in map.rs, and learn.rs asks
//! for one beside the calls. What it learned wrongly costs a try, and no call its outcome.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grpc;
mod hawk;
mod learn;
mod map;
mod plain;
mod refusal;
mod route;
#[cfg(test)]
mod routing_tests;
mod rpc;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rossby_domain::time::Timestamp;
use rossby_seams::clock::Clock;
use rossby_seams::random::{Random, RandomError, bytes};
use tokio::time::{Instant, sleep};

pub use self::grpc::GrpcWire;
use self::hawk::Skew;
pub use self::hawk::{SignedRequest, Signer};
pub use self::refusal::{Refusal, Retry};
use self::route::{Route, Tries};
pub use self::rpc::{
    Accept, Acknowledge, AddIdentifier, Authorize, Block, DeleteAccount, ExtendChain, Fetch,
    GetMap, JoinBox, KeepIdentifier, ListIdentifiers, LookupKey, LookupRecovery, Notify, Recover,
    Register, RemoveIdentifier, Report, Rpc, Send as SendRpc, SetProfile, SetTtl, Subscribe,
    UpdateKey,
};
pub use self::server::{AddressError, ServerAddress};
pub use self::stream::{OpenStream, StreamEnd, WireStream};

/// How long a call may take, and how it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// All tries together.
    pub call: Duration,
    /// One try. The service answers within 3 s, or says that it can not.
    pub attempt: Duration,
    /// The first pause; it doubles with each.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long a stream may be silent before it is taken for dead. The service gives a sign of
    /// life every 10 s.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(10),
            attempt: Duration::from_secs(4),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
            silence: Duration::from_secs(30),
        }
    }
}

/// With less time than this left, no further try is made: it would only turn "nothing happened" into
/// "not known".
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(300);

/// One try of a call at one server.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The server.
    pub server: &'a ServerAddress,
    /// The gRPC path.
    pub path: &'static str,
    /// The protobuf message.
    pub message: Bytes,
    /// The `authorization` metadata.
    pub authorization: Option<String>,
    /// How long to wait for the reply.
    pub timeout: Duration,
}

/// A reply as it came.
#[derive(Debug, Clone)]
pub struct WireReply {
    /// The protobuf message.
    pub message: Bytes,
    /// The `server-authorization` metadata.
    pub server_authorization: Option<String>,
    /// The `rossby-leader` metadata: where the call need not have been relayed.
    pub leader: Option<String>,
}

/// Why there is no reply.
#[derive(Debug, Clone)]
pub enum WireError {
    /// The server was never reached: nothing happened.
    NotSent(String),
    /// What answers there is no server that can be spoken to, or none to be trusted: nothing happened,
    /// and the same will happen again.
    NotTheService(String),
    /// No answer, or half of one: it may have happened.
    Lost(String),
    /// The service said no.
    Refused(Box<Refusal>),
}

/// Carries one exchange. The seam between this crate and the network.
#[async_trait]
pub trait Wire: Send + Sync + 'static {
    /// Sends a request and waits for its reply, no longer than the exchange allows.
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError>;

    /// Sends a request that is answered by a stream. The timeout is for its beginning alone. A wire
    /// that carries no streams says that nothing was sent.
    async fn open(&self, _exchange: Exchange<'_>) -> Result<Box<dyn WireStream>, WireError> {
        Err(WireError::NotSent(
            "this wire carries no streams".to_owned(),
        ))
    }
}

/// Why a call did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No server was reached, or none could serve: nothing happened.
    #[error("the service can not be reached: {0}")]
    Unavailable(String),
    /// None of the addresses leads to a server that can be spoken to and trusted: nothing happened.
    #[error("no server is the service's: {0}")]
    NotTheService(String),
    /// It is not known whether the request took effect. The same may be tried again.
    #[error("it is not known whether the request took effect: {0}")]
    OutcomeUnknown(String),
    /// The service said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A reply that does not come from the service, or makes no sense.
    #[error("the reply is not to be trusted: {0}")]
    BadReply(&'static str),
    /// The request could not be signed.
    #[error("the request can not be signed")]
    Sign,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl CallError {
    /// The service's refusal, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the same request, later, may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            // A server may come back as itself.
            Self::Unavailable(_) | Self::NotTheService(_) | Self::OutcomeUnknown(_) => true,
            Self::Refused(refusal) => refusal.retry == Retry::Same,
            Self::BadReply(_) | Self::Sign | Self::Random(_) => false,
        }
    }
}

/// A device's connection to a cluster: several servers, one at a time.
pub struct Connection {
    wire: Arc<dyn Wire>,
    route: Arc<Mutex<Route>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    patience: Patience,
    skew: Mutex<Skew>,
}

/// What one try came to.
enum Tried<T> {
    Done(T),
    /// Another try may help, after this long at least; whether this one may have taken effect.
    Again {
        wait: Duration,
        error: CallError,
        unknown: bool,
    },
    Failed(CallError),
}

impl Connection {
    /// A connection to these servers. Nothing is sent yet.
    #[must_use]
    pub fn new(
        wire: Arc<dyn Wire>,
        servers: Vec<ServerAddress>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        patience: Patience,
    ) -> Self {
        Self {
            wire,
            route: Arc::new(Mutex::new(Route::new(servers))),
            clock,
            random,
            patience,
            skew: Mutex::new(Skew::default()),
        }
    }

    /// The service's time, as far as it has said: that our clock is off by less than a minute nobody notices.
    pub(crate) fn now(&self) -> Timestamp {
        self.skew.lock().shift(self.clock.now())
    }

    /// How long calls are tried.
    pub(crate) const fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Makes a call; with a signer, an authenticated one.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<R: Rpc>(
        &self,
        request: &R::Request,
        signer: Option<&Signer>,
    ) -> Result<R::Response, CallError> {
        let message = Bytes::from(request.encode_to_vec());
        let deadline = Instant::now() + self.patience.call;
        let mut pause = self.patience.first_pause;
        let mut unknown = false;
        let mut strangers = 0;
        let mut tries = Tries::default();
        self.learn();
        loop {
            let timeout = self
                .patience
                .attempt
                .min(deadline.saturating_duration_since(Instant::now()));
            let tried = self.attempt::<R>(&message, signer, &mut tries, timeout);
            match tried.await {
                Tried::Done(response) => return Ok(response),
                Tried::Failed(error) => return Err(error),
                Tried::Again {
                    wait,
                    error,
                    unknown: maybe,
                } => {
                    unknown |= maybe;
                    strangers = match error {
                        CallError::NotTheService(_) => strangers + 1,
                        _ => 0,
                    };
                    // Each address was tried, one after the other: waiting helps none of them.
                    if strangers >= self.route.lock().len() {
                        return Err(settle(error, unknown));
                    }
                    let wait = wait.max(self.jittered(pause)?);
                    // The wait is the service's word, and may be longer than time itself.
                    let left = deadline.saturating_duration_since(Instant::now());
                    if wait.saturating_add(SHORTEST_ATTEMPT) > left {
                        return Err(settle(error, unknown));
                    }
                    sleep(wait).await;
                    pause = (pause * 2).min(self.patience.longest_pause);
                }
            }
        }
    }

    async fn attempt<R: Rpc>(
        &self,
        message: &Bytes,
        signer: Option<&Signer>,
        tries: &mut Tries,
        timeout: Duration,
    ) -> Tried<R::Response> {
        let box_id = signer.map(|signer| signer.address.box_id);
        let next = self.route.lock().next(box_id.as_ref(), tries);
        let Some((index, server)) = next else {
            let why = "no server is known".to_owned();
            return Tried::Failed(CallError::Unavailable(why));
        };
        let (exchange, signed) = match self.prepare::<R>(message, signer, &server, timeout) {
            Ok(prepared) => prepared,
            Err(error) => return Tried::Failed(error),
        };
        let began = Instant::now();
        match self.wire.exchange(exchange).await {
            Ok(reply) => {
                let tried = read_reply::<R>(&reply, signed.as_ref());
                let mut route = self.route.lock();
                if let Tried::Failed(CallError::BadReply(why)) = tried
                    && !route.is_given(index)
                {
                    // Only a server said that this is one. What it did with the call nobody knows.
                    route.failed(index);
                    tries.unreached();
                    return Tried::Again {
                        wait: Duration::ZERO,
                        error: CallError::OutcomeUnknown(why.to_owned()),
                        unknown: true,
                    };
                }
                route.answered(index, began.elapsed());
                match (box_id, reply.leader) {
                    (Some(box_id), Some(leader)) => {
                        route.hinted(&box_id, &leader);
                        drop(route);
                        self.learn();
                    }
                    (Some(box_id), None) => route.leads(&box_id, index),
                    (None, _) => {}
                }
                tried
            }
            Err(error) => {
                self.note_error(index, &error, tries);
                self.after_error(error, signed)
            }
        }
    }

    /// What a failed try says of its server.
    fn note_error(&self, server: usize, error: &WireError, tries: &mut Tries) {
        match error {
            WireError::Refused(refusal) if refusal.is_about_time() => tries.forgive(server),
            WireError::Refused(refusal) if refusal.is_unavailable() => {
                self.route.lock().failed(server);
            }
            WireError::Refused(_) => {}
            WireError::NotSent(_) | WireError::NotTheService(_) | WireError::Lost(_) => {
                tries.unreached();
                self.route.lock().failed(server);
            }
        }
    }

    /// One try: what is sent, and what the answer will be held against.
    fn prepare<'a, R: Rpc>(
        &self,
        message: &Bytes,
        signer: Option<&Signer>,
        server: &'a ServerAddress,
        timeout: Duration,
    ) -> Result<(Exchange<'a>, Option<SignedRequest>), CallError> {
        let signed = signer
            .map(|signer| self.sign::<R>(signer, message))
            .transpose()?;
        let exchange = Exchange {
            server,
            path: R::PATH,
            message: message.clone(),
            authorization: signed.as_ref().map(|signed| signed.authorization.clone()),
            timeout,
        };
        Ok((exchange, signed))
    }

    fn after_error<T>(&self, error: WireError, signed: Option<SignedRequest>) -> Tried<T> {
        match error {
            WireError::NotSent(why) => Tried::Again {
                wait: Duration::ZERO,
                error: CallError::Unavailable(why),
                unknown: false,
            },
            WireError::NotTheService(why) => Tried::Again {
                wait: Duration::ZERO,
                error: CallError::NotTheService(why),
                unknown: false,
            },
            WireError::Lost(why) => Tried::Again {
                wait: Duration::ZERO,
                error: CallError::OutcomeUnknown(why),
                unknown: true,
            },
            WireError::Refused(refusal) => self.after_refusal(refusal, signed),
        }
    }

    fn after_refusal<T>(&self, refusal: Box<Refusal>, signed: Option<SignedRequest>) -> Tried<T> {
        let wait = refusal.retry_after.unwrap_or_default();
        if let (Some(server_time), Some(signed)) = (refusal.server_time, signed) {
            // Our clock is off, or the service has a new leader, which wants a later time; and
            // another one may take its place before we come back.
            self.skew.lock().learn(signed.at, server_time);
            return Tried::Again {
                wait,
                error: CallError::Refused(refusal),
                unknown: false,
            };
        }
        if refusal.is_passing() {
            let unknown = refusal.leaves_outcome_unknown();
            return Tried::Again {
                wait,
                error: CallError::Refused(refusal),
                unknown,
            };
        }
        Tried::Failed(CallError::Refused(refusal))
    }

    fn sign<R: Rpc>(&self, signer: &Signer, message: &Bytes) -> Result<SignedRequest, CallError> {
        let now = self.clock.now();
        let at = self.skew.lock().correct(now);
        let nonce: [u8; 16] = bytes(self.random.as_ref())?;
        signer
            .sign(R::PATH, message, at, &nonce)
            .map_err(|_| CallError::Sign)
    }

    /// Half to all of a pause: clients that failed together do not come back together.
    fn jittered(&self, pause: Duration) -> Result<Duration, CallError> {
        let draw = u32::from_be_bytes(bytes(self.random.as_ref())?);
        Ok(pause / 2 + (pause / 2).mul_f64(f64::from(draw) / f64::from(u32::MAX)))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// What a call comes to when its tries are over.
fn settle(last: CallError, unknown: bool) -> CallError {
    match last {
        CallError::OutcomeUnknown(why) => CallError::OutcomeUnknown(why),
        CallError::Unavailable(why) | CallError::NotTheService(why) if unknown => {
            CallError::OutcomeUnknown(why)
        }
        CallError::Refused(refusal) if unknown && refusal.is_about_the_service() => {
            CallError::OutcomeUnknown(refusal.message)
        }
        CallError::Refused(refusal) if refusal.is_unavailable() => {
            CallError::Unavailable(refusal.message)
        }
        other => other,
    }
}

fn read_reply<R: Rpc>(reply: &WireReply, signed: Option<&SignedRequest>) -> Tried<R::Response> {
    if let Some(signed) = signed {
        let vouched = reply
            .server_authorization
            .as_deref()
            .is_some_and(|header| signed.is_vouched(header, &reply.message));
        if !vouched {
            return Tried::Failed(CallError::BadReply("it is not signed by the service"));
        }
    }
    match R::Response::decode(reply.message.clone()) {
        Ok(response) => Tried::Done(response),
        Err(_) => Tried::Failed(CallError::BadReply("it can not be read")),
    }
}
