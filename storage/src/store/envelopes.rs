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
use super::row_file::{BlockPlace, BlockRows, FileRow, RowFile};
use super::rows::{EnvelopeKey, KeyRange, envelope_key};

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
    /// Read when it is first asked for.
    index: OnceLock<Vec<BlockPlace>>,
}

impl StoredEnvelopes {
    /// Those of a later checkpoint's files, most of which are the same; `pin` finds a file's pin.
    pub(crate) fn next(
        &self,
        files: &PartitionFiles,
        pin: impl Fn(&FileName) -> Option<Pin>,
    ) -> Self {
        let partition = files.partition;
        let known = |name: &FileName| self.files.iter().find(|file| file.pin.name() == name);
        let open = |name: &FileName| match known(name) {
            Some(file) => Some(Arc::clone(file)),
            None => pin(name).map(|pin| {
                let index = OnceLock::new();
                Arc::new(EnvelopeFile {
                    pin,
                    partition,
                    index,
                })
            }),
        };
        let mut files: Vec<_> = files.files().filter_map(open).collect();
        files.reverse();
        Self { files }
    }

    /// The envelopes within a range, in order of key.
    pub(crate) fn rows(&self, range: &KeyRange) -> Result<EnvelopeRows<'_>, StoreError> {
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
    fn open(&self) -> Result<RowFile, StoreError> {
        RowFile::open(self.pin.files(), self.pin.name())
    }

    fn index(&self) -> Result<&[BlockPlace], StoreError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = self.open()?.index(self.pin.files().group, self.partition)?;
        Ok(self.index.get_or_init(|| index))
    }
}

/// The rows of one file within a range, deleted ones too.
struct FileRows<'a> {
    file: RowFile,
    /// The blocks after the present one.
    blocks: std::slice::Iter<'a, BlockPlace>,
    rows: Option<BlockRows>,
    range: KeyRange,
    head: Option<FileRow>,
}

impl<'a> FileRows<'a> {
    /// `None` if there are none, which the index alone tells most of the time.
    fn seek(file: &'a EnvelopeFile, range: &KeyRange) -> Result<Option<Self>, StoreError> {
        let index = file.index()?;
        let from = index.partition_point(|place| before(&place.last, &range.start));
        let upto = index.partition_point(|place| before(&place.first, &range.end));
        let Some(blocks) = index.get(from..upto).filter(|blocks| !blocks.is_empty()) else {
            return Ok(None);
        };
        let mut found = Self {
            file: file.open()?,
            blocks: blocks.iter(),
            rows: None,
            range: range.clone(),
            head: None,
        };
        found.advance()?;
        Ok(found.head.is_some().then_some(found))
    }

    /// Goes on to the next row.
    fn advance(&mut self) -> Result<(), StoreError> {
        self.head = loop {
            match self.rows.as_mut().and_then(Iterator::next) {
                Some(Some((key, _))) if key.as_ref() < self.range.start.as_slice() => {}
                Some(Some((key, _))) if key.as_ref() >= self.range.end.as_slice() => break None,
                Some(Some(row)) => break Some(row),
                Some(None) => return Err(self.file.damaged(0, "a row is malformed")),
                None => match self.blocks.next() {
                    Some(place) => self.rows = Some(self.file.block(place)?),
                    None => break None,
                },
            }
        };
        Ok(())
    }
}

/// Whether an envelope's key is before a row's.
fn before(envelope: &EnvelopeKey, key: &[u8]) -> bool {
    match envelope_key(key) {
        Ok(Some(key)) => *envelope < key,
        // The bounds of a range may be longer or shorter than a key.
        _ => super::rows::envelope_row(envelope).as_slice() < key,
    }
}

/// A walk over the envelopes of a partition's files.
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
            let heads = self
                .sources
                .iter()
                .filter_map(|source| source.head.as_ref());
            let Some(key) = heads.map(|(key, _)| key).min().cloned() else {
                return Ok(None);
            };
            let mut newest: Option<Option<Bytes>> = None;
            for source in &mut self.sources {
                if let Some((_, value)) = source.head.take_if(|(candidate, _)| *candidate == key) {
                    newest.get_or_insert(value);
                    source.advance()?;
                }
            }
            if let Some(value) = newest.flatten() {
                return Ok(Some((key, value)));
            }
        }
    }
}
