//! A file system in memory that can lose power.
//!
//! ```text
//!   names as processes see them ── sync_directory ──► names that survive power loss
//!            │                                                 │
//!          inode: bytes as processes see them ── sync_data ──► bytes that survive power loss
//! ```
//!
//! A file whose bytes were synced but whose name was not is lost, and so is the other way round: the
//! name survives and the file is empty. [`MemoryDisk::crash`] gives the disk as it would be found
//! after power loss; faults can be planted at any operation.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::content::Content;
use super::{Disk, DiskFile, DiskLock};

/// What power loss does to writes, and to changes of names, that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerLoss {
    /// All of them are lost.
    DropUnsynced,
    /// Any of them may be lost: each 512-byte sector is found as it was when synced or as any later
    /// write left it, and each change of a name happened or did not. The seed decides.
    KeepSome {
        /// Equal seeds keep the same.
        seed: u64,
    },
    /// None is lost: the process was killed, the machine went on.
    KeepAll,
}

/// How a planted fault shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// The device failed (`EIO`). A sync that fails so has lost what it should have synced: those
    /// bytes can still be read, but no later sync makes them durable.
    Io,
    /// No space is left (`ENOSPC`).
    Full,
    /// The process has as many files open as it may (`EMFILE`).
    TooManyFiles,
}

impl DiskFault {
    fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()),
            Self::Full => io::ErrorKind::StorageFull.into(),
            Self::TooManyFiles => {
                io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())
            }
        }
    }
}

/// A disk in memory that loses what was not synced. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

type Inode = Arc<Mutex<Content>>;

/// Tells files apart for as long as they are held.
fn identity(inode: &Inode) -> usize {
    Arc::as_ptr(inode).addr()
}

#[derive(Debug, Clone)]
enum NameChange {
    Link {
        path: PathBuf,
        inode: Inode,
    },
    Unlink {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        inode: Inode,
    },
}

impl NameChange {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Link { path, .. } | Self::Unlink { path } => path.parent(),
            Self::Rename { to, .. } => to.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            Self::Link { path, inode } => {
                names.insert(path.clone(), Arc::clone(inode));
            }
            Self::Unlink { path } => {
                names.remove(path);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), Arc::clone(inode));
            }
        }
    }
}

#[derive(Debug)]
struct State {
    files: BTreeMap<PathBuf, Inode>,
    durable_files: BTreeMap<PathBuf, Inode>,
    /// Changes of names that are not durable yet, oldest first.
    unsynced: Vec<NameChange>,
    /// Folders; making one is durable at once, as the trait says.
    directories: BTreeSet<PathBuf>,
    /// Held locks: like `flock`, they are on the file, whatever its name.
    locks: BTreeSet<usize>,
    capacity: u64,
    used: u64,
    operations: u64,
    mutations: u64,
    faults: BTreeMap<u64, DiskFault>,
    stop_at: Option<u64>,
    stopped: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            durable_files: BTreeMap::new(),
            unsynced: Vec::new(),
            directories: [PathBuf::new(), PathBuf::from("/")].into(),
            locks: BTreeSet::new(),
            capacity: u64::MAX,
            used: 0,
            operations: 0,
            mutations: 0,
            faults: BTreeMap::new(),
            stop_at: None,
            stopped: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Mutate,
}

