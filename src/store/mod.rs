//! Artifacts on disk, under their digests; what is there is complete, and what is served is verified.
//!
//! Start at [`Store`]: [`Store::find`] looks a fingerprint up, [`Store::open_artifact`] maps what was found,
//! [`Store::draft`] and [`Store::publish`] add to it. [`fingerprint`] opens with the essay on what makes a stage stale
//! and on the files below `.convoy/`. Here is no plan and no stage: a store knows digests, sizes and bytes.

mod checkpoint;
mod digest;
mod entry;
pub mod fingerprint;
mod gc;
mod house;
mod lock;
mod mapped;
mod note;
mod pack;
mod publish;
mod read;
mod sources;
mod stamp;
mod verify;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::files::{self, Calls, System, reason};

pub use digest::{Digest, NotADigest};
pub use entry::{Entry, Output, artifact_digest};
pub use gc::{Cleaned, Listed};
pub use lock::{Lock, Locking};
pub use note::Root;
pub use pack::{PackError, Packed, Unpacked};
pub use publish::{Draft, Published};
pub use read::Found;
pub use sources::{Changes, Place};
pub use stamp::Stamp;
pub use verify::Verified;

/// The number in `.convoy/format`.
pub const FORMAT: u32 = 2;

/// The folder's name within a project.
pub const FOLDER: &str = ".convoy";

/// What went wrong with the store, always with its path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {doing} `{path}`: {source}", path = path.display(), source = reason(source))]
    Io {
        /// "write", "read", …
        doing: &'static str,
        /// What was touched.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A newer program made it.
    #[error("the store `{path}` has format {found}, newer than {FORMAT}, the newest this program knows", path = path.display())]
    Newer {
        /// Its folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// An earlier program made it.
    #[error(
        "the store `{path}` was made by an earlier convoy (format {found}, this program writes {FORMAT})",
        path = path.display()
    )]
    Older {
        /// Its folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The folder holds something else.
    #[error("`{path}` is not a store: it holds other things than a store's", path = path.display())]
    NotAStore {
        /// Its folder.
        path: PathBuf,
    },
    /// Something else is in the place of one of its folders.
    #[error("`{path}` is {what}, not a folder of the store", path = path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// "a link", "a file", …
        what: &'static str,
    },
    /// A record or a note is damaged.
    #[error("`{path}` is damaged", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// A record or a checkpoint of a newer program.
    #[error("`{path}` was written by a newer convoy", path = path.display())]
    NewerFile {
        /// Which.
        path: PathBuf,
    },
    /// A blob does not have its digest; it is in quarantine now.
    #[error("file `{file}` of the cached artifact is damaged (blob {digest})")]
    Corrupt {
        /// Its name within the artifact.
        file: String,
        /// What it should have been.
        digest: Digest,
    },
    /// Another run uses the store.
    #[error("the store `{path}` is in use by a run", path = path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
}

impl Error {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source }
    }

    /// What the reader can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("choose a folder that can be written with `--cache-dir` or `CONVOY_CACHE`".to_owned())
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    Some("make room, for example with `convoy cache gc`; finished tasks are kept".to_owned())
                }
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    Some("the store needs a folder there: move the file away or use `--cache-dir`".to_owned())
                }
                _ => None,
            },
            Error::Newer { .. } | Error::NewerFile { .. } => {
                Some("use a newer `convoy`, or another folder with `--cache-dir`".to_owned())
            }
            Error::Older { .. } => Some(
                "name another folder with `--cache-dir`, or remove this one and compute its tasks again".to_owned(),
            ),
            Error::NotAStore { .. } => Some("name another folder with `--cache-dir`".to_owned()),
            Error::Foreign { .. } => {
                Some("remove it if you did not put it there, or name another folder with `--cache-dir`".to_owned())
            }
            Error::Damaged { .. } => Some("`convoy verify` moves damaged files to quarantine; run it first".to_owned()),
            Error::InUse { .. } => Some("try again when it has ended".to_owned()),
            Error::Corrupt { .. } => None,
        }
    }
}

impl From<files::Error> for Error {
    fn from(error: files::Error) -> Error {
        Error::Io { doing: error.doing, path: error.path, source: error.cause }
    }
}

/// Whether a store will be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Created where absent; damaged files are moved away.
    Write,
    /// No artifact is added, moved or removed, and an absent store is an empty one. Only what saves hashing is kept.
    Look,
}

/// A folder of artifacts.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    base: PathBuf,
    access: Access,
    is_remote: bool,
    /// Blobs whose content was verified, with the stamp they had.
    verified: Mutex<Stamps>,
    warnings: Mutex<Vec<String>>,
    /// Held, shared, as long as this store is open for writing: `gc` takes it alone.
    in_use: Option<File>,
    calls: Arc<dyn Calls>,
}

#[derive(Debug, Default)]
struct Stamps {
    known: HashMap<Digest, Stamp>,
    /// What this process learned.
    learned: HashMap<Digest, Stamp>,
}

