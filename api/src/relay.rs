//! The door that most calls come through: any node takes any call, and hands it on to the node that
//! leads the caller's group. One relay at most.
//!
//! A call that was handed to nobody yet may be tried again as long as its deadline allows, which
//! bridges a change of leader. Once it was sent to a peer it is that peer's: if the connection then
//! breaks, the outcome is not known, and the caller is told so.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_proto::v1;
use rossby_raft::Member;
use tokio::time::Instant;
use tonic::Status;
use tracing::debug;

use crate::call::{Call, CallError, CallReply, CallStream, Door};
use crate::mailbox::MailboxService;
use crate::peer::{ConnectError, Connection, Connections};
use crate::{ApiError, Code};

/// The pause before a leader that can't be reached is asked for again: another may be elected.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// Kept from the deadline, so that the caller gets our answer rather than a timeout of its own.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// The mailbox service, with a relay around it.
#[derive(Clone)]
pub struct Relay {
    mailbox: Arc<MailboxService>,
    peers: Option<Arc<Connections>>,
}

impl Relay {
    /// A relay to peers over these connections; a single node has none.
    #[must_use]
    pub fn new(mailbox: Arc<MailboxService>, peers: Option<Arc<Connections>>) -> Self {
        Self { mailbox, peers }
    }

    /// Finds the connection to the leader, as this node knows it now.
    async fn connect(&self, leader: &Member) -> Result<Connection, ConnectError> {
        match &self.peers {
            Some(peers) => peers.get(leader.node, &leader.peer_address).await,
            None => Err(ConnectError::Unreachable {
                node: leader.node,
                address: leader.peer_address.clone(),
                reason: "this node has no peer listener".to_owned(),
            }),
        }
    }

    /// The connection to a leader, if it can be had by then; otherwise a pause, after which another
    /// may lead.
    async fn reach(&self, leader: &Member, give_up: Instant) -> Result<Option<Connection>, Status> {
        match tokio::time::timeout_at(give_up, self.connect(leader)).await {
            Ok(Ok(connection)) => return Ok(Some(connection)),
            Ok(Err(error)) => debug!(%error, "can't relay a call to the leader"),
            Err(_) => debug!(%leader, "the leader did not answer in time"),
        }
        if Instant::now() + LEADER_PAUSE >= give_up {
            return Err(ApiError::unavailable("the leader can't be reached").into());
        }
        tokio::time::sleep(LEADER_PAUSE).await;
        Ok(None)
    }

    /// Ends all subscriptions, the relayed ones too ([`MailboxService::end_subscriptions`]).
    pub fn end_subscriptions(&self) {
        self.mailbox.end_subscriptions();
    }
}

#[async_trait]
impl Door for Relay {
    async fn call(&self, call: Call) -> Result<CallReply, Status> {
        let give_up = give_up(&call);
        loop {
            let leader = match self.mailbox.handle(&call).await {
                Err(CallError::Elsewhere(leader)) => leader,
                Err(CallError::Refused(error)) => return Err(error.into()),
                Ok(reply) => return Ok(reply),
            };
            if let Some(connection) = self.reach(&leader, give_up).await? {
                return send(&connection, call, give_up).await;
            }
        }
    }

    async fn subscribe(&self, call: Call) -> Result<CallStream, Status> {
        let give_up = give_up(&call);
        loop {
            let leader = match self.mailbox.open_stream(&call).await {
                Err(CallError::Elsewhere(leader)) => leader,
                Err(CallError::Refused(error)) => return Err(error.into()),
                Ok(stream) => return Ok(stream),
            };
            if let Some(connection) = self.reach(&leader, give_up).await? {
                let request = request_of(call, give_up);
                let (places, limits) = (&self.mailbox.places, &self.mailbox.config.limits);
                let unread = Duration::from_millis(limits.subscription_unread_ms);
                return stream::relay(places, &connection, request, give_up, unread).await;
            }
        }
    }
}

