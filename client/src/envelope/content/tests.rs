//! What must hold for content of every kind.

use proptest::collection::vec;
use proptest::prelude::*;
use rossby_domain::ids::{DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;

use super::*;

fn a_box(seed: u8) -> BoxId {
    BoxId::derive(PartitionId::new(1).unwrap(), &[seed; 32])
}

fn message(seed: u8, written_at: u64) -> MessageId {
    MessageId {
        sender: DeviceAddress {
            box_id: a_box(seed),
            device: DeviceId::from_bytes([seed; 16]),
        },
        written_at: Timestamp::from_millis(written_at),
    }
}

fn messages() -> impl Strategy<Value = MessageId> {
    (0_u8..4, any::<u64>()).prop_map(|(seed, at)| message(seed, at))
}

fn said() -> impl Strategy<Value = Content> {
    let data = || vec(any::<u8>(), 0..300);
    prop_oneof![
        ".{0,200}".prop_map(Content::Text),
        ("[a-z0-9 .]{3,40}", data())
            .prop_map(|(name, data)| Content::File(File::new(&name, "text/plain", data).unwrap())),
        (1..=u16::MAX, 1..=u16::MAX, ".{0,80}", data()).prop_map(
            |(width, height, caption, data)| {
                let picture = Picture::new("image/png", (width, height), &caption, data);
                Content::Picture(picture.unwrap())
            }
        ),
        (
            -900_000_000..=900_000_000_i32,
            -1_800_000_000..=1_800_000_000_i32,
            any::<u32>(),
            "[^\\p{Cc}]{0,40}"
        )
            .prop_map(|(latitude, longitude, accuracy, label)| {
                let location = Location::new(latitude, longitude, accuracy, &label);
                Content::Location(location.unwrap())
            }),
        (any::<u32>(), data()).prop_map(|(duration, data)| {
            Content::Voice(Voice::new("audio/ogg", duration, data).unwrap())
        }),
        (200_u16.., any::<u8>(), data()).prop_map(|(kind, version, body)| Content::Unknown {
            kind,
            version,
            body
        }),
    ]
}

fn contents() -> impl Strategy<Value = Content> {
    let receipts = (any::<bool>(), vec(messages(), 1..20)).prop_map(|(read, messages)| {
        let state = if read {
            ReceiptState::Read
        } else {
            ReceiptState::Delivered
        };
        Content::Receipt(Receipt::new(state, messages).unwrap())
    });
    prop_oneof![
        4 => said(),
        1 => (messages(), said()).prop_map(|(to, said)| Content::Reply(Reply::new(to, said).unwrap())),
        1 => (messages(), "[^\\p{Cc}\\s]{0,16}")
            .prop_map(|(to, emoji)| Content::Reaction(Reaction::new(to, &emoji).unwrap())),
        1 => (messages(), ".{0,100}")
            .prop_map(|(message, text)| Content::Edit(Edit { message, text })),
        1 => messages().prop_map(Content::Delete),
        1 => receipts,
        1 => (any::<u16>(), vec(any::<u8>(), 0..100))
            .prop_map(|(topic, body)| Content::Control(Control { topic, body })),
    ]
}

proptest! {
    #[test]
    fn content_comes_back_as_it_was(content in contents()) {
        let bytes = content.encode().unwrap();
        prop_assert_eq!(&Content::decode(&bytes).unwrap(), &content);
        prop_assert_eq!(Content::decode_kept(&bytes).unwrap(), content);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        kind in 0_u16..14,
        body in vec(any::<u8>(), 0..150),
    ) {
        let bytes = [&kind.to_be_bytes()[..], &[1], &body].concat();
        if let Ok(content) = Content::decode(&bytes) {
            let encoded = content.encode().unwrap();
            prop_assert_eq!(encoded.as_slice(), bytes.as_slice());
        }
        // And what was kept is never lost.
        let kept = Content::decode_kept(&bytes).unwrap();
        let encoded = kept.encode().unwrap();
        prop_assert_eq!(encoded.as_slice(), bytes.as_slice());
    }

    #[test]
    fn content_with_a_byte_changed_is_refused_or_has_one_encoding(
        content in contents(),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut bytes = content.encode().unwrap().to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(content) = Content::decode(&bytes) {
            let encoded = content.encode().unwrap();
            prop_assert_eq!(encoded.as_slice(), bytes.as_slice());
        }
    }

    #[test]
    fn content_that_is_cut_off_is_no_other(content in contents(), place in any::<prop::sample::Index>()) {
        let bytes = content.encode().unwrap();
        let cut = &bytes[..place.index(bytes.len())];
        match (content, Content::decode(cut)) {
            // These two go on to the end, wherever that is.
            (Content::Text(_) | Content::Unknown { .. }, _) | (_, Err(_)) => {}
            (content, Ok(other)) => prop_assert!(false, "{content:?} became {other:?}"),
        }
    }
}

#[test]
fn an_unknown_kind_and_an_unknown_version_are_kept() {
    for bytes in [[9, 9, 1, 42], [0, 1, 2, 42], [0, 8, 2, 42]] {
        let content = Content::decode(&bytes).unwrap();
        assert!(matches!(content, Content::Unknown { .. }));
        assert_eq!(content.encode().unwrap().as_slice(), bytes);
    }
}

#[test]
fn what_an_earlier_version_kept_and_this_one_finds_malformed_stays_unknown() {
    let picture = [0, 3, 1, 255, 255, 255, 255];
    assert!(Content::decode(&picture).is_err());
    let kept = Content::decode_kept(&picture).unwrap();
    assert!(matches!(kept, Content::Unknown { kind: 3, .. }));
    assert!(Content::decode_kept(&[0, 3]).is_err());
}

#[test]
fn a_file_name_can_not_lead_out_of_a_folder() {
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        &"a".repeat(256),
    ] {
        assert_eq!(
            File::new(name, "", vec![]),
            Err(ContentError::FileName),
            "{name:?}"
        );
        let bytes = Writer::default()
            .u16(2)
            .u8(1)
            .bytes(name.as_bytes())
            .bytes(b"")
            .bytes(b"x")
            .finish();
        assert!(Content::decode(&bytes).is_err(), "{name:?}");
    }
}

