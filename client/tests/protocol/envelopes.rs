//! Envelopes: those that must open, and those that must not.

use rossby_client::envelope::{
    Arrival, Content, ConversationId, File, Letter as SealedLetter, OpenError, Opened, Recipient,
    Sender, open, seal,
};
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{Counter, DeviceAddress};
use rossby_domain::time::Timestamp;
use serde_json::{Value, json};

use crate::contents::show;
use crate::letters::{Letter, Made};
use crate::people::{People, Person};
use crate::{Stream, hex, seed};

const WRITTEN_AT_MS: u64 = 1_700_000_000_123;

/// A letter as a good client writes it.
fn letter<'a>(from: &'a Person, to: &'a Person, counter: u64, content: &Content) -> Letter<'a> {
    let head = |record: &KeyRecord| (record.version(), record.head());
    Letter {
        signing_key: &from.devices[0].signing,
        sender: from.address(0),
        recipient: to.box_id(),
        wrapped_for: to.box_id(),
        recipient_record: to.record(),
        counter,
        conversation: ConversationId::direct(&from.box_id(), &to.box_id()),
        written_at_ms: WRITTEN_AT_MS,
        sender_chain: head(from.record()),
        recipient_chain: head(to.record()),
        content: content.encode().unwrap().to_vec(),
        filler: 0,
        inner_version: 1,
        commitment: None,
    }
}

/// How a device of `to` reads an envelope that is said to come from this device, under this counter.
fn read(
    to: &Person,
    device: usize,
    sender_record: &KeyRecord,
    sender: DeviceAddress,
    counter: u64,
    body: &[u8],
) -> Result<Opened, OpenError> {
    let recipient = Recipient {
        address: to.address(device),
        keys: &to.devices[device].kem,
        record: to.record(),
        sender_record,
    };
    let counter = Counter(counter);
    open(
        &recipient,
        &Arrival {
            sender,
            counter,
            body,
        },
    )
}

pub fn good(people: &People) -> Value {
    let People {
        alice, bob, carol, ..
    } = people;
    let text = |text: &str| Content::Text(text.to_owned());
    let file = File::new("map.png", "image/png", seed("map").repeat(20)).unwrap();
    let unknown = Content::Unknown {
        kind: 900,
        version: 3,
        body: b"from the future".to_vec(),
    };
    json!([
        one(
            "a text",
            ("alice", alice),
            ("bob", bob),
            1,
            &text("See you at eight")
        ),
        one(
            "an empty text",
            ("bob", bob),
            ("alice", alice),
            2,
            &text("")
        ),
        one(
            "a file",
            ("bob", bob),
            ("carol", carol),
            1 << 40,
            &Content::File(file)
        ),
        one(
            "content of a kind not known",
            ("carol", carol),
            ("alice", alice),
            9,
            &unknown
        ),
    ])
}

fn one(
    what: &str,
    (sender, from): (&str, &Person),
    (recipient, to): (&str, &Person),
    counter: u64,
    content: &Content,
) -> Value {
    let by_hand = letter(from, to, counter, content);
    let random = Stream::new(what);
    let made = by_hand.make(&random);
    let sealed = seal(
        &Stream::new(what),
        &Sender {
            address: from.address(0),
            signing_key: &from.devices[0].signing,
            record: from.record(),
        },
        &SealedLetter {
            recipient: to.box_id(),
            recipient_record: to.record(),
            counter: Counter(counter),
            conversation: by_hand.conversation,
            written_at: Timestamp::from_millis(WRITTEN_AT_MS),
            content,
        },
    );
    assert_eq!(hex(sealed.unwrap()), hex(&made.body), "{what}");
    // Every device of the recipient can read it.
    for device in 0..to.record().devices().count() {
        let opened = read(
            to,
            device,
            from.record(),
            from.address(0),
            counter,
            &made.body,
        );
        assert_eq!(opened.unwrap().content, *content, "{what}");
    }
    let wraps = to
        .record()
        .devices()
        .zip(random.drawn().into_iter().skip(2));
    let wraps = wraps.map(|(keys, randomness)| {
        json!({
            "device_id": hex(keys.device.as_bytes()),
            "kem_counter": keys.kem.counter,
            "encapsulation_randomness": hex(randomness),
        })
    });
    let wraps: Vec<_> = wraps.collect();
    let Made {
        content_key,
        nonce,
        commitment,
        signed,
        signature,
        inner,
        body,
    } = made;
    json!({
        "what": what,
        "from": sender,
        "to": recipient,
        "counter": counter,
        "written_at_ms": WRITTEN_AT_MS,
        "conversation": hex(by_hand.conversation.as_bytes()),
        "content": show(content),
        "content_bytes": hex(&by_hand.content),
        "content_key": hex(content_key),
        "nonce": hex(nonce),
        "commitment": hex(commitment),
        "signed": hex(signed),
        "signature": hex(signature),
        "inner": hex(inner),
        "wraps": wraps,
        "body": hex(body),
    })
}

