//! A node in memory, real but for its disk, clock and network: WAL, store and Raft group behind the
//! mailbox service, with workers and a courier that hands its codes to the test.

mod authority;
mod device;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use prost::Message;
use rossby_api::courier::{Courier, CourierError, Kind};
use rossby_api::hawk::SignedRequest;
use rossby_api::router::{Execute, ExecuteError, Executed, Peers};
use rossby_api::{
    ApiError, Call, CallError, CallReply, ClusterSecrets, Code, DoorLimits, MailboxConfig,
    MailboxService, Metrics, Router, RpcPath, SoleGroup, Workers,
};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{DeviceAddress, GroupId, NodeId, PartitionCount, PartitionId, ReplicaId};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Query};
use rossby_proto::v1;
use rossby_raft::{Blocking, Group, Groups, GroupsConfig, Leadership, Member, Timing};
use rossby_seams::base::{Base, MemoryBase};
use rossby_seams::clock::ManualClock;
use rossby_seams::disk::MemoryDisk;
use rossby_seams::random::{OsRandom, SeededRandom};
use rossby_seams::transport::{LinkAcceptor, MemoryNetwork};
use rossby_storage::store::Store;
use rossby_storage::wal::{Wal, WalOptions};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use authority::Authority;
pub use device::{TestDevice, phone_of};

/// The cluster's name, which requests are signed for.
pub const HOST: &str = "test.rossby";
pub const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const GROUP: GroupId = GroupId(1);
/// Nothing here takes this long unless it is stuck.
const STUCK: Duration = Duration::from_secs(20);

impl Resident {
    /// Registers a device for a phone, discoverable or not, and authorises it, by the calls of whichever world it is
    /// in.
    pub async fn move_in<E: std::fmt::Debug>(
        device: TestDevice,
        (phone, discoverable): (&str, bool),
        register: impl AsyncFnOnce(v1::RegisterRequest) -> Result<v1::RegisterResponse, E>,
        next_code: impl AsyncFnOnce() -> String,
        authorize: impl AsyncFnOnce(v1::AuthorizeRequest) -> Result<v1::AuthorizeResponse, E>,
    ) -> Self {
        let registered = register(device.register(phone, discoverable))
            .await
            .unwrap();
        let code = next_code().await;
        let request = device.authorize(&registered.box_id, phone, &code);
        let authorised = authorize(request).await.unwrap();
        let address = device.address(&registered.box_id);
        let token = device.open_token(&address, &authorised);
        Self {
            device: Arc::new(device),
            address,
            token,
        }
    }
}

/// What a refused call is told.
pub type Refusal = ApiError;

/// A courier that hands codes to the test, unless it is told to fail.
pub struct ToTest {
    codes: mpsc::UnboundedSender<(Identifier, String)>,
    failures: Arc<AtomicU64>,
    takes_ms: Arc<AtomicU64>,
    begun: Begun,
}

/// When deliveries were begun, and for whom.
type Begun = Arc<std::sync::Mutex<Vec<(Instant, Identifier)>>>;

impl ToTest {
    /// One that never fails.
    pub fn new(codes: mpsc::UnboundedSender<(Identifier, String)>) -> Self {
        Self {
            codes,
            failures: Arc::default(),
            takes_ms: Arc::default(),
            begun: Begun::default(),
        }
    }
}

#[async_trait]
impl Courier for ToTest {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        let begun = (Instant::now(), identifier.clone());
        self.begun.lock().unwrap().push(begun);
        match self.takes_ms.load(Ordering::SeqCst) {
            0 => {}
            takes => tokio::time::sleep(Duration::from_millis(takes)).await,
        }
        let spend = |left: u64| left.checked_sub(1);
        if self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend)
            .is_ok()
        {
            return Err(std::io::Error::other("the courier is ill").into());
        }
        let handed = self.codes.send((identifier.clone(), code.to_owned()));
        handed.map_err(|_| std::io::Error::other("the test is over").into())
    }

    fn name(&self, _: Kind) -> Option<&'static str> {
        Some("test")
    }
}

/// The services of all nodes, as their routers reach them: in this process.
#[derive(Clone, Default)]
struct InProcess(Arc<std::sync::Mutex<BTreeMap<NodeId, Weak<MailboxService>>>>);

