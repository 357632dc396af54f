//! The door that most calls come through: any node takes any call, and hands it on to the node that
//! leads the caller's group. Whoever it was relayed to relays it no further.
//!
//! A call that nobody took yet may be tried again as long as its deadline allows, which bridges a
//! change of leader: a peer that does not lead does nothing, and says who does as far as it knows
//! ([`crate::router`] has the rules of that search). Once a peer may have taken it, it is that peer's: if
//! the connection then breaks, the outcome is not known, and the caller is told so.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_proto::v1;
use rossby_raft::Member;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tracing::debug;

use crate::call::{Call, CallError, CallReply, CallStream, Door};
use crate::mailbox::MailboxService;
use crate::peer::{
    self, ConnectError, Connection, Connections, connect_by, left_for_peer_ms, refused_by_peer,
};
use crate::router::{Next, Search};
use crate::{ApiError, Code};

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

    /// The next node that may lead, and the connection to it; `None` if this node itself does by now.
    async fn reach(&self, search: &mut Search<'_>) -> Result<Option<(Member, Connection)>, Status> {
        loop {
            let leader = match search.next().await? {
                Next::Here(_) => return Ok(None),
                Next::At(leader) => leader,
            };
            let connecting = timeout_at(connect_by(search.give_up()), self.connect(&leader));
            let why = match connecting.await {
                Ok(Ok(connection)) => return Ok(Some((leader, connection))),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no connection in time".to_owned(),
            };
            debug!(%leader, why, "can't relay a call");
            search.silent(&leader, why);
        }
    }

    /// Ends all subscriptions, the relayed ones too ([`MailboxService::end_subscriptions`]).
    pub fn end_subscriptions(&self) {
        self.mailbox.end_subscriptions();
    }
}

#[async_trait]
impl Door for Relay {
    async fn call(&self, call: Call) -> Result<CallReply, Status> {
        let group = match self.mailbox.handle(&call).await {
            Err(CallError::Elsewhere { group, .. }) => group,
            Err(CallError::Refused(error)) => return Err(error.into()),
            Ok(reply) => return Ok(reply),
        };
        let mut search = self.mailbox.config.router.search(group, call.deadline);
        loop {
            let Some((leader, connection)) = self.reach(&mut search).await? else {
                match self.mailbox.handle(&call).await {
                    Err(CallError::Elsewhere { .. }) => continue,
                    Err(CallError::Refused(error)) => return Err(error.into()),
                    Ok(reply) => return Ok(reply),
                }
            };
            let give_up = search.give_up();
            let sent = send(&connection, &call, give_up).await;
            if let Err(status) = &sent {
                search.silent(&leader, status.message().to_owned());
            }
            match sent? {
                Relayed::Here(reply) => {
                    search.found(&leader);
                    self.mailbox.config.metrics.relayed(call.path);
                    return reply.map(|reply| naming(reply, leader));
                }
                Relayed::NotHere(named) => not_here(&mut search, &leader, named),
            }
        }
    }

    async fn subscribe(&self, call: Call) -> Result<CallStream, Status> {
        let group = match self.mailbox.open_stream(&call).await {
            Err(CallError::Elsewhere { group, .. }) => group,
            Err(CallError::Refused(error)) => return Err(error.into()),
            Ok(stream) => return Ok(stream),
        };
        let (places, limits) = (&self.mailbox.places, &self.mailbox.config.limits);
        let unread = Duration::from_millis(limits.subscription_unread_ms);
        let mut search = self.mailbox.config.router.search(group, call.deadline);
        loop {
            let Some((leader, connection)) = self.reach(&mut search).await? else {
                match self.mailbox.open_stream(&call).await {
                    Err(CallError::Elsewhere { .. }) => continue,
                    Err(CallError::Refused(error)) => return Err(error.into()),
                    Ok(stream) => return Ok(stream),
                }
            };
            let give_up = search.give_up();
            let request = request_of(&call, give_up);
            match stream::relay(places, &connection, request, give_up, unread).await? {
                Relayed::Here(stream) => {
                    search.found(&leader);
                    self.mailbox.config.metrics.relayed(call.path);
                    return Ok(stream);
                }
                Relayed::NotHere(named) => not_here(&mut search, &leader, named),
            }
        }
    }
}

/// What became of a call at a peer.
enum Relayed<T> {
    /// It was answered there.
    Here(T),
    /// That peer does not lead, and did nothing; whom it named.
    NotHere(Option<Member>),
}

impl<T> Relayed<T> {
    fn map<R>(self, with: impl FnOnce(T) -> R) -> Relayed<R> {
        match self {
            Self::Here(value) => Relayed::Here(with(value)),
            Self::NotHere(named) => Relayed::NotHere(named),
        }
    }
}

/// A relayed reply, with where its caller may go next time.
fn naming(reply: CallReply, leader: Member) -> CallReply {
    let address = leader.client_address;
    CallReply {
        leader: (!address.is_empty()).then_some(address),
        ..reply
    }
}

fn not_here(search: &mut Search<'_>, asked: &Member, named: Option<Member>) {
    debug!(%asked, "a relayed call is not for this node");
    search.refused(asked, named, "it does not lead".to_owned());
}

/// A call as it is put to the leader.
fn request_of(call: &Call, give_up: Instant) -> v1::RelayRequest {
    v1::RelayRequest {
        path: call.path.as_str().to_owned(),
        authorization: call.authorization.clone().unwrap_or_default(),
        message: call.message.clone(),
        deadline_ms: left_for_peer_ms(give_up),
        remote_address: call
            .remote
            .map(|remote| remote.to_string())
            .unwrap_or_default(),
    }
}

/// Hands a call to a peer, and its answer back.
async fn send(
    connection: &Connection,
    call: &Call,
    give_up: Instant,
) -> Result<Relayed<Result<CallReply, Status>>, Status> {
    let mut client = connection.client();
    match timeout_at(give_up, client.relay(request_of(call, give_up))).await {
        Ok(Ok(response)) => Ok(relayed(response.into_inner()).map(answer)),
        // It refused to look at it: nothing was done.
        Ok(Err(status)) if refused_by_peer(&status) => Ok(Relayed::NotHere(None)),
        Ok(Err(status)) => Err(ApiError::from(Code::OutcomeUnknown)
            .with_log(format!("the connection to the leader broke: {status}"))
            .into()),
        Err(_) => Err(ApiError::from(Code::OutcomeUnknown).into()),
    }
}

/// Whether a peer's response is an answer.
fn relayed(response: v1::RelayResponse) -> Relayed<v1::RelayResponse> {
    if response.not_here {
        Relayed::NotHere(response.leader.and_then(peer::member))
    } else {
        Relayed::Here(response)
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
        leader: None,
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
