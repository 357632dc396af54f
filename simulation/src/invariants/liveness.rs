//! Liveness after healing: when all faults are over, the service comes back within a bounded time,
//! and from then on every call is answered, with success or with a final "no".

use super::Invariant;
use crate::known::Known;
use crate::observe::{CallId, Failure, Observation, SimTime, What};
use crate::oracle::Oracle;

/// How long after healing a call may still be refused or time out, in milliseconds: elections,
/// restarts and reconnects.
pub const SETTLE_MS: u64 = 30_000;
/// How long any call may take that is under way after healing, in milliseconds.
pub const ANSWER_MS: u64 = 10_000;

/// See the file's head.
#[derive(Debug, Default)]
pub struct Liveness {
    healed_at: Option<SimTime>,
    answered: bool,
    now: SimTime,
}

impl Liveness {
    /// A call that has been under way for too long, since it began or since all was healed.
    fn hangs(&self, oracle: &Oracle, now: SimTime) -> Option<CallId> {
        let healed = self.healed_at?;
        let mut open = oracle.open();
        let hanging = open.find(|(_, call)| {
            let since = call.began_at.max(healed);
            now.0.saturating_sub(since.0) > ANSWER_MS
        });
        hanging.map(|(id, _)| *id)
    }

    fn check(&mut self, oracle: &Oracle, observation: &Observation) -> Result<(), String> {
        let Some(healed) = self.healed_at else {
            return Ok(());
        };
        if let What::Stopped { reason } = &observation.what {
            let who = observation.who;
            return Err(format!(
                "{who} stops by itself after all faults were over: {reason}"
            ));
        }
        if let Some(call) = self.hangs(oracle, observation.at) {
            return Err(format!(
                "call {} has no answer after {ANSWER_MS} ms without a fault",
                call.0
            ));
        }
        let Some(finished) = oracle.finished(observation) else {
            return Ok(());
        };
        match finished.result {
            Ok(_) | Err(Failure::Rejected(_)) => {
                self.answered = true;
                Ok(())
            }
            Err(_) if finished.call.began_at.0 < healed.0.saturating_add(SETTLE_MS) => Ok(()),
            Err(failure) => Err(format!(
                "a call that began {} ms after all faults were over fails: {failure}",
                finished.call.began_at.0.saturating_sub(healed.0)
            )),
        }
    }
}

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        self.check(&known.clients, observation)?;
        if observation.what == What::Healed {
            self.healed_at = Some(observation.at);
        }
        self.now = observation.at;
        Ok(())
    }

    fn finish(&mut self, _: &Known) -> Result<(), String> {
        let Some(healed) = self.healed_at else {
            return Ok(());
        };
        let lasted = self.now.0.saturating_sub(healed.0);
        if lasted > SETTLE_MS && !self.answered {
            return Err(format!(
                "no call was answered in {lasted} ms without a fault"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, caught, node};
    use crate::observe::Who;

    fn healed() -> Story {
        let mut story = Story::default();
        story.unknown(1, 1, "text");
        story.push(Who::World, What::Healed);
        story
    }

    #[test]
    fn a_service_that_comes_back_is_legal() {
        let mut story = healed();
        story.unknown(1, 1, "text");
        story.sent(1, 1, "text", 1);
        story.wait(SETTLE_MS);
        story.sent(1, 2, "text", 2);
        assert_eq!(caught(Liveness::default(), &story), None);
    }

    #[test]
    fn a_failure_long_after_healing_is_caught() {
        let mut story = healed();
        story.wait(SETTLE_MS);
        story.unknown(1, 1, "text");
        assert!(caught(Liveness::default(), &story).is_some());
    }

    #[test]
    fn a_call_that_hangs_is_caught() {
        let mut story = Story::default();
        let _ = story.begin_send(1, 1, "text");
        story.push(Who::World, What::Healed);
        story.wait(ANSWER_MS + 1);
        story.sent(1, 2, "text", 1);
        assert!(caught(Liveness::default(), &story).is_some());
    }

    #[test]
    fn silence_after_healing_is_caught() {
        let mut story = healed();
        story.wait(SETTLE_MS + 1);
        story.push(Who::World, What::FaultOff("nothing".into()));
        assert!(caught(Liveness::default(), &story).is_some());
    }

    #[test]
    fn a_replica_that_stops_after_healing_is_caught() {
        let mut story = healed();
        story.push(
            node(1),
            What::Stopped {
                reason: "broken".into(),
            },
        );
        assert!(caught(Liveness::default(), &story).is_some());
    }
}
