//! A node in memory, real but for its disk, clock and network: WAL, store and Raft group behind the
//! mailbox service, with workers and a courier that hands its codes to the test.
#![allow(dead_code)] // Each test binary uses its own part.

mod device;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use prost::Message;
use rossby_api::courier::{Courier, CourierError};
use rossby_api::hawk::SignedRequest;
use rossby_api::{
    ApiError, Call, CallError, CallReply, ClusterSecrets, Code, DoorLimits, MailboxConfig,
    MailboxService, Metrics, RpcPath, Workers,
};
use rossby_domain::command::Adopt;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{
    DeviceAddress, Epoch, GroupId, NodeId, PartitionCount, PartitionId, ReplicaId,
};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Query, Routed};
use rossby_proto::v1;
use rossby_raft::{Blocking, Group, Groups, GroupsConfig, Leadership, Member, Timing};
use rossby_seams::base::MemoryBase;
use rossby_seams::clock::{Clock, ManualClock};
use rossby_seams::disk::MemoryDisk;
use rossby_seams::random::SeededRandom;
use rossby_seams::transport::MemoryNetwork;
use rossby_storage::store::Store;
use rossby_storage::wal::{Wal, WalOptions};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use device::{TestDevice, phone_of};

/// The cluster's name, which requests are signed for.
pub const HOST: &str = "test.rossby";
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const GROUP: GroupId = GroupId(1);
/// Nothing here takes this long unless it is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// What a refused call is told.
pub type Refusal = ApiError;

/// A courier that hands codes to the test.
struct ToTest(mpsc::UnboundedSender<(Identifier, String)>);

#[async_trait]
impl Courier for ToTest {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        let handed = self.0.send((identifier.clone(), code.to_owned()));
        handed.map_err(|_| std::io::Error::other("the test is over").into())
    }
}

/// An authorised device.
#[derive(Clone)]
pub struct Resident {
    pub device: Arc<TestDevice>,
    pub address: DeviceAddress,
    pub token: [u8; 32],
}

/// A node of a cluster of one.
pub struct World {
    pub service: Arc<MailboxService>,
    pub group: Arc<Group>,
    pub clock: ManualClock,
    pub secrets: Arc<ClusterSecrets>,
    pub partitions: PartitionCount,
    codes: Mutex<mpsc::UnboundedReceiver<(Identifier, String)>>,
    nonces: AtomicU64,
    groups: Arc<Groups>,
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
        let clock = ManualClock::new(START);
        let (groups, group) = start_group(clock.clone()).await;
        let partitions = PartitionCount::new(4).unwrap();
        adopt(&group, partitions, limits).await;

        let random = Arc::new(SeededRandom::new(11));
        let secrets = Arc::new(ClusterSecrets::generate(random.as_ref()).unwrap());
        let metrics = Metrics::register(&mut Registry::default());
        let served = Arc::clone(&group);
        let service = MailboxService::new(MailboxConfig {
            directory: Arc::new(move |_: PartitionId| Some(Arc::clone(&served))),
            secrets: Arc::clone(&secrets),
            partitions,
            cluster_name: HOST.to_owned(),
            clock: Arc::new(clock.clone()),
            random: random.clone(),
            limits: DoorLimits::default(),
            stored_limits: limits,
            metrics: Arc::clone(&metrics),
        });
        let (sender, codes) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let workers = Workers {
            group: Arc::clone(&group),
            partitions,
            limits,
            secrets: Arc::clone(&secrets),
            courier: Arc::new(ToTest(sender)),
            clock: Arc::new(clock.clone()),
            random,
            metrics,
        };
        workers.spawn(&TaskTracker::new(), &stop);
        // Past the time that a new leader refuses.
        clock.advance_millis(10_000);
        Self {
            service: Arc::new(service),
            group,
            clock,
            secrets,
            partitions,
            codes: Mutex::new(codes),
            nonces: AtomicU64::new(0),
            groups,
            stop,
        }
    }

    /// Runs a call as it comes.
    pub async fn call(
        &self,
        path: RpcPath,
        authorization: Option<String>,
        message: Vec<u8>,
    ) -> Result<CallReply, Refusal> {
        let call = Call {
            path,
            authorization,
            message: message.into(),
            deadline: Instant::now() + STUCK,
            remote: None,
            relayed: false,
        };
        match self.service.handle(call).await {
            Ok(reply) => Ok(reply),
            Err(CallError::Refused(error)) => Err(error),
            Err(CallError::Elsewhere(member)) => panic!("there is no other node: {member}"),
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

    /// What a signed request at the present time is made of.
    pub fn sign<'a>(&self, who: &'a Resident, path: RpcPath, nonce: &'a str) -> SignedRequest<'a> {
        SignedRequest {
            address: who.address,
            token: &who.token,
            host: HOST,
            path,
            ts_secs: self.clock.now().as_secs(),
            nonce,
        }
    }

    /// A nonce that was not used before.
    pub fn nonce(&self) -> String {
        format!("nonce-{:08}", self.nonces.fetch_add(1, Ordering::Relaxed))
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
        let device = Arc::new(TestDevice::new(number));
        let request = device.register(phone, discoverable);
        let registered: v1::RegisterResponse =
            self.plain(RpcPath::Register, &request).await.unwrap();
        let (_, code) = self.next_code().await;
        let request = device.authorize(&registered.box_id, phone, &code);
        let authorised: v1::AuthorizeResponse =
            self.plain(RpcPath::Authorize, &request).await.unwrap();
        let address = device.address(&registered.box_id);
        let token = device.open_token(&address, &authorised);
        Resident {
            device,
            address,
            token,
        }
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

async fn start_group(clock: ManualClock) -> (Arc<Groups>, Arc<Group>) {
    let disk = Arc::new(MemoryDisk::default());
    let options = WalOptions {
        segment_bytes: 4 * 1024 * 1024,
        ..WalOptions::default()
    };
    let (wal, mut writer) = Wal::open(disk.clone(), Path::new("/wal"), options).unwrap();
    std::thread::spawn(move || while writer.run_once() {});
    let base = Arc::new(MemoryBase::default());
    let store = Store::open(disk, Path::new("/checkpoints"), base).unwrap();
    let node = NodeId(1);
    let groups = Groups::new(GroupsConfig {
        node,
        timing: Timing::lan(),
        clock: Arc::new(clock),
        transport: MemoryNetwork::new().transport(node),
        wal,
        store,
        blocking: Blocking::Threads,
        checkpoint_log_bytes: 64 * 1024 * 1024,
        overlay_budget_bytes: 256 * 1024 * 1024,
    });
    let replica = ReplicaId(1);
    let group = groups.start(GROUP, replica).await.unwrap();
    let member = Member {
        node,
        ..Member::default()
    };
    group
        .initialize(BTreeMap::from([(replica, member)]))
        .await
        .unwrap();
    let mut leadership = group.watch_leadership();
    let led = leadership.wait_for(|now| matches!(now, Leadership::Here { .. }));
    drop(tokio::time::timeout(STUCK, led).await.unwrap().unwrap());
    (groups, group)
}

async fn adopt(group: &Group, partitions: PartitionCount, limits: Limits) {
    let commands = partitions.all().map(|partition| Routed {
        partition,
        epoch: Epoch(1),
        command: Command::Adopt(Adopt { limits }),
    });
    let replies = group
        .propose_routed(commands.collect(), Instant::now() + STUCK)
        .await
        .unwrap();
    assert!(replies.iter().all(Result::is_ok));
}
