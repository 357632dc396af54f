//! `rossby rebuild`: a damaged node becomes a new, empty one.
//!
//! What is on the disk may be missing what this replica once promised, so it never speaks under its
//! old id again. The directory is set aside whole, and a new one takes its place that knows one
//! thing: which node of which cluster it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_seams::clock::{Clock as _, SystemClock};
use rossby_seams::disk::{Disk, FileDisk};
use rossby_storage::datadir::{DataDirectory, DataDirectoryError, Identity};

use crate::cli::RebuildArgs;
use crate::exit::{Exit, Failure};
use crate::inspect::{Report, Verdict, inspect};
use crate::output;

/// Runs `rossby rebuild`.
///
/// # Errors
/// If it must not be done, or could not be.
pub fn run(args: &RebuildArgs) -> Result<(), Failure> {
    let report = inspect(&args.data)?;
    permit(&report, args.force)?;
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    let old = match DataDirectory::open(Arc::clone(&disk), &args.data) {
        Ok(directory) => Some(directory),
        Err(DataDirectoryError::Damaged { .. }) => None,
        Err(error) => return Err(Failure::new(Exit::Storage, error)),
    };
    let identity = old.as_ref().and_then(|old| old.identity()).map(successor);
    // Empty space is not worth keeping.
    let _ = fs::remove_file(args.data.join("reserve"));
    let aside = set_aside(&*disk, &args.data).map_err(|error| {
        let text = format!("could not set {} aside: {error}", args.data.display());
        Failure::new(Exit::Storage, text).help("see to the cause, then run the same command again")
    })?;
    // Its lock is on the old directory, which nobody opens any more.
    drop(old);
    let mut fresh = DataDirectory::open(disk, &args.data)
        .map_err(|error| Failure::new(Exit::Storage, error))?;
    if let Some(identity) = identity.clone() {
        fresh
            .save(identity)
            .map_err(|error| Failure::new(Exit::Storage, error))?;
    }
    tell(&report, &args.data, &aside, identity.as_ref());
    Ok(())
}

/// Whether it may be done.
fn permit(report: &Report, force: bool) -> Result<(), Failure> {
    let refuse = |text: &str, help: &str| Err(Failure::new(Exit::Refused, text).help(help));
    if report.groups.is_empty() && report.verdict == Verdict::Sound {
        return refuse(
            "this node holds no replica: there is nothing to rebuild",
            "start it, and have it taken in by its cluster",
        );
    }
    match report.member_nodes().as_slice() {
        [_] => refuse(
            "this node holds the only copy: rebuilding it would lose everything",
            "restore its data directory from a backup",
        ),
        [] if !force => refuse(
            "what is left does not tell whether other nodes hold copies of what this one held",
            "if they do (`rossby cluster status` there shows it), run this again with --force; if this \
             is the only node, restore its data directory from a backup",
        ),
        _ if report.verdict == Verdict::Sound && !force => refuse(
            "nothing is wrong with this node's data",
            "start it; or run this again with --force to have it get everything from the others",
        ),
        _ => Ok(()),
    }
}

/// The same node of the same cluster, without a replica. Its group gives out replica ids once, so the
/// old one never comes back; and a node that knows its cluster founds no other by mistake.
fn successor(old: &Identity) -> Identity {
    let mut next = Identity::new(old.node);
    next.cluster.clone_from(&old.cluster);
    next
}

/// Gives the directory another name beside its own; where that is not possible, since it is a mount
/// point, moves what is in it into a folder of it. Where to.
fn set_aside(disk: &dyn Disk, data: &Path) -> io::Result<PathBuf> {
    let data = fs::canonicalize(data)?;
    let stamp = output::utc(SystemClock.now().as_millis()).replace([' ', ':'], "-");
    let name = data.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let beside = |number: u32| {
        let mut aside = name.to_owned();
        aside.push(format!(".set-aside-{stamp}"));
        if number > 0 {
            aside.push(format!("-{number}"));
        }
        data.with_file_name(aside)
    };
    let free = (0..100).map(beside).find(|path| !path.exists());
    let aside = free.ok_or(io::ErrorKind::AlreadyExists)?;
    match fs::rename(&data, &aside) {
        Ok(()) => {
            let parent = data.parent().unwrap_or(&data);
            disk.sync_directory(parent)?;
            Ok(aside)
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
            ) =>
        {
            empty(disk, &data, &stamp)
        }
        Err(error) => Err(error),
    }
}

/// Moves what is in a directory into a folder of it. The identity goes last: as long as it is there,
/// the same command goes on where it stopped.
fn empty(disk: &dyn Disk, data: &Path, stamp: &str) -> io::Result<PathBuf> {
    let aside = data.join(format!("set-aside-{stamp}"));
    disk.create_directory(&aside)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(data)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        let stays = text.starts_with("set-aside-") || text == "lost+found" || text == "lock";
        if !stays {
            names.push(name);
        }
    }
    names.sort_by_key(|name| name == "node");
    for name in names {
        fs::rename(data.join(&name), aside.join(&name))?;
        disk.sync_directory(&aside)?;
        disk.sync_directory(data)?;
    }
    Ok(aside)
}

fn tell(report: &Report, data: &Path, aside: &Path, identity: Option<&Identity>) {
    output::line(format!("The old data is in {}.", aside.display()));
    output::line(format!("{} is new and empty.", data.display()));
    let node = identity.map_or("N".to_owned(), |identity| identity.node.to_string());
    output::line("Next:".to_owned());
    output::line(format!("  1. Start node {node} as before."));
    let others: Vec<_> = report
        .member_nodes()
        .into_iter()
        .filter(|other| Some(*other) != report.node)
        .map(|other| other.to_string())
        .collect();
    let place = if others.is_empty() {
        "another node of the cluster".to_owned()
    } else {
        format!("one of nodes {}", others.join(", "))
    };
    output::line(format!(
        "  2. On {place}, with where node {node} listens for its peers:"
    ));
    output::line(format!(
        "       rossby cluster replace-node {node} {node}=HOST:PORT"
    ));
    output::line("  3. Once `rossby cluster status` shows it caught up, the old data may go.");
}
