//! Four nodes and three groups, each with its leader on another node. Everything that nodes say to each
//! other about calls goes over real connections; the links of the groups are in memory, so that a group
//! can lose its quorum.
//!
//! ```text
//!             node 1    node 2    node 3    node 4       partitions
//!   group 1   leader    replica   replica                0, 3, 6
//!   group 2             leader              replica      1, 4
//!   group 3                       leader    replica      2, 5
//!   nobody                                               7
//! ```
//!
//! People register in the partitions of the group that their node leads; 0 to 3 are the directory's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::registry::Registry;
use prost::Message;
use rossby_api::hawk::SignedRequest;
use rossby_api::listener::Listener;
use rossby_api::peer::{Connections, PeerExecutors, PeerServer};
use rossby_api::{
    Call, CallReply, CallStream, ClusterSecrets, Directory, Door as _, DoorLimits, MailboxConfig,
    MailboxService, Metrics, Relay, Router, RpcPath, Workers,
};
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::{
    ClusterId, Epoch, GroupId, NodeId, PartitionCount, PartitionId, ReplicaId,
};
use rossby_domain::limits::Limits;
use rossby_domain::{Answer, Query};
use rossby_proto::v1;
use rossby_raft::{Blocking, Group, Groups, Member};
use rossby_seams::clock::{Clock as _, ManualClock};
use rossby_seams::random::SeededRandom;
use rossby_seams::transport::{Link, LinkAcceptor, MemoryNetwork};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;
use tonic_types::StatusExt as _;

use super::breaking::{Counting, Others};
use crate::support::{Authority, HOST, Resident, START, TestDevice, ToTest, node_in_memory};

/// Nothing here takes this long unless it is stuck.
pub const STUCK: Duration = Duration::from_secs(30);
/// How long a caller waits: longer than an election takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// And while a group has no quorum: as long as at a real door.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);
pub const NODES: u64 = 4;

pub const ONE: GroupId = GroupId(1);
pub const TWO: GroupId = GroupId(2);
pub const THREE: GroupId = GroupId(3);

/// Where the groups have replicas; the first leads at first.
const SEATS: [(GroupId, &[u64]); 3] = [(ONE, &[1, 2, 3]), (TWO, &[2, 4]), (THREE, &[3, 4])];

/// The group that owns a partition; the last has no owner.
pub fn owner(partition: PartitionId) -> Option<GroupId> {
    let number = u32::from(partition.number());
    (number < 7).then_some(GroupId(1 + number % 3))
}

/// Where a group has replicas.
pub fn seats(group: GroupId) -> &'static [u64] {
    let seats = SEATS.into_iter().find(|(seat, _)| *seat == group);
    seats.unwrap().1
}

/// What a node knows of all that.
struct Map {
    own: NodeId,
    groups: Arc<Groups>,
    members: Arc<BTreeMap<NodeId, Member>>,
    misled: Misled,
}

/// What a node's map says otherwise than it is.
type Misled = Arc<Mutex<BTreeMap<PartitionId, GroupId>>>;

impl Directory for Map {
    fn owner(&self, partition: PartitionId) -> Option<GroupId> {
        let misled = self.misled.lock().unwrap().get(&partition).copied();
        misled.or_else(|| owner(partition))
    }

    fn replica(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups.get(group)
    }

    fn nodes(&self, group: GroupId) -> Vec<Member> {
        let others = seats(group).iter().filter(|node| **node != self.own.0);
        others
            .map(|node| self.members[&NodeId(*node)].clone())
            .collect()
    }

    fn births(&self) -> Vec<PartitionId> {
        let at_home = GroupId(u32::try_from(self.own.0).unwrap().min(3));
        let boxes = (4..7).map(|number| PartitionId::new(number).unwrap());
        boxes
            .filter(|box_home| owner(*box_home) == Some(at_home))
            .collect()
    }

