//! The home directory: made for one person's eyes, and used by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::StoreError;

const LOCK_NAME: &str = "lock";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io { what, source }
}

/// Makes the directory, or makes sure that it is for its owner alone.
pub(super) fn prepare(home: &Path) -> Result<(), StoreError> {
    let new: Vec<&Path> = home
        .ancestors()
        .take_while(|path| *path != Path::new("") && !path.exists())
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(home)
        .map_err(io("make the device's directory"))?;
    // A directory is there after a power loss only if the one above it was synced.
    for parent in new.into_iter().filter_map(Path::parent) {
        let parent = match parent {
            path if path == Path::new("") => Path::new("."),
            path => path,
        };
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(io("make the device's directory"))?;
    }
    set_mode(home, DIRECTORY_MODE)
}

/// Takes rights away that a copy or a restore may have given.
pub(super) fn tighten(home: &Path, files: &[&str]) -> Result<(), StoreError> {
    set_mode(home, DIRECTORY_MODE)?;
    files
        .iter()
        .try_for_each(|name| set_mode(&home.join(name), FILE_MODE))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StoreError> {
    match std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        // What is missing is reported by whoever needs it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(io("set the permissions of the device's files")),
    }
}

/// Removes these files, one after the other, and then the directory, unless it holds something else.
pub(super) fn erase(home: &Path, files: &[&str]) -> Result<(), StoreError> {
    for name in files.iter().chain(&[LOCK_NAME]) {
        match std::fs::remove_file(home.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.map_err(io("erase the device's files"))?,
        }
        File::open(home)
            .and_then(|directory| directory.sync_all())
            .map_err(io("erase the device's files"))?;
    }
    let _ = std::fs::remove_dir(home);
    Ok(())
}

/// Makes an empty database in place of whatever is there.
pub(super) fn new_database(path: &Path) -> Result<redb::Database, StoreError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(io("make the device's database"))?;
    // An empty file is a database to be.
    Ok(redb::Database::create(path)?)
}

/// The right to use a home. The system takes it back when the process ends, however it ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(home: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(home.join(LOCK_NAME))
            .map_err(io("open the device's lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(home.to_owned())),
            Err(TryLockError::Error(source)) => Err(StoreError::Io {
                what: "lock the device's directory",
                source,
            }),
        }
    }
}
