//! Locks: one per fingerprint, so that two runs do not compute the same task. They only save work: publishing is
//! idempotent, so where locks fail (some network file systems) the run goes on without.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::digest::Digest;
use super::{Error, Store};
use crate::files::{self, Own, lock_file};

/// The right to compute a task. Freed when dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

/// How to wait for a lock.
pub struct Locking<'a> {
    /// Who is asking, for those who will wait: `digits train fold 1`.
    pub who: &'a str,
    /// Give up waiting after this time and go on without the lock.
    pub limit: Duration,
    /// Called about once a second while waiting, with whom it waits for; returns `false` to stop waiting.
    pub waiting: &'a mut dyn FnMut(&str) -> bool,
}

/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

impl Store {
    /// Takes the lock of a fingerprint, waiting for its holder. `None` if `waiting` said to stop.
    pub fn lock(&self, fingerprint: &Digest, locking: Locking<'_>) -> Option<Lock> {
        let path = self.dir.join("locks").join(fingerprint.to_string());
        if matches!(files::seen(&path), Ok(Some(Err(_)))) {
            // Something that is no lock; where it stays, it is told below.
            let _ = super::house::displace(&*self.calls, &self.dir, &path, &fingerprint.to_string());
        }
        let mut file = match lock_file(&path) {
            Ok(file) => file,
            Err(error) => return Some(self.without_lock(&error)),
        };
        let start = Instant::now();
        let (mut pause, mut told) = (PAUSES.0, Duration::ZERO);
        loop {
            match file.try_lock() {
                Ok(()) => {
                    // For people who wait; who holds the lock is the kernel's business.
                    let _ = sign(&mut file, locking.who);
                    return Some(Lock { _file: Some(file) });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Some(self.without_lock(&error)),
            }
            let waited = start.elapsed();
            if waited >= locking.limit {
                self.warn(format!(
                    "waited {} s for {}, going on without the lock",
                    waited.as_secs(),
                    holder(&path).unwrap_or_else(|| "another run".to_owned())
                ));
                return Some(Lock { _file: None });
            }
            if waited >= told + Duration::from_secs(1) {
                told = waited;
                if !(locking.waiting)(&holder(&path).unwrap_or_else(|| "another run".to_owned())) {
                    return None;
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    pub(super) fn without_lock(&self, error: &io::Error) -> Lock {
        self.warn(format!(
            "cannot lock files in `{}` ({}): two runs at once may do the same work twice",
            self.dir.join("locks").display(),
            files::reason(error)
        ));
        Lock { _file: None }
    }

    /// Says that a run uses the store, until the file is dropped. Sweeps what killed runs left.
    pub(super) fn lock_for_use(&self) -> Option<File> {
        let path = self.dir.join("locks").join("store");
        if matches!(files::seen(&path), Ok(Some(Err(_)))) {
            let _ = super::house::displace(&*self.calls, &self.dir, &path, "store");
        }
        let file = match lock_file(&path) {
            Ok(file) => file,
            Err(error) => {
                self.without_lock(&error);
                return None;
            }
        };
        // Others that come now wait in `lock_shared` until this one has swept.
        self.sweep(file.try_lock().is_ok());
        match file.lock_shared() {
            Ok(()) => Some(file),
            Err(error) => {
                self.without_lock(&error);
                None
            }
        }
    }

    /// The whole store for oneself.
    pub(super) fn lock_alone(&self) -> Result<Option<File>, Error> {
        let path = self.dir.join("locks").join("store");
        let file = lock_file(&path).map_err(Error::io("lock", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: self.dir.clone() }),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

fn sign(file: &mut File, who: &str) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(format!("{who} (process {})", std::process::id()).as_bytes())
}

fn holder(path: &Path) -> Option<String> {
    let Ok(Own::Regular(file, _)) = files::open_own(path) else { return None };
    let mut text = String::new();
    file.take(300).read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::super::Access;
    use super::*;

    #[test]
    fn the_second_waits_is_told_for_whom_and_gives_up_at_the_limit() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("s"), temp.path(), Access::Write).unwrap();
        let task = Digest::of(b"task");
        let take = |limit, waiting: &mut dyn FnMut(&str) -> bool| {
            store.lock(&task, Locking { who: "digits train fold 1", limit, waiting })
        };
        let first = take(Duration::ZERO, &mut |_| true).unwrap();
        let mut told = Vec::new();
        let stopped = take(Duration::from_secs(9), &mut |who| {
            told.push(who.to_owned());
            false
        });
        assert!(stopped.is_none());
        assert!(told[0].starts_with("digits train fold 1 (process "), "{told:?}");
        assert!(take(Duration::from_millis(30), &mut |_| true).is_some());
        assert!(store.take_warnings()[0].contains("going on without the lock"));
        drop(first);
        assert!(take(Duration::ZERO, &mut |_| false).is_some());
        assert!(store.take_warnings().is_empty());
    }
}
