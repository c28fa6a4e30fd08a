//! Whether all that is in the store is what its name says. What is not goes to quarantine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::digest::Digest;
use super::entry::Entry;
use super::publish::RECORD;
use super::read::Stored;
use super::stamp::Stamp;
use super::{Access, Error, Store, house, read, unpoisoned};
use crate::files::{self, Folder, Own};

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs read.
    pub n_blobs: usize,
    /// Their bytes.
    pub n_bytes: u64,
    /// Records read.
    pub n_entries: usize,
    /// Blobs that are not what their name says, with the labels of the tasks they belong to.
    pub corrupt: Vec<(Digest, Vec<String>)>,
    /// Notes that are damaged and can be lost without harm (stamps, what ran last, checkpoints): a power cut leaves
    /// such, since they are not synced. They save time only. By folder and name.
    pub lost_notes: Vec<String>,
    /// Records, and places of projects, that are damaged, by folder and name.
    pub broken_records: Vec<String>,
    /// Tasks whose record names a blob that is not there: they will be computed again.
    pub incomplete: Vec<String>,
    /// Tasks that gave other bytes than their record names, with the folder in quarantine where the others are.
    pub disputed: Vec<(String, PathBuf)>,
    /// Damaged files that could not be moved to quarantine, the store not being writable.
    pub left: Vec<PathBuf>,
}

impl Verified {
    /// Whether everything that is there is what it says.
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty() && self.broken_records.is_empty()
    }
}

/// Called with the bytes read so far, of how many.
type Told<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

impl Store {
    /// Reads every record, every note and every blob and compares them with their names. `progress` is told bytes
    /// read, of how many.
    ///
    /// # Errors
    /// If something is there and cannot be read; if a newer program wrote it.
    pub fn verify(&self, progress: Told<'_>) -> Result<Verified, Error> {
        let mut verified = Verified::default();
        let mut labels: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        let mut wanted = Vec::new();
        for fingerprint in self.digests_in("ac")? {
            let path = self.entry_path(&fingerprint);
            match self.stored(&path, &fingerprint)? {
                Stored::Whole(entry) => {
                    verified.n_entries += 1;
                    for output in &entry.outputs {
                        labels.entry(output.digest).or_default().push(format!("{} {}", entry.label, output.name));
                    }
                    wanted.push(entry);
                }
                Stored::Damaged => {
                    verified.n_entries += 1;
                    self.set_aside_damaged(path, &fingerprint.to_string(), &mut verified.left);
                    verified.broken_records.push(format!("ac/{fingerprint}"));
                }
                Stored::Absent => {}
            }
        }
        for folder in ["runs", "history", "roots", "index", "checkpoints"] {
            for name in self.names_in(folder)?.iter().filter_map(|name| name.to_str()) {
                let path = self.note_path(folder, name);
                let is_foreign = matches!(files::seen(&path).map_err(Error::io("read", &path))?, Some(Err(_)) | None);
                if is_foreign || is_other(folder, name) || self.read_note(folder, name)?.is_some() {
                    continue;
                }
                if folder == "checkpoints" && self.is_newer(name) {
                    return Err(Error::NewerFile { path });
                }
                self.set_aside_damaged(path, name, &mut verified.left);
                let lost = if folder == "roots" { &mut verified.broken_records } else { &mut verified.lost_notes };
                lost.push(format!("{folder}/{name}"));
            }
        }
        let sound = self.verify_blobs(&labels, &mut verified, progress)?;
        verified.incomplete.extend(
            wanted
                .iter()
                .filter(|entry| entry.outputs.iter().any(|output| !sound.contains(&output.digest)))
                .map(|entry| entry.label.clone()),
        );
        verified.incomplete.sort();
        verified.disputed = self.disputes()?.into_iter().map(|(place, entry)| (entry.label, place)).collect();
        self.save_stamps();
        Ok(verified)
    }

    fn verify_blobs(
        &self,
        labels: &BTreeMap<Digest, Vec<String>>,
        verified: &mut Verified,
        progress: Told<'_>,
    ) -> Result<BTreeSet<Digest>, Error> {
        let mut blobs = Vec::new();
        for digest in self.digests_in("cas")? {
            let path = self.blob_path(&digest);
            if let Some(found) = files::seen(&path).map_err(Error::io("read", &path))? {
                blobs.push((digest, path, found.map_or(0, |metadata| metadata.len())));
            }
        }
        verified.n_blobs = blobs.len();
        verified.n_bytes = blobs.iter().map(|(_, _, size)| size).sum();
        let total = verified.n_bytes;
        let told = Mutex::new((0, progress));
        let checked: Vec<(Digest, bool)> = blobs
            .par_iter()
            .map(|(digest, path, size)| {
                let is_sound = match files::open_own(path).map_err(Error::io("read", path))? {
                    Own::Regular(mut file, metadata) => {
                        let (found, _) = Digest::of_reader(&mut file).map_err(Error::io("read", path))?;
                        if found == *digest {
                            self.remember_stamp(*digest, Stamp::of(&metadata));
                        }
                        found == *digest
                    }
                    Own::Absent | Own::Foreign => false,
                };
                let mut told = unpoisoned(&told);
                told.0 += size;
                let done = told.0;
                (told.1)(done, total);
                Ok((*digest, is_sound))
            })
            .collect::<Result<_, Error>>()?;
        let mut sound = BTreeSet::new();
        for (digest, is_sound) in checked {
            if is_sound {
                sound.insert(digest);
            } else {
                self.set_aside_damaged(self.blob_path(&digest), &digest.to_string(), &mut verified.left);
                verified.corrupt.push((digest, labels.get(&digest).cloned().unwrap_or_default()));
            }
        }
        Ok(sound)
    }

