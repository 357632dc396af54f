//! Files of the log and the checkpoints.
//!
//! The trait is the least that a write-ahead log and immutable checkpoint files need, with the
//! durability rules of POSIX spelled out: bytes are safe after `sync_data` on the file, names
//! (creation, rename, removal) are safe after `sync_directory` on the folder, and nothing else is.

mod file;
mod inspection;
mod memory;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use file::{FileDisk, ReadOnlyFileDisk};
pub use inspection::{Inspection, WithheldChange};
pub use memory::{DiskFault, MemoryDisk, PowerLoss};

/// An open file. Reads and writes name their offset, so a handle can be shared.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads exactly `buffer.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends earlier; otherwise the system's error.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, growing the file if needed. Not durable until synced.
    ///
    /// # Errors
    /// The system's error; how much was written is then unknown.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all earlier writes to this file, and its length, durable (`fdatasync`).
    ///
    /// # Errors
    /// The system's error. What was written since the last success is then in an unknown state,
    /// and stays so: calling again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// The system's error.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The system's error.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Proof that this process alone uses a data directory; released on drop and on any kind of death.
pub trait DiskLock: Send + Sync + Debug {}

/// A file system.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Makes a new empty file, open for reading and writing. Its name is durable after
    /// [`Disk::sync_directory`] on the parent.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; otherwise the system's error.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none; otherwise the system's error.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing what the new name held, in one step.
    ///
    /// # Errors
    /// The system's error.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` if there is none; otherwise the system's error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The files and folders in a folder, sorted by name.
    ///
    /// # Errors
    /// `NotFound` if there is no such folder; otherwise the system's error.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a folder and its parents, durable, mode 0700. Not an error if it is there.
    ///
    /// # Errors
    /// The system's error.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in this folder durable.
    ///
    /// # Errors
    /// The system's error.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Claims a lock file for this process (made if missing).
    ///
    /// # Errors
    /// `WouldBlock` if another process, or another holder in this one, has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Bytes that a writer may still use on the file system that holds `path`.
    ///
    /// # Errors
    /// The system's error.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// Reads a whole file.
///
/// # Errors
/// Those of [`Disk::open`] and of reading.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let length = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a file's content in one durable step: after a crash there is the old or the new, whole.
/// The new content passes through `<path>.tmp` in the same folder.
///
/// # Errors
/// The system's error; the old content is then still there, or the new.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".tmp");
    let staging = parent.join(name);
    match disk.remove(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&staging)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&staging, path)?;
    disk.sync_directory(parent)
}
