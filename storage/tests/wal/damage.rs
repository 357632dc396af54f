//! Damage on disk is detected, never served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::{Disk as _, MemoryDisk, PowerLoss, read};
use rossby_storage::wal::{Wal, WalError, WalOptions};

use crate::harness::{FOLDER, OPTIONS, append, at, drain_all, entry, finish, log, open};
use crate::model::{GROUPS, Op, Rig, observe_group};

/// A log of several segments, with all kinds of records, and the model of it.
fn written() -> Rig {
    let mut rig = Rig::new(MemoryDisk::default()).unwrap();
    for round in 0..5_usize {
        let sizes = vec![100 * round, 513, 1400, 2000];
        for group in 0..GROUPS {
            rig.run(&Op::Append {
                group,
                sizes: sizes.clone(),
            })
            .unwrap();
        }
        rig.run(&Op::Drain).unwrap();
        rig.run(&Op::Drain).unwrap();
        rig.run(&Op::Vote { group: 0, size: 30 }).unwrap();
        rig.run(&Op::Truncate { group: 1, count: 1 }).unwrap();
        rig.run(&Op::Purge { group: 2, count: 1 }).unwrap();
        rig.run(&Op::Committed { group: 2 }).unwrap();
        while rig.writer.drain() {}
        rig.run(&Op::Drain).unwrap();
    }
    assert_eq!(rig.durable, rig.history.len() - 1);
    rig
}

fn segments(disk: &MemoryDisk) -> Vec<PathBuf> {
    let files = disk.list(Path::new(FOLDER)).unwrap();
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|is| is == "wal"))
        .collect()
}

fn flip(disk: &MemoryDisk, path: &Path, byte: usize, mask: u8) {
    let file = disk.open(path).unwrap();
    let mut held = [0];
    file.read_exact_at(&mut held, byte as u64).unwrap();
    file.write_all_at(&[held[0] ^ mask], byte as u64).unwrap();
    file.sync_data().unwrap();
}

fn is_damage(error: &WalError) -> bool {
    matches!(
        error,
        WalError::Corrupt { .. } | WalError::UnknownVersion { .. }
    )
}

/// Flips bits one at a time over all of a log's files and opens it each time.
fn sweep(rig: &Rig, disk: &MemoryDisk) -> (usize, usize) {
    let stride = if std::env::var_os("ROSSBY_LONG").is_some() {
        1
    } else {
        7
    };
    let (mut refused, mut same) = (0, 0);
    for path in segments(disk) {
        let length = read(disk, &path).unwrap().len();
        for byte in (0..length).step_by(stride) {
            let flipped = disk.fork(PowerLoss::KeepAll);
            flip(&flipped, &path, byte, 1 << (byte / stride % 8));
            match open(&flipped) {
                Err(error) => {
                    assert!(is_damage(&error), "{error}");
                    refused += 1;
                }
                Ok((wal, _writer)) => {
                    for group in 0..GROUPS {
                        match observe_group(&wal, group) {
                            Ok((found, _)) => {
                                let expected = &rig.history[rig.durable][&group];
                                assert_eq!(found, *expected, "{} byte {byte}", path.display());
                            }
                            Err(error) => assert!(is_damage(&error), "{error}"),
                        }
                    }
                    same += 1;
                }
            }
        }
    }
    (refused, same)
}

#[test]
fn a_flipped_bit_in_a_closed_log_is_refused_or_harmless() {
    let mut rig = written();
    rig.wal.shut_down();
    while rig.writer.drain() {}
    let (refused, same) = sweep(&rig, &rig.disk.fork(PowerLoss::DropUnsynced));
    assert!(
        refused > 150 && same > 50,
        "{refused} refused, {same} harmless"
    );
}

#[test]
fn a_flipped_bit_in_a_log_that_lost_power_after_a_drain_is_refused_or_harmless() {
    let rig = written();
    let (refused, same) = sweep(&rig, &rig.disk.fork(PowerLoss::DropUnsynced));
    assert!(
        refused > 150 && same > 50,
        "{refused} refused, {same} harmless"
    );
}

