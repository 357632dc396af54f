//! What the owner has chosen for the box, and the word by which other devices learn it.
//!
//! The word, as bytes: `u8` version = 1; then whether no receipts are sent of what has come, whether none of what was read, and whether
//! messages are taken from contacts only: of each `u64` when that was chosen, and `u8` 0 or 1.

use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};

use super::{Latest, instant, read_flag};

const VERSION: u8 = 1;

/// What is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chosen {
    /// No receipts of what has come.
    pub no_delivered: bool,
    /// No receipts of what was read.
    pub no_read: bool,
    /// Messages are taken from contacts only.
    pub contacts_only: bool,
}

/// Something that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// [`Chosen::no_delivered`].
    NoDelivered(bool),
    /// [`Chosen::no_read`].
    NoRead(bool),
    /// [`Chosen::contacts_only`].
    ContactsOnly(bool),
}

/// What was chosen, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    no_delivered: Latest<bool>,
    no_read: Latest<bool>,
    contacts_only: Latest<bool>,
}

impl Choices {
    /// What is chosen.
    #[must_use]
    pub fn chosen(&self) -> Chosen {
        Chosen {
            no_delivered: self.no_delivered.value,
            no_read: self.no_read.value,
            contacts_only: self.contacts_only.value,
        }
    }

    /// Whether messages are taken from contacts only, if anything was ever chosen.
    #[must_use]
    pub fn accepts(&self) -> Option<bool> {
        let is_chosen = self.contacts_only.at != Timestamp::default();
        is_chosen.then_some(self.contacts_only.value)
    }

    /// When something was chosen last.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        let others = self.no_delivered.at.max(self.no_read.at);
        others.max(self.contacts_only.at)
    }

    /// Dates back to now what was chosen by a clock that was wrong.
    pub fn pull(&mut self, now: Timestamp) {
        self.no_delivered.pull(now);
        self.no_read.pull(now);
        self.contacts_only.pull(now);
    }

    /// Hears what this device has said itself, which was stored at this time: it is dated as all others date it.
    pub fn date(&mut self, said: &Self, at: Timestamp) {
        self.no_delivered.date(&said.no_delivered, at);
        self.no_read.date(&said.no_read, at);
        self.contacts_only.date(&said.contacts_only, at);
    }

    /// Chooses something now, which is after all that was chosen before, also if it is chosen already: another device may have chosen
    /// otherwise meanwhile, and is not heard of yet.
    pub fn choose(&mut self, now: Timestamp, choice: Choice) {
        self.pull(now);
        let at = instant(self.last(), now);
        let (choice, value) = match choice {
            Choice::NoDelivered(value) => (&mut self.no_delivered, value),
            Choice::NoRead(value) => (&mut self.no_read, value),
            Choice::ContactsOnly(value) => (&mut self.contacts_only, value),
        };
        choice.say(at, value, true);
    }

    /// Takes what another device says; whether any of it is later than what was known.
    pub fn take(&mut self, other: Self) -> bool {
        self.no_delivered.take(other.no_delivered)
            | self.no_read.take(other.no_read)
            | self.contacts_only.take(other.contacts_only)
    }

    /// Their bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let all = [&self.no_delivered, &self.no_read, &self.contacts_only];
        let writer = Writer::default().u8(VERSION);
        let written = all.into_iter().fold(writer, |writer, choice| {
            let flag = u8::from(choice.value);
            writer.u64(choice.at.as_millis()).u8(flag)
        });
        written.finish()
    }

    /// The choices in these bytes; `None` if they are of a later version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Ok(None);
        }
        let choices = Self {
            no_delivered: Latest::read(&mut reader, read_flag)?,
            no_read: Latest::read(&mut reader, read_flag)?,
            contacts_only: Latest::read(&mut reader, read_flag)?,
        };
        reader.finish()?;
        Ok(Some(choices))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice() -> impl Strategy<Value = Choice> {
        (0..3, any::<bool>()).prop_map(|(what, value)| match what {
            0 => Choice::NoDelivered(value),
            1 => Choice::NoRead(value),
            _ => Choice::ContactsOnly(value),
        })
    }

    fn is_chosen(choices: &Choices, choice: Choice) -> bool {
        let chosen = choices.chosen();
        match choice {
            Choice::NoDelivered(value) => chosen.no_delivered == value,
            Choice::NoRead(value) => chosen.no_read == value,
            Choice::ContactsOnly(value) => chosen.contacts_only == value,
        }
    }

    fn choices() -> impl Strategy<Value = Choices> {
        proptest::collection::vec((1..50_u64, choice()), 0..6).prop_map(|all| {
            let mut choices = Choices::default();
            for (now, choice) in all {
                choices.choose(Timestamp::from_millis(now), choice);
            }
            choices
        })
    }

    fn both(mut one: Choices, other: &Choices) -> Choices {
        one.take(other.clone());
        one
    }

    proptest! {
        #[test]
        fn whichever_words_are_heard_first_the_choices_are_the_same(
            one in choices(),
            two in choices(),
            three in choices(),
            now in 0..60_u64,
            last in choice(),
        ) {
            prop_assert_eq!(both(one.clone(), &two), both(two.clone(), &one));
            let mut left = both(both(one.clone(), &two), &three);
            prop_assert_eq!(&left, &both(one.clone(), &both(two, &three)));
            left.choose(Timestamp::from_millis(now), last);
            prop_assert!(is_chosen(&both(one.clone(), &left), last), "what is chosen last holds");
            let mut unheard = one;
            unheard.choose(left.last().plus_millis(1), last);
            prop_assert!(is_chosen(&both(left, &unheard), last), "though it was chosen before");
        }

        #[test]
        fn choices_come_back_as_they_were_and_what_can_be_read_is_written_the_same(
            choices in choices(),
            at in any::<usize>(),
            to: u8,
        ) {
            let mut bytes = choices.encode();
            prop_assert_eq!(Choices::decode(&bytes), Ok(Some(choices)));
            let length = bytes.len();
            bytes[at % length] = to;
            if let Ok(Some(choices)) = Choices::decode(&bytes) {
                prop_assert_eq!(choices.encode(), bytes);
            }
        }
    }
}
