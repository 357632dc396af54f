//! Subscriptions through a node that does not lead, over the real connection between nodes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use prost::Message as _;
use rossby_api::Door as _;
use rossby_api::hawk::SignedRequest;
use rossby_api::listener::Listener;
use rossby_api::peer::{Connections, PeerServer};
use rossby_api::{Call, CallStream, DoorLimits, Relay, RpcPath};
use rossby_domain::ids::{ClusterId, NodeId};
use rossby_domain::limits::Limits;
use rossby_proto::v1;
use rossby_seams::transport::{Link, LinkAcceptor};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::service::Routes;
use tonic_types::StatusExt as _;

use crate::support::{self, Authority, Resident, World, envelope, sequence};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
/// Nothing here takes this long unless it is stuck.
const STUCK: Duration = Duration::from_secs(20);
const NODES: u64 = 3;

/// The groups' links are in memory.
struct NoLinks;

impl LinkAcceptor for NoLinks {
    fn accept(&self, _: Link) {}
}

/// Three nodes that reach each other over TLS, for relays. The first leads.
struct Cluster {
    world: World,
    /// The door of each node, and what closes its connections.
    doors: Vec<(Relay, Option<DropGuard>)>,
}

impl Cluster {
    async fn new(doors: DoorLimits) -> Self {
        let authority = Authority::new();
        let cluster = ClusterId::from_random([7; 16]);
        let mut bound = Vec::new();
        for number in 1..=NODES {
            let tls = authority.node(number, &authority.ca());
            let address = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::peers(address, Arc::clone(&tls.server)).await;
            bound.push((NodeId(number), listener.unwrap(), tls));
        }
        let addresses = bound
            .iter()
            .map(|(_, listener, _)| listener.address().to_string());
        let world = World::at_addresses(addresses.collect(), Limits::default(), doors).await;
        let mut doors: Vec<_> = world.nodes.iter().map(|_| None).collect();
        for (id, listener, tls) in bound {
            let at = world.nodes.iter().position(|node| node.id == id).unwrap();
            let connections = Connections::new(Arc::clone(&tls.client), Some(cluster));
            let service = Arc::clone(&world.nodes[at].service);
            let relay = Relay::new(Arc::clone(&service), Some(connections));
            let peers = PeerServer::new();
            peers.open(cluster, Arc::new(NoLinks), service);
            let stop = CancellationToken::new();
            let routes = Routes::new(peers.into_service());
            tokio::spawn(listener.serve_peers(routes, stop.clone()));
            doors[at] = Some((relay, Some(stop.drop_guard())));
        }
        let doors = doors.into_iter().map(Option::unwrap).collect();
        Self { world, doors }
    }

    async fn two(&self) -> (Resident, Resident) {
        let anna = self.world.resident(1, ANNA, true).await;
        (anna, self.world.resident(2, BERT, true).await)
    }

    async fn send(&self, from: &Resident, to: &Resident, counter: u64, words: &str) -> u64 {
        let envelope = envelope(to, counter, words.as_bytes());
        let outcomes = self.world.send(from, vec![envelope]).await.unwrap();
        sequence(&outcomes[0])
    }

    /// Opens a subscription at a node.
    async fn try_open(&self, at: usize, who: &Resident) -> Result<Open, Status> {
        let message = v1::SubscribeRequest {
            after: 0,
            max_envelopes: 1,
        }
        .encode_to_vec();
        let nonce = self.world.nonce();
        let signed = self.world.sign(who, RpcPath::Subscribe, &nonce);
        let call = Call {
            path: RpcPath::Subscribe,
            authorization: Some(signed.authorization(&message).unwrap()),
            message: message.into(),
            deadline: Instant::now() + DoorLimits::default().call_timeout(),
            remote: None,
            relayed: false,
        };
        let ts_secs = signed.ts_secs;
        let opening = Box::pin(self.doors[at].0.subscribe(call));
        let stream = timeout(STUCK, opening).await.unwrap()?;
        Ok(Open {
            stream,
            who: who.clone(),
            nonce,
            ts_secs,
            number: 0,
        })
    }

    async fn open(&self, at: usize, who: &Resident) -> Open {
        self.try_open(at, who)
            .await
            .unwrap_or_else(|status| panic!("{status:?}"))
    }
}

/// An open subscription, and what its messages are held against.
struct Open {
    stream: CallStream,
    who: Resident,
    nonce: String,
    ts_secs: u64,
    number: u64,
}

