//! What happens during a run, for people, and how its tasks ended: the bottom of this room, which everybody else
//! speaks.

use super::reason::StaleReason;
use crate::artifact::dataset::Summary;
use crate::stages::StageError;
use crate::store;

/// What happens during a run, for people. Called from several threads.
pub trait Events: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The plan is made, nothing has run yet.
    Planned {
        /// Tasks that are fresh already.
        fresh: usize,
        /// Of so many.
        tasks: usize,
    },
    /// Files from outside are read, to see whether they changed; the index did not know them.
    Reading {
        /// Whose files.
        stage: &'a str,
        /// Bytes so far.
        bytes: u64,
    },
    /// A task has begun.
    Started {
        /// `cnn, fold 3`.
        task: &'a str,
        /// Its stage: `cnn`.
        stage: &'a str,
        /// Whether it is a trial's, of which [`Event::Trial`] tells.
        is_trial: bool,
        /// Why.
        reasons: &'a [StaleReason],
        /// On how many threads.
        threads: usize,
    },
    /// How far it is.
    Progress {
        /// `cnn, fold 3`.
        task: &'a str,
        /// So many are done.
        done: u64,
        /// Of so many; 0 = unknown.
        total: u64,
        /// Of what.
        unit: &'a str,
        /// A short note.
        note: &'a str,
    },
    /// It waits for another run that computes the same task; told about once a second.
    Waiting {
        /// `cnn, fold 3`.
        task: &'a str,
        /// Whom it waits for.
        holder: &'a str,
    },
    /// A warning, once per text.
    Warning {
        /// The task, if it is one's.
        task: Option<&'a str>,
        /// One sentence.
        message: &'a str,
    },
    /// A data set is there, computed or fresh: what came in. Told once in a pass, to be checked by a person.
    Dataset {
        /// The stage.
        stage: &'a str,
        /// What it is.
        summary: &'a Summary,
    },
    /// A trial of a search has ended.
    Trial {
        /// The search.
        search: &'a str,
        /// Its round, from 1, and of how many.
        round: (u32, usize),
        /// So many of the round's trials have ended.
        done: usize,
        /// Of so many.
        total: usize,
        /// By what they are ranked, and the best value so far.
        best: Option<(&'a str, f64)>,
    },
    /// A task that was not fresh has ended.
    Ended {
        /// `cnn, fold 3`.
        task: &'a str,
        /// How.
        ended: &'a Ended,
        /// After how long.
        seconds: f64,
    },
}

/// Tells nobody.
pub struct Silent;

impl Events for Silent {
    fn event(&self, _: &Event<'_>) {}
}

/// How a task ended.
#[derive(Debug)]
pub enum Ended {
    /// It was fresh: nothing was done.
    Fresh,
    /// It was not known to be fresh until what it reads was there, or another run had computed it meanwhile.
    Found,
    /// It was computed.
    Computed,
    /// It failed; nothing of it was kept, but for a checkpoint.
    Failed(Failure),
    /// It was told to stop.
    Cancelled,
    /// It was not begun: something it reads failed, or the run was stopped.
    NotStarted,
}

/// Why a task failed.
#[derive(Debug)]
pub enum Failure {
    /// The stage said so.
    Stage(StageError),
    /// It panicked: a bug of ours.
    Bug(String),
    /// Its artifact could not be kept, or its inputs not be read.
    Store(store::Error),
}
