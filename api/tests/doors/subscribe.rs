//! Subscriptions at real groups: who may open one, what it brings, and what ends it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use prost::Message as _;
use rossby_api::hawk::SignedRequest;
use rossby_api::{Call, CallError, CallStream, Code, DoorLimits, RpcPath};
use rossby_domain::command::{ActivateBox, CreateBox};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, DeviceAddress, PartitionId};
use rossby_domain::limits::Limits;
use rossby_domain::{Answer, Command, Query};
use rossby_proto::v1;
use rossby_raft::Leadership;
use tokio::time::{Instant, timeout};
use tonic_types::StatusExt as _;

use crate::support::{self, Node, Resident, TestDevice, World, envelope, sequence};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
/// Nothing here takes this long unless it is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// An open subscription, and what its messages are held against.
pub struct Open {
    stream: CallStream,
    token: [u8; 32],
    who: Resident,
    nonce: String,
    ts_secs: u64,
    number: u64,
}

impl Open {
    /// The next page, which must be vouched for at its place.
    pub async fn page(&mut self) -> v1::FetchResponse {
        let message = timeout(STUCK, self.stream.next()).await.unwrap();
        let message = v1::SubscribeResponse::decode(message.unwrap().unwrap()).unwrap();
        let signed = SignedRequest {
            address: self.who.address,
            token: &self.token,
            host: support::HOST,
            path: RpcPath::Subscribe,
            ts_secs: self.ts_secs,
            nonce: &self.nonce,
        };
        let header = &message.server_authorization;
        assert!(signed.is_nth_vouched(&message.page, header, self.number));
        assert!(!signed.is_nth_vouched(&message.page, header, self.number + 1));
        assert!(!signed.is_vouched(&message.page, header));
        self.number += 1;
        v1::FetchResponse::decode(message.page).unwrap()
    }

    /// The bodies that come, until there are this many.
    pub async fn bodies(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        let began = Instant::now();
        while bodies.len() < count {
            // Signs of life alone would keep it here for ever.
            assert!(began.elapsed() < STUCK, "only these came: {bodies:?}");
            let page = self.page().await;
            let of = |e: &v1::Envelope| String::from_utf8(e.body.to_vec()).unwrap();
            bodies.extend(page.envelopes.iter().map(of));
        }
        bodies
    }

    /// The code that it ends with, once what is on its way has come.
    pub async fn end(mut self) -> String {
        let ending = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return status.get_details_error_info().unwrap().reason,
                    None => return "OK".to_owned(),
                }
            }
        };
        timeout(STUCK, ending).await.unwrap()
    }
}

fn request(after: u64) -> Vec<u8> {
    v1::SubscribeRequest {
        after,
        max_envelopes: 0,
    }
    .encode_to_vec()
}

async fn open_raw(
    node: &Node,
    authorization: Option<String>,
    message: Vec<u8>,
) -> Result<CallStream, CallError> {
    let call = Call {
        path: RpcPath::Subscribe,
        authorization,
        message: message.into(),
        deadline: Instant::now() + DoorLimits::default().call_timeout(),
        remote: None,
        relayed: true,
    };
    timeout(STUCK, Box::pin(node.service.open_stream(&call)))
        .await
        .unwrap()
}

async fn open_at(world: &World, node: &Node, who: &Resident, after: u64) -> Open {
    let nonce = world.nonce();
    let signed = world.sign(who, RpcPath::Subscribe, &nonce);
    let ts_secs = signed.ts_secs;
    let header = signed.authorization(&request(after)).unwrap();
    let stream = open_raw(node, Some(header), request(after)).await;
    Open {
        stream: stream.unwrap_or_else(|error| panic!("{error:?}")),
        token: who.token,
        who: who.clone(),
        nonce,
        ts_secs,
        number: 0,
    }
}

pub async fn open(world: &World, who: &Resident) -> Open {
    open_at(world, &world.nodes[0], who, 0).await
}

