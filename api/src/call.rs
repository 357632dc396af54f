//! One client's call, from the door to its answer, free of the server that carried it: the public
//! listener and a peer's relay hand in the same thing.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use rossby_domain::ids::GroupId;
use rossby_raft::Member;
use tokio::time::Instant;

use crate::error::ApiError;

/// A method of the public service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RpcPath {
    /// Makes a box and asks for a verification code.
    Register,
    /// Proves an identifier with the code.
    Authorize,
    /// Finds a box's key record.
    LookupKey,
    /// Puts envelopes into boxes.
    Send,
    /// Reads the caller's box.
    Fetch,
    /// Moves the caller's cursor.
    Acknowledge,
    /// Blocks a sender.
    Block,
    /// Takes envelopes from anyone, or from contacts only.
    Accept,
    /// Gives the calling device a new KEM key.
    UpdateKey,
    /// Adds a device to the caller's box, or removes one.
    ExtendChain,
    /// Gives a linked device its place in the box.
    JoinBox,
    /// Shows a box's key record to who has its recovery key.
    LookupRecovery,
    /// Gives a device its place by the recovery key.
    Recover,
    /// Asks for a code for another identifier of the caller's box.
    AddIdentifier,
    /// Takes an identifier from the caller's box.
    RemoveIdentifier,
    /// Keeps an identifier of the caller's box that is to go to another.
    KeepIdentifier,
    /// Tells the identifiers of the caller's box.
    ListIdentifiers,
    /// Deletes the caller's box.
    DeleteAccount,
    /// Replaces what the caller shows of themselves.
    SetProfile,
    /// Tells whoever of a box listens at this moment, and nobody later.
    Notify,
    /// Brings what comes into the caller's box. The only stream.
    Subscribe,
    /// Tells which node leads which boxes.
    GetMap,
    /// Sets how long envelopes may wait in the caller's box.
    SetTtl,
    /// Reports a box whose mail was unwanted.
    Report,
}

impl RpcPath {
    /// Every method, in the order of the `.proto` file.
    pub const ALL: [Self; 24] = [
        Self::Register,
        Self::Authorize,
        Self::LookupKey,
        Self::Send,
        Self::Fetch,
        Self::Acknowledge,
        Self::Block,
        Self::Accept,
        Self::UpdateKey,
        Self::ExtendChain,
        Self::JoinBox,
        Self::LookupRecovery,
        Self::Recover,
        Self::AddIdentifier,
        Self::RemoveIdentifier,
        Self::KeepIdentifier,
        Self::ListIdentifiers,
        Self::DeleteAccount,
        Self::SetProfile,
        Self::Notify,
        Self::Subscribe,
        Self::GetMap,
        Self::SetTtl,
        Self::Report,
    ];

    /// The gRPC path, as it stands in the request and in the Hawk MAC.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "/rossby.v1.Mailbox/Register",
            Self::Authorize => "/rossby.v1.Mailbox/Authorize",
            Self::LookupKey => "/rossby.v1.Mailbox/LookupKey",
            Self::Send => "/rossby.v1.Mailbox/Send",
            Self::Fetch => "/rossby.v1.Mailbox/Fetch",
            Self::Acknowledge => "/rossby.v1.Mailbox/Acknowledge",
            Self::Block => "/rossby.v1.Mailbox/Block",
            Self::Accept => "/rossby.v1.Mailbox/Accept",
            Self::UpdateKey => "/rossby.v1.Mailbox/UpdateKey",
            Self::ExtendChain => "/rossby.v1.Mailbox/ExtendChain",
            Self::JoinBox => "/rossby.v1.Mailbox/JoinBox",
            Self::LookupRecovery => "/rossby.v1.Mailbox/LookupRecovery",
            Self::Recover => "/rossby.v1.Mailbox/Recover",
            Self::AddIdentifier => "/rossby.v1.Mailbox/AddIdentifier",
            Self::RemoveIdentifier => "/rossby.v1.Mailbox/RemoveIdentifier",
            Self::KeepIdentifier => "/rossby.v1.Mailbox/KeepIdentifier",
            Self::ListIdentifiers => "/rossby.v1.Mailbox/ListIdentifiers",
            Self::DeleteAccount => "/rossby.v1.Mailbox/DeleteAccount",
            Self::SetProfile => "/rossby.v1.Mailbox/SetProfile",
            Self::Notify => "/rossby.v1.Mailbox/Notify",
            Self::Subscribe => "/rossby.v1.Mailbox/Subscribe",
            Self::GetMap => "/rossby.v1.Mailbox/GetMap",
            Self::SetTtl => "/rossby.v1.Mailbox/SetTtl",
            Self::Report => "/rossby.v1.Mailbox/Report",
        }
    }

    /// The method's bare name, for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "Register",
            Self::Authorize => "Authorize",
            Self::LookupKey => "LookupKey",
            Self::Send => "Send",
            Self::Fetch => "Fetch",
            Self::Acknowledge => "Acknowledge",
            Self::Block => "Block",
            Self::Accept => "Accept",
            Self::UpdateKey => "UpdateKey",
            Self::ExtendChain => "ExtendChain",
            Self::JoinBox => "JoinBox",
            Self::LookupRecovery => "LookupRecovery",
            Self::Recover => "Recover",
            Self::AddIdentifier => "AddIdentifier",
            Self::RemoveIdentifier => "RemoveIdentifier",
            Self::KeepIdentifier => "KeepIdentifier",
            Self::ListIdentifiers => "ListIdentifiers",
            Self::DeleteAccount => "DeleteAccount",
            Self::SetProfile => "SetProfile",
            Self::Notify => "Notify",
            Self::Subscribe => "Subscribe",
            Self::GetMap => "GetMap",
            Self::SetTtl => "SetTtl",
            Self::Report => "Report",
        }
    }

    /// Whether the call must carry Hawk authentication. Registration, joining and recovering can't: there is no
    /// token yet; their requests are signed by the device's key instead, or by the recovery key. The map is
    /// nobody's secret.
    #[must_use]
    pub const fn is_authenticated(self) -> bool {
        !matches!(
            self,
            Self::Register
                | Self::Authorize
                | Self::JoinBox
                | Self::LookupRecovery
                | Self::Recover
                | Self::GetMap
        )
    }

    /// Whether it is answered by a stream of messages.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Subscribe)
    }
}

