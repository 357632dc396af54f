//! What the owner says of somebody, and the word by which other devices learn it.
//!
//! The word, as bytes (numbers are big-endian):
//!
//! ```text
//!   u8        version = 1
//!   16        their box
//!   u32+bytes their key record; empty if they are forgotten
//!   each      u64 when that was said, and what:
//!     name          u32+bytes; empty is none
//!     identifier    u32+bytes; empty is none
//!     added         u8, 0 or 1
//!     blocked       u8, 0 or 1
//!     verified      u64 when the safety number was compared; 0 is never
//!   u64       when they were forgotten; 0 is never
//!   u8        a change of their identity that was just noticed: 0 none, 1 another chain of their box, 2 another chain of
//!             this box, 3 their identifier belonged to another box before, 4 it belongs to another one now
//!   16        with 3 and 4, the other box
//!   u64, u8   unless it is none, when it was noticed, and whether it stops what is sent to them
//!   u32+bytes the word of what they show of themselves ([`ProfileWord`]); empty is none
//! ```

use rossby_domain::chain::KeyRecord;
use rossby_domain::identifier::{EMAIL_MAX_BYTES, Identifier};
use rossby_domain::ids::BoxId;
use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};

use super::{Latest, instant, is_ahead, read_flag, read_time};
use crate::profile::ProfileWord;
use crate::store::{IdentityChange, WhatChanged};

const VERSION: u8 = 1;
/// Bytes of a name; longer ones are cut.
pub(crate) const MAX_NAME_BYTES: usize = 128;
const MAX_PROFILE_BYTES: usize = 64;
/// The instant of what nobody has said.
const GUESSED_AT: Timestamp = Timestamp::from_millis(1);
/// What another device has noticed, in words.
const SEEN_ELSEWHERE: &str = "another device of this box was shown another identity chain";

/// What the owner says of somebody. `Debug` shows neither name nor identifier.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// What to call them.
    pub name: Option<String>,
    /// The phone or email that they were found by.
    pub identifier: Option<String>,
    /// Whether they are a contact.
    pub added: bool,
    /// Whether they are blocked.
    pub blocked: bool,
    /// When their safety number was compared.
    pub verified: Option<Timestamp>,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Said")
            .field("added", &self.added)
            .field("blocked", &self.blocked)
            .field("verified", &self.verified)
            .finish_non_exhaustive()
    }
}

/// What holds no more of what the service acts on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overruled {
    /// Whether they are blocked.
    pub blocked: bool,
    /// Whether they are a contact.
    pub added: bool,
}

/// A part of what is said of somebody that can be said again on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What to call them.
    Name,
    /// Their phone or email.
    Identifier,
    /// That they are a contact.
    Added,
    /// Whether they are blocked.
    Blocked,
}

