//! The key record: a chain with the KEM keys of its live devices.
//!
//! Canonical bytes (version 1): `u8` 1; genesis; `u16` number of links and the links; `u8` number of
//! devices that have a KEM key, and for each, in rising order of device id: the id, the current KEM
//! key, `u8` 0 or 1 and, if 1, the previous KEM key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    ChainError, ChainHash, Change, DeviceKeys, Genesis, KemKey, Link, LinkRefusal, MAX_DEVICES,
    MAX_LINKS, MAX_LINKS_BY_DEVICES, MAX_LINKS_BY_RECOVERY, Signer, SigningPublicKey, check_key,
    verify_signature,
};
use crate::ids::DeviceId;
use crate::wire::{Reader, WireError, Writer};

const FORMAT: u8 = 1;

/// Whether signatures are checked while a record is put together. Structure always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signatures {
    Verify,
    Trust,
}

/// A key record: an identity's chain and its devices' KEM keys.
///
/// Records from outside come through [`KeyRecord::decode`], which verifies everything. The serde
/// form is for our own log and tables only, whose bytes were verified before they were written and
/// are guarded by checksums: it goes through [`KeyRecord::decode_trusted`], since a signature costs
/// about 50 us to verify and apply would pay it on every read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    genesis: Genesis,
    links: Vec<Link>,
    head: ChainHash,
    /// Live devices and their signing keys.
    live: BTreeMap<DeviceId, SigningPublicKey>,
    /// Devices that were live once and must not come back.
    removed: BTreeSet<DeviceId>,
    /// Keys of the live devices that have published a KEM key.
    keys: BTreeMap<DeviceId, DeviceKeys>,
}

impl KeyRecord {
    /// The most bytes that a record takes.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// The record of a new identity: a genesis and the first device's KEM key.
    ///
    /// # Errors
    /// [`ChainError::BadKey`], [`ChainError::NotAllowed`] if one key serves as device and recovery
    /// key, [`ChainError::BadKemKey`], [`ChainError::BadSignature`].
    pub fn new(genesis: Genesis, kem: KemKey) -> Result<Self, ChainError> {
        let device = genesis.device();
        let mut record = Self::of_genesis(genesis, Signatures::Verify)?;
        record.put_kem(device, kem, Signatures::Verify)?;
        Ok(record)
    }

