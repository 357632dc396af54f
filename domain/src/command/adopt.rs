//! Takes ownership of a partition.

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Takes ownership of the routed partition at the routed epoch, which must be higher than any
/// before (the same again is fine), and sets the limits that apply enforces in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopt {
    /// The limits from now on.
    pub limits: Limits,
}
