//! What this machine can do at best, measured in the same run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rossby_bench::BenchError;
use rossby_bench::floor::disk::Disk;
use rossby_bench::floor::echo;
use serde::Serialize;

use super::args::FloorArgs;
use super::progress::Step;
use crate::exit::{Exit, Failure};
use crate::output;

const ECHO_FOR: Duration = Duration::from_secs(3);
const DISK_FOR: Duration = Duration::from_secs(2);
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;
/// As many as a cluster on one machine usually has nodes.
const FILES: usize = 3;
/// File systems in memory, `f_type` of statfs(2): what is "synced" there reached no disk.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// What the machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Floor {
    /// gRPC calls a second that are only echoed, by as many clients and with as large messages.
    pub(super) echo_per_second: f64,
    pub(super) echo_p50_ms: f64,
    /// Writes with fdatasync a second, into blocks that were written before.
    pub(super) sync_4k_1_file_per_second: f64,
    pub(super) sync_4k_3_files_per_second: f64,
    pub(super) sync_64k_1_file_per_second: f64,
    pub(super) sync_64k_3_files_per_second: f64,
    /// Whether those writes reached no disk.
    pub(super) in_memory: bool,
}

impl Floor {
    /// Measures it. Nothing else should run meanwhile.
    ///
    /// # Errors
    /// If the folder can't be written to.
    pub(super) async fn measure(
        folder: &Path,
        clients: u32,
        connections: u32,
        bytes: u32,
    ) -> Result<Self, Failure> {
        let step = Step::of("What the machine can do", 5);
        let (clients, connections) = (clients as usize, connections as usize);
        let echo = echo::measure(clients, connections, bytes as usize, ECHO_FOR).await?;
        step.done(1);
        let folder = folder.to_owned();
        let in_memory = is_in_memory(&folder)?;
        let disk = blocking(move || Disk::prepare(&folder, FILES)).await?;
        let disk = Arc::new(disk);
        let syncs = async |block: usize, files: usize| {
            let disk = Arc::clone(&disk);
            let rate = blocking(move || disk.syncs_per_second(block, files, DISK_FOR)).await;
            step.done(1);
            rate
        };
        Ok(Self {
            echo_per_second: echo.per_second,
            echo_p50_ms: echo.latency.p50.as_secs_f64() * 1000.0,
            sync_4k_1_file_per_second: syncs(SMALL, 1).await?,
            sync_4k_3_files_per_second: syncs(SMALL, FILES).await?,
            sync_64k_1_file_per_second: syncs(LARGE, 1).await?,
            sync_64k_3_files_per_second: syncs(LARGE, FILES).await?,
            in_memory,
        })
    }

    pub(super) fn print(&self) {
        output::line(format!(
            "  gRPC echo {:.0} a second, p50 {:.2} ms",
            self.echo_per_second, self.echo_p50_ms
        ));
        output::line(format!(
            "  fdatasync of 4 KiB {:.0} a second (1 file), {:.0} (3 files); of 64 KiB {:.0}, {:.0}",
            self.sync_4k_1_file_per_second,
            self.sync_4k_3_files_per_second,
            self.sync_64k_1_file_per_second,
            self.sync_64k_3_files_per_second
        ));
    }
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BenchError> + Send + 'static,
) -> Result<T, BenchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| BenchError::BrokeOff)?
}

/// Runs `rossby bench floor`.
pub(super) async fn run(args: &FloorArgs) -> Result<(), Failure> {
    let folder = folder_or_default(args.data.as_deref());
    check_folder(&folder)?;
    let floor = Floor::measure(&folder, args.clients, args.connections, args.bytes).await?;
    if args.json {
        return output::json(&floor);
    }
    output::line(format!(
        "This machine, with its disk at {}:",
        folder.display()
    ));
    floor.print();
    if floor.in_memory {
        output::line(format!("  note: {FLOOR_IN_MEMORY}"));
    }
    Ok(())
}

/// What a report says of figures that no disk had a part in.
pub(super) const IN_MEMORY: &str =
    "the data is in a file system in memory: no figure here is one of a disk (--data)";

/// The same of the floor alone.
pub(super) const FLOOR_IN_MEMORY: &str = "the writes of this machine at best went to a file system in memory: they say nothing of a disk (--data)";

pub(super) fn folder_or_default(given: Option<&Path>) -> PathBuf {
    given.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// Makes sure that a folder is there, before anything else takes its time.
///
/// # Errors
/// If it isn't one.
pub(super) fn check_folder(folder: &Path) -> Result<(), Failure> {
    let wrong = |why: String| Failure::new(Exit::Config, format!("{}: {why}", folder.display()));
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(wrong("is no folder".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Whether what is written to a folder stays in memory.
///
/// # Errors
/// If there is no such folder.
pub(super) fn is_in_memory(folder: &Path) -> Result<bool, Failure> {
    let found = rustix::fs::statfs(folder)
        .map_err(|error| Failure::new(Exit::Config, format!("{}: {error}", folder.display())))?;
    // Its type is another integer on each architecture.
    #[allow(clippy::unnecessary_cast)]
    let kind = found.f_type as i64;
    Ok([TMPFS, RAMFS].contains(&kind))
}
