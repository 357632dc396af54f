//! Links to the other nodes: one pooled link to each, shared by the requests and append streams of
//! all groups.
//!
//! ```text
//!   call ─────┐                                    ┌─► waiting call   (by id)
//!   stream ───┼─► outgoing ═══ Link ═══ incoming ──┤
//!   call ─────┘                                    └─► waiting stream (by id)
//! ```
//!
//! Each node opens a link for what it asks; what is asked of it comes in over the links that its
//! peers opened (`inbound.rs`). So neither side has to agree which of two links survives.
//!
//! **Nodes with different promises do not speak.** Who is asked first says what its replicas promise their leaders
//! (`lease.rs`). If that is not what this node's promise, its leaders would count on what nobody keeps: there is no link, and
//! what is said instead is why. A link ends with the process at its other end, so what was said holds for all of it.
//!
//! Invariant: whoever waits for an answer gets one, or an error, by its deadline; a broken link
//! fails all that wait on it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rossby_domain::ids::NodeId;
use rossby_seams::random::{Random, bytes as random_bytes};
use rossby_seams::transport::{Link, SharedTransport};
use rossby_seams::watch;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Member;
use crate::frame::{Answer, Append, Frame, Refusal, Request, StreamOutcome, Target};

/// How long opening a link may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a first failed attempt; it doubles with each further one.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Appends of a stream that may wait for their answers.
pub(crate) const STREAM_WINDOW: usize = 64;

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No link could be opened. Nothing was sent.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The link broke: the request may or may not have arrived.
    #[error("the link broke")]
    Broken,
    /// The deadline passed: the request may or may not have arrived.
    #[error("no answer in time")]
    Timeout,
    /// The peer said no. Nothing was done.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The answer does not fit the request.
    #[error("the answer does not fit the request")]
    Unexpected,
}

/// The links of a node to all its peers. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    transport: SharedTransport,
    // By node and address: one that replaces itself is known at two for a while.
    peers: Mutex<BTreeMap<(NodeId, String), Arc<Peer>>>,
    random: Arc<dyn Random>,
    /// What this node's replicas promise their leaders.
    promise_ms: u64,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    state: Mutex<PeerState>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
