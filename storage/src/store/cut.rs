//! How a checkpoint comes about: cut, written, published.
//!
//! ```text
//!   cut ──► write: one file per dirty partition, synced ──► publish: the manifest, in one step
//!    │                                      frozen rows, but for envelopes, to the base, index last ◄─┘
//!    └─ dropped before it is published: the frozen layers are taken back
//! ```

use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::PartitionId;

use super::OpenToken;
use super::checkpoint::Checkpoint;
use super::error::StoreError;
use super::files::{FileName, GroupFiles, Pin};
use super::layer::Layer;
use super::manifest::{FEATURE_LEVEL, Manifest, PartitionFiles};
use super::merge::MergedRows;
use super::partition::Partition;
use super::row_file::{RowFileKind, RowFileWriter};
use super::rows::is_envelope;
use super::shared::{Applied, GroupShared};
use crate::LogPosition;

/// Deltas that a partition may have before they are merged, however small.
const MAX_DELTAS: usize = 16;

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
pub(super) fn write_partition(
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

    /// Publishes the manifest in one atomic step, then moves the frozen overlay, but for the envelopes, to
    /// the base in small chunks and drops files that no manifest names. Blocking I/O. If a newer checkpoint was
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
        match settle(&frozen, &checkpoint) {
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

/// Moves the frozen layers to the base, but for the envelopes, which stay in the checkpoint's files.
/// Readers see them until they are there.
fn settle(frozen: &Frozen, checkpoint: &Checkpoint) -> Result<(), StoreError> {
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
            if !is_envelope(key) {
                writer.push(key, slot.value().map(Bytes::as_ref))?;
            }
        }
        writer.flush()?;
        let envelopes = checkpoint.envelopes(partition.id, &partition.envelopes())?;
        partition.settle(layer, envelopes);
    }
    shared.base.set_index(group, *position)
}
