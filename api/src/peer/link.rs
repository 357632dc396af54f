//! Frames between a [`Link`] and the two streams of a `Peer.Link` call. Both ends use the same pump.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use rossby_domain::ids::NodeId;
use rossby_proto::v1::Frame;
use rossby_seams::transport::{LINK_CAPACITY_FRAMES, Link};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// The near half of a link: what the groups hold, and what the gRPC call needs.
pub(super) struct Ends {
    link: Link,
    outgoing: mpsc::Receiver<Bytes>,
    incoming: mpsc::Sender<Bytes>,
    broken: CancellationToken,
}

/// Makes the link to a peer.
pub(super) fn ends(peer: NodeId) -> Ends {
    let (to_peer, outgoing) = mpsc::channel(LINK_CAPACITY_FRAMES);
    let (incoming, from_peer) = mpsc::channel(LINK_CAPACITY_FRAMES);
    let link = Link {
        peer,
        outgoing: to_peer,
        incoming: from_peer,
    };
    Ends {
        link,
        outgoing,
        incoming,
        broken: CancellationToken::new(),
    }
}

impl Ends {
    /// Splits into the link, the stream of frames to the peer, and the pump for frames from it.
    ///
    /// The stream ends when the groups drop their sender, or when the pump finds the link broken:
    /// a link is whole or it is gone, never half open.
    pub(super) fn split(self) -> (Link, impl Stream<Item = Frame> + Send + 'static, Pump) {
        let frames = ReceiverStream::new(self.outgoing)
            .map(|body| Frame { body })
            .take_until(self.broken.clone().cancelled_owned());
        (
            self.link,
            frames,
            Pump {
                incoming: self.incoming,
                broken: self.broken,
            },
        )
    }
}

/// Hands the frames of a peer to the groups.
pub(super) struct Pump {
    incoming: mpsc::Sender<Bytes>,
    broken: CancellationToken,
}

impl Pump {
    /// Runs until the peer or the groups close the link, or it breaks; then closes the other half.
    pub(super) async fn run(self, mut frames: tonic::Streaming<Frame>) {
        let _broken = self.broken.drop_guard();
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                () = self.incoming.closed() => break,
            };
            let Some(Ok(frame)) = frame else { break };
            if self.incoming.send(frame.body).await.is_err() {
                break;
            }
        }
    }
}
