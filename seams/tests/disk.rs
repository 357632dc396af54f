//! `MemoryDisk` must behave like the real file system while the power is on, and lose exactly what
//! was not synced when it goes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rossby_seams::disk::{
    Disk, DiskFault, DiskFile, DiskLock, FileDisk, MemoryDisk, PowerLoss, read, replace,
};

const DROP: PowerLoss = PowerLoss::DropUnsynced;

#[derive(Debug, Clone)]
enum Op {
    Create(usize),
    Open(usize),
    Write {
        handle: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Read {
        handle: usize,
        offset: u64,
        length: usize,
    },
    Sync {
        handle: usize,
    },
    Length {
        handle: usize,
    },
    Rename(usize, usize),
    Remove(usize),
    List(usize),
    MakeFolder(usize),
    SyncFolder(usize),
    Lock(usize),
    Unlock,
    Replace(usize, Vec<u8>),
}

/// What an operation showed: the part that must agree between two disks.
type Shown = Result<Vec<u8>, ErrorKind>;

const NAMES: [&str; 6] = ["a", "b", "folder/a", "folder/b", "missing/a", "folder"];
const FOLDERS: [&str; 5] = ["", "folder", "missing", "a", "deep/er"];

fn operation() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    let file_name = 0..NAMES.len() - 1;
    let folder = 0..FOLDERS.len();
    let bytes = proptest::collection::vec(any::<u8>(), 0..1500);
    prop_oneof![
        3 => name.clone().prop_map(Op::Create),
        3 => name.clone().prop_map(Op::Open),
        4 => (0..4_usize, 0..2000_u64, bytes.clone())
            .prop_map(|(handle, offset, bytes)| Op::Write { handle, offset, bytes }),
        4 => (0..4_usize, 0..2000_u64, 0..1500_usize)
            .prop_map(|(handle, offset, length)| Op::Read { handle, offset, length }),
        1 => (0..4_usize).prop_map(|handle| Op::Sync { handle }),
        2 => (0..4_usize).prop_map(|handle| Op::Length { handle }),
        2 => (file_name.clone(), name.clone()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => name.clone().prop_map(Op::Remove),
        2 => folder.clone().prop_map(Op::List),
        2 => folder.clone().prop_map(Op::MakeFolder),
        1 => folder.prop_map(Op::SyncFolder),
        1 => name.prop_map(Op::Lock),
        1 => Just(Op::Unlock),
        1 => (file_name, bytes).prop_map(|(name, bytes)| Op::Replace(name, bytes)),
    ]
}

/// One disk under the script, with the handles and locks that the script holds.
struct Rig {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    handles: Vec<Arc<dyn DiskFile>>,
    locks: Vec<Box<dyn DiskLock>>,
}

impl Rig {
    fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        disk.create_directory(root).unwrap();
        Self {
            disk,
            root: root.to_owned(),
            handles: Vec::new(),
            locks: Vec::new(),
        }
    }

    fn name(&self, index: usize) -> PathBuf {
        self.root.join(NAMES[index])
    }

    fn folder(&self, index: usize) -> PathBuf {
        match FOLDERS[index] {
            "" => self.root.clone(),
            name => self.root.join(name),
        }
    }

    fn with(
        &self,
        handle: usize,
        act: impl FnOnce(&dyn DiskFile) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        match self.handles.len() {
            0 => Ok(Vec::new()),
            count => act(&*self.handles[handle % count]),
        }
    }

    fn run(&mut self, op: &Op) -> Shown {
        self.attempt(op).map_err(|error| error.kind())
    }