/// A bad envelope from Alice's phone to Bob's, and as what the service hands it over.
struct Bad {
    what: &'static str,
    body: Vec<u8>,
    sender: DeviceAddress,
    counter: u64,
}

pub fn bad(people: &People) -> Value {
    let mut bad = bad_bytes(people);
    bad.extend(bad_claims(people));
    bad.extend(bad_letters(people));
    let (alice, bob) = (&people.alice, &people.bob);
    let vectors = bad.into_iter().map(|case| {
        let Bad {
            what,
            body,
            sender,
            counter,
        } = case;
        let refused = read(bob, 0, alice.record(), sender, counter, &body);
        json!({
            "what": what,
            "from": "alice",
            "to": "bob",
            "sender": sender.to_string(),
            "counter": counter,
            "body": hex(&body),
            "refusal": refused.expect_err(what).code(),
        })
    });
    json!(vectors.collect::<Vec<_>>())
}

const COUNTER: u64 = 5;

fn text() -> Content {
    Content::Text("A letter".to_owned())
}

fn make(people: &People, what: &'static str, change: impl FnOnce(&mut Letter<'_>)) -> Bad {
    let (alice, bob) = (&people.alice, &people.bob);
    let mut letter = letter(alice, bob, COUNTER, &text());
    change(&mut letter);
    Bad {
        what,
        body: letter.make(&Stream::new(what)).body,
        sender: alice.address(0),
        counter: COUNTER,
    }
}

/// Bytes changed on their way.
fn bad_bytes(people: &People) -> Vec<Bad> {
    const WRAPS_AT: usize = 2 + 32 + 12 + 1;
    const WRAP: usize = 16 + 8 + 1120 + 48;
    let good = make(people, "good", |_| {}).body;
    // Bob's phone reads; its wrap is the first or the second.
    let phone = *people.bob.devices[0].id().as_bytes();
    let mine = if good[WRAPS_AT..].starts_with(&phone) {
        WRAPS_AT
    } else {
        WRAPS_AT + WRAP
    };
    let ciphertext_at = WRAPS_AT + 2 * WRAP + 4;
    let edited = |what, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good.clone();
        edit(&mut body);
        Bad {
            what,
            body,
            sender: people.alice.address(0),
            counter: COUNTER,
        }
    };
    vec![
        edited("no bytes", &|body| body.clear()),
        edited("another version", &|body| body[0] = 2),
        edited("another suite", &|body| body[1] = 2),
        edited("the last byte is missing", &|body| {
            body.pop();
        }),
        edited("a byte too many", &|body| body.push(0)),
        edited("no wraps", &|body| body[WRAPS_AT - 1] = 0),
        edited("nine wraps", &|body| body[WRAPS_AT - 1] = 9),
        edited("wraps not in rising order", &|body| {
            let (first, rest) = body[WRAPS_AT..].split_at_mut(WRAP);
            first.swap_with_slice(&mut rest[..WRAP]);
        }),
        edited("no wrap for the reading device", &|body| {
            // One id further: still in order.
            body[mine + 15] ^= 1;
        }),
        edited(
            "a wrap for a KEM key that the device does not have",
            &|body| {
                body[mine + 23] = 9;
            },
        ),
        edited("a wrap for the KEM key before", &|body| body[mine + 23] = 1),
        edited("a bit of the commitment", &|body| body[2] ^= 1),
        edited("a bit of the encapsulated ML-KEM ciphertext", &|body| {
            body[mine + 24] ^= 1;
        }),
        edited("a bit of the encapsulated X25519 key", &|body| {
            body[mine + 24 + 1119] ^= 1;
        }),
        edited("a bit of the wrapped key", &|body| {
            body[mine + 24 + 1120] ^= 1
        }),
        edited("a bit of the nonce", &|body| body[34] ^= 1),
        edited("a bit of the ciphertext", &|body| body[ciphertext_at] ^= 1),
        edited("a bit of another device's wrap", &|body| {
            let other = WRAPS_AT + WRAPS_AT + WRAP - mine;
            body[other + 24] ^= 1;
        }),
    ]
}

