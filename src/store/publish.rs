//! Publishing: temporary file, fsync, rename, fsync of the folder; blobs first, then the record.
//!
//! The only code that adds to `cas/` and `ac/`. Every system call is preceded by `step`, so that the test at the foot
//! of this file can stop it at each of them. An fsync that fails is never tried again: after a failure the kernel may
//! have dropped the pages and call the file clean, so the task fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::entry::{Entry, Output};
use super::fingerprint::TaskRecord;
use super::stamp::Stamp;
use super::{Access, Error, Store, lock_file};
use crate::artifact::Sink;

/// An artifact being written, in a folder of its own below `tmp/`. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    dir: tempfile::TempDir,
    /// Held as long as the draft lives: a folder whose lock is free belonged to a killed run.
    _alive: Option<File>,
    files: BTreeMap<String, PathBuf>,
}

impl Sink for Draft {
    fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.dir.path().join(self.files.len().to_string());
        if self.files.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{name}` is there already")));
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        self.files.insert(name.to_owned(), path);
        Ok(file)
    }
}

/// What publishing did.
#[derive(Clone, Debug)]
pub struct Published {
    /// The new record.
    pub entry: Entry,
    /// Files that had other bytes in an earlier record of the same fingerprint: the stage does not do the same twice.
    pub differing: Vec<String>,
}

impl Store {
    /// A place to write a new artifact.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn draft(&self) -> Result<Draft, Error> {
        let tmp = self.dir.join("tmp");
        let dir = tempfile::Builder::new().prefix("task-").tempdir_in(&tmp).map_err(Error::io("write to", &tmp))?;
        let alive = lock_file(&dir.path().join("lock")).ok().filter(|file| file.try_lock().is_ok());
        Ok(Draft { dir, _alive: alive, files: BTreeMap::new() })
    }

    /// Removes what killed runs left in `tmp/`: everything, if nobody else uses the store.
    pub(super) fn sweep(&self, is_alone: bool) {
        let Ok(drafts) = fs::read_dir(self.dir.join("tmp")) else { return };
        for draft in drafts.flatten() {
            let path = draft.path();
            let lock = path.join("lock");
            let is_dead = if is_alone {
                true
            } else if lock.exists() {
                File::open(&lock).is_ok_and(|file| file.try_lock().is_ok())
            } else {
                // Without a lock only age can tell.
                draft
                    .metadata()
                    .and_then(|m| m.modified())
                    .is_ok_and(|at| super::stamp::now() - super::stamp::since_epoch(at) > 24 * 3600 * 1_000_000_000)
            };
            if is_dead {
                // What stays is swept next time.
                let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            }
        }
    }

    /// Makes a draft visible under the fingerprint of `task`, all of it or nothing.
    ///
    /// # Errors
    /// Those of the file system; nothing is visible then, and nothing was tried twice.
    pub fn publish(&self, draft: Draft, task: &TaskRecord, label: &str) -> Result<Published, Error> {
        debug_assert_eq!(self.access, Access::Write);
        let mut outputs = Vec::with_capacity(draft.files.len());
        for (name, path) in &draft.files {
            let (digest, size) = self.seal(path).map_err(Error::io("write", path))?;
            outputs.push(Output { name: name.clone(), size, digest });
        }
        for (output, path) in outputs.iter().zip(draft.files.values()) {
            let blob = self.blob_path(&output.digest);
            self.adopt(path, &blob, output).map_err(Error::io("write", &blob))?;
        }
        let blobs = self.dir.join("cas");
        self.sync_folder(&blobs).map_err(Error::io("write", &blobs))?;
        let fingerprint = task.fingerprint();
        let entry = Entry { fingerprint, label: label.to_owned(), outputs };
        let path = self.entry_path(&fingerprint);
        let differing = match self.entry(&fingerprint) {
            Some(earlier) if earlier.outputs != entry.outputs => differing(&earlier.outputs, &entry.outputs),
            _ => Vec::new(),
        };
        self.write_entry(&draft, &path, entry.render(task).as_bytes()).map_err(Error::io("write", &path))?;
        for output in &entry.outputs {
            if let Ok(metadata) = fs::metadata(self.blob_path(&output.digest)) {
                self.remember_stamp(output.digest, Stamp::of(&metadata));
            }
        }
        Ok(Published { entry, differing })
    }

    /// Makes a file read-only, brings it to the disk, and says what it holds.
    fn seal(&self, path: &Path) -> io::Result<(Digest, u64)> {
        self.step()?;
        let mut file = File::open(path)?;
        self.step()?;
        let sealed = Digest::of_reader(&mut file)?;
        self.step()?;
        let mut permissions = file.metadata()?.permissions();
        #[cfg(unix)]
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
        #[cfg(not(unix))]
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions)?;
        self.step()?;
        file.sync_all()?;
        Ok(sealed)
    }

    /// Moves a sealed file to its place in `cas/`, unless a verified one is there.
    fn adopt(&self, path: &Path, blob: &Path, output: &Output) -> io::Result<()> {
        self.step()?;
        let is_there = fs::metadata(blob).is_ok_and(|metadata| {
            metadata.len() == output.size && self.stamp_known(&output.digest) == Some(Stamp::of(&metadata))
        });
        if is_there {
            return Ok(());
        }
        self.step()?;
        fs::rename(path, blob)
    }

    fn write_entry(&self, draft: &Draft, path: &Path, text: &[u8]) -> io::Result<()> {
        let temporary = draft.dir.path().join("entry");
        self.step()?;
        let mut file = File::create(&temporary)?;
        self.step()?;
        file.write_all(text)?;
        self.step()?;
        file.sync_all()?;
        self.step()?;
        fs::rename(&temporary, path)?;
        self.sync_folder(&self.dir.join("ac"))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step()?;
        // Elsewhere a folder cannot be opened, and renames are journalled.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

fn differing(earlier: &[Output], later: &[Output]) -> Vec<String> {
    let names: BTreeSet<&String> = earlier.iter().chain(later).map(|output| &output.name).collect();
    let digest = |outputs: &[Output], name: &String| outputs.iter().find(|o| o.name == *name).map(|o| o.digest);
    names.into_iter().filter(|name| digest(earlier, name) != digest(later, name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::super::Found;
    use super::*;

    fn parts(seed: u64) -> TaskRecord {
        TaskRecord { kind: "toy".into(), seed: Some(seed), ..TaskRecord::default() }
    }

    fn write(store: &Store, seed: u64, content: &[u8]) -> Result<Published, Error> {
        let mut draft = store.draft()?;
        draft.put("a.bin", content).unwrap();
        draft.put("b.bin", b"the same every time").unwrap();
        draft.put("empty", b"").unwrap();
        store.publish(draft, &parts(seed), "toy")
    }

    #[test]
    fn what_is_published_is_found_and_read() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        assert!(matches!(store.find(&parts(1).fingerprint()), Found::Missing));
        let published = write(&store, 1, b"hello").unwrap();
        let Found::Hit(entry) = store.find(&parts(1).fingerprint()) else { panic!("no hit") };
        assert_eq!(entry, published.entry);
        let files = store.open_artifact(&entry).unwrap();
        assert_eq!(&**files.get("a.bin").unwrap(), b"hello");
        assert_eq!(&**files.get("empty").unwrap(), b"");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let blob = fs::metadata(store.blob_path(&Digest::of(b"hello"))).unwrap();
            assert_eq!(blob.permissions().mode() & 0o777, 0o444);
        }
        assert_eq!(fs::read_dir(store.dir.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn other_bytes_for_the_same_fingerprint_are_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        assert!(write(&store, 1, b"hello").unwrap().differing.is_empty());
        assert!(write(&store, 1, b"hello").unwrap().differing.is_empty());
        assert_eq!(write(&store, 1, b"other").unwrap().differing, ["a.bin"]);
    }

    #[test]
    fn stopped_at_any_system_call_the_store_is_whole() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("s");
        let mut calls = 0;
        loop {
            let seed = calls as u64;
            let store = Store::open(&dir, temp.path(), Access::Write).unwrap();
            store.fuse.store(calls + 1, SeqCst);
            let content = format!("content {seed}");
            let done = write(&store, seed, content.as_bytes()).is_ok();
            drop(store);
            // As the next run sees it: either all of it, or nothing.
            let store = Store::open(&dir, temp.path(), Access::Write).unwrap();
            match store.find(&parts(seed).fingerprint()) {
                Found::Hit(entry) => {
                    let files = store.open_artifact(&entry).unwrap();
                    assert_eq!(&**files.get("a.bin").unwrap(), content.as_bytes());
                    assert_eq!(files.0.len(), 3);
                }
                Found::Missing => assert!(!done, "done after {calls} calls, and not there"),
                other => panic!("after {calls} calls: {other:?}"),
            }
            assert!(store.verify(&mut |_, _| ()).unwrap().is_sound());
            // And it can be done again.
            write(&store, seed, content.as_bytes()).unwrap();
            if done {
                break;
            }
            calls += 1;
        }
        assert!(calls > 15, "only {calls} system calls were seen");
    }

    #[test]
    fn a_file_cannot_be_written_twice() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let mut draft = store.draft().unwrap();
        draft.put("a", b"1").unwrap();
        assert_eq!(draft.put("a", b"2").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn drafts_of_the_dead_are_swept_and_those_of_the_living_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("s");
        let store = Store::open(&dir, temp.path(), Access::Write).unwrap();
        let alive = store.draft().unwrap();
        let dead = dir.join("tmp").join("task-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("0"), "half").unwrap();
        // Without a lock nobody can tell, as long as somebody uses the store.
        let unknown = dir.join("tmp").join("note-x");
        fs::write(&unknown, "half").unwrap();
        drop(Store::open(&dir, temp.path(), Access::Write).unwrap());
        assert!(alive.dir.path().exists());
        assert!(!dead.exists());
        assert!(unknown.exists());
        drop((alive, store));
        drop(Store::open(&dir, temp.path(), Access::Write).unwrap());
        assert!(!unknown.exists());
    }
}