fn refused(result: Result<CallStream, CallError>) -> Code {
    match result {
        Ok(_) => panic!("it was opened"),
        Err(CallError::Refused(error)) => error.code(),
        Err(elsewhere) => panic!("{elsewhere:?}"),
    }
}

async fn send(world: &World, from: &Resident, to: &Resident, counter: u64, words: &str) -> u64 {
    let outcomes = world
        .send(from, vec![envelope(to, counter, words.as_bytes())])
        .await
        .unwrap();
    sequence(&outcomes[0])
}

async fn acknowledge(world: &World, who: &Resident, upto: u64) {
    let request = v1::AcknowledgeRequest { upto };
    let _: v1::AcknowledgeResponse = world
        .signed(who, RpcPath::Acknowledge, &request)
        .await
        .unwrap();
}

async fn two(world: &World) -> (Resident, Resident) {
    let anna = world.resident(1, ANNA, true).await;
    (anna, world.resident(2, BERT, true).await)
}

#[tokio::test]
async fn what_waits_and_what_comes_is_brought_once_and_moves_nothing() {
    let world = World::new().await;
    let (anna, bert) = two(&world).await;
    send(&world, &anna, &bert, 1, "waiting").await;
    let mut stream = open(&world, &bert).await;
    assert_eq!(stream.bodies(1).await, ["waiting"]);
    for counter in 2..6 {
        send(&world, &anna, &bert, counter, &counter.to_string()).await;
    }
    assert_eq!(stream.bodies(4).await, ["2", "3", "4", "5"]);
    // A retry of what is stored, mail for somebody else, and an acknowledgement bring nothing.
    send(&world, &anna, &bert, 5, "5").await;
    send(&world, &bert, &anna, 1, "to anna").await;
    acknowledge(&world, &bert, 3).await;
    send(&world, &anna, &bert, 6, "last").await;
    assert_eq!(stream.bodies(1).await, ["last"]);
    let page = world.fetch(&bert).await;
    assert_eq!(page.status.unwrap().cursor, 3, "reading moved the cursor");

    // Resumed from the cursor, from a place that is named, and from no place beyond the end.
    let mut again = open(&world, &bert).await;
    assert_eq!(again.bodies(3).await, ["4", "5", "last"]);
    assert_eq!(stream.end().await, "SUBSCRIPTION_REPLACED");
    let mut from = open_at(&world, &world.nodes[0], &bert, 5).await;
    assert_eq!(from.bodies(1).await, ["last"]);
    let beyond = open_at(&world, &world.nodes[0], &bert, 7).await;
    assert_eq!(beyond.end().await, "BEYOND_QUEUE");
}

#[tokio::test]
async fn only_a_fresh_request_signed_for_a_stream_by_the_right_token_opens_one() {
    let world = World::new().await;
    let (anna, bert) = two(&world).await;
    let node = &world.nodes[0];
    let header = |who: &Resident, change: &dyn Fn(&mut SignedRequest<'_>)| {
        let nonce = world.nonce();
        let mut signed = world.sign(who, RpcPath::Subscribe, &nonce);
        change(&mut signed);
        signed.authorization(&request(0)).unwrap()
    };
    let wrong_token = Resident {
        token: anna.token,
        ..bert.clone()
    };
    let attacks = [
        (None, request(0)),
        (Some(header(&wrong_token, &|_| {})), request(0)),
        (
            Some(header(&bert, &|signed| signed.path = RpcPath::Fetch)),
            request(0),
        ),
        (
            Some(header(&bert, &|signed| signed.ts_secs -= 3600)),
            request(0),
        ),
        (
            Some(header(&bert, &|signed| signed.ts_secs += 3600)),
            request(0),
        ),
        (
            Some(header(&bert, &|signed| signed.host = "other")),
            request(0),
        ),
        // Signed for another message.
        (Some(header(&bert, &|_| {})), request(1)),
    ];
    for (number, (header, message)) in attacks.into_iter().enumerate() {
        let refusal = refused(open_raw(node, header, message).await);
        assert_eq!(refusal, Code::Unauthenticated, "attack {number}");
    }
    let honest = header(&bert, &|_| {});
    assert!(
        open_raw(node, Some(honest.clone()), request(0))
            .await
            .is_ok()
    );
    let replayed = open_raw(node, Some(honest), request(0)).await;
    assert_eq!(refused(replayed), Code::Unauthenticated);
    let nonsense = vec![0xff; 9];
    let nonce = world.nonce();
    let signed = world.sign(&bert, RpcPath::Subscribe, &nonce);
    let header = signed.authorization(&nonsense).unwrap();
    let refusal = refused(open_raw(node, Some(header), nonsense).await);
    assert_eq!(refusal, Code::InvalidArgument);
    // A request for a stream does for no other call, and no other way round.
    let nonce = world.nonce();
    let signed = world.sign(&bert, RpcPath::Subscribe, &nonce);
    let header = signed.authorization(&request(0)).unwrap();
    let as_call = world
        .call(RpcPath::Subscribe, Some(header), request(0))
        .await;
    assert!(as_call.is_err());
}

