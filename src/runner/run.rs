//! Runs a plan: ready tasks side by side, each published the moment it is done, so that a kill loses only what was
//! being computed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::executor::{Executor, Job, JobError, Local};
use super::expand::Cuts;
use super::graph::Graph;
use super::lockfile::LockFile;
use super::memory::{Memory, Remembered, task_key};
use super::plan::{self, Forced, Plan, PlannedTask, State};
use super::reason::{self, StaleReason};
use super::{Options, Session, task_name};
use crate::artifact::Files;
use crate::stages::search::Search;
use crate::stages::{Context, Delivered, Part, StageError, Task};
use crate::store::fingerprint::Parts;
use crate::store::{self, Digest, Entry, Found, Locking, Store};

/// What happens during a run, for people. Called from several threads.
pub trait Events: Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The plan is made, nothing has run yet.
    Planned(&'a Plan),
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
    /// What it was computed from.
    pub parts: Parts,
    /// Its record, if it is there.
    pub entry: Option<Entry>,
    /// How long it took, if it was computed.
    pub seconds: f64,
    /// Files that had other bytes when the same task was computed before: the stage does not do the same twice.
    pub differing: Vec<String>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Every planned task, in the order of the plan.
    pub tasks: Vec<TaskOutcome>,
    /// Whether it was told to stop before it was done.
    pub is_interrupted: bool,
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

    /// The tasks that failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&TaskOutcome, &Failure)> {
        self.tasks.iter().filter_map(|task| match &task.ended {
            Ended::Failed(failure) => Some((task, failure)),
            _ => None,
        })
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
        let entry = self.task(stage, part)?.entry.as_ref()?;
        Some(store.open_artifact(entry))
    }

    /// What the lock file of this run says, without metrics; `None` if not every task is there.
    pub fn lock_file(&self) -> Option<LockFile> {
        let graph = &self.graph;
        let mut lock = LockFile::new(&graph.name);
        for task in &self.tasks {
            lock.add(&task_key(&graph.nodes[task.stage].name, task.part), &task.parts, task.entry.as_ref()?);
        }
        Some(lock)
    }
}

impl Outcome {
    /// Gives tasks that an earlier pass computed their outcome of then, in place of being fresh now.
    pub(super) fn take_over(&mut self, earlier: &mut BTreeMap<String, TaskOutcome>) {
        for task in &mut self.tasks {
            let is_fresh = matches!(task.ended, Ended::Fresh | Ended::Found);
            if is_fresh
                && earlier.get(&task.name).is_some_and(|old| old.parts == task.parts)
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

/// When searches began their first trial in this run.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<BTreeMap<usize, Instant>>);

impl Clock {
    /// A trial of the search at this index begins.
    fn start(&self, search: usize) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(search).or_insert_with(Instant::now);
    }

    /// Whether its time is over.
    fn is_over(&self, at: usize, search: &Search) -> bool {
        let started = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&at).copied();
        match (started, search.time_limit()) {
            (Some(started), Some(limit)) => started.elapsed() >= Duration::from_secs(limit),
            _ => false,
        }
    }

    /// Whether a node is a drawn trial's of a search whose time is over.
    fn ends(&self, graph: &Graph, stage: usize) -> bool {
        let Some(trial) = graph.trial(stage).filter(|trial| trial.is_drawn) else { return false };
        graph.nodes[trial.search].stage.search().is_some_and(|search| self.is_over(trial.search, search))
    }
}

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

/// What a worker says at the end of a task.
enum Reply {
    Found(Entry),
    Computed(Entry, Vec<String>),
    Failed(Failure),
    Cancelled,
    /// An input, by its place among the needs, turned out damaged or gone.
    Lost(usize, store::Error),
}

/// A task is computed again after damage this often; then the disk is to blame.
const MOST_REPAIRS: u32 = 2;

pub(super) fn run(
    session: &Session<'_>,
    plan: Plan,
    options: &Options<'_>,
    events: &dyn Events,
    force: &Forced,
    clock: &Clock,
) -> Outcome {
    events.event(&Event::Planned(&plan));
    let graph = plan.graph.clone();
    let mut run = Run::new(session, plan, options, force, clock);
    let warned = Mutex::default();
    let (sender, messages) = mpsc::channel();
    let purse = Purse { state: Mutex::new(Threads { free: options.threads, n_waiting: 0 }), sender: sender.clone() };
    let workshop = Workshop { session, graph: &graph, options, events, warned, clock, purse, executor: &Local };
    std::thread::scope(|scope| {
        loop {
            run.resolve();
            run.ask_gates(&workshop);
            workshop.pass_warnings();
            let ready = run.ready();
            for (i, threads) in workshop.purse.share_out(&ready) {
                run.stands[i] = Stand::Running;
                let (sender, workshop, order) = (sender.clone(), &workshop, run.order(i, threads));
                scope.spawn(move || {
                    let (reply, seconds) = workshop.work(&order);
                    // The receiver lives until every running task has replied.
                    let _ = sender.send(Message::Ended(order.index, reply, seconds));
                });
            }
            if !run.stands.contains(&Stand::Running) {
                break;
            }
            match messages.recv() {
                Ok(Message::Ended(i, reply, seconds)) => run.take(i, reply, seconds, &workshop),
                Ok(Message::Freed) => {}
                Err(_) => break,
            }
        }
    });
    workshop.pass_warnings();
    run.finish()
}

/// The state of a run: owned by one thread.
struct Run<'r> {
    session: &'r Session<'r>,
    options: &'r Options<'r>,
    force: &'r Forced,
    clock: &'r Clock,
    graph: Graph,
    memory: Memory,
    /// The best value so far of each round, by search and round.
    best: BTreeMap<(usize, u32), f64>,
    tasks: Vec<PlannedTask>,
    stands: Vec<Stand>,
    outcomes: Vec<TaskOutcome>,
    repairs: Vec<u32>,
    /// Gates that have been asked.
    asked: BTreeSet<usize>,
}

