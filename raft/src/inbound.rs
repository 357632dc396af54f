//! What peers ask of this node: frames from the links they opened, taken to the replica they name.
//!
//! A frame for a group or a replica that is not here is refused by name: a replica that was
//! replaced must never answer for its successor. So is one from a replica that was removed, or from
//! another node than the one that the sender is on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{VoteRequest, VoteResponse};
use parking_lot::{Mutex, RwLock};
use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_seams::clock::Clock;
use rossby_seams::transport::Link;
use rossby_storage::store::{IncomingCheckpoint, Store};
use rossby_storage::wal::Wal;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::blocking::Blocking;
use crate::frame::{Answer, Append, Frame, FrameError, Refusal, Request, Target};
use crate::heard::Heard;
use crate::lease::Abstinence;
use crate::links::STREAM_WINDOW;
use crate::members::{Standing, standing};
use crate::reads;
use crate::rest::{Beaten, Rest};
use crate::state_machine::Raft;
use crate::types::{Snapshot, TypeConfig, Vote, snapshot_meta};

/// Calls of one link that may be in work at a time.
const MAX_CALLS: usize = 256;
/// Streams that one link may have.
const MAX_STREAMS: usize = 16_384;

/// A replica that peers can reach.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) group: GroupId,
    pub(crate) raft: Raft,
    heard: Arc<Heard>,
    rest: Arc<Rest>,
    abstinence: Abstinence,
    transfer: tokio::sync::Mutex<Option<Transfer>>,
    last_transfer: Mutex<u64>,
}

/// A checkpoint on its way in.
#[derive(Debug)]
struct Transfer {
    id: u64,
    incoming: IncomingCheckpoint,
}

impl Replica {
    pub(crate) fn new(
        group: GroupId,
        id: ReplicaId,
        raft: Raft,
        heard: Arc<Heard>,
        rest: Arc<Rest>,
        abstinence: Abstinence,
    ) -> Self {
        let transfer = tokio::sync::Mutex::new(None);
        Self {
            id,
            group,
            raft,
            heard,
            rest,
            abstinence,
            transfer,
            last_transfer: Mutex::new(0),
        }
    }

    /// Wakes a replica that rests before it is asked something.
    async fn wake_for(&self, request: &Request) {
        let is_ballot = matches!(request, Request::Vote(_) | Request::PreVote(_));
        match request {
            Request::Rest { .. }
            | Request::Clock
            | Request::Beat { .. }
            | Request::Standing { .. } => return,
            _ if is_ballot && self.rest.may_grant() => return,
            _ => self.rest.stir().await,
        }
        // A leader whose quorum has just confirmed it grants no vote to who merely can't hear it.
        if is_ballot {
            self.rest.confirmed().await;
        }
    }

    /// What is answered to a ballot at once, if this replica votes for nobody yet. A leader that hands over has
    /// given its lease up, so its successor need not wait.
    fn abstains(&self, ballot: &VoteRequest<TypeConfig>) -> Option<Answer> {
        if ballot.leadership_transfer || !self.abstinence.lasts() {
            return None;
        }
        let vote = self.raft.metrics().borrow_watched().vote;
        Some(Answer::Vote(VoteResponse::new(vote, None, false)))
    }

    /// Whether a replica on node `peer` may speak to this one. One that is not known here yet may: it
    /// may have become a member meanwhile.
    fn admit(&self, sender: ReplicaId, peer: NodeId) -> Result<(), Refusal> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if standing(&metrics.committed_membership_config, sender) == Standing::Removed {
            return Err(Refusal::Removed);
        }
        match metrics.membership_config.get_node(&sender) {
            Some(member) if member.node != peer => Err(Refusal::OtherNode),
            _ => Ok(()),
        }
    }
}

