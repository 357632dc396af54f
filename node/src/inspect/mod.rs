//! `rossby check`: a stopped node's data directory, looked over without changing a byte.
//!
//! ```text
//!   ReadOnlyFileDisk ◄─ Inspection ◄─ the code that starts a node: identity, log, checkpoints
//!                            └─ what it would have changed ──► findings
//! ```
//!
//! There is no second reader of the formats: a directory is sound if the code that starts a node
//! gets through all of it, and on the way every record, entry, file and row is read.

mod files;
mod groups;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rossby_seams::disk::{Disk, DiskLock, Inspection, ReadOnlyFileDisk};
use rossby_storage::datadir::{DataDirectory, DataDirectoryError, Identity};
use rossby_storage::store::Store;
use rossby_storage::wal::{self, LogSurvey, LogTail, Wal, WalError, WalOptions};

pub use self::files::bytes_below;
use self::report::LogFigures;
pub use self::report::{Report, Severity, Verdict};
use crate::cli::CheckArgs;
use crate::exit::{Exit, Failure};
use crate::output::{self, size};
use crate::recover::refuse_unfinished;
use crate::serve::founding::Founding;

/// Between two lines about how far a long inspection is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Runs `rossby check`.
///
/// # Errors
/// If the directory is damaged, in use, or can't be read.
pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let report = inspect(&args.data)?;
    if args.json {
        output::json(&report)?;
    } else {
        report.print();
    }
    match report.verdict {
        Verdict::Sound => Ok(()),
        Verdict::Damaged => Err(Failure::new(
            Exit::Storage,
            format!("{} is damaged", args.data.display()),
        )),
    }
}

/// Looks over a data directory that no process uses.
///
/// # Errors
/// If it is in use, is not there, or can't be read.
pub fn inspect(data: &Path) -> Result<Report, Failure> {
    let disk = Inspection::new(Arc::new(ReadOnlyFileDisk));
    disk.list(data).map_err(|error| {
        let text = format!("can not look into {}: {error}", data.display());
        Failure::new(Exit::Storage, text).help("name the node's data directory with --data")
    })?;
    refuse_unfinished(data)?;
    let mut report = Report::new(data);
    let done = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (view, total) = (disk.clone(), files::bytes_below(data));
        scope.spawn(move || progress(&view, total, &done.1));
        let looked = look(&mut report, data, &disk);
        drop(done.0);
        looked
    })?;
    report.bytes_read = disk.bytes_read();
    report
        .findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if report.damage() > 0 {
        report.verdict = Verdict::Damaged;
        report.advice = advice(&report);
    }
    Ok(report)
}

/// Says how far it is until it is done. Quick inspections say nothing.
fn progress(disk: &Inspection, total: u64, done: &std::sync::mpsc::Receiver<()>) {
    use std::sync::mpsc::RecvTimeoutError;
    while done.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let read = disk.bytes_read();
        output::note(format!(
            "{} read; the directory holds {}",
            size(read),
            size(total)
        ));
    }
}

/// The parts in the order in which a start reads them.
fn look(report: &mut Report, data: &Path, disk: &Inspection) -> Result<(), Failure> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (directory, _lock) = open(report, data, &shared)?;
    let identity = directory.as_ref().and_then(DataDirectory::identity);
    look_at_base(report, &*shared, data);
    let log = look_at_log(report, &shared, &data.join("wal"))?;
    look_at_identity(report, identity, log.as_ref().map(|(_, survey)| survey));
    let in_groups = groups::look(report, &shared, data, identity, log.as_ref())?;
    if let Some(directory) = &directory {
        look_at_plan(report, directory);
    }
    let mut withheld = disk.withheld();
    withheld.extend(in_groups);
    withheld.sort();
    withheld.dedup();
    files::look(report, data, &withheld);
    Ok(())
}

type Opened = (Option<DataDirectory>, Option<Box<dyn DiskLock>>);

/// Takes the lock and reads whose directory it is. The lock is held in the directory, or by itself
/// if the identity can't be read.
fn open(report: &mut Report, data: &Path, disk: &Arc<dyn Disk>) -> Result<Opened, Failure> {
    let in_use = |error: &DataDirectoryError| {
        Failure::new(Exit::Storage, error)
            .help("a running node is not inspected: stop it first, `rossby cluster status` shows how it is")
    };
    match DataDirectory::open(Arc::clone(disk), data) {
        Ok(directory) => Ok((Some(directory), None)),
        Err(error @ DataDirectoryError::InUse { .. }) => Err(in_use(&error)),
        Err(error @ (DataDirectoryError::NoPermission { .. } | DataDirectoryError::Io { .. })) => {
            Err(Failure::new(Exit::Storage, error))
        }
        Err(error) => {
            report.find(Severity::Damage, Some(&data.join("node")), error);
            let path = data.to_owned();
            let lock = disk.lock(&data.join("lock"));
            let lock = lock.map_err(|_| in_use(&DataDirectoryError::InUse { path }))?;
            Ok((None, Some(lock)))
        }
    }
}

