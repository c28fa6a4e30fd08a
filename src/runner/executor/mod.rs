//! Who computes a task. An executor gets a self-contained job and a place to write; finding, locking and publishing are
//! the runner's, so an executor is thin and the store is the truth.
//!
//! To add one: a file beside this one, and a line in [`EXECUTORS`].

mod local;

use crate::artifact::Sink;
use crate::stages::{Context, Places, Stage, StageError, Task};

pub use local::Local;

/// A task that is to be computed, with everything it reads.
pub struct Job<'a> {
    /// The stage.
    pub stage: &'a dyn Stage,
    /// The task, its inputs delivered.
    pub task: Task<'a>,
    /// Where relative sources are.
    pub places: &'a Places,
}

/// How a job ended that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    /// The stage said so, or was told to stop.
    Stage(StageError),
    /// It panicked: a bug of ours.
    Panic(String),
}

/// Computes jobs.
pub trait Executor: Sync {
    /// What `--executor` calls it.
    fn name(&self) -> &'static str;

    /// Computes `job` on `context.threads()` threads and writes its artifact into `sink`.
    ///
    /// # Errors
    /// What the stage said, or that it panicked. What was written then is thrown away.
    fn execute(&self, job: &Job<'_>, context: &dyn Context, sink: &mut (dyn Sink + Send)) -> Result<(), JobError>;
}

/// Every executor.
pub const EXECUTORS: &[&dyn Executor] = &[&Local];
