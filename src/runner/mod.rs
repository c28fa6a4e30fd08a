//! Which tasks are stale and why, and running those.
//!
//! Start at [`Session`]: it joins a checked manifest with a store. [`Session::plan`] is what `status`, `why` and
//! `run --dry-run` show; [`Session::run`] computes what the plan calls stale. Planning is one pure function
//! ([`plan`](plan::plan)) of the graph, the digests of the sources and what the store has. What a task means is the
//! stage's, what a fingerprint is the store's; here is when, and why.

mod budget;
mod clock;
mod differ;
mod error;
mod events;
mod expand;
mod graph;
mod kept;
mod leakage;
mod lockfile;
mod memory;
mod outcome;
mod perform;
mod plan;
mod purse;
mod rates;
mod reason;
mod recall;
mod reexecute;
mod scheduler;
mod worker;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::artifact::Files;
use crate::artifact::search::{ROUND, Round};
use crate::manifest::Manifest;
use crate::stages::{Output, Part, Places};
use crate::store::{self, Access, Cleaned, Digest, Entry, Found, Listed, Store, Verified};

use clock::Clock;
use expand::Cuts;
use plan::{Forced, Known};

pub use error::RunError;
pub use events::{Ended, Event, Events, Failure, Silent};
pub use graph::{Graph, SourceDigests, TrialNode, compared_lock, is_of_trial, task_name, variant_name};
pub use kept::{Named, Why, lock_files, named_by_runs_and_locks, read_lock};
pub use leakage::{LeakTest, Learner, Unmoved};
pub use lockfile::{Difference, LockFile, LockedStage, LockedTask, changed_keys, conflict_line};
pub use memory::{Memory, Remembered};
pub use outcome::{Outcome, TaskOutcome};
pub use perform::{RepeatError, repeat};
pub use plan::{Plan, PlannedTask, State};
pub use reason::{Lost, StaleReason};
pub use recall::{locked_dataset, locked_results};
pub use reexecute::{FileDifference, Recorded};

/// How to run.
pub struct Options<'a> {
    /// Threads in all, at least 1. Never changes a byte.
    pub threads: usize,
    /// Stages that run even if they are fresh, by index.
    pub force: BTreeSet<usize>,
    /// Only these stages and what they need, by index; `None`: all of them.
    pub targets: Option<Vec<usize>>,
    /// Of the targets only these tasks and what they need; `None`: all of them.
    pub part: Option<Part>,
    /// Set it (from a signal handler, say) to stop: nothing more is started, running tasks end early.
    pub cancel: &'a AtomicBool,
    /// How long to wait for another run that computes the same task.
    pub lock_limit: Duration,
    /// At most so many tasks side by side; `None`: as many as there are threads.
    pub jobs: Option<usize>,
    /// The memory that this process may take, in bytes; `None`: what the system leaves. Fewer tasks run side by side then.
    pub memory: Option<u64>,
    /// When no more tasks are begun, and those that run stop at their next checkpoint.
    pub deadline: Option<Instant>,
    /// Whether the run may go on, asked once the data set of a stage, by index, is there ([`NAMES_FILES`] of it). `None`: it
    /// may.
    pub admits: Option<&'a AdmitsDataset<'a>>,
    /// Of a finished run, which files somebody reads: where they are not here their tasks are computed again. `None`:
    /// nobody does.
    pub reads: Option<&'a ReadsFile<'a>>,
}

/// Where the digests of what stages read from outside are taken from.
#[derive(Clone, Copy)]
pub enum SourcesFrom<'p> {
    /// From the lock file that is compared with.
    Lock,
    /// From the disk.
    Disk,
    /// From a plan that was made just now.
    Plan(&'p Plan),
}

/// Whether somebody reads this file of a task, given what the run came to.
pub type ReadsFile<'a> = dyn Fn(&Outcome, &TaskOutcome, &str) -> bool + Sync + 'a;

/// Whether a run may go on with this data set of a stage.
pub type AdmitsDataset<'a> = dyn Fn(usize, &Files) -> bool + Sync + 'a;

