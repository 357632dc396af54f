//! A place on the earth.

use std::fmt;

use rossby_domain::wire::{Reader, Writer};

use super::{ContentError, fields};

/// Bytes of a label.
pub const MAX_LABEL_BYTES: usize = 255;
/// So many make a degree: a step is about a centimetre.
pub const PER_DEGREE: i32 = 10_000_000;
const MAX_LATITUDE: i32 = 90 * PER_DEGREE;
const MAX_LONGITUDE: i32 = 180 * PER_DEGREE;

/// A place (WGS 84), in whole numbers so that it is the same to the last digit everywhere. `Debug` does
/// not show where.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    latitude: i32,
    longitude: i32,
    accuracy_m: u32,
    label: String,
}

impl Location {
    /// A place, in ten-millionths of a degree. An accuracy of 0 means "not known", an empty label none.
    ///
    /// # Errors
    /// [`ContentError::Place`], [`ContentError::Label`].
    pub fn new(
        latitude: i32,
        longitude: i32,
        accuracy_m: u32,
        label: &str,
    ) -> Result<Self, ContentError> {
        let within = |value: i32, most: i32| (-most..=most).contains(&value);
        if !within(latitude, MAX_LATITUDE) || !within(longitude, MAX_LONGITUDE) {
            return Err(ContentError::Place);
        }
        if label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control) {
            return Err(ContentError::Label);
        }
        Ok(Self {
            latitude,
            longitude,
            accuracy_m,
            label: label.to_owned(),
        })
    }

    /// North of the equator, in ten-millionths of a degree.
    #[must_use]
    pub fn latitude(&self) -> i32 {
        self.latitude
    }

    /// East of Greenwich, in ten-millionths of a degree.
    #[must_use]
    pub fn longitude(&self) -> i32 {
        self.longitude
    }

    /// How far off it may be, in metres; 0 if not known.
    #[must_use]
    pub fn accuracy_m(&self) -> u32 {
        self.accuracy_m
    }

    /// What the sender calls it; may be empty.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        writer
            .u32(self.latitude.cast_unsigned())
            .u32(self.longitude.cast_unsigned())
            .u32(self.accuracy_m)
            .bytes(self.label.as_bytes())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, ContentError> {
        let latitude = reader.u32()?.cast_signed();
        let longitude = reader.u32()?.cast_signed();
        let accuracy_m = reader.u32()?;
        let label = fields::read_text(reader, MAX_LABEL_BYTES, "label")?;
        Self::new(latitude, longitude, accuracy_m, &label)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Location(..)")
    }
}
