//! The network of a replica, as openraft sees it: each call becomes frames on the link to the
//! target's node.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_storage::store::{Checkpoint, FileName};
use tokio::time::{Instant, sleep_until};

use crate::Member;
use crate::blocking::Blocking;
use crate::book::AddressBook;
use crate::frame::{Answer, Append, Request, Target};
use crate::lease::Lease;
use crate::links::{AppendStream, CallError, Links, STREAM_WINDOW};
use crate::shipping::Shipping;
use crate::types::{Snapshot, SnapshotData, TypeConfig, Vote};

type RpcError = RPCError<TypeConfig>;
type StreamItem = Result<StreamAppendResult<TypeConfig>, RpcError>;

/// A piece of a checkpoint file on its way to a follower, in bytes.
const PIECE_BYTES: u32 = 1024 * 1024;
/// How long a follower may take for one piece, and to say what it lacks.
const PIECE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a follower may take to verify and install a checkpoint.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of entries that a stream may have under way.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// An append on a stream may take this many heartbeats: it is answered after the follower's fsync,
/// and a heartbeat of its own tells whether the follower lives.
const STALLED_HEARTBEATS: u32 = 20;

/// Makes the network clients of one replica.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) links: Links,
    pub(crate) heartbeat: Duration,
    pub(crate) blocking: Blocking,
    pub(crate) shipping: Arc<Shipping>,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) lease: Arc<Lease>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: ReplicaId, node: &Member) -> Client {
        Client {
            network: self.clone(),
            target,
            member: node.clone(),
        }
    }
}

/// Reaches one other replica of the group.
pub(crate) struct Client {
    network: Network,
    target: ReplicaId,
    member: Member,
}

impl Client {
    fn to(&self) -> Target {
        Target {
            group: self.network.group,
            replica: self.target,
        }
    }

    async fn call(&self, request: Request, within: Duration) -> Result<Answer, CallError> {
        let deadline = Instant::now() + within;
        self.network
            .links
            .call(&self.member(), self.to(), request, deadline)
            .await
    }

    /// Where the target is now.
    fn member(&self) -> Member {
        self.network.book.find(self.target, &self.member)
    }

    /// openraft backs off after `Unreachable` only, so that is what tells it not to hurry.
    fn error(&self, action: RPCTypes, within: Duration, error: CallError) -> RpcError {
        match error {
            CallError::Timeout => {
                let (id, target) = (self.network.replica, self.target);
                RPCError::Timeout(Timeout {
                    action,
                    id,
                    target,
                    timeout: within,
                })
            }
            CallError::Unreachable(_) | CallError::Refused(_) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
            CallError::Broken | CallError::Unexpected => {
                RPCError::Network(NetworkError::new(&error))
            }
        }
    }

