//! What an envelope must withstand.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use rossby_domain::chain::{Change, KemKey, KeyRecord, Link, SUITE_XWING, Signer};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_seams::random::SeededRandom;
use zeroize::Zeroizing;

use super::seal::seal_inner;
use super::statement::{Inner, Statement};
use super::*;
use crate::crypto::kem::{self, KemSecret};
use crate::crypto::secret::Secret;
use crate::identity::Identity;

struct Person {
    identity: Identity,
    address: DeviceAddress,
}

impl Person {
    fn new(seed: u64) -> Self {
        let identity = Identity::generate(&SeededRandom::new(seed)).unwrap();
        let birth = PartitionId::new(7).unwrap();
        let box_id = BoxId::derive(birth, &identity.record().genesis_hash());
        let address = DeviceAddress {
            box_id,
            device: identity.device(),
        };
        Self { identity, address }
    }

    fn record(&self) -> &KeyRecord {
        self.identity.record()
    }

    fn as_sender(&self) -> Sender<'_> {
        Sender {
            address: self.address,
            signing_key: self.identity.signing_key(),
            record: self.record(),
        }
    }

    fn write(&self, to: &Person, counter: u64, content: &Content) -> Vec<u8> {
        let letter = Letter {
            recipient: to.address.box_id,
            recipient_record: to.record(),
            counter: Counter(counter),
            conversation: ConversationId::direct(&self.address.box_id, &to.address.box_id),
            written_at: Timestamp::from_millis(1_700_000_000_000),
            content,
        };
        // Each letter has a content key of its own.
        let seed = u64::from(to.address.device.as_bytes()[0]) << 32 | counter;
        seal(&SeededRandom::new(seed), &self.as_sender(), &letter)
            .unwrap()
            .to_vec()
    }

    fn read(&self, from: &Person, counter: u64, body: &[u8]) -> Result<Opened, OpenError> {
        self.read_as(from.address, counter, from.record(), self.record(), body)
    }

    fn read_as(
        &self,
        sender: DeviceAddress,
        counter: u64,
        sender_record: &KeyRecord,
        record: &KeyRecord,
        body: &[u8],
    ) -> Result<Opened, OpenError> {
        let recipient = Recipient {
            address: self.address,
            keys: self.identity.kem_keys(),
            record,
            sender_record,
        };
        open(
            &recipient,
            &Arrival {
                sender,
                counter: Counter(counter),
                body,
            },
        )
    }

    /// What this person can see of an envelope to them once it is decrypted.
    fn decrypt(&self, body: &[u8]) -> Zeroizing<Vec<u8>> {
        let outer = layout::Outer::parse(body).unwrap();
        let recipient = Recipient {
            address: self.address,
            keys: self.identity.kem_keys(),
            record: self.record(),
            sender_record: self.record(),
        };
        let key = open::unwrap_key(&recipient, &outer).unwrap();
        open::decrypt(&outer, &key).unwrap()
    }

    fn content_key(&self, body: &[u8]) -> Secret<32> {
        let outer = layout::Outer::parse(body).unwrap();
        let recipient = Recipient {
            address: self.address,
            keys: self.identity.kem_keys(),
            record: self.record(),
            sender_record: self.record(),
        };
        open::unwrap_key(&recipient, &outer).unwrap()
    }

    /// This person's record with one more device, signed in by the first.
    fn with_second_device(&self, seed: u8) -> (KeyRecord, SigningKey) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let change = Change::AddDevice {
            key: key.verifying_key().to_bytes(),
        };
        (self.with_link(self.record(), change), key)
    }

    /// This person's record with one more device that can be sealed to.
    fn with_second_recipient(&self, seed: u8) -> KeyRecord {
        let (record, key) = self.with_second_device(seed);
        let device = DeviceId::of_key(&key.verifying_key().to_bytes());
        let secret = KemSecret::generate(&SeededRandom::new(seed.into())).unwrap();
        let public = secret.public_key().unwrap();
        let statement = KemKey::statement(&device, SUITE_XWING, 1, &public);
        let signature = key.sign(&statement).to_bytes();
        let kem = KemKey {
            suite: SUITE_XWING,
            counter: 1,
            public: public.into(),
            signature,
        };
        record.with_kem(&device, kem).unwrap()
    }

    fn with_link(&self, record: &KeyRecord, change: Change) -> KeyRecord {
        let signer = Signer::Device(self.address.device);
        let version = record.version() + 1;
        let signed = Link::signed_bytes(version, &record.head(), &change, &signer);
        let signature = self.identity.signing_key().sign(&signed).to_bytes();
        let link = Link {
            version,
            previous: record.head(),
            change,
            signer,
            signature,
        };
        record.extend(link).unwrap()
    }
}

