//! Looking at checkpoints without going on from them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rossby_domain::ids::GroupId;
use rossby_seams::base::{Base, BaseError, BaseRow, BaseWrite};
use rossby_seams::disk::Disk;

use super::base_rows;
use super::envelopes::StoredEnvelopes;
use super::error::{REMEDY_REPLICA, StoreError};
use super::files::GroupFiles;
use super::incoming::verify;
use super::manifest::Manifest;
use super::rows::{self, PARTITION_PREFIX_BYTES, Table};
use super::view::check_row;
use super::{GroupStore, Store};
use crate::LogPosition;

/// What a group's checkpoint consists of, all of it read and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSurvey {
    /// The entry it holds the state at.
    pub position: LogPosition,
    /// Its files.
    pub files: u64,
    /// Their length, in bytes.
    pub bytes: u64,
    /// Rows by table.
    pub rows: BTreeMap<&'static str, u64>,
}

/// Recovers a group's state as a start would after power loss: every file of the checkpoint is read
/// to its end, and every row of it is decoded. Over an [`rossby_seams::disk::Inspection`] nothing
/// is changed. `None` beside the state if the group has no checkpoint yet.
///
/// # Errors
/// Those of [`Store::group`]; [`StoreError::Corrupt`] or [`StoreError::Version`] also for a row that
/// does not decode.
pub fn examine(
    disk: Arc<dyn Disk>,
    checkpoints: &Path,
    group: GroupId,
) -> Result<(GroupStore, Option<CheckpointSurvey>), StoreError> {
    let reader = Arc::new(RowReader::default());
    let store = Store::open(disk, checkpoints, Arc::clone(&reader) as Arc<dyn Base>)?;
    let recovered = store.group(group);
    // What was wrong with a row says more than that the base refused it.
    if let Some(error) = reader.failure.lock().take() {
        return Err(error);
    }
    let state = recovered?;
    let Some(checkpoint) = state.current() else {
        return Ok((state, None));
    };
    let mut rows = std::mem::take(&mut *reader.rows.lock());
    for partition in &checkpoint.contents().partitions {
        let envelopes = checkpoint.envelopes(partition.partition, &StoredEnvelopes::default())?;
        let queue = rows::whole(Table::Queue);
        let mut envelopes = envelopes.rows(&queue)?;
        while let Some((key, value)) = envelopes.next()? {
            check_row(&key, &value)?;
            *rows.entry(Table::Queue.name()).or_default() += 1;
        }
    }
    let files = checkpoint.files();
    let survey = CheckpointSurvey {
        position: checkpoint.position(),
        files: files.len() as u64,
        bytes: files.iter().map(|name| name.length).sum(),
        rows,
    };
    Ok((state, Some(survey)))
}

/// Every damaged or missing file of a group's checkpoint. For a checkpoint that [`examine`] refuses,
/// since recovery stops at the first.
///
/// # Errors
/// [`StoreError`] if the manifest can't be used, or the disk failed.
pub fn damaged_files(
    disk: Arc<dyn Disk>,
    checkpoints: &Path,
    group: GroupId,
) -> Result<Vec<StoreError>, StoreError> {
    let files = GroupFiles::open(disk, checkpoints, group)?;
    let mut damage = Vec::new();
    let Some((manifest, _)) = Manifest::load(&files)? else {
        return Ok(damage);
    };
    for (partition, kind, name) in manifest.contents() {
        let path = files.path(&name.digest);
        let missing = || StoreError::Corrupt {
            what: "checkpoint file",
            location: path.display().to_string(),
            detail: "it is missing".to_owned(),
            remedy: REMEDY_REPLICA,
        };
        match verify(&files, path.clone(), REMEDY_REPLICA, &name, partition, kind) {
            Ok(()) => {}
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                damage.push(missing());
            }
            Err(error @ StoreError::Io { .. }) => return Err(error),
            Err(error) => damage.push(error),
        }
    }
    Ok(damage)
}

/// The groups that have a folder of checkpoint files.
///
/// # Errors
/// [`StoreError::Io`].
pub fn groups_with_files(disk: &dyn Disk, checkpoints: &Path) -> Result<Vec<GroupId>, StoreError> {
    let listed = match disk.list(checkpoints) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(StoreError::io("list", checkpoints))?,
    };
    let number = |path: &std::path::PathBuf| path.file_name()?.to_str()?.parse().ok();
    Ok(listed.iter().filter_map(number).map(GroupId).collect())
}

/// A base that keeps nothing: it reads what it is told to write.
#[derive(Debug, Default)]
struct RowReader {
    rows: Mutex<BTreeMap<&'static str, u64>>,
    failure: Mutex<Option<StoreError>>,
}

impl RowReader {
    fn read(&self, key: &[u8], stored: Vec<u8>) -> Result<(), StoreError> {
        let value: Bytes = base_rows::unseal(key, stored)?;
        let key = key.get(PARTITION_PREFIX_BYTES..).unwrap_or_default();
        // Rows about the base itself have a table that no partition has.
        if let Some(table) = check_row(key, &value)? {
            *self.rows.lock().entry(table.name()).or_default() += 1;
        }
        Ok(())
    }
}

impl Base for RowReader {
    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, BaseError> {
        Ok(None)
    }

    fn range(&self, _start: &[u8], _end: &[u8], _limit: usize) -> Result<Vec<BaseRow>, BaseError> {
        Ok(Vec::new())
    }

    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError> {
        for (key, stored) in changes {
            let Some(stored) = stored else { continue };
            if let Err(error) = self.read(&key, stored) {
                let text = error.to_string();
                self.failure.lock().get_or_insert(error);
                return Err(BaseError(text));
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), BaseError> {
        Ok(())
    }
}
