//! Housekeeping: what is in the store, what may go, and whether all of it is sound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;

use super::digest::Digest;
use super::entry::Entry;
use super::stamp::{self, Stamp};
use super::{Access, Error, Store, unpoisoned};

/// A finished task in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its record.
    pub entry: Entry,
    /// When it was last used, to the hour.
    pub used: SystemTime,
}

/// What `gc` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
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

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs read.
    pub n_blobs: usize,
    /// Their bytes.
    pub n_bytes: u64,
    /// Records read.
    pub n_entries: usize,
    /// Blobs that are not what their name says, with the labels of the tasks they belong to. In quarantine now.
    pub corrupt: Vec<(Digest, Vec<String>)>,
    /// Records that are damaged. In quarantine now.
    pub broken_records: Vec<String>,
    /// Tasks whose record names a blob that is not there: they will be computed again.
    pub incomplete: Vec<String>,
}

impl Verified {
    /// Whether everything that is there is what it says.
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty() && self.broken_records.is_empty()
    }
}

/// How long what nobody refers to is kept: listings of sources, checkpoints; blobs, where locks do not work.
const GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

impl Store {
    /// Every finished task, by label, then by fingerprint.
    pub fn list(&self) -> Vec<Listed> {
        let mut listed: Vec<Listed> = files_below(&self.dir.join("ac"))
            .iter()
            .filter_map(|path| {
                let entry = Entry::parse(&fs::read_to_string(path).ok()?)?;
                Some(Listed { entry, used: fs::metadata(path).ok()?.modified().ok()? })
            })
            .collect();
        listed.sort_by(|a, b| (&a.entry.label, a.entry.fingerprint).cmp(&(&b.entry.label, b.entry.fingerprint)));
        listed
    }

    /// Removes what is not in `keep` until the blobs take at most `max_size` bytes, least recently used first, and
    /// then every blob without a record. Records go before blobs, so that a killed `gc` leaves no record without its
    /// blobs. With `is_dry` nothing is removed.
    ///
    /// # Errors
    /// If a run uses the store.
    pub fn gc(&mut self, keep: &BTreeSet<Digest>, max_size: u64, is_dry: bool) -> Result<Cleaned, Error> {
        // Our own share of the lock would be in the way.
        let was_shared = self.in_use.take().is_some();
        let alone = self.lock_alone();
        let cleaned = alone.map(|alone| self.collect(keep, max_size, is_dry, alone.is_some()));
        if was_shared {
            self.in_use = self.lock_for_use();
        }
        cleaned
    }

    fn collect(&self, keep: &BTreeSet<Digest>, max_size: u64, is_dry: bool, is_alone: bool) -> Cleaned {
        let mut listed = self.list();
        listed.sort_by_key(|l| (l.used, l.entry.fingerprint));
        let mut users: HashMap<Digest, (usize, u64)> = HashMap::new();
        for output in listed.iter().flat_map(|l| &l.entry.outputs) {
            users.entry(output.digest).or_insert((0, output.size)).0 += 1;
        }
        let mut size: u64 = users.values().map(|(_, size)| size).sum();
        let mut cleaned = Cleaned::default();
        let mut remove = Vec::new();
        for item in &listed {
            if size <= max_size || keep.contains(&item.entry.fingerprint) {
                cleaned.kept_entries += 1;
                continue;
            }
            cleaned.removed_entries += 1;
            remove.push(self.entry_path(&item.entry.fingerprint));
            for output in &item.entry.outputs {
                if let Some((count, bytes)) = users.get_mut(&output.digest) {
                    *count -= 1;
                    if *count == 0 {
                        size -= *bytes;
                    }
                }
            }
        }
        let now = SystemTime::now();
        let is_old = |path: &Path| {
            let changed = stamp::stamp_of(path).map_or(i64::MAX, |stamp| stamp.changed);
            changed.saturating_add(GRACE.as_nanos() as i64) < stamp::since_epoch(now)
        };
        for path in files_below(&self.dir.join("cas")) {
            let digest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            // Without working locks a run may be about to write the record of a new blob.
            let is_used = digest.is_some_and(|digest| users.get(&digest).is_some_and(|(count, _)| *count > 0));
            if is_used || !(is_alone || is_old(&path)) {
                cleaned.kept_bytes += bytes;
            } else {
                cleaned.removed_blobs += 1;
                cleaned.removed_bytes += bytes;
                remove.push(path);
            }
        }
        if is_dry {
            return cleaned;
        }
        for folder in ["checkpoints", "index/trees"] {
            remove.extend(files_below(&self.dir.join(folder)).into_iter().filter(|path| is_old(path)));
        }
        remove.extend(files_below(&self.dir.join("quarantine")));
        if is_alone {
            remove.extend(files_below(&self.dir.join("locks")).into_iter().filter(|path| !path.ends_with("store")));
        }
        for path in remove {
            // What stays is removed next time.
            let _ = fs::remove_file(path);
        }
        cleaned
    }

