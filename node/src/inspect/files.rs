//! What lies in a data directory besides what the node reads: left-overs, strangers, permissions.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rossby_seams::disk::WithheldChange;

use super::report::{Report, Severity};

/// What a node keeps in its data directory. What else is there is not ours.
const KNOWN: [&str; 19] = [
    "lock",
    "node",
    "wal",
    "checkpoints",
    "base",
    "admin.sock",
    "addresses.json",
    "founding",
    "joining",
    "map",
    "mark",
    "promise",
    "reserve",
    "recovering",
    "recovery",
    "recovered",
    "before-recovery-",
    "set-aside",
    "lost+found",
];

/// Looks at all names in the directory; `withheld` is what a start would have changed.
pub fn look(report: &mut Report, data: &Path, withheld: &[WithheldChange]) {
    for change in withheld {
        // The next segment of the log is always in the making: that is no left-over.
        if let WithheldChange::Remove(path) = change
            && path.exists()
            && path
                .parent()
                .is_none_or(|folder| folder != data.join("wal"))
        {
            let what = "left over from interrupted work; the next start removes it";
            report.find(Severity::Harmless, Some(path), what);
        }
    }
    let Ok(entries) = fs::read_dir(data) else {
        return;
    };
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names {
        let path = data.join(&name);
        if name.ends_with(".tmp") {
            let what = "left over from interrupted work; the next write of its kind replaces it";
            report.find(Severity::Harmless, Some(&path), what);
        } else if !KNOWN.iter().any(|known| name.starts_with(known)) {
            report.find(Severity::Note, Some(&path), "not a file of this node");
        }
    }
    if data.join("addresses.json").exists() {
        look_at_addresses(report, &data.join("addresses.json"));
    }
    look_at_permissions(report, data);
}

/// The file of addresses goes when a node ends in good order.
fn look_at_addresses(report: &mut Report, path: &Path) {
    let read = fs::read(path).ok();
    let sound = read
        .as_deref()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok())
        .is_some();
    let what = if sound {
        "the node did not end in good order; the next start replaces it"
    } else {
        "can not be read; the next start replaces it"
    };
    report.find(Severity::Harmless, Some(path), what);
}

/// Nobody but the node's user may read what it holds.
fn look_at_permissions(report: &mut Report, data: &Path) {
    const OTHERS: u32 = 0o077;
    let Ok(owner) = fs::metadata(data).map(|data| data.uid()) else {
        return;
    };
    for name in ["", "node", "wal", "checkpoints", "founding"] {
        let path = data.join(name);
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        let mode = found.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            let what = format!("others have access (mode {mode:o}): chmod go= it");
            report.find(Severity::Note, Some(&path), what);
        }
        if found.uid() != owner {
            let what = "belongs to another user than the data directory";
            report.find(Severity::Note, Some(&path), what);
        }
    }
}

/// The length of all files below a folder, as far as it can be told.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let length = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(length).sum()
}
