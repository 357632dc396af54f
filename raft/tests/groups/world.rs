//! Three nodes in one process: real groups, real logs and stores, a network and disks in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{Genesis, KemKey, KeyRecord, SUITE_XWING, XWING_PUBLIC_KEY_BYTES};
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{
    ActivateBox, Adopt, Command, CreateBox, Enqueue, EnvelopeDigest, OpenClaim, Outcome, Routed,
};
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, GroupId, NodeId, PartitionId,
    ReplicaId, Sequence,
};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Query, Reply};
use rossby_raft::{
    Blocking, Group, Groups, GroupsConfig, Leadership, Member, ProposeError, Timing,
};
use rossby_seams::base::MemoryBase;
use rossby_seams::clock::ManualClock;
use rossby_seams::disk::{Disk, MemoryDisk, PowerLoss};
use rossby_seams::random::OsRandom;
use rossby_seams::transport::MemoryNetwork;
use rossby_storage::store::Store;
use rossby_storage::wal::{Wal, WalOptions, spawn_writer};
use tokio::time::Instant;

use super::disk::{Breaks, SlowDisk, Tap};

pub const GROUP: GroupId = GroupId(1);
pub const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub const WAL: WalOptions = WalOptions {
    segment_bytes: 4 << 20,
    cache_bytes: 1 << 20,
};

/// Long enough that only a hang reaches it, on however slow a machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// When that is over.
pub fn patience() -> Instant {
    Instant::now() + PATIENCE
}

/// A node that runs.
pub struct Node {
    pub id: NodeId,
    pub disk: MemoryDisk,
    pub clock: ManualClock,
    pub groups: Arc<Groups>,
    pub group: Arc<Group>,
    pub store: Store,
    pub tap: Arc<Tap>,
    wal: Wal,
    writer: JoinHandle<()>,
}

/// What a world is made with.
#[derive(Clone, Copy)]
pub struct Settings {
    pub nodes: u64,
    pub checkpoint_log_bytes: u64,
    pub overlay_budget_bytes: u64,
    /// How long a disk takes to sync: what is answered before that is caught by power loss.
    pub sync_delay: Duration,
    /// Whether groups rest.
    pub rest: bool,
    /// Whether leaders answer by their lease. Their clocks stand still until they are moved, and a lease with them.
    pub lease_reads: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let mebibyte = 1 << 20;
        Self {
            nodes: 3,
            checkpoint_log_bytes: 1024 * mebibyte,
            overlay_budget_bytes: 1024 * mebibyte,
            sync_delay: Duration::ZERO,
            rest: true,
            lease_reads: false,
        }
    }
}

pub struct World {
    pub network: MemoryNetwork,
    pub settings: Settings,
    pub nodes: BTreeMap<NodeId, Node>,
    /// A node that is started now is cut off, for a moment, after so many bytes of checkpoints have
    /// come in.
    pub breaks_after: Vec<u64>,
    /// What the next node is started with, instead.
    pub next_tap: Option<Arc<Tap>>,
    /// What all nodes from the next on are started with.
    pub timing: Timing,
}

pub fn replica(node: NodeId) -> ReplicaId {
    ReplicaId(node.0 + 100)
}

pub fn member(node: NodeId) -> Member {
    Member {
        node,
        peer_address: format!("node{node}:1"),
        client_address: format!("node{node}:2"),
    }
}

impl World {
    /// A group with its members, a leader and partition [`partition`] adopted.
    pub async fn new(settings: Settings) -> Self {
        let mut world = Self {
            network: MemoryNetwork::new(),
            settings,
            nodes: BTreeMap::new(),
            breaks_after: Vec::new(),
            next_tap: None,
            timing: Timing::lan(),
        };
        for node in (1..=settings.nodes).map(NodeId) {
            world.start(node, MemoryDisk::default()).await;
        }
        let members = world
            .nodes
            .keys()
            .map(|node| (replica(*node), member(*node)));
        let members: BTreeMap<_, _> = members.collect();
        world.nodes[&NodeId(1)]
            .group
            .initialize(members)
            .await
            .unwrap();
        world.adopt().await;
        world
    }

    pub async fn three() -> Self {
        Self::new(Settings::default()).await
    }

    /// Starts a node on a disk, with the clock at noon.
    pub async fn start(&mut self, id: NodeId, disk: MemoryDisk) {
        self.start_at(id, disk, NOON).await;
    }

    /// The same, with the clock at `now`.
    pub async fn start_at(&mut self, id: NodeId, disk: MemoryDisk, now: Timestamp) {
        self.start_as(id, replica(id), disk, now).await;
    }

