//! Reading: records by fingerprint, blobs by digest, nothing damaged is ever served.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::digest::Digest;
use super::entry::{Entry, Output};
use super::fingerprint::TaskRecord;
use super::stamp::Stamp;
use super::{Access, Error, Store};
use crate::artifact::{Bytes, Files};

/// What the store has under a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record, and all its blobs.
    Hit(Entry),
    /// Nothing.
    Missing,
    /// A record without this file of the artifact.
    Gone(String),
    /// A damaged record, or a damaged file of the artifact. It is in quarantine now.
    Corrupt(String),
}

/// How old the time of last use may be before it is written anew: `gc` needs no more, and a no-op writes nothing.
const USE_GRAIN: Duration = Duration::from_secs(3600);

impl Store {
    /// Looks a fingerprint up. By metadata alone: a blob is read only if it changed on disk since it was last verified.
    pub fn find(&self, fingerprint: &Digest) -> Found {
        let path = self.entry_path(fingerprint);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(_) => return Found::Missing,
        };
        let Some(entry) = Entry::parse(&text).filter(|entry| entry.fingerprint == *fingerprint) else {
            self.quarantine(&path, fingerprint);
            return Found::Corrupt("record".to_owned());
        };
        for output in &entry.outputs {
            let blob = self.blob_path(&output.digest);
            let Ok(metadata) = fs::metadata(&blob) else { return Found::Gone(output.name.clone()) };
            if metadata.len() != output.size {
                self.quarantine(&blob, &output.digest);
                return Found::Corrupt(output.name.clone());
            }
            // On a network file system stamps say little; the blob is verified when it is opened.
            if !self.is_remote && self.stamp_known(&output.digest) != Some(Stamp::of(&metadata)) {
                match File::open(&blob).map_err(Error::io("read", &blob)).and_then(|f| self.check(f, output)) {
                    Ok(_) => {}
                    Err(Error::Corrupt { file, .. }) => return Found::Corrupt(file),
                    Err(_) => return Found::Gone(output.name.clone()),
                }
            }
        }
        self.touch(&path);
        Found::Hit(entry)
    }

    /// The record of a fingerprint, as it stands: its blobs are not looked at.
    pub fn entry(&self, fingerprint: &Digest) -> Option<Entry> {
        Entry::parse(&fs::read_to_string(self.entry_path(fingerprint)).ok()?)
    }

    /// What the task with this fingerprint was, if its record is here and whole.
    pub fn task(&self, fingerprint: &Digest) -> Option<TaskRecord> {
        let text = fs::read_to_string(self.entry_path(fingerprint)).ok()?;
        let (entry, task) = Entry::parse_with_task(&text)?;
        if entry.fingerprint == *fingerprint { TaskRecord::parse(task) } else { None }
    }

    /// The files of a finished task, mapped (read, on a network file system).
    ///
    /// # Errors
    /// If a blob is gone or damaged (it is in quarantine then).
    pub fn open_artifact(&self, entry: &Entry) -> Result<Files, Error> {
        self.open_files(entry, &|_| true)
    }

    /// Those of its files that are `wanted` by name.
    ///
    /// # Errors
    /// As [`Store::open_artifact`].
    pub fn open_files(&self, entry: &Entry, wanted: &dyn Fn(&str) -> bool) -> Result<Files, Error> {
        entry
            .outputs
            .iter()
            .filter(|output| wanted(&output.name))
            .map(|output| Ok((output.name.clone(), self.open_blob(output)?)))
            .collect::<Result<_, _>>()
            .map(Files)
    }

    fn open_blob(&self, output: &Output) -> Result<Bytes, Error> {
        let path = self.blob_path(&output.digest);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(Error::io("read", &path))?;
        let file = match self.stamp_known(&output.digest) {
            Some(stamp) if stamp == Stamp::of(&metadata) && !self.is_remote => file,
            _ => self.check(file, output)?,
        };
        if output.size == 0 {
            return Ok(Bytes::new(Vec::new()));
        }
        if self.is_remote {
            return read_whole(&path, output).map(Bytes::new);
        }
        Ok(Bytes::new(map(&file).map_err(Error::io("map", &path))?))
    }

    /// Verifies a blob by its digest, and remembers or quarantines it.
    fn check(&self, mut file: File, output: &Output) -> Result<File, Error> {
        let path = self.blob_path(&output.digest);
        let metadata = file.metadata().map_err(Error::io("read", &path))?;
        let (digest, _) = Digest::of_reader(&mut file).map_err(Error::io("read", &path))?;
        if digest != output.digest {
            self.quarantine(&path, &output.digest);
            return Err(Error::Corrupt { file: output.name.clone(), digest: output.digest });
        }
        self.remember_stamp(output.digest, Stamp::of(&metadata));
        Ok(file)
    }

    /// Moves a damaged file out of the way, where it can be looked at.
    pub(super) fn quarantine(&self, path: &Path, digest: &Digest) {
        if self.access == Access::Look {
            return;
        }
        let name = format!("{digest}-{}", super::stamp::now());
        // A store on a full or failing disk: the file is overwritten by the recomputed one, then.
        let _ = fs::rename(path, self.dir.join("quarantine").join(name));
    }

    /// Notes that a record was used.
    fn touch(&self, path: &Path) {
        if self.access == Access::Look {
            return;
        }
        let Ok(file) = File::open(path) else { return };
        let now = SystemTime::now();
        let is_recent = file
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|at| now.duration_since(at).map_or(true, |age| age < USE_GRAIN));
        if !is_recent {
            // Only `gc` reads it, and only to choose.
            let _ = file.set_modified(now);
        }
    }
}

