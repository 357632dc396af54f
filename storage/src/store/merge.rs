//! The rows of a partition, from its files and perhaps a layer on top: a merge in order of key.

use std::collections::btree_map;
use std::iter::Peekable;

use bytes::Bytes;

use super::error::StoreError;
use super::files::GroupFiles;
use super::layer::{Layer, Slot};
use super::manifest::PartitionFiles;
use super::row_file::{FileRow, RowFileKind, RowFileReader};

/// A walk over the rows that are left when newer changes have replaced older ones. It reads each
/// file once and keeps one block of each in memory.
pub(crate) struct MergedRows<'a> {
    layer: Option<Peekable<btree_map::Iter<'a, Vec<u8>, Slot>>>,
    /// Newest first.
    files: Vec<(RowFileReader, Option<FileRow>)>,
}

impl<'a> MergedRows<'a> {
    pub(crate) fn open(
        files: &GroupFiles,
        partition: &PartitionFiles,
        layer: Option<&'a Layer>,
    ) -> Result<Self, StoreError> {
        let open = |name, kind| {
            let mut reader = RowFileReader::open(files, name, partition.partition, kind)?;
            let head = reader.next()?;
            Ok::<_, StoreError>((reader, head))
        };
        let mut readers = Vec::with_capacity(partition.deltas.len() + 1);
        for name in partition.deltas.iter().rev() {
            readers.push(open(name, RowFileKind::Delta)?);
        }
        readers.push(open(&partition.base, RowFileKind::Base)?);
        Ok(Self {
            layer: layer.map(|layer| layer.iter().peekable()),
            files: readers,
        })
    }

    /// The next row that is there. `None` once every file was read to its end, digests and all.
    pub(crate) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        while let Some(key) = self.lowest_key() {
            if let Some(value) = self.take(&key)? {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    fn lowest_key(&mut self) -> Option<Bytes> {
        let of_files = self
            .files
            .iter()
            .filter_map(|(_, head)| head.as_ref())
            .map(|(key, _)| key)
            .min();
        let of_layer = self
            .layer
            .as_mut()
            .and_then(|slots| slots.peek())
            .map(|(key, _)| *key);
        match (of_layer, of_files) {
            (Some(layer), Some(file)) if file.as_ref() <= layer.as_slice() => Some(file.clone()),
            (Some(layer), _) => Some(Bytes::copy_from_slice(layer)),
            (None, file) => file.cloned(),
        }
    }

    /// Takes the key from all sources; the newest of them has the say.
    fn take(&mut self, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        let mut newest: Option<Option<Bytes>> = self
            .layer
            .as_mut()
            .and_then(|slots| slots.next_if(|(candidate, _)| candidate.as_slice() == key))
            .map(|(_, slot)| slot.value().cloned());
        for (reader, head) in &mut self.files {
            if let Some((_, value)) = head.take_if(|(candidate, _)| candidate == key) {
                newest.get_or_insert(value);
                *head = reader.next()?;
            }
        }
        Ok(newest.flatten())
    }
}
