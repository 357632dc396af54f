//! The state of the groups of a node: overlay, base, checkpoints.
//!
//! ```text
//!   apply ─► live layer ── cut ─► frozen layer ─┬─ write, publish ─► checkpoint files + manifest  (truth)
//!                                               └─ all but envelopes ─► base, chunk by chunk      (rebuildable)
//!   read  ─► live ─► frozen ─► base; of envelopes: the checkpoint's files
//! ```
//!
//! | file | what |
//! |---|---|
//! | `rows` | the keys of all tables |
//! | `view` | domain's tables over a partition's rows |
//! | `partition`, `layers`, `layer`, `base_rows`, `envelopes` | the rows: layers in memory over the base, and over the files that hold envelopes; `known`: some of them decoded |
//! | `group` | a group's state machine; `reader`: its readers; `shared`: the state itself |
//! | `checkpoint`, `row_file`, `merge`, `manifest`, `files` | a checkpoint and what it is made of; `cut`: how it comes about |
//! | `incoming`, `install` | a checkpoint on its way in, and its taking over |
//! | `session`, `recover` | start and shutdown |
//! | `backup` | a checkpoint in a backup, and making a state of it |
//!
//! Invariants:
//! - The state is the last published checkpoint and the log after it. Nothing else is needed to
//!   start, and nothing in the base is the only copy.
//! - Apply writes to memory only.
//! - A checkpoint is published by one atomic step and never goes back.
//! - Bytes on the disk are checked before they are believed: checkpoints by digest, rows of the base
//!   by checksum, the base as a whole by its session.

mod backup;
mod base_rows;
mod checkpoint;
mod cut;
mod envelopes;
mod error;
mod examine;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group;
mod incoming;
mod install;
mod known;
mod layer;
mod layers;
mod manifest;
mod merge;
mod partition;
mod reader;
mod recover;
mod row_file;
mod rows;
mod session;
mod shared;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rossby_domain::ids::GroupId;
use rossby_seams::base::Base;
use rossby_seams::disk::Disk;

use self::base_rows::BaseHandle;
use self::files::GroupFiles;
use self::layer::Gauge;
use self::session::Session;

pub use self::backup::{Restoration, StoredCheckpoint, Verified};
pub use self::checkpoint::Checkpoint;
pub use self::cut::{CheckpointCut, WrittenCheckpoint};
pub use self::error::StoreError;
pub use self::examine::{CheckpointSurvey, damaged_files, examine, groups_with_files};
pub use self::files::FileName;
pub use self::group::GroupStore;
pub use self::incoming::IncomingCheckpoint;
pub use self::install::Installation;
pub use self::reader::{GroupTimes, PartitionDigests, Reader};
pub use self::shared::Applied;

/// The state of all groups of a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<StoreShared>,
}

#[derive(Debug)]
struct StoreShared {
    disk: Arc<dyn Disk>,
    checkpoints: PathBuf,
    base: BaseHandle,
    session: Session,
    gauge: Gauge,
    groups: Mutex<BTreeMap<GroupId, GroupSlot>>,
}

/// What the store knows of a group.
#[derive(Debug)]
struct GroupSlot {
    files: Arc<GroupFiles>,
    /// Alive while the group is open. It was recovered once it was open, and then the base's index
    /// row of the group can be believed for the rest of the session.
    open: Option<std::sync::Weak<OpenToken>>,
}

/// Held by whoever may write to a group's state: its state machine, and a checkpoint of it.
#[derive(Debug)]
pub(crate) struct OpenToken;

