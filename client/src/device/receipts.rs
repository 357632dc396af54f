//! Receipts: telling contacts that their messages are here and were read, and hearing the same of them.
//!
//! ```text
//!   a page is stored ──► what contacts said in it is owed "delivered", in the same transaction
//!   its owner looks ──► mark_read: owed "read" instead
//!   send_receipts ──► what is owed, one receipt for up to 256 messages of one author ──► as pending, like a message
//!   a receipt came ──► receipts of that message; it is no message itself
//! ```
//!
//! Invariants. Receipts are for what a contact has said whom this device's owner has added and not blocked, and in a group for
//! its author alone, and there only that they were read, and only if its members are few; never for receipts, words between devices, or what is done to other messages, so that none calls for another.
//! They hold up neither receiving nor what is shown: what can not be sent now goes out later. What is told of a
//! message is the earliest of what its recipients' devices say, in whatever order it comes; of what is no message of this box
//! that is here, nothing is kept.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::time::Timestamp;

use super::choices::chosen_in;
use super::messages::{Direction, Message, Status};
use super::sending::Draft;
use super::words::next_order;
use super::{Delivery, Device, DeviceError, acts};
use crate::connection::Signer;
use crate::conversation::Conversation;
use crate::envelope::{Content, MAX_RECEIPT_MESSAGES, MessageId, Receipt, ReceiptState};
use crate::group::GroupId;
use crate::store::{
    Batch, ContactRow, GroupRow, MessageKey, MessageRow, OwedRow, PendingRow, ReceiptsRow,
    StoreError,
};

/// How long a receipt may wait in a box: it is not worth the place of a message.
const TTL_MS: u64 = 3 * 24 * 60 * 60 * 1000;
/// Members of the largest group in which its members tell that they have read something.
const MAX_MEMBERS_TELLING: usize = 32;

/// How far a message has come with somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// When it was there, by their clock.
    pub delivered: Option<Timestamp>,
    /// When they had seen it, by their clock.
    pub read: Option<Timestamp>,
}

/// Which receipts this box sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptChoice {
    /// That a message is here.
    pub delivered: bool,
    /// That it was read.
    pub read: bool,
}

/// What one receipt is about: whose messages, in which conversation, how far.
type About = (BoxId, Conversation, bool);

/// Something is left to be sent, unless it is taken out.
pub(super) struct Rest<'a>(pub(super) Option<&'a AtomicBool>);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if let Some(owing) = self.0 {
            owing.store(true, Ordering::Relaxed);
        }
    }
}

impl Device {
    /// Forgets what is owed, and what waits to be sent, to these authors of these kinds.
    pub(super) fn forget_receipts(
        &self,
        batch: &mut Batch<'_>,
        is_over: impl Fn(&BoxId, ReceiptState) -> bool,
    ) -> Result<(), StoreError> {
        for (key, row) in self.store.all::<OwedRow>()? {
            if is_over(&key.1.sender.box_id, state_of(row.read)) {
                batch.remove::<OwedRow>(&key)?;
            }
        }
        for (key, row) in self.store.all::<PendingRow>()? {
            let receipt = receipt_of(row.content.expose());
            if receipt.is_some_and(|receipt| is_over(&key.0, receipt.state())) {
                batch.remove::<PendingRow>(&key)?;
            }
        }
        Ok(())
    }

    /// Whether an author is told of this in a conversation. In a large group all would tell, of each message.
    fn tells_in(&self, conversation: &Conversation, read: bool) -> Result<bool, StoreError> {
        let Conversation::In(group) = conversation else {
            return Ok(true);
        };
        match self.store.get::<GroupRow>(group)?.filter(|_| read) {
            Some(row) => Ok(row.group()?.view().members.len() <= MAX_MEMBERS_TELLING),
            None => Ok(false),
        }
    }

    /// Keeps the receipts of a message of this box that is here now.
    pub(super) fn expect_receipts(
        batch: &mut Batch<'_>,
        conversation: Conversation,
        id: MessageId,
    ) -> Result<(), StoreError> {
        match batch.get::<ReceiptsRow>(&(conversation, id))? {
            Some(_) => Ok(()),
            None => batch.put(&(conversation, id), &ReceiptsRow::default()),
        }
    }

