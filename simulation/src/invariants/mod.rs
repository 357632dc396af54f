//! What must hold in every world, one file each.
//!
//! A clause that is broken is reported at the first observation that shows it; what only the whole
//! history shows, at its end.

mod admission;
mod blocks;
mod bytes_as_written;
mod commit;
mod deletion;
mod effectively_once;
mod election_safety;
mod equal_replicas;
mod expiry;
mod identifiers;
mod linearizable;
mod liveness;
mod log_matching;
mod map_versions;
mod membership;
mod no_send_lost;
mod one_order;
mod one_owner;
mod power_loss;
mod prediction;
mod promotion;
mod purge;
mod state_machine_safety;
#[cfg(test)]
pub(crate) mod story;
mod versions;
mod vote_durability;

use std::fmt;

use rossby_storage::LogPosition;

use crate::known::Known;
use crate::observe::{Observation, SimTime};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of this invariant.
    pub invariant: &'static str,
    /// When it showed; `None` if only at the end.
    pub at: Option<SimTime>,
    /// What was seen, and what should have been.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} broken at {at}: {}", self.invariant, self.what),
            None => write!(f, "{} broken at the end: {}", self.invariant, self.what),
        }
    }
}

impl std::error::Error for Violation {}

/// Something that must hold in every world.
pub trait Invariant: Send {
    /// Its name, as reports show it.
    fn name(&self) -> &'static str;

    /// Judges what happened next by what is `known` from all that came before it.
    ///
    /// # Errors
    /// What was seen and what should have been, if it does not hold any more. Nothing more may be
    /// observed after that.
    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String>;

    /// Judges the history as a whole, when the world has ended. Most have said all by then.
    ///
    /// # Errors
    /// What was seen and what should have been, if it did not hold.
    fn finish(&mut self, _known: &Known) -> Result<(), String> {
        Ok(())
    }
}

/// All invariants, each at its beginning. Those of the log come first: what breaks there shows later
/// in the mailboxes, where it says less.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<election_safety::ElectionSafety>::default(),
        Box::<vote_durability::VoteDurability>::default(),
        Box::<log_matching::LogMatching>::default(),
        Box::<commit::Commit>::default(),
        Box::<membership::Membership>::default(),
        Box::<promotion::Promotion>::default(),
        Box::<one_owner::OneOwner>::default(),
        Box::<map_versions::MapVersions>::default(),
        Box::<admission::Admission>::default(),
        Box::<state_machine_safety::StateMachineSafety>::default(),
        Box::<power_loss::PowerLoss>::default(),
        Box::<equal_replicas::EqualReplicas>::default(),
        Box::<bytes_as_written::BytesAsWritten>::default(),
        Box::<effectively_once::EffectivelyOnce>::default(),
        Box::<one_order::OneOrder>::default(),
        Box::<no_send_lost::NoSendLost>::default(),
        Box::<purge::Purge>::default(),
        Box::<blocks::Blocks>::default(),
        Box::<expiry::Expiry>::default(),
        Box::<identifiers::Identifiers>::default(),
        Box::<deletion::Deletion>::default(),
        Box::<linearizable::Linearizable>::default(),
        Box::<prediction::Prediction>::default(),
        Box::<liveness::Liveness>::default(),
    ]
}

/// A log position as reports show it.
fn show(position: LogPosition) -> String {
    format!("{}.{}", position.term, position.index)
}
