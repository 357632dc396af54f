//! What a recovery is about to do, written down before it touches anything: from then on it is finished, by whoever
//! gives the command again, whatever interrupts it.
//!
//! ```text
//!   new states, whole ─► <data>/recovery ─► log: old replicas buried, new ones begun ─► checkpoints in their places
//!                                                  ─► identity ─► map ─► <data>/recovery is removed
//! ```
//!
//! Each step can be taken again. A node does not start while the file is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_api::placement::{MapKeeper, SealedFile};
use rossby_domain::placement::{Change, ClusterMap};
use rossby_raft::begin_restored_log;
use rossby_seams::clock::{Clock as _, SystemClock};
use rossby_seams::disk::Disk;
use rossby_storage::LogPosition;
use rossby_storage::datadir::{DataDirectory, HeldReplica, RemovedReplica};
use rossby_storage::wal::{self, Wal, WalError, WalOptions};
use serde::{Deserialize, Serialize};

use super::build;
use super::pending;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;

/// Its file in the data directory.
const FILE: SealedFile = SealedFile {
    name: "recovery",
    what: "rossby recovery",
};

/// A replica that takes the place of another on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The one that was left.
    pub old: RemovedReplica,
    /// The one that goes on.
    pub new: HeldReplica,
    /// Where its checkpoint ends and its log begins.
    pub position: LogPosition,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The folder that old checkpoints go to.
    aside: String,
    /// What takes whose place.
    pub moves: Vec<Move>,
    /// What the cluster map must say.
    pub change: Change,
    /// The map that says so, if the placement group is among them: it has it in its state already.
    pub map: Option<ClusterMap>,
}

impl Intent {
    /// What is to be done with states that were built.
    pub fn new(moves: Vec<Move>, change: Change, map: Option<ClusterMap>) -> Self {
        let stamp = output::utc(SystemClock.now().as_millis()).replace([' ', ':'], "-");
        Self {
            aside: format!("before-recovery-{stamp}"),
            moves,
            change,
            map,
        }
    }

    /// The folder that holds the old checkpoints afterwards.
    pub fn aside(&self, data: &Path) -> PathBuf {
        data.join(&self.aside)
    }

    /// The one in a data directory, if there is one.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(data: &DataDirectory) -> Result<Option<Self>, Failure> {
        let read = FILE.read(&**data.disk(), data.path());
        read.map_err(|reason| failed(&FILE.path(data.path()), &reason))
    }

    /// Writes it down: from now on it is finished, not taken back.
    ///
    /// # Errors
    /// If it can't be written: nothing is to be finished then.
    pub fn write(&self, data: &DataDirectory) -> Result<(), Failure> {
        let written = FILE.write(&**data.disk(), data.path(), self);
        written.map_err(|error| failed(&FILE.path(data.path()), &error))
    }

    /// Does what is left of it.
    ///
    /// # Errors
    /// If the disk fails; the same again goes on.
    pub fn finish(&self, config: &Config, data: &mut DataDirectory) -> Result<(), Failure> {
        self.begin_logs(config, data)
            .map_err(|error| Failure::new(Exit::Storage, error))?;
        for step in &self.moves {
            self.put_in_place(data, step)?;
        }
        if let Some(mut identity) = data.identity().cloned() {
            for Move { old, new, .. } in &self.moves {
                identity = identity.without(old.group, old.replica);
                identity.replicas.insert(*new);
            }
            data.save(identity)
                .map_err(|error| Failure::new(Exit::Storage, error))?;
        }
        let (path, disk) = (data.path().to_owned(), Arc::clone(data.disk()));
        match &self.map {
            Some(map) => {
                let keeper = MapKeeper::open(Arc::clone(&disk), &path);
                keeper.offer(Arc::new(map.clone()));
                let written = keeper.write_newest();
                written.map_err(|error| failed(&path, &error))?;
            }
            None => pending::write(data, &self.change)?,
        }
        build::clear(&build::folder(&path))?;
        let own = FILE.path(&path);
        disk.remove(&own)
            .and_then(|()| disk.sync_directory(&path))
            .map_err(|error| failed(&own, &error))
    }

    /// Buries the old replicas in the log, and has the logs of the new ones begin where their checkpoints end.
    fn begin_logs(&self, config: &Config, data: &DataDirectory) -> Result<(), WalError> {
        let options = WalOptions {
            segment_bytes: config.storage.segment_bytes,
            cache_bytes: config.storage.log_cache_bytes,
        };
        let (log, writer) = Wal::open(Arc::clone(data.disk()), &data.wal(), options)?;
        let writer = wal::spawn_writer(writer)?;
        let begun = crate::runtime::one_thread()
            .map_err(|_| WalError::Closed)?
            .block_on(async {
                for Move { old, new, position } in &self.moves {
                    log.remove_replica(old.group, old.replica).await?;
                    let replica = log.log(new.group, new.replica)?;
                    if replica.state().purged != Some(*position) {
                        begin_restored_log(&replica, *position).await?;
                    }
                }
                Ok(())
            });
        log.shut_down();
        // Its failures are those of the calls above.
        let _ = writer.join();
        begun
    }

    /// Puts a new checkpoint in its place, and the old one aside.
    fn put_in_place(&self, data: &DataDirectory, step: &Move) -> Result<(), Failure> {
        let built = build::checkpoint_of(data.path(), step.new.group);
        let disk = data.disk();
        let checkpoints = data.checkpoints();
        let new = checkpoints.join(step.new.group.to_string());
        if !built.exists() {
            // It is there from an earlier try.
            return match new.exists() {
                true => Ok(()),
                false => Err(failed(
                    &built,
                    &"it is gone, and is not in its place either",
                )),
            };
        }
        let old = checkpoints.join(step.old.group.to_string());
        if old.exists() {
            let aside = self.aside(data.path());
            disk.create_directory(&aside)
                .map_err(|error| failed(&aside, &error))?;
            rename(&**disk, &old, &aside.join(step.old.group.to_string()))?;
        }
        rename(&**disk, &built, &new)
    }
}

/// Refuses to start a node whose recovery was not finished.
///
/// # Errors
/// If it was not.
pub fn refuse_unfinished(data: &Path) -> Result<(), Failure> {
    if !FILE.path(data).exists() {
        return Ok(());
    }
    let text = format!(
        "the recovery of the node in {} was interrupted",
        data.display()
    );
    Err(Failure::new(Exit::Storage, text)
        .help("finish it: give the same `rossby recover --data-loss` again"))
}

fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Failure> {
    let sync = |path: &Path| match path.parent() {
        Some(parent) => disk.sync_directory(parent),
        None => Ok(()),
    };
    disk.rename(from, to)
        .and_then(|()| sync(to))
        .and_then(|()| sync(from))
        .map_err(|error| failed(from, &error))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Storage, format!("{}: {error}", path.display()))
}
