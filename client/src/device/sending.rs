//! Sending: count, seal and store, then send; the same bytes under the same id until their fate is
//! known.
//!
//! ```text
//!   send ──► for each recipient: counter + 1, sealed, stored as pending
//!                 │
//!               flush: the oldest of each box, all in one request, then the next ones
//!                 │      who was never met is looked up first, and the envelope sealed then
//!                 │
//!     sequence           -> sent                           │
//!     STALE_KEY_RECORD   -> verify, pin, seal for the new keys; same counter (none was consumed)
//!     COUNTER_REUSED,    -> this text is not stored under that counter and never will be:
//!     NOT_ACCEPTED          seal under the next free one
//!     COUNTER_FORGOTTEN  -> nobody can tell: if it was surely never sent before, seal under the
//!                           next; otherwise doubtful, and its owner decides
//!     RATE_LIMITED       -> again once its time has come, if this call may wait so long
//!     may pass           -> stays pending, and so does all behind it in that box, to keep the order
//!     any other no       -> refused
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{BoxId, Counter, Sequence};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use tokio::time::{Instant, sleep};

use super::contacts::LookupBy;
use super::requests::Answer;
use super::resealing::{put_pending, take_counter};
use super::settling::{Next, Sorted, group_key};
use super::words::is_word;
use super::{Device, DeviceError, instants};
use crate::connection::{CallError, Patience, Refusal, Retry, Signer};
use crate::conversation::Conversation;
use crate::crypto::secret::SecretBytes;
use crate::envelope::{
    Between, Content, ContentError, ConversationId, Letter, MAX_COPIED_BYTES, MessageId, Sender,
    seal,
};
use crate::group::GroupId;
use crate::store::{
    Batch, ContactRow, CounterRow, MarksRow, MessageRow, MessageState, Outcome, PendingRow,
    ResolvedRow, StoreError,
};

/// How often one envelope is sealed anew in one go before it is left for later.
const MAX_RESEALS: u32 = 8;
/// A counter that was compared with the service's this recently is not compared again.
const COMPARE_AGAIN_MS: u64 = 10 * 60 * 1000;
/// How long somebody's identifier is taken to lead to their box without looking it up again.
const RESOLVE_AGAIN_MS: u64 = 24 * 60 * 60 * 1000;
/// However long the service asks to wait with what is too much at a time, a listener tries it again after this.
const LONGEST_RATED: Duration = Duration::from_secs(60 * 60);

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
    /// The box that it went to: one of several, if it was said in a group.
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

impl Outgoing {
    pub(super) fn new(recipient: BoxId, counter: Counter, row: PendingRow) -> Self {
        Self {
            recipient,
            counter,
            row,
            untried: false,
        }
    }
}

