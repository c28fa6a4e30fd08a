//! Notes: small files of the store that may be lost but never torn, and are believed only under their own name.
//!
//! A note ends with a line that binds its content to its name: one that was copied over another, or damaged, is none.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::digest::Digest;
use super::{Access, Error, Store, house};
use crate::files::{self, Folder, Own};

/// The largest note that is read: the listing of some ten million files.
const MOST: u64 = 4 << 30;

/// `content`, bound to `name`.
pub(super) fn bind(name: &str, content: &[u8]) -> Vec<u8> {
    [content, format!("\nend {}\n", seal(name, content)).as_bytes()].concat()
}

/// The content of a note, if it was bound to `name`.
pub(super) fn unbind(name: &str, mut whole: Vec<u8>) -> Option<Vec<u8>> {
    let length = whole.len().checked_sub("\nend \n".len() + 64)?;
    let end = format!("\nend {}\n", seal(name, &whole[..length]));
    let is_whole = whole[length..] == *end.as_bytes();
    whole.truncate(length);
    is_whole.then_some(whole)
}

fn seal(name: &str, content: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(content);
    Digest(*hasher.finalize().as_bytes())
}

impl Store {
    pub(super) fn note_path(&self, folder: &str, name: &str) -> PathBuf {
        self.dir.join(folder).join(name)
    }

    /// A note, e.g. `runs/digits.json`. What is damaged, or another's, is none.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read_note(&self, folder: &str, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.note_path(folder, name);
        Ok(match files::read_own(&path, MOST).map_err(Error::io("read", &path))? {
            Own::Regular(_, whole) => unbind(&format!("{folder}/{name}"), whole),
            Own::Absent | Own::Foreign => None,
        })
    }

    /// A note that must be sound.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub(super) fn read_sound_note(&self, folder: &str, name: &str) -> Result<Vec<u8>, Error> {
        self.read_note(folder, name)?.ok_or_else(|| Error::Damaged { path: self.note_path(folder, name) })
    }

    /// Writes a note, atomically.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_note(&self, folder: &str, name: &str, content: &[u8]) -> Result<(), Error> {
        self.write_bound(folder, name, &bind(&format!("{folder}/{name}"), content))
    }

    pub(super) fn write_bound(&self, folder: &str, name: &str, whole: &[u8]) -> Result<(), Error> {
        let path = self.note_path(folder, name);
        if matches!(files::seen(&path), Ok(Some(Err(_)))) {
            house::displace(&*self.calls, &self.dir, &path, name).map_err(Error::io("move", &path))?;
        }
        let tmp = self.dir.join("tmp");
        // Where projects are decides what `gc` keeps; the other notes only save time.
        let is_durable = folder == "roots";
        files::replace_by(&*self.calls, (&tmp, house::NOTE), &path, whole, is_durable)
            .map_err(Error::io("write", &path))
    }

    /// The names of such files and when they were written, sorted.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn notes(&self, folder: &str) -> Result<Vec<(String, SystemTime)>, Error> {
        let path = self.dir.join(folder);
        let names = match Folder::open(&path).and_then(|folder| folder.names()) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let mut notes = Vec::new();
        for name in names {
            let path = path.join(&name);
            let seen = files::seen(&path).map_err(Error::io("read", &path))?;
            let (Ok(name), Some(Ok(metadata))) = (name.into_string(), seen) else { continue };
            notes.push((name, metadata.modified().map_err(Error::io("read", &path))?));
        }
        Ok(notes)
    }

    /// Removes a note, if it is there.
    pub fn remove_note(&self, folder: &str, name: &str) {
        // A note that stays does no harm.
        let _ = Folder::open(&self.dir.join(folder)).and_then(|folder| self.calls.unlink(&folder, name));
    }

    /// What tells this project from others that share the store: nothing if the store is the project's own, so that
    /// the project can be moved, else a digest of its path.
    pub fn project(&self) -> String {
        let shown = |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (dir, base) = (shown(&self.dir), shown(&self.base));
        match dir.starts_with(&base) {
            true => String::new(),
            false => Digest::of(base.as_os_str().as_encoded_bytes()).short(),
        }
    }

    /// Remembers where the project is, so that `gc` looks for its lock files.
    pub(super) fn register_root(&self) {
        if self.access != Access::Write {
            return;
        }
        let (dir, base) = match (self.dir.canonicalize(), self.base.canonicalize()) {
            (Ok(dir), Ok(base)) => (dir, base),
            _ => return,
        };
        // Its own project is found from the store, wherever both are moved.
        let root: Vec<u8> = match dir.strip_prefix(&base) {
            Ok(inside) => inside.components().map(|_| "..").collect::<Vec<_>>().join("/").into_bytes(),
            Err(_) => base.as_os_str().as_encoded_bytes().to_owned(),
        };
        let name = Digest::of(&root).to_string();
        let is_recent = matches!(files::seen(&self.note_path("roots", &name)), Ok(Some(Ok(metadata)))
            if metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 24 * 3600)));
        if (!is_recent || !matches!(self.read_note("roots", &name), Ok(Some(_))))
            && let Err(error) = self.write_note("roots", &name, &root)
        {
            self.warn(format!("{error}: `cache gc` may not find this project's lock files"));
        }
    }

    /// The projects that have used the store, with the time of their last use, by path.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn roots(&self) -> Result<Vec<Root>, Error> {
        let mut roots = Vec::new();
        for (name, used) in self.notes("roots")?.into_iter().filter(|(name, _)| name.parse::<Digest>().is_ok()) {
            let path = path_of(&self.read_sound_note("roots", &name)?);
            let (project, place) = match path.is_absolute() {
                true => (Digest::of(path.as_os_str().as_encoded_bytes()).short(), path),
                false => (String::new(), self.dir.canonicalize().map_err(Error::io("read", &self.dir))?.join(path)),
            };
            roots.push(Root { place, project, used, name });
        }
        roots.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(roots)
    }
}