#[async_trait]
impl Peers for InProcess {
    async fn execute(
        &self,
        member: &Member,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError> {
        let service = self.0.lock().unwrap().get(&member.node).cloned();
        match service.and_then(|service| service.upgrade()) {
            Some(service) => service.execute(request, deadline).await,
            None => Err(ExecuteError::Unreachable("nobody there".to_owned())),
        }
    }
}

/// An authorised device.
#[derive(Clone)]
pub struct Resident {
    pub device: Arc<TestDevice>,
    pub address: DeviceAddress,
    pub token: [u8; 32],
}

/// One node: its service and its replica.
pub struct Node {
    pub id: NodeId,
    pub service: Arc<MailboxService>,
    pub group: Arc<Group>,
    /// Held, since a replica ends with them.
    _groups: Arc<Groups>,
}

/// A cluster. The first of its nodes was elected first; calls go there unless said otherwise.
pub struct World {
    pub nodes: Vec<Node>,
    pub group: Arc<Group>,
    pub network: MemoryNetwork,
    pub clock: ManualClock,
    pub secrets: Arc<ClusterSecrets>,
    pub partitions: PartitionCount,
    codes: Mutex<mpsc::UnboundedReceiver<(Identifier, String)>>,
    nonces: AtomicU64,
    failures: Arc<AtomicU64>,
    takes_ms: Arc<AtomicU64>,
    begun: Begun,
    workers: Vec<Workers>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// A node with the default limits.
    pub async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    /// A node whose partitions are taken over with these limits.
    pub async fn with_limits(limits: Limits) -> Self {
        Self::of_nodes(1, limits).await
    }

    /// This many nodes.
    pub async fn of_nodes(count: u64, limits: Limits) -> Self {
        let addresses = (1..=count).map(|number| format!("node-{number}:7000"));
        let doors = DoorLimits::default().unrated();
        Self::at_addresses(addresses.collect(), limits, doors).await
    }

    /// Nodes whose peers are told that they are at these addresses, and whose doors have these limits.
    pub async fn at_addresses(addresses: Vec<String>, limits: Limits, doors: DoorLimits) -> Self {
        let groups =
            |node, clock: &_, network: &_| node_in_memory(node, clock, network, Blocking::Threads);
        Self::start(addresses, limits, doors, groups).await
    }

    /// Three nodes whose leader answers by its lease. The clock stands still, and the lease with it.
    pub async fn by_lease() -> Self {
        let addresses = (1..=3).map(|number| format!("node-{number}:7000"));
        let groups = |node, clock: &_, network: &_| {
            Groups::new(GroupsConfig {
                lease_reads: true,
                ..in_memory(node, clock, network, Blocking::Threads)
            })
        };
        let (limits, doors) = (Limits::default(), DoorLimits::default().unrated());
        Self::start(addresses.collect(), limits, doors, groups).await
    }

    /// A node whose tables go to this base, and whose memory is so small.
    pub async fn over_base(base: Arc<dyn Base>, overlay_budget_bytes: u64) -> Self {
        let groups = |node, clock: &_, network: &_| {
            Groups::new(GroupsConfig {
                overlay_budget_bytes,
                ..in_memory_over(base.clone(), node, clock, network, Blocking::Threads)
            })
        };
        let (limits, doors) = (Limits::default(), DoorLimits::default().unrated());
        Self::start(vec!["node-1:7000".to_owned()], limits, doors, groups).await
    }

    /// A node that does nothing on a thread of its own: for a paused clock.
    pub async fn in_virtual_time() -> Self {
        let address = vec!["node-1:7000".to_owned()];
        let (limits, doors) = (Limits::default(), DoorLimits::default().unrated());
        let groups =
            |node, clock: &_, network: &_| node_in_memory(node, clock, network, Blocking::Inline);
        Self::start(address, limits, doors, groups).await
    }

