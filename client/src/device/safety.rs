//! Safety numbers: whom this device's owner has compared them with, and what happens when the identity
//! of such a person changes.
//!
//! ```text
//!   verify ──► verified ──► a change is noticed ──► nothing is sent ──► verify anew, or accept
//! ```
//!
//! The number is that of two boxes and their first keys, so the box of a contact has one number for ever.
//! What can change is which box a phone or email leads to, and that somebody shows another chain for a
//! box than the one that is pinned. The first is another identity, with another number. The second never
//! is accepted, and yet it means that somebody stands between: after it nothing goes to a verified
//! contact until the owner says so, though the right chain be shown again.

use rossby_domain::ids::BoxId;
use rossby_domain::time::Timestamp;

use super::address_book::{known_of, remove_as_heard};
use super::{Contact, Device, DeviceError, Message, Status};
use crate::envelope::OpenError;
use crate::safety_number::safety_number;
use crate::store::{Batch, ContactRow, EntryRow, IdentityChange, StoreError, WhatChanged};

/// Digits of a safety number.
const DIGITS: usize = 60;
/// The code of a message whose sender showed another identity than the pinned one.
pub(super) const IDENTITY_CHANGED: &str = "IDENTITY_CHANGED";
/// The code of a message that is sealed for a chain of this box that the service does not show.
pub(super) const OWN_RECORD: &str = "OWN_RECORD";
/// The code of a message whose sender's key record does not verify.
pub(super) const BAD_SENDER_RECORD: &str = "BAD_SENDER_RECORD";

impl Device {
    /// The number that this device's owner and a contact compare by other means
    /// ([`crate::safety_number`]).
    ///
    /// # Errors
    /// [`DeviceError::NotRegistered`], [`DeviceError::NoUser`] if there is no such contact.
    pub fn safety_number(&self, box_id: &BoxId) -> Result<String, DeviceError> {
        let own = self.account()?.box_id.ok_or(DeviceError::NotRegistered)?;
        let theirs = self
            .pinned_record(box_id)?
            .ok_or(DeviceError::NoUser)?
            .genesis_hash();
        let ours = self.identity().record().genesis_hash();
        Ok(safety_number((&own, &ours), (box_id, &theirs)))
    }

    /// Keeps that a contact was verified, here and, once [`Device::tell_own_devices`] or something sent has told them, on the box's
    /// other devices: by this number of theirs, or by the owner's word if there is none. It also settles that their identifier has moved. Another chain of the same box it can not settle:
    /// the number would be the same ([`Device::accept_change`]).
    ///
    /// # Errors
    /// [`DeviceError::NotASafetyNumber`], [`DeviceError::SafetyNumberDiffers`], [`DeviceError::NotConfirmed`] if
    /// another chain was shown; as [`Device::safety_number`].
    pub fn verify(&self, box_id: &BoxId, number: Option<&str>) -> Result<Contact, DeviceError> {
        let ours = self.safety_number(box_id)?;
        if let Some(theirs) = number
            && digits_of(theirs)? != ours.replace(' ', "")
        {
            return Err(DeviceError::SafetyNumberDiffers(*box_id));
        }
        let now = self.environment.clock.now();
        self.update_contact(box_id, |row| {
            let changed = row.changed.take();
            if let Some(change) = changed.filter(|change| !change.what.is_seen_in_number()) {
                let what = change.what;
                return Err(DeviceError::NotConfirmed {
                    box_id: *box_id,
                    what,
                });
            }
            row.verified = Some(now);
            Ok(())
        })
    }

    /// Settles a change of a contact's identity by the owner's word, who has asked them or does not mind. They
    /// are held to the same chain as before. Where their safety number would be another now, they are not
    /// verified any more.
    ///
    /// Who was forgotten on another device meanwhile is so here too from then on.
    ///
    /// # Errors
    /// [`DeviceError::NoUser`] if there is no such contact.
    pub fn accept_change(&self, box_id: &BoxId) -> Result<Contact, DeviceError> {
        self.update_contact(box_id, |row| {
            let changed = row.changed.take();
            if changed.is_some_and(|change| change.what.is_seen_in_number()) {
                row.verified = None;
            }
            Ok(())
        })
    }

    fn update_contact(
        &self,
        box_id: &BoxId,
        update: impl FnOnce(&mut ContactRow) -> Result<(), DeviceError>,
    ) -> Result<Contact, DeviceError> {
        let signer = self.signer()?;
        self.store.write(|batch| {
            let mut row = batch
                .get::<ContactRow>(box_id)?
                .ok_or(DeviceError::NoUser)?;
            let before = row.clone();
            update(&mut row)?;
            batch.put(box_id, &row)?;
            if let Some(settled) = before.changed.as_ref().filter(|_| row.changed.is_none()) {
                let mut known = known_of(batch, box_id, Some(&before))?;
                known.note(settled);
                batch.put(box_id, &known)?;
            }
            self.note_said(batch, &signer, box_id, &[])?;
            let known = batch.get::<EntryRow>(box_id)?.unwrap_or_default();
            if row.changed.is_none() && known.entry.is_forgotten() {
                remove_as_heard(batch, box_id, &row)?;
            }
            Ok(Contact::of_row((*box_id, row)))
        })
    }

