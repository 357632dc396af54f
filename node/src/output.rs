//! What a person or a script reads: data on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// Prints one line of data. A reader that went away is no error of ours.
pub fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints data as one JSON document on one line.
///
/// # Errors
/// If it can't be written: a program that was told "done" takes it to have the data.
pub fn json(data: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(data).map_err(|error| Failure::new(Exit::Failure, error))?;
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