    /// Keeps that the owner has looked at these messages: who wrote them is told so with [`Device::send_receipts`], if that is
    /// wanted. What was read while it was not, is never told.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn mark_read(&self, messages: &[Message]) -> Result<(), DeviceError> {
        let now = self.environment.clock.now();
        let own = self.account()?.box_id;
        let said = messages.iter().filter(|message| is_said(message));
        let said = said.filter(|message| own != Some(message.sender.box_id));
        let mut fresh = Vec::new();
        for message in said {
            let Some(id) = message.id() else { continue };
            let key = (message.conversation(), id);
            let known = self.store.get::<ReceiptsRow>(&key)?.unwrap_or_default();
            if own.is_some_and(|own| known.read.contains_key(&own)) {
                continue;
            }
            fresh.push(key);
        }
        let Some(own) = own.filter(|_| !fresh.is_empty()) else {
            return Ok(());
        };
        let owes = self.store.write::<_, StoreError>(|batch| {
            let chosen = chosen_in(batch)?;
            let mut owes = false;
            for key in &fresh {
                let mut row = batch.get::<ReceiptsRow>(key)?.unwrap_or_default();
                row.note(own, ReceiptState::Read, now);
                batch.put(key, &row)?;
                if !chosen.no_read && may_know(batch, &key.1.sender.box_id)? {
                    batch.put(key, &OwedRow { read: true })?;
                    owes = true;
                }
            }
            Ok(owes)
        })?;
        if owes {
            self.owing.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether receipts may be waiting to be sent.
    pub(super) fn owes_receipts(&self) -> bool {
        self.owing.load(Ordering::Relaxed)
    }

    /// Sends the receipts that are owed. How many boxes could not be told yet: they are with the next receipt, or the next
    /// message to them.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub async fn send_receipts(&self) -> Result<usize, DeviceError> {
        if !self.owes_receipts() {
            return Ok(0);
        }
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        // Dropped meanwhile, it is not done.
        let mut rest = Rest(Some(&self.owing));
        self.owing.store(false, Ordering::Relaxed);
        let sent = self.send_owed(&signer).await;
        if matches!(sent, Ok(0)) {
            rest.0 = None;
        }
        sent
    }

    async fn send_owed(&self, signer: &Signer) -> Result<usize, DeviceError> {
        let owed = self.store.all::<OwedRow>()?;
        if !owed.is_empty() {
            self.store
                .write(|batch| self.post_receipts(batch, signer, owed))?;
        }
        let waiting = self.store.all::<PendingRow>()?.into_iter();
        let waiting = waiting.filter(|(_, row)| Receipt::is(row.content.expose()));
        let boxes: BTreeSet<BoxId> = waiting.map(|((to, _), _)| to).collect();
        let boxes: Vec<_> = boxes.into_iter().collect();
        let sent = self.flush(signer, &boxes, None).await?;
        let _ = self.flush_words(signer).await;
        let stuck = |sent: &&super::Sent| matches!(sent.delivery, Delivery::Pending(_));
        Ok(sent.iter().filter(stuck).count())
    }

    /// Makes receipts of what is owed, as pending for who is to be told.
    fn post_receipts(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        owed: Vec<((Conversation, MessageId), OwedRow)>,
    ) -> Result<(), DeviceError> {
        let chosen = chosen_in(batch)?;
        let mut about: BTreeMap<About, Vec<MessageId>> = BTreeMap::new();
        let mut tells = BTreeMap::new();
        for (key, row) in owed {
            batch.remove::<OwedRow>(&key)?;
            let (conversation, id) = key;
            let author = id.sender.box_id;
            let wanted = if row.read {
                !chosen.no_read
            } else {
                !chosen.no_delivered
            };
            let tells = match tells.entry((conversation, row.read)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(place) => *place.insert(self.tells_in(&conversation, row.read)?),
            };
            // Blocked, forgotten or in doubt since.
            if wanted && tells && may_know(batch, &author)? {
                let about = about.entry((author, conversation, row.read));
                about.or_default().push(id);
            }
        }
        let now = self.environment.clock.now();
        let order = next_order(batch)?;
        for ((author, conversation, read), messages) in about {
            for messages in messages.chunks(MAX_RECEIPT_MESSAGES) {
                let receipt = Receipt::new(state_of(read), messages.to_vec())?;
                let own = signer.address.box_id;
                take_in(batch, conversation, own, &receipt, now, true)?;
                let draft = Draft {
                    content: &Content::Receipt(receipt),
                    written_at: now,
                    order,
                    group: group_of(&conversation),
                    ttl_ms: Some(TTL_MS),
                };
                self.post(batch, signer, &author, &draft)?;
            }
        }
        Ok(())
    }

