//! Receiving: fetch, verify, store, and only then acknowledge.
//!
//! An envelope that can not be opened is kept as it came, with the reason, and acknowledged like
//! any other: it must not block the queue, and nothing is thrown away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Sequence};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;

use super::contacts::LookupBy;
use super::messages::written_at;
use super::receipts::HeardReceipt;
use super::{Device, DeviceError, Message, acts, box_from_wire, erasing, instants, safety};
use crate::connection::{Acknowledge, Fetch, Signer};
use crate::conversation::Conversation;
use crate::crypto::secret::SecretBytes;
use crate::envelope::{Arrival, Between, Control, OpenError, Opened, Receipt, Recipient, open};
use crate::store::{MarksRow, MessageKey, MessageRow, MessageState, StoreError, WhatChanged};

/// The state of this box's queue, by the service's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStatus {
    /// Envelopes that wait, for whichever device of the box. One that has expired counts until it is purged.
    pub depth: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When the oldest came in that has not expired.
    pub oldest: Option<Timestamp>,
    /// How many have expired unread since the box was made.
    pub expired_total: u64,
    /// The sequence given out last.
    pub last: Sequence,
    /// Up to here this device has acknowledged.
    pub cursor: Sequence,
    /// How long an envelope that comes in now may wait.
    pub ttl: Duration,
    /// Whether the service's operator has suspended the box: it can read, but not send.
    pub suspended: bool,
    /// When the first of the box's identifiers goes to another box, unless [`Device::keep_identifier`] is called.
    pub reset_at: Option<Timestamp>,
    /// How often a device of the box has said how long envelopes may wait.
    pub(super) ttl_number: u64,
}

/// What receiving brought.
#[derive(Debug)]
pub struct Received {
    /// Messages that were not here before, in the order of the box.
    pub messages: Vec<Message>,
    /// The queue, as it was at the last page.
    pub status: QueueStatus,
    /// What stopped it before the end of the queue. What came before is stored.
    pub interrupted: Option<DeviceError>,
}

/// An envelope as it came.
struct Came {
    sequence: Sequence,
    sender: DeviceAddress,
    counter: Counter,
    at: Timestamp,
    body: bytes::Bytes,
}

impl Came {
    fn read(envelope: v1::Envelope) -> Result<Self, DeviceError> {
        let box_id = box_from_wire(&envelope.sender_box_id)?;
        let device = <[u8; 16]>::try_from(&envelope.sender_device_id[..])
            .map_err(|_| DeviceError::Untrue("not a device id"))?;
        Ok(Self {
            sequence: Sequence(envelope.sequence),
            sender: DeviceAddress {
                box_id,
                device: DeviceId::from_bytes(device),
            },
            counter: Counter(envelope.counter),
            at: Timestamp::from_millis(envelope.enqueued_at_ms),
            body: envelope.body,
        })
    }
}

impl Device {
    /// Fetches all that waits, stores it and acknowledges it.
    ///
    /// # Errors
    /// [`DeviceError::Call`] if nothing could be fetched; what stops it later is in
    /// [`Received::interrupted`].
    pub async fn receive(&self) -> Result<Received, DeviceError> {
        let _one_at_a_time = self.receiving.lock().await;
        let received = self.receive_waiting().await?;
        // What is left of it is done the next time.
        let _ = self.settle_groups().await;
        if received.interrupted.is_none() {
            self.settle_policy_soon().await;
        }
        self.settle_profiles_soon().await;
        Ok(received)
    }

    /// The state of this box's queue. Fetches no message and moves nothing.
    ///
    /// # Errors
    /// [`DeviceError::Call`].
    pub async fn queue_status(&self) -> Result<QueueStatus, DeviceError> {
        let signer = self.signer()?;
        // Nothing comes after it.
        let page = self.fetch(&signer, Sequence(u64::MAX)).await?;
        Ok(status_of(page.status))
    }

