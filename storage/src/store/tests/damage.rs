//! Damage on the disk: it is refused, or it does not matter. It is never served.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rossby_seams::base::{Base as _, MemoryBase};
use rossby_seams::disk::{Disk as _, MemoryDisk, PowerLoss, read};

use super::world::{Model, checkpoints, letter, try_open};
use crate::sled_base::SledBase;
use crate::store::StoreError;

/// A disk with one checkpoint, of a base and a delta at least, and what it holds.
fn disk_with_checkpoint() -> (MemoryDisk, Model) {
    let disk = MemoryDisk::default();
    let mut model = Model::new();
    let (store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    for counter in 1..4 {
        let body = Bytes::from(vec![7; if counter == 1 { 4000 } else { 50 }]);
        model.append(1, vec![letter(0, 1, counter, body)]);
        model.catch_up(&mut group);
        group.cut().unwrap().write().unwrap().publish().unwrap();
    }
    let files = group.current().unwrap().contents().partitions.clone();
    assert!(
        files.iter().any(|partition| !partition.deltas.is_empty()),
        "{files:?}"
    );
    drop((group, store));
    (disk, model)
}

fn files(disk: &MemoryDisk) -> Vec<PathBuf> {
    disk.list(&checkpoints().join("1")).unwrap()
}

/// Opens the damaged disk: refused as damaged, or all as it was.
fn refused(disk: &MemoryDisk, model: &Model, what: &str) -> bool {
    match try_open(disk, Arc::new(MemoryBase::default())) {
        Ok((_store, group)) => {
            model.check(&group);
            false
        }
        Err(StoreError::Corrupt { .. } | StoreError::Version { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
    }
}

fn damage(disk: &MemoryDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> MemoryDisk {
    let damaged = disk.fork(PowerLoss::KeepAll);
    let mut bytes = read(&damaged, path).unwrap();
    change(&mut bytes);
    damaged.remove(path).unwrap();
    damaged
        .create(path)
        .unwrap()
        .write_all_at(&bytes, 0)
        .unwrap();
    damaged
}

#[test]
fn a_flipped_bit_in_any_file_of_a_checkpoint_is_refused() {
    let (disk, model) = disk_with_checkpoint();
    for path in files(&disk) {
        let length = read(&disk, &path).unwrap().len();
        let step = if length > 1000 { 37 } else { 5 };
        for at in (0..length)
            .step_by(step)
            .chain(length.saturating_sub(40)..length)
        {
            let damaged = damage(&disk, &path, |bytes| bytes[at] ^= 1 << (at % 8));
            assert!(
                refused(&damaged, &model, &format!("{path:?} at {at}")),
                "{path:?} at {at}"
            );
        }
    }
}

#[test]
fn a_shortened_lengthened_or_missing_file_of_a_checkpoint_is_refused() {
    let (disk, model) = disk_with_checkpoint();
    for path in files(&disk) {
        let name = path.display().to_string();
        let length = read(&disk, &path).unwrap().len();
        for keep in [0, 1, length / 2, length - 1] {
            let damaged = damage(&disk, &path, |bytes| bytes.truncate(keep));
            assert!(refused(&damaged, &model, &name), "{name} cut to {keep}");
        }
        let damaged = damage(&disk, &path, |bytes| bytes.push(0));
        assert!(refused(&damaged, &model, &name), "{name} with a byte more");
        if !path.ends_with("manifest") {
            let missing = disk.fork(PowerLoss::KeepAll);
            missing.remove(&path).unwrap();
            assert!(refused(&missing, &model, &name), "{name} missing");
        }
    }
}

#[test]
fn a_file_swapped_for_another_of_the_same_checkpoint_is_refused() {
    let (disk, model) = disk_with_checkpoint();
    let files: Vec<_> = files(&disk)
        .into_iter()
        .filter(|path| !path.ends_with("manifest"))
        .collect();
    let other = read(&disk, &files[0]).unwrap();
    let damaged = damage(&disk, &files[1], |bytes| *bytes = other);
    assert!(refused(&damaged, &model, "swapped"));
}

#[test]
fn a_file_of_the_same_shape_with_other_rows_is_refused() {
    let disks = [b'a', b'b'].map(|fill| {
        let disk = MemoryDisk::default();
        let mut model = Model::new();
        let (_store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
        model.append(1, vec![letter(0, 1, 1, Bytes::from(vec![fill; 100]))]);
        model.catch_up(&mut group);
        let checkpoint = group.cut().unwrap().write().unwrap().publish().unwrap();
        let file = checkpoint.contents().partitions[1].base;
        (disk, model, checkpoint.inner_path(&file), file)
    });
    let [
        (disk, model, path, file),
        (other_disk, _, other_path, other),
    ] = disks;
    assert_eq!(file.length, other.length);
    assert_ne!(file.digest, other.digest);
    let other = read(&other_disk, &other_path).unwrap();
    let damaged = damage(&disk, &path, |bytes| *bytes = other);
    assert!(refused(
        &damaged,
        &model,
        "all checksums match but the digest"
    ));
}

#[test]
fn damage_is_found_when_a_file_is_merged_and_the_old_checkpoint_stays() {
    let (disk, mut model) = disk_with_checkpoint();
    let (_store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    let at = group.applied().position;
    // Under the running replica's feet.
    let damaged: Vec<_> = files(&disk)
        .into_iter()
        .filter(|path| !path.ends_with("manifest"))
        .collect();
    let flip = || {
        for path in &damaged {
            let file = disk.open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 60).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], 60).unwrap();
        }
    };
    flip();
    for counter in 10..20 {
        model.append(1, vec![letter(0, 1, counter, Bytes::from(vec![9; 2000]))]);
    }
    model.catch_up(&mut group);
    let written = group.cut().unwrap().write();
    assert!(
        matches!(written, Err(StoreError::Corrupt { .. })),
        "{written:?}"
    );
    assert_eq!(group.current().map(|checkpoint| checkpoint.position()), at);
    // The files are what they were, but for that.
    flip();
    model.check(&group);
}

#[test]
fn a_damaged_state_of_the_base_means_a_rebuild() {
    let (disk, mut model) = disk_with_checkpoint();
    let base = Arc::new(MemoryBase::default());
    let (store, group) = try_open(&disk, Arc::clone(&base) as _).unwrap();
    store.close().unwrap();
    drop((store, group));
    let path = checkpoints().join("base.state");
    for at in 0..read(&disk, &path).unwrap().len() {
        let damaged = damage(&disk, &path, |bytes| bytes[at] ^= 4);
        let (_store, group) = try_open(&damaged, Arc::clone(&base) as _).unwrap();
        model.check(&group);
    }
    // And the base is written to again without a fuss.
    let (_store, mut group) = try_open(&disk, base).unwrap();
    model.append(1, vec![letter(0, 1, 30, Bytes::from_static(b"still here"))]);
    model.catch_up(&mut group);
    group.cut().unwrap().write().unwrap().publish().unwrap();
    model.check(&group);
}

#[test]
fn an_older_copy_of_the_base_put_in_its_place_is_not_believed() {
    let (disk, mut model) = disk_with_checkpoint();
    let old = Arc::new(MemoryBase::default());
    // Closed in good order, but two sessions ago.
    let (store, group) = try_open(&disk, Arc::clone(&old) as _).unwrap();
    store.close().unwrap();
    drop((store, group));
    let (store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    model.append(1, vec![letter(0, 1, 30, Bytes::from_static(b"new"))]);
    model.catch_up(&mut group);
    store.close().unwrap();
    drop((store, group));
    let (_store, mut group) = try_open(&disk, old).unwrap();
    model.catch_up(&mut group);
    model.check(&group);
}

#[test]
fn a_base_that_lost_its_last_writes_though_it_was_flushed_is_not_believed() {
    let (disk, model) = disk_with_checkpoint();
    let base = Arc::new(MemoryBase::default());
    let (store, group) = try_open(&disk, Arc::clone(&base) as _).unwrap();
    store.close().unwrap();
    drop((store, group));
    // The index row has survived, and some row before it has not.
    let rows = base.range(&[0], &[0xff; 16], 1000).unwrap();
    let last = rows.last().unwrap().0.clone();
    assert_eq!(last, crate::store::rows::session());
    base.write(vec![(rows[3].0.clone(), None), (last, None)])
        .unwrap();
    let (_store, group) = try_open(&disk, base).unwrap();
    model.check(&group);
}

#[test]
fn a_damaged_row_of_the_base_stops_the_group_and_is_gone_when_it_is_opened_again() {
    let (disk, model) = disk_with_checkpoint();
    let base = Arc::new(MemoryBase::default());
    let damage_a_row = || {
        let (key, mut value) = base.range(&[0], &[0xf0], 1).unwrap().pop().unwrap();
        value[1] ^= 1;
        base.write(vec![(key, Some(value))]).unwrap();
    };
    let (store, group) = try_open(&disk, Arc::clone(&base) as _).unwrap();
    damage_a_row();
    let found = group.reader().digests();
    assert!(
        matches!(found, Err(StoreError::Corrupt { .. })),
        "{found:?}"
    );
    drop(group);
    // In the same session,
    let group = store.group(super::world::GROUP).unwrap();
    model.check(&group);
    damage_a_row();
    assert!(group.reader().digests().is_err());
    store.close().unwrap();
    drop((store, group));
    // and in the next one.
    let (_store, group) = try_open(&disk, base).unwrap();
    model.check(&group);
}

#[test]
fn rows_in_the_base_of_a_group_without_a_checkpoint_are_emptied() {
    let (disk, _) = disk_with_checkpoint();
    let base = Arc::new(MemoryBase::default());
    let (store, group) = try_open(&disk, Arc::clone(&base) as _).unwrap();
    store.close().unwrap();
    drop((store, group));
    disk.remove(&checkpoints().join("1").join("manifest"))
        .unwrap();
    let (_store, group) = try_open(&disk, Arc::clone(&base) as _).unwrap();
    assert_eq!(group.applied().position, None);
    assert_eq!(group.reader().digests().unwrap().1, []);
    assert_eq!(base.range(&[0], &[0xf0], 10).unwrap().len(), 0);
}

#[test]
fn a_sled_folder_deleted_or_full_of_garbage_is_rebuilt() {
    let (disk, model) = disk_with_checkpoint();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base");
    let cache_bytes = 1024 * 1024;
    let closed = || {
        let base = Arc::new(SledBase::open_or_replace(&path, cache_bytes).unwrap());
        let (store, group) = try_open(&disk, base).unwrap();
        model.check(&group);
        store.close().unwrap();
    };
    closed();
    // Used as it is.
    closed();
    SledBase::delete(&path).unwrap();
    closed();
    for pattern in [&[][..], &[0; 4096], &[0x5a; 100_000]] {
        for entry in fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::write(entry.path(), pattern).unwrap();
            }
        }
        closed();
    }
    // A flipped bit anywhere: refused by sled, found by a checksum when it is read, or harmless.
    let database = path.join("db");
    let bytes = fs::read(&database).unwrap();
    for at in (0..bytes.len().min(40_000)).step_by(3001) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        fs::write(&database, damaged).unwrap();
        let base = Arc::new(SledBase::open_or_replace(&path, cache_bytes).unwrap());
        let (_store, group) = try_open(&disk, base).unwrap();
        match group.reader().digests() {
            Ok((_, digests)) => assert_eq!(digests, model.digests(), "{at}"),
            Err(StoreError::Corrupt { .. } | StoreError::Base(_)) => {}
            Err(other) => panic!("{at}: {other}"),
        }
    }
}
