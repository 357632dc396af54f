//! A checkpoint on its way in from a peer.
//!
//! Pieces land in `<checkpoints>/<group>/staging`, which outlives a restart, so that a transfer goes
//! on where it stopped. Files that are here already, by digest, are not asked for. Nothing of it
//! touches the group before [`super::GroupStore::install`].

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_seams::disk::DiskFile;

use super::Store;
use super::checkpoint::Checkpoint;
use super::error::{REMEDY_PEER, REMEDY_REPLICA, StoreError};
use super::files::{FileName, GroupFiles, Pin};
use super::manifest::Manifest;
use super::row_file::{RowFileKind, RowFileReader};

/// A checkpoint on its way in: files land in a staging folder, resumable, verified by digest.
#[derive(Debug)]
pub struct IncomingCheckpoint {
    files: Arc<GroupFiles>,
    manifest: Manifest,
    bytes: Bytes,
    /// Files that were here before.
    held: Vec<(PartitionId, RowFileKind, Pin)>,
    /// Files that are not, by name.
    arriving: BTreeMap<FileName, Arrival>,
}

/// A file that comes in piece by piece.
#[derive(Debug)]
struct Arrival {
    partition: PartitionId,
    kind: RowFileKind,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    received: u64,
}

impl IncomingCheckpoint {
    /// Begins, or resumes, receiving the checkpoint with this manifest. One at a time per group.
    /// Blocking I/O, but no file is read: the peer waits, and there may be any number of them.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Version`], [`StoreError::WrongGroup`] for a manifest
    /// that can't be used; [`StoreError::Io`] if the disk failed, or has no room for it.
    pub fn begin(store: &Store, group: GroupId, manifest: &[u8]) -> Result<Self, StoreError> {
        let bytes = Bytes::copy_from_slice(manifest);
        let manifest = Manifest::decode(&bytes, "from a peer", REMEDY_PEER)?;
        if manifest.group != group {
            return Err(StoreError::WrongGroup {
                found: manifest.group,
                expected: group,
            });
        }
        let files = store.files(group)?;
        let staging = files.staging();
        files
            .disk
            .create_directory(&staging)
            .map_err(StoreError::io("create folder", &staging))?;
        let mut incoming = Self {
            files,
            manifest,
            bytes,
            held: Vec::new(),
            arriving: BTreeMap::new(),
        };
        for (partition, kind, name) in incoming.manifest.contents() {
            match incoming.files.pin(&name)? {
                Some(pin) => incoming.held.push((partition, kind, pin)),
                None => {
                    let arrival = incoming.resume(partition, kind, &name)?;
                    incoming.arriving.insert(name, arrival);
                }
            }
        }
        incoming.sweep_staging()?;
        // What is still to come, and then all of it again in the base.
        let left = |(name, arrival): (&FileName, &Arrival)| name.length - arrival.received;
        let to_come: u64 = incoming.arriving.iter().map(left).sum();
        let rows: u64 = incoming.manifest.files().map(|name| name.length).sum();
        incoming.files.check_room(to_come.saturating_add(rows))?;
        Ok(incoming)
    }

    /// Goes on with a file from where an earlier transfer stopped.
    fn resume(
        &self,
        partition: PartitionId,
        kind: RowFileKind,
        name: &FileName,
    ) -> Result<Arrival, StoreError> {
        let path = self.files.staging().join(name.hex() + ".part");
        let disk = &self.files.disk;
        let opened = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&path),
            other => other,
        };
        let mut file = opened.map_err(StoreError::io("open", &path))?;
        let mut received = file.len().map_err(StoreError::io("open", &path))?;
        if received > name.length {
            self.files.discard(&path);
            file = disk
                .create(&path)
                .map_err(StoreError::io("create", &path))?;
            received = 0;
        }
        Ok(Arrival {
            partition,
            kind,
            path,
            file,
            received,
        })
    }

    /// Removes what other transfers left behind.
    fn sweep_staging(&self) -> Result<(), StoreError> {
        let staging = self.files.staging();
        let entries = self
            .files
            .disk
            .list(&staging)
            .map_err(StoreError::io("list", &staging))?;
        for path in entries {
            if !self.arriving.values().any(|arrival| arrival.path == path) {
                self.files.discard(&path);
            }
        }
        Ok(())
    }

    /// Files still missing and from which offset.
    #[must_use]
    pub fn missing(&self) -> Vec<(FileName, u64)> {
        let arriving = self.arriving.iter();
        arriving
            .filter(|(name, arrival)| arrival.received < name.length)
            .map(|(name, arrival)| (*name, arrival.received))
            .collect()
    }

    /// Takes the next piece of a file; pieces come in order.
    ///
    /// # Errors
    /// [`StoreError::Transfer`] if the piece does not fit: nothing was written;
    /// [`StoreError::Io`] if the disk failed.
    pub fn write(&mut self, file: &FileName, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let arrival = self
            .arriving
            .get_mut(file)
            .ok_or(StoreError::Transfer("the file was not asked for"))?;
        if offset != arrival.received {
            return Err(StoreError::Transfer(
                "the piece does not follow the one before",
            ));
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > file.length {
            return Err(StoreError::Transfer(
                "the piece goes beyond the end of the file",
            ));
        }
        let written = arrival.file.write_all_at(bytes, offset);
        written.map_err(StoreError::io("write", &arrival.path))?;
        arrival.received = end;
        Ok(())
    }

    /// Verifies all digests, those of files that were here before too, and syncs; the result can be
    /// installed. Blocking I/O.
    ///
    /// # Errors
    /// [`StoreError::Transfer`] if files are missing; [`StoreError::Corrupt`] if one is not what it
    /// should be: the transfer can begin again, and asks for it. [`StoreError::Io`].
    pub fn finish(self) -> Result<Checkpoint, StoreError> {
        if !self.missing().is_empty() {
            return Err(StoreError::Transfer("files are missing"));
        }
        let Self {
            files,
            manifest,
            bytes,
            held,
            arriving,
        } = self;
        let mut pins = Vec::with_capacity(held.len() + arriving.len());
        for (partition, kind, pin) in held {
            let name = *pin.name();
            let path = files.path(&name.digest);
            let verified = verify(&files, path, REMEDY_REPLICA, &name, partition, kind);
            if let Err(StoreError::Corrupt { .. }) = verified {
                files.note_damaged(&name);
            }
            verified?;
            pins.push(pin);
        }
        for (
            name,
            Arrival {
                partition,
                kind,
                path,
                file,
                ..
            },
        ) in &arriving
        {
            if let Err(error) = file.sync_data() {
                // What it should have synced may be lost, and is read all the same; another sync would say nothing of it.
                files.discard(path);
                return Err(StoreError::io("sync", path)(error));
            }
            let verified = verify(&files, path.clone(), REMEDY_PEER, name, *partition, *kind);
            if let Err(StoreError::Corrupt { .. }) = verified {
                files.discard(path);
            }
            verified?;
        }
        for (name, arrival) in &arriving {
            pins.push(files.adopt(&arrival.path, name)?);
        }
        files.sync()?;
        Ok(Checkpoint::new(&files, manifest, bytes, pins))
    }
}

/// Reads all of a file: its checksums, its rows, its digest.
pub(crate) fn verify(
    files: &GroupFiles,
    path: PathBuf,
    remedy: &'static str,
    name: &FileName,
    partition: PartitionId,
    kind: RowFileKind,
) -> Result<(), StoreError> {
    let mut reader = RowFileReader::open_at(files, path, remedy, name, partition, kind)?;
    while reader.next()?.is_some() {}
    Ok(())
}
