//! The files of a group's checkpoints: named by their digest, kept as long as somebody needs them.
//!
//! ```text
//!   <checkpoints>/<group>/manifest            the published checkpoint
//!                        /<sha-256>.rows      rows of one partition; never changed once named so
//!                        /writing-<n>.tmp     on its way to becoming one
//!                        /staging/            a checkpoint on its way in from a peer
//! ```
//!
//! A file stays while the manifest on the disk names it (or may name it), and while there is a
//! [`Pin`] on it: for a checkpoint that is being written, received or read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rossby_domain::ids::GroupId;
use rossby_seams::disk::Disk;
use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// A file of a checkpoint, named by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileName {
    /// SHA-256 of the content.
    pub digest: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
}

impl FileName {
    /// The digest in hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        hex(&self.digest)
    }

    /// How the file is called in a folder of checkpoint files.
    #[must_use]
    pub fn on_disk(&self) -> String {
        self.hex() + ROWS_SUFFIX
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string can not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The folder of a group's checkpoint files.
#[derive(Debug)]
pub(crate) struct GroupFiles {
    pub(crate) group: GroupId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    kept: Mutex<Kept>,
    scratch: AtomicU64,
}

/// Why files are kept.
#[derive(Debug, Default)]
struct Kept {
    /// How many pins each file has.
    pins: BTreeMap<[u8; 32], usize>,
    /// The files that the manifest on the disk names, or may name.
    named: BTreeSet<[u8; 32]>,
    /// Files that are not what their names say, until a good one takes their place.
    damaged: BTreeSet<[u8; 32]>,
}

impl Kept {
    fn keeps(&self, digest: &[u8; 32]) -> bool {
        self.named.contains(digest) || self.pins.contains_key(digest)
    }

    fn pin(&mut self, digest: [u8; 32]) {
        *self.pins.entry(digest).or_default() += 1;
    }
}

const ROWS_SUFFIX: &str = ".rows";
/// Space that checkpoints leave to the log, and to what the base writes beside rows.
pub(crate) const SPARE_BYTES: u64 = 16 << 20;

impl GroupFiles {
    /// The files of a group, in a folder that is made if missing.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        checkpoints: &Path,
        group: GroupId,
    ) -> Result<Arc<Self>, StoreError> {
        let directory = checkpoints.join(group.to_string());
        disk.create_directory(&directory)
            .map_err(StoreError::io("create folder", &directory))?;
        Ok(Self::at(disk, directory, group))
    }

    /// The files of a group in this very folder.
    pub(crate) fn at(disk: Arc<dyn Disk>, directory: PathBuf, group: GroupId) -> Arc<Self> {
        Arc::new(Self {
            group,
            disk,
            directory,
            kept: Mutex::default(),
            scratch: AtomicU64::default(),
        })
    }

    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.directory.join("manifest")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.directory.join("staging")
    }

    pub(crate) fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.directory.join(hex(digest) + ROWS_SUFFIX)
    }

    /// A fresh name for a file being written.
    pub(crate) fn scratch(&self) -> PathBuf {
        let number = self.scratch.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("writing-{number}.tmp"))
    }

    /// Refuses, as a full disk does, what may need so many bytes. The base takes no part in this
    /// by itself, and may never work again once it has met a full disk.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let free = self.disk.free_bytes(&self.directory);
        let free = free.map_err(StoreError::io("measure the space of", &self.directory))?;
        if free < bytes.saturating_add(SPARE_BYTES) {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(StoreError::io("write a checkpoint in", &self.directory)(
                full,
            ));
        }
        Ok(())
    }

    /// Gives a complete, synced file its name, and pins it. The name is durable after
    /// [`Self::sync`]. A file that is there already has the same content, and is replaced.
    pub(crate) fn adopt(self: &Arc<Self>, from: &Path, name: &FileName) -> Result<Pin, StoreError> {
        let to = self.path(&name.digest);
        let mut kept = self.kept.lock();
        self.disk
            .rename(from, &to)
            .map_err(StoreError::io("rename", from))?;
        kept.damaged.remove(&name.digest);
        kept.pin(name.digest);
        Ok(Pin {
            files: Arc::clone(self),
            name: *name,
        })
    }

    /// Notes that a file is not what its name says.
    pub(crate) fn note_damaged(&self, name: &FileName) {
        self.kept.lock().damaged.insert(name.digest);
    }

    /// Pins a file if it is there, has the right length and was not found to be damaged.
    pub(crate) fn pin(self: &Arc<Self>, name: &FileName) -> Result<Option<Pin>, StoreError> {
        let path = self.path(&name.digest);
        let mut kept = self.kept.lock();
        let length = match self.disk.open(&path).and_then(|file| file.len()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StoreError::io("open", &path))?,
        };
        if length != name.length || kept.damaged.contains(&name.digest) {
            return Ok(None);
        }
        kept.pin(name.digest);
        Ok(Some(Pin {
            files: Arc::clone(self),
            name: *name,
        }))
    }

    fn unpin(&self, digest: &[u8; 32]) {
        let mut kept = self.kept.lock();
        let Some(count) = kept.pins.get_mut(digest) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            kept.pins.remove(digest);
            self.discard_unless_kept(&kept, digest);
        }
    }

    /// Notes that the manifest on the disk may name these files from now on, too.
    pub(crate) fn may_be_named<'a>(&self, names: impl Iterator<Item = &'a FileName>) {
        self.kept.lock().named.extend(names.map(|name| name.digest));
    }

    /// Notes that the manifest on the disk names these files and no others, and removes those that
    /// are not needed any more.
    pub(crate) fn are_named<'a>(&self, names: impl Iterator<Item = &'a FileName>) {
        let mut kept = self.kept.lock();
        let named = names.map(|name| name.digest).collect();
        for digest in std::mem::replace(&mut kept.named, named) {
            self.discard_unless_kept(&kept, &digest);
        }
    }

    fn discard_unless_kept(&self, kept: &Kept, digest: &[u8; 32]) {
        if !kept.keeps(digest) {
            self.discard(&self.path(digest));
        }
    }

    /// Makes all names in the folder durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.disk
            .sync_directory(&self.directory)
            .map_err(StoreError::io("sync folder", &self.directory))
    }

    /// Removes a file that nobody needs. Failing to is a waste of space, not an error.
    pub(crate) fn discard(&self, path: &Path) {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "could not remove an unneeded file");
            }
            _ => {}
        }
    }

    /// Removes what an earlier run left behind: files that nothing keeps, and half-written ones.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let kept = self.kept.lock();
        let stems: BTreeSet<String> = kept
            .named
            .iter()
            .chain(kept.pins.keys())
            .map(|digest| hex(digest))
            .collect();
        let entries = self.disk.list(&self.directory);
        for path in entries.map_err(StoreError::io("list", &self.directory))? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let unneeded = name
                .strip_suffix(ROWS_SUFFIX)
                .is_some_and(|stem| !stems.contains(stem));
            if unneeded || name.ends_with(".tmp") {
                self.discard(&path);
            }
        }
        Ok(())
    }
}

/// Keeps a file. Clones keep it too.
#[derive(Debug)]
pub(crate) struct Pin {
    files: Arc<GroupFiles>,
    name: FileName,
}

impl Pin {
    pub(crate) fn name(&self) -> &FileName {
        &self.name
    }

    pub(crate) fn files(&self) -> &GroupFiles {
        &self.files
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        self.files.kept.lock().pin(self.name.digest);
        Self {
            files: Arc::clone(&self.files),
            name: self.name,
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.files.unpin(&self.name.digest);
    }
}