/// Everything a worker has to know.
struct Order {
    index: usize,
    /// Threads that it starts with.
    threads: usize,
    /// Threads that it has now.
    lent: AtomicUsize,
    task: PlannedTask,
    reasons: Vec<StaleReason>,
    fingerprint: Digest,
    inputs: Vec<Entry>,
    is_forced: bool,
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
        let stand = |task: &PlannedTask| match task.state {
            State::Fresh => Stand::Done,
            State::Stale(_) => Stand::Ready,
            State::Pending { .. } => Stand::Waiting,
        };
        let outcome = |task: &PlannedTask| TaskOutcome {
            stage: task.stage,
            part: task.part,
            name: task_name(&graph.nodes[task.stage].name, task.part),
            ended: if task.state == State::Fresh { Ended::Fresh } else { Ended::NotStarted },
            reasons: Vec::new(),
            parts: task.parts.clone(),
            entry: if task.state == State::Fresh { task.entry.clone() } else { None },
            seconds: 0.0,
            differing: Vec::new(),
        };
        Run {
            session,
            options,
            force,
            clock,
            best: BTreeMap::new(),
            memory: session.memory(),
            stands: plan.tasks.iter().map(stand).collect(),
            outcomes: plan.tasks.iter().map(outcome).collect(),
            repairs: vec![0; plan.tasks.len()],
            asked: BTreeSet::new(),
            tasks: plan.tasks,
            graph: plan.graph,
        }
    }

    fn is_cancelled(&self) -> bool {
        self.options.cancel.load(Ordering::Relaxed)
    }

    /// Decides every task whose inputs are all there now: early cutoff happens here.
    fn resolve(&mut self) {
        for i in 0..self.tasks.len() {
            let is_due = self.stands[i] == Stand::Waiting
                && !self.graph.nodes[self.tasks[i].stage].stage.is_open(self.tasks[i].part)
                && self.tasks[i].above.iter().all(|&above| self.stands[above] == Stand::Done);
            if !is_due {
                continue;
            }
            let entries = self.tasks[i].above.iter().filter_map(|&above| self.outcomes[above].entry.as_ref());
            let artifacts: Vec<Digest> = entries.map(Entry::artifact).collect();
            let (graph, task) = (&self.graph, &mut self.tasks[i]);
            plan::add_inputs(graph, task, &artifacts);
            let found = match self.session.store.find(&task.parts.fingerprint()) {
                Ok(found) => found,
                // What cannot be read is not absent: it is not computed anew.
                Err(error) => {
                    self.outcomes[i].ended = Ended::Failed(Failure::Store(error));
                    self.stands[i] = Stand::Ended;
                    continue;
                }
            };
            plan::decide(graph, task, found, &self.memory, self.force);
            self.outcomes[i].parts = task.parts.clone();
            if task.state == State::Fresh {
                self.outcomes[i].entry = task.entry.clone();
                self.outcomes[i].ended = Ended::Found;
                self.stands[i] = Stand::Done;
            } else {
                self.stands[i] = Stand::Ready;
            }
        }
    }

    /// Asks the gates of tasks that could be started, each once. A gate that does not let them is what failed.
    fn ask_gates(&mut self, workshop: &Workshop<'_>) {
        for i in 0..self.tasks.len() {
            if self.stands[i] != Stand::Ready {
                continue;
            }
            for gate in self.tasks[i].gates.clone() {
                if self.stands[gate] != Stand::Done || !self.asked.insert(gate) {
                    continue;
                }
                let Some(entry) = &self.outcomes[gate].entry else { continue };
                let (stage, part) = (self.tasks[gate].stage, self.tasks[gate].part);
                let said = match self.session.store.open_artifact(entry) {
                    Ok(files) => self.graph.nodes[stage].stage.admits(part, &files),
                    Err(error) => {
                        self.asked.remove(&gate);
                        if let Some(failure) = self.repair(gate, error, workshop) {
                            self.outcomes[gate].ended = Ended::Failed(failure);
                            self.stands[gate] = Stand::Ended;
                        }
                        continue;
                    }
                };
                match said {
                    Ok(warnings) => {
                        warnings.iter().for_each(|warning| workshop.warn(Some(&self.outcomes[gate].name), warning))
                    }
                    Err(error) => {
                        self.outcomes[gate].ended = Ended::Failed(Failure::Stage(error));
                        self.stands[gate] = Stand::Ended;
                    }
                }
            }
        }
    }

    /// Which tasks could be started now.
    fn ready(&self) -> Vec<usize> {
        if self.is_cancelled() {
            return Vec::new();
        }
        // Two tasks with one fingerprint are one: the second waits and then finds it.
        let mut busy: BTreeSet<Digest> = (0..self.tasks.len())
            .filter(|&i| self.stands[i] == Stand::Running)
            .map(|i| self.tasks[i].parts.fingerprint())
            .collect();
        (0..self.tasks.len())
            .filter(|&i| self.stands[i] == Stand::Ready && !self.clock.ends(&self.graph, self.tasks[i].stage))
            .filter(|&i| self.tasks[i].gates.iter().all(|&gate| self.stands[gate] == Stand::Done))
            .filter(|&i| busy.insert(self.tasks[i].parts.fingerprint()))
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
            fingerprint: task.parts.fingerprint(),
            inputs: task.above.iter().filter_map(|&above| self.outcomes[above].entry.clone()).collect(),
            is_forced: reasons.contains(&StaleReason::Forced),
            reasons,
            task,
        }
    }

    fn take(&mut self, i: usize, reply: Reply, seconds: f64, workshop: &Workshop<'_>) {
        let outcome = &mut self.outcomes[i];
        let mut stand = Stand::Done;
        match reply {
            Reply::Found(entry) => {
                outcome.entry = Some(entry);
                outcome.ended = Ended::Found;
            }
            Reply::Computed(entry, differing) => {
                outcome.entry = Some(entry);
                outcome.ended = Ended::Computed;
                outcome.differing = differing;
                outcome.seconds = seconds;
                if let State::Stale(reasons) = &self.tasks[i].state {
                    outcome.reasons = reasons.clone();
                }
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
        }
        self.stands[i] = stand;
        if stand != Stand::Waiting {
            let outcome = &self.outcomes[i];
            workshop.events.event(&Event::Ended { task: &outcome.name, ended: &outcome.ended, seconds });
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
        let nodes: Vec<usize> = placed.trials.iter().filter_map(|(_, node)| *node).collect();
        let is_round = |task: &PlannedTask| task.stage == trial.search && task.part == Part::Round(trial.round);
        let Some(round) = self.tasks.iter().find(|task| is_round(task)) else { return };
        let above = |stage: usize| -> Vec<usize> {
            round.above.iter().copied().filter(|&above| self.tasks[above].stage == stage).collect()
        };
        let is_done = |stage: usize| above(stage).iter().all(|&above| self.stands[above] == Stand::Done);
        if !nodes.contains(&stage) || !is_done(stage) {
            return;
        }
        let (done, total) = (nodes.iter().filter(|&&node| is_done(node)).count(), nodes.len());
        let value = self.trial_value(search, &above(stage));
        let at = (trial.search, trial.round);
        if let Some(value) = value
            && self.best.get(&at).is_none_or(|&best| search.is_better(value, best))
        {
            self.best.insert(at, value);
        }
        let best = self.best.get(&at).map(|&best| (search.metric(), best));
        let round = (trial.round, search.rounds().len());
        workshop.events.event(&Event::Trial { search: &node.name, round, done, total, best });
    }

    /// How good the trial is whose folds are these tasks, where it can be told.
    fn trial_value(&self, search: &Search, folds: &[usize]) -> Option<f64> {
        let open = |task: usize| self.session.store.open_artifact(self.outcomes[task].entry.as_ref()?).ok();
        // The data set stands first among what a training reads.
        let dataset = open(*self.tasks[*folds.first()?].above.first()?)?;
        let folds: Vec<Files> = folds.iter().map(|&fold| open(fold)).collect::<Option<_>>()?;
        search.value(&folds, &dataset).ok()?
    }

    /// Has a task whose artifact turned out damaged or gone computed again, unless that was tried too often.
    fn repair(&mut self, above: usize, error: store::Error, workshop: &Workshop<'_>) -> Option<Failure> {
        self.repairs[above] += 1;
        if self.repairs[above] > MOST_REPAIRS {
            return Some(Failure::Store(error));
        }
        workshop.warn(None, &format!("{}: {error}; it is computed again", self.outcomes[above].name));
        if self.stands[above] == Stand::Done {
            let file = match error {
                store::Error::Corrupt { file, .. } => file,
                _ => "blob".to_owned(),
            };
            self.tasks[above].state = State::Stale(vec![StaleReason::Corrupt { file }]);
            self.stands[above] = Stand::Ready;
            self.outcomes[above].entry = None;
        }
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
        for outcome in self.outcomes.iter().filter(|outcome| outcome.entry.is_some()) {
            let key = task_key(&graph.nodes[outcome.stage].name, outcome.part);
            let fingerprint = outcome.parts.fingerprint();
            let because = match (&outcome.ended, tasks.get(&key)) {
                (Ended::Computed, _) => outcome.reasons.iter().map(ToString::to_string).collect(),
                (_, Some(old)) if old.fingerprint == fingerprint => old.because.clone(),
                _ => vec!["found in the store".to_owned()],
            };
            tasks.insert(key, Remembered { fingerprint, parts: outcome.parts.clone(), because });
        }
        let base = self.session.store.base();
        let lock = std::path::absolute(&graph.lock_path).unwrap_or_else(|_| graph.lock_path.clone());
        let lock = lock.strip_prefix(base).unwrap_or(&lock).to_string_lossy().into_owned();
        let manifest = graph.manifest.to_string_lossy().into_owned();
        Memory { manifest, lock, tasks }.save(&self.session.store, graph);
        self.session.store.save_stamps();
        let is_interrupted = self.is_cancelled() && !is_complete;
        Outcome { is_interrupted, tasks: self.outcomes, graph: self.graph, truncated: BTreeSet::new() }
    }
}

/// What a worker says.
enum Message {
    /// Its task has ended.
    Ended(usize, Reply, f64),
    /// Threads have become free while tasks waited for some.
    Freed,
}

/// The threads of a run, lent to its tasks. What is free while no task waits is lent to those that run, as they ask; what
/// they have above one thread they give back, as they ask, when a task waits.
struct Purse {
    state: Mutex<Threads>,
    sender: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct Threads {
    free: usize,
    /// Tasks that could be started if there were threads.
    n_waiting: usize,
}

impl Purse {
    fn state(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Which of the ready tasks are to be started now, each with its share of the free threads.
    fn share_out(&self, ready: &[usize]) -> Vec<(usize, usize)> {
        let mut state = self.state();
        let shares = shares(state.free, ready);
        state.free -= shares.iter().map(|(_, threads)| threads).sum::<usize>();
        state.n_waiting = ready.len() - shares.len();
        shares
    }

    /// How many threads a task may use that has so many: one more or one fewer.
    fn adjust(&self, lent: usize) -> usize {
        let mut state = self.state();
        if state.n_waiting > state.free && lent > 1 {
            state.free += 1;
            // The receiver lives until every running task has ended.
            let _ = self.sender.send(Message::Freed);
            lent - 1
        } else if state.n_waiting < state.free {
            state.free -= 1;
            lent + 1
        } else {
            lent
        }
    }

    fn give_back(&self, lent: usize) {
        self.state().free += lent;
    }
}

/// Free threads, shared out among the ready tasks: one each while there are more tasks than threads, else evenly, the
/// first ones getting what is left over.
fn shares(free: usize, ready: &[usize]) -> Vec<(usize, usize)> {
    let (each, left) = match ready.len() {
        0 => (0, 0),
        n => (free / n, free % n),
    };
    ready.iter().enumerate().map(|(k, &i)| (i, each + usize::from(k < left))).take_while(|(_, n)| *n > 0).collect()
}

/// What all workers share.
struct Workshop<'r> {
    session: &'r Session<'r>,
    graph: &'r Graph,
    clock: &'r Clock,
    options: &'r Options<'r>,
    events: &'r dyn Events,
    warned: Mutex<BTreeSet<String>>,
    purse: Purse,
    executor: &'r dyn Executor,
}

impl Workshop<'_> {
    fn warn(&self, task: Option<&str>, message: &str) {
        // Once for a stage, whichever of its folds says it first.
        let stage = task.and_then(|name| name.split(", ").next()).unwrap_or_default();
        let mut warned = self.warned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if warned.insert(format!("{stage}: {message}")) {
            drop(warned);
            self.events.event(&Event::Warning { task, message });
        }
    }

    fn pass_warnings(&self) {
        for warning in self.session.store.take_warnings() {
            self.warn(None, &warning);
        }
    }

    fn name(&self, task: &PlannedTask) -> String {
        task_name(&self.graph.nodes[task.stage].name, task.part)
    }

    /// Computes one task, unless another run has done it meanwhile.
    fn work(&self, order: &Order) -> (Reply, f64) {
        let start = Instant::now();
        let reply = self.compute(order);
        self.purse.give_back(order.lent.load(Ordering::Relaxed));
        (reply, start.elapsed().as_secs_f64())
    }

    fn compute(&self, order: &Order) -> Reply {
        let (graph, store) = (self.graph, &self.session.store);
        if let Some(trial) = graph.trial(order.task.stage) {
            self.clock.start(trial.search);
        }
        let name = self.name(&order.task);
        let node = &graph.nodes[order.task.stage];
        let label = reason::label(&graph.name, &node.name, order.task.part);
        let mut waiting = |holder: &str| {
            self.events.event(&Event::Waiting { task: &name, holder });
            !self.options.cancel.load(Ordering::Relaxed)
        };
        let locking = Locking { who: &label, limit: self.options.lock_limit, waiting: &mut waiting };
        let Some(_lock) = store.lock(&order.fingerprint, locking) else { return Reply::Cancelled };
        if !order.is_forced {
            match store.find(&order.fingerprint) {
                Ok(Found::Hit(entry)) => return Reply::Found(entry),
                Ok(_) => {}
                Err(error) => return Reply::Failed(Failure::Store(error)),
            }
        }
        let mut inputs = Vec::with_capacity(order.inputs.len());
        for (i, (need, entry)) in order.task.needs.iter().zip(&order.inputs).enumerate() {
            let files = match store.open_artifact(entry) {
                Ok(files) => files,
                Err(error) if is_lost(&error) => return Reply::Lost(i, error),
                Err(error) => return Reply::Failed(Failure::Store(error)),
            };
            let above = &graph.nodes[need.stage];
            inputs.push(Delivered { need: *need, stage_name: above.name.clone(), output: above.flow.output, files });
        }
        self.events.event(&Event::Started { task: &name, reasons: &order.reasons, threads: order.threads });
        let mut draft = match store.draft() {
            Ok(draft) => draft,
            Err(error) => return Reply::Failed(Failure::Store(error)),
        };
        let seed = graph.entries[order.task.stage].seed;
        let job = Job {
            stage: &*node.stage,
            task: Task { part: order.task.part, stage_name: &node.name, seed, inputs },
            places: &graph.places,
        };
        let context = TaskContext { workshop: self, name: &name, order };
        match self.executor.execute(&job, &context, &mut draft) {
            Ok(()) => {}
            Err(JobError::Stage(error)) if error.is_cancelled => return Reply::Cancelled,
            Err(JobError::Stage(error)) => return Reply::Failed(Failure::Stage(error)),
            Err(JobError::Panic(message)) => return Reply::Failed(Failure::Bug(message)),
        }
        match store.publish(draft, &order.task.parts, &label) {
            Ok(published) => {
                store.remove_checkpoint(&order.fingerprint);
                Reply::Computed(published.entry, published.differing)
            }
            Err(error) => Reply::Failed(Failure::Store(error)),
        }
    }
}

/// Whether computing an artifact again helps.
fn is_lost(error: &store::Error) -> bool {
    match error {
        store::Error::Corrupt { .. } => true,
        store::Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// What the runner lends a running task.
struct TaskContext<'r> {
    workshop: &'r Workshop<'r>,
    name: &'r str,
    order: &'r Order,
}

impl Context for TaskContext<'_> {
    fn threads(&self) -> usize {
        self.order.threads
    }

    fn most_threads(&self) -> usize {
        self.workshop.options.threads
    }

    fn threads_now(&self) -> usize {
        let threads = self.workshop.purse.adjust(self.order.lent.load(Ordering::Relaxed));
        self.order.lent.store(threads, Ordering::Relaxed);
        threads
    }

    fn is_cancelled(&self) -> bool {
        self.workshop.options.cancel.load(Ordering::Relaxed)
            || self.workshop.clock.ends(self.workshop.graph, self.order.task.stage)
    }

    fn progress(&self, done: u64, total: u64, unit: &str, note: &str) {
        self.workshop.events.event(&Event::Progress { task: self.name, done, total, unit, note });
    }

    fn warn(&self, message: &str) {
        self.workshop.warn(Some(self.name), message);
    }

    fn load_checkpoint(&self) -> Option<Vec<u8>> {
        // A task that is forced is computed from its start: that is what it is forced for.
        if self.order.is_forced {
            return None;
        }
        self.workshop.session.store.load_checkpoint(&self.order.fingerprint)
    }

    fn save_checkpoint(&self, bytes: &[u8]) {
        if let Err(error) = self.workshop.session.store.save_checkpoint(&self.order.fingerprint, bytes) {
            self.warn(&format!("no checkpoint is kept: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::{Message, Purse, Threads, shares};

    #[test]
    fn idle_threads_are_lent_to_running_tasks_and_come_back_when_others_wait() {
        let (sender, messages) = mpsc::channel();
        let purse = Purse { state: Mutex::new(Threads { free: 4, n_waiting: 0 }), sender };
        assert_eq!(purse.share_out(&[0, 1]), [(0, 2), (1, 2)]);
        assert_eq!(purse.adjust(2), 2, "nothing is free");
        purse.give_back(2);
        assert_eq!((purse.adjust(2), purse.adjust(3), purse.adjust(4)), (3, 4, 4));
        assert_eq!(purse.share_out(&[2]), []);
        assert_eq!((purse.adjust(4), purse.adjust(3)), (3, 3), "one for the task that waits");
        assert!(matches!(messages.try_recv(), Ok(Message::Freed)));
        assert_eq!(purse.share_out(&[2]), [(2, 1)]);
        assert_eq!(purse.share_out(&[3, 4, 5]), []);
        assert_eq!((purse.adjust(3), purse.adjust(2), purse.adjust(1)), (2, 1, 1), "a task keeps one");
    }

    #[test]
    fn threads_are_shared_out() {
        for (free, ready, expected) in [
            (2, vec![], vec![]),
            (2, vec![0], vec![(0, 2)]),
            (2, vec![0, 1, 2], vec![(0, 1), (1, 1)]),
            (7, vec![3, 4, 5], vec![(3, 3), (4, 2), (5, 2)]),
            (0, vec![1], vec![]),
        ] {
            assert_eq!(shares(free, &ready), expected, "{free} among {ready:?}");
        }
    }
}
