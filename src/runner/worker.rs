//! Performs one task: takes its lock, looks whether somebody else was faster, opens what it reads, has it computed,
//! looks twice whether what it read is still what its record says, and publishes it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::clock::Clock;
use super::events::{Event, Events, Failure};
use super::graph::{self, Graph, task_name};
use super::perform::{Job, JobError, Unprepared};
use super::plan::PlannedTask;
use super::purse::Purse;
use super::reason::StaleReason;
use super::{Options, Session};
use crate::stages::{Before, Context};
use crate::store::fingerprint::{Input, SourceDigest};
use crate::store::{self, Digest, Entry, Found, Locking};

/// Everything a worker has to know.
pub(super) struct Order {
    /// The task's place in the plan.
    pub index: usize,
    /// Threads that it starts with.
    pub threads: usize,
    /// Threads that it has now.
    pub lent: AtomicUsize,
    pub task: PlannedTask,
    pub reasons: Vec<StaleReason>,
    pub fingerprint: Digest,
    pub is_forced: bool,
    /// Its record of the last time.
    pub before: Option<Digest>,
}

/// What a worker says at the end of a task.
pub(super) enum Reply {
    Found(Box<Entry>),
    Computed(Box<Entry>, Vec<String>),
    Failed(Failure),
    Cancelled,
    /// An input, by its place among the needs, turned out damaged or gone.
    Lost(usize, store::Error),
    /// What it read from outside was not what the record says: what it is now, and what changed.
    Changed(Vec<SourceDigest>, String),
}

/// What was told in this run, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeSet<String>>);

/// What all workers share.
pub(super) struct Workshop<'r> {
    session: &'r Session<'r>,
    pub graph: &'r Graph,
    clock: &'r Clock,
    options: &'r Options<'r>,
    pub events: &'r dyn Events,
    told: &'r Told,
    pub purse: Purse,
}

