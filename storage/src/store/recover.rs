//! Start of a group: its manifest, its files, and its rows in the base.

use std::sync::Arc;

use super::base_rows::BaseHandle;
use super::checkpoint::Checkpoint;
use super::error::{REMEDY_REPLICA, StoreError};
use super::files::{GroupFiles, Pin};
use super::manifest::Manifest;
use super::merge::MergedRows;
use super::rows::is_envelope;

/// Brings a group back to its last published checkpoint, and the base with it; `None` if it never
/// had one. The base is used as it is only if it is `trusted` and holds just this checkpoint.
pub(crate) fn recover(
    base: &BaseHandle,
    files: &Arc<GroupFiles>,
    trusted: bool,
) -> Result<Option<Checkpoint>, StoreError> {
    let checkpoint = match Manifest::load(files)? {
        Some((manifest, bytes)) => {
            files.are_named(manifest.files());
            let pins = pin_all(files, &manifest)?;
            Some(Checkpoint::new(files, manifest, bytes, pins))
        }
        None => None,
    };
    // The manifest that was found must be the one that is found again, before the files of any
    // other are removed.
    files.sync()?;
    files.sweep()?;
    let expected = checkpoint.as_ref().map(Checkpoint::position);
    let reason = if !trusted {
        "it was not closed in good order, or is damaged"
    } else if base.index(files.group)? != expected {
        "it holds another checkpoint"
    } else {
        return Ok(checkpoint);
    };
    let group = files.group;
    let cleared = base.clear_group(group)?;
    if let Some(checkpoint) = &checkpoint {
        tracing::info!(%group, reason, cleared, "rebuilding the base from the checkpoint");
        fill_base(base, files, checkpoint.contents())?;
    } else if cleared > 0 {
        tracing::info!(%group, cleared, "emptied the base of a group without a checkpoint");
    }
    Ok(checkpoint)
}

fn pin_all(files: &Arc<GroupFiles>, manifest: &Manifest) -> Result<Vec<Pin>, StoreError> {
    let pin = |name| {
        files.pin(name)?.ok_or_else(|| StoreError::Corrupt {
            what: "checkpoint file",
            location: files.path(&name.digest).display().to_string(),
            detail: "it is missing, of a wrong length, or was found to be damaged before"
                .to_owned(),
            remedy: REMEDY_REPLICA,
        })
    };
    manifest.files().map(pin).collect()
}

/// Fills the base, empty of the group's rows, from checkpoint files; the index row comes last. All of
/// every file is read and checked, envelopes too, which stay where they are.
pub(crate) fn fill_base(
    base: &BaseHandle,
    files: &GroupFiles,
    manifest: &Manifest,
) -> Result<(), StoreError> {
    const REPORT_EVERY_ROWS: u64 = 250_000;
    let group = files.group;
    let mut rows: u64 = 0;
    for (done, partition) in manifest.partitions.iter().enumerate() {
        let target = base.partition(group, partition.partition);
        let mut writer = target.writer();
        let mut merged = MergedRows::open(files, partition, None)?;
        while let Some((key, value)) = merged.next()? {
            if !is_envelope(&key) {
                writer.push(&key, Some(&value))?;
            }
            rows = rows.saturating_add(1);
            if rows.is_multiple_of(REPORT_EVERY_ROWS) {
                let of = manifest.partitions.len();
                tracing::info!(%group, rows, partitions = done, of, "rebuilding the base");
            }
        }
        writer.flush()?;
    }
    base.set_index(group, manifest.position)?;
    tracing::info!(%group, rows, partitions = manifest.partitions.len(), "the base is rebuilt");
    Ok(())
}
