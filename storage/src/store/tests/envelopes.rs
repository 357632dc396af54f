//! Envelopes that are read where they are, in the files of a checkpoint.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{BoxId, GroupId, PartitionId, Sequence};
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::{Disk as _, DiskFault, MemoryDisk};

use super::world::{Model, acknowledge, checkpoints, letter, try_open};
use crate::store::envelopes::StoredEnvelopes;
use crate::store::files::{FileName, GroupFiles, Pin};
use crate::store::manifest::PartitionFiles;
use crate::store::row_file::{BlockPlace, RowFile, RowFileKind, RowFileWriter, end, header};
use crate::store::rows;
use crate::store::{GroupStore, StoreError};

const GROUP: GroupId = GroupId(1);

fn partition() -> PartitionId {
    PartitionId::new(7).unwrap()
}

fn owner() -> BoxId {
    BoxId::derive(partition(), &[1; 32])
}

fn files_on(disk: &MemoryDisk) -> Arc<GroupFiles> {
    GroupFiles::open(Arc::new(disk.clone()), Path::new("/c"), GROUP).unwrap()
}

/// A file of envelopes with these sequences, of a size that two of them fill a block.
fn file(files: &Arc<GroupFiles>, kind: RowFileKind, sequences: std::ops::Range<u64>) -> Pin {
    let mut writer = RowFileWriter::create(files, partition(), kind).unwrap();
    for sequence in sequences {
        let key = rows::queue(&owner(), Sequence(sequence));
        writer.push(&key, Some(&[7; 20_000])).unwrap();
    }
    writer.finish().unwrap().unwrap()
}

fn place(name: &FileName, files: &GroupFiles) -> Vec<BlockPlace> {
    let file = RowFile::open(files, name).unwrap();
    file.index(GROUP, partition()).unwrap()
}