fn text(text: &str) -> Content {
    Content::Text(text.to_owned())
}

#[test]
fn a_letter_opens_to_what_was_written() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let body = alice.write(&bob, 5, &text("Guten Morgen"));
    let opened = bob.read(&alice, 5, &body).unwrap();
    assert_eq!(opened.content, text("Guten Morgen"));
    assert_eq!(opened.written_at.as_millis(), 1_700_000_000_000);
    let (a, b) = (alice.address.box_id, bob.address.box_id);
    assert_eq!(opened.conversation, ConversationId::direct(&b, &a));
}

#[test]
fn the_largest_file_fits_an_envelope_and_one_byte_more_does_not() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let overhead = 2 + 1 + 4 + 1 + 4 + 4;
    let largest = vec![7; layout::MAX_CONTENT_BYTES - overhead];
    let file = Content::File(File::new("f", "", largest.clone()).unwrap());
    let body = alice.write(&bob, 1, &file);
    assert!(body.len() <= layout::MAX_BODY_BYTES);
    assert_eq!(bob.read(&alice, 1, &body).unwrap().content, file);
    let over = Content::File(File::new("f", "", [largest, vec![7]].concat()).unwrap());
    assert!(matches!(over.encode(), Err(ContentError::TooLarge { .. })));
}

#[test]
fn lengths_are_hidden_within_a_bucket() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let length = |text_bytes| alice.write(&bob, 1, &text(&"a".repeat(text_bytes))).len();
    assert_eq!(length(0), length(200));
    assert_eq!(length(300), length(700));
    assert!(length(200) < length(300));
}

#[test]
fn an_unknown_kind_of_content_arrives_whole() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let content = Content::Unknown {
        kind: 900,
        version: 3,
        body: vec![1, 2, 3],
    };
    let body = alice.write(&bob, 1, &content);
    assert_eq!(bob.read(&alice, 1, &body).unwrap().content, content);
}

#[test]
fn what_the_server_says_must_be_what_was_signed() {
    let (alice, bob, carol) = (Person::new(1), Person::new(2), Person::new(3));
    let body = alice.write(&bob, 5, &text("x"));
    assert_eq!(bob.read(&alice, 6, &body), Err(OpenError::WrongCounter));
    assert_eq!(bob.read(&carol, 5, &body), Err(OpenError::WrongSender));
    let other_device = DeviceAddress {
        device: DeviceId::from_bytes([9; 16]),
        ..alice.address
    };
    assert_eq!(
        bob.read_as(other_device, 5, alice.record(), bob.record(), &body),
        Err(OpenError::WrongSender)
    );
}

#[test]
fn another_person_can_not_open_it() {
    let (alice, bob, carol) = (Person::new(1), Person::new(2), Person::new(3));
    let body = alice.write(&bob, 5, &text("x"));
    assert_eq!(
        carol.read(&alice, 5, &body),
        Err(OpenError::NotForThisDevice)
    );
}

#[test]
fn a_wrap_renamed_or_spliced_from_another_envelope_is_refused() {
    let (alice, bob, carol) = (Person::new(1), Person::new(2), Person::new(3));
    let to_bob = alice.write(&bob, 5, &text("for bob"));
    let to_carol = alice.write(&carol, 5, &text("for carol"));
    let device_at = 2 + 32 + 12 + 1;
    // Bob's wrap under Carol's name.
    let mut renamed = to_bob.clone();
    renamed[device_at..device_at + 16].copy_from_slice(carol.address.device.as_bytes());
    assert_eq!(carol.read(&alice, 5, &renamed), Err(OpenError::Unwrap));
    // Carol's own wrap, of her envelope, over Bob's ciphertext.
    let end = device_at + 16 + 8 + 1120 + 48;
    let mut spliced = to_bob.clone();
    spliced[device_at..end].copy_from_slice(&to_carol[device_at..end]);
    assert_eq!(carol.read(&alice, 5, &spliced), Err(OpenError::Unwrap));
    // With its commitment too, so that it unwraps: the ciphertext is bound to its own header.
    spliced[2..34].copy_from_slice(&to_carol[2..34]);
    assert_eq!(carol.read(&alice, 5, &spliced), Err(OpenError::Decrypt));
}

