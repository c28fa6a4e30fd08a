//! How much memory the process may still have, so that what cannot fit is refused before it begins.
//!
//! Only refusals depend on it, never a byte of a result. Where a system says nothing, nothing is refused.

use std::fs;
use std::path::Path;

/// What is left, and what limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    bytes: u64,
    limit: &'static str,
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

/// The tightest of all limits.
fn left() -> Option<Room> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let free = || Some(Room { bytes: of_meminfo(&read("/proc/meminfo")?)?, limit: "free on this machine" });
    let address_space = || {
        let most = of_limits(&read("/proc/self/limits")?)?;
        let pages: u64 = read("/proc/self/statm")?.split(' ').next()?.parse().ok()?;
        // Pages of 4 KiB are the smallest, so that what is taken is not put too high.
        Some(Room { bytes: most.saturating_sub(pages * 4096), limit: "by the limit on address space, `ulimit -v`" })
    };
    let group = || {
        let own = read("/proc/self/cgroup")?;
        let bytes = own.lines().filter_map(of_group).min()?;
        Some(Room { bytes, limit: "by the control group's limit" })
    };
    [free(), address_space(), group()].into_iter().flatten().min_by_key(|room| room.bytes)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The soft limit on address space in `/proc/self/limits`; `None` if there is none.
fn of_limits(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a line of `/proc/self/cgroup` leaves: the least along its path.
fn of_group(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (root, most, used, cache) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        }
        _ => return None,
    };
    let root = Path::new(root);
    let number = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // Inside a container the path may be the host's, which is not here: its root then is the group itself.
    let folder = root.join(path.trim_start_matches('/'));
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
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
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax address space         8589934592           unlimited            bytes\n";
        assert_eq!(of_limits(limits), Some(8 << 30));
        assert_eq!(of_limits(&limits.replace("8589934592", "unlimited")), None);
        assert_eq!(of_group("3:cpu,cpuacct:/x"), None);
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
