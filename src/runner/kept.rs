//! What `gc` keeps and why: the tasks that recent runs and lock files name.

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

/// Why a task is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// This lock file names it.
    Lock(PathBuf),
    /// The last run of this pipeline had it, so long ago.
    Run {
        /// The pipeline, with its profile: `digits@quick`.
        pipeline: String,
        /// Whole days.
        days: u64,
        /// Whether it was run with `--set`: then it is kept as long as there is room, no longer.
        has_sets: bool,
    },
    /// Somebody asked for it, in these words.
    Asked(String),
}

impl Why {
    /// Whether it is kept whatever room it takes.
    pub fn holds(&self) -> bool {
        !matches!(self, Why::Run { has_sets: true, .. })
    }
}

/// The tasks that are named, each with every reason.
pub type Named = BTreeMap<Digest, BTreeSet<Why>>;

/// The tasks that recent runs name, and those in the lock files of every project that has used the store, wherever in the
/// project they are.
///
/// # Errors
/// If a note, a project's folder or a lock file is there and cannot be read.
pub fn named_by_runs_and_locks(store: &Store) -> Result<Named, store::Error> {
    let mut named = Named::new();
    let mut locks: BTreeSet<PathBuf> = BTreeSet::new();
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
        let owner = projects.iter().rev().find(|(project, _)| name.ends_with(&ending(project)));
        if age(*at) < RECENT {
            let pipeline = pipeline_of(name, owner.map_or("", |(project, _)| project)).to_owned();
            let (days, has_sets) = (age(*at).as_secs() / (24 * 3600), pipeline.contains("@set-"));
            let why = Why::Run { pipeline, days, has_sets };
            for task in memory.tasks.values() {
                named.entry(task.fingerprint).or_default().insert(why.clone());
            }
        }
        if let Some((_, place)) = owner
            && !memory.lock.is_empty()
        {
            locks.insert(resolved(&place.join(&memory.lock)));
        }
    }
    for place in projects.values() {
        locks.extend(lock_files(place)?.iter().map(|path| resolved(path)));
    }
    for path in locks {
        for key in named_by_lock(&path)? {
            named.entry(key).or_default().insert(Why::Lock(path.clone()));
        }
    }
    Ok(named)
}

/// One path for a lock file, however it was come by.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The pipeline of a run's note: `digits` of `digits-1f2e3d4c.json`.
fn pipeline_of<'n>(note: &'n str, project: &str) -> &'n str {
    let stem = note.strip_suffix(&ending(project)).or_else(|| note.strip_suffix(".json")).unwrap_or(note);
    stem.rsplit_once('-').map_or(stem, |(name, _)| name)
}

/// Forgets the runs of a pipeline, under whatever profile or `--set`, so that they keep nothing any more.
///
/// # Errors
/// If the notes cannot be listed.
pub(super) fn forget_runs(store: &Store, pipeline: &str) -> Result<(), store::Error> {
    for (name, _) in store.notes("runs")? {
        if is_of(pipeline_of(&name, &store.project()), pipeline) {
            store.remove_note("runs", &name);
        }
    }
    Ok(())
}

/// Whether `name` is the pipeline's, with or without a profile.
pub(super) fn is_of(name: &str, pipeline: &str) -> bool {
    name.strip_prefix(pipeline).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

/// The lock files below a project's root, sorted; hidden folders and stores are left out.
///
/// # Errors
/// If a folder cannot be read.
pub fn lock_files(place: &Path) -> Result<Vec<PathBuf>, store::Error> {
    let is_looked_at = |entry: &walkdir::DirEntry| {
        let is_folder = entry.file_type().is_dir();
        entry.depth() == 0 || !(is_folder && (files::is_hidden(entry.file_name()) || files::is_store(entry.path())))
    };
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(place).sort_by_file_name().into_iter().filter_entry(is_looked_at) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(place).to_owned();
            unreadable(&path, error.into())
        })?;
        if entry.file_type().is_file() && files::is_lock(entry.path()) {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

/// The fingerprints in a lock file; none if it is not there.
fn named_by_lock(path: &Path) -> Result<Vec<Digest>, store::Error> {
    Ok(read_lock(path)?.map(|lock| lock.tasks.values().map(|task| task.key).collect()).unwrap_or_default())
}

/// A lock file; `None` if it is not there.
///
/// # Errors
/// If it cannot be read, or is none.
pub fn read_lock(path: &Path) -> Result<Option<LockFile>, store::Error> {
    let bytes = match files::read_regular(path, lockfile::MOST) {
        Ok(bytes) => bytes,
        Err(error) if error.cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    LockFile::parse(&String::from_utf8_lossy(&bytes))
        .map(Some)
        .map_err(|message| unreadable(path, io::Error::new(io::ErrorKind::InvalidData, message)))
}

fn unreadable(path: &Path, source: io::Error) -> store::Error {
    store::Error::Io { doing: "read", path: path.to_owned(), source }
}
