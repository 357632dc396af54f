//! What a person or a script reads: data on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// Prints one line of data. A reader that went away is no error of ours.
pub fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints one line of data at once; whether there still is a reader.
///
/// # Errors
/// If it can't be written, though somebody reads.
pub fn try_line(text: impl Display) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let what = format!("cannot write to standard output: {error}");
            Err(Failure::new(Exit::Failure, what))
        }
    }
}

/// Lines of text, to be printed together.
#[derive(Debug, Default)]
pub struct Page(Vec<String>);

impl Page {
    /// Adds a line.
    pub fn line(&mut self, text: impl Display) {
        self.0.push(text.to_string());
    }

    /// All of it, without the last line's end.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.join("\n")
    }
}

/// Data as one JSON document on one line.
///
/// # Errors
/// If it can't be written as JSON.
pub fn to_json(data: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(data).map_err(|error| Failure::new(Exit::Failure, error))
}

/// Prints data as one JSON document on one line.
///
/// # Errors
/// If it can't be written: a program that was told "done" takes it to have the data.
pub fn json(data: &impl Serialize) -> Result<(), Failure> {
    let text = to_json(data)?;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let what = format!("cannot write to standard output: {error}");
            Err(Failure::new(Exit::Failure, what))
        }
        _ => Ok(()),
    }
}

/// Tells the person something beside the data.
pub fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An instant, in milliseconds since the Unix epoch, as `2026-11-22 15:04:05Z`: days to a civil date in the proleptic Gregorian calendar,
/// counted from 1 March so that the leap day comes last.
#[must_use]
pub fn utc(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// A number of bytes, for people.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut shown = format!("{bytes} bytes");
    for unit in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown = format!("{value:.1} {unit}");
    }
    shown
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (5 << 30, "5.0 GiB"),
            (2_u64 << 40, "2.0 TiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn instants_are_shown_in_utc() {
        for (millis, shown) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399_000, "2000-02-28 23:59:59Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_709_251_200_000, "2024-03-01 00:00:00Z"),
            (1_795_359_845_999, "2026-11-22 15:04:05Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(millis), shown);
        }
    }
}
