//! Rows in the base: under which keys, and how damage shows.
//!
//! ```text
//!   group u32 | partition u16 | table u8 | key   ->   CRC-32C of key and value (4) | value
//! ```
//!
//! The base may be any store, and none of them promises to notice a flipped bit. So each value
//! carries a checksum that covers its key too: a value that turns up under another key is damage.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_seams::base::{Base, BaseRow, BaseWrite};

use super::error::{REMEDY_BASE, StoreError};
use super::rows::{self, KeyRange, PARTITION_PREFIX_BYTES};
use crate::LogPosition;

/// The most bytes of one write to the base, since a store may stall its readers meanwhile. A
/// single larger row goes alone.
const CHUNK_BYTES: usize = 256 * 1024;
const CHECKSUM_BYTES: usize = 4;

/// The base of a node, until the store is closed.
#[derive(Debug, Clone)]
pub(crate) struct BaseHandle {
    base: Arc<dyn Base>,
    /// Whether the store was closed. Held for reading while writing to the base.
    closed: Arc<RwLock<bool>>,
    /// Whether the base failed, or showed damage. It must not be used again before a rebuild.
    suspect: Arc<AtomicBool>,
}

impl BaseHandle {
    pub(crate) fn new(base: Arc<dyn Base>) -> Self {
        Self {
            base,
            closed: Arc::default(),
            suspect: Arc::default(),
        }
    }

    /// Whether the base failed, or showed damage, in this session.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Remembers that a call failed.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.suspect.store(true, Ordering::Release);
        }
        result
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.noted(self.read(key))
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let stored = self.base.get(key)?;
        stored.map(|stored| unseal(key, stored)).transpose()
    }

    /// A row whose damage, like its absence, means a rebuild and no more.
    fn read_if_intact(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.read(key) {
            Err(StoreError::Corrupt { .. }) => Ok(None),
            other => other,
        }
    }

    /// Up to `limit` rows as the base has them, in order of key.
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, StoreError> {
        self.noted(self.base.range(start, end, limit).map_err(StoreError::from))
    }

    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), StoreError> {
        let closed = self.closed.read();
        if *closed {
            Err(StoreError::Closed)
        } else {
            self.noted(self.base.write(changes).map_err(StoreError::from))
        }
    }

    fn put(&self, key: Vec<u8>, value: &[u8]) -> Result<(), StoreError> {
        let stored = seal(&key, value);
        self.write(vec![(key, Some(stored))])
    }

    /// Ends all writing: writes the session row as the last one, and makes everything durable.
    /// `false`, and nothing is written, if it was closed before or is suspect.
    pub(crate) fn close(&self, session: u64) -> Result<bool, StoreError> {
        let mut closed = self.closed.write();
        if std::mem::replace(&mut *closed, true) || self.is_suspect() {
            return Ok(false);
        }
        let key = rows::session();
        let stored = seal(&key, &session.to_be_bytes());
        self.base.write(vec![(key, Some(stored))])?;
        self.base.flush()?;
        Ok(true)
    }

    /// The session that closed the base last, as far as the base knows. A damaged row is none.
    pub(crate) fn session(&self) -> Result<Option<u64>, StoreError> {
        let value = self.read_if_intact(&rows::session())?;
        Ok(value.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?))))
    }

    /// Which checkpoint of a group the base holds, whole. A damaged row is none.
    pub(crate) fn index(&self, group: GroupId) -> Result<Option<LogPosition>, StoreError> {
        let value = self.read_if_intact(&rows::group_index(group))?;
        Ok(value.as_deref().and_then(read_position))
    }

    /// From now on the base holds this checkpoint of the group.
    pub(crate) fn set_index(&self, group: GroupId, at: LogPosition) -> Result<(), StoreError> {
        let value = [at.term.to_be_bytes(), at.index.to_be_bytes()].concat();
        self.put(rows::group_index(group), &value)
    }

    /// From now on the base holds no checkpoint of the group whole.
    pub(crate) fn clear_index(&self, group: GroupId) -> Result<(), StoreError> {
        self.write(vec![(rows::group_index(group), None)])
    }

    /// Deletes all rows of a group, its index first; how many there were.
    pub(crate) fn clear_group(&self, group: GroupId) -> Result<u64, StoreError> {
        const PAGE_ROWS: usize = 64;
        self.clear_index(group)?;
        let range = rows::group_range(group);
        let mut cleared: u64 = 0;
        loop {
            let page = self.range(&range.start, &range.end, PAGE_ROWS)?;
            if page.is_empty() {
                return Ok(cleared);
            }
            cleared = cleared.saturating_add(page.len() as u64);
            self.write(page.into_iter().map(|(key, _)| (key, None)).collect())?;
        }
    }

    pub(crate) fn partition(&self, group: GroupId, partition: PartitionId) -> BasePartition {
        BasePartition {
            handle: self.clone(),
            prefix: rows::partition_prefix(group, partition),
        }
    }
}

