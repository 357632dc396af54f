//! Where a connection that learns goes, on a wire on which some servers are there and others are not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_seams::clock::ManualClock;
use rossby_seams::random::SeededRandom;

use super::hawk::tests::vouch;
use super::*;
use crate::crypto::secret::SecretBytes;

const TOKEN: [u8; 32] = [3; 32];
const HOST: &str = "rossby";

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nobody, and one is told so at once.
    Gone,
    /// Nobody answers.
    Silent,
    /// A node that leads or relays.
    Node,
    /// A node that can't serve now.
    Minority,
    /// Something that answers, and is not the service.
    Stranger,
    /// Something that answers as the service would, but has not the token.
    Impostor,
}

#[derive(Default)]
struct Town {
    /// By port.
    at: Mutex<BTreeMap<u16, Kind>>,
    /// The port of the node that leads.
    leader: Mutex<u16>,
    /// Where nodes say that it is; the truth, if nothing.
    said: Mutex<Option<String>>,
    map: Mutex<v1::GetMapResponse>,
    asked: Mutex<Vec<u16>>,
    maps: Mutex<usize>,
    insecure: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Wire for Town {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let server = exchange.server;
        if !server.is_secure() {
            self.insecure.lock().insert(server.to_string());
        }
        let port = server.uri().port_u16().unwrap_or_default();
        let is_map = exchange.path == GetMap::PATH;
        if is_map {
            *self.maps.lock() += 1;
        } else {
            self.asked.lock().push(port);
        }
        let kind = self.at.lock().get(&port).copied().unwrap_or(Kind::Gone);
        let no = |why: &str| why.to_owned();
        match kind {
            Kind::Gone => return Err(WireError::NotSent(no("refused"))),
            Kind::Silent => {
                sleep(exchange.timeout.min(Duration::from_secs(2))).await;
                return Err(WireError::NotSent(no("no connection in time")));
            }
            Kind::Stranger => return Err(WireError::NotTheService(no("no TLS"))),
            Kind::Minority if !is_map => {
                return Err(WireError::Refused(Box::new(Refusal {
                    code: "UNAVAILABLE".to_owned(),
                    message: String::new(),
                    retry: Retry::Same,
                    retry_after: None,
                    server_time: None,
                    figures: BTreeMap::new(),
                    key_record: None,
                    next_counter: None,
                })));
            }
            Kind::Minority | Kind::Node | Kind::Impostor => {}
        }
        if is_map {
            return Ok(WireReply {
                message: self.map.lock().encode_to_vec().into(),
                server_authorization: None,
                leader: None,
            });
        }
        let leader = *self.leader.lock();
        let truth = format!("127.0.0.1:{leader}");
        let said = self.said.lock().clone().unwrap_or(truth);
        let message = Bytes::from(v1::FetchResponse::default().encode_to_vec());
        let header = exchange.authorization.unwrap_or_default();
        let vouched = vouch(&header, &TOKEN, &message);
        Ok(WireReply {
            server_authorization: (kind == Kind::Node).then_some(vouched),
            message,
            leader: (port != leader).then_some(said),
        })
    }
}

fn signer() -> Signer {
    let box_id = BoxId::derive(PartitionId::new(7).unwrap(), &[1; 32]);
    let device = DeviceId::from_bytes([2; 16]);
    Signer {
        address: DeviceAddress { box_id, device },
        token: SecretBytes::new(TOKEN.to_vec()),
        host: HOST.to_owned(),
    }
}

/// A map by which these nodes may lead the box's group, in this order.
fn map(version: u64, ports: &[u16]) -> v1::GetMapResponse {
    let node = |port: &u16| v1::MapNode {
        node_id: u64::from(*port),
        region: "eu".to_owned(),
        client_address: format!("127.0.0.1:{port}"),
    };
    v1::GetMapResponse {
        version,
        nodes: ports.iter().map(node).collect(),
        groups: vec![v1::MapGroup {
            group_id: 2,
            home_region: "eu".to_owned(),
            node_ids: ports.iter().map(|port| u64::from(*port)).collect(),
        }],
        partitions: vec![v1::MapRange {
            first: 5,
            last: 9,
            group_id: 2,
        }],
    }
}

