//! Groups: making and changing them, and what others say of them ([`crate::group`]).
//!
//! ```text
//!   a change here ──► the own page, signed ──► all that is known, as pending for each member and the own box
//!   a word about a group ──► pages whose device is known: verified, taken in ──► who has to be told, as pending
//!                        └─► others wait ──► settle_groups: looked up, verified, taken in, or dropped
//! ```
//!
//! A page bears its device's signature, so it does not matter who brings it. A word changes nothing by itself, is no
//! message, and never holds up the queue. What waits is bounded, as are groups.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use rossby_domain::ids::{BoxId, DeviceId};
use rossby_seams::random::bytes;

use super::contacts::LookupBy;
use super::sending::{Draft, Outgoing};
use super::words::{is_word, next_order};
use super::{Delivery, Device, DeviceError, Sent, withdrawing};
use crate::connection::Signer;
use crate::envelope::{Between, Content, Control, ConversationId};
use crate::group::{
    Author, Group, GroupError, GroupId, GroupName, MAX_PAGES, Origin, Page, View, Word,
};
use crate::identity::Identity;
use crate::store::{Batch, GroupRow, PendingRow, StoreError};

/// Groups that are kept. Anybody can put anybody into one.
const MAX_GROUPS: usize = 1000;
/// Devices' keys that are looked up in one go: lookups are rationed.
const MAX_LOOKUPS: usize = 32;

/// A group, as its members see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// The group.
    pub id: GroupId,
    /// What it is called.
    pub name: Option<GroupName>,
    /// The members, those first who stand nearer to who made it.
    pub members: Vec<BoxId>,
    /// Whether this box is one of them.
    pub is_member: bool,
}

impl GroupRow {
    fn of(group: &Group, earlier: Option<Self>) -> Self {
        let origin = group.origin();
        let (unverified, joined, shown) = earlier.map_or((Vec::new(), false, None), |row| {
            (row.unverified, row.joined, row.shown)
        });
        Self {
            maker: origin.maker,
            nonce: origin.nonce,
            pages: group.pages().map(Page::encode).collect(),
            unverified,
            told: group.told().clone(),
            joined,
            shown,
        }
    }

    fn origin(&self) -> Origin {
        Origin {
            maker: self.maker,
            nonce: self.nonce,
        }
    }

    /// The group in it.
    pub(super) fn group(&self) -> Result<Group, StoreError> {
        let pages = decode_all(&self.pages)?;
        Ok(Group::of_parts(self.origin(), pages, self.told.clone()))
    }
}

fn decode_all(pages: &[Vec<u8>]) -> Result<Vec<Page>, StoreError> {
    let damaged = |_| StoreError::Damaged { table: "groups" };
    let pages = pages.iter().map(|page| Page::decode(page).map_err(damaged));
    pages.collect()
}