    /// Reads every record and every blob and compares them with their names. `progress` is told bytes read, of how many.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn verify(&self, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<Verified, Error> {
        let mut verified = Verified::default();
        let mut labels: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        let mut wanted = Vec::new();
        for path in files_below(&self.dir.join("ac")) {
            verified.n_entries += 1;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let entry = fs::read(&path).ok().and_then(|bytes| Entry::parse(&String::from_utf8(bytes).ok()?));
            match entry.filter(|entry| entry.fingerprint.to_string() == name) {
                Some(entry) => {
                    for output in &entry.outputs {
                        labels.entry(output.digest).or_default().push(format!("{} {}", entry.label, output.name));
                    }
                    wanted.push(entry);
                }
                None => {
                    self.quarantine(&path, &name.parse().unwrap_or(Digest([0; 32])));
                    verified.broken_records.push(name);
                }
            }
        }
        let blobs: Vec<(PathBuf, u64)> = files_below(&self.dir.join("cas"))
            .into_iter()
            .map(|path| {
                let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                (path, size)
            })
            .collect();
        verified.n_blobs = blobs.len();
        verified.n_bytes = blobs.iter().map(|(_, size)| size).sum();
        let total = verified.n_bytes;
        let told = Mutex::new((0, progress));
        let checked: Vec<(Option<Digest>, bool)> = blobs
            .par_iter()
            .map(|(path, size)| {
                let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                let stamp = stamp::stamp_of(path);
                let is_sound = Digest::of_file(path).is_ok_and(|(digest, _)| Some(digest) == name);
                if let (true, Some(name), Ok(stamp)) = (is_sound, name, stamp) {
                    self.remember_stamp(name, stamp);
                } else {
                    self.quarantine(path, &name.unwrap_or(Digest([0; 32])));
                }
                let mut told = unpoisoned(&told);
                told.0 += size;
                let done = told.0;
                (told.1)(done, total);
                (name, is_sound)
            })
            .collect();
        let sound: BTreeSet<Digest> =
            checked.iter().filter(|(_, is_sound)| *is_sound).filter_map(|(name, _)| *name).collect();
        for (name, _) in checked.iter().filter(|(_, is_sound)| !is_sound) {
            let name = name.unwrap_or(Digest([0; 32]));
            verified.corrupt.push((name, labels.get(&name).cloned().unwrap_or_default()));
        }
        verified.incomplete.extend(
            wanted
                .iter()
                .filter(|entry| entry.outputs.iter().any(|output| !sound.contains(&output.digest)))
                .map(|entry| entry.label.clone()),
        );
        verified.incomplete.sort();
        if self.access == Access::Write {
            self.save_stamps();
        }
        Ok(verified)
    }

    /// The stamp under which a blob was last verified: for tests and `cache show`.
    pub fn verified_stamp(&self, digest: &Digest) -> Option<Stamp> {
        self.stamp_known(digest)
    }
}

/// Every file below a folder, sorted.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::super::fingerprint::TaskRecord;
    use super::*;
    use crate::artifact::Sink;

    fn publish(store: &Store, seed: u64, content: &[u8], age: u64) -> Digest {
        let mut draft = store.draft().unwrap();
        draft.put("own", content).unwrap();
        draft.put("shared", b"shared").unwrap();
        let task = TaskRecord { seed: Some(seed), ..TaskRecord::default() };
        let fingerprint = store.publish(draft, &task, &format!("toy {seed}")).unwrap().entry.fingerprint;
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
        let keep = BTreeSet::from([tasks[0]]);
        let dry = store.gc(&keep, 210, true).unwrap();
        let cleaned = store.gc(&keep, 210, false).unwrap();
        assert_eq!(dry, cleaned);
        assert_eq!(
            cleaned,
            Cleaned { removed_entries: 2, removed_blobs: 3, removed_bytes: 206, kept_entries: 2, kept_bytes: 206 }
        );
        let hits: Vec<bool> = tasks.iter().map(|task| matches!(store.find(task), Found::Hit(_))).collect();
        assert_eq!(hits, [true, false, false, true]);
        assert!(store.verify(&mut |_, _| ()).unwrap().incomplete.is_empty());
    }

    #[test]
    fn gc_waits_for_no_run_but_refuses() {
        let temp = tempfile::tempdir().unwrap();
        let mut store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let run = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        assert!(matches!(store.gc(&BTreeSet::new(), 0, false), Err(Error::InUse { .. })));
        drop(run);
        assert!(store.gc(&BTreeSet::new(), 0, false).is_ok());
    }

    #[test]
    fn verify_finds_what_stamps_cannot() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let task = publish(&store, 1, b"content", 0);
        let seen = Mutex::new((0, 0));
        assert!(store.verify(&mut |done, total| *seen.lock().unwrap() = (done, total)).unwrap().is_sound());
        assert_eq!(seen.into_inner().unwrap(), (13, 13));
        let blob = store.blob_path(&Digest::of(b"content"));
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, b"Content").unwrap();
        // As if the disk had changed the bits under an unchanged stamp.
        store.remember_stamp(Digest::of(b"content"), stamp::stamp_of(&blob).unwrap());
        assert!(matches!(store.find(&task), Found::Hit(_)));
        let verified = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(verified.corrupt, [(Digest::of(b"content"), vec!["toy 1 own".to_owned()])]);
        assert_eq!(verified.incomplete, ["toy 1"]);
        assert!(!blob.exists());
        assert_eq!(store.find(&task), Found::Gone("own".into()));
    }
}
