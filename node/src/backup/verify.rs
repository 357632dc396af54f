//! `rossby backup verify`: reads everything that a restore would.

use std::path::Path;
use std::sync::Arc;

use rossby_seams::disk::{Disk, ReadOnlyFileDisk};
use rossby_storage::store::{StoredCheckpoint, Verified};
use serde::Serialize;

use super::catalogue::{Catalogue, GroupBackup};
use super::progress::Progress;
use crate::exit::{Exit, Failure};
use crate::output::{self, size};

/// A backup that was read from end to end.
pub(super) struct WholeBackup {
    pub(super) catalogue: Catalogue,
    pub(super) groups: Vec<WholeGroup>,
}

/// One group of it.
pub(super) struct WholeGroup {
    pub(super) entry: GroupBackup,
    pub(super) stored: StoredCheckpoint,
    pub(super) verified: Verified,
}

/// Reads all of a backup.
pub(super) fn read_all(backup: &Path) -> Result<WholeBackup, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyFileDisk);
    let catalogue = Catalogue::read(&*disk, backup)?;
    let mut progress = Progress::new("reading the backup", catalogue.bytes());
    let mut groups = Vec::new();
    for entry in &catalogue.groups {
        let stored = entry.open(&disk, backup)?;
        let verified = stored.verify(|bytes| progress.add(bytes));
        let verified = verified.map_err(|error| {
            Failure::new(Exit::Storage, error)
                .help("use another copy of the backup, or an earlier one")
        })?;
        groups.push(WholeGroup {
            entry: entry.clone(),
            stored,
            verified,
        });
    }
    Ok(WholeBackup { catalogue, groups })
}

#[derive(Serialize)]
struct Report<'a> {
    backup: String,
    cluster: String,
    cluster_name: &'a str,
    made_at_ms: u64,
    complete_to_ms: Option<u64>,
    files: u64,
    bytes: u64,
    rows: u64,
    groups: &'a [GroupBackup],
}

/// Verifies a backup and says what it holds.
pub(super) fn run(backup: &Path, json: bool) -> Result<(), Failure> {
    let WholeBackup { catalogue, groups } = read_all(backup)?;
    let report = Report {
        backup: backup.display().to_string(),
        cluster: catalogue.cluster.id.to_string(),
        cluster_name: &catalogue.cluster.name,
        made_at_ms: catalogue.made_at_ms,
        complete_to_ms: catalogue.complete_to_ms(),
        files: catalogue.files(),
        bytes: catalogue.bytes(),
        rows: groups.iter().map(|group| group.verified.rows).sum(),
        groups: &catalogue.groups,
    };
    if json {
        return output::json(&report);
    }
    output::line(format!(
        "The backup of cluster {} ({}) is whole: {} files, {}, {} rows.",
        report.cluster_name,
        report.cluster,
        report.files,
        size(report.bytes),
        report.rows
    ));
    output::line(match report.complete_to_ms {
        Some(to) => format!(
            "It holds everything that was acknowledged before {}.",
            output::utc(to)
        ),
        None => format!("It holds what node {} had, and no more.", catalogue.node),
    });
    Ok(())
}