/// The replica that sends a request, where the request says so.
fn sender(request: &Request) -> Option<ReplicaId> {
    let vote = match request {
        Request::Append(append) => &append.vote,
        Request::Vote(ballot) | Request::PreVote(ballot) => &ballot.vote,
        Request::Transfer(transfer) => transfer.from_leader(),
        Request::SnapshotInstall { vote, .. } | Request::Rest { vote, .. } => vote,
        Request::SnapshotBegin { .. }
        | Request::SnapshotChunk { .. }
        | Request::Clock
        | Request::Beat { .. }
        | Request::ReadIndex
        | Request::Standing { .. } => return None,
    };
    Some(vote.leader_id.voted_for)
}

/// The replicas of this node, and what their inbound side shares. Clones are the same.
#[derive(Clone)]
pub(crate) struct Inbound {
    shared: Arc<Shared>,
}

struct Shared {
    replicas: RwLock<BTreeMap<GroupId, Arc<Replica>>>,
    clock: Arc<dyn Clock>,
    wal: Wal,
    store: Store,
    overlay_budget_bytes: u64,
    blocking: Blocking,
    promise_ms: u64,
    stop: CancellationToken,
}

/// What the inbound side needs of the node.
pub(crate) struct InboundConfig {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wal: Wal,
    pub(crate) store: Store,
    pub(crate) overlay_budget_bytes: u64,
    pub(crate) blocking: Blocking,
    /// What its replicas promise their leaders.
    pub(crate) promise_ms: u64,
    pub(crate) stop: CancellationToken,
}

impl Inbound {
    pub(crate) fn new(config: InboundConfig) -> Self {
        let InboundConfig {
            clock,
            wal,
            store,
            overlay_budget_bytes,
            blocking,
            promise_ms,
            stop,
        } = config;
        let replicas = RwLock::default();
        let shared = Shared {
            replicas,
            clock,
            wal,
            store,
            overlay_budget_bytes,
            blocking,
            promise_ms,
            stop,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(crate) fn add(&self, replica: Arc<Replica>) {
        self.shared.replicas.write().insert(replica.group, replica);
    }

    pub(crate) fn remove(&self, group: GroupId) {
        self.shared.replicas.write().remove(&group);
    }

    /// Serves a link until it breaks, on a task of its own.
    pub(crate) fn serve(&self, link: Link) {
        let closed = CancellationToken::new();
        let serving = Serving {
            peer: link.peer,
            shared: self.shared.clone(),
            outgoing: link.outgoing,
            closed: closed.clone(),
            _close: closed.drop_guard(),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            streams: BTreeMap::new(),
        };
        let (peer, stop) = (link.peer, self.shared.stop.clone());
        let mut incoming = link.incoming;
        let hello = Frame::Hello {
            promise_ms: self.shared.promise_ms,
        };
        tokio::spawn(async move {
            let mut serving = serving;
            if let Err(error) = serving.reply(&hello) {
                tracing::error!(%peer, %error, "broke a link");
                return;
            }
            loop {
                let frame = tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    frame = incoming.recv() => frame,
                };
                let Some(frame) = frame else { break };
                if let Err(error) = serving.take_in(&frame) {
                    tracing::error!(%peer, %error, "broke a link");
                    break;
                }
            }
        });
    }
}

/// The peer sent what makes no sense here.
#[derive(Debug, thiserror::Error)]
enum ProtocolError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("an answer came in on a link for requests")]
    Answer,
    #[error("too many streams")]
    TooManyStreams,
    #[error("more appends on a stream than may be under way")]
    TooManyAppends,
    #[error("it asks for more while it takes no answers")]
    TakesNoAnswers,
}

/// A stream of appends, on its way to a replica.
struct Stream {
    appends: mpsc::Sender<Append>,
    heard: Arc<Heard>,
}

/// One link, as the side that is asked sees it.
struct Serving {
    peer: NodeId,
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Bytes>,
    // The link has ended: what still has an answer to send on it ends too.
    closed: CancellationToken,
    _close: DropGuard,
    calls: Arc<Semaphore>,
    // `None`: ended here, but the peer may not know it yet.
    streams: BTreeMap<u64, Option<Stream>>,
}

