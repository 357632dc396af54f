//! Sending: count, seal and store, then send; the same bytes under the same id until their fate is
//! known.
//!
//! ```text
//!   send ──► counter + 1, sealed, stored as pending ──► flush, oldest first, one at a time
//!                                                          │
//!     sequence           -> sent                           │
//!     STALE_KEY_RECORD   -> verify, pin, seal for the new keys; same counter (none was consumed)
//!     COUNTER_REUSED,    -> this text is not stored under that counter and never will be:
//!     NOT_ACCEPTED          seal under the next free one
//!     COUNTER_FORGOTTEN  -> nobody can tell: if it was surely never sent before, seal under the
//!                           next; otherwise doubtful, and its owner decides
//!     may pass           -> stays pending, and so does all behind it, to keep the order
//!     any other no       -> refused
//! ```

use bytes::Bytes;
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{BoxId, Counter, EnvelopeId, Sequence};
use rossby_domain::time::Timestamp;
use rossby_proto::v1::{self, send_outcome};

use super::contacts::LookupBy;
use super::resealing::{put_pending, take_counter};
use super::{Device, DeviceError, acts, box_from_wire, erasing};
use crate::connection::{Refusal, Retry, SendRpc, Signer};
use crate::crypto::secret::SecretBytes;
use crate::envelope::{
    Between, Content, ContentError, ConversationId, Letter, MAX_COPIED_BYTES, Sender, seal,
};
use crate::store::{
    Batch, CounterRow, MarksRow, MessageRow, MessageState, PendingRow, StoreError, WrittenRow,
};

/// How often one envelope is sealed anew in one go before it is left for later.
const MAX_RESEALS: u32 = 8;
/// A counter that was compared with the service's this recently is not compared again.
const COMPARE_AGAIN_MS: u64 = 10 * 60 * 1000;
/// A clock that was ahead of the time by more than this is not followed any more.
const LONGEST_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// What became of a message that was to be sent.
#[derive(Debug)]
pub enum Delivery {
    /// Stored in the recipient's box, at this place.
    Delivered(Sequence),
    /// Kept, to be sent again; the error says why. After [`DeviceError::IdentityChanged`] it waits
    /// until its owner has dealt with that.
    Pending(DeviceError),
    /// Refused for good.
    Refused(Box<Refusal>),
    /// It may have been stored, and nobody can tell any more.
    Doubtful,
}

/// A message and what became of it.
#[derive(Debug)]
pub struct Sent {
    /// Its place among all messages of this device.
    pub order: u64,
    /// The box that it went to.
    pub recipient: BoxId,
    /// What became of it.
    pub delivery: Delivery,
}

/// One pending envelope.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) recipient: BoxId,
    pub(super) counter: Counter,
    pub(super) row: PendingRow,
    /// Whether it has surely never been sent before.
    untried: bool,
}

/// What the service answered about one envelope.
enum Answer {
    Stored(Sequence),
    Refused(Box<Refusal>),
}

impl Device {
    /// Sends a message to a box. It is stored here first: should anything fail from then on, it is
    /// pending and goes out with a later [`Device::resend`] or with the next message to that box.
    ///
    /// # Errors
    /// Before it is stored: [`DeviceError::NoUser`], [`DeviceError::IdentityChanged`],
    /// [`DeviceError::NotConfirmed`], [`DeviceError::Seal`], [`DeviceError::Call`]. Afterwards:
    /// [`DeviceError::Store`].
    pub async fn send(&self, to: &BoxId, content: &Content) -> Result<Sent, DeviceError> {
        check_content(content)?;
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        self.check_confirmed(to)?;
        let (record, unreachable) = self.recipient(to).await?;
        let order = self.enqueue(&signer, to, &record, content)?;
        if let Some(error) = unreachable {
            // Nobody was there a moment ago: it would only make them wait.
            return Ok(Sent {
                order,
                recipient: *to,
                delivery: Delivery::Pending(error),
            });
        }
        let mut sent = self.flush(&signer, to, Some(order)).await?;
        // Whatever becomes of the copies, the message is sent: they go out with what is sent next.
        let _ = self.flush_words(&signer).await;
        match sent.iter().position(|sent| sent.order == order) {
            Some(index) => Ok(sent.swap_remove(index)),
            // Something before it is stuck.
            None => match sent.pop() {
                Some(Sent {
                    delivery: Delivery::Pending(error),
                    ..
                }) => Ok(Sent {
                    order,
                    recipient: *to,
                    delivery: Delivery::Pending(error),
                }),
                _ => Err(DeviceError::Damaged("list of pending messages")),
            },
        }
    }

