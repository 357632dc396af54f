//! Identifiers: phone numbers and email addresses, normalised, and their keyed hashes.
use serde::{Deserialize, Serialize};

/// The keyed hash of an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentifierHash([u8; 32]);
