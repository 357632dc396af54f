//! Profiles: what this box shows of itself to its contacts, and what they show ([`crate::profile`]).
//!
//! ```text
//!   set_profile ──► sealed, signed, SetProfile ──► "there is a new one, under this key": to own devices, and to who was told before
//!   a message to a contact who was not told yet ──► the key, behind the message
//!   who is blocked, forgotten, or removed as a device ──► another key, for all the others
//!
//!   the key came ──► the row of its box ──► settle_profiles: looked up, opened, kept
//! ```
//!
//! A version only ever rises. Who has the key says which version there is; a service that shows an older one, or something else,
//! holds the newer one back, and that is shown.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::BoxId;
use rossby_domain::wire::{Reader, WireError, Writer};

use tokio::time::timeout;

use super::contacts::{Found, LookupBy};
use super::devices::is_refused;
use super::receipts::{Rest, may_know};
use super::sending::Draft;
use super::{Device, DeviceError};
use crate::connection::{SetProfile, Signer};
use crate::crypto::secret::SecretBytes;
use crate::envelope::{Between, Content, Control};
use crate::profile::{self, Profile, ProfileError, ProfileKey};
use crate::registering;
use crate::store::{Batch, GrowingRow, MarksRow, ProfileRow, StoreError, ToldProfileRow};

/// How often a version is chosen anew where another device was quicker.
const MAX_TRIES: u32 = 4;
/// Profiles that are looked up in one go: lookups are rationed.
const MAX_LOOKUPS: usize = 4;
/// How long looking for profiles may keep others waiting.
const PATIENCE: Duration = Duration::from_secs(2);
/// The version of the word about a profile.
const WORD_VERSION: u8 = 1;

/// What the service shows as a box's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its version; 0 if there is none.
    pub version: u64,
    /// The sealed profile, if it is later than the one that is known here.
    pub sealed: Bytes,
}

/// Word of a profile: under which key it is sealed, and which version there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileWord {
    /// The key.
    pub key: ProfileKey,
    /// The version.
    pub version: u64,
}

