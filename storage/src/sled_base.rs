//! sled as the base.
//!
//! This is the only file that names sled 0.34. What it has to be guarded against, as measured:
//!
//! - `flush` does not fsync, and power loss left most databases unusable: [`SledBase`] fsyncs all
//!   files itself in `Base::flush`, and nothing in a base is believed without a shutdown in good
//!   order (`store/session.rs`).
//! - A kill while it opens leaves a `snap.*.generating` file, which makes it unopenable: such
//!   files are removed before opening.
//! - On damaged files it panics as often as it returns an error: panics are caught and are errors.
//! - A batch takes a lock that stalls every reader in the process: callers keep batches small.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rossby_seams::base::{Base, BaseError, BaseRow, BaseWrite};

/// Memory for sled's page cache, in bytes, unless configured otherwise.
pub const DEFAULT_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// How long an open waits for an earlier handle to be let go of.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks.
const RELEASE_LOOK: Duration = Duration::from_millis(20);

/// Why sled could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SledOpenError {
    /// Another process, or another handle in this one, has it open. Deleting it would be wrong.
    #[error("the key-value base {} is in use by another process", path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
    /// The file system refused: no permission, no space. Deleting it would not help.
    #[error("can not access the key-value base {}: {reason}", path.display())]
    Inaccessible {
        /// Its folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The files are no database, or a damaged one, or of another version: delete the folder and
    /// open it again, then it is rebuilt from the checkpoint.
    #[error("the key-value base {} can not be used: {reason}", path.display())]
    Unusable {
        /// Its folder.
        path: PathBuf,
        /// What sled said.
        reason: String,
    },
}

/// A base on the disk, in a folder of its own.
#[derive(Debug)]
pub struct SledBase {
    db: sled::Db,
    path: PathBuf,
}

impl SledBase {
    /// Opens the base in a folder, made if missing, with this much memory for its cache. Waits a
    /// moment while it is in use: sled's threads let go of the files some time after the last handle
    /// is dropped.
    ///
    /// # Errors
    /// [`SledOpenError`], which tells whether deleting the folder is the thing to do.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, SledOpenError> {
        let deadline = Instant::now() + RELEASE_PATIENCE;
        loop {
            match Self::open_now(path, cache_bytes) {
                Err(SledOpenError::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(RELEASE_LOOK);
                }
                other => return other,
            }
        }
    }

    fn open_now(path: &Path, cache_bytes: u64) -> Result<Self, SledOpenError> {
        prepare(path).map_err(|error| SledOpenError::Inaccessible {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(Self {
                db,
                path: path.to_owned(),
            }),
            Ok(Err(error)) => Err(classify(path, error)),
            Err(panic) => Err(SledOpenError::Unusable {
                path: path.to_owned(),
                reason: format!("it panicked: {}", panic_text(&*panic)),
            }),
        }
    }

    /// Opens the base in a folder; if it can't be used, deletes the folder and makes an empty one,
    /// which is logged. The store then rebuilds it.
    ///
    /// # Errors
    /// [`SledOpenError`] if it is in use or inaccessible, or even an empty one can't be used.
    pub fn open_or_replace(path: &Path, cache_bytes: u64) -> Result<Self, SledOpenError> {
        match Self::open(path, cache_bytes) {
            Err(error @ SledOpenError::Unusable { .. }) => {
                tracing::warn!(%error, "deleting the key-value base; it is rebuilt from the checkpoint");
                Self::delete(path)?;
                Self::open(path, cache_bytes)
            }
            other => other,
        }
    }

    /// Deletes the base's folder. Not an error if there is none.
    ///
    /// # Errors
    /// [`SledOpenError::Inaccessible`].
    pub fn delete(path: &Path) -> Result<(), SledOpenError> {
        let inaccessible = |error: io::Error| SledOpenError::Inaccessible {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(inaccessible(error)),
            Ok(found) if found.is_dir() => fs::remove_dir_all(path).map_err(inaccessible),
            Ok(_) => fs::remove_file(path).map_err(inaccessible),
        }
    }

    /// Runs a call into sled, and makes an error of whatever goes wrong.
    fn guarded<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, BaseError> {
        match catch_unwind(AssertUnwindSafe(|| call(&self.db))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(BaseError(error.to_string())),
            Err(panic) => Err(BaseError(format!("sled panicked: {}", panic_text(&*panic)))),
        }
    }
}

impl Base for SledBase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BaseError> {
        self.guarded(|db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, BaseError> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.guarded(|db| {
            let pairs = db.range(start..end).take(limit);
            pairs
                .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
                .collect()
        })
    }

    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.guarded(|db| db.apply_batch(batch))
    }

    fn flush(&self) -> Result<(), BaseError> {
        self.guarded(|db| db.flush())?;
        sync_tree(&self.path).map_err(|error| BaseError(format!("could not sync: {error}")))
    }
}