    /// The same, under this replica id.
    pub async fn start_as(
        &mut self,
        id: NodeId,
        replica: ReplicaId,
        disk: MemoryDisk,
        now: Timestamp,
    ) {
        let sync_delay = self.settings.sync_delay;
        let breaks = Breaks {
            network: self.network.clone(),
            node: id,
            after: self.breaks_after.clone(),
        };
        let tap = self.next_tap.take().unwrap_or_else(|| Tap::new(breaks));
        let shared: Arc<dyn Disk> = Arc::new(SlowDisk {
            disk: disk.clone(),
            sync_delay,
            tap: tap.clone(),
        });
        let (wal, writer) = Wal::open(shared.clone(), Path::new("/wal"), WAL).unwrap();
        let writer = spawn_writer(writer).unwrap();
        let base = Arc::new(MemoryBase::default());
        let store = Store::open(shared, Path::new("/checkpoints"), base).unwrap();
        let clock = ManualClock::new(now);
        let groups = Groups::new(GroupsConfig {
            node: id,
            timing: self.timing,
            rest: self.settings.rest,
            clock: Arc::new(clock.clone()),
            random: Arc::new(OsRandom),
            transport: self.network.transport(id),
            wal: wal.clone(),
            store: store.clone(),
            blocking: Blocking::Threads,
            checkpoint_log_bytes: self.settings.checkpoint_log_bytes,
            overlay_budget_bytes: self.settings.overlay_budget_bytes,
            lease_reads: self.settings.lease_reads,
        });
        self.network.register(id, groups.clone());
        let group = groups.start(GROUP, replica).await.unwrap();
        let node = Node {
            id,
            disk,
            clock,
            groups,
            group,
            store,
            tap,
            wal,
            writer,
        };
        self.nodes.insert(id, node);
    }

    /// Stops a node without ceremony; what is left of its disk.
    pub fn kill(&mut self, id: NodeId, loss: PowerLoss) -> MemoryDisk {
        let node = self.nodes.remove(&id).unwrap();
        self.network.unregister(id);
        let disk = node.disk.crash(loss);
        drop(node.group);
        drop(node.groups);
        node.wal.shut_down();
        node.writer.join().unwrap();
        disk
    }

    /// The node that leads, once there is one that `fits`.
    pub async fn leader_where(&self, fits: impl Fn(&Node) -> bool) -> &Node {
        let deadline = patience();
        loop {
            let mut leaders = self.nodes.values().filter(|node| {
                fits(node) && matches!(node.group.leadership(), Leadership::Here { .. })
            });
            if let Some(leader) = leaders.next() {
                return leader;
            }
            self.something_happens(deadline).await;
        }
    }

    pub async fn leader(&self) -> &Node {
        self.leader_where(|node| node.group.leads_surely()).await
    }

