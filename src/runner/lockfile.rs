//! `NAME.lock`: what every task was and gave, for Git. Sorted TOML, a line a fact, nothing that differs between
//! machines.
//!
//! ```text
//! version = 2
//! pipeline = "digits"
//! [metrics]                          headline metrics, for people who read the difference
//! "test accuracy" = "0.9972"
//! [stage.train]                      what a stage is: its kind, its seed, revisions of what it computes with, its sources
//! kind = "train"
//! [stage.train.keys]                 and every key with the value in force
//! "epochs" = "20"
//! [tasks]                            a line a task: its key (the fingerprint), one digest over its outputs, and of trials
//! "train/fold 1" = { key = "8a…", output = "3f…" }                                   the keys in which they differ
//! ```
//!
//! Two lines of one task are what a reader of a pull request compares. Metrics and tasks of different stages have an
//! empty line between them, so that Git merges what was changed apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

use super::differ;
use super::error::RunError;
use super::expand::{Cuts, Results, expand, read_results};
use super::graph::{Graph, SourceDigests, is_of_trial};
use super::memory::{Memory, task_key};
use super::outcome::Outcome;
use super::plan::{self, Forced, Known, PlannedTask, State};
use crate::artifact::search::Round;
use crate::config::Span;
use crate::files;
use crate::store::fingerprint::{SourceDigest, TaskRecord};
use crate::store::{self, Digest, Entry, Found};

/// A lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LockFile {
    /// The number of its layout.
    pub version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// Headline metrics as text, for people who read the difference.
    #[serde(default)]
    pub metrics: BTreeMap<String, String>,
    /// The manifest's stages, by name.
    #[serde(default, rename = "stage")]
    pub stages: BTreeMap<String, LockedStage>,
    /// By stage and part, as `cnn/fold 1`.
    #[serde(default)]
    pub tasks: BTreeMap<String, LockedTask>,
}

/// A stage in a lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LockedStage {
    /// Its kind.
    pub kind: String,
    /// The stages that it reads, as the manifest names them.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// The seed in force, where it draws from it.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Revisions of the rooms that its tasks compute with.
    #[serde(default)]
    pub rooms: BTreeMap<String, u32>,
    /// Files from outside, by what they are to it.
    #[serde(default)]
    pub sources: BTreeMap<String, Digest>,
    /// Every key with its value in force, as canonical TOML.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
}

/// A task in a lock file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LockedTask {
    /// Its fingerprint.
    pub key: Digest,
    /// One digest over the names and digests of all of its files.
    pub output: Digest,
    /// Of a trial, the keys in which it differs from the stage that is tuned.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
}

/// The line, from 1, at which Git has left both sides of a merge in a lock file.
pub fn conflict_line(lock: &[u8]) -> Option<usize> {
    Some(lock.split(|&byte| byte == b'\n').position(|line| line.starts_with(b"<<<<<<< "))? + 1)
}

/// In what a lock file and a run, or a plan, differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// A key of a stage has another value: the stage, the key, the value locked, the one found, where that stands.
    Setting(String, String, String, String, Option<Span>),
    /// What a stage reads from outside has other content: the stage, and what it is to it.
    Input(String, String),
    /// A stage computes with another revision of a room: the stage, the room, the revision locked, the one here.
    Room(String, String, u32, u32),
    /// The task is not in the lock file.
    New(String),
    /// The task is in the lock file only.
    Gone(String),
    /// It is computed from something else.
    Key(String),
    /// It may be computed from something else: a task above is.
    Above(String),
    /// It cannot be told without the records of a store whether it is.
    Unknown(String),
    /// It is computed from the same and gave other bytes.
    Output(String),
    /// A metric has another value: its name, the one locked, the one found.
    Metric(String, String, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Setting(stage, key, old, new, _) => write!(f, "`{stage}`: `{key}` changed: {old} -> {new}"),
            Difference::Input(stage, input) => write!(f, "`{stage}` reads another `{input}`"),
            Difference::Room(stage, room, old, new) => {
                write!(f, "`{stage}` computes with `{room}` of revision {new}, locked is {old}")
            }
            Difference::New(task) => write!(f, "`{task}` is not in the lock file"),
            Difference::Gone(task) => write!(f, "`{task}` is in the lock file only"),
            Difference::Key(task) => write!(f, "`{task}` is computed from something else"),
            Difference::Above(task) => write!(f, "`{task}` is below a task that is computed from something else"),
            Difference::Unknown(task) => {
                write!(f, "`{task}`: not known here, the records of what it reads are not in the store")
            }
            Difference::Output(task) => write!(f, "`{task}` gave other bytes from the same inputs"),
            Difference::Metric(name, old, new) => write!(f, "metric `{name}`: {old} -> {new}"),
        }
    }
}