/// Makes the folder, and removes what an interrupted opening left in it.
fn prepare(path: &Path) -> io::Result<()> {
    // Something else in its place is for sled to complain about.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|n| n.starts_with("snap.") && n.ends_with(".generating"))
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Fsyncs all files in a folder, and the folder.
fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            match File::open(entry.path()) {
                // sled removes its old snapshots on threads of its own.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?.sync_all()?,
            }
        }
    }
    File::open(directory)?.sync_all()
}

fn classify(path: &Path, error: sled::Error) -> SledOpenError {
    let path = path.to_owned();
    let reason = error.to_string();
    let sled::Error::Io(error) = error else {
        return SledOpenError::Unusable { path, reason };
    };
    match error.kind() {
        // sled has no kind of its own for a lock that is taken.
        _ if reason.contains("could not acquire lock") => SledOpenError::InUse { path },
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded => SledOpenError::Inaccessible { path, reason },
        _ => SledOpenError::Unusable { path, reason },
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE_BYTES: u64 = 1024 * 1024;

    fn put(base: &SledBase, key: &str, value: &str) {
        base.write(vec![(key.into(), Some(value.into()))]).unwrap();
    }

    #[test]
    fn rows_are_kept_in_order_and_found_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        let base = SledBase::open(&path, CACHE_BYTES).unwrap();
        for (key, value) in [("b", "2"), ("c", "3"), ("a", "1")] {
            put(&base, key, value);
        }
        base.write(vec![(b"c".to_vec(), None)]).unwrap();
        base.flush().unwrap();
        drop(base);
        let base = SledBase::open(&path, CACHE_BYTES).unwrap();
        let rows = base.range(b"a", b"z", 10).unwrap();
        assert_eq!(
            rows,
            [
                (b"a".to_vec(), b"1".to_vec()),
                (b"b".to_vec(), b"2".to_vec())
            ]
        );
        assert_eq!(base.range(b"a", b"z", 1).unwrap().len(), 1);
        assert_eq!(base.range(b"z", b"a", 1).unwrap().len(), 0);
        assert_eq!(base.get(b"c").unwrap(), None);
    }

    #[test]
    fn a_base_in_use_is_not_taken_for_a_damaged_one() {
        let folder = tempfile::tempdir().unwrap();
        let base = SledBase::open(folder.path(), CACHE_BYTES).unwrap();
        put(&base, "key", "value");
        let second = SledBase::open_or_replace(folder.path(), CACHE_BYTES);
        assert!(
            matches!(second, Err(SledOpenError::InUse { .. })),
            "{second:?}"
        );
        assert_eq!(base.get(b"key").unwrap(), Some(b"value".to_vec()));
    }

    #[test]
    fn garbage_in_its_place_is_an_error_and_can_be_replaced() {
        for name in ["db", "conf", "snap.0000000000000000"] {
            let folder = tempfile::tempdir().unwrap();
            let base = SledBase::open(folder.path(), CACHE_BYTES).unwrap();
            for number in 0..200 {
                put(&base, &format!("key {number}"), &"value".repeat(100));
            }
            base.flush().unwrap();
            drop(base);
            fs::write(folder.path().join(name), [0x5a; 4096]).unwrap();
            // sled may open what is left of a damaged log; then it is the session's row that tells.
            match SledBase::open(folder.path(), CACHE_BYTES) {
                Ok(_) | Err(SledOpenError::Unusable { .. }) => {}
                Err(other) => panic!("{name}: {other}"),
            }
            let base = SledBase::open_or_replace(folder.path(), CACHE_BYTES).unwrap();
            put(&base, "key", "value");
        }
    }

    #[test]
    fn a_file_where_the_folder_should_be_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        fs::write(&path, "not a folder").unwrap();
        assert!(matches!(
            SledBase::open(&path, CACHE_BYTES),
            Err(SledOpenError::Unusable { .. })
        ));
        SledBase::open_or_replace(&path, CACHE_BYTES).unwrap();
    }

    #[test]
    fn what_an_interrupted_opening_left_behind_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let base = SledBase::open(folder.path(), CACHE_BYTES).unwrap();
        put(&base, "key", "value");
        base.flush().unwrap();
        drop(base);
        fs::write(
            folder.path().join("snap.0000000000000042.generating"),
            "half",
        )
        .unwrap();
        let base = SledBase::open(folder.path(), CACHE_BYTES).unwrap();
        assert_eq!(base.get(b"key").unwrap(), Some(b"value".to_vec()));
    }
}
