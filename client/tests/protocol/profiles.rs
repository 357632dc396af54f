//! Profiles, sealed and signed, and what must be refused.

use rossby_client::profile::{Portrait, Profile, ProfileError, ProfileKey, open, seal};
use rossby_domain::ids::BoxId;
use serde_json::{Value, json};

use crate::people::{People, Person};
use crate::{Stream, hex, seed};

fn key() -> ProfileKey {
    ProfileKey::from_bytes(seed("profile key"))
}

/// A profile of this person, signed by a device of that one.
fn sealed(of: &Person, by: &Person, version: u64, profile: &Profile) -> Vec<u8> {
    let random = Stream::new(&format!("profile {version}"));
    let mut author = by.address(0);
    author.box_id = of.box_id();
    let author = (author, &by.devices[0].signing);
    seal(&random, &key(), author, version, profile).unwrap()
}

fn show(what: &str, of: &str, profile: &Profile, version: u64, bytes: &[u8]) -> Value {
    let picture = profile.picture();
    json!({
        "what": what,
        "of": of,
        "key": hex(key().expose()),
        "version": version,
        "name": profile.name(),
        "about": profile.about(),
        "media_type": picture.map_or("", |picture| picture.media_type()),
        "picture": hex(picture.map_or(&[][..], |picture| picture.bytes())),
        "bytes": hex(bytes),
        "refusal": Value::Null,
    })
}

fn refusal(error: ProfileError) -> &'static str {
    match error {
        ProfileError::OtherKey => "OTHER_KEY",
        ProfileError::Sealed => "CANNOT_DECRYPT",
        ProfileError::Signature => "BAD_SIGNATURE",
        ProfileError::UnknownVersion => "UNKNOWN_VERSION",
        other => panic!("{other}"),
    }
}

pub fn vectors(people: &People) -> Value {
    let (alice, bob) = (&people.alice, &people.bob);
    let picture = Portrait::new("image/png", seed("portrait").to_vec()).unwrap();
    let whole = Profile::new("Änne 🐈", "mostly harmless", Some(picture)).unwrap();
    let nothing = Profile::default();
    let mut vectors = Vec::new();
    for (what, profile, version) in [("all of it", &whole, 7), ("nothing any more", &nothing, 8)] {
        let bytes = sealed(alice, alice, version, profile);
        let record = alice.history.last().unwrap();
        let opened = open(&key(), (&alice.box_id(), record), &bytes);
        assert_eq!(opened, Ok((version, profile.clone())));
        vectors.push(show(what, "alice", profile, version, &bytes));
    }
    let good = sealed(alice, alice, 7, &whole);
    let change = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let bad: [(&str, &str, &Person, Vec<u8>); 5] = [
        ("another's", "bob", bob, good.clone()),
        (
            "signed by another's device",
            "alice",
            alice,
            sealed(alice, bob, 7, &whole),
        ),
        ("under another version", "alice", alice, change(24)),
        ("under another key", "alice", alice, change(1)),
        ("of a later form", "alice", alice, change(0)),
    ];
    for (what, of, person, bytes) in bad {
        let record = person.history.last().unwrap();
        let box_id: BoxId = person.box_id();
        let why = refusal(open(&key(), (&box_id, record), &bytes).unwrap_err());
        let mut vector = show(what, of, &whole, 7, &bytes);
        vector["refusal"] = why.into();
        vectors.push(vector);
    }
    vectors.into()
}
