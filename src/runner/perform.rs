//! Performs a task from its record alone: the stage is read again from the keys, what it reads is opened by its
//! digests. What is not in the record cannot reach an artifact, and whoever has the record and the store can do the
//! same elsewhere.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::artifact::{Files, Sink};
use crate::config;
use crate::stages::train::rate::{RateRange, RateStep};
use crate::stages::{self, Context, Delivered, Kind, Output, Part, Places, Stage, StageError, Task};
use crate::store::fingerprint::{Input, TaskRecord};
use crate::store::{self, Digest, Draft, Entry, Store};

/// A task that can be performed.
pub(super) struct Job {
    stage: Box<dyn Stage>,
    part: Part,
    seed: u64,
    inputs: Vec<Delivered>,
}

/// Why there is no job.
#[derive(Debug)]
pub(super) enum Unprepared {
    /// Its record is none that this version of the program makes.
    Unreadable(String),
    /// An input, by its place in the record, cannot be opened.
    Input(usize, store::Error),
}

/// How a job ended that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobError {
    /// The stage said so, or was told to stop.
    Stage(StageError),
    /// It panicked: a bug of ours.
    Panic(String),
}

impl Job {
    /// The task that `record` says; `open` gives the files of each input, by its place in the record.
    ///
    /// `places` says where the sources are, as dotted keys and TOML values: no record holds that, and what it may hold
    /// of it is a digest. `names` says what the stages that are read are called, for messages; where names are written
    /// into an artifact, they are the record's.
    pub fn of(
        kinds: &[Kind],
        record: &TaskRecord,
        places: &[(String, String)],
        names: &[String],
        open: &mut dyn FnMut(usize, &Input) -> Result<Files, store::Error>,
    ) -> Result<Job, Unprepared> {
        let part: Part = record.part.parse().map_err(|()| Unprepared::Unreadable(format!("part `{}`", record.part)))?;
        let stage = stages::rebuild(kinds, &record.kind, part, &record.keys, places).map_err(Unprepared::Unreadable)?;
        let names = record.names.get(1..).unwrap_or(names);
        let mut inputs = Vec::with_capacity(record.inputs.len());
        for (i, input) in record.inputs.iter().enumerate() {
            let (Ok(part), Some(output)) = (input.part.parse(), Output::parse(&input.output)) else {
                return Err(Unprepared::Unreadable(format!("input `{}, {}`", input.output, input.part)));
            };
            let files = open(i, input).map_err(|error| Unprepared::Input(i, error))?;
            let stage_name = names.get(input.from as usize).map_or(input.output.as_str(), String::as_str).to_owned();
            inputs.push(Delivered { from: input.from as usize, part, stage_name, output, files });
        }
        Ok(Job { stage, part, seed: record.seed.unwrap_or_default(), inputs })
    }

    /// Computes it on `context.threads()` threads and writes its artifact into `sink`.
    ///
    /// It runs in a rayon pool as wide as the task's share of the threads: whatever a stage does with rayon stays
    /// within that share.
    ///
    /// # Errors
    /// What the stage said, or that it panicked. What was written then is to be thrown away.
    pub fn run(self, folders: &Places, context: &dyn Context, sink: &mut (dyn Sink + Send)) -> Result<(), JobError> {
        let (stage, task) = self.into_task();
        within(context, || stages::run(&*stage, &task, folders, context, sink))
    }

    /// Trains its network while the learning rate grows; `None` if it trains none.
    ///
    /// # Errors
    /// What the stage said, or that it panicked.
    pub fn rate_range(self, range: RateRange, context: &dyn Context) -> Result<Option<Vec<RateStep>>, JobError> {
        let (stage, task) = self.into_task();
        within(context, || stage.rate_range(&task, range, context).transpose())
    }

    fn into_task(self) -> (Box<dyn Stage>, Task) {
        let Job { stage, part, seed, inputs } = self;
        (stage, Task { part, seed, inputs })
    }
}

