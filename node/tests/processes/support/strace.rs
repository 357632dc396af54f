//! Running nodes under `strace`.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::{Node, eventually};

/// Whether `strace` works here. Not being able to is a failure where the suite must be whole.
pub fn strace_works() -> bool {
    let works = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        assert!(
            std::env::var_os("CI").is_none(),
            "strace is needed to watch the system calls of nodes and to inject errors into them: \
             install it (apt-get install strace), and allow ptrace"
        );
        eprintln!("SKIPPED: no strace here, so no system call was watched or made to fail");
    }
    works
}

/// `strace` at every thread of a running node, until this is dropped.
pub struct Strace(Child);

impl Strace {
    /// Attaches it. When this returns, every thread that the node has, or starts later, is held.
    pub fn onto(node: &Node, arguments: &[&str]) -> Self {
        let child = Command::new("strace")
            .args(["-f", "-qq"])
            .args(arguments)
            .args(["-p", &node.pid().as_raw_nonzero().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace did not start");
        let tasks = format!("/proc/{}/task", node.pid().as_raw_nonzero());
        eventually("strace holds every thread of the node", || {
            let all = fs::read_dir(&tasks).ok()?;
            let held = |entry: std::io::Result<fs::DirEntry>| {
                let status = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
                let tracer = status.lines().find(|line| line.starts_with("TracerPid:"))?;
                (!tracer.ends_with("\t0")).then_some(())
            };
            all.map(held).collect::<Option<Vec<()>>>().map(drop)
        });
        Self(child)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It lets go of the process when it is told to end.
        if let Ok(pid) = i32::try_from(self.0.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