impl State {
    /// Every operation passes here first: it is counted, and a planted fault fires.
    fn admit(&mut self, access: Access) -> io::Result<()> {
        if access == Access::Mutate && !self.stopped {
            self.stopped = self.stop_at == Some(self.mutations + 1);
            self.mutations += u64::from(!self.stopped);
        }
        if self.stopped {
            return Err(io::Error::other("the disk has lost power"));
        }
        self.operations += 1;
        match self.faults.remove(&self.operations) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    fn inode(&self, path: &Path) -> io::Result<Inode> {
        self.check_parent(path)?;
        if self.directories.contains(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn check_directory(&self, directory: &Path) -> io::Result<()> {
        if self.directories.contains(directory) {
            return Ok(());
        }
        let through_file = directory
            .ancestors()
            .any(|above| self.files.contains_key(above));
        Err(if through_file {
            io::ErrorKind::NotADirectory
        } else {
            io::ErrorKind::NotFound
        }
        .into())
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        self.check_directory(path.parent().ok_or(io::ErrorKind::NotFound)?)
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.files);
        self.unsynced.push(change);
    }

    fn make(&mut self, path: &Path) -> io::Result<Inode> {
        self.check_parent(path)?;
        if self.files.contains_key(path) || self.directories.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode::default();
        self.change(NameChange::Link {
            path: path.to_owned(),
            inode: Arc::clone(&inode),
        });
        Ok(inode)
    }

    /// The space of a file whose last name goes is free at once, even if it is still open.
    fn release(&mut self, inode: &Inode) {
        self.used = self.used.saturating_sub(inode.lock().unlink());
    }

    fn after(&self, loss: PowerLoss) -> Self {
        let chance = content::Chance::of(loss);
        let mut names = match loss {
            PowerLoss::KeepAll => self.files.clone(),
            _ => self.durable_files.clone(),
        };
        if matches!(loss, PowerLoss::KeepSome { .. }) {
            for change in self.unsynced.iter().filter(|_| chance.keeps()) {
                change.apply(&mut names);
            }
        }
        let mut copies: BTreeMap<usize, Inode> = BTreeMap::new();
        let mut used = 0;
        let mut files = BTreeMap::new();
        for (path, inode) in names {
            let copy = copies.entry(identity(&inode)).or_insert_with(|| {
                let content = inode.lock().after(loss, &chance);
                used += content.length();
                Arc::new(Mutex::new(content))
            });
            files.insert(path, Arc::clone(copy));
        }
        Self {
            durable_files: files.clone(),
            files,
            directories: self.directories.clone(),
            capacity: self.capacity,
            used,
            ..Self::default()
        }
    }
}

impl MemoryDisk {
    /// The disk as it is found after power loss now. This one is dead from now on: every operation
    /// on it, and on files opened from it, fails. Locks are gone, planted faults too.
    #[must_use]
    pub fn crash(&self, loss: PowerLoss) -> Self {
        let mut state = self.0.lock();
        state.stopped = true;
        Self(Arc::new(Mutex::new(state.after(loss))))
    }

    /// What [`Self::crash`] would give, while this disk goes on.
    #[must_use]
    pub fn fork(&self, loss: PowerLoss) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().after(loss))))
    }

    /// How many operations of any kind were tried so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// How many operations that write, sync or change names were tried so far.
    #[must_use]
    pub fn mutations(&self) -> u64 {
        self.0.lock().mutations
    }

    /// Makes the operation with this number (the next one is `operations() + 1`) fail, once.
    pub fn fail_operation(&self, number: u64, fault: DiskFault) {
        self.0.lock().faults.insert(number, fault);
    }

    /// Takes the power away before the mutating operation with this number (the next one is
    /// `mutations() + 1`): it and everything later fails.
    pub fn stop_at_mutation(&self, number: u64) {
        self.0.lock().stop_at = Some(number);
    }

    /// Limits the sum of all file lengths. Files may only grow while they fit.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    /// The sum of all file lengths.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().used
    }

    fn file(&self, inode: Inode) -> Arc<dyn DiskFile> {
        Arc::new(MemoryFile {
            disk: self.clone(),
            inode,
        })
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.admit(Access::Mutate)?;
        let inode = state.make(path)?;
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.admit(Access::Read)?;
        let inode = state.inode(path)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.admit(Access::Mutate)?;
        state.check_parent(from)?;
        state.check_parent(to)?;
        let inode = state.inode(from)?;
        if from != to && from.starts_with(to) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if state.directories.contains(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from == to {
            return Ok(());
        }
        if let Some(replaced) = state.files.get(to).cloned() {
            state.release(&replaced);
        }
        if from.parent() == to.parent() {
            state.change(NameChange::Rename {
                from: from.to_owned(),
                to: to.to_owned(),
                inode,
            });
        } else {
            // Two folders, so two syncs: power loss between them may leave both names or neither.
            state.change(NameChange::Link {
                path: to.to_owned(),
                inode,
            });
            state.change(NameChange::Unlink {
                path: from.to_owned(),
            });
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.admit(Access::Mutate)?;
        let inode = state.inode(path)?;
        state.release(&inode);
        state.change(NameChange::Unlink {
            path: path.to_owned(),
        });
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.0.lock();
        state.admit(Access::Read)?;
        state.check_directory(directory)?;
        let all = state.files.keys().chain(&state.directories);
        let inside: BTreeSet<_> = all
            .filter(|path| path.parent() == Some(directory))
            .collect();
        Ok(inside.into_iter().cloned().collect())
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.directories.contains(directory) {
            return state.admit(Access::Read);
        }
        state.admit(Access::Mutate)?;
        if state.files.contains_key(directory) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if directory
            .ancestors()
            .any(|above| state.files.contains_key(above))
        {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        state
            .directories
            .extend(directory.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.admit(Access::Mutate)?;
        state.check_directory(directory)?;
        let (synced, unsynced) = std::mem::take(&mut state.unsynced)
            .into_iter()
            .partition(|change| change.directory() == Some(directory));
        state.unsynced = unsynced;
        let synced: Vec<NameChange> = synced;
        synced
            .iter()
            .for_each(|change| change.apply(&mut state.durable_files));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.0.lock();
        let missing = !state.files.contains_key(path) && !state.directories.contains(path);
        state.admit(if missing {
            Access::Mutate
        } else {
            Access::Read
        })?;
        let inode = if missing {
            state.make(path)?
        } else {
            state.inode(path)?
        };
        if !state.locks.insert(identity(&inode)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock {
            disk: self.clone(),
            inode,
        }))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let mut state = self.0.lock();
        state.admit(Access::Read)?;
        Ok(state.capacity.saturating_sub(state.used))
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: MemoryDisk,
    inode: Inode,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.0.lock().locks.remove(&identity(&self.inode));
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: Inode,
}

impl DiskFile for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.0.lock().admit(Access::Read)?;
        self.inode.lock().read_exact(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.admit(Access::Mutate)?;
        let mut content = self.inode.lock();
        let growth = content.growth(bytes.len(), offset)?;
        if growth > state.capacity.saturating_sub(state.used) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.used += growth;
        content.write(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let admitted = self.disk.0.lock().admit(Access::Mutate);
        let mut content = self.inode.lock();
        match admitted {
            Ok(()) => content.sync(),
            Err(_) => content.fail_sync(),
        }
        admitted
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.0.lock().admit(Access::Read)?;
        Ok(self.inode.lock().length())
    }
}