    fn attempt(&mut self, op: &Op) -> io::Result<Vec<u8>> {
        let nothing = |()| Vec::new();
        match op {
            Op::Create(name) => {
                self.handles.push(self.disk.create(&self.name(*name))?);
                Ok(Vec::new())
            }
            Op::Open(name) => {
                self.handles.push(self.disk.open(&self.name(*name))?);
                Ok(Vec::new())
            }
            Op::Write {
                handle,
                offset,
                bytes,
            } => self.with(*handle, |file| {
                file.write_all_at(bytes, *offset).map(nothing)
            }),
            Op::Read {
                handle,
                offset,
                length,
            } => self.with(*handle, |file| {
                let mut buffer = vec![0; *length];
                file.read_exact_at(&mut buffer, *offset).map(|()| buffer)
            }),
            Op::Sync { handle } => self.with(*handle, |file| file.sync_data().map(nothing)),
            Op::Length { handle } => {
                self.with(*handle, |file| Ok(file.len()?.to_be_bytes().to_vec()))
            }
            Op::Rename(from, to) => {
                // The real one can also rename a folder; the trait only speaks of files.
                if self.disk.list(&self.name(*from)).is_ok() {
                    return Ok(Vec::new());
                }
                self.disk
                    .rename(&self.name(*from), &self.name(*to))
                    .map(nothing)
            }
            Op::Remove(name) => self.disk.remove(&self.name(*name)).map(nothing),
            Op::List(folder) => {
                let inside = self.disk.list(&self.folder(*folder))?;
                let names = inside
                    .iter()
                    .map(|path| path.strip_prefix(&self.root).unwrap());
                Ok(names
                    .flat_map(|name| name.to_str().unwrap().bytes().chain([0]))
                    .collect())
            }
            Op::MakeFolder(folder) => self
                .disk
                .create_directory(&self.folder(*folder))
                .map(nothing),
            Op::SyncFolder(folder) => self.disk.sync_directory(&self.folder(*folder)).map(nothing),
            Op::Lock(name) => {
                self.locks.push(self.disk.lock(&self.name(*name))?);
                Ok(Vec::new())
            }
            Op::Unlock => {
                self.locks.pop();
                Ok(Vec::new())
            }
            Op::Replace(name, bytes) => {
                replace(&*self.disk, &self.name(*name), bytes)?;
                read(&*self.disk, &self.name(*name))
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_real_disk_agree_on_every_operation(
        script in proptest::collection::vec(operation(), 1..60),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut real = Rig::new(Arc::new(FileDisk), &folder.path().join("root"));
        let mut memory = Rig::new(Arc::new(MemoryDisk::default()), Path::new("/root"));
        for (step, op) in script.iter().enumerate() {
            prop_assert_eq!(real.run(op), memory.run(op), "step {}: {:?}", step, op);
        }
    }

    #[test]
    fn a_torn_sector_is_one_of_the_versions_it_had(
        writes in proptest::collection::vec((any::<u8>(), 0..4000_u64, 1..3000_usize, any::<bool>()), 1..12),
        seed in any::<u64>(),
    ) {
        let disk = MemoryDisk::default();
        let file = disk.create(Path::new("/file")).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        let mut now = Vec::new();
        let mut synced_length = 0;
        let mut allowed: Vec<BTreeSet<Vec<u8>>> = vec![BTreeSet::from([vec![0; 512]]); 16];
        for (fill, offset, length, sync) in writes {
            file.write_all_at(&vec![fill; length], offset).unwrap();
            let range = offset as usize..offset as usize + length;
            now.resize(now.len().max(range.end), 0);
            now[range].fill(fill);
            let mut padded = now.clone();
            padded.resize(16 * 512, 0);
            let sectors = padded.chunks(512).map(<[u8]>::to_vec).zip(&mut allowed);
            if sync {
                file.sync_data().unwrap();
                synced_length = now.len();
                sectors.for_each(|(sector, allowed)| *allowed = BTreeSet::from([sector]));
            } else {
                sectors.for_each(|(sector, allowed)| allowed.extend([sector]));
            }
        }
        let found = read(&disk.crash(PowerLoss::KeepSome { seed }), Path::new("/file")).unwrap();
        prop_assert!((synced_length..=now.len()).contains(&found.len()));
        for (index, sector) in found.chunks(512).enumerate() {
            let whole = allowed[index].iter().any(|version| version.starts_with(sector));
            prop_assert!(whole, "sector {} is a mixture", index);
        }
    }
}

#[test]
fn bytes_survive_only_after_sync_data() {
    let disk = MemoryDisk::default();
    let path = Path::new("/file");
    let file = disk.create(path).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    file.write_all_at(b"first", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"other and longer", 0).unwrap();
    assert_eq!(
        read(&disk.fork(PowerLoss::KeepAll), path).unwrap(),
        b"other and longer"
    );
    assert_eq!(read(&disk.crash(DROP), path).unwrap(), b"first");
}

#[test]
fn a_synced_file_whose_name_was_not_synced_is_lost() {
    let disk = MemoryDisk::default();
    let file = disk.create(Path::new("/file")).unwrap();
    file.write_all_at(b"kept", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(
        disk.crash(DROP)
            .open(Path::new("/file"))
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_synced_name_of_an_unsynced_file_is_empty() {
    let disk = MemoryDisk::default();
    let file = disk.create(Path::new("/file")).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    assert_eq!(read(&disk.crash(DROP), Path::new("/file")).unwrap(), b"");
}

#[test]
fn rename_and_removal_are_undone_unless_synced() {
    let disk = MemoryDisk::default();
    for name in ["/a", "/b"] {
        replace(&disk, Path::new(name), name.as_bytes()).unwrap();
    }
    disk.rename(Path::new("/a"), Path::new("/c")).unwrap();
    disk.remove(Path::new("/b")).unwrap();
    let found = disk.fork(DROP).list(Path::new("/")).unwrap();
    assert_eq!(found, [Path::new("/a"), Path::new("/b")]);
    disk.sync_directory(Path::new("/")).unwrap();
    assert_eq!(
        disk.fork(DROP).list(Path::new("/")).unwrap(),
        [Path::new("/c")]
    );
}

#[test]
fn replace_leaves_old_or_new_content_wherever_it_is_interrupted() {
    let path = Path::new("/file");
    let mut seen = BTreeSet::new();
    for stop in 1.. {
        let disk = MemoryDisk::default();
        replace(&disk, path, b"old").unwrap();
        disk.stop_at_mutation(disk.mutations() + stop);
        let finished = replace(&disk, path, b"new").is_ok();
        for seed in 0..20 {
            let found = read(&disk.fork(PowerLoss::KeepSome { seed }), path).unwrap();
            assert!(found == b"old" || found == b"new");
            assert!(!finished || found == b"new");
            seen.insert(found);
        }
        if finished {
            break;
        }
    }
    assert_eq!(seen.len(), 2, "the sweep must reach both outcomes");
}

#[test]
fn a_dead_disk_refuses_everything_and_its_locks_are_free_after_the_crash() {
    let disk = MemoryDisk::default();
    let file = disk.create(Path::new("/file")).unwrap();
    let _held = disk.lock(Path::new("/lock")).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    let after = disk.crash(DROP);
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.len().is_err());
    assert!(disk.list(Path::new("/")).is_err());
    assert_eq!(
        disk.lock(Path::new("/lock")).unwrap_err().kind(),
        ErrorKind::Other
    );
    after.lock(Path::new("/lock")).unwrap();
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_later_one() {
    let disk = MemoryDisk::default();
    let path = Path::new("/file");
    let file = disk.create(path).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    file.write_all_at(b"doubtful", 0).unwrap();
    disk.fail_operation(disk.operations() + 1, DiskFault::Io);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    assert_eq!(read(&disk, path).unwrap(), b"doubtful");
    assert_eq!(read(&disk.crash(DROP), path).unwrap(), [0; 8]);
}

#[test]
fn files_grow_only_within_the_capacity() {
    let disk = MemoryDisk::default();
    disk.set_capacity(10);
    let file = disk.create(Path::new("/file")).unwrap();
    file.write_all_at(&[1; 10], 0).unwrap();
    file.write_all_at(&[2; 10], 0).unwrap();
    assert_eq!(
        file.write_all_at(&[3], 10).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 0);
    disk.remove(Path::new("/file")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 10);
}

#[test]
fn a_planted_fault_fires_once_at_its_operation() {
    let disk = MemoryDisk::default();
    disk.fail_operation(2, DiskFault::Full);
    disk.create(Path::new("/a")).unwrap();
    assert_eq!(
        disk.create(Path::new("/b")).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    disk.create(Path::new("/b")).unwrap();
}
