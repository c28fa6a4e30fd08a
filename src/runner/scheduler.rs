//! Runs a plan: ready tasks side by side, each published the moment it is done, so that a kill loses only what was
//! being computed.
//!
//! One thread owns the state of the run ([`Run`]); workers reply to it by messages. What a task's end means for others
//! is found by who reads it, never by looking at all tasks, so that a run of many thousand tasks costs no more a task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::budget::Budget;
use super::clock::Clock;
use super::events::{Ended, Event, Events, Failure};
use super::graph::{Graph, task_name};
use super::memory::{Memory, Remembered, task_key};
use super::outcome::{Outcome, TaskOutcome};
use super::plan::{self, Forced, Known, Plan, PlannedTask, State};
use super::purse::Purse;
use super::reason::{Lost, StaleReason};
use super::worker::{Order, Reply, Told, Workshop};
use super::{Options, Session};
use crate::artifact::Files;
use crate::artifact::dataset::{NAMES_FILES, NUMBERS_FILES, Names, SUMMARY_FILES, Summary};
use crate::config::{Log, Span};
use crate::stages::search::Search;
use crate::stages::{Flow, Glance, Output, Part, Price, Reads, StageError};
use crate::store::{self, Digest, Entry, Found};

/// Where a task is during the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// Something it reads is not there yet.
    Waiting,
    /// It can be started.
    Ready,
    Running,
    Done,
    Ended,
}

/// A task is computed again after damage this often; then the disk is to blame.
const MOST_REPAIRS: u32 = 2;

/// A task is computed again so often because what it reads from outside changed meanwhile.
const MOST_CHANGES: u32 = 3;

/// What a worker says.
enum Message {
    /// Its task has ended.
    Ended(usize, Reply, f64),
    /// Threads have become free while tasks waited for some.
    Freed,
}

pub(super) fn run(
    session: &Session<'_>,
    plan: Plan,
    options: &Options<'_>,
    events: &dyn Events,
    force: &Forced,
    clock: &Clock,
    told: &Told,
) -> Outcome {
    let fresh = plan.tasks.iter().filter(|task| task.state == State::Fresh).count();
    events.event(&Event::Planned { fresh, tasks: plan.tasks.len() });
    let graph = plan.graph.clone();
    let mut run = Run::new(session, plan, options, force, clock);
    let (sender, messages) = mpsc::channel();
    let freed = sender.clone();
    // The receiver lives until every running task has ended.
    let purse = Purse::new(options.threads, move || {
        let _ = freed.send(Message::Freed);
    });
    let workshop = Workshop::new(session, &graph, options, events, clock, purse, told);
    std::thread::scope(|scope| {
        run.start(&workshop);
        loop {
            workshop.pass_warnings();
            let ready = run.admitted();
            for (i, threads) in workshop.purse.share_out(&ready) {
                run.begin(i, &workshop);
                run.set(i, Stand::Running, &workshop);
                let (to, workshop, order) = (sender.clone(), &workshop, run.order(i, threads));
                let work = move || {
                    let (reply, seconds) = workshop.work(&order);
                    // The receiver lives until every running task has replied.
                    let _ = to.send(Message::Ended(order.index, reply, seconds));
                };
                if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    // Where no thread can be started, the one that is there does the work.
                    let order = run.order(i, threads);
                    let (reply, seconds) = workshop.work(&order);
                    let _ = sender.send(Message::Ended(i, reply, seconds));
                }
            }
            if run.n_running == 0 {
                break;
            }
            match messages.recv() {
                Ok(Message::Ended(i, reply, seconds)) => {
                    run.budget.end(i);
                    run.take(i, reply, seconds, &workshop);
                }
                Ok(Message::Freed) => {}
                Err(_) => break,
            }
        }
    });
    workshop.pass_warnings();
    run.repeat_warnings(&workshop);
    run.finish()
}

