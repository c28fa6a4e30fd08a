//! What `gc` keeps: the tasks that recent runs and lock files name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lockfile::{self, LockFile};
use super::memory::{Memory, age, ending};
use crate::files::{self, document};
use crate::store::{self, Digest, Store};

/// How long a run counts as recent.
const RECENT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The fingerprints that `gc` keeps: those of recent runs, and those in the lock files of every project that has used
/// the store, wherever in the project they are.
///
/// # Errors
/// If a note, a project's folder or a lock file is there and cannot be read.
pub(super) fn named_by_runs_and_locks(store: &Store) -> Result<BTreeSet<Digest>, store::Error> {
    let mut named = BTreeSet::new();
    let mut projects: BTreeMap<String, PathBuf> = BTreeMap::new();
    for root in store.roots()? {
        if !root.is_gone()? {
            projects.insert(root.project, root.place);
        }
    }
    projects.insert(store.project(), store.base().to_owned());
    for (name, at) in store.notes("runs")?.iter().filter(|(name, _)| name.ends_with(".json")) {
        let Some(bytes) = store.read_note("runs", name)? else {
            return Err(store::Error::Damaged { path: store.dir().join("runs").join(name) });
        };
        // One of another version of this program names nothing that this one could use.
        let Ok(memory) = document::from_bytes::<Memory>(&bytes, None) else { continue };
        if age(*at) < RECENT {
            named.extend(memory.tasks.values().map(|task| task.fingerprint));
        }
        let owner = projects.iter().rev().find(|(project, _)| name.ends_with(&ending(project)));
        if let Some((_, place)) = owner
            && !memory.lock.is_empty()
        {
            named.extend(named_by_lock(&place.join(&memory.lock))?);
        }
    }
    for place in projects.values() {
        let is_looked_at = |entry: &walkdir::DirEntry| {
            let is_folder = entry.file_type().is_dir();
            entry.depth() == 0 || !(is_folder && (files::is_hidden(entry.file_name()) || files::is_store(entry.path())))
        };
        for entry in walkdir::WalkDir::new(place).sort_by_file_name().into_iter().filter_entry(is_looked_at) {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(place).to_owned();
                unreadable(&path, error.into())
            })?;
            if entry.file_type().is_file() && files::is_lock(entry.path()) {
                named.extend(named_by_lock(entry.path())?);
            }
        }
    }
    Ok(named)
}

/// The fingerprints in a lock file; none if it is not there.
fn named_by_lock(path: &Path) -> Result<Vec<Digest>, store::Error> {
    let bytes = match files::read_regular(path, lockfile::MOST) {
        Ok(bytes) => bytes,
        Err(error) if error.cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let lock = LockFile::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|message| unreadable(path, io::Error::new(io::ErrorKind::InvalidData, message)))?;
    Ok(lock.tasks.values().map(|task| task.key).collect())
}

fn unreadable(path: &Path, source: io::Error) -> store::Error {
    store::Error::Io { doing: "read", path: path.to_owned(), source }
}
