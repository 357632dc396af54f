//! What is stored once it is known what became of envelopes: one transaction for all that a request told of, however many
//! boxes a message to a group went to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rossby_domain::ids::{Counter, DeviceAddress, EnvelopeId, Sequence};
use rossby_domain::time::Timestamp;

use super::sending::{Delivery, Outgoing};
use super::words::is_word;
use super::{Device, DeviceError, acts, erasing};
use crate::connection::Signer;
use crate::envelope::{Control, Receipt};
use crate::store::{
    Batch, MessageKey, MessageRow, MessageState, Outcome, PendingRow, ToldProfileRow,
};

/// What comes next for an envelope.
#[derive(Debug)]
pub(super) enum Next {
    /// It is to be sent, perhaps again.
    Send,
    /// Nothing: this became of it.
    End(Outcome, Delivery),
}

/// Envelopes by what comes next for them.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    send: Vec<Outgoing>,
    ended: Vec<(Outgoing, Outcome, Delivery)>,
    wait: Vec<(Outgoing, DeviceError)>,
}

impl Sorted {
    /// Puts an envelope where it belongs. What went wrong for one box has its envelope wait, and holds up nothing that goes to
    /// other boxes.
    ///
    /// # Errors
    /// [`DeviceError::Store`]: what went wrong is this device itself.
    pub(super) fn put(
        &mut self,
        outgoing: Outgoing,
        next: Result<Next, DeviceError>,
    ) -> Result<(), DeviceError> {
        match next {
            Ok(Next::Send) => self.send.push(outgoing),
            Ok(Next::End(outcome, delivery)) => self.ended.push((outgoing, outcome, delivery)),
            Err(error @ DeviceError::Store(_)) => return Err(error),
            Err(error) => self.wait.push((outgoing, error)),
        }
        Ok(())
    }
}

/// A message whose sending has ended, for one of its boxes at least.
struct Ended<'a> {
    row: MessageRow,
    /// The envelope that was stored before any other of the message, if that is new, and where.
    first: Option<(&'a Outgoing, Sequence)>,
}

impl Device {
    /// Ends the sending of those that came to an end, and adds what became of them, and of those that wait, to `done`; those that
    /// are to be sent.
    pub(super) fn settle(
        &self,
        signer: &Signer,
        sorted: Sorted,
        done: &mut Vec<(Outgoing, Delivery)>,
    ) -> Result<Vec<Outgoing>, DeviceError> {
        let Sorted { send, ended, wait } = sorted;
        if !ended.is_empty() {
            self.end(signer, &ended)?;
        }
        let ended = ended.into_iter();
        done.extend(ended.map(|(outgoing, _, delivery)| (outgoing, delivery)));
        let wait = wait.into_iter();
        done.extend(wait.map(|(outgoing, error)| (outgoing, Delivery::Pending(error))));
        Ok(send)
    }

    fn end(
        &self,
        signer: &Signer,
        ended: &[(Outgoing, Outcome, Delivery)],
    ) -> Result<(), DeviceError> {
        let messages = self.ended(signer, ended)?;
        // Once for all members: it is the same message.
        let stored = messages.iter().filter(|(_, ended)| ended.first.is_some());
        let stored: Vec<_> = stored
            .map(|(key, ended)| (*key, ended.row.clone()))
            .collect();
        let erased = self.erased_by(&stored)?;
        self.store.write(|batch| {
            for (outgoing, outcome, _) in ended {
                batch.remove::<PendingRow>(&(outgoing.recipient, outgoing.counter))?;
                if let Some(sequence) = outcome.sequence()
                    && Receipt::is(outgoing.row.content.expose())
                {
                    self.copy_if_possible(batch, signer, outgoing, sequence)?;
                }
                let content = outgoing.row.content.expose();
                if matches!(outcome, Outcome::Refused { .. })
                    && Control::is_about(content, Control::PROFILE)
                {
                    // They were not told: the next message tells them.
                    batch.remove::<ToldProfileRow>(&outgoing.recipient)?;
                }
            }
            for (key, Ended { row, first }) in messages {
                if let Some((outgoing, sequence)) = first {
                    self.copy_if_possible(batch, signer, outgoing, sequence)?;
                }
                let mut row = (key, row);
                acts::note_row(batch, &row)?;
                erasing::blank_if_deleted(batch, &mut row)?;
                batch.put(&row.0, &row.1)?;
            }
            Ok(erasing::erase(batch, &erased)?)
        })
    }

    /// Makes a copy for the box's other devices. That there can be none does not undo the message.
    fn copy_if_possible(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        outgoing: &Outgoing,
        sequence: Sequence,
    ) -> Result<(), DeviceError> {
        match self.copy_sent(batch, signer, outgoing, sequence) {
            Err(error @ DeviceError::Store(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The rows of the messages with their outcomes. Words have none.
    fn ended<'a>(
        &self,
        signer: &Signer,
        ended: &'a [(Outgoing, Outcome, Delivery)],
    ) -> Result<BTreeMap<MessageKey, Ended<'a>>, DeviceError> {
        let mut messages = BTreeMap::new();
        for (outgoing, outcome, _) in ended {
            let row = &outgoing.row;
            if is_word(row.content.expose()) {
                continue;
            }
            let first = outcome.sequence().map(|sequence| (outgoing, sequence));
            if row.group.is_none() {
                let sender = signer.address;
                let counter = outgoing.counter;
                let row = MessageRow {
                    order: row.order,
                    sequence: outcome.sequence(),
                    at: row.written_at,
                    state: outcome.clone().of(row.content.clone()),
                };
                let key = (EnvelopeId { sender, counter }, outgoing.recipient);
                messages.insert(key, Ended { row, first });
                continue;
            }
            let key = group_key(signer.address, row.written_at);
            let message = match messages.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => match self.store.get::<MessageRow>(&key)? {
                    Some(row) => place.insert(Ended { row, first: None }),
                    // There is no message left to say it of.
                    None => continue,
                },
            };
            let MessageState::ToGroup { outcomes, .. } = &mut message.row.state else {
                continue;
            };
            let mut known = outcomes.values();
            if known.all(|outcome| outcome.sequence().is_none()) {
                message.first = first;
            }
            outcomes.insert(outgoing.recipient, outcome.clone());
        }
        Ok(messages)
    }
}

/// What a message to a group is kept under: it has another counter for each member. No device comes to so many envelopes
/// as milliseconds have passed.
pub(super) fn group_key(sender: DeviceAddress, written_at: Timestamp) -> MessageKey {
    let counter = Counter(written_at.as_millis());
    (EnvelopeId { sender, counter }, sender.box_id)
}