/// The trials of a round, as those see them who watch.
#[derive(Debug, Default)]
struct Watched {
    /// The tasks of each trial, by its node.
    of_node: BTreeMap<usize, Vec<usize>>,
    /// The best value so far.
    best: Option<f64>,
}

/// The state of a run: owned by one thread.
struct Run<'r> {
    session: &'r Session<'r>,
    options: &'r Options<'r>,
    force: Forced,
    clock: &'r Clock,
    graph: Graph,
    memory: Memory,
    tasks: Vec<PlannedTask>,
    stands: Vec<Stand>,
    outcomes: Vec<TaskOutcome>,
    repairs: Vec<u32>,
    /// How often what a task reads from outside changed while it was computed.
    changes: Vec<u32>,
    /// By task: whether it is a gate of one.
    is_gate: Vec<bool>,
    /// Gates that have been asked.
    asked: BTreeSet<usize>,
    /// By task: those that read it, or whose gate it is.
    readers: Vec<Vec<usize>>,
    /// By task: how many of those that it reads are not done.
    n_missing: Vec<usize>,
    /// Tasks that could be started but for threads; their gates are open.
    ready: BTreeSet<usize>,
    /// The fingerprints that are being computed.
    busy: BTreeSet<Digest>,
    n_running: usize,
    budget: Budget,
    /// What is known of nodes beyond the manifest, once their data set is there.
    flows: BTreeMap<usize, Flow>,
    /// What tasks take, by node and whether it is a check before a training.
    prices: BTreeMap<(usize, bool), Price>,
    /// Whether the run may not go on.
    is_refused: bool,
    /// By search and round.
    watched: BTreeMap<(usize, u32), Watched>,
}