    async fn receive_waiting(&self) -> Result<Received, DeviceError> {
        let mut signer = self.signer()?;
        let mut received = Received {
            messages: Vec::new(),
            status: QueueStatus::default(),
            interrupted: None,
        };
        let marks = self.store.get::<MarksRow>(&())?.unwrap_or_default();
        if marks.cursor > marks.acknowledged {
            // Stored, and the acknowledgement was lost. If it is refused, what it was about comes
            // again and is recognised.
            match self.acknowledge(&signer, marks.cursor).await {
                Err(error) if error.is_unreachable() => return Err(error),
                _ => {}
            }
        }
        // Mail that came in the meantime is fetched all the same.
        let _ = self.keep_key_published().await;
        let _ = self.rotate_if_due().await;
        let _ = self.greet().await;
        let mut after = Sequence(0);
        let mut has_rejoined = false;
        loop {
            let page = match self.fetch(&signer, after).await {
                Ok(page) => page,
                // Its token is no longer good, or it is revoked: its key tells which.
                Err(error) if !has_rejoined && self.is_shut_out(&error) => {
                    self.rejoin().await?;
                    signer = self.signer()?;
                    has_rejoined = true;
                    continue;
                }
                Err(error) if after == Sequence(0) => return Err(error),
                Err(error) => {
                    received.interrupted = Some(error);
                    return Ok(received);
                }
            };
            received.status = status_of(page.status);
            self.note_ttl(&received.status)?;
            let more = page.more;
            let stored = match self
                .store_page(&signer, page.envelopes, after, &mut received)
                .await
            {
                Ok(stored) => stored,
                // What earlier pages brought is stored and acknowledged: it would not come again.
                Err(error) => {
                    received.interrupted = Some(error);
                    return Ok(received);
                }
            };
            if stored > after {
                after = stored;
                if let Err(error) = self.acknowledge(&signer, stored).await {
                    received.interrupted.get_or_insert(error);
                }
            } else if more && received.interrupted.is_none() {
                received.interrupted = Some(DeviceError::Untrue("a page without envelopes"));
            }
            if !more || received.interrupted.is_some() {
                return Ok(received);
            }
        }
    }

    async fn fetch(
        &self,
        signer: &Signer,
        after: Sequence,
    ) -> Result<v1::FetchResponse, DeviceError> {
        let request = v1::FetchRequest {
            after: after.0,
            max_envelopes: 0,
        };
        Ok(self
            .connection
            .call::<Fetch>(&request, Some(signer))
            .await?)
    }

    pub(super) async fn acknowledge(
        &self,
        signer: &Signer,
        upto: Sequence,
    ) -> Result<(), DeviceError> {
        let request = v1::AcknowledgeRequest { upto: upto.0 };
        self.connection
            .call::<Acknowledge>(&request, Some(signer))
            .await?;
        self.store.write(|batch| {
            let mut marks = batch.get::<MarksRow>(&())?.unwrap_or_default();
            marks.acknowledged = marks.acknowledged.max(upto);
            batch.put(&(), &marks)
        })?;
        self.erase_retired()
    }

