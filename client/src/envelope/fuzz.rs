//! What holds for envelopes. See [`crate::fuzz`].

use std::sync::OnceLock;

use rossby_domain::ids::{BoxId, Counter, DeviceAddress, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_seams::random::SeededRandom;
use zeroize::Zeroizing;

use super::layout::{self, NewWrap, Outer};
use super::seal::seal_inner;
use super::statement::{ConversationId, Inner};
use super::{Arrival, Content, Letter, Recipient, Sender, open, seal};
use crate::crypto::secret::Secret;
use crate::group::Word;
use crate::identity::Identity;
use crate::profile::ProfileWord;
use crate::profile::{self, Profile, ProfileKey};

struct Person {
    identity: Identity,
    address: DeviceAddress,
}

impl Person {
    fn new(seed: u64) -> Option<Self> {
        let identity = Identity::generate(&SeededRandom::new(seed)).ok()?;
        let birth = PartitionId::new(7).ok()?;
        let address = DeviceAddress {
            box_id: BoxId::derive(birth, &identity.record().genesis_hash()),
            device: identity.device(),
        };
        Some(Self { identity, address })
    }
}

/// Alice, who writes, and Bob, who reads. Made once: the keys are slow to make.
fn people() -> Option<&'static (Person, Person)> {
    static PEOPLE: OnceLock<Option<(Person, Person)>> = OnceLock::new();
    PEOPLE
        .get_or_init(|| Some((Person::new(1)?, Person::new(2)?)))
        .as_ref()
}

/// The first byte says what the rest is: 0 an envelope's body, 1 its inner bytes, 2 its content, 3 inner
/// bytes that are sealed to Bob and opened by him, 4 a profile, sealed or not.
pub fn envelope(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else {
        return false;
    };
    match mode % 5 {
        0 => outer(rest),
        1 => inner(rest),
        2 => content(rest),
        4 => shown(rest),
        _ => opened(rest).unwrap_or(false),
    }
}

/// A body is written as the very bytes that it was read from. Nobody can make one that Bob opens.
fn outer(body: &[u8]) -> bool {
    if let Some((alice, bob)) = people() {
        assert!(open(&reader(alice, bob), &arrival(alice, body)).is_err() || body == letter());
    }
    let Ok(outer) = Outer::parse(body) else {
        return false;
    };
    let wraps: Vec<NewWrap> = outer
        .wraps
        .iter()
        .map(|wrap| NewWrap {
            device: wrap.device,
            key_counter: wrap.key_counter,
            encapsulated_key: *wrap.encapsulated_key,
            wrapped_key: wrap.wrapped_key.to_vec(),
        })
        .collect();
    let header = layout::write_header(&outer.commitment, &outer.nonce, &wraps);
    let length = u32::try_from(outer.ciphertext.len()).unwrap_or(u32::MAX);
    assert_eq!(
        [&header, length.to_be_bytes().as_slice(), outer.ciphertext].concat(),
        body
    );
    true
}

fn inner(bytes: &[u8]) -> bool {
    let Ok(inner) = Inner::parse(bytes) else {
        return false;
    };
    let written = inner.statement.write_inner(&inner.signature, inner.content);
    assert_eq!([written.as_slice(), inner.padding].concat(), bytes);
    true
}

fn content(bytes: &[u8]) -> bool {
    let Ok(content) = Content::decode(bytes) else {
        return false;
    };
    // Only what is longer than an envelope holds can not be written.
    let written = content.encode();
    assert!(
        written.map_or(bytes.len() > layout::MAX_CONTENT_BYTES, |written| *written
            == bytes)
    );
    if let Content::Control(control) = &content {
        if let Ok(Some(word)) = Word::decode(&control.body) {
            assert_eq!(word.encode(), control.body);
        }
        if let Ok(Some(word)) = ProfileWord::decode(&control.body) {
            assert_eq!(word.encode(), control.body);
        }
    }
    true
}

/// Nobody makes a profile that opens as Alice's, but she.
fn shown(bytes: &[u8]) -> bool {
    if let Some((alice, _)) = people() {
        let key = ProfileKey::from_bytes([6; 32]);
        let whose = (&alice.address.box_id, alice.identity.record());
        assert!(profile::open(&key, whose, bytes).is_err());
    }
    let Ok(profile) = Profile::decode(bytes) else {
        return false;
    };
    assert_eq!(profile.encode().as_slice(), bytes);
    true
}

fn reader<'a>(alice: &'a Person, bob: &'a Person) -> Recipient<'a> {
    Recipient {
        address: bob.address,
        keys: bob.identity.kem_keys(),
        record: bob.identity.record(),
        sender_record: alice.identity.record(),
    }
}

fn arrival<'a>(alice: &Person, body: &'a [u8]) -> Arrival<'a> {
    Arrival {
        sender: alice.address,
        counter: Counter(1),
        body,
    }
}

/// A letter by Alice to Bob.
fn letter() -> &'static [u8] {
    static LETTER: OnceLock<Vec<u8>> = OnceLock::new();
    LETTER.get_or_init(|| {
        let Some((alice, bob)) = people() else {
            return Vec::new();
        };
        let letter = Letter {
            recipient: bob.address.box_id,
            recipient_record: bob.identity.record(),
            counter: Counter(1),
            conversation: ConversationId::direct(&alice.address.box_id, &bob.address.box_id),
            written_at: Timestamp::from_millis(1_700_000_000_000),
            content: &Content::Text("Hello Bob".to_owned()),
        };
        let sender = Sender {
            address: alice.address,
            signing_key: alice.identity.signing_key(),
            record: alice.identity.record(),
        };
        seal(&SeededRandom::new(3), &sender, &letter).map_or(Vec::new(), |body| body.to_vec())
    })
}

