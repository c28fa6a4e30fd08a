//! Files: opened without hanging, read within a limit, replaced without tearing, removed without following a link.
//!
//! What writes goes through [`Calls`], so that tests see every call and let each of them fail. [`read_regular`] is how
//! a file from outside is read, [`seen`] and [`open_own`] are how one of ours is, [`Folder`] is how things are removed.

mod calls;
pub(crate) mod document;
mod folder;

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use calls::{Calls, System};
#[cfg(test)]
pub use calls::{How, Recorder};
pub use folder::Folder;

/// What the system refused, with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{path}`: {reason}", path = path.display(), reason = reason(cause))]
pub struct Error {
    /// "write", "read", …
    pub doing: &'static str,
    /// What was touched.
    pub path: PathBuf,
    /// Why not.
    pub cause: io::Error,
}

impl Error {
    /// Names the file in an error of the system.
    pub fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |cause| Error { doing, path, cause }
    }
}

/// The operating system's words without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// The words in the `CACHEDIR.TAG` of every store.
pub const OUR_WORDS: &str = "This folder is a cache made by convoy";

/// Names that systems and file managers leave behind, in lower case.
const SYSTEM_NAMES: &[&str] = &[
    "#recycle",
    "$recycle.bin",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "icon\r",
    "lost+found",
    "network trash folder",
    "picasa.ini",
    "system volume information",
    "temporary items",
    "thumbs.db",
    "zbthumbnail.info",
];

/// Whether a file or folder of this name is hidden, or left behind by a system or a file manager. What is hashed and
/// what is read leave the same names out.
pub fn is_hidden(name: impl AsRef<OsStr>) -> bool {
    let name = name.as_ref().as_encoded_bytes();
    name.starts_with(b".") || SYSTEM_NAMES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// Whether `folder` is a store of ours, by the words in its `CACHEDIR.TAG`.
pub fn is_store(folder: &Path) -> bool {
    matches!(read_own(&folder.join("CACHEDIR.TAG"), 4096), Ok(Own::Regular(_, text))
        if String::from_utf8_lossy(&text).contains(OUR_WORDS))
}

/// The first line of every lock file.
pub const LOCK_HEAD: &str = "# Written by `convoy run`";

/// Whether the file at `path`, called `*.lock`, is a lock file of ours, by its first words.
pub fn is_lock(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "lock")
        && open_regular(path).is_ok_and(|(file, _)| {
            let mut head = Vec::new();
            file.take(LOCK_HEAD.len() as u64).read_to_end(&mut head).is_ok() && head == LOCK_HEAD.as_bytes()
        })
}

/// Endings of files that are never images, but text or code that lies beside them.
const TEXT_ENDINGS: &[&str] = &[
    "cfg", "csv", "htm", "html", "ini", "ipynb", "json", "jsonl", "lock", "log", "md", "py", "pyc", "rst", "sh",
    "toml", "tsv", "txt", "xml", "yaml", "yml",
];

/// Whether a file is text or code by its name: among images it is there, and what is in it is nobody's matter. So a
/// manifest that lies beside the images can be edited without their being read anew, and a log can grow.
pub fn is_text_name(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    TEXT_ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending))
}

/// What below a folder of sources is never a source, for who hashes and for who reads: what is hidden, and what we
/// write, wherever it is: stores, reports, lock files, and where our own output goes.
pub fn is_no_source(path: &Path, is_folder: bool) -> bool {
    path.file_name().is_some_and(is_hidden)
        || if is_folder { is_store(path) || is_reports(path) } else { is_lock(path) || is_own_output(path) }
}

