//! What the sender signs.

use rossby_domain::chain::{ChainHash, Change, KeyRecord, SignatureBytes, SigningPublicKey};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId};
use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::layout;

/// The version of the inner layout.
pub(super) const INNER_VERSION: u8 = 1;

/// Which conversation a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConversationId([u8; 16]);

impl ConversationId {
    /// The conversation between two boxes: the same from both sides.
    #[must_use]
    pub fn direct(one: &BoxId, other: &BoxId) -> Self {
        let (first, second) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        let bytes = Writer::labelled("rossby direct conversation v1")
            .fixed(first.as_bytes())
            .fixed(second.as_bytes())
            .finish();
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let mut id = [0; 16];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// The conversation with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A point of an identity chain: two that agree on it have seen the same chain up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPoint {
    /// The version.
    pub version: u64,
    /// The hash of the link of that version, or of the genesis for version 0.
    pub hash: ChainHash,
}

impl ChainPoint {
    /// The head of a record's chain.
    #[must_use]
    pub fn head(record: &KeyRecord) -> Self {
        Self {
            version: record.version(),
            hash: record.head(),
        }
    }

    /// The point of this version of a record's chain; `None` beyond its head.
    #[must_use]
    pub fn at(record: &KeyRecord, version: u64) -> Option<Self> {
        let hash = match usize::try_from(version).ok()?.checked_sub(1) {
            None => record.genesis_hash(),
            Some(index) => record.links().get(index)?.hash(),
        };
        Some(Self { version, hash })
    }

    /// Whether a record's chain goes through this point.
    #[must_use]
    pub fn is_on(&self, record: &KeyRecord) -> bool {
        Self::at(record, self.version) == Some(*self)
    }
}

/// The signing key of a device that was live at a version of a record's chain. A device that was
/// removed later has still written what it wrote before.
pub(super) fn signing_key_at(
    record: &KeyRecord,
    version: u64,
    device: &DeviceId,
) -> Option<SigningPublicKey> {
    let genesis = record.genesis();
    let mut key = (genesis.device() == *device).then_some(genesis.device_key);
    let links = usize::try_from(version).ok()?;
    for link in record.links().iter().take(links) {
        match &link.change {
            Change::AddDevice { key: added } if DeviceId::of_key(added) == *device => {
                key = Some(*added);
            }
            Change::RemoveDevice { device: removed } if removed == device => key = None,
            Change::AddDevice { .. } | Change::RemoveDevice { .. } => {}
        }
    }
    key
}

/// The signed part of an envelope, but for the commitment and the content's hash, which are
/// computed from what was decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) sender: DeviceAddress,
    pub(super) recipient: BoxId,
    pub(super) counter: Counter,
    pub(super) conversation: ConversationId,
    pub(super) written_at: Timestamp,
    pub(super) sender_chain: ChainPoint,
    pub(super) recipient_chain: ChainPoint,
}

impl Statement {
    /// The bytes as they stand in the envelope.
    fn write(&self, writer: Writer) -> Writer {
        writer
            .fixed(self.sender.box_id.as_bytes())
            .fixed(self.sender.device.as_bytes())
            .fixed(self.recipient.as_bytes())
            .u64(self.counter.0)
            .fixed(self.conversation.as_bytes())
            .u64(self.written_at.as_millis())
            .u64(self.sender_chain.version)
            .fixed(&self.sender_chain.hash)
            .u64(self.recipient_chain.version)
            .fixed(&self.recipient_chain.hash)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            sender: DeviceAddress {
                box_id: read_box(reader)?,
                device: DeviceId::from_bytes(reader.fixed()?),
            },
            recipient: read_box(reader)?,
            counter: Counter(reader.u64()?),
            conversation: ConversationId(reader.fixed()?),
            written_at: Timestamp::from_millis(reader.u64()?),
            sender_chain: ChainPoint {
                version: reader.u64()?,
                hash: reader.fixed()?,
            },
            recipient_chain: ChainPoint {
                version: reader.u64()?,
                hash: reader.fixed()?,
            },
        })
    }

    /// What the sender's device signs.
    pub(super) fn signed_bytes(&self, commitment: &[u8; 32], content: &[u8]) -> Vec<u8> {
        let writer = Writer::labelled("rossby envelope v1")
            .u8(layout::VERSION)
            .u8(layout::SUITE);
        self.write(writer.u8(INNER_VERSION))
            .fixed(commitment)
            .fixed(&Sha256::digest(content).into())
            .finish()
    }

    /// The inner bytes, not yet padded.
    pub(super) fn write_inner(&self, signature: &SignatureBytes, content: &[u8]) -> Vec<u8> {
        self.write(Writer::default().u8(INNER_VERSION))
            .fixed(signature)
            .bytes(content)
            .finish()
    }
}

fn read_box(reader: &mut Reader<'_>) -> Result<BoxId, WireError> {
    BoxId::from_bytes(reader.fixed()?).map_err(|_| WireError::Invalid("box id"))
}

/// Inner bytes, parsed and not yet trusted.
pub(super) struct Inner<'a> {
    pub(super) statement: Statement,
    pub(super) signature: SignatureBytes,
    pub(super) content: &'a [u8],
    pub(super) padding: &'a [u8],
}

impl<'a> Inner<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != INNER_VERSION {
            return Err(WireError::Invalid("inner version"));
        }
        let statement = Statement::read(&mut reader)?;
        let signature = reader.fixed()?;
        let content = reader.bytes(layout::MAX_CONTENT_BYTES, "content")?;
        let read = layout::INNER_HEAD_BYTES + content.len();
        let padding = bytes.get(read..).ok_or(WireError::Truncated)?;
        Ok(Self {
            statement,
            signature,
            content,
            padding,
        })
    }
}