    /// Opens and stores a page in one transaction; the last sequence that is stored now.
    pub(super) async fn store_page(
        &self,
        signer: &Signer,
        envelopes: Vec<v1::Envelope>,
        after: Sequence,
        received: &mut Received,
    ) -> Result<Sequence, DeviceError> {
        let mut last = after;
        let mut fresh: Vec<(MessageKey, MessageRow)> = Vec::new();
        let mut receipts: Vec<HeardReceipt> = Vec::new();
        for envelope in envelopes {
            let came = match Came::read(envelope) {
                Ok(came) if came.sequence > last => came,
                Ok(_) => {
                    received.interrupted = Some(DeviceError::Untrue("envelopes out of order"));
                    break;
                }
                Err(error) => {
                    received.interrupted = Some(error);
                    break;
                }
            };
            let id = EnvelopeId {
                sender: came.sender,
                counter: came.counter,
            };
            let key: MessageKey = (id, signer.address.box_id);
            let known = fresh.iter().any(|(other, _)| *other == key)
                || self.store.get::<MessageRow>(&key)?.is_some();
            if !known {
                match self.open_came(signer, &came).await {
                    Ok(MessageState::Received { content, .. })
                        if came.sender.box_id == signer.address.box_id
                            && Between::is(content.expose()) =>
                    {
                        let heard = self
                            .hear(signer, (came.sender, came.at), content.expose())
                            .await?;
                        if let Some((key, row)) = heard
                            && !fresh.iter().any(|(other, _)| *other == key)
                            && self.store.get::<MessageRow>(&key)?.is_none()
                        {
                            fresh.push((key, row));
                        }
                    }
                    Ok(MessageState::Received {
                        content,
                        conversation,
                        ..
                    }) if Control::is_about_groups(content.expose()) => {
                        let heard = self.hear_of_group_in(signer, conversation, content.expose());
                        unless_damaged(heard)?;
                    }
                    Ok(MessageState::Received { content, .. })
                        if Control::is_about(content.expose(), Control::PROFILE) =>
                    {
                        self.hear_of_profile_in(signer, &came.sender.box_id, content.expose())?;
                    }
                    // Too late to be true.
                    Ok(MessageState::Received { content, .. })
                        if Control::is_about(content.expose(), Control::TYPING) => {}
                    Ok(MessageState::Received {
                        content,
                        conversation,
                        written_at,
                    }) if Receipt::is(content.expose()) => {
                        let (own, from) = (signer.address.box_id, came.sender.box_id);
                        let conversation = Conversation::of(conversation, &own, &from);
                        let content = content.expose();
                        let heard =
                            self.hear_receipt(signer, &from, conversation, content, written_at);
                        unless_damaged(heard.map(|heard| receipts.extend(heard)))?;
                    }
                    Ok(state) => {
                        let (sequence, at) = (Some(came.sequence), came.at);
                        fresh.push((
                            key,
                            MessageRow {
                                order: 0,
                                sequence,
                                at,
                                state,
                            },
                        ));
                    }
                    // Nothing wrong with the envelope: it is for later.
                    Err(error) => {
                        received.interrupted = Some(error);
                        break;
                    }
                }
            }
            last = came.sequence;
        }
        if last > after {
            let erased = self.erased_by(&fresh)?;
            let owes = self.store.write::<_, StoreError>(|batch| {
                for row in &fresh {
                    acts::note_row(batch, row)?;
                }
                erasing::erase(batch, &erased)?;
                let heard = fresh.iter().filter_map(|(_, row)| written_at(row));
                instants::follow(batch, heard, self.environment.clock.now())?;
                let mut marks = batch.get::<MarksRow>(&())?.unwrap_or_default();
                for fresh in &mut fresh {
                    erasing::blank_if_deleted(batch, fresh)?;
                    let (key, row) = fresh;
                    row.order = marks.next_order;
                    marks.next_order += 1;
                    batch.put(key, row)?;
                }
                marks.cursor = marks.cursor.max(last);
                batch.put(&(), &marks)?;
                let owes = self.owe_delivered(batch, &signer.address.box_id, &fresh)?;
                for receipt in &receipts {
                    receipt.take_in(batch)?;
                }
                Ok(owes)
            })?;
            if owes {
                self.owing.store(true, Ordering::Relaxed);
            }
        }
        for row in fresh {
            received.messages.push(self.dress(Message::of_row(row))?);
        }
        Ok(last)
    }

