//! The address book: what the owner says of others on one device holds on all of them ([`crate::owner`]).
//!
//! ```text
//!   a contact is added, named, verified, blocked, accepted ──► note_said: the entry, and word of it to the own box
//!   a contact is removed ──► note_forgotten: the entry stays, without what it said
//!   a device was not greeted yet ──► tell_all
//!
//!   the word came ──► held against the chain that is pinned here ──► the entry's later parts ──► the contact
//! ```
//!
//! A word brings the key record along, so a new device knows at once to which identity the others hold somebody. A change of
//! somebody's identity that one device notices stops all of them, until the owner has dealt with it on each: what somebody with one of
//! the devices says does not silence what the others have seen.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::BoxId;
use rossby_domain::time::Timestamp;

use super::contacts::{check_chain, renewed};
use super::receiving::unless_damaged;
use super::safety::graver;
use super::{Device, DeviceError, withdrawing};
use crate::connection::Signer;
use crate::envelope::{Between, ChainPoint, MAX_CONTENT_BYTES};
use crate::owner::{ContactWord, Entry, Overruled, Part, Said, parse};
use crate::profile::ProfileWord;
use crate::store::{
    Batch, ContactRow, EntryRow, ExpectedRow, IdentityChange, OverruledRow, ProfileRow,
    ResolvedRow, ToldProfileRow, WhatChanged,
};

/// Words of others in one envelope, and the bytes of all of them.
const MAX_WORDS: usize = 255;
const MAX_WORDS_BYTES: usize = MAX_CONTENT_BYTES - 4;

