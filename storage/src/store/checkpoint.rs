//! Published checkpoints, and those that were received: what they hold, for whoever ships or installs
//! them.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::PartitionId;
use rossby_seams::disk;

use super::envelopes::StoredEnvelopes;
use super::error::StoreError;
use super::files::{FileName, GroupFiles, Pin};
use super::manifest::Manifest;
use crate::LogPosition;

/// The most bytes that [`Checkpoint::read`] gives at a time.
const MAX_PIECE_BYTES: u32 = 4 * 1024 * 1024;

/// A published checkpoint, or a received one: its manifest and where its files are. The files stay
/// as long as a clone of it lives.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    inner: Arc<CheckpointInner>,
}

#[derive(Debug)]
struct CheckpointInner {
    files: Arc<GroupFiles>,
    manifest: Manifest,
    bytes: Bytes,
    /// In order of name.
    pins: Vec<Pin>,
}

impl Checkpoint {
    pub(crate) fn new(
        files: &Arc<GroupFiles>,
        manifest: Manifest,
        bytes: Bytes,
        mut pins: Vec<Pin>,
    ) -> Self {
        pins.sort_by_key(|pin| *pin.name());
        Self {
            inner: Arc::new(CheckpointInner {
                files: Arc::clone(files),
                manifest,
                bytes,
                pins,
            }),
        }
    }

    pub(crate) fn contents(&self) -> &Manifest {
        &self.inner.manifest
    }

    pub(crate) fn pins(&self) -> Vec<Pin> {
        self.inner.pins.clone()
    }

    /// The envelopes of a partition; those that were there before give what they know of their files.
    ///
    /// # Errors
    /// Those of [`StoredEnvelopes::next`].
    pub(crate) fn envelopes(
        &self,
        partition: PartitionId,
        before: &StoredEnvelopes,
    ) -> Result<StoredEnvelopes, StoreError> {
        let CheckpointInner { manifest, pins, .. } = &*self.inner;
        let pin = |name: &FileName| {
            let at = pins.binary_search_by(|pin| pin.name().cmp(name)).ok()?;
            pins.get(at).cloned()
        };
        let files = manifest
            .partitions
            .binary_search_by(|files| files.partition.cmp(&partition))
            .ok()
            .and_then(|at| manifest.partitions.get(at));
        match files {
            Some(files) => before.next(files, pin),
            None => Ok(StoredEnvelopes::default()),
        }
    }

    /// Makes this the group's checkpoint on the disk, in one atomic and durable step.
    pub(crate) fn publish_manifest(&self) -> Result<(), StoreError> {
        let files = &self.inner.files;
        let path = files.manifest_path();
        // If it fails, which manifest is there is not known, and the files of both must stay.
        files.may_be_named(self.inner.manifest.files());
        disk::replace(files.disk.deref(), &path, &self.inner.bytes)
            .map_err(StoreError::io("replace", &path))?;
        files.are_named(self.inner.manifest.files());
        Ok(())
    }

    /// The entry it holds the state at.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.inner.manifest.position
    }

    /// The membership at that entry.
    #[must_use]
    pub fn membership(&self) -> Option<(Option<LogPosition>, Bytes)> {
        self.inner.manifest.membership.clone()
    }

    /// The manifest's bytes, to be sent to a follower.
    #[must_use]
    pub fn manifest(&self) -> Bytes {
        self.inner.bytes.clone()
    }

    /// The files it consists of, each once.
    #[must_use]
    pub fn files(&self) -> Vec<FileName> {
        self.inner.pins.iter().map(|pin| *pin.name()).collect()
    }

    /// A piece of a file, at most `length` bytes and 4 MiB; empty at its end. The receiver verifies
    /// the digest. The files of a checkpoint stay readable as long as a clone of it lives.
    ///
    /// # Errors
    /// [`StoreError::Transfer`] for a file that is not part of it or an offset beyond its end,
    /// [`StoreError::Io`].
    pub fn read(&self, file: &FileName, offset: u64, length: u32) -> Result<Bytes, StoreError> {
        if !self.inner.pins.iter().any(|pin| pin.name() == file) {
            return Err(StoreError::Transfer(
                "the file is not part of the checkpoint",
            ));
        }
        let left = file.length.checked_sub(offset).ok_or(StoreError::Transfer(
            "the offset is beyond the end of the file",
        ))?;
        let length = left.min(length.min(MAX_PIECE_BYTES).into());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let files = &self.inner.files;
        let path = files.path(&file.digest);
        files
            .disk
            .open(&path)
            .and_then(|handle| handle.read_exact_at(&mut bytes, offset))
            .map_err(StoreError::io("read", &path))?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
impl Checkpoint {
    /// Where a file is, for tests that damage it.
    pub(super) fn inner_path(&self, file: &FileName) -> std::path::PathBuf {
        self.inner.files.path(&file.digest)
    }
}
