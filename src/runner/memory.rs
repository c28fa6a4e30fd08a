//! Which records the tasks of a pipeline had last time: a small readable file per pipeline, used only to say why, and
//! by `gc` to know what recent runs name. What a task was computed from stands in its record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::graph::Graph;
use crate::files::document;
use crate::manifest::{Manifest, Overrides, stage_name};
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

pub(super) fn task_key(stage: &str, part: Part) -> String {
    format!("{stage}/{part}")
}

impl Memory {
    /// What is remembered of `graph`'s pipeline; of a profile or an overridden manifest that has not run, that of the
    /// plain one. What cannot be read is nothing.
    pub(super) fn load(store: &Store, graph: &Graph) -> Memory {
        let load = |name: &str| {
            let bytes = store.read_note("runs", &file_name(store, name, &graph.id)).ok()??;
            document::from_bytes::<Memory>(&bytes, None).ok()
        };
        load(&graph.name).or_else(|| load(graph.name.split('@').next()?)).unwrap_or_default()
    }

    /// Writes it down. Best effort: without it the next reasons are less precise.
    pub(super) fn save(&self, store: &Store, graph: &Graph) {
        if let Ok(bytes) = document::to_bytes(self) {
            let name = file_name(store, &graph.name, &graph.id);
            let is_same = store.read_note("runs", &name).is_ok_and(|old| old.as_deref() == Some(&bytes[..]));
            if !is_same || is_dated(store, &name) {
                let _ = store.write_note("runs", &name, &bytes);
            }
        }
    }

    /// What is remembered of a task; of a variant's that has not run, that of the manifest without variants.
    pub(super) fn of(&self, graph: &Graph, stage: usize, part: Part) -> Option<&Remembered> {
        let name = &graph.nodes[stage].name;
        self.get(name, part).or_else(|| {
            let plain = stage_name(name);
            (graph.trial(stage).is_none() && plain != name).then(|| self.get(plain, part))?
        })
    }

    /// What is remembered of a task.
    pub fn get(&self, stage: &str, part: Part) -> Option<&Remembered> {
        self.tasks.get(&task_key(stage, part))
    }
}

/// Another manifest of this project that has run under the same name and still bears it.
pub(super) fn namesake(store: &Store, graph: &Graph) -> Option<PathBuf> {
    let own = file_name(store, &graph.name, &graph.id);
    let prefix = format!("{}-", graph.name);
    let plain = graph.name.split('@').next().unwrap_or(&graph.name);
    let notes = store.notes("runs").unwrap_or_default();
    notes
        .iter()
        .map(|(note, _)| note)
        .filter(|note| **note != own && note.starts_with(&prefix) && note.ends_with(&ending(&store.project())))
        .find_map(|note| {
            let bytes = store.read_note("runs", note).ok()??;
            let memory = document::from_bytes::<Memory>(&bytes, None).ok()?;
            let path = store.base().join(&memory.manifest);
            let is_own = memory.manifest.is_empty() || Path::new(&memory.manifest) == graph.manifest;
            let other = if is_own { None } else { Manifest::load(&path, &Overrides::default()).ok() };
            other.is_some_and(|other| other.name == plain).then_some(path)
        })
}

/// How the names of a project's notes end; projects that share a store have their own.
pub(super) fn ending(project: &str) -> String {
    if project.is_empty() { ".json".to_owned() } else { format!(".{project}.json") }
}

fn file_name(store: &Store, name: &str, id: &str) -> String {
    format!("{name}-{id}{}", ending(&store.project()))
}

/// Whether a file has to be written anew to count as recent.
fn is_dated(store: &Store, name: &str) -> bool {
    let notes = store.notes("runs").unwrap_or_default();
    notes.iter().any(|(n, at)| n == name && age(*at) > Duration::from_secs(24 * 3600))
}

pub(super) fn age(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO)
}