impl Device {
    /// Has what this device's owner has said of others, and what else waits for the box's other devices, go to them now.
    ///
    /// # Errors
    /// [`DeviceError::Call`]: it goes out with what is sent next.
    pub async fn tell_own_devices(&self) -> Result<(), DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        self.flush_words(&self.signer()?).await
    }

    /// Notes what the owner says of somebody from now on, which is what their row says, and has just said `again`; if that is anything
    /// new, the box's other devices are told.
    pub(super) fn note_said(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        box_id: &BoxId,
        again: &[Part],
    ) -> Result<(), DeviceError> {
        let Some(row) = batch.get::<ContactRow>(box_id)? else {
            return Ok(());
        };
        let mut known = batch.get::<EntryRow>(box_id)?.unwrap_or_default();
        if !known.entry.say(self.said_at(), said_in(&row), again) {
            return Ok(());
        }
        let word = word_of(batch, box_id, Some(&row), known.entry.clone())?;
        batch.put(box_id, &known)?;
        self.tell_contacts(batch, signer, vec![word])
    }

    /// Notes that somebody is blocked, or is not any more, also if they are no contact.
    pub(super) fn note_said_blocked(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        (box_id, blocked): (&BoxId, bool),
    ) -> Result<(), DeviceError> {
        let mut row = batch.get::<ContactRow>(box_id)?;
        if let Some(row) = &mut row {
            row.blocked = blocked;
            batch.put(box_id, row)?;
        }
        let mut known = known_of(batch, box_id, row.as_ref())?;
        known.entry.say_blocked(self.said_at(), blocked);
        let word = word_of(batch, box_id, row.as_ref(), known.entry.clone())?;
        batch.put(box_id, &known)?;
        self.tell_contacts(batch, signer, vec![word])
    }

    /// Has the box's other devices told of a change of somebody's identity that was noticed here.
    pub(super) fn tell_change(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        (box_id, row): (&BoxId, &ContactRow),
    ) -> Result<(), DeviceError> {
        let mut known = known_of(batch, box_id, Some(row))?;
        if let Some(change) = &row.changed {
            known.note(change);
        }
        batch.put(box_id, &known)?;
        let mut word = word_of(batch, box_id, Some(row), known.entry)?;
        word.change = row.changed.clone();
        self.tell_contacts(batch, signer, vec![word])
    }

    /// Forgets somebody, and has the box's other devices told.
    pub(super) fn note_forgotten(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        box_id: &BoxId,
    ) -> Result<(), DeviceError> {
        let row = batch.get::<ContactRow>(box_id)?;
        let mut known = known_of(batch, box_id, row.as_ref())?;
        known.entry.forget(self.said_at());
        batch.put(box_id, &known)?;
        remove(batch, box_id)?;
        let word = word_of(batch, box_id, None, known.entry)?;
        self.tell_contacts(batch, signer, vec![word])
    }

    /// Has the box's other devices told of everybody of whom the owner has said anything, those who are forgotten too, of whose
    /// profile can be read here, and of what has befallen whom and waits here for the owner.
    pub(super) fn tell_all(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
    ) -> Result<(), DeviceError> {
        let rows: BTreeMap<_, _> = self.store.all::<ContactRow>()?.into_iter().collect();
        let entries = self.store.all::<EntryRow>()?.into_iter();
        let all: BTreeSet<BoxId> = entries
            .map(|(box_id, _)| box_id)
            .chain(rows.keys().copied())
            .collect();
        let mut words = Vec::new();
        for box_id in &all {
            let row = rows.get(box_id);
            let known = known_of(batch, box_id, row)?;
            let mut word = word_of(batch, box_id, row, known.entry)?;
            word.change = row.and_then(|row| row.changed.clone());
            if word.entry != Entry::default() || word.profile.is_some() || word.change.is_some() {
                words.push(word);
            }
        }
        self.tell_contacts(batch, signer, words)
    }

    fn tell_contacts(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        words: Vec<ContactWord>,
    ) -> Result<(), DeviceError> {
        let mut envelopes = in_envelopes(words).into_iter();
        envelopes.try_for_each(|words| self.tell_own(batch, signer, &Between::Contacts(words)))
    }

    /// Takes what another device of this box says of others. Who shows another identity here than there is held to the one that
    /// is pinned here, and the owner is told.
    pub(super) async fn hear_of_contacts(
        &self,
        signer: &Signer,
        (at, words): (Timestamp, Vec<ContactWord>),
    ) -> Result<(), DeviceError> {
        // What is withdrawn must not be on its way.
        let _one_at_a_time = self.sending.lock().await;
        for word in words {
            // The other words are none the worse for one.
            unless_damaged(self.noting_change(self.hear_of_contact(signer, at, word)))?;
        }
        Ok(())
    }

    fn hear_of_contact(
        &self,
        signer: &Signer,
        at: Timestamp,
        word: ContactWord,
    ) -> Result<(), DeviceError> {
        let ContactWord {
            box_id,
            record,
            entry: mut heard,
            change,
            profile,
        } = word;
        if box_id == signer.address.box_id {
            return Ok(());
        }
        // One of a later version can't be read here. What was said is none the worse for it.
        let record = KeyRecord::decode(&record).ok();
        let is_theirs = |record: &KeyRecord| box_id.is_of_genesis(&record.genesis_hash());
        if !record.as_ref().is_none_or(is_theirs) {
            return Err(DeviceError::Untrue("a key record of another box"));
        }
        heard.pull(at);
        let waiting = match heard.is_forgotten() {
            true => self.waiting(&[box_id], false)?.remove(&box_id),
            false => None,
        };
        // What contradicts the pinned chain does not take along what was said with it.
        let mut conflict = Ok(());
        self.store.write::<_, DeviceError>(|batch| {
            let row = batch.get::<ContactRow>(&box_id)?;
            let mut known = known_of(batch, &box_id, row.as_ref())?;
            let is_new = row.is_none();
            let before = known.entry.clone();
            let is_news = known.entry.take(heard) || is_new;
            note_overruled(batch, &box_id, known.entry.overruled_since(&before))?;
            batch.put(&box_id, &known)?;
            let mut row = match (row, &record) {
                (Some(row), Some(record)) => {
                    held_to(&box_id, &row, record).unwrap_or_else(|error| {
                        conflict = Err(error);
                        row
                    })
                }
                (Some(row), None) => row,
                (None, Some(record)) if !known.entry.is_forgotten() => {
                    match self.first_met(batch, &box_id, record) {
                        Err(error @ DeviceError::IdentityChanged { .. }) => {
                            conflict = Err(error);
                            return Ok(());
                        }
                        met => met?,
                    }
                }
                // Nobody to forget, or nothing to hold them to: should they be met, it is known what was said.
                (None, _) => return Ok(()),
            };
            if let Some(noticed) = change {
                self.take_noticed(batch, (&box_id, &mut row), &mut known, noticed)?;
                batch.put(&box_id, &known)?;
            }
            if is_news && known.entry.is_forgotten() {
                self.withdraw_from(batch, &box_id)?;
                withdrawing::withdraw(batch, signer, waiting.unwrap_or_default())?;
                if row.changed.is_none() {
                    return remove_as_heard(batch, &box_id, &row);
                }
                // What has befallen them here the other device did not see: the owner is to deal with that first.
                row.verified = None;
            }
            if is_news {
                self.take_said(batch, &box_id, &mut row, known.entry.said())?;
            }
            batch.put(&box_id, &row)?;
            self.take_profile_word(batch, &box_id, profile)
        })?;
        conflict
    }

    /// Says of somebody what the entry says.
    fn take_said(
        &self,
        batch: &mut Batch<'_>,
        box_id: &BoxId,
        row: &mut ContactRow,
        said: Said,
    ) -> Result<(), DeviceError> {
        let identifier = said.identifier.as_deref().and_then(parse);
        let identifier = identifier.as_ref().map(Into::into);
        if identifier != row.identifier
            && let Some(identifier) = &identifier
            && let Some(known) = self.held_by_another(identifier, box_id)?
        {
            // The owner has accepted that there, but not here that who was verified is so no more: were it enough to say that the new
            // one is, somebody with one of the devices could put themselves in their place.
            row.verified = None;
            self.note_moved(batch, (box_id, row), known)?;
        }
        if said.blocked && !row.blocked {
            self.forget_receipts(batch, |author, _| author == box_id)?;
            self.withdraw_from(batch, box_id)?;
        }
        row.name = said.name;
        row.identifier = identifier;
        row.added = said.added;
        row.blocked = said.blocked;
        row.verified = said.verified;
        Ok(())
    }

    /// Keeps a change of somebody's identity that another device has noticed, unless it was kept here before. One that has to wait for
    /// the owner to deal with another is told again by whoever greets.
    fn take_noticed(
        &self,
        batch: &mut Batch<'_>,
        (box_id, row): (&BoxId, &mut ContactRow),
        known: &mut EntryRow,
        noticed: IdentityChange,
    ) -> Result<(), DeviceError> {
        if let Some(waiting) = row.changed.as_mut().filter(|it| it.is_same(&noticed)) {
            waiting.stops_sending |= noticed.stops_sending;
            return Ok(());
        }
        if known.knows(&noticed) {
            return Ok(());
        }
        if let WhatChanged::MovedTo(found) = noticed.what {
            // Not noticed here once more.
            let resolved = ResolvedRow {
                at: self.environment.clock.now(),
                elsewhere: Some(found),
            };
            batch.put(box_id, &resolved)?;
        }
        let mut change = graver(row, noticed.what, noticed.at);
        change.stops_sending |= noticed.stops_sending;
        known.note(&change);
        row.changed = Some(change);
        Ok(())
    }

    /// Who is blocked or forgotten on another device is not to have this box's profile by this one either.
    fn withdraw_from(&self, batch: &mut Batch<'_>, box_id: &BoxId) -> Result<(), DeviceError> {
        let was_told = batch.get::<ToldProfileRow>(box_id)?.is_some();
        match (self.account()?.box_id, was_told) {
            (Some(own), true) => Ok(self.withdraw_profile(batch, &own, Some(box_id))?),
            _ => Ok(()),
        }
    }

    /// Takes the key to somebody's profile if none is known here. One that is known they have given themselves.
    fn take_profile_word(
        &self,
        batch: &mut Batch<'_>,
        box_id: &BoxId,
        word: Option<ProfileWord>,
    ) -> Result<(), DeviceError> {
        let known = batch.get::<ProfileRow>(box_id)?.unwrap_or_default();
        match word.filter(|_| known.key.is_none()) {
            Some(word) => Ok(self.take_word_of_profile(batch, box_id, word)?),
            None => Ok(()),
        }
    }
}

