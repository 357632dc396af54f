//! All invariants over one world, and the story of how one was broken.

use crate::invariants::{self, Invariant, Violation};
use crate::known::Known;
use crate::observe::{Observation, SimTime};
use crate::timeline::Timeline;

/// Watches a world until something does not hold.
pub struct Judge {
    invariants: Vec<Box<dyn Invariant>>,
    known: Known,
    timeline: Timeline,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.invariants.iter().map(|invariant| invariant.name());
        f.debug_list().entries(names).finish()
    }
}

impl Default for Judge {
    fn default() -> Self {
        Self::of(invariants::all())
    }
}

impl Judge {
    /// A judge of these.
    #[must_use]
    pub fn of(invariants: Vec<Box<dyn Invariant>>) -> Self {
        Self {
            invariants,
            known: Known::default(),
            timeline: Timeline::default(),
        }
    }

    /// Takes in what happened next.
    ///
    /// # Errors
    /// The first invariant that does not hold any more. Nothing may be observed after that.
    pub fn observe(&mut self, observation: &Observation) -> Result<(), Violation> {
        self.timeline.push(observation);
        for invariant in &mut self.invariants {
            let holds = invariant.observe(observation, &self.known);
            holds.map_err(|what| broken(&**invariant, Some(observation.at), what))?;
        }
        self.known.learn(observation);
        Ok(())
    }

    /// Judges the history as a whole, when the world has ended.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn finish(&mut self) -> Result<(), Violation> {
        for invariant in &mut self.invariants {
            let held = invariant.finish(&self.known);
            held.map_err(|what| broken(&**invariant, None, what))?;
        }
        Ok(())
    }

    /// What happened last, for people.
    #[must_use]
    pub fn timeline(&self) -> String {
        self.timeline.render()
    }
}

fn broken(invariant: &dyn Invariant, at: Option<SimTime>, what: String) -> Violation {
    let invariant = invariant.name();
    Violation {
        invariant,
        at,
        what,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invariants::story::{Story, legal};
    use crate::observe::ReplicaEvent;

    proptest! {
        #[test]
        fn a_legal_history_passes_all_invariants(story in legal()) {
            prop_assert_eq!(story.judged_by(Judge::default()), Ok(()));
        }
    }

    #[test]
    fn a_violation_names_its_invariant_and_its_time() {
        let mut story = Story::default();
        story.replica(1, ReplicaEvent::Leads { term: 3 });
        story.wait(41);
        story.replica(2, ReplicaEvent::Leads { term: 3 });
        let violation = story.judged_by(Judge::default()).unwrap_err().to_string();
        assert_eq!(
            violation,
            "election safety broken at 0.043s: replicas 1 and 2 both lead group 1 in term 3"
        );
    }

    #[test]
    fn every_invariant_has_a_name_of_its_own() {
        let names: Vec<_> = invariants::all().iter().map(|one| one.name()).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }
}
