//! Checkpoints: what a killed task left, by its fingerprint. Best effort, but never half of one, and never another's.

use super::digest::Digest;
use super::{Error, Store, note};
use crate::files::{self, Own};

const FOLDER: &str = "checkpoints";

/// The first line, with the format's number.
const HEAD: &str = "convoy checkpoint ";
const VERSION: u32 = 2;

/// The largest checkpoint that is read, in bytes.
const MOST: u64 = 64 << 30;

/// The number in the first line; `None` if there is none.
fn version(whole: &[u8]) -> Option<u32> {
    let line = whole.strip_prefix(HEAD.as_bytes())?.split(|&b| b == b'\n').next()?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

impl Store {
    /// The last checkpoint kept under this fingerprint, and what its task had told until then; a damaged one, or one of
    /// another task, is none.
    pub fn load_checkpoint(&self, fingerprint: &Digest) -> Option<(Vec<u8>, Vec<String>)> {
        let name = fingerprint.to_string();
        let path = self.note_path(FOLDER, &name);
        let whole = match files::read_own(&path, MOST) {
            Ok(Own::Regular(_, whole)) => whole,
            Ok(Own::Absent | Own::Foreign) => return None,
            Err(error) => {
                self.warn(format!("{}: the task starts from its beginning", Error::io("read", &path)(error)));
                return None;
            }
        };
        if version(&whole).is_some_and(|version| version > VERSION) {
            self.warn(format!("{}: it is left alone", Error::NewerFile { path }));
            return None;
        }
        let mut whole = note::unbind(&format!("{FOLDER}/{name}"), whole)?;
        let head = format!("{HEAD}{VERSION}\n");
        let warnings = whole.strip_prefix(head.as_bytes())?.split(|&b| b == b'\n').next()?;
        let n_before = head.len() + warnings.len() + 1;
        let warnings = serde_json::from_slice(warnings).ok()?;
        (whole.len() >= n_before).then(|| (whole.split_off(n_before), warnings))
    }

    /// Keeps a checkpoint, in place of the last one, with what its task has told so far.
    ///
    /// # Errors
    /// Those of the file system; that a newer program's is there.
    pub fn save_checkpoint(&self, fingerprint: &Digest, bytes: &[u8], warnings: &[String]) -> Result<(), Error> {
        let name = fingerprint.to_string();
        if self.is_newer(&name) {
            return Err(Error::NewerFile { path: self.note_path(FOLDER, &name) });
        }
        // JSON of texts has no line feed.
        let head = format!("{HEAD}{VERSION}\n{}\n", serde_json::json!(warnings));
        self.write_note(FOLDER, &name, &[head.as_bytes(), bytes].concat())
    }

    /// The task is done.
    pub fn remove_checkpoint(&self, fingerprint: &Digest) {
        let name = fingerprint.to_string();
        if !self.is_newer(&name) {
            self.remove_note(FOLDER, &name);
        }
    }

    pub(super) fn is_newer(&self, name: &str) -> bool {
        let Ok(Own::Regular(file, _)) = files::open_own(&self.note_path(FOLDER, name)) else { return false };
        let mut head = Vec::new();
        let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, 64), &mut head);
        version(&head).is_some_and(|version| version > VERSION)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Access;
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        (temp, store)
    }

    #[test]
    fn a_checkpoint_is_whole_or_none() {
        let (_temp, store) = store();
        let task = Digest::of(b"task");
        assert_eq!(store.load_checkpoint(&task), None);
        store.save_checkpoint(&task, b"epoch 1", &[]).unwrap();
        store.save_checkpoint(&task, b"epoch 2", &["a\nb".to_owned()]).unwrap();
        assert_eq!(store.load_checkpoint(&task), Some((b"epoch 2".to_vec(), vec!["a\nb".to_owned()])));
        let path = store.note_path(FOLDER, &task.to_string());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(store.load_checkpoint(&task), None);
        store.remove_checkpoint(&task);
        assert!(!path.exists());
    }

    #[test]
    fn a_checkpoint_of_another_task_is_none() {
        let (_temp, store) = store();
        let (one, two) = (Digest::of(b"fold 1"), Digest::of(b"fold 2"));
        store.save_checkpoint(&one, b"of fold 1", &[]).unwrap();
        store.save_checkpoint(&two, b"of fold 2", &[]).unwrap();
        let path = |task: &Digest| store.note_path(FOLDER, &task.to_string());
        // Whole files swapped, and the content of one within the frame of the other.
        let (a, b) = (fs::read(path(&one)).unwrap(), fs::read(path(&two)).unwrap());
        fs::write(path(&one), &b).unwrap();
        fs::write(path(&two), &a).unwrap();
        assert_eq!((store.load_checkpoint(&one), store.load_checkpoint(&two)), (None, None));
        let end = a.len() - 70;
        fs::write(path(&one), [&b[..end], &a[end..]].concat()).unwrap();
        assert_eq!(store.load_checkpoint(&one), None);
    }

    #[test]
    fn a_newer_checkpoint_is_neither_read_nor_replaced() {
        let (_temp, store) = store();
        let task = Digest::of(b"task");
        let path = store.note_path(FOLDER, &task.to_string());
        fs::write(&path, "convoy checkpoint 3\nwhatever").unwrap();
        assert_eq!(store.load_checkpoint(&task), None);
        assert!(store.take_warnings()[0].contains("newer convoy"));
        assert!(matches!(store.save_checkpoint(&task, b"x", &[]), Err(Error::NewerFile { .. })));
        store.remove_checkpoint(&task);
        assert_eq!(fs::read(&path).unwrap(), b"convoy checkpoint 3\nwhatever");
    }
}
