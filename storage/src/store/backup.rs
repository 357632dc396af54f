//! A checkpoint outside of any store: in a backup. It can be verified where it lies, and made into
//! the first state of a new replica.
//!
//! ```text
//!   backup: manifest, files ──► verify: every row, every digest ──► restore: the same files, copied,
//!                                                                   one mark per partition on top,
//!                                                                   a new manifest last
//! ```
//!
//! The mark (`rossby_domain::restored`) is a delta of one row: the partition's meta, with when it was restored.
//! So every replica that the restored one ships its checkpoint to begins above the same floors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, PartitionCount, PartitionId};
use rossby_domain::tables::Meta;
use rossby_domain::time::Timestamp;
use rossby_seams::disk::Disk;
use sha2::{Digest as _, Sha256};

use super::checkpoint::Checkpoint;
use super::error::{REMEDY_BACKUP, StoreError};
use super::files::{FileName, GroupFiles, Pin};
use super::manifest::{Manifest, PartitionFiles};
use super::merge::MergedRows;
use super::row_file::{RowFileKind, RowFileWriter};
use super::rows;
use crate::LogPosition;
use crate::codec;

/// How much of a file is copied at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// A checkpoint in a folder that is no store's.
#[derive(Debug)]
pub struct StoredCheckpoint {
    files: Arc<GroupFiles>,
    manifest: Manifest,
}

/// What a checkpoint was found to hold, every byte of it read and right.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Rows over all partitions.
    pub rows: u64,
    /// The latest time that a command carried in.
    pub latest: Timestamp,
    /// What the partitions know of themselves.
    metas: BTreeMap<PartitionId, Meta>,
}

/// What becomes of a checkpoint that is restored.
#[derive(Debug, Clone)]
pub struct Restoration {
    /// Now, later than all that the checkpoint knows ([`StoredCheckpoint::earliest`]).
    pub at: Timestamp,
    /// Whether no device token that was ever given out is to be accepted any more.
    pub revoke_tokens: bool,
    /// The cluster's partitions: each gets its mark, also those without rows.
    pub partitions: PartitionCount,
    /// The new members, as the raft layer encodes them.
    pub membership: Bytes,
}

