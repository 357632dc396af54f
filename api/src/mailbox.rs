//! The mailbox service of a node: who is asking, then the call itself.
//!
//! A call runs at the leader of the caller's group, since only there is it known whether the caller is
//! still authorised and which of its requests were seen. Everywhere else [`MailboxService::handle`]
//! names that leader and does nothing, and a relay takes the call there. What a call needs of other
//! groups the router gets ([`crate::router`]); Register, Authorize, JoinBox, LookupRecovery and
//! Recover, which have no caller yet, and GetMap run where they arrive.

mod authenticate;
mod lead;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rossby_domain::ids::{GroupId, PartitionCount};
use rossby_domain::limits::Limits;
use rossby_raft::{Member, ProposeError, ReadError};
use rossby_seams::random::Random;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::call::{Call, CallError, CallReply, CallStream, Door, RpcPath};
use crate::courier::Courier;
use crate::error::{ApiError, Code};
use crate::hawk::{Guard, GuardConfig};
use crate::limits::DoorLimits;
use crate::metrics::Metrics;
use crate::peer::PeerDoor;
use crate::rates::{Rates, TooOften};
use crate::router::{Execute, ExecuteError, Executed, Router};
use crate::rpc;
use crate::secrets::ClusterSecrets;
use crate::subscriptions::Places;

use authenticate::Confirmed;
pub(crate) use authenticate::Standing;
pub(crate) use lead::{unexpected_answer, unexpected_outcome};

/// What the service is made of.
pub struct MailboxConfig {
    /// Reaches the groups of the cluster.
    pub router: Arc<Router>,
    /// The cluster's secrets.
    pub secrets: Arc<ClusterSecrets>,
    /// The cluster's number of partitions.
    pub partitions: PartitionCount,
    /// The cluster's name: the host in the Hawk MAC.
    pub cluster_name: String,
    /// Where codes and sealing nonces come from.
    pub random: Arc<dyn Random>,
    /// Limits of the doors.
    pub limits: DoorLimits,
    /// The replicated limits that this node would take partitions over with, for what clients are
    /// told in advance. What counts is what apply enforces.
    pub stored_limits: Limits,
    /// Who brings codes to people, for whom it can reach.
    pub courier: Arc<dyn Courier>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
}

/// The mailbox service of a node.
pub struct MailboxService {
    pub(crate) config: MailboxConfig,
    pub(crate) guard: Arc<Guard>,
    pub(crate) places: Places,
    pub(crate) rates: Rates,
    confirmed: Confirmed,
}

impl MailboxService {
    /// The service.
    #[must_use]
    pub fn new(config: MailboxConfig) -> Self {
        let places = Places::new(config.limits.subscriptions);
        let guard = Guard::new(GuardConfig {
            host: config.cluster_name.clone(),
            window_ms: config.limits.hawk_window_ms,
            ahead_ms: config.limits.hawk_ahead_ms,
            nonces: config.limits.hawk_nonces,
        });
        let rates = Rates::new(&config.limits);
        Self {
            config,
            guard: Arc::new(guard),
            places,
            rates,
            confirmed: Confirmed::default(),
        }
    }

    /// Answers one call, or says who should.
    ///
    /// # Errors
    /// [`CallError::Elsewhere`] if another node leads the caller's group, otherwise
    /// [`CallError::Refused`].
    pub async fn handle(&self, call: &Call) -> Result<CallReply, CallError> {
        let started = Instant::now();
        // Boxed: all calls' futures together are deep enough to tire the compiler. Those of rare calls
        // are boxed once more, so that they don't make this one large.
        let answer = Box::pin(self.answer(call)).await;
        self.settle(call, started, answer)
    }

    /// Opens a stream, or says who should.
    ///
    /// # Errors
    /// As [`MailboxService::handle`].
    pub async fn open_stream(&self, call: &Call) -> Result<CallStream, CallError> {
        let started = Instant::now();
        let answer = Box::pin(self.answer_stream(call)).await;
        self.settle(call, started, answer)
    }

