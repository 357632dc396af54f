//! Whether mail may expire by this node's clock.
//!
//! A clock that is wrong on one node hands leadership over (`clock_quorum.rs`). A clock that is wrong
//! on all of them, or on the only one, would have mail expire years too early, and nothing brings it
//! back. So the leader compares its clock with the last time by which mail might expire: as the log
//! tells it when it comes to lead, then as it stamped itself. Beyond [`MAX_JUMP_MS`] expiry is
//! blocked: commands are stamped so that no mail expires by them, and no envelope is hidden from a
//! read. All else goes on. Expiry is open again once the clock was set right, or the operator has
//! confirmed that it is.
//!
//! ```text
//!   elected ─► all of before applied ─► latest expiry clock of all partitions
//!                                              │
//!   stamp, read: within the jump? ◄────────────┤
//!        │ yes: may expire                     │
//!        └─ a stamp becomes the latest ────────┘◄── the operator confirms: now is the latest
//! ```
//!
//! A confirmation lasts once a command that may expire is applied: the next leader finds it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::time::{DAY_MS, Timestamp};
use tokio::time::Instant;

use crate::answers::{ProposeError, ReadError};
use crate::clock_quorum::{CLOCK_WAIT, Verdict};
use crate::core::Core;
use crate::looks::Errand;

/// A clock that is further than this beyond the last time in the log is in doubt, in milliseconds.
pub(crate) const MAX_JUMP_MS: u64 = 7 * DAY_MS;
/// How long a new leader waits at a time for what was committed before it.
const CATCH_UP: Duration = Duration::from_secs(5);

/// What a doubted clock showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockJump {
    /// The last time by which mail might expire.
    pub last: Timestamp,
    /// What the leader's clock shows.
    pub now: Timestamp,
}

/// Whether mail may expire at `now`, if `last` was the last time that it might; the jump if not. In
/// a group where nothing ever might (`last` is zero), there is nothing to lose.
pub(crate) fn judge(last: Timestamp, now: Timestamp) -> Result<(), ClockJump> {
    if last == Timestamp::default() || now.millis_since(last) <= MAX_JUMP_MS {
        Ok(())
    } else {
        Err(ClockJump { last, now })
    }
}

/// The last time by which mail might expire, as the leader of a term knows it.
#[derive(Debug, Clone, Copy)]
struct Known {
    term: u64,
    last: Timestamp,
}

/// What a replica knows of the group's time while it leads.
#[derive(Debug, Default)]
pub(crate) struct Expiry(Mutex<Option<Known>>);

impl Expiry {
    fn knows(&self, term: u64) -> bool {
        self.0.lock().is_some_and(|known| known.term == term)
    }

    /// Takes up the term, unless it was by another task meanwhile.
    fn learn(&self, term: u64, last: Timestamp) {
        let mut known = self.0.lock();
        if known.is_none_or(|known| known.term < term) {
            *known = Some(Known { term, last });
        }
    }

    /// Whether mail may expire at `now`, in the term; not before the group's time is known.
    fn may_expire(&self, term: u64, now: Timestamp) -> bool {
        let known = *self.0.lock();
        known.is_some_and(|known| known.term == term && judge(known.last, now).is_ok())
    }

    /// The same, of a time that is to be stamped.
    pub(crate) fn stamp(&self, term: u64, now: Timestamp) -> bool {
        let mut known = self.0.lock();
        let Some(known) = known.as_mut().filter(|known| known.term == term) else {
            return false;
        };
        let may_expire = judge(known.last, now).is_ok();
        if may_expire {
            known.last = known.last.max(now);
        }
        may_expire
    }

    /// What mail may expire by, if by anything: this node's clock. But if that is further behind the last
    /// time than a jump, clocks were wrong then or are now, and the service's time goes on from there.
    pub(crate) fn time(&self, term: u64, own: Timestamp, service: Timestamp) -> Timestamp {
        let known = (*self.0.lock()).filter(|known| known.term == term);
        match known {
            Some(known) if known.last.millis_since(own) > MAX_JUMP_MS => service,
            _ => own,
        }
    }

    fn jump(&self, term: u64, now: Timestamp) -> Option<ClockJump> {
        let known = (*self.0.lock()).filter(|known| known.term == term)?;
        judge(known.last, now).err()
    }

    /// Takes `now` for right; the jump that was in doubt.
    fn confirm(&self, term: u64, now: Timestamp) -> Option<ClockJump> {
        let jump = self.jump(term, now)?;
        *self.0.lock() = Some(Known { term, last: now });
        Some(jump)
    }
}

