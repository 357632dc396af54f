//! Canonical bytes, identifiers, signatures, statements, tokens, conversations, safety numbers.

use ed25519_dalek::Signer as _;
use rossby_client::crypto::secret::Secret;
use rossby_client::crypto::token::{TOKEN_INFO, open_token};
use rossby_client::crypto::{kem, recovery};
use rossby_client::envelope::ConversationId;
use rossby_client::safety_number::safety_number;
use rossby_domain::chain::verify_signature;
use rossby_domain::identifier::Identifier;
use rossby_domain::statement;
use rossby_domain::wire::Writer;
use serde_json::{Value, json};

use crate::people::{People, Person};
use crate::{Stream, hex, seed};

pub fn wire() -> Value {
    json!([
        {
            "what": "numbers, from one byte to eight",
            "values": [["u8", 1], ["u16", 258], ["u32", 16_909_060_u32], ["u64", 72_623_859_790_382_856_u64]],
            "bytes": hex(Writer::default().u8(1).u16(258).u32(16_909_060).u64(72_623_859_790_382_856).finish()),
        },
        {
            "what": "a label, bytes of fixed length, bytes of any length, none",
            "values": [["label", "rossby example v1"], ["fixed", "00ff"], ["bytes", "0a0b0c"], ["bytes", ""]],
            "bytes": hex(
                Writer::labelled("rossby example v1").fixed(&[0, 255]).bytes(&[10, 11, 12]).bytes(&[]).finish()
            ),
        },
    ])
}

pub fn identifiers() -> Value {
    let phone = |text: &str| Identifier::phone(text).ok();
    let email = |text: &str| Identifier::email(text).ok();
    let vector = |kind: &str, typed: &str, identifier: Option<Identifier>| {
        json!({
            "kind": kind,
            "typed": typed,
            "normalised": identifier.map(|identifier| identifier.as_str().to_owned()),
        })
    };
    let phones = [
        "+491701234567",
        "0049 (170) 123-45.67",
        "01701234567",
        "+4917",
        "+49170x",
        "00 49-170.1234567",
        "(+49) 170 1234567",
        "+12345678",
        "+1234567",
        "+123456789012345",
        "+1234567890123456",
        "+0491701234567",
        "0000491701234567",
        "++491701234567",
        "4+91701234567",
        "+49\t1701234567",
        "\u{1c}+491701234567",
        "+49\u{a0}1701234567",
        "\u{ff0b}491701234567",
        "+49\u{661}\u{667}\u{660}1234567",
        "",
    ];
    let (longest, too_long) = ("a".repeat(64), "a".repeat(65));
    let long = [longest, too_long].map(|local| format!("{local}@example.org"));
    let emails = [
        "Alice@Example.ORG",
        " a.b+c@mail.example.org ",
        "a@b",
        "a..b@example.org",
        "ä@example.org",
        "a@b@example.org",
        "Alice+Tag@EXAMPLE.org",
        "\u{3000}\u{a0}alice@example.org\u{85}\r\n\t",
        "\u{1c}alice@example.org",
        "alice@example.org\u{1f}",
        "\u{200b}alice@example.org",
        "a\u{308}@example.org",
        "\u{ff41}lice@example.org",
        "\u{212a}@example.org",
        "alice@ex\u{e4}mple.org",
        "alice@xn--exmple-cua.org",
        "a b@example.org",
        ".alice@example.org",
        "alice.@example.org",
        "alice@example.org.",
        "alice@example.123",
        "alice@-example.org",
        "alice@ex_ample.org",
        "\"alice\"@example.org",
        &long[0],
        &long[1],
        "",
    ];
    let phones = phones.map(|typed| vector("phone", typed, phone(typed)));
    let emails = emails.map(|typed| vector("email", typed, email(typed)));
    json!([phones.as_slice(), emails.as_slice()].concat())
}