impl<'r> Run<'r> {
    fn new(
        session: &'r Session<'r>,
        plan: Plan,
        options: &'r Options<'r>,
        force: &'r Forced,
        clock: &'r Clock,
    ) -> Run<'r> {
        let graph = &plan.graph;
        let outcome = |task: &PlannedTask| TaskOutcome {
            stage: task.stage,
            part: task.part,
            name: task_name(&graph.nodes[task.stage].name, task.part),
            ended: if task.state == State::Fresh { Ended::Fresh } else { Ended::NotStarted },
            reasons: Vec::new(),
            record: task.record.clone(),
            inputs: task.read_names(graph),
            entry: if task.state == State::Fresh { task.entry.clone() } else { None },
            seconds: 0.0,
            differing: Vec::new(),
            is_recorded: task.absent.is_some(),
            warnings: Vec::new(),
        };
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); plan.tasks.len()];
        let mut watched: BTreeMap<(usize, u32), Watched> = BTreeMap::new();
        let mut is_gate = vec![false; plan.tasks.len()];
        for (i, task) in plan.tasks.iter().enumerate() {
            task.gates.iter().for_each(|&gate| is_gate[gate] = true);
            let above: BTreeSet<usize> = task.above.iter().chain(&task.gates).copied().collect();
            above.into_iter().for_each(|above| readers[above].push(i));
            if let Part::Round(round) = task.part {
                let of_node = &mut watched.entry((task.stage, round)).or_default().of_node;
                for (need, &above) in task.needs.iter().zip(&task.above) {
                    if graph.nodes[need.stage].flow.output == Output::Model {
                        of_node.entry(need.stage).or_default().push(above);
                    }
                }
            }
        }
        let n = plan.tasks.len();
        let stand = |task: &PlannedTask| match task.state {
            State::Fresh => Stand::Done,
            State::Stale(_) => Stand::Ready,
            State::Pending { .. } => Stand::Waiting,
        };
        let mut stands: Vec<Stand> = plan.tasks.iter().map(stand).collect();
        let n_missing = |task: &PlannedTask| {
            let missing = task.above.iter().filter(|&&above| stands[above] != Stand::Done);
            missing.collect::<BTreeSet<_>>().len()
        };
        let n_missing: Vec<usize> = plan.tasks.iter().map(n_missing).collect();
        for (stand, n_missing) in stands.iter_mut().zip(&n_missing) {
            // What it reads is known by its record and has to be computed again.
            if *stand == Stand::Ready && *n_missing > 0 {
                *stand = Stand::Waiting;
            }
        }
        // What is to be computed is not satisfied by its record.
        let mut force = force.clone();
        let stale = plan.tasks.iter().filter(|task| matches!(task.state, State::Stale(_)));
        force.wanted.extend(stale.filter_map(|task| task.fingerprint));
        Run {
            session,
            options,
            force,
            clock,
            memory: session.memory(),
            n_missing,
            stands,
            outcomes: plan.tasks.iter().map(outcome).collect(),
            repairs: vec![0; n],
            changes: vec![0; n],
            is_gate,
            asked: BTreeSet::new(),
            readers,
            ready: BTreeSet::new(),
            busy: BTreeSet::new(),
            n_running: 0,
            budget: Budget::new(options.jobs, options.threads, options.memory),
            flows: BTreeMap::new(),
            prices: BTreeMap::new(),
            is_refused: false,
            watched,
            tasks: plan.tasks,
            graph: plan.graph,
        }
    }

    fn is_cancelled(&self) -> bool {
        self.options.cancel.load(Ordering::Relaxed)
    }

    /// What the plan knows to be possible.
    fn start(&mut self, workshop: &Workshop<'_>) {
        // Where nothing is to be done, nothing is read.
        let is_fresh = self.stands.iter().all(|stand| *stand == Stand::Done);
        for i in 0..self.tasks.len() {
            match self.stands[i] {
                Stand::Ready => self.open_gates(i, workshop),
                Stand::Waiting => self.resolve(i, workshop),
                Stand::Done if !is_fresh => {
                    self.tell_dataset(i, workshop);
                    self.ask_dataset(i);
                }
                Stand::Done | Stand::Running | Stand::Ended => {}
            }
        }
    }

    /// Tells what came in, if this finished task is a data set, from its files: whether it was computed now or long
    /// ago.
    fn tell_dataset(&self, i: usize, workshop: &Workshop<'_>) {
        let stage = self.tasks[i].stage;
        let node = &self.graph.nodes[stage];
        if node.flow.output != Output::Dataset || stage >= self.graph.n_own {
            return;
        }
        let Some(entry) = &self.outcomes[i].entry else { return };
        let files = self.session.store.open_files(entry, &|name| Reads(SUMMARY_FILES).covers(name));
        // What is damaged is found, and computed again, where it is needed.
        if let Ok(summary) = files.map_err(drop).and_then(|files| Summary::read(&files).map_err(drop)) {
            workshop.events.event(&Event::Dataset { stage: &node.name, summary: &summary });
        }
    }

    /// The names of a data set that a finished task is.
    fn dataset(&self, i: usize) -> Option<Files> {
        if self.graph.nodes[self.tasks[i].stage].flow.output != Output::Dataset {
            return None;
        }
        let entry = self.outcomes[i].entry.as_ref()?;
        self.session.store.open_files(entry, &|name| Reads(NAMES_FILES).covers(name)).ok()
    }

    /// Asks whether the run may go on with a data set that is there now.
    fn ask_dataset(&mut self, i: usize) {
        let stage = self.tasks[i].stage;
        if let Some(admits) = self.options.admits
            && stage < self.graph.n_own
            && let Some(files) = self.dataset(i)
        {
            self.is_refused |= !admits(stage, &files);
        }
    }

    /// What is known of what a node hands on, now that what it reads is there.
    fn flow(&mut self, stage: usize) -> Flow {
        let node = &self.graph.nodes[stage];
        let own = &node.flow;
        if own.shape.is_some() && own.n_classes.is_some() && own.n_samples.is_some() {
            return own.clone();
        }
        if let Some(known) = self.flows.get(&stage) {
            return known.clone();
        }
        let mut flow = own.clone();
        if own.output == Output::Dataset {
            let task = self.tasks.iter().position(|task| task.stage == stage);
            let glance = task.and_then(|task| self.dataset(task)).and_then(|files| Glance::of_dataset(&files).ok());
            let Some(glance) = glance else { return flow };
            glance.tell(&mut flow);
        } else {
            let inputs: Vec<Flow> = node.inputs.clone().into_iter().map(|input| self.flow(input)).collect();
            let node = &self.graph.nodes[stage];
            flow = node.stage.check(&inputs, Span::default(), &mut Log::default());
        }
        self.flows.insert(stage, flow.clone());
        flow
    }

    /// What a task takes that can be started.
    fn price(&mut self, i: usize) -> Price {
        let (stage, part) = (self.tasks[i].stage, self.tasks[i].part);
        let at = (stage, part == Part::Sanity);
        if let Some(&known) = self.prices.get(&at) {
            return known;
        }
        let above = self.graph.nodes[stage].inputs.first().copied().map(|input| self.flow(input));
        let task = &self.tasks[i];
        let read = task.needs.iter().zip(&task.above).flat_map(|(need, &above)| {
            let outputs = self.outcomes[above].entry.iter().flat_map(|entry| &entry.outputs);
            outputs.filter(|output| need.files.covers(&output.name)).collect::<Vec<_>>()
        });
        // Arrays are mapped, not read.
        let read_bytes = read.filter(|output| !output.name.ends_with(".npy")).map(|output| output.size).sum();
        let price = self.graph.nodes[stage].stage.price(above.as_ref(), read_bytes);
        self.prices.insert(at, price);
        price
    }

    /// Which tasks are to be started now as far as the budget goes.
    fn admitted(&mut self) -> Vec<usize> {
        let ready = self.ready();
        let budget = std::mem::replace(&mut self.budget, Budget::none());
        let admitted = budget.admitted(ready, &mut |i| self.price(i));
        self.budget = budget;
        admitted
    }

    /// Takes a task into the budget.
    fn begin(&mut self, i: usize, workshop: &Workshop<'_>) {
        let price = if self.budget.is_limited() { self.price(i) } else { Price::default() };
        if let Some(complaint) = self.budget.complaint(price) {
            workshop.warn(Some(&self.outcomes[i].name), &complaint);
        }
        self.budget.start(i, price);
    }

    /// Moves a task, and those that waited for that.
    fn set(&mut self, i: usize, stand: Stand, workshop: &Workshop<'_>) {
        let before = std::mem::replace(&mut self.stands[i], stand);
        if before == Stand::Running {
            self.n_running -= 1;
            if let Some(fingerprint) = self.tasks[i].fingerprint {
                self.busy.remove(&fingerprint);
            }
        }
        self.ready.remove(&i);
        match stand {
            Stand::Running => {
                self.n_running += 1;
                self.busy.extend(self.tasks[i].fingerprint);
            }
            Stand::Ready => self.open_gates(i, workshop),
            Stand::Waiting | Stand::Done | Stand::Ended => {}
        }
        if (before == Stand::Done) == (stand == Stand::Done) {
            return;
        }
        if stand == Stand::Done {
            self.tell_dataset(i, workshop);
            self.ask_dataset(i);
        }
        for k in 0..self.readers[i].len() {
            let reader = self.readers[i][k];
            if self.tasks[reader].above.contains(&i) {
                if stand == Stand::Done {
                    self.n_missing[reader] -= 1;
                    self.resolve(reader, workshop);
                } else {
                    self.n_missing[reader] += 1;
                }
            }
            if self.stands[reader] == Stand::Ready {
                if stand == Stand::Done {
                    self.open_gates(reader, workshop);
                } else if self.tasks[reader].gates.contains(&i) {
                    self.ready.remove(&reader);
                }
            }
        }
    }

    /// Decides a task whose inputs are all there now: early cutoff happens here.
    fn resolve(&mut self, i: usize, workshop: &Workshop<'_>) {
        let is_open = self.graph.nodes[self.tasks[i].stage].stage.is_open(self.tasks[i].part);
        if self.stands[i] != Stand::Waiting || self.n_missing[i] > 0 || is_open {
            return;
        }
        let entries: Vec<&Entry> =
            self.tasks[i].above.iter().filter_map(|&above| self.outcomes[above].entry.as_ref()).collect();
        plan::add_inputs(&self.graph, &mut self.tasks[i], &entries);
        self.decide(i, workshop);
    }

    /// Whether the store has a task whose record is whole.
    fn decide(&mut self, i: usize, workshop: &Workshop<'_>) {
        let store = &self.session.store;
        let found = match self.tasks[i].fingerprint.map(|fingerprint| store.find(&fingerprint)) {
            None => Found::Missing,
            Some(Ok(found)) => found,
            // What cannot be read is not absent: it is not computed anew.
            Some(Err(error)) => {
                self.outcomes[i].ended = Ended::Failed(Failure::Store(error));
                return self.set(i, Stand::Ended, workshop);
            }
        };
        let recall = |old: &Digest| store.task(old);
        let task = &mut self.tasks[i];
        plan::decide(
            &self.graph,
            task,
            found,
            &Known { recall: &recall, memory: &self.memory, has: &|_| true },
            &self.force,
        );
        self.outcomes[i].record = task.record.clone();
        if task.state == State::Fresh {
            self.outcomes[i].is_recorded = task.absent.is_some();
            self.outcomes[i].entry = task.entry.clone();
            self.outcomes[i].ended = Ended::Found;
            self.set(i, Stand::Done, workshop);
        } else {
            self.set(i, Stand::Ready, workshop);
        }
    }

    /// Lets a task be started if its gates say so; each gate is asked once. A gate that does not let it is what failed.
    fn open_gates(&mut self, i: usize, workshop: &Workshop<'_>) {
        for gate in self.tasks[i].gates.clone() {
            if self.stands[gate] != Stand::Done {
                return;
            }
            if !self.asked.insert(gate) {
                continue;
            }
            let Some(entry) = &self.outcomes[gate].entry else { return };
            let (stage, part) = (self.tasks[gate].stage, self.tasks[gate].part);
            let said = match self.session.store.open_artifact(entry) {
                Ok(files) => self.graph.nodes[stage].stage.admits(part, &files),
                Err(error) => {
                    self.asked.remove(&gate);
                    if let Some(failure) = self.repair(gate, error, workshop) {
                        self.outcomes[gate].ended = Ended::Failed(failure);
                        self.set(gate, Stand::Ended, workshop);
                    }
                    return;
                }
            };
            match said {
                Ok(advice) => {
                    for advice in advice {
                        let message = self.with_path(gate, advice.message, advice.image);
                        workshop.warn(Some(&self.outcomes[gate].name), &message);
                    }
                }
                Err(error) => {
                    let error = self.with_names(gate, error);
                    self.outcomes[gate].ended = Ended::Failed(Failure::Stage(error));
                    self.set(gate, Stand::Ended, workshop);
                    return;
                }
            }
        }
        self.ready.insert(i);
    }

    /// Tells what finished tasks told when they were computed, and what their gates say, where that was not in this
    /// run:
    /// it is about the same results. Of trials only those who run them are told, since there are many.
    fn repeat_warnings(&mut self, workshop: &Workshop<'_>) {
        for i in 0..self.tasks.len() {
            let Some(entry) = self.outcomes[i].entry.clone() else { continue };
            let mut warnings = entry.warnings;
            if self.tasks[i].stage < self.graph.n_own {
                warnings.extend(self.advice(i));
                warnings.iter().for_each(|warning| workshop.warn(Some(&self.outcomes[i].name), warning));
            }
            self.outcomes[i].warnings = warnings;
        }
    }

    /// What a finished gate says for people.
    fn advice(&self, gate: usize) -> Vec<String> {
        if !self.is_gate[gate] {
            return Vec::new();
        }
        let Some(Ok(files)) = self.outcomes[gate].entry.as_ref().map(|entry| self.session.store.open_artifact(entry))
        else {
            return Vec::new();
        };
        let (stage, part) = (self.tasks[gate].stage, self.tasks[gate].part);
        // A gate that does not admit is asked by those who wait behind it; what is finished stays.
        let advice = self.graph.nodes[stage].stage.admits(part, &files).unwrap_or_default();
        advice.into_iter().map(|advice| self.with_path(gate, advice.message, advice.image)).collect()
    }

    /// An error that says which image it is about by its path.
    fn with_names(&self, task: usize, error: StageError) -> StageError {
        StageError { message: self.with_path(task, error.message.clone(), error.image), ..error }
    }

    /// "image 7" as the path of that image: tasks do not read names, since those change nothing.
    fn with_path(&self, task: usize, message: String, image: Option<u32>) -> String {
        let path = image.and_then(|image| {
            let needs = self.tasks[task].needs.iter().zip(&self.tasks[task].above);
            let mut datasets = needs.filter(|(need, _)| self.graph.nodes[need.stage].flow.output == Output::Dataset);
            let entry = self.outcomes[*datasets.next()?.1].entry.as_ref()?;
            let files = self.session.store.open_files(entry, &|name| Reads(NAMES_FILES).covers(name)).ok()?;
            let names = Names::read(&files).ok()?;
            ((image as usize) < names.n_samples()).then(|| (image, names.path(image as usize).to_owned()))
        });
        match path {
            Some((image, path)) => message.replacen(&format!("image {image}"), &format!("`{path}`"), 1),
            None => message,
        }
    }

    /// Which tasks could be started now: as many as there can be a use for.
    fn ready(&self) -> Vec<usize> {
        if self.is_cancelled() || self.is_refused || self.options.is_out_of_time() {
            return Vec::new();
        }
        // Two tasks with one fingerprint are one: the second waits and then finds it.
        let mut busy: BTreeSet<Digest> = BTreeSet::new();
        self.ready
            .iter()
            .copied()
            .filter(|&i| !self.clock.ends(&self.graph, self.tasks[i].stage))
            .filter(|&i| {
                self.tasks[i].fingerprint.is_some_and(|print| !self.busy.contains(&print) && busy.insert(print))
            })
            // More cannot be started, nor waited for by those that have several threads.
            .take(2 * self.options.threads + 1)
            .collect()
    }

    fn order(&self, index: usize, threads: usize) -> Order {
        let task = self.tasks[index].clone();
        let reasons = match &task.state {
            State::Stale(reasons) => reasons.clone(),
            State::Fresh | State::Pending { .. } => Vec::new(),
        };
        Order {
            index,
            threads,
            lent: AtomicUsize::new(threads),
            fingerprint: task.fingerprint.unwrap_or_else(|| task.record.fingerprint()),
            is_forced: reasons.contains(&StaleReason::Forced),
            before: self.memory.of(&self.graph, task.stage, task.part).map(|old| old.fingerprint),
            reasons,
            task,
        }
    }

    fn take(&mut self, i: usize, reply: Reply, seconds: f64, workshop: &Workshop<'_>) {
        let outcome = &mut self.outcomes[i];
        let mut stand = Stand::Done;
        match reply {
            Reply::Found(entry) => {
                outcome.entry = Some(*entry);
                outcome.ended = Ended::Found;
            }
            Reply::Computed(entry, differing) => {
                outcome.entry = Some(*entry);
                outcome.ended = Ended::Computed;
                outcome.differing = differing;
                outcome.seconds = seconds;
                if let State::Stale(reasons) = &self.tasks[i].state {
                    outcome.reasons = reasons.clone();
                }
            }
            Reply::Failed(Failure::Stage(error)) => {
                let error = self.with_names(i, error);
                self.outcomes[i].ended = Ended::Failed(Failure::Stage(error));
                stand = Stand::Ended;
            }
            Reply::Failed(failure) => {
                outcome.ended = Ended::Failed(failure);
                stand = Stand::Ended;
            }
            Reply::Cancelled => {
                outcome.ended = Ended::Cancelled;
                stand = Stand::Ended;
            }
            Reply::Lost(need, error) => {
                let above = self.tasks[i].above[need];
                match self.repair(above, error, workshop) {
                    None => stand = Stand::Waiting,
                    Some(failure) => {
                        self.outcomes[i].ended = Ended::Failed(failure);
                        stand = Stand::Ended;
                    }
                }
            }
            Reply::Changed(sources, what) => {
                self.changes[i] += 1;
                if self.changes[i] < MOST_CHANGES {
                    workshop.warn(
                        Some(&self.outcomes[i].name),
                        &format!("{what} changed while it was read: it is read again"),
                    );
                    self.tasks[i].record.sources = sources;
                    self.tasks[i].fingerprint = Some(self.tasks[i].record.fingerprint());
                    self.set(i, Stand::Waiting, workshop);
                    self.decide(i, workshop);
                    return;
                }
                let message = format!("{what} changed each of {MOST_CHANGES} times that it was read");
                let error = StageError::new(message).help("run again when nothing writes there any more");
                self.outcomes[i].ended = Ended::Failed(Failure::Stage(error));
                stand = Stand::Ended;
            }
        }
        if stand != Stand::Waiting {
            let outcome = &self.outcomes[i];
            workshop.events.event(&Event::Ended { task: &outcome.name, ended: &outcome.ended, seconds });
        }
        self.set(i, stand, workshop);
        if stand == Stand::Waiting {
            // What it reads may be there again already.
            self.resolve(i, workshop);
        } else {
            self.tell_trial(self.tasks[i].stage, workshop);
        }
    }

    /// Tells how far a round of a search is, after a task of one of its trials has ended.
    fn tell_trial(&mut self, stage: usize, workshop: &Workshop<'_>) {
        let graph = workshop.graph;
        let Some(trial) = graph.trial(stage) else { return };
        let node = &graph.nodes[trial.search];
        let Some(search) = node.stage.search() else { return };
        let Some(placed) = search.placement().rounds.get(trial.round as usize - 1) else { return };
        let Some(watched) = self.watched.get(&(trial.search, trial.round)) else { return };
        let is_done = |tasks: &Vec<usize>| tasks.iter().all(|&task| self.stands[task] == Stand::Done);
        let Some(own) = watched.of_node.get(&stage).filter(|tasks| is_done(tasks)) else { return };
        let done = watched.of_node.values().filter(|tasks| is_done(tasks)).count();
        let total = placed.trials.iter().filter(|(_, node)| node.is_some()).count();
        let value = self.trial_value(search, own);
        let Some(watched) = self.watched.get_mut(&(trial.search, trial.round)) else { return };
        if let Some(value) = value
            && watched.best.is_none_or(|best| search.is_better(value, best))
        {
            watched.best = Some(value);
        }
        let best = watched.best.map(|best| (search.metric(), best));
        let round = (trial.round, search.rounds().len());
        workshop.events.event(&Event::Trial { search: &node.name, round, done, total, best });
    }

    /// How good the trial is whose folds are these tasks, where it can be told.
    fn trial_value(&self, search: &Search, folds: &[usize]) -> Option<f64> {
        let open = |task: usize, files: Reads| {
            let entry = self.outcomes[task].entry.as_ref()?;
            self.session.store.open_files(entry, &|name| files.covers(name)).ok()
        };
        // The data set stands first among what a training reads.
        let dataset = open(*self.tasks[*folds.first()?].above.first()?, Reads(NUMBERS_FILES))?;
        let folds: Vec<Files> =
            folds.iter().map(|&fold| open(fold, crate::stages::search::TRIAL)).collect::<Option<_>>()?;
        search.value(&folds, &dataset).ok()?
    }

    /// Has a task whose artifact turned out damaged or gone computed again, unless that was tried too often.
    fn repair(&mut self, above: usize, error: store::Error, workshop: &Workshop<'_>) -> Option<Failure> {
        // What is known by its record only is missed as a matter of course.
        let is_recorded = self.tasks[above].absent.is_some();
        if !is_recorded {
            workshop.warn(None, &format!("{}: {error}; it is computed again", self.outcomes[above].name));
        }
        // Of several that miss it at once the first one sees to it.
        if self.stands[above] != Stand::Done {
            return None;
        }
        self.repairs[above] += 1;
        if self.repairs[above] > MOST_REPAIRS {
            return Some(Failure::Store(error));
        }
        let file = match error {
            store::Error::Corrupt { file, .. } => file,
            _ => "blob".to_owned(),
        };
        let reason = match self.tasks[above].absent.take() {
            Some(absent) => StaleReason::Missing(Lost::Absent(absent)),
            None => StaleReason::Corrupt { file },
        };
        self.force.wanted.extend(self.tasks[above].fingerprint);
        self.outcomes[above].is_recorded = false;
        self.tasks[above].state = State::Stale(vec![reason]);
        self.outcomes[above].entry = None;
        self.set(above, Stand::Ready, workshop);
        None
    }

    /// Writes down what is remembered, and says what the run came to.
    fn finish(mut self) -> Outcome {
        let graph = &self.graph;
        let is_complete = self.outcomes.iter().all(|outcome| outcome.entry.is_some());
        let mut tasks = std::mem::take(&mut self.memory.tasks);
        if is_complete && self.options.targets.is_none() {
            let keys: BTreeSet<String> =
                self.outcomes.iter().map(|task| task_key(&graph.nodes[task.stage].name, task.part)).collect();
            tasks.retain(|key, _| keys.contains(key));
        }
        for outcome in &self.outcomes {
            let Some(entry) = &outcome.entry else { continue };
            let key = task_key(&graph.nodes[outcome.stage].name, outcome.part);
            let fingerprint = entry.fingerprint;
            let because = match (&outcome.ended, tasks.get(&key)) {
                (Ended::Computed, _) => outcome.reasons.iter().map(ToString::to_string).collect(),
                (_, Some(old)) if old.fingerprint == fingerprint => old.because.clone(),
                _ => vec!["found in the store".to_owned()],
            };
            tasks.insert(key, Remembered { fingerprint, inputs: outcome.inputs.clone(), because });
        }
        let base = self.session.store.base();
        let lock = std::path::absolute(&graph.lock_path).unwrap_or_else(|_| graph.lock_path.clone());
        let lock = lock.strip_prefix(base).unwrap_or(&lock).to_string_lossy().into_owned();
        let manifest = graph.manifest.to_string_lossy().into_owned();
        Memory { manifest, lock, tasks }.save(&self.session.store, graph);
        self.session.store.save_stamps();
        let is_interrupted = self.is_cancelled() && !is_complete;
        let has_failed = self.outcomes.iter().any(|outcome| matches!(outcome.ended, Ended::Failed(_)));
        Outcome {
            is_interrupted,
            is_out_of_time: self.options.is_out_of_time() && !is_complete && !is_interrupted && !has_failed,
            is_refused: self.is_refused,
            tasks: self.outcomes,
            graph: self.graph,
            truncated: BTreeSet::new(),
        }
    }
}
