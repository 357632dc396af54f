//! What callers may rely on, one thing at a time.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::{Disk as _, DiskFault, FileDisk, MemoryDisk, PowerLoss};
use rossby_storage::wal::{LogState, Wal, WalError, WalOptions, spawn_writer};

use crate::harness::*;

#[test]
fn what_was_reported_durable_survives_power_loss() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let one = log(&wal, 1);
    let told = append(&one, vec![entry(1, 0, "zero"), entry(1, 1, "one")]).unwrap();
    let (mut vote, outcome) = Waiting::start({
        let one = one.clone();
        async move { one.save_vote(Bytes::from_static(b"vote")).await }
    });
    assert!(!outcome.is_durable());
    assert!(told.try_recv().is_err());
    drain_all(&mut writer);
    told.try_recv().unwrap().unwrap();
    assert!(vote.outcome().is_durable());

    let (wal, _writer) = open(&disk.crash(PowerLoss::DropUnsynced)).unwrap();
    let one = log(&wal, 1);
    let expected = LogState {
        purged: None,
        last: Some(at(1, 1)),
        vote: Some(Bytes::from_static(b"vote")),
        committed: None,
    };
    assert_eq!(one.state(), expected);
    assert_eq!(
        one.read(0, 9).unwrap(),
        [entry(1, 0, "zero"), entry(1, 1, "one")]
    );
}

#[test]
fn entries_can_be_read_before_they_are_durable() {
    let (wal, _writer) = open(&MemoryDisk::default()).unwrap();
    let one = log(&wal, 1);
    append(&one, vec![entry(1, 5, "five")]).unwrap();
    assert_eq!(one.read(5, 6).unwrap(), [entry(1, 5, "five")]);
    assert_eq!(one.read(4, 6).unwrap(), []);
}

#[test]
fn callbacks_come_in_the_order_of_the_calls() {
    let (wal, mut writer) = open(&MemoryDisk::default()).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for call in 0..50_u64 {
        let order = Arc::clone(&order);
        let note = Box::new(move |_| order.lock().unwrap().push(call));
        let group = log(&wal, (call % 3) as u32);
        group
            .append(vec![entry(1, call / 3, vec![7; 600])], note)
            .unwrap();
    }
    drain_all(&mut writer);
    assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
}

#[test]
fn an_entry_that_does_not_follow_is_refused() {
    let (wal, _writer) = open(&MemoryDisk::default()).unwrap();
    let one = log(&wal, 1);
    append(&one, vec![entry(1, 0, "zero")]).unwrap();
    let refused = append(&one, vec![entry(1, 1, "one"), entry(1, 3, "three")]).unwrap_err();
    assert!(matches!(
        refused,
        WalError::NotContiguous {
            expected: 2,
            found: 3,
            ..
        }
    ));
    assert_eq!(one.state().last, Some(at(1, 0)));
}

#[test]
fn a_purge_beyond_the_end_moves_the_log_on() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let one = log(&wal, 1);
    append(&one, vec![entry(1, 0, "zero")]).unwrap();
    finish(&mut writer, one.purge(at(2, 10))).unwrap();
    assert_eq!(one.state().last, Some(at(2, 10)));
    assert!(append(&one, vec![entry(2, 1, "one")]).is_err());
    append(&one, vec![entry(2, 11, "eleven")]).unwrap();
    drain_all(&mut writer);
    let (wal, _writer) = open(&disk.crash(PowerLoss::DropUnsynced)).unwrap();
    assert_eq!(log(&wal, 1).read(0, 99).unwrap(), []);
    assert_eq!(log(&wal, 1).read(11, 99).unwrap(), [entry(2, 11, "eleven")]);
}

#[test]
fn a_removed_replica_never_comes_back_and_its_successor_begins_empty() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let (group, old, new) = (GroupId(1), ReplicaId(101), ReplicaId(102));
    let one = log(&wal, 1);
    append(&one, vec![entry(1, 0, "zero")]).unwrap();
    assert!(matches!(wal.log(group, new), Err(WalError::OtherReplica { held, .. }) if held == old));
    finish(&mut writer, wal.remove_replica(group, old)).unwrap();
    assert!(matches!(
        append(&one, vec![]),
        Err(WalError::ReplicaRemoved { .. })
    ));
    let (wal, _writer) = open(&disk.crash(PowerLoss::DropUnsynced)).unwrap();
    assert!(matches!(
        wal.log(group, old),
        Err(WalError::ReplicaRemoved { .. })
    ));
    assert_eq!(wal.log(group, new).unwrap().state(), LogState::default());
}