impl<'r> Workshop<'r> {
    pub fn new(
        session: &'r Session<'r>,
        graph: &'r Graph,
        options: &'r Options<'r>,
        events: &'r dyn Events,
        clock: &'r Clock,
        purse: Purse,
        told: &'r Told,
    ) -> Workshop<'r> {
        Workshop { session, graph, options, events, told, clock, purse }
    }

    pub fn warn(&self, task: Option<&str>, message: &str) {
        // Once for a stage, whichever of its folds says it first.
        let stage = task.and_then(|name| name.split(", ").next()).unwrap_or_default();
        let mut warned = unpoisoned(&self.told.0);
        if warned.insert(format!("{stage}: {message}")) {
            drop(warned);
            self.events.event(&Event::Warning { task, message });
        }
    }

    pub fn pass_warnings(&self) {
        for warning in self.session.store.take_warnings() {
            self.warn(None, &warning);
        }
    }

    /// Computes one task, unless another run has done it meanwhile; also how long that took, in seconds.
    pub fn work(&self, order: &Order) -> (Reply, f64) {
        let start = Instant::now();
        let reply = self.compute(order);
        self.purse.give_back(order.lent.load(Ordering::Relaxed));
        (reply, start.elapsed().as_secs_f64())
    }

    fn compute(&self, order: &Order) -> Reply {
        let (graph, store) = (self.graph, &self.session.store);
        if let Some(trial) = graph.trial(order.task.stage) {
            self.clock.start(trial.search);
        }
        let node = &graph.nodes[order.task.stage];
        let name = task_name(&node.name, order.task.part);
        let label = format!("{} {name}", graph.name);
        let mut waiting = |holder: &str| {
            self.events.event(&Event::Waiting { task: &name, holder });
            !self.options.cancel.load(Ordering::Relaxed) && !self.options.is_out_of_time()
        };
        let locking = Locking { who: &label, limit: self.options.lock_limit, waiting: &mut waiting };
        let Some(_lock) = store.lock(&order.fingerprint, locking) else { return Reply::Cancelled };
        if !order.is_forced {
            match store.find(&order.fingerprint) {
                Ok(Found::Hit(entry)) => return Reply::Found(Box::new(entry)),
                Ok(_) => {}
                Err(error) => return Reply::Failed(Failure::Store(error)),
            }
        }
        let job = match self.prepare(order) {
            Ok(job) => job,
            Err(reply) => return reply,
        };
        let seen = match self.look(order) {
            Ok(seen) => seen,
            Err(changed) => return changed,
        };
        self.events.event(&Event::Started {
            task: &name,
            stage: &node.name,
            is_trial: graph.trial(order.task.stage).is_some(),
            reasons: &order.reasons,
            threads: order.threads,
        });
        let mut draft = match store.draft() {
            Ok(draft) => draft,
            Err(error) => return Reply::Failed(Failure::Store(error)),
        };
        let context = TaskContext { workshop: self, name: &name, order, said: Mutex::default() };
        let ended = job.run(&graph.places, &context, &mut draft);
        if let Some(reply) = self.look_again(order, seen) {
            return reply;
        }
        match ended {
            Ok(()) => {}
            Err(JobError::Stage(error)) if error.is_cancelled => return Reply::Cancelled,
            Err(JobError::Stage(error)) => {
                return Reply::Failed(Failure::Stage(error.writing_to(&store.dir().join("tmp"))));
            }
            Err(JobError::Panic(message)) => return Reply::Failed(Failure::Bug(message)),
        }
        match store.publish(draft, &order.task.record, &label, context.into_said()) {
            Ok(published) => {
                store.remove_checkpoint(&order.fingerprint);
                Reply::Computed(Box::new(published.entry), published.differing)
            }
            Err(error) => Reply::Failed(Failure::Store(error)),
        }
    }

    /// The task as its record says it, with what it reads and no other file.
    fn prepare(&self, order: &Order) -> Result<Job, Reply> {
        let graph = self.graph;
        let entry = &graph.entries[order.task.stage];
        let places: Vec<(String, String)> = entry.places.iter().map(|p| (p.key.clone(), p.value.clone())).collect();
        let names = order.task.read_names(graph);
        let open = &mut |_, input: &Input| self.session.store.open_named(&input.files);
        Job::of(graph.variants.kinds(), &order.task.record, &places, &names, open).map_err(|error| match error {
            Unprepared::Input(i, error) if is_lost(&error) => Reply::Lost(i, error),
            Unprepared::Input(_, error) => Reply::Failed(Failure::Store(error)),
            Unprepared::Unreadable(what) => Reply::Failed(Failure::Bug(format!("its record cannot be read: {what}"))),
        })
    }

    /// Compares what the task reads from outside with its record: the witness of how it was found, or a reply if it is
    /// something else by now. What is not there any more is the stage's to say.
    fn look(&self, order: &Order) -> Result<Option<Digest>, Reply> {
        let (graph, store) = (self.graph, &self.session.store);
        let record = &order.task.record;
        if record.sources.is_empty() {
            return Ok(None);
        }
        let Ok((now, witness)) = graph::look(graph, store, order.task.stage) else { return Ok(None) };
        if now == record.sources { Ok(Some(witness)) } else { Err(self.changed(order, now)) }
    }

    /// Looks once more after the task has run. An edit in mid-task gives an artifact of neither the old files nor the
    /// new ones, which must not be published as either's, even if the edit was taken back.
    fn look_again(&self, order: &Order, before: Option<Digest>) -> Option<Reply> {
        match self.look(order) {
            Err(changed) => Some(changed),
            Ok(after) if after != before => Some(self.changed(order, order.task.record.sources.clone())),
            Ok(_) => {
                let store = &self.session.store;
                order.task.record.inputs.iter().enumerate().find_map(|(i, input)| {
                    let (file, digest) = input.files.iter().find(|(_, digest)| !store.is_unchanged(digest))?;
                    Some(Reply::Lost(i, store::Error::Corrupt { file: file.clone(), digest: *digest }))
                })
            }
        }
    }

    fn changed(&self, order: &Order, now: Vec<SourceDigest>) -> Reply {
        let old = &order.task.record.sources;
        let changed = now.iter().find(|source| !old.contains(source));
        let before = changed.and_then(|new| old.iter().find(|old| old.role == new.role));
        let what = match (before, changed.or(now.first())) {
            (Some(before), Some(after)) => match self.session.store.folder_changes(&before.digest, &after.digest) {
                Some(changes) => format!("`{}`", changes.first()),
                None => format!("its input `{}`", after.role),
            },
            (None, Some(after)) => format!("its input `{}`", after.role),
            (_, None) => "what it reads".to_owned(),
        };
        Reply::Changed(now, what)
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether computing an artifact again helps.
fn is_lost(error: &store::Error) -> bool {
    match error {
        store::Error::Corrupt { .. } => true,
        store::Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// What the runner lends a running task.
struct TaskContext<'r> {
    workshop: &'r Workshop<'r>,
    name: &'r str,
    order: &'r Order,
    /// What it warned of: part of its record.
    said: Mutex<Vec<String>>,
}

impl TaskContext<'_> {
    fn into_said(self) -> Vec<String> {
        self.said.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Context for TaskContext<'_> {
    fn threads(&self) -> usize {
        self.order.threads
    }

    fn most_threads(&self) -> usize {
        self.workshop.options.threads
    }

    fn threads_now(&self) -> usize {
        let threads = self.workshop.purse.adjust(self.order.lent.load(Ordering::Relaxed));
        self.order.lent.store(threads, Ordering::Relaxed);
        threads
    }

    fn is_cancelled(&self) -> bool {
        self.workshop.options.cancel.load(Ordering::Relaxed)
            || self.workshop.clock.ends(self.workshop.graph, self.order.task.stage)
    }

    fn is_out_of_time(&self) -> bool {
        self.workshop.options.is_out_of_time()
    }

    fn progress(&self, done: u64, total: u64, unit: &str, note: &str) {
        self.workshop.events.event(&Event::Progress { task: self.name, done, total, unit, note });
    }

    fn warn(&self, message: &str) {
        let mut said = unpoisoned(&self.said);
        if !said.iter().any(|known| known == message) {
            said.push(message.to_owned());
        }
        drop(said);
        self.workshop.warn(Some(self.name), message);
    }

    fn before(&self) -> Option<Before> {
        // As with checkpoints: what is forced proves itself.
        let old = self.order.before.filter(|_| !self.order.is_forced)?;
        let (store, record) = (&self.workshop.session.store, &self.order.task.record);
        let (entry, before) = (store.read_entry(&old).ok()??, store.task(&old)?);
        let is_alike = before.kind == record.kind && before.part == record.part && before.rooms == record.rooms;
        let ([then], [now]) = (&before.sources[..], &record.sources[..]) else { return None };
        if !is_alike || then.role != now.role {
            return None;
        }
        let files_of = |source: &SourceDigest| {
            let files = store.folder_files(&source.digest)?.into_iter();
            Some(files.map(|(path, digest)| (path, digest.0)).collect())
        };
        let (then, now) = (files_of(then)?, files_of(now)?);
        Some(Before { files: store.open_artifact(&entry).ok()?, then, now })
    }

    fn load_checkpoint(&self) -> Option<Vec<u8>> {
        // A task that is forced is computed from its start: that is what it is forced for.
        if self.order.is_forced {
            return None;
        }
        let (bytes, warnings) = self.workshop.session.store.load_checkpoint(&self.order.fingerprint)?;
        warnings.iter().for_each(|warning| self.warn(warning));
        Some(bytes)
    }

    fn save_checkpoint(&self, bytes: &[u8]) {
        let said = unpoisoned(&self.said).clone();
        if let Err(error) = self.workshop.session.store.save_checkpoint(&self.order.fingerprint, bytes, &said) {
            // Of this run and this disk, not of the artifact.
            self.workshop.warn(Some(self.name), &format!("no checkpoint is kept: {error}"));
        }
    }
}
