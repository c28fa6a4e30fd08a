//! How much memory the process may still have, so that what cannot fit is refused before it begins.
//!
//! Only refusals depend on it, never a byte of a result. Where a system says nothing, nothing is refused.

use std::fs;
use std::path::Path;

/// What is left, and what limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// So many bytes.
    pub bytes: u64,
    /// Whose limit that is, in words.
    pub limit: &'static str,
}

/// Refuses what needs more than `needed` bytes where fewer are left.
///
/// # Errors
/// A sentence with both figures; `what` is its subject.
pub fn check(what: &str, needed: u64) -> Result<(), String> {
    match left() {
        Some(room) if needed > room.bytes => Err(format!(
            "{what} needs {} of memory, and {} are left ({})",
            bytes(needed),
            bytes(room.bytes),
            room.limit
        )),
        _ => Ok(()),
    }
}

/// What the tightest of all limits leaves; `None` where the system says nothing.
pub fn left() -> Option<Room> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let free = || Some(Room { bytes: of_meminfo(&read("/proc/meminfo")?)?, limit: "free on this machine" });
    let (limits, status) =
        (read("/proc/self/limits").unwrap_or_default(), read("/proc/self/status").unwrap_or_default());
    let of_process = |what: &str, used: &str, limit: &'static str| {
        let bytes = of_limits(&limits, what)?.saturating_sub(of_status(&status, used)?);
        Some(Room { bytes, limit })
    };
    let address_space = || of_process("Max address space", "VmSize:", "by the limit on address space, `ulimit -v`");
    let data = || of_process("Max data size", "VmData:", "by the limit on data, `ulimit -d`");
    let group = || {
        let bytes = of_groups(&read("/proc/self/cgroup")?, Path::new("/sys/fs/cgroup"))?;
        Some(Room { bytes, limit: "by the control group's limit" })
    };
    [free(), address_space(), data(), group()].into_iter().flatten().min_by_key(|room| room.bytes)
}

/// What this process has in memory, in bytes; 0 where the system does not say.
pub fn resident() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|status| of_status(&status, "VmRSS:")).unwrap_or(0)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A soft limit in `/proc/self/limits`; `None` if there is none.
fn of_limits(text: &str, what: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(what))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A size in `/proc/self/status`, in bytes.
fn of_status(text: &str, what: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(what))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the control groups in `/proc/self/cgroup` leave, whose files are below `root`: the tightest of them.
fn of_groups(own: &str, root: &Path) -> Option<u64> {
    own.lines().filter_map(|line| of_group(line, root)).min()
}

/// What a line of `/proc/self/cgroup` leaves: the least along its path.
fn of_group(line: &str, root: &Path) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (root, most, used, cache) = match controllers {
        "" => (root.to_owned(), "memory.max", "memory.current", "inactive_file "),
        _ if controllers.split(',').any(|name| name == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        }
        _ => return None,
    };
    let number = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // Inside a container the path may be the host's, which is not here: its root then is the group itself.
    let folder = root.join(path.trim_start_matches('/'));
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(&root))
        .filter_map(|folder| {
            let (most, used) = (number(folder, most)?, number(folder, used)?);
            // Files that the kernel keeps in memory go when memory is asked for.
            let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let kept = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse::<u64>().ok());
            Some(most.saturating_sub(used.saturating_sub(kept.unwrap_or(0))))
        })
        .min()
}

/// Bytes for people: `512 B`, `1.5 KiB`, `3.2 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(of_meminfo("MemTotal:  9 kB\nMemAvailable:   24 kB\n"), Some(24 * 1024));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax data size  unlimited  unlimited  bytes\n\
                      Max address space         8589934592           unlimited            bytes\n";
        assert_eq!(of_limits(limits, "Max address space"), Some(8 << 30));
        assert_eq!(of_limits(limits, "Max data size"), None);
        assert_eq!(of_status("VmSize:\t  20 kB\nVmRSS:\t   3 kB\n", "VmRSS:"), Some(3 * 1024));
    }

    /// Files as the kernel writes them, in a folder of the test's own.
    #[test]
    fn control_groups_of_both_versions_are_read_along_their_path() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let put = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        assert_eq!(of_groups("0::/\n", root), None, "no group limits anything");
        // Version 2: the parent is tighter than the group itself, whose own limit is none.
        put("ci/memory.max", "1000000\n");
        put("ci/memory.current", "700000\n");
        put("ci/memory.stat", "anon 1\ninactive_file 200000\nactive_file 5\n");
        put("ci/job/memory.max", "max\n");
        put("ci/job/memory.current", "600000\n");
        assert_eq!(of_groups("0::/ci/job\n", root), Some(500_000));
        put("ci/job/memory.max", "650000\n");
        assert_eq!(of_groups("0::/ci/job\n", root), Some(50_000));
        assert_eq!(of_groups("0::/elsewhere\n", root), None, "a path of the host");
        // Version 1: a controller of its own, with a number for no limit.
        let v1 = "7:cpu,cpuacct:/x\n3:memory:/docker/a\n";
        assert_eq!(of_groups(v1, root), None);
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/memory.usage_in_bytes", "5\n");
        put("memory/docker/a/memory.limit_in_bytes", "4096\n");
        put("memory/docker/a/memory.usage_in_bytes", "8192\n");
        put("memory/docker/a/memory.stat", "inactive_file 0\ntotal_inactive_file 5000\n");
        assert_eq!(of_groups(v1, root), Some(904));
        // Both at once: the tightest.
        assert_eq!(of_groups(&format!("{v1}0::/ci\n"), root), Some(904));
    }

    #[test]
    fn what_cannot_fit_is_refused_with_both_figures() {
        assert_eq!(check("this", 1), Ok(()));
        if left().is_some() {
            let refused = check("the network", 1 << 60).unwrap_err();
            assert!(refused.starts_with("the network needs 1024.0 PiB of memory, and "), "{refused}");
            assert!(refused.contains(" are left ("), "{refused}");
        }
        assert_eq!((bytes(1023), bytes(1536)), ("1023 B".to_owned(), "1.5 KiB".to_owned()));
    }
}
