//! The box's own chain, as this device knows it: it only ever grows, as that of a contact.

use bytes::Bytes;
use rossby_domain::chain::{KeyRecord, Link};
use rossby_domain::ids::BoxId;
use rossby_proto::v1;

use super::contacts::{Found, LookupBy, check_chain, check_keys};
use super::{Device, DeviceError};
use crate::connection::ExtendChain;
use crate::envelope::ChainPoint;

impl Device {
    /// Whether this is the device's own box.
    pub(super) fn is_own(&self, box_id: &BoxId) -> Result<bool, DeviceError> {
        Ok(self.account()?.box_id.as_ref() == Some(box_id))
    }

    /// Takes the own record from the service: it must grow from the one that is known.
    pub(super) async fn renew_own_record(&self) -> Result<(), DeviceError> {
        let own = self.signer()?.address;
        let found = self.lookup(&LookupBy::Box(own.box_id)).await?;
        self.adopt(&found.record)
    }

    /// Takes a record of the own box, which must grow from the one that is known. The key that this
    /// device has published last stays, whatever a service that was restored shows.
    pub(super) fn adopt(&self, shown: &KeyRecord) -> Result<(), DeviceError> {
        if self.identity().record() == shown {
            return Ok(());
        }
        let box_id = self.account()?.box_id.ok_or(DeviceError::NotRegistered)?;
        self.change_identity(|_, identity| {
            let (known, own) = (identity.record(), identity.device());
            check_chain(&box_id, ChainPoint::head(known), shown)?;
            let others = known.devices().filter(|keys| keys.device != own);
            check_keys(&box_id, others, shown)?;
            let shown_key = shown.device(&own).map(|keys| keys.kem.counter);
            let published = known.device(&own).map(|keys| &keys.kem);
            let newer = published.filter(|key| shown_key.is_none_or(|it| it < key.counter));
            let record = match newer {
                Some(key) if shown.signing_key(&own).is_some() => {
                    shown.with_kem(&own, key.clone())?
                }
                _ => shown.clone(),
            };
            Ok(identity.with_record(record))
        })
    }

    /// Holds the chain that the service shows for this box against the one that is known. One that has
    /// fallen behind, in a service that was restored, is given the links that it lacks: otherwise it
    /// would let in again who was revoked since. What it shows then.
    pub(super) async fn keep_chain_published(&self, found: Found) -> Result<Found, DeviceError> {
        let identity = self.identity();
        let known = identity.record();
        let (behind, ahead) = (found.record.version(), known.version());
        if behind >= ahead {
            self.adopt(&found.record)?;
            return Ok(found);
        }
        check_chain(&found.box_id, ChainPoint::head(&found.record), known)?;
        let missing = known.links().iter().filter(|link| link.version > behind);
        for link in missing {
            self.publish(link).await?;
        }
        let found = self.lookup(&LookupBy::Box(found.box_id)).await?;
        self.adopt(&found.record)?;
        Ok(found)
    }

    /// Gives the service a link of the own chain.
    pub(super) async fn publish(&self, link: &Link) -> Result<(), DeviceError> {
        let link = Bytes::from(link.encode());
        let request = v1::ExtendChainRequest { link };
        let signer = self.signer()?;
        let call = self.connection.call::<ExtendChain>(&request, Some(&signer));
        Ok(call.await.map(drop)?)
    }
}
