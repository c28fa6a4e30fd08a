//! The planner: what is fresh, what is stale and why. One pure function, shared by `status`, `why` and `run`.

use std::collections::{BTreeMap, BTreeSet};

use super::differ::{self, Side};
use super::graph::{Graph, SourceDigests, task_name};
use super::memory::{Memory, Remembered};
use super::reason::{Lost, StaleReason};
use crate::stages::{Need, Part, Upstream};
use crate::store::fingerprint::{Input, TaskRecord};
use crate::store::{Changes, Digest, Entry, Found};

/// What is to be done about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its artifact is in the store.
    Fresh,
    /// It has to run; never empty.
    Stale(Vec<StaleReason>),
    /// Something above has to run first; then it may still turn out to be fresh.
    Pending {
        /// The tasks above that are stale or pending, by index.
        above: Vec<usize>,
        /// What differs whatever those give.
        own: Vec<StaleReason>,
    },
}

/// A task and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTask {
    /// The stage, by index.
    pub stage: usize,
    /// Which of its tasks.
    pub part: Part,
    /// What it reads.
    pub needs: Vec<Need>,
    /// The tasks that give it, by index, in the same order.
    pub above: Vec<usize>,
    /// The tasks that say whether it may begin, by index; it reads nothing of them.
    pub gates: Vec<usize>,
    /// What is to be done.
    pub state: State,
    /// What it is; inputs are left out while it is pending.
    pub record: TaskRecord,
    /// The digest of that; `None` while it is pending.
    pub fingerprint: Option<Digest>,
    /// Its record, where it is fresh.
    pub entry: Option<Entry>,
    /// The first of its files that is not here, where it is fresh by its record only.
    pub absent: Option<String>,
}

/// Every task that is needed, each after those that it reads.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In an order in which they can run.
    pub tasks: Vec<PlannedTask>,
    /// The graph they are of: the manifest's, with the trials that are known.
    pub graph: Graph,
}

/// Stages that run even if they are fresh.
#[derive(Clone, Debug, Default)]
pub(super) struct Forced {
    /// By index.
    pub stages: BTreeSet<usize>,
    /// Tasks that have run already, by name.
    pub done: BTreeSet<String>,
    /// Fingerprints of tasks whose files somebody reads: a record alone does not do.
    pub wanted: BTreeSet<Digest>,
}

impl Forced {
    fn has(&self, graph: &Graph, task: &PlannedTask) -> bool {
        let stage = graph.trial(task.stage).map_or(task.stage, |trial| trial.search);
        self.stages.contains(&stage) && !self.done.contains(&task_name(&graph.nodes[task.stage].name, task.part))
    }
}

impl PlannedTask {
    /// The stages that it reads, in the order in which its record numbers them.
    pub(super) fn read_stages(&self) -> Vec<usize> {
        let mut stages = Vec::new();
        let mut seen = BTreeSet::new();
        for need in &self.needs {
            if seen.insert(need.stage) {
                stages.push(need.stage);
            }
        }
        stages
    }

    /// What those are called, within their variant of the manifest.
    pub(super) fn read_names(&self, graph: &Graph) -> Vec<String> {
        self.read_stages().into_iter().map(|stage| graph.plain_name(stage)).collect()
    }
}

/// What is remembered of the last time.
#[derive(Clone, Copy)]
pub(super) struct Known<'k> {
    /// The record under a fingerprint.
    pub recall: &'k dyn Fn(&Digest) -> Option<TaskRecord>,
    /// The fingerprints of the last time.
    pub memory: &'k Memory,
    /// Whether a file of this digest is here.
    pub has: &'k dyn Fn(&Digest) -> bool,
}

impl Plan {
    /// Whether nothing has to run.
    pub fn is_fresh(&self) -> bool {
        self.tasks.iter().all(|task| task.state == State::Fresh)
    }

    /// How many different tasks are fresh, and how many there are: those of one fingerprint are one.
    pub fn count(&self) -> (usize, usize) {
        let is_fresh = |task: &&PlannedTask| task.state == State::Fresh;
        let distinct = |tasks: &[&PlannedTask]| {
            let known: BTreeSet<Digest> = tasks.iter().filter_map(|task| task.fingerprint).collect();
            known.len() + tasks.iter().filter(|task| task.fingerprint.is_none()).count()
        };
        let fresh: Vec<&PlannedTask> = self.tasks.iter().filter(is_fresh).collect();
        (distinct(&fresh), distinct(&self.tasks.iter().collect::<Vec<_>>()))
    }

