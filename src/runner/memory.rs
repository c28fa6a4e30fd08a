//! Which records the tasks of a pipeline had last time: a small readable file per pipeline, used only to say why, and by
//! `gc` to know what recent runs name. What a task was computed from stands in its record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::graph::Graph;
use super::lockfile::LockFile;
use crate::manifest::{Manifest, Overrides};
use crate::stages::Part;
use crate::store::{Digest, Store};

/// What a pipeline's tasks were.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// The manifest, relative to the project's root.
    pub manifest: String,
    /// The lock file, relative to the project's root.
    pub lock: String,
    /// By stage and part, as `cnn/fold 1`.
    pub tasks: BTreeMap<String, Remembered>,
}

/// A task as it was last time.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// Its fingerprint, under which its record is.
    pub fingerprint: Digest,
    /// What the stages that it read were called, in the order in which the record numbers them.
    pub inputs: Vec<String>,
    /// Why it was computed, the last time it was.
    pub because: Vec<String>,
}

/// How long a run counts as recent.
const RECENT: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn task_key(stage: &str, part: Part) -> String {
    format!("{stage}/{part}")
}

impl Memory {
    /// What is remembered of `graph`'s pipeline; of a profile or an overridden manifest that has not run, that of the
    /// plain one. What cannot be read is nothing.
    pub(super) fn load(store: &Store, graph: &Graph) -> Memory {
        let load = |name: &str| {
            let bytes = store.read_note("runs", &file_name(name, &graph.id)).ok()??;
            serde_json::from_slice::<Memory>(&bytes).ok()
        };
        load(&graph.name).or_else(|| load(graph.name.split('@').next()?)).unwrap_or_default()
    }

    /// Writes it down. Best effort: without it the next reasons are less precise.
    pub(super) fn save(&self, store: &Store, graph: &Graph) {
        if let Ok(mut bytes) = serde_json::to_vec_pretty(self) {
            bytes.push(b'\n');
            let name = file_name(&graph.name, &graph.id);
            let is_same = store.read_note("runs", &name).is_ok_and(|old| old.as_deref() == Some(&bytes[..]));
            if !is_same || is_dated(store, &name) {
                let _ = store.write_note("runs", &name, &bytes);
            }
        }
    }

    /// What is remembered of a task.
    pub fn get(&self, stage: &str, part: Part) -> Option<&Remembered> {
        self.tasks.get(&task_key(stage, part))
    }
}

/// Another manifest of this project that has run under the same name and still bears it.
pub(super) fn namesake(store: &Store, graph: &Graph) -> Option<PathBuf> {
    let own = file_name(&graph.name, &graph.id);
    let prefix = format!("{}-", graph.name);
    let plain = graph.name.split('@').next().unwrap_or(&graph.name);
    store.notes("runs").iter().map(|(note, _)| note).filter(|note| **note != own && note.starts_with(&prefix)).find_map(
        |note| {
            let bytes = store.read_note("runs", note).ok()??;
            let memory = serde_json::from_slice::<Memory>(&bytes).ok()?;
            let path = store.base().join(&memory.manifest);
            let is_own = memory.manifest.is_empty() || Path::new(&memory.manifest) == graph.manifest;
            let other = if is_own { None } else { Manifest::load(&path, &Overrides::default()).ok() };
            other.is_some_and(|other| other.name == plain).then_some(path)
        },
    )
}

fn file_name(name: &str, id: &str) -> String {
    format!("{name}-{id}.json")
}

/// Whether a file has to be written anew to count as recent.
fn is_dated(store: &Store, name: &str) -> bool {
    store.notes("runs").iter().any(|(n, at)| n == name && age(*at) > Duration::from_secs(24 * 3600))
}

fn age(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO)
}

/// The fingerprints that `gc` keeps: those of recent runs, and those in the lock files of all pipelines that ran here.
pub(super) fn named_by_runs_and_locks(store: &Store) -> BTreeSet<Digest> {
    let mut named = BTreeSet::new();
    for (name, at) in store.notes("runs") {
        let Ok(Some(bytes)) = store.read_note("runs", &name) else { continue };
        let Ok(memory) = serde_json::from_slice::<Memory>(&bytes) else { continue };
        if age(at) < RECENT {
            named.extend(memory.tasks.values().map(|task| task.fingerprint));
        }
        let lock = std::fs::read_to_string(store.base().join(&memory.lock)).ok();
        if let Some(Ok(lock)) = lock.map(|text| LockFile::parse(&text)) {
            named.extend(lock.tasks.values().map(|task| task.key));
        }
    }
    named
}
