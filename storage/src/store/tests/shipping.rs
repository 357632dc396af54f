//! Checkpoints on their way from one replica to another.

use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::GroupId;
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::{DiskFault, MemoryDisk, PowerLoss};

use super::world::{GROUP, Model, letter, open, position, try_open};
use crate::store::{Checkpoint, GroupStore, IncomingCheckpoint, Store, StoreError};

struct Replica {
    disk: MemoryDisk,
    store: Store,
    group: GroupStore,
}

impl Replica {
    fn new() -> Self {
        Self::on(MemoryDisk::default())
    }

    fn on(disk: MemoryDisk) -> Self {
        let (store, group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
        Self { disk, store, group }
    }

    fn checkpoint(&mut self) -> Checkpoint {
        self.group
            .cut()
            .unwrap()
            .write()
            .unwrap()
            .publish()
            .unwrap()
    }

    fn begin(&self, shipped: &Checkpoint) -> IncomingCheckpoint {
        IncomingCheckpoint::begin(&self.store, GROUP, &shipped.manifest()).unwrap()
    }
}

/// Carries over what is missing; how many bytes that took.
fn carry(shipped: &Checkpoint, incoming: &mut IncomingCheckpoint) -> u64 {
    let mut carried = 0;
    for (file, mut offset) in incoming.missing() {
        while offset < file.length {
            let piece = shipped.read(&file, offset, 700).unwrap();
            incoming.write(&file, offset, &piece).unwrap();
            offset += piece.len() as u64;
            carried += piece.len() as u64;
        }
    }
    assert_eq!(incoming.missing(), []);
    carried
}

/// A leader with a checkpoint of some length.
fn leader() -> (Model, Replica, Checkpoint) {
    let mut model = Model::new();
    let mut leader = Replica::new();
    for counter in 1..6 {
        let letters = [0, 1, 2].map(|to| letter(3, to, counter, Bytes::from(vec![to; 1500])));
        model.append(1, letters.into());
    }
    model.catch_up(&mut leader.group);
    let checkpoint = leader.checkpoint();
    (model, leader, checkpoint)
}

#[test]
fn an_installed_checkpoint_is_the_whole_state_now_and_after_a_restart() {
    let (mut model, _leader, shipped) = leader();
    let mut follower = Replica::new();
    // A past that comes to nothing.
    follower
        .group
        .apply_batch(position(1), &model.log[0].0)
        .unwrap();
    let reader = follower.group.reader();
    let mut incoming = follower.begin(&shipped);
    carry(&shipped, &mut incoming);
    let received = incoming.finish().unwrap();
    assert_eq!(
        (received.position(), received.manifest()),
        (shipped.position(), shipped.manifest())
    );
    follower.group.install(received).unwrap();
    model.check(&follower.group);
    assert_eq!(reader.digests().unwrap().1, model.digests());
    model.append(1, vec![letter(0, 2, 1, Bytes::from_static(b"more"))]);
    model.catch_up(&mut follower.group);
    model.check(&follower.group);
    follower.checkpoint();
    let again = Replica::on(follower.disk.crash(PowerLoss::DropUnsynced));
    model.check(&again.group);
}

#[test]
fn a_transfer_goes_on_where_it_stopped_even_after_power_loss() {
    let (model, _leader, shipped) = leader();
    let follower = Replica::new();
    let total: u64 = shipped.files().iter().map(|file| file.length).sum();
    let mut incoming = follower.begin(&shipped);
    let (file, _) = incoming.missing()[0];
    incoming
        .write(&file, 0, &shipped.read(&file, 0, 900).unwrap())
        .unwrap();
    drop(incoming);
    let mut incoming = follower.begin(&shipped);
    assert!(incoming.missing().contains(&(file, 900)));
    assert_eq!(carry(&shipped, &mut incoming), total - 900);
    drop(incoming);
    // Nothing was synced: a file may now be there and hold nothing but zeroes.
    for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepSome { seed: 5 }] {
        let mut follower = Replica::on(follower.disk.fork(loss));
        let received = (0..3).find_map(|_| {
            let mut incoming = follower.begin(&shipped);
            carry(&shipped, &mut incoming);
            match incoming.finish() {
                Ok(received) => Some(received),
                Err(StoreError::Corrupt { .. }) => None,
                Err(other) => panic!("{other}"),
            }
        });
        follower.group.install(received.unwrap()).unwrap();
        model.check(&follower.group);
    }
}