struct Scene {
    town: Arc<Town>,
    connection: Connection,
}

impl Scene {
    fn new(kinds: &[(u16, Kind)], seeds: &[&str], kept: Option<v1::GetMapResponse>) -> Self {
        let town = Arc::new(Town::default());
        town.at.lock().extend(kinds.iter().copied());
        let connection = Connection::new(
            Arc::clone(&town) as Arc<dyn Wire>,
            seeds.iter().map(|seed| seed.parse().unwrap()).collect(),
            Arc::new(ManualClock::new(Timestamp::from_millis(1))),
            Arc::new(SeededRandom::new(1)),
            Patience::default(),
        );
        let connection = connection.learning(kept.map(|map| map.encode_to_vec().into()));
        Self { town, connection }
    }

    /// One call, and which servers it took.
    async fn call(&self) -> (Result<(), CallError>, Vec<u16>) {
        self.town.asked.lock().clear();
        let request = v1::FetchRequest::default();
        let called = self
            .connection
            .call::<Fetch>(&request, Some(&signer()))
            .await;
        let asked = self.town.asked.lock().clone();
        (called.map(|_| ()), asked)
    }

    async fn asked(&self) -> Vec<u16> {
        let (called, asked) = self.call().await;
        called.unwrap();
        asked
    }
}

const SEED: [&str; 1] = ["http://127.0.0.1:1"];
const NODES: [(u16, Kind); 3] = [(1, Kind::Node), (2, Kind::Node), (3, Kind::Node)];

#[tokio::test(start_paused = true)]
async fn what_was_relayed_goes_to_the_leader_next_time() {
    let scene = Scene::new(&NODES, &SEED, None);
    *scene.town.leader.lock() = 3;
    assert_eq!(scene.asked().await, [1]);
    for _ in 0..3 {
        assert_eq!(scene.asked().await, [3]);
    }
    // It moves: one relay more.
    *scene.town.leader.lock() = 2;
    assert_eq!(scene.asked().await, [3]);
    assert_eq!(scene.asked().await, [2]);
    // It dies, and the seed still knows.
    scene.town.at.lock().insert(2, Kind::Gone);
    *scene.town.leader.lock() = 3;
    assert_eq!(scene.asked().await.len(), 2);
    assert_eq!(scene.asked().await, [3]);
}

#[tokio::test(start_paused = true)]
async fn a_map_that_was_kept_is_enough_when_the_seed_is_gone() {
    let scene = Scene::new(&NODES[1..], &SEED, Some(map(4, &[3, 2])));
    *scene.town.leader.lock() = 3;
    assert_eq!(scene.asked().await, [3]);
    // Nor is it forgotten for an older one, or for none.
    *scene.town.map.lock() = map(3, &[2]);
    tokio::time::advance(Duration::from_secs(1000)).await;
    assert_eq!(scene.asked().await, [3]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.asked().await, [3]);
    let kept = v1::GetMapResponse::decode(scene.connection.map().unwrap()).unwrap();
    assert_eq!(kept.version, 4);
    assert!(*scene.town.maps.lock() <= 4);
}