    /// Has what contacts said in rows that are being stored owed a receipt, and what this box's other devices said await its own;
    /// whether any is owed.
    pub(super) fn owe_delivered(
        &self,
        batch: &mut Batch<'_>,
        own: &BoxId,
        fresh: &[(MessageKey, MessageRow)],
    ) -> Result<bool, StoreError> {
        let chosen = chosen_in(batch)?;
        let mut owes = false;
        for row in fresh {
            let Some((conversation, id, content)) = acts::said_by(row) else {
                continue;
            };
            let author = id.sender.box_id;
            if content.said().is_none() {
                continue;
            }
            if author == *own {
                Self::expect_receipts(batch, conversation, id)?;
                continue;
            }
            let is_direct = matches!(conversation, Conversation::With(_));
            if chosen.no_delivered || !is_direct || !may_know(batch, &author)? {
                continue;
            }
            let key = (conversation, id);
            let told = batch.get::<ReceiptsRow>(&key)?.unwrap_or_default();
            // Another device of this box was quicker.
            if !told.delivered.contains_key(own) && !told.read.contains_key(own) {
                batch.put(&key, &OwedRow { read: false })?;
                owes = true;
            }
        }
        Ok(owes)
    }

    /// A receipt that came from somebody, if it says something of this box's own messages in a conversation of both. It is taken
    /// in once all that came with it is stored ([`HeardReceipt::take_in`]): the message may be among that.
    pub(super) fn hear_receipt(
        &self,
        signer: &Signer,
        from: &BoxId,
        conversation: Conversation,
        content: &[u8],
        at: Timestamp,
    ) -> Result<Option<HeardReceipt>, DeviceError> {
        let Some(receipt) = receipt_of(content) else {
            return Ok(None);
        };
        let own = signer.address.box_id;
        let theirs = |id: &MessageId| id.sender.box_id != own;
        if *from == own || receipt.messages().iter().any(theirs) {
            return Ok(None);
        }
        if let Conversation::In(group) = conversation {
            // Whoever else knows the group's id has no message of it.
            let is_member = match self.store.get::<GroupRow>(&group)? {
                Some(row) => row.group()?.view().has(from),
                None => false,
            };
            if !is_member {
                return Ok(None);
            }
        }
        let by = *from;
        Ok(Some(HeardReceipt {
            conversation,
            by,
            receipt,
            at,
        }))
    }

    /// Takes a receipt that another device of this box has sent: this one need not send it.
    pub(super) fn hear_own_receipt(
        &self,
        from: &DeviceAddress,
        conversation: Conversation,
        content: &[u8],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(receipt) = receipt_of(content) else {
            return Ok(());
        };
        self.store.write(|batch| {
            for id in receipt.messages() {
                let key = (conversation, *id);
                let told = receipt.state() == ReceiptState::Read;
                if batch
                    .get::<OwedRow>(&key)?
                    .is_some_and(|owed| told || !owed.read)
                {
                    batch.remove::<OwedRow>(&key)?;
                }
            }
            take_in(batch, conversation, from.box_id, &receipt, at, true)
        })
    }
}

impl ReceiptsRow {
    /// Takes one thing in that a box says; whether it is news. The earliest of its devices' counts.
    fn note(&mut self, by: BoxId, state: ReceiptState, at: Timestamp) -> bool {
        let earliest = |times: &mut BTreeMap<BoxId, Timestamp>| match times.get(&by) {
            Some(known) if *known <= at => false,
            _ => {
                times.insert(by, at);
                true
            }
        };
        match state {
            ReceiptState::Delivered => earliest(&mut self.delivered),
            ReceiptState::Read => earliest(&mut self.read),
        }
    }

    /// How far it has come with each.
    fn progress(&self) -> BTreeMap<BoxId, Progress> {
        let boxes = self.delivered.keys().chain(self.read.keys());
        let of_box = |who: &BoxId| {
            let progress = Progress {
                delivered: self.delivered.get(who).copied(),
                read: self.read.get(who).copied(),
            };
            (*who, progress)
        };
        boxes.map(of_box).collect()
    }
}

