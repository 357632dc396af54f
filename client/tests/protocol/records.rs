//! Key records: those that must be read, and those that must be refused.

use ed25519_dalek::Signer as _;
use rossby_domain::chain::{ChainError, Change, KemKey, KeyRecord, Link, Signer};
use rossby_domain::wire::Writer;
use serde_json::{Value, json};

use crate::people::{Keys, People, Person};
use crate::{hex, seed};

pub fn good(people: &People) -> Value {
    let People {
        alice, bob, carol, ..
    } = people;
    let grown = [("alice", alice), ("bob", bob), ("carol", carol)];
    let vectors = grown.into_iter().flat_map(|(of, person)| {
        let records = person.history.iter().enumerate();
        records.map(move |(step, record)| vector(of, step, record))
    });
    json!(vectors.collect::<Vec<_>>())
}

fn vector(of: &str, step: usize, record: &KeyRecord) -> Value {
    let bytes = record.encode();
    assert_eq!(KeyRecord::decode(&bytes).as_ref(), Ok(record));
    let links = record.links().iter();
    let devices = record.devices().map(|keys| {
        json!({
            "device_id": hex(keys.device.as_bytes()),
            "signing_key": hex(keys.signing_key),
            "kem_counter": keys.kem.counter,
            "previous_kem_counter": keys.previous_kem.as_ref().map(|kem| kem.counter),
        })
    });
    json!({
        "of": of,
        "step": step,
        "bytes": hex(&bytes),
        "version": record.version(),
        "genesis_hash": hex(record.genesis_hash()),
        "link_hashes": links.map(|link| hex(link.hash())).collect::<Vec<_>>(),
        "live_devices": record.live_devices().map(|id| hex(id.as_bytes())).collect::<Vec<_>>(),
        "devices": devices.collect::<Vec<_>>(),
    })
}

/// A record put together by hand, since the code does not write a bad one.
#[derive(Clone)]
struct Parts {
    format: u8,
    genesis: [[u8; 32]; 3],
    links: Vec<Link>,
    kem_keys: Vec<([u8; 16], KemKey, Option<KemKey>)>,
}

impl Parts {
    fn of(person: &Person) -> Self {
        let record = person.record();
        let genesis = &person.genesis;
        let devices = record.devices();
        let kem_keys = devices.map(|keys| {
            let id = *keys.device.as_bytes();
            (id, keys.kem.clone(), keys.previous_kem.clone())
        });
        let parts = Self {
            format: 1,
            genesis: [genesis.device_key, genesis.recovery_key, genesis.nonce],
            links: record.links().to_vec(),
            kem_keys: kem_keys.collect(),
        };
        assert_eq!(parts.encode(), record.encode());
        parts
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default().u8(self.format);
        for part in &self.genesis {
            writer = writer.fixed(part);
        }
        writer = writer.u16(self.links.len() as u16);
        for link in &self.links {
            writer = write_link(writer, link);
        }
        writer = writer.u8(self.kem_keys.len() as u8);
        for (device, current, previous) in &self.kem_keys {
            writer = write_kem(writer.fixed(device), current).u8(u8::from(previous.is_some()));
            if let Some(previous) = previous {
                writer = write_kem(writer, previous);
            }
        }
        writer.finish()
    }
}

fn write_link(writer: Writer, link: &Link) -> Writer {
    let writer = writer.u64(link.version).fixed(&link.previous);
    let writer = match &link.change {
        Change::AddDevice { key } => writer.u8(1).fixed(key),
        Change::RemoveDevice { device } => writer.u8(2).fixed(device.as_bytes()),
    };
    let writer = match &link.signer {
        Signer::Device(device) => writer.u8(1).fixed(device.as_bytes()),
        Signer::Recovery => writer.u8(2),
    };
    writer.fixed(&link.signature)
}

fn write_kem(writer: Writer, kem: &KemKey) -> Writer {
    let writer = writer.u8(kem.suite).u64(kem.counter).bytes(&kem.public);
    writer.fixed(&kem.signature)
}

/// Why the code refuses these bytes.
fn refusal(bytes: &[u8]) -> &'static str {
    match KeyRecord::decode(bytes).expect_err("a bad record was read") {
        ChainError::Malformed(_) => "MALFORMED",
        ChainError::BadKey => "BAD_KEY",
        ChainError::BadSignature(_) => "BAD_SIGNATURE",
        ChainError::BrokenChain => "BROKEN_CHAIN",
        ChainError::NotAllowed(_) => "NOT_ALLOWED",
        ChainError::BadKemKey(_) => "BAD_KEM_KEY",
    }
}

pub fn bad(people: &People) -> Value {
    let mut vectors = Vec::new();
    let mut add = |what: &str, bytes: Vec<u8>| {
        vectors.push(json!({"what": what, "bytes": hex(&bytes), "refusal": refusal(&bytes)}));
    };
    for (what, bytes) in bad_forms(people) {
        add(what, bytes);
    }
    for (what, parts) in bad_geneses(people)
        .into_iter()
        .chain(bad_links(people))
        .chain(bad_kem_keys(people))
    {
        add(what, parts.encode());
    }
    json!(vectors)
}

