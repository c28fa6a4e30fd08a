//! Stamps: what `stat` says of a file, to skip hashing what cannot have changed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Inode, size, modification and change time of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The inode's number; 0 where there are none.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub modified: i64,
    /// Change time, nanoseconds since 1970; the modification time where there is none.
    pub changed: i64,
}

/// Longest tick of a clock that stamps files with fractions of a second: kernels tick at 100 Hz or faster.
const GRAIN: i64 = 100_000_000;
/// The same where stamps are whole seconds (FAT has steps of two).
const COARSE_GRAIN: i64 = 3_000_000_000;

impl Stamp {
    /// The stamp in `metadata`.
    #[cfg(unix)]
    pub fn of(metadata: &Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let nanoseconds = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
        Stamp {
            inode: metadata.ino(),
            size: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp in `metadata`.
    #[cfg(not(unix))]
    pub fn of(metadata: &Metadata) -> Stamp {
        let modified = metadata.modified().map_or(0, since_epoch);
        Stamp { inode: 0, size: metadata.len(), modified, changed: modified }
    }

    /// Whether a later change is sure to give another stamp, for a stamp taken, and content read, no earlier than `at`.
    /// A file that changed in the same tick of the clock could change once more without a trace.
    pub fn is_settled(&self, at: i64) -> bool {
        let grain = if self.changed.rem_euclid(1_000_000_000) == 0 { COARSE_GRAIN } else { GRAIN };
        self.changed.saturating_add(grain) < at
    }

    /// 32 bytes, little-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.modified.to_le_bytes());
        bytes[24..].copy_from_slice(&self.changed.to_le_bytes());
        bytes
    }

    /// The stamp in 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Stamp {
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Stamp { inode: word(0), size: word(1), modified: word(2) as i64, changed: word(3) as i64 }
    }
}

/// Now, nanoseconds since 1970. Only ever compared with stamps.
pub fn now() -> i64 {
    since_epoch(SystemTime::now())
}

/// Nanoseconds since 1970.
pub fn since_epoch(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// Whether `path` is on a network file system, whose stamps and maps are not to be trusted.
pub fn is_remote(path: &Path) -> bool {
    let Ok(path) = std::path::absolute(path).and_then(|p| p.canonicalize()) else { return false };
    let mut mounts = String::new();
    match File::open("/proc/self/mounts").and_then(|mut file| file.read_to_string(&mut mounts)) {
        Ok(_) => is_remote_in(&mounts, &path),
        Err(_) => false,
    }
}

fn is_remote_in(mounts: &str, path: &Path) -> bool {
    const REMOTE: &[&str] = &[
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "glusterfs",
        "ncpfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "fuse.rclone",
        "virtiofs",
        "vboxsf",
        "prl_fs",
    ];
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
            // Blanks in a mount point are written in octal.
            let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
            path.starts_with(&point).then_some((point.len(), kind))
        })
        // Of two mounts on one point, the later one is seen.
        .max_by_key(|(length, _)| *length)
        .is_some_and(|(_, kind)| REMOTE.contains(&kind))
}

/// Reads `path`'s stamp, following links.
///
/// # Errors
/// If it is not there or not to be seen.
pub fn stamp_of(path: &Path) -> io::Result<Stamp> {
    std::fs::metadata(path).map(|metadata| Stamp::of(&metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_nearest_to_the_path_decides() {
        let mounts = "/dev/sda / ext4 rw 0 0\nserver:/x /net nfs4 rw 0 0\n/dev/sdb /net/a\\040b xfs rw 0 0\n";
        for (path, remote) in [("/var/x", false), ("/net/c", true), ("/net/a b/c", false), ("/nets", false)] {
            assert_eq!(is_remote_in(mounts, Path::new(path)), remote, "{path}");
        }
    }

    #[test]
    fn a_stamp_settles_after_the_grain_of_its_clock() {
        let fine = Stamp { changed: 5_000_000_001, ..Stamp::default() };
        let coarse = Stamp { changed: 5_000_000_000, ..Stamp::default() };
        for (stamp, at, settled) in [
            (fine, 5_000_000_002, false),
            (fine, 5_100_000_002, true),
            (coarse, 5_100_000_002, false),
            (coarse, 8_000_000_001, true),
        ] {
            assert_eq!(stamp.is_settled(at), settled, "{stamp:?} at {at}");
        }
        assert_eq!(Stamp::from_bytes(&fine.to_bytes()), fine);
    }
}
