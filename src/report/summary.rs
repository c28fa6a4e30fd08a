//! What a run came to, typed: models, splits, metrics with intervals, gates, gains, checks, tasks, data, warnings, provenance. Made
//! from artifacts and outcomes; who renders it (terminal, JSON, Markdown, JUnit) reads nothing else.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::artifact::evaluation::{Evaluation, GateResult};
use crate::artifact::sanity::Status;
use crate::report::compare::MetricChange;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// The pipeline.
    pub pipeline: String,
    /// The exit code, as `--help` documents it.
    pub exit_code: u8,
    /// By stage, in the order of the manifest: scores, gains, gates.
    pub evaluations: Vec<(String, Evaluation)>,
    /// What was checked before trainings.
    pub checks: Vec<Check>,
    /// Every task, in the order of the plan.
    pub tasks: Vec<TaskRow>,
    /// By stage that reads data: what came in, in a sentence.
    pub data: Vec<(String, String)>,
    /// What stages told, each text once.
    pub warnings: Vec<(String, String)>,
    /// Errors that are of no task, in words.
    pub errors: Vec<String>,
    /// The metrics beside the lock file as it was before; `None` where there was none.
    pub against: Option<Against>,
    /// Paths of pictures, relative to the folder of reports.
    pub pictures: Vec<String>,
    /// What ran, from what.
    pub provenance: Provenance,
}

/// A check before a training.
#[derive(Debug)]
pub struct Check {
    /// The stage that trains.
    pub stage: String,
    /// `labels`, `images`, `values`, `initial_loss`, `memorises`.
    pub check: String,
    /// How it ended.
    pub status: Status,
    /// One sentence.
    pub message: String,
}

/// A task.
#[derive(Debug)]
pub struct TaskRow {
    /// Its stage; of a trial, `SEARCH TRIAL STAGE`.
    pub stage: String,
    /// `whole`, `fold 3`, `all`, `sanity`, `round 1`.
    pub part: String,
    /// How it ended.
    pub ended: How,
    /// Why it was computed.
    pub reasons: Vec<String>,
    /// How long it took, in seconds, if it was computed.
    pub seconds: Option<f64>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// Computed in this run.
    Computed,
    /// It was there.
    Cached,
    /// Why not.
    Failed(String),
    /// Told to stop, or not begun.
    NotRun,
}

/// The metrics beside a lock file.
#[derive(Debug)]
pub struct Against {
    /// Its name.
    pub lock: String,
    /// Every metric that either side has.
    pub changes: Vec<MetricChange>,
}

/// What ran, from what.
#[derive(Debug, Default)]
pub struct Provenance {
    /// The program's version.
    pub convoy: String,
    /// The manifest.
    pub manifest: String,
    /// The profile in force.
    pub profile: Option<String>,
    /// The `--set` arguments in force.
    pub overrides: Vec<String>,
    /// The commit that is checked out, and whether files that Git tracks were changed since.
    pub git: Option<(String, bool)>,
}

impl Summary {
    /// Every gate.
    pub fn gates(&self) -> impl Iterator<Item = &GateResult> {
        self.evaluations.iter().flat_map(|(_, evaluation)| &evaluation.gates)
    }
}

/// `metrics.json`: `{ STAGE: { MODEL: { SPLIT: { "n": …, METRIC: … } } } }`, numbers only, what has no value left out; `None`
/// without evaluations.
pub fn metrics_json(evaluations: &[(String, Evaluation)]) -> Option<Vec<u8>> {
    if evaluations.is_empty() {
        return None;
    }
    let mut all: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (stage, evaluation) in evaluations {
        let models = all.entry(stage).or_default();
        for score in &evaluation.scores {
            let model = models.entry(score.model.clone()).or_insert_with(|| Map::new().into());
            let metrics = score.metrics.iter().filter_map(|(name, value)| Some((name.clone(), Value::from((*value)?))));
            let numbers: Map<String, Value> = metrics.chain([("n".to_owned(), score.n.into())]).collect();
            model[&score.split] = numbers.into();
        }
    }
    crate::files::document::to_bytes(&all).ok()
}