fn look_at_plan(report: &mut Report, directory: &DataDirectory) {
    match Founding::read(directory) {
        Ok(plan) => {
            let nodes = plan.iter().flat_map(|plan| plan.nodes.keys());
            report.planned_nodes = nodes.map(|node| node.0).collect();
        }
        Err(error) => report.find(Severity::Damage, None, error),
    }
}

fn look_at_identity(report: &mut Report, identity: Option<&Identity>, log: Option<&LogSurvey>) {
    let Some(identity) = identity else {
        let holds = log.is_some_and(|log| !log.groups.is_empty());
        if holds && report.damage() == 0 {
            let what = "the identity file is missing, although the log holds a replica";
            report.find(Severity::Damage, Some(&report.data.join("node")), what);
        }
        return;
    };
    report.node = Some(identity.node.0);
    let cluster = identity.cluster.as_ref();
    report.cluster = cluster.map(|cluster| (cluster.id.to_string(), cluster.name.clone()));
    for (group, replica) in log.iter().flat_map(|log| &log.groups) {
        if identity.replica(*group).is_none() {
            let what = format!(
                "the log holds replica {replica} of group {group}, of which the identity knows nothing"
            );
            let known = identity
                .removed
                .iter()
                .any(|removed| (removed.group, removed.replica) == (*group, *replica));
            let severity = if known {
                Severity::Note
            } else {
                Severity::Damage
            };
            report.find(severity, None, what);
        }
    }
}

/// Reads the whole log; `None` if it is damaged.
fn look_at_log(
    report: &mut Report,
    disk: &Arc<dyn Disk>,
    path: &Path,
) -> Result<Option<(Wal, LogSurvey)>, Failure> {
    if disk.list(path).is_err() {
        return Ok(None);
    }
    match wal::examine(Arc::clone(disk), path, WalOptions::default()) {
        Ok((wal, survey)) => {
            note_tail(report, &survey.tail);
            report.log = Some(LogFigures {
                segments: survey.segments,
                bytes: survey.bytes,
                records: survey.records,
                tombstones: survey.removed.len() as u64,
                tail: match survey.tail {
                    LogTail::Empty => "empty",
                    LogTail::Closed => "closed in good order",
                    LogTail::Whole => "not closed, whole",
                    LogTail::Torn { .. } => "not closed, the last drain was cut off",
                },
            });
            Ok(Some((wal, survey)))
        }
        Err(error @ WalError::Io { .. }) => Err(Failure::new(Exit::Storage, error)),
        Err(error) => {
            let all = wal::damaged_segments(&**disk, path).unwrap_or_default();
            let first = place(&error);
            log_damage(report, &error);
            for other in all.iter().filter(|other| place(other) != first) {
                log_damage(report, other);
            }
            Ok(None)
        }
    }
}

fn place(error: &WalError) -> Option<(&Path, u64)> {
    match error {
        WalError::Corrupt { path, offset, .. } => Some((path, *offset)),
        _ => None,
    }
}

fn note_tail(report: &mut Report, tail: &LogTail) {
    if let LogTail::Torn { path, offset } = tail {
        let what = "the last drain was cut off by a loss of power before anybody was told that it is \
                    durable; the next start goes on in a new segment";
        report.find(Severity::Harmless, Some(path), what);
        if let Some(finding) = report.findings.last_mut() {
            finding.offset = Some(*offset);
        }
    }
}

fn log_damage(report: &mut Report, error: &WalError) {
    match error {
        WalError::Corrupt { path, offset, what } => {
            report.find(Severity::Damage, Some(path), format!("the log: {what}"));
            if let Some(finding) = report.findings.last_mut() {
                finding.offset = Some(*offset);
            }
        }
        other => report.find(Severity::Damage, None, other),
    }
}

fn look_at_base(report: &mut Report, disk: &dyn Disk, data: &Path) {
    if !data.join("base").exists() {
        return;
    }
    report.base = match Store::base_was_closed(disk, &data.join("checkpoints")) {
        Ok(true) => "closed in good order",
        _ => "not closed in good order: the next start rebuilds it from the checkpoint",
    };
}

/// What to do about damage.
fn advice(report: &Report) -> Vec<String> {
    let data = report.data.display();
    let mut steps = vec![
        "The node does not start with this, and nothing of it was served. Do not edit the files."
            .to_owned(),
        "Look at the disk first (dmesg, smartctl): it may damage more.".to_owned(),
    ];
    let nodes = report.member_nodes();
    let node = report.node.map_or("N".to_owned(), |node| node.to_string());
    let rebuild = [
        format!("rossby rebuild --data {data}"),
        "then start the node, and on another node, with this node's address:".to_owned(),
        format!("rossby cluster replace-node {node} {node}=HOST:PORT"),
    ];
    match nodes.len() {
        0 => {
            steps.push("If other nodes hold copies of the same groups:".to_owned());
            steps.extend(rebuild.map(|step| format!("  {step}")));
            steps.push("If this is the only node: restore the directory from a backup.".to_owned());
        }
        1 => steps.push(
            "This node holds the only copy: restore the directory from a backup. Keep this one."
                .to_owned(),
        ),
        _ => {
            steps.push(
                "The other nodes hold copies. Make this node a new, empty one, and have it taken in:"
                    .to_owned(),
            );
            steps.extend(rebuild.map(|step| format!("  {step}")));
        }
    }
    steps
}