/// The project's root: the nearest folder, from `dir` upwards, with `.convoy/` or `.git`; else `dir` itself.
pub fn project_root(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    dir.ancestors()
        .find(|folder| folder.join(FOLDER).is_dir() || folder.join(".git").exists())
        .unwrap_or(&dir)
        .to_owned()
}

impl Store {
    /// Opens the store in `dir` (a project's `.convoy`, or a shared folder). Source files below `base`, the project's
    /// root, are remembered by their path within it, so that a moved project need not hash them again.
    ///
    /// # Errors
    /// If it cannot be created, or read, or written to although it will be; if it is of another format; if the folder
    /// is not a store, or a link or a file stands in the place of one of its folders.
    pub fn open(dir: &Path, base: &Path, access: Access) -> Result<Store, Error> {
        Store::open_by(Arc::new(System), dir, base, access)
    }

    fn open_by(calls: Arc<dyn Calls>, dir: &Path, base: &Path, access: Access) -> Result<Store, Error> {
        let warnings = house::open(&*calls, dir, access)?;
        let mut store = Store {
            dir: dir.to_owned(),
            base: std::path::absolute(base).unwrap_or_else(|_| base.to_owned()),
            access,
            is_remote: stamp::is_remote(if dir.is_dir() { dir } else { base }),
            verified: Mutex::default(),
            warnings: Mutex::new(warnings),
            in_use: None,
            calls,
        };
        if access == Access::Write {
            // Before anything is written: what lies in `tmp/` while nobody else uses the store is nobody's.
            store.in_use = store.lock_for_use();
            files::sweep(dir);
            house::probe(&*store.calls, dir)?;
            store.register_root();
        }
        if !store.is_remote {
            store.load_stamps();
        }
        Ok(store)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The project's root that it was opened with.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Warnings since the last call, each once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *unpoisoned(&self.warnings))
    }

    fn warn(&self, text: String) {
        let mut warnings = unpoisoned(&self.warnings);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("cas").join(digest.to_string())
    }

    fn entry_path(&self, fingerprint: &Digest) -> PathBuf {
        self.dir.join("ac").join(fingerprint.to_string())
    }

    fn stamp_known(&self, digest: &Digest) -> Option<Stamp> {
        let stamps = unpoisoned(&self.verified);
        stamps.learned.get(digest).or_else(|| stamps.known.get(digest)).copied()
    }

    fn remember_stamp(&self, digest: Digest, stamp: Stamp) {
        unpoisoned(&self.verified).learned.insert(digest, stamp);
    }

    /// Whether stamps can be kept: those of a network file system say little, and an absent store is not created.
    fn may_remember(&self) -> bool {
        !self.is_remote && self.dir.join("index").is_dir()
    }

    fn load_stamps(&self) {
        // Without them everything is hashed once more.
        let Ok(Some(bytes)) = self.read_note("index", "blobs") else { return };
        unpoisoned(&self.verified).known = parse_stamps(&bytes);
    }

    /// Keeps what was learned about blobs, so that the next run need not verify them. Best effort: another run that
    /// saves at the same moment may win, which costs a little hashing.
    pub fn save_stamps(&self) {
        let mut stamps = unpoisoned(&self.verified);
        if stamps.learned.is_empty() || !self.may_remember() {
            return;
        }
        let mut all = match self.read_note("index", "blobs") {
            Ok(Some(bytes)) => parse_stamps(&bytes),
            _ => HashMap::new(),
        };
        let learned = std::mem::take(&mut stamps.learned);
        all.extend(learned.iter());
        let mut sorted: Vec<_> = all.iter().collect();
        sorted.sort_by_key(|(digest, _)| **digest);
        let mut bytes = Vec::with_capacity(sorted.len() * 64);
        for (digest, stamp) in sorted {
            bytes.extend_from_slice(&digest.0);
            bytes.extend_from_slice(&stamp.to_bytes());
        }
        // Lost stamps cost a little hashing.
        let _ = self.write_note("index", "blobs", &bytes);
        stamps.known = all;
    }
}

/// `[digest, stamp]*`.
fn parse_stamps(bytes: &[u8]) -> HashMap<Digest, Stamp> {
    bytes
        .as_chunks::<64>()
        .0
        .iter()
        .filter_map(|record| {
            let (digest, rest) = record.split_first_chunk::<32>()?;
            Some((Digest(*digest), Stamp::from_bytes(rest.first_chunk()?)))
        })
        .collect()
}

/// A lock on memory that outlives a panic: what it guards is replaced whole, never half-written.
fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn looking_creates_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(FOLDER);
        let store = Store::open(&dir, temp.path(), Access::Look).unwrap();
        assert!(matches!(store.find(&Digest::of(b"x")), Ok(Found::Missing)));
        assert!(!dir.exists());
    }

    #[test]
    fn the_root_is_the_nearest_folder_with_a_store_or_a_repository() {
        let temp = tempfile::tempdir().unwrap();
        let deep = temp.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(temp.path().join("a/.git")).unwrap();
        assert_eq!(project_root(&deep), temp.path().join("a"));
        fs::create_dir(temp.path().join("a/b/.convoy")).unwrap();
        assert_eq!(project_root(&deep), temp.path().join("a/b"));
    }
}