#[test]
fn after_a_failed_sync_nothing_is_ever_reported_durable() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let one = log(&wal, 1);
    let told = append(&one, vec![entry(1, 0, "zero")]).unwrap();
    disk.fail_operation(disk.operations() + 2, DiskFault::Io);
    drain_all(&mut writer);
    assert!(matches!(told.try_recv().unwrap(), Err(WalError::Io { .. })));
    assert!(matches!(
        append(&one, vec![entry(1, 1, "one")]),
        Err(WalError::Io { .. })
    ));
    assert!(finish(&mut writer, one.save_vote(Bytes::new())).is_err());
    assert!(finish(&mut writer, one.wait_durable(0)).is_err());
    assert!(!wal.accepts_entries());
}

#[test]
fn waiting_for_an_entry_ends_when_it_is_durable_or_gone() {
    let (wal, mut writer) = open(&MemoryDisk::default()).unwrap();
    let one = log(&wal, 1);
    let wait = |index| {
        let one = one.clone();
        Waiting::start(async move { one.wait_durable(index).await })
    };
    append(&one, vec![entry(1, 0, "zero"), entry(1, 1, "one")]).unwrap();
    let (mut zero, _) = wait(0);
    let (mut one_waits, _) = wait(1);
    let (_truncated, _) = Waiting::start({
        let one = one.clone();
        async move { one.truncate_after(Some(0)).await }
    });
    let gone = one_waits.outcome();
    assert!(matches!(
        gone,
        Outcome::Told(Err(WalError::NoSuchEntry { index: 1, .. }))
    ));
    assert!(!zero.outcome().is_durable());
    drain_all(&mut writer);
    assert!(zero.outcome().is_durable());
    assert!(wait(0).1.is_durable());
    assert!(matches!(
        wait(7).1,
        Outcome::Told(Err(WalError::NoSuchEntry { index: 7, .. }))
    ));
}

#[test]
fn an_idle_group_with_nothing_but_a_vote_pins_no_segment() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let (idle, busy) = (log(&wal, 1), log(&wal, 2));
    finish(&mut writer, idle.save_vote(Bytes::from_static(b"idle"))).unwrap();
    for index in 0..100 {
        append(&busy, vec![entry(1, index, vec![1; 3000])]).unwrap();
        drain_all(&mut writer);
        if index % 10 == 9 {
            assert!(wal.pinned_bytes(GroupId(2)) > 0);
            finish(&mut writer, busy.purge(at(1, index))).unwrap();
            assert_eq!(wal.pinned_bytes(GroupId(2)), 0);
        }
    }
    assert!(disk.list(Path::new(FOLDER)).unwrap().len() <= 3);
    let (wal, _writer) = open(&disk.crash(PowerLoss::DropUnsynced)).unwrap();
    assert_eq!(log(&wal, 1).state().vote, Some(Bytes::from_static(b"idle")));
    assert_eq!(log(&wal, 2).state().purged, Some(at(1, 99)));
}

#[test]
fn a_full_disk_refuses_entries_but_takes_votes_and_recovers_by_itself() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let one = log(&wal, 1);
    disk.set_capacity(80 << 10);
    let mut index = 0;
    let refused = loop {
        match append(&one, vec![entry(1, index, vec![1; 2000])]) {
            Ok(told) => {
                drain_all(&mut writer);
                told.try_recv().unwrap().unwrap();
                index += 1;
            }
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, WalError::DiskFull));
    assert!(index > 10);
    for _ in 0..8 {
        finish(&mut writer, one.save_vote(Bytes::from_static(b"vote"))).unwrap();
    }
    finish(&mut writer, one.truncate_after(Some(index - 2))).unwrap();
    // A new leader's first entry: without it there would be no leader, and this replica would stop.
    append(&one, vec![entry(2, index - 1, vec![])]).unwrap();
    drain_all(&mut writer);
    assert!(!wal.accepts_entries());

    disk.set_capacity(800 << 10);
    writer.drain();
    assert!(wal.accepts_entries());
    let told = append(&one, vec![entry(2, index, vec![2; 2000])]).unwrap();
    drain_all(&mut writer);
    told.try_recv().unwrap().unwrap();
}

#[test]
fn a_purge_frees_a_full_disk() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let one = log(&wal, 1);
    disk.set_capacity(80 << 10);
    let mut index = 0;
    while append(&one, vec![entry(1, index, vec![1; 2000])]).is_ok() {
        drain_all(&mut writer);
        index += 1;
    }
    finish(&mut writer, one.purge(at(1, index - 1))).unwrap();
    writer.drain();
    assert!(wal.accepts_entries());
}

