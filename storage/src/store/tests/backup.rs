//! Checkpoints in a backup: read where they lie, and made into the first state of a replica.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, PartitionCount};
use rossby_domain::time::Timestamp;
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::{Disk, MemoryDisk, PowerLoss};

use super::world::{GROUP, Model, checkpoints, letter, open, position, try_open};
use crate::store::{GroupStore, Restoration, Store, StoreError, StoredCheckpoint, Verified};

/// A store whose last checkpoint has deltas, and the model of it.
fn backed_up() -> (Model, MemoryDisk, Bytes) {
    let mut model = Model::new();
    let disk = MemoryDisk::default();
    let (_store, mut group) = try_open(&disk, Arc::new(MemoryBase::default())).unwrap();
    let mut manifest = Bytes::new();
    for round in 1..4 {
        let letters = [0, 1, 2].map(|to| letter(3, to, round, Bytes::from(vec![to; 900])));
        model.append(1, letters.into());
        model.catch_up(&mut group);
        let published = group.cut().unwrap().write().unwrap().publish().unwrap();
        manifest = published.manifest();
    }
    (model, disk, manifest)
}

fn stored(disk: &MemoryDisk, manifest: &[u8]) -> Result<StoredCheckpoint, StoreError> {
    let folder = checkpoints().join(GROUP.to_string());
    StoredCheckpoint::open(Arc::new(disk.clone()), &folder, GROUP, manifest)
}

fn restoration() -> Restoration {
    Restoration {
        at: Timestamp::from_millis(1_795_359_845_000),
        revoke_tokens: false,
        partitions: PartitionCount::new(8).unwrap(),
        membership: Bytes::from_static(b"members"),
    }
}

fn restore(
    disk: &MemoryDisk,
    from: &StoredCheckpoint,
    verified: &Verified,
) -> Result<(), StoreError> {
    let target: Arc<dyn Disk> = Arc::new(disk.clone());
    let to = Path::new("/new/checkpoints");
    from.restore(target, to, verified, &restoration(), |_| {})?;
    Ok(())
}

fn open_restored(disk: &MemoryDisk) -> (Store, GroupStore) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let base = Arc::new(MemoryBase::default());
    let store = Store::open(disk, Path::new("/new/checkpoints"), base).unwrap();
    let group = store.group(GROUP).unwrap();
    (store, group)
}

#[test]
fn a_restored_state_answers_as_the_old_one_did_and_goes_on_above_it() {
    let (mut model, disk, manifest) = backed_up();
    let stored = stored(&disk, &manifest).unwrap();
    let mut told = 0;
    let verified = stored.verify(|bytes| told += bytes).unwrap();
    assert!(verified.rows > 9);
    assert_eq!(verified.latest, Timestamp::from_millis(1_003_000));
    let named: u64 = stored.files().iter().map(|file| file.length).sum();
    assert_eq!(told, named);
    let new = MemoryDisk::default();
    restore(&new, &stored, &verified).unwrap();
    // Durable when it says so.
    let new = new.crash(PowerLoss::DropUnsynced);
    let (_store, mut group) = open_restored(&new);
    let last = position(model.log.len() as u64);
    assert_eq!(group.applied().position, Some(last));
    let membership = Some((Some(last), Bytes::from_static(b"members")));
    assert_eq!(group.applied().membership, membership);
    model.check_answers(&group);
    let times = group.reader().times().unwrap();
    assert_eq!(times.restored_at, restoration().at);

    // Every partition has its mark, also those that had no rows.
    let (_, digests) = group.reader().digests().unwrap();
    assert_eq!(digests.len(), 8);
    model.append(1, vec![letter(3, 1, 9, Bytes::from_static(b"new"))]);
    let at = position(model.log.len() as u64);
    let replies = group
        .apply_batch(at, &model.log[at.index as usize - 1].0)
        .unwrap();
    let floor = (restoration().at.as_secs()) << 20;
    assert_eq!(
        format!("{:?}", replies[0]),
        format!("Ok(Enqueued {{ sequence: Sequence({}) }})", floor + 1)
    );
}

#[test]
fn a_restored_checkpoint_can_be_restored_again_but_not_at_an_earlier_time() {
    let (_model, disk, manifest) = backed_up();
    let first = stored(&disk, &manifest).unwrap();
    let verified = first.verify(|_| {}).unwrap();
    assert_eq!(first.earliest(&verified), verified.latest);
    let new = MemoryDisk::default();
    restore(&new, &first, &verified).unwrap();
    let (_store, group) = open_restored(&new);
    let again = group.current().unwrap().manifest();
    let folder = PathBuf::from("/new/checkpoints").join(GROUP.to_string());
    let again = StoredCheckpoint::open(Arc::new(new.clone()), &folder, GROUP, &again).unwrap();
    let verified = again.verify(|_| {}).unwrap();
    assert_eq!(
        again.earliest(&verified),
        restoration().at.plus_millis(1000)
    );
}

