//! Reading: records by fingerprint, blobs by digest, nothing damaged is ever served.

use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::digest::Digest;
use super::entry::{Entry, Output};
use super::fingerprint::TaskRecord;
use super::stamp::Stamp;
use super::{Access, Error, Store, entry, house, mapped};
use crate::artifact::{Bytes, Files};
use crate::files::{self, Own};

/// What the store has under a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record, and all its blobs.
    Hit(Entry),
    /// Nothing.
    Missing,
    /// A record, one of whose files, this one, was damaged and is in quarantine.
    Gone(String),
    /// A record, and of its files at least one is not here: what the task gave is known, and vouched for by nobody.
    Recorded {
        /// The record.
        entry: Entry,
        /// The first file that is not here.
        absent: String,
    },
    /// A damaged record, or a damaged file of the artifact. It is in quarantine now.
    Corrupt(String),
}

/// How old the time of last use may be before it is written anew: `gc` needs no more, and a no-op writes nothing.
const USE_GRAIN: Duration = Duration::from_secs(3600);

/// The largest record that is read, in bytes.
pub(super) const MOST: u64 = 64 << 20;

/// A record as it stands on the disk.
pub(super) enum Stored {
    Whole(Entry),
    Absent,
    Damaged,
}

impl Store {
    /// Looks a fingerprint up. By metadata alone: a blob is read only if it changed on disk since it was last verified.
    ///
    /// # Errors
    /// If the record or a blob is there and cannot be read; if a newer program wrote the record.
    pub fn find(&self, fingerprint: &Digest) -> Result<Found, Error> {
        self.look(fingerprint, false)
    }

