//! Re-executes recorded tasks in scratch and compares what they give with their records. No record, no blob and no lock
//! file is touched.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use super::Session;
use super::graph::task_name;
use super::perform::{Alone, RepeatError, again};
use super::plan::{Plan, PlannedTask, State};
use crate::artifact::Bytes;
use crate::artifact::difference::first_difference;
use crate::store::{self, Digest, Draft, Entry, Output, Store};

/// A task of a plan whose record is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What it is called: `cnn, fold 3`.
    pub name: String,
    /// The stage, by name.
    pub stage: String,
    /// Its fingerprint.
    pub fingerprint: Digest,
    /// Its place in the plan.
    index: usize,
}

/// A file that a task gave with other bytes than its record says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileDifference {
    /// Its name within the artifact.
    pub file: String,
    /// The digest in the record; `None`: it has no such file.
    pub recorded: Option<Digest>,
    /// The digest of what was computed; `None`: it was not written.
    pub computed: Option<Digest>,
    /// The first tensor, row, line or byte that differs.
    pub first: String,
}

impl Plan {
    /// The tasks that are recorded (fresh), each fingerprint once and in an order in which they can run, and how many
    /// others there are; of these stages, if some are named.
    pub fn recorded(&self, stages: Option<&[usize]>) -> (Vec<Recorded>, usize) {
        let is_meant =
            |task: &PlannedTask| stages.is_none_or(|stages| stages.iter().any(|&stage| self.is_of(task, stage)));
        let own = self.tasks.iter().enumerate().filter(|(_, task)| is_meant(task));
        let (fresh, others): (Vec<_>, Vec<_>) = own.partition(|(_, task)| task.state == State::Fresh);
        let mut seen = BTreeSet::new();
        let recorded = fresh.into_iter().filter_map(|(index, task)| {
            let fingerprint = task.fingerprint.filter(|fingerprint| seen.insert(*fingerprint))?;
            let stage = self.graph.nodes[task.stage].name.clone();
            Some(Recorded { name: task_name(&stage, task.part), stage, fingerprint, index })
        });
        (recorded.collect(), others.len())
    }

    /// Whether a task is a stage's own, or a trial's of it.
    fn is_of(&self, task: &PlannedTask, stage: usize) -> bool {
        task.stage == stage || self.graph.trial(task.stage).is_some_and(|trial| trial.search == stage)
    }
}

impl Session<'_> {
    /// Computes a recorded task once more on so many threads: the files that came out otherwise, by name. `told` hears
    /// how far it is: so many, of how many, of what, a note.
    ///
    /// # Errors
    /// If its record or an input is gone or damaged, or the task fails, or was told to stop.
    pub fn reexecute(
        &self,
        plan: &Plan,
        task: &Recorded,
        threads: usize,
        cancel: &AtomicBool,
        told: &(dyn Fn(u64, u64, &str, &str) + Sync),
    ) -> Result<Vec<FileDifference>, RepeatError> {
        let graph = &plan.graph;
        let planned = &plan.tasks[task.index];
        let places = graph.entries[planned.stage].places.iter();
        let places: Vec<(String, String)> = places.map(|place| (place.key.clone(), place.value.clone())).collect();
        let context = Alone { threads, cancel, told };
        let names = planned.read_names(graph);
        let kinds = graph.variants.kinds();
        let (entry, draft) = again(&self.store, &task.fingerprint, kinds, &places, &graph.places, &names, &context)?;
        let computed = draft.contents()?;
        let differing = entry.differing(&computed).into_iter();
        Ok(differing.map(|file| difference(&self.store, &entry, &draft, &computed, file)).collect::<Result<_, _>>()?)
    }
}

/// In what `file` of a draft, which holds `computed`, differs from that of a record.
pub(super) fn difference(
    store: &Store,
    entry: &Entry,
    draft: &Draft,
    computed: &[Output],
    file: String,
) -> Result<FileDifference, store::Error> {
    let recorded = entry.outputs.iter().find(|output| output.name == file);
    let found = computed.iter().find(|output| output.name == file);
    let first = match (recorded, found) {
        (Some(_), Some(_)) => {
            let old = store.open_files(entry, &|name| name == file)?;
            let old = old.0.get(&file).cloned().unwrap_or_else(|| Bytes::new(Vec::new()));
            let new = Bytes::new(draft.read(&file)?.unwrap_or_default());
            first_difference(&file, &old, &new).unwrap_or_default()
        }
        (Some(_), None) => "it was not written".to_owned(),
        (None, _) => "it is not in the record".to_owned(),
    };
    let (recorded, computed) = (recorded.map(|output| output.digest), found.map(|output| output.digest));
    Ok(FileDifference { file, recorded, computed, first })
}