    fn assigned(&self, group: GroupId) -> Vec<(PartitionId, Epoch)> {
        let all = PartitionCount::new(8).unwrap().all();
        let own = all.filter(|partition| owner(*partition) == Some(group));
        own.map(|partition| (partition, Epoch(3))).collect()
    }
}

/// The groups' links are in memory.
struct NoLinks;

impl LinkAcceptor for NoLinks {
    fn accept(&self, _: Link) {}
}

pub struct Node {
    pub groups: Arc<Groups>,
    pub others: Arc<Others>,
    misled: Misled,
    door: Relay,
    workers: Vec<Workers>,
    _listening: DropGuard,
}

pub struct World {
    pub nodes: BTreeMap<u64, Node>,
    pub network: MemoryNetwork,
    pub clock: ManualClock,
    pub secrets: Arc<ClusterSecrets>,
    pub partitions: PartitionCount,
    codes: tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<(Identifier, String)>>,
    nonces: AtomicU64,
    /// The time that callers were told to sign with, in seconds.
    told: AtomicU64,
    /// Whether a group has no quorum.
    pub silent: AtomicBool,
    working: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.working.cancel();
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// One whose partitions are taken over with these limits.
    pub async fn with_limits(limits: Limits) -> Self {
        let (clock, network) = (ManualClock::new(START), MemoryNetwork::new());
        let random = Arc::new(SeededRandom::new(11));
        let secrets = Arc::new(ClusterSecrets::generate(random.as_ref()).unwrap());
        let partitions = PartitionCount::new(8).unwrap();
        let (sender, codes) = tokio::sync::mpsc::unbounded_channel();
        let authority = Authority::new();
        let cluster = ClusterId::from_random([7; 16]);
        let mut bound = BTreeMap::new();
        for number in 1..=NODES {
            let tls = authority.node(number, &authority.ca());
            let address = "127.0.0.1:0".parse().unwrap();
            let listener = Listener::peers(address, Arc::clone(&tls.server)).await;
            bound.insert(NodeId(number), (listener.unwrap(), tls));
        }
        let member = |(node, (listener, _)): (&NodeId, &(Listener, _))| {
            let peer_address = listener.address().to_string();
            let member = Member {
                node: *node,
                peer_address,
                ..Member::default()
            };
            (*node, member)
        };
        let members: Arc<BTreeMap<_, _>> = Arc::new(bound.iter().map(member).collect());
        let mut nodes = BTreeMap::new();
        for (id, (listener, tls)) in bound {
            let groups = node_in_memory(id, &clock, &network, Blocking::Threads);
            network.register(id, Arc::clone(&groups) as Arc<dyn LinkAcceptor>);
            let connections = Connections::new(Arc::clone(&tls.client), Some(cluster));
            let others = Arc::<Others>::default();
            let misled = Misled::default();
            let map = Map {
                own: id,
                groups: Arc::clone(&groups),
                members: Arc::clone(&members),
                misled: Arc::clone(&misled),
            };
            let peers = Counting {
                peers: PeerExecutors::new(Arc::clone(&connections)),
                others: Arc::clone(&others),
            };
            let router = Router::new(id, Arc::new(map), Arc::new(peers));
            let metrics = Metrics::register(&mut Registry::default());
            let courier = Arc::new(ToTest::new(sender.clone()));
            let service = Arc::new(MailboxService::new(MailboxConfig {
                router: Arc::clone(&router),
                secrets: Arc::clone(&secrets),
                partitions,
                cluster_name: HOST.to_owned(),
                random: random.clone(),
                limits: DoorLimits::default().unrated(),
                stored_limits: limits,
                courier: courier.clone(),
                metrics: Arc::clone(&metrics),
            }));
            let mut workers = Vec::new();
            for (group, seats) in SEATS {
                if !seats.contains(&id.0) {
                    continue;
                }
                workers.push(Workers {
                    group: groups.start(group, ReplicaId(id.0)).await.unwrap(),
                    router: Arc::clone(&router),
                    partitions,
                    limits,
                    secrets: Arc::clone(&secrets),
                    courier: courier.clone(),
                    random: random.clone(),
                    metrics: Arc::clone(&metrics),
                });
            }
            let peers = PeerServer::new();
            peers.open(cluster, Arc::new(NoLinks), service.clone());
            let stop = CancellationToken::new();
            let routes = Routes::new(peers.into_service());
            tokio::spawn(listener.serve_peers(routes, stop.clone()));
            let node = Node {
                groups,
                others,
                misled,
                door: Relay::new(service, Some(connections)),
                workers,
                _listening: stop.drop_guard(),
            };
            nodes.insert(id.0, node);
        }
        let mut world = Self {
            nodes,
            network,
            clock,
            secrets,
            partitions,
            codes: tokio::sync::Mutex::new(codes),
            nonces: AtomicU64::new(0),
            told: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            working: CancellationToken::new(),
        };
        for (group, seats) in SEATS {
            let seated = seats
                .iter()
                .map(|node| (ReplicaId(*node), members[&NodeId(*node)].clone()));
            let first = world.replica(seats[0], group);
            first.initialize(seated.collect()).await.unwrap();
            world.lead(group, seats[0]).await;
        }
        world.start_workers();
        world
            .eventually("all is taken over", || {
                SEATS.iter().all(|seat| world.has_all(*seat))
            })
            .await;
        // Past the time that a new leader refuses.
        world.clock.advance_millis(10_000);
        world
    }