#[tokio::test]
async fn a_node_that_stops_sends_its_subscribers_away_with_a_word() {
    let world = World::new().await;
    let (anna, bert) = two(&world).await;
    let (mut one, mut two) = (open(&world, &anna).await, open(&world, &bert).await);
    assert!(one.page().await.envelopes.is_empty());
    assert!(two.page().await.envelopes.is_empty());
    world.nodes[0].service.end_subscriptions();
    assert_eq!(one.end().await, "UNAVAILABLE");
    assert_eq!(two.end().await, "UNAVAILABLE");
    let nonce = world.nonce();
    let signed = world.sign(&bert, RpcPath::Subscribe, &nonce);
    let header = signed.authorization(&request(0)).unwrap();
    let refusal = refused(open_raw(&world.nodes[0], Some(header), request(0)).await);
    assert_eq!(refusal, Code::Unavailable);
}

async fn new_leader(world: &World) -> usize {
    let leads = |node: &Node| {
        node.id != world.nodes[0].id && matches!(node.group.leadership(), Leadership::Here { .. })
    };
    world
        .eventually("another node leads", || world.nodes.iter().any(leads))
        .await;
    world.nodes.iter().position(leads).unwrap()
}

/// Signs for the time that a new leader wants, and opens a subscription there.
async fn open_at_new_leader(world: &World, who: &Resident) -> Open {
    let node = &world.nodes[new_leader(world).await];
    world.clock.advance_millis(10_000);
    open_at(world, node, who, 0).await
}

#[tokio::test]
async fn a_subscription_ends_with_the_reign_and_the_next_leader_goes_on() {
    let world = World::of_nodes(3, Limits::default()).await;
    let (anna, bert) = two(&world).await;
    send(&world, &anna, &bert, 1, "one").await;
    let mut stream = open(&world, &bert).await;
    assert_eq!(stream.bodies(1).await, ["one"]);
    let deadline = Instant::now() + STUCK;
    let old = &world.nodes[0];
    old.group.transfer_leader(None, deadline).await.unwrap();
    assert_eq!(stream.end().await, "UNAVAILABLE");
    let mut again = open_at_new_leader(&world, &bert).await;
    assert_eq!(again.bodies(1).await, ["one"]);
}

#[tokio::test]
async fn a_leader_that_is_cut_off_brings_nothing_and_says_so() {
    let world = World::of_nodes(3, Limits::default()).await;
    let (anna, bert) = two(&world).await;
    let mut stream = open(&world, &bert).await;
    assert!(stream.page().await.envelopes.is_empty());
    world.network.isolate(world.nodes[0].id);
    assert_eq!(stream.end().await, "UNAVAILABLE");
    let mut again = open_at_new_leader(&world, &bert).await;
    assert!(again.page().await.envelopes.is_empty());
    let message = v1::SendRequest {
        envelopes: vec![envelope(&bert, 1, b"on")],
    };
    let message = message.encode_to_vec();
    let nonce = world.nonce();
    let header = world
        .sign(&anna, RpcPath::Send, &nonce)
        .authorization(&message)
        .unwrap();
    let node = &world.nodes[new_leader(&world).await];
    node.call(RpcPath::Send, Some(header), message, false)
        .await
        .unwrap();
    assert_eq!(again.bodies(1).await, ["on"]);
}