/// Has the service told what holds of somebody, if what was said of them here does not hold any more.
pub(super) fn note_overruled(
    batch: &mut Batch<'_>,
    box_id: &BoxId,
    what: Overruled,
) -> Result<(), DeviceError> {
    if what == Overruled::default() {
        return Ok(());
    }
    let waits = batch.get::<OverruledRow>(box_id)?.unwrap_or_default().what;
    let what = Overruled {
        blocked: what.blocked || waits.blocked,
        added: what.added || waits.added,
    };
    Ok(batch.put(box_id, &OverruledRow { what })?)
}

/// Removes a contact, and what was looked up of them.
fn remove(batch: &mut Batch<'_>, box_id: &BoxId) -> Result<(), DeviceError> {
    batch.remove::<ResolvedRow>(box_id)?;
    Ok(batch.remove::<ContactRow>(box_id)?)
}

/// Removes a contact because another device has. Should they be met again, they are held to the chain that was pinned here.
pub(super) fn remove_as_heard(
    batch: &mut Batch<'_>,
    box_id: &BoxId,
    row: &ContactRow,
) -> Result<(), DeviceError> {
    let chain = row.pinned;
    batch.put(box_id, &ExpectedRow { chain })?;
    remove(batch, box_id)
}

/// What the owner says of a contact.
fn said_in(row: &ContactRow) -> Said {
    Said {
        name: row.name.clone(),
        identifier: row
            .identifier
            .as_ref()
            .map(|identifier| identifier.as_str().to_owned()),
        added: row.added,
        blocked: row.blocked,
        verified: row.verified,
    }
}