impl Serving {
    fn take_in(&mut self, bytes: &Bytes) -> Result<(), ProtocolError> {
        match Frame::decode(bytes)? {
            Frame::Call { id, to, request } => self.call(id, to, request)?,
            Frame::StreamAppend { id, to, append } => self.stream_append(id, to, append)?,
            Frame::StreamEnd { id } => {
                self.streams.remove(&id);
            }
            Frame::Answer { .. } | Frame::StreamAnswer { .. } | Frame::Hello { .. } => {
                return Err(ProtocolError::Answer);
            }
        }
        Ok(())
    }

    fn call(&self, id: u64, to: Target, request: Request) -> Result<(), ProtocolError> {
        let Ok(permit) = self.calls.clone().try_acquire_owned() else {
            let answer = Err(Refusal::Busy);
            return self.reply(&Frame::Answer { id, answer });
        };
        let (shared, outgoing) = (self.shared.clone(), self.outgoing.clone());
        let (closed, peer) = (self.closed.clone(), self.peer);
        tokio::spawn(async move {
            let answer = shared.answer(peer, to, request).await;
            // If the link broke meanwhile, the peer knows that it got no answer.
            tokio::select! {
                biased;
                _ = outgoing.send(Frame::Answer { id, answer }.encode()) => {}
                () = closed.cancelled() => {}
            }
            // Only now: a peer that takes no answers must not have any number of them waiting.
            drop(permit);
        });
        Ok(())
    }

    /// Sends what needs no work, without waiting for room on the link.
    fn reply(&self, frame: &Frame) -> Result<(), ProtocolError> {
        match self.outgoing.try_send(frame.encode()) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(ProtocolError::TakesNoAnswers),
            // A link that has ended is seen as such by whoever reads from it.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    fn stream_append(&mut self, id: u64, to: Target, append: Append) -> Result<(), ProtocolError> {
        if !self.streams.contains_key(&id) {
            if self.streams.len() >= MAX_STREAMS {
                return Err(ProtocolError::TooManyStreams);
            }
            let sender = append.vote.leader_id.voted_for;
            let admitted = self
                .shared
                .replica(to)
                .and_then(|replica| replica.admit(sender, self.peer).map(|()| replica));
            let opened = match admitted {
                Ok(replica) => Some(self.open(id, &replica)),
                Err(refusal) => {
                    self.refuse(id, refusal)?;
                    None
                }
            };
            self.streams.insert(id, opened);
        }
        let Some(Some(stream)) = self.streams.get(&id) else {
            return Ok(());
        };
        if !append.entries.is_empty() && !self.shared.has_room() {
            self.streams.insert(id, None);
            return self.refuse(id, Refusal::NoRoom);
        }
        stream.heard.now();
        match stream.appends.try_send(append) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(ProtocolError::TooManyAppends),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.streams.insert(id, None);
                Ok(())
            }
        }
    }

    /// Starts the task that takes a stream's appends to the replica and its answers back.
    fn open(&self, id: u64, replica: &Replica) -> Stream {
        let (appends, receiver) = mpsc::channel(STREAM_WINDOW);
        let (outgoing, closed) = (self.outgoing.clone(), self.closed.clone());
        let rest = replica.rest.clone();
        let appends_awake = ReceiverStream::new(receiver).then(move |append| {
            let rest = rest.clone();
            async move {
                rest.stir().await;
                append
            }
        });
        let answers = replica.raft.stream_append(Box::pin(appends_awake));
        tokio::spawn(async move {
            let mut answers = std::pin::pin!(answers);
            while let Some(answer) = answers.next().await {
                let answer = answer.map_err(|_stopped| Refusal::Stopped);
                let frame = Frame::StreamAnswer { id, answer };
                let sent = tokio::select! {
                    biased;
                    sent = outgoing.send(frame.encode()) => sent.is_ok(),
                    () = closed.cancelled() => false,
                };
                if !sent {
                    break;
                }
            }
        });
        let heard = replica.heard.clone();
        Stream { appends, heard }
    }

    fn refuse(&self, id: u64, refusal: Refusal) -> Result<(), ProtocolError> {
        let answer = Err(refusal);
        self.reply(&Frame::StreamAnswer { id, answer })
    }
}