/// A sync that has failed once may succeed the next time, and what it should have synced is lost all the same.
#[test]
fn a_transfer_whose_end_met_a_failing_disk_is_whole_the_next_time_also_after_power_loss() {
    let (model, _leader, shipped) = leader();
    for failing in 1.. {
        let mut follower = Replica::new();
        let mut incoming = follower.begin(&shipped);
        carry(&shipped, &mut incoming);
        let before = follower.disk.operations();
        follower
            .disk
            .fail_operation(before + failing, DiskFault::Io);
        let mut finished = incoming.finish();
        if follower.disk.operations() < before + failing {
            assert!(failing > 20, "too few to show anything");
            return;
        }
        for _ in 0..3 {
            finished = finished.or_else(|_| {
                let mut incoming = follower.begin(&shipped);
                carry(&shipped, &mut incoming);
                incoming.finish()
            });
        }
        follower.group.install(finished.unwrap()).unwrap();
        let again = Replica::on(follower.disk.crash(PowerLoss::DropUnsynced));
        model.check(&again.group);
    }
}

#[test]
fn only_files_that_are_not_here_are_asked_for() {
    let (mut model, mut leader, shipped) = leader();
    let mut follower = Replica::new();
    let mut incoming = follower.begin(&shipped);
    carry(&shipped, &mut incoming);
    follower.group.install(incoming.finish().unwrap()).unwrap();
    model.append(
        1,
        vec![letter(3, 1, 40, Bytes::from_static(b"one partition"))],
    );
    model.catch_up(&mut leader.group);
    let newer = leader.checkpoint();
    let mut incoming = follower.begin(&newer);
    assert_eq!(incoming.missing().len(), 1);
    carry(&newer, &mut incoming);
    follower.group.install(incoming.finish().unwrap()).unwrap();
    model.check(&follower.group);
    // What both have is asked for again only if it is damaged here.
    let file = newer.files()[0];
    let path = follower.group.current().unwrap();
    let path = path.inner_path(&file);
    let handle = rossby_seams::disk::Disk::open(&follower.disk, &path).unwrap();
    handle.write_all_at(&[0xee], 40).unwrap();
    let incoming = follower.begin(&newer);
    assert_eq!(incoming.missing(), []);
    assert!(matches!(incoming.finish(), Err(StoreError::Corrupt { .. })));
    let mut incoming = follower.begin(&newer);
    assert_eq!(incoming.missing(), [(file, 0)]);
    carry(&newer, &mut incoming);
    follower.group.install(incoming.finish().unwrap()).unwrap();
    assert_eq!(follower.begin(&newer).missing(), []);
    let again = Replica::on(follower.disk.fork(PowerLoss::DropUnsynced));
    model.check(&again.group);
}

#[test]
fn what_is_missing_is_said_without_reading_what_is_here() {
    let (_, _leader, shipped) = leader();
    let mut follower = Replica::new();
    let mut incoming = follower.begin(&shipped);
    carry(&shipped, &mut incoming);
    follower.group.install(incoming.finish().unwrap()).unwrap();
    let before = follower.disk.operations();
    let incoming = follower.begin(&shipped);
    let began = follower.disk.operations() - before;
    assert!(incoming.finish().is_ok());
    let finished = follower.disk.operations() - before - began;
    // Each file is opened and measured, and the folder for what is on its way is looked at.
    let files = shipped.files().len() as u64;
    assert!(
        began <= 2 * files + 3,
        "{began} operations for {files} files"
    );
    assert!(
        finished > 4 * files,
        "only {finished} to verify {files} files"
    );
}

#[test]
fn a_piece_that_does_not_fit_is_refused() {
    let (_, _leader, shipped) = leader();
    let follower = Replica::new();
    let mut incoming = follower.begin(&shipped);
    let (file, _) = incoming.missing()[0];
    let mut other = file;
    other.digest[0] ^= 1;
    let too_long = vec![0; file.length as usize + 1];
    for (file, offset, bytes) in [
        (&file, 1, &[0_u8][..]),
        (&file, 0, &too_long),
        (&other, 0, &[0]),
    ] {
        let refused = incoming.write(file, offset, bytes);
        assert!(
            matches!(refused, Err(StoreError::Transfer(_))),
            "{refused:?}"
        );
    }
    assert!(matches!(
        shipped.read(&other, 0, 1),
        Err(StoreError::Transfer(_))
    ));
    assert!(matches!(
        shipped.read(&file, file.length + 1, 1),
        Err(StoreError::Transfer(_))
    ));
    assert_eq!(shipped.read(&file, file.length, 1).unwrap().len(), 0);
    assert!(matches!(incoming.finish(), Err(StoreError::Transfer(_))));
}

