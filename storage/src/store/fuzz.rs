//! What holds for checkpoints. See [`crate::fuzz`].

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_seams::disk::{Disk as _, MemoryDisk};
use sha2::{Digest as _, Sha256};

use super::error::REMEDY_REPLICA;
use super::files::{FileName, GroupFiles};
use super::manifest::{MAGIC, Manifest};
use super::row_file::{self, FileRow, RowFileKind, RowFileReader, RowFileWriter};

const GROUP: GroupId = GroupId(1);

/// A manifest. After a first byte that is odd, the rest is its body and gets its frame.
pub fn manifest(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else {
        return false;
    };
    let bytes = if mode % 2 == 1 {
        framed(rest)
    } else {
        rest.to_vec()
    };
    let Ok(found) = Manifest::decode(&bytes, "input", REMEDY_REPLICA) else {
        return false;
    };
    let again = found
        .encode()
        .map(|bytes| Manifest::decode(&bytes, "input", REMEDY_REPLICA));
    assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == found)));
    true
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = [MAGIC.as_slice(), &length, body].concat();
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// A file of rows. The first byte: bit 0 says that it is a delta, bit 1 that the rest gets its frame
/// (it is the rows of one block then, behind a byte with their number), bit 2 its header only.
pub fn row_file(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else {
        return false;
    };
    let kind = match mode & 1 {
        0 => RowFileKind::Base,
        _ => RowFileKind::Delta,
    };
    let Ok(partition) = PartitionId::new(7) else {
        return false;
    };
    let head = row_file::header(GROUP, partition, kind);
    let bytes = match (mode >> 1) & 3 {
        0 => rest.to_vec(),
        2 => [&head, rest].concat(),
        _ => with_frame(&head, rest),
    };
    let disk = MemoryDisk::default();
    let Ok(files) = GroupFiles::open(Arc::new(disk.clone()), Path::new("/c"), GROUP) else {
        return false;
    };
    let name = FileName {
        digest: Sha256::digest(&bytes).into(),
        length: bytes.len() as u64,
    };
    let written = disk.create(&files.path(&name.digest));
    assert!(written.is_ok_and(|file| file.write_all_at(&bytes, 0).is_ok()));
    let Some(rows) = read(&files, &name, partition, kind) else {
        return false;
    };
    assert!(rows.is_sorted_by(|(a, _), (b, _)| a < b));
    rewrite(&files, partition, kind, &rows);
    true
}

fn with_frame(head: &[u8], rest: &[u8]) -> Vec<u8> {
    let (rows, payload) = rest.split_first().unwrap_or((&0, &[]));
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let offset = (head.len() + 8) as u64;
    let place = row_file::place_of(&Bytes::copy_from_slice(payload), offset);
    [
        head,
        &length.to_be_bytes(),
        &crc32c::crc32c(payload).to_be_bytes(),
        payload,
        &row_file::end((*rows).into(), place.as_slice()),
    ]
    .concat()
}

fn read(
    files: &GroupFiles,
    name: &FileName,
    partition: PartitionId,
    kind: RowFileKind,
) -> Option<Vec<FileRow>> {
    let mut reader = RowFileReader::open(files, name, partition, kind).ok()?;
    let mut rows = Vec::new();
    while let Some(row) = reader.next().ok()? {
        rows.push(row);
    }
    Some(rows)
}

/// The rows, written as this build writes them, read back as the same.
fn rewrite(files: &Arc<GroupFiles>, partition: PartitionId, kind: RowFileKind, rows: &[FileRow]) {
    let Ok(mut writer) = RowFileWriter::create(files, partition, kind) else {
        return;
    };
    let pushed = rows
        .iter()
        .try_for_each(|(key, value)| writer.push(key, value.as_deref()));
    assert!(pushed.is_ok());
    match writer.finish() {
        Ok(None) => assert!(rows.is_empty()),
        Ok(Some(pin)) => {
            let again = read(files, pin.name(), partition, kind);
            assert!(again.is_some_and(|again| again == rows));
        }
        Err(error) => unreachable!("rows that were read can't be written: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{FEATURE_LEVEL, PartitionFiles};
    use super::*;
    use crate::LogPosition;

    use crate::fuzz::replay::{replay, seed, with};

    #[test]
    fn the_corpus_of_manifests_holds() {
        replay("manifest", manifest);
    }

    #[test]
    fn the_corpus_of_row_files_holds() {
        replay("row_file", row_file);
    }

    #[test]
    fn a_real_manifest_is_accepted() {
        let file = |seed| FileName {
            digest: [seed; 32],
            length: 1000,
        };
        let partition = |number, deltas: &[u8]| PartitionFiles {
            partition: PartitionId::new(number).unwrap(),
            base: file(1),
            deltas: deltas.iter().map(|seed| file(*seed)).collect(),
        };
        let at = LogPosition { term: 3, index: 77 };
        let real = Manifest {
            group: GROUP,
            position: at,
            membership: Some((Some(at), Bytes::from_static(b"m"))),
            feature_level: FEATURE_LEVEL,
            partitions: vec![partition(2, &[]), partition(9, &[2, 3])],
        };
        let bytes = real.encode().unwrap();
        let body = &bytes[12..bytes.len() - 32];
        seed("manifest", "seed-whole", &with(0, &bytes), manifest);
        seed("manifest", "seed-body", &with(1, body), manifest);
    }

    #[test]
    fn a_real_row_file_is_accepted() {
        let partition = PartitionId::new(7).unwrap();
        let envelope = |last| [[4].as_slice(), &[9; 23], &[last]].concat();
        let keys = [b"a".to_vec(), b"ab".to_vec(), b"b".to_vec()];
        let letters = [envelope(1), envelope(2), envelope(3)];
        for (name, kind, gone, keys) in [
            ("base", RowFileKind::Base, false, &keys),
            ("delta", RowFileKind::Delta, true, &keys),
            ("envelopes", RowFileKind::Delta, true, &letters),
        ] {
            let disk = MemoryDisk::default();
            let files = GroupFiles::open(Arc::new(disk.clone()), Path::new("/c"), GROUP).unwrap();
            let mut writer = RowFileWriter::create(&files, partition, kind).unwrap();
            writer.push(&keys[0], Some(b"one")).unwrap();
            writer
                .push(&keys[1], (!gone).then_some(b"two".as_slice()))
                .unwrap();
            writer.push(&keys[2], Some(b"")).unwrap();
            let pin = writer.finish().unwrap().unwrap();
            let bytes = rossby_seams::disk::read(&disk, &files.path(&pin.name().digest)).unwrap();
            let delta = u8::from(gone);
            let index = if keys == &letters { 60 } else { 0 };
            let rows = [&[3], &bytes[32..bytes.len() - 24 - index]].concat();
            seed(
                "row_file",
                &format!("seed-{name}-whole"),
                &with(delta, &bytes),
                row_file,
            );
            seed(
                "row_file",
                &format!("seed-{name}-rows"),
                &with(delta | 2, &rows),
                row_file,
            );
            seed(
                "row_file",
                &format!("seed-{name}-blocks"),
                &with(delta | 4, &bytes[24..]),
                row_file,
            );
        }
    }
}