/// Ed25519 as it is verified here: what some libraries accept and Rossby refuses.
pub fn signatures() -> Value {
    let key = ed25519_dalek::SigningKey::from_bytes(&seed("signature"));
    let message = b"a message";
    let good = key.sign(message).to_bytes();
    // The order of the group, little-endian (RFC 8032, section 5.1): s + L is a second form of s.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut second = good;
    let mut carry = 0;
    for (byte, add) in second[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut of_identity = [0; 64];
    of_identity[0] = 1;
    let mut changed = good;
    changed[0] ^= 1;
    let key = key.verifying_key().to_bytes();
    let vector = |what: &str, key: &[u8; 32], signature: &[u8; 64]| {
        json!({
            "what": what,
            "key": hex(key),
            "message": hex(message),
            "signature": hex(signature),
            "good": verify_signature(key, message, signature),
        })
    };
    json!([
        vector("a signature", &key, &good),
        vector("a bit of it changed", &key, &changed),
        vector("s + L instead of s", &key, &second),
        vector(
            "a key of small order, under which this signs everything",
            &identity,
            &of_identity
        ),
    ])
}

fn identifier_vector(identifier: &Identifier) -> Value {
    json!({"kind": identifier.kind(), "normalised": identifier.as_str()})
}

pub fn statements(people: &People) -> Value {
    let alice = &people.alice;
    let device = &alice.devices[0];
    let public = device.kem_key(1).public;
    let email = Identifier::email("alice@example.org").unwrap();
    let phone = Identifier::phone("+491701234567").unwrap();
    let (hash, id) = (alice.genesis.hash(), device.id());
    let register = |identifier, discoverable| {
        let statement = statement::register(&hash, identifier, discoverable, &public);
        json!({
            "what": "register",
            "by": "alice",
            "identifier": identifier_vector(identifier),
            "discoverable": discoverable,
            "statement": hex(&statement),
            "signature": hex(device.signing.sign(&statement).to_bytes()),
        })
    };
    let authorize = |identifier, code| {
        let statement = statement::authorize(&alice.box_id(), &id, identifier, code);
        json!({
            "what": "authorize",
            "by": "alice",
            "identifier": identifier_vector(identifier),
            "code": code,
            "statement": hex(&statement),
            "signature": hex(device.signing.sign(&statement).to_bytes()),
        })
    };
    let (version, sealed) = (7, seed("a sealed profile"));
    let statement = statement::set_profile(&alice.box_id(), &id, version, &sealed);
    let set_profile = json!({
        "what": "set profile",
        "by": "alice",
        "version": version,
        "sealed_profile": hex(sealed),
        "statement": hex(&statement),
        "signature": hex(device.signing.sign(&statement).to_bytes()),
    });
    json!([
        register(&email, true),
        register(&phone, false),
        authorize(&email, "00012345"),
        authorize(&phone, "98765432"),
        set_profile,
    ])
}

/// Seeds of recovery keys, and the words that their owners write down.
pub fn recovery_keys(people: &People) -> Value {
    let vector = |seed: [u8; 32]| {
        let words = recovery::to_text(&Secret::new(seed));
        assert_eq!(recovery::from_text(&words), Ok(Secret::new(seed)));
        json!({ "seed": hex(seed), "words": words.as_str() })
    };
    json!([
        vector(people.alice.recovery.to_bytes()),
        vector([0; 32]),
        vector([0xff; 32]),
    ])
}

pub fn tokens(people: &People) -> Value {
    let alice = &people.alice;
    let (_, secret) = &alice.devices[0].kem[0];
    let address = alice.address(0);
    let (random, token) = (Stream::new("token"), seed("the token"));
    let aad = address.to_string();
    let public = secret.public_key().unwrap();
    let sealed = kem::seal(&random, &public, TOKEN_INFO, aad.as_bytes(), &token).unwrap();
    let opened = open_token(
        secret,
        &address,
        &sealed.encapsulated_key,
        &sealed.ciphertext,
    );
    assert_eq!(opened.unwrap().expose(), token);
    let other = people.bob.address(0);
    let opened = open_token(secret, &other, &sealed.encapsulated_key, &sealed.ciphertext);
    assert!(opened.is_err());
    let vector = |what, address: &str, good| {
        json!({
            "what": what,
            "kem_seed": hex(secret.seed().expose()),
            "address": address,
            "encapsulation_randomness": hex(&random.drawn()[0]),
            "encapsulated_key": hex(sealed.encapsulated_key),
            "sealed_token": hex(&sealed.ciphertext),
            "token": hex(token),
            "good": good,
        })
    };
    json!([
        vector("a token", &aad, true),
        vector(
            "a token that was sealed for another address",
            &other.to_string(),
            false
        ),
    ])
}

fn pairs(people: &People) -> [(&str, &Person, &str, &Person); 2] {
    [
        ("alice", &people.alice, "bob", &people.bob),
        ("carol", &people.carol, "alice", &people.alice),
    ]
}

pub fn conversations(people: &People) -> Value {
    let vectors = pairs(people).map(|(one, a, other, b)| {
        let conversation = ConversationId::direct(&a.box_id(), &b.box_id());
        json!({"between": [one, other], "conversation": hex(conversation.as_bytes())})
    });
    json!(vectors)
}

pub fn safety_numbers(people: &People) -> Value {
    let vectors = pairs(people).map(|(one, a, other, b)| {
        let number = safety_number(
            (&a.box_id(), &a.genesis.hash()),
            (&b.box_id(), &b.genesis.hash()),
        );
        json!({"between": [one, other], "number": number})
    });
    json!(vectors)
}
