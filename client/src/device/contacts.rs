//! Contacts: whom we know, and the identity chains that we hold them to.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rossby_domain::chain::{DeviceKeys, KeyRecord};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, Counter, DeviceId};
use rossby_domain::time::Timestamp;
use rossby_proto::v1::{self, lookup_key_request::By};

use super::address_book::known_of;
use super::{Device, DeviceError, Shown, box_from_wire, withdrawing};
use crate::connection::{Block, LookupKey, Report};
use crate::envelope::ChainPoint;
use crate::owner::{Part, cut};
use crate::registering;
use crate::store::{
    Batch, ContactRow, EntryRow, ExpectedRow, IdentityChange, ResolvedRow, StoreError,
    StoredIdentifier, WhatChanged,
};

/// What is wrong where a record does not go with what another device of the box holds somebody to.
pub(super) const OTHER_THAN_OWN_DEVICES: &str =
    "another device of this box holds them to another identity chain";

/// By what a box is looked up.
#[derive(Debug, Clone)]
pub enum LookupBy {
    /// Its phone or email, if its owner lets it be found by that.
    Identifier(Identifier),
    /// One of its devices.
    Device(DeviceId),
    /// Its id.
    Box(BoxId),
}

/// What a lookup found, verified as far as it can be: the record's signatures hold, and the box is
/// the record's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The box.
    pub box_id: BoxId,
    /// Its key record.
    pub record: KeyRecord,
    /// The lowest counter that this device has not used for it.
    pub next_counter: Counter,
    /// Its profile, if there is a key for it here.
    pub profile: Option<Shown>,
}

/// Someone we know. `Debug` shows neither name nor identifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// Their box.
    pub box_id: BoxId,
    /// The name that this device's owner gave them.
    pub name: Option<String>,
    /// The identifier that they were found by.
    pub identifier: Option<String>,
    /// The chain that they are held to.
    pub pinned: ChainPoint,
    /// When they were first met.
    pub since: Timestamp,
    /// Whether this device's owner added them, or they wrote first.
    pub added: bool,
    /// Whether they are blocked.
    pub blocked: bool,
    /// When this device's owner compared the safety number with theirs ([`Device::verify`]).
    pub verified: Option<Timestamp>,
    /// A change of their identity that the owner has not dealt with yet.
    pub changed: Option<IdentityChange>,
}

impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contact")
            .field("box_id", &self.box_id)
            .finish_non_exhaustive()
    }
}

impl Contact {
    pub(super) fn of_row((box_id, row): (BoxId, ContactRow)) -> Self {
        Self {
            box_id,
            name: row.name,
            identifier: row
                .identifier
                .map(|identifier| identifier.as_str().to_owned()),
            pinned: row.pinned,
            since: row.since,
            added: row.added,
            blocked: row.blocked,
            verified: row.verified,
            changed: row.changed,
        }
    }

    /// Whether their identity is as it was when the safety number was compared.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verified.is_some() && self.changed.is_none()
    }

    /// What to call them: their name, else what they were found by, else their box.
    #[must_use]
    pub fn label(&self) -> String {
        self.name
            .clone()
            .or_else(|| self.identifier.clone())
            .unwrap_or_else(|| self.box_id.to_string())
    }
}

