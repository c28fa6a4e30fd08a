//! What a run came to, task by task.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::Clock;
use super::events::{Ended, Failure};
use super::expand::Cuts;
use super::graph::Graph;
use super::reason::StaleReason;
use crate::artifact::Files;
use crate::stages::Part;
use crate::store::fingerprint::TaskRecord;
use crate::store::{self, Entry, Store};

/// A task after the run.
#[derive(Debug)]
pub struct TaskOutcome {
    /// The stage, by index.
    pub stage: usize,
    /// Which of its tasks.
    pub part: Part,
    /// What it is called: `cnn, fold 3`.
    pub name: String,
    /// How it ended.
    pub ended: Ended,
    /// Why it was computed, if it was.
    pub reasons: Vec<StaleReason>,
    /// What it is.
    pub record: TaskRecord,
    /// What the stages that it reads are called, as the record numbers them.
    pub inputs: Vec<String>,
    /// Its record, if it is there.
    pub entry: Option<Entry>,
    /// How long it took, if it was computed.
    pub seconds: f64,
    /// Files that had other bytes when the same task was computed before: the stage does not do the same twice.
    pub differing: Vec<String>,
    /// Whether of its files some are not here: it is known by its record only.
    pub is_recorded: bool,
    /// What it told about its data and results when it was computed, in whichever run that was.
    pub warnings: Vec<String>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Every planned task, in the order of the plan.
    pub tasks: Vec<TaskOutcome>,
    /// Whether it was told to stop before it was done.
    pub is_interrupted: bool,
    /// Whether its time was over before it was done.
    pub is_out_of_time: bool,
    /// Whether [`Options::admits`](super::Options::admits) said that it may not go on.
    pub is_refused: bool,
    /// The graph that the tasks are of: the manifest's, with the trials of its searches.
    pub graph: Graph,
    /// Searches that reached their time limit and have fewer trials than the manifest says, by index.
    pub truncated: BTreeSet<usize>,
}

impl Outcome {
    /// Whether every task is there.
    pub fn is_complete(&self) -> bool {
        self.tasks.iter().all(|task| task.entry.is_some())
    }

    /// The tasks that were computed.
    pub fn computed(&self) -> impl Iterator<Item = &TaskOutcome> {
        self.tasks.iter().filter(|task| matches!(task.ended, Ended::Computed))
    }

    /// How many different tasks there are: those that are the same, to the last key and byte that they read, are
    /// computed once and count once.
    pub fn n_tasks(&self) -> usize {
        let fingerprints = self.tasks.iter().filter_map(|task| task.entry.as_ref().map(|entry| entry.fingerprint));
        let distinct = fingerprints.collect::<BTreeSet<_>>().len();
        distinct + self.tasks.iter().filter(|task| task.entry.is_none()).count()
    }

    /// How many different tasks are known by their records only.
    pub fn n_recorded(&self) -> usize {
        let recorded = self.tasks.iter().filter(|task| task.is_recorded);
        recorded.filter_map(|task| Some(task.entry.as_ref()?.fingerprint)).collect::<BTreeSet<_>>().len()
    }

    /// The tasks that failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&TaskOutcome, &Failure)> {
        self.tasks.iter().filter_map(|task| match &task.ended {
            Ended::Failed(failure) => Some((task, failure)),
            _ => None,
        })
    }

    /// What its tasks told, once for a stage, in the order of the plan: the stage, by its name, and the text.
    pub fn warnings(&self) -> Vec<(&str, &str)> {
        let mut seen = BTreeSet::new();
        let all = self.tasks.iter().flat_map(|task| {
            let stage = self.graph.nodes[task.stage].name.as_str();
            task.warnings.iter().map(move |warning| (stage, warning.as_str()))
        });
        all.filter(|warning| seen.insert(*warning)).collect()
    }

    /// The task of a stage.
    pub fn task(&self, stage: usize, part: Part) -> Option<&TaskOutcome> {
        self.tasks.iter().find(|task| task.stage == stage && task.part == part)
    }

    /// The artifact of a finished task; `None` if it did not finish.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn files(&self, store: &Store, stage: usize, part: Part) -> Option<Result<Files, store::Error>> {
        self.wanted_files(store, stage, part, &|_| true)
    }

    /// The files of a finished task that are `wanted` by name; `None` if it did not finish.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn wanted_files(
        &self,
        store: &Store,
        stage: usize,
        part: Part,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Option<Result<Files, store::Error>> {
        let entry = self.task(stage, part)?.entry.as_ref()?;
        Some(store.open_files(entry, wanted))
    }
}

impl Outcome {
    /// Gives tasks that an earlier pass computed their outcome of then, in place of being fresh now.
    pub(super) fn take_over(&mut self, earlier: &mut BTreeMap<String, TaskOutcome>) {
        for task in &mut self.tasks {
            let is_fresh = matches!(task.ended, Ended::Fresh | Ended::Found);
            if is_fresh
                && earlier.get(&task.name).is_some_and(|old| old.record == task.record)
                && let Some(old) = earlier.remove(&task.name)
            {
                *task = TaskOutcome { stage: task.stage, part: task.part, ..old };
            }
        }
    }

    /// The tasks that were computed, by name.
    pub(super) fn into_computed(self) -> BTreeMap<String, TaskOutcome> {
        let computed = self.tasks.into_iter().filter(|task| matches!(task.ended, Ended::Computed));
        computed.map(|task| (task.name.clone(), task)).collect()
    }

    /// Whether a task is there of which it was not known what it reads when this was planned.
    pub(super) fn has_open(&self) -> bool {
        self.tasks.iter().any(|task| self.graph.nodes[task.stage].stage.is_open(task.part))
    }

    /// Cuts the rounds of searches whose time is over to the longest prefix of finished trials; whether one was cut.
    pub(super) fn cut(&self, clock: &Clock, cuts: &mut Cuts) -> bool {
        let mut is_cut = false;
        for (at, node) in self.graph.nodes[..self.graph.n_own].iter().enumerate() {
            let Some(search) = node.stage.search().filter(|search| search.rank() == 1) else { continue };
            if !clock.is_over(at, search) || self.graph.trials.is_empty() {
                continue;
            }
            for (i, placed) in search.placement().rounds.iter().enumerate() {
                let drawn: Vec<_> = placed.trials.iter().filter(|(trial, _)| trial.origin.is_none()).collect();
                let is_finished = |node: &Option<usize>| {
                    let mut own = self.tasks.iter().filter(|task| Some(task.stage) == *node);
                    own.all(|task| task.entry.is_some())
                };
                let n_finished = drawn.iter().take_while(|(_, node)| is_finished(node)).count();
                if n_finished < drawn.len() {
                    is_cut |= cuts.insert((at, i as u32 + 1), n_finished) != Some(n_finished);
                }
            }
            // Nothing is drawn in the rounds to come.
            for round in search.placement().rounds.len()..search.rounds().len() {
                if search.rounds()[round].trials > 0 {
                    is_cut |= cuts.insert((at, round as u32 + 1), 0) != Some(0);
                }
            }
        }
        is_cut
    }
}