impl Open {
    /// The next page, which the leader must have vouched for.
    async fn page(&mut self) -> Result<v1::FetchResponse, String> {
        let message = match timeout(STUCK, self.stream.next()).await.unwrap() {
            Some(Ok(message)) => v1::SubscribeResponse::decode(message).unwrap(),
            Some(Err(status)) => return Err(code(&status)),
            None => return Err("OK".to_owned()),
        };
        let signed = SignedRequest {
            address: self.who.address,
            token: &self.who.token,
            host: support::HOST,
            path: RpcPath::Subscribe,
            ts_secs: self.ts_secs,
            nonce: &self.nonce,
        };
        let header = &message.server_authorization;
        assert!(signed.is_nth_vouched(&message.page, header, self.number));
        self.number += 1;
        Ok(v1::FetchResponse::decode(message.page).unwrap())
    }

    /// The next body, however many signs of life come before it.
    async fn body(&mut self) -> String {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < STUCK, "only signs of life");
            let page = self.page().await.unwrap();
            if let [envelope] = page.envelopes.as_slice() {
                return String::from_utf8(envelope.body.to_vec()).unwrap();
            }
        }
    }

    /// The code that it ends with, once what is on its way has come.
    async fn end(mut self) -> String {
        loop {
            if let Err(code) = self.page().await {
                return code;
            }
        }
    }
}

fn code(status: &Status) -> String {
    let details = status.get_details_error_info();
    details.map_or_else(|| status.to_string(), |details| details.reason)
}

#[tokio::test]
async fn a_listener_at_a_follower_hears_what_waits_what_comes_and_how_it_ends() {
    let cluster = Cluster::new(DoorLimits::default()).await;
    let (anna, bert) = cluster.two().await;
    for (counter, words) in [(1, "one"), (2, "two"), (3, "three")] {
        cluster.send(&anna, &bert, counter, words).await;
    }
    let mut stream = cluster.open(1, &bert).await;
    for words in ["one", "two", "three"] {
        assert_eq!(stream.body().await, words);
    }
    for counter in 4..8 {
        cluster
            .send(&anna, &bert, counter, &counter.to_string())
            .await;
        assert_eq!(stream.body().await, counter.to_string());
    }
    // One for each device, wherever it is open.
    let mut newer = cluster.open(2, &bert).await;
    assert_eq!(newer.body().await, "one");
    assert_eq!(stream.end().await, "SUBSCRIPTION_REPLACED");
    let deadline = Instant::now() + STUCK;
    let leader = &cluster.world.nodes[0].group;
    leader.transfer_leader(None, deadline).await.unwrap();
    assert_eq!(newer.end().await, "UNAVAILABLE");
}

#[tokio::test]
async fn a_listener_at_a_follower_is_told_when_the_leader_is_gone_and_when_the_follower_stops() {
    let mut cluster = Cluster::new(DoorLimits::default()).await;
    let (anna, bert) = cluster.two().await;
    let mut one = cluster.open(1, &anna).await;
    let mut two = cluster.open(2, &bert).await;
    assert!(one.page().await.unwrap().envelopes.is_empty());
    assert!(two.page().await.unwrap().envelopes.is_empty());
    cluster.doors[2].0.end_subscriptions();
    assert_eq!(two.end().await, "UNAVAILABLE");
    // Its process ends: so do its connections.
    cluster.doors[0].0.end_subscriptions();
    cluster.doors[0].1.take();
    assert_eq!(one.end().await, "UNAVAILABLE");
}

#[tokio::test]
async fn a_listener_that_does_not_read_loses_its_room_at_the_follower_too() {
    let cluster = Cluster::new(DoorLimits {
        subscriptions: 1,
        subscription_unread_ms: 200,
        ..DoorLimits::default()
    })
    .await;
    let (anna, bert) = cluster.two().await;
    for counter in 1..=20 {
        cluster.send(&anna, &bert, counter, "much mail").await;
    }
    let mut unread = cluster.open(1, &bert).await;
    assert_eq!(unread.body().await, "much mail");
    let began = Instant::now();
    loop {
        // The follower says so itself; that the leader is full is the first message.
        let first = match cluster.try_open(1, &anna).await {
            Ok(mut stream) => stream.page().await,
            Err(status) => Err(code(&status)),
        };
        match first {
            Ok(_) => break,
            Err(code) => assert_eq!(code, "TOO_MANY_SUBSCRIPTIONS"),
        }
        assert!(began.elapsed() < STUCK, "the room is never free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(unread);
}