/// What was said of somebody, and when. `Debug` shows neither name nor identifier.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    name: Latest<String>,
    identifier: Latest<String>,
    added: Latest<bool>,
    blocked: Latest<bool>,
    verified: Latest<Timestamp>,
    forgotten: Timestamp,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// What it says.
    #[must_use]
    pub fn said(&self) -> Said {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let verified = self.verified.value;
        Said {
            name: given(&self.name.value),
            identifier: given(&self.identifier.value),
            added: self.added.value,
            blocked: self.blocked.value,
            verified: Some(verified).filter(|at| *at != Timestamp::default()),
        }
    }

    /// When something was said last.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        let said = [
            self.name.at,
            self.identifier.at,
            self.added.at,
            self.blocked.at,
            self.verified.at,
        ];
        said.into_iter().fold(self.forgotten, Timestamp::max)
    }

    /// Dates back to now what was said by a clock that was wrong. Nobody is forgotten by that of whom more was said.
    pub fn pull(&mut self, now: Timestamp) {
        let was_forgotten = self.is_forgotten();
        self.name.pull(now);
        self.identifier.pull(now);
        self.added.pull(now);
        self.blocked.pull(now);
        self.verified.pull(now);
        if is_ahead(self.forgotten, now) {
            self.forgotten = now;
        }
        if !was_forgotten && self.is_forgotten() {
            self.forgotten = Timestamp::from_millis(now.as_millis().saturating_sub(1));
        }
    }

    /// Hears what this device has said itself, which was stored at this time: it is dated as all others date it.
    pub fn date(&mut self, said: &Self, at: Timestamp) {
        let mut dated = said.clone();
        dated.pull(at);
        if self.forgotten == said.forgotten {
            self.forgotten = dated.forgotten;
        }
        self.name.date(&said.name, at);
        self.identifier.date(&said.identifier, at);
        self.added.date(&said.added, at);
        self.blocked.date(&said.blocked, at);
        self.verified.date(&said.verified, at);
    }

    /// Says this now, which is after all that was said before, these parts also if they were said before: somebody else may have said
    /// otherwise meanwhile, and is not heard of yet. Whether that is anything new.
    pub fn say(&mut self, now: Timestamp, said: Said, again: &[Part]) -> bool {
        self.pull(now);
        let at = instant(self.last(), now);
        let again = |part| again.contains(&part);
        let (name, identifier) = (said.name.map(cut), said.identifier);
        let verified = said.verified.unwrap_or_default();
        // Each is to be said, whatever the others are.
        self.name
            .say(at, name.unwrap_or_default(), again(Part::Name))
            | self
                .identifier
                .say(at, identifier.unwrap_or_default(), again(Part::Identifier))
            | self.added.say(at, said.added, again(Part::Added))
            | self.blocked.say(at, said.blocked, again(Part::Blocked))
            | self.verified.say(at, verified, false)
    }

    /// Says now that they are blocked, or that they are not.
    pub fn say_blocked(&mut self, now: Timestamp, blocked: bool) {
        let said = self.said();
        self.say(now, Said { blocked, ..said }, &[Part::Blocked]);
    }

    /// What to call them by the word of a copy, if nobody has said that yet; whether that is anything new. Whatever is said of it holds
    /// against this.
    pub fn guess_name(&mut self, name: &str) -> bool {
        let is_unsaid = self.name.at == Timestamp::default();
        is_unsaid && self.name.say(GUESSED_AT, cut(name.to_owned()), false)
    }

    /// Forgets all but whether they are blocked, which the service remembers too.
    pub fn forget(&mut self, now: Timestamp) {
        self.pull(now);
        let at = instant(self.last(), now);
        *self = Self {
            name: Latest::at(at),
            identifier: Latest::at(at),
            added: Latest::at(at),
            blocked: self.blocked.clone(),
            verified: Latest::at(at),
            forgotten: at,
        };
    }

    /// Whether nothing was said since they were forgotten.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten != Timestamp::default() && self.forgotten == self.last()
    }

    /// What the service acts on that was said on this device, or heard, and that another word has overruled since.
    #[must_use]
    pub fn overruled_since(&self, before: &Self) -> Overruled {
        let is_overruled = |before: &Latest<bool>, now: &Latest<bool>| {
            before.at != Timestamp::default() && before.value != now.value
        };
        Overruled {
            blocked: is_overruled(&before.blocked, &self.blocked),
            added: is_overruled(&before.added, &self.added),
        }
    }

    /// Takes what another device says; whether any of it is later than what was known.
    pub fn take(&mut self, other: Self) -> bool {
        let was_forgotten = self.forgotten;
        self.forgotten = was_forgotten.max(other.forgotten);
        self.name.take(other.name)
            | self.identifier.take(other.identifier)
            | self.added.take(other.added)
            | self.blocked.take(other.blocked)
            | self.verified.take(other.verified)
            | (self.forgotten != was_forgotten)
    }
}

/// A name that is not too long to be told.
pub(crate) fn cut(mut name: String) -> String {
    let ends = (0..=MAX_NAME_BYTES).rev();
    let end = ends.into_iter().find(|at| name.is_char_boundary(*at));
    name.truncate(end.unwrap_or(0));
    name
}

/// Word of somebody to the box's other devices. `Debug` shows neither name nor identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactWord {
    /// Their box.
    pub box_id: BoxId,
    /// The canonical bytes of their key record, which nobody has verified yet; empty if they are forgotten.
    pub record: Vec<u8>,
    /// What was said of them.
    pub entry: Entry,
    /// A change of their identity that was just noticed.
    pub change: Option<IdentityChange>,
    /// Word of what they show of themselves.
    pub profile: Option<ProfileWord>,
}