/// Whether the file at `path` is what this process writes its output or its messages to (`convoy run >log`).
#[cfg(unix)]
fn is_own_output(path: &Path) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    static OWN: std::sync::LazyLock<Vec<(u64, u64)>> = std::sync::LazyLock::new(|| {
        let streams = [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
        let files = streams.into_iter().flatten().filter_map(|stream| File::from(stream).metadata().ok());
        files.filter(Metadata::is_file).map(|metadata| (metadata.dev(), metadata.ino())).collect()
    });
    !OWN.is_empty() && fs::metadata(path).is_ok_and(|metadata| OWN.contains(&(metadata.dev(), metadata.ino())))
}

#[cfg(not(unix))]
fn is_own_output(_path: &Path) -> bool {
    false
}

/// The file that notes what a run wrote, in each folder of reports.
pub const RUN: &str = "run.json";

/// What is read of it to tell a folder of reports.
#[derive(serde::Deserialize)]
struct Noted {
    /// The version that wrote it.
    #[serde(rename = "convoy")]
    _convoy: String,
}

/// Whether `folder` holds reports of ours, by the [`RUN`] in it, or is called `out` and has nothing in it but such
/// folders: a class that is called `out` stays one, whatever is written into it.
fn is_reports(folder: &Path) -> bool {
    let is_one = |folder: &Path| match read_own(&folder.join(RUN), document::MOST) {
        Ok(Own::Regular(_, text)) => document::from_bytes::<Noted>(&text, None).is_ok(),
        _ => false,
    };
    if is_one(folder) {
        return true;
    }
    let is_out = folder.file_name().is_some_and(|name| name == "out");
    let Some(Ok(inner)) = is_out.then(|| fs::read_dir(folder)) else { return false };
    let mut seen = inner.filter(|entry| entry.as_ref().map_or(true, |entry| !is_hidden(entry.file_name()))).peekable();
    seen.peek().is_some() && seen.all(|entry| entry.is_ok_and(|entry| is_one(&entry.path())))
}

#[cfg(unix)]
fn careful(options: &mut OpenOptions, follow: bool) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO without a writer would wait, a device may.
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | if follow { 0 } else { libc::O_NOFOLLOW })
}

#[cfg(not(unix))]
fn careful(options: &mut OpenOptions, _follow: bool) -> &mut OpenOptions {
    options
}

/// Opens a regular file for reading; links are followed.
///
/// # Errors
/// Those of the system; that it is a folder, a FIFO, a device.
pub fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    // Looked at before it is opened: to open a device may do something.
    regular(&fs::metadata(path)?)?;
    let file = careful(OpenOptions::new().read(true), true).open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata))
}

/// Whether an error of reading is about the file, so that whoever reads it meets it again: it is absent, forbidden, a loop of
/// links, no regular file. All others (no more descriptors, no memory, a disk that fails) are of this moment.
pub fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let is_told = error.raw_os_error().is_none() && matches!(error.kind(), InvalidInput | IsADirectory);
    is_told || matches!(error.kind(), NotFound | PermissionDenied | NotADirectory) || is_loop(error)
}

#[cfg(unix)]
fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

#[cfg(not(unix))]
fn is_loop(_error: &io::Error) -> bool {
    false
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// The content of a regular file of at most `most` bytes; links are followed.
///
/// # Errors
/// Those of the system, that it is not a regular file, that it is larger.
pub fn read_regular(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    open_regular(path)
        .and_then(|(file, metadata)| match metadata.len() > most {
            true => Err(too_large(most)),
            false => read_at_most(&file, most),
        })
        .map_err(Error::of("read", path))
}

/// What is left of `file`, if that is at most `most` bytes.
fn read_at_most(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size.min(most)).unwrap_or(0)).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Read::take(file, most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(bytes) }
}

fn too_large(most: u64) -> io::Error {
    let (n, unit) = if most >= 1 << 20 { (most >> 20, "MiB") } else { (most, "bytes") };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {n} {unit}"))
}

/// What stands in the place of a file of ours.
#[derive(Debug)]
pub enum Own<T> {
    /// A regular file.
    Regular(File, T),
    /// Nothing.
    Absent,
    /// A folder, a link, a FIFO, a socket: not ours.
    Foreign,
}

