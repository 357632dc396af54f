//! When this device's encryption keys came, when they went, and when the next one is due.
//!
//! ```text
//!   receive, listen ──► is the current key older than the schedule says? ──► rotating.rs
//! ```
//!
//! A device rotates by itself, each day if its owner says nothing else, whenever it is in touch with the
//! service: who takes it later finds the keys of the last days only, and of mail that still waits.

use std::time::Duration;

use rossby_domain::time::Timestamp;

use super::{Device, DeviceError};
use crate::store::{Batch, KeyScheduleRow, KeyTimesRow, StoreError};

/// How old a key becomes, if the owner says nothing else.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Keys whose times are kept.
const MAX_KEPT: u64 = 366;

/// One of the device's encryption keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastKey {
    /// Its counter.
    pub counter: u64,
    /// When others could first seal to it, by this device's clock; `None` if that was not kept.
    pub since: Option<Timestamp>,
    /// What has become of it.
    pub state: KeyState,
}

/// What has become of an encryption key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Made, and not known to be published.
    Unpublished,
    /// Others seal to it.
    Current,
    /// It is the one before: who does not know the current one may seal to it.
    Previous,
    /// Nobody seals to it any more; mail that waits may be sealed to it.
    Waiting,
    /// Its private half is erased, since then.
    Erased(Timestamp),
}

impl Device {
    /// The device's encryption keys, the oldest that is known first.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn key_history(&self) -> Result<Vec<PastKey>, DeviceError> {
        let identity = self.identity();
        let keys = identity.record().device(&identity.device());
        let current = keys.map(|keys| keys.kem.counter);
        let previous = keys.and_then(|keys| Some(keys.previous_kem.as_ref()?.counter));
        let times = self.store.all::<KeyTimesRow>()?;
        let erased = times.iter().filter_map(|(counter, row)| {
            Some(PastKey {
                counter: *counter,
                since: row.since,
                state: KeyState::Erased(row.erased?),
            })
        });
        let kept = identity.kem_keys().iter().map(|(counter, _)| PastKey {
            counter: *counter,
            since: times
                .iter()
                .find(|(of, _)| of == counter)
                .and_then(|(_, row)| row.since),
            state: match Some(*counter) {
                it if it == current => KeyState::Current,
                it if it == previous => KeyState::Previous,
                it if it > current => KeyState::Unpublished,
                _ => KeyState::Waiting,
            },
        });
        let mut history: Vec<_> = erased.chain(kept).collect();
        history.sort_by_key(|key| key.counter);
        Ok(history)
    }

    /// How old a key becomes before the device makes another by itself; `None` if it never does.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn key_schedule(&self) -> Result<Option<Duration>, DeviceError> {
        let row = self.store.get::<KeyScheduleRow>(&())?;
        Ok(match row {
            Some(row) => row.every_ms.map(Duration::from_millis),
            None => Some(A_DAY),
        })
    }

    /// Has the device make a new key by itself when the current one is this old, or never.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn set_key_schedule(&self, every: Option<Duration>) -> Result<(), DeviceError> {
        let in_millis = |every: Duration| u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let every_ms = every.map(in_millis);
        Ok(self
            .store
            .write(|batch| batch.put(&(), &KeyScheduleRow { every_ms }))?)
    }

    /// Makes a new key if the current one is too old.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub(super) async fn rotate_if_due(&self) -> Result<(), DeviceError> {
        let Some(every) = self.key_schedule()? else {
            return Ok(());
        };
        let counter = self.identity().published_counter();
        let row = self.store.get::<KeyTimesRow>(&counter)?;
        let now = self.environment.clock.now();
        let age = |since: Timestamp| Duration::from_millis(now.millis_since(since));
        match row.and_then(|row| row.since) {
            // One that is of the future was dated by a clock that was wrong: its age begins anew.
            Some(since) if since <= now.plus_millis(A_DAY.as_millis() as u64) => {
                if age(since) >= every {
                    self.rotate_keys().await?;
                }
            }
            _ if counter == 0 => {}
            // The first key, or one of an earlier version of this program.
            _ => self.store.write(|batch| note_new(batch, counter, now))?,
        }
        Ok(())
    }
}

/// Keeps that others can seal to a key from now on.
pub(super) fn note_new(
    batch: &mut Batch<'_>,
    counter: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let since = Some(now);
    let row = KeyTimesRow {
        since,
        erased: None,
    };
    batch.put(&counter, &row)?;
    match counter.checked_sub(MAX_KEPT) {
        Some(oldest) => batch.remove::<KeyTimesRow>(&oldest),
        None => Ok(()),
    }
}

/// Keeps that a key was erased now.
pub(super) fn note_erased(
    batch: &mut Batch<'_>,
    counter: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let since = batch
        .get::<KeyTimesRow>(&counter)?
        .and_then(|row| row.since);
    let erased = Some(now);
    batch.put(&counter, &KeyTimesRow { since, erased })
}