fn bad_forms(people: &People) -> Vec<(&'static str, Vec<u8>)> {
    let whole = people.alice.record().encode();
    let alice = Parts::of(&people.alice);
    let mut format = alice.clone();
    format.format = 2;
    let mut order = Parts::of(&people.bob);
    order.kem_keys.reverse();
    let mut mark = whole.clone();
    *mark.last_mut().unwrap() = 2;
    vec![
        ("no bytes", Vec::new()),
        (
            "the last byte is missing",
            whole[..whole.len() - 1].to_vec(),
        ),
        ("a byte too many", [&whole[..], &[0]].concat()),
        ("another format", format.encode()),
        ("devices not in rising order", order.encode()),
        ("neither 0 nor 1 before a previous KEM key", mark),
    ]
}

fn bad_geneses(people: &People) -> Vec<(&'static str, Parts)> {
    let alice = Parts::of(&people.alice);
    let mut same = alice.clone();
    same.genesis[1] = same.genesis[0];
    let mut weak = alice.clone();
    weak.genesis[1] = [0; 32];
    weak.genesis[1][0] = 1;
    // y = 2 has no x on the curve.
    let mut none = alice;
    none.genesis[1] = [0; 32];
    none.genesis[1][0] = 2;
    vec![
        ("one key as device key and recovery key", same),
        ("a recovery key of small order", weak),
        ("a recovery key that is no point", none),
    ]
}

fn bad_links(people: &People) -> Vec<(&'static str, Parts)> {
    let People {
        alice,
        bob,
        carol,
        mallory,
    } = people;
    let phone = &alice.devices[0];
    let key = mallory.key();
    let with = |person: &Person, link: Link| {
        let mut parts = Parts::of(person);
        parts.links.push(link);
        parts
    };
    let add = Change::AddDevice { key };
    let good = alice.link(add, Some(phone));
    let mut unsigned = good;
    unsigned.signature[5] ^= 1;
    let sign = |link: &mut Link, by: &Keys| {
        let signed = Link::signed_bytes(link.version, &link.previous, &link.change, &link.signer);
        link.signature = by.signing.sign(&signed).to_bytes();
    };
    let mut version = good;
    version.version = 2;
    sign(&mut version, phone);
    let mut previous = good;
    previous.previous = seed("another chain");
    sign(&mut previous, phone);
    let remove = |device| Change::RemoveDevice { device };
    let again = Change::AddDevice {
        key: carol.devices[1].key(),
    };
    let removed = &carol.devices[1];
    vec![
        ("a link with a bad signature", with(alice, unsigned)),
        ("a link that skips a version", with(alice, version)),
        ("a link that follows another chain", with(alice, previous)),
        (
            "a link signed by a device that was never live",
            with(alice, alice.link(add, Some(mallory))),
        ),
        (
            "a link signed by a device that was removed",
            with(carol, carol.link(add, Some(removed))),
        ),
        (
            "a device that was removed is added again",
            with(carol, carol.link(again, None)),
        ),
        (
            "a device that is live is added",
            with(
                alice,
                alice.link(Change::AddDevice { key: phone.key() }, None),
            ),
        ),
        (
            "the recovery key is added as a device",
            with(
                alice,
                alice.link(
                    Change::AddDevice {
                        key: alice.genesis.recovery_key,
                    },
                    Some(phone),
                ),
            ),
        ),
        (
            "the last device is removed",
            with(alice, alice.link(remove(phone.id()), None)),
        ),
        (
            "a device that is not live is removed",
            with(bob, bob.link(remove(mallory.id()), None)),
        ),
    ]
}

fn bad_kem_keys(people: &People) -> Vec<(&'static str, Parts)> {
    let (alice, bob) = (Parts::of(&people.alice), Parts::of(&people.bob));
    let phone = people.bob.devices[0].id();
    let of_phone = |parts: &mut Parts| {
        let ids = parts.kem_keys.iter().map(|(id, ..)| id);
        ids.take_while(|id| *id != phone.as_bytes()).count()
    };
    let mut suite = alice.clone();
    suite.kem_keys[0].1.suite = 2;
    let mut unsigned = alice.clone();
    unsigned.kem_keys[0].1.counter = 2;
    let mut stranger = alice;
    let mallory = &people.mallory;
    let strange = (*mallory.id().as_bytes(), mallory.kem_key(1), None);
    stranger.kem_keys.push(strange);
    stranger.kem_keys.sort_by_key(|(id, ..)| *id);
    let mut order = bob.clone();
    let at = of_phone(&mut order);
    let (_, current, previous) = &mut order.kem_keys[at];
    std::mem::swap(current, previous.as_mut().unwrap());
    let mut same = bob;
    let (_, current, previous) = &mut same.kem_keys[at];
    *previous = Some(current.clone());
    vec![
        ("a KEM key of another suite", suite),
        ("a KEM key under another counter than was signed", unsigned),
        ("a KEM key of a device that is not live", stranger),
        ("a KEM key older than its previous one", order),
        ("a KEM key as old as its previous one", same),
    ]
}