    /// As [`Store::find`], but every blob is read and compared with its digest, whatever its stamp says.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn find_verified(&self, fingerprint: &Digest) -> Result<Found, Error> {
        self.look(fingerprint, true)
    }

    fn look(&self, fingerprint: &Digest, is_thorough: bool) -> Result<Found, Error> {
        let path = self.entry_path(fingerprint);
        let entry = match self.stored(&path, fingerprint)? {
            Stored::Whole(entry) => entry,
            Stored::Absent => return Ok(Found::Missing),
            Stored::Damaged => {
                self.quarantine(&path, fingerprint);
                return Ok(Found::Corrupt("record".to_owned()));
            }
        };
        let mut absent: Option<String> = None;
        for output in &entry.outputs {
            let blob = self.blob_path(&output.digest);
            match files::seen(&blob).map_err(Error::io("read", &blob))? {
                None if self.is_in_quarantine(&output.digest)? => return Ok(Found::Gone(output.name.clone())),
                None => {
                    absent.get_or_insert_with(|| output.name.clone());
                    continue;
                }
                Some(Ok(metadata)) if metadata.len() == output.size => {
                    let is_known = self.stamp_known(&output.digest) == Some(Stamp::of(&metadata));
                    // On a network file system stamps say little; the blob is verified when it is opened.
                    if !is_thorough && (self.is_remote || is_known) {
                        continue;
                    }
                }
                Some(_) => {
                    self.quarantine(&blob, &output.digest);
                    return Ok(Found::Corrupt(output.name.clone()));
                }
            }
            match self.open_checked(output) {
                Ok(_) => {}
                Err(Error::Corrupt { file, .. }) => return Ok(Found::Corrupt(file)),
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    absent.get_or_insert_with(|| output.name.clone());
                }
                Err(error) => return Err(error),
            }
        }
        self.touch(&path);
        Ok(match absent {
            None => Found::Hit(entry),
            Some(absent) => Found::Recorded { entry, absent },
        })
    }

    /// The record in the file `path` of `ac/`.
    pub(super) fn stored(&self, path: &Path, fingerprint: &Digest) -> Result<Stored, Error> {
        let Some(text) = self.text(path)? else { return Ok(Stored::Absent) };
        let entry = Entry::parse(&text).filter(|entry| entry.fingerprint == *fingerprint);
        Ok(entry.map_or(Stored::Damaged, Stored::Whole))
    }

    /// The text of a record; what is not text reads as an empty one.
    fn text(&self, path: &Path) -> Result<Option<String>, Error> {
        let bytes = match files::read_own(path, MOST).map_err(Error::io("read", path))? {
            Own::Absent => return Ok(None),
            Own::Foreign => Vec::new(),
            Own::Regular(_, bytes) => bytes,
        };
        let text = String::from_utf8(bytes).unwrap_or_default();
        if entry::is_newer(&text) {
            return Err(Error::NewerFile { path: path.to_owned() });
        }
        Ok(Some(text))
    }

    /// The record of a fingerprint, as it stands: its blobs are not looked at. A damaged one is none.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read_entry(&self, fingerprint: &Digest) -> Result<Option<Entry>, Error> {
        let path = self.entry_path(fingerprint);
        Ok(match self.stored(&path, fingerprint)? {
            Stored::Whole(entry) => Some(entry),
            Stored::Absent => None,
            Stored::Damaged => {
                self.quarantine(&path, fingerprint);
                None
            }
        })
    }

    /// What the task with this fingerprint was, if its record is here and whole.
    pub fn task(&self, fingerprint: &Digest) -> Option<TaskRecord> {
        let text = self.text(&self.entry_path(fingerprint)).ok()??;
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
        let wanted = entry.outputs.iter().filter(|output| wanted(&output.name));
        wanted
            .map(|output| self.open_blob(&output.name, output.digest, Some(output.size)))
            .collect::<Result<_, _>>()
            .map(Files)
    }

    /// A file of an artifact with its name; of this size, if that is known.
    fn open_blob(&self, name: &str, digest: Digest, size: Option<u64>) -> Result<(String, Bytes), Error> {
        let path = self.blob_path(&digest);
        let (file, metadata) = self.open_regular_blob(name, &digest, size)?;
        let output = Output { name: name.to_owned(), size: metadata.len(), digest };
        if self.is_remote {
            let bytes = self.read_whole(file, &output).map(Bytes::new)?;
            return Ok((output.name, bytes));
        }
        let file = match self.stamp_known(&digest) {
            Some(stamp) if stamp == Stamp::of(&metadata) => file,
            _ => self.check(file, &metadata, &output)?,
        };
        let bytes = match output.size {
            0 => Bytes::new(Vec::new()),
            _ => Bytes::new(mapped::Map::of(&file, &path).map_err(Error::io("map", &path))?),
        };
        Ok((output.name, bytes))
    }

    /// Files by their digests, whatever task they are of.
    ///
    /// # Errors
    /// As [`Store::open_artifact`].
    pub fn open_named(&self, files: &[(String, Digest)]) -> Result<Files, Error> {
        files.iter().map(|(name, digest)| self.open_blob(name, *digest, None)).collect::<Result<_, _>>().map(Files)
    }

    /// Whether a blob is still what was verified when it was opened: a map shows whatever is written to its file. One
    /// that is not there any more stays in its map as it was.
    pub fn is_unchanged(&self, digest: &Digest) -> bool {
        // On a network file system files are read whole, and verified then.
        self.is_remote
            || match std::fs::symlink_metadata(self.blob_path(digest)) {
                Ok(metadata) => self.stamp_known(digest) == Some(Stamp::of(&metadata)),
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            }
    }

    /// Opens a blob that is a regular file, of the right size if that is known; what is not goes to quarantine.
    fn open_regular_blob(&self, name: &str, digest: &Digest, size: Option<u64>) -> Result<(File, Metadata), Error> {
        let path = self.blob_path(digest);
        match files::open_own(&path).map_err(Error::io("read", &path))? {
            Own::Regular(file, metadata) if size.is_none_or(|size| metadata.len() == size) => Ok((file, metadata)),
            Own::Absent => Err(Error::io("read", &path)(std::io::ErrorKind::NotFound.into())),
            Own::Regular(..) | Own::Foreign => {
                self.quarantine(&path, digest);
                Err(Error::Corrupt { file: name.to_owned(), digest: *digest })
            }
        }
    }

    pub(super) fn open_checked(&self, output: &Output) -> Result<File, Error> {
        let (file, metadata) = self.open_regular_blob(&output.name, &output.digest, Some(output.size))?;
        self.check(file, &metadata, output)
    }

    /// Verifies a blob by its digest, and remembers or quarantines it.
    fn check(&self, mut file: File, metadata: &Metadata, output: &Output) -> Result<File, Error> {
        let path = self.blob_path(&output.digest);
        let (digest, _) = Digest::of_reader(&mut file).map_err(Error::io("read", &path))?;
        if digest != output.digest {
            self.quarantine(&path, &output.digest);
            return Err(Error::Corrupt { file: output.name.clone(), digest: output.digest });
        }
        self.remember_stamp(output.digest, Stamp::of(metadata));
        Ok(file)
    }

    /// On a network file system: a map of a file that somebody truncates kills the process.
    fn read_whole(&self, mut file: File, output: &Output) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(&output.digest);
        let mut bytes = Vec::new();
        file.rewind().map_err(Error::io("read", &path))?;
        file.take(output.size.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        if Digest::of(&bytes) != output.digest {
            self.quarantine(&path, &output.digest);
            return Err(Error::Corrupt { file: output.name.clone(), digest: output.digest });
        }
        Ok(bytes)
    }

    /// Moves a damaged file, or what stands in its place, out of the way, where it can be looked at.
    pub(super) fn quarantine(&self, path: &Path, digest: &Digest) {
        if self.access == Access::Look {
            return;
        }
        // A store on a full or failing disk: the file is overwritten by the recomputed one, then.
        let _ = house::displace(&*self.calls, &self.dir, path, &digest.to_string());
    }

    /// Whether a file of this digest was moved to quarantine: it was here, and is to be computed again.
    fn is_in_quarantine(&self, digest: &Digest) -> Result<bool, Error> {
        let prefix = format!("{digest}-");
        let names = self.names_in("quarantine")?;
        Ok(names.iter().any(|name| name.to_str().is_some_and(|name| name.starts_with(&prefix))))
    }

    /// Notes that a record was used.
    fn touch(&self, path: &Path) {
        if self.access == Access::Look {
            return;
        }
        let Ok(Own::Regular(file, metadata)) = files::open_own(path) else { return };
        let now = SystemTime::now();
        let is_recent = metadata.modified().is_ok_and(|at| now.duration_since(at).map_or(true, |age| age < USE_GRAIN));
        if !is_recent {
            // Only `gc` reads it, and only to choose.
            let _ = file.set_modified(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::fingerprint::TaskRecord;
    use super::*;
    use crate::artifact::Sink;

    fn store_with(content: &[u8]) -> (tempfile::TempDir, Store, Entry) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let mut draft = store.draft().unwrap();
        draft.put("a.bin", content).unwrap();
        let entry = store.publish(draft, &TaskRecord::default(), "toy", Vec::new()).unwrap().entry;
        (temp, store, entry)
    }

    fn overwrite(path: &Path, content: &[u8]) {
        let before = Stamp::of(&fs::metadata(path).unwrap());
        let mut permissions = fs::metadata(path).unwrap().permissions();
        #[cfg(unix)]
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        fs::set_permissions(path, permissions).unwrap();
        fs::write(path, content).unwrap();
        // Within a tick of the file system's clock the stamp may stay the same.
        while Stamp::of(&fs::metadata(path).unwrap()).changed == before.changed {
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn a_damaged_blob_is_quarantined_never_served() {
        for damage in [&b"hellO"[..], b"hell", b"hello!", b""] {
            let (_temp, store, entry) = store_with(b"hello");
            overwrite(&store.blob_path(&entry.outputs[0].digest), damage);
            assert_eq!(store.find(&entry.fingerprint).unwrap(), Found::Corrupt("a.bin".into()), "{damage:?}");
            assert_eq!(fs::read_dir(store.dir.join("quarantine")).unwrap().count(), 1);
            assert_eq!(store.find(&entry.fingerprint).unwrap(), Found::Gone("a.bin".into()));
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
            assert_eq!(store.find(&entry.fingerprint).unwrap(), Found::Corrupt("record".into()));
            assert_eq!(store.find(&entry.fingerprint).unwrap(), Found::Missing);
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
        assert!(matches!(store.find(&entry.fingerprint), Ok(Found::Hit(_))));
        assert!(store.stamp_known(&entry.outputs[0].digest).is_some());
    }

    #[test]
    fn a_verified_look_reads_whatever_the_stamps_say() {
        let (_temp, store, entry) = store_with(b"hello");
        let blob = store.blob_path(&entry.outputs[0].digest);
        overwrite(&blob, b"hellO");
        // As if the disk had changed the bits under an unchanged stamp.
        store.remember_stamp(entry.outputs[0].digest, super::super::stamp::stamp_of(&blob).unwrap());
        assert!(matches!(store.find(&entry.fingerprint), Ok(Found::Hit(_))));
        assert_eq!(store.find_verified(&entry.fingerprint).unwrap(), Found::Corrupt("a.bin".into()));
        assert!(!blob.exists());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_in_a_files_place_goes_to_quarantine_at_once() {
        use std::os::unix::fs::symlink;
        type Put = fn(&Path);
        let puts: &[Put] = &[
            |p| fs::create_dir(p).unwrap(),
            |p| fs::create_dir_all(p.join("full")).unwrap(),
            |p| symlink("nowhere", p).unwrap(),
            |p| symlink("/dev/zero", p).unwrap(),
            |p| assert!(std::process::Command::new("mkfifo").arg(p).status().unwrap().success()),
            |p| drop(std::os::unix::net::UnixListener::bind(p).unwrap()),
        ];
        for (i, put) in puts.iter().enumerate() {
            for is_record in [true, false] {
                // The path of a socket has to be short.
                let (temp, store, entry) = store_with(b"hello");
                let (path, what) = match is_record {
                    true => (store.entry_path(&entry.fingerprint), "record"),
                    false => (store.blob_path(&entry.outputs[0].digest), "a.bin"),
                };
                fs::remove_file(&path).unwrap();
                let short = temp.path().join("x");
                put(&short);
                fs::rename(&short, &path).unwrap();
                if !is_record {
                    assert!(matches!(store.open_artifact(&entry), Err(Error::Corrupt { .. })), "{i}");
                    fs::rename(
                        fs::read_dir(store.dir.join("quarantine")).unwrap().next().unwrap().unwrap().path(),
                        &path,
                    )
                    .unwrap();
                }
                assert_eq!(store.find(&entry.fingerprint).unwrap(), Found::Corrupt(what.into()), "{i}");
                assert!(fs::symlink_metadata(&path).is_err(), "{i}");
                let mut draft = store.draft().unwrap();
                draft.put("a.bin", b"hello").unwrap();
                store.publish(draft, &TaskRecord::default(), "toy", Vec::new()).unwrap();
                assert!(matches!(store.find(&entry.fingerprint), Ok(Found::Hit(_))), "{i}");
            }
        }
    }

    #[test]
    fn a_record_under_another_key_is_damaged_and_a_newer_one_is_left_alone() {
        let (_temp, store, entry) = store_with(b"hello");
        let other = Digest::of(b"other");
        fs::copy(store.entry_path(&entry.fingerprint), store.entry_path(&other)).unwrap();
        assert_eq!(store.find(&other).unwrap(), Found::Corrupt("record".into()));
        let path = store.entry_path(&entry.fingerprint);
        let newer = fs::read_to_string(&path).unwrap().replace("convoy entry 3", "convoy entry 4");
        fs::write(&path, &newer).unwrap();
        assert!(matches!(store.find(&entry.fingerprint), Err(Error::NewerFile { .. })));
        let mut draft = store.draft().unwrap();
        draft.put("a.bin", b"hello").unwrap();
        assert!(matches!(
            store.publish(draft, &TaskRecord::default(), "toy", Vec::new()),
            Err(Error::NewerFile { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_read_is_an_error_with_its_path() {
        let (_temp, store, entry) = store_with(b"hello");
        let ac = store.dir.join("ac");
        fs::rename(&ac, store.dir.join("hidden")).unwrap();
        // A loop of links cannot be read, by nobody.
        std::os::unix::fs::symlink("ac", &ac).unwrap();
        let error = store.find(&entry.fingerprint).unwrap_err().to_string();
        assert!(error.starts_with("cannot read `") && error.contains(&entry.fingerprint.to_string()), "{error}");
    }
}
