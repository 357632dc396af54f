//! Envelopes that have left memory: they stay in the checkpoint's files, where they are durable, and are
//! read from there. The base never holds them.
//!
//! ```text
//!   deltas, newest first ─┐
//!                         ├─ index of each: which block may hold the key ─► the block, checked ─► rows
//!   base ─────────────────┘                                     (in order of key; the newest has the say)
//! ```
//!
//! Bodies are most of what a node stores. Once they are in a file, synced and under a checksum, a copy of
//! them in the base would give nothing but the work of writing it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rossby_domain::ids::PartitionId;

use super::error::StoreError;
use super::files::{FileName, Pin};
use super::manifest::PartitionFiles;
use super::row_file::{BlockPlace, FileRow, RowFile};
use super::rows::{EnvelopeKey, KeyRange, envelope_key, envelope_row};

/// The files of a partition, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredEnvelopes {
    files: Vec<Arc<EnvelopeFile>>,
}

/// One file, kept as long as it is looked into.
#[derive(Debug)]
struct EnvelopeFile {
    pin: Pin,
    partition: PartitionId,
    /// Whether it stays open once it was: a partition has one base, but up to sixteen deltas, and what a
    /// process may have open is bounded.
    stays_open: bool,
    open: OnceLock<RowFile>,
    /// Read when it is first asked for.
    index: OnceLock<Vec<BlockPlace>>,
}

impl StoredEnvelopes {
    /// Those of a later checkpoint's files, most of which are the same; `pin` finds a file's pin.
    ///
    /// # Errors
    /// [`StoreError::Inconsistent`] for a file without a pin: without it rows would be missing.
    pub(crate) fn next(
        &self,
        files: &PartitionFiles,
        pin: impl Fn(&FileName) -> Option<Pin>,
    ) -> Result<Self, StoreError> {
        let partition = files.partition;
        let known = |name: &FileName| self.files.iter().find(|file| file.pin.name() == name);
        let look_into = |name: &FileName| -> Result<Arc<EnvelopeFile>, StoreError> {
            match known(name) {
                Some(file) => Ok(Arc::clone(file)),
                None => Ok(Arc::new(EnvelopeFile {
                    pin: pin(name).ok_or(StoreError::Inconsistent(
                        "a checkpoint does not keep one of its files",
                    ))?,
                    partition,
                    stays_open: *name == files.base,
                    open: OnceLock::new(),
                    index: OnceLock::new(),
                })),
            }
        };
        let mut files: Vec<_> = files
            .files()
            .map(look_into)
            .collect::<Result<_, StoreError>>()?;
        files.reverse();
        Ok(Self { files })
    }

    /// The envelopes within a range, in order of key.
    pub(crate) fn rows<'a>(&'a self, range: &'a KeyRange) -> Result<EnvelopeRows<'a>, StoreError> {
        let mut sources = Vec::with_capacity(self.files.len());
        for file in &self.files {
            sources.extend(FileRows::seek(file, range)?);
        }
        Ok(EnvelopeRows {
            sources,
            next: None,
        })
    }
}

impl EnvelopeFile {
    /// Does something with the open file. Damage is remembered: no checkpoint that comes in may make use of
    /// the file.
    fn with<T>(
        &self,
        read: impl FnOnce(&RowFile) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let found = match self.open.get() {
            Some(file) => read(file),
            None => {
                let file = RowFile::open(self.pin.files(), self.pin.name())?;
                if self.stays_open {
                    read(self.open.get_or_init(|| file))
                } else {
                    read(&file)
                }
            }
        };
        if let Err(StoreError::Corrupt { .. }) = &found {
            self.pin.files().note_damaged(self.pin.name());
        }
        found
    }

    fn index(&self) -> Result<&[BlockPlace], StoreError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = self.with(|file| file.index(self.pin.files().group, self.partition))?;
        Ok(self.index.get_or_init(|| index))
    }
}

/// The rows of one file within a range, deleted ones too.
struct FileRows<'a> {
    file: &'a EnvelopeFile,
    /// The blocks after the present one.
    blocks: std::slice::Iter<'a, BlockPlace>,
    rows: std::vec::IntoIter<FileRow>,
    range: &'a KeyRange,
    head: Head,
}

