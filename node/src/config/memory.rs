//! How much memory there is for this process: the machine's, or less if its control group has a limit (cgroup v2).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const MIB: u64 = 1024 * 1024;
/// A node whose memory can't be told, or that has little, still needs this for its base.
const LEAST_CACHE: u64 = 128 * MIB;
/// sled's cache takes more than it counts; and the system's page cache serves the same rows.
const MOST_CACHE: u64 = 4096 * MIB;
/// Of the memory, as several nodes of a test cluster share a machine.
const CACHE_PART: u64 = 8;

/// What the key-value base's cache may take, unless configured otherwise. It is looked up once: defaults are made often.
pub static BASE_CACHE_BYTES: LazyLock<u64> = LazyLock::new(|| {
    let total = fs::read_to_string("/proc/meminfo").ok();
    let total = total.as_deref().and_then(total_bytes);
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&group).into_iter();
    let limits = limits.filter_map(|file| limit_bytes(&fs::read_to_string(file).ok()?));
    cache_of(total.into_iter().chain(limits).min())
});

fn cache_of(memory: Option<u64>) -> u64 {
    memory.map_or(LEAST_CACHE, |memory| {
        (memory / CACHE_PART).clamp(LEAST_CACHE, MOST_CACHE)
    })
}

/// proc_meminfo(5): `MemTotal:       24684000 kB`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// cgroups(7): `0::/system.slice/rossby.service`. A limit of any group above counts, too.
fn limit_files(group: &str) -> Vec<PathBuf> {
    let own = group.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = Path::new(own.unwrap_or_default());
    let inside = |group: &Path| Path::new("/sys/fs/cgroup").join(group).join("memory.max");
    own.ancestors().map(inside).collect()
}

/// Bytes, or `max` for no limit.
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_an_eighth_of_the_memory_within_bounds() {
        const GIB: u64 = 1024 * MIB;
        assert_eq!(cache_of(Some(8 * GIB)), GIB);
        assert_eq!(cache_of(Some(GIB / 2)), LEAST_CACHE);
        assert_eq!(cache_of(Some(512 * GIB)), MOST_CACHE);
        assert_eq!(cache_of(None), LEAST_CACHE);
    }

    #[test]
    fn the_memory_of_this_machine_can_be_told() {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        assert!(total_bytes(&meminfo).unwrap() > 64 * MIB);
        assert_eq!(
            total_bytes("MemTotal:  2048 kB\nMemFree: 1 kB\n"),
            Some(2 * MIB)
        );
        assert_eq!(total_bytes("MemTotal:  many kB\n"), None);
        assert_eq!(total_bytes("MemTotal:  18446744073709551615 kB\n"), None);
        assert_eq!(total_bytes(""), None);
    }

    #[test]
    fn limits_of_the_control_group_and_of_those_above_it_count() {
        let files = limit_files("1:name=systemd:/x\n0::/system.slice/rossby.service\n");
        let expected = ["system.slice/rossby.service/", "system.slice/", ""];
        let expected =
            expected.map(|group| PathBuf::from(format!("/sys/fs/cgroup/{group}memory.max")));
        assert_eq!(files, expected);
        assert_eq!(limit_files("").len(), 1);
        assert_eq!(limit_bytes("1073741824\n"), Some(1024 * MIB));
        assert_eq!(limit_bytes("max\n"), None);
    }
}
