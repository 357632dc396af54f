//! Checkpoints: cut, written, published; and read by those who ship them.
//!
//! ```text
//!   cut ──► write: one file per dirty partition, synced ──► publish: the manifest, in one step
//!    │                                                         └─► frozen rows to the base, index last
//!    └─ dropped before it is published: the frozen layers are taken back
//! ```

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::PartitionId;
use rossby_seams::disk;

use super::OpenToken;
use super::error::StoreError;
use super::files::{FileName, GroupFiles, Pin};
use super::group::{Applied, GroupShared};
use super::layer::Layer;
use super::manifest::{FEATURE_LEVEL, Manifest, PartitionFiles};
use super::merge::MergedRows;
use super::partition::Partition;
use super::row_file::{RowFileKind, RowFileWriter};
use crate::LogPosition;

/// Deltas that a partition may have before they are merged, however small.
const MAX_DELTAS: usize = 16;
/// The most bytes that [`Checkpoint::read`] gives at a time.
const MAX_PIECE_BYTES: u32 = 4 * 1024 * 1024;

/// A frozen state on its way to a checkpoint. Dropping it takes the freeze back.
#[derive(Debug)]
pub struct CheckpointCut {
    frozen: Frozen,
    /// The checkpoint before this one.
    below: Option<Checkpoint>,
}

/// The frozen layers of a round, until they have settled in the base.
#[derive(Debug)]
struct Frozen {
    shared: Arc<GroupShared>,
    _token: Arc<OpenToken>,
    round: u64,
    position: LogPosition,
    applied: Applied,
    dirty: Vec<(Arc<Partition>, Arc<Layer>)>,
    /// The manifest names the files of this round: the layers may only settle now. Taken back, rows
    /// would pass for born above that are below.
    published: bool,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.published {
            for (partition, layer) in &self.dirty {
                partition.thaw(layer);
            }
            self.end();
        }
    }
}

impl Frozen {
    /// Makes way for the next round.
    fn end(&self) {
        self.shared
            .rounds
            .lock()
            .writing
            .take_if(|round| *round == self.round);
    }
}

impl CheckpointCut {
    pub(crate) fn new(
        shared: Arc<GroupShared>,
        token: Arc<OpenToken>,
        round: u64,
        position: LogPosition,
        applied: Applied,
        below: Option<Checkpoint>,
        dirty: Vec<(Arc<Partition>, Arc<Layer>)>,
    ) -> Self {
        let frozen = Frozen {
            shared,
            _token: token,
            round,
            position,
            applied,
            dirty,
            published: false,
        };
        Self { frozen, below }
    }

    /// The entry it was frozen at.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.frozen.position
    }

    /// Writes and syncs the files of the dirty partitions. Blocking I/O.
    ///
    /// # Errors
    /// [`StoreError`]; the freeze is taken back. After [`StoreError::is_disk_full`] the group can
    /// go on, and a later cut may succeed.
    pub fn write(self) -> Result<WrittenCheckpoint, StoreError> {
        let Self { frozen, below } = self;
        let files = &frozen.shared.files;
        let mut contents: Vec<PartitionFiles> = Vec::new();
        let mut pins: Vec<Pin> = below.as_ref().map(Checkpoint::pins).unwrap_or_default();
        let old = below
            .as_ref()
            .map(|checkpoint| checkpoint.contents().partitions.as_slice());
        let mut clean = old.unwrap_or_default().to_vec();
        files.check_room(bytes_needed(&frozen.dirty, &clean))?;
        for (partition, layer) in &frozen.dirty {
            let id = partition.id;
            let old = clean.extract_if(.., |files| files.partition == id).next();
            contents.extend(write_partition(files, id, old, layer, &mut pins)?);
        }
        contents.append(&mut clean);
        contents.sort_by_key(|files| files.partition);
        files.sync()?;
        let manifest = Manifest {
            group: files.group,
            position: frozen.position,
            membership: frozen.applied.membership.clone(),
            feature_level: FEATURE_LEVEL,
            partitions: contents,
        };
        let pins = keep_named(&manifest, pins);
        let bytes = manifest
            .encode()
            .map_err(|_| StoreError::Inconsistent("the manifest can not be encoded"))?;
        let checkpoint = Checkpoint::new(files, manifest, bytes, pins);
        Ok(WrittenCheckpoint { frozen, checkpoint })
    }
}

/// What a round may take of the disk: its files, and its rows in the base, which keeps what they
/// replace for a while.
fn bytes_needed(dirty: &[(Arc<Partition>, Arc<Layer>)], old: &[PartitionFiles]) -> u64 {
    let of_partition = |(partition, layer): &(Arc<Partition>, Arc<Layer>)| {
        let merged = old
            .iter()
            .find(|files| files.partition == partition.id && !takes_delta(files, layer));
        let below = merged.map_or(0, |files| files.files().map(|name| name.length).sum());
        layer.bytes().saturating_mul(3).saturating_add(below)
    };
    dirty.iter().map(of_partition).fold(0, u64::saturating_add)
}

/// One pin for each file of a manifest.
fn keep_named(manifest: &Manifest, pins: Vec<Pin>) -> Vec<Pin> {
    let mut named: Vec<FileName> = manifest.files().copied().collect();
    named.sort_unstable();
    named.dedup();
    let mut pins = pins;
    pins.sort_by_key(|pin| *pin.name());
    pins.dedup_by_key(|pin| *pin.name());
    pins.retain(|pin| named.binary_search(pin.name()).is_ok());
    pins
}