impl Device {
    /// Looks a box up. Pins nothing.
    ///
    /// # Errors
    /// [`DeviceError::NoUser`], [`DeviceError::Untrue`], [`DeviceError::Chain`],
    /// [`DeviceError::Call`].
    pub async fn lookup(&self, by: &LookupBy) -> Result<Found, DeviceError> {
        let wire = match by {
            LookupBy::Identifier(identifier) => {
                By::Identifier(registering::identifier_to_wire(identifier))
            }
            LookupBy::Device(device) => By::DeviceId(Bytes::copy_from_slice(device.as_bytes())),
            LookupBy::Box(box_id) => By::BoxId(Bytes::copy_from_slice(box_id.as_bytes())),
        };
        let profile_after = self.profile_after(by)?;
        let request = v1::LookupKeyRequest {
            by: Some(wire),
            profile_after,
        };
        let signer = self.signer()?;
        let response = match self
            .connection
            .call::<LookupKey>(&request, Some(&signer))
            .await
        {
            Err(error)
                if error
                    .refusal()
                    .is_some_and(|refusal| refusal.code == "NO_USER") =>
            {
                return Err(DeviceError::NoUser);
            }
            other => other?,
        };
        let box_id = box_from_wire(&response.box_id)?;
        let record = KeyRecord::decode(&response.key_record)?;
        if !box_id.is_of_genesis(&record.genesis_hash()) {
            return self.noting_change(Err(DeviceError::IdentityChanged {
                box_id,
                what: "a key record was shown that is not theirs",
            }));
        }
        let as_asked = match by {
            LookupBy::Identifier(_) => true,
            LookupBy::Device(device) => record.signing_key(device).is_some(),
            LookupBy::Box(asked) => *asked == box_id,
        };
        if !as_asked {
            return Err(DeviceError::Untrue(
                "it is about another box than was asked for",
            ));
        }
        Ok(Found {
            box_id,
            record,
            next_counter: Counter(response.next_counter),
            profile: profile_after.map(|_| Shown {
                version: response.profile_version,
                sealed: response.sealed_profile,
            }),
        })
    }

    /// Adds a contact: looks them up and pins their identity, and has the service take messages from them if it
    /// takes them from contacts only. Adding a known contact again renews what is known of them.
    ///
    /// # Errors
    /// As [`Device::lookup`]; [`DeviceError::IdentityChanged`]; [`DeviceError::IdentifierMoved`] if
    /// the identifier led to another box before, unless `accept_moved`.
    pub async fn add_contact(
        &self,
        by: &LookupBy,
        name: Option<&str>,
        accept_moved: bool,
    ) -> Result<Contact, DeviceError> {
        let found = self.lookup(by).await?;
        let identifier = match by {
            LookupBy::Identifier(identifier) => Some(identifier.into()),
            LookupBy::Device(_) | LookupBy::Box(_) => None,
        };
        let moved_from = match &identifier {
            Some(identifier) => self.held_by_another(identifier, &found.box_id)?,
            None => None,
        };
        if let Some(known) = moved_from.filter(|_| !accept_moved) {
            return self.noting_change(Err(DeviceError::IdentifierMoved {
                known,
                found: found.box_id,
            }));
        }
        let mut said_again = vec![Part::Added];
        said_again.extend(name.map(|_| Part::Name));
        said_again.extend(identifier.as_ref().map(|_| Part::Identifier));
        let signer = self.signer()?;
        // In one transaction: what another task pins meanwhile is not undone.
        let added = self.store.write(|batch| {
            let mut row = self.pin_in(batch, &found.box_id, &found.record)?;
            if let Some(known) = moved_from {
                self.note_moved(batch, (&found.box_id, &mut row), known)?;
            }
            row.added = true;
            row.identifier = identifier.or(row.identifier);
            row.name = name.map(|name| cut(name.to_owned())).or(row.name);
            batch.put(&found.box_id, &row)?;
            if matches!(by, LookupBy::Identifier(_)) {
                let at = self.environment.clock.now();
                let elsewhere = None;
                batch.put(&found.box_id, &ResolvedRow { at, elsewhere })?;
            }
            if let Some(known) = moved_from
                && let Some(mut earlier) = batch.get::<ContactRow>(&known)?
            {
                earlier.identifier = None;
                // Said and settled, unless it stopped something.
                earlier.changed = earlier
                    .changed
                    .filter(|it| it.stops_sending || !matches!(it.what, WhatChanged::MovedTo(_)));
                batch.put(&known, &earlier)?;
            }
            // The new holder first: the other devices are to see whom it came from.
            self.note_said(batch, &signer, &found.box_id, &said_again)?;
            if let Some(known) = &moved_from {
                self.note_said(batch, &signer, known, &[])?;
            }
            Ok(Contact::of_row((found.box_id, row)))
        });
        let contact = self.noting_change(added)?;
        // They may have said what they show before.
        self.unsettled_profiles.store(true, Ordering::Relaxed);
        // The next time makes up for it.
        let _ = self.tell_own_devices().await;
        self.allow_contact(&contact.box_id).await?;
        Ok(contact)
    }

