//! From whom this box takes messages: from anyone, or from its contacts only.

use std::collections::BTreeSet;

use bytes::Bytes;
use rossby_domain::ids::BoxId;
use rossby_proto::v1;

use super::{Device, DeviceError};
use crate::connection::{Accept, CallError};
use crate::owner::{Choice, Part};
use crate::store::{AcceptedRow, AllowRow, ContactRow, OverruledRow, RepeatRow, StoreError};

/// From whom a box takes messages. To everybody else it does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFrom {
    /// From anyone who is not blocked.
    Anyone,
    /// From contacts only, and from the box's own devices.
    Contacts,
}

/// From whom a box takes messages, by two accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepting {
    /// What the service does.
    pub service: AcceptFrom,
    /// What the owner has chosen, as far as this device has heard.
    pub chosen: AcceptFrom,
}

/// Contacts that are named to the service in one call: it takes all of them or none.
const ALLOWED_AT_A_TIME: usize = 100;

impl Device {
    /// Takes messages from anyone, or from contacts only: from those that this device's owner has added, those that
    /// other devices of the box have named, and `more`. Who is added later is a contact at once
    /// ([`Self::add_contact`]). How many contacts were named.
    ///
    /// # Errors
    /// [`DeviceError::Call`], with `TOO_MANY_ALLOWED` for more contacts than the service keeps.
    pub async fn accept(&self, from: AcceptFrom, more: &[BoxId]) -> Result<usize, DeviceError> {
        let contacts_only = from == AcceptFrom::Contacts;
        let mut allow = more.to_vec();
        if contacts_only {
            let contacts = self.store.all::<ContactRow>()?.into_iter();
            allow.extend(contacts.filter(|(_, row)| row.added).map(|(id, _)| id));
        }
        allow.sort_unstable();
        allow.dedup();
        self.ask_to_accept(Some(contacts_only), &allow, &[]).await?;
        self.choose(Choice::ContactsOnly(contacts_only))?;
        // The next time makes up for it.
        let _ = self.tell_own_devices().await;
        Ok(allow.len())
    }

    /// Tells the service of a new contact. It keeps that only while contacts only are accepted, which another
    /// device may have asked for.
    pub(super) async fn allow_contact(&self, box_id: &BoxId) -> Result<(), DeviceError> {
        self.ask_to_accept(None, &[*box_id], &[]).await
    }

    /// Whom this device writes to is a contact from then on, should it take messages from contacts only: otherwise
    /// they could not look up who writes to them, nor answer.
    pub(super) async fn allow_recipients(&self, to: &[BoxId]) -> Result<(), DeviceError> {
        if !self.hears_contacts_only()? {
            return Ok(());
        }
        let mut strangers = Vec::new();
        for box_id in to {
            let contact = self.store.get::<ContactRow>(box_id)?;
            if !contact.is_some_and(|row| row.added) && !self.is_own(box_id)? {
                strangers.push(*box_id);
            }
        }
        if strangers.is_empty() {
            return Ok(());
        }
        self.ask_to_accept(None, &strangers, &[]).await?;
        let signer = self.signer()?;
        self.store.write::<_, DeviceError>(|batch| {
            for box_id in &strangers {
                if let Some(mut row) = batch.get::<ContactRow>(box_id)? {
                    row.added = true;
                    batch.put(box_id, &row)?;
                    self.note_said(batch, &signer, box_id, &[Part::Added])?;
                }
            }
            Ok(())
        })
    }

    /// Tells the service of a contact who is no more, if it has been told of contacts, as far as this device knows.
    pub(super) async fn disallow_contact(&self, box_id: &BoxId) -> Result<(), DeviceError> {
        match self.hears_contacts_only()? {
            true => self.ask_to_accept(None, &[], &[*box_id]).await,
            false => Ok(()),
        }
    }

    /// Tells the service from whom messages are taken. What it says holds then is kept, and is no choice of the owner: it may be
    /// somebody else's.
    async fn ask_to_accept(
        &self,
        contacts_only: Option<bool>,
        allow: &[BoxId],
        disallow: &[BoxId],
    ) -> Result<(), DeviceError> {
        let bytes = |box_id: &BoxId| Bytes::copy_from_slice(box_id.as_bytes());
        let request = v1::AcceptRequest {
            contacts_only,
            allow: allow.iter().map(bytes).collect(),
            disallow: disallow.iter().map(bytes).collect(),
        };
        let signer = self.signer()?;
        let calling = self.connection.call::<Accept>(&request, Some(&signer));
        let row = AcceptedRow {
            contacts_only: calling.await?.contacts_only,
        };
        Ok(self
            .store
            .write::<_, StoreError>(|batch| batch.put(&(), &row))?)
    }