/// What is next in a file.
enum Head {
    /// A row that was not read yet, with this key or a later one, if there is any.
    From(Bytes),
    Row(FileRow),
    End,
}

impl Head {
    /// The least key that it may have.
    fn key(&self) -> Option<&Bytes> {
        match self {
            Self::From(key) | Self::Row((key, _)) => Some(key),
            Self::End => None,
        }
    }
}

impl<'a> FileRows<'a> {
    /// `None` if there are none, which the index alone tells most of the time. No block is read yet.
    fn seek(file: &'a EnvelopeFile, range: &'a KeyRange) -> Result<Option<Self>, StoreError> {
        let index = file.index()?;
        let from = index.partition_point(|place| before(&place.last, &range.start));
        let upto = index.partition_point(|place| before(&place.first, &range.end));
        let Some(blocks) = index.get(from..upto).filter(|blocks| !blocks.is_empty()) else {
            return Ok(None);
        };
        let mut found = Self {
            file,
            blocks: blocks.iter(),
            rows: Vec::new().into_iter(),
            range,
            head: Head::End,
        };
        found.head = found.start_of_next_block();
        Ok(Some(found))
    }

    /// Where the next block begins, as its place tells.
    fn start_of_next_block(&self) -> Head {
        match self.blocks.as_slice().first() {
            Some(place) => {
                let first = envelope_row(&place.first);
                Head::From(first.max(self.range.start.clone()).into())
            }
            None => Head::End,
        }
    }

    /// Goes on to the next row of the block, or to where the next block begins.
    fn advance(&mut self) {
        self.head = match self.rows.next() {
            Some((key, _)) if key.as_ref() >= self.range.end.as_slice() => Head::End,
            Some(row) => Head::Row(row),
            None => self.start_of_next_block(),
        };
    }

    /// Reads the block that the head is in.
    fn read(&mut self) -> Result<(), StoreError> {
        if let Some(place) = self.blocks.next() {
            let mut rows = self.file.with(|file| file.block(place))?;
            let skipped = rows.partition_point(|(key, _)| *key < self.range.start.as_slice());
            rows.drain(..skipped);
            self.rows = rows.into_iter();
        }
        self.advance();
        Ok(())
    }
}

/// Whether an envelope's key is before a row's.
fn before(envelope: &EnvelopeKey, key: &[u8]) -> bool {
    match envelope_key(key) {
        Ok(Some(key)) => *envelope < key,
        // The bounds of a range may be longer or shorter than a key.
        _ => envelope_row(envelope).as_slice() < key,
    }
}

/// A walk over the envelopes of a partition's files. A block is read once one of its rows may be next.
pub(crate) struct EnvelopeRows<'a> {
    /// Newest first.
    sources: Vec<FileRows<'a>>,
    next: Option<(Bytes, Bytes)>,
}

impl EnvelopeRows<'_> {
    /// The key of the next envelope.
    pub(crate) fn peek_key(&mut self) -> Result<Option<&[u8]>, StoreError> {
        if self.next.is_none() {
            self.next = self.take()?;
        }
        Ok(self.next.as_ref().map(|(key, _)| key.as_ref()))
    }

    pub(crate) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        match self.next.take() {
            Some(row) => Ok(Some(row)),
            None => self.take(),
        }
    }

    /// The lowest key that is not deleted.
    fn take(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            let keys = self.sources.iter().filter_map(|source| source.head.key());
            let Some(key) = keys.min().cloned() else {
                return Ok(None);
            };
            let mut all_read = true;
            for source in &mut self.sources {
                if matches!(&source.head, Head::From(from) if *from == key) {
                    source.read()?;
                    all_read = false;
                }
            }
            if !all_read {
                continue;
            }
            let mut newest: Option<Option<Bytes>> = None;
            for source in &mut self.sources {
                if source.head.key() != Some(&key) {
                    continue;
                }
                if let Head::Row((_, value)) = std::mem::replace(&mut source.head, Head::End) {
                    newest.get_or_insert(value);
                    source.advance();
                }
            }
            if let Some(value) = newest.flatten() {
                return Ok(Some((key, value)));
            }
        }
    }
}