enum PeerState {
    /// No link, and none was tried lately.
    Idle,
    /// A link is being opened.
    Connecting {
        failures: u32,
        // Why the attempt before failed.
        reason: Option<String>,
    },
    /// The last attempt failed; the next may be made at `until`.
    Pausing {
        failures: u32,
        until: Instant,
        reason: String,
    },
    /// There is a link, which may have broken meanwhile.
    Ready(Arc<Connection>),
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("transport", &self.transport)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

impl Links {
    pub(crate) fn new(
        transport: SharedTransport,
        random: Arc<dyn Random>,
        promise_ms: u64,
        stop: CancellationToken,
    ) -> Self {
        let shared = Shared {
            transport,
            peers: Mutex::default(),
            random,
            promise_ms,
            stop,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Asks a peer and waits for its answer.
    pub(crate) async fn call(
        &self,
        member: &Member,
        to: Target,
        request: Request,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let asking = async {
            let connection = self.connection(member).await?;
            let id = connection.next_id();
            let answer = connection.expect_answer(id)?;
            connection.send(&Frame::Call { id, to, request }).await?;
            answer.receive().await
        };
        timeout_at(deadline, asking)
            .await
            .unwrap_or(Err(CallError::Timeout))
    }

    /// Opens a stream of appends to a replica. Nothing is sent yet.
    pub(crate) async fn open_stream(
        &self,
        member: &Member,
        to: Target,
        deadline: Instant,
    ) -> Result<AppendStream, CallError> {
        let connection = timeout_at(deadline, self.connection(member))
            .await
            .unwrap_or(Err(CallError::Timeout))?;
        let id = connection.next_id();
        let (sender, answers) = mpsc::channel(STREAM_WINDOW);
        connection.waiting.lock().add_stream(id, sender)?;
        Ok(AppendStream {
            connection,
            id,
            to,
            answers,
        })
    }

    /// Breaks the link to a peer, if there is one: what waits on it fails, and the next request
    /// opens a new one. For peers that no longer answer.
    pub(crate) fn reset(&self, node: NodeId) {
        let peers = self.shared.peers.lock();
        for peer in peers.values().filter(|peer| peer.node == node) {
            peer.close();
        }
    }

    /// Closes the links to all but these members.
    pub(crate) fn keep(&self, members: &[Member]) {
        let kept = |node: NodeId, address: &str| {
            let mut members = members.iter();
            members.any(|member| member.node == node && member.peer_address == address)
        };
        self.shared.peers.lock().retain(|(node, address), peer| {
            let keep = kept(*node, address);
            if !keep {
                peer.close();
            }
            keep
        });
    }

    /// Why there is no link to a member, if the last attempt failed.
    pub(crate) fn trouble(&self, member: &Member) -> Option<String> {
        let peers = self.shared.peers.lock();
        let peer = peers.get(&(member.node, member.peer_address.clone()))?;
        let state = peer.state.lock();
        match &*state {
            PeerState::Pausing { reason, .. } => Some(reason.clone()),
            PeerState::Connecting { reason, .. } => reason.clone(),
            PeerState::Idle | PeerState::Ready(_) => None,
        }
    }

    fn peer(&self, member: &Member) -> Arc<Peer> {
        let node = member.node;
        let mut peers = self.shared.peers.lock();
        let new = || {
            let state = Mutex::new(PeerState::Idle);
            Arc::new(Peer {
                node,
                state,
                changed: watch::channel(()).0,
            })
        };
        let key = (node, member.peer_address.clone());
        peers.entry(key).or_insert_with(new).clone()
    }

    /// The link to a member's node, opened if need be. Fails at once while the pause after a
    /// failed attempt lasts.
    async fn connection(&self, member: &Member) -> Result<Arc<Connection>, CallError> {
        let peer = self.peer(member);
        let mut changed = peer.changed.subscribe();
        loop {
            {
                let mut state = peer.state.lock();
                let attempt = match &*state {
                    PeerState::Ready(connection) if !connection.stop.is_cancelled() => {
                        return Ok(connection.clone());
                    }
                    PeerState::Pausing { until, reason, .. } if Instant::now() < *until => {
                        return Err(CallError::Unreachable(reason.clone()));
                    }
                    PeerState::Connecting { .. } => None,
                    PeerState::Pausing {
                        failures, reason, ..
                    } => Some((*failures, Some(reason.clone()))),
                    PeerState::Idle | PeerState::Ready(_) => Some((0, None)),
                };
                if let Some((failures, reason)) = attempt {
                    *state = PeerState::Connecting { failures, reason };
                    // On its own task: a caller with a short deadline must not abort an attempt
                    // that others wait for.
                    let shared = self.shared.clone();
                    let address = member.peer_address.clone();
                    tokio::spawn(shared.connect(peer.clone(), address));
                }
            }
            if changed.changed().await.is_err() {
                return Err(CallError::Broken);
            }
        }
    }
}

impl Peer {
    /// Breaks the link, if there is one.
    fn close(&self) {
        let mut state = self.state.lock();
        if let PeerState::Ready(connection) = &*state {
            connection.stop.cancel();
            *state = PeerState::Idle;
        }
    }
}

impl Shared {
    async fn connect(self: Arc<Self>, peer: Arc<Peer>, address: String) {
        let opening = timeout(CONNECT_TIMEOUT, self.open(peer.node, &address));
        let result = tokio::select! {
            biased;
            result = opening => {
                result.unwrap_or_else(|_| Err("no answer to the connection".to_owned()))
            }
            () = self.stop.cancelled() => Err("this node is stopping".to_owned()),
        };
        let mut state = peer.state.lock();
        let failures = match &*state {
            PeerState::Connecting { failures, .. } => *failures,
            _ => 0,
        };
        *state = match result {
            Ok(link) => {
                if failures > 0 {
                    tracing::info!(peer = %peer.node, "link is open again");
                }
                PeerState::Ready(Connection::start(link, self.stop.child_token()))
            }
            Err(reason) => {
                if failures == 0 {
                    tracing::warn!(peer = %peer.node, %reason, "no link");
                }
                let failures = failures.saturating_add(1);
                PeerState::Pausing {
                    failures,
                    until: Instant::now() + self.pause(failures),
                    reason,
                }
            }
        };
        drop(state);
        peer.changed.send_replace(());
    }

    /// A link to a node whose replicas promise what this node's do.
    async fn open(&self, node: NodeId, address: &str) -> Result<Link, String> {
        let opened = self.transport.connect(node, address).await;
        let mut link = opened.map_err(|error| error.to_string())?;
        if link.peer != node {
            return Err(format!("node {} answered in its place", link.peer));
        }
        let hello = link.incoming.recv().await;
        let hello = hello.ok_or("it closed the connection at once")?;
        match Frame::decode(&hello) {
            Ok(Frame::Hello { promise_ms }) if promise_ms == self.promise_ms => Ok(link),
            Ok(Frame::Hello { promise_ms }) => Err(format!(
                "its raft.election_min_ms is {promise_ms}, and that of this node {}: nodes with different ones do not speak to \
                 each other. Give all nodes the same [raft] settings",
                self.promise_ms
            )),
            Ok(_) => Err("it did not say first what it promises".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Between half and all of the doubled pause.
    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let whole = RECONNECT_PAUSE
            .saturating_mul(1 << doublings)
            .min(RECONNECT_PAUSE_MAX);
        let [byte] = random_bytes::<1>(&*self.random).unwrap_or_default();
        whole / 2 + (whole / 2).mul_f64(f64::from(byte) / 255.0)
    }
}

/// One open link, as the side that asks sees it.
#[derive(Debug)]
struct Connection {
    outgoing: mpsc::Sender<Bytes>,
    waiting: Mutex<Waiting>,
    last_id: AtomicU64,
    stop: CancellationToken,
}

/// Who waits for what, by id.
#[derive(Debug, Default)]
struct Waiting {
    broken: bool,
    calls: BTreeMap<u64, oneshot::Sender<Result<Answer, Refusal>>>,
    streams: BTreeMap<u64, mpsc::Sender<Result<StreamOutcome, Refusal>>>,
}

impl Waiting {
    fn add_stream(
        &mut self,
        id: u64,
        sender: mpsc::Sender<Result<StreamOutcome, Refusal>>,
    ) -> Result<(), CallError> {
        if self.broken {
            return Err(CallError::Broken);
        }
        self.streams.insert(id, sender);
        Ok(())
    }
}

/// The peer sent what makes no sense here.
#[derive(Debug, thiserror::Error)]
enum ProtocolError {
    #[error(transparent)]
    Frame(#[from] crate::frame::FrameError),
    #[error("what came in is no answer")]
    Request,
    #[error("more answers than requests on a stream")]
    TooManyAnswers,
}

impl Connection {
    fn start(link: Link, stop: CancellationToken) -> Arc<Self> {
        let Link {
            peer,
            outgoing,
            mut incoming,
        } = link;
        let connection = Arc::new(Self {
            outgoing,
            waiting: Mutex::default(),
            last_id: AtomicU64::new(0),
            stop,
        });
        let reader = connection.clone();
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    biased;
                    () = reader.stop.cancelled() => None,
                    frame = incoming.recv() => frame,
                };
                let Some(frame) = frame else { break };
                if let Err(error) = reader.take_in(&frame) {
                    tracing::error!(%peer, %error, "broke a link");
                    break;
                }
            }
            reader.stop.cancel();
            let mut waiting = reader.waiting.lock();
            waiting.broken = true;
            waiting.calls.clear();
            waiting.streams.clear();
        });
        connection
    }

    fn take_in(&self, bytes: &Bytes) -> Result<(), ProtocolError> {
        match Frame::decode(bytes)? {
            Frame::Answer { id, answer } => {
                // Nobody waits any more if the deadline has passed.
                if let Some(waiter) = self.waiting.lock().calls.remove(&id) {
                    let _ = waiter.send(answer);
                }
            }
            Frame::StreamAnswer { id, answer } => {
                let mut waiting = self.waiting.lock();
                let ends = !matches!(answer, Ok(Ok(_)));
                let full = waiting.streams.get(&id).is_some_and(|waiter| {
                    matches!(
                        waiter.try_send(answer),
                        Err(mpsc::error::TrySendError::Full(_))
                    )
                });
                if full {
                    return Err(ProtocolError::TooManyAnswers);
                }
                if ends {
                    waiting.streams.remove(&id);
                }
            }
            Frame::Call { .. }
            | Frame::StreamAppend { .. }
            | Frame::StreamEnd { .. }
            | Frame::Hello { .. } => {
                return Err(ProtocolError::Request);
            }
        }
        Ok(())
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn send(&self, frame: &Frame) -> Result<(), CallError> {
        let sending = self.outgoing.send(frame.encode());
        tokio::select! {
            biased;
            sent = sending => sent.map_err(|_| CallError::Broken),
            () = self.stop.cancelled() => Err(CallError::Broken),
        }
    }

    fn expect_answer(self: &Arc<Self>, id: u64) -> Result<PendingAnswer, CallError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.broken {
            return Err(CallError::Broken);
        }
        waiting.calls.insert(id, sender);
        Ok(PendingAnswer {
            connection: self.clone(),
            id,
            receiver,
        })
    }
}

/// A call that waits for its answer; forgotten by the link when dropped.
struct PendingAnswer {
    connection: Arc<Connection>,
    id: u64,
    receiver: oneshot::Receiver<Result<Answer, Refusal>>,
}

impl PendingAnswer {
    async fn receive(mut self) -> Result<Answer, CallError> {
        match (&mut self.receiver).await {
            Ok(answer) => answer.map_err(CallError::Refused),
            Err(_) => Err(CallError::Broken),
        }
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        self.connection.waiting.lock().calls.remove(&self.id);
    }
}

/// A stream of appends to one replica. Dropping it ends it on both sides.
#[derive(Debug)]
pub(crate) struct AppendStream {
    connection: Arc<Connection>,
    id: u64,
    to: Target,
    answers: mpsc::Receiver<Result<StreamOutcome, Refusal>>,
}

impl AppendStream {
    /// Sends the next append. At most [`STREAM_WINDOW`] may wait for their answers.
    pub(crate) async fn send(&self, append: Append) -> Result<(), CallError> {
        self.connection
            .send(&Frame::StreamAppend {
                id: self.id,
                to: self.to,
                append,
            })
            .await
    }

    /// The answer to the oldest append that has none yet.
    pub(crate) async fn receive(&mut self) -> Result<StreamOutcome, CallError> {
        match self.answers.recv().await {
            Some(answer) => answer.map_err(CallError::Refused),
            None => Err(CallError::Broken),
        }
    }
}

impl Drop for AppendStream {
    fn drop(&mut self) {
        self.connection.waiting.lock().streams.remove(&self.id);
        let outgoing = &self.connection.outgoing;
        let end = Frame::StreamEnd { id: self.id }.encode();
        if let Err(mpsc::error::TrySendError::Full(end)) = outgoing.try_send(end) {
            // Told a little later then. Without a runtime the process is ending, and the link too.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let outgoing = outgoing.clone();
                runtime.spawn(async move { outgoing.send(end).await });
            }
        }
    }
}

#[cfg(test)]
mod tests;