impl Shared {
    fn replica(&self, to: Target) -> Result<Arc<Replica>, Refusal> {
        let replica = self.replicas.read().get(&to.group).cloned();
        match replica {
            Some(replica) if replica.id == to.replica => Ok(replica),
            _ if self.wal.is_removed(to.group, to.replica) => Err(Refusal::Removed),
            Some(replica) => Err(Refusal::WrongReplica { actual: replica.id }),
            None => Err(Refusal::UnknownGroup),
        }
    }

    /// What a replica is to a group, as far as this node's replica of it knows.
    fn standing(&self, group: GroupId, of: ReplicaId) -> Result<Answer, Refusal> {
        let replica = self.replicas.read().get(&group).cloned();
        let replica = replica.ok_or(Refusal::UnknownGroup)?;
        let metrics = replica.raft.metrics();
        let metrics = metrics.borrow_watched();
        let standing = standing(&metrics.committed_membership_config, of);
        Ok(Answer::Standing(standing))
    }

    /// Whether entries may come in. Without room a follower falls behind and catches up later; its
    /// votes and heartbeats go on.
    fn has_room(&self) -> bool {
        self.wal.accepts_entries() && self.store.overlay_bytes() < self.overlay_budget_bytes
    }

    async fn answer(&self, peer: NodeId, to: Target, request: Request) -> Result<Answer, Refusal> {
        match request {
            Request::Clock => return Ok(Answer::Clock(self.clock.now())),
            Request::Standing { replica } => return self.standing(to.group, replica),
            Request::Beat { resting } => return Ok(self.beat(peer, &resting).await),
            _ => {}
        }
        let replica = self.replica(to)?;
        if let Some(sender) = sender(&request) {
            replica.admit(sender, peer)?;
        }
        replica.wake_for(&request).await;
        let raft = &replica.raft;
        match request {
            Request::Append(append) => {
                replica.heard.now();
                if !append.entries.is_empty() && !self.has_room() {
                    return Err(Refusal::NoRoom);
                }
                let outcome = raft
                    .append_entries(append)
                    .await
                    .map_err(|_| Refusal::Stopped)?;
                Ok(Answer::Append(outcome))
            }
            Request::Vote(ballot) => {
                if let Some(answer) = replica.abstains(&ballot) {
                    return Ok(answer);
                }
                let _resumes = replica.rest.give_up().await;
                let outcome = raft.vote(ballot).await.map_err(|_| Refusal::Stopped)?;
                Ok(Answer::Vote(outcome))
            }
            Request::PreVote(ballot) => match replica.abstains(&ballot) {
                Some(answer) => Ok(answer),
                None => Ok(Answer::Vote(
                    raft.pre_vote(ballot).await.map_err(|_| Refusal::Stopped)?,
                )),
            },
            Request::Transfer(transfer) => {
                let outcome = raft.handle_transfer_leader(transfer).await;
                Ok(Answer::Transfer(outcome.map_err(|_| Refusal::Stopped)?))
            }
            Request::SnapshotBegin { manifest } => self.begin(&replica, manifest).await,
            Request::SnapshotChunk {
                transfer,
                file,
                offset,
                bytes,
            } => {
                let write =
                    move |incoming: &mut IncomingCheckpoint| incoming.write(&file, offset, &bytes);
                self.write(&replica, transfer, write).await
            }
            Request::SnapshotInstall { transfer, vote } => {
                self.install(&replica, transfer, vote).await
            }
            Request::Rest { vote, last } => {
                Ok(Answer::Rest(replica.rest.follow(vote, last, peer).await))
            }
            Request::Beat { resting } => Ok(self.beat(peer, &resting).await),
            Request::Clock => Ok(Answer::Clock(self.clock.now())),
            Request::Standing { replica } => self.standing(to.group, replica),
            Request::ReadIndex => {
                let index = reads::read_index(raft).await.ok_or(Refusal::NotLeading)?;
                Ok(Answer::ReadIndex(index))
            }
        }
    }

