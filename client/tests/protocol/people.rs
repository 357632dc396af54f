//! Those whom the vectors are about, with all their secrets.
//!
//! Alice has one device. Bob's phone has changed its KEM key once and signed in a laptop. Carol's second
//! device was taken out again with the recovery key. Mallory signs what he may not.

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_client::crypto::kem::KemSecret;
use rossby_client::crypto::secret::Secret;
use rossby_domain::chain::{
    Change, Genesis, KemKey, KeyRecord, Link, SUITE_XWING, Signer, SigningPublicKey,
};
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, PartitionId};
use serde_json::{Value, json};

use crate::{hex, seed};

/// One device with its keys.
pub struct Keys {
    pub name: &'static str,
    pub signing: SigningKey,
    pub kem: Vec<(u64, KemSecret)>,
}

impl Keys {
    pub fn new(name: &'static str, kem_keys: u64) -> Self {
        let kem = (1..=kem_keys).map(|counter| {
            let secret = Secret::new(seed(&format!("{name} kem {counter}")));
            (counter, KemSecret::from_seed(secret))
        });
        Self {
            name,
            signing: SigningKey::from_bytes(&seed(&format!("{name} signing"))),
            kem: kem.collect(),
        }
    }

    pub fn key(&self) -> SigningPublicKey {
        self.signing.verifying_key().to_bytes()
    }

    pub fn id(&self) -> DeviceId {
        DeviceId::of_key(&self.key())
    }

    /// The public half of a KEM key, signed.
    pub fn kem_key(&self, counter: u64) -> KemKey {
        let (_, secret) = self
            .kem
            .iter()
            .find(|(known, _)| *known == counter)
            .unwrap();
        let public = secret.public_key().unwrap();
        let statement = KemKey::statement(&self.id(), SUITE_XWING, counter, &public);
        KemKey {
            suite: SUITE_XWING,
            counter,
            public: Bytes::from(public),
            signature: self.signing.sign(&statement).to_bytes(),
        }
    }

    fn vector(&self) -> Value {
        let kem = self.kem.iter().map(|(counter, secret)| {
            json!({
                "counter": counter,
                "seed": hex(secret.seed().expose()),
                "public": hex(secret.public_key().unwrap()),
            })
        });
        json!({
            "name": self.name,
            "signing_seed": hex(self.signing.to_bytes()),
            "signing_key": hex(self.key()),
            "device_id": hex(self.id().as_bytes()),
            "kem_keys": kem.collect::<Vec<_>>(),
        })
    }
}

/// One box with its devices and its key record.
pub struct Person {
    pub devices: Vec<Keys>,
    pub recovery: SigningKey,
    pub genesis: Genesis,
    pub birth: PartitionId,
    /// The record as it grew, oldest first.
    pub history: Vec<KeyRecord>,
}

impl Person {
    fn new(name: &str, birth: u16, devices: Vec<Keys>) -> Self {
        let recovery = SigningKey::from_bytes(&seed(&format!("{name} recovery")));
        let genesis = Genesis {
            device_key: devices[0].key(),
            recovery_key: recovery.verifying_key().to_bytes(),
            nonce: seed(&format!("{name} nonce")),
        };
        let record = KeyRecord::new(genesis.clone(), devices[0].kem_key(1)).unwrap();
        Self {
            devices,
            recovery,
            genesis,
            birth: PartitionId::new(birth).unwrap(),
            history: vec![record],
        }
    }

    pub fn record(&self) -> &KeyRecord {
        self.history.last().unwrap()
    }

    pub fn box_id(&self) -> BoxId {
        BoxId::derive(self.birth, &self.genesis.hash())
    }

    pub fn address(&self, device: usize) -> DeviceAddress {
        DeviceAddress {
            box_id: self.box_id(),
            device: self.devices[device].id(),
        }
    }

    /// A link that follows the record as it is now; without a device, the recovery key signs it.
    pub fn link(&self, change: Change, by: Option<&Keys>) -> Link {
        let signer = by.map_or(Signer::Recovery, |keys| Signer::Device(keys.id()));
        let key = by.map_or(&self.recovery, |keys| &keys.signing);
        let (version, previous) = (self.record().version() + 1, self.record().head());
        let signed = Link::signed_bytes(version, &previous, &change, &signer);
        Link {
            version,
            previous,
            change,
            signer,
            signature: key.sign(&signed).to_bytes(),
        }
    }

    fn grow(&mut self, link: Link) {
        self.history.push(self.record().extend(link).unwrap());
    }

    fn publish(&mut self, device: usize, counter: u64) {
        let keys = &self.devices[device];
        let record = self.record().with_kem(&keys.id(), keys.kem_key(counter));
        self.history.push(record.unwrap());
    }

    fn vector(&self) -> Value {
        json!({
            "devices": self.devices.iter().map(Keys::vector).collect::<Vec<_>>(),
            "recovery_seed": hex(self.recovery.to_bytes()),
            "recovery_key": hex(self.genesis.recovery_key),
            "nonce": hex(self.genesis.nonce),
            "genesis_hash": hex(self.genesis.hash()),
            "birth_partition": self.birth.number(),
            "box_id": hex(self.box_id().as_bytes()),
            "address": self.address(0).to_string(),
        })
    }
}

/// All of them.
pub struct People {
    pub alice: Person,
    pub bob: Person,
    pub carol: Person,
    pub mallory: Keys,
}

impl People {
    pub fn new() -> Self {
        let alice = Person::new("alice", 0x123, vec![Keys::new("alice phone", 1)]);
        let devices = vec![Keys::new("bob phone", 2), Keys::new("bob laptop", 1)];
        let mut bob = Person::new("bob", 0, devices);
        bob.publish(0, 2);
        let key = bob.devices[1].key();
        bob.grow(bob.link(Change::AddDevice { key }, Some(&bob.devices[0])));
        bob.publish(1, 1);
        let devices = vec![Keys::new("carol phone", 1), Keys::new("carol tablet", 1)];
        let mut carol = Person::new("carol", 0xfff, devices);
        let key = carol.devices[1].key();
        carol.grow(carol.link(Change::AddDevice { key }, Some(&carol.devices[0])));
        carol.publish(1, 1);
        let device = carol.devices[1].id();
        carol.grow(carol.link(Change::RemoveDevice { device }, None));
        Self {
            alice,
            bob,
            carol,
            mallory: Keys::new("mallory", 1),
        }
    }

    pub fn vectors(&self) -> Value {
        json!({
            "alice": self.alice.vector(),
            "bob": self.bob.vector(),
            "carol": self.carol.vector(),
        })
    }
}
