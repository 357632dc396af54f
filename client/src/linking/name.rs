//! What a device is called.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A text is not a device's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device's name has 1 to 32 bytes, without control characters and spaces around it")]
pub struct DeviceNameError;

/// What a device is called by whose box it is in: nobody's business but the box's own devices'. `Debug`
/// does not show it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DeviceName(String);

impl DeviceName {
    /// The most bytes of a name.
    pub const MAX_BYTES: usize = 32;

    /// A name.
    ///
    /// # Errors
    /// [`DeviceNameError`].
    pub fn new(text: &str) -> Result<Self, DeviceNameError> {
        if is_name(text, Self::MAX_BYTES) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DeviceNameError)
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a person can have called something so: it is read in one line, among others.
pub(crate) fn is_name(text: &str, max_bytes: usize) -> bool {
    !text.is_empty()
        && text.len() <= max_bytes
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceName(..)")
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}
