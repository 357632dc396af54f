//! What this node's replicas promise their leaders, kept in the data directory: for how long, at least, they elect nobody else
//! after they heard from one (`raft.election_min_ms`). Leaders count on it when they answer reads by their lease.
//!
//! A node that starts again does not know which promises it gave, and so votes for nobody that long. Should the setting have
//! become shorter meanwhile, that would be too short for those of before: it first waits until they are over.

use std::time::Duration;

use rossby_api::placement::SealedFile;
use rossby_storage::datadir::DataDirectory;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::node::NodeError;

const FILE: SealedFile = SealedFile {
    name: "promise",
    what: "rossby election promise",
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Promise {
    election_min_ms: u64,
}

/// Returns once replicas in this directory may promise no more than this. Before any of them starts.
pub async fn begin(data: &DataDirectory, election_min: Duration) -> Result<(), NodeError> {
    let failed = |reason: String| NodeError::Promise {
        path: FILE.path(data.path()).display().to_string(),
        reason,
    };
    let new = Promise {
        election_min_ms: u64::try_from(election_min.as_millis()).unwrap_or(u64::MAX),
    };
    let kept: Option<Promise> = FILE.read(&**data.disk(), data.path()).map_err(failed)?;
    if kept == Some(new) {
        return Ok(());
    }
    if let Some(kept) = kept.filter(|kept| *kept > new) {
        let wait = Duration::from_millis(kept.election_min_ms);
        info!(
            ?wait,
            "raft.election_min_ms is shorter than before: waits until all that was promised is over"
        );
        tokio::time::sleep(wait).await;
    }
    let written = FILE.write(&**data.disk(), data.path(), &new);
    written.map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use rossby_seams::disk::{self, MemoryDisk};
    use tokio::time::{Instant, timeout};

    use super::*;

    const LONG: Duration = Duration::from_millis(2500);
    const SHORT: Duration = Duration::from_millis(500);

    /// How long a start with that promise waits.
    async fn waits(data: &DataDirectory, promise: Duration) -> Duration {
        let began = Instant::now();
        begin(data, promise).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_promise_begins_once_the_longer_one_is_over_however_often_the_node_starts() {
        let disk = Arc::new(MemoryDisk::default());
        let data = DataDirectory::open(disk, Path::new("/data")).unwrap();
        assert_eq!(waits(&data, SHORT).await, Duration::ZERO, "none before");
        assert_eq!(waits(&data, LONG).await, Duration::ZERO);
        assert_eq!(waits(&data, LONG).await, Duration::ZERO);
        // It is killed meanwhile.
        let killed = timeout(LONG - SHORT, begin(&data, SHORT)).await;
        assert!(killed.is_err());
        assert!(waits(&data, SHORT).await >= LONG);
        assert_eq!(waits(&data, SHORT).await, Duration::ZERO);
    }

    #[tokio::test]
    async fn a_file_that_can_not_be_read_stops_the_start() {
        let disk = Arc::new(MemoryDisk::default());
        let data = DataDirectory::open(disk, Path::new("/data")).unwrap();
        disk::replace(&**data.disk(), &FILE.path(data.path()), b"2500").unwrap();
        let begun = begin(&data, SHORT).await;
        assert!(matches!(begun, Err(NodeError::Promise { .. })), "{begun:?}");
    }
}