fn flip(disk: &MemoryDisk, path: &Path, at: u64) {
    let file = disk.open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_file_that_the_checkpoint_does_not_keep_is_an_error_and_not_left_out() {
    let files = files_on(&MemoryDisk::default());
    let base = file(&files, RowFileKind::Base, 1..3);
    let delta = file(&files, RowFileKind::Delta, 3..5);
    let stored = PartitionFiles {
        partition: partition(),
        base: *base.name(),
        deltas: vec![*delta.name()],
    };
    let only_base = |name: &FileName| (name == base.name()).then(|| base.clone());
    let found = StoredEnvelopes::default().next(&stored, only_base);
    assert!(
        matches!(found, Err(StoreError::Inconsistent(_))),
        "{found:?}"
    );
}

#[test]
fn a_block_is_read_only_once_one_of_its_rows_may_be_next() {
    let disk = MemoryDisk::default();
    let files = files_on(&disk);
    let pins = [
        file(&files, RowFileKind::Base, 1..9),
        file(&files, RowFileKind::Delta, 9..13),
        file(&files, RowFileKind::Delta, 13..17),
    ];
    let stored = PartitionFiles {
        partition: partition(),
        base: *pins[0].name(),
        deltas: pins[1..].iter().map(|pin| *pin.name()).collect(),
    };
    let pin = |name: &FileName| pins.iter().find(|pin| pin.name() == name).cloned();
    let envelopes = StoredEnvelopes::default().next(&stored, pin).unwrap();
    // All blocks but the one with the sequences 3 and 4 are of no use.
    for pin in &pins {
        for place in place(pin.name(), &files) {
            if place.first
                != rows::envelope_key(&rows::queue(&owner(), Sequence(3)))
                    .unwrap()
                    .unwrap()
            {
                flip(&disk, &files.path(&pin.name().digest), place.offset + 60);
            }
        }
    }
    let after = rows::queue_after(&owner(), Sequence(2)).unwrap();
    let mut found = envelopes.rows(&after).unwrap();
    for sequence in [3, 4] {
        let (key, _) = found.next().unwrap().unwrap();
        assert_eq!(key, rows::queue(&owner(), Sequence(sequence)));
    }
    let next = found.next();
    assert!(matches!(next, Err(StoreError::Corrupt { .. })), "{next:?}");
}

#[test]
fn a_block_whose_rows_are_not_those_of_its_place_is_damaged() {
    let files = files_on(&MemoryDisk::default());
    let pin = file(&files, RowFileKind::Base, 1..9);
    let places = place(pin.name(), &files);
    let file = RowFile::open(&files, pin.name()).unwrap();
    assert_eq!(file.block(&places[1]).unwrap().len(), 2);
    let (mut first, mut last) = (places[1], places[1]);
    first.first = places[0].first;
    last.last = places[2].last;
    for wrong in [first, last] {
        let found = file.block(&wrong).unwrap_err().to_string();
        assert!(
            found.contains(&format!("found at byte {}", places[1].offset)),
            "{found}"
        );
    }
}

#[test]
fn a_malformed_row_is_told_with_its_block() {
    let disk = MemoryDisk::default();
    let files = files_on(&disk);
    let payload = [9; 40];
    let head = header(GROUP, partition(), RowFileKind::Base);
    let key = rows::envelope_key(&rows::queue(&owner(), Sequence(1)))
        .unwrap()
        .unwrap();
    let place = BlockPlace {
        first: key,
        last: key,
        offset: head.len() as u64 + 8,
        length: 40,
    };
    let bytes = [
        &head[..],
        &40_u32.to_be_bytes(),
        &crc32c::crc32c(&payload).to_be_bytes(),
        &payload,
        &end(1, &[place]),
    ]
    .concat();
    let name = FileName {
        digest: [1; 32],
        length: bytes.len() as u64,
    };
    let file = disk.create(&files.path(&name.digest)).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let found = RowFile::open(&files, &name).unwrap().block(&place);
    let found = found.unwrap_err().to_string();
    assert!(
        found.contains("a row is malformed, found at byte 32;"),
        "{found}"
    );
}

/// A group whose checkpoint has a base and a delta with envelopes of one box.
fn group(disk: &MemoryDisk, base: &Arc<MemoryBase>) -> (Model, crate::store::Store, GroupStore) {
    let mut model = Model::new();
    let (store, mut group) = try_open(disk, Arc::clone(base) as _).unwrap();
    for counter in 1..4 {
        let body = Bytes::from(vec![7; if counter == 1 { 4000 } else { 50 }]);
        model.append(1, vec![letter(0, 1, counter, body)]);
        model.catch_up(&mut group);
        group.cut().unwrap().write().unwrap().publish().unwrap();
    }
    (model, store, group)
}

/// Where the first block of envelopes of the checkpoint is: its file, and a byte of it.
fn first_envelope(disk: &MemoryDisk, group: &GroupStore) -> (std::path::PathBuf, FileName, u64) {
    let checkpoint = group.current().unwrap();
    let files = GroupFiles::open(Arc::new(disk.clone()), checkpoints(), GROUP).unwrap();
    for partition in &checkpoint.contents().partitions {
        let index = RowFile::open(&files, &partition.base)
            .and_then(|file| file.index(GROUP, partition.partition))
            .unwrap();
        if let Some(place) = index.first() {
            let path = files.path(&partition.base.digest);
            return (path, partition.base, place.offset + 60);
        }
    }
    panic!("no envelopes");
}

/// Damage that is found by a read is found at the next start too, however orderly the end was.
fn damage_outlives_an_orderly_close(damage: impl Fn(&MemoryDisk, &Path, FileName, u64)) {
    let disk = MemoryDisk::default();
    let base = Arc::new(MemoryBase::default());
    let (_, store, group) = group(&disk, &base);
    let (path, name, at) = first_envelope(&disk, &group);
    damage(&disk, &path, name, at);
    let found = group.reader().digests();
    assert!(
        matches!(found, Err(StoreError::Corrupt { .. })),
        "{found:?}"
    );
    assert!(found.unwrap_err().to_string().contains("peers"));
    store.close().unwrap();
    drop((store, group));
    let again = try_open(&disk, base).map(drop);
    assert!(
        matches!(again, Err(StoreError::Corrupt { .. })),
        "{again:?}"
    );
    assert!(again.unwrap_err().to_string().contains("peers"));
}

#[test]
fn a_flipped_bit_that_a_read_found_is_refused_at_the_next_start() {
    damage_outlives_an_orderly_close(|disk, path, _, at| flip(disk, path, at));
}

#[test]
fn a_file_cut_short_that_a_read_found_is_refused_at_the_next_start() {
    damage_outlives_an_orderly_close(|disk, path, name, at| {
        let mut bytes = vec![0; usize::try_from(at).unwrap()];
        assert!(at < name.length);
        disk.open(path)
            .unwrap()
            .read_exact_at(&mut bytes, 0)
            .unwrap();
        disk.remove(path).unwrap();
        disk.create(path).unwrap().write_all_at(&bytes, 0).unwrap();
    });
}

#[test]
fn a_read_for_which_too_many_files_are_open_fails_alone() {
    let disk = MemoryDisk::default();
    let (mut model, _store, mut group) = group(&disk, &Arc::new(MemoryBase::default()));
    let reader = group.reader();
    disk.fail_operation(disk.operations() + 1, DiskFault::TooManyFiles);
    let refused = reader.digests().unwrap_err();
    assert!(refused.is_too_many_files(), "{refused}");
    model.check(&group);
    model.append(1, vec![acknowledge(1, 1)]);
    model.catch_up(&mut group);
    model.check(&group);
}
