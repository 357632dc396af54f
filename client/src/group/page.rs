//! What one device says about a group.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{KeyRecord, SignatureBytes, verify_signature};
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId};
use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError, Writer};

use super::{GroupId, GroupName};

/// People that one device says to be in or out.
pub const MAX_VERDICTS: usize = 512;

/// The device that writes a page.
#[derive(Clone, Copy)]
pub struct Author<'a> {
    /// Its address.
    pub address: DeviceAddress,
    /// Its key.
    pub key: &'a SigningKey,
    /// The time.
    pub now: Timestamp,
}

/// What one device says about a group: all of it, in each version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Whose page it is.
    pub by: DeviceAddress,
    /// Counts up. Of two pages of a device the later one holds.
    pub version: u64,
    /// What it calls the group, and how many names there were before: the last one holds.
    pub name: Option<(u64, GroupName)>,
    /// How often each was put in or out: odd is in. Of itself: up to which such number it has left.
    pub verdicts: BTreeMap<BoxId, u32>,
    /// By the device, over all of it and the group's id.
    pub signature: SignatureBytes,
}

impl Page {
    /// A page that says nothing yet.
    #[must_use]
    pub fn blank(by: DeviceAddress) -> Self {
        Self {
            by,
            version: 0,
            name: None,
            verdicts: BTreeMap::new(),
            signature: [0; 64],
        }
    }

    /// The next version, signed. It is of the time, so that a device that was set back to an older copy of itself does not give
    /// one twice.
    pub(super) fn sign(&mut self, group: &GroupId, author: &Author<'_>) {
        let next = self.version.saturating_add(1);
        self.version = next.max(author.now.as_millis());
        self.signature = author.key.sign(&self.signed_bytes(group)).to_bytes();
    }

    /// Whether the device signed it, as one that its box still has.
    #[must_use]
    pub fn is_signed(&self, group: &GroupId, record: &KeyRecord) -> bool {
        let box_is_its = self.by.box_id.is_of_genesis(&record.genesis_hash());
        let key = record.signing_key(&self.by.device).filter(|_| box_is_its);
        key.is_some_and(|key| verify_signature(key, &self.signed_bytes(group), &self.signature))
    }

    fn signed_bytes(&self, group: &GroupId) -> Vec<u8> {
        let head = Writer::labelled("rossby group page v1");
        self.write_body(head.fixed(group.conversation().as_bytes()))
            .finish()
    }

    fn write_body(&self, writer: Writer) -> Writer {
        let (stamp, name) = match &self.name {
            Some((stamp, name)) => (*stamp, name.as_str()),
            None => (0, ""),
        };
        let count = u16::try_from(self.verdicts.len()).unwrap_or(u16::MAX);
        let writer = writer
            .fixed(self.by.box_id.as_bytes())
            .fixed(self.by.device.as_bytes())
            .u64(self.version)
            .u64(stamp)
            .bytes(name.as_bytes())
            .u16(count);
        self.verdicts.iter().fold(writer, |writer, (who, count)| {
            writer.fixed(who.as_bytes()).u32(*count)
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.write_body(Writer::default())
            .fixed(&self.signature)
            .finish()
    }

    /// The page in these bytes.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let page = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(page)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let by = DeviceAddress {
            box_id: read_box(reader)?,
            device: DeviceId::from_bytes(reader.fixed()?),
        };
        let (version, stamp) = (reader.u64()?, reader.u64()?);
        let name = std::str::from_utf8(reader.bytes(GroupName::MAX_BYTES, "name")?);
        let name = match (stamp, name) {
            (0, Ok("")) => None,
            (1.., Ok(text)) => Some(GroupName::new(text).map_err(|_| WireError::Invalid("name"))?),
            _ => return Err(WireError::Invalid("name")),
        };
        let count = usize::from(reader.u16()?);
        if count > MAX_VERDICTS {
            return Err(WireError::TooLong("page"));
        }
        let mut verdicts = BTreeMap::new();
        for _ in 0..count {
            let (who, count) = (read_box(reader)?, reader.u32()?);
            // In rising order: one value, one encoding.
            if verdicts
                .last_key_value()
                .is_some_and(|(last, _)| *last >= who)
            {
                return Err(WireError::Invalid("order of members"));
            }
            verdicts.insert(who, count);
        }
        Ok(Self {
            by,
            version,
            name: name.map(|name| (stamp, name)),
            verdicts,
            signature: reader.fixed()?,
        })
    }

    /// Whether it holds against another page of the same device. Of two with one version, which no device of ours
    /// signs, some one must hold everywhere.
    pub(super) fn is_after(&self, other: &Self) -> bool {
        (self.version, self.encode()) > (other.version, other.encode())
    }
}

pub(super) fn read_box(reader: &mut Reader<'_>) -> Result<BoxId, WireError> {
    BoxId::from_bytes(reader.fixed()?).map_err(|_| WireError::Invalid("box id"))
}