/// The rows of one partition in the base.
#[derive(Debug, Clone)]
pub(crate) struct BasePartition {
    handle: BaseHandle,
    prefix: [u8; PARTITION_PREFIX_BYTES],
}

impl BasePartition {
    fn full_key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.handle.get(&self.full_key(key))
    }

    /// Remembers that rows beside the base could not be read: its next start must not take it on trust, so
    /// that all files are read and the damage is found again. Too many open files are no damage.
    pub(crate) fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Err(error) if error.is_too_many_files() => Err(error),
            other => self.handle.noted(other),
        }
    }

    /// The rows within a range, read a page at a time.
    pub(crate) fn pages(&self, range: &KeyRange, page_rows: usize) -> BasePages<'_> {
        BasePages {
            base: self,
            next: Some(self.full_key(&range.start)),
            end: self.full_key(&range.end),
            page: VecDeque::new(),
            page_rows,
        }
    }

    /// Writes changes in chunks.
    pub(crate) fn writer(&self) -> BaseWriter<'_> {
        BaseWriter {
            base: self,
            chunk: Vec::new(),
            bytes: 0,
        }
    }
}

/// A walk over rows of a partition in the base.
pub(crate) struct BasePages<'a> {
    base: &'a BasePartition,
    /// Where the next page begins; `None` after the last one.
    next: Option<Vec<u8>>,
    end: Vec<u8>,
    page: VecDeque<(Vec<u8>, Bytes)>,
    page_rows: usize,
}

impl BasePages<'_> {
    /// The key of the next row, within its partition.
    pub(crate) fn peek_key(&mut self) -> Result<Option<&[u8]>, StoreError> {
        if self.page.is_empty() {
            self.turn()?;
        }
        Ok(self.page.front().map(|(key, _)| key.as_slice()))
    }

    pub(crate) fn next(&mut self) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        if self.page.is_empty() {
            self.turn()?;
        }
        Ok(self.page.pop_front())
    }

    fn turn(&mut self) -> Result<(), StoreError> {
        let Some(start) = self.next.take() else {
            return Ok(());
        };
        let handle = &self.base.handle;
        let rows = handle.range(&start, &self.end, self.page_rows)?;
        if rows.len() == self.page_rows
            && let Some((last, _)) = rows.last()
        {
            // The first key after `last` is `last` with a zero byte behind it.
            self.next = Some([last.as_slice(), &[0]].concat());
        }
        for (key, stored) in rows {
            let value = handle.noted(unseal(&key, stored))?;
            let key = key.get(PARTITION_PREFIX_BYTES..).unwrap_or_default();
            self.page.push_back((key.to_vec(), value));
        }
        Ok(())
    }
}

/// Writes changes to a partition in the base, in chunks.
pub(crate) struct BaseWriter<'a> {
    base: &'a BasePartition,
    chunk: Vec<BaseWrite>,
    bytes: usize,
}

impl BaseWriter<'_> {
    /// Sets a row, or deletes it for `None`.
    pub(crate) fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        let key = self.base.full_key(key);
        let stored = value.map(|value| seal(&key, value));
        let size = key.len() + stored.as_ref().map_or(0, Vec::len);
        if !self.chunk.is_empty() && self.bytes + size > CHUNK_BYTES {
            self.flush()?;
        }
        self.bytes += size;
        self.chunk.push((key, stored));
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            Ok(())
        } else {
            self.base.handle.write(chunk)
        }
    }
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(key), value).to_be_bytes()
}

fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    [checksum(key, value).as_slice(), value].concat()
}

pub(crate) fn unseal(key: &[u8], stored: Vec<u8>) -> Result<Bytes, StoreError> {
    let mut value = Bytes::from(stored);
    if value.len() >= CHECKSUM_BYTES {
        let found = value.split_to(CHECKSUM_BYTES);
        if found.as_ref() == checksum(key, &value) {
            return Ok(value);
        }
    }
    // The table says where to look; the rest of the key is about people.
    let table = key.get(PARTITION_PREFIX_BYTES).copied().unwrap_or_default();
    Err(StoreError::Corrupt {
        what: "base row",
        location: format!("in table {table}"),
        detail: "its checksum does not match".to_owned(),
        remedy: REMEDY_BASE,
    })
}

fn read_position(bytes: &[u8]) -> Option<LogPosition> {
    let (term, index) = bytes.split_first_chunk::<8>()?;
    let index: [u8; 8] = index.try_into().ok()?;
    Some(LogPosition {
        term: u64::from_be_bytes(*term),
        index: u64::from_be_bytes(index),
    })
}