#[test]
fn a_bit_that_flips_while_the_log_is_open_is_never_served() {
    let disk = MemoryDisk::default();
    let options = WalOptions {
        cache_bytes: 0,
        ..OPTIONS
    };
    let (wal, mut writer) = Wal::open(Arc::new(disk.clone()), Path::new(FOLDER), options).unwrap();
    let one = log(&wal, 1);
    let entries: Vec<_> = (0..4)
        .map(|index| entry(1, index, vec![index as u8; 700]))
        .collect();
    append(&one, entries.clone()).unwrap();
    drain_all(&mut writer);
    let path = segments(&disk).remove(0);
    let mut caught = 0;
    for byte in 512..512 + 4 * 800 {
        flip(&disk, &path, byte, 1 << (byte % 8));
        match one.read(0, 4) {
            Ok(found) => assert_eq!(found, entries),
            Err(error) => {
                assert!(matches!(error, WalError::Corrupt { .. }));
                caught += 1;
            }
        }
        flip(&disk, &path, byte, 1 << (byte % 8));
    }
    assert!(caught > 2500, "{caught}");
}

#[test]
fn a_lost_segment_is_noticed() {
    let rig = written();
    let disk = rig.disk.fork(PowerLoss::DropUnsynced);
    let segments = segments(&disk);
    let used = segments.len() - 2;
    assert!(used >= 2, "the log must span several segments");
    for path in &segments[..used] {
        let disk = disk.fork(PowerLoss::KeepAll);
        disk.remove(path).unwrap();
        let refused = open(&disk).unwrap_err();
        assert!(is_damage(&refused), "{refused}");
    }
}

#[test]
fn a_synced_sector_that_turned_back_to_filler_is_refused_if_anything_came_after_it() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let path = segments(&disk).remove(0);
    let blank = read(&disk, &path).unwrap();
    let one = log(&wal, 1);
    for index in 0..4 {
        append(&one, vec![entry(1, index, vec![1; 1200])]).unwrap();
        drain_all(&mut writer);
    }
    let used = read(&disk, &path)
        .unwrap()
        .chunks(512)
        .zip(blank.chunks(512))
        .filter(|(a, b)| a != b)
        .count();
    for sector in 1..=used {
        let disk = disk.fork(PowerLoss::DropUnsynced);
        let file = disk.open(&path).unwrap();
        file.write_all_at(
            &blank[sector * 512..(sector + 1) * 512],
            sector as u64 * 512,
        )
        .unwrap();
        match open(&disk) {
            Err(error) => assert!(is_damage(&error)),
            Ok((wal, _writer)) => {
                assert!(sector > used - 3, "sector {sector} of {used} was synced");
                assert_eq!(log(&wal, 1).state().last, Some(at(1, 2)));
            }
        }
    }
}

#[test]
fn a_log_of_a_newer_format_is_not_called_damaged() {
    let disk = MemoryDisk::default();
    drop(open(&disk).unwrap());
    let path = segments(&disk).remove(0);
    let mut head = read(&disk, &path).unwrap()[..36].to_vec();
    head[8..12].copy_from_slice(&2_u32.to_be_bytes());
    let crc = crc32c::crc32c(&head[..32]);
    head[32..].copy_from_slice(&crc.to_be_bytes());
    let file = disk.open(&path).unwrap();
    file.write_all_at(&head, 0).unwrap();
    let refused = open(&disk).unwrap_err();
    assert!(matches!(
        refused,
        WalError::UnknownVersion {
            found: 2,
            supported: 1,
            ..
        }
    ));
    assert!(
        refused
            .to_string()
            .contains("start the version that wrote it")
    );
}

#[test]
fn bytes_of_a_client_can_not_pass_for_records() {
    // A body that repeats, at every place, a true record of the same segment.
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let one = log(&wal, 1);
    append(&one, vec![entry(1, 0, vec![5; 10])]).unwrap();
    drain_all(&mut writer);
    let path = segments(&disk).remove(0);
    let record = read(&disk, &path).unwrap()[512..640].to_vec();
    append(&one, vec![entry(1, 1, record.repeat(20))]).unwrap();
    disk.stop_at_mutation(disk.mutations() + 2);
    drain_all(&mut writer);
    for seed in 0..60 {
        let (wal, mut writer) = open(&disk.fork(PowerLoss::KeepSome { seed })).unwrap();
        let one = wal.log(GroupId(1), ReplicaId(101)).unwrap();
        let last = one.state().last.unwrap().index;
        append(&one, vec![entry(2, last + 1, vec![6; 10])]).unwrap();
        finish(&mut writer, one.wait_durable(last + 1)).unwrap();
    }
}
