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

use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::BoxId;

use super::contacts::{check_chain, renewed};
use super::receiving::unless_damaged;
use super::safety::graver;
use super::{Device, DeviceError, withdrawing};
use crate::connection::Signer;
use crate::envelope::{Between, ChainPoint, MAX_CONTENT_BYTES};
use crate::owner::{ContactWord, Entry, Said, is_ahead, parse};
use crate::profile::ProfileWord;
use crate::store::{Batch, ContactRow, EntryRow, MarksRow, ProfileRow};

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

    /// Notes what the owner says of somebody from now on, which is what their row says; if that is anything new, the box's other
    /// devices are told.
    pub(super) fn note_said(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        box_id: &BoxId,
    ) -> Result<(), DeviceError> {
        let Some(row) = batch.get::<ContactRow>(box_id)? else {
            return Ok(());
        };
        let mut entry = entry_of(batch, box_id)?;
        if !entry.say(self.environment.clock.now(), said_in(&row)) {
            return Ok(());
        }
        let word = word_of(batch, box_id, &row, entry.clone())?;
        batch.put(box_id, &EntryRow { entry })?;
        self.tell_contacts(batch, signer, vec![word])
    }

    /// Has the box's other devices told of a change of somebody's identity that was noticed here.
    pub(super) fn tell_change(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        (box_id, row): (&BoxId, &ContactRow),
    ) -> Result<(), DeviceError> {
        let mut word = word_of(batch, box_id, row, entry_of(batch, box_id)?)?;
        word.change = row.changed.as_ref().map(|change| change.what.clone());
        self.tell_contacts(batch, signer, vec![word])
    }

    /// Notes that somebody is forgotten, and has the box's other devices told.
    pub(super) fn note_forgotten(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        box_id: &BoxId,
    ) -> Result<(), DeviceError> {
        let mut entry = entry_of(batch, box_id)?;
        entry.forget(self.environment.clock.now());
        batch.put(
            box_id,
            &EntryRow {
                entry: entry.clone(),
            },
        )?;
        let word = ContactWord {
            box_id: *box_id,
            record: Vec::new(),
            entry,
            change: None,
            profile: None,
        };
        self.tell_contacts(batch, signer, vec![word])
    }

    /// Has the box's other devices told of everybody of whom the owner has said anything, or whose profile can be read here.
    pub(super) fn tell_all(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
    ) -> Result<(), DeviceError> {
        let mut words = Vec::new();
        for (box_id, row) in self.store.all::<ContactRow>()? {
            let mut entry = entry_of(batch, &box_id)?;
            // Said by an earlier version, which did not note when.
            if entry.say(self.environment.clock.now(), said_in(&row)) {
                batch.put(
                    &box_id,
                    &EntryRow {
                        entry: entry.clone(),
                    },
                )?;
            }
            let word = word_of(batch, &box_id, &row, entry)?;
            if word.entry != Entry::default() || word.profile.is_some() {
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
        if self.is_alone(batch)? {
            return Ok(());
        }
        let order = batch.get::<MarksRow>(&())?.unwrap_or_default().next_order;
        for words in in_envelopes(words) {
            self.say(batch, signer, &Between::Contacts(words), order)?;
        }
        Ok(())
    }

    /// Takes what another device of this box says of others. Who shows another identity here than there is held to the one that
    /// is pinned here, and the owner is told.
    pub(super) async fn hear_of_contacts(
        &self,
        signer: &Signer,
        words: Vec<ContactWord>,
    ) -> Result<(), DeviceError> {
        // What is withdrawn must not be on its way.
        let _one_at_a_time = self.sending.lock().await;
        for word in words {
            // A clock that far ahead is wrong, and what it says would hold for as long.
            if is_ahead(word.entry.last(), self.environment.clock.now())
                || self.is_own(&word.box_id)?
            {
                continue;
            }
            // The other words are none the worse for one.
            unless_damaged(self.noting_change(self.hear_of_contact(signer, word)))?;
        }
        Ok(())
    }

    fn hear_of_contact(&self, signer: &Signer, word: ContactWord) -> Result<(), DeviceError> {
        let ContactWord {
            box_id,
            record,
            entry: heard,
            change,
            profile,
        } = word;
        let record = match record.is_empty() {
            true => None,
            false => Some(KeyRecord::decode(&record)?),
        };
        let is_theirs = |record: &KeyRecord| box_id.is_of_genesis(&record.genesis_hash());
        if !record.as_ref().is_none_or(is_theirs) {
            return Err(DeviceError::Untrue("a key record of another box"));
        }
        let waiting = self.waiting(&[box_id], false)?.remove(&box_id);
        self.store.write::<_, DeviceError>(|batch| {
            let known = batch.get::<ContactRow>(&box_id)?;
            let mut entry = entry_of(batch, &box_id)?;
            let is_news = entry.take(heard);
            let mut row = match (known, &record) {
                (Some(row), Some(record)) => held_to(&box_id, row, record)?,
                (Some(row), None) => row,
                (None, Some(record)) if !entry.is_forgotten() => {
                    self.first_met(batch, &box_id, record)?
                }
                // Nobody to forget, or nothing to hold them to: should they be met, it is known what was said.
                (None, _) => return Ok(batch.put(&box_id, &EntryRow { entry })?),
            };
            if is_news && entry.is_forgotten() {
                batch.put(&box_id, &EntryRow { entry })?;
                // What has befallen them here the other device did not see.
                if row.changed.as_ref().is_some_and(|it| it.stops_sending) {
                    return Ok(());
                }
                withdrawing::withdraw(batch, signer, waiting.unwrap_or_default())?;
                return Ok(batch.remove::<ContactRow>(&box_id)?);
            }
            if is_news {
                self.take_said(batch, &box_id, &mut row, entry.said())?;
                batch.put(&box_id, &EntryRow { entry })?;
            }
            if let Some(what) = change {
                row.changed = Some(graver(&row, what, self.environment.clock.now()));
            }
            Ok(batch.put(&box_id, &row)?)
        })?;
        let is_known = self.store.get::<ContactRow>(&box_id)?.is_some();
        match profile.filter(|_| is_known) {
            Some(word) => Ok(self.hear_of_profile(&box_id, word)?),
            None => Ok(()),
        }
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
        if let Some(identifier) = &identifier
            && let Some(known) = self.held_by_another(identifier, box_id)?
        {
            // The owner has accepted that, but not that who was verified is so no more.
            self.note_moved(batch, row, known)?;
        }
        if said.blocked && !row.blocked {
            self.forget_receipts(batch, |author, _| author == box_id)?;
        }
        row.name = said.name;
        row.identifier = identifier;
        row.added = said.added;
        row.blocked = said.blocked;
        row.verified = said.verified;
        Ok(())
    }
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

pub(super) fn entry_of(batch: &Batch<'_>, box_id: &BoxId) -> Result<Entry, DeviceError> {
    let row = batch.get::<EntryRow>(box_id)?;
    Ok(row.map(|row| row.entry).unwrap_or_default())
}

fn word_of(
    batch: &Batch<'_>,
    box_id: &BoxId,
    row: &ContactRow,
    entry: Entry,
) -> Result<ContactWord, DeviceError> {
    let profile = batch.get::<ProfileRow>(box_id)?;
    Ok(ContactWord {
        box_id: *box_id,
        record: row.record.clone(),
        entry,
        change: None,
        profile: profile.and_then(|row| {
            let version = row.newest();
            row.key.map(|key| ProfileWord { key, version })
        }),
    })
}

/// A contact, held to a record that another device holds them to: a later one is pinned.
fn held_to(box_id: &BoxId, row: ContactRow, record: &KeyRecord) -> Result<ContactRow, DeviceError> {
    let theirs = ChainPoint::head(record);
    if theirs.version > row.pinned.version {
        return renewed(box_id, row, record);
    }
    check_chain(box_id, theirs, &KeyRecord::decode_trusted(&row.record)?)?;
    Ok(row)
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