    fn set_aside_damaged(&self, path: PathBuf, name: &str, left: &mut Vec<PathBuf>) {
        let is_moved = self.access == Access::Write && house::displace(&*self.calls, &self.dir, &path, name).is_ok();
        if !is_moved {
            left.push(path);
        }
    }

    /// Results that contradict the record of their fingerprint: where in quarantine they are, and their own record.
    /// They stay there until somebody has decided and removed them.
    ///
    /// # Errors
    /// If the quarantine cannot be read.
    pub fn disputes(&self) -> Result<Vec<(PathBuf, Entry)>, Error> {
        let mut disputes = Vec::new();
        for name in self.names_in("quarantine")? {
            let place = self.dir.join("quarantine").join(&name);
            if !matches!(files::seen(&place).map_err(Error::io("read", &place))?, Some(Err("a folder"))) {
                continue;
            }
            let path = place.join(RECORD);
            let Own::Regular(_, bytes) = files::read_own(&path, read::MOST).map_err(Error::io("read", &path))? else {
                continue;
            };
            let entry = String::from_utf8(bytes).ok().and_then(|text| Entry::parse(&text));
            let Some(entry) = entry else { continue };
            let is_named_so = name.to_str().is_some_and(|name| name.starts_with(&entry.fingerprint.to_string()));
            if is_named_so {
                disputes.push((place, entry));
            }
        }
        Ok(disputes)
    }

    /// Removes a result that [`Store::disputes`] told of: somebody has decided for the first one.
    ///
    /// # Errors
    /// If the quarantine cannot be opened.
    pub fn settle(&self, place: &Path) -> Result<(), Error> {
        let quarantine = self.dir.join("quarantine");
        let folder = Folder::open(&quarantine).map_err(Error::io("open", &quarantine))?;
        if let Some(name) = place.file_name().and_then(|name| name.to_str()) {
            super::publish::clear(&*self.calls, &folder, name);
        }
        Ok(())
    }
}

/// What is no note of ours.
fn is_other(folder: &str, name: &str) -> bool {
    match folder {
        "runs" | "history" => !name.ends_with(".json"),
        "index" => name != "blobs" && name != "files" && !name.starts_with("folder-"),
        _ => name.parse::<Digest>().is_err(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Found;
    use super::super::fingerprint::TaskRecord;
    use super::*;
    use crate::artifact::Sink;

    fn publish(store: &Store, seed: u64, content: &[u8]) -> Digest {
        let mut draft = store.draft().unwrap();
        draft.put("own", content).unwrap();
        draft.put("shared", b"shared").unwrap();
        let parts = TaskRecord { seed: Some(seed), ..TaskRecord::default() };
        store.publish(draft, &parts, &format!("toy {seed}"), Vec::new()).unwrap().entry.fingerprint
    }

    #[test]
    fn verify_finds_what_stamps_cannot() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let task = publish(&store, 1, b"content");
        let seen = Mutex::new((0, 0));
        assert!(store.verify(&mut |done, total| *seen.lock().unwrap() = (done, total)).unwrap().is_sound());
        assert_eq!(seen.into_inner().unwrap(), (13, 13));
        let blob = store.blob_path(&Digest::of(b"content"));
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, b"Content").unwrap();
        // As if the disk had changed the bits under an unchanged stamp.
        store.remember_stamp(Digest::of(b"content"), super::super::stamp::stamp_of(&blob).unwrap());
        assert!(matches!(store.find(&task), Ok(Found::Hit(_))));
        let verified = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(verified.corrupt, [(Digest::of(b"content"), vec!["toy 1 own".to_owned()])]);
        assert_eq!(verified.incomplete, ["toy 1"]);
        assert!(!blob.exists());
        assert_eq!(store.find(&task).unwrap(), Found::Gone("own".into()));
    }

    #[test]
    fn damaged_notes_go_to_quarantine_and_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let task = Digest::of(b"task");
        store.write_note("runs", "a-1.json", b"{}").unwrap();
        store.save_checkpoint(&task, b"x", &[]).unwrap();
        assert!(store.verify(&mut |_, _| ()).unwrap().is_sound());
        fs::write(store.note_path("runs", "a-1.json"), "{}").unwrap();
        fs::write(store.note_path("checkpoints", &task.to_string()), "x").unwrap();
        let looked = Store::open(&temp.path().join("s"), temp.path(), Access::Look).unwrap();
        assert_eq!(looked.verify(&mut |_, _| ()).unwrap().left.len(), 2);
        let verified = store.verify(&mut |_, _| ()).unwrap();
        assert_eq!(verified.lost_notes, ["runs/a-1.json".to_owned(), format!("checkpoints/{task}")]);
        assert!(verified.is_sound(), "they save time only");
        assert!(verified.left.is_empty());
        assert!(store.verify(&mut |_, _| ()).unwrap().is_sound());
    }
}
