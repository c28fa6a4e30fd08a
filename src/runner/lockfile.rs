//! `NAME.lock`: what every task was computed from and gave, for Git. Sorted TOML, one fact a line, nothing that differs
//! between machines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

use super::RunError;
use super::expand::{Cuts, Results, expand, read_results};
use super::graph::{Graph, SourceDigests};
use super::memory::{Memory, task_key};
use super::plan::{self, Forced, PlannedTask, State};
use crate::artifact::search::Round;
use crate::files;
use crate::store::fingerprint::{Parts, SourceDigest};
use crate::store::{self, Digest, Entry, Found, Output};

/// A lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct LockFile {
    /// The number of its layout.
    pub version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// Headline metrics as text, for people who read the difference.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
    /// By stage and part, as `cnn/fold 1`.
    #[serde(default, rename = "task")]
    pub tasks: BTreeMap<String, LockedTask>,
}

/// A task in a lock file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct LockedTask {
    /// Its fingerprint.
    pub key: Digest,
    /// The artifacts it reads, as `ingest/whole`, and the files from outside, as `source images`.
    #[serde(default, rename = "input")]
    pub inputs: BTreeMap<String, Digest>,
    /// Its files.
    #[serde(default, rename = "output")]
    pub outputs: BTreeMap<String, Digest>,
}

/// In what a lock file and a run, or a plan, differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The task is not in the lock file.
    New(String),
    /// The task is in the lock file only.
    Gone(String),
    /// It is computed from something else.
    Key(String),
    /// It may be computed from something else: a task above is.
    Above(String),
    /// It reads something else.
    Input(String, String),
    /// It is computed from the same and gave other bytes.
    Output(String, String),
    /// A metric has another value: its name, the one locked, the one found.
    Metric(String, String, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::New(task) => write!(f, "`{task}` is not in the lock file"),
            Difference::Gone(task) => write!(f, "`{task}` is in the lock file only"),
            Difference::Key(task) => write!(f, "`{task}` is computed from something else"),
            Difference::Above(task) => write!(f, "`{task}` is below a task that is computed from something else"),
            Difference::Input(task, input) => write!(f, "`{task}` reads another `{input}`"),
            Difference::Output(task, file) => write!(f, "`{task}` gave other bytes in `{file}`"),
            Difference::Metric(name, old, new) => write!(f, "metric `{name}`: {old} -> {new}"),
        }
    }
}

/// The largest lock file that is read, in bytes.
pub(super) const MOST: u64 = 256 << 20;

/// The number of the layout that this program writes.
const VERSION: u32 = 1;

/// Gives the digests of the sources that tasks of a graph read.
pub(super) type DigestSources<'d> = dyn FnMut(&Graph, &[PlannedTask]) -> Result<SourceDigests, RunError> + 'd;

impl LockFile {
    pub(super) fn new(pipeline: &str) -> LockFile {
        LockFile { version: VERSION, pipeline: pipeline.to_owned(), ..LockFile::default() }
    }

    pub(super) fn add(&mut self, task: &str, parts: &Parts, entry: &Entry) {
        let mut inputs = BTreeMap::new();
        for input in &parts.inputs {
            let part = input.role.split_once(' ').map_or("whole", |(_, part)| part);
            inputs.insert(format!("{}/{part}", input.stage), input.artifact);
        }
        inputs.extend(parts.sources.iter().map(|source| (format!("source {}", source.role), source.digest)));
        let outputs = entry.outputs.iter().map(|output| (output.name.clone(), output.digest)).collect();
        self.tasks.insert(task.to_owned(), LockedTask { key: entry.fingerprint, inputs, outputs });
    }

