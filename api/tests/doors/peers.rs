//! Node to node over real sockets: who is let in, and what becomes of a link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rossby_api::listener::Listener;
use rossby_api::listener::tls::{self, IdentityError, PeerTls, TlsError};
use rossby_api::peer::{Connections, MeetError, PeerDoor, PeerServer, PeerTransport, meet};
use rossby_api::router::{Execute, ExecuteError, Executed};
use rossby_api::{ApiError, Call, CallError, CallReply, CallStream, Code};
use rossby_domain::ids::{ClusterId, NodeId};
use rossby_proto::v1;
use rossby_seams::transport::{Link, LinkAcceptor, Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::support::Authority;

/// Nothing here takes as long; a test that hangs fails by it.
const PATIENCE: Duration = Duration::from_secs(20);

fn cluster(n: u8) -> ClusterId {
    ClusterId::from_random([n; 16])
}

struct Accepted(mpsc::UnboundedSender<Link>);

impl LinkAcceptor for Accepted {
    fn accept(&self, link: Link) {
        self.0.send(link).unwrap();
    }
}

/// Answers each call with its own message.
struct Echo;

#[async_trait]
impl PeerDoor for Echo {
    async fn call(&self, call: Call) -> Result<CallReply, CallError> {
        if !call.relayed {
            return Err(ApiError::internal("not marked as relayed").into());
        }
        let server_authorization = call.authorization;
        Ok(CallReply {
            leader: None,
            message: call.message,
            server_authorization,
        })
    }

    /// The message, three times, and then a refusal.
    async fn subscribe(&self, call: Call) -> Result<CallStream, CallError> {
        let last = Err(ApiError::from(Code::SubscriptionReplaced).into());
        let messages = vec![Ok(call.message.clone()), Ok(call.message.clone())];
        let messages = messages.into_iter().chain([Ok(call.message), last]);
        Ok(Box::pin(tokio_stream::iter(messages)))
    }

    async fn execute(&self, _: Execute, _: Instant) -> Result<Executed, ExecuteError> {
        Err(ExecuteError::NotOwner)
    }
}

/// A node's peer listener.
struct Server {
    address: SocketAddr,
    links: mpsc::UnboundedReceiver<Link>,
    _stop: tokio_util::sync::DropGuard,
}

async fn serve(tls: &PeerTls, of: ClusterId) -> Server {
    let listener = Listener::peers("127.0.0.1:0".parse().unwrap(), Arc::clone(&tls.server))
        .await
        .unwrap();
    let address = listener.address();
    let (accepted, links) = mpsc::unbounded_channel();
    let peer = PeerServer::new();
    peer.open(of, Arc::new(Accepted(accepted)), Arc::new(Echo));
    let stop = CancellationToken::new();
    let routes = Routes::new(peer.into_service());
    tokio::spawn(listener.serve_peers(routes, stop.clone()));
    Server {
        address,
        links,
        _stop: stop.drop_guard(),
    }
}

fn caller(tls: &PeerTls, of: ClusterId) -> Arc<Connections> {
    Connections::new(Arc::clone(&tls.client), Some(of))
}

async fn connect(
    connections: &Arc<Connections>,
    node: u64,
    server: &Server,
) -> Result<Link, TransportError> {
    let transport = PeerTransport::new(Arc::clone(connections));
    let address = server.address.to_string();
    let connect = transport.connect(NodeId(node), &address);
    tokio::time::timeout(PATIENCE, connect)
        .await
        .expect("the connection neither opened nor failed")
}

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, receiver.recv())
        .await
        .expect("nothing came")
}

async fn accepted(server: &mut Server) -> Link {
    tokio::time::timeout(PATIENCE, server.links.recv())
        .await
        .expect("no link came")
        .unwrap()
}

#[tokio::test]
async fn a_link_carries_frames_in_order_both_ways_between_proven_nodes() {
    let authority = Authority::new();
    let (one, two) = (
        authority.node(1, &authority.ca()),
        authority.node(2, &authority.ca()),
    );
    let mut server = serve(&two, cluster(1)).await;
    let mut near = connect(&caller(&one, cluster(1)), 2, &server)
        .await
        .unwrap();
    let mut far = accepted(&mut server).await;
    assert_eq!((near.peer, far.peer), (NodeId(2), NodeId(1)));
    // More frames than either side holds, some large.
    let frames = |tag: u8| {
        (0..3000_u32).map(move |n| {
            let mut frame = vec![tag; if n % 500 == 0 { 1_000_000 } else { 10 }];
            frame.extend(n.to_be_bytes());
            Bytes::from(frame)
        })
    };
    let pairs = [(near.outgoing.clone(), 1_u8), (far.outgoing.clone(), 2)];
    for (outgoing, tag) in pairs {
        tokio::spawn(async move {
            for frame in frames(tag) {
                outgoing.send(frame).await.unwrap();
            }
        });
    }
    for frame in frames(2) {
        assert_eq!(next(&mut near.incoming).await, Some(frame));
    }
    for frame in frames(1) {
        assert_eq!(next(&mut far.incoming).await, Some(frame));
    }
}

