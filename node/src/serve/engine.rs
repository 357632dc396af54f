//! The storage of a node and the groups above it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rossby_domain::ids::NodeId;
use rossby_raft::{Blocking, Groups, GroupsConfig};
use rossby_seams::base::Base;
use rossby_seams::clock::Clock;
use rossby_seams::disk::Disk;
use rossby_seams::random::OsRandom;
use rossby_seams::transport::SharedTransport;
use rossby_storage::datadir::DataDirectory;
use rossby_storage::sled_base::{SledBase, SledOpenError};
use rossby_storage::store::{Store, StoreError};
use rossby_storage::wal::{self, Wal, WalError, WalOptions};
use tracing::{info, warn};

use crate::config::Config;

/// How often it is looked whether the log's writer has ended. It does within one drain.
const WRITER_INTERVAL: Duration = Duration::from_millis(5);

/// Why the storage can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The state and its checkpoints.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key-value base.
    #[error(transparent)]
    Base(#[from] SledOpenError),
}

/// The storage of a node and its groups.
pub struct Engine {
    /// The groups.
    pub groups: Arc<Groups>,
    /// The state below them.
    pub store: Store,
    /// The log below them.
    pub wal: Wal,
    writer: JoinHandle<()>,
}

/// What the engine is made of besides its configuration.
pub struct EngineParts {
    /// This node.
    pub node: NodeId,
    /// The clock that stamps commands.
    pub clock: Arc<dyn Clock>,
    /// The way to other nodes.
    pub transport: SharedTransport,
}

impl Engine {
    /// Opens log, base and state, and recovers what they hold. Blocking I/O.
    ///
    /// # Errors
    /// [`EngineError`] if one can't be opened. Nothing is ever wiped to get past damage; only the
    /// base, which holds no only copy, is rebuilt.
    pub fn open(
        config: &Config,
        data: &DataDirectory,
        parts: EngineParts,
    ) -> Result<Self, EngineError> {
        let storage = &config.storage;
        let options = WalOptions {
            segment_bytes: storage.segment_bytes,
            cache_bytes: storage.log_cache_bytes,
        };
        let (wal, writer) = Wal::open(Arc::clone(data.disk()), &data.wal(), options)?;
        let base = open_base(
            data.disk(),
            data.checkpoints(),
            data.base(),
            storage.base_cache_bytes,
        )?;
        let store = Store::open(Arc::clone(data.disk()), &data.checkpoints(), base)?;
        let writer = wal::spawn_writer(writer)?;
        let groups = Groups::new(GroupsConfig {
            node: parts.node,
            timing: config.raft.timing(),
            rest: config.raft.rest,
            clock: parts.clock,
            random: Arc::new(OsRandom),
            transport: parts.transport,
            wal: wal.clone(),
            store: store.clone(),
            blocking: Blocking::Threads,
            checkpoint_log_bytes: storage.checkpoint_log_bytes,
            overlay_budget_bytes: storage.overlay_budget_bytes,
            lease_reads: config.raft.lease_reads,
        });
        Ok(Self {
            groups,
            store,
            wal,
            writer,
        })
    }

    /// Whether the thread of the log's writer has ended, for whatever reason.
    #[must_use]
    pub fn writer_ended(&self) -> bool {
        self.writer.is_finished()
    }

    /// Ends in good order: leadership is handed over, everything is synced, and the base is closed,
    /// so that the next start need not rebuild it.
    pub async fn close(&self) {
        self.groups.shutdown().await;
        let (store, wal) = (self.store.clone(), self.wal.clone());
        let closed = tokio::task::spawn_blocking(move || {
            let closed = store.close();
            wal.shut_down();
            closed
        });
        match closed.await {
            Ok(Ok(())) if self.wal.failure().is_some() => {
                warn!("the key-value base is closed, but the log has failed");
            }
            Ok(Ok(())) => info!("the state is closed in good order"),
            Ok(Err(error)) => {
                warn!(%error, "the key-value base was not closed; the next start rebuilds it");
            }
            Err(error) => warn!(%error, "closing the key-value base failed"),
        }
        while !self.writer_ended() {
            tokio::time::sleep(WRITER_INTERVAL).await;
        }
    }
}

/// Opens the base, empty if what is there can't be trusted anyway.
fn open_base(
    disk: &Arc<dyn Disk>,
    checkpoints: PathBuf,
    path: PathBuf,
    cache_bytes: u64,
) -> Result<Arc<dyn Base>, EngineError> {
    if path.exists() && !Store::base_was_closed(&**disk, &checkpoints)? {
        info!("the key-value base was not closed in good order; rebuilding it from the checkpoint");
        SledBase::delete(&path)?;
    }
    Ok(Arc::new(SledBase::open_or_replace(&path, cache_bytes)?))
}