    /// Reads a lock file's text.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub fn parse(text: &str) -> Result<LockFile, String> {
        let lock: LockFile = toml::from_str(text)
            .map_err(|error| format!("the lock file cannot be read: {}", error.message().trim_end_matches('.')))?;
        if lock.version > VERSION {
            return Err(format!(
                "the lock file has version {}, newer than {VERSION}, the newest this program knows",
                lock.version
            ));
        }
        Ok(lock)
    }

    /// Reads the lock file at `path`; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Option<LockFile>, String> {
        match files::read_regular(path, MOST) {
            Ok(bytes) => LockFile::parse(&String::from_utf8_lossy(&bytes)).map(Some),
            Err(error) if error.cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Its text.
    pub fn render(&self) -> String {
        let mut text = format!(
            "{}, for Git: what each task was computed from and gave.\n# `convoy run --locked` compares with it.\n",
            files::LOCK_HEAD
        );
        let _ = writeln!(text, "version = {}\npipeline = {}", self.version, quote(&self.pipeline));
        if !self.metrics.is_empty() {
            text.push_str("\n[metrics]\n");
        }
        for (name, value) in &self.metrics {
            let _ = writeln!(text, "{} = {}", quote(name), quote(value));
        }
        for (name, task) in &self.tasks {
            let _ = writeln!(text, "\n[task.{}]\nkey = \"{}\"", quote(name), task.key);
            for (what, digests) in [("input", &task.inputs), ("output", &task.outputs)] {
                for (name, digest) in digests {
                    let _ = writeln!(text, "{what}.{} = \"{digest}\"", quote(name));
                }
            }
        }
        text
    }

    /// Writes it to `path`, atomically, unless it says the same already.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn write(&self, path: &Path) -> Result<(), files::Error> {
        files::replace(path, self.render().as_bytes(), true)
    }

    /// In what a run (as a lock file) differs from this one, sorted.
    pub fn compare(&self, run: &LockFile) -> Vec<Difference> {
        let mut differences = BTreeSet::new();
        let names: BTreeSet<&String> = self.tasks.keys().chain(run.tasks.keys()).collect();
        for name in names {
            let (locked, found) = match (self.tasks.get(name), run.tasks.get(name)) {
                (Some(locked), Some(found)) => (locked, found),
                (Some(_), None) => {
                    differences.insert(Difference::Gone(name.clone()));
                    continue;
                }
                (None, _) => {
                    differences.insert(Difference::New(name.clone()));
                    continue;
                }
            };
            if locked.key != found.key {
                differences.insert(Difference::Key(name.clone()));
            }
            for input in differing(&locked.inputs, &found.inputs) {
                differences.insert(Difference::Input(name.clone(), input));
            }
            if locked.key == found.key {
                for output in differing(&locked.outputs, &found.outputs) {
                    differences.insert(Difference::Output(name.clone(), output));
                }
            }
        }
        let none = "none".to_owned();
        let metrics: BTreeSet<&String> = self.metrics.keys().chain(run.metrics.keys()).collect();
        for name in metrics {
            let (old, new) = (self.metrics.get(name).unwrap_or(&none), run.metrics.get(name).unwrap_or(&none));
            if old != new {
                differences.insert(Difference::Metric(name.clone(), old.clone(), new.clone()));
            }
        }
        differences.into_iter().collect()
    }

    /// The digests of the sources that it names, by stage.
    pub(super) fn sources(&self, graph: &Graph) -> SourceDigests {
        let of_stage = |name: &str| {
            let prefix = format!("{name}/");
            let task = self.tasks.iter().find(|(key, _)| key.starts_with(&prefix));
            let inputs = task.iter().flat_map(|(_, task)| &task.inputs);
            inputs
                .filter_map(|(name, &digest)| {
                    Some(SourceDigest { role: name.strip_prefix("source ")?.to_owned(), digest })
                })
                .collect()
        };
        SourceDigests(graph.nodes.iter().map(|node| of_stage(&node.name)).collect())
    }

    /// Plans as if this file were the store: what is not fresh then differs.
    ///
    /// The trials of a search are compared as far as what `open` gives lets them be known.
    pub(super) fn compare_plan(
        &self,
        own: &Graph,
        digest: &mut DigestSources<'_>,
        open: &dyn Fn(&Entry) -> Result<Round, store::Error>,
    ) -> Result<Vec<Difference>, RunError> {
        let find = |fingerprint: &Digest| {
            self.tasks.values().find(|task| task.key == *fingerprint).map_or(Found::Missing, |task| {
                let output = |(name, &digest): (&String, &Digest)| Output { name: name.clone(), size: 0, digest };
                let outputs = task.outputs.iter().map(output).collect();
                Found::Hit(Entry { fingerprint: *fingerprint, label: String::new(), outputs })
            })
        };
        let mut results = Results::new();
        let (plan, is_whole) = loop {
            let graph = expand(own, &results, &Cuts::new());
            let tasks = plan::tasks(&graph, None, None);
            let sources = digest(&graph, &tasks)?;
            let plan = plan::plan(graph, tasks, &sources, &find, &Memory::default(), &Forced::default());
            match read_results(&plan, open, &mut results) {
                Ok(true) => {}
                Ok(false) => break (plan, true),
                Err(_) => break (plan, false),
            }
        };
        let graph = &plan.graph;
        let mut planned = BTreeSet::new();
        let mut differences = Vec::new();
        for task in &plan.tasks {
            let name = task_key(&graph.nodes[task.stage].name, task.part);
            differences.extend(match (&task.state, self.tasks.contains_key(&name)) {
                (State::Fresh, true) => None,
                // What it is computed from is not known here.
                (State::Pending { .. }, _) if !is_whole => None,
                (_, false) => Some(Difference::New(name.clone())),
                (State::Stale(_), true) => Some(Difference::Key(name.clone())),
                (State::Pending { .. }, true) => Some(Difference::Above(name.clone())),
            });
            planned.insert(name);
        }
        if is_whole {
            differences.extend(self.tasks.keys().filter(|key| !planned.contains(*key)).cloned().map(Difference::Gone));
        }
        Ok(differences)
    }
}

