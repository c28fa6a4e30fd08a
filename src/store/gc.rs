//! Housekeeping: what is in the store, and what may go. It stops at the first thing that it cannot read.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::digest::Digest;
use super::entry::Entry;
use super::read::Stored;
use super::stamp::{self, Stamp};
use super::{Error, Store, publish};
use crate::files::{self, Folder};

/// A finished task in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its record.
    pub entry: Entry,
    /// When it was last used, to the hour.
    pub used: SystemTime,
    /// How many of its files are not here.
    pub absent: usize,
}

/// What `gc` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The fingerprints of the records removed.
    pub removed: BTreeSet<Digest>,
    /// Records removed.
    pub removed_entries: usize,
    /// Blobs removed, those without a record among them.
    pub removed_blobs: usize,
    /// Bytes of those blobs.
    pub removed_bytes: u64,
    /// Records kept.
    pub kept_entries: usize,
    /// Bytes of the blobs kept.
    pub kept_bytes: u64,
}

/// How long what nobody refers to is kept: listings of sources, checkpoints; blobs, where locks do not work.
const GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a blob is kept that no record names: a run on another machine, whose lock is not seen here, may be about to
/// write the record.
const YOUNG: Duration = Duration::from_secs(3600);

/// What is to be removed: a folder of the store, and names in it.
struct Doomed {
    folder: &'static str,
    names: Vec<String>,
}