/// On a network file system: a map of a file that somebody truncates kills the process.
fn read_whole(path: &Path, output: &Output) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(usize::try_from(output.size).unwrap_or(0));
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(Error::io("read", path))?;
    if Digest::of(&bytes) != output.digest {
        return Err(Error::Corrupt { file: output.name.clone(), digest: output.digest });
    }
    Ok(bytes)
}

#[expect(unsafe_code, reason = "mapping is what keeps a data set of gigabytes out of memory")]
fn map(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: blobs are written once, made read-only and then only renamed or unlinked, which leaves a map as it is;
    // nobody but the store writes below `cas/`.
    unsafe { memmap2::Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Sink;

    fn store_with(content: &[u8]) -> (tempfile::TempDir, Store, Entry) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let mut draft = store.draft().unwrap();
        draft.put("a.bin", content).unwrap();
        let entry = store.publish(draft, &TaskRecord::default(), "toy").unwrap().entry;
        (temp, store, entry)
    }

    fn overwrite(path: &Path, content: &[u8]) {
        // Past the tick of the file system's clock, else the stamp may stay the same.
        std::thread::sleep(Duration::from_millis(20));
        let mut permissions = fs::metadata(path).unwrap().permissions();
        #[cfg(unix)]
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        fs::set_permissions(path, permissions).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn a_damaged_blob_is_quarantined_never_served() {
        for damage in [&b"hellO"[..], b"hell", b"hello!", b""] {
            let (_temp, store, entry) = store_with(b"hello");
            overwrite(&store.blob_path(&entry.outputs[0].digest), damage);
            assert_eq!(store.find(&entry.fingerprint), Found::Corrupt("a.bin".into()), "{damage:?}");
            assert_eq!(fs::read_dir(store.dir.join("quarantine")).unwrap().count(), 1);
            assert_eq!(store.find(&entry.fingerprint), Found::Gone("a.bin".into()));
        }
    }

    #[test]
    fn opening_verifies_too() {
        let (_temp, store, entry) = store_with(b"hello");
        overwrite(&store.blob_path(&entry.outputs[0].digest), b"hellO");
        assert!(matches!(store.open_artifact(&entry), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn a_damaged_record_is_quarantined() {
        let (_temp, store, entry) = store_with(b"hello");
        let path = store.entry_path(&entry.fingerprint);
        let text = fs::read_to_string(&path).unwrap();
        for damage in [&text[..text.len() / 2], "", "\u{0}"] {
            fs::write(&path, damage).unwrap();
            assert_eq!(store.find(&entry.fingerprint), Found::Corrupt("record".into()));
            assert_eq!(store.find(&entry.fingerprint), Found::Missing);
        }
    }

    #[test]
    fn stamps_are_kept_and_a_copied_blob_is_verified_once() {
        let (temp, store, entry) = store_with(b"hello");
        store.save_stamps();
        drop(store);
        let dir = temp.path().join("s");
        let store = Store::open(&dir, temp.path(), Access::Write).unwrap();
        assert!(store.stamp_known(&entry.outputs[0].digest).is_some());
        // The index of stamps damaged: no stamps, no harm.
        fs::write(dir.join("index/blobs"), b"nonsense").unwrap();
        let store = Store::open(&dir, temp.path(), Access::Write).unwrap();
        assert_eq!(store.stamp_known(&entry.outputs[0].digest), None);
        assert!(matches!(store.find(&entry.fingerprint), Found::Hit(_)));
        assert!(store.stamp_known(&entry.outputs[0].digest).is_some());
    }
}
