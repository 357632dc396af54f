//! Disks that are full, slow or broken, under real nodes, and nodes that are killed while they start.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::eventually;
use super::strace::Strace;

/// A small file system in memory, mounted on a folder until this is dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one; `None`, said aloud, where that is not allowed.
    pub fn mount(folder: &Path, mebibytes: u32) -> Option<Self> {
        Self::mount_with(folder, &format!("size={mebibytes}m"))
    }

    /// The same, with options of tmpfs.
    pub fn mount_with(folder: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(folder).expect("no folder to mount on");
        let mounted = mount(folder, &format!("{options},mode=0700"));
        if !mounted {
            eprintln!(
                "SKIPPED: no file system can be mounted here (not root?), so no disk was filled"
            );
        }
        mounted.then(|| Self {
            folder: folder.to_owned(),
        })
    }

    /// Changes its options while it is in use.
    pub fn remount(&self, options: &str) {
        let mounted = mount(&self.folder, &format!("remount,{options}"));
        assert!(mounted, "it can't be mounted anew");
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Fills it up to the last byte.
    pub fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("no filler");
        for length in [1 << 20, 4096] {
            loop {
                match file.write(&vec![7; length]) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("no filler");
    }
}

fn mount(folder: &Path, options: &str) -> bool {
    Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "rossby-test"])
        .arg(folder)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

/// Changes what a kind of system call does in a running process, until this is dropped.
pub struct Injection {
    _strace: Strace,
}

impl Injection {
    /// For example `fdatasync:error=EIO`.
    pub fn into(node: &super::Node, what: &str) -> Self {
        let call = what.split(':').next().expect("no system call");
        let (trace, inject) = (format!("trace={call}"), format!("inject={what}"));
        let arguments = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
        Self {
            _strace: Strace::onto(node, &arguments),
        }
    }
}

/// A start of a node that is killed with SIGKILL when one of its threads enters a system call for the
/// n-th time.
pub struct DoomedStart {
    strace: Child,
}

impl DoomedStart {
    /// Starts a node's process so; the node itself must not run.
    pub fn begin(node: &super::Node, call: &str, number: u32) -> Self {
        let mut command = Command::new("strace");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROSSBY_") {
                command.env_remove(name);
            }
        }
        let strace = command
            .args(["-f", "-qq", "-o", "/dev/null"])
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:signal=KILL:when={number}")])
            .arg(env!("CARGO_BIN_EXE_rossby"))
            .args(node.command_line())
            .stdin(Stdio::null())
            .stdout(node.output("out"))
            .stderr(node.output("err"))
            .spawn();
        Self {
            strace: strace.expect("strace did not start"),
        }
    }

    /// Waits for its end. `true` if it was killed as ordered; `false` if it came as far as being
    /// ready, and was killed only then. It must not end in any other way.
    pub fn died(mut self, node: &super::Node) -> bool {
        let killed = eventually("the start is killed, or comes to its end", || {
            if let Some(status) = self.strace.try_wait().expect("no strace") {
                // strace ends as its process did.
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                assert_eq!(
                    signal,
                    Some(9),
                    "it was not killed: {status}\n{}",
                    node.log()
                );
                return Some(true);
            }
            let ready = node
                .page("/readyz")
                .is_some_and(|(status, _)| status == 200);
            ready.then_some(false)
        });
        if !killed {
            self.kill();
        }
        killed
    }

    /// strace lets go of its process if it is killed itself; so the process must die first.
    fn kill(&mut self) {
        let id = self.strace.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            if let Some(pid) = child.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.strace.wait();
    }
}

impl Drop for DoomedStart {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}