/// When a call is given up, so that its caller gets our answer rather than a timeout of its own.
fn give_up(call: &Call) -> Instant {
    call.deadline
        .checked_sub(ANSWER_MARGIN)
        .unwrap_or(call.deadline)
}

/// A call as it is put to the leader.
fn request_of(call: Call, give_up: Instant) -> v1::RelayRequest {
    let left = give_up.saturating_duration_since(Instant::now());
    v1::RelayRequest {
        path: call.path.as_str().to_owned(),
        authorization: call.authorization.unwrap_or_default(),
        message: call.message,
        deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        remote_address: call
            .remote
            .map(|remote| remote.to_string())
            .unwrap_or_default(),
    }
}

/// Hands a call to the leader, and its answer back.
async fn send(connection: &Connection, call: Call, give_up: Instant) -> Result<CallReply, Status> {
    let mut client = connection.client();
    match tokio::time::timeout_at(give_up, client.relay(request_of(call, give_up))).await {
        Ok(Ok(response)) => answer(response.into_inner()),
        // The peer refused to run it: nothing was done.
        Ok(Err(status)) if refused_by_peer(&status) => {
            Err(ApiError::unavailable(format!("the leader refused a relay: {status}")).into())
        }
        Ok(Err(status)) => Err(ApiError::from(Code::OutcomeUnknown)
            .with_log(format!("the connection to the leader broke: {status}"))
            .into()),
        Err(_) => Err(ApiError::from(Code::OutcomeUnknown).into()),
    }
}

/// Whether the peer's own server said no before running the call, as its status tells. A broken
/// connection is "unavailable" too, but carries none of our details.
fn refused_by_peer(status: &Status) -> bool {
    use tonic::Code as Grpc;
    match status.code() {
        Grpc::PermissionDenied | Grpc::Unauthenticated | Grpc::Unimplemented => true,
        Grpc::Unavailable => !status.details().is_empty(),
        _ => false,
    }
}

fn answer(response: v1::RelayResponse) -> Result<CallReply, Status> {
    if response.code != 0 {
        return Err(Status::with_details(
            tonic::Code::from_i32(response.code),
            response.status_message,
            response.status_details,
        ));
    }
    let header = response.server_authorization;
    Ok(CallReply {
        message: response.message,
        server_authorization: (!header.is_empty()).then_some(header),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_refusal_is_the_refusal_that_the_leader_gave() {
        let given = Status::from(ApiError::from(Code::WrongCode).with_metadata("attempts_left", 2));
        let response = v1::RelayResponse {
            code: i32::from(given.code()),
            status_message: given.message().to_owned(),
            status_details: given.details().to_vec().into(),
            ..Default::default()
        };
        let passed_on = answer(response).unwrap_err();
        assert_eq!(passed_on.code(), given.code());
        assert_eq!(passed_on.message(), given.message());
        assert_eq!(passed_on.details(), given.details());
    }

    #[test]
    fn a_broken_connection_is_told_from_a_peer_that_refused() {
        assert!(refused_by_peer(&ApiError::from(Code::NotInCluster).into()));
        assert!(refused_by_peer(&Status::permission_denied(
            "another cluster"
        )));
        assert!(!refused_by_peer(&Status::unavailable("connection reset")));
        assert!(!refused_by_peer(&Status::unknown("h2 protocol error")));
    }

    #[test]
    fn a_relayed_reply_keeps_its_bytes_and_its_header() {
        let response = v1::RelayResponse {
            message: bytes::Bytes::from_static(b"reply"),
            server_authorization: "Hawk mac=\"x\"".to_owned(),
            ..Default::default()
        };
        let reply = answer(response).unwrap();
        assert_eq!(&reply.message[..], b"reply");
        assert_eq!(
            reply.server_authorization.as_deref(),
            Some("Hawk mac=\"x\"")
        );
        assert_eq!(
            answer(v1::RelayResponse::default())
                .unwrap()
                .server_authorization,
            None
        );
    }
}
