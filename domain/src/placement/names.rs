//! The names of regions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A region: nodes that may fail together. Lower-case letters, digits and inner hyphens, beginning
/// with a letter, at most 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegionName(String);

/// Why a text names no region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a region's name: 1 to 32 lower-case letters, digits and hyphens, beginning with a \
     letter and not ending with a hyphen, for example eu-west"
)]
pub struct RegionNameError(String);

impl RegionName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 32;

    /// A region's name.
    ///
    /// # Errors
    /// [`RegionNameError`] if the text is none.
    pub fn new(text: &str) -> Result<Self, RegionNameError> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let bytes = text.as_bytes();
        let is_name = bytes.len() <= Self::MAX_BYTES
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().is_some_and(|last| *last != b'-')
            && bytes.iter().copied().all(inner);
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            // A name is shown in errors: not more of it than one could be.
            Err(RegionNameError(
                text.chars().take(Self::MAX_BYTES + 1).collect(),
            ))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RegionName {
    /// The region of clusters that were not told of any.
    fn default() -> Self {
        Self("local".to_owned())
    }
}

impl FromStr for RegionName {
    type Err = RegionNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for RegionName {
    type Error = RegionNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<RegionName> for String {
    fn from(name: RegionName) -> String {
        name.0
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
