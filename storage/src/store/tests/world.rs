//! A group on a simulated disk, the log that feeds it, and the plain model of what it should hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use rossby_domain::chain::{Genesis, KemKey, KeyRecord, SUITE_XWING, XWING_PUBLIC_KEY_BYTES};
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{
    Acknowledge, ActivateBox, Adopt, Block, ClaimDevice, CreateBox, Enqueue, EnvelopeDigest,
    Expire, MarkCodeSent, OpenClaim, Place, VerifyClaim,
};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, GroupId, MapVersion, NodeId,
    PartitionCount, PartitionId, ReplicaId, Sequence,
};
use rossby_domain::limits::Limits;
use rossby_domain::placement::{
    Beginning, Change, FoundingGroup, NodeEntry, NodeState, PLACEMENT_PARTITION, RegionName,
    SurvivalGoal,
};
use rossby_domain::tables::{MemoryTables, ReadTables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Command, Context, Query, Reply, Routed, answer, apply};
use rossby_seams::base::{Base, MemoryBase};
use rossby_seams::disk::{Disk, MemoryDisk};

use crate::LogPosition;
use crate::codec::{Batch, encode_batch};
use crate::store::{GroupStore, PartitionDigests, Store};

pub(super) const GROUP: GroupId = GroupId(1);
const EPOCH: Epoch = Epoch(1);
const PARTITIONS: u16 = 3;
const PEOPLE: u8 = 4;

pub(super) fn position(index: u64) -> LogPosition {
    // The term rises now and then, as it does in a log.
    LogPosition {
        term: 1 + index / 10,
        index,
    }
}

fn partition(person: u8) -> PartitionId {
    PartitionId::new(u16::from(person) % PARTITIONS).unwrap()
}

fn signing_key(person: u8) -> SigningKey {
    SigningKey::from_bytes(&[person + 1; 32])
}

fn device(person: u8) -> DeviceId {
    DeviceId::of_key(&signing_key(person).verifying_key().to_bytes())
}

fn genesis(person: u8) -> Genesis {
    Genesis {
        device_key: signing_key(person).verifying_key().to_bytes(),
        recovery_key: signing_key(person + 100).verifying_key().to_bytes(),
        nonce: [person; 32],
    }
}

fn record(person: u8) -> KeyRecord {
    let public = Bytes::from(vec![person; XWING_PUBLIC_KEY_BYTES]);
    let statement = KemKey::statement(&device(person), SUITE_XWING, 1, &public);
    let signature = signing_key(person).sign(&statement).to_bytes();
    let kem = KemKey {
        suite: SUITE_XWING,
        counter: 1,
        public,
        signature,
    };
    KeyRecord::new(genesis(person), kem).unwrap()
}

pub(super) fn box_id(person: u8) -> BoxId {
    BoxId::derive(partition(person), &genesis(person).hash())
}

fn address(person: u8) -> DeviceAddress {
    DeviceAddress {
        box_id: box_id(person),
        device: device(person),
    }
}

fn identifier(number: u8) -> IdentifierHash {
    IdentifierHash::from_bytes([number; 32])
}

fn routed(person: u8, command: Command) -> Routed {
    Routed {
        partition: partition(person),
        epoch: EPOCH,
        command,
    }
}

/// The commands that make a person's box, and authorise it. All in the person's partition.
fn registration(person: u8) -> Vec<Routed> {
    let (box_id, device, identifier) = (box_id(person), device(person), identifier(person));
    let code = CodeMac([person; 32]);
    let sealed = Bytes::from(vec![person; 40]);
    // Each registration takes two generations of its partition: the device's and the identifier's.
    let generation = 2 * u64::from(1 + u16::from(person) / PARTITIONS);
    let commands = [
        Command::ClaimDevice(ClaimDevice { device, box_id }),
        Command::CreateBox(CreateBox {
            box_id,
            record: record(person),
            identifier,
            sealed_identifier: sealed.clone(),
            discoverable: true,
        }),
        Command::OpenClaim(OpenClaim {
            identifier,
            box_id,
            discoverable: true,
            code,
            sealed_code: sealed,
        }),
        Command::VerifyClaim(VerifyClaim {
            identifier,
            box_id,
            code,
        }),
        Command::ActivateBox(ActivateBox {
            box_id,
            device,
            identifier,
            generation,
        }),
    ];
    commands
        .into_iter()
        .map(|command| routed(person, command))
        .collect()
}

fn node(number: u8) -> NodeEntry {
    NodeEntry {
        region: RegionName::default(),
        peer_address: format!("10.0.0.{number}:7471"),
        client_address: String::new(),
        state: NodeState::Active,
    }
}

