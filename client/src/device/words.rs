//! What the devices of a box tell each other: copies of what they send, what they are called, and groups.
//!
//! ```text
//!   a message is stored in the recipient's box ──► a copy is pending for the own box, in the transaction
//!                                                  that says so ──► flush_words, after the message
//!   a device of the box has a key and was not greeted yet ──► names, groups, the profile, contacts, choices
//!   a group is changed here ──► what is known of it (groups.rs)
//!   the owner says something of somebody, or chooses something ──► that (address_book.rs, choices.rs)
//! ```
//!
//! A copy is made only once the message is stored, and under which counter: it never says that something
//! was sent that was not, and names it as its recipient knows it. Whatever becomes of the copy, the
//! message is sent; what can not go out now goes out with what is sent next. A device that is alone in its
//! box says nothing. A copy is no message of its own: nothing is copied of it. Of receipts there are copies too, so that no
//! two devices send the same.

use std::collections::BTreeMap;

use rossby_domain::chain::{KeyRecord, MAX_DEVICES};
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, EnvelopeId, Sequence};
use rossby_domain::time::Timestamp;

use super::address_book::known_of;
use super::contacts::{LookupBy, OTHER_THAN_OWN_DEVICES};
use super::receiving::unless_damaged;
use super::sending::{Draft, Outgoing};
use super::settling::group_key;
use super::{Device, DeviceError, acts};
use crate::connection::Signer;
use crate::conversation::Conversation;
use crate::envelope::{Between, ChainPoint, Control, ConversationId, Named, Receipt, SentCopy};
use crate::group::Word;
use crate::linking::DeviceName;
use crate::owner::cut;
use crate::store::{
    Batch, ChoicesRow, ContactRow, DeviceNameRow, EntryRow, ExpectedRow, GreetedRow, GroupRow,
    GrowingRow, MarksRow, MessageKey, MessageRow, MessageState, ProfileRow, StoreError,
    WhatChanged,
};

/// Whether these are the bytes of content that is no message of a person, but word between devices.
pub(super) fn is_word(content: &[u8]) -> bool {
    Between::is(content)
        || Control::is_about_groups(content)
        || Control::is_about(content, Control::PROFILE)
        || Control::is_about(content, Control::TYPING)
        || Receipt::is(content)
}

impl Device {
    /// Whether the box has other devices, here or to come, as far as is known.
    pub(super) fn has_others(&self) -> bool {
        self.identity().record().live_devices().count() > 1
    }

    /// Whether a link was sent whose fate this device may not have learned. What it sends meanwhile is copied:
    /// the service says for whom it must be sealed.
    pub(super) fn may_have_grown(&self) -> Result<bool, DeviceError> {
        Ok(self.store.get::<GrowingRow>(&())?.is_some())
    }

    /// The same in a transaction: whether there is nobody to tell anything.
    pub(super) fn is_alone(&self, batch: &Batch<'_>) -> Result<bool, StoreError> {
        Ok(!self.has_others() && batch.get::<GrowingRow>(&())?.is_none())
    }

    /// Makes a copy of a message that was just stored in its recipient's box, to go to the own box.
    pub(super) fn copy_sent(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        outgoing: &Outgoing,
        sequence: Sequence,
    ) -> Result<(), DeviceError> {
        let (own, to) = (signer.address.box_id, outgoing.recipient);
        let row = &outgoing.row;
        if to == own || self.is_alone(batch)? {
            return Ok(());
        }
        let contact = batch.get::<ContactRow>(&to)?;
        let Some(contact) = contact else {
            // Forgotten a moment ago.
            return Ok(());
        };
        let copy = SentCopy {
            recipient: to,
            counter: outgoing.counter,
            sequence,
            written_at: row.written_at,
            conversation: row.group.map_or_else(
                || ConversationId::direct(&own, &to),
                |group| group.conversation(),
            ),
            recipient_chain: contact.pinned,
            label: contact.name.map(cut).unwrap_or_default(),
            content: row.content.clone(),
        };
        self.say(batch, signer, &Between::Copy(copy), row.order)
    }

    /// Has a word go to the box's other devices, if there are any.
    pub(super) fn tell_own(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        word: &Between,
    ) -> Result<(), DeviceError> {
        if self.is_alone(batch)? {
            return Ok(());
        }
        let order = next_order(batch)?;
        self.say(batch, signer, word, order)
    }

    /// Seals a word and stores it as pending for the own box.
    pub(super) fn say(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        word: &Between,
        order: u64,
    ) -> Result<(), DeviceError> {
        let draft = Draft {
            content: &word.to_content(),
            written_at: self.environment.clock.now(),
            order,
            group: None,
            ttl_ms: None,
        };
        self.post(batch, signer, &signer.address.box_id, &draft)
    }

