//! Send: one envelope into one box.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{EnvelopeDigest, Outcome, Reply};
use crate::dedupe::{Accepted, SenderRow, Verdict};
use crate::envelope::Envelope;
use crate::ids::{BoxId, EnvelopeId, Sequence};
use crate::limits::{CONTACTS_PERCENT, Limits};
use crate::outside::is_sealed_for;
use crate::planted::{Bug, planted};
use crate::queue::{Purgeable, expiry_marker, purge};
use crate::rejection::Rejection;
use crate::tables::{Meta, QueueState, Tables};

/// How many envelopes at the front of a full queue a send looks at, to purge the expired ones.
const SWEEP_ENVELOPES: u32 = 64;
/// How many bytes of bodies it looks at.
const SWEEP_BYTES: u64 = 1024 * 1024;

/// Puts an envelope at the end of a box's queue, once: see [`crate::dedupe`].
///
/// The order of the checks is what makes sending effectively once:
///
/// 1. `UnknownBox`: the box is not there, not authorised, blocks the sender, or takes contacts only, of
///    which the sender is none. All look the same in every case and ask the same of the tables, so a
///    blocked sender's retry is answered so too, whatever became of its first try.
/// 2. The counter. A retry must learn the fate of the first try whatever has changed since: the
///    chain, the limits, the queue. All answers below this line say "not stored under this counter",
///    which a sender may act on by sealing again; given to the retry of a stored envelope, they
///    would make it a second one.
/// 3. `EnvelopeTooLarge`, `StaleKeyRecord`: what the sender can mend. An envelope is stale if it was
///    sealed for another version of the chain, or for a KEM key that is neither the device's
///    current one nor the one before.
/// 4. `SenderShareFull`, `QueueFull`: what time mends. Expired envelopes at the front of the queue
///    are purged first if that makes room. The last tenth of a queue is kept for contacts: those
///    whom the box has written to, those whom alone it takes envelopes from, and its own devices.
///    Only the proposer can tell the first of these ([`Command::EnqueueOfContact`]), so it asks for
///    room like anybody first, and says so if there is none.
///
/// [`Command::EnqueueOfContact`]: super::Command::EnqueueOfContact
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enqueue {
    /// The box it is for.
    pub recipient: BoxId,
    /// Who sends it, under which counter.
    pub id: EnvelopeId,
    /// The version of the recipient's chain that it was sealed for.
    pub chain_version: u64,
    /// How long it may wait, in milliseconds; never longer than the box and the cluster allow. `None` is that.
    pub ttl_ms: Option<u64>,
    /// Tells two texts under one id apart. Computed by the proposer from the fields here.
    pub digest: EnvelopeDigest,
    /// The sealed envelope.
    pub body: Bytes,
}