#[test]
fn what_bob_received_can_not_be_passed_on_to_carol_as_if_written_to_her() {
    let (alice, bob, carol) = (Person::new(1), Person::new(2), Person::new(3));
    let body = alice.write(&bob, 5, &text("I owe you"));
    // Bob knows the content key and Alice's signed inner bytes: he seals both to Carol.
    let (inner, key) = (bob.decrypt(&body), bob.content_key(&body));
    let random = SeededRandom::new(4);
    let forwarded =
        seal_inner(&random, &carol.address.box_id, carol.record(), &key, inner).unwrap();
    assert_eq!(
        carol.read(&alice, 5, &forwarded),
        Err(OpenError::WrongRecipient)
    );
}

#[test]
fn a_signature_holds_for_its_own_content_key_and_content_only() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let body = alice.write(&bob, 5, &text("ten"));
    let random = SeededRandom::new(4);
    let seal_again = |key: &Secret<32>, inner: Vec<u8>| {
        let inner = Zeroizing::new(inner);
        seal_inner(&random, &bob.address.box_id, bob.record(), key, inner).unwrap()
    };
    let inner = bob.decrypt(&body);
    let same = seal_again(&bob.content_key(&body), inner.to_vec());
    assert!(
        bob.read(&alice, 5, &same).is_ok(),
        "the control: nothing was changed"
    );
    let other_key = seal_again(&Secret::new([3; 32]), inner.to_vec());
    assert_eq!(
        bob.read(&alice, 5, &other_key),
        Err(OpenError::BadSignature)
    );
    let parsed = Inner::parse(&inner).unwrap();
    let content = text("tea").encode().unwrap();
    let changed = parsed.statement.write_inner(&parsed.signature, &content);
    let changed = seal_again(&bob.content_key(&body), changed);
    assert_eq!(bob.read(&alice, 5, &changed), Err(OpenError::BadSignature));
}

#[test]
fn someone_who_signs_as_alice_with_another_key_is_refused() {
    let (alice, bob, mallory) = (Person::new(1), Person::new(2), Person::new(3));
    let forged = Person {
        identity: mallory.identity.clone(),
        address: alice.address,
    };
    // Mallory's key, Alice's address and chain.
    let letter = Letter {
        recipient: bob.address.box_id,
        recipient_record: bob.record(),
        counter: Counter(1),
        conversation: ConversationId::from_bytes([0; 16]),
        written_at: Timestamp::default(),
        content: &text("send me money"),
    };
    let sender = Sender {
        record: alice.record(),
        ..forged.as_sender()
    };
    let body = seal(&SeededRandom::new(5), &sender, &letter).unwrap();
    assert_eq!(bob.read(&alice, 1, &body), Err(OpenError::BadSignature));
    // And a device that is not Alice's at all.
    let sender = Sender {
        address: DeviceAddress {
            device: mallory.address.device,
            ..alice.address
        },
        ..sender
    };
    let body = seal(&SeededRandom::new(5), &sender, &letter).unwrap();
    assert_eq!(
        bob.read_as(sender.address, 1, alice.record(), bob.record(), &body),
        Err(OpenError::UnknownDevice)
    );
}

#[test]
fn a_device_that_was_removed_has_still_written_what_it_wrote_before() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let (two, second) = alice.with_second_device(8);
    let device = DeviceId::of_key(&second.verifying_key().to_bytes());
    let removed = alice.with_link(&two, Change::RemoveDevice { device });
    let address = DeviceAddress {
        device,
        ..alice.address
    };
    let write = |record: &KeyRecord| {
        let letter = Letter {
            recipient: bob.address.box_id,
            recipient_record: bob.record(),
            counter: Counter(1),
            conversation: ConversationId::from_bytes([0; 16]),
            written_at: Timestamp::default(),
            content: &text("from my second device"),
        };
        let sender = Sender {
            address,
            signing_key: &second,
            record,
        };
        seal(&SeededRandom::new(5), &sender, &letter).unwrap()
    };
    let before = write(&two);
    assert!(
        bob.read_as(address, 1, &removed, bob.record(), &before)
            .is_ok()
    );
    assert!(bob.read_as(address, 1, &two, bob.record(), &before).is_ok());
    assert_eq!(
        bob.read_as(address, 1, alice.record(), bob.record(), &before),
        Err(OpenError::SenderRecordTooOld { needed: 1 })
    );
    let after = write(&removed);
    assert_eq!(
        bob.read_as(address, 1, &removed, bob.record(), &after),
        Err(OpenError::UnknownDevice)
    );
}