impl Core {
    /// The time by which a read may hide what has expired, beyond what the log says; zero if none.
    /// A clock that the others do not confirm hides nothing: a device would acknowledge what stands
    /// behind the hidden letter, and with it the letter.
    pub(crate) fn read_time(&self) -> Timestamp {
        let (now, verdict) = self.clocks.judge_now(&self.voter_nodes());
        self.read_time_of(now, verdict)
    }

    /// The same, but waits a little for the others' clocks if they are not known yet.
    pub(crate) async fn read_time_by(&self, deadline: Instant) -> Timestamp {
        let deadline = deadline.min(Instant::now() + CLOCK_WAIT);
        let (now, verdict) = self.clocks.judge_by(&self.voter_nodes(), deadline).await;
        self.read_time_of(now, verdict)
    }

    fn read_time_of(&self, now: Timestamp, verdict: Verdict) -> Timestamp {
        let Some(term) = self.led_term().filter(|_| verdict == Verdict::InStep) else {
            return Timestamp::default();
        };
        let by = self.expiry_time(term, now, verdict);
        if self.expiry.may_expire(term, by) {
            by
        } else {
            Timestamp::default()
        }
    }

    fn expiry_time(&self, term: u64, own: Timestamp, verdict: Verdict) -> Timestamp {
        let service = self.service_time_of(own, verdict);
        self.expiry.time(term, own, service)
    }

    /// The jump for which expiry is blocked, if it is.
    pub(crate) fn clock_jump(&self) -> Option<ClockJump> {
        let (own, verdict) = self.clocks.judge_now(&self.voter_nodes());
        let term = self.led_term()?;
        self.expiry.jump(term, self.expiry_time(term, own, verdict))
    }

    /// Learns the group's time, once in a term. All that earlier leaders committed must be applied:
    /// `term` was led before a read was confirmed.
    fn learn_time(&self, term: u64) -> Result<(), ReadError> {
        if self.expiry.knows(term) {
            return Ok(());
        }
        let times = self.reader.times();
        let times = times.map_err(|error| self.unreadable(&error))?;
        // What came in before the state was restored was an earlier leader's too, of which it knows
        // nothing.
        let since = times.clock.max(times.restored_at);
        self.time.learn(term, since, self.clocks.running());
        self.expiry.learn(term, times.expiry_clock);
        Ok(())
    }

    /// A linearizable read's confirmation, after which the group's time is known too.
    pub(crate) async fn linearize(&self, deadline: Instant) -> Result<(), ReadError> {
        let term = self.led_term();
        self.confirm_leadership(deadline).await?;
        match term {
            Some(term) if self.led_term() == Some(term) => self.learn_time(term),
            _ => Ok(()),
        }
    }

    /// Takes this node's clock for right, on the operator's word.
    pub(crate) async fn confirm_time(
        &self,
        deadline: Instant,
    ) -> Result<Option<ClockJump>, ProposeError> {
        self.linearize(deadline).await?;
        let (now, verdict) = self.clocks.judge_by(&self.voter_nodes(), deadline).await;
        if verdict != Verdict::InStep {
            return Err(ProposeError::ClockUnsafe);
        }
        let term = self
            .led_term()
            .ok_or(ProposeError::NotLeader { leader: None })?;
        let by = self.expiry_time(term, now, verdict);
        let jump = self.expiry.confirm(term, by);
        if let Some(jump) = jump {
            tracing::warn!(
                group = %self.id,
                last_ms = jump.last.as_millis(),
                now_ms = jump.now.as_millis(),
                "an operator confirmed the time: mail expires again"
            );
        }
        Ok(jump)
    }
}

/// What is remembered of the group's time.
#[derive(Debug, Default)]
pub(crate) struct TimeLook {
    learning: Errand,
    was_blocked: AtomicBool,
    was_ahead: AtomicBool,
}

/// Sees to it that a leader soon knows the group's time, and says when it is in doubt.
pub(crate) fn look(core: &Arc<Core>) {
    let time = &core.looks.time;
    match core.led_term() {
        Some(term) if core.expiry.knows(term) => core.say_doubts(),
        Some(_) => time.learning.begin(learn(Arc::clone(core))),
        None => {
            time.was_blocked.store(false, Ordering::Release);
            time.was_ahead.store(false, Ordering::Release);
        }
    }
}

async fn learn(core: Arc<Core>) {
    // Meanwhile it may have come to lead another term.
    while core.led_term().is_some_and(|term| !core.expiry.knows(term)) {
        if let Err(error) = core.linearize(Instant::now() + CATCH_UP).await {
            tracing::debug!(group = %core.id, %error, "the group's time is not known yet");
            return;
        }
    }
    core.say_doubts();
}

