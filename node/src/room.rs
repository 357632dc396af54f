//! Room on a disk for what a command is about to make.

use std::path::Path;

use rossby_seams::disk::Disk;

use crate::exit::{Exit, Failure};
use crate::output::size;

/// Refuses what there is no room for in a folder; `help` says what to do then.
///
/// # Errors
/// If there is not, or the disk does not tell.
pub fn check_room(
    disk: &dyn Disk,
    folder: &Path,
    needed: u64,
    help: &'static str,
) -> Result<(), Failure> {
    let path = folder.display();
    let free = disk.free_bytes(folder);
    let free = free.map_err(|error| Failure::new(Exit::Storage, format!("{path}: {error}")))?;
    if free >= needed {
        return Ok(());
    }
    let text = format!(
        "{path}: {} are needed, {} are free",
        size(needed),
        size(free)
    );
    Err(Failure::new(Exit::Failure, text).help(help))
}