/// A cluster of one node.
pub(super) fn founding(number: u8) -> Change {
    let (node, entry) = (NodeId(u64::from(number) + 1), node(number));
    let home = entry.region.clone();
    let founders = [(ReplicaId(1), node)].into();
    Change::Found(Beginning {
        goal: SurvivalGoal::Node,
        partitions: PartitionCount::new(8).unwrap(),
        nodes: [(node, entry)].into(),
        groups: [(GroupId(1), FoundingGroup { home, founders })].into(),
    })
}

fn place(based_on: u64, change: Change) -> Routed {
    Routed {
        partition: PLACEMENT_PARTITION,
        epoch: EPOCH,
        command: Command::Place(Place {
            based_on: MapVersion(based_on),
            change,
        }),
    }
}

/// The first entry of every log: partitions are owned, people have boxes, there is a map.
pub(super) fn first_entry() -> Batch {
    let adopt = |number| Routed {
        partition: PartitionId::new(number).unwrap(),
        epoch: EPOCH,
        command: Command::Adopt(Adopt {
            limits: Limits::default(),
        }),
    };
    let mut commands: Vec<_> = (0..PARTITIONS).map(adopt).collect();
    commands.extend((0..PEOPLE).flat_map(registration));
    commands.push(place(0, founding(0)));
    Batch {
        stamp: Timestamp::from_millis(1_000_000),
        may_expire: true,
        commands,
    }
}

pub(super) fn letter(from: u8, to: u8, counter: u64, body: Bytes) -> Routed {
    let ttl_ms = counter.is_multiple_of(3).then_some(20_000);
    let recipient = box_id(to);
    let enqueue = Enqueue {
        recipient,
        id: EnvelopeId {
            sender: address(from),
            counter: Counter(counter),
        },
        chain_version: 0,
        ttl_ms,
        digest: EnvelopeDigest::of(&recipient, 0, ttl_ms, &body),
        body,
    };
    routed(to, Command::Enqueue(enqueue))
}

pub(super) fn acknowledge(who: u8, upto: u64) -> Routed {
    let (device, upto) = (address(who), Sequence(upto));
    routed(who, Command::Acknowledge(Acknowledge { device, upto }))
}

fn command() -> impl Strategy<Value = Routed> {
    let person = 0..PEOPLE;
    let letters = (
        person.clone(),
        person.clone(),
        1..40_u64,
        any::<u8>(),
        0..3000_usize,
    )
        .prop_map(|(from, to, counter, fill, length)| {
            letter(from, to, counter, Bytes::from(vec![fill; length]))
        });
    let acknowledged = (person.clone(), 0..30_u64).prop_map(|(who, upto)| acknowledge(who, upto));
    let block =
        (person.clone(), person.clone(), any::<bool>()).prop_map(|(who, other, blocked)| {
            let (box_id, other) = (box_id(who), box_id(other));
            routed(
                who,
                Command::Block(Block {
                    box_id,
                    other,
                    blocked,
                }),
            )
        });
    let expire = (person.clone(), 0..20_u32)
        .prop_map(|(who, limit)| routed(who, Command::Expire(Expire { limit })));
    let open = (person.clone(), 100..104_u8, any::<u8>()).prop_map(|(who, number, code)| {
        let claim = OpenClaim {
            identifier: identifier(number),
            box_id: box_id(who),
            discoverable: false,
            code: CodeMac([code; 32]),
            sealed_code: Bytes::from(vec![code; 30]),
        };
        routed(who, Command::OpenClaim(claim))
    });
    let sent = (person, 100..104_u8, 0..8_u64).prop_map(|(who, number, serial)| {
        let (identifier, box_id) = (identifier(number), box_id(who));
        routed(
            who,
            Command::MarkCodeSent(MarkCodeSent {
                identifier,
                box_id,
                serial,
            }),
        )
    });
    let placed = (1..5_u64, 1..4_u8).prop_map(|(based_on, number)| {
        let change = Change::PutNode {
            node: NodeId(9),
            entry: node(number),
        };
        place(based_on, change)
    });
    prop_oneof![
        6 => letters,
        4 => acknowledged,
        1 => block,
        2 => expire,
        2 => open,
        1 => sent,
        2 => placed,
    ]
}

/// Commands of one entry, and the seconds since the entry before.
pub(super) fn entry() -> impl Strategy<Value = (u64, Vec<Routed>)> {
    (0..30_u64, proptest::collection::vec(command(), 0..12))
}

