//! The box's own chain, as this device knows it: it only ever grows, as that of a contact.

use bytes::Bytes;
use rossby_domain::chain::{ChainError, DeviceKeys, KeyRecord, Link};
use rossby_domain::ids::BoxId;
use rossby_proto::v1;

use super::address_book::note_overruled;
use super::contacts::{Found, LookupBy, check_chain};
use super::{Device, DeviceError};
use crate::connection::ExtendChain;
use crate::envelope::ChainPoint;
use crate::owner::Overruled;
use crate::store::{GreetedRow, GrowingRow, RepeatRow};

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

    /// Takes the own record from the service, and gives it the links that it has lost.
    pub(super) async fn catch_up(&self) -> Result<(), DeviceError> {
        let own = self.signer()?.address;
        let found = self.lookup(&LookupBy::Box(own.box_id)).await?;
        self.keep_chain_published(&found).await
    }

    /// Takes a record of the own box, whose chain must grow from the one that is known. Each device's KEM
    /// key is the newer of the two: its device signed both, and a service that was restored shows the older
    /// one until that device comes. Nobody is shut out of their box meanwhile.
    pub(super) fn adopt(&self, shown: &KeyRecord) -> Result<(), DeviceError> {
        if self.identity().record() == shown {
            return Ok(());
        }
        let box_id = self.account()?.box_id.ok_or(DeviceError::NotRegistered)?;
        self.change_identity(|batch, identity| {
            let known = identity.record();
            check_chain(&box_id, ChainPoint::head(known), shown)?;
            self.note_news(batch, known, shown)?;
            let mut before = known.live_devices();
            if before.any(|device| shown.signing_key(device).is_none()) {
                // It knows the key of the profile, and what it has signed counts no more.
                self.withdraw_profile(batch, &box_id, None)?;
                // What it has asked of the service may not be what the owner said last.
                batch.put(&(), &RepeatRow)?;
                for box_id in self.blocked()? {
                    let blocked = Overruled {
                        blocked: true,
                        added: false,
                    };
                    note_overruled(batch, &box_id, blocked)?;
                }
                // What it has said some have heard and others have not: they tell each other all again.
                for (device, _) in self.store.all::<GreetedRow>()? {
                    batch.remove::<GreetedRow>(&device)?;
                }
            }
            if shown.live_devices().count() > 1 {
                batch.remove::<GrowingRow>(&())?;
            }
            Ok(identity.with_record(with_newest_keys(known, shown)?))
        })
    }

    /// Holds the chain that the service shows for this box against the one that is known. One that has
    /// fallen behind, in a service that was restored, is given the links that it lacks: otherwise it
    /// would let in again who was revoked since.
    pub(super) async fn keep_chain_published(&self, found: &Found) -> Result<(), DeviceError> {
        let identity = self.identity();
        let known = identity.record();
        let (behind, ahead) = (found.record.version(), known.version());
        if behind >= ahead {
            return self.adopt(&found.record);
        }
        check_chain(&found.box_id, ChainPoint::head(&found.record), known)?;
        let missing = known.links().iter().filter(|link| link.version > behind);
        for link in missing {
            self.publish(link).await?;
        }
        self.renew_own_record().await
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

/// The shown record, with the newest KEM key that either of the two has of each of its devices.
fn with_newest_keys(known: &KeyRecord, shown: &KeyRecord) -> Result<KeyRecord, ChainError> {
    let is_newer = |keys: &&DeviceKeys| {
        let there = shown.device(&keys.device).map(|there| there.kem.counter);
        let is_live = shown.signing_key(&keys.device).is_some();
        is_live && there.is_none_or(|there| there < keys.kem.counter)
    };
    let mut newer = known.devices().filter(is_newer);
    newer.try_fold(shown.clone(), |record, keys| {
        record.with_kem(&keys.device, keys.kem.clone())
    })
}