impl Store {
    /// Opens the store: `checkpoints` is the folder of checkpoint files, made if missing, `base` the
    /// key-value store below. Unless the base was closed in good order, each group empties and
    /// rebuilds its rows there when it is opened, which is logged.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk failed, [`StoreError::Base`] if the base did.
    pub fn open(
        disk: Arc<dyn Disk>,
        checkpoints: &Path,
        base: Arc<dyn Base>,
    ) -> Result<Self, StoreError> {
        disk.create_directory(checkpoints)
            .map_err(StoreError::io("create folder", checkpoints))?;
        let base = BaseHandle::new(base);
        let session = Session::begin(&*disk, checkpoints, &base)?;
        Ok(Self {
            shared: Arc::new(StoreShared {
                disk,
                checkpoints: checkpoints.to_owned(),
                base,
                session,
                gauge: Gauge::default(),
                groups: Mutex::default(),
            }),
        })
    }

    /// Whether the base was closed in good order and may be worth opening. If not, all of it will be
    /// rebuilt anyway, and it is quicker to delete it before [`Store::open`].
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk failed.
    pub fn base_was_closed(disk: &dyn Disk, checkpoints: &Path) -> Result<bool, StoreError> {
        session::was_closed(disk, checkpoints)
    }

    /// The state machine of one group (there is one at a time), recovered to its last checkpoint.
    /// Blocking I/O: if the base has to be rebuilt, all checkpoint files are read.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if the group is open, or a checkpoint of it is still being written;
    /// [`StoreError::Corrupt`] or [`StoreError::Version`] if its checkpoint can't be used.
    pub fn group(&self, group: GroupId) -> Result<GroupStore, StoreError> {
        let mut groups = self.shared.groups.lock();
        let slot = self.slot(&mut groups, group)?;
        let token = Arc::new(OpenToken);
        let known = slot.open.is_some();
        if slot
            .open
            .as_ref()
            .is_some_and(|open| open.strong_count() > 0)
        {
            return Err(StoreError::Busy(group));
        }
        let files = Arc::clone(&slot.files);
        // Claimed before the slow part, so that others need not wait to be told so.
        let earlier = slot.open.replace(Arc::downgrade(&token));
        drop(groups);
        let kept = known || self.shared.session.base_is_clean();
        let trusted = kept && !self.shared.base.is_suspect();
        let recovered = recover::recover(&self.shared.base, &files, trusted);
        if recovered.is_err()
            && let Some(slot) = self.shared.groups.lock().get_mut(&group)
        {
            slot.open = earlier;
        }
        let base = self.shared.base.clone();
        Ok(GroupStore::new(
            files,
            base,
            self.shared.gauge.clone(),
            token,
            recovered?,
        ))
    }

    /// Bytes in overlays, over all groups: what waits to reach checkpoint and base.
    #[must_use]
    pub fn overlay_bytes(&self) -> u64 {
        self.shared.gauge.bytes()
    }

    /// Ends the session in good order, so that the next start need not rebuild the base. Groups can
    /// be read afterwards but write no more checkpoints. Not calling this loses nothing but time.
    ///
    /// # Errors
    /// [`StoreError`] if base or disk failed; the next start will then rebuild the base.
    pub fn close(&self) -> Result<(), StoreError> {
        let StoreShared {
            disk,
            checkpoints,
            base,
            session,
            ..
        } = &*self.shared;
        session.end(&**disk, checkpoints, base)
    }

    /// The files of a group.
    fn files(&self, group: GroupId) -> Result<Arc<GroupFiles>, StoreError> {
        let mut groups = self.shared.groups.lock();
        Ok(Arc::clone(&self.slot(&mut groups, group)?.files))
    }

    fn slot<'a>(
        &self,
        groups: &'a mut BTreeMap<GroupId, GroupSlot>,
        group: GroupId,
    ) -> Result<&'a mut GroupSlot, StoreError> {
        use std::collections::btree_map::Entry;
        match groups.entry(group) {
            Entry::Occupied(slot) => Ok(slot.into_mut()),
            Entry::Vacant(empty) => {
                let disk = Arc::clone(&self.shared.disk);
                let files = GroupFiles::open(disk, &self.shared.checkpoints, group)?;
                Ok(empty.insert(GroupSlot { files, open: None }))
            }
        }
    }
}