impl Core {
    fn say_doubts(&self) {
        let time = &self.looks.time;
        let jump = self.clock_jump();
        let was_blocked = time.was_blocked.swap(jump.is_some(), Ordering::AcqRel);
        match jump {
            Some(jump) if !was_blocked => tracing::error!(
                group = %self.id,
                last_ms = jump.last.as_millis(),
                now_ms = jump.now.as_millis(),
                days = jump.now.millis_since(jump.last) / DAY_MS,
                "the clock is more than 7 days beyond the last time in the log: no mail expires. If \
                 the clock is wrong, set it right. If it is right, run `rossby cluster confirm-time` \
                 on this node"
            ),
            None if was_blocked => {
                tracing::info!(group = %self.id, "the clock is in doubt no more: mail expires again");
            }
            _ => {}
        }
        let was_ahead = time.was_ahead.load(Ordering::Acquire);
        let is_ahead = self.say_if_ahead(was_ahead);
        time.was_ahead.store(is_ahead, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_jump_of_seven_days_is_fine_and_a_longer_one_is_not() {
        assert_eq!(judge(NOON, NOON.plus_millis(MAX_JUMP_MS)), Ok(()));
        let now = NOON.plus_millis(MAX_JUMP_MS + 1);
        assert_eq!(judge(NOON, now), Err(ClockJump { last: NOON, now }));
    }

    #[test]
    fn a_group_without_any_time_takes_the_first() {
        assert_eq!(judge(Timestamp::default(), at(u64::MAX)), Ok(()));
        let expiry = Expiry::default();
        expiry.learn(1, Timestamp::default());
        assert!(expiry.stamp(1, NOON));
        assert!(!expiry.stamp(1, NOON.plus_millis(MAX_JUMP_MS + 1)));
    }

    #[test]
    fn nothing_expires_before_the_time_is_known_nor_in_another_term() {
        let expiry = Expiry::default();
        assert!(!expiry.may_expire(1, NOON) && !expiry.stamp(1, NOON));
        assert_eq!(expiry.jump(1, NOON), None);
        expiry.learn(1, NOON);
        assert!(expiry.may_expire(1, NOON));
        assert!(!expiry.may_expire(2, NOON) && !expiry.stamp(2, NOON));
        assert_eq!(expiry.confirm(2, NOON.plus_millis(2 * MAX_JUMP_MS)), None);
        expiry.learn(2, NOON);
        assert!(expiry.may_expire(2, NOON));
    }

    #[test]
    fn what_a_term_has_stamped_is_not_forgotten_by_learning_again() {
        let expiry = Expiry::default();
        let later = NOON.plus_millis(MAX_JUMP_MS);
        expiry.learn(1, NOON);
        assert!(expiry.stamp(1, later));
        expiry.learn(1, NOON);
        assert!(expiry.stamp(1, later.plus_millis(1)));
    }

    #[test]
    fn expiry_opens_when_the_clock_is_set_right_or_confirmed() {
        let expiry = Expiry::default();
        let wrong = NOON.plus_millis(100 * DAY_MS);
        expiry.learn(1, NOON);
        assert!(!expiry.stamp(1, wrong));
        assert!(expiry.stamp(1, NOON.plus_millis(DAY_MS)), "set right");
        assert!(!expiry.stamp(1, wrong));
        let last = NOON.plus_millis(DAY_MS);
        assert_eq!(
            expiry.confirm(1, wrong),
            Some(ClockJump { last, now: wrong })
        );
        assert!(expiry.stamp(1, wrong));
        assert_eq!(expiry.confirm(1, wrong), None, "nothing was in doubt");
    }

    proptest! {
        /// Whatever clocks show and terms come: no time is carried to mail that is more than the
        /// jump beyond all that was carried or confirmed before.
        #[test]
        fn mail_never_expires_by_an_unconfirmed_jump(
            steps in prop::collection::vec((0..4_u8, 1..20 * DAY_MS, any::<bool>()), 1..50)
        ) {
            let (expiry, mut term, mut now) = (Expiry::default(), 1, NOON);
            let mut carried = NOON;
            expiry.learn(term, carried);
            for (step, millis, forward) in steps {
                now = if forward { now.plus_millis(millis) } else { at(now.as_millis() - millis) };
                match step {
                    0 => {
                        term += 1;
                        prop_assert!(!expiry.stamp(term, now));
                        expiry.learn(term, carried);
                    }
                    1 => if expiry.confirm(term, now).is_some() {
                        prop_assert!(expiry.stamp(term, now));
                        carried = now;
                    },
                    _ => {
                        let open = expiry.may_expire(term, now);
                        prop_assert_eq!(open, now.millis_since(carried) <= MAX_JUMP_MS);
                        prop_assert_eq!(expiry.jump(term, now).is_some(), !open);
                        prop_assert_eq!(expiry.stamp(term, now), open);
                        if open {
                            carried = carried.max(now);
                        }
                    }
                }
            }
        }
    }
}
