//! The service's time: what signed requests are held against, what clients are told, and what
//! commands are stamped with.
//!
//! It is this node's clock, while that is in step with its peers' and not behind the log. The time in
//! the log never goes back. If it is ahead, since the clocks were wrong when it was written and have been
//! set right, the service goes on from there with the time that has passed:
//!
//! ```text
//!   service's time = max(own clock if in step, last stamp + time passed since)
//!                         last stamp: the log's latest when this replica came to lead, then its own
//! ```
//!
//! Each reign answers for signed times of its own, so that none has to know what another has seen:
//! those beyond the log's time at its start ([`Hours::since`]), up to the latest stamp that it knows to be
//! committed ([`Hours::covered`]), both moved on by the same allowance. Whoever leads later starts at that
//! stamp or beyond, since it has applied all that was committed before. No clock is trusted for this: a
//! leader that was deposed and does not know it yet covers nothing new.

use std::time::Duration;

use openraft::ServerState;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResponse;
use parking_lot::Mutex;
use rossby_domain::command::{Command, Expire};
use rossby_domain::ids::PartitionId;
use rossby_domain::time::Timestamp;
use rossby_domain::{Rejection, Routed};
use rossby_storage::codec::Batch;
use tokio::time::{Instant, timeout_at};

use crate::answers::ProposeError;
use crate::clock_quorum::{CLOCK_WAIT, MAX_SKEW_MS, Verdict};
use crate::core::Core;
use crate::types::{Proposal, TypeConfig, position};

/// The signed times that a reign answers for, before the allowance that the guard adds to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Beyond this: an earlier leader may have admitted what was signed before.
    pub since: Timestamp,
    /// Up to this: later leaders will know it.
    pub covered: Timestamp,
}

/// A term in which this replica leads, and all of the terms before is applied.
#[derive(Debug, Clone, Copy)]
struct Known {
    term: u64,
    hours: Hours,
    /// The latest stamp, and when it was made (or learned), by a clock that is never set.
    stamp: Timestamp,
    at: Duration,
}

impl Known {
    fn now(&self, own: Option<Timestamp>, at: Duration) -> Timestamp {
        let passed = at.saturating_sub(self.at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        own.unwrap_or_default().max(self.stamp.plus_millis(passed))
    }

    fn stamped(&mut self, stamp: Timestamp, at: Duration) {
        if stamp > self.now(None, at) {
            (self.stamp, self.at) = (stamp, at);
        }
    }
}

/// The service's time, as a replica of a group knows it while it leads.
#[derive(Debug, Default)]
pub(crate) struct ServiceTime {
    known: Mutex<Option<Known>>,
    /// Held while a stamp is proposed for requests that wait for it.
    covering: tokio::sync::Mutex<()>,
}

impl ServiceTime {
    /// Takes up a term, unless it was before: `since` is the latest time that the log shows of all
    /// terms before.
    pub(crate) fn learn(&self, term: u64, since: Timestamp, at: Duration) {
        let mut known = self.known.lock();
        if known.is_none_or(|known| known.term < term) {
            let covered = since;
            *known = Some(Known {
                term,
                hours: Hours { since, covered },
                stamp: since,
                at,
            });
        }
    }

    fn of<T>(&self, term: u64, look: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut known = self.known.lock();
        known.as_mut().filter(|known| known.term == term).map(look)
    }

    pub(crate) fn hours(&self, term: u64) -> Option<Hours> {
        self.of(term, |known| known.hours)
    }

    /// The time in the term; `own` is this node's clock, if it may be trusted.
    fn now(&self, term: u64, own: Option<Timestamp>, at: Duration) -> Option<Timestamp> {
        self.of(term, |known| known.now(own, at))
    }

    /// A command of the term is proposed with this stamp.
    fn stamped(&self, term: u64, stamp: Timestamp, at: Duration) {
        self.of(term, |known| known.stamped(stamp, at));
    }

    /// An entry of the term with this stamp is committed, and the state shows the stamp.
    fn committed(&self, term: u64, stamp: Timestamp, at: Duration) {
        self.of(term, |known| {
            known.stamped(stamp, at);
            known.hours.covered = known.hours.covered.max(stamp);
        });
    }
}

fn trusted((own, verdict): (Timestamp, Verdict)) -> Option<Timestamp> {
    (verdict == Verdict::InStep).then_some(own)
}

impl Core {
    /// The term, if this replica leads.
    pub(crate) fn led_term(&self) -> Option<u64> {
        self.with_metrics(|metrics| {
            (metrics.state == ServerState::Leader).then_some(metrics.current_term)
        })
    }

    /// The service's time, with this node's clock as far as it is trusted; that clock if this
    /// replica does not lead or does not know yet.
    pub(crate) fn service_time(&self) -> Timestamp {
        let (own, verdict) = self.clocks.judge_now(&self.voter_nodes());
        self.service_time_of(own, verdict)
    }

