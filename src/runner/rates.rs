//! Trains a stage's network while the learning rate grows, from the record of its task, in scratch.

use std::sync::atomic::AtomicBool;

use super::perform::{Alone, Job, RepeatError};
use super::plan::Plan;
use super::{Options, RunError, Session};
use crate::stages::Part;
use crate::stages::train::rate::{RateRange, RateStep};

impl Session<'_> {
    /// Tries rates with the first task of `stage` (by index) that trains; what it reads is here: see [`Session::run`]. `told`
    /// hears how far it is: so many, of how many, of what, a note. `None`: nothing of it trains.
    ///
    /// # Errors
    /// If an input is gone or damaged, or the training fails, or was told to stop.
    pub fn rate_range(
        &self,
        plan: &Plan,
        stage: usize,
        range: RateRange,
        (threads, cancel): (usize, &AtomicBool),
        told: &(dyn Fn(u64, u64, &str, &str) + Sync),
    ) -> Result<Option<Vec<RateStep>>, RepeatError> {
        let trains = |part: Part| matches!(part, Part::Fold(_) | Part::All);
        let task = plan.tasks.iter().find(|task| task.stage == stage && trains(task.part));
        let Some(task) = task else { return Ok(None) };
        task.fingerprint.ok_or(RepeatError::Unknown)?;
        let (kinds, names) = (plan.graph.variants.kinds(), task.read_names(&plan.graph));
        let job = Job::of(kinds, &task.record, &[], &names, &mut |_, input| self.store.open_named(&input.files))?;
        Ok(job.rate_range(range, &Alone { threads, cancel, told })?)
    }

    /// The plan of these stages.
    ///
    /// # Errors
    /// As those of [`Session::plan`].
    pub fn plan_of(&self, stages: Vec<usize>, threads: usize, cancel: &AtomicBool) -> Result<Plan, RunError> {
        self.plan(&Options { targets: Some(stages), ..Options::new(threads, cancel) })
    }
}
