//! A group as one device knows it, what that device does to it, and whom it has to tell.
//!
//! A device sends all that it knows to every member whenever it changes its page. Of two that do so at once neither
//! reaches whom the other brings in: so each device sees to it that its own page comes to everybody, and counts as told
//! whom somebody tells who knows it.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId};

use super::{
    Author, GroupError, GroupName, MAX_MEMBERS, MAX_PAGES, MAX_VERDICTS, Origin, Page, View, Word,
};

/// A group as one device knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub(super) origin: Origin,
    pages: BTreeMap<DeviceAddress, Page>,
    /// Up to which version of this device's page each box was told.
    told: BTreeMap<BoxId, u64>,
}

/// What came of pages that were heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Whether the members or the name are others now.
    pub changed: bool,
    /// Who has to be told, by this device.
    pub tell: BTreeSet<BoxId>,
}

impl Group {
    /// A group of which nothing is known but where it comes from.
    #[must_use]
    pub fn unknown(origin: Origin) -> Self {
        Self::of_parts(origin, Vec::new(), BTreeMap::new())
    }

    /// A group that was kept.
    #[must_use]
    pub fn of_parts(origin: Origin, pages: Vec<Page>, told: BTreeMap<BoxId, u64>) -> Self {
        let pages = pages.into_iter().map(|page| (page.by, page)).collect();
        Self {
            origin,
            pages,
            told,
        }
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// All pages.
    pub fn pages(&self) -> impl Iterator<Item = &Page> {
        self.pages.values()
    }

    /// Up to which version of this device's page each box was told.
    #[must_use]
    pub fn told(&self) -> &BTreeMap<BoxId, u64> {
        &self.told
    }

    /// Whether anything is said of a box, by whomever: it may have to know one day that it does not count.
    #[must_use]
    pub fn names(&self, box_id: &BoxId) -> bool {
        let mut pages = self.pages.values();
        self.origin.maker == *box_id || pages.any(|page| page.verdicts.contains_key(box_id))
    }

    /// Whether a page says more than the one that is known of its device.
    #[must_use]
    pub fn is_news(&self, page: &Page) -> bool {
        let known = self.pages.get(&page.by);
        known.is_none_or(|known| page.is_after(known))
    }

    /// The pages of a box's devices.
    pub(super) fn pages_of(&self, box_id: &BoxId) -> impl Iterator<Item = &Page> {
        let first = DeviceAddress {
            box_id: *box_id,
            device: DeviceId::from_bytes([0; 16]),
        };
        let from = self.pages.range(first..);
        from.take_while(|(by, _)| by.box_id == *box_id)
            .map(|(_, page)| page)
    }

    /// The pages of those whose word counts, and then of those that they ever named, and so on. Others are nobody's.
    pub(super) fn by_rank(&self) -> Vec<&Page> {
        let mut order = self.view().heard;
        let mut named: BTreeSet<_> = order.iter().copied().collect();
        let (mut pages, mut next) = (Vec::new(), 0);
        while let Some(by) = order.get(next).copied()
            && pages.len() < MAX_PAGES
        {
            next += 1;
            for page in self.pages_of(&by) {
                order.extend(page.verdicts.keys().filter(|who| named.insert(**who)));
                pages.push(page);
            }
        }
        pages.truncate(MAX_PAGES);
        pages
    }

    /// Takes in what another device said. The pages are verified.
    pub fn hear(&mut self, word: Word, own: &DeviceAddress) -> Heard {
        let before = self.view();
        let theirs = Self::of_parts(self.origin, word.pages.clone(), BTreeMap::new());
        let mut news = BTreeSet::new();
        for page in word.pages {
            if self.is_news(&page) {
                news.insert(page.by);
                self.pages.insert(page.by, page);
            }
        }
        let kept: BTreeSet<_> = self.by_rank().iter().map(|page| page.by).collect();
        self.pages.retain(|by, _| kept.contains(by));
        news.retain(|by| kept.contains(by));
        let after = self.view();
        let mut tell = BTreeSet::new();
        if let Some(mine) = self.pages.get(own).cloned() {
            if word.to_all && theirs.pages.get(own).map(|page| page.version) == Some(mine.version) {
                let members = theirs.view().members.into_iter();
                self.told.extend(members.map(|who| (who, mine.version)));
            }
            tell = self.untold(&mine, &before, &after, &news);
            self.told
                .extend(tell.iter().map(|who| (*who, mine.version)));
        }
        Heard {
            changed: (&before.members, &before.name) != (&after.members, &after.name),
            tell,
        }
    }

    /// Whom this device has to tell something after `before` has become `after`.
    fn untold(
        &self,
        mine: &Page,
        before: &View,
        after: &View,
        news: &BTreeSet<DeviceAddress>,
    ) -> BTreeSet<BoxId> {
        let own = mine.by.box_id;
        let is_brought = |who: &BoxId| mine.verdicts.get(who).is_some_and(|count| count % 2 == 1);
        let mut tell = BTreeSet::new();
        if after.heard.contains(&own) {
            let knows = |who: &&BoxId| self.told.get(*who) >= Some(&mine.version);
            tell.extend(after.members.iter().filter(|who| !knows(who)));
        }
        // Those whom it brought in and who are out with it: nobody else knows of them.
        let lost = before.members.iter().filter(|who| !after.has(who));
        tell.extend(lost.filter(|who| is_brought(who)));
        // Who had left of these was still heard on those whom it had brought in, and is to tell them.
        let unheard = before.heard.iter().filter(|who| !after.heard.contains(who));
        tell.extend(unheard.filter(|who| is_brought(who)));
        // Who has left may not tell others any more what they said before.
        let has_left = |by: &BoxId| after.heard.contains(by) && !after.has(by);
        if news.iter().any(|by| has_left(&by.box_id)) {
            tell.extend(after.members.iter().filter(|who| is_brought(who)));
        }
        tell.remove(&own);
        tell
    }

    /// A new group.
    ///
    /// # Errors
    /// [`GroupError::Full`].
    pub fn create(
        origin: Origin,
        author: &Author<'_>,
        name: GroupName,
        people: &[BoxId],
    ) -> Result<Self, GroupError> {
        let mut group = Self::unknown(origin);
        group.change(author, |group, view| {
            group.page(&author.address).name = Some((1, name));
            group.put_in(&author.address, view, people)
        })?;
        Ok(group)
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// [`GroupError::NotAMember`].
    pub fn rename(
        &mut self,
        author: &Author<'_>,
        name: GroupName,
    ) -> Result<BTreeSet<BoxId>, GroupError> {
        self.change(author, |group, view| {
            group.page(&author.address).name = Some((view.names.saturating_add(1), name));
            Ok(())
        })
    }

    /// Puts people in.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn add(
        &mut self,
        author: &Author<'_>,
        people: &[BoxId],
    ) -> Result<BTreeSet<BoxId>, GroupError> {
        self.change(author, |group, view| {
            group.put_in(&author.address, view, people)
        })
    }

    /// Puts somebody out. What they said and this device knew stays: it says that itself from now on.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn remove(
        &mut self,
        author: &Author<'_>,
        people: &[BoxId],
    ) -> Result<BTreeSet<BoxId>, GroupError> {
        self.change(author, |group, view| {
            for who in people {
                if *who == author.address.box_id {
                    group.leave_as(&author.address, view);
                    continue;
                }
                if !view.has(who) {
                    return Err(GroupError::NotIn(*who));
                }
                let count = group.words_of(&author.address.box_id).get(who).copied();
                let count = next(count.unwrap_or(1), 0)?;
                group.page(&author.address).verdicts.insert(*who, count);
            }
            let after = group.view();
            let stays = |who: &&BoxId| {
                !after.has(who) && !people.contains(who) && **who != author.address.box_id
            };
            for who in view.members.iter().filter(stays) {
                group.put_in_one(&author.address, who)?;
            }
            if after.name != view.name {
                let name = view.name.clone();
                group.page(&author.address).name =
                    name.map(|name| (view.names.saturating_add(1), name));
            }
            let after = group.view();
            match people.iter().find(|who| after.has(who)) {
                Some(who) => Err(GroupError::NotYours(*who)),
                None => Ok(()),
            }
        })
    }

