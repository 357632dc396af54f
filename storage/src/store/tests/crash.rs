//! Power loss, and disk faults, at every single operation of a round and of an install: what is
//! found afterwards is the last published checkpoint, to the byte.

use std::sync::Arc;

use bytes::Bytes;
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::{DiskFault, MemoryDisk, PowerLoss};

use super::world::{GROUP, Model, acknowledge, letter, open, position, try_open};
use crate::store::{
    Checkpoint, GroupStore, IncomingCheckpoint, PartitionDigests, Store, StoreError,
};

/// The ways to lose power: everything that was not synced, nothing, or some of it.
fn losses() -> impl Iterator<Item = PowerLoss> {
    let some = (0..6).map(|seed| PowerLoss::KeepSome { seed });
    [PowerLoss::DropUnsynced, PowerLoss::KeepAll]
        .into_iter()
        .chain(some)
}

/// A log of a few entries, and the digests after each.
struct History {
    model: Model,
    digests: Vec<PartitionDigests>,
}

impl History {
    fn new() -> Self {
        let mut model = Model::new();
        let mut digests = vec![Vec::new(), model.digests()];
        for counter in 1..6 {
            let body = |to: u8| Bytes::from(vec![to; 2000]);
            let letters = [0, 1, 3].map(|to| letter(2, to, counter, body(to)));
            // The last entries touch one partition only, so that the others keep their files.
            let some = if counter > 3 { 1 } else { 3 };
            let mut commands: Vec<_> = letters.into_iter().take(some).collect();
            if counter == 3 {
                // What an earlier checkpoint holds is purged later.
                commands.push(acknowledge(1, 2));
            }
            model.append(1, commands);
            digests.push(model.digests());
        }
        Self { model, digests }
    }

    /// Applies the log up to an entry.
    fn apply(&self, group: &mut GroupStore, upto: usize) {
        let done = group.applied().position.map_or(0, |at| at.index as usize);
        for (number, (bytes, _)) in self.model.log.iter().enumerate().take(upto).skip(done) {
            group
                .apply_batch(position(number as u64 + 1), bytes)
                .unwrap();
        }
    }

    /// Starts on a disk: the state must be that of one of these entries, and the rest of the log
    /// must lead to its end. Returns which.
    fn recover(&self, disk: &MemoryDisk, allowed: &[usize]) -> usize {
        let (_store, mut group) = try_open(disk, Arc::new(MemoryBase::default())).unwrap();
        let found = group.applied().position.map_or(0, |at| at.index as usize);
        assert!(allowed.contains(&found), "{found} is none of {allowed:?}");
        assert_eq!(group.reader().digests().unwrap().1, self.digests[found]);
        self.apply(&mut group, self.model.log.len());
        self.model.check(&group);
        group
            .cut()
            .map(|cut| cut.write().unwrap().publish().unwrap());
        self.model.check(&group);
        found
    }
}

fn checkpoint(group: &mut GroupStore) -> Result<Checkpoint, StoreError> {
    group.cut().unwrap().write()?.publish()
}

