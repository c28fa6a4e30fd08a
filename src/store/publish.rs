//! Publishing: temporary file, fsync, rename, fsync of the folder; blobs first, then the record.
//!
//! The only code that adds to `cas/` and `ac/`. Everything that it asks of the file system goes through
//! [`Calls`](crate::files::Calls), so that the tests at the foot of this file see the order of the calls and stop it at
//! each of them. An fsync that fails is never tried again: after a failure the kernel may have dropped the pages and
//! call the file clean, so the task fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::Digest;
use super::entry::{Entry, Output};
use super::fingerprint::TaskRecord;
use super::stamp::Stamp;
use super::{Access, Error, Store};
use crate::artifact::Sink;
use crate::files::{self, Calls, Folder, lock_file};

/// What the names of drafts begin with.
const TASK: &str = "task-";

/// The name of the record in a draft, and in a result in quarantine.
pub(super) const RECORD: &str = "record";

/// An artifact being written, in a folder of its own below `tmp/`. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    /// `tmp/`.
    tmp: PathBuf,
    name: String,
    /// Held as long as the draft lives: a folder whose lock is free belonged to a killed run.
    _alive: Option<File>,
    files: BTreeMap<String, PathBuf>,
    calls: Arc<dyn Calls>,
}

impl Draft {
    fn dir(&self) -> PathBuf {
        self.tmp.join(&self.name)
    }

    /// Where a file lies that was written.
    pub(super) fn place(&self, name: &str) -> Option<&Path> {
        self.files.get(name).map(PathBuf::as_path)
    }
}

impl Draft {
    /// What was written, sorted by name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn contents(&self) -> Result<Vec<Output>, Error> {
        let of = |(name, path): (&String, &PathBuf)| {
            let (digest, size) = (File::open(path).and_then(|mut file| Digest::of_reader(&mut file)))
                .map_err(Error::io("read", path))?;
            Ok(Output { name: name.clone(), size, digest })
        };
        self.files.iter().map(of).collect()
    }

    /// The names of what was written, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// A file that was written; `None` if there is none of this name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(Error::io("read", path));
        self.files.get(name).map(read).transpose()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What stays is swept by the next run.
        if let Ok(tmp) = Folder::open(&self.tmp) {
            clear(&*self.calls, &tmp, &self.name);
        }
    }
}

