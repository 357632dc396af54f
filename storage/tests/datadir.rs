//! Whose data directory it is, and every reason for which it can not be used.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_seams::disk::{Disk, FileDisk, MemoryDisk, PowerLoss, read};
use rossby_storage::datadir::{
    ClusterIdentity, DataDirectory, DataDirectoryError, HeldReplica, Identity, RemovedReplica,
};

const NODE: NodeId = NodeId(7);

fn open(path: &Path) -> Result<DataDirectory, DataDirectoryError> {
    DataDirectory::open(Arc::new(FileDisk), path)
}

fn cluster(seed: u8) -> ClusterIdentity {
    ClusterIdentity {
        id: ClusterId::from_random([seed; 16]),
        name: "mail.example".into(),
        partitions: PartitionCount::default(),
        secrets_check: None,
    }
}

fn held(group: u32, replica: u64) -> HeldReplica {
    HeldReplica {
        group: GroupId(group),
        replica: ReplicaId(replica),
        initialise: true,
    }
}

fn identity() -> Identity {
    let mut identity = Identity::new(NODE);
    identity.cluster = Some(cluster(1));
    identity.replicas.insert(held(1, 101));
    identity
}

/// A folder with a data directory in it that was saved and closed.
fn saved() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    open(&path).unwrap().save(identity()).unwrap();
    (folder, path)
}