/// Whether changes go into one more delta, rather than into a new base.
fn takes_delta(old: &PartitionFiles, layer: &Layer) -> bool {
    let deltas: u64 = old.deltas.iter().map(|delta| delta.length).sum();
    let small = deltas.saturating_add(layer.bytes()) <= old.base.length / 2;
    small && old.deltas.len() < MAX_DELTAS
}

/// Writes what changed in a partition: as a delta, or merged with all there was; `None` if no rows
/// are left.
fn write_partition(
    files: &Arc<GroupFiles>,
    id: PartitionId,
    old: Option<PartitionFiles>,
    layer: &Layer,
    pins: &mut Vec<Pin>,
) -> Result<Option<PartitionFiles>, StoreError> {
    if let Some(mut old) = old {
        if takes_delta(&old, layer) {
            let delta = write_layer(files, id, layer, RowFileKind::Delta)?;
            old.deltas.extend(delta.as_ref().map(|pin| *pin.name()));
            pins.extend(delta);
            return Ok(Some(old));
        }
        return merge(files, &old, layer, pins);
    }
    let base = write_layer(files, id, layer, RowFileKind::Base)?;
    let named = base.as_ref().map(|pin| PartitionFiles {
        partition: id,
        base: *pin.name(),
        deltas: Vec::new(),
    });
    pins.extend(base);
    Ok(named)
}

fn write_layer(
    files: &Arc<GroupFiles>,
    id: PartitionId,
    layer: &Layer,
    kind: RowFileKind,
) -> Result<Option<Pin>, StoreError> {
    let mut writer = RowFileWriter::create(files, id, kind)?;
    for (key, slot) in layer.iter() {
        let value = slot.value();
        // Where there is nothing below, there is nothing to delete.
        if value.is_some() || kind == RowFileKind::Delta {
            writer.push(key, value.map(Bytes::as_ref))?;
        }
    }
    writer.finish()
}

fn merge(
    files: &Arc<GroupFiles>,
    old: &PartitionFiles,
    layer: &Layer,
    pins: &mut Vec<Pin>,
) -> Result<Option<PartitionFiles>, StoreError> {
    let mut writer = RowFileWriter::create(files, old.partition, RowFileKind::Base)?;
    let mut rows = MergedRows::open(files, old, Some(layer))?;
    while let Some((key, value)) = rows.next()? {
        writer.push(&key, Some(&value))?;
    }
    let base = writer.finish()?;
    let named = base.as_ref().map(|pin| PartitionFiles {
        partition: old.partition,
        base: *pin.name(),
        deltas: Vec::new(),
    });
    pins.extend(base);
    Ok(named)
}

/// Files that are durable but not yet the checkpoint: publish only once the log is durable up to
/// their position. Dropping it takes the freeze back.
#[derive(Debug)]
pub struct WrittenCheckpoint {
    frozen: Frozen,
    checkpoint: Checkpoint,
}

impl WrittenCheckpoint {
    /// The entry it holds the state at.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.frozen.position
    }

    /// Publishes the manifest in one atomic step, then moves the frozen overlay to the base in small
    /// chunks and drops files that no manifest names. Blocking I/O. If a newer checkpoint was
    /// installed meanwhile, this one is dropped and the newer one returned.
    ///
    /// # Errors
    /// [`StoreError`]. After [`StoreError::is_disk_full`] the group can go on; after any other the
    /// replica must stop.
    pub fn publish(self) -> Result<Checkpoint, StoreError> {
        let Self {
            mut frozen,
            checkpoint,
        } = self;
        let shared = Arc::clone(&frozen.shared);
        let _flow = shared.flow.lock();
        shared.check()?;
        let rounds = shared.rounds.lock();
        if rounds.writing != Some(frozen.round)
            && let Some(newer) = &rounds.current
        {
            return Ok(newer.clone());
        }
        drop(rounds);
        checkpoint.publish_manifest()?;
        frozen.published = true;
        let old = shared.rounds.lock().current.replace(checkpoint.clone());
        // The old files go, unless somebody still reads them.
        drop(old);
        match settle(&frozen) {
            // The store was closed. The layers stay in memory, no further round begins, and the base
            // is found to lag behind at the next start.
            Err(StoreError::Closed) => Ok(checkpoint),
            Err(error) => Err(shared.fail(error)),
            Ok(()) => {
                frozen.end();
                Ok(checkpoint)
            }
        }
    }
}

/// Moves the frozen layers to the base. Readers see them until they are there.
fn settle(frozen: &Frozen) -> Result<(), StoreError> {
    let Frozen {
        shared,
        position,
        dirty,
        ..
    } = frozen;
    let group = shared.files.group;
    // Half of it must not pass for any checkpoint, not even for the one before.
    shared.base.clear_index(group)?;
    for (partition, layer) in dirty {
        let mut writer = partition.base.writer();
        for (key, slot) in layer.iter() {
            writer.push(key, slot.value().map(Bytes::as_ref))?;
        }
        writer.flush()?;
        partition.settle(layer);
    }
    shared.base.set_index(group, *position)
}

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
    pins: Vec<Pin>,
}

impl Checkpoint {
    pub(crate) fn new(
        files: &Arc<GroupFiles>,
        manifest: Manifest,
        bytes: Bytes,
        pins: Vec<Pin>,
    ) -> Self {
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

    fn pins(&self) -> Vec<Pin> {
        self.inner.pins.clone()
    }

    /// What a group has applied that has just this checkpoint.
    pub(crate) fn applied(&self) -> Applied {
        Applied {
            position: Some(self.position()),
            membership: self.membership(),
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