impl Sink for Draft {
    fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.dir().join(self.files.len().to_string());
        if self.files.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{name}` is there already")));
        }
        let file = self.calls.create(&path)?;
        self.files.insert(name.to_owned(), path);
        Ok(file)
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(name)?;
        self.calls.write(&mut file, &self.files[name], bytes)
    }
}

/// Whether `name` is one that a file in a draft, or in a result in quarantine, has.
pub(super) fn is_made(name: &str) -> bool {
    name == "lock"
        || name == RECORD
        || name.parse::<Digest>().is_ok()
        || name.len() <= 9 && !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
}

/// Removes a folder of ours with the files that we make in one; with anything else in it, it stays.
pub(super) fn clear(calls: &dyn Calls, above: &Folder, name: &str) {
    let Ok(folder) = above.inner(name) else { return };
    for file in folder.names().unwrap_or_default() {
        if let Some(file) = file.to_str().filter(|file| is_made(file)) {
            let _ = calls.unlink(&folder, file);
        }
    }
    let _ = above.remove_folder(name);
}

/// What publishing did.
#[derive(Clone, Debug)]
pub struct Published {
    /// The record that stands now: the new one, or the first one if it names other bytes.
    pub entry: Entry,
    /// Files that have other bytes in an earlier record of the same fingerprint: the stage does not do the same twice.
    /// The earlier record stays, and the new result is in quarantine, whole.
    pub differing: Vec<String>,
}

impl Store {
    /// A place to write a new artifact.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn draft(&self) -> Result<Draft, Error> {
        let tmp = self.dir.join("tmp");
        let name = files::unused_name(TASK);
        let dir = tmp.join(&name);
        self.calls.make_folder(&dir).map_err(Error::io("write to", &tmp))?;
        let alive = lock_file(&dir.join("lock")).ok().filter(|file| file.try_lock().is_ok());
        Ok(Draft { tmp, name, _alive: alive, files: BTreeMap::new(), calls: Arc::clone(&self.calls) })
    }

    /// Removes what killed runs left in `tmp/`, by names that we make: all of it, if nobody else uses the store.
    pub(super) fn sweep(&self, is_alone: bool) {
        let path = self.dir.join("tmp");
        let Ok(tmp) = Folder::open(&path) else { return };
        for name in tmp.names().unwrap_or_default() {
            let Some(name) = name.to_str() else { continue };
            if files::is_unused_name(name, super::house::NOTE) && is_alone {
                let _ = self.calls.unlink(&tmp, name);
            }
            if !files::is_unused_name(name, TASK) {
                continue;
            }
            let lock = path.join(name).join("lock");
            let is_dead = is_alone
                || match files::open_own(&lock) {
                    Ok(files::Own::Regular(file, _)) => file.try_lock().is_ok(),
                    // Without a lock only age can tell.
                    Ok(files::Own::Absent) => std::fs::symlink_metadata(path.join(name))
                        .and_then(|metadata| metadata.modified())
                        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 24 * 3600)),
                    Ok(files::Own::Foreign) | Err(_) => false,
                };
            if is_dead {
                clear(&*self.calls, &tmp, name);
            }
        }
        if !is_alone {
            files::sweep_names(&path, super::house::NOTE);
        }
    }

    /// Makes a draft visible under the fingerprint of `task`, all of it or nothing. If a record of that fingerprint
    /// names other bytes, that one stays, and the draft goes to quarantine. `warnings` are kept beside the outputs.
    ///
    /// # Errors
    /// Those of the file system; nothing is visible then, and nothing was tried twice. That the record that is there
    /// was written by a newer program.
    pub fn publish(
        &self,
        draft: Draft,
        task: &TaskRecord,
        label: &str,
        warnings: Vec<String>,
    ) -> Result<Published, Error> {
        debug_assert_eq!(self.access, Access::Write);
        let mut outputs = Vec::with_capacity(draft.files.len());
        for (name, path) in &draft.files {
            let (digest, size) = self.seal(path).map_err(Error::io("write", path))?;
            outputs.push(Output { name: name.clone(), size, digest });
        }
        let fingerprint = task.fingerprint();
        let entry = Entry { fingerprint, label: label.to_owned(), outputs, warnings };
        let text = entry.render(task);
        if let Some(first) = self.read_entry(&fingerprint)?.filter(|first| first.outputs != entry.outputs) {
            let differing = first.differing(&entry.outputs);
            self.set_aside(draft, &entry, text.as_bytes())?;
            return Ok(Published { entry: first, differing });
        }
        for (output, path) in entry.outputs.iter().zip(draft.files.values()) {
            let blob = self.blob_path(&output.digest);
            self.adopt(path, &blob, output).map_err(Error::io("write", &blob))?;
        }
        let blobs = self.dir.join("cas");
        self.calls.sync_folder(&blobs).map_err(Error::io("write", &blobs))?;
        let path = self.entry_path(&fingerprint);
        self.write_entry(&draft, &path, text.as_bytes()).map_err(Error::io("write", &path))?;
        for output in &entry.outputs {
            if let Ok(metadata) = std::fs::symlink_metadata(self.blob_path(&output.digest)) {
                self.remember_stamp(output.digest, Stamp::of(&metadata));
            }
        }
        Ok(Published { entry, differing: Vec::new() })
    }

    /// Makes a file read-only, brings it to the disk, and says what it holds.
    pub(super) fn seal(&self, path: &Path) -> io::Result<(Digest, u64)> {
        let mut file = File::open(path)?;
        let sealed = Digest::of_reader(&mut file)?;
        self.calls.protect(&file, path)?;
        self.calls.sync(&file, path)?;
        Ok(sealed)
    }

    /// Moves a sealed file to its place in `cas/`, unless a verified one is there.
    pub(super) fn adopt(&self, path: &Path, blob: &Path, output: &Output) -> io::Result<()> {
        let is_there = match files::seen(blob)? {
            Some(Ok(metadata)) => {
                metadata.len() == output.size && self.stamp_known(&output.digest) == Some(Stamp::of(&metadata))
            }
            Some(Err(_)) => {
                super::house::displace(&*self.calls, &self.dir, blob, &output.digest.to_string())?;
                false
            }
            None => false,
        };
        if is_there { Ok(()) } else { self.calls.rename(path, blob) }
    }

    pub(super) fn write_entry(&self, draft: &Draft, path: &Path, text: &[u8]) -> io::Result<()> {
        let temporary = self.write_record(draft, text)?;
        self.calls.rename(&temporary, path)?;
        self.calls.sync_folder(&self.dir.join("ac"))
    }

    fn write_record(&self, draft: &Draft, text: &[u8]) -> io::Result<PathBuf> {
        let temporary = draft.dir().join(RECORD);
        let mut file = self.calls.create(&temporary)?;
        self.calls.write(&mut file, &temporary, text)?;
        self.calls.sync(&file, &temporary)?;
        Ok(temporary)
    }

    /// Moves a result that contradicts the record to `quarantine/FINGERPRINT-TIME/`: its blobs under their digests,
    /// and its record.
    fn set_aside(&self, draft: Draft, entry: &Entry, text: &[u8]) -> Result<(), Error> {
        let dir = draft.dir();
        let place = self.dir.join("quarantine").join(format!("{}-{}", entry.fingerprint, super::stamp::now()));
        let move_all = || {
            for (output, path) in entry.outputs.iter().zip(draft.files.values()) {
                self.calls.rename(path, &dir.join(output.digest.to_string()))?;
            }
            self.write_record(&draft, text)?;
            self.calls.sync_folder(&dir)?;
            self.calls.rename(&dir, &place)?;
            self.calls.sync_folder(&self.dir.join("quarantine"))
        };
        move_all().map_err(Error::io("write", &place))
    }
}

impl Entry {
    /// The names of the files that are other ones in `later`, or only in one of both.
    pub fn differing(&self, later: &[Output]) -> Vec<String> {
        let names: BTreeSet<&String> = self.outputs.iter().chain(later).map(|output| &output.name).collect();
        let digest = |outputs: &[Output], name: &String| outputs.iter().find(|o| o.name == *name).map(|o| o.digest);
        names.into_iter().filter(|name| digest(&self.outputs, name) != digest(later, name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Found;
    use super::*;
    use crate::files::{How, Recorder};

    fn parts(seed: u64) -> TaskRecord {
        TaskRecord { kind: "toy".into(), seed: Some(seed), ..TaskRecord::default() }
    }

    fn write(store: &Store, seed: u64, content: &[u8]) -> Result<Published, Error> {
        let mut draft = store.draft()?;
        draft.put("a.bin", content).unwrap();
        draft.put("b.bin", b"the same every time").unwrap();
        draft.put("empty", b"").unwrap();
        store.publish(draft, &parts(seed), "toy", Vec::new())
    }

    #[test]
    fn what_is_published_is_found_and_read() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        assert_eq!(store.find(&parts(1).fingerprint()).unwrap(), Found::Missing);
        let published = write(&store, 1, b"hello").unwrap();
        let Found::Hit(entry) = store.find(&parts(1).fingerprint()).unwrap() else { panic!("no hit") };
        assert_eq!(entry, published.entry);
        let files = store.open_artifact(&entry).unwrap();
        assert_eq!(&**files.get("a.bin").unwrap(), b"hello");
        assert_eq!(&**files.get("empty").unwrap(), b"");
        assert_eq!(fs::read_dir(store.dir.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn of_two_results_the_first_stays_and_the_other_goes_to_quarantine_whole() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        assert!(write(&store, 1, b"hello").unwrap().differing.is_empty());
        assert!(write(&store, 1, b"hello").unwrap().differing.is_empty());
        assert!(store.disputes().unwrap().is_empty());
        for n in 1..3 {
            let published = write(&store, 1, b"other").unwrap();
            assert_eq!(published.differing, ["a.bin"]);
            assert_eq!(published.entry.outputs[0].digest, Digest::of(b"hello"));
            let Found::Hit(entry) = store.find(&parts(1).fingerprint()).unwrap() else { panic!("no hit") };
            assert_eq!(entry, published.entry);
            assert!(!store.blob_path(&Digest::of(b"other")).exists());
            let disputes = store.disputes().unwrap();
            assert_eq!(disputes.len(), n);
            let (place, other) = &disputes[0];
            assert_eq!(other.fingerprint, entry.fingerprint);
            assert_eq!(fs::read(place.join(Digest::of(b"other").to_string())).unwrap(), b"other");
            assert_eq!(fs::read_dir(store.dir.join("tmp")).unwrap().count(), 0);
        }
    }

    #[test]
    fn blobs_are_on_the_disk_before_the_record_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("s");
        let mut store = Store::open(&dir, temp.path(), Access::Write).unwrap();
        let recorder = Arc::new(Recorder::new(&dir));
        store.calls = Arc::clone(&recorder) as Arc<dyn Calls>;
        write(&store, 1, b"hello").unwrap();
        let blobs = 3;
        let expected = [
            vec!["make-folder tmp"],
            ["create tmp", "write tmp"].repeat(blobs),
            ["protect tmp", "sync tmp"].repeat(blobs),
            vec!["rename tmp cas"; blobs],
            vec!["sync-folder cas"],
            vec!["create tmp", "write tmp", "sync tmp", "rename tmp ac", "sync-folder ac"],
            vec!["unlink tmp"],
        ]
        .concat();
        assert_eq!(recorder.log(), expected);
    }

    #[test]
    fn stopped_at_any_call_the_store_is_whole() {
        for how in [How::Fail, How::Die, How::DieAfter] {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path().join("s");
            for at in 1.. {
                let content = format!("content {at}");
                let mut store = Store::open(&dir, temp.path(), Access::Write).unwrap();
                let recorder = Arc::new(Recorder::failing(&dir, at, how));
                store.calls = Arc::clone(&recorder) as Arc<dyn Calls>;
                let draft = store.draft().and_then(|mut draft| {
                    for (name, bytes) in [("a.bin", content.as_bytes()), ("b.bin", b"the same every time")] {
                        draft.put(name, bytes).map_err(Error::io("write", &dir))?;
                    }
                    Ok(draft)
                });
                let published = draft.and_then(|draft| store.publish(draft, &parts(at as u64), "toy", Vec::new()));
                let n_calls = recorder.log().len();
                drop(store);
                // The calls up to the last one that publishes; after it only the draft is cleared away.
                let is_all = n_calls < at;
                if how == How::Fail {
                    assert_eq!(published.is_ok(), recorder.log().get(at - 1).is_none_or(|call| call == "unlink tmp"));
                }
                // As the next run sees it: either all of it, or nothing.
                let store = Store::open(&dir, temp.path(), Access::Write).unwrap();
                match store.find(&parts(at as u64).fingerprint()).unwrap() {
                    Found::Hit(entry) => {
                        let files = store.open_artifact(&entry).unwrap();
                        assert_eq!(&**files.get("a.bin").unwrap(), content.as_bytes());
                        assert_eq!(files.0.len(), 2);
                    }
                    Found::Missing => assert!(published.is_err(), "done at call {at}, and not there"),
                    other => panic!("at call {at}: {other:?}"),
                }
                assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0, "{how:?} {at}");
                assert!(store.verify(&mut |_, _| ()).unwrap().is_sound());
                // And it can be done again.
                let mut draft = store.draft().unwrap();
                draft.put("a.bin", content.as_bytes()).unwrap();
                draft.put("b.bin", b"the same every time").unwrap();
                assert!(store.publish(draft, &parts(at as u64), "toy", Vec::new()).unwrap().differing.is_empty());
                if is_all {
                    assert!(at > 15, "only {at} calls were seen");
                    break;
                }
            }
        }
    }

    #[test]
    fn the_rest_of_a_sealed_file_is_readable_as_the_umask_says() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let entry = write(&store, 1, b"hello").unwrap().entry;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let plain = temp.path().join("plain");
            File::create(&plain).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&store.blob_path(&entry.outputs[0].digest)), mode(&plain) & !0o222);
            assert_eq!(mode(&store.entry_path(&entry.fingerprint)), mode(&plain));
            assert_eq!(mode(&store.dir.join("format")), mode(&plain));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_a_link_in_tmp_leads_to_is_never_swept() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("s");
        drop(Store::open(&dir, temp.path(), Access::Write).unwrap());
        let photos = temp.path().join("photos");
        fs::create_dir(&photos).unwrap();
        fs::write(photos.join("0"), "a photo").unwrap();
        fs::write(dir.join("tmp/holiday.jpg"), "a photo").unwrap();
        std::os::unix::fs::symlink(&photos, dir.join("tmp").join(files::unused_name(TASK))).unwrap();
        let mixed = dir.join("tmp").join(files::unused_name(TASK));
        fs::create_dir(&mixed).unwrap();
        fs::write(mixed.join("0"), "half").unwrap();
        fs::write(mixed.join("thesis.txt"), "mine").unwrap();
        drop(Store::open(&dir, temp.path(), Access::Write).unwrap());
        assert!(photos.join("0").exists() && dir.join("tmp/holiday.jpg").exists());
        assert!(mixed.join("thesis.txt").exists() && !mixed.join("0").exists());
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
        let dead = dir.join("tmp").join(files::unused_name(TASK));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("0"), "half").unwrap();
        // Without a lock nobody can tell, as long as somebody uses the store.
        let unknown = dir.join("tmp").join(files::unused_name(TASK));
        fs::create_dir(&unknown).unwrap();
        drop(Store::open(&dir, temp.path(), Access::Write).unwrap());
        assert!(alive.dir().exists());
        assert!(!dead.exists());
        assert!(unknown.exists());
        drop((alive, store));
        drop(Store::open(&dir, temp.path(), Access::Write).unwrap());
        assert!(!unknown.exists());
    }
}