#[tokio::test]
async fn a_follower_names_the_leader() {
    let world = World::of_nodes(3, Limits::default()).await;
    let bert = world.resident(2, BERT, true).await;
    let nonce = world.nonce();
    let signed = world.sign(&bert, RpcPath::Subscribe, &nonce);
    let call = Call {
        path: RpcPath::Subscribe,
        authorization: Some(signed.authorization(&request(0)).unwrap()),
        message: request(0).into(),
        deadline: Instant::now() + DoorLimits::default().call_timeout(),
        remote: None,
        relayed: false,
    };
    for relayed in [false, true] {
        let call = Call {
            relayed,
            ..call.clone()
        };
        match world.nodes[1].service.open_stream(&call).await {
            Err(CallError::Elsewhere { leader, .. }) => {
                assert_eq!(leader.unwrap().node, world.nodes[0].id);
            }
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("a follower opened it"),
        }
    }
}

/// A resident made without ceremony: its box is put into the state as it is.
pub async fn put_resident(
    world: &World,
    device: &Arc<TestDevice>,
    (partition, number): (PartitionId, u64),
) -> Resident {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    let record = TestDevice::with_nonce(1, nonce).record;
    let box_id = BoxId::derive(partition, &record.genesis_hash());
    let address = DeviceAddress {
        box_id,
        device: device.id(),
    };
    let identifier = IdentifierHash::from_bytes(nonce);
    let create = CreateBox {
        box_id,
        record,
        identifier,
        sealed_identifier: bytes::Bytes::new(),
        discoverable: false,
    };
    let activate = ActivateBox {
        box_id,
        device: address.device,
        identifier,
        generation: 1,
    };
    let commands = [Command::CreateBox(create), Command::ActivateBox(activate)];
    let commands = commands.map(|command| (partition, command)).into();
    let replies = world.group.propose(commands, Instant::now() + STUCK).await;
    assert!(replies.unwrap().iter().all(Result::is_ok));
    let query = Query::DeviceAuth(address);
    let Answer::DeviceAuth(Some(generation)) = world.group.read_local(partition, &query).unwrap()
    else {
        panic!("it has no token")
    };
    Resident {
        device: Arc::clone(device),
        address,
        token: *world.secrets.token(&address, generation).as_bytes(),
    }
}

/// Bytes of memory that this process has in use.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// The figure in docs/OPERATIONS.md.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "its figure is what it is for")]
#[ignore = "measures the memory that 10,000 idle streams take; run it alone"]
async fn ten_thousand_idle_streams_fit_into_little_memory() {
    const STREAMS: u64 = 10_000;
    let doors = DoorLimits {
        // Nobody reads a sign of life here.
        subscription_keepalive_ms: 3_600_000,
        ..DoorLimits::default()
    };
    let world = World::at_addresses(vec!["node-1:7000".to_owned()], Limits::default(), doors).await;
    let device = Arc::new(TestDevice::new(1));
    let mut residents = Vec::new();
    let partition = world.partitions.all().next().unwrap();
    for number in 0..STREAMS {
        residents.push(put_resident(&world, &device, (partition, number)).await);
    }
    let before = resident_bytes();
    let mut streams = Vec::new();
    for resident in &residents {
        let mut stream = open(&world, resident).await;
        assert!(stream.page().await.envelopes.is_empty());
        streams.push(stream);
    }
    let each = resident_bytes().saturating_sub(before) / STREAMS;
    println!("{each} bytes for each of {STREAMS} idle streams");
    assert!(each < 32 * 1024);
    send(&world, &residents[1], &residents[0], 1, "still there").await;
    assert_eq!(streams[0].bodies(1).await, ["still there"]);
}