    /// Opens an envelope, or says why it can not be. An error is about the service and not about
    /// the envelope.
    async fn open_came(&self, signer: &Signer, came: &Came) -> Result<MessageState, DeviceError> {
        let unreadable = |code: &str, reason: String| MessageState::Unreadable {
            code: code.to_owned(),
            reason,
            body: came.body.to_vec(),
        };
        let record = match self.pinned_record(&came.sender.box_id)? {
            Some(record) => record,
            None => match self.renew(&came.sender.box_id).await? {
                Ok(record) => record,
                Err((code, reason)) => return Ok(unreadable(code, reason)),
            },
        };
        let opened = match self.try_open(signer, came, &record) {
            Err(OpenError::SenderRecordTooOld { .. }) => {
                match self.renew(&came.sender.box_id).await? {
                    Ok(record) => self.try_open(signer, came, &record),
                    Err((code, reason)) => return Ok(unreadable(code, reason)),
                }
            }
            // Its sender knows a device of this box that this one does not know yet.
            Err(OpenError::OwnRecordTooOld(_)) => match self.renew_own_record().await {
                Ok(()) => self.try_open(signer, came, &record),
                // The service shows another chain than the one that this device knows.
                Err(error @ DeviceError::IdentityChanged { .. }) => {
                    self.note_change(&came.sender.box_id, WhatChanged::OwnChain)?;
                    return Ok(unreadable(safety::OWN_RECORD, error.to_string()));
                }
                Err(error) => return Err(error),
            },
            other => other,
        };
        Ok(match opened {
            Ok(opened) => MessageState::Received {
                content: SecretBytes::new(opened.content.encode()?.to_vec()),
                conversation: opened.conversation,
                written_at: opened.written_at,
            },
            Err(error) => {
                self.note_bad_envelope(&came.sender.box_id, &error)?;
                unreadable(error.code(), error.to_string())
            }
        })
    }

    fn try_open(
        &self,
        signer: &Signer,
        came: &Came,
        sender_record: &KeyRecord,
    ) -> Result<Opened, OpenError> {
        let identity = self.identity();
        let recipient = Recipient {
            address: signer.address,
            keys: identity.kem_keys(),
            record: identity.record(),
            sender_record,
        };
        let arrival = Arrival {
            sender: came.sender,
            counter: came.counter,
            body: &came.body,
        };
        open(&recipient, &arrival)
    }

    /// Looks a sender up and pins them. The inner error is a reason not to believe the envelope.
    async fn renew(
        &self,
        box_id: &BoxId,
    ) -> Result<Result<KeyRecord, (&'static str, String)>, DeviceError> {
        let found = match self.lookup(&LookupBy::Box(*box_id)).await {
            Ok(found) => found,
            Err(error @ DeviceError::NoUser) => {
                return Ok(Err(("NO_SENDER_RECORD", error.to_string())));
            }
            Err(error @ DeviceError::IdentityChanged { .. }) => {
                return Ok(Err((safety::IDENTITY_CHANGED, error.to_string())));
            }
            Err(error @ (DeviceError::Untrue(_) | DeviceError::Chain(_))) => {
                return Ok(Err((safety::BAD_SENDER_RECORD, error.to_string())));
            }
            Err(error) => return Err(error),
        };
        match self.hold(&found) {
            Ok(()) => Ok(Ok(found.record)),
            Err(error @ DeviceError::IdentityChanged { .. }) => {
                Ok(Err((safety::IDENTITY_CHANGED, error.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

/// What one group's row is like holds up no mail.
pub(super) fn unless_damaged(heard: Result<(), DeviceError>) -> Result<(), DeviceError> {
    match heard {
        Err(DeviceError::Store(error)) if !matches!(error, StoreError::Damaged { .. }) => {
            Err(error.into())
        }
        _ => Ok(()),
    }
}

pub(super) fn status_of(status: Option<v1::QueueStatus>) -> QueueStatus {
    let status = status.unwrap_or_default();
    QueueStatus {
        depth: status.depth,
        bytes: status.bytes,
        oldest: status.oldest_at_ms.map(Timestamp::from_millis),
        expired_total: status.expired_total,
        last: Sequence(status.last),
        cursor: Sequence(status.cursor),
        ttl: Duration::from_millis(status.ttl_ms),
        suspended: status.suspended,
        reset_at: status.reset_at_ms.map(Timestamp::from_millis),
        ttl_number: status.ttl_number,
    }
}
