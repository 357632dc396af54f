//! What was foretold of the loss of a region comes true: a group goes on or stands still, and one that goes on
//! has all that it was to keep.

use std::collections::BTreeMap;

use rossby_domain::ids::GroupId;

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, What};

#[derive(Debug, Clone, Copy)]
struct Foretold {
    goes_on: bool,
    keeps_all: bool,
    committed: Option<u64>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Prediction {
    foretold: BTreeMap<GroupId, Foretold>,
}

impl Prediction {
    fn compare(&mut self, group: GroupId, applied: Option<u64>) -> Result<(), String> {
        let Some(foretold) = self.foretold.remove(&group) else {
            return Err(format!("nothing was foretold of group {group}"));
        };
        match applied {
            None if foretold.goes_on => {
                Err(format!("group {group} was to go on, and stands still"))
            }
            Some(_) if !foretold.goes_on => {
                Err(format!("group {group} was to stand still, and goes on"))
            }
            Some(applied) if foretold.keeps_all && Some(applied) < foretold.committed => {
                Err(format!(
                    "group {group} was to keep all, up to {:?}, and has all up to {applied} only",
                    foretold.committed.unwrap_or_default()
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for Prediction {
    fn name(&self) -> &'static str {
        "prediction"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        match observation.what {
            What::Foretold {
                group,
                goes_on,
                keeps_all,
                committed,
            } => {
                let foretold = Foretold {
                    goes_on,
                    keeps_all,
                    committed,
                };
                self.foretold.insert(group, foretold);
                Ok(())
            }
            What::CameTrue { group, applied } => self.compare(group, applied),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, caught};
    use crate::observe::Who;

    fn told(goes_on: bool, keeps_all: bool, applied: Option<u64>) -> Option<String> {
        let mut story = Story::default();
        let group = GroupId(1);
        let foretold = What::Foretold {
            group,
            goes_on,
            keeps_all,
            committed: Some(9),
        };
        story.push(Who::World, foretold);
        story.push(Who::World, What::CameTrue { group, applied });
        caught(Prediction::default(), &story).map(|violation| violation.what)
    }

    #[test]
    fn what_comes_as_foretold_is_legal() {
        assert_eq!(told(true, true, Some(9)), None);
        assert_eq!(told(true, false, Some(8)), None);
        assert_eq!(told(false, true, None), None);
    }

    #[test]
    fn what_comes_otherwise_is_caught() {
        for (goes_on, applied, what) in [
            (true, None, "stands still"),
            (false, Some(9), "goes on"),
            (true, Some(8), "keep all"),
        ] {
            let told = told(goes_on, true, applied).unwrap();
            assert!(told.contains(what), "{told}");
        }
    }
}
