//! The groups of a data directory: checkpoint, log and membership, and whether they fit together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_domain::placement::PLACEMENT_GROUP;
use rossby_raft::{ReplicaFault, members_of, survey};
use rossby_seams::disk::{Disk, Inspection, WithheldChange};
use rossby_storage::datadir::Identity;
use rossby_storage::store::{self, GroupStore, StoreError};
use rossby_storage::wal::{LogSurvey, Wal, WalError};

use super::report::{CheckpointFigures, GroupFigures, Report, Severity};
use crate::exit::{Exit, Failure};

/// Looks at every group that anything in the directory knows of; what that would have changed.
pub fn look(
    report: &mut Report,
    disk: &Arc<dyn Disk>,
    data: &Path,
    identity: Option<&Identity>,
    log: Option<&(Wal, LogSurvey)>,
) -> Result<Vec<WithheldChange>, Failure> {
    let checkpoints = data.join("checkpoints");
    let mut withheld = Vec::new();
    let with_files = store::groups_with_files(&**disk, &checkpoints).map_err(unreadable)?;
    let held = identity.into_iter().flat_map(|identity| &identity.replicas);
    let logged = log.into_iter().flat_map(|(_, survey)| &survey.groups);
    let mut groups: BTreeSet<GroupId> = held.map(|held| held.group).collect();
    groups.extend(logged.map(|(group, _)| *group));
    groups.extend(&with_files);
    for group in groups {
        let replica = identity
            .and_then(|identity| identity.replica(group))
            .map(|held| held.replica);
        let mut figures = GroupFigures {
            group: group.0,
            replica: replica.map(|replica| replica.0),
            ..GroupFigures::default()
        };
        if replica.is_none() && identity.is_some() {
            let what =
                format!("group {group} has files here, but this node holds no replica of it");
            report.find(Severity::Note, None, what);
        }
        // Each group is recovered as if it were the only one, so it must not see what was withheld from
        // another.
        let view = Inspection::new(Arc::clone(disk));
        let shared: Arc<dyn Disk> = Arc::new(view.clone());
        let state = look_at_checkpoint(report, &shared, &checkpoints, group, &mut figures)?;
        if let Some(state) = state {
            look_at_replica(report, log, group, replica, &state, &mut figures)?;
        }
        report.groups.push(figures);
        withheld.extend(view.withheld());
    }
    // The groups of boxes come first.
    let is_placement = |figures: &GroupFigures| figures.group == PLACEMENT_GROUP.0;
    report.groups.sort_by_key(is_placement);
    Ok(withheld)
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Storage, error)
}

/// Reads and decodes all of a group's checkpoint; `None` if it is damaged.
fn look_at_checkpoint(
    report: &mut Report,
    disk: &Arc<dyn Disk>,
    checkpoints: &Path,
    group: GroupId,
    figures: &mut GroupFigures,
) -> Result<Option<GroupStore>, Failure> {
    let error = match store::examine(Arc::clone(disk), checkpoints, group) {
        Ok((state, survey)) => {
            figures.checkpoint = survey.map(|survey| CheckpointFigures {
                index: survey.position.index,
                files: survey.files,
                bytes: survey.bytes,
                rows: survey.rows,
            });
            return Ok(Some(state));
        }
        Err(error @ StoreError::Io { .. }) => return Err(unreadable(error)),
        Err(error) => error,
    };
    // One by one, so that all of them are named.
    let all = store::damaged_files(Arc::clone(disk), checkpoints, group).unwrap_or_default();
    if all.is_empty() {
        damaged(report, &checkpoints.join(group.to_string()), &error);
    }
    for error in &all {
        damaged(report, &checkpoints.join(group.to_string()), error);
    }
    Ok(None)
}

fn damaged(report: &mut Report, folder: &Path, error: &StoreError) {
    match error {
        StoreError::Corrupt {
            what,
            location,
            detail,
            ..
        } => {
            let path = PathBuf::from(location);
            let path = if path.is_absolute() || path.exists() {
                path
            } else {
                folder.to_owned()
            };
            let what = format!("{what} of group: {detail}");
            report.find(Severity::Damage, Some(&path), what);
        }
        other => report.find(Severity::Damage, Some(folder), other),
    }
}

/// Reads and decodes all of a replica's log, and holds it against its checkpoint.
fn look_at_replica(
    report: &mut Report,
    log: Option<&(Wal, LogSurvey)>,
    group: GroupId,
    replica: Option<ReplicaId>,
    state: &GroupStore,
    figures: &mut GroupFigures,
) -> Result<(), Failure> {
    match members_of(state) {
        Ok(members) => {
            let nodes = members.iter().map(|(_, member, _)| member.node.0);
            figures.member_nodes = nodes.collect();
        }
        Err(fault) => report.find(Severity::Damage, None, format!("group {group}: {fault}")),
    }
    let (Some((wal, _)), Some(replica)) = (log, replica) else {
        return Ok(());
    };
    let log = match wal.log(group, replica) {
        Ok(log) => log,
        Err(error) => {
            report.find(Severity::Damage, None, error);
            return Ok(());
        }
    };
    match survey(&log, state) {
        Ok(found) => {
            figures.entries = found.entries;
            figures.first_entry = found.first;
            figures.last_entry = found.last.map(|last| last.index);
            figures.vote_term = found.vote_term;
            let nodes = found.members.iter().map(|(_, member, _)| member.node.0);
            figures.member_nodes = nodes.collect();
            Ok(())
        }
        Err(ReplicaFault::Log(error @ WalError::Io { .. })) => Err(unreadable(error)),
        Err(fault) => {
            report.find(Severity::Damage, None, format!("group {group}: {fault}"));
            Ok(())
        }
    }
}