    /// How many different tasks are known by their records only.
    pub fn n_recorded(&self) -> usize {
        let recorded = self.tasks.iter().filter(|task| task.absent.is_some());
        recorded.filter_map(|task| task.fingerprint).collect::<BTreeSet<_>>().len()
    }

    /// The tasks of one stage.
    pub fn of_stage(&self, stage: usize) -> impl Iterator<Item = &PlannedTask> {
        self.tasks.iter().filter(move |task| task.stage == stage)
    }

    /// The index of a task.
    pub fn find(&self, stage: usize, part: Part) -> Option<usize> {
        self.tasks.iter().position(|task| task.stage == stage && task.part == part)
    }

    /// What a task is called: `cnn, fold 3`.
    pub fn name(&self, task: usize) -> String {
        let task = &self.tasks[task];
        task_name(&self.graph.nodes[task.stage].name, task.part)
    }

    /// Adds which files changed to the reasons that name a folder, from what `changes` remembers of two digests.
    pub(super) fn explain_sources(&mut self, changes: &dyn Fn(&Digest, &Digest) -> Option<Changes>) {
        for task in &mut self.tasks {
            let (State::Stale(reasons) | State::Pending { own: reasons, .. }) = &mut task.state else { continue };
            for reason in reasons {
                if let StaleReason::Input { old: Some(old), new: Some(new), changes: known, .. } = reason {
                    *known = changes(old, new);
                }
            }
        }
    }
}

/// Every task that `targets` (all stages, if `None`) need, each after those that it reads, without a decision yet.
pub(super) fn tasks(graph: &Graph, targets: Option<&[usize]>, only: Option<Part>) -> Vec<PlannedTask> {
    let all: Vec<usize> = (0..graph.nodes.len()).collect();
    let mut found: BTreeMap<(usize, Part), Vec<Need>> = BTreeMap::new();
    let mut open: Vec<(usize, Part)> = Vec::new();
    for &stage in targets.unwrap_or(&all) {
        // A trial's tasks are there because its round needs them.
        if graph.trial(stage).is_some() || targets.is_none() && graph.is_template(stage) {
            continue;
        }
        let node = &graph.nodes[stage];
        let parts = node.stage.parts(&node.flow).into_iter().filter(|part| only.is_none_or(|only| *part == only));
        open.extend(parts.map(|part| (stage, part)));
    }
    let gates_of = |stage: usize, part| graph.nodes[stage].stage.gates(part).into_iter().map(move |gate| (stage, gate));
    while let Some((stage, part)) = open.pop() {
        if found.contains_key(&(stage, part)) {
            continue;
        }
        let needs = graph.nodes[stage].stage.needs(part, &Upstream { own: stage, nodes: &graph.nodes });
        open.extend(needs.iter().map(|need| (need.stage, need.part)));
        open.extend(gates_of(stage, part));
        found.insert((stage, part), needs);
    }
    // Manifest order is an order in which stages can run; within a stage folds come before `all`, but a stage may say
    // otherwise: of those that can be next, always the first.
    let mut waits: BTreeMap<(usize, Part), BTreeSet<(usize, Part)>> = BTreeMap::new();
    let mut awaited: BTreeMap<(usize, Part), Vec<(usize, Part)>> = BTreeMap::new();
    let mut ready: BTreeSet<(usize, Part)> = BTreeSet::new();
    for (&(stage, part), needs) in &found {
        let needed = needs.iter().map(|need| (need.stage, need.part));
        let needed: BTreeSet<(usize, Part)> = needed.chain(gates_of(stage, part)).collect();
        if needed.is_empty() {
            ready.insert((stage, part));
        }
        needed.iter().for_each(|&above| awaited.entry(above).or_default().push((stage, part)));
        waits.insert((stage, part), needed);
    }
    let mut done: BTreeMap<(usize, Part), usize> = BTreeMap::new();
    let mut tasks = Vec::with_capacity(found.len());
    while let Some((stage, part)) = ready.pop_first() {
        for reader in awaited.get(&(stage, part)).into_iter().flatten() {
            let Some(left) = waits.get_mut(reader) else { continue };
            left.remove(&(stage, part));
            if left.is_empty() {
                ready.insert(*reader);
            }
        }
        let needs = found.remove(&(stage, part)).unwrap_or_default();
        let above = needs.iter().map(|need| done[&(need.stage, need.part)]).collect();
        done.insert((stage, part), tasks.len());
        let gates = gates_of(stage, part).map(|gate| done[&gate]).collect();
        let state = State::Pending { above: Vec::new(), own: Vec::new() };
        let record = TaskRecord::default();
        let (fingerprint, entry, absent) = (None, None, None);
        tasks.push(PlannedTask { stage, part, needs, above, gates, state, record, fingerprint, entry, absent });
    }
    // A stage reads stages above it, which `manifest` made sure of; its own parts must not read each other in rings.
    assert!(found.is_empty(), "tasks wait for each other: {:?}", found.keys().collect::<Vec<_>>());
    tasks
}

