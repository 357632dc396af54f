//! ExtendChain: another link of a box's identity chain: a device more, or one less.

use serde::{Deserialize, Serialize};

use super::acknowledge::purge_acknowledged;
use super::{Outcome, Reply};
use crate::chain::{ChainError, Change, KeyRecord, Link, LinkRefusal};
use crate::ids::{BoxId, DeviceId};
use crate::profile::Profile;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Puts a link at the end of a box's chain, if it is signed by a live device (or the recovery key) over
/// the chain as it is now. The same link again is the retry of a lost reply, and has the same outcome
/// as long as it is in the chain.
///
/// A device that is added has no place in the box yet: nothing can be sealed to it before it has given
/// its KEM key ([`super::JoinBox`]), so nothing waits for it either. A device that is removed is gone at
/// once: its token is good for nothing, and what all the others have acknowledged is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendChain {
    /// The box.
    pub box_id: BoxId,
    /// The link. All of it is checked here: this is rare, and the chain may have grown meanwhile.
    pub link: Link,
}

impl ExtendChain {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let Self { box_id, link } = self;
        let profile = tables.profile(&box_id)?.filter(|profile| profile.active);
        let (Some(profile), Some(record)) = (profile, tables.key_record(&box_id)?) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let version = link.version;
        if record.has_link(&link) {
            return Ok(Ok(Outcome::ChainExtended { version }));
        }
        let longer = match self.over(&record) {
            Ok(longer) => longer,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if let Change::RemoveDevice { device } = link.change {
            // Who was added and never came can not read: mail would be sealed to nobody.
            if profile.is_last_device(&device) {
                return Ok(Err(Rejection::LinkRefused(LinkRefusal::LastDevice)));
            }
            remove(tables, meta, &box_id, profile, &device)?;
        }
        tables.update_key_record(&box_id, &longer)?;
        Ok(Ok(Outcome::ChainExtended { version }))
    }

    /// A record of the box with the link at its end.
    ///
    /// # Errors
    /// [`Rejection::LinkRefused`], [`Rejection::ChainChanged`], [`Rejection::BadKeySignature`].
    pub fn over(&self, record: &KeyRecord) -> Result<KeyRecord, Rejection> {
        extended(record, &self.link)
    }
}

/// A record with one more link.
pub(super) fn extended(record: &KeyRecord, link: &Link) -> Result<KeyRecord, Rejection> {
    record.extend(*link).map_err(|error| match error {
        ChainError::NotAllowed(why) => Rejection::LinkRefused(why),
        ChainError::BrokenChain => Rejection::ChainChanged {
            current: record.version(),
        },
        _ => Rejection::BadKeySignature,
    })
}

fn remove<T: Tables>(
    tables: &mut T,
    meta: &Meta,
    box_id: &BoxId,
    mut profile: Profile,
    device: &DeviceId,
) -> Result<(), T::Error> {
    let before = profile.acknowledged_by_all().unwrap_or_default();
    if profile.devices.remove(device).is_none() {
        return Ok(());
    }
    tables.put_profile(box_id, &profile)?;
    let state = tables.queue_state(box_id)?.unwrap_or_default();
    purge_acknowledged(tables, meta, box_id, (before, &profile), state).map(drop)
}