    /// Leaves.
    ///
    /// # Errors
    /// [`GroupError::NotAMember`].
    pub fn leave(&mut self, author: &Author<'_>) -> Result<BTreeSet<BoxId>, GroupError> {
        self.change(author, |group, view| {
            group.leave_as(&author.address, view);
            Ok(())
        })
    }

    /// Says itself what another device of its box has said, which the box does not have any more.
    pub fn take_over(&mut self, author: &Author<'_>, gone: &DeviceId) -> BTreeSet<BoxId> {
        let gone = DeviceAddress {
            device: *gone,
            ..author.address
        };
        let Some(theirs) = self.pages.remove(&gone) else {
            return BTreeSet::new();
        };
        let page = self.page(&author.address);
        // Who is in comes first, should there be no room for all.
        let (inside, outside): (Vec<_>, Vec<_>) = theirs
            .verdicts
            .into_iter()
            .partition(|(_, count)| count % 2 == 1);
        for (who, count) in inside.into_iter().chain(outside) {
            let room = page.verdicts.len() < MAX_VERDICTS;
            match page.verdicts.get_mut(&who) {
                Some(word) => *word = (*word).max(count),
                None if room => drop(page.verdicts.insert(who, count)),
                None => {}
            }
        }
        page.name = page.name.take().max(theirs.name);
        let id = self.origin.id();
        self.page(&author.address).sign(&id, author);
        let view = self.view();
        self.all_told(&author.address, view.members)
    }