    async fn ask<T>(
        &self,
        action: RPCTypes,
        request: Request,
        option: RPCOption,
        expected: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<T, RpcError> {
        let within = option.soft_ttl();
        self.call(request, within)
            .await
            .and_then(|answer| expected(answer).ok_or(CallError::Unexpected))
            .map_err(|error| self.error(action, within, error))
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let (term, sent) = (rpc.vote.leader_id.term, self.network.lease.now());
        let asking = self.ask(
            RPCTypes::AppendEntries,
            Request::Append(rpc),
            option,
            append_outcome,
        );
        let outcome = asking.await?;
        if let AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) = outcome {
            self.network.lease.accepted(term, self.target, sent);
        }
        Ok(outcome)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, StreamItem>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let within = option.soft_ttl();
            let links = &self.network.links;
            let opened = links
                .open_stream(&self.member(), self.to(), Instant::now() + within)
                .await;
            let stream = match opened {
                Ok(stream) => stream,
                Err(error) => {
                    // openraft's own pause is in `input`, which nobody reads without a stream:
                    // left to itself it would ask again at once, for as long as the peer is away.
                    tokio::time::sleep(self.network.heartbeat).await;
                    return Err(self.error(RPCTypes::AppendEntries, within, error));
                }
            };
            let answer_within = self.network.heartbeat * STALLED_HEARTBEATS;
            let pipeline = Pipeline {
                client: self,
                stream,
                input: Some(input),
                in_flight: VecDeque::new(),
                bytes: 0,
                answer_within,
            };
            let answers = futures_util::stream::unfold(Some(pipeline), |pipeline| async move {
                pipeline?.next().await
            });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(RPCTypes::Vote, Request::Vote(rpc), option, ballot_outcome)
            .await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(
            RPCTypes::Vote,
            Request::PreVote(rpc),
            option,
            ballot_outcome,
        )
        .await
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        self.network.lease.give_up(rpc.from_leader().leader_id.term);
        self.ask(
            RPCTypes::TransferLeader,
            Request::Transfer(rpc),
            option,
            transfer_outcome,
        )
        .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // The log stays as long as this lives, so that the follower can go on from the checkpoint.
        let held = self.network.shipping.begin(self.target);
        let Some(checkpoint) = snapshot.snapshot else {
            let none = CallError::Unreachable("there is no checkpoint to send".to_owned());
            return Err(self.ship_error(none.into()));
        };
        let sending = self.ship(vote, checkpoint);
        tokio::select! {
            biased;
            sent = sending => {
                if sent.is_ok() {
                    held.arrived();
                }
                sent.map(SnapshotResponse::new).map_err(|error| self.ship_error(error))
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        // The link has its own, growing pause: openraft needs only ask again.
        Some(Backoff::new(std::iter::repeat(self.network.heartbeat)))
    }
}

fn append_outcome(answer: Answer) -> Option<AppendEntriesResponse<TypeConfig>> {
    match answer {
        Answer::Append(outcome) => Some(outcome),
        _ => None,
    }
}

fn ballot_outcome(answer: Answer) -> Option<VoteResponse<TypeConfig>> {
    match answer {
        Answer::Vote(outcome) => Some(outcome),
        _ => None,
    }
}

fn transfer_outcome(answer: Answer) -> Option<TransferLeaderResponse<TypeConfig>> {
    match answer {
        Answer::Transfer(outcome) => Some(outcome),
        _ => None,
    }
}

/// Why a checkpoint did not reach the follower.
enum ShipError {
    Call(CallError),
    Read(rossby_storage::store::StoreError),
    Runtime(std::io::Error),
}

impl From<CallError> for ShipError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Client {
    /// Sends a checkpoint: first its manifest, then the files that the follower does not have.
    async fn ship(&self, vote: Vote, checkpoint: Checkpoint) -> Result<Vote, ShipError> {
        let begin = Request::SnapshotBegin {
            manifest: checkpoint.manifest(),
        };
        let answer = self.call(begin, PIECE_TIMEOUT).await?;
        let Answer::SnapshotMissing { transfer, missing } = answer else {
            return Err(CallError::Unexpected.into());
        };
        tracing::info!(
            group = %self.network.group, to = %self.member.node, files = missing.len(),
            "ships a checkpoint"
        );
        for (file, from) in missing {
            self.ship_file(&checkpoint, transfer, file, from).await?;
        }
        let install = Request::SnapshotInstall { transfer, vote };
        match self.call(install, INSTALL_TIMEOUT).await? {
            Answer::SnapshotInstalled(vote) => Ok(vote),
            _ => Err(CallError::Unexpected.into()),
        }
    }

    async fn ship_file(
        &self,
        checkpoint: &Checkpoint,
        transfer: u64,
        file: FileName,
        from: u64,
    ) -> Result<(), ShipError> {
        let mut offset = from;
        // A file without bytes is sent too: its one, empty piece creates it.
        loop {
            let left = file.length.saturating_sub(offset);
            let length = u32::try_from(left).unwrap_or(u32::MAX).min(PIECE_BYTES);
            let (source, name) = (checkpoint.clone(), file);
            let read = move || source.read(&name, offset, length);
            let bytes = self
                .network
                .blocking
                .run(read)
                .await
                .map_err(ShipError::Runtime)?
                .map_err(ShipError::Read)?;
            let piece = Request::SnapshotChunk {
                transfer,
                file,
                offset,
                bytes,
            };
            match self.call(piece, PIECE_TIMEOUT).await? {
                Answer::SnapshotWritten => {
                    offset += u64::from(length);
                    self.network.shipping.sent(u64::from(length));
                }
                _ => return Err(CallError::Unexpected.into()),
            }
            if left <= u64::from(length) {
                return Ok(());
            }
        }
    }

    fn ship_error(&self, error: ShipError) -> StreamingError<TypeConfig> {
        match error {
            ShipError::Call(error) => {
                match self.error(RPCTypes::InstallSnapshot, PIECE_TIMEOUT, error) {
                    RPCError::Timeout(error) => StreamingError::Timeout(error),
                    RPCError::Unreachable(error) => StreamingError::Unreachable(error),
                    RPCError::Network(error) => StreamingError::Network(error),
                    RPCError::RemoteError(error) => match error.source {},
                }
            }
            ShipError::Read(error) => StreamingError::Unreachable(Unreachable::new(&error)),
            ShipError::Runtime(error) => StreamingError::Unreachable(Unreachable::new(&error)),
        }
    }
}

/// Appends under way on a stream: the next is sent while earlier ones wait for their answers.
struct Pipeline<'s, S> {
    client: &'s Client,
    stream: AppendStream,
    input: Option<S>,
    in_flight: VecDeque<InFlight>,
    bytes: usize,
    answer_within: Duration,
}

/// An append that waits for its answer.
struct InFlight {
    since: Instant,
    bytes: usize,
    term: u64,
    /// By the clock of the lease, before it was sent.
    sent: Duration,
}

/// What a pipeline does next.
enum Step {
    Send(Option<Append>),
    Answer(Result<StreamAppendResult<TypeConfig>, CallError>),
}

impl<S> Pipeline<'_, S>
where
    S: Stream<Item = Append> + Unpin + Send + 'static,
{
    /// The next answer, and what goes on after it. Answers come in the order of the appends.
    async fn next(mut self) -> Option<(StreamItem, Option<Self>)> {
        let error = loop {
            let room = self.in_flight.len() < STREAM_WINDOW && self.bytes < WINDOW_BYTES;
            let oldest = self
                .in_flight
                .front()
                .map(|append| append.since + self.answer_within);
            if self.input.is_none() && oldest.is_none() {
                return None;
            }
            let step = tokio::select! {
                biased;
                answer = self.stream.receive() => Step::Answer(answer),
                append = next_of(&mut self.input), if room && self.input.is_some() => {
                    Step::Send(append)
                }
                () = until(oldest) => Step::Answer(Err(CallError::Timeout)),
            };
            match step {
                Step::Send(None) => self.input = None,
                Step::Send(Some(append)) => {
                    let (bytes, term) = (append_bytes(&append), append.vote.leader_id.term);
                    let sent = self.client.network.lease.now();
                    let sending = self.stream.send(append);
                    match tokio::time::timeout(self.answer_within, sending).await {
                        Ok(Ok(())) => {
                            let since = Instant::now();
                            self.in_flight.push_back(InFlight {
                                since,
                                bytes,
                                term,
                                sent,
                            });
                            self.bytes += bytes;
                        }
                        Ok(Err(error)) => break error,
                        Err(_) => break CallError::Timeout,
                    }
                }
                Step::Answer(Ok(outcome)) => {
                    let Some(append) = self.in_flight.pop_front() else {
                        break CallError::Unexpected;
                    };
                    self.bytes -= append.bytes;
                    if outcome.is_ok() {
                        let lease = &self.client.network.lease;
                        lease.accepted(append.term, self.client.target, append.sent);
                    }
                    // After a conflict the follower's side has ended the stream.
                    let rest = outcome.is_ok().then_some(self);
                    return Some((Ok(outcome), rest));
                }
                Step::Answer(Err(error)) => break error,
            }
        };
        let within = self.answer_within;
        Some((
            Err(self.client.error(RPCTypes::AppendEntries, within, error)),
            None,
        ))
    }
}

async fn next_of<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn append_bytes(append: &Append) -> usize {
    let bytes = |entry: &crate::types::Entry| match &entry.payload {
        openraft::EntryPayload::Normal(proposal) => proposal.batch().len(),
        _ => 0,
    };
    append.entries.iter().map(bytes).sum()
}
