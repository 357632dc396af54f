//! Profiles: what this box shows of itself to its contacts, and what they show ([`crate::profile`]).
//!
//! ```text
//!   set_profile ──► sealed, signed, stored as the next ──► SetProfile, the same bytes until their fate is known
//!                 ──► "there is a new one, under this key": to own devices, and to who was told before
//!   another device was quicker ──► looked up: what opens is gone on from; what does not, is followed under a key of one's own
//!   a message to a contact who was not told yet ──► the key, behind the message
//!   who is blocked, forgotten, or removed as a device ──► another key, for all the others
//!
//!   the key came ──► the row of its box ──► settle_profiles: looked up, opened, kept
//! ```
//!
//! A version only ever rises. Who has the key says which version there is; a service that shows an older one, or something else,
//! holds the newer one back, and that is shown. Another key is never undone by a device that has not heard of it, nor does it
//! undo what another device has shown since.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::BoxId;
use rossby_domain::profile::MAX_PROFILE_STEP;
use rossby_domain::time::Timestamp;

use tokio::time::timeout;

use super::contacts::{Found, LookupBy};
use super::devices::is_refused;
use super::receipts::{Rest, may_hear, may_know};
use super::sending::Draft;
use super::words::next_order;
use super::{Device, DeviceError};
use crate::connection::{Refusal, Retry, SetProfile, Signer};
use crate::crypto::secret::SecretBytes;
use crate::envelope::{Between, Content, Control};
use crate::profile::{self, Profile, ProfileError, ProfileKey, ProfileWord};
use crate::registering;
use crate::store::{
    Batch, ContactRow, NextProfile, PendingRow, ProfileRow, StoreError, ToldProfileRow,
};

/// How often a version is chosen anew where other devices were quicker.
const MAX_TRIES: u32 = 4;
/// Profiles that are looked up in one go: lookups are rationed.
const MAX_LOOKUPS: usize = 4;
/// How long looking for the profiles of others may keep anybody waiting.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after a vain try this box's own is not tried again by itself.
const PAUSE_MS: u64 = 60_000;

/// What the service shows as a box's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its version; 0 if there is none.
    pub version: u64,
    /// The sealed profile, if it is later than the one that is known here.
    pub sealed: Bytes,
}

/// How far looking for profiles has come since this start.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// Whose was looked up last: it goes on behind them.
    last: Option<BoxId>,
    /// The version that was looked for and not found: not again before there is word of another.
    in_vain: BTreeMap<BoxId, u64>,
    /// This box's own is not tried before.
    own_after: Timestamp,
}

/// What somebody shows of themselves, as far as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What they say. Nobody but their own devices has said so, and nobody has checked it.
    pub profile: Profile,
    /// Its version.
    pub version: u64,
    /// Whether the service does not show the newest, or shows what is not theirs.
    pub is_withheld: bool,
}

