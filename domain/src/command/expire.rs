//! Removing what has outlived its time.

use serde::{Deserialize, Serialize};

use super::open_claim::remove_pending;
use super::{Outcome, Reply};
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, Sequence};
use crate::queue::{Purgeable, purge};
use crate::tables::{DueKey, Meta, QueueState, Tables};
use crate::time::Timestamp;

/// How many envelopes are read at a time.
const PAGE_ENVELOPES: u32 = 256;
/// How many bytes of bodies are read at a time.
const PAGE_BYTES: u64 = 1024 * 1024;
/// How many bytes of bodies one command reads.
const SWEEP_BYTES: u64 = 8 * 1024 * 1024;

/// Removes up to `limit` rows of the routed partition that have expired by the partition's expiry
/// clock: envelopes, codes, pending claims, boxes that were never authorised, and identifiers that were
/// never verified; and what a deleted box held, whatever the clock.
///
/// It looks at no more than `limit` markers and `limit` envelopes; a queue that it does not finish
/// remembers how far it was swept. A pending claim goes in two steps: its code leaves the outbox
/// when it expires, the claim a day later, so that meanwhile the code is answered with "expired" and
/// not with "never asked for".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expire {
    /// At most this many rows.
    pub limit: u32,
}

impl Expire {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let mut sweep = Sweep {
            rows_left: self.limit,
            bytes_left: SWEEP_BYTES,
            now: meta.expiry_clock,
            removed: 0,
        };
        for (at, key) in tables.due(meta.expiry_clock, self.limit)? {
            if sweep.is_over() {
                break;
            }
            let done = match &key {
                DueKey::Queue(box_id) => sweep.queue(tables, box_id)?,
                DueKey::PendingClaim(identifier, box_id) => {
                    sweep.pending_claim(tables, identifier, box_id)?
                }
                DueKey::CodeBudget(identifier) => sweep.code_budget(tables, identifier)?,
                DueKey::Intent(box_id) => sweep.intent(tables, box_id)?,
            };
            if done {
                tables.remove_due(at, &key)?;
            }
        }
        let more = !tables.due(meta.expiry_clock, 1)?.is_empty();
        Ok(Ok(Outcome::Expired {
            removed: sweep.removed,
            more,
        }))
    }
}

/// What one command has done and may still do. Each step tells whether its marker is done with.
struct Sweep {
    rows_left: u32,
    bytes_left: u64,
    now: Timestamp,
    removed: u32,
}

impl Sweep {
    fn is_over(&self) -> bool {
        self.rows_left == 0 || self.bytes_left == 0
    }

    fn count_row(&mut self) {
        self.rows_left = self.rows_left.saturating_sub(1);
        self.removed = self.removed.saturating_add(1);
    }

    fn queue<T: Tables>(&mut self, tables: &mut T, box_id: &BoxId) -> Result<bool, T::Error> {
        let Some(profile) = tables.profile(box_id)? else {
            return Ok(true);
        };
        let before = tables.queue_state(box_id)?;
        if profile.deleted {
            return self.deleted_queue(tables, box_id, before.unwrap_or_default());
        }
        let Some(before) = before else {
            return Ok(true);
        };
        let purgeable = Purgeable::of(&profile, self.now);
        let mut state = before;
        let mut done = state.depth == 0;
        while !done && !self.is_over() {
            let after = state.swept_upto.max(state.purged_upto);
            let count = PAGE_ENVELOPES.min(self.rows_left);
            let bytes = PAGE_BYTES.min(self.bytes_left);
            let mut page = tables.envelopes(box_id, after, count, bytes)?;
            let last = page.last().map_or(state.last, |envelope| envelope.sequence);
            let looked_at = u32::try_from(page.len()).unwrap_or(u32::MAX);
            let bodies = page.iter().map(|envelope| envelope.body.len() as u64).sum();
            self.rows_left = self.rows_left.saturating_sub(looked_at);
            self.bytes_left = self.bytes_left.saturating_sub(bodies);

            page.retain(|envelope| purgeable.includes(envelope));
            purge(tables, box_id, &mut state, &purgeable, &page)?;
            let removed = u32::try_from(page.len()).unwrap_or(u32::MAX);
            self.removed = self.removed.saturating_add(removed);
            state.swept_upto = last;
            done = last >= state.last;
        }
        if done {
            state.swept_upto = Sequence(0);
        }
        if state.depth == 0 {
            state.purged_upto = state.last;
        }
        if state != before {
            tables.put_queue_state(box_id, &state)?;
        }
        Ok(done)
    }