/// A project that has used the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its folder.
    pub place: PathBuf,
    /// What tells it from others, as [`Store::project`] does.
    pub project: String,
    /// When it last used the store, to the day.
    pub used: SystemTime,
    /// Its note.
    pub name: String,
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_note_is_believed_under_its_own_name_only() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        assert_eq!(store.read_note("runs", "a.json").unwrap(), None);
        store.write_note("runs", "a.json", b"of a").unwrap();
        store.write_note("runs", "b.json", b"of b").unwrap();
        assert_eq!(store.read_note("runs", "a.json").unwrap().as_deref(), Some(&b"of a"[..]));
        let (a, b) = (store.note_path("runs", "a.json"), store.note_path("runs", "b.json"));
        fs::copy(&a, &b).unwrap();
        assert_eq!(store.read_note("runs", "b.json").unwrap(), None);
        let whole = fs::read(&a).unwrap();
        for cut in 0..whole.len() {
            fs::write(&a, &whole[..cut]).unwrap();
            assert_eq!(store.read_note("runs", "a.json").unwrap(), None, "cut at {cut}");
        }
        fs::remove_file(&a).unwrap();
        fs::create_dir_all(a.join("full")).unwrap();
        assert_eq!(store.read_note("runs", "a.json").unwrap(), None);
        store.write_note("runs", "a.json", b"anew").unwrap();
        assert_eq!(store.read_note("runs", "a.json").unwrap().as_deref(), Some(&b"anew"[..]));
    }

    #[cfg(unix)]
    #[test]
    fn a_fifo_in_a_notes_place_is_none_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let path = store.note_path("index", "blobs");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(store.read_note("index", "blobs").unwrap(), None);
        store.write_note("index", "blobs", b"x").unwrap();
        assert_eq!(store.read_note("index", "blobs").unwrap().as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn projects_are_registered_once_each_and_their_notes_do_not_collide() {
        let temp = tempfile::tempdir().unwrap();
        let shared = temp.path().join("shared");
        for clone in ["a", "b", "a"] {
            let base = temp.path().join(clone);
            fs::create_dir_all(&base).unwrap();
            drop(Store::open(&shared, &base, Access::Write).unwrap());
        }
        let a = Store::open(&shared, &temp.path().join("a"), Access::Look).unwrap();
        let b = Store::open(&shared, &temp.path().join("b"), Access::Look).unwrap();
        assert_ne!(a.project(), b.project());
        let places: Vec<PathBuf> = a.roots().unwrap().into_iter().map(|root| root.place).collect();
        let base = temp.path().canonicalize().unwrap();
        assert_eq!(places, [base.join("a"), base.join("b")]);
        // A project's own store moves with it.
        drop(Store::open(&temp.path().join("a/.convoy"), &temp.path().join("a"), Access::Write).unwrap());
        fs::rename(temp.path().join("a"), temp.path().join("moved")).unwrap();
        let moved = temp.path().join("moved");
        let store = Store::open(&moved.join(".convoy"), &moved, Access::Look).unwrap();
        assert_eq!(store.project(), "");
        assert_eq!(store.roots().unwrap()[0].place.canonicalize().unwrap(), base.join("moved"));
    }
}