    /// Whether something may be sent to a box: not while a change waits for the owner's word.
    pub(super) fn check_confirmed(&self, box_id: &BoxId) -> Result<(), DeviceError> {
        let row = self.store.get::<ContactRow>(box_id)?;
        match row.and_then(|row| row.changed) {
            Some(change) if change.stops_sending => Err(DeviceError::NotConfirmed {
                box_id: *box_id,
                what: change.what,
            }),
            _ => Ok(()),
        }
    }

    /// Keeps what an error says of a change of somebody's identity.
    pub(super) fn noting_change<T>(
        &self,
        result: Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let (about, what) = match &result {
            Err(DeviceError::IdentityChanged { box_id, what }) => {
                (*box_id, WhatChanged::Chain((*what).to_owned()))
            }
            Err(DeviceError::IdentifierMoved { known, found }) => {
                (*known, WhatChanged::MovedTo(*found))
            }
            _ => return result,
        };
        self.note_change(&about, what)?;
        result
    }

    /// Keeps what an envelope that can't be believed says of a change of somebody's identity.
    pub(super) fn note_bad_envelope(
        &self,
        sender: &BoxId,
        error: &OpenError,
    ) -> Result<(), DeviceError> {
        let what = match error {
            // The service was asked anew, and does not show what they have signed.
            OpenError::SenderChainForked | OpenError::SenderRecordTooOld { .. } => {
                WhatChanged::Chain(error.to_string())
            }
            OpenError::OwnChainForked | OpenError::OwnRecordTooOld(_) => WhatChanged::OwnChain,
            _ => return Ok(()),
        };
        self.note_change(sender, what)
    }

    pub(super) fn note_change(&self, box_id: &BoxId, what: WhatChanged) -> Result<(), DeviceError> {
        self.keep_change(box_id, what, false)
    }

    /// Keeps that the identifier of somebody whom the owner writes to belongs to another box now. They may have begun anew: what
    /// is written to their old box they do not get, so nothing is, verified or not, before the owner has said so.
    pub(super) fn note_moved_away(&self, box_id: &BoxId, to: BoxId) -> Result<(), DeviceError> {
        self.keep_change(box_id, WhatChanged::MovedTo(to), true)
    }

    fn keep_change(
        &self,
        box_id: &BoxId,
        what: WhatChanged,
        stops: bool,
    ) -> Result<(), DeviceError> {
        let signer = self.signer()?;
        self.store.write(|batch| {
            let Some(mut row) = batch.get::<ContactRow>(box_id)? else {
                return Ok(());
            };
            let mut change = graver(&row, what, self.environment.clock.now());
            change.stops_sending |= stops;
            if row.changed.as_ref() == Some(&change) {
                return Ok(());
            }
            row.changed = Some(change);
            batch.put(box_id, &row)?;
            self.tell_change(batch, &signer, (box_id, &row))
        })
    }

    /// Keeps that somebody's identifier belonged to another box before, which the owner has accepted: if
    /// that one was verified, they must be told apart first.
    pub(super) fn note_moved(
        &self,
        batch: &Batch<'_>,
        (box_id, row): (&BoxId, &mut ContactRow),
        known: BoxId,
    ) -> Result<(), StoreError> {
        if row.verified.is_some() {
            return Ok(());
        }
        let waits = |row: &ContactRow| row.changed.as_ref().is_some_and(|it| it.stops_sending);
        // That they are elsewhere now is what the owner has just dealt with.
        let waits_for_other = |row: &ContactRow| {
            let what = row.changed.as_ref().map(|change| &change.what);
            waits(row) && what != Some(&WhatChanged::MovedTo(*box_id))
        };
        let earlier = batch.get::<ContactRow>(&known)?;
        let guarded = |row: &ContactRow| row.verified.is_some() || waits_for_other(row);
        // A stop that stands, stands.
        if !waits(row) {
            let now = self.environment.clock.now();
            let mut change = graver(row, WhatChanged::MovedFrom(known), now);
            change.stops_sending |= earlier.as_ref().is_some_and(guarded);
            row.changed = Some(change);
        }
        Ok(())
    }
}

/// What is said of a contact's identity once this was noticed too: the first change stays until the owner has dealt with it, but
/// for a graver one.
pub(super) fn graver(row: &ContactRow, what: WhatChanged, now: Timestamp) -> IdentityChange {
    let stops_now = row.verified.is_some();
    match &row.changed {
        Some(earlier) if !earlier.what.is_seen_in_number() || what.is_seen_in_number() => {
            earlier.clone()
        }
        earlier => IdentityChange {
            at: now,
            what,
            stops_sending: stops_now || earlier.as_ref().is_some_and(|it| it.stops_sending),
        },
    }
}

impl Message {
    /// Whether it says that somebody shows another identity than the real one, of its sender or of this
    /// box: what its owner must be told loudly.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        let alarms = [
            IDENTITY_CHANGED,
            OWN_RECORD,
            BAD_SENDER_RECORD,
            "SENDER_RECORD_TOO_OLD",
            OpenError::SenderChainForked.code(),
            OpenError::OwnChainForked.code(),
        ];
        matches!(&self.status, Status::Unreadable { code, .. } if alarms.contains(&code.as_str()))
    }
}

/// The digits of a number, however it was written down.
fn digits_of(number: &str) -> Result<String, DeviceError> {
    let written = |character: &char| !character.is_whitespace() && *character != '-';
    let digits: String = number.chars().filter(written).collect();
    if digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        Ok(digits)
    } else {
        Err(DeviceError::NotASafetyNumber)
    }
}