impl Device {
    /// What this box shows of itself; `None` if it never showed anything.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn profile(&self) -> Result<Option<Claimed>, DeviceError> {
        match self.account()?.box_id {
            Some(own) => self.profile_of(&own),
            None => Ok(None),
        }
    }

    /// What somebody shows of themselves, if this device was given the key and has seen it.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn profile_of(&self, box_id: &BoxId) -> Result<Option<Claimed>, DeviceError> {
        let row = self.store.get::<ProfileRow>(box_id)?;
        Ok(row.and_then(|row| claimed(&row)))
    }

    /// What everybody shows of themselves who has shown something here.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn profiles(&self) -> Result<Vec<(BoxId, Claimed)>, DeviceError> {
        let rows = self.store.all::<ProfileRow>()?.into_iter();
        Ok(rows
            .filter_map(|(box_id, row)| Some((box_id, claimed(&row)?)))
            .collect())
    }

    /// Shows this from now on to the contacts who have the key, and to those whom this device writes to later. How many could not be
    /// told yet.
    ///
    /// # Errors
    /// [`DeviceError::Call`]; unless the service has refused it, it may be shown all the same, now or when this device comes to it
    /// again. [`DeviceError::Store`].
    pub async fn set_profile(&self, profile: &Profile) -> Result<usize, DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        self.show(Some(profile)).await
    }

    /// Publishes a profile, or the one that there is under another key if somebody has the key who must not; tells who is to know.
    /// How many could not be told yet.
    async fn show(&self, wanted: Option<&Profile>) -> Result<usize, DeviceError> {
        let signer = self.signer()?;
        let own = signer.address.box_id;
        // What was cut off comes first: the service may have it.
        let mut there = self.give_next(&signer).await?;
        for _ in 0..MAX_TRIES {
            let row = self.store.get::<ProfileRow>(&own)?.unwrap_or_default();
            let is_behind = wanted.is_none() && row.must_rotate && row.version < row.told;
            if there.is_some() || is_behind {
                let found = self.lookup(&LookupBy::Box(own)).await?;
                self.hold(&found)?;
            }
            if !self.prepare_next(&signer, wanted, there.unwrap_or_default())? {
                return self.tell_profile_to_all(&signer).await;
            }
            there = self.give_next(&signer).await?;
            if there.is_none() {
                return self.tell_profile_to_all(&signer).await;
            }
        }
        Err(DeviceError::Untrue("every profile version is refused"))
    }

    /// Seals what is to be shown and stores it, before the service is given it. Whether anything is to be. `there` is the version
    /// that the service has, as far as it has said so.
    fn prepare_next(
        &self,
        signer: &Signer,
        wanted: Option<&Profile>,
        there: u64,
    ) -> Result<bool, DeviceError> {
        let own = &signer.address.box_id;
        let random = self.environment.random.as_ref();
        let identity = self.identity();
        self.store.write(|batch| {
            let mut row = batch.get::<ProfileRow>(own)?.unwrap_or_default();
            let far =
                DeviceError::Untrue("the profile's version is far above all there is word of");
            if there > row.newest().saturating_add(MAX_PROFILE_STEP) {
                return Err(far);
            }
            let is_known = row.version >= row.told.max(there);
            let profile = match (wanted, claimed(&row)) {
                (Some(wanted), _) => wanted.clone(),
                // What another device has shown since is not undone.
                (None, Some(claimed)) if row.must_rotate && is_known => claimed.profile,
                _ => return Ok(false),
            };
            // Under what key there is one that was not told of, nobody knows: it may be meant to be another's no more.
            let keeps = !row.must_rotate && row.newest() >= there;
            let key = row.key.clone().filter(|_| keeps);
            let is_fresh = key.is_none();
            let key = match key {
                Some(key) => key,
                None => ProfileKey::draw(random)?,
            };
            let version = row.newest().max(there).checked_add(1).ok_or(far)?;
            let author = (signer.address, identity.signing_key());
            let sealed = profile::seal(random, &key, author, version, &profile)?;
            row.next = Some(NextProfile {
                key,
                is_fresh,
                version,
                profile: SecretBytes::new(profile.encode().to_vec()),
                sealed,
            });
            batch.put(own, &row)?;
            Ok(true)
        })
    }

    /// Has the service keep what was prepared, if anything was. The version that it has instead, if that one is used.
    async fn give_next(&self, signer: &Signer) -> Result<Option<u64>, DeviceError> {
        let own = &signer.address.box_id;
        let row = self.store.get::<ProfileRow>(own)?;
        let Some(next) = row.and_then(|row| row.next) else {
            return Ok(None);
        };
        // Dropped meanwhile, or refused for now, it is given again.
        self.unsettled_profiles.store(true, Ordering::Relaxed);
        let error = match self.give_profile(signer, next.version, &next.sealed).await {
            Ok(()) => {
                self.store
                    .write(|batch| self.note_published(batch, signer, next))?;
                return Ok(None);
            }
            Err(error) => error,
        };
        let refusal = match &error {
            DeviceError::Call(error) => error.refusal(),
            _ => None,
        };
        let is_final = |refusal: &&Refusal| refusal.retry != Retry::Same;
        if let Some(refusal) = refusal.filter(is_final) {
            self.store.write::<_, StoreError>(|batch| {
                let mut row = batch.get::<ProfileRow>(own)?.unwrap_or_default();
                row.next = None;
                batch.put(own, &row)
            })?;
            let current = refusal.figures.get("current_version");
            let current = current.and_then(|text| text.parse::<u64>().ok());
            if is_refused(&error, "PROFILE_VERSION_USED") && current.is_some() {
                return Ok(current);
            }
        }
        Err(error)
    }

    /// Keeps what the service has now, next to what happened since it was prepared; and has the own devices told.
    fn note_published(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        next: NextProfile,
    ) -> Result<(), DeviceError> {
        let own = &signer.address.box_id;
        let mut row = batch.get::<ProfileRow>(own)?.unwrap_or_default();
        row.next = None;
        if next.version > row.version {
            row.version = next.version;
            row.profile = Some(next.profile);
            row.sealed = next.sealed;
        }
        // Unless another device has shown a later one already.
        if next.version > row.told {
            row.told = next.version;
            row.key = Some(next.key);
            row.is_withheld = false;
            // Who must not have the earlier key was never told of this one.
            row.must_rotate &= !next.is_fresh;
        }
        batch.put(own, &row)?;
        match self.tell_profile_to_own(batch, signer, &row) {
            Err(error @ DeviceError::Store(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Tells those who were told of it before, and are not up to date. How many could not be told yet.
    async fn tell_profile_to_all(&self, signer: &Signer) -> Result<usize, DeviceError> {
        let before = self.store.all::<ToldProfileRow>()?;
        let told = self.store.write::<_, DeviceError>(|batch| {
            let mut told = Vec::new();
            for (box_id, _) in &before {
                match self.tell_profile(batch, signer, box_id) {
                    Ok(true) => told.push(*box_id),
                    Err(error @ DeviceError::Store(_)) => return Err(error),
                    // One who can't be told holds up nobody else.
                    _ => {}
                }
            }
            Ok(told)
        })?;
        let sent = self.flush(signer, &told, None).await?;
        let _ = self.flush_words(signer).await;
        let waits = |sent: &&super::Sent| matches!(sent.delivery, super::Delivery::Pending(_));
        Ok(sent.iter().filter(waits).count())
    }

    async fn give_profile(
        &self,
        signer: &Signer,
        version: u64,
        sealed: &[u8],
    ) -> Result<(), DeviceError> {
        let own = &signer.address.box_id;
        let request = registering::set_profile_request(&self.identity(), own, version, sealed);
        let calling = self.connection.call::<SetProfile>(&request, Some(signer));
        calling.await?;
        Ok(())
    }

    /// Has somebody not be told of this box's profile any more, or whoever has lost a device of this box: it goes under another
    /// key, as soon as that can be. Whether they have the key, another device may know and this one not.
    pub(super) fn withdraw_profile(
        &self,
        batch: &mut Batch<'_>,
        own: &BoxId,
        from: Option<&BoxId>,
    ) -> Result<(), StoreError> {
        if let Some(from) = from {
            batch.remove::<ToldProfileRow>(from)?;
            for (key, row) in self.store.all::<PendingRow>()? {
                if key.0 == *from && Control::is_about(row.content.expose(), Control::PROFILE) {
                    batch.remove::<PendingRow>(&key)?;
                }
            }
        }
        if let Some(mut row) = batch.get::<ProfileRow>(own)?
            && row.key.is_some()
        {
            row.must_rotate = true;
            batch.put(own, &row)?;
            self.unsettled_profiles.store(true, Ordering::Relaxed);
            self.looking.lock().own_after = Timestamp::default();
        }
        Ok(())
    }

    /// Gives the service this box's profile again if it shows an older one: it was restored.
    pub(super) async fn keep_profile_published(&self, found: &Found) -> Result<(), DeviceError> {
        let row = self.store.get::<ProfileRow>(&found.box_id)?;
        match (row, &found.profile) {
            (Some(row), Some(shown)) if shown.version < row.version && !row.sealed.is_empty() => {
                let signer = self.signer()?;
                self.give_profile(&signer, row.version, &row.sealed).await
            }
            _ => Ok(()),
        }
    }

    /// The version of a box's profile that is known here, if the next lookup is to bring a later one.
    pub(super) fn profile_after(&self, by: &LookupBy) -> Result<Option<u64>, DeviceError> {
        let LookupBy::Box(box_id) = by else {
            return Ok(None);
        };
        // Of a stranger nothing is shown.
        if !self.is_own(box_id)? && !self.may_look_at(box_id)? {
            return Ok(None);
        }
        let row = self.store.get::<ProfileRow>(box_id)?;
        Ok(row.filter(|row| row.key.is_some()).map(|row| row.version))
    }

    fn may_look_at(&self, box_id: &BoxId) -> Result<bool, StoreError> {
        let contact = self.store.get::<ContactRow>(box_id)?;
        Ok(contact.is_some_and(|row| may_hear(&row)))
    }

    /// Tells a contact of this box's profile and its key, if they were not told of this version yet. Whether they are now.
    pub(super) fn tell_profile(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        to: &BoxId,
    ) -> Result<bool, DeviceError> {
        let own = batch.get::<ProfileRow>(&signer.address.box_id)?;
        let Some((word, row)) = own.and_then(|row| Some((word_of(&row)?, row))) else {
            return Ok(false);
        };
        let now = ToldProfileRow {
            key: word.key.id(),
            version: word.version,
        };
        let before = batch.get::<ToldProfileRow>(to)?;
        let is_waiting = row.must_rotate || row.version < row.told;
        if is_waiting || before == Some(now) || !may_know(batch, to)? {
            return Ok(false);
        }
        let content = Content::Control(Control {
            topic: Control::PROFILE,
            body: word.encode(),
        });
        let draft = Draft {
            content: &content,
            written_at: self.environment.clock.now(),
            order: next_order(batch)?,
            group: None,
            ttl_ms: None,
        };
        self.post(batch, signer, to, &draft)?;
        batch.put(to, &now)?;
        Ok(true)
    }

    /// Tells the box's other devices of its profile and its key, if there is one.
    pub(super) fn tell_profile_to_own(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        row: &ProfileRow,
    ) -> Result<(), DeviceError> {
        let version = row.newest();
        let word = row.key.clone().map(|key| ProfileWord { key, version });
        match word.filter(|_| version > 0) {
            Some(word) => self.tell_own(batch, signer, &Between::Profile(word)),
            None => Ok(()),
        }
    }

    /// Takes what a box's device says of its profile.
    pub(super) fn hear_of_profile(
        &self,
        from: &BoxId,
        word: ProfileWord,
    ) -> Result<(), StoreError> {
        self.store
            .write(|batch| self.take_word_of_profile(batch, from, word))
    }

    /// The same in a transaction.
    pub(super) fn take_word_of_profile(
        &self,
        batch: &mut Batch<'_>,
        from: &BoxId,
        word: ProfileWord,
    ) -> Result<(), StoreError> {
        let mut row = batch.get::<ProfileRow>(from)?.unwrap_or_default();
        // Nobody is to be led to where no version is left.
        let highest = row.newest().saturating_add(MAX_PROFILE_STEP);
        if word.version <= row.newest() || word.version > highest {
            return Ok(());
        }
        row.key = Some(word.key);
        row.told = word.version;
        batch.put(from, &row)?;
        self.unsettled_profiles.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The same of content that came in an envelope between two people.
    pub(super) fn hear_of_profile_in(
        &self,
        signer: &Signer,
        from: &BoxId,
        content: &[u8],
    ) -> Result<(), StoreError> {
        // What the own devices say comes in other words.
        if *from == signer.address.box_id {
            return Ok(());
        }
        let Ok(Content::Control(control)) = Content::decode(content) else {
            return Ok(());
        };
        // One row for each who is known here. A stranger's waits until they are a contact, and nobody is looked up for it.
        let contact = self.store.get::<ContactRow>(from)?;
        if contact.is_none_or(|row| row.blocked) {
            return Ok(());
        }
        // What is malformed, or of a later form, says nothing to this device.
        match ProfileWord::decode(&control.body) {
            Ok(Some(word)) => self.hear_of_profile(from, word),
            _ => Ok(()),
        }
    }

    /// Takes what the service shows as a box's profile.
    pub(super) fn take_profile(&self, found: &Found) -> Result<(), DeviceError> {
        let Some(shown) = &found.profile else {
            return Ok(());
        };
        let is_own = self.is_own(&found.box_id)?;
        Ok(self.store.write::<_, StoreError>(|batch| {
            let Some(mut row) = batch.get::<ProfileRow>(&found.box_id)? else {
                return Ok(());
            };
            let before = row.clone();
            row.take(&found.box_id, &found.record, shown);
            if !is_own {
                // It is given again to a service that has lost it by its owner alone.
                row.sealed = Vec::new();
            }
            if row != before {
                batch.put(&found.box_id, &row)?;
            }
            Ok(())
        })?)
    }

    /// Gives this box's profile another key if somebody has it who must not, tells who is not up to date, and looks up the profiles
    /// that there is word of, for as long as nobody has to wait for it. The next time makes up for what is left.
    pub(super) async fn settle_profiles_soon(&self) {
        if !self.unsettled_profiles.load(Ordering::Relaxed) {
            return;
        }
        // Dropped meanwhile, it is not done.
        let mut rest = Rest(Some(&self.unsettled_profiles));
        self.unsettled_profiles.store(false, Ordering::Relaxed);
        let others = timeout(PATIENCE, self.look_for_profiles()).await;
        // Behind them, for what an own device shows is told on once it is known; and never cut off.
        let own = self.settle_own_profile().await;
        if matches!((own, others), (Ok(true), Ok(Ok(true)))) {
            rest.0 = None;
        }
    }

    /// Finishes what this box is to show. Whether nothing is left of that.
    async fn settle_own_profile(&self) -> Result<bool, DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let own = &signer.address.box_id;
        let is_left =
            |row: Option<ProfileRow>| row.is_some_and(|row| row.next.is_some() || row.must_rotate);
        if !is_left(self.store.get::<ProfileRow>(own)?) {
            return self.tell_profile_to_all(&signer).await.map(|_| true);
        }
        let now = self.environment.clock.now();
        if now < self.looking.lock().own_after {
            return Ok(false);
        }
        self.looking.lock().own_after = now.plus_millis(PAUSE_MS);
        self.show(None).await?;
        let is_left = is_left(self.store.get::<ProfileRow>(own)?);
        if !is_left {
            self.looking.lock().own_after = Timestamp::default();
        }
        Ok(!is_left)
    }

    /// Looks up some of the profiles that there is word of. Whether none is left.
    async fn look_for_profiles(&self) -> Result<bool, DeviceError> {
        let mut behind = Vec::new();
        for (box_id, row) in self.store.all::<ProfileRow>()? {
            let in_vain = self.looking.lock().in_vain.get(&box_id) == Some(&row.told);
            let is_wanted = row.version < row.told && !in_vain;
            if is_wanted && (self.is_own(&box_id)? || self.may_look_at(&box_id)?) {
                behind.push(box_id);
            }
        }
        behind.sort_unstable();
        let last = self.looking.lock().last;
        let next = behind.partition_point(|box_id| Some(*box_id) <= last);
        // So that none stands in the way of the others.
        behind.rotate_left(next);
        let mut is_done = behind.len() <= MAX_LOOKUPS;
        for box_id in behind.iter().take(MAX_LOOKUPS) {
            self.looking.lock().last = Some(*box_id);
            match self.lookup(&LookupBy::Box(*box_id)).await {
                Ok(found) => {
                    // Their identity is dealt with elsewhere.
                    if let Err(error @ DeviceError::Store(_)) = self.hold(&found) {
                        return Err(error);
                    }
                }
                Err(error) if error.is_unreachable() => return Err(error),
                Err(error) if error.may_pass() => {
                    is_done = false;
                    continue;
                }
                Err(_) => {}
            }
            self.note_looked_up(box_id)?;
        }
        Ok(is_done)
    }

    /// Keeps whether a lookup has brought what there was word of.
    fn note_looked_up(&self, box_id: &BoxId) -> Result<(), StoreError> {
        let told = self.store.write::<_, StoreError>(|batch| {
            let Some(mut row) = batch.get::<ProfileRow>(box_id)? else {
                return Ok(None);
            };
            if row.version >= row.told {
                return Ok(None);
            }
            row.is_withheld = true;
            batch.put(box_id, &row)?;
            Ok(Some(row.told))
        })?;
        let mut looking = self.looking.lock();
        match told {
            Some(told) => looking.in_vain.insert(*box_id, told),
            None => looking.in_vain.remove(box_id),
        };
        Ok(())
    }
}

impl ProfileRow {
    /// The highest version that there is word of.
    pub(super) fn newest(&self) -> u64 {
        self.version.max(self.told)
    }

    /// Takes what the service shows. Whether it holds the newest back is judged by what is known then, not by what it says.
    fn take(&mut self, box_id: &BoxId, record: &KeyRecord, shown: &Shown) {
        let Some(key) = &self.key else {
            return;
        };
        let mut is_false = shown.version < self.version;
        if shown.version > self.version {
            match profile::open(key, (box_id, record), &shown.sealed) {
                Ok((version, profile)) if version == shown.version => {
                    self.version = version;
                    self.profile = Some(SecretBytes::new(profile.encode().to_vec()));
                    self.sealed = shown.sealed.to_vec();
                }
                // They may have another key by now, and not have told this device of it.
                Err(ProfileError::OtherKey) => {}
                _ => is_false = true,
            }
        }
        self.is_withheld = is_false || self.version < self.told;
    }
}

fn claimed(row: &ProfileRow) -> Option<Claimed> {
    let profile = Profile::decode(row.profile.as_ref()?.expose()).ok()?;
    Some(Claimed {
        profile,
        version: row.version,
        is_withheld: row.is_withheld,
    })
}

fn word_of(row: &ProfileRow) -> Option<ProfileWord> {
    let key = row.key.clone()?;
    (row.version > 0).then_some(ProfileWord {
        key,
        version: row.version,
    })
}
