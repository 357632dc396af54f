//! A file of rows of one partition, sorted by key: all of them (base), or changes (delta).
//!
//! ```text
//!   header   magic (8) | version u16 | kind u8 | 0 u8 | group u32 | partition u16 | 0 u16 | CRC-32C
//!   block    length u32 | CRC-32C of payload u32 | payload: rows
//!   row      1 | key length u16 | value length u32 | key | value        put
//!            0 | key length u16 | key                                   deleted (delta only)
//!   end      0 u32 | number of rows u64 | CRC-32C of that number u32
//! ```
//!
//! Numbers are big-endian. A file is written once, from start to end, and named by the SHA-256 of
//! all its bytes. A reader checks each block before it gives out its rows, and the digest at the
//! end: rows of a file may be used for good only after the reader has come to its end.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_domain::planted::{Bug, planted};
use rossby_seams::disk::DiskFile;
use sha2::{Digest as _, Sha256};

use super::error::{REMEDY_REPLICA, StoreError};
use super::files::{FileName, GroupFiles, Pin};

const MAGIC: &[u8; 8] = b"RSBYROWS";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;
const END_BYTES: usize = 16;
/// A block is written once its rows reach this size.
const BLOCK_BYTES: usize = 64 * 1024;
/// No block is larger: one row of the largest size, and the rows before it.
const MAX_BLOCK_BYTES: usize = crate::codec::MAX_ENCODED_BYTES + 2 * BLOCK_BYTES;

const ROW_DELETED: u8 = 0;
const ROW_PUT: u8 = 1;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowFileKind {
    /// All rows of a partition.
    Base = 1,
    /// Rows that changed.
    Delta = 2,
}

pub(super) fn header(
    group: GroupId,
    partition: PartitionId,
    kind: RowFileKind,
) -> [u8; HEADER_BYTES] {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[kind as u8, 0]);
    bytes.extend_from_slice(&group.0.to_be_bytes());
    bytes.extend_from_slice(&partition.number().to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    let mut array = [0; HEADER_BYTES];
    array.copy_from_slice(&bytes);
    array
}

/// Writes a file of rows.
pub(crate) struct RowFileWriter {
    files: Arc<GroupFiles>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    hasher: Sha256,
    block: Vec<u8>,
    rows: u64,
    named: bool,
}

impl RowFileWriter {
    pub(crate) fn create(
        files: &Arc<GroupFiles>,
        partition: PartitionId,
        kind: RowFileKind,
    ) -> Result<Self, StoreError> {
        let path = files.scratch();
        // A name that an earlier run left behind is free to be taken.
        files.discard(&path);
        let file = files
            .disk
            .create(&path)
            .map_err(StoreError::io("create", &path))?;
        let mut writer = Self {
            files: Arc::clone(files),
            path,
            file,
            length: 0,
            hasher: Sha256::new(),
            block: Vec::new(),
            rows: 0,
            named: false,
        };
        writer.write(&header(files.group, partition, kind))?;
        Ok(writer)
    }

    /// Adds a row, after all others; `None` marks it as deleted.
    pub(crate) fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        const TOO_LONG: StoreError = StoreError::Inconsistent("a row is too long for a checkpoint");
        let key_length = u16::try_from(key.len()).map_err(|_| TOO_LONG)?;
        self.block.push(if value.is_some() {
            ROW_PUT
        } else {
            ROW_DELETED
        });
        self.block.extend_from_slice(&key_length.to_be_bytes());
        if let Some(value) = value {
            let length = u32::try_from(value.len()).map_err(|_| TOO_LONG)?;
            self.block.extend_from_slice(&length.to_be_bytes());
        }
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value.unwrap_or_default());
        self.rows += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.end_block()
        } else {
            Ok(())
        }
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.block);
        let length = u32::try_from(payload.len())
            .map_err(|_| StoreError::Inconsistent("a block is too long for a checkpoint"))?;
        let mut block = Vec::with_capacity(8 + payload.len());
        block.extend_from_slice(&length.to_be_bytes());
        block.extend_from_slice(&crc32c::crc32c(&payload).to_be_bytes());
        block.extend_from_slice(&payload);
        self.write(&block)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, self.length)
            .map_err(StoreError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Ends the file and syncs it; it has its name then, durable after `GroupFiles::sync`.
    /// `None` for a file without rows, which is dropped.
    pub(crate) fn finish(mut self) -> Result<Option<Pin>, StoreError> {
        if self.rows == 0 {
            return Ok(None);
        }
        self.end_block()?;
        let rows = self.rows.to_be_bytes();
        let end = [
            [0; 4].as_slice(),
            &rows,
            &crc32c::crc32c(&rows).to_be_bytes(),
        ]
        .concat();
        self.write(&end)?;
        self.file
            .sync_data()
            .map_err(StoreError::io("sync", &self.path))?;
        let digest = std::mem::take(&mut self.hasher).finalize().into();
        let pin = self.files.adopt(
            &self.path,
            &FileName {
                digest,
                length: self.length,
            },
        )?;
        self.named = true;
        Ok(Some(pin))
    }
}

impl Drop for RowFileWriter {
    fn drop(&mut self) {
        if !self.named {
            self.files.discard(&self.path);
        }
    }
}

/// A row of a file: its key and its value, `None` if it is deleted.
pub(crate) type FileRow = (Bytes, Option<Bytes>);

