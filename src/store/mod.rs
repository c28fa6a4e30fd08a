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
mod lock;
mod publish;
mod read;
mod sources;
mod stamp;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use digest::{Digest, NotADigest};
pub use entry::{Entry, Output, artifact_digest};
pub use gc::{Cleaned, Listed, Verified};
pub use lock::{Lock, Locking};
pub use publish::{Draft, Published};
pub use read::Found;
pub use sources::{Changes, Place};
pub use stamp::Stamp;

/// The number in `.convoy/format`.
pub const FORMAT: u32 = 1;

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
    /// The folder holds something else.
    #[error("`{path}` is not a store: its file `format` holds no number", path = path.display())]
    NotAStore {
        /// Its folder.
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
            Error::Newer { .. } => Some("use a newer `convoy`, or another folder with `--cache-dir`".to_owned()),
            Error::NotAStore { .. } => Some("name another folder with `--cache-dir`".to_owned()),
            Error::InUse { .. } => Some("try again when it has ended".to_owned()),
            Error::Corrupt { .. } => None,
        }
    }
}

/// The operating system's words without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Whether a store will be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Created where absent; damaged files are moved away.
    Write,
    /// Nothing on disk is changed; an absent store is an empty one.
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
    #[cfg(test)]
    fuse: std::sync::atomic::AtomicUsize,
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
    /// If it cannot be created, or read, or is newer than this program.
    pub fn open(dir: &Path, base: &Path, access: Access) -> Result<Store, Error> {
        let format = dir.join("format");
        match fs::read_to_string(&format) {
            Ok(text) => {
                let found = text.trim().parse::<u32>();
                match found {
                    Ok(found) if found > FORMAT => return Err(Error::Newer { path: dir.to_owned(), found }),
                    Ok(_) => {}
                    Err(_) => return Err(Error::NotAStore { path: dir.to_owned() }),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", &format)(error)),
        }
        if access == Access::Write {
            create(dir)?;
        }
        let mut store = Store {
            dir: dir.to_owned(),
            base: std::path::absolute(base).unwrap_or_else(|_| base.to_owned()),
            access,
            is_remote: stamp::is_remote(if dir.is_dir() { dir } else { base }),
            verified: Mutex::default(),
            warnings: Mutex::default(),
            in_use: None,
            #[cfg(test)]
            fuse: std::sync::atomic::AtomicUsize::new(usize::MAX),
        };
        if access == Access::Write {
            store.in_use = store.lock_shared();
            store.sweep();
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

    /// A small file of the store that can be lost without harm, e.g. `runs/digits.json`.
    ///
    /// # Errors
    /// Other than that it is not there.
    pub fn read_note(&self, folder: &str, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.dir.join(folder).join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Writes such a file, atomically.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_note(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(folder).join(name);
        replace(&self.dir.join("tmp"), &path, bytes).map_err(Error::io("write", &path))
    }

    /// The names of such files and when they were written, sorted.
    pub fn notes(&self, folder: &str) -> Vec<(String, std::time::SystemTime)> {
        let Ok(entries) = fs::read_dir(self.dir.join(folder)) else { return Vec::new() };
        let mut notes: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.modified().ok()?))
            })
            .collect();
        notes.sort();
        notes
    }

    /// Removes such a file, if it is there.
    pub fn remove_note(&self, folder: &str, name: &str) {
        // A note that stays does no harm.
        let _ = fs::remove_file(self.dir.join(folder).join(name));
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

    fn load_stamps(&self) {
        let Ok(bytes) = fs::read(self.dir.join("index").join("blobs")) else { return };
        unpoisoned(&self.verified).known = parse_stamps(&bytes);
    }

    /// Keeps what was learned about blobs, so that the next run need not verify them. Best effort: another run that
    /// saves at the same moment may win, which costs a little hashing.
    pub fn save_stamps(&self) {
        let mut stamps = unpoisoned(&self.verified);
        if stamps.learned.is_empty() || self.is_remote || self.access == Access::Look {
            return;
        }
        let path = self.dir.join("index").join("blobs");
        let mut all = fs::read(&path).map(|bytes| parse_stamps(&bytes)).unwrap_or_default();
        let learned = std::mem::take(&mut stamps.learned);
        all.extend(learned.iter());
        let mut sorted: Vec<_> = all.iter().collect();
        sorted.sort_by_key(|(digest, _)| **digest);
        let mut bytes = Vec::with_capacity(sorted.len() * 64);
        for (digest, stamp) in sorted {
            bytes.extend_from_slice(&digest.0);
            bytes.extend_from_slice(&stamp.to_bytes());
        }
        let end = Digest::of(&bytes);
        bytes.extend_from_slice(&end.0);
        // Lost stamps cost a little hashing.
        let _ = replace(&self.dir.join("tmp"), &path, &bytes);
        stamps.known = all;
    }

    /// Stands before every system call of publishing: in tests it burns through after a given number of them.
    #[cfg(not(test))]
    #[inline]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        match self.fuse.fetch_update(SeqCst, SeqCst, |left| Some(left.saturating_sub(usize::from(left != usize::MAX))))
        {
            Ok(0) => Err(io::Error::other("the fuse has blown")),
            _ => Ok(()),
        }
    }
}