#[test]
fn damage_on_the_way_is_found_and_the_file_is_asked_for_again() {
    let (model, _leader, shipped) = leader();
    let mut follower = Replica::new();
    let mut incoming = follower.begin(&shipped);
    let (file, _) = incoming.missing()[0];
    let mut bytes = shipped.read(&file, 0, u32::MAX).unwrap().to_vec();
    bytes[50] ^= 1;
    incoming.write(&file, 0, &bytes).unwrap();
    carry(&shipped, &mut incoming);
    assert!(matches!(incoming.finish(), Err(StoreError::Corrupt { .. })));
    let mut incoming = follower.begin(&shipped);
    assert_eq!(incoming.missing(), [(file, 0)]);
    carry(&shipped, &mut incoming);
    follower.group.install(incoming.finish().unwrap()).unwrap();
    model.check(&follower.group);
}

#[test]
fn a_checkpoint_older_than_the_state_or_of_another_group_is_refused() {
    let (mut model, mut leader, old) = leader();
    model.append(1, Vec::new());
    model.catch_up(&mut leader.group);
    assert!(matches!(
        leader.group.install(old.clone()),
        Err(StoreError::Backwards { .. })
    ));
    let mut other = leader.store.group(GroupId(2)).unwrap();
    assert!(matches!(
        other.install(old.clone()),
        Err(StoreError::WrongGroup { .. })
    ));
    let begun = IncomingCheckpoint::begin(&leader.store, GroupId(2), &old.manifest());
    assert!(matches!(begun, Err(StoreError::WrongGroup { .. })));
    let begun = IncomingCheckpoint::begin(&leader.store, GROUP, &old.manifest()[1..]);
    assert!(matches!(begun, Err(StoreError::Corrupt { .. })));
    // Refusing is no failure.
    model.check(&leader.group);
    other.apply_blank(position(1)).unwrap();
}

#[test]
fn a_round_under_way_gives_way_to_an_installed_checkpoint() {
    let (model, _leader, shipped) = leader();
    let mut follower = Replica::new();
    follower
        .group
        .apply_batch(position(1), &model.log[0].0)
        .unwrap();
    let cut = follower.group.cut().unwrap();
    let mut incoming = follower.begin(&shipped);
    carry(&shipped, &mut incoming);
    follower.group.install(incoming.finish().unwrap()).unwrap();
    let current = cut.write().unwrap().publish().unwrap();
    assert_eq!(current.position(), shipped.position());
    model.check(&follower.group);
    let again = Replica::on(follower.disk.fork(PowerLoss::DropUnsynced));
    model.check(&again.group);
    assert_eq!(
        again.group.current().unwrap().position(),
        shipped.position()
    );
}

#[test]
fn files_stay_as_long_as_somebody_reads_them() {
    let (mut model, mut leader, old) = leader();
    let read_all = |checkpoint: &Checkpoint| {
        checkpoint
            .files()
            .iter()
            .all(|file| checkpoint.read(file, 0, 100).is_ok())
    };
    for counter in 10..20 {
        let letters = [0, 1, 2].map(|to| letter(3, to, counter, Bytes::from(vec![0xff; 3000])));
        model.append(1, letters.into());
        model.catch_up(&mut leader.group);
        leader.checkpoint();
    }
    let current = leader.group.current().unwrap();
    assert!(
        old.files()
            .iter()
            .all(|file| !current.files().contains(file))
    );
    assert!(read_all(&old) && read_all(&current));
    let before = leader.disk.used_bytes();
    let old_bytes: u64 = old.files().iter().map(|file| file.length).sum();
    drop(old);
    assert_eq!(leader.disk.used_bytes(), before - old_bytes);
    assert!(read_all(&current));
    // A restart removes what was left behind by one that was still read when the process died.
    drop(open(&leader.disk, Arc::new(MemoryBase::default())));
}