impl Store {
    /// The names in one of the store's folders that are digests, sorted. None if there is no store.
    pub(super) fn digests_in(&self, folder: &str) -> Result<Vec<Digest>, Error> {
        Ok(self.names_in(folder)?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    pub(super) fn names_in(&self, folder: &str) -> Result<Vec<OsString>, Error> {
        let path = self.dir.join(folder);
        match Folder::open(&path).and_then(|folder| folder.names()) {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Every finished task, by label, then by fingerprint. Files that are not here are counted in [`Listed::absent`].
    ///
    /// # Errors
    /// If a record cannot be read, is damaged, or is a newer program's.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let here: BTreeSet<Digest> = self.digests_in("cas")?.into_iter().collect();
        let mut listed = Vec::new();
        for fingerprint in self.digests_in("ac")? {
            let path = self.entry_path(&fingerprint);
            let entry = match self.stored(&path, &fingerprint)? {
                Stored::Whole(entry) => entry,
                Stored::Damaged => return Err(Error::Damaged { path }),
                // Another run has just quarantined it.
                Stored::Absent => continue,
            };
            let used = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
            let absent = entry.outputs.iter().filter(|output| !here.contains(&output.digest)).count();
            listed.push(Listed { entry, used: used.map_err(Error::io("read", &path))?, absent });
        }
        listed.sort_by(|a, b| (&a.entry.label, a.entry.fingerprint).cmp(&(&b.entry.label, b.entry.fingerprint)));
        Ok(listed)
    }

    /// Removes what is in `drop`, and of what is not in `keep` the least recently used until the blobs take at most
    /// `max_size` bytes, and then every blob without a record that is not young. Records go before blobs, so that a killed `gc` leaves no
    /// record without its blobs. Only names that the store makes are removed. With `is_dry` nothing is removed.
    ///
    /// # Errors
    /// If a run uses the store; if something cannot be read, or removed: nothing more is removed, then.
    pub fn gc(
        &mut self,
        keep: &BTreeSet<Digest>,
        drop: &BTreeSet<Digest>,
        max_size: u64,
        is_dry: bool,
    ) -> Result<Cleaned, Error> {
        self.gc_at((keep, drop), max_size, is_dry, SystemTime::now())
    }

    fn gc_at(
        &mut self,
        (keep, drop): (&BTreeSet<Digest>, &BTreeSet<Digest>),
        max_size: u64,
        is_dry: bool,
        now: SystemTime,
    ) -> Result<Cleaned, Error> {
        // Our own share of the lock would be in the way.
        let was_shared = self.in_use.take().is_some();
        let alone = self.lock_alone();
        let cleaned = alone.and_then(|alone| self.collect((keep, drop), max_size, is_dry, alone.is_some(), now));
        if was_shared {
            self.in_use = self.lock_for_use();
        }
        cleaned
    }

    fn collect(
        &self,
        (keep, drop): (&BTreeSet<Digest>, &BTreeSet<Digest>),
        max_size: u64,
        is_dry: bool,
        is_alone: bool,
        now: SystemTime,
    ) -> Result<Cleaned, Error> {
        let mut listed = self.list()?;
        listed.sort_by_key(|l| (l.used, l.entry.fingerprint));
        let mut users: HashMap<Digest, (usize, u64)> = HashMap::new();
        // What is known by its record only takes no room.
        let here: BTreeSet<Digest> = self.digests_in("cas")?.into_iter().collect();
        for output in listed.iter().flat_map(|l| &l.entry.outputs) {
            let size = if here.contains(&output.digest) { output.size } else { 0 };
            users.entry(output.digest).or_insert((0, size)).0 += 1;
        }
        let mut size: u64 = users.values().map(|(_, size)| size).sum();
        let mut cleaned = Cleaned::default();
        let mut records = Vec::new();
        for item in &listed {
            let fingerprint = item.entry.fingerprint;
            if keep.contains(&fingerprint) || size <= max_size && !drop.contains(&fingerprint) {
                cleaned.kept_entries += 1;
                continue;
            }
            cleaned.removed_entries += 1;
            cleaned.removed.insert(fingerprint);
            records.push(fingerprint.to_string());
            for output in &item.entry.outputs {
                if let Some((count, bytes)) = users.get_mut(&output.digest) {
                    *count -= 1;
                    if *count == 0 {
                        size -= *bytes;
                    }
                }
            }
        }
        let older_than = |path: &Path, age: Duration| -> Result<bool, Error> {
            let metadata = fs::symlink_metadata(path).map_err(Error::io("read", path))?;
            let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
            Ok(Stamp::of(&metadata).changed.saturating_add(age) < stamp::since_epoch(now))
        };
        let mut blobs = Vec::new();
        for digest in here {
            let path = self.blob_path(&digest);
            // Something else in a blob's place is for `verify` to move away.
            let Some(Ok(metadata)) = files::seen(&path).map_err(Error::io("read", &path))? else { continue };
            let is_kept = match users.get(&digest) {
                Some((count, _)) if *count > 0 => true,
                // Without working locks a run may be about to write the record of a new blob.
                Some(_) => !is_alone && !older_than(&path, GRACE)?,
                None => !older_than(&path, if is_alone { YOUNG } else { GRACE })?,
            };
            if is_kept {
                cleaned.kept_bytes += metadata.len();
            } else {
                cleaned.removed_blobs += 1;
                cleaned.removed_bytes += metadata.len();
                blobs.push(digest.to_string());
            }
        }
        let mut doomed = vec![Doomed { folder: "ac", names: records }, Doomed { folder: "cas", names: blobs }];
        for folder in ["checkpoints", "index/trees"] {
            let mut names = Vec::new();
            for digest in self.digests_in(folder)? {
                let name = digest.to_string();
                if older_than(&self.dir.join(folder).join(&name), GRACE)? {
                    names.push(name);
                }
            }
            doomed.push(Doomed { folder, names });
        }
        if is_alone {
            let names = self.digests_in("locks")?.iter().map(Digest::to_string).collect();
            doomed.push(Doomed { folder: "locks", names });
        }
        if !is_dry {
            for part in doomed {
                self.remove_all(&part)?;
            }
            self.clear_quarantine()?;
            self.expire_roots(now)?;
        }
        Ok(cleaned)
    }

    /// Removes names from a folder of the store, by its descriptor.
    fn remove_all(&self, doomed: &Doomed) -> Result<(), Error> {
        if doomed.names.is_empty() {
            return Ok(());
        }
        let path = self.dir.join(doomed.folder);
        let folder = Folder::open(&path).map_err(Error::io("read", &path))?;
        for name in &doomed.names {
            match self.calls.unlink(&folder, name) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", &path.join(name))(error)),
            }
        }
        if doomed.folder == "ac" {
            // Records are gone from the disk before blobs are.
            self.calls.sync_folder(&path).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    /// Removes damaged files from quarantine. Results that contradict a record stay until somebody has decided, and so
    /// do folders that hold what we did not make.
    fn clear_quarantine(&self) -> Result<(), Error> {
        let path = self.dir.join("quarantine");
        let disputed: Vec<OsString> =
            self.disputes()?.into_iter().filter_map(|(place, _)| place.file_name().map(ToOwned::to_owned)).collect();
        let names = self.names_in("quarantine")?;
        if names.is_empty() {
            return Ok(());
        }
        let folder = Folder::open(&path).map_err(Error::io("read", &path))?;
        for name in names.iter().filter(|name| !disputed.contains(name)) {
            let Some(name) = name.to_str().filter(|name| is_quarantined(name)) else { continue };
            let place = path.join(name);
            match files::seen(&place).map_err(Error::io("read", &place))? {
                None => {}
                Some(Err("a folder")) => publish::clear(&*self.calls, &folder, name),
                Some(_) => self.calls.unlink(&folder, name).map_err(Error::io("remove", &place))?,
            }
        }
        Ok(())
    }

    /// Forgets projects whose folder has been gone for long.
    fn expire_roots(&self, now: SystemTime) -> Result<(), Error> {
        for root in self.roots()? {
            if root.is_gone()? && now.duration_since(root.used).is_ok_and(|age| age > GRACE) {
                self.remove_note("roots", &root.name);
            }
        }
        Ok(())
    }
}

impl super::Root {
    /// Whether the project's folder is no longer there.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_gone(&self) -> Result<bool, Error> {
        match fs::metadata(&self.place) {
            Ok(metadata) => Ok(!metadata.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(Error::io("read the project", &self.place)(error)),
        }
    }
}

/// `NAME-TIME`, as what goes to quarantine is called.
fn is_quarantined(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, time)| time.len() >= 10 && time.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::TaskRecord;
    use super::super::{Access, Found};
    use super::*;
    use crate::artifact::Sink;

    fn publish(store: &Store, seed: u64, content: &[u8], age: u64) -> Digest {
        let mut draft = store.draft().unwrap();
        draft.put("own", content).unwrap();
        draft.put("shared", b"shared").unwrap();
        let task = TaskRecord { seed: Some(seed), ..TaskRecord::default() };
        let fingerprint = store.publish(draft, &task, &format!("toy {seed}"), Vec::new()).unwrap().entry.fingerprint;
        let used = SystemTime::now() - Duration::from_secs(age);
        fs::File::open(store.entry_path(&fingerprint)).unwrap().set_modified(used).unwrap();
        fingerprint
    }

    #[test]
    fn the_least_recently_used_go_first_and_the_kept_stay() {
        let temp = tempfile::tempdir().unwrap();
        let mut store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let tasks: Vec<Digest> =
            (0..4u8).map(|i| publish(&store, i.into(), &[i; 100], 40_000 - u64::from(i) * 10_000)).collect();
        fs::write(store.blob_path(&Digest::of(b"orphan")), "orphan").unwrap();
        let (keep, none) = (BTreeSet::from([tasks[0]]), BTreeSet::new());
        let later = SystemTime::now() + 2 * YOUNG;
        let dry = store.gc_at((&keep, &none), 210, true, later).unwrap();
        let cleaned = store.gc_at((&keep, &none), 210, false, later).unwrap();
        assert_eq!(dry, cleaned);
        assert_eq!(
            cleaned,
            Cleaned {
                removed: BTreeSet::from([tasks[1], tasks[2]]),
                removed_entries: 2,
                removed_blobs: 3,
                removed_bytes: 206,
                kept_entries: 2,
                kept_bytes: 206
            }
        );
        let hits: Vec<bool> = tasks.iter().map(|task| matches!(store.find(task), Ok(Found::Hit(_)))).collect();
        assert_eq!(hits, [true, false, false, true]);
        assert!(store.verify(&mut |_, _| ()).unwrap().incomplete.is_empty());
    }

    #[test]
    fn what_is_dropped_goes_though_there_is_room_and_what_is_kept_stays() {
        let temp = tempfile::tempdir().unwrap();
        let mut store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let tasks: Vec<Digest> = (0..3u8).map(|i| publish(&store, i.into(), &[i; 100], 10)).collect();
        let (keep, drop) = (BTreeSet::from([tasks[0]]), BTreeSet::from([tasks[0], tasks[1]]));
        let cleaned = store.gc(&keep, &drop, u64::MAX, false).unwrap();
        assert_eq!(cleaned.removed, BTreeSet::from([tasks[1]]));
        assert_eq!((cleaned.kept_entries, cleaned.removed_blobs), (2, 1));
    }

    #[test]
    fn gc_waits_for_no_run_but_refuses() {
        let temp = tempfile::tempdir().unwrap();
        let mut store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let run = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        assert!(matches!(store.gc(&BTreeSet::new(), &BTreeSet::new(), 0, false), Err(Error::InUse { .. })));
        drop(run);
        assert!(store.gc(&BTreeSet::new(), &BTreeSet::new(), 0, false).is_ok());
    }

    #[test]
    fn a_young_blob_without_a_record_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let mut store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let orphan = store.blob_path(&Digest::of(b"orphan"));
        fs::write(&orphan, "orphan").unwrap();
        assert_eq!(store.gc(&BTreeSet::new(), &BTreeSet::new(), 0, false).unwrap().removed_blobs, 0);
        assert!(orphan.exists());
        store.gc_at((&BTreeSet::new(), &BTreeSet::new()), 0, false, SystemTime::now() + 2 * YOUNG).unwrap();
        assert!(!orphan.exists());
    }

    #[test]
    fn what_cannot_be_read_stops_it_before_anything_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let mut store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let tasks = [publish(&store, 1, b"one", 40_000), publish(&store, 2, b"two", 40_000)];
        let path = store.entry_path(&tasks[1]);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[1..]).unwrap();
        let error = store.gc(&BTreeSet::new(), &BTreeSet::new(), 0, false).unwrap_err();
        assert!(matches!(&error, Error::Damaged { path: damaged } if *damaged == path));
        assert!(error.help().unwrap().contains("convoy verify"));
        assert!(matches!(store.find(&tasks[0]), Ok(Found::Hit(_))));
        assert!(!store.verify(&mut |_, _| ()).unwrap().is_sound());
        assert_eq!(store.gc(&BTreeSet::new(), &BTreeSet::new(), 0, false).unwrap().removed_entries, 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_others_put_into_the_store_stays() {
        let temp = tempfile::tempdir().unwrap();
        let mut store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let photos = temp.path().join("photos");
        fs::create_dir(&photos).unwrap();
        let digest = Digest::of(b"x").to_string();
        fs::write(photos.join(&digest), "a photo").unwrap();
        for folder in super::super::house::FOLDERS {
            let folder = store.dir.join(folder);
            fs::write(folder.join("holiday.jpg"), "a photo").unwrap();
            std::os::unix::fs::symlink(&photos, folder.join("link")).unwrap();
        }
        let name = format!("{digest}-1234567890123");
        std::os::unix::fs::symlink(&photos, store.dir.join("quarantine").join(&name)).unwrap();
        fs::create_dir(store.dir.join("quarantine/x-1234567890123")).unwrap();
        fs::write(store.dir.join("quarantine/x-1234567890123/thesis.txt"), "mine").unwrap();
        fs::write(store.dir.join("quarantine/y-1234567890123"), "damaged").unwrap();
        // A link in a folder's place is found when it is opened; here it came afterwards.
        fs::remove_dir_all(store.dir.join("index/trees")).unwrap();
        std::os::unix::fs::symlink(&photos, store.dir.join("index/trees")).unwrap();
        let error =
            store.gc_at((&BTreeSet::new(), &BTreeSet::new()), 0, false, SystemTime::now() + 2 * GRACE).unwrap_err();
        assert!(error.to_string().contains("index/trees"), "{error}");
        fs::remove_file(store.dir.join("index/trees")).unwrap();
        store.gc_at((&BTreeSet::new(), &BTreeSet::new()), 0, false, SystemTime::now() + 2 * GRACE).unwrap();
        assert!(photos.join(&digest).exists());
        assert!(store.dir.join("cas/holiday.jpg").exists() && store.dir.join("tmp/holiday.jpg").exists());
        assert!(store.dir.join("quarantine/x-1234567890123/thesis.txt").exists());
        assert!(!store.dir.join("quarantine/y-1234567890123").exists());
        assert!(fs::symlink_metadata(store.dir.join("quarantine").join(&name)).is_err(), "a link that we moved there");
    }

    #[test]
    fn a_project_that_is_gone_is_forgotten_after_a_month() {
        let temp = tempfile::tempdir().unwrap();
        let shared = temp.path().join("shared");
        for clone in ["a", "b"] {
            fs::create_dir(temp.path().join(clone)).unwrap();
            drop(Store::open(&shared, &temp.path().join(clone), Access::Write).unwrap());
        }
        fs::remove_dir(temp.path().join("b")).unwrap();
        let mut store = Store::open(&shared, &temp.path().join("a"), Access::Write).unwrap();
        for (later, left) in [(GRACE / 2, 2), (2 * GRACE, 1)] {
            store.gc_at((&BTreeSet::new(), &BTreeSet::new()), 0, false, SystemTime::now() + later).unwrap();
            let roots = store.roots().unwrap();
            assert_eq!(roots.len(), left);
            assert!(!roots[0].is_gone().unwrap());
        }
    }
}