    /// Changes this device's page; who is to be told.
    fn change(
        &mut self,
        author: &Author<'_>,
        change: impl FnOnce(&mut Self, &View) -> Result<(), GroupError>,
    ) -> Result<BTreeSet<BoxId>, GroupError> {
        let before = self.view();
        if !before.has(&author.address.box_id) {
            return Err(GroupError::NotAMember);
        }
        change(self, &before)?;
        let id = self.origin.id();
        let page = self.page(&author.address);
        if page.verdicts.len() > MAX_VERDICTS {
            return Err(GroupError::Full);
        }
        page.sign(&id, author);
        let concerned = [before.members, self.view().members].concat();
        Ok(self.all_told(&author.address, concerned))
    }

    fn all_told(&mut self, own: &DeviceAddress, concerned: Vec<BoxId>) -> BTreeSet<BoxId> {
        let version = self.page(own).version;
        let mut tell: BTreeSet<_> = concerned.into_iter().collect();
        tell.remove(&own.box_id);
        self.told.extend(tell.iter().map(|who| (*who, version)));
        tell
    }

    fn page(&mut self, own: &DeviceAddress) -> &mut Page {
        self.pages.entry(*own).or_insert_with(|| Page::blank(*own))
    }

    fn put_in(
        &mut self,
        own: &DeviceAddress,
        view: &View,
        people: &[BoxId],
    ) -> Result<(), GroupError> {
        for who in people {
            if view.has(who) {
                return Err(GroupError::AlreadyIn(*who));
            }
            self.put_in_one(own, who)?;
        }
        let after = self.view();
        match people.iter().find(|who| !after.has(who)) {
            Some(_) if after.members.len() >= MAX_MEMBERS => Err(GroupError::Full),
            Some(who) => Err(GroupError::NotYours(*who)),
            None => Ok(()),
        }
    }

    fn put_in_one(&mut self, own: &DeviceAddress, who: &BoxId) -> Result<(), GroupError> {
        let (ours, left) = (self.words_of(&own.box_id), self.words_of(who));
        let used = ours.get(who).max(left.get(who)).copied();
        let count = next(used.unwrap_or_default(), 1)?;
        self.page(own).verdicts.insert(*who, count);
        Ok(())
    }

    fn leave_as(&mut self, own: &DeviceAddress, view: &View) {
        let count = view.counts.get(&own.box_id).copied().unwrap_or(1);
        self.page(own).verdicts.insert(own.box_id, count);
    }
}

/// The next number with this remainder by two.
fn next(used: u32, remainder: u32) -> Result<u32, GroupError> {
    let step = if used % 2 == remainder { 2 } else { 1 };
    used.checked_add(step).ok_or(GroupError::Full)
}