    async fn start(
        addresses: Vec<String>,
        limits: Limits,
        doors: DoorLimits,
        groups: impl Fn(NodeId, &ManualClock, &MemoryNetwork) -> Arc<Groups>,
    ) -> Self {
        let (clock, network) = (ManualClock::new(START), MemoryNetwork::new());
        let random = Arc::new(SeededRandom::new(11));
        let secrets = Arc::new(ClusterSecrets::generate(random.as_ref()).unwrap());
        let partitions = PartitionCount::new(4).unwrap();
        let (sender, codes) = mpsc::unbounded_channel();
        let failures = Arc::new(AtomicU64::new(0));
        let (takes_ms, begun) = (Arc::new(AtomicU64::new(0)), Begun::default());
        let mut nodes = Vec::new();
        let mut workers = Vec::new();
        let peers = InProcess::default();
        let groups = |node| groups(node, &clock, &network);
        for (groups, group) in start_groups(addresses, &network, groups).await {
            let metrics = Metrics::register(&mut Registry::default());
            let id = NodeId(group.replica().0);
            let directory = SoleGroup::new(Arc::clone(&group), partitions);
            let router = Router::new(id, Arc::new(directory), Arc::new(peers.clone()));
            let courier = Arc::new(ToTest {
                codes: sender.clone(),
                failures: failures.clone(),
                takes_ms: takes_ms.clone(),
                begun: begun.clone(),
            });
            let service = MailboxService::new(MailboxConfig {
                router: Arc::clone(&router),
                secrets: Arc::clone(&secrets),
                partitions,
                cluster_name: HOST.to_owned(),
                random: random.clone(),
                limits: doors,
                stored_limits: limits,
                courier: courier.clone(),
                metrics: Arc::clone(&metrics),
            });
            workers.push(Workers {
                group: Arc::clone(&group),
                router,
                partitions,
                limits,
                secrets: Arc::clone(&secrets),
                courier,
                random: random.clone(),
                metrics,
            });
            let service = Arc::new(service);
            let known = Arc::downgrade(&service);
            peers.0.lock().unwrap().insert(id, known);
            nodes.push(Node {
                id,
                service,
                group,
                _groups: groups,
            });
        }
        let led = |node: &Node| matches!(node.group.leadership(), Leadership::Here { .. });
        nodes.sort_by_key(|node| !led(node));
        let group = Arc::clone(&nodes[0].group);
        let mut world = Self {
            nodes,
            group,
            network,
            clock,
            secrets,
            partitions,
            codes: Mutex::new(codes),
            nonces: AtomicU64::new(0),
            failures,
            takes_ms,
            begun,
            workers,
            stop: CancellationToken::new(),
        };
        world.start_workers();
        world
            .eventually("the leader takes over all partitions", || {
                partitions
                    .all()
                    .all(|partition| world.group.epoch(partition).is_some())
            })
            .await;
        // Past the time that a new leader refuses.
        world.clock.advance_millis(10_000);
        world
    }

    /// Reaches the group, as the first node does.
    pub fn router(&self) -> &Router {
        &self.workers[0].router
    }

    /// Reaches the group as this node does.
    pub fn router_of(&self, node: &Node) -> &Router {
        let own = |workers: &&Workers| Arc::ptr_eq(&workers.group, &node.group);
        &self.workers.iter().find(own).unwrap().router
    }

    /// All nodes' workers rest, as in an outage.
    pub fn stop_workers(&self) {
        self.stop.cancel();
    }

    /// They start anew.
    pub fn start_workers(&mut self) {
        self.stop = CancellationToken::new();
        for workers in &self.workers {
            workers.clone().spawn(&TaskTracker::new(), &self.stop);
        }
    }

    /// Runs a call as it comes.
    pub async fn call(
        &self,
        path: RpcPath,
        authorization: Option<String>,
        message: Vec<u8>,
    ) -> Result<CallReply, Refusal> {
        match self.nodes[0]
            .call(path, authorization, message, false)
            .await
        {
            Ok(reply) => Ok(reply),
            Err(CallError::Refused(error)) => Err(error),
            Err(elsewhere) => panic!("{elsewhere:?}"),
        }
    }

    /// An unsigned call.
    pub async fn plain<M: Message, R: Message + Default>(
        &self,
        path: RpcPath,
        message: &M,
    ) -> Result<R, Refusal> {
        let reply = self.call(path, None, message.encode_to_vec()).await?;
        assert_eq!(reply.server_authorization, None);
        Ok(R::decode(reply.message).unwrap())
    }

    /// A signed call, whose reply must be vouched for.
    pub async fn signed<M: Message, R: Message + Default>(
        &self,
        who: &Resident,
        path: RpcPath,
        message: &M,
    ) -> Result<R, Refusal> {
        let message = message.encode_to_vec();
        let nonce = self.nonce();
        let signed = self.sign(who, path, &nonce);
        let header = signed.authorization(&message).unwrap();
        let reply = self.call(path, Some(header), message).await?;
        let vouched = reply.server_authorization.unwrap();
        assert!(signed.is_vouched(&reply.message, &vouched));
        Ok(R::decode(reply.message).unwrap())
    }