    /// Waits until `holds`, looking again whenever a little time has passed.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = patience();
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            self.something_happens(deadline).await;
        }
    }

    /// Waits until all replicas hold the same bytes.
    pub async fn same_everywhere(&self) {
        self.until("all replicas hold the same bytes", |world| {
            let mut digests = world
                .nodes
                .values()
                .map(|node| node.group.reader().digests().unwrap());
            let first = digests.next().unwrap();
            digests.all(|other| other == first)
        })
        .await;
    }

    async fn something_happens(&self, deadline: Instant) {
        assert!(
            Instant::now() < deadline,
            "nothing happened: {:?}",
            self.status()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    pub fn status(&self) -> Vec<rossby_raft::GroupStatus> {
        self.nodes
            .values()
            .map(|node| node.group.status())
            .collect()
    }

    /// Has the group take the partition and make the box that letters go to.
    async fn adopt(&self) {
        let adopt = Routed {
            partition: partition(),
            epoch: Epoch(1),
            command: Command::Adopt(Adopt {
                limits: Limits::default(),
            }),
        };
        let adopted = self.insist(|group, deadline| {
            let adopt = adopt.clone();
            async move { group.propose_routed(vec![adopt], deadline).await }
        });
        assert_eq!(
            adopted.await,
            vec![Ok(Outcome::Adopted { epoch: Epoch(1) })]
        );
        for command in [create_box(), activate_box()] {
            let made = self.propose(vec![(partition(), command)]).await;
            assert!(matches!(made.as_slice(), [Ok(_)]), "{made:?}");
        }
    }

    /// Proposes to whoever leads until there is a reply. The commands are idempotent.
    pub async fn propose(&self, commands: Vec<(PartitionId, Command)>) -> Vec<Reply> {
        self.insist(|group, deadline| {
            let commands = commands.clone();
            async move { group.propose(commands, deadline).await }
        })
        .await
    }

    async fn insist<F>(&self, propose: impl Fn(Arc<Group>, Instant) -> F) -> Vec<Reply>
    where
        F: Future<Output = Result<Vec<Reply>, ProposeError>>,
    {
        let deadline = patience();
        loop {
            let leader = self.leader().await;
            let soon = Instant::now() + Duration::from_secs(3);
            match propose(leader.group.clone(), soon).await {
                Ok(replies) => return replies,
                Err(ProposeError::Stopped) => panic!("stopped: {:?}", self.status()),
                Err(_) => self.something_happens(deadline).await,
            }
        }
    }

    /// Sends letter number `counter` of sender number `sender`; its place in the queue.
    pub async fn send(&self, sender: u8, counter: u64) -> Sequence {
        let replies = self.propose(vec![letter(sender, counter, 64)]).await;
        sequence(&replies[0])
    }
}

/// Waits until the group rests on all nodes.
pub async fn all_rest(world: &World) {
    let rest = |world: &World| world.nodes.values().all(|node| node.group.rests());
    world.until("all replicas rest", rest).await;
}

pub fn sequence(reply: &Reply) -> Sequence {
    match reply {
        Ok(Outcome::Enqueued { sequence }) => *sequence,
        other => panic!("not enqueued: {other:?}"),
    }
}

/// It begins with its sender, and is of a version that no service knows: it is not read for the keys
/// that it is sealed to.
fn body(sender: u8, bytes: usize) -> Bytes {
    let mut body = vec![0xff; bytes];
    if let Some(first) = body.first_mut() {
        *first = sender;
    }
    Bytes::from(body)
}

/// A letter to the box that [`World::new`] made. The same again is the same letter.
pub fn letter(sender: u8, counter: u64, bytes: usize) -> (PartitionId, Command) {
    let address = DeviceAddress {
        box_id: BoxId::derive(partition(), &[sender; 32]),
        device: DeviceId::of_key(&[sender; 32]),
    };
    let mut digest = [sender; 16];
    digest[..8].copy_from_slice(&counter.to_be_bytes());
    let command = Command::Enqueue(Enqueue {
        recipient: box_id(),
        id: EnvelopeId {
            sender: address,
            counter: Counter(counter),
        },
        chain_version: 0,
        ttl_ms: None,
        digest: EnvelopeDigest(digest),
        body: body(sender, bytes),
    });
    (partition(), command)
}

/// The letters in the queue, as (sender, counter, sequence), by a linearizable read at a node.
pub async fn queue(node: &Node) -> Vec<(u8, u64, u64)> {
    let mut letters = Vec::new();
    loop {
        let after = Sequence(letters.last().map_or(0, |(_, _, sequence)| *sequence));
        let query = Query::Fetch {
            device: device(),
            after,
            max_envelopes: 256,
            max_bytes: 1 << 20,
        };
        let answer = node
            .group
            .read(partition(), &query, patience())
            .await
            .unwrap();
        let Answer::Page(Some(page)) = answer else {
            panic!("no page: {answer:?}")
        };
        letters.extend(page.envelopes.iter().map(|envelope| {
            let sender = envelope.body[0];
            (sender, envelope.id.counter.0, envelope.sequence.0)
        }));
        if !page.more {
            return letters;
        }
    }
}

pub fn partition() -> PartitionId {
    box_id().partition()
}

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn record() -> KeyRecord {
    let key = signing_key().verifying_key().to_bytes();
    let genesis = Genesis {
        device_key: key,
        recovery_key: SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
        nonce: [7; 32],
    };
    let public = Bytes::from(vec![7; XWING_PUBLIC_KEY_BYTES]);
    let statement = KemKey::statement(&DeviceId::of_key(&key), SUITE_XWING, 1, &public);
    let signature = signing_key().sign(&statement).to_bytes();
    let kem = KemKey {
        suite: SUITE_XWING,
        counter: 1,
        public,
        signature,
    };
    KeyRecord::new(genesis, kem).unwrap()
}

fn box_id() -> BoxId {
    BoxId::derive(PartitionId::new(3).unwrap(), &record().genesis_hash())
}

pub fn device() -> DeviceAddress {
    let device = DeviceId::of_key(&signing_key().verifying_key().to_bytes());
    DeviceAddress {
        box_id: box_id(),
        device,
    }
}

fn identifier() -> IdentifierHash {
    IdentifierHash::of(&[1; 32], &Identifier::email("anna@example.org").unwrap())
}

fn create_box() -> Command {
    Command::CreateBox(CreateBox {
        box_id: box_id(),
        record: record(),
        identifier: identifier(),
        sealed_identifier: Bytes::from_static(b"sealed"),
        discoverable: true,
    })
}

/// Has a code put in an outbox.
pub fn open_claim() -> (PartitionId, Command) {
    let command = Command::OpenClaim(OpenClaim {
        identifier: identifier(),
        box_id: box_id(),
        discoverable: true,
        code: CodeMac([5; 32]),
        sealed_code: Bytes::from_static(b"sealed"),
    });
    (partition(), command)
}

fn activate_box() -> Command {
    Command::ActivateBox(ActivateBox {
        box_id: box_id(),
        device: device().device,
        identifier: identifier(),
        generation: 1,
    })
}
