//! Takes ownership of a partition.

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::ids::Epoch;
use crate::limits::Limits;
use crate::tables::Meta;

/// Takes ownership of the routed partition at the routed epoch, which must be higher than any
/// before, and sets the limits that apply enforces in it. The same again, with the same limits, is
/// fine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopt {
    /// The limits from now on.
    pub limits: Limits,
}

impl Adopt {
    /// A higher epoch than any before; or the same again, as a retry asks for it. The same epoch
    /// with other limits is no retry: whoever wants to change limits takes the next epoch.
    pub(crate) fn is_admitted(&self, meta: &Meta, epoch: Epoch) -> bool {
        meta.epoch
            .is_none_or(|owned| epoch > owned || (epoch == owned && self.limits == meta.limits))
    }

    pub(crate) fn execute(self, meta: &mut Meta, epoch: Epoch) -> Outcome {
        meta.epoch = Some(epoch);
        meta.limits = self.limits;
        Outcome::Adopted { epoch }
    }
}