impl Device {
    /// The groups that this box is in, or was, by name.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn groups(&self) -> Result<Vec<GroupInfo>, DeviceError> {
        let own = self.account()?.box_id;
        let rows = self.store.all::<GroupRow>()?.into_iter();
        let rows = rows.filter(|(_, row)| row.joined);
        let infos = rows.map(|(id, row)| {
            let view = row.group()?.view();
            Ok(info(id, view, own.as_ref()))
        });
        let mut groups = infos.collect::<Result<Vec<_>, StoreError>>()?;
        groups.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
        Ok(groups)
    }

    /// One group.
    ///
    /// # Errors
    /// [`GroupError::Unknown`], [`DeviceError::Store`].
    pub fn group(&self, id: &GroupId) -> Result<GroupInfo, DeviceError> {
        let groups = self.groups()?.into_iter();
        let mut found = groups.filter(|group| group.id == *id);
        Ok(found.next().ok_or(GroupError::Unknown)?)
    }

    /// The groups whose members or name are not those that were shown last. They count as shown from now on.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn changed_groups(&self) -> Result<Vec<GroupInfo>, DeviceError> {
        let mut changed = self.groups()?;
        let mut is_news = Vec::new();
        for group in &changed {
            let row = self.store.get::<GroupRow>(&group.id)?;
            let shown = Some((group.members.clone(), group.name.clone()));
            is_news.push(row.is_some_and(|row| row.shown != shown));
        }
        let mut is_news = is_news.into_iter();
        changed.retain(|_| is_news.next().unwrap_or_default());
        if !changed.is_empty() {
            self.store.write::<_, StoreError>(|batch| {
                for group in &changed {
                    if let Some(mut row) = batch.get::<GroupRow>(&group.id)? {
                        row.shown = Some((group.members.clone(), group.name.clone()));
                        batch.put(&group.id, &row)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(changed)
    }

    /// Makes a group of these people and this box. Beside it: how many could not be told yet.
    ///
    /// # Errors
    /// [`DeviceError::Group`]; [`DeviceError::Store`].
    pub async fn create_group(
        &self,
        name: GroupName,
        people: &[BoxId],
    ) -> Result<(GroupId, usize), DeviceError> {
        if self.store.all::<GroupRow>()?.len() >= MAX_GROUPS {
            return Err(GroupError::TooMany.into());
        }
        let signer = self.signer()?;
        let origin = Origin {
            maker: signer.address.box_id,
            nonce: bytes(self.environment.random.as_ref())?,
        };
        let id = origin.id();
        let made = self.change_group(&id, |known, author| {
            let group = Group::create(origin, author, name, people)?;
            let told = group.told().keys().copied().collect();
            *known = Some(group);
            Ok(told)
        });
        Ok((id, made.await?))
    }

    /// Gives a group another name. How many could not be told yet.
    ///
    /// # Errors
    /// [`DeviceError::Group`]; [`DeviceError::Store`].
    pub async fn rename_group(&self, id: &GroupId, name: GroupName) -> Result<usize, DeviceError> {
        self.change_known_group(id, |group, author| group.rename(author, name))
            .await
    }

    /// Puts people into a group. How many could not be told yet.
    ///
    /// # Errors
    /// [`DeviceError::Group`]; [`DeviceError::Store`].
    pub async fn add_to_group(&self, id: &GroupId, people: &[BoxId]) -> Result<usize, DeviceError> {
        self.change_known_group(id, |group, author| group.add(author, people))
            .await
    }

    /// Puts people out of a group. How many could not be told yet.
    ///
    /// # Errors
    /// [`DeviceError::Group`]; [`DeviceError::Store`].
    pub async fn remove_from_group(
        &self,
        id: &GroupId,
        people: &[BoxId],
    ) -> Result<usize, DeviceError> {
        self.change_known_group(id, |group, author| group.remove(author, people))
            .await
    }

    /// Leaves a group. How many could not be told yet.
    ///
    /// # Errors
    /// [`DeviceError::Group`]; [`DeviceError::Store`].
    pub async fn leave_group(&self, id: &GroupId) -> Result<usize, DeviceError> {
        self.change_known_group(id, |group, author| group.leave(author))
            .await
    }

    async fn change_known_group(
        &self,
        id: &GroupId,
        change: impl FnOnce(&mut Group, &Author<'_>) -> Result<BTreeSet<BoxId>, GroupError>,
    ) -> Result<usize, DeviceError> {
        self.change_group(id, |known, author| {
            change(known.as_mut().ok_or(GroupError::Unknown)?, author)
        })
        .await
    }

    /// Changes a group and tells who is concerned. How many of them could not be told yet.
    async fn change_group(
        &self,
        id: &GroupId,
        change: impl FnOnce(&mut Option<Group>, &Author<'_>) -> Result<BTreeSet<BoxId>, GroupError>,
    ) -> Result<usize, DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let identity = self.identity();
        let author = self.author(&signer, &identity);
        let told = self.store.write::<_, DeviceError>(|batch| {
            let earlier = batch.get::<GroupRow>(id)?;
            let mut group = match &earlier {
                Some(row) => Some(row.group()?),
                None => None,
            };
            let told = change(&mut group, &author)?;
            let group = group.ok_or(GroupError::Unknown)?;
            self.announce(batch, &signer, &group, true, &told)?;
            let mut row = GroupRow::of(&group, earlier);
            row.joined = true;
            // Who does it knows it.
            let view = group.view();
            self.withdraw_from_others(batch, &signer, id, &view)?;
            row.shown = Some((view.members, view.name));
            batch.put(id, &row)?;
            Ok(told)
        })?;
        let told: Vec<_> = told.into_iter().collect();
        let sent = self.flush(&signer, &told, None).await?;
        let _ = self.flush_words(&signer).await;
        Ok(waiting(&sent))
    }

    fn author<'a>(&self, signer: &Signer, identity: &'a Identity) -> Author<'a> {
        Author {
            address: signer.address,
            key: identity.signing_key(),
            now: self.environment.clock.now(),
        }
    }

    /// Has what is known of a group go to these boxes, and to the own one if this device has changed something.
    fn announce(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        group: &Group,
        to_all: bool,
        to: &BTreeSet<BoxId>,
    ) -> Result<(), DeviceError> {
        let order = next_order(batch)?;
        let is_alone = self.is_alone(batch)?;
        for word in Word::all_of(group, to_all) {
            let content = Content::Control(Control {
                topic: Control::GROUPS,
                body: word.encode(),
            });
            let draft = Draft {
                content: &content,
                written_at: self.environment.clock.now(),
                order,
                group: Some(group.origin().id()),
                ttl_ms: None,
            };
            for to in to {
                self.post(batch, signer, to, &draft)?;
            }
            if to_all && !is_alone {
                self.say(batch, signer, &Between::Group(word), order)?;
            }
        }
        Ok(())
    }

    /// The members of a group but this box, which must be one.
    pub(super) fn others_in(
        &self,
        id: &GroupId,
        signer: &Signer,
    ) -> Result<Vec<BoxId>, DeviceError> {
        let row = self.store.get::<GroupRow>(id)?;
        let mut members = row.ok_or(GroupError::Unknown)?.group()?.view().members;
        let count = members.len();
        members.retain(|member| *member != signer.address.box_id);
        if members.len() == count {
            return Err(GroupError::NotAMember.into());
        }
        if members.is_empty() {
            return Err(GroupError::Alone.into());
        }
        Ok(members)
    }

    /// Takes what an envelope in this conversation says about a group.
    pub(super) fn hear_of_group_in(
        &self,
        signer: &Signer,
        conversation: ConversationId,
        content: &[u8],
    ) -> Result<(), DeviceError> {
        let Ok(Content::Control(control)) = Content::decode(content) else {
            return Ok(());
        };
        // What is malformed, or of a later form, says nothing to this device.
        match Word::decode(&control.body) {
            Ok(Some(word)) if word.origin.id().conversation() == conversation => {
                self.hear_of_group(signer, word)
            }
            _ => Ok(()),
        }
    }

    /// Takes what somebody says about a group. Pages whose device is not known yet wait.
    pub(super) fn hear_of_group(&self, signer: &Signer, word: Word) -> Result<(), DeviceError> {
        let id = word.origin.id();
        let mut is_verified = true;
        for page in &word.pages {
            let record = self.pinned_record(&page.by.box_id)?;
            is_verified &= record.is_some_and(|record| page.is_signed(&id, &record));
        }
        let has_to_settle = self.store.write::<_, DeviceError>(|batch| {
            let earlier = batch.get::<GroupRow>(&id)?;
            if earlier.is_none() && self.store.all::<GroupRow>()?.len() >= MAX_GROUPS {
                return Ok(false);
            }
            let waits = |row: &GroupRow| !row.unverified.is_empty();
            if is_verified && !earlier.as_ref().is_some_and(waits) {
                return self.take_in(batch, signer, word, earlier);
            }
            // All of it: what comes behind may rest on what comes first.
            let group = match &earlier {
                Some(row) => row.group()?,
                None => Group::unknown(word.origin),
            };
            let mut row = earlier.unwrap_or_else(|| GroupRow::of(&group, None));
            let news = word.pages.iter().filter(|page| group.is_news(page));
            for page in news.map(Page::encode) {
                if row.unverified.len() < MAX_PAGES && !row.unverified.contains(&page) {
                    row.unverified.push(page);
                }
            }
            batch.put(&id, &row)?;
            Ok(true)
        })?;
        if has_to_settle {
            self.unsettled.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes verified pages in, and stores who is to be told. Whether there is anything to be sent.
    fn take_in(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        word: Word,
        earlier: Option<GroupRow>,
    ) -> Result<bool, DeviceError> {
        let id = word.origin.id();
        let mut group = match &earlier {
            Some(row) => row.group()?,
            None => Group::unknown(word.origin),
        };
        let heard = group.hear(word, &signer.address);
        let view = group.view();
        if !group.names(&signer.address.box_id) {
            match earlier {
                // What waits may name this box.
                Some(row) if !row.unverified.is_empty() => {
                    batch.put(&id, &GroupRow::of(&group, Some(row)))?;
                }
                _ => batch.remove::<GroupRow>(&id)?,
            }
            return Ok(false);
        }
        let mut row = GroupRow::of(&group, earlier);
        row.joined |= view.has(&signer.address.box_id);
        self.withdraw_from_others(batch, signer, &id, &view)?;
        self.announce(batch, signer, &group, false, &heard.tell)?;
        batch.put(&id, &row)?;
        Ok(!heard.tell.is_empty())
    }

    /// Does not send any more what waits for somebody who is not in the group now.
    fn withdraw_from_others(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        id: &GroupId,
        view: &View,
    ) -> Result<(), DeviceError> {
        let rows = self.store.all::<PendingRow>()?.into_iter();
        let gone = rows.filter(|((to, _), row)| {
            row.group.as_ref() == Some(id) && !view.has(to) && !is_word(row.content.expose())
        });
        let gone = gone.map(|((to, counter), row)| Outgoing::new(to, counter, row));
        Ok(withdrawing::withdraw(batch, signer, gone)?)
    }

    /// Looks up whose pages wait, takes them in, and tells who is to be told.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub(super) async fn settle_groups(&self) -> Result<(), DeviceError> {
        if !self.unsettled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        self.unsettled.store(false, Ordering::Relaxed);
        let settled = self.settle_with(&signer).await;
        if settled.is_err() {
            self.unsettled.store(true, Ordering::Relaxed);
        }
        settled
    }

    async fn settle_with(&self, signer: &Signer) -> Result<(), DeviceError> {
        let mut lookups = MAX_LOOKUPS;
        let mut later = None;
        for (id, row) in self.store.all::<GroupRow>()? {
            if row.unverified.is_empty() {
                continue;
            }
            // A page that has to wait holds up neither the others nor other groups.
            let (mut pages, mut settled) = (Vec::new(), BTreeSet::new());
            for page in decode_all(&row.unverified)? {
                match self.is_signed(&id, &page, &mut lookups).await {
                    Err(error @ DeviceError::Store(_)) => return Err(error),
                    Err(error) => later = Some(error),
                    Ok(is_signed) => {
                        settled.insert(page.encode());
                        pages.extend(is_signed.then_some(page));
                    }
                }
            }
            self.store.write::<_, DeviceError>(|batch| {
                let Some(mut now) = batch.get::<GroupRow>(&id)? else {
                    return Ok(());
                };
                now.unverified.retain(|page| !settled.contains(page));
                let word = Word {
                    origin: now.origin(),
                    to_all: false,
                    pages,
                };
                self.take_in(batch, signer, word, Some(now)).map(drop)
            })?;
        }
        let rows = self.store.all::<PendingRow>()?.into_iter();
        let words = rows.filter(|(_, row)| Control::is_about_groups(row.content.expose()));
        let boxes: Vec<_> = words.map(|((to, _), _)| to).collect();
        let sent = self.flush(signer, &boxes, None).await?;
        if waiting(&sent) > 0 {
            self.unsettled.store(true, Ordering::Relaxed);
        }
        match later {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Whether a page is signed by a device of its box, as the service and what is known of the box show it. What was looked up
    /// is known the next time: many lookups are made in several goes.
    async fn is_signed(
        &self,
        id: &GroupId,
        page: &Page,
        lookups: &mut usize,
    ) -> Result<bool, DeviceError> {
        let by = page.by.box_id;
        if let Some(record) = self.pinned_record(&by)?
            && page.is_signed(id, &record)
        {
            return Ok(true);
        }
        *lookups = lookups.checked_sub(1).ok_or(GroupError::Later)?;
        match self.lookup(&LookupBy::Box(by)).await {
            Ok(found) => match self.hold(&found) {
                Ok(()) => Ok(page.is_signed(id, &found.record)),
                Err(error @ DeviceError::Store(_)) => Err(error),
                Err(_) => Ok(false),
            },
            Err(error) if error.may_pass() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Says itself what a device has said about groups that was removed from this box: who does not know that device yet
    /// will not believe it any more.
    pub(super) async fn take_over_pages(&self, gone: &DeviceId) -> Result<(), DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let identity = self.identity();
        let author = self.author(&signer, &identity);
        for (id, _) in self.store.all::<GroupRow>()? {
            self.store.write::<_, DeviceError>(|batch| {
                let Some(row) = batch.get::<GroupRow>(&id)? else {
                    return Ok(());
                };
                let before = row.group()?;
                let mut group = before.clone();
                let told = group.take_over(&author, gone);
                // Also with nobody to tell: who comes later is to know it too.
                if group != before {
                    self.announce(batch, &signer, &group, true, &told)?;
                    batch.put(&id, &GroupRow::of(&group, Some(row)))?;
                }
                Ok(())
            })?;
        }
        self.settle_with(&signer).await
    }
}

fn info(id: GroupId, view: View, own: Option<&BoxId>) -> GroupInfo {
    GroupInfo {
        id,
        is_member: own.is_some_and(|own| view.has(own)),
        name: view.name,
        members: view.members,
    }
}

/// How many boxes something waits for.
fn waiting(sent: &[Sent]) -> usize {
    let waits = |sent: &&Sent| matches!(sent.delivery, Delivery::Pending(_));
    sent.iter().filter(waits).count()
}