impl<'a> Options<'a> {
    /// All stages, nothing forced, an hour's patience.
    pub fn new(threads: usize, cancel: &'a AtomicBool) -> Options<'a> {
        let lock_limit = Duration::from_secs(3600);
        let (threads, force) = (threads.max(1), BTreeSet::new());
        Options {
            threads,
            force,
            targets: None,
            part: None,
            cancel,
            lock_limit,
            jobs: None,
            memory: None,
            deadline: None,
            admits: None,
            reads: None,
        }
    }

    /// Whether the time is over.
    fn is_out_of_time(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A checked manifest and a store.
pub struct Session<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// Its graph, without trials: a plan has those that are known.
    pub graph: Graph,
    /// The store.
    pub store: Store,
}

/// Where a project's store is: `cache_dir` if given, else `.convoy` at the root.
pub fn store_dir(root: &Path, cache_dir: Option<&Path>) -> PathBuf {
    cache_dir.map_or_else(|| root.join(store::FOLDER), Path::to_owned)
}

/// Where the files are that a manifest's stages read.
pub fn places(manifest: &Manifest, data_dir: Option<&Path>) -> Places {
    Places {
        manifest_dir: manifest.dir.clone(),
        data_dir: data_dir.map(Path::to_owned),
        project_root: store::project_root(&manifest.dir),
    }
}

impl<'a> Session<'a> {
    /// Joins `manifest` with the store of its project, or the one in `cache_dir`.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub fn open(
        manifest: &'a Manifest,
        data_dir: Option<&Path>,
        cache_dir: Option<&Path>,
        access: Access,
    ) -> Result<Session<'a>, RunError> {
        let places = places(manifest, data_dir);
        let root = places.project_root.clone();
        let store = Store::open(&store_dir(&root, cache_dir), &root, access)?;
        Ok(Session { manifest, graph: Graph::of(manifest, places), store })
    }

    /// What each task was computed from last time.
    pub fn memory(&self) -> Memory {
        Memory::load(&self.store, &self.graph)
    }

    /// Decides what is fresh, stale and pending, and why.
    ///
    /// # Errors
    /// If a stage's sources are not there or cannot be read.
    pub fn plan(&self, options: &Options<'_>) -> Result<Plan, RunError> {
        let force = Forced { stages: options.force.clone(), ..Forced::default() };
        self.plan_telling(options, &Silent, &force, &Cuts::new())
    }