/// Good envelopes that the service hands over as something else.
fn bad_claims(people: &People) -> Vec<Bad> {
    let good = |what| make(people, what, |_| {});
    vec![
        Bad {
            counter: COUNTER + 1,
            ..good("the service names another counter")
        },
        Bad {
            sender: people.carol.address(0),
            ..good("the service names another sender")
        },
    ]
}

/// Envelopes that somebody made wrong, with all the keys it takes.
fn bad_letters(people: &People) -> Vec<Bad> {
    let People {
        bob,
        carol,
        mallory,
        ..
    } = people;
    let mut unknown = make(people, "a device that is not the sender's", |letter| {
        letter.sender.device = mallory.id();
    });
    unknown.sender.device = mallory.id();
    vec![
        make(people, "a commitment to another key", |letter| {
            letter.commitment = Some(seed("another commitment"));
        }),
        make(people, "another version inside", |letter| {
            letter.inner_version = 2;
        }),
        make(
            people,
            "written to another box, and wrapped for this one",
            |letter| {
                letter.recipient = carol.box_id();
            },
        ),
        make(people, "wrapped for another box", |letter| {
            letter.wrapped_for = carol.box_id();
        }),
        Bad {
            body: letter_signed_by(people, &mallory.signing),
            ..make(people, "signed by another key", |_| {})
        },
        unknown,
        make(people, "another chain of the sender", |letter| {
            letter.sender_chain.1 = seed("another chain");
        }),
        make(
            people,
            "a chain of the sender that is newer than the one known",
            |letter| {
                letter.sender_chain.0 = 1;
            },
        ),
        make(people, "another chain of the recipient", |letter| {
            letter.recipient_chain.1 = seed("another chain");
        }),
        make(
            people,
            "a chain of the recipient that is newer than its own",
            |letter| {
                letter.recipient_chain.0 = bob.record().version() + 1;
            },
        ),
        make(people, "padding that is not zero", |letter| {
            letter.filler = 1
        }),
        make(people, "a text that is not UTF-8", |letter| {
            *letter.content.last_mut().unwrap() = 0xff;
        }),
        make(people, "content of two bytes", |letter| {
            letter.content.truncate(2)
        }),
        make(
            people,
            "a file whose name leads out of its folder",
            |letter| {
                let file = File::new("passwd", "", Vec::new()).unwrap();
                letter.content = Content::File(file).encode().unwrap().to_vec();
                letter.content[7..9].copy_from_slice(b"./");
            },
        ),
    ]
}

fn letter_signed_by(people: &People, key: &ed25519_dalek::SigningKey) -> Vec<u8> {
    let mut letter = letter(&people.alice, &people.bob, COUNTER, &text());
    letter.signing_key = key;
    letter.make(&Stream::new("signed by another key")).body
}
