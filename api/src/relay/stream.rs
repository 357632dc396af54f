//! Relaying a stream: one message is asked of the leader whenever the client has room for one, so that
//! nothing piles up here, nor on the connection that the peers share for everything else.

use rossby_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{answer, refused_by_peer};
use crate::ApiError;
use crate::call::{CallReply, CallStream};
use crate::peer::Connection;
use crate::subscriptions::{Ending, Places};

/// Hands a stream's call to the leader, and its messages back.
pub(super) async fn relay(
    places: &Places,
    connection: &Connection,
    request: v1::RelayRequest,
    give_up: Instant,
) -> Result<CallStream, Status> {
    let room = places.take_room()?;
    let (asks, to_leader) = mpsc::channel(2);
    let open = v1::RelayStreamRequest {
        open: Some(request),
    };
    asks.send(open).await.map_err(|_| gone())?;
    let mut client = connection.client();
    let opening = client.relay_stream(ReceiverStream::new(to_leader));
    let replies = match tokio::time::timeout_at(give_up, opening).await {
        Ok(Ok(response)) => response.into_inner(),
        // A stream moves nothing: whatever became of it, it may be opened again.
        Ok(Err(status)) if refused_by_peer(&status) => {
            let why = format!("the leader refused a relay: {status}");
            return Err(ApiError::unavailable(why).into());
        }
        Ok(Err(_)) => return Err(gone()),
        Err(_) => return Err(ApiError::unavailable("the leader did not answer in time").into()),
    };
    let (messages, stream) = mpsc::channel(1);
    tokio::spawn(pump(places.clone(), room, asks, replies, messages));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

async fn pump(
    places: Places,
    room: OwnedSemaphorePermit,
    asks: mpsc::Sender<v1::RelayStreamRequest>,
    mut replies: Streaming<v1::RelayResponse>,
    messages: mpsc::Sender<Result<bytes::Bytes, Status>>,
) {
    let passing_on = async {
        loop {
            let Ok(place) = messages.reserve().await else {
                return None;
            };
            if asks.send(v1::RelayStreamRequest::default()).await.is_err() {
                return Some(gone());
            }
            match replies.message().await {
                Ok(Some(reply)) => match answer(reply) {
                    Ok(CallReply { message, .. }) => place.send(Ok(message)),
                    Err(status) => return Some(status),
                },
                Ok(None) => return None,
                Err(_) => return Some(gone()),
            }
        }
    };
    let last = tokio::select! {
        last = passing_on => last,
        () = messages.closed() => None,
        () = places.closed() => Ending::Stopping.into_status(),
    };
    drop(room);
    if let Some(status) = last {
        // Who does not read learns it from the end of the stream.
        let _ = messages.send(Err(status)).await;
    }
}

fn gone() -> Status {
    ApiError::unavailable("the connection to the leader broke").into()
}
