//! What a backup is made of, where it may go, and what of it is taken for whole.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{back_up, row_files, runtime, single_with_backup, tell, try_restore, verify};
use crate::support::faults::SmallDisk;
use crate::support::{self, Node, run, stderr};

/// What is wrong, and how to make it so.
type Damage<'a> = (&'static str, &'a dyn Fn(&Path));

#[test]
fn what_is_not_whole_or_not_ours_is_refused_and_nothing_is_written() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let backup = at("backup");
    let (cluster, ..) = single_with_backup(&runtime, &backup);
    let secrets = cluster.nodes()[0].secrets();
    let (other_backup, data) = (at("other"), at("data"));
    let (other, ..) = single_with_backup(&runtime, &other_backup);

    let damages: [Damage<'_>; 6] = [
        ("a flipped bit", &|copy| {
            let path = &row_files(copy)[1];
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("a file cut short", &|copy| {
            let path = &row_files(copy)[0];
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("a missing file", &|copy| {
            fs::remove_file(&row_files(copy)[2]).unwrap()
        }),
        ("a backup that was interrupted", &|copy| {
            fs::remove_file(copy.join("backup")).unwrap();
        }),
        ("the catalogue of another backup", &|copy| {
            fs::copy(other_backup.join("backup"), copy.join("backup")).unwrap();
        }),
        ("a file in the place of another", &|copy| {
            let files = row_files(copy);
            fs::copy(&files[0], &files[1]).unwrap();
        }),
    ];
    for (number, (what, damage)) in damages.iter().enumerate() {
        let copy = at(&format!("copy-{number}"));
        support::copy(&backup, &copy);
        damage(&copy);
        let verified = verify(&copy);
        assert_eq!(
            verified.status.code(),
            Some(10),
            "{what}: {}",
            stderr(&verified)
        );
        let restored = try_restore(&copy, &data, &secrets);
        assert_eq!(
            restored.status.code(),
            Some(10),
            "{what}: {}",
            stderr(&restored)
        );
        assert!(!data.exists(), "{what}");
        // The next backup into the same folder mends it.
        if *what != "the catalogue of another backup" {
            back_up(&cluster.nodes()[0], &copy);
            let mended = verify(&copy);
            assert!(mended.status.success(), "{what}: {}", stderr(&mended));
        }
    }
    let wrong = try_restore(&backup, &data, &other.nodes()[0].secrets());
    assert_eq!(wrong.status.code(), Some(3), "{}", stderr(&wrong));
    let none = try_restore(&backup, &data, &at("nothing"));
    assert_eq!(none.status.code(), Some(3), "{}", stderr(&none));
    let taken = try_restore(&backup, &cluster.nodes()[0].data(), &secrets);
    assert_eq!(taken.status.code(), Some(10), "{}", stderr(&taken));
    let inside = try_restore(&backup, &backup.join("data"), &secrets);
    assert_eq!(inside.status.code(), Some(2), "{}", stderr(&inside));
    assert!(!data.exists() && !backup.join("data").exists());
    let left = fs::read_dir(folder.path()).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("restoring")
    });
    assert_eq!(left.count(), 0);
}

/// Tries to back a node up; the exit code, and what it said.
fn try_back_up(node: &Node, out: &Path) -> (Option<i32>, String) {
    let output = run([
        "backup".to_owned(),
        format!("--data={}", node.data().display()),
        format!("--out={}", out.display()),
    ]);
    (output.status.code(), stderr(&output))
}

#[test]
fn a_backup_goes_only_where_it_harms_nothing() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let (mut cluster, ..) = single_with_backup(&runtime, &backup);
    let node = &cluster.nodes()[0];
    let inside = node.data().join("backup");
    assert_eq!(try_back_up(node, &inside).0, Some(2));
    assert!(!inside.exists());
    let around = node.data().parent().unwrap().to_owned();
    assert_eq!(try_back_up(node, &around).0, Some(2));
    let strange = folder.path().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("diary"), "mine").unwrap();
    assert_eq!(try_back_up(node, &strange).0, Some(10));
    assert_eq!(fs::read_dir(&strange).unwrap().count(), 1);
    let (other, ..) = single_with_backup(&runtime, &folder.path().join("other"));
    let (code, said) = try_back_up(&other.nodes()[0], &backup);
    assert_eq!(code, Some(10), "{said}");
    // The secrets are named, loudly, and are in no file of the backup.
    let (code, said) = try_back_up(node, &backup);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("NOT in the backup"), "{said}");
    assert!(
        said.contains(&node.secrets().display().to_string()),
        "{said}"
    );
    let keys = fs::read_to_string(node.secrets()).unwrap();
    let keys: Vec<_> = keys.split('"').filter(|text| text.len() > 30).collect();
    assert!(!keys.is_empty());
    for path in row_files(&backup).iter().chain([&backup.join("backup")]) {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        assert!(keys.iter().all(|key| !text.contains(key)));
    }
    cluster.node(1).kill();
    assert_eq!(try_back_up(&cluster.nodes()[0], &backup).0, Some(4));
    assert!(verify(&backup).status.success());
}

#[test]
fn a_target_that_is_full_or_becomes_full_gives_no_backup_and_keeps_the_earlier_one() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let disk_at = folder.path().join("disk");
    // So many files that the disk has no room for more in the middle of the copying.
    let Some(disk) = SmallDisk::mount_with(&disk_at, "size=16m,nr_inodes=100") else {
        return;
    };
    let (cluster, ada, ben) = single_with_backup(&runtime, &folder.path().join("elsewhere"));
    let node = &cluster.nodes()[0];
    let backup = disk_at.join("backup");
    let refused = || {
        let (code, said) = try_back_up(node, &backup);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("make room"), "{said}");
    };
    refused();
    let verified = verify(&backup);
    assert_eq!(verified.status.code(), Some(10), "{}", stderr(&verified));
    assert!(
        stderr(&verified).contains("never finished"),
        "{}",
        stderr(&verified)
    );
    let tried = try_restore(&backup, &folder.path().join("data"), &node.secrets());
    assert_eq!(tried.status.code(), Some(10), "{}", stderr(&tried));
    // With room the same again copies only what is missing.
    disk.remount("nr_inodes=10000");
    let done = back_up(node, &backup);
    let (copied, all) = (
        done["copied_files"].as_u64().unwrap(),
        done["files"].as_u64().unwrap(),
    );
    assert!(copied > 0 && copied < all, "{done}");
    let whole = |backup: &Path| -> Value {
        let verified = verify(backup);
        assert!(verified.status.success(), "{}", stderr(&verified));
        serde_json::from_slice(&verified.stdout).unwrap()
    };
    let earlier = whole(&backup);
    // Full to the last byte: the earlier backup stays what it was.
    runtime.block_on(tell(&ada, &ben.box_id(), "late"));
    disk.fill();
    refused();
    assert_eq!(whole(&backup), earlier);
    disk.free();
    back_up(node, &backup);
    assert_ne!(whole(&backup), earlier);
}