impl StoredCheckpoint {
    /// The checkpoint with this manifest, whose files lie in `directory`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Version`], [`StoreError::WrongGroup`] for a manifest
    /// that can't be used.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        group: GroupId,
        manifest: &[u8],
    ) -> Result<Self, StoreError> {
        let location = directory.display().to_string();
        let manifest = Manifest::decode(manifest, &location, REMEDY_BACKUP)?;
        if manifest.group != group {
            return Err(StoreError::WrongGroup {
                found: manifest.group,
                expected: group,
            });
        }
        Ok(Self {
            files: GroupFiles::at(disk, directory.to_owned(), group),
            manifest,
        })
    }

    /// The published checkpoint of a group in a folder of checkpoints that no store has open; `None` if there is
    /// none.
    ///
    /// # Errors
    /// As [`Self::open`], and [`StoreError::Io`].
    pub fn published(
        disk: Arc<dyn Disk>,
        checkpoints: &Path,
        group: GroupId,
    ) -> Result<Option<Self>, StoreError> {
        let files = GroupFiles::at(disk, checkpoints.join(group.to_string()), group);
        let loaded = Manifest::load(&files)?;
        Ok(loaded.map(|(manifest, _)| Self { files, manifest }))
    }

    /// Makes the same state the published checkpoint of a group in `checkpoints`, which holds none of it. The
    /// group may be another: its number stands in every file. Blocking I/O.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a file is not what it should be, [`StoreError::Io`]: there may be
    /// files then, but no checkpoint.
    pub fn rewrite(
        &self,
        disk: Arc<dyn Disk>,
        checkpoints: &Path,
        group: GroupId,
    ) -> Result<(), StoreError> {
        let target = GroupFiles::open(disk, checkpoints, group)?;
        let (mut pins, mut partitions) = (Vec::new(), Vec::new());
        for source in &self.manifest.partitions {
            let partition = source.partition;
            let mut writer = RowFileWriter::create(&target, partition, RowFileKind::Base)?;
            let mut merged = MergedRows::open(&self.files, source, None)?;
            while let Some((key, value)) = merged.next()? {
                writer.push(&key, Some(&value))?;
            }
            let Some(pin) = writer.finish()? else {
                continue;
            };
            partitions.push(PartitionFiles {
                partition,
                base: *pin.name(),
                deltas: Vec::new(),
            });
            pins.push(pin);
        }
        let manifest = Manifest {
            group,
            partitions,
            ..self.manifest.clone()
        };
        publish(&target, manifest, pins)
    }

    /// The entry it holds the state at.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.manifest.position
    }

    /// The membership at that entry.
    #[must_use]
    pub fn membership(&self) -> Option<(Option<LogPosition>, Bytes)> {
        self.manifest.membership.clone()
    }

    /// The files it consists of, each once.
    #[must_use]
    pub fn files(&self) -> Vec<FileName> {
        let mut names: Vec<_> = self.manifest.files().copied().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Reads everything: checksums, order of rows, digests. `progress` is told the bytes of each
    /// partition that is done. Blocking I/O.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for the first file that is not what it should be;
    /// [`StoreError::Io`], also for one that is missing.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Verified, StoreError> {
        let meta_key = rows::meta();
        let mut found = Verified {
            rows: 0,
            latest: Timestamp::default(),
            metas: BTreeMap::new(),
        };
        for partition in &self.manifest.partitions {
            let mut merged = MergedRows::open(&self.files, partition, None)?;
            while let Some((key, value)) = merged.next()? {
                found.rows = found.rows.saturating_add(1);
                if key == meta_key {
                    let meta: Meta = codec::decode_value(&value)
                        .map_err(|error| self.damaged(partition.partition, &error.to_string()))?;
                    found.latest = found.latest.max(meta.clock);
                    found.metas.insert(partition.partition, meta);
                }
            }
            progress(partition.files().map(|name| name.length).sum());
        }
        Ok(found)
    }

    fn damaged(&self, partition: PartitionId, detail: &str) -> StoreError {
        StoreError::Corrupt {
            what: "partition",
            location: format!(
                "{} in {}",
                partition.number(),
                self.files.directory.display()
            ),
            detail: detail.to_owned(),
            remedy: REMEDY_BACKUP,
        }
    }

    /// The earliest time at which this may be restored: floors are made of the time, and must rise
    /// above all that was given out before.
    #[must_use]
    pub fn earliest(&self, verified: &Verified) -> Timestamp {
        let restored = verified.metas.values().map(|meta| meta.restored.at).max();
        // A second later: floors are made of whole ones.
        let after = restored.filter(|at| *at > Timestamp::default());
        after
            .map_or(Timestamp::default(), |at| at.plus_millis(1000))
            .max(verified.latest)
    }

    /// Makes this the published checkpoint of its group in `checkpoints`, which holds none: copies
    /// the files, comparing digests, and marks every partition as restored. Blocking I/O.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a file is not what it should be, [`StoreError::Io`]: there may be
    /// files then, but no checkpoint.
    pub fn restore(
        &self,
        disk: Arc<dyn Disk>,
        checkpoints: &Path,
        verified: &Verified,
        restoration: &Restoration,
        mut progress: impl FnMut(u64),
    ) -> Result<LogPosition, StoreError> {
        let target = GroupFiles::open(disk, checkpoints, self.files.group)?;
        let mut pins = Vec::new();
        for name in self.files() {
            pins.push(self.copy(&target, &name)?);
            progress(name.length);
        }
        let mut partitions: BTreeMap<PartitionId, PartitionFiles> = self
            .manifest
            .partitions
            .iter()
            .map(|files| (files.partition, files.clone()))
            .collect();
        let named = partitions.keys().copied();
        let all: BTreeSet<_> = restoration.partitions.all().chain(named).collect();
        for id in all {
            let meta = verified.metas.get(&id).copied().unwrap_or_default();
            let mark = Meta {
                restored: meta
                    .restored
                    .again(restoration.at, restoration.revoke_tokens),
                ..meta
            };
            mark_partition(&target, id, &mark, &mut partitions, &mut pins)?;
        }
        let manifest = Manifest {
            membership: Some((Some(self.position()), restoration.membership.clone())),
            partitions: partitions.into_values().collect(),
            ..self.manifest.clone()
        };
        publish(&target, manifest, pins)?;
        Ok(self.position())
    }

    fn copy(&self, target: &Arc<GroupFiles>, name: &FileName) -> Result<Pin, StoreError> {
        let from = self.files.path(&name.digest);
        let source = self
            .files
            .disk
            .open(&from)
            .map_err(StoreError::io("open", &from))?;
        let to = target.scratch();
        let copy = target
            .disk
            .create(&to)
            .map_err(StoreError::io("create", &to))?;
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < name.length {
            let left = usize::try_from(name.length - at).unwrap_or(usize::MAX);
            let mut piece = vec![0; left.min(PIECE_BYTES)];
            source
                .read_exact_at(&mut piece, at)
                .map_err(StoreError::io("read", &from))?;
            hasher.update(&piece);
            copy.write_all_at(&piece, at)
                .map_err(StoreError::io("write", &to))?;
            at += piece.len() as u64;
        }
        let digest: [u8; 32] = hasher.finalize().into();
        if digest != name.digest {
            return Err(StoreError::Corrupt {
                what: "checkpoint file",
                location: from.display().to_string(),
                detail: "its digest does not match".to_owned(),
                remedy: REMEDY_BACKUP,
            });
        }
        copy.sync_data().map_err(StoreError::io("sync", &to))?;
        target.adopt(&to, name)
    }
}

/// Makes the manifest of these files the group's checkpoint.
fn publish(target: &Arc<GroupFiles>, manifest: Manifest, pins: Vec<Pin>) -> Result<(), StoreError> {
    target.sync()?;
    let bytes = manifest
        .encode()
        .map_err(|_| StoreError::Inconsistent("the manifest can not be encoded"))?;
    Checkpoint::new(target, manifest, bytes, pins).publish_manifest()
}

/// Puts a partition's meta on top of its files.
fn mark_partition(
    target: &Arc<GroupFiles>,
    id: PartitionId,
    mark: &Meta,
    partitions: &mut BTreeMap<PartitionId, PartitionFiles>,
    pins: &mut Vec<Pin>,
) -> Result<(), StoreError> {
    const UNENCODABLE: StoreError = StoreError::Inconsistent("a partition's mark has no encoding");
    let value = codec::encode_value(mark).map_err(|_| UNENCODABLE)?;
    let kind = if partitions.contains_key(&id) {
        RowFileKind::Delta
    } else {
        RowFileKind::Base
    };
    let mut writer = RowFileWriter::create(target, id, kind)?;
    writer.push(&rows::meta(), Some(&value))?;
    let Some(pin) = writer.finish()? else {
        return Ok(());
    };
    let name = *pin.name();
    match partitions.get_mut(&id) {
        Some(files) => files.deltas.push(name),
        None => {
            let files = PartitionFiles {
                partition: id,
                base: name,
                deltas: Vec::new(),
            };
            partitions.insert(id, files);
        }
    }
    pins.push(pin);
    Ok(())
}