#[test]
fn every_field_has_its_limits() {
    let picture = |media_type: &str, size, caption: &str| {
        Picture::new(media_type, size, caption, vec![1]).map(drop)
    };
    assert_eq!(picture("image/png", (1, u16::MAX), ""), Ok(()));
    assert_eq!(
        picture("text/html", (1, 1), ""),
        Err(ContentError::MediaType)
    );
    assert_eq!(
        picture("image/p\u{1b}", (1, 1), ""),
        Err(ContentError::MediaType)
    );
    assert_eq!(
        picture("image/png", (0, 1), ""),
        Err(ContentError::PictureSize)
    );
    assert_eq!(
        picture("image/png", (1, 1), &"c".repeat(4097)),
        Err(ContentError::Caption)
    );
    assert_eq!(
        Voice::new("image/png", 1, vec![]),
        Err(ContentError::MediaType)
    );
    for (latitude, longitude) in [(900_000_001, 0), (-900_000_001, 0), (0, 1_800_000_001)] {
        let location = Location::new(latitude, longitude, 1, "");
        assert_eq!(location, Err(ContentError::Place));
    }
    let label = Location::new(0, 0, 0, "a\u{1b}[2J");
    assert_eq!(label, Err(ContentError::Label));
    let to = message(1, 1);
    for emoji in ["\u{1b}[2J", "a b", "👍\n", &"x".repeat(65)] {
        let reaction = Reaction::new(to, emoji);
        assert_eq!(reaction, Err(ContentError::Emoji), "{emoji:?}");
    }
    let none = Receipt::new(ReceiptState::Read, vec![]);
    assert_eq!(none, Err(ContentError::Receipt));
    let many = (0..257).map(|at| message(1, at)).collect();
    let many = Receipt::new(ReceiptState::Read, many);
    assert_eq!(many, Err(ContentError::Receipt));
}

