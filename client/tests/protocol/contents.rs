//! Content of every kind, and bytes that are content of none.

use rossby_client::envelope::{
    Content, Control, Edit, File, Location, MessageId, Picture, Reaction, Receipt, ReceiptState,
    Reply, Voice,
};
use rossby_client::profile::ProfileKey;
use rossby_client::profile::ProfileWord;
use rossby_domain::time::Timestamp;
use rossby_domain::wire::Writer;
use serde_json::{Value, json};

use crate::people::{People, Person};
use crate::{hex, seed};

/// A message of this person's first device.
fn message(by: &Person, written_at_ms: u64) -> MessageId {
    MessageId {
        sender: by.address(0),
        written_at: Timestamp::from_millis(written_at_ms),
    }
}

fn show_id(id: &MessageId) -> Value {
    json!({"sender": id.sender.to_string(), "written_at_ms": id.written_at.as_millis()})
}

pub fn show(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!({"text": text}),
        Content::File(file) => json!({
            "name": file.name(),
            "media_type": file.media_type(),
            "data": hex(file.bytes()),
        }),
        Content::Picture(picture) => json!({"picture": {
            "media_type": picture.media_type(),
            "size": picture.size(),
            "caption": picture.caption(),
            "data": hex(picture.bytes()),
        }}),
        Content::Location(location) => json!({"location": {
            "latitude": location.latitude(),
            "longitude": location.longitude(),
            "accuracy_m": location.accuracy_m(),
            "label": location.label(),
        }}),
        Content::Voice(voice) => json!({"voice": {
            "media_type": voice.media_type(),
            "duration_ms": voice.duration_ms(),
            "data": hex(voice.bytes()),
        }}),
        Content::Reaction(reaction) => {
            json!({"reaction": {"to": show_id(reaction.to()), "emoji": reaction.emoji()}})
        }
        Content::Reply(reply) => {
            json!({"reply": {"to": show_id(reply.to()), "content": show(reply.content())}})
        }
        Content::Edit(edit) => {
            json!({"edit": {"message": show_id(&edit.message), "text": edit.text}})
        }
        Content::Delete(message) => json!({"delete": show_id(message)}),
        Content::Receipt(receipt) => json!({"receipt": {
            "state": match receipt.state() {
                ReceiptState::Delivered => "delivered",
                ReceiptState::Read => "read",
            },
            "messages": receipt.messages().iter().map(show_id).collect::<Vec<_>>(),
        }}),
        Content::Control(control) => {
            json!({"control": {"topic": control.topic, "body": hex(&control.body)}})
        }
        Content::Unknown {
            kind,
            version,
            body,
        } => json!({"kind": kind, "version": version, "rest": hex(body)}),
    }
}

pub fn good(people: &People) -> Value {
    let (alice, bob) = (message(&people.alice, 1_700_000_000_123), &people.bob);
    let text = |text: &str| Content::Text(text.to_owned());
    let reply = |content| Content::Reply(Reply::new(alice, content).unwrap());
    let reaction = |emoji| Content::Reaction(Reaction::new(alice, emoji).unwrap());
    let receipt = |state, messages| Content::Receipt(Receipt::new(state, messages).unwrap());
    let place = |latitude, longitude, accuracy, label| {
        Content::Location(Location::new(latitude, longitude, accuracy, label).unwrap())
    };
    let picture = Picture::new("image/png", (640, 480), "The cat 🐈", seed("cat").to_vec());
    let picture = Content::Picture(picture.unwrap());
    let voice = Voice::new("audio/ogg", 2_345, seed("hello").to_vec()).unwrap();
    let file = File::new("map.png", "image/png", seed("map").to_vec()).unwrap();
    let edit = Edit {
        message: alice,
        text: "See you at nine".to_owned(),
    };
    let profile = ProfileWord {
        key: ProfileKey::from_bytes(seed("profile key")),
        version: 7,
    };
    let (topic, body) = (7, b"from one device to another".to_vec());
    let unknown = Content::Unknown {
        kind: 3,
        version: 2,
        body: b"a later picture".to_vec(),
    };
    let later = |at| message(bob, at);
    let goods = [
        ("a text", text("Grüße\n👋")),
        ("a file", Content::File(file)),
        ("a picture", picture.clone()),
        (
            "a location",
            place(525_200_066, 134_049_540, 12, "Alexanderplatz"),
        ),
        (
            "a location south and west, not said how exact, without a label",
            place(-226_972_500, -1_800_000_000, 0, ""),
        ),
        ("a voice message", Content::Voice(voice)),
        ("a reaction", reaction("👍🏽")),
        ("a reaction that is taken back", reaction("")),
        ("a reply", reply(text("Fine"))),
        ("a picture as a reply", reply(picture)),
        (
            "a reply that holds what is not known",
            reply(unknown.clone()),
        ),
        ("an edit", Content::Edit(edit)),
        ("a deletion", Content::Delete(alice)),
        (
            "a receipt for one message",
            receipt(ReceiptState::Delivered, vec![alice]),
        ),
        (
            "a receipt for three",
            receipt(ReceiptState::Read, vec![later(9), alice, later(8)]),
        ),
        (
            "a control message",
            Content::Control(Control { topic, body }),
        ),
        (
            "word of a profile",
            Content::Control(Control {
                topic: Control::PROFILE,
                body: profile.encode(),
            }),
        ),
        (
            "typing",
            Content::Control(Control {
                topic: Control::TYPING,
                body: vec![1, 1],
            }),
        ),
        ("a later version of a picture", unknown),
    ];
    let vectors = goods.map(|(what, content)| {
        let bytes = content.encode().unwrap();
        assert_eq!(Content::decode(&bytes).unwrap(), content, "{what}");
        json!({"what": what, "content": show(&content), "bytes": hex(&*bytes)})
    });
    json!(vectors)
}