    /// A node lives, and leads these groups at rest, each in that term; which of them do not rest here.
    async fn beat(&self, peer: NodeId, resting: &[(GroupId, u64)]) -> Answer {
        let terms: BTreeMap<GroupId, u64> = resting.iter().copied().collect();
        let replicas: Vec<Arc<Replica>> = self.replicas.read().values().cloned().collect();
        let mut awake: BTreeSet<GroupId> = terms.keys().copied().collect();
        for replica in replicas {
            let term = terms.get(&replica.group).copied();
            match replica.rest.beat(peer, term) {
                Beaten::Rests => {
                    awake.remove(&replica.group);
                }
                Beaten::Awake => {}
                // On a task of its own: it must not keep the others' beat from being answered.
                Beaten::Dropped => {
                    tokio::spawn(async move { replica.rest.stir().await });
                }
            }
        }
        let awake = awake.into_iter().collect();
        Answer::Beat { awake }
    }

    async fn begin(&self, replica: &Replica, manifest: Bytes) -> Result<Answer, Refusal> {
        let (store, group) = (self.store.clone(), replica.group);
        let mut slot = replica.transfer.lock().await;
        // One at a time: a later one, perhaps of a newer leader, takes the place of this.
        *slot = None;
        let begin = move || IncomingCheckpoint::begin(&store, group, &manifest);
        let incoming = self.blocking.run(begin).await.map_err(bad_checkpoint)?;
        let incoming = incoming.map_err(bad_checkpoint)?;
        let id = {
            let mut last = replica.last_transfer.lock();
            *last += 1;
            *last
        };
        let missing = incoming.missing();
        *slot = Some(Transfer { id, incoming });
        Ok(Answer::SnapshotMissing {
            transfer: id,
            missing,
        })
    }

    async fn write<E>(
        &self,
        replica: &Replica,
        id: u64,
        write: impl FnOnce(&mut IncomingCheckpoint) -> Result<(), E> + Send + 'static,
    ) -> Result<Answer, Refusal>
    where
        E: std::error::Error + Send + 'static,
    {
        let mut slot = replica.transfer.lock().await;
        let mut transfer = slot
            .take_if(|transfer| transfer.id == id)
            .ok_or(Refusal::UnknownTransfer)?;
        let work = move || write(&mut transfer.incoming).map(|()| transfer);
        let written = self.blocking.run(work).await.map_err(bad_checkpoint)?;
        *slot = Some(written.map_err(bad_checkpoint)?);
        Ok(Answer::SnapshotWritten)
    }

    async fn install(&self, replica: &Replica, id: u64, vote: Vote) -> Result<Answer, Refusal> {
        let transfer = {
            let mut slot = replica.transfer.lock().await;
            slot.take_if(|transfer| transfer.id == id)
                .ok_or(Refusal::UnknownTransfer)?
        };
        let finish = move || transfer.incoming.finish();
        let checkpoint = self.blocking.run(finish).await.map_err(bad_checkpoint)?;
        let checkpoint = checkpoint.map_err(bad_checkpoint)?;
        // openraft takes this for granted.
        if checkpoint.position().term > vote.leader_id.term {
            return Err(Refusal::BadCheckpoint);
        }
        let meta = snapshot_meta(&checkpoint).map_err(bad_checkpoint)?;
        let snapshot = Snapshot {
            meta,
            snapshot: Some(checkpoint),
        };
        let installed = replica.raft.install_full_snapshot(vote, snapshot).await;
        Ok(Answer::SnapshotInstalled(
            installed.map_err(|_| Refusal::Stopped)?.vote,
        ))
    }
}

fn bad_checkpoint(error: impl std::error::Error) -> Refusal {
    tracing::warn!(%error, "a checkpoint could not be taken in");
    Refusal::BadCheckpoint
}