/// The largest lock file that is read, in bytes: one of a search of 100,000 trials has 70 MB.
pub(super) const MOST: u64 = 256 << 20;

/// The number of the layout that this program writes.
const VERSION: u32 = 2;

/// Gives the digests of the sources that tasks of a graph read.
pub(super) type DigestSources<'d> = dyn FnMut(&Graph, &[PlannedTask]) -> Result<SourceDigests, RunError> + 'd;

impl LockFile {
    /// What a plan or a run comes to; `None` if not every task is there.
    pub(super) fn of<'t>(
        graph: &Graph,
        tasks: impl Iterator<Item = (usize, crate::stages::Part, &'t TaskRecord, Option<&'t Entry>)>,
    ) -> Option<LockFile> {
        let mut lock = LockFile { version: VERSION, pipeline: graph.name.clone(), ..LockFile::default() };
        lock.stages = stages(graph);
        for (stage, part, record, entry) in tasks {
            let entry = entry?;
            let set = match graph.trial(stage) {
                Some(trial) => differing_keys(&keys(graph, trial.of), &keys(graph, stage)),
                None => BTreeMap::new(),
            };
            let locked = LockedTask { key: entry.fingerprint, output: entry.artifact(), set };
            lock.tasks.insert(task_key(&graph.nodes[stage].name, part), locked);
            let own = graph.trial(stage).map_or(stage, |trial| trial.of);
            if let Some(locked) = lock.stages.get_mut(&graph.nodes[own].name) {
                locked.rooms.extend(record.rooms.iter().cloned());
                locked.seed = locked.seed.or(record.seed);
                locked.sources.extend(record.sources.iter().map(|source| (source.role.clone(), source.digest)));
            }
        }
        Some(lock)
    }

    /// Reads a lock file's text.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub fn parse(text: &str) -> Result<LockFile, String> {
        #[derive(serde::Deserialize)]
        struct Version {
            version: u32,
        }
        if let Some(line) = conflict_line(text.as_bytes()) {
            return Err(format!("the lock file holds a conflict of a merge, line {line}"));
        }
        let error = |error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let at = line.map_or_else(String::new, |line| format!(", line {line}"));
            format!("the lock file cannot be read{at}: {}", error.message().trim_end_matches('.'))
        };
        let Version { version } = toml::from_str(text).map_err(error)?;
        match version {
            VERSION => toml::from_str(text).map_err(error),
            newer if newer > VERSION => {
                Err(format!("the lock file has version {newer}, newer than {VERSION}, the newest this program knows"))
            }
            older => Err(format!("the lock file has version {older} of an earlier Convoy, expected {VERSION}")),
        }
    }

    /// Reads the lock file at `path`; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Option<LockFile>, String> {
        let linked = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        match files::read_regular(path, MOST) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => LockFile::parse(&text).map(Some),
                Err(_) => Err("the lock file is not UTF-8 text".to_owned()),
            },
            // A dangling link is a lock file that cannot be read.
            Err(error) if error.cause.kind() == io::ErrorKind::NotFound && !linked => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Its text.
    pub fn render(&self) -> String {
        let mut text = format!(
            "{}, for Git: what each task was and gave. `convoy check --locked` and\n\
             # `convoy run --locked` compare with it.\n",
            files::LOCK_HEAD
        );
        let _ = writeln!(text, "version = {}\npipeline = {}", self.version, quote(&self.pipeline));
        if !self.metrics.is_empty() {
            text.push_str("\n[metrics]\n");
        }
        let mut group = None;
        for (name, value) in &self.metrics {
            part(&mut text, &mut group, name.split('.').next());
            let _ = writeln!(text, "{} = {}", quote(name), quote(value));
        }
        for (name, stage) in &self.stages {
            let name = quote(name);
            let _ = writeln!(text, "\n[stage.{name}]\nkind = {}", quote(&stage.kind));
            let inputs: Vec<String> = stage.inputs.iter().map(|input| quote(input)).collect();
            let _ = writeln!(text, "inputs = [{}]", inputs.join(", "));
            if let Some(seed) = stage.seed {
                let _ = writeln!(text, "seed = {seed}");
            }
            for (room, revision) in &stage.rooms {
                let _ = writeln!(text, "rooms.{} = {revision}", quote(room));
            }
            for (role, digest) in &stage.sources {
                let _ = writeln!(text, "sources.{} = \"{digest}\"", quote(role));
            }
            for (key, value) in &stage.keys {
                let _ = writeln!(text, "keys.{} = {}", quote(key), quote(value));
            }
        }
        if !self.tasks.is_empty() {
            text.push_str("\n[tasks]\n");
        }
        let mut group = None;
        for (name, task) in &self.tasks {
            // The trials of a search are one group.
            part(&mut text, &mut group, name.split(['/', ' ']).next());
            let _ = write!(text, "{} = {{ key = \"{}\", output = \"{}\"", quote(name), task.key, task.output);
            if !task.set.is_empty() {
                let set: Vec<String> =
                    task.set.iter().map(|(key, value)| format!("{} = {}", quote(key), quote(value))).collect();
                let _ = write!(text, ", set = {{ {} }}", set.join(", "));
            }
            text.push_str(" }\n");
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

    /// The tasks that are computed from the same in `run` (as a lock file) and gave other bytes, sorted.
    pub fn contradictions<'l>(&'l self, run: &'l LockFile) -> impl Iterator<Item = &'l String> {
        let other = |name: &String, locked: &LockedTask| {
            run.tasks.get(name).is_some_and(|found| found.key == locked.key && found.output != locked.output)
        };
        self.tasks.iter().filter(move |(name, locked)| other(name, locked)).map(|(name, _)| name)
    }

    /// In what a run (as a lock file) differs from this one, sorted: keys first, then tasks, then metrics.
    pub fn compare(&self, run: &LockFile) -> Vec<Difference> {
        self.compare_at(run, &|_, _| None)
    }

    /// The same, with the places of keys in the manifest whose `graph` was run.
    pub fn compare_in(&self, run: &LockFile, graph: &Graph) -> Vec<Difference> {
        self.compare_at(run, &|stage, key| place(graph, stage, key))
    }

    fn compare_at(&self, run: &LockFile, span: &dyn Fn(&str, &str) -> Option<Span>) -> Vec<Difference> {
        let mut differences: BTreeSet<Difference> = settings(&self.stages, &run.stages, span);
        for (name, stage) in &run.stages {
            for (room, &revision) in &stage.rooms {
                differences.extend(self.other_room(name, room, revision));
            }
            for (role, digest) in &stage.sources {
                let locked = self.stages.get(name).and_then(|locked| locked.sources.get(role));
                if locked.is_some_and(|locked| locked != digest) {
                    differences.insert(Difference::Input(name.clone(), role.clone()));
                }
            }
        }
        let names: BTreeSet<&String> = self.tasks.keys().chain(run.tasks.keys()).collect();
        for name in names {
            differences.extend(match (self.tasks.get(name), run.tasks.get(name)) {
                (Some(locked), Some(found)) if locked.key != found.key => Some(Difference::Key(name.clone())),
                (Some(locked), Some(found)) if locked.output != found.output => Some(Difference::Output(name.clone())),
                (Some(_), Some(_)) | (None, None) => None,
                (Some(_), None) => Some(Difference::Gone(name.clone())),
                (None, Some(_)) => Some(Difference::New(name.clone())),
            });
        }
        let none = "none".to_owned();
        let metrics: BTreeSet<&String> = self.metrics.keys().chain(run.metrics.keys()).collect();
        for name in metrics {
            let (old, new) = (self.metrics.get(name).unwrap_or(&none), run.metrics.get(name).unwrap_or(&none));
            // A lock file of an earlier version does not say of how many images it speaks.
            let is_count = name.ends_with(".n") && *old == none;
            if old != new && !is_count {
                differences.insert(Difference::Metric(name.clone(), old.clone(), new.clone()));
            }
        }
        differences.into_iter().collect()
    }

    /// A stage and a room that the stage computes with here, if the lock file has another revision of it.
    fn other_room(&self, stage: &str, room: &str, revision: u32) -> Option<Difference> {
        let locked = *self.stages.get(stage)?.rooms.get(room)?;
        (locked != revision).then(|| Difference::Room(stage.to_owned(), room.to_owned(), locked, revision))
    }

    /// The digests of the sources that it names, by stage.
    pub(super) fn sources(&self, graph: &Graph) -> SourceDigests {
        let of_stage = |name: &str| -> Vec<SourceDigest> {
            let sources = self.stages.get(name).into_iter().flat_map(|stage| &stage.sources);
            sources.map(|(role, &digest)| SourceDigest { role: role.clone(), digest }).collect()
        };
        SourceDigests(graph.nodes.iter().map(|node| of_stage(&node.name)).collect())
    }

    /// Plans as if this file were the store, as far as `recall` has the records that it names: what is not fresh then
    /// differs. What a key changed is told by the key; what stands below something that is not known here is not
    /// judged.
    pub(super) fn compare_plan(
        &self,
        own: &Graph,
        digest: &mut DigestSources<'_>,
        entry: &dyn Fn(&Digest) -> Option<Entry>,
        open: &dyn Fn(&Entry) -> Result<Round, store::Error>,
    ) -> Result<Vec<Difference>, RunError> {
        let locked: BTreeMap<Digest, &LockedTask> = self.tasks.values().map(|task| (task.key, task)).collect();
        // What the lock file vouches for, with the outputs that it says.
        let vouched = |fingerprint: &Digest| {
            let task = locked.get(fingerprint)?;
            entry(fingerprint).filter(|entry| entry.artifact() == task.output)
        };
        let find = |fingerprint: &Digest| vouched(fingerprint).map_or(Found::Missing, Found::Hit);
        let memory = Memory::default();
        let known = Known { recall: &|_| None, memory: &memory, has: &|_| true };
        let mut results = Results::new();
        let (plan, is_whole) = loop {
            let graph = expand(own, &results, &Cuts::new());
            let tasks = plan::tasks(&graph, None, None);
            let sources = digest(&graph, &tasks)?;
            let plan = plan::plan(graph, tasks, &sources, &find, &known, &Forced::default());
            match read_results(&plan, open, &mut results) {
                Ok(true) => {}
                Ok(false) => break (plan, true),
                Err(_) => break (plan, false),
            }
        };
        let graph = &plan.graph;
        let mut differences = settings(&self.stages, &stages(own), &|stage, key| place(own, stage, key));
        let records = plan.tasks.iter().flat_map(|task| task.record.sources.iter().map(move |source| (task, source)));
        for (task, source) in records {
            let stage = &graph.nodes[task.stage].name;
            if self.stages.get(stage).is_some_and(|locked| locked.sources.get(&source.role) != Some(&source.digest)) {
                differences.insert(Difference::Input(stage.clone(), source.role.clone()));
            }
        }
        for task in plan.tasks.iter().filter(|task| graph.trial(task.stage).is_none()) {
            let stage = &graph.nodes[task.stage].name;
            let rooms = task.record.rooms.iter();
            differences.extend(rooms.filter_map(|(room, revision)| self.other_room(stage, room, *revision)));
        }
        let has_changed = !differences.is_empty();
        let mut planned = BTreeSet::new();
        // Tasks that are stale for a known reason, and those below.
        let mut stale: BTreeSet<usize> = BTreeSet::new();
        for (i, task) in plan.tasks.iter().enumerate() {
            let name = task_key(&graph.nodes[task.stage].name, task.part);
            let locked = self.tasks.get(&name);
            let is_stale = match (&task.state, locked) {
                (State::Stale(_), Some(locked)) => task.fingerprint != Some(locked.key),
                _ => false,
            };
            let is_below = task.above.iter().any(|above| stale.contains(above));
            if is_stale || is_below || locked.is_none() {
                stale.insert(i);
            }
            differences.extend(match (&task.state, locked) {
                (State::Fresh, Some(_)) => None,
                // What it is computed from is not known here.
                (State::Pending { .. }, _) if !is_whole => None,
                (_, None) => Some(Difference::New(name.clone())),
                (State::Stale(_), Some(_)) if is_stale => Some(Difference::Key(name.clone())),
                // Its key is the locked one. Its record is not here, or is of another output.
                (State::Stale(_), Some(locked)) => entry(&locked.key).map(|_| Difference::Output(name.clone())),
                (State::Pending { .. }, Some(_)) if is_below => Some(Difference::Above(name.clone())),
                (State::Pending { .. }, Some(_)) if has_changed => Some(Difference::Unknown(name.clone())),
                (State::Pending { .. }, Some(_)) => None,
            });
            planned.insert(name);
        }
        if is_whole {
            // What is planned below something that is not known here may need tasks that are not planned yet.
            let are_known = plan.tasks.iter().all(|task| task.state == State::Fresh);
            let is_of_no_stage = |name: &String| {
                let stage = name.rsplit_once('/').map_or(name.as_str(), |(stage, _)| stage);
                !is_of_trial(stage) && own.nodes.iter().all(|node| node.name != stage)
            };
            let gone = self.tasks.keys().filter(|key| !planned.contains(*key));
            differences.extend(gone.filter(|name| are_known || is_of_no_stage(name)).cloned().map(Difference::Gone));
        }
        Ok(differences.into_iter().collect())
    }
}

/// In what the keys of the manifest's stages differ from those of a lock file, with their places. Nothing is looked up:
/// what the stages read from outside, and what they computed, is not judged.
pub fn changed_keys(lock: &LockFile, graph: &Graph) -> Vec<Difference> {
    settings(&lock.stages, &stages(graph), &|stage, key| place(graph, stage, key)).into_iter().collect()
}

fn place(graph: &Graph, stage: &str, key: &str) -> Option<Span> {
    let at = graph.nodes.iter().position(|node| node.name == stage)?;
    graph.span_of(at, key)
}

impl LockFile {
    /// The stages of a manifest with their keys; no task, no metric.
    pub fn of_graph(graph: &Graph) -> LockFile {
        let (version, pipeline) = (VERSION, graph.name.clone());
        LockFile { version, pipeline, stages: stages(graph), ..LockFile::default() }
    }
}

impl Outcome {
    /// What the lock file of this run says, without metrics; `None` if not every task is there.
    pub fn lock_file(&self) -> Option<LockFile> {
        let tasks = self.tasks.iter().map(|task| (task.stage, task.part, &task.record, task.entry.as_ref()));
        LockFile::of(&self.graph, tasks)
    }
}

/// The keys of a node, without what a search records of its trials: those have lines of their own.
fn keys(graph: &Graph, stage: usize) -> BTreeMap<String, String> {
    let resolved = graph.entries[stage].resolved.iter();
    let own = resolved.filter(|resolved| !["trials[", "ranges["].iter().any(|start| resolved.key.starts_with(start)));
    own.map(|resolved| (resolved.key.clone(), resolved.value.clone())).collect()
}

fn differing_keys(of: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    own.iter().filter(|(key, value)| of.get(*key) != Some(*value)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The manifest's stages, as far as they are known without tasks.
fn stages(graph: &Graph) -> BTreeMap<String, LockedStage> {
    let own = graph.nodes[..graph.n_own].iter().enumerate();
    own.filter(|(_, node)| node.stage.search().is_none_or(|search| search.rank() == 1))
        .map(|(at, node)| {
            let stage = LockedStage {
                kind: node.stage.kind().to_owned(),
                inputs: node.inputs.iter().map(|&input| graph.nodes[input].name.clone()).collect(),
                seed: node.stage.uses_seed().then_some(graph.entries[at].seed),
                keys: keys(graph, at),
                ..LockedStage::default()
            };
            (node.name.clone(), stage)
        })
        .collect()
}

/// The keys of stages that have other values. A stage that only one side has is told by its tasks.
fn settings(
    locked: &BTreeMap<String, LockedStage>,
    found: &BTreeMap<String, LockedStage>,
    span: &dyn Fn(&str, &str) -> Option<Span>,
) -> BTreeSet<Difference> {
    let mut differences = BTreeSet::new();
    for (name, old) in locked {
        let Some(new) = found.get(name) else { continue };
        let mut tell = |key: &str, old: String, new: String| {
            let at = span(name, key);
            differences.insert(Difference::Setting(name.clone(), key.to_owned(), old, new, at));
        };
        if old.kind != new.kind {
            tell("kind", old.kind.clone(), new.kind.clone());
            continue;
        }
        if old.inputs != new.inputs {
            let key = if old.inputs.len().max(new.inputs.len()) > 1 { "members" } else { "input" };
            tell(key, old.inputs.join(", "), new.inputs.join(", "));
        }
        if let (Some(before), Some(after)) = (old.seed, new.seed)
            && before != after
        {
            tell("seed", before.to_string(), after.to_string());
        }
        let list = |keys: &BTreeMap<String, String>| -> Vec<(String, String)> {
            keys.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        for change in differ::changed_keys(&list(&old.keys), &list(&new.keys)) {
            let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
            tell(&change.key, or_none(change.old), or_none(change.new));
        }
    }
    differences
}

/// An empty line where another stage's lines begin.
fn part<'n>(text: &mut String, group: &mut Option<&'n str>, own: Option<&'n str>) {
    if group.is_some() && *group != own {
        text.push('\n');
    }
    *group = own;
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
        let mut lock = LockFile { version: VERSION, pipeline: "digits".to_owned(), ..LockFile::default() };
        lock.metrics.insert("accuracy \"test\"".into(), "0.98".into());
        let mut stage = LockedStage { kind: "train".into(), seed: Some(1), ..LockedStage::default() };
        stage.inputs.push("split".into());
        stage.rooms.insert("adam".into(), 1);
        stage.sources.insert("a\\b\n".into(), digest("s"));
        stage.keys.insert("vars.\"x y\"".into(), "\"a\\\"b\"".into());
        stage.keys.insert("epochs".into(), "20".into());
        lock.stages.insert("cnn".into(), stage);
        let task = LockedTask { key: digest("key"), output: digest("out"), set: BTreeMap::new() };
        lock.tasks.insert("cnn/fold 1".into(), task.clone());
        let set = BTreeMap::from([("learning_rate".to_owned(), "0.01".to_owned())]);
        lock.tasks.insert("search r1t1 cnn/fold 1".into(), LockedTask { set, ..task });
        lock
    }

    #[test]
    fn a_lock_file_survives_its_text() {
        assert_eq!(LockFile::parse(&lock().render()), Ok(lock()));
        assert!(LockFile::parse("version = 3\npipeline = \"x\"").unwrap_err().contains("newer than 2"));
        assert!(LockFile::parse("version = 1\npipeline = \"x\"").unwrap_err().contains("earlier Convoy"));
        let error = LockFile::parse("version = 2\npipeline = ").unwrap_err();
        assert!(error.starts_with("the lock file cannot be read, line 2: "), "{error}");
    }

    #[test]
    fn a_task_is_a_line_of_at_most_300_bytes() {
        let text = lock().render();
        let line = text.lines().find(|line| line.contains("r1t1")).unwrap();
        assert!(line.len() < 300, "{line}");
        assert_eq!(text.lines().filter(|line| line.contains("fold 1")).count(), 2);
    }

    #[test]
    fn differences_are_named_keys_first() {
        let (old, mut new) = (lock(), lock());
        assert_eq!(old.compare(&new), []);
        assert_eq!(old.contradictions(&new).count(), 0);
        new.tasks.get_mut("cnn/fold 1").unwrap().output = Digest::of(b"other");
        new.metrics.insert("accuracy \"test\"".into(), "0.97".into());
        new.tasks.insert("cnn/fold 2".into(), new.tasks["cnn/fold 1"].clone());
        new.stages.get_mut("cnn").unwrap().keys.insert("epochs".into(), "21".into());
        let texts: Vec<String> = old.compare(&new).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "`cnn`: `epochs` changed: 20 -> 21",
                "`cnn/fold 2` is not in the lock file",
                "`cnn/fold 1` gave other bytes from the same inputs",
                "metric `accuracy \"test\"`: 0.98 -> 0.97",
            ]
        );
        assert_eq!(old.contradictions(&new).collect::<Vec<_>>(), ["cnn/fold 1"]);
    }

    #[test]
    fn stages_have_an_empty_line_between_them_and_a_conflict_is_called_by_its_name() {
        let mut lock = lock();
        let task = lock.tasks["cnn/fold 1"].clone();
        for name in ["cnn/fold 2", "cnn-2/fold 1", "search/whole"] {
            lock.tasks.insert(name.to_owned(), task.clone());
        }
        let text = lock.render();
        let lines = text.split_once("[tasks]\n").unwrap().1.lines();
        let names: Vec<&str> = lines.map(|line| line.split('"').nth(1).unwrap_or_default()).collect();
        assert_eq!(
            names,
            ["cnn-2/fold 1", "", "cnn/fold 1", "cnn/fold 2", "", "search r1t1 cnn/fold 1", "search/whole"]
        );
        let merged = text.replace("[tasks]\n", "[tasks]\n<<<<<<< HEAD\n");
        assert!(LockFile::parse(&merged).unwrap_err().starts_with("the lock file holds a conflict of a merge, line "));
    }

    #[test]
    fn another_revision_is_the_reason_that_is_told() {
        let (old, mut new) = (lock(), lock());
        new.stages.get_mut("cnn").unwrap().rooms.insert("adam".into(), 2);
        new.tasks.get_mut("cnn/fold 1").unwrap().key = Digest::of(b"other");
        let texts: Vec<String> = old.compare(&new).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["`cnn` computes with `adam` of revision 2, locked is 1", "`cnn/fold 1` is computed from something else"]
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
