//! What must hold in every world, one file each.

use std::fmt;

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
pub trait Invariant {
    /// Its name, as reports show it.
    fn name(&self) -> &'static str;

    /// Takes in what happened next.
    ///
    /// # Errors
    /// [`Violation`], if it does not hold any more. Nothing more may be observed after that.
    fn observe(&mut self, observation: &Observation) -> Result<(), Violation>;

    /// Judges the history as a whole, when the world has ended.
    ///
    /// # Errors
    /// [`Violation`], if it did not hold.
    fn finish(&mut self) -> Result<(), Violation>;
}

/// All invariants, each at its beginning.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    Vec::new()
}
