//! DeleteBox: everything that a box is and has goes, for ever.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply, intent};
use crate::ids::DeviceAddress;
use crate::planted::{Bug, planted};
use crate::profile::Profile;
use crate::rejection::Rejection;
use crate::tables::{DueKey, Meta, Tables};

/// Deletes a box: from then on it is one that is not there. Its keys, profile, devices, tokens and lists go at once; its
/// mail, what it remembers of senders and the reports of it with the next Expire, for which a marker is set; its identifiers once their
/// claims are released in the directory ([`super::ReleaseClaim`], [`super::DropIdentifier`]), which the box's leader
/// sees to. What stays is that there was a box of this id, so that there never is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteBox {
    /// The device that asks, which signed the request.
    pub device: DeviceAddress,
}

impl DeleteBox {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let DeviceAddress { box_id, device } = self.device;
        let profile = tables.profile(&box_id)?;
        let Some(profile) = profile.filter(|p| p.authorised_device(&device).is_some()) else {
            return Ok(Err(Rejection::UnknownDevice));
        };
        let listed = profile.identifiers.iter();
        let leaving: Vec<_> = listed
            .map(|known| (known.hash, known.named_generation()))
            .collect();
        let rest = match planted(Bug::DeletedStillRead) {
            true => profile.clone(),
            false => Profile {
                active: planted(Bug::DeletedStillWritten),
                ..Profile::default()
            },
        };
        let deleted = Profile {
            deleted: true,
            leaving: leaving.iter().map(|(identifier, _)| *identifier).collect(),
            identifiers: profile.identifiers,
            ..rest
        };
        tables.put_profile(&box_id, &deleted)?;
        if !planted(Bug::DeletedStillWritten) {
            tables.delete_key_record(&box_id)?;
        }
        tables.delete_sealed_profile(&box_id)?;
        tables.add_due(meta.expiry_clock, &DueKey::Queue(box_id))?;
        intent::open(tables, meta, &box_id, device)?;
        if deleted.is_settled() {
            intent::close(tables, &box_id)?;
        }
        Ok(Ok(Outcome::BoxDeleted { leaving }))
    }
}
