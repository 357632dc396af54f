//! A file of rows of one partition, sorted by key: all of them (base), or changes (delta).
//!
//! ```text
//!   header   magic (8) | version u16 | kind u8 | 0 u8 | group u32 | partition u16 | 0 u16 | CRC-32C
//!   block    length u32 | CRC-32C of payload u32 | payload: rows
//!   row      1 | key length u16 | value length u32 | key | value        put
//!            0 | key length u16 | key                                   deleted (delta only)
//!   end      0 u32 | index | number of rows u64 | blocks in the index u32 | CRC-32C of the index u32
//!            | CRC-32C of these three u32
//!   index    per block of envelopes: first key | last key | where its payload is u64 | length u32
//! ```
//!
//! Numbers are big-endian. A file is written once, from start to end, and named by the SHA-256 of
//! all its bytes. A reader checks each block before it gives out its rows, and the digest at the
//! end: rows of a file may be used for good only after the reader has come to its end.
//!
//! Envelopes are read one by one too, where they are ([`super::envelopes`]): they share no block with other
//! rows, and the index tells which block holds which of them. A block's checksum vouches for them then.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_domain::planted::{Bug, planted};
use rossby_seams::disk::DiskFile;
use sha2::{Digest as _, Sha256};

use super::error::{REMEDY_REPLICA, StoreError};
use super::files::{FileName, GroupFiles, Pin};
use super::rows::{ENVELOPE_KEY_BYTES, EnvelopeKey, envelope_key, same_box};

const MAGIC: &[u8; 8] = b"RSBYROWS";
const VERSION: u16 = 2;
pub(super) const HEADER_BYTES: usize = 24;
const BLOCK_HEADER_BYTES: usize = 8;
const END_OF_BLOCKS_BYTES: usize = 4;
const END_BYTES: usize = 20;
const PLACE_BYTES: usize = 2 * ENVELOPE_KEY_BYTES + 12;
/// A block is written once its rows reach this size.
const BLOCK_BYTES: usize = 64 * 1024;
/// The same for envelopes, of which a reader may want only one.
const ENVELOPE_BLOCK_BYTES: usize = 32 * 1024;
/// From this size on a block ends with the envelopes of a box, so that those who look for those of another
/// need not read it.
const BOX_BLOCK_BYTES: usize = 4 * 1024;
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