/// Bytes that are no content, each in one way.
pub fn bad(people: &People) -> Value {
    let head = |kind| Writer::default().u16(kind).u8(1);
    let id = |writer: Writer, at: u64| {
        let sender = people.alice.address(0);
        writer
            .fixed(sender.box_id.as_bytes())
            .fixed(sender.device.as_bytes())
            .u64(at)
    };
    let picture = |media_type: &str, width, caption: &[u8]| {
        let writer = head(3).bytes(media_type.as_bytes()).u16(width).u16(9);
        writer.bytes(caption).bytes(b"data").finish()
    };
    let place = |latitude: i32, longitude: i32, label: &str| {
        let writer = head(4).u32(latitude.cast_unsigned());
        let writer = writer.u32(longitude.cast_unsigned()).u32(1);
        writer.bytes(label.as_bytes()).finish()
    };
    let reaction = |emoji: &str| id(head(6), 1).bytes(emoji.as_bytes()).finish();
    let delete = id(head(9), 1).finish();
    let receipt = |state, ids: &[u64]| {
        let writer = head(10).u8(state).u16(ids.len() as u16);
        ids.iter()
            .fold(writer, |writer, at| id(writer, *at))
            .finish()
    };
    let many: Vec<u64> = (1..=257).collect();
    let voice = head(5).bytes(b"image/png").u32(1).bytes(b"data").finish();
    let in_no_box = head(9).fixed(&[0; 32]).u64(1).finish();
    let reply = |content: &[u8]| id(head(7), 1).bytes(content).finish();
    let vectors = [
        ("no kind", vec![0, 1]),
        ("a text that is not UTF-8", vec![0, 1, 1, 0xff]),
        ("a picture that is no image", picture("text/html", 9, b"")),
        ("a picture without width", picture("image/png", 0, b"")),
        (
            "a caption that is too long",
            picture("image/png", 9, &[b'c'; 4097]),
        ),
        (
            "a caption that is not UTF-8",
            picture("image/png", 9, &[0xff]),
        ),
        ("a place beyond the pole", place(900_000_001, 0, "")),
        ("a place beyond the date line", place(0, -1_800_000_001, "")),
        (
            "a label with a control character",
            place(0, 0, "a\u{1b}[2J"),
        ),
        ("a label that is too long", place(0, 0, &"l".repeat(256))),
        ("a voice message that is no sound", voice),
        ("a reaction with a space", reaction("a b")),
        ("a reaction with a control character", reaction("\u{9b}2J")),
        ("a reaction that is too long", reaction(&"x".repeat(65))),
        ("a reply that holds a reply", reply(&reply(&[0, 1, 1]))),
        ("a reply that holds a deletion", reply(&delete)),
        ("a reply that holds nothing", reply(b"")),
        ("a deletion of what no box wrote", in_no_box),
        (
            "a deletion with a byte too many",
            [&delete[..], &[0]].concat(),
        ),
        ("a receipt for nothing", receipt(1, &[])),
        ("a receipt of an unknown state", receipt(3, &[1])),
        ("a receipt in falling order", receipt(1, &[2, 1])),
        ("a receipt that names a message twice", receipt(2, &[1, 1])),
        ("a receipt for too many", receipt(2, &many)),
    ]
    .map(|(what, bytes)| {
        assert!(Content::decode(&bytes).is_err(), "{what}");
        json!({"what": what, "bytes": hex(bytes)})
    });
    json!(vectors)
}