#[test]
fn the_committed_mark_goes_with_the_next_drain_and_with_closing() {
    let disk = MemoryDisk::default();
    let (wal, mut writer) = open(&disk).unwrap();
    let one = log(&wal, 1);
    append(&one, vec![entry(1, 0, "zero"), entry(1, 1, "one")]).unwrap();
    one.save_committed(Some(at(1, 0))).unwrap();
    drain_all(&mut writer);
    let found = open(&disk.fork(PowerLoss::DropUnsynced)).unwrap();
    assert_eq!(log(&found.0, 1).state().committed, Some(at(1, 0)));
    one.save_committed(Some(at(1, 1))).unwrap();
    assert!(!writer.drain());
    wal.shut_down();
    drain_all(&mut writer);
    let found = open(&disk.fork(PowerLoss::DropUnsynced)).unwrap();
    assert_eq!(log(&found.0, 1).state().committed, Some(at(1, 1)));
}

#[test]
fn a_closed_log_refuses_and_tells_those_who_wait() {
    let (wal, mut writer) = open(&MemoryDisk::default()).unwrap();
    let one = log(&wal, 1);
    let told = append(&one, vec![entry(1, 0, "zero")]).unwrap();
    wal.shut_down();
    assert!(matches!(
        append(&one, vec![entry(1, 1, "one")]),
        Err(WalError::Closed)
    ));
    assert!(writer.run_once());
    told.try_recv().unwrap().unwrap();
    assert!(!writer.run_once());

    let (wal, writer) = open(&MemoryDisk::default()).unwrap();
    let told = append(&log(&wal, 1), vec![entry(1, 0, "zero")]).unwrap();
    drop(writer);
    assert!(matches!(told.try_recv().unwrap(), Err(WalError::Closed)));
}

#[test]
fn an_entry_over_the_limit_is_refused() {
    let (wal, mut writer) = open(&MemoryDisk::default()).unwrap();
    let one = log(&wal, 1);
    let refused = append(&one, vec![entry(1, 0, vec![0; (4 << 10) + 1])]).unwrap_err();
    assert!(matches!(refused, WalError::TooLarge { limit: 4096, .. }));
    append(&one, vec![entry(1, 0, vec![0; 4 << 10])]).unwrap();
    drain_all(&mut writer);
}

#[test]
fn reads_stop_at_the_byte_limit_but_give_one_entry() {
    let (wal, mut writer) = open(&MemoryDisk::default()).unwrap();
    let one = log(&wal, 1);
    for index in 0..20 {
        append(&one, vec![entry(1, index, vec![index as u8; 1000])]).unwrap();
        drain_all(&mut writer);
    }
    assert_eq!(one.read_limited(0, 20, 3500).unwrap().len(), 3);
    assert_eq!(
        one.read_limited(0, 20, 1).unwrap(),
        [entry(1, 0, vec![0; 1000])]
    );
    assert_eq!(one.read(0, 20).unwrap().len(), 20);
}

#[test]
fn impossible_segment_sizes_are_refused() {
    for segment_bytes in [0, 4096, (16 << 10) + 1, 1 << 31] {
        let options = WalOptions {
            segment_bytes,
            ..OPTIONS
        };
        let opened = Wal::open(Arc::new(MemoryDisk::default()), Path::new(FOLDER), options);
        assert!(matches!(opened.unwrap_err(), WalError::SegmentSize(_)));
    }
}

#[test]
fn a_log_on_real_files_runs_on_its_thread_and_reopens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wal");
    let options = WalOptions {
        segment_bytes: 64 << 10,
        cache_bytes: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for round in 0..3_u64 {
        let (wal, writer) = Wal::open(Arc::new(FileDisk), &path, options).unwrap();
        let thread = spawn_writer(writer).unwrap();
        let one = log(&wal, 1);
        let first = round * 100;
        let entries = |index: u64| entry(round, index, index.to_string().repeat(200));
        for index in first..first + 100 {
            append(&one, vec![entries(index)]).unwrap();
        }
        runtime.block_on(one.wait_durable(first + 99)).unwrap();
        runtime
            .block_on(one.save_vote(Bytes::from(round.to_string())))
            .unwrap();
        let read = one.read(0, u64::MAX).unwrap();
        assert_eq!(read.len() as u64, first + 100);
        assert_eq!(
            read[first as usize..],
            (first..first + 100).map(entries).collect::<Vec<_>>()
        );
        drop((wal, one));
        thread.join().unwrap();
    }
}