/// Runs a stage's work in a pool as wide as its share of the threads.
fn within<R: Send>(
    context: &dyn Context,
    mut work: impl FnMut() -> Result<R, StageError> + Send,
) -> Result<R, JobError> {
    let pool = super::pool(context.threads(), "task");
    // What a panic leaves half-done is the sink's content only, and that is thrown away.
    let run = AssertUnwindSafe(move || match &pool {
        Some(pool) => pool.install(&mut work),
        None => work(),
    });
    match catch_unwind(run) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(JobError::Stage(error)),
        Err(payload) => Err(JobError::Panic(message(&*payload))),
    }
}

/// Computes the task of a stored record once more, from that record alone, and says which of its files have other
/// bytes, by name. Nothing is published, no checkpoint is read or kept.
///
/// `places` says where its sources are (see [`stages::rebuild`]); those within the program are known.
///
/// # Errors
/// If there is no such record, an input is gone, or the task fails.
pub fn repeat(
    store: &Store,
    fingerprint: &Digest,
    kinds: &[Kind],
    places: &[(String, String)],
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Vec<String>, RepeatError> {
    let context = Alone { threads, cancel, told: &|_, _, _, _| () };
    let (entry, draft) = again(store, fingerprint, kinds, places, &Places::default(), &[], &context)?;
    Ok(entry.differing(&draft.contents()?))
}

/// Computes the task of a stored record once more, in scratch: its record, and what it gave. `folders` says where
/// relative sources are looked for, `names` what the stages that it reads are called.
pub(super) fn again(
    store: &Store,
    fingerprint: &Digest,
    kinds: &[Kind],
    places: &[(String, String)],
    folders: &Places,
    names: &[String],
    context: &Alone<'_>,
) -> Result<(Entry, Draft), RepeatError> {
    let entry = store.read_entry(fingerprint)?.ok_or(RepeatError::Unknown)?;
    let record = store.task(fingerprint).ok_or(RepeatError::Unknown)?;
    let mut places = places.to_vec();
    if !places.iter().any(|(key, _)| key == "source") {
        let builtin = record.sources.iter().filter_map(|source| source.role.strip_prefix("builtin "));
        places.extend(builtin.map(|name| ("source".to_owned(), config::quote(&format!("builtin:{name}")))));
    }
    let job = Job::of(kinds, &record, &places, names, &mut |_, input| store.open_named(&input.files))?;
    let mut draft = store.draft()?;
    job.run(folders, context, &mut draft)?;
    Ok((entry, draft))
}

/// Why a task could not be repeated.
#[derive(Debug, thiserror::Error)]
pub enum RepeatError {
    /// There is no such record.
    #[error("there is no such record")]
    Unknown,
    /// The record is none that this version of the program makes.
    #[error("its record cannot be read: {0}")]
    Unreadable(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// It ended without a result.
    #[error("{0}")]
    Failed(String),
    /// It was told to stop.
    #[error("it was stopped")]
    Cancelled,
}

impl From<Unprepared> for RepeatError {
    fn from(error: Unprepared) -> RepeatError {
        match error {
            Unprepared::Unreadable(what) => RepeatError::Unreadable(what),
            Unprepared::Input(_, error) => RepeatError::Store(error),
        }
    }
}

impl From<JobError> for RepeatError {
    fn from(error: JobError) -> RepeatError {
        match error {
            JobError::Stage(error) if error.is_cancelled => RepeatError::Cancelled,
            JobError::Stage(error) => RepeatError::Failed(error.message),
            JobError::Panic(message) => RepeatError::Failed(message),
        }
    }
}

/// What a task that is repeated is lent.
pub(super) struct Alone<'a> {
    pub threads: usize,
    pub cancel: &'a AtomicBool,
    /// Hears how far it is: so many, of how many, of what, a note.
    pub told: &'a (dyn Fn(u64, u64, &str, &str) + Sync),
}

impl Context for Alone<'_> {
    fn threads(&self) -> usize {
        self.threads.max(1)
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn progress(&self, done: u64, total: u64, unit: &str, note: &str) {
        (self.told)(done, total, unit, note);
    }

    fn warn(&self, _: &str) {}

    fn load_checkpoint(&self) -> Option<Vec<u8>> {
        None
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn save_checkpoint(&self, _: &[u8]) {}
}

fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic without a message".to_owned(),
    }
}
