//! Boxes and letters, and a state machine that holds them; for `examples/restart.rs` too.

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{Genesis, KemKey, KeyRecord, SUITE_XWING, XWING_PUBLIC_KEY_BYTES};
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{
    ActivateBox, Adopt, ClaimDevice, CreateBox, Enqueue, EnvelopeDigest, OpenClaim, VerifyClaim,
};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, PartitionId};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_domain::{Command, Outcome, Routed};
use rossby_storage::LogPosition;
use rossby_storage::codec::{Batch, encode_batch};
use rossby_storage::store::GroupStore;

/// A box of one device.
pub struct Mailbox {
    /// Where it is, and the identifier too.
    pub partition: PartitionId,
    /// Its device.
    pub address: DeviceAddress,
    /// Its keys.
    pub record: KeyRecord,
    identifier: IdentifierHash,
}

impl Mailbox {
    /// The box of this number, in a partition.
    pub fn new(partition: PartitionId, number: u32) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let key = SigningKey::from_bytes(&seed);
        let device_key = key.verifying_key().to_bytes();
        let device = DeviceId::of_key(&device_key);
        let public = Bytes::from(vec![1; XWING_PUBLIC_KEY_BYTES]);
        let statement = KemKey::statement(&device, SUITE_XWING, 1, &public);
        let genesis = Genesis {
            device_key,
            recovery_key: SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
            nonce: seed,
        };
        let kem = KemKey {
            suite: SUITE_XWING,
            counter: 1,
            public,
            signature: key.sign(&statement).to_bytes(),
        };
        let record = KeyRecord::new(genesis, kem).unwrap();
        let box_id = BoxId::derive(partition, &record.genesis_hash());
        Self {
            partition,
            address: DeviceAddress { box_id, device },
            record,
            identifier: IdentifierHash::from_bytes(seed),
        }
    }

    /// A command for its partition.
    pub fn routed(&self, command: Command) -> Routed {
        routed(self.partition, command)
    }

    /// What makes it, ready for letters.
    pub fn registration(&self) -> Vec<Routed> {
        let DeviceAddress { box_id, device } = self.address;
        let identifier = self.identifier;
        let code = CodeMac([1; 32]);
        let commands = [
            Command::ClaimDevice(ClaimDevice { device, box_id }),
            Command::CreateBox(CreateBox {
                box_id,
                record: self.record.clone(),
                identifier,
                sealed_identifier: Bytes::from_static(b"sealed"),
                discoverable: true,
            }),
            Command::OpenClaim(OpenClaim {
                identifier,
                box_id,
                discoverable: true,
                code,
                sealed_code: Bytes::from_static(b"sealed"),
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
                generation: 2,
            }),
        ];
        commands.map(|command| self.routed(command)).into()
    }

    /// A letter to it.
    pub fn letter(&self, sender: DeviceAddress, counter: u64, body: Bytes) -> Routed {
        let recipient = self.address.box_id;
        self.routed(Command::Enqueue(Enqueue {
            recipient,
            id: EnvelopeId {
                sender,
                counter: Counter(counter),
            },
            chain_version: 0,
            ttl_ms: None,
            digest: EnvelopeDigest::of(&recipient, 0, None, &body),
            body,
        }))
    }
}

/// A command under the only epoch here.
pub fn routed(partition: PartitionId, command: Command) -> Routed {
    Routed {
        partition,
        epoch: Epoch(1),
        command,
    }
}

/// Makes a partition one of this group, with room in its boxes for whatever comes.
pub fn adoption(partition: PartitionId) -> Routed {
    let limits = Limits {
        queue_bytes: u64::MAX / 4,
        queue_envelopes: u32::MAX,
        sender_share_percent: 100,
        ..Limits::default()
    };
    routed(partition, Command::Adopt(Adopt { limits }))
}

/// A body of noise: it does not compress, and is not of a version that the service reads keys from.
pub fn noise(length: usize, seed: u64) -> Bytes {
    let mut noise = seed.wrapping_mul(2).wrapping_add(1);
    let mut body = Vec::with_capacity(length + 8);
    body.extend_from_slice(&[0xff; 8]);
    while body.len() < length {
        // xorshift64: noise enough for this.
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        body.extend_from_slice(&noise.to_be_bytes());
    }
    body.truncate(length);
    Bytes::from(body)
}

/// A batch, as a leader proposes it.
pub fn batch(commands: Vec<Routed>) -> Batch {
    Batch {
        stamp: Timestamp::from_millis(1_795_000_000_000),
        may_expire: false,
        commands,
    }
}

/// Applies an entry, all of whose commands must succeed.
pub fn apply(group: &mut GroupStore, index: &mut u64, commands: Vec<Routed>) -> Vec<Outcome> {
    apply_encoded(group, index, &encode_batch(&batch(commands)).unwrap())
}

/// The same, for bytes that were encoded before.
pub fn apply_encoded(group: &mut GroupStore, index: &mut u64, batch: &[u8]) -> Vec<Outcome> {
    *index += 1;
    let at = LogPosition {
        term: 1,
        index: *index,
    };
    let replies = group.apply_batch(at, batch).unwrap();
    replies.into_iter().map(Result::unwrap).collect()
}