/// Reads a file of rows from start to end.
pub(crate) struct RowFileReader {
    path: PathBuf,
    remedy: &'static str,
    file: Arc<dyn DiskFile>,
    name: FileName,
    kind: RowFileKind,
    at: u64,
    hasher: Sha256,
    block: Bytes,
    rows: u64,
    last_key: Bytes,
    ended: bool,
}

impl RowFileReader {
    /// Opens a file by name.
    pub(crate) fn open(
        files: &GroupFiles,
        name: &FileName,
        partition: PartitionId,
        kind: RowFileKind,
    ) -> Result<Self, StoreError> {
        let path = files.path(&name.digest);
        Self::open_at(files, path, REMEDY_REPLICA, name, partition, kind)
    }

    /// Opens a file wherever it is.
    pub(crate) fn open_at(
        files: &GroupFiles,
        path: PathBuf,
        remedy: &'static str,
        name: &FileName,
        partition: PartitionId,
        kind: RowFileKind,
    ) -> Result<Self, StoreError> {
        let file = files
            .disk
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let length = file.len().map_err(StoreError::io("open", &path))?;
        let mut reader = Self {
            path,
            remedy,
            file,
            name: *name,
            kind,
            at: 0,
            hasher: Sha256::new(),
            block: Bytes::new(),
            rows: 0,
            last_key: Bytes::new(),
            ended: false,
        };
        if length != name.length {
            return Err(reader.damaged("its length is wrong"));
        }
        reader.read_header(header(files.group, partition, kind))?;
        Ok(reader)
    }

    fn read_header(&mut self, expected: [u8; HEADER_BYTES]) -> Result<(), StoreError> {
        let found = self.take(HEADER_BYTES)?;
        if found.as_ref() == expected {
            return Ok(());
        }
        let (rest, checksum) = found.split_at(HEADER_BYTES - 4);
        let intact = checksum == crc32c::crc32c(rest).to_be_bytes();
        if let (true, Some(mut rest)) = (intact, rest.strip_prefix(MAGIC)) {
            let version = rest.get_u16();
            if version > VERSION {
                return Err(StoreError::Version {
                    what: "checkpoint file",
                    location: self.path.display().to_string(),
                    found: version.into(),
                    supported: VERSION.into(),
                });
            }
        }
        Err(self.damaged("its header is not the one it should have"))
    }

    /// The next row; `None` once the whole file was read and its digest matched.
    pub(crate) fn next(&mut self) -> Result<Option<FileRow>, StoreError> {
        while self.block.is_empty() {
            if self.ended {
                return Ok(None);
            }
            self.next_block()?;
        }
        let row = self
            .split_row()
            .ok_or_else(|| self.damaged("a row is malformed"))?;
        if self.rows > 0 && row.0 <= self.last_key {
            return Err(self.damaged("its rows are out of order"));
        }
        if row.1.is_none() && self.kind == RowFileKind::Base {
            return Err(self.damaged("a base holds a deleted row"));
        }
        self.rows += 1;
        self.last_key = row.0.clone();
        Ok(Some(row))
    }

    fn split_row(&mut self) -> Option<FileRow> {
        let block = &mut self.block;
        let kind = block.try_get_u8().ok()?;
        let key_length = usize::from(block.try_get_u16().ok()?);
        let value_length = match kind {
            ROW_PUT => Some(usize::try_from(block.try_get_u32().ok()?).ok()?),
            ROW_DELETED => None,
            _ => return None,
        };
        if key_length.checked_add(value_length.unwrap_or(0))? > block.len() {
            return None;
        }
        let key = block.split_to(key_length);
        Some((key, value_length.map(|length| block.split_to(length))))
    }

    fn next_block(&mut self) -> Result<(), StoreError> {
        let length = self.take(4)?.get_u32();
        if length == 0 {
            return self.end();
        }
        let checksum = self.take(4)?.get_u32();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_BLOCK_BYTES {
            return Err(self.damaged("a block is too long"));
        }
        let payload = self.take(length)?;
        if crc32c::crc32c(&payload) != checksum && !planted(Bug::DamageUnchecked) {
            return Err(self.damaged("the checksum of a block does not match"));
        }
        self.block = payload;
        Ok(())
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let mut end = self.take(END_BYTES - 4)?;
        let rows = end.get_u64();
        if crc32c::crc32c(&rows.to_be_bytes()) != end.get_u32() || rows != self.rows {
            return Err(self.damaged("its number of rows is wrong"));
        }
        if self.at != self.name.length {
            return Err(self.damaged("bytes follow its end"));
        }
        let digest: [u8; 32] = std::mem::take(&mut self.hasher).finalize().into();
        if digest != self.name.digest && !planted(Bug::DamageUnchecked) {
            return Err(self.damaged("its digest does not match"));
        }
        self.ended = true;
        Ok(())
    }

    /// The next bytes of the file. No more is allocated than the file has.
    fn take(&mut self, length: usize) -> Result<Bytes, StoreError> {
        let end = self.at.saturating_add(length as u64);
        if end > self.name.length {
            return Err(self.damaged("it ends too early"));
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, self.at)
            .map_err(StoreError::io("read", &self.path))?;
        self.hasher.update(&bytes);
        self.at = end;
        Ok(bytes.into())
    }

    fn damaged(&self, detail: &str) -> StoreError {
        StoreError::Corrupt {
            what: "checkpoint file",
            location: self.path.display().to_string(),
            detail: format!("{detail}, found before byte {}", self.at),
            remedy: self.remedy,
        }
    }
}