    /// Removes what a deleted box held: its mail, then what it remembers of senders and the reports of it, then its counts, by which all
    /// of that is found.
    fn deleted_queue<T: Tables>(
        &mut self,
        tables: &mut T,
        box_id: &BoxId,
        mut state: QueueState,
    ) -> Result<bool, T::Error> {
        while state.depth > 0 && !self.is_over() {
            let count = PAGE_ENVELOPES.min(self.rows_left);
            let bytes = PAGE_BYTES.min(self.bytes_left);
            let page = tables.envelopes(box_id, state.purged_upto, count, bytes)?;
            let Some(last) = page.last() else {
                break;
            };
            state.purged_upto = last.sequence;
            for envelope in &page {
                tables.purge_envelope(box_id, envelope.sequence)?;
                let bytes = envelope.body.len() as u64;
                state.depth = state.depth.saturating_sub(1);
                state.bytes = state.bytes.saturating_sub(bytes);
                self.bytes_left = self.bytes_left.saturating_sub(bytes);
                self.count_row();
            }
            tables.put_queue_state(box_id, &state)?;
        }
        while !self.is_over() {
            let senders = tables.senders(box_id, PAGE_ENVELOPES.min(self.rows_left))?;
            if senders.is_empty() {
                let reports = tables.delete_reports(box_id, PAGE_ENVELOPES.min(self.rows_left))?;
                if reports > 0 {
                    (0..reports).for_each(|_| self.count_row());
                    continue;
                }
                tables.delete_queue_state(box_id)?;
                self.count_row();
                return Ok(true);
            }
            for sender in senders {
                tables.delete_sender(box_id, &sender)?;
                self.count_row();
            }
        }
        Ok(false)
    }

    fn pending_claim<T: Tables>(
        &mut self,
        tables: &mut T,
        identifier: &IdentifierHash,
        box_id: &BoxId,
    ) -> Result<bool, T::Error> {
        let Some(pending) = tables.pending_claim(identifier, box_id)? else {
            return Ok(true);
        };
        if pending.forgotten_at() <= self.now {
            remove_pending(tables, identifier, box_id, &pending)?;
            self.count_row();
        } else if pending.is_expired(self.now) {
            if tables.outbox_row(identifier, box_id)?.is_some() {
                tables.delete_outbox_row(identifier, box_id)?;
                self.count_row();
            }
            let key = DueKey::PendingClaim(*identifier, *box_id);
            tables.add_due(pending.forgotten_at(), &key)?;
        }
        Ok(true)
    }

    fn code_budget<T: Tables>(
        &mut self,
        tables: &mut T,
        identifier: &IdentifierHash,
    ) -> Result<bool, T::Error> {
        let budget = tables.code_budget(identifier)?;
        if budget.is_some_and(|budget| budget.ends_at() <= self.now) {
            tables.delete_code_budget(identifier)?;
            self.count_row();
        }
        Ok(true)
    }

    /// Drops a box that never was authorised, with all its rows. In one that was, what is not verified is on its
    /// way out from now on, like what is removed: a code may have been right, and nobody has told the box.
    fn intent<T: Tables>(&mut self, tables: &mut T, box_id: &BoxId) -> Result<bool, T::Error> {
        let intent = tables.intent(box_id)?;
        if intent.is_none_or(|intent| intent.expires_at > self.now) {
            return Ok(true);
        }
        match tables.profile(box_id)? {
            Some(mut profile) if profile.active && !profile.is_settled() => {
                if profile.leave_unverified() {
                    tables.put_profile(box_id, &profile)?;
                    self.count_row();
                }
                return Ok(true);
            }
            // What is left of it goes once its identifiers are released.
            Some(profile) if profile.deleted && !profile.is_settled() => return Ok(true),
            Some(profile) if !profile.active && !profile.deleted => {
                tables.delete_profile(box_id)?;
                tables.delete_key_record(box_id)?;
            }
            _ => {}
        }
        tables.delete_intent(box_id)?;
        self.count_row();
        Ok(true)
    }
}