    pub fn replica(&self, node: u64, group: GroupId) -> Arc<Group> {
        self.nodes[&node].groups.get(group).unwrap()
    }

    /// All nodes' workers rest, as in an outage.
    pub fn stop_workers(&self) {
        self.working.cancel();
    }

    /// They start anew.
    pub fn start_workers(&mut self) {
        self.working = CancellationToken::new();
        for workers in self.nodes.values().flat_map(|node| &node.workers) {
            workers.clone().spawn(&TaskTracker::new(), &self.working);
        }
    }

    fn has_all(&self, (group, seats): (GroupId, &[u64])) -> bool {
        let replica = self.replica(seats[0], group);
        let mut own = self
            .partitions
            .all()
            .filter(|partition| owner(*partition) == Some(group));
        own.all(|partition| replica.epoch(partition) == Some(Epoch(3)))
    }

    /// Has a node's map say that another group owns a partition; with `None` it is right again.
    pub fn mislead(&self, node: u64, partition: PartitionId, group: Option<GroupId>) {
        let mut misled = self.nodes[&node].misled.lock().unwrap();
        match group {
            Some(group) => misled.insert(partition, group),
            None => misled.remove(&partition),
        };
    }

    /// What the leader of a partition's group has applied of it.
    pub fn applied(&self, partition: PartitionId, query: &Query) -> Answer {
        let group = owner(partition).unwrap();
        let replicas = seats(group).iter().map(|node| self.replica(*node, group));
        let leader = replicas.max_by_key(|replica| (replica.leads_surely(), replica.leads()));
        leader.unwrap().read_local(partition, query).unwrap()
    }

    /// Phones whose claims are in a group.
    pub fn phones(&self, group: GroupId) -> impl Iterator<Item = String> {
        let phones = (0..10_000).map(|number| format!("+4917080{number:05}"));
        phones.filter(move |phone| owner(self.directory(phone).1) == Some(group))
    }

    /// A phone as the directory has it, and the partition that does.
    pub fn directory(&self, phone: &str) -> (IdentifierHash, PartitionId) {
        let identifier = Identifier::phone(phone).unwrap();
        let identifier = self.secrets.identifier_hash(&identifier);
        (identifier, identifier.partition(self.partitions))
    }

    /// Reaches all groups, as a node does.
    pub fn router(&self, node: u64) -> &Router {
        &self.nodes[&node].workers[0].router
    }