impl Enqueue {
    /// `written_to`: the recipient has written to the sender.
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &Meta,
        written_to: bool,
    ) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.recipient)?;
        let (own, sender) = (&self.recipient, &self.id.sender.box_id);
        let Some(profile) = profile.filter(|p| p.receives_from(own, sender)) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let row = tables
            .sender(&self.recipient, &self.id.sender)?
            .unwrap_or_default();
        match row.judge(self.id.counter, &self.digest) {
            Verdict::Fresh => {}
            Verdict::Stored(sequence) => return Ok(Ok(Outcome::Enqueued { sequence })),
            Verdict::Refused(rejection) => return Ok(Err(rejection)),
        }
        let limit_bytes = meta.limits.envelope_bytes;
        if self.body.len() as u64 > u64::from(limit_bytes) {
            return Ok(Err(Rejection::EnvelopeTooLarge { limit_bytes }));
        }
        let Some(record) = tables.key_record(&self.recipient)? else {
            return Ok(Err(Rejection::UnknownBox));
        };
        if record.version() != self.chain_version {
            return Ok(Err(Rejection::StaleKeyRecord {
                current: record.version(),
            }));
        }
        if !is_sealed_for(&record, &self.body) {
            return Ok(Err(Rejection::StaleKeyRecord {
                current: record.version(),
            }));
        }
        let mut state = tables.queue_state(&self.recipient)?.unwrap_or_default();
        let purgeable = Purgeable::of(&profile, meta.expiry_clock);
        let is_contact = written_to || own == sender || profile.allowed.is_some();
        let room = Room::of(&meta.limits, is_contact);
        let leaving = match self.find_room(tables, &room, &state, &purgeable)? {
            Ok(leaving) => leaving,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let mut row = row;
        if !leaving.is_empty() {
            purge(tables, &self.recipient, &mut state, &purgeable, &leaving)?;
            // Its envelopes may be among those that left.
            let sender = tables.sender(&self.recipient, &self.id.sender)?;
            row = sender.unwrap_or_default();
        }
        let longest_ms = match planted(Bug::TtlOfBoxIgnored) {
            true => meta.limits.envelope_ttl_ms,
            false => profile.ttl_ms(&meta.limits),
        };
        let sequence = self.append(tables, meta, longest_ms, state, row)?;
        Ok(Ok(Outcome::Enqueued { sequence }))
    }

    /// Whether there is room; if so, the envelopes that must leave first. Changes nothing, so that a
    /// rejection does not.
    fn find_room<T: Tables>(
        &self,
        tables: &T,
        room: &Room,
        state: &QueueState,
        purgeable: &Purgeable,
    ) -> Result<Result<Vec<Envelope>, Rejection>, T::Error> {
        let mut queue = Usage {
            envelopes: state.depth,
            bytes: state.bytes,
        };
        let Room { share, all } = room;
        let body = self.body.len() as u64;
        // A sender holds no more than the whole queue: most sends need no look at its other devices.
        if queue.has_room(body, share) && queue.has_room(body, all) {
            return Ok(Ok(Vec::new()));
        }
        let sender = self.id.sender.box_id;
        let mut own = Usage::default();
        for (_, row) in tables.senders_of(&self.recipient, &sender)? {
            own.add(u64::from(row.waiting), row.waiting_bytes);
        }
        if own.has_room(body, share) && queue.has_room(body, all) {
            return Ok(Ok(Vec::new()));
        }
        let front = tables.envelopes(
            &self.recipient,
            state.purged_upto,
            SWEEP_ENVELOPES,
            SWEEP_BYTES,
        )?;
        let leaving: Vec<_> = front
            .into_iter()
            .filter(|e| purgeable.includes(e))
            .collect();
        for envelope in &leaving {
            let bytes = envelope.body.len() as u64;
            queue.remove(1, bytes);
            if envelope.id.sender.box_id == sender {
                own.remove(1, bytes);
            }
        }
        Ok(if !own.has_room(body, share) {
            Err(Rejection::SenderShareFull)
        } else if !queue.has_room(body, all) {
            Err(Rejection::QueueFull)
        } else {
            Ok(leaving)
        })
    }

    fn append<T: Tables>(
        self,
        tables: &mut T,
        meta: &Meta,
        longest_ms: u64,
        mut state: QueueState,
        mut row: SenderRow,
    ) -> Result<Sequence, T::Error> {
        let bytes = self.body.len() as u64;
        let sequence = meta.last_sequence(&state).next();
        state.last = sequence;
        state.depth = state.depth.saturating_add(1);
        state.bytes = state.bytes.saturating_add(bytes);
        tables.put_queue_state(&self.recipient, &state)?;

        row.remember(Accepted {
            counter: self.id.counter,
            sequence,
            digest: self.digest,
        });
        row.waiting = row.waiting.saturating_add(1);
        row.waiting_bytes = row.waiting_bytes.saturating_add(bytes);
        tables.put_sender(&self.recipient, &self.id.sender, &row)?;

        let ttl_ms = self.ttl_ms.unwrap_or(longest_ms).min(longest_ms);
        let expires_at = meta.clock.plus_millis(ttl_ms);
        let (due_at, due) = expiry_marker(&self.recipient, expires_at);
        tables.add_due(due_at, &due)?;
        let envelope = Envelope {
            sequence,
            id: self.id,
            enqueued_at: meta.clock,
            expires_at,
            body: self.body,
        };
        tables.append_envelope(&self.recipient, &envelope)?;
        Ok(sequence)
    }
}

/// Envelopes and the bytes of their bodies.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    envelopes: u64,
    bytes: u64,
}

/// How far a sender may fill a queue.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// With all that its box holds of it.
    share: Usage,
    /// With all that is in it.
    all: Usage,
}

impl Room {
    fn of(limits: &Limits, is_contact: bool) -> Self {
        let kept = if is_contact { 0 } else { CONTACTS_PERCENT };
        Self {
            share: Usage::part_of(limits, limits.sender_share_percent),
            all: Usage::part_of(limits, 100 - kept),
        }
    }
}

impl Usage {
    /// So many hundredths of a queue.
    fn part_of(limits: &Limits, percent: u8) -> Self {
        let percent = u64::from(percent.min(100));
        let of = |whole: u64| {
            let part = u128::from(whole) * u128::from(percent);
            u64::try_from(part.div_ceil(100)).unwrap_or(whole)
        };
        Self {
            envelopes: of(limits.queue_envelopes.into()),
            bytes: of(limits.queue_bytes),
        }
    }

    fn has_room(&self, body: u64, limit: &Self) -> bool {
        self.envelopes < limit.envelopes && self.bytes.saturating_add(body) <= limit.bytes
    }

    fn add(&mut self, envelopes: u64, bytes: u64) {
        self.envelopes = self.envelopes.saturating_add(envelopes);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn remove(&mut self, envelopes: u64, bytes: u64) {
        self.envelopes = self.envelopes.saturating_sub(envelopes);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