    /// Tells the box's devices what they are called, if one of them was not told before.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub(super) async fn greet(&self) -> Result<(), DeviceError> {
        if !self.has_others() && !self.may_have_grown()? {
            return Ok(());
        }
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let strangers = self.strangers()?;
        if !strangers.is_empty() {
            self.tell_groups(&signer)?;
            let own = self.store.get::<ProfileRow>(&signer.address.box_id)?;
            self.store.write(|batch| {
                if let Some(row) = &own {
                    self.tell_profile_to_own(batch, &signer, row)?;
                }
                self.tell_all(batch, &signer)?;
                self.tell_choices(batch, &signer)
            })?;
            // Last: from then on they count as told.
            self.tell_names(&signer, &strangers)?;
        }
        self.flush_words(&signer).await
    }

    /// The same, if somebody is to be greeted.
    pub(super) async fn greet_strangers(&self) -> Result<(), DeviceError> {
        match self.strangers()?.is_empty() {
            true => Ok(()),
            false => self.greet().await,
        }
    }

    /// The box's other devices that were not greeted yet.
    fn strangers(&self) -> Result<Vec<DeviceId>, DeviceError> {
        let identity = self.identity();
        let mut strangers = Vec::new();
        for keys in identity.record().devices() {
            let known = self.store.get::<GreetedRow>(&keys.device)?;
            if keys.device != identity.device() && known.is_none() {
                strangers.push(keys.device);
            }
        }
        Ok(strangers)
    }

    /// Has this device's names go to the own box, by which these devices are greeted.
    pub(super) fn tell_names(
        &self,
        signer: &Signer,
        greeted: &[DeviceId],
    ) -> Result<(), DeviceError> {
        let live = |device: &DeviceId| self.identity().record().signing_key(device).is_some();
        let names = self.store.all::<DeviceNameRow>()?.into_iter();
        let names = names.filter(|(device, _)| live(device)).take(MAX_DEVICES);
        let names: Vec<Named> = names
            .map(|(device, DeviceNameRow { name, at })| Named { device, at, name })
            .collect();
        self.store.write(|batch| {
            for device in greeted {
                batch.put(device, &GreetedRow)?;
            }
            if names.is_empty() {
                return Ok(());
            }
            let order = next_order(batch)?;
            self.say(batch, signer, &Between::Names(names), order)
        })
    }

    /// Has all that this device knows of groups go to the own box.
    fn tell_groups(&self, signer: &Signer) -> Result<(), DeviceError> {
        let rows = self.store.all::<GroupRow>()?;
        self.store.write(|batch| {
            let order = next_order(batch)?;
            for (_, row) in &rows {
                for word in Word::all_of(&row.group()?, false) {
                    self.say(batch, signer, &Between::Group(word), order)?;
                }
            }
            Ok(())
        })
    }

    /// Hears what this device has said itself.
    fn hear_own_word(&self, at: Timestamp, word: Between) -> Result<(), DeviceError> {
        self.store.write(|batch| {
            match word {
                Between::Contacts(words) => {
                    for word in words {
                        if let Some(mut known) = batch.get::<EntryRow>(&word.box_id)? {
                            known.entry.date(&word.entry, at);
                            batch.put(&word.box_id, &known)?;
                        }
                    }
                }
                Between::Choices(said) => {
                    if let Some(mut row) = batch.get::<ChoicesRow>(&())? {
                        row.choices.date(&said, at);
                        batch.put(&(), &row)?;
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Takes what another device of this box says, which was stored at this time of the service. A copy of a message that is not
    /// here yet is a message here.
    pub(super) async fn hear(
        &self,
        signer: &Signer,
        (from, at): (DeviceAddress, Timestamp),
        content: &[u8],
    ) -> Result<Option<(MessageKey, MessageRow)>, DeviceError> {
        // One that is malformed, or of a later version, says nothing to this one.
        let Ok(Some(word)) = Between::decode(content) else {
            return Ok(None);
        };
        if from == signer.address {
            self.hear_own_word(at, word)?;
            return Ok(None);
        }
        let is_live = |device| self.identity().record().signing_key(&device).is_some();
        match word {
            Between::Names(names) => self.learn_names(names).map(|()| None),
            // What is said to the own box comes to all of its devices anyway.
            Between::Copy(copy) if copy.recipient == signer.address.box_id => Ok(None),
            // What was removed since says nothing of what the others show, nor of what they have told.
            Between::Profile(_) | Between::Contacts(_) | Between::Choices(_)
                if !is_live(from.device) =>
            {
                Ok(None)
            }
            Between::Copy(copy) if Receipt::is(copy.content.expose()) && !is_live(from.device) => {
                Ok(None)
            }
            Between::Profile(word) => {
                self.hear_of_profile(&signer.address.box_id, word)?;
                Ok(None)
            }
            Between::Choices(choices) => self.hear_of_choices(at, choices).map(|()| None),
            Between::Contacts(words) => {
                self.hear_of_contacts(signer, (at, words)).await?;
                Ok(None)
            }
            Between::Group(word) => unless_damaged(self.hear_of_group(signer, word)).map(|()| None),
            Between::Copy(copy) if Receipt::is(copy.content.expose()) => {
                let conversation =
                    Conversation::of(copy.conversation, &from.box_id, &copy.recipient);
                let content = copy.content.expose();
                self.hear_own_receipt(&from, conversation, content, copy.written_at)?;
                Ok(None)
            }
            Between::Copy(copy) => {
                let row = message_of(from, copy.clone());
                if !is_live(from.device) && acts::changes_another(&row) {
                    return Ok(None);
                }
                match self.meet(&copy).await {
                    Err(error @ DeviceError::Store(_)) => Err(error),
                    // Known or not: it was sent to them.
                    _ => Ok(Some(row)),
                }
            }
        }
    }

    fn learn_names(&self, names: Vec<Named>) -> Result<(), DeviceError> {
        Ok(self.store.write(|batch| {
            for Named { device, at, name } in names {
                let known = batch.get::<DeviceNameRow>(&device)?;
                let is_newer = |known: &DeviceNameRow| (at, &name) > (known.at, &known.name);
                if known.as_ref().is_none_or(is_newer) {
                    batch.put(&device, &DeviceNameRow { name, at })?;
                }
            }
            Ok::<_, crate::store::StoreError>(())
        })?)
    }

    /// Holds somebody whom another device of this box wrote to, to the identity that it holds them to,
    /// and calls them as it does. Who can't be found now is held to it when they write, or are written to.
    async fn meet(&self, copy: &SentCopy) -> Result<(), DeviceError> {
        let (to, chain) = (copy.recipient, copy.recipient_chain);
        let said = self.store.get::<EntryRow>(&to)?;
        if said.is_some_and(|row| row.entry.is_forgotten()) {
            // It was written before that was heard there.
            return Ok(());
        }
        match self.store.get::<ContactRow>(&to)? {
            Some(row) if chain.version > row.pinned.version => {
                if let Ok(found) = self.lookup(&LookupBy::Box(to)).await {
                    self.hold(&found)?;
                    self.compare_chain(&to, chain, &found.record)?;
                }
            }
            Some(row) => {
                self.compare_chain(&to, chain, &KeyRecord::decode_trusted(&row.record)?)?
            }
            None => {
                // What is known may be later, or of somebody who was removed.
                self.store.write::<_, StoreError>(|batch| {
                    match batch.get::<ExpectedRow>(&to)? {
                        Some(known) if known.chain.version >= chain.version => Ok(()),
                        _ => batch.put(&to, &ExpectedRow { chain }),
                    }
                })?;
                if let Ok(found) = self.lookup(&LookupBy::Box(to)).await {
                    self.hold(&found)?;
                }
            }
        }
        if copy.label.is_empty() {
            return Ok(());
        }
        self.store
            .write::<_, DeviceError>(|batch| match batch.get::<ContactRow>(&to)? {
                Some(mut row) if row.name.is_none() => {
                    let mut known = known_of(batch, &to, Some(&row))?;
                    if known.entry.guess_name(&copy.label) {
                        row.name = known.entry.said().name;
                        batch.put(&to, &known)?;
                        batch.put(&to, &row)?;
                    }
                    Ok(())
                }
                _ => Ok(()),
            })
    }

    /// Keeps it if another device of this box holds somebody to an identity that does not go with theirs.
    fn compare_chain(
        &self,
        box_id: &BoxId,
        chain: ChainPoint,
        record: &KeyRecord,
    ) -> Result<(), DeviceError> {
        if chain.is_on(record) {
            return Ok(());
        }
        self.note_change(
            box_id,
            WhatChanged::Chain(OTHER_THAN_OWN_DEVICES.to_owned()),
        )
    }

    /// Calls a device so from now on, on this device.
    pub(super) fn name_device(
        &self,
        batch: &mut Batch<'_>,
        device: &DeviceId,
        name: &DeviceName,
    ) -> Result<(), DeviceError> {
        let known = batch.get::<DeviceNameRow>(device)?;
        let after = known.map_or(Timestamp::default(), |known| known.at.plus_millis(1));
        let row = DeviceNameRow {
            name: name.clone(),
            at: self.environment.clock.now().max(after),
        };
        Ok(batch.put(device, &row)?)
    }
}

/// Behind which message something is to go out that is none itself.
pub(super) fn next_order(batch: &Batch<'_>) -> Result<u64, StoreError> {
    let marks = batch.get::<MarksRow>(&())?;
    Ok(marks.unwrap_or_default().next_order)
}

/// What one of the box's devices sent, as a message of this one.
fn message_of(from: DeviceAddress, copy: SentCopy) -> (MessageKey, MessageRow) {
    let id = EnvelopeId {
        sender: from,
        counter: copy.counter,
    };
    let content = copy.content;
    let (key, sequence, state) =
        match Conversation::of(copy.conversation, &from.box_id, &copy.recipient) {
            Conversation::With(to) => (
                (id, to),
                Some(copy.sequence),
                MessageState::Sent { content },
            ),
            Conversation::In(group) => {
                let state = MessageState::ToGroup {
                    group,
                    content,
                    outcomes: BTreeMap::new(),
                };
                (group_key(from, copy.written_at), None, state)
            }
        };
    let row = MessageRow {
        order: 0,
        sequence,
        at: copy.written_at,
        state,
    };
    (key, row)
}