#[tokio::test]
async fn a_link_that_one_end_drops_ends_at_the_other() {
    let authority = Authority::new();
    let (one, two) = (
        authority.node(1, &authority.ca()),
        authority.node(2, &authority.ca()),
    );
    let mut server = serve(&two, cluster(1)).await;
    let connections = caller(&one, cluster(1));

    let near = connect(&connections, 2, &server).await.unwrap();
    let mut far = accepted(&mut server).await;
    drop(near);
    assert_eq!(next(&mut far.incoming).await, None);
    tokio::time::timeout(PATIENCE, far.outgoing.closed())
        .await
        .expect("the far end stays open");

    let mut near = connect(&connections, 2, &server).await.unwrap();
    drop(accepted(&mut server).await);
    assert_eq!(next(&mut near.incoming).await, None);
    tokio::time::timeout(PATIENCE, near.outgoing.closed())
        .await
        .expect("the near end stays open");
}

#[tokio::test]
async fn a_peer_that_stops_ends_the_link_and_a_new_one_finds_it_again() {
    let authority = Authority::new();
    let (one, two) = (
        authority.node(1, &authority.ca()),
        authority.node(2, &authority.ca()),
    );
    let connections = caller(&one, cluster(1));
    let mut server = serve(&two, cluster(1)).await;
    let mut near = connect(&connections, 2, &server).await.unwrap();
    drop(accepted(&mut server).await);
    drop(server);
    assert_eq!(next(&mut near.incoming).await, None);
    let mut again = serve(&two, cluster(1)).await;
    let near = connect(&connections, 2, &again).await.unwrap();
    assert_eq!(accepted(&mut again).await.peer, NodeId(1));
    drop(near);
}

#[tokio::test]
async fn a_node_that_is_not_the_one_expected_is_refused() {
    let authority = Authority::new();
    let (one, two) = (
        authority.node(1, &authority.ca()),
        authority.node(2, &authority.ca()),
    );
    let server = serve(&two, cluster(1)).await;
    let error = connect(&caller(&one, cluster(1)), 3, &server)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            TransportError::Refused {
                node: NodeId(3),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_node_of_another_authority_or_another_cluster_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let two = ours.node(2, &ours.ca());
    let mut server = serve(&two, cluster(1)).await;
    // It trusts our authority, but ours did not issue its certificate.
    let stranger = theirs.node(1, &ours.ca());
    let error = connect(&caller(&stranger, cluster(1)), 2, &server)
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        TransportError::Refused { .. } | TransportError::Unreachable { .. }
    ));
    let one = ours.node(1, &ours.ca());
    let error = connect(&caller(&one, cluster(9)), 2, &server)
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::Refused { .. }), "{error}");
    assert!(server.links.try_recv().is_err(), "a stranger got a link");
}

#[tokio::test]
async fn a_certificate_without_a_nodes_name_is_refused() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("alice", &["alice".to_owned()]);
    let error = PeerTls::load(NodeId(1), &cert, &key, &authority.ca()).unwrap_err();
    assert!(
        matches!(error, TlsError::Identity(IdentityError::NoNode)),
        "{error}"
    );
    // Nor does the listener let it in, whatever the caller makes of its own certificate.
    let two = authority.node(2, &authority.ca());
    let mut server = serve(&two, cluster(1)).await;
    let credentials = rossby_api::listener::tls::Credentials::load(&cert, &key).unwrap();
    let roots = rossby_api::listener::tls::authorities(&authority.ca()).unwrap();
    let client = rossby_api::listener::tls::peer_client(&credentials, roots).unwrap();
    let connections = Connections::new(client, Some(cluster(1)));
    connect(&connections, 2, &server).await.unwrap_err();
    assert!(server.links.try_recv().is_err(), "a stranger got a link");
}

