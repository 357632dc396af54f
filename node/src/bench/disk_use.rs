//! What a node's data takes on the disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

/// What stat(2) counts blocks in.
const BLOCK_BYTES: u64 = 512;

/// Blocks that the files of a data directory take; the space that a node sets aside is not among them.
#[derive(Debug, Serialize)]
pub(super) struct DiskUse {
    pub(super) wal_bytes: u64,
    pub(super) checkpoints_bytes: u64,
    pub(super) base_bytes: u64,
}

impl DiskUse {
    pub(super) fn of(data: &Path) -> Self {
        let part = |name: &str| size_of(&data.join(name));
        Self {
            wal_bytes: part("wal"),
            checkpoints_bytes: part("checkpoints"),
            base_bytes: part("base"),
        }
    }
}

/// Of the files in a folder and below it; what vanishes meanwhile counts nothing.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.blocks() * BLOCK_BYTES,
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_added_up_however_deep_and_holes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("wal/a");
        std::fs::create_dir_all(&inner).unwrap();
        for file in [inner.join("b"), folder.path().join("wal/c")] {
            let file = std::fs::File::create(file).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[1; 8192], 0).unwrap();
            file.sync_all().unwrap();
        }
        let hole = std::fs::File::create(folder.path().join("wal/hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        let used = DiskUse::of(folder.path());
        assert!((16_384..1 << 20).contains(&used.wal_bytes), "{used:?}");
        assert_eq!((used.checkpoints_bytes, used.base_bytes), (0, 0));
    }
}
