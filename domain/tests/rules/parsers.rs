//! Parsers of ids, identifiers and canonical bytes: no input makes them panic, what they accept has
//! one form, and what they write they read.

use proptest::prelude::*;
use rossby_domain::command::EnvelopeDigest;
use rossby_domain::identifier::{Identifier, IdentifierError, IdentifierHash};
use rossby_domain::ids::{BoxId, ClusterId, DeviceAddress, DeviceId, PartitionCount, PartitionId};
use rossby_domain::statement;
use rossby_domain::wire::{Reader, WireError, Writer};
use uuid::Uuid;

fn partition() -> impl Strategy<Value = PartitionId> {
    (0..PartitionId::LIMIT).prop_map(|number| PartitionId::new(number).unwrap())
}

fn address() -> impl Strategy<Value = DeviceAddress> {
    (partition(), any::<[u8; 32]>(), any::<[u8; 16]>()).prop_map(|(birth, hash, device)| {
        DeviceAddress {
            box_id: BoxId::derive(birth, &hash),
            device: DeviceId::from_bytes(device),
        }
    })
}

/// A field of any kind that a [`Writer`] writes.
#[derive(Debug, Clone)]
enum Field {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    Fixed([u8; 5]),
    Bytes(Vec<u8>),
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        any::<u8>().prop_map(Field::U8),
        any::<u16>().prop_map(Field::U16),
        any::<u32>().prop_map(Field::U32),
        any::<u64>().prop_map(Field::U64),
        any::<[u8; 5]>().prop_map(Field::Fixed),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(Field::Bytes),
    ]
}