impl ProfileWord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::default()
            .u8(WORD_VERSION)
            .fixed(self.key.expose())
            .u64(self.version)
            .finish()
    }

    /// The word in these bytes; `None` if it is of a later version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != WORD_VERSION {
            return Ok(None);
        }
        let key = ProfileKey::from_bytes(reader.fixed()?);
        let version = reader.u64()?;
        reader.finish()?;
        Ok(Some(Self { key, version }))
    }
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
    /// [`DeviceError::Call`]; nothing has changed then, as far as is known. [`DeviceError::Store`].
    pub async fn set_profile(&self, profile: &Profile) -> Result<usize, DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        let own = self.signer()?.address.box_id;
        let row = self.store.get::<ProfileRow>(&own)?.unwrap_or_default();
        self.show(row, profile).await
    }

    /// Seals and publishes a profile, and tells who is to know. Under another key if the one there is must not be used any more.
    async fn show(&self, row: ProfileRow, profile: &Profile) -> Result<usize, DeviceError> {
        let signer = self.signer()?;
        let key = match row.key.clone().filter(|_| !row.must_rotate) {
            Some(key) => key,
            None => ProfileKey::draw(self.environment.random.as_ref())?,
        };
        let (version, sealed) = self
            .publish_profile(&signer, &key, row.newest().saturating_add(1), profile)
            .await?;
        let own = signer.address.box_id;
        let told = self.store.write::<_, DeviceError>(|batch| {
            let row = ProfileRow {
                key: Some(key),
                told: version,
                version,
                profile: Some(SecretBytes::new(profile.encode().to_vec())),
                sealed,
                is_withheld: false,
                must_rotate: false,
            };
            batch.put(&own, &row)?;
            self.tell_profile_to_own(batch, &signer, &row)?;
            let mut told = Vec::new();
            for (box_id, _) in self.store.all::<ToldProfileRow>()? {
                if self.tell_profile(batch, &signer, &box_id)? {
                    told.push(box_id);
                }
            }
            Ok(told)
        })?;
        let sent = self.flush(&signer, &told, None).await?;
        let _ = self.flush_words(&signer).await;
        let waits = |sent: &&super::Sent| matches!(sent.delivery, super::Delivery::Pending(_));
        Ok(sent.iter().filter(waits).count())
    }

    /// Has the service keep a profile, under this version or the next that is free. The version, and the sealed bytes.
    async fn publish_profile(
        &self,
        signer: &Signer,
        key: &ProfileKey,
        mut version: u64,
        profile: &Profile,
    ) -> Result<(u64, Vec<u8>), DeviceError> {
        let identity = self.identity();
        let mut tries = 0;
        loop {
            let author = (signer.address, identity.signing_key());
            let random = self.environment.random.as_ref();
            let sealed = profile::seal(random, key, author, version, profile)?;
            tries += 1;
            let error = match self.give_profile(signer, version, &sealed).await {
                Ok(()) => return Ok((version, sealed)),
                Err(error) => error,
            };
            let refusal = match &error {
                DeviceError::Call(error) => error.refusal(),
                _ => None,
            };
            let current = refusal.and_then(|refusal| refusal.figures.get("current_version"));
            let current = current.and_then(|text| text.parse::<u64>().ok());
            match current.and_then(|current| current.checked_add(1)) {
                Some(next)
                    if tries < MAX_TRIES
                        && next > version
                        && is_refused(&error, "PROFILE_VERSION_USED") =>
                {
                    version = next;
                }
                _ => return Err(error),
            }
        }
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

    /// Has somebody not be told of this box's profile any more: it goes under another key, as soon as that can be.
    pub(super) fn withdraw_profile(
        &self,
        batch: &mut Batch<'_>,
        own: &BoxId,
        from: Option<&BoxId>,
    ) -> Result<(), StoreError> {
        if let Some(from) = from {
            if batch.get::<ToldProfileRow>(from)?.is_none() {
                return Ok(());
            }
            batch.remove::<ToldProfileRow>(from)?;
        }
        if let Some(mut row) = batch.get::<ProfileRow>(own)?
            && row.key.is_some()
        {
            row.must_rotate = true;
            batch.put(own, &row)?;
            self.unsettled_profiles.store(true, Ordering::Relaxed);
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
        let row = self.store.get::<ProfileRow>(box_id)?;
        Ok(row.filter(|row| row.key.is_some()).map(|row| row.version))
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
        let is_alone = !self.has_others() && batch.get::<GrowingRow>(&())?.is_none();
        match word_of(row).filter(|_| !is_alone) {
            Some(word) => {
                let order = next_order(batch)?;
                self.say(batch, signer, &Between::Profile(word), order)
            }
            None => Ok(()),
        }
    }

    /// Takes what a box's device says of its profile.
    pub(super) fn hear_of_profile(
        &self,
        from: &BoxId,
        word: ProfileWord,
    ) -> Result<(), StoreError> {
        self.store.write(|batch| {
            let mut row = batch.get::<ProfileRow>(from)?.unwrap_or_default();
            if word.version <= row.newest() {
                return Ok(());
            }
            row.key = Some(word.key);
            row.told = word.version;
            batch.put(from, &row)?;
            self.unsettled_profiles.store(true, Ordering::Relaxed);
            Ok(())
        })
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

    /// [`Self::settle_profiles`], for as long as nobody has to wait for it.
    pub(super) async fn settle_profiles_soon(&self) {
        // What is left of it is done the next time.
        let _ = timeout(PATIENCE, self.settle_profiles()).await;
    }

    /// Looks up the profiles that there is word of, and gives this box's another key if somebody has it who must not.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub(super) async fn settle_profiles(&self) -> Result<(), DeviceError> {
        if !self.unsettled_profiles.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Dropped meanwhile, it is not done.
        let mut rest = Rest(Some(&self.unsettled_profiles));
        self.unsettled_profiles.store(false, Ordering::Relaxed);
        let own = self.signer()?.address.box_id;
        let rows = self.store.all::<ProfileRow>()?;
        let behind = rows.iter().filter(|(_, row)| row.version < row.told);
        let behind: Vec<BoxId> = behind.map(|(box_id, _)| *box_id).collect();
        for box_id in behind.iter().take(MAX_LOOKUPS) {
            match self.lookup(&LookupBy::Box(*box_id)).await {
                Ok(found) => match self.hold(&found) {
                    Err(error @ DeviceError::Store(_)) => return Err(error),
                    // Their identity is dealt with elsewhere.
                    _ => {}
                },
                Err(error) if error.may_pass() => return Err(error),
                Err(_) => {}
            }
        }
        if rows
            .iter()
            .any(|(box_id, row)| *box_id == own && row.must_rotate)
        {
            self.rotate_profile(&own).await?;
        }
        if behind.len() <= MAX_LOOKUPS {
            // What is held back is asked for again with the next word, or the next start.
            rest.0 = None;
        }
        Ok(())
    }

    /// Shows the same under another key.
    async fn rotate_profile(&self, own: &BoxId) -> Result<(), DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        let row = self.store.get::<ProfileRow>(own)?.unwrap_or_default();
        match claimed(&row).map(|claimed| claimed.profile) {
            Some(profile) if row.must_rotate => self.show(row, &profile).await.map(drop),
            _ => Ok(()),
        }
    }
}

impl ProfileRow {
    /// The highest version that there is word of.
    fn newest(&self) -> u64 {
        self.version.max(self.told)
    }

    /// Takes what the service shows. An older one than there is word of is no news, and is noted.
    fn take(&mut self, box_id: &BoxId, record: &KeyRecord, shown: &Shown) {
        let Some(key) = &self.key else {
            return;
        };
        let mut is_false = false;
        if shown.version > self.version && !shown.sealed.is_empty() {
            match profile::open(key, (box_id, record), &shown.sealed) {
                Ok((version, profile)) if version == shown.version => {
                    self.version = version;
                    self.profile = Some(SecretBytes::new(profile.encode().to_vec()));
                    self.sealed = shown.sealed.to_vec();
                }
                // They have another key now, and have not told this device of it. Under a version that they did tell, it is not theirs.
                Err(ProfileError::OtherKey) => is_false = shown.version <= self.told,
                _ => is_false = true,
            }
        }
        self.is_withheld = is_false || shown.version < self.newest();
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

fn next_order(batch: &Batch<'_>) -> Result<u64, StoreError> {
    let marks = batch.get::<MarksRow>(&())?;
    Ok(marks.unwrap_or_default().next_order)
}