    /// The record in these canonical bytes, all of it verified.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        Self::read(bytes, Signatures::Verify)
    }

    /// The record in bytes that we verified before we stored them: checks the structure and the
    /// hashes but no signature. Never for bytes from outside.
    ///
    /// # Errors
    /// Any [`ChainError`] but [`ChainError::BadSignature`].
    pub fn decode_trusted(bytes: &[u8]) -> Result<Self, ChainError> {
        Self::read(bytes, Signatures::Trust)
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Both counts are bound by MAX_LINKS and MAX_DEVICES.
        let links = u16::try_from(self.links.len()).unwrap_or(u16::MAX);
        let devices = u8::try_from(self.keys.len()).unwrap_or(u8::MAX);
        let mut writer = self.genesis.write(Writer::default().u8(FORMAT)).u16(links);
        for link in &self.links {
            writer = link.write(writer);
        }
        writer = writer.u8(devices);
        for keys in self.keys.values() {
            writer = keys.kem.write(writer.fixed(keys.device.as_bytes()));
            writer = match &keys.previous_kem {
                Some(previous) => previous.write(writer.u8(1)),
                None => writer.u8(0),
            };
        }
        writer.finish()
    }

    /// The chain's version: 0 with a genesis only, one more with each link.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.links.len() as u64
    }

    /// The hash of the last link, or of the genesis if there is none.
    #[must_use]
    pub fn head(&self) -> ChainHash {
        self.head
    }

    /// The genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The hash of the genesis.
    #[must_use]
    pub fn genesis_hash(&self) -> ChainHash {
        self.genesis.hash()
    }

    /// The links, oldest first.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The keys of the live devices that can be sealed to, in order of device id. A device that a
    /// link has just added is not among them until it has published a KEM key.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceKeys> {
        self.keys.values()
    }

    /// The keys of one live device, if it has published a KEM key.
    #[must_use]
    pub fn device(&self, device: &DeviceId) -> Option<&DeviceKeys> {
        self.keys.get(device)
    }

    /// The signing key of a live device.
    #[must_use]
    pub fn signing_key(&self, device: &DeviceId) -> Option<&SigningPublicKey> {
        self.live.get(device)
    }

    /// All live devices, in order of id.
    pub fn live_devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.live.keys()
    }

    /// Whether a device was live once and is not any more.
    #[must_use]
    pub fn is_removed(&self, device: &DeviceId) -> bool {
        self.removed.contains(device)
    }

    /// Whether the chain has this very link.
    #[must_use]
    pub fn has_link(&self, link: &Link) -> bool {
        let index = link.version.checked_sub(1);
        let index = index.and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.links.get(index)) == Some(link)
    }

    /// This record with one more link.
    ///
    /// # Errors
    /// [`ChainError::BrokenChain`], [`ChainError::NotAllowed`], [`ChainError::BadKey`],
    /// [`ChainError::BadSignature`].
    pub fn extend(&self, link: Link) -> Result<Self, ChainError> {
        let mut extended = self.clone();
        extended.push(link, Signatures::Verify)?;
        Ok(extended)
    }

    /// This record with a newer KEM key of a live device; the key it had becomes the previous one.
    ///
    /// # Errors
    /// [`ChainError::BadKemKey`], [`ChainError::BadSignature`].
    pub fn with_kem(&self, device: &DeviceId, kem: KemKey) -> Result<Self, ChainError> {
        let mut changed = self.clone();
        changed.put_kem(*device, kem, Signatures::Verify)?;
        Ok(changed)
    }

    fn of_genesis(genesis: Genesis, signatures: Signatures) -> Result<Self, ChainError> {
        if signatures == Signatures::Verify {
            check_key(&genesis.device_key)?;
            check_key(&genesis.recovery_key)?;
        }
        if genesis.device_key == genesis.recovery_key {
            return Err(ChainError::NotAllowed(LinkRefusal::RecoveryKey));
        }
        Ok(Self {
            head: genesis.hash(),
            live: BTreeMap::from([(genesis.device(), genesis.device_key)]),
            genesis,
            links: Vec::new(),
            removed: BTreeSet::new(),
            keys: BTreeMap::new(),
        })
    }

    fn push(&mut self, link: Link, signatures: Signatures) -> Result<(), ChainError> {
        if self.links.len() >= MAX_LINKS {
            return Err(ChainError::NotAllowed(LinkRefusal::ChainFull));
        }
        if link.version != self.version() + 1 || link.previous != self.head {
            return Err(ChainError::BrokenChain);
        }
        let signer = match &link.signer {
            Signer::Device(device) => self
                .live
                .get(device)
                .ok_or(ChainError::NotAllowed(LinkRefusal::SignerNotLive))?,
            Signer::Recovery => &self.genesis.recovery_key,
        };
        if signatures == Signatures::Verify {
            let signed =
                Link::signed_bytes(link.version, &link.previous, &link.change, &link.signer);
            if !verify_signature(signer, &signed, &link.signature) {
                return Err(ChainError::BadSignature("a link"));
            }
        }
        match &link.change {
            Change::AddDevice { key } => self.add_device(key, &link.signer, signatures)?,
            Change::RemoveDevice { device } => self.remove_device(device)?,
        }
        self.head = link.hash();
        self.links.push(link);
        Ok(())
    }

    fn add_device(
        &mut self,
        key: &SigningPublicKey,
        signer: &Signer,
        signatures: Signatures,
    ) -> Result<(), ChainError> {
        let most = match signer {
            Signer::Device(_) => MAX_LINKS_BY_DEVICES,
            Signer::Recovery => MAX_LINKS_BY_RECOVERY,
        };
        if self.links.len() >= most {
            return Err(ChainError::NotAllowed(LinkRefusal::ChainFull));
        }
        let device = DeviceId::of_key(key);
        if *key == self.genesis.recovery_key {
            return Err(ChainError::NotAllowed(LinkRefusal::RecoveryKey));
        }
        if self.live.contains_key(&device) {
            return Err(ChainError::NotAllowed(LinkRefusal::AlreadyLive));
        }
        if self.removed.contains(&device) {
            return Err(ChainError::NotAllowed(LinkRefusal::Removed));
        }
        if self.live.len() >= MAX_DEVICES {
            return Err(ChainError::NotAllowed(LinkRefusal::TooManyDevices));
        }
        if signatures == Signatures::Verify {
            check_key(key)?;
        }
        self.live.insert(device, *key);
        Ok(())
    }

    fn remove_device(&mut self, device: &DeviceId) -> Result<(), ChainError> {
        if !self.live.contains_key(device) {
            return Err(ChainError::NotAllowed(LinkRefusal::NotLive));
        }
        if self.live.len() == 1 {
            return Err(ChainError::NotAllowed(LinkRefusal::LastDevice));
        }
        self.live.remove(device);
        self.keys.remove(device);
        self.removed.insert(*device);
        Ok(())
    }

    fn put_kem(
        &mut self,
        device: DeviceId,
        kem: KemKey,
        signatures: Signatures,
    ) -> Result<(), ChainError> {
        let signing_key = *self
            .live
            .get(&device)
            .ok_or(ChainError::BadKemKey("the device is not live"))?;
        kem.check_form()?;
        let current = self.keys.get(&device).map(|keys| &keys.kem);
        if current.is_some_and(|current| kem.counter <= current.counter) {
            return Err(ChainError::BadKemKey("not newer than the current one"));
        }
        if signatures == Signatures::Verify && !kem.is_signed_by(&signing_key) {
            return Err(ChainError::BadSignature("a KEM key"));
        }
        let previous_kem = current.cloned();
        self.keys.insert(
            device,
            DeviceKeys {
                device,
                signing_key,
                kem,
                previous_kem,
            },
        );
        Ok(())
    }

    fn read(bytes: &[u8], signatures: Signatures) -> Result<Self, ChainError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(WireError::TooLong("key record").into());
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return Err(WireError::Invalid("version of a key record").into());
        }
        let mut record = Self::of_genesis(Genesis::read(&mut reader)?, signatures)?;
        for _ in 0..reader.u16()? {
            record.push(Link::read(&mut reader)?, signatures)?;
        }
        let mut last = None;
        for _ in 0..reader.u8()? {
            let device = DeviceId::from_bytes(reader.fixed()?);
            if last.is_some_and(|last| last >= device) {
                return Err(WireError::Invalid("order of devices").into());
            }
            last = Some(device);
            let kem = KemKey::read(&mut reader)?;
            match reader.u8()? {
                0 => {}
                1 => record.put_kem(device, KemKey::read(&mut reader)?, signatures)?,
                _ => return Err(WireError::Invalid("previous KEM key").into()),
            }
            record.put_kem(device, kem, signatures)?;
        }
        reader.finish()?;
        Ok(record)
    }
}

impl Serialize for KeyRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for KeyRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        Self::decode_trusted(&bytes).map_err(serde::de::Error::custom)
    }
}
