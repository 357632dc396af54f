//! Authorize, step 1: the code.

use serde::{Deserialize, Serialize};

use crate::claim::CodeMac;
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;

/// Checks a code and, in the same step, gives the identifier to the box if nobody has it.
/// The same right code again gets the same outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyClaim {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that claims it.
    pub box_id: BoxId,
    /// The keyed hash of the code that the person typed.
    pub code: CodeMac,
}
