//! What a box's devices say to each other: copies of what one of them sent, and what they are called.
//!
//! Word of this kind travels like any other content, sealed, to the box's own queue. It is believed only
//! if one of the box's own devices signed it; from anybody else it is content of a kind that is not known.
//!
//! ```text
//!   u16 256, u8 1   copy of what the signing device sent:
//!                   16 recipient box, u64 counter, u64 sequence, u64 when it was written,
//!                   16 conversation, u64+32 version and hash of the recipient's chain,
//!                   u32+bytes what the sender calls the recipient, u32+bytes the content
//!   u16 257, u8 1   what devices are called: u8 how many; of each: 16 device,
//!                   u64 when it was called so, u32+bytes the name
//!   u16 258, u8 1   pages of a group: u32+bytes, as group/word.rs has them
//!   u16 259, u8 1   the box's profile: u32+bytes, as profile.rs has them
//!   u16 260, u8 1   what the owner says of others: u8 how many; of each u32+bytes, as owner/contact.rs has them
//!   u16 261, u8 1   what the owner has chosen: u32+bytes, as owner/choices.rs has it
//! ```

use rossby_domain::chain::MAX_DEVICES;
use rossby_domain::ids::{BoxId, Counter, DeviceId, Sequence};
use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError, Writer};

use super::content::Content;
use super::layout::MAX_CONTENT_BYTES;
use super::statement::{ChainPoint, ConversationId};
use crate::crypto::secret::SecretBytes;
use crate::group::Word;
use crate::linking::DeviceName;
use crate::owner::{Choices, ContactWord, MAX_NAME_BYTES};
use crate::profile::ProfileWord;

const KIND_COPY: u16 = 256;
const KIND_NAMES: u16 = 257;
const KIND_GROUP: u16 = 258;
const KIND_PROFILE: u16 = 259;
const KIND_CONTACTS: u16 = 260;
const KIND_CHOICES: u16 = 261;
const VERSION: u8 = 1;
/// Kinds of content that are for the box's own devices.
const KINDS: std::ops::RangeInclusive<u16> = KIND_COPY..=511;

/// Bytes of what a sender calls a recipient.
pub const MAX_LABEL_BYTES: usize = MAX_NAME_BYTES;
/// More than a copy has beside the content that it is of.
const COPY_HEAD_BYTES: usize = 3 + 16 + 3 * 8 + 16 + 40 + 4 + MAX_LABEL_BYTES + 4;
/// The most bytes of content that a message may have, so that there can be a copy of it.
pub const MAX_COPIED_BYTES: usize = MAX_CONTENT_BYTES - COPY_HEAD_BYTES;

/// A copy of something that one of the box's devices sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentCopy {
    /// The box that it went to.
    pub recipient: BoxId,
    /// The counter that it was stored under: with the signing device, the envelope's id.
    pub counter: Counter,
    /// Its place in the recipient's box.
    pub sequence: Sequence,
    /// When it was written.
    pub written_at: Timestamp,
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// The recipient's chain that it was sealed for.
    pub recipient_chain: ChainPoint,
    /// What the sender calls the recipient; empty if they have no name.
    pub label: String,
    /// The bytes of the content.
    pub content: SecretBytes,
}

/// What a device is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The device.
    pub device: DeviceId,
    /// When it was called so. Of two names the later one holds.
    pub at: Timestamp,
    /// The name.
    pub name: DeviceName,
}

/// Word from one of a box's devices to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Between {
    /// A copy of what it sent.
    Copy(SentCopy),
    /// What devices are called.
    Names(Vec<Named>),
    /// What it knows of a group.
    Group(Word),
    /// Which profile the box has, under which key.
    Profile(ProfileWord),
    /// What the owner says of others; at most 255.
    Contacts(Vec<ContactWord>),
    /// What the owner has chosen.
    Choices(Choices),
}

impl Between {
    /// Whether these are the bytes of content that is for the box's own devices.
    #[must_use]
    pub fn is(content: &[u8]) -> bool {
        let kind = content.first_chunk().map(|kind| u16::from_be_bytes(*kind));
        kind.is_some_and(|kind| KINDS.contains(&kind))
    }

    /// The word as content, which is how it is sealed.
    #[must_use]
    pub fn to_content(&self) -> Content {
        let (kind, writer) = match self {
            Self::Copy(copy) => (KIND_COPY, write_copy(copy)),
            Self::Names(names) => (KIND_NAMES, write_names(names)),
            Self::Group(word) => (KIND_GROUP, Writer::default().bytes(&word.encode())),
            Self::Profile(word) => (KIND_PROFILE, Writer::default().bytes(&word.encode())),
            Self::Contacts(words) => (KIND_CONTACTS, write_contacts(words)),
            Self::Choices(choices) => (KIND_CHOICES, Writer::default().bytes(&choices.encode())),
        };
        Content::Unknown {
            kind,
            version: VERSION,
            body: writer.finish(),
        }
    }