#[tokio::test]
async fn a_node_that_joins_a_cluster_while_it_connects_names_it_from_then_on() {
    let authority = Authority::new();
    let server = serve(&authority.node(2, &authority.ca()), cluster(1)).await;
    let one = authority.node(1, &authority.ca());
    let connections = Connections::new(Arc::clone(&one.client), None);
    // A way on which it joins before the connection stands.
    let way = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = way.local_addr().unwrap().to_string();
    let (joining, to) = (Arc::clone(&connections), server.address);
    tokio::spawn(async move {
        loop {
            let (mut near, _) = way.accept().await.unwrap();
            joining.join(cluster(1));
            let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    connections.get(NodeId(2), &address).await.unwrap();
    let kept = connections.get(NodeId(2), &address).await.unwrap();
    // What it asks for is not valid, but it is heard.
    let status = kept.client().join(v1::JoinRequest::default()).await;
    assert_eq!(status.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_seed_is_any_node_of_the_authority_and_nobody_else() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = serve(&ours.node(2, &ours.ca()), cluster(1)).await;
    let address = server.address.to_string();
    let one = ours.node(1, &ours.ca());
    let met = meet(Arc::clone(&one.seed), &address, cluster(1)).await;
    let (node, connection) = met.unwrap();
    assert_eq!(node, NodeId(2));
    // What it asks for is not valid, but it is heard.
    let malformed = v1::JoinRequest::default();
    let status = connection.client().join(malformed.clone()).await;
    assert_eq!(status.unwrap_err().code(), tonic::Code::InvalidArgument);
    let (_, elsewhere) = meet(Arc::clone(&one.seed), &address, cluster(9))
        .await
        .unwrap();
    let status = elsewhere.client().join(malformed).await;
    assert_eq!(status.unwrap_err().code(), tonic::Code::PermissionDenied);
    // A node of another authority, and a certificate of ours that is no node's.
    let stranger = serve(&theirs.node(2, &theirs.ca()), cluster(1)).await;
    let (cert, key) = ours.issue("alice", &["alice".to_owned()]);
    let credentials = tls::Credentials::load(&cert, &key).unwrap();
    let listener = Listener::clients(
        "127.0.0.1:0".parse().unwrap(),
        Some(tls::server(&credentials, None).unwrap()),
    )
    .await
    .unwrap();
    let alice = listener.address();
    tokio::spawn(listener.serve_clients(Routes::default(), 8, CancellationToken::new()));
    for address in [stranger.address, alice] {
        let error = meet(Arc::clone(&one.seed), &address.to_string(), cluster(1)).await;
        let error = error.expect_err("a stranger was met");
        assert!(matches!(error, MeetError::Untrusted { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_relayed_call_arrives_marked_and_byte_for_byte() {
    let authority = Authority::new();
    let (one, two) = (
        authority.node(1, &authority.ca()),
        authority.node(2, &authority.ca()),
    );
    let server = serve(&two, cluster(1)).await;
    let connections = caller(&one, cluster(1));
    let connection = connections
        .get(NodeId(2), &server.address.to_string())
        .await
        .unwrap();
    let request = v1::RelayRequest {
        path: "/rossby.v1.Mailbox/Fetch".to_owned(),
        authorization: "Hawk id=\"x\"".to_owned(),
        message: Bytes::from_static(&[0, 255, 8, 1]),
        deadline_ms: 1000,
        remote_address: "192.0.2.1".to_owned(),
    };
    let response = connection
        .client()
        .relay(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.code, 0, "{}", response.status_message);
    assert_eq!(response.message, request.message);
    assert_eq!(response.server_authorization, request.authorization);
    let request = v1::RelayRequest {
        path: "/rossby.v1.Admin/Status".to_owned(),
        ..request
    };
    let status = connection.client().relay(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn random_bytes_cost_one_connection_and_nothing_else() {
    use rossby_seams::random::{Random as _, SeededRandom};
    let authority = Authority::new();
    let (one, two) = (
        authority.node(1, &authority.ca()),
        authority.node(2, &authority.ca()),
    );
    let mut server = serve(&two, cluster(1)).await;
    let random = SeededRandom::new(7);
    for length in [0, 1, 5, 100, 70_000] {
        let mut noise = vec![0; length];
        random.fill(&mut noise).unwrap();
        let mut socket = tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap();
        // The server may hang up before it has read all of it.
        let _ = socket.write_all(&noise).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        assert!(
            end.is_ok(),
            "{length} random bytes kept the connection open"
        );
    }
    let near = connect(&caller(&one, cluster(1)), 2, &server)
        .await
        .unwrap();
    assert_eq!(accepted(&mut server).await.peer, NodeId(1));
    drop(near);
}
