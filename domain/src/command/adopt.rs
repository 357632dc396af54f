//! Takes ownership of a partition.

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::ids::Epoch;
use crate::limits::Limits;
use crate::tables::Meta;

/// Takes ownership of the routed partition at the routed epoch, which must be higher than any
/// before, and sets the limits that apply enforces in it. The same again, with the same limits, is
/// fine. Limits that it does not carry, since they came later, are the defaults until they are set
/// ([`SetResetDelay`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopt {
    /// The limits from now on.
    #[serde(with = "crate::limits::first")]
    pub limits: Limits,
}

impl Adopt {
    /// A higher epoch than any before; or the same again, as a retry asks for it. The same epoch
    /// with other limits is no retry: whoever wants to change limits takes the next epoch.
    pub(crate) fn is_admitted(&self, meta: &Meta, epoch: Epoch) -> bool {
        let is_same = |meta: &Meta| {
            let delay = meta.limits.reset_delay_ms;
            self.with_delay(delay) == meta.limits
        };
        meta.epoch
            .is_none_or(|owned| epoch > owned || (epoch == owned && is_same(meta)))
    }

    pub(crate) fn execute(self, meta: &mut Meta, epoch: Epoch) -> Outcome {
        let delay = match meta.epoch == Some(epoch) {
            // A retry.
            true => meta.limits.reset_delay_ms,
            false => Limits::default().reset_delay_ms,
        };
        meta.epoch = Some(epoch);
        meta.limits = self.with_delay(delay);
        Outcome::Adopted { epoch }
    }

    fn with_delay(&self, reset_delay_ms: u64) -> Limits {
        Limits {
            reset_delay_ms,
            ..self.limits
        }
    }
}

/// Sets the delay of resets, right after [`Adopt`], where it is not the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetResetDelay {
    /// [`Limits::reset_delay_ms`] from now on.
    pub reset_delay_ms: u64,
}

impl SetResetDelay {
    pub(crate) fn execute(self, meta: &mut Meta) -> Outcome {
        meta.limits.reset_delay_ms = self.reset_delay_ms;
        Outcome::ResetDelaySet
    }
}
