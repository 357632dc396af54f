//! A recovery that the placement group has not heard of yet: it is told by the node itself, once that runs.

use std::io;
use std::path::Path;

use rossby_api::placement::SealedFile;
use rossby_domain::placement::Change;
use rossby_seams::disk::Disk;
use rossby_storage::datadir::DataDirectory;

use crate::exit::{Exit, Failure};

/// Its file in the data directory.
const FILE: SealedFile = SealedFile {
    name: "recovered",
    what: "rossby recovered groups",
};

/// Notes what the placement group must be told, besides what was noted before.
///
/// # Errors
/// If it can't be written, or what was noted before can't be read.
pub fn write(data: &DataDirectory, change: &Change) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let path = FILE.path(data.path());
        Failure::new(Exit::Storage, format!("{}: {error}", path.display()))
    };
    let noted = read(&**data.disk(), data.path()).map_err(|error| failed(&error))?;
    let all = both(noted, change.clone());
    let written = FILE.write(&**data.disk(), data.path(), &all);
    written.map_err(|error| failed(&error))
}

/// Two recoveries of the same node as one.
fn both(noted: Option<Change>, change: Change) -> Change {
    match (noted, change) {
        (
            Some(Change::Recover {
                lost: before,
                groups: earlier,
                ..
            }),
            Change::Recover {
                node,
                mut lost,
                mut groups,
            },
        ) => {
            lost.extend(before);
            groups.extend(earlier);
            Change::Recover { node, lost, groups }
        }
        (_, change) => change,
    }
}

/// What the placement group must be told, if anything.
///
/// # Errors
/// Why that can't be read.
pub fn read(disk: &dyn Disk, data: &Path) -> Result<Option<Change>, String> {
    FILE.read(disk, data)
}

/// It was told.
///
/// # Errors
/// The system's error.
pub fn remove(disk: &dyn Disk, data: &Path) -> io::Result<()> {
    disk.remove(&FILE.path(data))?;
    disk.sync_directory(data)
}