/// A group with checkpoints at entries 2 and 5, and one more entry in memory.
fn prepared(history: &History) -> (MemoryDisk, Store, GroupStore) {
    let disk = MemoryDisk::default();
    let (store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    for upto in [2, 5] {
        history.apply(&mut group, upto);
        checkpoint(&mut group).unwrap();
    }
    history.apply(&mut group, 6);
    (disk, store, group)
}

#[test]
fn power_loss_at_any_moment_of_a_round_leaves_the_old_checkpoint_or_the_new() {
    let history = History::new();
    let (disk, _store, mut group) = prepared(&history);
    let before = disk.mutations();
    checkpoint(&mut group).unwrap();
    let mutations = disk.mutations() - before;
    assert!(mutations > 8, "{mutations}");
    let mut found = [0; 7];
    for stop in 1..=mutations + 1 {
        for loss in losses() {
            let (disk, _store, mut group) = prepared(&history);
            disk.stop_at_mutation(disk.mutations() + stop);
            let published = checkpoint(&mut group).is_ok();
            let allowed = if published { &[6][..] } else { &[5, 6] };
            found[history.recover(&disk.crash(loss), allowed)] += 1;
        }
    }
    assert!(found[5] > 0 && found[6] > 0, "{found:?}");
}

#[test]
fn power_loss_at_any_moment_of_the_first_round_leaves_nothing_or_all_of_it() {
    let history = History::new();
    for stop in 1.. {
        let disk = MemoryDisk::default();
        let (_store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
        history.apply(&mut group, 1);
        disk.stop_at_mutation(disk.mutations() + stop);
        let published = checkpoint(&mut group).is_ok();
        for loss in losses() {
            let allowed = if published { &[1][..] } else { &[0, 1] };
            history.recover(&disk.fork(loss), allowed);
        }
        if published {
            break;
        }
    }
}

#[test]
fn a_full_disk_at_any_moment_of_a_round_is_survived_and_the_next_round_succeeds() {
    faults_in_a_round(DiskFault::Full);
}

/// Only files are asked for space, so a base that meets a full disk would be lost, and the replica
/// with it.
#[test]
fn a_round_or_a_transfer_that_would_fill_the_disk_is_not_begun() {
    let history = History::new();
    let (disk, store, mut group) = prepared(&history);
    disk.set_capacity(disk.used_bytes() + 1024 * 1024);
    let refused = checkpoint(&mut group).unwrap_err();
    assert!(refused.is_disk_full(), "{refused}");
    assert_eq!(group.applied().position.unwrap().index, 6);

    let source = MemoryDisk::default();
    let (_source, mut leader) = try_open(&source, Arc::new(MemoryBase::default())).unwrap();
    history.apply(&mut leader, 6);
    let shipped = checkpoint(&mut leader).unwrap();
    let refused = receive(&store, &shipped).unwrap_err();
    assert!(refused.is_disk_full(), "{refused}");

    disk.set_capacity(u64::MAX);
    checkpoint(&mut group).unwrap();
    receive(&store, &shipped).unwrap();
}

#[test]
fn a_failing_disk_at_any_moment_of_a_round_loses_nothing() {
    faults_in_a_round(DiskFault::Io);
}

/// The process is restarted after the fault, and only then the power goes.
fn restart_then_power_loss(history: &History, fault: DiskFault, failing: u64) {
    let (disk, store, mut group) = prepared(history);
    disk.fail_operation(disk.operations() + failing, fault);
    drop((checkpoint(&mut group), group, store));
    let (_store, group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    let found = group.applied().position.unwrap().index as usize;
    assert!([5, 6].contains(&found), "{found}");
    history.recover(&disk.fork(PowerLoss::DropUnsynced), &[found]);
}

fn faults_in_a_round(fault: DiskFault) {
    let history = History::new();
    let (disk, _store, mut group) = prepared(&history);
    let before = disk.operations();
    checkpoint(&mut group).unwrap();
    for failing in 1..=disk.operations() - before {
        let (disk, _store, mut group) = prepared(&history);
        disk.fail_operation(disk.operations() + failing, fault);
        let result = checkpoint(&mut group);
        let allowed = if result.is_ok() { &[6][..] } else { &[5, 6] };
        for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll] {
            history.recover(&disk.fork(loss), allowed);
        }
        // A removal that fails does not matter.
        if let Err(error) = result {
            assert_eq!(error.is_disk_full(), fault == DiskFault::Full, "{error}");
            assert!(matches!(error, StoreError::Io { .. }), "{error}");
            restart_then_power_loss(&history, fault, failing);
        }
        // What was frozen was taken back, and the next round brings it down.
        history.apply(&mut group, 6);
        assert_eq!(group.reader().digests().unwrap().1, history.digests[6]);
        group
            .cut()
            .map(|cut| cut.write().unwrap().publish().unwrap());
        assert_eq!(group.reader().digests().unwrap().1, history.digests[6]);
        history.recover(&disk.fork(PowerLoss::DropUnsynced), &[6]);
    }
}

#[test]
fn power_loss_at_any_moment_of_an_install_leaves_the_old_state_or_the_new() {
    let history = History::new();
    let source_disk = MemoryDisk::default();
    let (_source, mut leader) = try_open(&source_disk, Arc::new(MemoryBase::default())).unwrap();
    history.apply(&mut leader, 6);
    let shipped = checkpoint(&mut leader).unwrap();
    let mut found = [0; 7];
    for stop in 1.. {
        let disk = MemoryDisk::default();
        let (store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
        history.apply(&mut group, 3);
        checkpoint(&mut group).unwrap();
        history.apply(&mut group, 4);
        disk.stop_at_mutation(disk.mutations() + stop);
        let installed = receive(&store, &shipped).and_then(|received| group.install(received));
        for loss in losses() {
            let allowed = if installed.is_ok() { &[6][..] } else { &[3, 6] };
            found[history.recover(&disk.fork(loss), allowed)] += 1;
        }
        if installed.is_err() {
            continue;
        }
        // What failed was the removal of old files, or nothing: envelopes are read from the disk.
        match group.reader().digests() {
            Ok((_, digests)) => {
                assert_eq!(digests, history.digests[6]);
                break;
            }
            Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
        }
    }
    assert!(found[3] > 0 && found[6] > 0, "{found:?}");
}

/// Carries a checkpoint over, in pieces.
fn receive(store: &Store, shipped: &Checkpoint) -> Result<Checkpoint, StoreError> {
    let mut incoming = IncomingCheckpoint::begin(store, GROUP, &shipped.manifest())?;
    for (file, mut offset) in incoming.missing() {
        while offset < file.length {
            let piece = shipped.read(&file, offset, 1000)?;
            incoming.write(&file, offset, &piece)?;
            offset += piece.len() as u64;
        }
    }
    incoming.finish()
}

#[test]
fn power_loss_at_any_moment_of_opening_and_closing_is_survived() {
    let history = History::new();
    let base = Arc::new(MemoryBase::default());
    let disk = MemoryDisk::default();
    let (store, mut group) = try_open(&disk, base).unwrap();
    history.apply(&mut group, 6);
    checkpoint(&mut group).unwrap();
    store.close().unwrap();
    for stop in 1.. {
        let again = disk.fork(PowerLoss::DropUnsynced);
        again.stop_at_mutation(again.mutations() + stop);
        let opened = try_open(&again, Arc::new(MemoryBase::default()));
        let closed = opened.is_ok_and(|(store, _group)| store.close().is_ok());
        for loss in losses() {
            history.recover(&again.fork(loss), &[6]);
        }
        if closed {
            break;
        }
    }
    drop(open(&disk, Arc::new(MemoryBase::default())));
}