#[tokio::test(start_paused = true)]
async fn a_map_is_asked_for_beside_the_calls_and_rarely() {
    let scene = Scene::new(&NODES, &SEED, None);
    (*scene.town.leader.lock(), *scene.town.map.lock()) = (2, map(1, &[2, 3, 1]));
    for _ in 0..100 {
        scene.asked().await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*scene.town.maps.lock(), 1);
    let kept = scene.connection.map().unwrap();
    assert_eq!(kept, scene.town.map.lock().encode_to_vec());
    // It is not at the leader's word alone that a device finds another one.
    scene.town.at.lock().remove(&2);
    *scene.town.leader.lock() = 3;
    assert_eq!(scene.asked().await, [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_map_full_of_nodes_that_are_gone_costs_little() {
    for gone in [Kind::Gone, Kind::Silent, Kind::Stranger, Kind::Impostor] {
        let kinds: Vec<_> = (20..26)
            .map(|port| (port, gone))
            .chain([NODES[0]])
            .collect();
        let scene = Scene::new(&kinds, &SEED, Some(map(9, &[20, 21, 22, 23, 24, 25])));
        *scene.town.leader.lock() = 1;
        scene.connection.route.lock().answered(0, Duration::ZERO);
        let began = Instant::now();
        let asked = scene.asked().await;
        assert!(asked.len() <= 7, "{gone:?}: {asked:?}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{gone:?}: {took:?}");
        assert_eq!(scene.asked().await, [1], "{gone:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_costs_no_call_its_outcome() {
    for (kind, port) in [(Kind::Stranger, 8), (Kind::Impostor, 8), (Kind::Gone, 8)] {
        let kinds = [NODES[0], NODES[1], (port, kind)];
        let scene = Scene::new(&kinds, &SEED, None);
        (*scene.town.leader.lock(), *scene.town.said.lock()) =
            (2, Some(format!("127.0.0.1:{port}")));
        assert_eq!(scene.asked().await, [1]);
        // Followed once, and then not before it is said again.
        assert_eq!(scene.asked().await, [8, 1], "{kind:?}");
    }
    // Nonsense is none.
    for said in [
        "",
        "http://127.0.0.1:2",
        "evil.example:2",
        "0.0.0.0:2",
        "a b",
    ] {
        let scene = Scene::new(&NODES, &SEED, None);
        (*scene.town.leader.lock(), *scene.town.said.lock()) = (2, Some(said.to_owned()));
        assert_eq!(scene.asked().await, [1]);
        assert_eq!(scene.asked().await, [1], "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_told_leads_out_of_tls() {
    let seeds = ["https://127.0.0.1:1", "http://127.0.0.1:4"];
    let scene = Scene::new(&NODES, &seeds, Some(map(1, &[3, 2])));
    *scene.town.leader.lock() = 2;
    *scene.town.map.lock() = map(2, &[2, 3]);
    for _ in 0..5 {
        scene.asked().await;
    }
    assert!(scene.town.insecure.lock().is_empty());
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop_oneof![
        Just(Kind::Gone),
        Just(Kind::Silent),
        Just(Kind::Node),
        Just(Kind::Minority),
        Just(Kind::Stranger),
        Just(Kind::Impostor),
    ];
    prop::collection::vec(kind, 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is told and wherever things are: with one given server that works, calls end well, and
    /// with few tries.
    #[test]
    fn calls_succeed_while_any_given_server_works(
        told in kinds(),
        given_wrong in prop::sample::select(vec![Kind::Gone, Kind::Node, Kind::Minority, Kind::Stranger]),
        leader in 1_u16..25,
        stale in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { let mut runtime = runtime; runtime.enable_time().start_paused(true).build().unwrap() };
        runtime.block_on(async {
            let mut all: Vec<_> = (20..24).zip(told).collect();
            all.extend([(1, given_wrong), (2, Kind::Node)]);
            let seeds = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
            let kept = stale.then(|| map(1, &[20, 21, 22, 23]));
            let scene = Scene::new(&all, &seeds, kept);
            (*scene.town.leader.lock(), *scene.town.map.lock()) = (leader, map(2, &[23, 22, 21, 20]));
            for _ in 0..4 {
                let began = Instant::now();
                let (called, asked) = scene.call().await;
                assert!(called.is_ok(), "{called:?} {asked:?}");
                assert!(asked.len() <= 8, "{asked:?}");
                assert!(began.elapsed() < Duration::from_secs(8), "{asked:?}");
            }
        });
    }
}