    /// The data set that a stage of this manifest made, if it is in the store: the named files of it, no pixel is read.
    /// Where the stage's sources are not here, those of the last run are believed, else those of the lock file.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn stored_dataset(&self, stage: usize, files: &[&str], threads: usize) -> Result<Option<Files>, RunError> {
        let node = &self.graph.nodes[stage];
        if node.flow.output != Output::Dataset {
            return Ok(None);
        }
        let tasks = plan::tasks(&self.graph, Some(&[stage]), None);
        let memory = self.memory();
        let mut sources = SourceDigests(vec![Vec::new(); self.graph.nodes.len()]);
        if node.stage.sources(&self.graph.places).is_ok() {
            // What was never ingested is not read for its digest.
            if memory.tasks.is_empty() && !self.graph.lock_path.exists() {
                return Ok(None);
            }
            let needed = BTreeSet::from([stage]);
            sources =
                graph::digest_sources(&self.graph, &self.store, needed, threads, &|_, _| (), &mut BTreeMap::new())?;
            self.store.save_stamps();
        } else if let Some(record) =
            memory.get(&node.name, Part::Whole).and_then(|known| self.store.task(&known.fingerprint))
        {
            sources.0[stage] = record.sources;
        } else if let Ok(Some(lock)) = LockFile::read(&compared_lock(self.manifest)) {
            sources = lock.sources(&self.graph);
        }
        if sources.0[stage].is_empty() {
            return Ok(None);
        }
        let failed = RefCell::new(None);
        let find = |fingerprint: &Digest| match self.store.read_entry(fingerprint) {
            Ok(Some(entry)) => Found::Hit(entry),
            Ok(None) => Found::Missing,
            Err(error) => {
                failed.borrow_mut().get_or_insert(error);
                Found::Missing
            }
        };
        let known = Known { recall: &|_| None, memory: &memory, has: &|_| true };
        let plan = plan::plan(self.graph.clone(), tasks, &sources, &find, &known, &Forced::default());
        if let Some(error) = failed.take() {
            return Err(error.into());
        }
        let Some(entry) = plan.tasks.into_iter().find_map(|task| task.entry) else { return Ok(None) };
        match self.store.open_files(&entry, &|name| files.contains(&name)) {
            Ok(files) => Ok(Some(files)),
            Err(store::Error::Corrupt { .. }) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What a round of a search found.
    fn round(&self, entry: &Entry) -> Result<Round, store::Error> {
        let files = self.store.open_files(entry, &|name| name == ROUND)?;
        Round::read(&files).map_err(|error| store::Error::Corrupt { digest: entry.artifact(), file: error.file })
    }

    fn plan_telling(
        &self,
        options: &Options<'_>,
        events: &dyn Events,
        force: &Forced,
        cuts: &Cuts,
    ) -> Result<Plan, RunError> {
        let memory = self.memory();
        let reading = |stage: &str, bytes: u64| events.event(&Event::Reading { stage, bytes });
        let mut known = BTreeMap::new();
        let mut results = expand::Results::new();
        let mut damaged: BTreeMap<Digest, String> = BTreeMap::new();
        let mut force = force.clone();
        let unreadable = RefCell::new(None);
        let mut plan = loop {
            let graph = expand::expand(&self.graph, &results, cuts);
            let tasks = plan::tasks(&graph, options.targets.as_deref(), options.part);
            let needed = tasks.iter().map(|task| task.stage).collect();
            let sources = graph::digest_sources(&graph, &self.store, needed, options.threads, &reading, &mut known)?;
            let find = |fingerprint: &Digest| match damaged.get(fingerprint) {
                Some(file) => Found::Corrupt(file.clone()),
                // What cannot be read is not absent: nothing is computed anew for it.
                None => self.store.find(fingerprint).unwrap_or_else(|error| {
                    unreadable.borrow_mut().get_or_insert(error);
                    Found::Missing
                }),
            };
            let recall = |fingerprint: &Digest| self.store.task(fingerprint);
            let has = |digest: &Digest| self.store.has_digest(digest);
            let known = Known { recall: &recall, memory: &memory, has: &has };
            let plan = plan::plan(graph, tasks, &sources, &find, &known, &force);
            if let Some(error) = unreadable.take() {
                return Err(error.into());
            }
            match expand::read_results(&plan, &|entry| self.round(entry), &mut results) {
                Ok(true) => {}
                Ok(false) => break plan,
                Err((fingerprint, store::Error::Corrupt { file, .. })) => {
                    damaged.insert(fingerprint, file);
                }
                Err((_, error @ store::Error::Io { .. })) if !is_absent(&error) => return Err(error.into()),
                // The ranking itself is read to know what comes next.
                Err((fingerprint, store::Error::Io { .. })) if force.wanted.insert(fingerprint) => {}
                Err((fingerprint, _)) => {
                    damaged.insert(fingerprint, ROUND.to_owned());
                }
            }
        };
        plan.explain_sources(&|old, new| self.store.folder_changes(old, new));
        self.store.save_stamps();
        Ok(plan)
    }

    /// Plans, and computes what is not fresh.
    ///
    /// # Errors
    /// As [`Session::plan`], or if another manifest of the project has the same name. A task that fails is part of the
    /// outcome.
    pub fn run(&self, options: &Options<'_>, events: &dyn Events) -> Result<Outcome, RunError> {
        self.run_planned(None, options, events)
    }

    /// The same, for whoever has made the plan with these options already.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_planned(
        &self,
        mut planned: Option<Plan>,
        options: &Options<'_>,
        events: &dyn Events,
    ) -> Result<Outcome, RunError> {
        if let Some(other) = memory::namesake(&self.store, &self.graph) {
            return Err(RunError::NameTaken { name: self.graph.name.clone(), other });
        }
        let mut cuts = Cuts::new();
        let mut force = Forced { stages: options.force.clone(), ..Forced::default() };
        let clock = Clock::default();
        let told = worker::Told::default();
        let mut earlier: BTreeMap<String, TaskOutcome> = BTreeMap::new();
        loop {
            let plan = match planned.take() {
                Some(plan) => plan,
                None => self.plan_telling(options, events, &force, &cuts)?,
            };
            let mut outcome = scheduler::run(self, plan, options, events, &force, &clock, &told);
            let has_moved = outcome.tasks.iter().any(|task| matches!(task.ended, Ended::Computed | Ended::Found));
            outcome.take_over(&mut earlier);
            let has_failed = outcome.failures().next().is_some();
            let is_limited = outcome.cut(&clock, &mut cuts);
            outcome.truncated = cuts.keys().map(|&(search, _)| search).collect();
            // Each pass makes a round known, or is the last.
            let has_more = outcome.has_open() && has_moved || is_limited;
            let is_stopped = outcome.is_interrupted || outcome.is_out_of_time || outcome.is_refused;
            let is_over = outcome.is_complete() || is_stopped || has_failed || !has_more;
            let n_wanted = force.wanted.len();
            if outcome.is_complete() && !outcome.is_interrupted {
                force.wanted.extend(self.absent_but_read(&outcome, options)?);
            }
            // Each pass wants more, or is the last.
            if is_over && force.wanted.len() == n_wanted {
                return Ok(outcome);
            }
            force.done.extend(outcome.computed().map(|task| task.name.clone()));
            earlier = outcome.into_computed();
        }
    }

    /// The finished tasks of which a file is read that is not here.
    fn absent_but_read(&self, outcome: &Outcome, options: &Options<'_>) -> Result<Vec<Digest>, RunError> {
        let Some(reads) = options.reads else { return Ok(Vec::new()) };
        let mut absent = Vec::new();
        for task in &outcome.tasks {
            let Some(entry) = task.entry.as_ref().filter(|_| task.is_recorded) else { continue };
            for output in entry.outputs.iter().filter(|output| reads(outcome, task, &output.name)) {
                if !self.store.has_blob(output)? {
                    absent.push(entry.fingerprint);
                    break;
                }
            }
        }
        Ok(absent)
    }