/// Decides every task: pure, given what the store has (`find`) and what is `known` of the last time.
pub(super) fn plan(
    graph: Graph,
    mut tasks: Vec<PlannedTask>,
    sources: &SourceDigests,
    find: &dyn Fn(&Digest) -> Found,
    known: &Known<'_>,
    force: &Forced,
) -> Plan {
    let mut found: BTreeMap<Digest, Found> = BTreeMap::new();
    for i in 0..tasks.len() {
        let (decided, rest) = tasks.split_at_mut(i);
        let task = &mut rest[0];
        task.record = own_record(&graph, task, sources);
        let above: BTreeSet<usize> =
            task.above.iter().copied().filter(|&above| decided[above].state != State::Fresh).collect();
        if above.is_empty() && !graph.nodes[task.stage].stage.is_open(task.part) {
            let entries: Vec<&Entry> = task.above.iter().filter_map(|&above| decided[above].entry.as_ref()).collect();
            let fingerprint = add_inputs(&graph, task, &entries);
            let what = found.entry(fingerprint).or_insert_with(|| find(&fingerprint)).clone();
            decide(&graph, task, what, known, force);
        } else {
            let own = match remembered(&graph, task, known) {
                Some(old) => (known.recall)(&old.fingerprint)
                    .map(|old| differ::own_differences(&graph, task.stage, &old, &task.record))
                    .unwrap_or_default(),
                None => planned_by(&graph, task, known).into_iter().collect(),
            };
            task.state = State::Pending { above: above.into_iter().collect(), own };
        }
    }
    want_inputs(&mut tasks, known.has);
    Plan { tasks, graph }
}

/// What a stale task reads has to be here: where it is known by its record only, that task is stale as well.
fn want_inputs(tasks: &mut [PlannedTask], has: &dyn Fn(&Digest) -> bool) {
    for i in (0..tasks.len()).rev() {
        let (above, rest) = tasks.split_at_mut(i);
        let task = &rest[0];
        if !matches!(task.state, State::Stale(_)) {
            continue;
        }
        for (input, &at) in task.record.inputs.iter().zip(&task.above) {
            let Some(above) = above.get_mut(at).filter(|above| above.absent.is_some()) else { continue };
            if let Some((file, _)) = input.files.iter().find(|(_, digest)| !has(digest)) {
                above.state = State::Stale(vec![StaleReason::Missing(Lost::Absent(file.clone()))]);
                (above.entry, above.absent) = (None, None);
            }
        }
    }
}

fn remembered<'k>(graph: &Graph, task: &PlannedTask, known: &Known<'k>) -> Option<&'k Remembered> {
    known.memory.of(graph, task.stage, task.part)
}