/// Inner bytes of any form in an envelope that is right on the outside: without Alice's signature
/// Bob sees nothing.
fn opened(inner: &[u8]) -> Option<bool> {
    let (alice, bob) = people()?;
    let key = Secret::new([5; 32]);
    let (to, record) = (&bob.address.box_id, bob.identity.record());
    let inner = Zeroizing::new(inner.to_vec());
    let body = seal_inner(&SeededRandom::new(4), to, record, &key, inner).ok()?;
    assert!(open(&reader(alice, bob), &arrival(alice, &body)).is_err());
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::content::{
        Control, Edit, File, Location, MessageId, Picture, Reaction, Receipt, ReceiptState, Reply,
        Voice,
    };
    use super::super::open::{decrypt, unwrap_key};
    use super::*;
    use crate::fuzz::replay::{replay, seed, with};
    use crate::group::{Author, Group, GroupName, Origin};

    #[test]
    fn the_corpus_of_envelopes_holds() {
        replay("envelope", envelope);
    }

    #[test]
    fn a_real_envelope_is_accepted() {
        let (alice, bob) = people().unwrap();
        let body = letter();
        assert!(open(&reader(alice, bob), &arrival(alice, body)).is_ok());
        seed("envelope", "seed-body", &with(0, body), envelope);
        let outer = Outer::parse(body).unwrap();
        let key = unwrap_key(&reader(alice, bob), &outer).unwrap();
        let inner = decrypt(&outer, &key).unwrap();
        seed("envelope", "seed-inner", &with(1, &inner), envelope);
        seed("envelope", "seed-sealed", &with(3, &inner), envelope);
        let text = Content::Text("Hello Bob".to_owned()).encode().unwrap();
        seed("envelope", "seed-text", &with(2, &text), envelope);
        let file = File::new("a.txt", "text/plain", b"abc".to_vec()).unwrap();
        let file = Content::File(file).encode().unwrap();
        seed("envelope", "seed-file", &with(2, &file), envelope);
    }

    #[test]
    fn pages_of_a_group_are_accepted() {
        let (alice, bob) = people().unwrap();
        let origin = Origin {
            maker: alice.address.box_id,
            nonce: [7; 16],
        };
        let name = GroupName::new("Friends").unwrap();
        let author = Author {
            address: alice.address,
            key: alice.identity.signing_key(),
            now: Timestamp::from_millis(1_700_000_000_000),
        };
        let group = Group::create(origin, &author, name, &[bob.address.box_id]).unwrap();
        for (index, word) in Word::all_of(&group, true).iter().enumerate() {
            let page = &word.pages[0];
            assert!(page.is_signed(&origin.id(), alice.identity.record()));
            let body = word.encode();
            assert_eq!(Word::decode(&body), Ok(Some(word.clone())));
            let topic = Control::GROUPS;
            let content = Content::Control(Control { topic, body });
            let bytes = content.encode().unwrap();
            let name = format!("seed-group-{index}");
            seed("envelope", &name, &with(2, &bytes), envelope);
        }
    }

    #[test]
    fn profiles_and_word_of_them_are_accepted() {
        let picture = crate::profile::Portrait::new("image/png", b"png".to_vec()).unwrap();
        let profile = Profile::new("Anna", "mostly harmless", Some(picture)).unwrap();
        seed(
            "envelope",
            "seed-profile",
            &with(4, &profile.encode()),
            envelope,
        );
        let word = ProfileWord {
            key: ProfileKey::from_bytes([6; 32]),
            version: 3,
        };
        let content = Content::Control(Control {
            topic: Control::PROFILE,
            body: word.encode(),
        });
        let bytes = content.encode().unwrap();
        seed("envelope", "seed-profile-word", &with(2, &bytes), envelope);
    }

    #[test]
    fn content_of_every_kind_is_accepted() {
        let (alice, _) = people().unwrap();
        let message = MessageId {
            sender: alice.address,
            written_at: Timestamp::from_millis(1_700_000_000_000),
        };
        let text = "Hello".to_owned();
        let picture = Picture::new("image/png", (2, 3), "a cat", b"png".to_vec()).unwrap();
        let receipt = Receipt::new(ReceiptState::Read, vec![message]).unwrap();
        let kinds = [
            ("picture", Content::Picture(picture)),
            (
                "location",
                Content::Location(Location::new(1, -1, 10, "here").unwrap()),
            ),
            (
                "voice",
                Content::Voice(Voice::new("audio/ogg", 900, b"ogg".to_vec()).unwrap()),
            ),
            (
                "reaction",
                Content::Reaction(Reaction::new(message, "👍").unwrap()),
            ),
            (
                "reply",
                Content::Reply(Reply::new(message, Content::Text(text.clone())).unwrap()),
            ),
            ("edit", Content::Edit(Edit { message, text })),
            ("delete", Content::Delete(message)),
            ("receipt", Content::Receipt(receipt)),
            (
                "control",
                Content::Control(Control {
                    topic: 1,
                    body: vec![2],
                }),
            ),
        ];
        for (kind, content) in kinds {
            let bytes = content.encode().unwrap();
            let name = format!("seed-{kind}");
            seed("envelope", &name, &with(2, &bytes), envelope);
        }
    }
}
