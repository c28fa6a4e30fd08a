//! The planner: what is fresh, what is stale and why. One pure function, shared by `status`, `why` and `run`.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, SourceDigests};
use super::memory::Memory;
use super::reason::{self, Lost, StaleReason};
use super::task_name;
use crate::stages::{Need, Part, Upstream};
use crate::store::fingerprint::{Input, Parts};
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
    /// What it is computed from; inputs are left out while it is pending.
    pub parts: Parts,
    /// Its record, where it is fresh.
    pub entry: Option<Entry>,
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
}

impl Forced {
    fn has(&self, graph: &Graph, task: &PlannedTask) -> bool {
        let stage = graph.trial(task.stage).map_or(task.stage, |trial| trial.search);
        self.stages.contains(&stage) && !self.done.contains(&task_name(&graph.nodes[task.stage].name, task.part))
    }
}

impl Plan {
    /// Whether nothing has to run.
    pub fn is_fresh(&self) -> bool {
        self.tasks.iter().all(|task| task.state == State::Fresh)
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
    // otherwise.
    let mut done: BTreeMap<(usize, Part), usize> = BTreeMap::new();
    let mut tasks = Vec::with_capacity(found.len());
    while !found.is_empty() {
        let ready = found
            .iter()
            .find(|((stage, part), needs)| {
                let needed = needs.iter().map(|need| (need.stage, need.part));
                needed.chain(gates_of(*stage, *part)).all(|key| done.contains_key(&key))
            })
            .map(|(key, _)| *key);
        // A stage reads stages above it, which `manifest` made sure of; its own parts must not read each other in rings.
        let Some(key) = ready else { panic!("tasks wait for each other: {:?}", found.keys().collect::<Vec<_>>()) };
        let needs = found.remove(&key).unwrap_or_default();
        let above = needs.iter().map(|need| done[&(need.stage, need.part)]).collect();
        done.insert(key, tasks.len());
        let (stage, part) = key;
        let gates = gates_of(stage, part).map(|gate| done[&gate]).collect();
        let state = State::Pending { above: Vec::new(), own: Vec::new() };
        tasks.push(PlannedTask { stage, part, needs, above, gates, state, parts: Parts::default(), entry: None });
    }
    tasks
}

/// Decides every task: pure, given what the store has (`find`) and what is remembered of the last time.
pub(super) fn plan(
    graph: Graph,
    mut tasks: Vec<PlannedTask>,
    sources: &SourceDigests,
    find: &dyn Fn(&Digest) -> Found,
    memory: &Memory,
    force: &Forced,
) -> Plan {
    let mut found: BTreeMap<Digest, Found> = BTreeMap::new();
    for i in 0..tasks.len() {
        let mut task = tasks[i].clone();
        task.parts = own_parts(&graph, &task, sources);
        let above: Vec<usize> =
            task.above.iter().copied().filter(|&above| tasks[above].state != State::Fresh).collect();
        if above.is_empty() && !graph.nodes[task.stage].stage.is_open(task.part) {
            let entries = task.above.iter().filter_map(|&above| tasks[above].entry.as_ref());
            let artifacts: Vec<Digest> = entries.map(Entry::artifact).collect();
            add_inputs(&graph, &mut task, &artifacts);
            let fingerprint = task.parts.fingerprint();
            let what = found.entry(fingerprint).or_insert_with(|| find(&fingerprint)).clone();
            decide(&graph, &mut task, what, memory, force);
        } else {
            let remembered = memory.get(&graph.nodes[task.stage].name, task.part);
            let own = remembered
                .map(|old| reason::own_differences(&graph, task.stage, &old.parts, &task.parts))
                .unwrap_or_default();
            let mut above = above;
            above.sort_unstable();
            above.dedup();
            task.state = State::Pending { above, own };
        }
        tasks[i] = task;
    }
    Plan { tasks, graph }
}

/// Decides a task whose inputs are known, from what the store has under its fingerprint.
pub(super) fn decide(graph: &Graph, task: &mut PlannedTask, found: Found, memory: &Memory, force: &Forced) {
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
        Found::Gone(file) => Lost::Gone(Some(file)),
        Found::Missing => Lost::Gone(None),
    };
    let mut reasons = match memory.get(&graph.nodes[task.stage].name, task.part) {
        Some(old) => reason::differences(graph, task.stage, &old.parts, &task.parts),
        None => vec![StaleReason::Missing(Lost::NeverRun)],
    };
    if reasons.is_empty() {
        reasons.push(StaleReason::Missing(lost));
    }
    task.state = State::Stale(reasons);
}

/// The parts that are known before anything ran: all but the inputs.
fn own_parts(graph: &Graph, task: &PlannedTask, sources: &SourceDigests) -> Parts {
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
        names.push(node.name.clone());
        names.extend(task.needs.iter().map(|need| graph.nodes[need.stage].name.clone()));
    }
    Parts {
        kind: node.stage.kind().to_owned(),
        revision: node.stage.revision(task.part, &Upstream { own: task.stage, nodes: &graph.nodes }),
        part: task.part.to_string(),
        seed: node.stage.uses_seed().then_some(entry.seed),
        keys,
        names,
        inputs: Vec::new(),
        sources: sources.0.get(task.stage).cloned().unwrap_or_default(),
    }
}

/// Completes the parts with what the stages above gave, in the order of the task's needs.
pub(super) fn add_inputs(graph: &Graph, task: &mut PlannedTask, artifacts: &[Digest]) {
    debug_assert_eq!(task.needs.len(), artifacts.len());
    task.parts.inputs = task
        .needs
        .iter()
        .zip(artifacts)
        .map(|(need, &artifact)| {
            let node = &graph.nodes[need.stage];
            let role = format!("{:?} {}", node.flow.output, need.part).to_lowercase();
            Input { stage: node.name.clone(), role, artifact }
        })
        .collect();
}
