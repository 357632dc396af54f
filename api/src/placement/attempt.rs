//! The file that names a node's try to join, in a data directory that is not a member's yet. Whatever a crash
//! leaves behind, the same try goes on: the cluster knows it again.

use std::io;
use std::path::{Path, PathBuf};

use rossby_domain::placement::JoinAttempt;
use rossby_seams::disk::Disk;
use rossby_seams::random::{self, Random};
use serde::{Deserialize, Serialize};

use super::sealed::SealedFile;

/// The file in the data directory.
const FILE: SealedFile = SealedFile {
    name: "joining",
    what: "rossby try to join",
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Try {
    attempt: JoinAttempt,
}

/// The file can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct AttemptError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The name of the try that was begun in a data directory, if one was.
///
/// # Errors
/// [`AttemptError`] if the file is damaged or can't be read.
pub fn begun_attempt(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<Option<JoinAttempt>, AttemptError> {
    let begun: Option<Try> = FILE
        .read(disk, directory)
        .map_err(|reason| broken(directory, reason))?;
    Ok(begun.map(|begun| begun.attempt))
}

/// Names a new try, and writes that down.
///
/// # Errors
/// [`AttemptError`] if it can't be drawn or written.
pub fn begin_attempt(
    disk: &dyn Disk,
    directory: &Path,
    random: &dyn Random,
) -> Result<JoinAttempt, AttemptError> {
    let drawn = random::bytes(random).map(JoinAttempt);
    let attempt = drawn.map_err(|error| broken(directory, error.to_string()))?;
    let written = FILE.write(disk, directory, &Try { attempt });
    written.map_err(|error| broken(directory, error.to_string()))?;
    Ok(attempt)
}

/// Forgets the try: the directory is a member's now.
///
/// # Errors
/// The disk's.
pub fn end_attempt(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    disk.remove(&FILE.path(directory))
}

fn broken(directory: &Path, reason: String) -> AttemptError {
    AttemptError {
        path: FILE.path(directory),
        reason,
    }
}