/// A block of envelopes: which they are, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    pub(crate) first: EnvelopeKey,
    pub(crate) last: EnvelopeKey,
    /// Where the payload begins in the file, and its length.
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl BlockPlace {
    fn encode(&self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        let (first, rest) = bytes.split_at_mut(ENVELOPE_KEY_BYTES);
        let (last, rest) = rest.split_at_mut(ENVELOPE_KEY_BYTES);
        let (offset, length) = rest.split_at_mut(8);
        first.copy_from_slice(&self.first);
        last.copy_from_slice(&self.last);
        offset.copy_from_slice(&self.offset.to_be_bytes());
        length.copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        let (last, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        Some(Self {
            first: *first,
            last: *last,
            offset: u64::from_be_bytes(*offset),
            length: u32::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

/// What stands behind the blocks.
pub(super) fn end(rows: u64, index: &[BlockPlace]) -> Vec<u8> {
    let mut bytes = vec![0; END_OF_BLOCKS_BYTES];
    index
        .iter()
        .for_each(|place| bytes.extend_from_slice(&place.encode()));
    let blocks = u32::try_from(index.len()).unwrap_or(u32::MAX);
    let checksum = crc32c::crc32c(bytes.get(END_OF_BLOCKS_BYTES..).unwrap_or_default());
    let numbers = [
        rows.to_be_bytes().as_slice(),
        &blocks.to_be_bytes(),
        &checksum.to_be_bytes(),
    ]
    .concat();
    bytes.extend_from_slice(&numbers);
    bytes.extend_from_slice(&crc32c::crc32c(&numbers).to_be_bytes());
    bytes
}

/// Writes a file of rows.
pub(crate) struct RowFileWriter {
    files: Arc<GroupFiles>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    hasher: Sha256,
    /// The block that is being filled, behind the space for its header.
    block: Vec<u8>,
    /// The first and last envelope in it, if it is one of envelopes.
    envelopes: Option<(EnvelopeKey, EnvelopeKey)>,
    index: Vec<BlockPlace>,
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
            envelopes: None,
            index: Vec::new(),
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
        let envelope = envelope_key(key)
            .map_err(|_| StoreError::Inconsistent("an envelope's key is malformed"))?;
        self.cut_before(envelope.as_ref())?;
        if self.block.is_empty() {
            self.block.resize(BLOCK_HEADER_BYTES, 0);
        }
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
        let limit = match envelope {
            Some(key) => {
                self.envelopes = Some((self.envelopes.map_or(key, |(first, _)| first), key));
                ENVELOPE_BLOCK_BYTES
            }
            None => BLOCK_BYTES,
        };
        if self.block.len() >= limit {
            self.end_block()
        } else {
            Ok(())
        }
    }

    /// Ends the block if a row may not, or had better not, go into it.
    fn cut_before(&mut self, envelope: Option<&EnvelopeKey>) -> Result<(), StoreError> {
        let fits = match (&self.envelopes, envelope) {
            (Some((_, last)), Some(key)) => {
                same_box(last, key) || self.block.len() < BOX_BLOCK_BYTES
            }
            (None, None) => true,
            _ => false,
        };
        if fits { Ok(()) } else { self.end_block() }
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        let mut block = std::mem::take(&mut self.block);
        let envelopes = self.envelopes.take();
        let Some((head, payload)) = block.split_at_mut_checked(BLOCK_HEADER_BYTES) else {
            return Ok(());
        };
        let length = u32::try_from(payload.len())
            .map_err(|_| StoreError::Inconsistent("a block is too long for a checkpoint"))?;
        let (head_length, head_checksum) = head.split_at_mut(4);
        head_length.copy_from_slice(&length.to_be_bytes());
        head_checksum.copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
        self.index.extend(envelopes.map(|(first, last)| BlockPlace {
            first,
            last,
            offset: self.length + BLOCK_HEADER_BYTES as u64,
            length,
        }));
        self.write(&block)?;
        // Its memory serves the next one.
        block.clear();
        self.block = block;
        Ok(())
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
        self.write(&end(self.rows, &self.index))?;
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
    /// Where its payload began.
    block_at: u64,
    block_length: u32,
    /// What the rows that were read say that the index should hold.
    index: Vec<BlockPlace>,
    /// Whether the block was found to be of envelopes, or of other rows.
    of_envelopes: Option<bool>,
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
            block_at: 0,
            block_length: 0,
            index: Vec::new(),
            of_envelopes: None,
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
            if version != VERSION {
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
        let row = split_row(&mut self.block).ok_or_else(|| self.damaged("a row is malformed"))?;
        if self.rows > 0 && row.0 <= self.last_key {
            return Err(self.damaged("its rows are out of order"));
        }
        if row.1.is_none() && self.kind == RowFileKind::Base {
            return Err(self.damaged("a base holds a deleted row"));
        }
        self.note_place(&row.0)?;
        self.rows += 1;
        self.last_key = row.0.clone();
        Ok(Some(row))
    }

    /// Notes what the index should say of a row.
    fn note_place(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let envelope =
            envelope_key(key).map_err(|_| self.damaged("the key of an envelope is malformed"))?;
        if self
            .of_envelopes
            .replace(envelope.is_some())
            .is_some_and(|before| before != envelope.is_some())
        {
            return Err(self.damaged("a block holds envelopes and other rows"));
        }
        let Some(key) = envelope else { return Ok(()) };
        match self.index.last_mut() {
            Some(place) if place.offset == self.block_at => place.last = key,
            _ => self.index.push(BlockPlace {
                first: key,
                last: key,
                offset: self.block_at,
                length: self.block_length,
            }),
        }
        Ok(())
    }

    fn next_block(&mut self) -> Result<(), StoreError> {
        let length = self.take(4)?.get_u32();
        if length == 0 {
            return self.end();
        }
        let checksum = self.take(4)?.get_u32();
        self.block_length = length;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_BLOCK_BYTES {
            return Err(self.damaged("a block is too long"));
        }
        let payload = self.take(length)?;
        if crc32c::crc32c(&payload) != checksum && !planted(Bug::DamageUnchecked) {
            return Err(self.damaged("the checksum of a block does not match"));
        }
        self.block = payload;
        self.block_at = self.at - u64::from(self.block_length);
        self.of_envelopes = None;
        Ok(())
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let expected = end(self.rows, &self.index);
        // The first of it was what told that no block follows.
        let expected = expected.get(END_OF_BLOCKS_BYTES..).unwrap_or_default();
        if self.take(expected.len())? != expected {
            return Err(self.damaged("its number of rows or its index is wrong"));
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
        match self.file.read_exact_at(&mut bytes, self.at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged("it ends too early"));
            }
            read => read.map_err(StoreError::io("read", &self.path))?,
        }
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

fn split_row(block: &mut Bytes) -> Option<FileRow> {
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

/// The rows of a block; `None` if one is malformed.
fn split_rows(mut block: Bytes) -> Option<Vec<FileRow>> {
    let mut rows = Vec::new();
    while !block.is_empty() {
        rows.push(split_row(&mut block)?);
    }
    Some(rows)
}

/// The place of a block of envelopes, if its payload is such.
#[cfg(any(test, fuzzing))]
pub(super) fn place_of(payload: &Bytes, offset: u64) -> Option<BlockPlace> {
    let mut payload_left = payload.clone();
    let mut keys = std::iter::from_fn(|| split_row(&mut payload_left))
        .map_while(|(key, _)| envelope_key(&key).ok()?);
    let first = keys.next()?;
    Some(BlockPlace {
        first,
        last: keys.last().unwrap_or(first),
        offset,
        length: u32::try_from(payload.len()).ok()?,
    })
}

/// A file of rows, read here and there.
#[derive(Debug)]
pub(super) struct RowFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
}

impl RowFile {
    pub(super) fn open(files: &GroupFiles, name: &FileName) -> Result<Self, StoreError> {
        let path = files.path(&name.digest);
        let file = files
            .disk
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let length = name.length;
        Ok(Self { path, file, length })
    }

    /// Reads the index, which is checked against its checksum, and the header.
    pub(super) fn index(
        &self,
        group: GroupId,
        partition: PartitionId,
    ) -> Result<Vec<BlockPlace>, StoreError> {
        let head = self.take(0, HEADER_BYTES)?;
        let kinds = [RowFileKind::Base, RowFileKind::Delta];
        if !kinds
            .iter()
            .any(|kind| head == header(group, partition, *kind).as_slice())
        {
            return Err(self.damaged(0, "its header is not the one it should have"));
        }
        let end_at = self.length.saturating_sub(END_BYTES as u64);
        let mut end = self.take(end_at, END_BYTES)?;
        let numbers = end.split_to(END_BYTES - 4);
        if crc32c::crc32c(&numbers) != end.get_u32() {
            return Err(self.damaged(end_at, "the checksum of its end does not match"));
        }
        let mut numbers = numbers;
        let (_rows, blocks, checksum) = (numbers.get_u64(), numbers.get_u32(), numbers.get_u32());
        let bytes = u64::from(blocks).saturating_mul(PLACE_BYTES as u64);
        let (Some(at), Ok(bytes)) = (end_at.checked_sub(bytes), usize::try_from(bytes)) else {
            return Err(self.damaged(end_at, "its index does not fit into it"));
        };
        let index = self.take(at, bytes)?;
        if crc32c::crc32c(&index) != checksum {
            return Err(self.damaged(at, "the checksum of its index does not match"));
        }
        index
            .chunks_exact(PLACE_BYTES)
            .map(BlockPlace::decode)
            .collect::<Option<_>>()
            .ok_or_else(|| self.damaged(at, "its index is malformed"))
    }

    /// Reads a block, which is checked against its checksum, and its rows against its place.
    pub(super) fn block(&self, place: &BlockPlace) -> Result<Vec<FileRow>, StoreError> {
        let at = place.offset.saturating_sub(BLOCK_HEADER_BYTES as u64);
        let length = usize::try_from(place.length).unwrap_or(usize::MAX);
        let mut payload = self.take(at, length.saturating_add(BLOCK_HEADER_BYTES))?;
        let mut head = payload.split_to(BLOCK_HEADER_BYTES);
        let right = head.get_u32() == place.length && head.get_u32() == crc32c::crc32c(&payload);
        if !right && !planted(Bug::DamageUnchecked) {
            return Err(self.damaged(at, "the checksum of a block does not match"));
        }
        let rows =
            split_rows(payload).ok_or_else(|| self.damaged(place.offset, "a row is malformed"))?;
        let is = |row: Option<&FileRow>, key: &EnvelopeKey| {
            row.is_some_and(
                |(found, _)| matches!(envelope_key(found), Ok(Some(found)) if found == *key),
            )
        };
        let in_order = rows.is_sorted_by(|(a, _), (b, _)| a < b);
        if in_order && is(rows.first(), &place.first) && is(rows.last(), &place.last) {
            Ok(rows)
        } else {
            Err(self.damaged(
                place.offset,
                "its rows are not those that the index tells of",
            ))
        }
    }

    fn take(&self, at: u64, length: usize) -> Result<Bytes, StoreError> {
        if at.saturating_add(length as u64) > self.length {
            return Err(self.damaged(at, "it ends too early"));
        }
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.damaged(at, "it ends too early"))
            }
            read => read
                .map(|()| bytes.into())
                .map_err(StoreError::io("read", &self.path)),
        }
    }

    fn damaged(&self, at: u64, detail: &str) -> StoreError {
        StoreError::Corrupt {
            what: "checkpoint file",
            location: self.path.display().to_string(),
            detail: format!("{detail}, found at byte {at}"),
            remedy: REMEDY_REPLICA,
        }
    }
}
