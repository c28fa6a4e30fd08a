//! Checkpoints: what a killed task left, by its fingerprint. Best effort, but never half of one.

use std::fs;

use super::digest::Digest;
use super::{Store, replace};

impl Store {
    /// The last checkpoint kept under this fingerprint; a damaged one is none.
    pub fn load_checkpoint(&self, fingerprint: &Digest) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.dir.join("checkpoints").join(fingerprint.to_string())).ok()?;
        let body = bytes.len().checked_sub(32)?;
        let is_whole = Digest::of(&bytes[..body]).0 == bytes[body..];
        bytes.truncate(body);
        is_whole.then_some(bytes)
    }

    /// Keeps a checkpoint, in place of the last one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save_checkpoint(&self, fingerprint: &Digest, bytes: &[u8]) -> std::io::Result<()> {
        let whole = [bytes, &Digest::of(bytes).0].concat();
        replace(&self.dir.join("tmp"), &self.dir.join("checkpoints").join(fingerprint.to_string()), &whole)
    }

    /// The task is done.
    pub fn remove_checkpoint(&self, fingerprint: &Digest) {
        self.remove_note("checkpoints", &fingerprint.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Access;
    use super::*;

    #[test]
    fn a_checkpoint_is_whole_or_none() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let task = Digest::of(b"task");
        assert_eq!(store.load_checkpoint(&task), None);
        store.save_checkpoint(&task, b"epoch 1").unwrap();
        store.save_checkpoint(&task, b"epoch 2").unwrap();
        assert_eq!(store.load_checkpoint(&task).as_deref(), Some(&b"epoch 2"[..]));
        let path = store.dir.join("checkpoints").join(task.to_string());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(store.load_checkpoint(&task), None);
        store.remove_checkpoint(&task);
        assert!(!path.exists());
    }
}