/// Looks at the place of a file of ours without opening it or following a link: `None` if nothing is there, `Err` of
/// what is there if it is no regular file.
///
/// # Errors
/// Those of the system other than that nothing is there.
pub fn seen(path: &Path) -> io::Result<Option<Result<Metadata, &'static str>>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(Ok(metadata))),
        Ok(metadata) if metadata.is_dir() => Ok(Some(Err("a folder"))),
        Ok(metadata) if metadata.is_symlink() => Ok(Some(Err("a link"))),
        Ok(_) => Ok(Some(Err("no regular file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a file of ours for reading; a link is not followed.
///
/// # Errors
/// Those of the system other than that nothing is there.
pub fn open_own(path: &Path) -> io::Result<Own<Metadata>> {
    match seen(path)? {
        None => return Ok(Own::Absent),
        Some(Err(_)) => return Ok(Own::Foreign),
        Some(Ok(_)) => {}
    }
    let file = match careful(OpenOptions::new().read(true), false).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Own::Absent),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(if metadata.is_file() { Own::Regular(file, metadata) } else { Own::Foreign })
}

/// The content of a file of ours; `Absent` carries nothing, `Foreign` what is no regular file or too large.
///
/// # Errors
/// Those of the system other than that nothing is there.
pub fn read_own(path: &Path, most: u64) -> io::Result<Own<Vec<u8>>> {
    Ok(match open_own(path)? {
        Own::Regular(_, metadata) if metadata.len() > most => Own::Foreign,
        Own::Regular(file, _) => {
            let bytes = read_at_most(&file, most)?;
            Own::Regular(file, bytes)
        }
        Own::Absent => Own::Absent,
        Own::Foreign => Own::Foreign,
    })
}

/// Opens a file to lock, creating it; one that only others may write is opened for reading, which is enough to lock it.
///
/// # Errors
/// Those of the system; that it is a link or no regular file.
pub fn lock_file(path: &Path) -> io::Result<File> {
    if matches!(seen(path)?, Some(Err(_))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut options = OpenOptions::new();
    match careful(options.read(true).write(true).create(true).truncate(false), false).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            careful(OpenOptions::new().read(true), false).open(path)
        }
        opened => opened,
    }
}

/// What the names of temporary files beside reports and lock files begin with.
pub const BESIDE: &str = ".convoy-";

/// A name that nobody has yet, for a temporary file or folder: `prefix` and 16 hexadecimal digits.
pub fn unused_name(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&now.to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.update(&COUNTER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    format!("{prefix}{}", &hasher.finalize().to_hex()[..16])
}

/// Whether `name` is one that [`unused_name`] gives for `prefix`.
pub fn is_unused_name(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Finds out whether files could be put into `folder`, or into one that would be made there; nothing stays behind.
///
/// # Errors
/// Those of the file system: that what is there is no folder, or cannot be written to.
pub fn probe(folder: &Path) -> Result<(), Error> {
    let mut there = folder;
    loop {
        there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        match fs::metadata(there) {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => return Err(Error::of("create", folder)(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(there).is_err() => {
                there = there.parent().unwrap_or(Path::new("."));
            }
            Err(error) => return Err(Error::of("create", folder)(error)),
        }
    }
    let name = unused_name(BESIDE);
    System
        .create(&there.join(&name))
        .and_then(|_| System.unlink(&Folder::open(there)?, &name))
        .map_err(Error::of("write to", there))
}

/// Replaces `path` by `bytes`, atomically, unless it holds them already; creates its folder. With `durable` it is on
/// the disk afterwards, else it may be lost by a power cut, but never torn by a kill. Its mode follows the umask.
///
/// # Errors
/// Those of the file system. What was there is there, then.
pub fn replace(path: &Path, bytes: &[u8], durable: bool) -> Result<(), Error> {
    let is_same = matches!(seen(path), Ok(Some(Ok(metadata))) if metadata.len() == bytes.len() as u64)
        && matches!(read_own(path, bytes.len() as u64), Ok(Own::Regular(_, old)) if old == bytes);
    if is_same {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Where we stand is there: an error about `.` would say nothing of the file.
    if folder != Path::new(".") {
        fs::create_dir_all(folder).map_err(Error::of("create", folder))?;
    }
    replace_by(&System, (folder, BESIDE), path, bytes, durable).map_err(Error::of("write", path))
}

/// As [`replace`], through `calls`, by way of a temporary file in the folder `temporary.0` whose name begins with
/// `temporary.1`; whatever was there before.
///
/// # Errors
/// Those of the file system.
pub fn replace_by(
    calls: &dyn Calls,
    temporary: (&Path, &str),
    path: &Path,
    bytes: &[u8],
    durable: bool,
) -> io::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let name = unused_name(temporary.1);
        let from = temporary.0.join(&name);
        let mut file = match calls.create(&from) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < 9 => continue,
            created => created?,
        };
        // Says that somebody is writing; where locks do not work, only age tells what is left of a kill.
        let _ = file.try_lock();
        let written = calls
            .write(&mut file, &from, bytes)
            .and_then(|()| if durable { calls.sync(&file, &from) } else { Ok(()) })
            .and_then(|()| calls.rename(&from, path));
        match written {
            Ok(()) if durable => return calls.sync_folder(path.parent().unwrap_or(Path::new("."))),
            Ok(()) => return Ok(()),
            // Somebody swept it in the moment before it was locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 3 && seen(&from)?.is_none() => {
                if !temporary.0.is_dir() {
                    return Err(error);
                }
            }
            Err(error) => {
                // What stays is swept next time.
                let _ = Folder::open(temporary.0).and_then(|folder| calls.unlink(&folder, &name));
                return Err(error);
            }
        }
    }
}

/// How old a temporary file must be to be nobody's, where locks do not tell.
const ABANDONED: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Removes what killed runs left beside reports and lock files in `folder` (not in those below it).
pub fn sweep(folder: &Path) {
    sweep_names(folder, BESIDE);
}

/// Removes temporary files of this prefix that nobody writes any more. What stays is swept next time.
pub fn sweep_names(folder: &Path, prefix: &str) {
    let Ok(folder) = Folder::open(folder) else { return };
    for name in folder.names().unwrap_or_default() {
        let Some(name) = name.to_str().filter(|name| is_unused_name(name, prefix)) else { continue };
        let path = folder.path().join(name);
        let Ok(Own::Regular(file, metadata)) = open_own(&path) else { continue };
        let is_dead = match file.try_lock() {
            Ok(()) => true,
            Err(fs::TryLockError::WouldBlock) => false,
            Err(fs::TryLockError::Error(_)) => {
                metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED))
            }
        };
        if is_dead {
            let _ = folder.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_once_and_whole_with_the_mode_of_the_umask() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b.csv");
        replace(&path, b"one", false).unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        replace(&path, b"one", true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        replace(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let plain = temp.path().join("plain");
            File::create(&plain).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&path), mode(&plain));
        }
        let folder = temp.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let error = replace(&folder, b"x", false).unwrap_err().to_string();
        assert!(error.contains("folder`: is a directory"), "{error}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 3, "nothing is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let fifo = temp.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let socket = temp.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = temp.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [&fifo, &socket, &link] {
            let error = read_regular(path, 100).unwrap_err().to_string();
            assert!(error.ends_with("it is not a regular file"), "{error}");
            assert!(matches!(open_own(path), Ok(Own::Foreign)));
            assert!(lock_file(path).is_err());
        }
        let error = read_regular(temp.path(), 100).unwrap_err().to_string();
        assert!(error.ends_with("is a directory"), "{error}");
        let big = temp.path().join("big");
        fs::write(&big, [0; 101]).unwrap();
        let error = read_regular(&big, 100).unwrap_err().to_string();
        assert!(error.ends_with("big`: it is larger than 100 bytes"), "{error}");
        assert_eq!(read_regular(&big, 101).unwrap().len(), 101);
        // A file that has no size, and would make a reader wait.
        let kernel = Path::new("/proc/kmsg");
        if kernel.exists() {
            assert!(read_regular(kernel, 100).is_err());
        }
    }

    #[test]
    fn leftovers_of_the_dead_are_swept_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let dead = temp.path().join(unused_name(BESIDE));
        let alive = temp.path().join(unused_name(BESIDE));
        fs::write(&dead, "half").unwrap();
        let file = File::create(&alive).unwrap();
        file.lock().unwrap();
        for foreign in [".convoy-notes", ".convoy-0123456789abcdeg", "0123456789abcdef"] {
            fs::write(temp.path().join(foreign), "mine").unwrap();
        }
        fs::create_dir(temp.path().join(unused_name(BESIDE))).unwrap();
        sweep(temp.path());
        assert!(!dead.exists());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 5);
    }

    #[test]
    fn a_replacement_is_written_synced_renamed_and_its_folder_synced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x");
        let recorder = Recorder::new(temp.path());
        replace_by(&recorder, (temp.path(), BESIDE), &path, b"one", true).unwrap();
        assert_eq!(recorder.log(), ["create .", "write .", "sync .", "rename . .", "sync-folder ."]);
        let recorder = Recorder::new(temp.path());
        replace_by(&recorder, (temp.path(), BESIDE), &path, b"two", false).unwrap();
        assert_eq!(recorder.log(), ["create .", "write .", "rename . ."]);
        for at in 1..=5 {
            let recorder = Recorder::failing(temp.path(), at, How::Fail);
            let error = replace_by(&recorder, (temp.path(), BESIDE), &path, b"three", true).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "call {at}");
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "call {at}");
        }
    }

    #[test]
    fn what_systems_leave_behind_is_hidden() {
        for name in
            [".git", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "__MACOSX", "Desktop.ini"]
        {
            assert!(is_hidden(name), "{name}");
        }
        assert!(!is_hidden("eaDir") && !is_hidden("cat"));
    }

    #[test]
    fn stores_reports_and_locks_are_no_sources() {
        let temp = tempfile::tempdir().unwrap();
        let (out, store) = (temp.path().join("out"), temp.path().join("cache"));
        fs::create_dir(&store).unwrap();
        assert!(!is_no_source(&store, true));
        fs::write(store.join("CACHEDIR.TAG"), format!("# {OUR_WORDS}")).unwrap();
        assert!(is_no_source(&store, true));
        let lock = temp.path().join("digits.lock");
        fs::write(&lock, "version = 1").unwrap();
        assert!(!is_no_source(&lock, false));
        fs::write(&lock, format!("{LOCK_HEAD}, for Git")).unwrap();
        assert!(is_no_source(&lock, false));
        assert!(is_no_source(Path::new("a/Thumbs.db"), false));
        // Reports, by what is in them and not by their place; whoever keeps images in an `out` keeps them.
        fs::create_dir_all(out.join("t")).unwrap();
        assert!(!is_no_source(&out, true));
        fs::write(out.join("t").join(RUN), "{ \"pipeline\": \"t\" }").unwrap();
        assert!(!is_no_source(&out, true) && !is_no_source(&out.join("t"), true));
        fs::write(out.join("t").join(RUN), "{\"complete\":false,\"convoy\":\"1.0\"}").unwrap();
        fs::write(out.join(".DS_Store"), "x").unwrap();
        assert!(is_no_source(&out, true) && is_no_source(&out.join("t"), true));
        fs::write(out.join("1.png"), "image").unwrap();
        assert!(!is_no_source(&out, true) && is_no_source(&out.join("t"), true));
    }
}