    /// Does work of a group for a peer, if this node leads the group.
    ///
    /// # Errors
    /// [`ExecuteError`].
    pub async fn execute(
        &self,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError> {
        self.config.router.execute(request, deadline).await
    }

    /// Ends all subscriptions with a word to each, and takes no more: the node is about to stop.
    pub fn end_subscriptions(&self) {
        self.places.close();
    }

    /// Turns an answer into what the caller is told, and counts it.
    fn settle<T>(
        &self,
        call: &Call,
        started: Instant,
        answer: Result<T, Failure>,
    ) -> Result<T, CallError> {
        let result = answer.map_err(|failure| match failure {
            Failure::NotLeader { group, leader } => CallError::Elsewhere { group, leader },
            Failure::Refused(error) => error.into(),
        });
        let refusal = match &result {
            Ok(_) => None,
            // Whoever answers it counts it.
            Err(CallError::Elsewhere { .. }) => return result,
            Err(CallError::Refused(error)) => Some(error),
        };
        self.config
            .metrics
            .answered(call.path, refusal.map(ApiError::code), started.elapsed());
        self.config.metrics.set_nonces(self.guard.nonces());
        if let Some(refusal) = refusal {
            log_refusal(call.path, refusal);
        }
        result
    }

    /// Counts that somebody did something too often; what they are told.
    pub(crate) fn too_often(&self, too_often: TooOften, code: Code) -> ApiError {
        self.config.metrics.limited(too_often.limit);
        ApiError::from(code).with_retry_after(too_often.wait)
    }

    fn check_size(&self, call: &Call) -> Result<(), Failure> {
        let limit = self.config.limits.request_bytes;
        if call.message.len() > usize::try_from(limit).unwrap_or(usize::MAX) {
            let error = ApiError::from(Code::RequestTooLarge);
            return Err(error.with_metadata("limit_bytes", limit).into());
        }
        Ok(())
    }

    async fn answer_stream(&self, call: &Call) -> Result<CallStream, Failure> {
        self.check_size(call)?;
        if !call.path.is_stream() {
            return Err(ApiError::invalid("this call is no stream").into());
        }
        let (caller, standing) = self.authenticate_at(call).await?;
        rpc::subscribe(self, caller, standing, call)
    }

    async fn answer(&self, call: &Call) -> Result<CallReply, Failure> {
        self.check_size(call)?;
        match call.path {
            RpcPath::Register => Box::pin(rpc::register(self, call)).await.map(unsigned),
            RpcPath::Authorize => Box::pin(rpc::authorize(self, call)).await.map(unsigned),
            RpcPath::JoinBox => Box::pin(rpc::join_box(self, call)).await.map(unsigned),
            RpcPath::LookupRecovery => {
                let looking = Box::pin(rpc::lookup_recovery(self, call));
                looking.await.map(unsigned)
            }
            RpcPath::Recover => Box::pin(rpc::recover(self, call)).await.map(unsigned),
            RpcPath::GetMap => rpc::get_map(self, call).map(unsigned),
            RpcPath::LookupKey
            | RpcPath::Send
            | RpcPath::Fetch
            | RpcPath::Acknowledge
            | RpcPath::Block
            | RpcPath::Accept
            | RpcPath::UpdateKey
            | RpcPath::ExtendChain
            | RpcPath::AddIdentifier
            | RpcPath::RemoveIdentifier
            | RpcPath::KeepIdentifier
            | RpcPath::ListIdentifiers
            | RpcPath::DeleteAccount
            | RpcPath::SetTtl
            | RpcPath::Report
            | RpcPath::SetProfile
            | RpcPath::Notify => self.answer_caller(call).await,
            RpcPath::Subscribe => Err(ApiError::invalid("this call is a stream").into()),
        }
    }

    /// A call that must prove who makes it.
    async fn answer_caller(&self, call: &Call) -> Result<CallReply, Failure> {
        let (caller, standing) = self.authenticate_at(call).await?;
        let from = caller.address();
        let message = match call.path {
            RpcPath::LookupKey => Box::pin(rpc::lookup_key(self, from, call)).await?,
            RpcPath::Send => rpc::send(self, from, &standing, call).await?,
            RpcPath::Fetch => rpc::fetch(self, from, call).await?,
            RpcPath::Acknowledge => rpc::acknowledge(self, from, call).await?,
            RpcPath::Block => Box::pin(rpc::block(self, from, call)).await?,
            RpcPath::Accept => Box::pin(rpc::accept(self, from, call)).await?,
            RpcPath::UpdateKey => Box::pin(rpc::update_key(self, from, call)).await?,
            RpcPath::ExtendChain => Box::pin(rpc::extend_chain(self, from, call)).await?,
            RpcPath::AddIdentifier => Box::pin(rpc::add_identifier(self, from, call)).await?,
            RpcPath::RemoveIdentifier => Box::pin(rpc::remove_identifier(self, from, call)).await?,
            RpcPath::KeepIdentifier => Box::pin(rpc::keep_identifier(self, from, call)).await?,
            RpcPath::ListIdentifiers => Box::pin(rpc::list_identifiers(self, from, call)).await?,
            RpcPath::DeleteAccount => Box::pin(rpc::delete_account(self, from, call)).await?,
            RpcPath::SetTtl => Box::pin(rpc::set_ttl(self, from, call)).await?,
            RpcPath::Report => Box::pin(rpc::report(self, from, call)).await?,
            RpcPath::SetProfile => Box::pin(rpc::set_profile(self, from, call)).await?,
            RpcPath::Notify => rpc::notify(self, from, call)?,
            RpcPath::Register
            | RpcPath::Authorize
            | RpcPath::JoinBox
            | RpcPath::LookupRecovery
            | RpcPath::Recover
            | RpcPath::Subscribe
            | RpcPath::GetMap => {
                return Err(ApiError::internal("not a call of a caller").into());
            }
        };
        let vouched = self.guard.vouch(&caller, &message);
        let header = vouched.map_err(|error| ApiError::internal(format!("hawk: {error}")))?;
        Ok(CallReply {
            message,
            server_authorization: Some(header),
            leader: None,
        })
    }
}

fn unsigned(message: Bytes) -> CallReply {
    CallReply {
        message,
        server_authorization: None,
        leader: None,
    }
}

/// For operators: what is our fault loudly, what is a client's quietly.
fn log_refusal(path: RpcPath, refusal: &ApiError) {
    let (rpc, code, why) = (
        path.name(),
        refusal.code().as_str(),
        refusal.log().unwrap_or("-"),
    );
    match refusal.code() {
        Code::Internal => error!(rpc, code, why, "a call failed"),
        Code::ClockUnsafe | Code::DiskFull | Code::Overloaded => {
            warn!(rpc, code, why, "a call was refused");
        }
        _ => debug!(rpc, code, why, "a call was refused"),
    }
}

/// Why a call ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another replica leads the caller's group. Nothing was done that a repetition of the call would
    /// not do again with the same outcome.
    NotLeader {
        /// The caller's group.
        group: GroupId,
        /// Who leads it, if known.
        leader: Option<Member>,
    },
    /// The call is refused.
    Refused(ApiError),
}

impl Failure {
    /// A proposal to the caller's own group failed.
    pub fn of_propose(group: GroupId, error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeader { group, leader },
            other => Self::Refused(other.into()),
        }
    }

    /// A read from the caller's own group failed.
    pub fn of_read(group: GroupId, error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { leader } => Self::NotLeader { group, leader },
            other => Self::Refused(other.into()),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Refused(code.into())
    }
}

#[async_trait]
impl Door for MailboxService {
    /// Without a relay: a call for another node is refused as unavailable.
    async fn call(&self, call: Call) -> Result<CallReply, tonic::Status> {
        self.handle(&call).await.map_err(Into::into)
    }

    async fn subscribe(&self, call: Call) -> Result<CallStream, tonic::Status> {
        self.open_stream(&call).await.map_err(Into::into)
    }
}

#[async_trait]
impl PeerDoor for MailboxService {
    async fn call(&self, call: Call) -> Result<CallReply, CallError> {
        self.handle(&call).await
    }

    async fn subscribe(&self, call: Call) -> Result<CallStream, CallError> {
        self.open_stream(&call).await
    }

    async fn execute(&self, request: Execute, deadline: Instant) -> Result<Executed, ExecuteError> {
        self.execute(request, deadline).await
    }
}
