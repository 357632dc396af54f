//! How long mail may wait in this box: to say so, and to notice that somebody else has.
//!
//! Only a device of the box can have it shortened, by its signature. But one that was stolen and not revoked yet can, and then
//! what no device fetches at once is gone for all of them, so each device is told of a change that it did not make.

use std::time::Duration;

use super::devices::is_refused;
use super::receiving::QueueStatus;
use super::{Device, DeviceError};
use crate::connection::SetTtl;
use crate::registering;
use crate::store::TtlRow;

/// How often it is tried again when another device has said something else meanwhile.
const MAX_TRIES: u32 = 3;

impl Device {
    /// Sets how long messages may wait in this box, from the next one on; `None` for as long as the service allows. How
    /// long they may wait now.
    ///
    /// # Errors
    /// [`DeviceError::Call`], with `INVALID_ARGUMENT` for less than a minute.
    pub async fn set_ttl(&self, longest: Option<Duration>) -> Result<Duration, DeviceError> {
        let millis = |longest: Duration| u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let longest_ms = longest.map(millis);
        let signer = self.signer()?;
        let (identity, box_id) = (self.identity(), &signer.address.box_id);
        let mut tries = 0;
        loop {
            tries += 1;
            let number = self.queue_status().await?.ttl_number.saturating_add(1);
            let request = registering::set_ttl_request(&identity, box_id, longest_ms, number);
            let set = self.connection.call::<SetTtl>(&request, Some(&signer));
            match set.await.map_err(DeviceError::from) {
                Ok(set) => {
                    let ttl = Duration::from_millis(set.ttl_ms);
                    self.keep_ttl(number, ttl, true)?;
                    return Ok(ttl);
                }
                Err(error) if tries < MAX_TRIES && is_refused(&error, "TTL_NUMBER_USED") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How long messages may wait in this box, if that has changed and this device did not change it: told once.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn changed_ttl(&self) -> Result<Option<Duration>, DeviceError> {
        let row = self.store.get::<TtlRow>(&())?;
        let Some(row) = row.filter(|row| !row.told) else {
            return Ok(None);
        };
        let ttl = Duration::from_millis(row.ttl_ms);
        self.keep_ttl(row.number, ttl, true)?;
        Ok(Some(ttl))
    }

    /// Compares what the service says with what it said before.
    pub(super) fn note_ttl(&self, status: &QueueStatus) -> Result<(), DeviceError> {
        if status.ttl.is_zero() {
            return Ok(());
        }
        match self.store.get::<TtlRow>(&())? {
            // Said before the last change, and come after it.
            Some(row) if status.ttl_number < row.number => Ok(()),
            Some(row) if Duration::from_millis(row.ttl_ms) == status.ttl => Ok(()),
            known => self.keep_ttl(status.ttl_number, status.ttl, known.is_none()),
        }
    }

    fn keep_ttl(&self, number: u64, ttl: Duration, told: bool) -> Result<(), DeviceError> {
        let row = TtlRow {
            number,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            told,
        };
        Ok(self.store.write(|batch| batch.put(&(), &row))?)
    }
}
