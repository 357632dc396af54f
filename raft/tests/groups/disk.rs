//! The disk of a node: in memory, as slow as real ones are, and watched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rossby_domain::ids::NodeId;
use rossby_seams::disk::{Disk, DiskFile, DiskLock, MemoryDisk};
use rossby_seams::transport::MemoryNetwork;

use super::world::PATIENCE;

/// What a test sees of the checkpoints on a node's disk, and does to them.
#[derive(Debug, Default)]
pub struct Tap {
    staged: AtomicU64,
    breaks: Mutex<Breaks>,
    held: Mutex<bool>,
    waiting: AtomicU64,
    released: Condvar,
}

/// When the links of a node break.
#[derive(Debug, Default)]
pub struct Breaks {
    pub network: MemoryNetwork,
    pub node: NodeId,
    /// After so many bytes of checkpoints have come in, rising.
    pub after: Vec<u64>,
}

impl Tap {
    pub fn new(breaks: Breaks) -> Arc<Self> {
        let breaks = Mutex::new(breaks);
        Arc::new(Self {
            breaks,
            ..Self::default()
        })
    }

    /// Bytes of checkpoints that came in from others.
    pub fn staged(&self) -> u64 {
        self.staged.load(Ordering::SeqCst)
    }

    /// The breaks that are still to come.
    pub fn breaks_left(&self) -> usize {
        self.breaks.lock().after.len()
    }

    /// From now on no checkpoint of the node's own is written, and no state is recovered, until
    /// [`Self::release`].
    pub fn hold(&self) {
        *self.held.lock() = true;
    }

    /// Waits until something is held back. Leaves the thread to others meanwhile.
    pub async fn has_held(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Lets all go on.
    pub fn release(&self) {
        *self.held.lock() = false;
        self.released.notify_all();
    }

    fn pass(&self) {
        let mut held = self.held.lock();
        self.waiting.fetch_add(u64::from(*held), Ordering::SeqCst);
        let ended = self
            .released
            .wait_while_for(&mut held, |held| *held, 2 * PATIENCE);
        assert!(!ended.timed_out(), "never released");
    }

    fn came_in(&self, bytes: u64) {
        let staged = self.staged.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let mut breaks = self.breaks.lock();
        if breaks.after.first().is_some_and(|after| staged >= *after) {
            breaks.after.remove(0);
            breaks.network.isolate(breaks.node);
            breaks.network.heal();
        }
    }
}

/// A disk that takes its time to sync, as real ones do.
#[derive(Debug)]
pub struct SlowDisk {
    pub disk: MemoryDisk,
    pub sync_delay: Duration,
    pub tap: Arc<Tap>,
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn DiskFile>,
    sync_delay: Duration,
    // Of a checkpoint on its way in.
    incoming: Option<Arc<Tap>>,
}

impl SlowDisk {
    fn slow(&self, file: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        let staged = path
            .parent()
            .is_some_and(|folder| folder.ends_with("staging"));
        Arc::new(SlowFile {
            file,
            sync_delay: self.sync_delay,
            incoming: staged.then(|| self.tap.clone()),
        })
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("writing-")) {
            self.tap.pass();
        }
        Ok(self.slow(self.disk.create(path)?, path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.slow(self.disk.open(path)?, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        if directory.starts_with("/checkpoints") {
            self.tap.pass();
        }
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.disk.create_directory(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_directory(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

impl DiskFile for SlowFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        if let Some(tap) = &self.incoming {
            tap.came_in(bytes.len() as u64);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(self.sync_delay);
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
