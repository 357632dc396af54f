//! What became of the box's devices without this one: who has one of them, or the recovery key, can add others and remove them, and
//! the owner is told of each.

use rossby_domain::chain::{Change, KeyRecord, Link, Signer};
use rossby_domain::ids::DeviceId;

use super::{Device, DeviceError};
use crate::linking::DeviceName;
use crate::store::{Batch, DeviceNameRow, NewsRow, StoreError};

/// A device was added to this box, or removed, and not by this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNews {
    /// The version of the box's chain that it came with.
    pub version: u64,
    /// The device.
    pub device: DeviceId,
    /// What it is called, if this device knows.
    pub name: Option<DeviceName>,
    /// Whether it was added; otherwise it was removed.
    pub added: bool,
    /// Which device did it; `None` for the recovery key.
    pub by: Option<DeviceId>,
}

impl Device {
    /// What became of the box's devices and the owner was not told yet ([`Self::mark_told`]), the earliest first.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn device_news(&self) -> Result<Vec<DeviceNews>, DeviceError> {
        let rows = self.store.all::<NewsRow>()?;
        let identity = self.identity();
        let links = identity.record().links().iter();
        let told = links.filter(|link| rows.iter().any(|(version, _)| *version == link.version));
        told.map(|link| self.news_of(link)).collect()
    }

    /// Keeps that the owner was told of these.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn mark_told(&self, news: &[DeviceNews]) -> Result<(), DeviceError> {
        if news.is_empty() {
            return Ok(());
        }
        Ok(self.store.write::<_, StoreError>(|batch| {
            let mut told = news.iter();
            told.try_for_each(|news| batch.remove::<NewsRow>(&news.version))
        })?)
    }

    fn news_of(&self, link: &Link) -> Result<DeviceNews, DeviceError> {
        let (device, added) = match link.change {
            Change::AddDevice { key } => (DeviceId::of_key(&key), true),
            Change::RemoveDevice { device } => (device, false),
        };
        let name = self.store.get::<DeviceNameRow>(&device)?;
        Ok(DeviceNews {
            version: link.version,
            device,
            name: name.map(|row| row.name),
            added,
            by: match link.signer {
                Signer::Device(device) => Some(device),
                Signer::Recovery => None,
            },
        })
    }

    /// Keeps which links of the own chain are new here and signed by others.
    pub(super) fn note_news(
        &self,
        batch: &mut Batch<'_>,
        known: &KeyRecord,
        shown: &KeyRecord,
    ) -> Result<(), StoreError> {
        let own = Signer::Device(self.identity().device());
        let is_news = |link: &&Link| link.version > known.version() && link.signer != own;
        let mut news = shown.links().iter().filter(is_news);
        news.try_for_each(|link| batch.put(&link.version, &NewsRow))
    }
}