#[test]
fn a_fork_of_either_chain_shows() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let (real, _) = alice.with_second_device(8);
    let (fork, _) = alice.with_second_device(9);
    let letter = |to: &KeyRecord, from: &KeyRecord| {
        let letter = Letter {
            recipient: bob.address.box_id,
            recipient_record: to,
            counter: Counter(1),
            conversation: ConversationId::from_bytes([0; 16]),
            written_at: Timestamp::default(),
            content: &text("x"),
        };
        let sender = Sender {
            record: from,
            ..alice.as_sender()
        };
        seal(&SeededRandom::new(5), &sender, &letter).unwrap()
    };
    let read = |alices: &KeyRecord, bobs: &KeyRecord, body: &[u8]| {
        bob.read_as(alice.address, 1, alices, bobs, body)
    };
    let body = letter(bob.record(), &fork);
    assert_eq!(
        read(&real, bob.record(), &body),
        Err(OpenError::SenderChainForked)
    );
    let (real, _) = bob.with_second_device(8);
    let (fork, _) = bob.with_second_device(9);
    let body = letter(&fork, alice.record());
    assert_eq!(
        read(alice.record(), &real, &body),
        Err(OpenError::OwnChainForked)
    );
    assert_eq!(
        read(alice.record(), bob.record(), &body),
        Err(OpenError::OwnRecordTooOld(1))
    );
    assert!(read(alice.record(), &fork, &body).is_ok(), "the control");
}

#[test]
fn a_content_key_that_is_not_the_committed_one_is_refused() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let inner = bob.decrypt(&alice.write(&bob, 5, &text("x")));
    // A sender who commits to one key and uses another could show two devices two texts.
    let seal_committed_to = |committed: [u8; 32], used: [u8; 32]| {
        let commitment = layout::commitment(&Secret::new(committed));
        let keys = bob.record().device(&bob.address.device).unwrap();
        let (to, counter) = (&bob.address.box_id, keys.kem.counter);
        let aad = layout::wrap_aad(to, &keys.device, counter, &commitment);
        let random = SeededRandom::new(4);
        let sealed = kem::seal(&random, &keys.kem.public, layout::WRAP_INFO, &aad, &used).unwrap();
        let wrap = layout::NewWrap {
            device: keys.device,
            key_counter: counter,
            encapsulated_key: sealed.encapsulated_key,
            wrapped_key: sealed.ciphertext,
        };
        let header = layout::write_header(&commitment, &[0; 12], &[wrap]);
        let (msg, aad) = (inner.as_slice(), &layout::content_aad(&header)[..]);
        let cipher = ChaCha20Poly1305::new(&used.into());
        let sealed = cipher
            .encrypt(&[0; 12].into(), Payload { msg, aad })
            .unwrap();
        let length = u32::try_from(sealed.len()).unwrap().to_be_bytes();
        [&header[..], &length, &sealed].concat()
    };
    let honest = seal_committed_to([3; 32], [3; 32]);
    assert_eq!(
        bob.read(&alice, 5, &honest),
        Err(OpenError::BadSignature),
        "as far as its inside"
    );
    let dishonest = seal_committed_to([4; 32], [3; 32]);
    assert_eq!(bob.read(&alice, 5, &dishonest), Err(OpenError::Commitment));
}

#[test]
fn padding_that_is_not_zero_is_refused() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let body = alice.write(&bob, 5, &text("x"));
    let mut inner = bob.decrypt(&body);
    *inner.last_mut().unwrap() = 1;
    let key = bob.content_key(&body);
    let random = SeededRandom::new(4);
    let body = seal_inner(&random, &bob.address.box_id, bob.record(), &key, inner).unwrap();
    assert_eq!(bob.read(&alice, 5, &body), Err(OpenError::BadPadding));
}

#[test]
fn a_version_or_suite_of_later_days_is_named() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let mut body = alice.write(&bob, 5, &text("x"));
    body[1] = 2;
    assert_eq!(bob.read(&alice, 5, &body), Err(OpenError::UnknownSuite(2)));
    body[0] = 2;
    assert_eq!(
        bob.read(&alice, 5, &body),
        Err(OpenError::UnknownVersion(2))
    );
}