impl ContactWord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let profile = self.profile.as_ref().map(ProfileWord::encode);
        let Entry {
            name,
            identifier,
            added,
            blocked,
            verified,
            forgotten,
        } = &self.entry;
        let writer = Writer::default()
            .u8(VERSION)
            .fixed(self.box_id.as_bytes())
            .bytes(&self.record)
            .u64(name.at.as_millis())
            .bytes(name.value.as_bytes())
            .u64(identifier.at.as_millis())
            .bytes(identifier.value.as_bytes())
            .u64(added.at.as_millis())
            .u8(u8::from(added.value))
            .u64(blocked.at.as_millis())
            .u8(u8::from(blocked.value))
            .u64(verified.at.as_millis())
            .u64(verified.value.as_millis())
            .u64(forgotten.as_millis());
        write_change(writer, self.change.as_ref())
            .bytes(&profile.unwrap_or_default())
            .finish()
    }

    /// The word in these bytes; `None` if it is of a later version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Ok(None);
        }
        let invalid = |_| WireError::Invalid("box id");
        let box_id = BoxId::from_bytes(reader.fixed()?).map_err(invalid)?;
        let record = reader.bytes(KeyRecord::MAX_BYTES, "key record")?.to_vec();
        let entry = Entry {
            name: Latest::read(&mut reader, |reader| {
                read_text(reader, MAX_NAME_BYTES, "name")
            })?,
            identifier: Latest::read(&mut reader, read_identifier)?,
            added: Latest::read(&mut reader, read_flag)?,
            blocked: Latest::read(&mut reader, read_flag)?,
            verified: Latest::read(&mut reader, read_time)?,
            forgotten: read_time(&mut reader)?,
        };
        let change = read_change(&mut reader)?;
        let profile = match reader.bytes(MAX_PROFILE_BYTES, "profile")? {
            [] => None,
            word => match ProfileWord::decode(word)? {
                Some(word) => Some(word),
                None => return Ok(None),
            },
        };
        reader.finish()?;
        Ok(Some(Self {
            box_id,
            record,
            entry,
            change,
            profile,
        }))
    }
}

fn write_change(writer: Writer, change: Option<&IdentityChange>) -> Writer {
    let Some(change) = change else {
        return writer.u8(0);
    };
    let writer = match &change.what {
        WhatChanged::Chain(_) => writer.u8(1),
        WhatChanged::OwnChain => writer.u8(2),
        WhatChanged::MovedFrom(known) => writer.u8(3).fixed(known.as_bytes()),
        WhatChanged::MovedTo(found) => writer.u8(4).fixed(found.as_bytes()),
    };
    writer
        .u64(change.at.as_millis())
        .u8(u8::from(change.stops_sending))
}

fn read_change(reader: &mut Reader<'_>) -> Result<Option<IdentityChange>, WireError> {
    let kind = reader.u8()?;
    let mut other = || {
        let invalid = |_| WireError::Invalid("box id");
        BoxId::from_bytes(reader.fixed()?).map_err(invalid)
    };
    let what = match kind {
        0 => return Ok(None),
        1 => WhatChanged::Chain(SEEN_ELSEWHERE.to_owned()),
        2 => WhatChanged::OwnChain,
        3 => WhatChanged::MovedFrom(other()?),
        4 => WhatChanged::MovedTo(other()?),
        _ => return Err(WireError::Invalid("change")),
    };
    Ok(Some(IdentityChange {
        what,
        at: read_time(reader)?,
        stops_sending: read_flag(reader)?,
    }))
}

fn read_text(
    reader: &mut Reader<'_>,
    limit: usize,
    what: &'static str,
) -> Result<String, WireError> {
    let text = std::str::from_utf8(reader.bytes(limit, what)?);
    Ok(text.map_err(|_| WireError::Invalid(what))?.to_owned())
}

fn read_identifier(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let text = read_text(reader, EMAIL_MAX_BYTES, "identifier")?;
    let is_normal = |identifier: &Identifier| identifier.as_str() == text;
    match text.is_empty() || parse(&text).as_ref().is_some_and(is_normal) {
        true => Ok(text),
        false => Err(WireError::Invalid("identifier")),
    }
}

