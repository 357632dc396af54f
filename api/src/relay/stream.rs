//! Relaying a stream: one message is asked of the leader whenever the client has room for one, so that
//! nothing piles up here, nor on the connection that the peers share for everything else. There is room
//! for the first at once, and by it a peer tells whether it leads.

use std::time::Duration;

use bytes::Bytes;
use rossby_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Relayed, answer, refused_by_peer, relayed};
use crate::ApiError;
use crate::call::{CallReply, CallStream};
use crate::peer::Connection;
use crate::subscriptions::{Ending, Places};

/// Hands a stream's call to the leader, and its messages back.
///
/// `unread` is how long the client may leave unread what was sent.
pub(super) async fn relay(
    places: &Places,
    connection: &Connection,
    request: v1::RelayRequest,
    give_up: Instant,
    unread: Duration,
) -> Result<Relayed<CallStream>, Status> {
    let room = places.take_room()?;
    let (asks, to_leader) = mpsc::channel(2);
    let open = v1::RelayStreamRequest {
        open: Some(request),
    };
    let first = v1::RelayStreamRequest::default();
    for ask in [open, first] {
        asks.send(ask).await.map_err(|_| gone())?;
    }
    let mut client = connection.client();
    let opening = client.relay_stream(ReceiverStream::new(to_leader));
    let late = || ApiError::unavailable("the leader did not answer in time");
    let mut replies = match timeout_at(give_up, opening).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) if refused_by_peer(&status) => return Ok(Relayed::NotHere(None)),
        // A stream moves nothing: whatever became of it, it may be opened again.
        Ok(Err(_)) => return Err(gone()),
        Err(_) => return Err(late().into()),
    };
    let first = match timeout_at(give_up, replies.message()).await {
        Ok(Ok(first)) => first.map(relayed),
        Ok(Err(_)) => return Err(gone()),
        Err(_) => return Err(late().into()),
    };
    let (messages, stream) = mpsc::channel(1);
    match first.map(|first| first.map(answer)) {
        Some(Relayed::NotHere(named)) => return Ok(Relayed::NotHere(named)),
        Some(Relayed::Here(Ok(CallReply { message, .. }))) => {
            messages.try_send(Ok(message)).map_err(|_| gone())?;
        }
        Some(Relayed::Here(Err(status))) => return Err(status),
        None => return Ok(Relayed::Here(Box::pin(ReceiverStream::new(stream)))),
    }
    let pump = Pump {
        asks,
        replies,
        unread,
    };
    tokio::spawn(pump.run(places.clone(), room, messages));
    Ok(Relayed::Here(Box::pin(ReceiverStream::new(stream))))
}

type Messages = mpsc::Sender<Result<Bytes, Status>>;

/// One relayed stream.
struct Pump {
    asks: mpsc::Sender<v1::RelayStreamRequest>,
    replies: Streaming<v1::RelayResponse>,
    unread: Duration,
}

impl Pump {
    async fn run(self, places: Places, room: OwnedSemaphorePermit, messages: Messages) {
        let unread = self.unread;
        // What passes messages on ends here, and with it the stream from the leader.
        let last = tokio::select! {
            last = self.pass_on(&messages) => last,
            () = messages.closed() => None,
            () = places.closed() => Ending::Stopping.into_status(),
        };
        drop(room);
        if let Some(status) = last {
            // Who does not read learns it from the end of the stream.
            let _ = timeout(unread, messages.send(Err(status))).await;
        }
    }

    /// Passes message after message on; the status that it ends with, but for an end in good order.
    async fn pass_on(mut self, messages: &Messages) -> Option<Status> {
        loop {
            // The leader has a clock of its own for that, but its word is asked for only once there is
            // room for it.
            let place = match timeout(self.unread, messages.reserve()).await {
                Ok(Ok(place)) => place,
                Ok(Err(_)) => return None,
                Err(_) => return Ending::NotRead.into_status(),
            };
            let ask = v1::RelayStreamRequest::default();
            if self.asks.send(ask).await.is_err() {
                return Some(gone());
            }
            match self.replies.message().await {
                Ok(Some(reply)) => match answer(reply) {
                    Ok(CallReply { message, .. }) => place.send(Ok(message)),
                    Err(status) => return Some(status),
                },
                Ok(None) => return None,
                Err(_) => return Some(gone()),
            }
        }
    }
}

fn gone() -> Status {
    ApiError::unavailable("the connection to the leader broke").into()
}