    /// What a signed request at the service's time is made of.
    pub fn sign<'a>(&self, who: &'a Resident, path: RpcPath, nonce: &'a str) -> SignedRequest<'a> {
        SignedRequest {
            address: who.address,
            token: &who.token,
            host: HOST,
            path,
            ts_secs: self.group.service_time().as_secs(),
            nonce,
        }
    }

    /// A nonce that was not used before.
    pub fn nonce(&self) -> String {
        format!("nonce-{:08}", self.nonces.fetch_add(1, Ordering::Relaxed))
    }

    /// The courier's next deliveries fail, this many.
    pub fn fail_deliveries(&self, count: u64) {
        self.failures.store(count, Ordering::SeqCst);
    }

    /// How long each delivery takes from now on.
    pub fn slow_deliveries(&self, takes: Duration) {
        let millis = u64::try_from(takes.as_millis()).unwrap();
        self.takes_ms.store(millis, Ordering::SeqCst);
    }

    /// When deliveries were begun so far, and for whom.
    pub fn deliveries_begun(&self) -> Vec<(Instant, Identifier)> {
        self.begun.lock().unwrap().clone()
    }

    /// How many deliveries are still to fail.
    pub fn deliveries_to_fail(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// The next code that the courier brings, once its delivery is in the log too.
    pub async fn next_code(&self) -> (Identifier, String) {
        let mut codes = self.codes.lock().await;
        let delivered = tokio::time::timeout(STUCK, codes.recv())
            .await
            .unwrap()
            .unwrap();
        self.eventually("the code is marked sent", || {
            self.partitions.all().all(|partition| {
                let query = Query::Outbox {
                    partition,
                    after: None,
                    limit: 1,
                };
                let answer = self.group.read_local(partition, &query).unwrap();
                answer == Answer::Outbox(Vec::new())
            })
        })
        .await;
        delivered
    }

    /// Registers a device and authorises it.
    pub async fn resident(&self, number: u8, phone: &str, discoverable: bool) -> Resident {
        Resident::move_in(
            TestDevice::new(number),
            (phone, discoverable),
            async |request| self.plain(RpcPath::Register, &request).await,
            async || self.next_code().await.1,
            async |request| self.plain(RpcPath::Authorize, &request).await,
        )
        .await
    }

    /// Sends envelopes; the outcomes.
    pub async fn send(
        &self,
        who: &Resident,
        envelopes: Vec<v1::OutgoingEnvelope>,
    ) -> Result<Vec<v1::SendOutcome>, Refusal> {
        let request = v1::SendRequest { envelopes };
        let response: v1::SendResponse = self.signed(who, RpcPath::Send, &request).await?;
        Ok(response.outcomes)
    }

    /// Fetches what waits after the cursor.
    pub async fn fetch(&self, who: &Resident) -> v1::FetchResponse {
        let request = v1::FetchRequest {
            after: 0,
            max_envelopes: 0,
        };
        self.signed(who, RpcPath::Fetch, &request).await.unwrap()
    }

    /// Blocks a sender.
    pub async fn block(&self, who: &Resident, other: &Resident) -> Result<(), Refusal> {
        let box_id = other.address.box_id.as_bytes().to_vec().into();
        let request = v1::BlockRequest {
            box_id,
            blocked: true,
        };
        self.signed::<_, v1::BlockResponse>(who, RpcPath::Block, &request)
            .await
            .map(|_| ())
    }

    /// A digest of every partition.
    pub fn digests(&self) -> Vec<(PartitionId, [u8; 32])> {
        self.group.reader().digests().unwrap().1
    }

    /// The digests, once the leader has done all that it does by itself.
    pub async fn quiet_digests(&self) -> Vec<(PartitionId, [u8; 32])> {
        let (mut looks, mut last) = (0, self.digests());
        self.eventually("the state is quiet", || {
            let next = self.digests();
            looks = if next == last { looks + 1 } else { 0 };
            last = next;
            looks == 10
        })
        .await;
        self.digests()
    }

    /// Waits until `holds` does.
    pub async fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let waited = tokio::time::timeout(STUCK, async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waited.await.is_ok(), "never happened: {what}");
    }
}

/// The code of a refusal.
pub fn code_of<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Code {
    result.unwrap_err().code()
}

/// An envelope to a box.
pub fn envelope(to: &Resident, counter: u64, body: &[u8]) -> v1::OutgoingEnvelope {
    v1::OutgoingEnvelope {
        recipient_box_id: to.address.box_id.as_bytes().to_vec().into(),
        counter,
        chain_version: 0,
        ttl_ms: None,
        body: body.to_vec().into(),
    }
}

/// The refusal of an outcome.
pub fn refusal(outcome: &v1::SendOutcome) -> &v1::Refusal {
    match outcome.result.as_ref().unwrap() {
        v1::send_outcome::Result::Refusal(refusal) => refusal,
        v1::send_outcome::Result::Sequence(sequence) => panic!("stored at {sequence}"),
    }
}

/// The sequence of an outcome.
pub fn sequence(outcome: &v1::SendOutcome) -> u64 {
    match outcome.result.as_ref().unwrap() {
        v1::send_outcome::Result::Sequence(sequence) => *sequence,
        v1::send_outcome::Result::Refusal(refusal) => panic!("refused: {}", refusal.code),
    }
}

impl Node {
    /// Runs a call at this node.
    pub async fn call(
        &self,
        path: RpcPath,
        authorization: Option<String>,
        message: Vec<u8>,
        relayed: bool,
    ) -> Result<CallReply, CallError> {
        let call = Call {
            path,
            authorization,
            message: message.into(),
            deadline: Instant::now() + DoorLimits::default().call_timeout(),
            remote: None,
            relayed,
        };
        // Boxed: the types of all that a call can do are too deep for the compiler otherwise.
        tokio::time::timeout(STUCK, Box::pin(self.service.handle(&call)))
            .await
            .unwrap()
    }
}

/// Starts a group with a replica on a node at each of these addresses, and waits until one leads.
async fn start_groups(
    addresses: Vec<String>,
    network: &MemoryNetwork,
    groups: impl Fn(NodeId) -> Arc<Groups>,
) -> Vec<(Arc<Groups>, Arc<Group>)> {
    let mut started = Vec::new();
    let mut members = BTreeMap::new();
    for (number, peer_address) in (1..).zip(addresses) {
        let (node, replica) = (NodeId(number), ReplicaId(number));
        let groups = groups(node);
        network.register(node, Arc::clone(&groups) as Arc<dyn LinkAcceptor>);
        let group = groups.start(GROUP, replica).await.unwrap();
        members.insert(
            replica,
            Member {
                node,
                peer_address,
                ..Member::default()
            },
        );
        started.push((groups, group));
    }
    started[0].1.initialize(members).await.unwrap();
    let mut waits: Vec<_> = started
        .iter()
        .map(|(_, group)| group.watch_leadership())
        .collect();
    for leadership in &mut waits {
        let known = leadership.wait_for(|now| *now != Leadership::Unknown);
        tokio::time::timeout(STUCK, known).await.unwrap().unwrap();
    }
    started
}

pub fn node_in_memory(
    node: NodeId,
    clock: &ManualClock,
    network: &MemoryNetwork,
    blocking: Blocking,
) -> Arc<Groups> {
    Groups::new(in_memory(node, clock, network, blocking))
}

fn in_memory(
    node: NodeId,
    clock: &ManualClock,
    network: &MemoryNetwork,
    blocking: Blocking,
) -> GroupsConfig {
    in_memory_over(
        Arc::new(MemoryBase::default()),
        node,
        clock,
        network,
        blocking,
    )
}

fn in_memory_over(
    base: Arc<dyn Base>,
    node: NodeId,
    clock: &ManualClock,
    network: &MemoryNetwork,
    blocking: Blocking,
) -> GroupsConfig {
    let disk = Arc::new(MemoryDisk::default());
    let options = WalOptions {
        segment_bytes: 4 * 1024 * 1024,
        ..WalOptions::default()
    };
    let (wal, mut writer) = Wal::open(disk.clone(), Path::new("/wal"), options).unwrap();
    match blocking {
        Blocking::Threads => drop(std::thread::spawn(move || while writer.run_once() {})),
        Blocking::Inline => drop(tokio::spawn(async move {
            while !writer.is_over() {
                writer.drain();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })),
    }
    let store = Store::open(disk, Path::new("/checkpoints"), base).unwrap();
    GroupsConfig {
        node,
        timing: Timing::lan(),
        rest: true,
        clock: Arc::new(clock.clone()),
        random: Arc::new(OsRandom),
        transport: network.transport(node),
        wal,
        store,
        blocking,
        checkpoint_log_bytes: 64 * 1024 * 1024,
        overlay_budget_bytes: 256 * 1024 * 1024,
        lease_reads: false,
    }
}
