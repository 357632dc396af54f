//! Recover: the recovery key gives a new device its place, and may take that of all others, in one step.

use serde::{Deserialize, Serialize};

use super::acknowledge::purge_acknowledged;
use super::extend_chain::extended;
use super::join_box::{place, with_key};
use super::{Outcome, Reply};
use crate::chain::{KemKey, KeyRecord, Link, MAX_DEVICES, Signer};
use crate::ids::DeviceAddress;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// The most links of one recovery: one that adds the device, and one for each device that goes.
pub const MAX_RECOVERY_LINKS: usize = MAX_DEVICES + 1;

/// Puts links at the end of a box's chain, all signed by its recovery key, and gives a device that is live then its
/// place, as [`super::JoinBox`] does. All of it or nothing: a stolen device that is quick finds no moment in
/// which the new one is there and it is not yet gone.
///
/// Links that the chain has already are passed over, so the same again is the retry of a lost reply, and has the
/// same outcome while the device is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recover {
    /// The device, which signed the request.
    pub device: DeviceAddress,
    /// The links. All of each is checked here.
    pub links: Vec<Link>,
    /// The device's KEM key, signed by it. The signature is checked here.
    pub kem: KemKey,
}

impl Recover {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let DeviceAddress { box_id, device } = self.device;
        let profile = tables.profile(&box_id)?.filter(|profile| profile.active);
        let (Some(before), Some(record)) = (profile, tables.key_record(&box_id)?) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let renewed = match self.over(&record) {
            Ok(renewed) => renewed,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let mut profile = before.clone();
        let state = place(tables, meta, &box_id, profile.devices.get(&device))?;
        profile.devices.insert(device, state);
        if let Some(renewed) = &renewed {
            profile
                .devices
                .retain(|known, _| !renewed.is_removed(known));
            tables.update_key_record(&box_id, renewed)?;
        }
        if profile != before {
            tables.put_profile(&box_id, &profile)?;
        }
        let mut known = before.devices.keys();
        if known.any(|known| !profile.devices.contains_key(known)) {
            let queue = tables.queue_state(&box_id)?.unwrap_or_default();
            let acknowledged = before.acknowledged_by_all().unwrap_or_default();
            purge_acknowledged(tables, meta, &box_id, (acknowledged, &profile), queue)?;
        }
        Ok(Ok(Outcome::BoxJoined {
            token_generation: state.token_generation,
        }))
    }

    /// A record of the box with the links at its end and the device's key in it; `None` if all of that is there
    /// already, so that at most its token is still to be renewed.
    ///
    /// # Errors
    /// [`Rejection::BadKeySignature`], also for a link that the recovery key has not signed;
    /// [`Rejection::LinkRefused`], [`Rejection::ChainChanged`]; and as for a device that joins
    /// ([`super::JoinBox::over`]).
    pub fn over(&self, record: &KeyRecord) -> Result<Option<KeyRecord>, Rejection> {
        let mut longer = None;
        for link in &self.links {
            if link.signer != Signer::Recovery {
                return Err(Rejection::BadKeySignature);
            }
            if !record.has_link(link) {
                longer = Some(extended(longer.as_ref().unwrap_or(record), link)?);
            }
        }
        let with_key = with_key(
            longer.as_ref().unwrap_or(record),
            &self.device.device,
            &self.kem,
        )?;
        Ok(with_key.or(longer))
    }
}