    /// Tells the service what it is still to be told of whom this box hears. The next time makes up for it.
    pub(super) async fn settle_policy(&self) -> Result<(), DeviceError> {
        if self.store.get::<RepeatRow>(&())?.is_some() {
            self.repeat_policy().await?;
        }
        let overruled = self.store.all::<OverruledRow>()?;
        let names_all = self.store.get::<AllowRow>(&())?.is_some();
        if overruled.is_empty() && !names_all {
            return Ok(());
        }
        let blocked = BTreeSet::from_iter(self.blocked()?);
        for (box_id, _) in overruled.iter().filter(|(_, row)| row.what.blocked) {
            self.ask_to_block(box_id, blocked.contains(box_id)).await?;
        }
        if self.hears_contacts_only()? {
            let contacts = self.store.all::<ContactRow>()?.into_iter();
            let added = contacts.filter(|(_, row)| row.added);
            let added: BTreeSet<BoxId> = added.map(|(box_id, _)| box_id).collect();
            let changed = overruled.iter().filter(|(_, row)| row.what.added);
            let (allow, disallow): (Vec<BoxId>, Vec<_>) = changed
                .map(|(box_id, _)| *box_id)
                .partition(|box_id| added.contains(box_id));
            if !disallow.is_empty() {
                self.ask_to_accept(None, &[], &disallow).await?;
            }
            let allow = if names_all {
                Vec::from_iter(added)
            } else {
                allow
            };
            self.allow_all(&allow).await?;
        }
        Ok(self.store.write::<_, StoreError>(|batch| {
            for (box_id, row) in &overruled {
                // Not what another word has overruled meanwhile.
                if batch.get::<OverruledRow>(box_id)? == Some(*row) {
                    batch.remove::<OverruledRow>(box_id)?;
                }
            }
            batch.remove::<AllowRow>(&())
        })?)
    }

    /// Has the service do again what the owner said last: what a device has asked of it that was removed since may be otherwise.
    async fn repeat_policy(&self) -> Result<(), DeviceError> {
        for box_id in self.blocked()? {
            self.ask_to_block(&box_id, true).await?;
        }
        if let Some(contacts_only) = self.chosen_to_accept()? {
            self.ask_to_accept(Some(contacts_only), &[], &[]).await?;
        }
        Ok(self.store.write::<_, StoreError>(|batch| {
            batch.put(&(), &AllowRow)?;
            batch.remove::<RepeatRow>(&())
        })?)
    }

    /// Names contacts to the service, as many as it keeps.
    async fn allow_all(&self, contacts: &[BoxId]) -> Result<(), DeviceError> {
        for some in contacts.chunks(ALLOWED_AT_A_TIME) {
            match self.ask_to_accept(None, some, &[]).await {
                Err(DeviceError::Call(error)) if is_full(&error) => break,
                told => told?,
            }
        }
        Ok(())
    }

    /// Whether contacts only are heard, by the owner's choice or by what the service said last: another device may have asked for it
    /// that is gone since.
    pub(super) fn hears_contacts_only(&self) -> Result<bool, StoreError> {
        let said = self.store.get::<AcceptedRow>(&())?;
        Ok(self.chosen()?.contacts_only || said.is_some_and(|row| row.contacts_only))
    }

    /// From whom this box takes messages, as the service does it and as its owner has chosen. Where the two differ, somebody else has
    /// changed it, who has the token of a device; or a device of which this one has not heard yet.
    ///
    /// # Errors
    /// [`DeviceError::Call`].
    pub async fn accepting(&self) -> Result<Accepting, DeviceError> {
        self.ask_to_accept(None, &[], &[]).await?;
        let said = self.store.get::<AcceptedRow>(&())?;
        let from = |contacts_only| match contacts_only {
            true => AcceptFrom::Contacts,
            false => AcceptFrom::Anyone,
        };
        Ok(Accepting {
            service: from(said.is_some_and(|row| row.contacts_only)),
            chosen: from(self.chosen()?.contacts_only),
        })
    }
}

/// Whether the service keeps no more contacts.
fn is_full(error: &CallError) -> bool {
    let refusal = error.refusal();
    refusal.is_some_and(|refusal| refusal.code == "TOO_MANY_ALLOWED")
}