#[test]
fn a_new_directory_is_private_and_belongs_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/data");
    let data = open(&path).unwrap();
    assert_eq!(data.identity(), None);
    data.expect(NODE, Some(cluster(1).id)).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn the_identity_is_read_back_and_can_be_read_by_a_person() {
    let (_folder, path) = saved();
    assert_eq!(open(&path).unwrap().identity(), Some(&identity()));
    let text = fs::read_to_string(path.join("node")).unwrap();
    assert!(text.starts_with("rossby data directory format=2 crc32c="));
    assert!(text.contains("\"name\": \"mail.example\""));
    assert_eq!(
        fs::metadata(path.join("node"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}

#[test]
fn a_directory_in_use_is_refused_until_it_is_closed() {
    let (_folder, path) = saved();
    let first = open(&path).unwrap();
    let refused = open(&path).unwrap_err();
    assert!(matches!(&refused, DataDirectoryError::InUse { path: named } if *named == path));
    assert!(refused.to_string().contains("stop that one"));
    drop(first);
    open(&path).unwrap();
}

#[test]
fn another_node_or_cluster_is_refused() {
    let (_folder, path) = saved();
    let mut data = open(&path).unwrap();
    data.expect(NODE, None).unwrap();
    data.expect(NODE, Some(cluster(1).id)).unwrap();
    let other = data.expect(NodeId(8), None).unwrap_err();
    assert!(matches!(
        other,
        DataDirectoryError::OtherNode {
            found: NODE,
            asked: NodeId(8),
            ..
        }
    ));
    let other = data.expect(NODE, Some(cluster(2).id)).unwrap_err();
    assert!(matches!(other, DataDirectoryError::OtherCluster { .. }));

    let stolen = Identity {
        node: NodeId(8),
        ..identity()
    };
    assert!(matches!(
        data.save(stolen),
        Err(DataDirectoryError::OtherNode { .. })
    ));
    let moved = Identity {
        cluster: Some(cluster(2)),
        ..identity()
    };
    assert!(matches!(
        data.save(moved),
        Err(DataDirectoryError::OtherCluster { .. })
    ));
    drop(data);
    assert_eq!(open(&path).unwrap().identity(), Some(&identity()));
}

#[test]
fn a_removed_replica_does_not_come_back() {
    let (_folder, path) = saved();
    let mut data = open(&path).unwrap();
    data.save(identity().without(GroupId(1), ReplicaId(101)))
        .unwrap();
    let again = data.save(identity()).unwrap_err();
    assert!(matches!(
        again,
        DataDirectoryError::ReplicaRemoved {
            replica: ReplicaId(101),
            ..
        }
    ));
    let mut next = Identity::new(NODE);
    next.replicas.insert(held(1, 102));
    data.save(next).unwrap();
    drop(data);
    let data = open(&path).unwrap();
    let found = data.identity().unwrap();
    assert_eq!(found.replica(GroupId(1)), Some(&held(1, 102)));
    assert_eq!(
        found.cluster,
        Some(cluster(1)),
        "a cluster is never forgotten"
    );
    let tombstone = RemovedReplica {
        group: GroupId(1),
        replica: ReplicaId(101),
    };
    assert!(found.removed.contains(&tombstone));
}

#[test]
fn two_replicas_of_a_group_are_refused() {
    let (_folder, path) = saved();
    let mut twice = identity();
    twice.replicas.insert(held(1, 102));
    let refused = open(&path).unwrap().save(twice).unwrap_err();
    assert!(matches!(
        refused,
        DataDirectoryError::SecondReplica { group: GroupId(1) }
    ));
}

#[test]
fn a_newer_format_is_not_called_damaged() {
    let (_folder, path) = saved();
    let text = fs::read_to_string(path.join("node")).unwrap();
    fs::write(path.join("node"), text.replace("format=2", "format=12")).unwrap();
    let refused = open(&path).unwrap_err();
    assert!(matches!(
        refused,
        DataDirectoryError::UnknownVersion {
            found: 12,
            supported: 2,
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
fn a_path_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    fs::write(&path, "not a folder").unwrap();
    assert!(matches!(open(&path), Err(DataDirectoryError::Io { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a folder");
}

const AS_NOBODY: &str = "ROSSBY_TEST_PATH_WITHOUT_PERMISSION";

#[test]
fn a_directory_of_another_user_is_refused_for_lack_of_permission() {
    if let Some(path) = std::env::var_os(AS_NOBODY) {
        let refused = open(Path::new(&path)).unwrap_err();
        assert!(
            matches!(refused, DataDirectoryError::NoPermission { .. }),
            "{refused:?}"
        );
        assert!(
            refused
                .to_string()
                .contains("must belong to the user that rossby runs as")
        );
        return;
    }
    let (folder, path) = saved();
    // Seen from outside there is a folder, but nobody else may look into it.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if is_root {
        // Root may do anything: look as somebody else, from a copy that they may run.
        let copy = folder.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        let name = "a_directory_of_another_user_is_refused_for_lack_of_permission";
        let mut child = Command::new(&copy);
        child
            .args(["--exact", name])
            .env(AS_NOBODY, &path)
            .current_dir("/")
            .uid(65534)
            .gid(65534);
        let output = child.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    } else {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let refused = open(&path).unwrap_err();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(
            matches!(refused, DataDirectoryError::NoPermission { .. }),
            "{refused:?}"
        );
    }
}

#[test]
fn saving_leaves_the_old_or_the_new_identity_wherever_the_power_goes() {
    let path = Path::new("/data");
    let next = identity().without(GroupId(1), ReplicaId(101));
    let (mut old, mut new) = (0, 0);
    for step in 1.. {
        let disk = MemoryDisk::default();
        let mut data = DataDirectory::open(Arc::new(disk.clone()), path).unwrap();
        data.save(identity()).unwrap();
        disk.stop_at_mutation(disk.mutations() + step);
        let finished = data.save(next.clone()).is_ok();
        for seed in 0..20 {
            let disk = disk.fork(PowerLoss::KeepSome { seed });
            let found = DataDirectory::open(Arc::new(disk), path).unwrap();
            match found.identity() {
                Some(found) if *found == next => new += 1,
                found => {
                    assert!(!finished && found == Some(&identity()));
                    old += 1;
                }
            }
        }
        if finished {
            break;
        }
    }
    assert!(old > 0 && new > 0);
}

#[test]
fn every_flipped_bit_of_the_identity_is_refused_or_harmless() {
    let disk = MemoryDisk::default();
    let path = Path::new("/data");
    DataDirectory::open(Arc::new(disk.clone()), path)
        .unwrap()
        .save(identity())
        .unwrap();
    let bytes = read(&disk, &path.join("node")).unwrap();
    let mut refused = 0;
    for bit in 0..bytes.len() * 8 {
        let disk = disk.fork(PowerLoss::KeepAll);
        let flipped = bytes[bit / 8] ^ (1 << (bit % 8));
        let file = disk.open(&path.join("node")).unwrap();
        file.write_all_at(&[flipped], bit as u64 / 8).unwrap();
        match DataDirectory::open(Arc::new(disk), path) {
            Ok(data) => assert_eq!(data.identity(), Some(&identity())),
            Err(DataDirectoryError::Damaged { .. } | DataDirectoryError::UnknownVersion { .. }) => {
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > bytes.len() * 7, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_identity_reads_back(
        node in any::<u64>(), name in any::<String>(), seed in any::<u8>(),
        held in proptest::collection::btree_map(any::<u32>(), (any::<u64>(), any::<bool>()), 0..9),
    ) {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut identity = Identity::new(NodeId(node));
        identity.cluster = Some(ClusterIdentity { name, ..cluster(seed) });
        identity.replicas.extend(held.iter().map(|(group, (replica, initialise))| HeldReplica {
            group: GroupId(*group), replica: ReplicaId(*replica), initialise: *initialise,
        }));
        let path = Path::new("/data");
        DataDirectory::open(Arc::clone(&disk), path).unwrap().save(identity.clone()).unwrap();
        let found = DataDirectory::open(disk, path).unwrap();
        prop_assert_eq!(found.identity(), Some(&identity));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let disk = MemoryDisk::default();
        disk.create_directory(Path::new("/data")).unwrap();
        disk.create(Path::new("/data/node")).unwrap().write_all_at(&bytes, 0).unwrap();
        let refused = DataDirectory::open(Arc::new(disk), Path::new("/data")).unwrap_err();
        prop_assert!(matches!(refused, DataDirectoryError::Damaged { .. }), "{refused:?}");
    }
}
