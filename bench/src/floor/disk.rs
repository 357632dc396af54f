//! How often the disk can promise to keep something: writes into blocks that were written before, each
//! followed by fdatasync.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::BenchError;

/// Written before, so that a sync has no metadata to write.
const FILE_BYTES: usize = 32 * 1024 * 1024;
const FILL_BYTES: usize = 1024 * 1024;

/// Files of one folder, written before, that nobody else sees and that are gone when they are closed.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    files: Vec<File>,
}

impl Disk {
    /// So many files. Blocks for a moment.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn prepare(folder: &Path, files: usize) -> Result<Self, BenchError> {
        let files: io::Result<_> = (0..files).map(|_| prepared(folder)).collect();
        let folder = folder.to_owned();
        match files {
            Ok(files) => Ok(Self { folder, files }),
            Err(error) => Err(BenchError::File {
                path: folder,
                error,
            }),
        }
    }

    /// Writes and syncs blocks of this size for so long, in so many of the files at a time; how many there
    /// were in a second. Blocks for all that time.
    ///
    /// # Errors
    /// [`BenchError::File`].
    pub fn syncs_per_second(
        &self,
        block_bytes: usize,
        files: usize,
        duration: Duration,
    ) -> Result<f64, BenchError> {
        let began = Instant::now();
        let end = began + duration;
        let counts = thread::scope(|scope| {
            let writers: Vec<_> = self
                .files
                .iter()
                .take(files)
                .map(|file| scope.spawn(move || write_until(file, block_bytes, end)))
                .collect();
            let joined = writers.into_iter().map(|writer| writer.join());
            joined.collect::<Result<Vec<_>, _>>()
        });
        let counts = counts.map_err(|_| BenchError::BrokeOff)?;
        let syncs: io::Result<u32> = counts.into_iter().sum();
        let syncs = syncs.map_err(|error| BenchError::File {
            path: self.folder.clone(),
            error,
        })?;
        Ok(f64::from(syncs) / began.elapsed().as_secs_f64())
    }
}

fn prepared(folder: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    let zeroes = vec![0; FILL_BYTES];
    for offset in (0..FILE_BYTES).step_by(FILL_BYTES) {
        file.write_all_at(&zeroes, offset as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

fn write_until(file: &File, block_bytes: usize, end: Instant) -> io::Result<u32> {
    let block = vec![0x5a; block_bytes];
    let blocks = (FILE_BYTES / block_bytes.max(1)).max(1);
    let mut syncs: u32 = 0;
    // At least one, however slow the disk is.
    while syncs == 0 || Instant::now() < end {
        let place = usize::try_from(syncs).unwrap_or_default() % blocks;
        file.write_all_at(&block, (place * block_bytes) as u64)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(syncs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::prepare(folder.path(), 2).unwrap();
        for files in [1, 2] {
            let rate = disk.syncs_per_second(4096, files, Duration::from_millis(50));
            assert!(rate.unwrap() > 0.0);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let refused = Disk::prepare(&folder.path().join("missing"), 1);
        assert!(matches!(refused, Err(BenchError::File { .. })));
    }
}