/// What is to be sealed, for one box or several.
pub(super) struct Draft<'a> {
    pub(super) content: &'a Content,
    pub(super) written_at: Timestamp,
    pub(super) order: u64,
    pub(super) group: Option<GroupId>,
    /// How long it may wait in a box, in milliseconds; `None` for as long as may be.
    pub(super) ttl_ms: Option<u64>,
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
        self.send_for(to, content, None).await
    }

    /// Sends a message as [`Device::send`] does, which the service shall not keep for longer than `ttl` if nobody
    /// fetches it: counted from when it is stored there, and no longer than the service or its recipient keep it. How
    /// long the recipient's devices keep it is their own matter, as is what a service does that does not keep to its word.
    /// The copy for this box's other devices waits as long as may be.
    ///
    /// # Errors
    /// As [`Device::send`].
    pub async fn send_for(
        &self,
        to: &BoxId,
        content: &Content,
        ttl: Option<Duration>,
    ) -> Result<Sent, DeviceError> {
        check_content(content)?;
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        self.check_confirmed(to)?;
        let unreachable = self.recipient(to).await?;
        self.check_confirmed(to)?;
        let order = self.enqueue(&signer, &Conversation::With(*to), &[*to], content, ttl)?;
        if let Some(error) = unreachable {
            // Nobody was there a moment ago: it would only make them wait.
            return Ok(Sent {
                order,
                recipient: *to,
                delivery: Delivery::Pending(error),
            });
        }
        let mut sent = self.flush(&signer, &[*to], Some(order)).await?;
        // Whatever becomes of the copies, the message is sent: they go out with what is sent next.
        let _ = self.flush_words(&signer).await;
        of_message(&mut sent, order, to)
    }

    /// Sends a message to all other members of a group: one request, an envelope for each, and for each what became
    /// of it. As with [`Device::send`], it is stored here first; what is pending for one member does not hold up the
    /// others.
    ///
    /// # Errors
    /// Before it is stored: [`DeviceError::Group`], [`DeviceError::Seal`]. Afterwards: [`DeviceError::Store`].
    pub async fn send_to_group(
        &self,
        group: &GroupId,
        content: &Content,
    ) -> Result<Vec<Sent>, DeviceError> {
        self.send_to_group_for(group, content, None).await
    }

    /// The same, of a message that waits for each member no longer than `ttl` ([`Device::send_for`]).
    ///
    /// # Errors
    /// As [`Device::send_to_group`].
    pub async fn send_to_group_for(
        &self,
        group: &GroupId,
        content: &Content,
        ttl: Option<Duration>,
    ) -> Result<Vec<Sent>, DeviceError> {
        check_content(content)?;
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let to = self.others_in(group, &signer)?;
        let order = self.enqueue(&signer, &Conversation::In(*group), &to, content, ttl)?;
        let mut sent = self.flush(&signer, &to, Some(order)).await?;
        let _ = self.flush_words(&signer).await;
        to.iter()
            .map(|to| of_message(&mut sent, order, to))
            .collect()
    }

    /// Sends everything that is pending, oldest first in each box.
    ///
    /// # Errors
    /// [`DeviceError::Store`], [`DeviceError::NotAuthorised`]. What became of each message is in its
    /// [`Delivery`]; a changed identity among it too.
    pub async fn resend(&self) -> Result<Vec<Sent>, DeviceError> {
        self.resend_within(self.connection.patience().call).await
    }

    /// The same. Of what is too much at a time, what can be sent within this time.
    async fn resend_within(&self, within: Duration) -> Result<Vec<Sent>, DeviceError> {
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        let rows = self.store.all::<PendingRow>()?.into_iter();
        let boxes: Vec<BoxId> = rows.map(|((to, _), _)| to).collect();
        let mut sent = self.flush_within(&signer, &boxes, None, within).await?;
        let _ = self.flush_words(&signer).await;
        sent.sort_by_key(|sent| sent.order);
        Ok(sent)
    }

    /// How many messages are pending.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn pending(&self) -> Result<usize, DeviceError> {
        let pending = self.store.all::<PendingRow>()?.into_iter();
        let messages = pending.filter(|(_, row)| !is_word(row.content.expose()));
        // One to a group is one.
        let orders: BTreeSet<u64> = messages.map(|(_, row)| row.order).collect();
        Ok(orders.len())
    }

    /// Sends what waits to be told to the box's other devices, until something has to wait.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub(super) async fn flush_words(&self, signer: &Signer) -> Result<(), DeviceError> {
        let own = signer.address.box_id;
        let words = self.waiting(&[own], true)?.remove(&own);
        for outgoing in words.unwrap_or_default() {
            for (_, delivery) in self.deliver(signer, vec![outgoing]).await? {
                if let Delivery::Pending(error) = delivery {
                    self.note_rated(&error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What is pending for each of these boxes, oldest first: messages, or words to the box's own devices.
    pub(super) fn waiting(
        &self,
        to: &[BoxId],
        words: bool,
    ) -> Result<BTreeMap<BoxId, VecDeque<Outgoing>>, DeviceError> {
        let to: BTreeSet<_> = to.iter().collect();
        let mut rows = self.store.all::<PendingRow>()?;
        rows.retain(|((recipient, _), row)| {
            to.contains(recipient) && Between::is(row.content.expose()) == words
        });
        rows.sort_by_key(|((_, counter), row)| (row.order, *counter));
        let mut waiting: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
        for ((recipient, counter), row) in rows {
            waiting
                .entry(recipient)
                .or_default()
                .push_back(Outgoing::new(recipient, counter, row));
        }
        Ok(waiting)
    }

    /// Looks up now and then whether somebody's phone or email still leads to their box. If it does not, they may have begun anew:
    /// nothing goes to the box that they had before the owner has said so.
    async fn resolve_again(&self, to: &BoxId) -> Result<(), DeviceError> {
        let now = self.environment.clock.now();
        let contact = self.store.get::<ContactRow>(to)?;
        let identifier = contact.and_then(|row| row.identifier?.to_identifier());
        let earlier = self.store.get::<ResolvedRow>(to)?;
        let is_due = |row: ResolvedRow| now.millis_since(row.at) >= RESOLVE_AGAIN_MS;
        let Some(identifier) = identifier.filter(|_| earlier.is_none_or(is_due)) else {
            return Ok(());
        };
        let elsewhere = match self.lookup(&LookupBy::Identifier(identifier)).await {
            Ok(found) => Some(found.box_id).filter(|found| found != to),
            // Whoever does not want to be found any more may still be written to.
            Err(DeviceError::NoUser) => None,
            Err(error @ DeviceError::Store(_)) => return Err(error),
            // This one is for comfort: the next message makes up for it.
            Err(_) => return Ok(()),
        };
        if let Some(found) = elsewhere
            && earlier.is_none_or(|row| row.elsewhere != elsewhere)
        {
            self.note_moved_away(to, found)?;
        }
        Ok(self
            .store
            .write::<_, StoreError>(|batch| batch.put(to, &ResolvedRow { at: now, elsewhere }))?)
    }

    /// Makes sure that the recipient is known, with our counter for them compared with the service's, unless that was
    /// done lately. Why the service could not be reached for that, if it could not.
    async fn recipient(&self, to: &BoxId) -> Result<Option<DeviceError>, DeviceError> {
        let compared_at = self
            .store
            .get::<CounterRow>(to)?
            .map(|row| row.compared_at)
            .unwrap_or_default();
        let age_ms = self.environment.clock.now().millis_since(compared_at);
        let is_known = self.pinned_record(to)?.is_some();
        if is_known && age_ms < COMPARE_AGAIN_MS {
            return Ok(None);
        }
        match self.lookup(&LookupBy::Box(*to)).await {
            Ok(found) => {
                self.hold(&found)?;
                self.compare_counter(&found)?;
                self.resolve_again(to).await?;
                Ok(None)
            }
            Err(error) if is_known && error.is_unreachable() => Ok(Some(error)),
            // Lookups are rationed, and this one is for comfort: a taken counter is refused anyway.
            Err(error) if is_known && error.may_pass() => Ok(None),
            // They may have blocked us: the message's own refusal will say the same.
            Err(DeviceError::NoUser) if is_known => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts, seals and stores a message, in one transaction. Nothing has been sent when it returns.
    fn enqueue(
        &self,
        signer: &Signer,
        conversation: &Conversation,
        to: &[BoxId],
        content: &Content,
        ttl: Option<Duration>,
    ) -> Result<u64, DeviceError> {
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let now = self.environment.clock.now();
        self.store.write(|batch| {
            let written_at = instants::take(batch, now)?;
            let mut marks = batch.get::<MarksRow>(&())?.unwrap_or_default();
            let order = marks.next_order;
            marks.next_order += 1;
            batch.put(&(), &marks)?;
            let group = match conversation {
                Conversation::With(_) => None,
                Conversation::In(group) => Some(*group),
            };
            let draft = Draft {
                content,
                written_at,
                order,
                group,
                ttl_ms,
            };
            for to in to {
                self.post(batch, signer, to, &draft)?;
            }
            if content.said().is_some() {
                let sender = signer.address;
                let id = MessageId { sender, written_at };
                Self::expect_receipts(batch, *conversation, id)?;
            }
            if let Conversation::With(to) = conversation {
                // That they can't be told holds up no message.
                if let Err(error @ DeviceError::Store(_)) = self.tell_profile(batch, signer, to) {
                    return Err(error);
                }
            }
            if let Some(group) = group {
                let outcomes = to.iter().map(|to| (*to, Outcome::Pending)).collect();
                let content = SecretBytes::new(content.encode()?.to_vec());
                let state = MessageState::ToGroup {
                    group,
                    content,
                    outcomes,
                };
                let row = MessageRow {
                    order,
                    sequence: None,
                    at: written_at,
                    state,
                };
                batch.put(&group_key(signer.address, written_at), &row)?;
            }
            Ok(order)
        })
    }

    /// Counts and stores an envelope for one box as pending; sealed, if its keys are known.
    pub(super) fn post(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
        to: &BoxId,
        draft: &Draft<'_>,
    ) -> Result<(), DeviceError> {
        let counter = take_counter(batch, to, Counter(0))?;
        let mut row = PendingRow {
            content: SecretBytes::new(draft.content.encode()?.to_vec()),
            written_at: draft.written_at,
            body: Vec::new(),
            chain_version: 0,
            order: draft.order,
            group: draft.group,
            ttl_ms: draft.ttl_ms,
        };
        if let Some(record) = self.pinned_record(to)? {
            row.body = self.seal(signer, to, &record, counter, draft)?.to_vec();
            row.chain_version = record.version();
        }
        Ok(put_pending(batch, signer, to, counter, &row)?)
    }

    pub(super) fn seal(
        &self,
        signer: &Signer,
        to: &BoxId,
        record: &KeyRecord,
        counter: Counter,
        draft: &Draft<'_>,
    ) -> Result<Bytes, DeviceError> {
        let identity = self.identity();
        let sender = Sender {
            address: signer.address,
            signing_key: identity.signing_key(),
            record: identity.record(),
        };
        let direct = || ConversationId::direct(&signer.address.box_id, to);
        let letter = Letter {
            recipient: *to,
            recipient_record: record,
            counter,
            conversation: draft
                .group
                .map_or_else(direct, |group| group.conversation()),
            written_at: draft.written_at,
            content: draft.content,
        };
        Ok(seal(self.environment.random.as_ref(), &sender, &letter)?)
    }

    /// Sends what is pending for these boxes, for each oldest first, until something has to wait. What became of messages,
    /// and of whatever else has to wait. What is too much at a time is sent again after a pause, as long as a call may take
    /// in all: each pause is twice the last one, so that what is refused again is not much.
    pub(super) async fn flush(
        &self,
        signer: &Signer,
        to: &[BoxId],
        untried: Option<u64>,
    ) -> Result<Vec<Sent>, DeviceError> {
        let within = self.connection.patience().call;
        self.flush_within(signer, to, untried, within).await
    }

    async fn flush_within(
        &self,
        signer: &Signer,
        to: &[BoxId],
        untried: Option<u64>,
        within: Duration,
    ) -> Result<Vec<Sent>, DeviceError> {
        let mut waiting = self.waiting(to, false)?;
        let mut sent = Vec::new();
        for outgoing in waiting.values_mut().flatten() {
            outgoing.untried = untried == Some(outgoing.row.order);
        }
        let mut paced = Paced::new(self.connection.patience(), within);
        loop {
            // One in flight for each box: that keeps their order.
            let oldest = waiting.values_mut().filter_map(VecDeque::pop_front);
            let round: Vec<_> = oldest.collect();
            if round.is_empty() {
                let Some(again) = paced.again().await else {
                    return Ok(sent);
                };
                waiting.extend(again);
                continue;
            }
            for (outgoing, delivery) in self.deliver(signer, round).await? {
                let is_stuck = matches!(delivery, Delivery::Pending(_));
                if let Delivery::Pending(error) = &delivery {
                    let behind = waiting.remove(&outgoing.recipient);
                    if let Some(wait) = rated(error)
                        && paced.may_wait(wait)
                    {
                        paced.put(outgoing, wait, behind.unwrap_or_default());
                        continue;
                    }
                    self.note_rated(error);
                }
                if is_stuck || !is_word(outgoing.row.content.expose()) {
                    sent.push(Sent {
                        order: outgoing.row.order,
                        recipient: outgoing.recipient,
                        delivery,
                    });
                }
            }
        }
    }

    /// Remembers when what was refused as too much at a time may be sent.
    fn note_rated(&self, error: &DeviceError) {
        if let Some(wait) = rated(error) {
            let least = self.connection.patience().longest_pause;
            let at = Instant::now() + wait.clamp(least, least.max(LONGEST_RATED));
            let mut until = self.rated_until.lock();
            *until = Some(until.map_or(at, |known| known.min(at)));
        }
    }

    /// When what was refused as too much at a time may be sent; `None` if there is nothing.
    pub(super) fn rated_until(&self) -> Option<Instant> {
        *self.rated_until.lock()
    }

    /// Sends what may be sent of it now; what is still too much has another time then.
    pub(super) async fn resend_rated(&self) -> Result<(), DeviceError> {
        *self.rated_until.lock() = None;
        self.resend_within(Duration::ZERO).await.map(drop)
    }

    /// Sends envelopes to different boxes until it is known what became of each, or it has to wait.
    async fn deliver(
        &self,
        signer: &Signer,
        outgoing: Vec<Outgoing>,
    ) -> Result<Vec<(Outgoing, Delivery)>, DeviceError> {
        let (mut going, mut done) = self.make_ready(signer, outgoing).await?;
        let to: Vec<_> = going.iter().map(|outgoing| outgoing.recipient).collect();
        match self.allow_recipients(&to).await {
            Err(DeviceError::Call(error)) => {
                let waits = |outgoing| (outgoing, Delivery::Pending(error.clone().into()));
                done.extend(going.into_iter().map(waits));
                return Ok(done);
            }
            allowed => allowed?,
        }
        for _ in 0..MAX_RESEALS {
            let answers = self.send_all(signer, &going).await;
            let mut sorted = Sorted::default();
            for (mut outgoing, answer) in going.into_iter().zip(answers) {
                let next = match answer {
                    Ok(answer) => self.take_answer(signer, &mut outgoing, answer).await,
                    Err(error) => Err(error),
                };
                sorted.put(outgoing, next)?;
            }
            going = self.settle(signer, sorted, &mut done)?;
        }
        let refused = || {
            Delivery::Pending(DeviceError::Untrue(
                "every key record and counter is refused",
            ))
        };
        done.extend(going.into_iter().map(|outgoing| (outgoing, refused())));
        Ok(done)
    }

    /// Those that can be sent now, sealed; and what became of the others.
    async fn make_ready(
        &self,
        signer: &Signer,
        all: Vec<Outgoing>,
    ) -> Result<(Vec<Outgoing>, Vec<(Outgoing, Delivery)>), DeviceError> {
        let (mut sorted, mut done) = (Sorted::default(), Vec::new());
        // Once one lookup has to wait, the others are not tried.
        let mut wait = None;
        for mut outgoing in all {
            let next = match self.check_confirmed(&outgoing.recipient) {
                Ok(()) if outgoing.row.body.is_empty() => {
                    self.seal_late(signer, &mut outgoing, &mut wait).await
                }
                Ok(()) => Ok(Next::Send),
                Err(error) => Err(error),
            };
            sorted.put(outgoing, next)?;
        }
        let ready = self.settle(signer, sorted, &mut done)?;
        Ok((ready, done))
    }

    /// Looks somebody up who was not known when the message was written, and seals it for them.
    async fn seal_late(
        &self,
        signer: &Signer,
        outgoing: &mut Outgoing,
        wait: &mut Option<CallError>,
    ) -> Result<Next, DeviceError> {
        let to = outgoing.recipient;
        if self.pinned_record(&to)?.is_none() {
            if let Some(error) = wait {
                return Err(error.clone().into());
            }
            match self.lookup(&LookupBy::Box(to)).await {
                Ok(found) => {
                    self.hold(&found)?;
                    self.compare_counter(&found)?;
                }
                Err(DeviceError::NoUser) => return refused(no_user()),
                Err(DeviceError::Call(error)) => {
                    *wait = error.may_pass().then(|| error.clone());
                    return Err(error.into());
                }
                Err(error) => return Err(error),
            }
        }
        let record = self.pinned_record(&to)?;
        let record = record.ok_or(DeviceError::Damaged("contact"))?;
        self.reseal(signer, outgoing, outgoing.counter, &record)?;
        Ok(Next::Send)
    }

    /// What an answer means for an envelope, which may have been sealed anew for it.
    async fn take_answer(
        &self,
        signer: &Signer,
        outgoing: &mut Outgoing,
        answer: Answer,
    ) -> Result<Next, DeviceError> {
        let refusal = match answer {
            Answer::Stored(sequence) => {
                let delivery = Delivery::Delivered(sequence);
                return Ok(Next::End(Outcome::Sent(sequence), delivery));
            }
            Answer::Refused(refusal) => refusal,
        };
        match refusal.code.as_str() {
            "STALE_KEY_RECORD" => self.reseal_for_new_keys(signer, outgoing, &refusal).await?,
            "COUNTER_REUSED" | "NOT_ACCEPTED" => self.renumber(signer, outgoing, &refusal)?,
            // A word may come twice: it says the same again.
            "COUNTER_FORGOTTEN" if outgoing.untried || is_word(outgoing.row.content.expose()) => {
                self.renumber(signer, outgoing, &refusal)?;
            }
            "COUNTER_FORGOTTEN" => return Ok(Next::End(Outcome::Doubtful, Delivery::Doubtful)),
            _ => return refused(refusal),
        }
        Ok(Next::Send)
    }
}

/// How long to wait, if this was refused because it was too much at a time.
fn rated(error: &DeviceError) -> Option<Duration> {
    match error {
        DeviceError::Call(CallError::Refused(refusal)) if refusal.code == "RATE_LIMITED" => {
            Some(refusal.retry_after.unwrap_or_default())
        }
        _ => None,
    }
}

/// What was too much at a time, until it is sent again in the same call.
struct Paced {
    until: Instant,
    pause: Duration,
    longest_pause: Duration,
    /// The shortest time that was asked for.
    wait: Option<Duration>,
    waiting: BTreeMap<BoxId, VecDeque<Outgoing>>,
}

impl Paced {
    fn new(patience: &Patience, within: Duration) -> Self {
        Self {
            until: Instant::now() + within,
            pause: patience.first_pause,
            longest_pause: patience.longest_pause,
            wait: None,
            waiting: BTreeMap::new(),
        }
    }

    fn may_wait(&self, wait: Duration) -> bool {
        wait.max(self.pause) <= self.until.saturating_duration_since(Instant::now())
    }

    /// Keeps an envelope, and what stands behind it for its box.
    fn put(&mut self, mut outgoing: Outgoing, wait: Duration, mut behind: VecDeque<Outgoing>) {
        self.wait = Some(self.wait.map_or(wait, |shortest| shortest.min(wait)));
        let recipient = outgoing.recipient;
        outgoing.untried = false;
        behind.push_front(outgoing);
        self.waiting.insert(recipient, behind);
    }

    /// All of it, once some of it may be sent.
    async fn again(&mut self) -> Option<BTreeMap<BoxId, VecDeque<Outgoing>>> {
        let wait = self.wait.take()?;
        sleep(wait.max(self.pause)).await;
        self.pause = (self.pause * 2).min(self.longest_pause);
        Some(std::mem::take(&mut self.waiting))
    }
}

/// What a refusal means that no other envelope would change.
fn refused(refusal: Box<Refusal>) -> Result<Next, DeviceError> {
    if refusal.retry == Retry::Same {
        return Err(CallError::Refused(refusal).into());
    }
    let outcome = Outcome::Refused {
        code: refusal.code.clone(),
        reason: refusal.message.clone(),
    };
    Ok(Next::End(outcome, Delivery::Refused(refusal)))
}

/// What became of a message to one box, among all that was sent. It waits if something before it does.
fn of_message(sent: &mut Vec<Sent>, order: u64, to: &BoxId) -> Result<Sent, DeviceError> {
    let of_box = |sent: &Sent| sent.recipient == *to;
    let itself = sent
        .iter()
        .position(|sent| of_box(sent) && sent.order == order);
    let stuck = |sent: &Sent| matches!(sent.delivery, Delivery::Pending(_));
    let index = itself.or_else(|| sent.iter().position(|sent| of_box(sent) && stuck(sent)));
    let index = index.ok_or(DeviceError::Damaged("list of pending messages"))?;
    Ok(Sent {
        order,
        ..sent.swap_remove(index)
    })
}

/// Somebody can't be found who is to be written to.
fn no_user() -> Box<Refusal> {
    Box::new(Refusal::of_outcome(v1::Refusal {
        code: "NO_USER".to_owned(),
        message: DeviceError::NoUser.to_string(),
        retry: v1::Retry::No.into(),
        ..Default::default()
    }))
}

/// Whether a person can send this, and the box's other devices can be given a copy.
fn check_content(content: &Content) -> Result<(), DeviceError> {
    let encoded = content.encode()?;
    if is_word(&encoded) {
        return Err(DeviceError::NotForOthers);
    }
    let (bytes, limit) = (encoded.len(), MAX_COPIED_BYTES);
    if bytes > limit {
        return Err(ContentError::TooLarge { bytes, limit }.into());
    }
    Ok(())
}
