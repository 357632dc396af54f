//! What a process has cost so far: processor time and memory, from /proc (proc(5)).

use std::io;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time since it began, its own and the kernel's for it.
    pub cpu: Duration,
    /// Memory that it holds now.
    pub rss_bytes: u64,
}

/// What the process has used; `None` if it is gone or not to be seen by us.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    let read = |file: &str| -> io::Result<String> {
        std::fs::read_to_string(format!("/proc/{pid}/{file}"))
    };
    let ticks = cpu_ticks(&read("stat").ok()?)?;
    let pages = resident_pages(&read("statm").ok()?)?;
    Some(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64),
        rss_bytes: pages * page_size() as u64,
    })
}

/// Fields 14 and 15, counted from behind the name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

/// The second field.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 5 6 20 0 3 0 99 1000 20 0";
        assert_eq!(cpu_ticks(stat), Some(42));
        for bad in ["", "7 (a) S", "7 (a) S 1 7 7 0 -1 4194560 100 0 0 0 x 11"] {
            assert_eq!(cpu_ticks(bad), None, "{bad:?}");
        }
        assert_eq!(resident_pages("100 20 3 1 0 5 0\n"), Some(20));
        assert_eq!(resident_pages("100"), None);
    }

    #[test]
    fn our_own_use_is_seen_and_nobodys_is_not() {
        let before = usage(std::process::id()).unwrap();
        assert!(before.rss_bytes > 0);
        let mut spent = before.cpu;
        let mut counted: u64 = 0;
        while spent == before.cpu {
            counted = std::hint::black_box(counted + 1);
            spent = usage(std::process::id()).unwrap().cpu;
        }
        assert!(spent > before.cpu);
        // Beyond the largest that Linux gives out.
        assert_eq!(usage(1 << 30), None);
    }
}
