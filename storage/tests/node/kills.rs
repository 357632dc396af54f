//! A real process on real files, killed at each of its system calls.
//!
//! The child is this test binary itself, playing the script in a folder; `strace` kills it when it
//! enters the n-th call of a kind. What it had acknowledged by then it has written to a file.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rossby_seams::disk::FileDisk;

use crate::checker::Found;
use crate::history::{History, Marks};
use crate::is_long;
use crate::player::Player;

/// Where the child plays.
const FOLDER: &str = "ROSSBY_KILLED_CHILD";
/// The calls by which anything gets onto the disk, and those around them.
const CALLS: [&str; 8] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "rename",
    "unlink",
    "mkdir",
    "openat",
    "flock",
];

#[test]
fn the_child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let progress = OpenOptions::new()
        .append(true)
        .create(true)
        .open(folder.join("progress"))
        .unwrap();
    play(folder, Some(progress)).unwrap();
}

fn play(folder: &Path, progress: Option<File>) -> Result<History, String> {
    let mut player = Player::new(Arc::new(FileDisk), &folder.join("data"), progress);
    player.play(true)?;
    Ok(player.history)
}

/// Whether `strace` can stop a child here. Not being able to is a failure where it must not be.
fn strace_works() -> bool {
    let works = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "inject=fsync:signal=KILL"])
        .arg("true")
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        let needed = std::env::var_os("CI").is_some() || is_long();
        assert!(
            !needed,
            "strace is needed to kill processes at their system calls: install it (apt-get install \
             strace), and allow ptrace"
        );
        eprintln!("SKIPPED: no strace here, so no process was killed at its system calls");
    }
    works
}

/// Plays the script in a child that is killed when it enters call number `number` of a kind. Whether
/// it was.
fn killed_at(folder: &Path, call: &str, number: u64) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", &format!("trace={call}"), "-e", &inject])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kills::the_child",
            "--test-threads=1",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.success() {
        return false;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{call} {number}: {said}");
    true
}

/// How many deeds were begun, and how many were done.
fn progress(folder: &Path) -> (usize, usize) {
    let marks = fs::read(folder.join("progress")).unwrap_or_default();
    let count = |letter| marks.iter().filter(|mark| **mark == letter).count();
    (count(b'i'), count(b'd'))
}

fn expect(folder: &Path, history: &History, sure: Marks, possible: Marks, what: &str) {
    let found = Found {
        disk: Arc::new(FileDisk),
        root: &folder.join("data"),
        // The child's was in its memory.
        base: &Arc::default(),
        history,
        sure,
        possible,
    };
    let started = found.check();
    started.unwrap_or_else(|error| panic!("{what}: refused: {error}"));
}

/// Sweeps the calls of one kind; how many kills there were.
fn sweep(call: &str, history: &History) -> u64 {
    // The first calls of some kinds are those of the loader and of the test harness.
    let first = if call == "openat" { 8 } else { 1 };
    let step = match (is_long(), call) {
        (true, _) => 1,
        (false, "pwrite64" | "fdatasync" | "openat") => 37,
        (false, _) => 19,
    };
    let mut kills = 0;
    for number in (first..).step_by(step) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let killed = killed_at(folder, call, number);
        let (begun, done) = progress(folder);
        assert!(
            done <= begun && begun <= done + 1,
            "{begun} begun, {done} done"
        );
        if !killed {
            assert_eq!(done, history.deeds.len(), "it did not run to its end");
            break;
        }
        let (sure, possible) = (history.after(done), history.after(begun));
        expect(
            folder,
            history,
            sure,
            possible,
            &format!("killed at {call} {number}"),
        );
        kills += 1;
    }
    kills
}

#[test]
fn a_process_killed_at_any_system_call_leaves_all_that_it_acknowledged() {
    if !strace_works() {
        return;
    }
    // What an undisturbed run does; the child does the same.
    let folder = tempfile::tempdir().unwrap();
    let history = play(folder.path(), None).unwrap();
    let end = history.possible();
    expect(folder.path(), &history, end, end, "undisturbed");
    let mut total = 0;
    for call in CALLS {
        let kills = sweep(call, &history);
        eprintln!("{call}: {kills} kills");
        total += kills;
    }
    let enough = if is_long() { 400 } else { 15 };
    assert!(total > enough, "only {total} kills");
}