/// The bytes are final: this test fails if the layout of either part changes.
#[test]
fn the_layout_is_as_documented() {
    let (alice, bob) = (Person::new(1), Person::new(2));
    let body = alice.write(&bob, 0x0102, &text("hi"));
    assert_eq!(body[..2], [1, 1]);
    assert_eq!(body[46], 1, "one wrap");
    assert_eq!(body[47..63], *bob.address.device.as_bytes());
    assert_eq!(body[63..71], 1_u64.to_be_bytes(), "the KEM key's counter");
    let at = 71 + 1120 + 48;
    assert_eq!(body[at..at + 4], (512_u32 + 16).to_be_bytes());
    assert_eq!(body.len(), at + 4 + 512 + 16);
    let inner = bob.decrypt(&body);
    assert_eq!(inner[0], 1);
    assert_eq!(inner[1..17], *alice.address.box_id.as_bytes());
    assert_eq!(inner[17..33], *alice.address.device.as_bytes());
    assert_eq!(inner[33..49], *bob.address.box_id.as_bytes());
    assert_eq!(inner[49..57], 0x0102_u64.to_be_bytes());
    assert_eq!(inner[73..81], 1_700_000_000_000_u64.to_be_bytes());
    assert_eq!(inner[81..89], 0_u64.to_be_bytes());
    assert_eq!(inner[89..121], alice.record().genesis_hash());
    assert_eq!(inner[129..161], bob.record().genesis_hash());
    assert_eq!(inner[225..234], [0, 0, 0, 5, 0, 1, 1, b'h', b'i']);
    assert!(inner[234..].iter().all(|byte| *byte == 0));
    let parsed = Inner::parse(&inner).unwrap();
    let Statement { counter, .. } = parsed.statement;
    assert_eq!(counter, Counter(0x0102));
}

/// More cases on request: see the working standards of the test suite (`ROSSBY_LONG=1`).
fn cases(short: u32) -> ProptestConfig {
    let factor = if std::env::var_os("ROSSBY_LONG").is_some() {
        20
    } else {
        1
    };
    ProptestConfig::with_cases(short * factor)
}

proptest! {
    #![proptest_config(cases(48))]

    /// Also one in the wrap of another device, which this one never opens.
    #[test]
    fn any_changed_byte_is_refused(position: prop::sample::Index, flip in 1_u8..) {
        let (alice, bob) = (Person::new(1), Person::new(2));
        let record = bob.with_second_recipient(8);
        let letter = Letter {
            recipient: bob.address.box_id,
            recipient_record: &record,
            counter: Counter(5),
            conversation: ConversationId::from_bytes([0; 16]),
            written_at: Timestamp::default(),
            content: &text("hello"),
        };
        let sealed = seal(&SeededRandom::new(5), &alice.as_sender(), &letter).unwrap();
        let mut body = sealed.to_vec();
        let read = |body: &[u8]| bob.read_as(alice.address, 5, alice.record(), &record, body);
        prop_assert!(read(&body).is_ok());
        let at = position.index(body.len());
        body[at] ^= flip;
        prop_assert!(read(&body).is_err(), "byte {at} ^ {flip}");
    }

    #[test]
    fn any_shortening_or_lengthening_is_refused(keep: prop::sample::Index, extra in 1_usize..40) {
        let (alice, bob) = (Person::new(1), Person::new(2));
        let body = alice.write(&bob, 5, &text("hello"));
        prop_assert!(bob.read(&alice, 5, &body[..keep.index(body.len())]).is_err());
        let longer = [body, vec![0; extra]].concat();
        prop_assert!(bob.read(&alice, 5, &longer).is_err());
    }

    #[test]
    fn inner_bytes_of_any_form_never_panic(
        inner in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let (alice, bob) = (Person::new(1), Person::new(2));
        let (key, random) = (Secret::new([1; 32]), SeededRandom::new(1));
        let to = &bob.address.box_id;
        let body = seal_inner(&random, to, bob.record(), &key, Zeroizing::new(inner)).unwrap();
        prop_assert!(bob.read(&alice, 5, &body).is_err());
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn random_bytes_never_panic(
        mut body in proptest::collection::vec(any::<u8>(), 0..2000),
        plausible: bool,
    ) {
        if plausible {
            body.splice(..body.len().min(2), [1, 1]);
        }
        prop_assert!(layout::Outer::parse(&body).is_err() || body.len() > 1200);
    }
}
