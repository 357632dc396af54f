//! Space on the disk, and its speed, looked after while the node runs.
//!
//! ```text
//!   plenty ──► the reserve is held: a file of <data>/reserve, allocated and never written
//!   nearly full, whoever filled it ──► the file goes; its space is for what can't wait: votes, the
//!              identity, the base; the log and the checkpoints count it as taken
//!   space again ──► it is made anew
//! ```
//!
//! So a node starts, votes and serves reads on a disk that somebody else has filled to the last byte.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rossby_seams::disk::{Disk as _, FileDisk};
use rustix::fs::{FallocateFlags, fallocate};
use tracing::{info, warn};

use super::disk::NodeDisk;

/// The reserve's name in the data directory.
pub const FILE: &str = "reserve";
/// The reserve is given up when less than this part of it is free besides.
const LOW_PART: u64 = 8;
/// Two warnings of a slow disk are at least this far apart.
const SLOW_REPEAT: Duration = Duration::from_secs(30);
/// A sync that takes longer makes everybody wait.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// Looks after the space of a data directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Space {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: NodeDisk,
    data: PathBuf,
    bytes: u64,
    free: AtomicU64,
    held: AtomicBool,
    /// Whether the log was seen to refuse entries.
    refusing: AtomicBool,
    warned_slow: Mutex<Option<Instant>>,
}

impl Space {
    /// Of a data directory, with a reserve of this many bytes. Gives it up at once if the disk is
    /// full: what follows needs some space.
    pub fn new(disk: NodeDisk, data: &Path, bytes: u64) -> Self {
        let space = Self {
            shared: Arc::new(Shared {
                disk,
                data: data.to_owned(),
                bytes,
                free: AtomicU64::new(0),
                held: AtomicBool::new(is_whole(&data.join(FILE), bytes)),
                refusing: AtomicBool::new(false),
                warned_slow: Mutex::new(None),
            }),
        };
        space.look();
        space
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        self.shared.free.load(Ordering::Relaxed)
    }

    /// Whether the reserve is there.
    pub fn is_reserve_held(&self) -> bool {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// Whether the log refuses entries for lack of space.
    pub fn is_refusing(&self) -> bool {
        self.shared.refusing.load(Ordering::Relaxed)
    }

    /// Gives the reserve up, or makes it, as the free space asks for. Blocking I/O.
    pub fn look(&self) {
        let shared = &self.shared;
        let Ok(free) = FileDisk.free_bytes(&shared.data) else {
            return;
        };
        shared.free.store(free, Ordering::Relaxed);
        let low = shared.bytes / LOW_PART;
        let path = shared.data.join(FILE);
        let held = self.is_reserve_held();
        if held && free < low {
            // Counted as taken before it is free, so that nobody else gets it.
            shared.disk.keep_back(shared.bytes);
            shared.held.store(false, Ordering::Relaxed);
            warn!(
                free,
                "the disk is nearly full: using the reserve for what can not wait"
            );
            if let Err(error) = fs::remove_file(&path) {
                warn!(%error, "the reserve could not be given up");
            }
        } else if !held && shared.bytes > 0 {
            shared.disk.keep_back(shared.bytes);
            let enough = free >= shared.bytes.saturating_mul(2);
            if enough && self.hold(&path).is_ok() {
                shared.held.store(true, Ordering::Relaxed);
                shared.disk.keep_back(0);
            }
        }
    }

    fn hold(&self, path: &Path) -> io::Result<()> {
        let made = allocate(path, self.shared.bytes);
        if let Err(error) = &made {
            // Without it the same space is kept back by count alone.
            tracing::debug!(%error, "the reserve could not be made");
            let _ = fs::remove_file(path);
        }
        made
    }

    /// Notes whether the log takes entries, and says so when that changes.
    pub fn note_log(&self, accepts: bool) {
        let was = self.shared.refusing.swap(!accepts, Ordering::Relaxed);
        let free = self.free_bytes();
        match (was, accepts) {
            (false, false) => {
                warn!(
                    free,
                    "the disk is full: writes are refused until there is space again"
                );
            }
            (true, true) => info!(free, "there is space on the disk again: writes are taken"),
            _ => {}
        }
    }

    /// Says so if the disk is slow.
    pub fn note_speed(&self) {
        let longest = self.shared.disk.take_longest_sync();
        if longest < SLOW_SYNC {
            return;
        }
        let mut warned = self.shared.warned_slow.lock();
        if warned.is_none_or(|at| at.elapsed() >= SLOW_REPEAT) {
            *warned = Some(Instant::now());
            let took_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
            warn!(
                took_ms,
                "the disk is slow: making writes durable takes too long"
            );
        }
    }
}

/// Whether the reserve was made to its end; what a kill left of one is not worth keeping.
fn is_whole(path: &Path, bytes: u64) -> bool {
    let whole = fs::metadata(path)
        .is_ok_and(|found| found.len() == bytes && found.blocks().saturating_mul(512) >= bytes);
    if !whole {
        // If it can't be removed, it can't be made anew either, which is said then.
        let _ = fs::remove_file(path);
    }
    whole
}

/// Makes a file whose space is set aside on the disk.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_held_where_there_is_space_and_counted_as_taken_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let disk = NodeDisk::new();
        let space = Space::new(disk.clone(), folder.path(), 1 << 20);
        assert!(space.is_reserve_held());
        let length = folder.path().join(FILE).metadata().unwrap().len();
        assert_eq!(length, 1 << 20);
        // Killed while it was made; or it is to have another size now.
        for rest in [0, 4096, 1 << 21] {
            let file = File::create(folder.path().join(FILE)).unwrap();
            file.set_len(rest).unwrap();
            let space = Space::new(disk.clone(), folder.path(), 1 << 20);
            assert!(space.is_reserve_held());
            let found = folder.path().join(FILE).metadata().unwrap();
            assert!(
                found.len() == 1 << 20 && found.blocks() >= 2048,
                "{rest}: {found:?}"
            );
        }
        // More than any disk has.
        let other = tempfile::tempdir().unwrap();
        let space = Space::new(disk.clone(), other.path(), u64::MAX / 2);
        assert!(!space.is_reserve_held());
        assert_eq!(disk.free_bytes(other.path()).unwrap(), 0);
        assert!(!other.path().join(FILE).exists());
    }
}