#[test]
fn a_receipt_has_one_form() {
    let ids = [message(1, 1), message(1, 2)];
    let given = vec![ids[1], ids[0], ids[1]];
    let receipt = Receipt::new(ReceiptState::Delivered, given).unwrap();
    let sorted = receipt.messages().to_vec();
    assert_eq!(sorted.len(), 2);
    let write = |ids: &[MessageId]| {
        let writer = Writer::default().u16(10).u8(1).u8(1).u16(ids.len() as u16);
        ids.iter()
            .fold(writer, |writer, id| id.write(writer))
            .finish()
    };
    assert_eq!(
        Content::decode(&write(&sorted)),
        Ok(Content::Receipt(receipt))
    );
    let turned = [sorted[1], sorted[0]];
    let twice = [sorted[0], sorted[0]];
    for ids in [&turned[..], &twice, &[]] {
        assert_eq!(Content::decode(&write(ids)), Err(ContentError::Receipt));
    }
}

#[test]
fn replies_do_not_nest() {
    let to = message(1, 1);
    let text = Content::Text("yes".to_owned());
    let reply = Content::Reply(Reply::new(to, text).unwrap());
    let deleted = Content::Delete(to);
    for inner in [reply, deleted] {
        assert_eq!(
            Reply::new(to, inner.clone()),
            Err(ContentError::Reply),
            "{inner:?}"
        );
        let writer = to.write(Writer::default().u16(7).u8(1));
        let bytes = writer.bytes(&inner.encode().unwrap()).finish();
        assert_eq!(Content::decode(&bytes), Err(ContentError::Reply));
    }
}

#[test]
fn only_who_wrote_a_message_can_change_it() {
    let mine = message(1, 7);
    let edit = Content::Edit(Edit {
        message: mine,
        text: "other".to_owned(),
    });
    for act in [edit, Content::Delete(mine)] {
        assert!(act.counts_from(&a_box(1)));
        assert!(!act.counts_from(&a_box(2)));
    }
    let reaction = Content::Reaction(Reaction::new(mine, "👍").unwrap());
    assert!(reaction.counts_from(&a_box(2)));
}

#[test]
fn texts_replies_and_captions_can_be_changed_and_nothing_else() {
    let text = |text: &str| Content::Text(text.to_owned());
    let to = message(1, 1);
    assert_eq!(text("a").with_text("b"), Some(text("b")));
    let reply = |text| Content::Reply(Reply::new(to, text).unwrap());
    assert_eq!(reply(text("a")).with_text("b"), Some(reply(text("b"))));
    let picture = |caption| {
        Content::Picture(Picture::new("image/png", (1, 1), caption, vec![0; 80_000]).unwrap())
    };
    assert_eq!(picture("a").with_text("b"), Some(picture("b")));
    assert_eq!(picture("a").with_text(&"b".repeat(5000)), None);
    let file = Content::File(File::new("a", "", vec![]).unwrap());
    assert_eq!(file.with_text("b"), None);
    assert_eq!(Content::Delete(to).with_text("b"), None);
}

#[test]
fn more_than_an_envelope_holds_is_refused() {
    let fits = Content::Text("a".repeat(MAX_CONTENT_BYTES - 3));
    assert_eq!(fits.encode().unwrap().len(), MAX_CONTENT_BYTES);
    let over = Content::Text("a".repeat(MAX_CONTENT_BYTES - 2));
    assert!(matches!(over.encode(), Err(ContentError::TooLarge { .. })));
    let reply = Content::Reply(Reply::new(message(1, 1), fits).unwrap());
    assert!(matches!(reply.encode(), Err(ContentError::TooLarge { .. })));
}

#[test]
fn a_message_id_is_read_as_it_is_shown() {
    let id = message(3, 1_700_000_000_123);
    assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
    for text in ["", "7", "a/b/c", &format!("{}/x", id.sender)] {
        assert!(text.parse::<MessageId>().is_err(), "{text}");
    }
}

#[test]
fn debug_shows_nothing_that_was_said() {
    let to = message(1, 1);
    let text = Content::Text("canary".to_owned());
    let shown = [
        Content::Reply(Reply::new(to, text).unwrap()),
        Content::Edit(Edit {
            message: to,
            text: "canary".to_owned(),
        }),
        Content::Reaction(Reaction::new(to, "canary").unwrap()),
        Content::Location(Location::new(4711, 4711, 4711, "canary").unwrap()),
        Content::Picture(Picture::new("image/canary", (1, 1), "canary", vec![]).unwrap()),
    ];
    let shown = format!("{shown:?}");
    assert!(
        !shown.contains("canary") && !shown.contains("4711"),
        "{shown}"
    );
}