/// A log, and what it should lead to.
#[derive(Default)]
pub(super) struct Model {
    /// Entry `n` is at position `n + 1`: its bytes and the replies to it.
    pub(super) log: Vec<(Bytes, Vec<Reply>)>,
    tables: BTreeMap<PartitionId, MemoryTables>,
    now: u64,
    /// The same log, applied in one go to a store that never wrote a checkpoint.
    pure: Option<(Store, GroupStore)>,
}

impl Model {
    pub(super) fn new() -> Self {
        let store = open(&MemoryDisk::default(), Arc::new(MemoryBase::default()));
        let group = store.group(GROUP).unwrap();
        let mut model = Self {
            now: 1_000_000,
            pure: Some((store, group)),
            ..Self::default()
        };
        let first = first_entry();
        model.append_batch(first);
        let replies = &model.log[0].1;
        assert!(replies.iter().all(Reply::is_ok), "{replies:?}");
        model
    }

    pub(super) fn append(&mut self, wait_seconds: u64, commands: Vec<Routed>) {
        self.now += wait_seconds * 1000;
        self.append_batch(Batch {
            stamp: Timestamp::from_millis(self.now),
            may_expire: true,
            commands,
        });
    }

    fn append_batch(&mut self, batch: Batch) {
        let bytes = encode_batch(&batch).unwrap();
        let context = Context {
            stamp: batch.stamp,
            may_expire: batch.may_expire,
        };
        let run = |routed: Routed| {
            let tables = self.tables.entry(routed.partition).or_default();
            apply(tables, &context, routed).unwrap()
        };
        let replies: Vec<Reply> = batch.commands.into_iter().map(run).collect();
        let at = position(self.log.len() as u64 + 1);
        let pure = &mut self.pure.as_mut().unwrap().1;
        assert_eq!(pure.apply_batch(at, &bytes).unwrap(), replies);
        self.log.push((bytes, replies));
    }

    /// The digests that a store must show after the whole log.
    pub(super) fn digests(&self) -> PartitionDigests {
        self.pure.as_ref().unwrap().1.reader().digests().unwrap().1
    }

    /// Applies what a group has not applied yet.
    pub(super) fn catch_up(&self, group: &mut GroupStore) {
        let done = group.applied().position.map_or(0, |at| at.index);
        for (number, (bytes, replies)) in self.log.iter().enumerate().skip(done as usize) {
            let at = position(number as u64 + 1);
            assert_eq!(
                &group.apply_batch(at, bytes).unwrap(),
                replies,
                "entry {at:?}"
            );
        }
    }

    /// Whether the group shows what the model holds, to queries and as a whole.
    pub(super) fn check(&self, group: &GroupStore) {
        let reader = group.reader();
        let (at, digests) = reader.digests().unwrap();
        assert_eq!(at, Some(position(self.log.len() as u64)));
        assert_eq!(digests, self.digests());
        let clocks = self.tables.values().map(|tables| tables.meta().unwrap());
        let latest = clocks.map(|meta| meta.expiry_clock).max().unwrap();
        assert_eq!(reader.times().unwrap().expiry_clock, latest);
        self.check_answers(group);
    }

    /// Whether the group answers as the model does.
    pub(super) fn check_answers(&self, group: &GroupStore) {
        let reader = group.reader();
        let now = Timestamp::from_millis(self.now);
        for person in 0..PEOPLE {
            let fetch = Query::Fetch {
                device: address(person),
                after: Sequence(0),
                max_envelopes: 20,
                max_bytes: 20_000,
            };
            let id = partition(person);
            let outbox = Query::Outbox {
                partition: id,
                after: None,
                limit: 5,
            };
            for query in [
                fetch,
                outbox,
                Query::BoxState(box_id(person)),
                Query::Ownership(id),
            ] {
                let expected = answer(&self.tables[&id], now, &query).unwrap();
                assert_eq!(reader.query(id, now, &query).unwrap(), expected);
            }
        }
        let (after, limit) = (MapVersion(1), 2);
        for query in [Query::Map, Query::MapHistory { after, limit }] {
            let id = PLACEMENT_PARTITION;
            let expected = answer(&self.tables[&id], now, &query).unwrap();
            assert_eq!(reader.query(id, now, &query).unwrap(), expected);
        }
    }
}

pub(super) fn checkpoints() -> &'static Path {
    Path::new("/data/checkpoints")
}

pub(super) fn try_open(
    disk: &MemoryDisk,
    base: Arc<dyn Base>,
) -> Result<(Store, GroupStore), crate::store::StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let store = Store::open(disk, checkpoints(), base)?;
    let group = store.group(GROUP)?;
    Ok((store, group))
}

pub(super) fn open(disk: &MemoryDisk, base: Arc<dyn Base>) -> Store {
    Store::open(Arc::new(disk.clone()), checkpoints(), base).unwrap()
}