proptest! {
    #[test]
    fn fields_that_were_written_are_read(fields in prop::collection::vec(field(), 0..20)) {
        let writer = fields.iter().fold(Writer::default(), |writer, field| match field {
            Field::U8(value) => writer.u8(*value),
            Field::U16(value) => writer.u16(*value),
            Field::U32(value) => writer.u32(*value),
            Field::U64(value) => writer.u64(*value),
            Field::Fixed(value) => writer.fixed(value),
            Field::Bytes(value) => writer.bytes(value),
        });
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        for field in &fields {
            match field {
                Field::U8(value) => prop_assert_eq!(reader.u8()?, *value),
                Field::U16(value) => prop_assert_eq!(reader.u16()?, *value),
                Field::U32(value) => prop_assert_eq!(reader.u32()?, *value),
                Field::U64(value) => prop_assert_eq!(reader.u64()?, *value),
                Field::Fixed(value) => prop_assert_eq!(&reader.fixed::<5>()?, value),
                Field::Bytes(value) => prop_assert_eq!(reader.bytes(50, "field")?, value),
            }
        }
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_reader_never_goes_beyond_its_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        steps in prop::collection::vec(0..6, 0..20),
    ) {
        let mut reader = Reader::new(&bytes);
        for step in steps {
            let _ = match step {
                0 => reader.u8().map(drop),
                1 => reader.u16().map(drop),
                2 => reader.u32().map(drop),
                3 => reader.u64().map(drop),
                4 => reader.fixed::<7>().map(drop),
                _ => reader.bytes(16, "field").map(|read| assert!(read.len() <= 16)),
            };
        }
        let _ = reader.finish();
    }

    #[test]
    fn a_box_id_holds_its_partition_and_110_bits_of_the_hash(
        birth in partition(),
        hash in any::<[u8; 32]>(),
        bit in 0_usize..256,
        elsewhere in partition(),
    ) {
        let id = BoxId::derive(birth, &hash);
        prop_assert_eq!(id.partition(), birth);
        let uuid = Uuid::from(id);
        prop_assert_eq!(uuid.get_version_num(), 8);
        prop_assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        prop_assert_eq!(BoxId::from_bytes(*id.as_bytes()), Ok(id));
        prop_assert_eq!(id.to_string().parse::<BoxId>(), Ok(id));
        prop_assert!(id.is_of_genesis(&hash));
        prop_assert!(id.shares_genesis_with(&BoxId::derive(elsewhere, &hash)));

        // Each of the first 110 bits is in the id, none after them.
        let mut other = hash;
        other[bit / 8] ^= 0x80 >> (bit % 8);
        prop_assert_eq!(id.is_of_genesis(&other), bit >= 110);
        prop_assert_eq!(id.shares_genesis_with(&BoxId::derive(birth, &other)), bit >= 110);
    }

    #[test]
    fn sixteen_bytes_are_a_box_id_only_if_they_are_a_uuid_8(bytes in any::<[u8; 16]>()) {
        let is_uuid_8 = bytes[6] >> 4 == 8 && bytes[8] >> 6 == 0b10;
        match BoxId::from_bytes(bytes) {
            Ok(id) => {
                prop_assert!(is_uuid_8);
                prop_assert_eq!(*id.as_bytes(), bytes);
            }
            Err(_) => prop_assert!(!is_uuid_8),
        }
    }

    #[test]
    fn an_address_reads_back_from_its_text(address in address()) {
        prop_assert_eq!(address.to_string().parse::<DeviceAddress>(), Ok(address));
    }

    #[test]
    fn texts_that_are_no_ids_are_refused(text in ".{0,80}") {
        prop_assert!(text.parse::<DeviceAddress>().is_err());
        prop_assert!(text.parse::<BoxId>().is_err());
        prop_assert!(text.parse::<ClusterId>().is_err());
        if let Ok(device) = text.parse::<DeviceId>() {
            prop_assert_eq!(device.to_string(), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn a_hash_falls_into_a_partition_of_the_cluster(
        hash in any::<[u8; 32]>(),
        power in 0_u32..=12,
        device in any::<[u8; 16]>(),
    ) {
        let count = PartitionCount::new(2_u16.pow(power)).unwrap();
        prop_assert!(count.of_hash(&hash).number() < count.get());
        prop_assert!(IdentifierHash::from_bytes(hash).partition(count).number() < count.get());
        prop_assert!(DeviceId::from_bytes(device).partition(count).number() < count.get());
    }

    #[test]
    fn any_text_is_an_identifier_in_one_form_or_none(text in "\\PC{0,40}|[-+0-9() .]{0,24}|[a-z0-9.@-]{3,40}") {
        for parse in [Identifier::phone, Identifier::email] {
            if let Ok(identifier) = parse(&text) {
                prop_assert_eq!(parse(identifier.as_str()), Ok(identifier.clone()));
                prop_assert!(identifier.as_str().is_ascii());
                let debug = format!("{identifier:?}");
                prop_assert!(!debug.contains(identifier.as_str()));
            }
        }
    }

    #[test]
    fn a_phone_number_is_the_same_however_it_is_written(
        digits in "[1-9][0-9]{7,14}",
        separators in prop::collection::vec("[-(). ]{0,2}", 16),
        zeros in any::<bool>(),
    ) {
        let mut text = String::from(if zeros { "00" } else { "+" });
        for (digit, separator) in digits.chars().zip(&separators) {
            text.push_str(separator);
            text.push(digit);
        }
        let phone = Identifier::phone(&text)?;
        prop_assert_eq!(phone.as_str(), format!("+{digits}"));
    }

    #[test]
    fn an_email_address_is_the_same_in_any_case(
        text in "[a-z0-9]{1,8}([.+_-][a-z0-9]{1,8}){0,2}@([a-z][a-z0-9]{0,8}\\.){1,3}[a-z]{2,6}",
        upper in any::<u64>(),
    ) {
        let mixed: String = text
            .chars()
            .enumerate()
            .map(|(i, c)| if upper >> (i % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c })
            .collect();
        let email = Identifier::email(&format!(" {mixed}\t"))?;
        prop_assert_eq!(email.as_str(), text);
    }

    #[test]
    fn what_is_not_ascii_is_refused_as_such_wherever_it_stands(
        other in any::<char>().prop_filter("ASCII", |c| !c.is_ascii()),
        at in 1..15_usize,
    ) {
        // Letters that look the same, or become the same in lower case (the Kelvin sign), are others.
        let within = |text: &str| format!("{}{other}{}", &text[..at.min(text.len() - 1)], &text[at.min(text.len() - 1)..]);
        let email = Identifier::email(&within("ada.k@example.org"));
        prop_assert_eq!(email, Err(IdentifierError::EmailNotAscii));
        let phone = Identifier::phone(&within("+491701234567"));
        prop_assert_eq!(phone, Err(IdentifierError::NotAPhoneDigit));
    }

    #[test]
    fn a_tag_makes_another_address(tag in "[a-z0-9]{1,8}") {
        let plain = Identifier::email("ada@example.org")?;
        let tagged = Identifier::email(&format!("Ada+{tag}@Example.ORG"))?;
        prop_assert_eq!(tagged.as_str(), format!("ada+{tag}@example.org"));
        prop_assert_ne!(tagged, plain);
    }
}

#[test]
fn what_is_no_phone_number_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", IdentifierError::NoCountryCode),
        ("0170 1234567", IdentifierError::NoCountryCode),
        ("1701234567", IdentifierError::NoCountryCode),
        ("+0170 1234567", IdentifierError::NoCountryCode),
        ("000170 1234567", IdentifierError::NoCountryCode),
        ("+4917", IdentifierError::PhoneLength),
        ("+1234567", IdentifierError::PhoneLength),
        ("+1234567890123456", IdentifierError::PhoneLength),
        ("+49 170 12345x7", IdentifierError::NotAPhoneDigit),
        ("++49 170 1234567", IdentifierError::NotAPhoneDigit),
        ("+49 170+1234567", IdentifierError::NotAPhoneDigit),
        ("+49 170 123４567", IdentifierError::NotAPhoneDigit),
        ("+49\u{a0}170 1234567", IdentifierError::NotAPhoneDigit),
    ] {
        assert_eq!(Identifier::phone(text), Err(reason), "{text}");
    }
    for (text, normal) in [
        ("+49 (170) 123-45.67", "+491701234567"),
        ("0049 170 1234567", "+491701234567"),
        ("(+1) 212 555 0100", "+12125550100"),
        ("+12345678", "+12345678"),
        ("+123456789012345", "+123456789012345"),
    ] {
        assert_eq!(Identifier::phone(text).unwrap().as_str(), normal);
    }
}

#[test]
fn what_is_no_email_address_is_refused_with_the_reason() {
    let long = |local: usize, label: usize, labels: usize| {
        let domain = vec!["d".repeat(label); labels].join(".");
        format!("{}@{domain}.example", "l".repeat(local))
    };
    for (text, reason) in [
        ("", IdentifierError::EmailAtSign),
        ("ada", IdentifierError::EmailAtSign),
        ("ada@b@example.org", IdentifierError::EmailAtSign),
        ("ada@exämple.org", IdentifierError::EmailNotAscii),
        ("@example.org", IdentifierError::EmailLocalPart),
        (".ada@example.org", IdentifierError::EmailLocalPart),
        ("ada.@example.org", IdentifierError::EmailLocalPart),
        ("a..b@example.org", IdentifierError::EmailLocalPart),
        ("a b@example.org", IdentifierError::EmailLocalPart),
        ("\"ada\"@example.org", IdentifierError::EmailLocalPart),
        ("ada(x)@example.org", IdentifierError::EmailLocalPart),
        ("ada\r\nbcc:x@example.org", IdentifierError::EmailLocalPart),
        ("ada@example.org\r\nx", IdentifierError::EmailDomain),
        ("ada@", IdentifierError::EmailDomain),
        ("ada@localhost", IdentifierError::EmailDomain),
        ("ada@example.", IdentifierError::EmailDomain),
        ("ada@.example.org", IdentifierError::EmailDomain),
        ("ada@-example.org", IdentifierError::EmailDomain),
        ("ada@example-.org", IdentifierError::EmailDomain),
        ("ada@exa_mple.org", IdentifierError::EmailDomain),
        ("ada@[192.0.2.1]", IdentifierError::EmailDomain),
        ("ada@192.0.2.1", IdentifierError::EmailDomain),
        (&long(65, 5, 1), IdentifierError::EmailLength),
        (&long(64, 60, 4), IdentifierError::EmailLength),
        (&long(1, 64, 1), IdentifierError::EmailDomain),
    ] {
        assert_eq!(Identifier::email(text), Err(reason), "{text:?}");
    }
    assert!(Identifier::email(&long(64, 63, 2)).is_ok());
    let odd = "!#$%&'*+-/=?^_`{|}~@example.org";
    assert_eq!(Identifier::email(odd).unwrap().as_str(), odd);
}

#[test]
fn an_identifiers_hash_depends_on_pepper_kind_and_text() {
    let hash = |pepper: u8, identifier| {
        IdentifierHash::of(&[pepper; 32], &identifier)
            .as_bytes()
            .to_vec()
    };
    let hashes = [
        hash(1, Identifier::phone("+491701234567").unwrap()),
        hash(2, Identifier::phone("+491701234567").unwrap()),
        hash(1, Identifier::phone("+491701234568").unwrap()),
        hash(1, Identifier::email("ada@example.org").unwrap()),
    ];
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
    assert_eq!(
        hashes[0],
        hash(1, Identifier::phone("0049 170 1234567").unwrap())
    );
}

#[test]
fn an_envelope_digest_depends_on_all_that_the_sender_chose() {
    let id = |n: u8| BoxId::derive(PartitionId::new(1).unwrap(), &[n; 32]);
    let digests = [
        EnvelopeDigest::of(&id(1), 0, None, b"body"),
        EnvelopeDigest::of(&id(2), 0, None, b"body"),
        EnvelopeDigest::of(&id(1), 1, None, b"body"),
        EnvelopeDigest::of(&id(1), 0, Some(0), b"body"),
        EnvelopeDigest::of(&id(1), 0, Some(1), b"body"),
        EnvelopeDigest::of(&id(1), 0, None, b"bodz"),
    ];
    for (i, digest) in digests.iter().enumerate() {
        assert!(!digests[i + 1..].contains(digest));
    }
    assert_eq!(digests[0], EnvelopeDigest::of(&id(1), 0, None, b"body"));
}

#[test]
fn statements_are_the_bytes_that_the_protocol_says() {
    let email = Identifier::email("a@b.cd").unwrap();
    let mut expected = vec![0, 0, 0, 18];
    expected.extend_from_slice(b"rossby register v1");
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(&[2, 0, 0, 0, 6]);
    expected.extend_from_slice(b"a@b.cd");
    expected.extend_from_slice(&[1, 0, 0, 0, 32]);
    // SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    expected.extend_from_slice(&[
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22,
        0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00,
        0x15, 0xad,
    ]);
    assert_eq!(
        statement::register(&[7; 32], &email, true, b"abc"),
        expected
    );

    let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[9; 32]);
    let device = DeviceId::from_bytes([4; 16]);
    let mut expected = vec![0, 0, 0, 19];
    expected.extend_from_slice(b"rossby authorize v1");
    expected.extend_from_slice(box_id.as_bytes());
    expected.extend_from_slice(&[4; 16]);
    expected.extend_from_slice(&[2, 0, 0, 0, 6]);
    expected.extend_from_slice(b"a@b.cd");
    expected.extend_from_slice(&[0, 0, 0, 8]);
    expected.extend_from_slice(b"12345678");
    assert_eq!(
        statement::authorize(&box_id, &device, &email, "12345678"),
        expected
    );

    let of_identifier = |label: &str, rest: &[u8]| {
        let mut expected = vec![0, 0, 0, label.len() as u8];
        expected.extend_from_slice(label.as_bytes());
        expected.extend_from_slice(box_id.as_bytes());
        expected.extend_from_slice(&[4; 16]);
        expected.extend_from_slice(&[2, 0, 0, 0, 6]);
        expected.extend_from_slice(b"a@b.cd");
        expected.extend_from_slice(rest);
        expected
    };
    assert_eq!(
        statement::add_identifier(&box_id, &device, &email, true),
        of_identifier("rossby add identifier v1", &[1])
    );
    assert_eq!(
        statement::remove_identifier(&box_id, &device, &email, 258),
        of_identifier("rossby remove identifier v1", &[0, 0, 0, 0, 0, 0, 1, 2])
    );
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
    let bytes = [0xff, 0xff, 0xff, 0xff, 1, 2, 3];
    assert_eq!(
        Reader::new(&bytes).bytes(100, "body"),
        Err(WireError::TooLong("body"))
    );
    let bytes = [0, 0, 0, 4, 1, 2, 3];
    assert_eq!(
        Reader::new(&bytes).bytes(100, "body"),
        Err(WireError::Truncated)
    );
    let mut reader = Reader::new(&bytes);
    reader.u32().unwrap();
    assert_eq!(reader.finish(), Err(WireError::Trailing(3)));
}