    /// Has a node lead a group, whoever leads it now.
    pub async fn lead(&self, group: GroupId, node: u64) {
        let began = Instant::now();
        let target = self.replica(node, group);
        while !target.leads_surely() {
            assert!(
                began.elapsed() < STUCK,
                "node {node} never leads group {group}"
            );
            let leader = self
                .nodes
                .values()
                .filter_map(|node| node.groups.get(group));
            let leader = leader.into_iter().find(|replica| replica.leads());
            if let Some(leader) = leader {
                let deadline = Instant::now() + Duration::from_secs(5);
                // Another try follows one that failed.
                let _ = leader.transfer_leader(Some(NodeId(node)), deadline).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a call as it comes, at a node.
    pub async fn call(
        &self,
        at: u64,
        path: RpcPath,
        authorization: Option<String>,
        message: Vec<u8>,
    ) -> Result<CallReply, Status> {
        let call = self.call_of(path, authorization, message);
        timeout(STUCK, Box::pin(self.nodes[&at].door.call(call)))
            .await
            .unwrap()
    }

    /// An unsigned call.
    pub async fn plain<M: Message, R: Message + Default>(
        &self,
        at: u64,
        path: RpcPath,
        message: &M,
    ) -> Result<R, Status> {
        let reply = self.call(at, path, None, message.encode_to_vec()).await?;
        Ok(R::decode(reply.message).unwrap())
    }

    /// A signed call, whose reply must be vouched for. Whoever is told the time signs again.
    pub async fn signed<M: Message, R: Message + Default>(
        &self,
        at: u64,
        who: &Resident,
        path: RpcPath,
        message: &M,
    ) -> Result<R, Status> {
        let message = message.encode_to_vec();
        let began = Instant::now();
        loop {
            let nonce = self.nonce();
            let signed = self.sign(who, path, &nonce);
            let header = signed.authorization(&message).unwrap();
            match self.call(at, path, Some(header), message.clone()).await {
                Ok(reply) => {
                    let vouched = reply.server_authorization.unwrap();
                    assert!(signed.is_vouched(&reply.message, &vouched));
                    return Ok(R::decode(reply.message).unwrap());
                }
                Err(refused) if self.is_told_the_time(&refused) => assert!(began.elapsed() < STUCK),
                Err(refused) => return Err(refused),
            }
        }
    }

    fn call_of(&self, path: RpcPath, authorization: Option<String>, message: Vec<u8>) -> Call {
        let patience = match self.silent.load(Ordering::SeqCst) {
            true => SHORT_PATIENCE,
            false => PATIENCE,
        };
        Call {
            path,
            authorization,
            message: message.into(),
            deadline: Instant::now() + patience,
            remote: None,
            relayed: false,
        }
    }

    fn sign<'a>(&self, who: &'a Resident, path: RpcPath, nonce: &'a str) -> SignedRequest<'a> {
        SignedRequest {
            address: who.address,
            token: &who.token,
            host: HOST,
            path,
            ts_secs: self.now_secs(),
            nonce,
        }
    }

    fn now_secs(&self) -> u64 {
        let told = self.told.load(Ordering::SeqCst);
        self.clock.now().as_secs().max(told)
    }

    /// Whether a refusal only told the time to sign with, as a new leader does.
    fn is_told_the_time(&self, refused: &Status) -> bool {
        let details = refused.get_details_error_info();
        let told = details.and_then(|details| details.metadata.get("server_time_ms")?.parse().ok());
        let told: Option<u64> = told;
        if let Some(told) = told {
            self.told.fetch_max(told / 1000, Ordering::SeqCst);
            // Time passes, which here it does not by itself.
            self.clock.advance_millis(1_000);
        }
        told.is_some()
    }

    fn nonce(&self) -> String {
        let number = self.nonces.fetch_add(1, Ordering::Relaxed);
        format!("nonce-{number:08}")
    }

    /// The code that the courier brings next.
    pub async fn next_code(&self) -> String {
        let mut codes = self.codes.lock().await;
        timeout(STUCK, codes.recv()).await.unwrap().unwrap().1
    }

    /// Registers a device at one node and authorises it at another.
    pub async fn resident(&self, at: u64, then: u64, number: u8, phone: &str) -> Resident {
        self.known_by(at, then, number, (phone, true)).await
    }

    /// The same, found by others or not.
    pub async fn known_by(&self, at: u64, then: u64, number: u8, known: (&str, bool)) -> Resident {
        Resident::move_in(
            TestDevice::new(number),
            known,
            async |request| self.plain(at, RpcPath::Register, &request).await,
            async || self.next_code().await,
            async |request| self.plain(then, RpcPath::Authorize, &request).await,
        )
        .await
    }

    pub async fn send(
        &self,
        at: u64,
        who: &Resident,
        envelopes: Vec<v1::OutgoingEnvelope>,
    ) -> Result<Vec<v1::SendOutcome>, Status> {
        let request = v1::SendRequest { envelopes };
        let response: v1::SendResponse = self.signed(at, who, RpcPath::Send, &request).await?;
        Ok(response.outcomes)
    }

    /// The bodies that wait after a sequence.
    pub async fn fetch(&self, at: u64, who: &Resident, after: u64) -> Vec<String> {
        let request = v1::FetchRequest {
            after,
            max_envelopes: 0,
        };
        let page: v1::FetchResponse = self
            .signed(at, who, RpcPath::Fetch, &request)
            .await
            .unwrap();
        let body = |envelope: v1::Envelope| String::from_utf8(envelope.body.to_vec()).unwrap();
        page.envelopes.into_iter().map(body).collect()
    }

    /// Opens a subscription at a node.
    pub async fn subscribe(
        &self,
        at: u64,
        who: &Resident,
        after: u64,
    ) -> Result<CallStream, Status> {
        let message = v1::SubscribeRequest {
            after,
            max_envelopes: 0,
        }
        .encode_to_vec();
        let began = Instant::now();
        loop {
            let nonce = self.nonce();
            let signed = self.sign(who, RpcPath::Subscribe, &nonce);
            let header = signed.authorization(&message).unwrap();
            let call = self.call_of(RpcPath::Subscribe, Some(header), message.clone());
            let opening = Box::pin(self.nodes[&at].door.subscribe(call));
            match timeout(STUCK, opening).await.unwrap() {
                Err(refused) if self.is_told_the_time(&refused) => assert!(began.elapsed() < STUCK),
                opened => return opened,
            }
        }
    }

    /// What a node has had others do since this was last asked.
    pub fn dispatched(&self, by: u64) -> Vec<(GroupId, NodeId)> {
        self.nodes[&by].others.dispatched()
    }

    /// Time passes, and all groups have noticed. Who is out of step with others for a moment may lose the lead by that.
    pub async fn pass(&self, millis: u64) {
        self.clock.advance_millis(millis);
        let is_in_step = |(group, _)| {
            let leader = self.leader(group).map(|node| self.replica(node, group));
            leader.is_some_and(|leader| leader.expires_by().is_some())
        };
        let all_are = || SEATS.into_iter().all(is_in_step);
        self.eventually("all clocks are in step", all_are).await;
    }

    /// The node that surely leads a group.
    pub fn leader(&self, group: GroupId) -> Option<u64> {
        let leads = |node: &u64| self.replica(*node, group).leads_surely();
        seats(group).iter().copied().find(leads)
    }

    /// Waits until `holds` does.
    pub async fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let waited = timeout(STUCK, async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waited.await.is_ok(), "never happened: {what}");
    }
}

/// The stable code of a refusal.
pub fn code(status: &Status) -> String {
    let details = status.get_details_error_info();
    details.map_or_else(|| status.to_string(), |details| details.reason)
}