    /// Sends everything that is pending, oldest first in each box.
    ///
    /// # Errors
    /// [`DeviceError::Store`], [`DeviceError::NotAuthorised`]. What became of each message is in its
    /// [`Delivery`]; a changed identity among it too.
    pub async fn resend(&self) -> Result<Vec<Sent>, DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let mut boxes: Vec<BoxId> = self
            .store
            .all::<PendingRow>()?
            .into_iter()
            .filter(|(_, row)| !Between::is(row.content.expose()))
            .map(|((to, _), _)| to)
            .collect();
        boxes.sort_unstable();
        boxes.dedup();
        let mut sent = Vec::new();
        for to in &boxes {
            sent.extend(self.flush(&signer, to, None).await?);
        }
        let _ = self.flush_words(&signer).await;
        sent.sort_by_key(|sent| sent.order);
        Ok(sent)
    }

    /// How many messages are pending.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn pending(&self) -> Result<usize, DeviceError> {
        let mut pending = self.store.all::<PendingRow>()?;
        pending.retain(|(_, row)| !Between::is(row.content.expose()));
        Ok(pending.len())
    }

    /// Sends what waits to be told to the box's other devices, until something has to wait.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub(super) async fn flush_words(&self, signer: &Signer) -> Result<(), DeviceError> {
        let own = signer.address.box_id;
        for outgoing in self.waiting(&own, true)? {
            if let Delivery::Pending(error) = self.deliver(signer, outgoing).await? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is pending for a box, oldest first: messages, or words to the box's own devices.
    pub(super) fn waiting(&self, to: &BoxId, words: bool) -> Result<Vec<Outgoing>, DeviceError> {
        let rows = self.store.all::<PendingRow>()?.into_iter();
        let rows = rows.filter(|((recipient, _), row)| {
            recipient == to && Between::is(row.content.expose()) == words
        });
        let mut waiting: Vec<_> = rows
            .map(|((recipient, counter), row)| Outgoing {
                recipient,
                counter,
                row,
                untried: false,
            })
            .collect();
        waiting.sort_by_key(|outgoing| (outgoing.row.order, outgoing.counter));
        Ok(waiting)
    }

    /// The recipient's record, with our counter for them compared with the service's, unless that
    /// was done lately. Beside it: why the service could not be reached for that, if it could not.
    async fn recipient(&self, to: &BoxId) -> Result<(KeyRecord, Option<DeviceError>), DeviceError> {
        let compared_at = self
            .store
            .get::<CounterRow>(to)?
            .map(|row| row.compared_at)
            .unwrap_or_default();
        let age_ms = self.environment.clock.now().millis_since(compared_at);
        let pinned = match self.pinned_record(to)? {
            Some(record) if age_ms < COMPARE_AGAIN_MS => return Ok((record, None)),
            pinned => pinned,
        };
        match (self.lookup(&LookupBy::Box(*to)).await, pinned) {
            (Ok(found), _) => {
                self.hold(&found)?;
                self.compare_counter(&found)?;
                Ok((found.record, None))
            }
            (Err(error), Some(record)) if error.is_unreachable() => Ok((record, Some(error))),
            // Lookups are rationed, and this one is for comfort: a taken counter is refused anyway.
            (Err(error), Some(record)) if error.may_pass() => Ok((record, None)),
            // They may have blocked us: the message's own refusal will say the same.
            (Err(DeviceError::NoUser), Some(record)) => Ok((record, None)),
            (Err(error), _) => Err(error),
        }
    }

    /// Counts, seals and stores, in one transaction. Nothing has been sent when it returns.
    fn enqueue(
        &self,
        signer: &Signer,
        to: &BoxId,
        record: &KeyRecord,
        content: &Content,
    ) -> Result<u64, DeviceError> {
        let now = self.environment.clock.now();
        self.store.write(|batch| {
            let written_at = take_instant(batch, now)?;
            let counter = take_counter(batch, to, Counter(0))?;
            let mut marks = batch.get::<MarksRow>(&())?.unwrap_or_default();
            let order = marks.next_order;
            marks.next_order += 1;
            batch.put(&(), &marks)?;
            let bytes = SecretBytes::new(content.encode()?.to_vec());
            let body = self.seal(signer, to, record, counter, written_at, content)?;
            let row = PendingRow {
                content: bytes,
                written_at,
                body: body.to_vec(),
                chain_version: record.version(),
                order,
            };
            put_pending(batch, signer, to, counter, &row)?;
            Ok(order)
        })
    }

    pub(super) fn seal(
        &self,
        signer: &Signer,
        to: &BoxId,
        record: &KeyRecord,
        counter: Counter,
        written_at: Timestamp,
        content: &Content,
    ) -> Result<Bytes, DeviceError> {
        let identity = self.identity();
        let sender = Sender {
            address: signer.address,
            signing_key: identity.signing_key(),
            record: identity.record(),
        };
        let letter = Letter {
            recipient: *to,
            recipient_record: record,
            counter,
            conversation: ConversationId::direct(&signer.address.box_id, to),
            written_at,
            content,
        };
        Ok(seal(self.environment.random.as_ref(), &sender, &letter)?)
    }

    /// Sends what is pending for a box, oldest first, until something has to wait.
    async fn flush(
        &self,
        signer: &Signer,
        to: &BoxId,
        untried: Option<u64>,
    ) -> Result<Vec<Sent>, DeviceError> {
        let mut sent = Vec::new();
        for mut outgoing in self.waiting(to, false)? {
            let order = outgoing.row.order;
            outgoing.untried = untried == Some(order);
            let confirmed = self.check_confirmed(to);
            let delivery = match confirmed {
                Ok(()) => self.deliver(signer, outgoing).await,
                Err(error) => Err(error),
            };
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error @ DeviceError::Store(_)) => return Err(error),
                // Of this box only: what waits for other boxes is not held up.
                Err(error) => Delivery::Pending(error),
            };
            let stuck = matches!(delivery, Delivery::Pending(_));
            sent.push(Sent {
                order,
                recipient: *to,
                delivery,
            });
            if stuck {
                break;
            }
        }
        Ok(sent)
    }

    /// Sends one envelope until it is known what became of it, or it has to wait.
    async fn deliver(
        &self,
        signer: &Signer,
        mut outgoing: Outgoing,
    ) -> Result<Delivery, DeviceError> {
        for _ in 0..MAX_RESEALS {
            let answer = match self.send_one(signer, &outgoing).await {
                Ok(answer) => answer,
                Err(error) => return Ok(Delivery::Pending(error)),
            };
            let refusal = match answer {
                Answer::Stored(sequence) => {
                    let content = outgoing.row.content.clone();
                    self.settle(
                        signer,
                        &outgoing,
                        Some(sequence),
                        MessageState::Sent { content },
                    )?;
                    return Ok(Delivery::Delivered(sequence));
                }
                Answer::Refused(refusal) => refusal,
            };
            match refusal.code.as_str() {
                "STALE_KEY_RECORD" => {
                    self.reseal_for_new_keys(signer, &mut outgoing, &refusal)
                        .await?
                }
                "COUNTER_REUSED" | "NOT_ACCEPTED" => {
                    self.renumber(signer, &mut outgoing, &refusal)?
                }
                // A word may come twice: it says the same again.
                "COUNTER_FORGOTTEN"
                    if outgoing.untried || Between::is(outgoing.row.content.expose()) =>
                {
                    self.renumber(signer, &mut outgoing, &refusal)?;
                }
                "COUNTER_FORGOTTEN" => {
                    let content = outgoing.row.content.clone();
                    self.settle(signer, &outgoing, None, MessageState::Doubtful { content })?;
                    return Ok(Delivery::Doubtful);
                }
                _ => return self.refused(signer, &outgoing, refusal),
            }
        }
        Ok(Delivery::Pending(DeviceError::Untrue(
            "every key record and counter is refused",
        )))
    }

    fn refused(
        &self,
        signer: &Signer,
        outgoing: &Outgoing,
        refusal: Box<Refusal>,
    ) -> Result<Delivery, DeviceError> {
        if refusal.retry == Retry::Same {
            let error = crate::connection::CallError::Refused(refusal);
            return Ok(Delivery::Pending(DeviceError::Call(error)));
        }
        let state = MessageState::Refused {
            content: outgoing.row.content.clone(),
            code: refusal.code.clone(),
            reason: refusal.message.clone(),
        };
        self.settle(signer, outgoing, None, state)?;
        Ok(Delivery::Refused(refusal))
    }

    async fn send_one(&self, signer: &Signer, outgoing: &Outgoing) -> Result<Answer, DeviceError> {
        let envelope = v1::OutgoingEnvelope {
            recipient_box_id: Bytes::copy_from_slice(outgoing.recipient.as_bytes()),
            counter: outgoing.counter.0,
            chain_version: outgoing.row.chain_version,
            ttl_ms: None,
            body: Bytes::copy_from_slice(&outgoing.row.body),
        };
        let request = v1::SendRequest {
            envelopes: vec![envelope],
        };
        let response = self
            .connection
            .call::<SendRpc>(&request, Some(signer))
            .await?;
        let untrue = || DeviceError::Untrue("the outcome is not that of the envelope sent");
        let [outcome] =
            <[v1::SendOutcome; 1]>::try_from(response.outcomes).map_err(|_| untrue())?;
        let about = (
            box_from_wire(&outcome.recipient_box_id)?,
            Counter(outcome.counter),
        );
        if about != (outgoing.recipient, outgoing.counter) {
            return Err(untrue());
        }
        match outcome.result.ok_or_else(untrue)? {
            send_outcome::Result::Sequence(sequence) => Ok(Answer::Stored(Sequence(sequence))),
            send_outcome::Result::Refusal(refusal) => {
                Ok(Answer::Refused(Box::new(Refusal::of_outcome(refusal))))
            }
        }
    }

    /// Ends the sending of a message.
    fn settle(
        &self,
        signer: &Signer,
        outgoing: &Outgoing,
        sequence: Option<Sequence>,
        state: MessageState,
    ) -> Result<(), DeviceError> {
        let to = outgoing.recipient;
        let id = EnvelopeId {
            sender: signer.address,
            counter: outgoing.counter,
        };
        let row = MessageRow {
            order: outgoing.row.order,
            sequence,
            at: outgoing.row.written_at,
            state,
        };
        let mut settled = ((id, to), row);
        let erased = self.erased_by(std::slice::from_ref(&settled))?;
        self.store.write(|batch| {
            batch.remove::<PendingRow>(&(to, outgoing.counter))?;
            if Between::is(outgoing.row.content.expose()) {
                return Ok(());
            }
            if let Some(sequence) = sequence {
                // That there can be no copy does not undo the message.
                let copied = self.copy_sent(batch, signer, outgoing, sequence);
                if let Err(error @ DeviceError::Store(_)) = copied {
                    return Err(error);
                }
            }
            acts::note_row(batch, &settled)?;
            erasing::blank_if_deleted(batch, &mut settled)?;
            batch.put(&settled.0, &settled.1)?;
            Ok(erasing::erase(batch, &erased)?)
        })
    }
}

/// Whether a person can send this, and the box's other devices can be given a copy.
fn check_content(content: &Content) -> Result<(), DeviceError> {
    let encoded = content.encode()?;
    if Between::is(&encoded) {
        return Err(DeviceError::NotForOthers);
    }
    let (bytes, limit) = (encoded.len(), MAX_COPIED_BYTES);
    if bytes > limit {
        return Err(ContentError::TooLarge { bytes, limit }.into());
    }
    Ok(())
}

/// The instant of a new message: now, and never that of another one, which it would be taken for
/// ([`MessageId`](crate::envelope::MessageId)). A clock that was set back a little does not turn the order of edits around either.
fn take_instant(batch: &mut Batch<'_>, now: Timestamp) -> Result<Timestamp, StoreError> {
    let next = match batch.get::<WrittenRow>(&())? {
        Some(WrittenRow { last }) if last.millis_since(now) < LONGEST_AHEAD_MS => {
            now.max(last.plus_millis(1))
        }
        _ => now,
    };
    batch.put(&(), &WrittenRow { last: next })?;
    Ok(next)
}