/// `[digest, stamp]*, digest of that`; anything else is no stamps.
fn parse_stamps(bytes: &[u8]) -> HashMap<Digest, Stamp> {
    let Some((body, end)) = bytes.split_last_chunk::<32>() else { return HashMap::new() };
    if Digest::of(body).0 != *end {
        return HashMap::new();
    }
    body.as_chunks::<64>()
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

/// Replaces a file that may be lost but never torn: no fsync.
fn replace(tmp: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = tempfile::Builder::new().prefix("note-").tempfile_in(tmp)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder is a cache made by convoy; backups may leave it out. See https://bford.info/cachedir/\n";

/// Makes the folders and the files that say what they are, where absent.
fn create(dir: &Path) -> Result<(), Error> {
    let format = dir.join("format");
    if !format.exists() {
        fs::create_dir_all(dir).map_err(Error::io("create the store", dir))?;
        let is_empty = fs::read_dir(dir).map_err(Error::io("read", dir))?.next().is_none();
        let is_ours = dir.file_name().is_some_and(|name| name == FOLDER) || dir.join("CACHEDIR.TAG").exists();
        if !is_empty && !is_ours {
            return Err(Error::NotAStore { path: dir.to_owned() });
        }
    }
    for folder in ["ac", "cas", "checkpoints", "index", "locks", "quarantine", "runs", "tmp"] {
        let path = dir.join(folder);
        if !path.is_dir() {
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
    }
    for (name, content) in
        [("CACHEDIR.TAG", CACHEDIR_TAG), (".gitignore", "*\n"), ("format", &format!("{FORMAT}\n") as &str)]
    {
        let path = dir.join(name);
        if !path.exists() {
            replace(&dir.join("tmp"), &path, content.as_bytes()).map_err(Error::io("write", &path))?;
        }
    }
    // A store that cannot be written is told now, not after an hour of training.
    let probe = dir.join("tmp");
    tempfile::tempfile_in(&probe).map_err(Error::io("write to", &probe))?;
    Ok(())
}

/// Opens a file to lock, creating it.
fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_says_what_it_is_and_refuses_a_newer_one() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(FOLDER);
        drop(Store::open(&dir, temp.path(), Access::Write).unwrap());
        assert!(fs::read_to_string(dir.join("CACHEDIR.TAG")).unwrap().starts_with("Signature: 8a477f597d28d172"));
        assert_eq!(fs::read_to_string(dir.join("format")).unwrap(), "1\n");
        fs::write(dir.join("format"), "2\n").unwrap();
        let error = Store::open(&dir, temp.path(), Access::Look).unwrap_err();
        assert!(error.to_string().contains("has format 2, newer than 1"), "{error}");
        fs::write(dir.join("format"), "convoy\n").unwrap();
        assert!(matches!(Store::open(&dir, temp.path(), Access::Write), Err(Error::NotAStore { .. })));
    }

    #[test]
    fn a_folder_of_other_things_is_not_made_a_store() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "").unwrap();
        assert!(matches!(Store::open(temp.path(), temp.path(), Access::Write), Err(Error::NotAStore { .. })));
    }

    #[test]
    fn a_store_that_cannot_be_written_says_so() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(FOLDER);
        fs::write(&dir, "a file is in the way").unwrap();
        let error = Store::open(&dir, temp.path(), Access::Write).unwrap_err();
        assert!(error.to_string().contains(".convoy"), "{error}");
        assert!(error.help().is_some(), "{error}");
    }

    #[test]
    fn looking_creates_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(FOLDER);
        let store = Store::open(&dir, temp.path(), Access::Look).unwrap();
        assert!(matches!(store.find(&Digest::of(b"x")), Found::Missing));
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
