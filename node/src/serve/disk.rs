//! The disk as the node uses it: the operating system's, watched. How long its syncs take, what errors
//! it gives, and how much of its space is spoken for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use rossby_seams::disk::{Disk, DiskFile, DiskLock, FileDisk};

/// What errors are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    kind: &'static str,
}

/// The disk of a node's log, checkpoints and identity. The key-value base is not watched: it goes
/// its own ways. Clones share it.
#[derive(Debug, Clone)]
pub struct NodeDisk {
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct Watch {
    sync_seconds: Histogram,
    errors: Family<ErrorLabel, Counter>,
    /// When each sync that is under way began.
    under_way: Mutex<BTreeMap<u64, Instant>>,
    next: AtomicU64,
    /// The longest sync since somebody asked, in microseconds.
    longest_us: AtomicU64,
    /// Bytes of the file system that look free and are kept back.
    kept_back: AtomicU64,
}

impl NodeDisk {
    /// The file system of this machine.
    pub fn new() -> Self {
        // 0.1 ms to 52 s.
        let sync_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 20));
        Self {
            watch: Arc::new(Watch {
                sync_seconds,
                errors: Family::default(),
                under_way: Mutex::default(),
                next: AtomicU64::new(0),
                longest_us: AtomicU64::new(0),
                kept_back: AtomicU64::new(0),
            }),
        }
    }

    /// Registers its figures.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "rossby_disk_sync_seconds",
            "Time that the disk takes to make log, checkpoints and identity durable",
            self.watch.sync_seconds.clone(),
        );
        registry.register(
            "rossby_disk_errors",
            "Errors of the disk, by kind: full, io",
            self.watch.errors.clone(),
        );
    }

    /// From now on this many bytes that look free are not for the log or the checkpoints.
    pub fn keep_back(&self, bytes: u64) {
        self.watch.kept_back.store(bytes, Ordering::Relaxed);
    }

    /// The longest sync since the last call, one that is still under way included.
    pub fn take_longest_sync(&self) -> Duration {
        let ended = self.watch.longest_us.swap(0, Ordering::Relaxed);
        let under_way = self.watch.under_way.lock();
        let oldest = under_way.values().map(Instant::elapsed).max();
        Duration::from_micros(ended).max(oldest.unwrap_or_default())
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let watch = Arc::clone(&self.watch);
        Arc::new(WatchedFile { file, watch })
    }
}

impl Watch {
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        use io::ErrorKind::{AlreadyExists, NotFound, QuotaExceeded, StorageFull, WouldBlock};
        if let Err(error) = &result {
            let kind = match error.kind() {
                NotFound | AlreadyExists | WouldBlock => return result,
                StorageFull | QuotaExceeded => "full",
                _ => "io",
            };
            self.errors.get_or_create(&ErrorLabel { kind }).inc();
        }
        result
    }

    fn timed<T>(&self, sync: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let (number, began) = (self.next.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.under_way.lock().insert(number, began);
        let result = sync();
        self.under_way.lock().remove(&number);
        let took = began.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.longest_us.fetch_max(micros, Ordering::Relaxed);
        self.sync_seconds.observe(took.as_secs_f64());
        self.noted(result)
    }
}

impl Disk for NodeDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.watch.noted(FileDisk.create(path))?;
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.watch.noted(FileDisk.open(path))?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.watch.noted(FileDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.watch.noted(FileDisk.remove(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.watch.noted(FileDisk.list(directory))
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.watch.noted(FileDisk.create_directory(directory))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.watch.timed(|| FileDisk.sync_directory(directory))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.watch.noted(FileDisk.lock(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let free = self.watch.noted(FileDisk.free_bytes(path))?;
        Ok(free.saturating_sub(self.watch.kept_back.load(Ordering::Relaxed)))
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn DiskFile>,
    watch: Arc<Watch>,
}

impl DiskFile for WatchedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.watch.noted(self.file.read_exact_at(buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.watch.noted(self.file.write_all_at(bytes, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watch.timed(|| self.file.sync_data())
    }

    fn len(&self) -> io::Result<u64> {
        self.watch.noted(self.file.len())
    }
}