/// The phone or email that a text is.
pub(crate) fn parse(text: &str) -> Option<Identifier> {
    match text.contains('@') {
        true => Identifier::email(text).ok(),
        false => Identifier::phone(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::PartitionId;

    use super::super::LONGEST_AHEAD_MS;
    use super::*;
    use crate::profile::ProfileKey;

    fn box_id(seed: u8) -> BoxId {
        BoxId::derive(PartitionId::new(3).unwrap(), &[seed; 32])
    }

    fn change() -> impl Strategy<Value = Option<IdentityChange>> {
        let what = prop_oneof![
            Just(WhatChanged::Chain(SEEN_ELSEWHERE.to_owned())),
            Just(WhatChanged::OwnChain),
            any::<u8>().prop_map(|seed| WhatChanged::MovedFrom(box_id(seed))),
            any::<u8>().prop_map(|seed| WhatChanged::MovedTo(box_id(seed))),
        ];
        let noticed = (what, any::<u64>(), any::<bool>());
        proptest::option::of(
            noticed.prop_map(|(what, at, stops_sending)| IdentityChange {
                what,
                at: Timestamp::from_millis(at),
                stops_sending,
            }),
        )
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("[a-z]{1,3}")
    }

    fn said() -> impl Strategy<Value = Said> {
        let identifier = proptest::option::of(prop_oneof![
            "[+]?[a-z]{1,3}@example[.]org",
            "[+]4917[0-9]{8}",
        ]);
        let verified = proptest::option::of(1..5_u64);
        (text(), identifier, any::<[bool; 2]>(), verified).prop_map(
            |(name, identifier, [added, blocked], verified)| Said {
                name,
                identifier,
                added,
                blocked,
                verified: verified.map(Timestamp::from_millis),
            },
        )
    }

    /// What a device says, and by which clock; nothing is to forget.
    fn deeds() -> impl Strategy<Value = Vec<(u64, Option<Said>)>> {
        proptest::collection::vec((1..50_u64, proptest::option::weighted(0.8, said())), 0..8)
    }

    fn entry_of(deeds: &[(u64, Option<Said>)]) -> Entry {
        let mut entry = Entry::default();
        for (now, said) in deeds {
            let now = Timestamp::from_millis(*now);
            match said {
                Some(said) => drop(entry.say(now, said.clone(), &[])),
                None => entry.forget(now),
            }
        }
        entry
    }

    fn entry() -> impl Strategy<Value = Entry> {
        deeds().prop_map(|deeds| entry_of(&deeds))
    }

    fn both(mut one: Entry, other: &Entry) -> Entry {
        one.take(other.clone());
        one
    }

    proptest! {
        #[test]
        fn whichever_words_are_heard_first_the_entries_are_the_same(
            one in entry(),
            two in entry(),
            three in entry(),
        ) {
            prop_assert_eq!(both(one.clone(), &two), both(two.clone(), &one));
            let left = both(both(one.clone(), &two), &three);
            let right = both(one.clone(), &both(two, &three));
            prop_assert_eq!(&left, &right);
            let mut again = left.clone();
            prop_assert!(!again.take(one), "it was heard before");
            prop_assert_eq!(again, left);
        }

        #[test]
        fn what_is_said_after_all_that_was_heard_holds(
            one in entry(),
            two in entry(),
            said in said(),
            now in 0..60_u64,
        ) {
            let mut mine = both(one, &two);
            mine.say(Timestamp::from_millis(now), said.clone(), &[]);
            prop_assert_eq!(mine.said(), said);
            let theirs = both(two, &mine);
            prop_assert_eq!(theirs.said(), mine.said());
        }

        #[test]
        fn what_is_said_on_purpose_holds_against_what_was_said_before_and_not_heard(
            one in entry(),
            two in entry(),
            said in said(),
        ) {
            let mut mine = one;
            let now = mine.last().max(two.last()).plus_millis(1);
            mine.say(now, said.clone(), &[Part::Name, Part::Identifier, Part::Added, Part::Blocked]);
            let theirs = both(two, &mine).said();
            prop_assert_eq!(Said { verified: said.verified, ..theirs }, said);
        }

        #[test]
        fn who_is_forgotten_is_so_until_more_is_said(one in entry(), said in said(), now in 0..60_u64) {
            let now = Timestamp::from_millis(now);
            let mut mine = one.clone();
            mine.forget(now);
            prop_assert!(mine.is_forgotten());
            prop_assert!(both(one.clone(), &mine).is_forgotten());
            let left = Said { blocked: one.said().blocked, ..Said::default() };
            prop_assert_eq!(mine.said(), left);
            let is_new = mine.say(now, said, &[]);
            prop_assert_eq!(mine.is_forgotten(), !is_new);
        }

        #[test]
        fn a_word_comes_back_as_it_was(
            entry in entry(),
            record in proptest::collection::vec(any::<u8>(), 0..20),
            profile in proptest::option::of((any::<[u8; 32]>(), any::<u64>())),
            change in change(),
        ) {
            let profile = profile.map(|(key, version)| ProfileWord {
                key: ProfileKey::from_bytes(key),
                version,
            });
            let box_id = box_id(7);
            let word = ContactWord { box_id, record, entry, change, profile };
            prop_assert_eq!(ContactWord::decode(&word.encode()), Ok(Some(word)));
        }

        #[test]
        fn what_can_be_read_is_written_as_the_same_bytes(
            entry in entry(),
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        ) {
            let word = ContactWord {
                box_id: box_id(7),
                record: Vec::new(),
                entry,
                change: Some(IdentityChange {
                    what: WhatChanged::MovedTo(box_id(8)),
                    at: Timestamp::from_millis(9),
                    stops_sending: true,
                }),
                profile: None,
            };
            let mut bytes = word.encode();
            for (at, to) in changes {
                let length = bytes.len();
                bytes[at % length] = to;
            }
            if let Ok(Some(word)) = ContactWord::decode(&bytes) {
                prop_assert_eq!(word.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_clock_that_was_wrong_does_not_bind_what_is_said_once_it_is_right() {
        let now = Timestamp::from_millis(1_000);
        let next_year = now.plus_millis(365 * 24 * 60 * 60 * 1000);
        let named = |name: &str| Said {
            name: Some(name.to_owned()),
            ..Said::default()
        };
        let mut entry = Entry::default();
        entry.say(next_year, named("bob"), &[]);
        assert!(is_ahead(entry.last(), now));
        // Another thing is said: the rest is dated back with it.
        entry.say_blocked(now, true);
        assert!(!is_ahead(entry.last(), now));
        let blocked = Said {
            blocked: true,
            ..named("bob")
        };
        assert_eq!(entry.said(), blocked);
        let mut later = entry.clone();
        later.say(now.plus_millis(5), named("rob"), &[]);
        entry.take(later);
        assert_eq!(entry.said(), named("rob"));
    }

    #[test]
    fn a_lie_about_the_time_makes_nobody_forgotten_of_whom_more_was_said() {
        let now = Timestamp::from_millis(1_000);
        let mut entry = Entry::default();
        entry.forget(now.plus_millis(10 * LONGEST_AHEAD_MS));
        let mut forgotten = entry.clone();
        forgotten.pull(now);
        assert!(forgotten.is_forgotten());
        let said = Said {
            added: true,
            ..Said::default()
        };
        entry.say(now.plus_millis(11 * LONGEST_AHEAD_MS), said.clone(), &[]);
        entry.pull(now);
        assert!(!entry.is_forgotten());
        assert_eq!(entry.said(), said);
    }

    #[test]
    fn who_said_something_dates_it_as_all_others_do_once_it_is_heard_again() {
        let now = Timestamp::from_millis(1_000);
        let named = |name: &str| Said {
            name: Some(name.to_owned()),
            ..Said::default()
        };
        let mut mine = Entry::default();
        mine.say(now.plus_millis(10 * LONGEST_AHEAD_MS), named("bob"), &[]);
        let word = mine.clone();
        let mut theirs = Entry::default();
        let mut heard = word.clone();
        heard.pull(now);
        theirs.take(heard);
        theirs.say(now.plus_millis(1), named("rob"), &[]);
        mine.date(&word, now);
        mine.take(theirs.clone());
        assert_eq!(mine, theirs);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(cut("\u{e9}".repeat(100)), "\u{e9}".repeat(64));
        assert_eq!(cut("bob".to_owned()), "bob");
    }
}