    /// The same, but waits a little for the others' clocks if they are not known yet.
    pub(crate) async fn service_time_by(&self, deadline: Instant) -> Timestamp {
        let deadline = deadline.min(Instant::now() + CLOCK_WAIT);
        let (own, verdict) = self.clocks.judge_by(&self.voter_nodes(), deadline).await;
        self.service_time_of(own, verdict)
    }

    pub(crate) fn service_time_of(&self, own: Timestamp, verdict: Verdict) -> Timestamp {
        self.led_term()
            .and_then(|term| {
                let own = trusted((own, verdict));
                self.time.now(term, own, self.clocks.running())
            })
            .unwrap_or(own)
    }

    /// How far the service's time is ahead of this node's clock, in milliseconds, on the leader;
    /// zero if by no more than clocks may differ.
    pub(crate) fn time_ahead_ms(&self) -> u64 {
        let (own, verdict) = self.clocks.judge_now(&self.voter_nodes());
        let ahead = self.service_time_of(own, verdict).millis_since(own);
        if ahead > MAX_SKEW_MS { ahead } else { 0 }
    }

    /// Says when the service's time begins to be ahead of this node's clock; whether it is.
    pub(crate) fn say_if_ahead(&self, was_ahead: bool) -> bool {
        let ahead_ms = self.time_ahead_ms();
        if ahead_ms > 0 && !was_ahead {
            tracing::warn!(
                group = %self.id,
                ahead_ms,
                "the service's time is ahead of this node's clock: clocks were wrong once, or are now. \
                 Devices follow it, and it never goes back"
            );
        }
        ahead_ms > 0
    }

    /// What the next entry is stamped with, and whether mail may expire by that. Should the service's time
    /// be far ahead of what mail may expire by, then only an entry that goes `by_expiry` carries the latter.
    pub(crate) fn stamp(
        &self,
        own: Option<Timestamp>,
        by_expiry: bool,
    ) -> Option<(Timestamp, bool)> {
        let (term, at) = (self.led_term()?, self.clocks.running());
        let service = self.time.now(term, own, at).or(own)?;
        self.time.stamped(term, service, at);
        let Some(own) = own else {
            return Some((service, false));
        };
        let by = self.expiry.time(term, own, service);
        let by = if service.millis_since(by) <= MAX_SKEW_MS {
            service
        } else {
            by
        };
        if (by == service || by_expiry) && self.expiry.stamp(term, by) {
            return Some((by, true));
        }
        Some((service, false))
    }

    /// An entry with this stamp is applied.
    pub(crate) fn note_committed(
        &self,
        written: &ClientWriteResponse<TypeConfig>,
        stamp: Timestamp,
    ) {
        // A command for a partition that is owned otherwise leaves no trace, nor does its stamp.
        let leaves_a_trace = |reply| !matches!(reply, &Err(Rejection::NotOwner { .. }));
        if written.data.0.iter().any(leaves_a_trace) {
            let term = position(&written.log_id).term;
            self.time.committed(term, stamp, self.clocks.running());
        }
    }

    /// Has a stamp of `until` or later committed, in a partition that the group owns. Takes a full disk
    /// as small entries are taken (reads must go on), and needs no clock in step: the time goes on
    /// from the log's then.
    pub(crate) async fn cover(
        &self,
        partition: PartitionId,
        until: Timestamp,
        deadline: Instant,
    ) -> Result<(), ProposeError> {
        let covering = timeout_at(deadline, self.time.covering.lock()).await;
        let _turn = covering.map_err(|_| ProposeError::Overloaded)?;
        let hours = self.led_term().and_then(|term| self.time.hours(term));
        if hours.is_some_and(|hours| hours.covered >= until) {
            return Ok(());
        }
        self.admit_read()?;
        self.rouse(deadline).await?;
        let leaderless = ProposeError::NotLeader { leader: None };
        let epoch = self.epoch(partition)?.ok_or(leaderless.clone())?;
        let patience = deadline.min(Instant::now() + CLOCK_WAIT);
        let own = trusted(self.clocks.judge_by(&self.voter_nodes(), patience).await);
        let (stamp, may_expire) = self.stamp(own, false).ok_or(leaderless)?;
        // Moves the clock and removes nothing.
        let command = Command::Expire(Expire { limit: 0 });
        let batch = Batch {
            stamp,
            may_expire,
            commands: vec![Routed {
                partition,
                epoch,
                command,
            }],
        };
        let proposal = Proposal::new(&batch).map_err(|_| ProposeError::Unencodable)?;
        let (responder, outcome) = ProgressResponder::complete_only();
        let submitted = self.raft.client_write_ff(proposal, Some(responder)).await;
        submitted.map_err(|_| ProposeError::Stopped)?;
        match timeout_at(deadline, outcome).await {
            Ok(Ok(Ok(written))) => {
                self.note_committed(&written, stamp);
                Ok(())
            }
            // Whatever became of it: nobody needs it twice.
            _ => Err(ProposeError::NoQuorum),
        }
    }
}

#[cfg(test)]
mod tests;