impl Message {
    /// The message with what its recipients' devices say of it. Of one that came in, nothing is said.
    pub(super) fn received_as(mut self, row: &ReceiptsRow) -> Self {
        if self.direction == Direction::Out {
            self.receipts = row.progress();
            let own = self.sender.box_id;
            self.receipts.retain(|who, _| *who != own);
            if self.group.is_none() {
                let to = self.recipient;
                self.receipts.retain(|who, _| *who == to);
            }
        }
        self
    }
}

/// Whether somebody may know what becomes of their messages: a contact that this device's owner has added, who is not blocked,
/// and about whom nothing waits for the owner's word.
pub(super) fn may_know(batch: &Batch<'_>, who: &BoxId) -> Result<bool, StoreError> {
    let row = batch.get::<ContactRow>(who)?;
    Ok(row.is_some_and(|row| may_hear(&row)))
}

/// The same of a contact.
pub(super) fn may_hear(row: &ContactRow) -> bool {
    let stops = row.changed.as_ref().is_some_and(|it| it.stops_sending);
    row.added && !row.blocked && !stops
}

/// Whether a message is something said that came in.
fn is_said(message: &Message) -> bool {
    let said = message.content.as_ref().and_then(Content::said).is_some();
    message.direction == Direction::In && message.status == Status::Received && said
}

fn state_of(read: bool) -> ReceiptState {
    match read {
        true => ReceiptState::Read,
        false => ReceiptState::Delivered,
    }
}

fn receipt_of(content: &[u8]) -> Option<Receipt> {
    match Content::decode(content) {
        Ok(Content::Receipt(receipt)) => Some(receipt),
        _ => None,
    }
}

fn group_of(conversation: &Conversation) -> Option<GroupId> {
    match conversation {
        Conversation::With(_) => None,
        Conversation::In(group) => Some(*group),
    }
}

/// A receipt of somebody, about messages of this box.
pub(super) struct HeardReceipt {
    conversation: Conversation,
    by: BoxId,
    receipt: Receipt,
    at: Timestamp,
}

impl HeardReceipt {
    /// Notes what it says of messages that are here.
    pub(super) fn take_in(&self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        take_in(
            batch,
            self.conversation,
            self.by,
            &self.receipt,
            self.at,
            false,
        )
    }
}

/// Keeps what a receipt says; what others say, of messages only that are here.
fn take_in(
    batch: &mut Batch<'_>,
    conversation: Conversation,
    by: BoxId,
    receipt: &Receipt,
    at: Timestamp,
    is_own: bool,
) -> Result<(), StoreError> {
    for id in receipt.messages() {
        let key = (conversation, *id);
        let known = batch.get::<ReceiptsRow>(&key)?;
        if known.is_none() && !is_own {
            continue;
        }
        let mut row = known.unwrap_or_default();
        if row.note(by, receipt.state(), at) {
            batch.put(&key, &row)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::PartitionId;

    use super::*;

    proptest! {
        #[test]
        fn receipts_say_the_same_in_whatever_order_and_however_often_they_come(
            said in proptest::collection::vec((0_u8..3, any::<bool>(), 0_u64..5), 0..12),
        ) {
            let note = |row: &mut ReceiptsRow, (by, read, at): &(u8, bool, u64)| {
                let by = BoxId::derive(PartitionId::new(1).unwrap(), &[*by; 32]);
                let state = if *read { ReceiptState::Read } else { ReceiptState::Delivered };
                row.note(by, state, Timestamp::from_millis(*at));
            };
            let (mut straight, mut turned) = (ReceiptsRow::default(), ReceiptsRow::default());
            said.iter().for_each(|it| note(&mut straight, it));
            said.iter().rev().chain(said.iter()).for_each(|it| note(&mut turned, it));
            prop_assert_eq!(&straight, &turned);
            let earliest = |read: bool| {
                said.iter().filter(|(_, is, _)| *is == read).map(|(_, _, at)| *at).min()
            };
            let first = |times: &BTreeMap<BoxId, Timestamp>| {
                times.values().min().map(|at| at.as_millis())
            };
            prop_assert_eq!(first(&straight.read), earliest(true));
            prop_assert_eq!(first(&straight.delivered), earliest(false));
        }
    }
}
