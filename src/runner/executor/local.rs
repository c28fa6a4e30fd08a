//! Computes in this process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Executor, Job, JobError};
use crate::artifact::Sink;
use crate::stages::Context;

/// This process, in a rayon pool as wide as the task's share of the threads: whatever a stage does with rayon stays
/// within that share.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl Executor for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn execute(&self, job: &Job<'_>, context: &dyn Context, sink: &mut (dyn Sink + Send)) -> Result<(), JobError> {
        let pool = super::super::pool(context.threads(), "task");
        // What a panic leaves half-done is the sink's content only, and that is thrown away.
        let mut run = || job.stage.run(&job.task, job.places, context, sink);
        let run = AssertUnwindSafe(move || match &pool {
            Some(pool) => pool.install(run),
            None => run(),
        });
        match catch_unwind(run) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(JobError::Stage(error)),
            Err(payload) => Err(JobError::Panic(message(&*payload))),
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic without a message".to_owned(),
    }
}