#[test]
fn a_state_goes_on_under_another_number_marked_above_what_it_gave_out() {
    let (mut model, disk, _) = backed_up();
    let (new, number) = (MemoryDisk::default(), GroupId(9));
    let source: Arc<dyn Disk> = Arc::new(disk.clone());
    assert!(
        StoredCheckpoint::published(Arc::clone(&source), checkpoints(), number)
            .unwrap()
            .is_none()
    );
    let stored = StoredCheckpoint::published(source, checkpoints(), GROUP).unwrap();
    let target: Arc<dyn Disk> = Arc::new(new.clone());
    let to = Path::new("/new/checkpoints");
    stored.unwrap().rewrite(target, to, number).unwrap();
    let new: Arc<dyn Disk> = Arc::new(new.crash(PowerLoss::DropUnsynced));
    let open = || {
        let store = Store::open(Arc::clone(&new), to, Arc::new(MemoryBase::default()));
        let group = store.as_ref().unwrap().group(number).unwrap();
        (store.unwrap(), group)
    };
    let (store, mut group) = open();
    model.check_answers(&group);
    // What comes after the checkpoint, then the marks, then a checkpoint of it all.
    model.append(1, vec![letter(3, 1, 9, Bytes::from_static(b"late"))]);
    let mut at = position(model.log.len() as u64);
    let entry = |model: &Model, at: u64| model.log[at as usize - 1].0.clone();
    group.apply_batch(at, &entry(&model, at.index)).unwrap();
    at.index += 1000;
    let partitions: Vec<_> = PartitionCount::new(8).unwrap().all().collect();
    group
        .apply_restoration(at, restoration().at, &partitions)
        .unwrap();
    model.check_answers(&group);
    group.cut().unwrap().write().unwrap().publish().unwrap();
    drop((group, store));
    let (_store, mut group) = open();
    assert_eq!(group.applied().position, Some(at));
    model.check_answers(&group);
    assert_eq!(
        group.reader().times().unwrap().restored_at,
        restoration().at
    );
    assert_eq!(group.reader().digests().unwrap().1.len(), 8);
    model.append(1, vec![letter(3, 1, 10, Bytes::from_static(b"new"))]);
    let new = entry(&model, model.log.len() as u64);
    at.index += 1;
    let replies = group.apply_batch(at, &new).unwrap();
    let floor = (restoration().at.as_secs()) << 20;
    assert_eq!(
        format!("{:?}", replies[0]),
        format!("Ok(Enqueued {{ sequence: Sequence({}) }})", floor + 1)
    );
}

#[test]
fn a_restored_checkpoint_ships_to_a_replica_that_is_new() {
    use crate::store::IncomingCheckpoint;
    let (model, disk, manifest) = backed_up();
    let from = stored(&disk, &manifest).unwrap();
    let new = MemoryDisk::default();
    restore(&new, &from, &from.verify(|_| {}).unwrap()).unwrap();
    let (_store, group) = open_restored(&new);
    let shipped = group.current().unwrap();
    let other = open(&MemoryDisk::default(), Arc::new(MemoryBase::default()));
    let mut incoming = IncomingCheckpoint::begin(&other, GROUP, &shipped.manifest()).unwrap();
    for (file, offset) in incoming.missing() {
        let bytes = shipped.read(&file, offset, u32::MAX).unwrap();
        incoming.write(&file, offset, &bytes).unwrap();
    }
    let mut follower = other.group(GROUP).unwrap();
    follower.install(incoming.finish().unwrap()).unwrap();
    model.check_answers(&follower);
    assert_eq!(
        follower.reader().digests().unwrap(),
        group.reader().digests().unwrap()
    );
}

#[test]
fn any_damage_to_a_backup_is_refused_before_and_while_it_is_restored() {
    let (_model, disk, manifest) = backed_up();
    let whole = stored(&disk, &manifest).unwrap();
    let verified = whole.verify(|_| {}).unwrap();
    for at in 0..manifest.len() {
        let mut damaged = manifest.to_vec();
        damaged[at] ^= 1;
        assert!(stored(&disk, &damaged).is_err(), "manifest byte {at}");
    }
    let folder = checkpoints().join(GROUP.to_string());
    for name in whole.files() {
        let path = folder.join(name.on_disk());
        for at in (0..name.length).step_by(97).chain([name.length - 1]) {
            let disk = disk.fork(PowerLoss::KeepAll);
            let file = disk.open(&path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            let stored = stored(&disk, &manifest).unwrap();
            let found = stored.verify(|_| {});
            assert!(
                matches!(found, Err(StoreError::Corrupt { .. })),
                "{found:?}"
            );
            // Damage that comes between the two readings.
            let new = MemoryDisk::default();
            let restored = restore(&new, &stored, &verified);
            assert!(
                matches!(restored, Err(StoreError::Corrupt { .. })),
                "{restored:?}"
            );
            let (_store, group) = open_restored(&new);
            assert_eq!(group.applied().position, None, "there is half a state");
        }
        let disk = disk.fork(PowerLoss::KeepAll);
        disk.remove(&path).unwrap();
        assert!(stored(&disk, &manifest).unwrap().verify(|_| {}).is_err());
    }
}
