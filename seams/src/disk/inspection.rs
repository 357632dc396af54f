//! A file system that is looked at and never changed.
//!
//! Code that reads a directory back also tidies it up. Run over an [`Inspection`] it does all of
//! that, and none of it reaches the disk: what it would have changed is written down instead.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock};

/// A change that was asked for and not made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WithheldChange {
    /// A file would have been made.
    Create(PathBuf),
    /// A file that is there would have been written to.
    Write(PathBuf),
    /// A file would have got another name.
    Rename(PathBuf, PathBuf),
    /// A file would have been removed.
    Remove(PathBuf),
}

/// A view of a disk through which nothing can be changed. Clones share it.
#[derive(Debug, Clone)]
pub struct Inspection {
    disk: Arc<dyn Disk>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes_read: AtomicU64,
    withheld: Mutex<Withheld>,
}

#[derive(Debug, Default)]
struct Withheld {
    changes: Vec<WithheldChange>,
    /// Files that are there but would have been removed, or renamed to something else.
    gone: BTreeSet<PathBuf>,
    /// Files and folders that would have been made.
    made: BTreeSet<PathBuf>,
}

impl Withheld {
    fn is_there(&self, disk: &dyn Disk, path: &Path) -> bool {
        self.made.contains(path) || (!self.gone.contains(path) && disk.open(path).is_ok())
    }
}

impl Inspection {
    /// A view of this disk.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            state: Arc::default(),
        }
    }

    /// How many bytes of files were read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state.bytes_read.load(Ordering::Relaxed)
    }

    /// What would have been changed so far, in order.
    #[must_use]
    pub fn withheld(&self) -> Vec<WithheldChange> {
        self.state.withheld.lock().changes.clone()
    }

    fn file(&self, path: &Path, file: Option<Arc<dyn DiskFile>>) -> Arc<dyn DiskFile> {
        Arc::new(InspectedFile {
            path: path.to_owned(),
            written_upto: AtomicU64::new(0),
            file,
            state: Arc::clone(&self.state),
        })
    }
}

impl Disk for Inspection {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut withheld = self.state.withheld.lock();
        if withheld.is_there(&*self.disk, path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        withheld.made.insert(path.to_owned());
        withheld
            .changes
            .push(WithheldChange::Create(path.to_owned()));
        Ok(self.file(path, None))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let withheld = self.state.withheld.lock();
        if withheld.made.contains(path) {
            return Ok(self.file(path, None));
        }
        if withheld.gone.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.file(path, Some(self.disk.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut withheld = self.state.withheld.lock();
        if !withheld.is_there(&*self.disk, from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        withheld.made.remove(from);
        withheld.gone.insert(from.to_owned());
        withheld.made.insert(to.to_owned());
        let change = WithheldChange::Rename(from.to_owned(), to.to_owned());
        withheld.changes.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut withheld = self.state.withheld.lock();
        if !withheld.is_there(&*self.disk, path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        withheld.made.remove(path);
        withheld.gone.insert(path.to_owned());
        withheld
            .changes
            .push(WithheldChange::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let withheld = self.state.withheld.lock();
        let mut found: BTreeSet<PathBuf> = match self.disk.list(directory) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && withheld.made.contains(directory) =>
            {
                BTreeSet::new()
            }
            listed => listed?.into_iter().collect(),
        };
        found.retain(|path| !withheld.gone.contains(path));
        let made = withheld.made.iter();
        found.extend(
            made.filter(|path| path.parent() == Some(directory))
                .cloned(),
        );
        Ok(found.into_iter().collect())
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        match self.disk.list(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.state.withheld.lock().made.insert(directory.to_owned());
                Ok(())
            }
            listed => listed.map(drop),
        }
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        match self.disk.open(path) {
            // Without the file nobody holds the lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(NoLock)),
            _ => self.disk.lock(path),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

#[derive(Debug)]
struct NoLock;

impl DiskLock for NoLock {}

/// A file that is there, or one that was only asked for: what is written to that is not kept.
#[derive(Debug)]
struct InspectedFile {
    path: PathBuf,
    written_upto: AtomicU64,
    file: Option<Arc<dyn DiskFile>>,
    state: Arc<State>,
}

impl DiskFile for InspectedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        file.read_exact_at(buffer, offset)?;
        let bytes = buffer.len() as u64;
        self.state.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        self.written_upto.fetch_max(end, Ordering::Relaxed);
        if self.file.is_some() {
            let change = WithheldChange::Write(self.path.clone());
            self.state.withheld.lock().changes.push(change);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let there = self.file.as_ref().map_or(Ok(0), |file| file.len())?;
        Ok(there.max(self.written_upto.load(Ordering::Relaxed)))
    }
}
