//! The public service over a real socket, with the generated client: the raw codec is invisible to
//! it, and refusals of the transport carry our codes too.

use std::net::SocketAddr;
use std::sync::Arc;

use prost::Message as _;
use rossby_api::{DoorLimits, MailboxServer, RpcPath};
use rossby_proto::v1;
use rossby_proto::v1::mailbox_client::MailboxClient;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{self, World, phone_of};

/// Serves a world's first node on loopback.
async fn serve(world: &World) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Arc::clone(&world.nodes[0].service);
    let server = MailboxServer::new(door, DoorLimits::default());
    let served = Server::builder()
        .add_service(server)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(served);
    address
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn a_signed_call_goes_through_and_its_reply_is_vouched_for() {
    let world = World::new().await;
    let anna = world.resident(1, "+491701111111", true).await;
    let mut client = MailboxClient::new(channel(serve(&world).await).await);
    let message = v1::FetchRequest {
        after: 0,
        max_envelopes: 10,
    };
    let nonce = world.nonce();
    let signed = world.sign(&anna, RpcPath::Fetch, &nonce);
    let mut request = Request::new(message);
    let header = signed.authorization(&message.encode_to_vec()).unwrap();
    request
        .metadata_mut()
        .insert("authorization", header.parse().unwrap());
    let response = client.fetch(request).await.unwrap();
    let vouched = response
        .metadata()
        .get("server-authorization")
        .unwrap()
        .to_str()
        .unwrap();
    assert!(signed.is_vouched(&response.get_ref().encode_to_vec().into(), vouched));
}

#[tokio::test]
async fn a_refusal_carries_its_code_and_whether_a_retry_helps() {
    let world = World::new().await;
    let mut client = MailboxClient::new(channel(serve(&world).await).await);
    let mut request = support::TestDevice::new(1).register("+491701111111", true);
    request.identifier = Some(phone_of("not a phone"));
    let status = client.register(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(reason(&status), "INVALID_IDENTIFIER");
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["retry"], "changed");
    assert!(
        !status.message().contains("not a phone"),
        "{}",
        status.message()
    );

    let status = client.fetch(v1::FetchRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert_eq!(reason(&status), "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_with_our_code() {
    let world = World::new().await;
    let before = world.digests();
    let mut client = MailboxClient::new(channel(serve(&world).await).await);
    let huge = v1::SendRequest {
        envelopes: vec![v1::OutgoingEnvelope {
            body: vec![0; 5 * 1024 * 1024].into(),
            ..v1::OutgoingEnvelope::default()
        }],
    };
    let status = client.send(huge).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(reason(&status), "REQUEST_TOO_LARGE");
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let world = World::new().await;
    let channel = channel(serve(&world).await).await;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::FetchRequest, v1::FetchResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/rossby.v1.Mailbox/Steal");
    let refused = grpc
        .unary(Request::new(v1::FetchRequest::default()), path, codec)
        .await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn random_bytes_on_the_port_harm_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let world = World::new().await;
    let before = world.digests();
    let address = serve(&world).await;
    for seed in 0..20_u64 {
        let mut noise = vec![0; 4096];
        let random = rossby_seams::random::SeededRandom::new(seed);
        rossby_seams::random::Random::fill(&random, &mut noise).unwrap();
        if seed % 2 == 0 {
            // Past the preface, so that the frames are read.
            noise.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        // The server may hang up in the middle.
        let _ = socket.write_all(&noise).await;
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    let mut client = MailboxClient::new(channel(address).await);
    let status = client.fetch(v1::FetchRequest::default()).await.unwrap_err();
    assert_eq!(reason(&status), "UNAUTHENTICATED");
    assert_eq!(world.digests(), before);
}
