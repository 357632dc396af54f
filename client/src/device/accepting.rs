//! From whom this box takes messages: from anyone, or from its contacts only.

use std::time::Duration;

use bytes::Bytes;
use rossby_domain::ids::BoxId;
use rossby_proto::v1;
use tokio::time::timeout;

use super::{Device, DeviceError};
use crate::connection::Accept;
use crate::owner::{Choice, Part};
use crate::store::{AcceptedRow, ContactRow, OverruledRow, RepeatRow, StoreError};

/// From whom a box takes messages. To everybody else it does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFrom {
    /// From anyone who is not blocked.
    Anyone,
    /// From contacts only, and from the box's own devices.
    Contacts,
}

impl AcceptFrom {
    const fn of(contacts_only: bool) -> Self {
        if contacts_only {
            Self::Contacts
        } else {
            Self::Anyone
        }
    }
}

/// From whom a box takes messages, by two accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepting {
    /// What the service does.
    pub service: AcceptFrom,
    /// What the owner has chosen, as far as this device has heard.
    pub chosen: AcceptFrom,
}

/// How long what the service is still to be told may keep a person waiting who has their mail.
const PATIENCE: Duration = Duration::from_secs(2);

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
            allow.extend(self.added()?);
        }
        allow.sort_unstable();
        allow.dedup();
        let _one_at_a_time = self.policy.lock().await;
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
            if !self.is_added(box_id)? && !self.is_own(box_id)? {
                strangers.push(*box_id);
            }
        }
        if strangers.is_empty() {
            return Ok(());
        }
        self.ask_to_accept(None, &strangers, &[]).await?;
        if !self.chosen()?.contacts_only {
            // They can answer; contacts they are by the owner's choice alone.
            return Ok(());
        }
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

    /// Has the service do what holds, where it may not, for as long as nobody has to wait for it. The next time makes up for what is
    /// left. Only once all mail is heard that waits: by what a device that was away knows, the service is told nothing.
    pub(super) async fn settle_policy_soon(&self) {
        let _ = timeout(PATIENCE, self.settle_policy()).await;
    }

    async fn settle_policy(&self) -> Result<(), DeviceError> {
        let _one_at_a_time = self.policy.lock().await;
        if self.store.get::<RepeatRow>(&())?.is_some() {
            self.repeat_choice().await?;
        }
        for (box_id, row) in self.store.all::<OverruledRow>()? {
            let blocked = self.is_blocked(&box_id)?;
            if row.what.blocked {
                unless_it_can_not_be(self.ask_to_block(&box_id, blocked).await)?;
            }
            let added = self.is_added(&box_id)?;
            if row.what.added && self.chosen()?.contacts_only {
                let (allow, disallow): (&[_], &[_]) = match added {
                    true => (&[box_id], &[]),
                    false => (&[], &[box_id]),
                };
                unless_it_can_not_be(self.ask_to_accept(None, allow, disallow).await)?;
            }
            // Not if another word has overruled it meanwhile.
            if (blocked, added) == (self.is_blocked(&box_id)?, self.is_added(&box_id)?) {
                self.store
                    .write(|batch| batch.remove::<OverruledRow>(&box_id))?;
            }
        }
        Ok(())
    }

    /// Has messages taken from whom the owner has chosen last. Where the owner never chose, the service says from whom it takes them.
    async fn repeat_choice(&self) -> Result<(), DeviceError> {
        let chosen = self.chosen_to_accept()?;
        let contacts = match chosen {
            Some(true) => self.added()?,
            _ => Vec::new(),
        };
        // All in one call, so that no contact is turned away meanwhile; as many as it keeps, if there are more.
        let asked = self.ask_to_accept(chosen, &contacts, &[]).await;
        if is_full(&asked) {
            self.ask_to_accept(chosen, &[], &[]).await?;
            self.allow_while_there_is_room(&contacts).await?;
        } else {
            unless_it_can_not_be(asked)?;
        }
        if self.chosen_to_accept()? == chosen {
            self.store.write(|batch| batch.remove::<RepeatRow>(&()))?;
        }
        Ok(())
    }

    async fn allow_while_there_is_room(&self, contacts: &[BoxId]) -> Result<(), DeviceError> {
        for box_id in contacts {
            let asked = self.ask_to_accept(None, &[*box_id], &[]).await;
            if is_full(&asked) {
                break;
            }
            asked?;
        }
        Ok(())
    }

    fn is_added(&self, box_id: &BoxId) -> Result<bool, StoreError> {
        let row = self.store.get::<ContactRow>(box_id)?;
        Ok(row.is_some_and(|row| row.added))
    }

    /// All contacts whom the owner has added.
    fn added(&self) -> Result<Vec<BoxId>, StoreError> {
        let contacts = self.store.all::<ContactRow>()?.into_iter();
        let added = contacts.filter(|(_, row)| row.added);
        Ok(added.map(|(box_id, _)| box_id).collect())
    }

    /// Whether contacts only are heard, by the owner's choice or by what the service said last: another device may have asked for it
    /// that is gone since.
    pub(super) fn hears_contacts_only(&self) -> Result<bool, StoreError> {
        let said = self.store.get::<AcceptedRow>(&())?;
        Ok(self.chosen()?.contacts_only || said.is_some_and(|row| row.contacts_only))
    }

    /// From whom the service said last that it takes messages, if the owner has not chosen so, as far as this device has heard
    /// ([`Self::accepting`]).
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn accepts_otherwise(&self) -> Result<Option<AcceptFrom>, DeviceError> {
        let said = self.store.get::<AcceptedRow>(&())?;
        let said = said.map(|row| AcceptFrom::of(row.contacts_only));
        let chosen = AcceptFrom::of(self.chosen()?.contacts_only);
        Ok(said.filter(|said| *said != chosen))
    }

    /// From whom this box takes messages, as the service does it and as its owner has chosen. Where the two differ, somebody else has
    /// changed it, who has the token of a device; or a device of which this one has not heard yet.
    ///
    /// # Errors
    /// [`DeviceError::Call`].
    pub async fn accepting(&self) -> Result<Accepting, DeviceError> {
        self.ask_to_accept(None, &[], &[]).await?;
        let said = self.store.get::<AcceptedRow>(&())?;
        Ok(Accepting {
            service: AcceptFrom::of(said.is_some_and(|row| row.contacts_only)),
            chosen: AcceptFrom::of(self.chosen()?.contacts_only),
        })
    }
}

/// What the service refuses for good is not to hold up all else.
fn unless_it_can_not_be(asked: Result<(), DeviceError>) -> Result<(), DeviceError> {
    match asked {
        Err(DeviceError::Call(error)) if error.refusal().is_some() && !error.may_pass() => Ok(()),
        asked => asked,
    }
}

/// Whether the service keeps no more contacts.
fn is_full(asked: &Result<(), DeviceError>) -> bool {
    let Err(DeviceError::Call(error)) = asked else {
        return false;
    };
    let refusal = error.refusal();
    refusal.is_some_and(|refusal| refusal.code == "TOO_MANY_ALLOWED")
}