    /// Compares the plan with a lock file as if the lock file were the store: which tasks would give other keys.
    ///
    /// # Errors
    /// As [`Session::plan`].
    pub fn compare_with_lock(
        &self,
        lock: &LockFile,
        sources: SourcesFrom<'_>,
        threads: usize,
    ) -> Result<Vec<Difference>, RunError> {
        let mut known = BTreeMap::new();
        if let SourcesFrom::Plan(plan) = sources {
            let own = plan.tasks.iter().filter(|task| task.stage < self.graph.n_own);
            let own = own.filter(|task| !task.record.sources.is_empty());
            known.extend(own.map(|task| (task.stage, task.record.sources.clone())));
        }
        let is_read = !matches!(sources, SourcesFrom::Lock);
        let mut digest = |graph: &Graph, tasks: &[PlannedTask]| match is_read {
            true => {
                let needed = tasks.iter().map(|task| task.stage).collect();
                graph::digest_sources(graph, &self.store, needed, threads, &|_, _| (), &mut known)
            }
            false => Ok(lock.sources(graph)),
        };
        let entry = |fingerprint: &Digest| self.store.read_entry(fingerprint).ok().flatten();
        lock.compare_plan(&self.graph, &mut digest, &entry, &|entry| self.round(entry))
    }
}

/// Whether a blob was not there.
fn is_absent(error: &store::Error) -> bool {
    matches!(error, store::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Every finished task in the store, by label.
///
/// # Errors
/// If the store cannot be read.
pub fn cache_list(store: &Store) -> Result<Vec<Listed>, RunError> {
    Ok(store.list()?)
}

/// What is to be cleaned.
#[derive(Clone, Debug, Default)]
pub struct Cleaning {
    /// Tasks that are kept as well, by the words in which they were asked for.
    pub keep: BTreeMap<String, Vec<Digest>>,
    /// Pipelines whose runs keep nothing, and whose tasks go if nobody else names them.
    pub drop: Vec<String>,
    /// What is kept beside what is held, in bytes of all files.
    pub max_size: u64,
    /// Whether nothing is removed.
    pub is_dry: bool,
}

/// Cleans the store: what lock files, recent runs without `--set` and `keep` name is held; of the rest the most recently
/// used is kept, up to `max_size` bytes in all. Also why each task is held.
///
/// # Errors
/// If a run uses the store; if something cannot be read: a record, a note, a project's folder, a lock file.
pub fn cache_gc(store: &mut Store, cleaning: &Cleaning) -> Result<(Cleaned, Named), RunError> {
    let mut named = kept::named_by_runs_and_locks(store)?;
    let is_dropped = |name: &str| cleaning.drop.iter().any(|pipeline| kept::is_of(name, pipeline));
    let mut dropped: BTreeSet<Digest> = BTreeSet::new();
    for (key, reasons) in &mut named {
        let n = reasons.len();
        reasons.retain(|why| !matches!(why, Why::Run { pipeline, .. } if is_dropped(pipeline)));
        if reasons.len() < n {
            dropped.insert(*key);
        }
    }
    if !cleaning.drop.is_empty() {
        let labelled = store.list()?.into_iter().map(|listed| listed.entry);
        let of_dropped = labelled.filter(|entry| is_dropped(entry.label.split(' ').next().unwrap_or_default()));
        dropped.extend(of_dropped.map(|entry| entry.fingerprint));
    }
    for (word, keys) in &cleaning.keep {
        for key in keys {
            named.entry(*key).or_default().insert(Why::Asked(word.clone()));
        }
    }
    named.retain(|_, reasons| !reasons.is_empty());
    dropped.retain(|key| !named.contains_key(key));
    let held = named.iter().filter(|(_, reasons)| reasons.iter().any(Why::holds)).map(|(key, _)| *key).collect();
    let cleaned = store.gc(&held, &dropped, cleaning.max_size, cleaning.is_dry)?;
    if !cleaning.is_dry {
        for pipeline in &cleaning.drop {
            kept::forget_runs(store, pipeline)?;
        }
    }
    Ok((cleaned, named))
}

/// Checks every record and every blob.
///
/// # Errors
/// If the store cannot be read.
pub fn verify(store: &Store, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<Verified, RunError> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match pool(threads, "verify") {
        Some(pool) => Ok(pool.install(|| store.verify(progress))?),
        None => Ok(store.verify(progress)?),
    }
}

/// A pool of threads called `name-0` and so on. Where they cannot be started they are done without: the pool is the
/// current thread, or there is none if that is in a pool already. No byte depends on it.
fn pool(threads: usize, name: &'static str) -> Option<rayon::ThreadPool> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(move |i| format!("{name}-{i}"));
    threads.build().or_else(|_| rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build()).ok()
}