    /// The contact other than this one that has the identifier.
    pub(super) fn held_by_another(
        &self,
        identifier: &StoredIdentifier,
        box_id: &BoxId,
    ) -> Result<Option<BoxId>, DeviceError> {
        let contacts = self.store.all::<ContactRow>()?.into_iter();
        let mut others = contacts
            .filter(|(other, row)| other != box_id && row.identifier.as_ref() == Some(identifier));
        Ok(others.next().map(|(other, _)| other))
    }

    /// Forgets a contact, and with them the identity that they were held to and that they were verified.
    /// Messages stay; what waits to be sent to them is withdrawn, for it was for who they were. A box that takes
    /// messages from contacts only takes none from them any more.
    ///
    /// # Errors
    /// [`DeviceError::NoUser`] if there is no such contact; [`DeviceError::NotConfirmed`] while a change of
    /// their identity waits for the owner's word, which to forget them would not be; [`DeviceError::Call`].
    pub async fn remove_contact(&self, box_id: &BoxId) -> Result<(), DeviceError> {
        self.forget(box_id).await?;
        self.settle_profiles_soon().await;
        Ok(())
    }

    async fn forget(&self, box_id: &BoxId) -> Result<(), DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        if self.contact(box_id)?.is_none() {
            return self.expect_nothing_of(box_id);
        }
        self.check_confirmed(box_id)?;
        self.disallow_contact(box_id).await?;
        let waiting = self.waiting(&[*box_id], false)?.remove(box_id);
        let waiting = waiting.unwrap_or_default();
        let signer = self.signer()?;
        self.store.write::<_, DeviceError>(|batch| {
            withdrawing::withdraw(batch, &signer, waiting)?;
            self.withdraw_profile(batch, &signer.address.box_id, Some(box_id))?;
            self.note_forgotten(batch, &signer, box_id)
        })?;
        // The next time makes up for it.
        let _ = self.flush_words(&signer).await;
        Ok(())
    }

    /// Forgets the identity that somebody who is no contact any more was held to.
    fn expect_nothing_of(&self, box_id: &BoxId) -> Result<(), DeviceError> {
        self.store.write(|batch| {
            let expected = batch.get::<ExpectedRow>(box_id)?;
            expected.ok_or(DeviceError::NoUser)?;
            Ok(batch.remove::<ExpectedRow>(box_id)?)
        })
    }

    /// Whether somebody is blocked, as far as this device has heard.
    pub(super) fn is_blocked(&self, box_id: &BoxId) -> Result<bool, StoreError> {
        let said = self.store.get::<EntryRow>(box_id)?;
        let contact = self.store.get::<ContactRow>(box_id)?;
        Ok(match said {
            Some(row) => row.entry.said().blocked,
            None => contact.is_some_and(|row| row.blocked),
        })
    }

    /// All who are blocked, as far as this device has heard, contacts or not. The service says of none.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn blocked(&self) -> Result<Vec<BoxId>, DeviceError> {
        let entries = self.store.all::<EntryRow>()?.into_iter();
        let said = entries.filter(|(_, row)| row.entry.said().blocked);
        let contacts = self.store.all::<ContactRow>()?.into_iter();
        let known = contacts.filter(|(_, row)| row.blocked);
        let blocked: BTreeSet<_> = said
            .map(|(box_id, _)| box_id)
            .chain(known.map(|(box_id, _)| box_id))
            .collect();
        Ok(blocked.into_iter().collect())
    }

    /// Everyone known, by label.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn contacts(&self) -> Result<Vec<Contact>, DeviceError> {
        let rows = self.store.all::<ContactRow>()?;
        let mut contacts: Vec<_> = rows.into_iter().map(Contact::of_row).collect();
        contacts.sort_by_cached_key(|contact| (contact.label(), contact.box_id));
        Ok(contacts)
    }

    /// One contact.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn contact(&self, box_id: &BoxId) -> Result<Option<Contact>, DeviceError> {
        let row = self.store.get::<ContactRow>(box_id)?;
        Ok(row.map(|row| Contact::of_row((*box_id, row))))
    }

    pub(super) async fn ask_to_block(
        &self,
        box_id: &BoxId,
        blocked: bool,
    ) -> Result<(), DeviceError> {
        let request = v1::BlockRequest {
            box_id: Bytes::copy_from_slice(box_id.as_bytes()),
            blocked,
        };
        let signer = self.signer()?;
        let call = self.connection.call::<Block>(&request, Some(&signer));
        Ok(call.await.map(drop)?)
    }

    /// Blocks a box, or lifts the block. To a blocked sender this box does not exist.
    ///
    /// # Errors
    /// [`DeviceError::Call`].
    pub async fn block(&self, box_id: &BoxId, blocked: bool) -> Result<(), DeviceError> {
        let _one_at_a_time = self.policy.lock().await;
        self.ask_to_block(box_id, blocked).await?;
        self.note_blocked(box_id, blocked).await
    }

    /// Reports a box that has written to this one, and whose mail was unwanted; blocks it too, if so wanted. The service
    /// counts it once, and its operator learns how many boxes have reported that one, but not what was written. The
    /// box that is reported learns nothing.
    ///
    /// # Errors
    /// [`DeviceError::Call`], with `NEVER_HEARD_FROM` for a box that never wrote to this one.
    pub async fn report(&self, box_id: &BoxId, block: bool) -> Result<(), DeviceError> {
        let signer = self.signer()?;
        let request = v1::ReportRequest {
            box_id: Bytes::copy_from_slice(box_id.as_bytes()),
            block,
        };
        let _one_at_a_time = self.policy.lock().await;
        let reporting = self.connection.call::<Report>(&request, Some(&signer));
        reporting.await?;
        match block {
            true => self.note_blocked(box_id, true).await,
            false => Ok(()),
        }
    }

    async fn note_blocked(&self, box_id: &BoxId, blocked: bool) -> Result<(), DeviceError> {
        let signer = self.signer()?;
        self.store.write::<_, DeviceError>(|batch| {
            self.note_said_blocked(batch, &signer, (box_id, blocked))?;
            if blocked {
                self.forget_receipts(batch, |author, _| author == box_id)?;
                self.withdraw_profile(batch, &signer.address.box_id, Some(box_id))?;
            }
            Ok(())
        })?;
        self.settle_profiles_soon().await;
        // The next time makes up for it.
        let _ = self.tell_own_devices().await;
        Ok(())
    }

    /// Holds a found record against what is pinned, and pins it: the first time on trust, and from
    /// then on only what grows from that.
    pub(super) fn pin(&self, found: &Found) -> Result<ContactRow, DeviceError> {
        let pinned = self
            .store
            .write(|batch| self.pin_in(batch, &found.box_id, &found.record));
        self.noting_change(pinned)
    }

    fn pin_in(
        &self,
        batch: &mut Batch<'_>,
        box_id: &BoxId,
        record: &KeyRecord,
    ) -> Result<ContactRow, DeviceError> {
        let row = match batch.get::<ContactRow>(box_id)? {
            Some(row) => renewed(box_id, row, record)?,
            None => self.first_met(batch, box_id, record)?,
        };
        batch.put(box_id, &row)?;
        Ok(row)
    }

    /// Somebody who was not known: taken on trust, unless another device of this box knows them.
    pub(super) fn first_met(
        &self,
        batch: &mut Batch<'_>,
        box_id: &BoxId,
        record: &KeyRecord,
    ) -> Result<ContactRow, DeviceError> {
        let row = match batch.get::<ExpectedRow>(box_id)? {
            Some(ExpectedRow { chain }) if !chain.is_on(record) => {
                return Err(DeviceError::IdentityChanged {
                    box_id: *box_id,
                    what: OTHER_THAN_OWN_DEVICES,
                });
            }
            _ => ContactRow {
                name: None,
                identifier: None,
                record: record.encode(),
                pinned: ChainPoint::head(record),
                since: self.environment.clock.now(),
                added: false,
                // Who is blocked stays so, though they were forgotten.
                blocked: known_of(batch, box_id, None)?.entry.said().blocked,
                verified: None,
                changed: None,
            },
        };
        batch.remove::<ExpectedRow>(box_id)?;
        Ok(row)
    }

    /// Holds a found record against what is known: of a contact, or of this device's own box.
    pub(super) fn hold(&self, found: &Found) -> Result<(), DeviceError> {
        if self.is_own(&found.box_id)? {
            self.adopt(&found.record)?;
        } else {
            self.pin(found)?;
        }
        self.take_profile(found)
    }

    /// The pinned record of a contact, or that of this device's own box.
    pub(super) fn pinned_record(&self, box_id: &BoxId) -> Result<Option<KeyRecord>, DeviceError> {
        if self.is_own(box_id)? {
            return Ok(Some(self.identity().record().clone()));
        }
        // Verified before it was stored, and authenticated by the store since.
        match self.store.get::<ContactRow>(box_id)? {
            Some(row) => Ok(Some(KeyRecord::decode_trusted(&row.record)?)),
            None => Ok(None),
        }
    }
}