/// Decides a task whose inputs are known, from what the store has under its fingerprint.
pub(super) fn decide(graph: &Graph, task: &mut PlannedTask, found: Found, known: &Known<'_>, force: &Forced) {
    let lost = match found {
        Found::Hit(entry) => {
            task.entry = Some(entry);
            let is_forced = force.has(graph, task);
            task.state = if is_forced { State::Stale(vec![StaleReason::Forced]) } else { State::Fresh };
            return;
        }
        Found::Corrupt(file) => {
            task.state = State::Stale(vec![StaleReason::Corrupt { file }]);
            return;
        }
        Found::Recorded { entry, absent } => {
            if force.has(graph, task) {
                task.state = State::Stale(vec![StaleReason::Forced]);
                return;
            }
            if force.wanted.contains(&entry.fingerprint) {
                task.state = State::Stale(vec![StaleReason::Missing(Lost::Absent(absent))]);
            } else {
                (task.entry, task.absent) = (Some(entry), Some(absent));
                task.state = State::Fresh;
            }
            return;
        }
        Found::Gone(file) => Lost::Gone(Some(file)),
        Found::Missing => Lost::Gone(None),
    };
    let mut reasons = match remembered(graph, task, known) {
        None => vec![planned_by(graph, task, known).unwrap_or(StaleReason::Missing(Lost::NeverRun))],
        Some(old) if Some(old.fingerprint) == task.fingerprint => Vec::new(),
        Some(old) => match (known.recall)(&old.fingerprint) {
            None => vec![StaleReason::Missing(Lost::Forgotten)],
            Some(record) => {
                let stages = task.read_names(graph);
                let (old, new) =
                    (Side { record: &record, stages: &old.inputs }, Side { record: &task.record, stages: &stages });
                differ::differences(graph, task.stage, old, new)
            }
        },
    };
    if reasons.is_empty() {
        reasons.push(StaleReason::Missing(lost));
    }
    task.state = State::Stale(reasons);
}

/// The key because of which a task is new, where others of its stage have run.
fn planned_by(graph: &Graph, task: &PlannedTask, known: &Known<'_>) -> Option<StaleReason> {
    let node = &graph.nodes[task.stage];
    let (key, old, new) = node.stage.planned_by(task.part)?;
    let has_run = |part: &Part| known.memory.of(graph, task.stage, *part).is_some();
    node.stage.parts(&node.flow).iter().any(has_run).then(|| {
        let (old, new) = (Some(old.to_owned()), Some(new.to_owned()));
        StaleReason::Param { key: key.to_owned(), old, new, span: graph.span_of(task.stage, key) }
    })
}

/// What is known of a task before anything ran: all but the inputs.
fn own_record(graph: &Graph, task: &PlannedTask, sources: &SourceDigests) -> TaskRecord {
    let (node, entry) = (&graph.nodes[task.stage], &graph.entries[task.stage]);
    let mut keys: Vec<(String, String)> = entry
        .resolved
        .iter()
        .filter(|resolved| node.stage.reads_key(task.part, &resolved.key))
        .map(|resolved| (resolved.key.clone(), resolved.value.clone()))
        .collect();
    keys.sort();
    keys.dedup();
    let mut names = Vec::new();
    if node.stage.reads_names() {
        names.push(graph.plain_name(task.stage));
        names.extend(task.read_names(graph));
    }
    TaskRecord {
        kind: node.stage.kind().to_owned(),
        part: task.part.to_string(),
        seed: node.stage.uses_seed().then_some(entry.seed),
        rooms: node.stage.revisions(task.part, &Upstream { own: task.stage, nodes: &graph.nodes }),
        keys,
        names,
        inputs: Vec::new(),
        sources: sources.0.get(task.stage).cloned().unwrap_or_default(),
    }
}

/// Completes the record with what the stages above gave, in the order of the task's needs; returns its fingerprint.
pub(super) fn add_inputs(graph: &Graph, task: &mut PlannedTask, entries: &[&Entry]) -> Digest {
    assert_eq!(task.needs.len(), entries.len(), "needs of a task and what was given");
    let numbers: BTreeMap<usize, u32> = (0..).zip(task.read_stages()).map(|(number, stage)| (stage, number)).collect();
    task.record.inputs = task
        .needs
        .iter()
        .zip(entries)
        .map(|(need, entry)| {
            let read = entry.outputs.iter().filter(|output| need.files.covers(&output.name));
            Input {
                from: numbers[&need.stage],
                output: graph.nodes[need.stage].flow.output.word().to_owned(),
                part: need.part.to_string(),
                files: read.map(|output| (output.name.clone(), output.digest)).collect(),
            }
        })
        .collect();
    let fingerprint = task.record.fingerprint();
    task.fingerprint = Some(fingerprint);
    fingerprint
}