/// What is known to be said of somebody. Where nobody noted when, it was said when they were met.
pub(super) fn known_of(
    batch: &Batch<'_>,
    box_id: &BoxId,
    row: Option<&ContactRow>,
) -> Result<EntryRow, DeviceError> {
    let known = batch.get::<EntryRow>(box_id)?;
    Ok(known.unwrap_or_else(|| {
        let mut known = EntryRow::default();
        if let Some(row) = row {
            known.entry.say(row.since, said_in(row), &[]);
        }
        known
    }))
}

fn word_of(
    batch: &Batch<'_>,
    box_id: &BoxId,
    row: Option<&ContactRow>,
    entry: Entry,
) -> Result<ContactWord, DeviceError> {
    let profile = match row {
        Some(_) => batch.get::<ProfileRow>(box_id)?,
        None => None,
    };
    Ok(ContactWord {
        box_id: *box_id,
        record: row.map(|row| row.record.clone()).unwrap_or_default(),
        entry,
        change: None,
        profile: profile.and_then(|row| {
            let version = row.newest();
            row.key.map(|key| ProfileWord { key, version })
        }),
    })
}

/// A contact, held to a record that another device holds them to: a later one is pinned.
fn held_to(
    box_id: &BoxId,
    row: &ContactRow,
    record: &KeyRecord,
) -> Result<ContactRow, DeviceError> {
    let theirs = ChainPoint::head(record);
    if theirs.version > row.pinned.version {
        return renewed(box_id, row.clone(), record);
    }
    check_chain(box_id, theirs, &KeyRecord::decode_trusted(&row.record)?)?;
    Ok(row.clone())
}

/// The words, as many to an envelope as there is room for.
fn in_envelopes(words: Vec<ContactWord>) -> Vec<Vec<ContactWord>> {
    let mut envelopes: Vec<Vec<ContactWord>> = Vec::new();
    let mut left = 0;
    for word in words {
        let bytes = word.encode().len() + 4;
        match envelopes.last_mut() {
            Some(last) if bytes <= left && last.len() < MAX_WORDS => last.push(word),
            _ => {
                envelopes.push(vec![word]);
                left = MAX_WORDS_BYTES;
            }
        }
        left = left.saturating_sub(bytes);
    }
    envelopes
}