/// The contact with a newer record, which must grow from the pinned one.
pub(super) fn renewed(
    box_id: &BoxId,
    row: ContactRow,
    record: &KeyRecord,
) -> Result<ContactRow, DeviceError> {
    let damaged = |_| DeviceError::Store(StoreError::Damaged { table: "contacts" });
    check_chain(box_id, row.pinned, record)?;
    let known = KeyRecord::decode_trusted(&row.record).map_err(damaged)?;
    check_keys(box_id, known.devices(), record)?;
    Ok(ContactRow {
        record: record.encode(),
        pinned: ChainPoint::head(record),
        ..row
    })
}

/// Whether a record's chain grows from the one that is known.
pub(super) fn check_chain(
    box_id: &BoxId,
    pinned: ChainPoint,
    record: &KeyRecord,
) -> Result<(), DeviceError> {
    let changed = |what| DeviceError::IdentityChanged {
        box_id: *box_id,
        what,
    };
    if record.version() < pinned.version {
        return Err(changed("an older identity chain was shown"));
    }
    if !pinned.is_on(record) {
        return Err(changed("another identity chain was shown"));
    }
    Ok(())
}

/// Whether a record's KEM keys are those that are known of its devices, or later ones.
fn check_keys<'a>(
    box_id: &BoxId,
    known: impl Iterator<Item = &'a DeviceKeys>,
    record: &KeyRecord,
) -> Result<(), DeviceError> {
    let changed = |what| DeviceError::IdentityChanged {
        box_id: *box_id,
        what,
    };
    for keys in known {
        match record.device(&keys.device) {
            Some(shown) if shown.kem.counter < keys.kem.counter => {
                return Err(changed("an older encryption key was shown"));
            }
            Some(shown)
                if shown.kem.counter == keys.kem.counter && shown.kem.public != keys.kem.public =>
            {
                return Err(changed("two encryption keys were shown under one counter"));
            }
            // Nothing would be sealed to it, and nobody would see that it gets nothing.
            None if record.signing_key(&keys.device).is_some() => {
                return Err(changed("a device without its encryption key was shown"));
            }
            // A device that is gone was taken out by a link of the chain.
            _ => {}
        }
    }
    Ok(())
}