fn differing(a: &BTreeMap<String, Digest>, b: &BTreeMap<String, Digest>) -> Vec<String> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    names.into_iter().filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lock() -> LockFile {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let mut lock = LockFile::new("digits");
        lock.metrics.insert("accuracy \"test\"".into(), "0.98".into());
        lock.tasks.insert(
            "cnn/fold 1".into(),
            LockedTask {
                key: digest("key"),
                inputs: BTreeMap::from([("ingest/whole".into(), digest("in")), ("source a\\b\n".into(), digest("s"))]),
                outputs: BTreeMap::from([("weights.safetensors".into(), digest("out"))]),
            },
        );
        lock
    }

    #[test]
    fn a_lock_file_survives_its_text() {
        assert_eq!(LockFile::parse(&lock().render()), Ok(lock()));
        assert!(LockFile::parse("version = 2\npipeline = \"x\"").unwrap_err().contains("newer than 1"));
        assert!(LockFile::parse("version = ").unwrap_err().starts_with("the lock file cannot be read"));
    }

    #[test]
    fn differences_are_named() {
        let (old, mut new) = (lock(), lock());
        assert_eq!(old.compare(&new), []);
        new.tasks.get_mut("cnn/fold 1").unwrap().outputs.insert("weights.safetensors".into(), Digest::of(b"other"));
        new.metrics.insert("accuracy \"test\"".into(), "0.97".into());
        new.tasks.insert("cnn/fold 2".into(), new.tasks["cnn/fold 1"].clone());
        assert_eq!(
            old.compare(&new),
            [
                Difference::New("cnn/fold 2".into()),
                Difference::Output("cnn/fold 1".into(), "weights.safetensors".into()),
                Difference::Metric("accuracy \"test\"".into(), "0.98".into(), "0.97".into()),
            ]
        );
    }

    #[test]
    fn writing_the_same_touches_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("digits.lock");
        lock().write(&path).unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        lock().write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert_eq!(LockFile::read(&path), Ok(Some(lock())));
        assert_eq!(LockFile::read(&temp.path().join("other.lock")), Ok(None));
    }
}
