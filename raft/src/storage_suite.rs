//! openraft's own suite for stores, run against the real log and the real state.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::{Disk, FileDisk, MemoryDisk};
use rossby_storage::store::Store;
use rossby_storage::wal::{Wal, WalOptions};

use crate::blocking::Blocking;
use crate::log_store::LogStore;
use crate::state_machine::StateMachine;
use crate::types::TypeConfig;

/// What must outlive a store under test: its folder, and its log's writer.
struct Guard {
    _directory: Option<tempfile::TempDir>,
    wal: Wal,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.wal.shut_down();
        if let Some(writer) = self.writer.take() {
            writer.join().unwrap();
        }
    }
}

struct Builder {
    on_files: bool,
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = self.on_files.then(|| tempfile::tempdir().unwrap());
        let (disk, root): (Arc<dyn Disk>, _) = match &directory {
            Some(directory) => (Arc::new(FileDisk), directory.path().to_owned()),
            None => (
                Arc::new(MemoryDisk::default()),
                Path::new("/node").to_owned(),
            ),
        };
        let options = WalOptions {
            segment_bytes: 64 * 1024,
            cache_bytes: 64 * 1024,
        };
        let (wal, mut writer) = Wal::open(disk.clone(), &root.join("wal"), options).unwrap();
        let writer = std::thread::spawn(move || while writer.run_once() {});
        let base = Arc::new(MemoryBase::default());
        let store = Store::open(disk, &root.join("checkpoints"), base).unwrap();
        let log = wal.log(GroupId(1), ReplicaId(1)).unwrap();
        let state = store.group(GroupId(1)).unwrap();
        let machine = StateMachine::new(state, log.clone(), Blocking::Inline);
        let guard = Guard {
            _directory: directory,
            wal,
            writer: Some(writer),
        };
        Ok((guard, LogStore::new(log), machine))
    }
}

#[test]
fn stores_in_memory_pass_the_suite_of_openraft() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(Suite::test_all(Builder { on_files: false }))
        .unwrap();
}

#[test]
fn stores_on_files_pass_the_suite_of_openraft() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(Suite::test_all(Builder { on_files: true }))
        .unwrap();
}