    /// The word in the bytes of a content. `None` if it is something else, or of a later version.
    ///
    /// # Errors
    /// [`WireError`] if a kind that is known is malformed.
    pub fn decode(content: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(content);
        let (kind, version) = (reader.u16()?, reader.u8()?);
        let word = match (kind, version) {
            (KIND_COPY, VERSION) => Self::Copy(read_copy(&mut reader)?),
            (KIND_NAMES, VERSION) => Self::Names(read_names(&mut reader)?),
            (KIND_GROUP, VERSION) => {
                match Word::decode(reader.bytes(MAX_CONTENT_BYTES, "pages")?)? {
                    Some(word) => Self::Group(word),
                    None => return Ok(None),
                }
            }
            (KIND_PROFILE, VERSION) => {
                match ProfileWord::decode(reader.bytes(MAX_CONTENT_BYTES, "profile")?)? {
                    Some(word) => Self::Profile(word),
                    None => return Ok(None),
                }
            }
            (KIND_CONTACTS, VERSION) => Self::Contacts(read_contacts(&mut reader)?),
            (KIND_CHOICES, VERSION) => {
                match Choices::decode(reader.bytes(MAX_CONTENT_BYTES, "choices")?)? {
                    Some(choices) => Self::Choices(choices),
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        reader.finish()?;
        Ok(Some(word))
    }
}

fn write_copy(copy: &SentCopy) -> Writer {
    Writer::default()
        .fixed(copy.recipient.as_bytes())
        .u64(copy.counter.0)
        .u64(copy.sequence.0)
        .u64(copy.written_at.as_millis())
        .fixed(copy.conversation.as_bytes())
        .u64(copy.recipient_chain.version)
        .fixed(&copy.recipient_chain.hash)
        .bytes(copy.label.as_bytes())
        .bytes(copy.content.expose())
}

fn read_copy(reader: &mut Reader<'_>) -> Result<SentCopy, WireError> {
    let invalid = WireError::Invalid;
    Ok(SentCopy {
        recipient: BoxId::from_bytes(reader.fixed()?).map_err(|_| invalid("box id"))?,
        counter: Counter(reader.u64()?),
        sequence: Sequence(reader.u64()?),
        written_at: Timestamp::from_millis(reader.u64()?),
        conversation: ConversationId::from_bytes(reader.fixed()?),
        recipient_chain: ChainPoint {
            version: reader.u64()?,
            hash: reader.fixed()?,
        },
        label: std::str::from_utf8(reader.bytes(MAX_LABEL_BYTES, "label")?)
            .map_err(|_| invalid("label"))?
            .to_owned(),
        content: read_content(reader.bytes(MAX_CONTENT_BYTES, "content")?)?,
    })
}

/// The content that a copy is of: something that a person can have said. What this version does not
/// know, a later one may.
fn read_content(bytes: &[u8]) -> Result<SecretBytes, WireError> {
    if Between::is(bytes) || Content::decode_kept(bytes).is_err() {
        return Err(WireError::Invalid("content of a copy"));
    }
    Ok(SecretBytes::new(bytes.to_vec()))
}

fn write_names(names: &[Named]) -> Writer {
    let names = names.get(..names.len().min(MAX_DEVICES)).unwrap_or(names);
    let count = u8::try_from(names.len()).unwrap_or(u8::MAX);
    names
        .iter()
        .fold(Writer::default().u8(count), |writer, named| {
            writer
                .fixed(named.device.as_bytes())
                .u64(named.at.as_millis())
                .bytes(named.name.as_str().as_bytes())
        })
}

/// More than that no content holds.
fn write_contacts(words: &[ContactWord]) -> Writer {
    let words = words.get(..words.len().min(255)).unwrap_or(words);
    let count = u8::try_from(words.len()).unwrap_or(u8::MAX);
    words
        .iter()
        .fold(Writer::default().u8(count), |writer, word| {
            writer.bytes(&word.encode())
        })
}

/// Those that can be read: the others are none the worse for one of a later version.
fn read_contacts(reader: &mut Reader<'_>) -> Result<Vec<ContactWord>, WireError> {
    let count = reader.u8()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let bytes = reader.bytes(MAX_CONTENT_BYTES, "word of somebody")?;
        words.extend(ContactWord::decode(bytes).ok().flatten());
    }
    Ok(words)
}

fn read_names(reader: &mut Reader<'_>) -> Result<Vec<Named>, WireError> {
    let count = usize::from(reader.u8()?);
    if count > MAX_DEVICES {
        return Err(WireError::TooLong("list of names"));
    }
    let read = |_| {
        let device = DeviceId::from_bytes(reader.fixed()?);
        let at = Timestamp::from_millis(reader.u64()?);
        let name = reader.bytes(DeviceName::MAX_BYTES, "name")?;
        let name = std::str::from_utf8(name).ok().map(DeviceName::new);
        match name {
            Some(Ok(name)) => Ok(Named { device, at, name }),
            _ => Err(WireError::Invalid("name")),
        }
    };
    (0..count).map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::PartitionId;

    use super::*;
    use crate::profile::ProfileKey;

    prop_compose! {
        fn copy()(
            seed: u8,
            numbers: [u64; 3],
            point: (u64, [u8; 32]),
            label in "[a-z]{0,20}",
            text in ".{0,100}",
        ) -> SentCopy {
            let content = Content::Text(text).encode().unwrap().to_vec();
            SentCopy {
                recipient: BoxId::derive(PartitionId::new(3).unwrap(), &[seed; 32]),
                counter: Counter(numbers[0]),
                sequence: Sequence(numbers[1]),
                written_at: Timestamp::from_millis(numbers[2]),
                conversation: ConversationId::from_bytes([seed; 16]),
                recipient_chain: ChainPoint { version: point.0, hash: point.1 },
                label,
                content: SecretBytes::new(content),
            }
        }
    }

    fn names() -> impl Strategy<Value = Vec<Named>> {
        let named = (any::<[u8; 16]>(), any::<u64>(), "[a-z]{1,20}");
        let named = named.prop_map(|(device, at, name)| Named {
            device: DeviceId::from_bytes(device),
            at: Timestamp::from_millis(at),
            name: DeviceName::new(&name).unwrap(),
        });
        proptest::collection::vec(named, 0..=MAX_DEVICES)
    }

    proptest! {
        #[test]
        fn what_devices_say_comes_back_as_it_was(copy in copy(), names in names(), key: [u8; 32]) {
            let profile = ProfileWord { key: ProfileKey::from_bytes(key), version: copy.counter.0 };
            for word in [Between::Copy(copy), Between::Names(names), Between::Profile(profile)] {
                let content = word.to_content().encode().unwrap();
                prop_assert!(Between::is(&content));
                prop_assert_eq!(Between::decode(&content), Ok(Some(word)));
            }
        }

        #[test]
        fn what_can_be_read_is_written_as_the_same_bytes(
            kind in 255..=261_u16,
            version in 0..=2_u8,
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = Writer::default().u16(kind).u8(version).finish();
            bytes.extend(rest);
            // Of contacts those are left out that can't be read.
            if let Ok(Some(word)) = Between::decode(&bytes)
                && !matches!(word, Between::Contacts(_))
            {
                let again = word.to_content().encode().unwrap();
                prop_assert_eq!(again.as_slice(), bytes.as_slice());
            }
        }
    }

    #[test]
    fn what_people_say_is_not_taken_for_it() {
        for content in [Content::Text("hello".to_owned()), unknown(99), unknown(512)] {
            let bytes = content.encode().unwrap();
            assert!(!Between::is(&bytes));
            assert_eq!(Between::decode(&bytes), Ok(None));
        }
        let later = unknown(300).encode().unwrap();
        assert!(Between::is(&later));
        assert_eq!(Between::decode(&later), Ok(None));
        assert!(!Between::is(&[]));
    }

    fn unknown(kind: u16) -> Content {
        Content::Unknown {
            kind,
            version: 1,
            body: vec![1],
        }
    }

    #[test]
    fn a_copy_of_what_nobody_can_have_said_is_malformed() {
        let names = Between::Names(Vec::new()).to_content().encode().unwrap();
        for content in [&[], &[0][..], names.as_slice()] {
            let copy = SentCopy {
                content: SecretBytes::new(content.to_vec()),
                ..longest()
            };
            let bytes = Between::Copy(copy).to_content().encode().unwrap();
            let malformed = WireError::Invalid("content of a copy");
            assert_eq!(Between::decode(&bytes), Err(malformed));
        }
    }

    #[test]
    fn the_longest_message_fits_its_copy() {
        let content = Between::Copy(longest()).to_content().encode().unwrap();
        assert_eq!(content.len(), MAX_CONTENT_BYTES);
    }

    fn longest() -> SentCopy {
        SentCopy {
            recipient: BoxId::derive(PartitionId::new(3).unwrap(), &[1; 32]),
            counter: Counter(1),
            sequence: Sequence(1),
            written_at: Timestamp::from_millis(1),
            conversation: ConversationId::from_bytes([1; 16]),
            recipient_chain: ChainPoint {
                version: 1,
                hash: [1; 32],
            },
            label: "a".repeat(MAX_LABEL_BYTES),
            content: SecretBytes::new(vec![1; MAX_COPIED_BYTES]),
        }
    }
}