impl fmt::Display for RpcPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A path that is no method of the public service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such method")]
pub struct UnknownPath;

impl FromStr for RpcPath {
    type Err = UnknownPath;
    fn from_str(path: &str) -> Result<Self, UnknownPath> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == path)
            .ok_or(UnknownPath)
    }
}

/// One call. `Debug` shows no content.
#[derive(Clone)]
pub struct Call {
    /// Which method.
    pub path: RpcPath,
    /// The `authorization` metadata as it came, if it was there exactly once and in ASCII.
    pub authorization: Option<String>,
    /// The protobuf message byte for byte, since Hawk vouches for these very bytes.
    pub message: Bytes,
    /// When the caller stops waiting; an answer comes before.
    pub deadline: Instant,
    /// Where the client called from, if known (for rate limits).
    pub remote: Option<IpAddr>,
    /// Whether another node relayed it here: then it is not relayed again, and nobody waits for a
    /// leader.
    pub relayed: bool,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("path", &self.path)
            .field("authorized", &self.authorization.is_some())
            .field("message_bytes", &self.message.len())
            .field("relayed", &self.relayed)
            .finish_non_exhaustive()
    }
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReply {
    /// The protobuf message, encoded.
    pub message: Bytes,
    /// The `server-authorization` metadata: Hawk over the bytes of `message`.
    pub server_authorization: Option<String>,
    /// Where clients reach the node that answered, if it was another one that they came to.
    pub leader: Option<String>,
}

/// The messages of a stream, encoded, up to the status that it ends with. An end without one is
/// an end in good order.
pub type CallStream = Pin<Box<dyn Stream<Item = Result<Bytes, tonic::Status>> + Send>>;

/// Why a call has no answer.
#[derive(Debug, Clone)]
pub enum CallError {
    /// This node does not lead the caller's group, whose leader should run the call. Nothing was done
    /// here.
    Elsewhere {
        /// The caller's group.
        group: GroupId,
        /// Who leads it, as far as is known here.
        leader: Option<Member>,
    },
    /// The call was refused.
    Refused(ApiError),
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<CallError> for tonic::Status {
    /// For a caller that can't relay: the client should try again, at another node.
    fn from(error: CallError) -> Self {
        match error {
            CallError::Elsewhere { group, .. } => {
                ApiError::unavailable(format!("group {group} is led elsewhere")).into()
            }
            CallError::Refused(error) => error.into(),
        }
    }
}

/// Whatever answers a client's calls: the mailbox service itself, or a relay around it.
#[async_trait]
pub trait Door: Send + Sync + 'static {
    /// Answers a call before its deadline.
    ///
    /// # Errors
    /// A status whose details carry a stable code ([`crate::error`]).
    async fn call(&self, call: Call) -> Result<CallReply, tonic::Status>;

    /// Opens a stream before the call's deadline. It ends by itself, or by being dropped.
    ///
    /// # Errors
    /// As [`Door::call`]. A stream that is relayed may also end with such a status at once.
    async fn subscribe(&self, call: Call) -> Result<CallStream, tonic::Status>;
}
