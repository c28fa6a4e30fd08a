//! Progress on stderr: bars on a terminal, calm lines elsewhere.
//!
//! Lines take turns: one in two seconds at most, wherever they are printed. Tasks that ended before their turn came are told
//! together; elsewhere than on a terminal (CI, a file) a task that takes long is told when it starts, once in thirty seconds
//! while it runs, and when it ends, with its last figures. Never with `\r`. Warnings do not wait.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::Terminal;
use crate::escape::on_line;
use crate::report::text::{self, numbered};

/// Not more often than this: any line.
const TURN: Duration = Duration::from_secs(2);
/// Not more often than this, and not more seldom: a line about one task that runs, or about one search.
const EACH: Duration = Duration::from_secs(30);
/// So many lines wait for their turn; more are told in one.
const MOST_WAITING: usize = 3;
/// How often it is looked whether a line is due that nothing has asked for.
const LOOK: Duration = Duration::from_millis(500);

/// What is going on, for people.
pub struct Progress {
    screen: Screen,
    is_quiet: bool,
    state: Arc<Mutex<State>>,
    /// Prints lines when their turn comes, though nothing happens. Ends when the sender does.
    clock: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Where lines are printed, above the bars.
#[derive(Clone)]
struct Screen {
    terminal: Terminal,
    bars: MultiProgress,
}

impl Screen {
    fn print(&self, line: &str) {
        if self.terminal.is_interactive {
            self.bars.suspend(|| self.terminal.note(line));
        } else {
            self.terminal.note(line);
        }
    }
}

/// A task as people are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// `cnn, fold 3`.
    pub task: &'a str,
    /// Its stage.
    pub stage: &'a str,
    /// Whether it is a trial's: the search tells of those.
    pub is_trial: bool,
}

#[derive(Default)]
struct State {
    /// Those that run.
    tasks: BTreeMap<String, Running>,
    /// Tasks that ended and of which nothing was told yet, by stage and outcome, in the order in which they ended.
    ended: Vec<Group>,
    /// Lines that wait for their turn.
    waiting: VecDeque<String>,
    /// By search: how far it is, and when that was last told.
    searches: BTreeMap<String, (Option<String>, Option<Instant>)>,
    last_line: Option<Instant>,
    /// When source files began to be read.
    reading: Option<Instant>,
    /// What is told once.
    told: Vec<String>,
    /// Whether bars tell what runs.
    has_bars: bool,
}

struct Running {
    stage: String,
    is_trial: bool,
    started: Instant,
    /// Why it runs, in brackets; empty where it is the first time.
    why: String,
    bar: ProgressBar,
    /// What was first reported and when: what is left is reckoned from there, since a task that goes on where it was stopped
    /// has not done its first part now.
    first: Option<(u64, Instant)>,
    /// What was last reported, to be printed when a line is due.
    line: String,
    /// The figures of that.
    note: String,
    /// When it was last told of; `None`: not yet.
    told: Option<Instant>,
}

struct Group {
    stage: String,
    outcome: String,
    names: Vec<String>,
    first: Instant,
    last: Instant,
}

impl State {
    /// The line whose turn it is, if it is one's.
    fn next(&mut self, now: Instant) -> Option<String> {
        if self.last_line.is_some_and(|last| now - last < TURN) {
            return None;
        }
        let line = self.ended_line().or_else(|| self.waiting.pop_front());
        let line = line.or_else(|| self.search_line(now)).or_else(|| self.task_line(now))?;
        self.last_line = Some(now);
        Some(line)
    }

    /// `ingest, split, preprocess (fold 1..5): done in 0.4 s`.
    fn ended_line(&mut self) -> Option<String> {
        let mut pieces: Vec<String> = Vec::new();
        let mut groups = std::mem::take(&mut self.ended);
        while let Some(outcome) = groups.first().map(|group| group.outcome.clone()) {
            let (own, others): (Vec<Group>, Vec<Group>) =
                groups.into_iter().partition(|group| group.outcome == outcome);
            groups = others;
            let names: Vec<String> = own.iter().map(|group| brief(&group.stage, &group.names)).collect();
            let (first, last) = (own.iter().map(|g| g.first).min()?, own.iter().map(|g| g.last).max()?);
            pieces.push(format!("{}: {outcome} in {}", names.join(", "), text::seconds((last - first).as_secs_f64())));
        }
        (!pieces.is_empty()).then(|| pieces.join("; "))
    }

    fn search_line(&mut self, now: Instant) -> Option<String> {
        let is_due = |told: &Option<Instant>| told.is_none_or(|told| now - told >= EACH);
        let (line, told) = self.searches.values_mut().find(|(line, told)| line.is_some() && is_due(told))?;
        *told = Some(now);
        line.take()
    }

    /// A line about what runs: first what nothing was told of, then what nothing was told of for long.
    fn task_line(&mut self, now: Instant) -> Option<String> {
        if self.has_bars {
            return None;
        }
        let new = |task: &Running| task.told.is_none() && !task.is_trial;
        if let Some((stage, why)) = self
            .tasks
            .values()
            .filter(|task| new(task))
            .min_by_key(|task| task.started)
            .map(|task| (task.stage.clone(), task.why.clone()))
        {
            let mut names = Vec::new();
            for (name, task) in &mut self.tasks {
                if new(task) && task.stage == stage && task.why == why {
                    task.told = Some(now);
                    names.push(name.clone());
                }
            }
            let name = if names.len() == 1 { names.remove(0) } else { brief(&stage, &names) };
            return Some(format!("{name}: starting{why}"));
        }
        let since = |task: &Running| task.told.unwrap_or(task.started);
        let (name, task) = self.tasks.iter_mut().min_by_key(|(_, task)| since(task))?;
        if now - since(task) < EACH {
            return None;
        }
        task.told = Some(now);
        let for_long = text::seconds((now - task.started).as_secs_f64());
        Some(match task.line.is_empty() {
            true => format!("{name}: at work for {for_long}"),
            false => task.line.clone(),
        })
    }

    /// Every line that waits, when there is nothing to wait for any more.
    fn rest(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = self.ended_line().into_iter().collect();
        lines.extend(self.waiting.drain(..));
        lines
    }

    fn ended(&mut self, name: &str, task: Running, outcome: &str, now: Instant) {
        // One that was told when it started and was short nevertheless is told with the others; so are those that end faster
        // than lines have their turns.
        let was_told = task.told.is_some() || self.has_bars && !task.is_trial;
        if was_told && now - task.started >= TURN && self.waiting.len() < MOST_WAITING {
            let mut line = format!("{name}: {outcome} in {}", text::seconds((now - task.started).as_secs_f64()));
            if !task.note.is_empty() {
                let _ = write!(line, ", {}", task.note);
            }
            self.waiting.push_back(line);
        } else if !task.is_trial || task.told.is_some() {
            let known = self.ended.iter_mut().find(|group| group.stage == task.stage && group.outcome == outcome);
            match known {
                Some(group) => {
                    group.names.push(name.to_owned());
                    group.first = group.first.min(task.started);
                    group.last = now;
                }
                None => self.ended.push(Group {
                    stage: task.stage,
                    outcome: outcome.to_owned(),
                    names: vec![name.to_owned()],
                    first: task.started,
                    last: now,
                }),
            }
        }
    }
}

/// `ingest`, `train (sanity)`, `preprocess (fold 1..5)`, `dense (fold 1..4, all)`.
fn brief(stage: &str, names: &[String]) -> String {
    let parts: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(stage)?.strip_prefix(", ")).collect();
    let mut folds: Vec<u32> = parts.iter().filter_map(|part| part.strip_prefix("fold ")?.parse().ok()).collect();
    folds.sort_unstable();
    let others = parts.iter().filter(|part| !part.starts_with("fold ")).map(|part| (*part).to_owned());
    let mut shown: Vec<String> = numbered("fold", &folds).into_iter().chain(others).collect();
    if !shown.is_empty() && names.iter().any(|name| name == stage) {
        shown.insert(0, "whole".to_owned());
    }
    if shown.is_empty() { stage.to_owned() } else { format!("{stage} ({})", shown.join(", ")) }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
        if let Some((sender, thread)) = self.clock.take() {
            drop(sender);
            // It only prints; what it did not get to print is no loss.
            let _ = thread.join();
        }
    }
}

impl Progress {
    /// Progress on this terminal; a quiet one only passes warnings on.
    pub fn new(terminal: Terminal, is_quiet: bool) -> Progress {
        let has_bars = terminal.is_interactive && !is_quiet;
        let target = if has_bars { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let screen = Screen { terminal, bars: MultiProgress::with_draw_target(target) };
        let state = Arc::new(Mutex::new(State { has_bars, ..State::default() }));
        let clock = (!is_quiet).then(|| {
            let (sender, ended) = channel();
            let (state, screen) = (Arc::clone(&state), screen.clone());
            let look = move || {
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    let line = state.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
                    if let Some(line) = line {
                        screen.print(&line);
                    }
                }
            };
            (sender, std::thread::spawn(look))
        });
        Progress { screen, is_quiet, state, clock }
    }

    /// Prints a line if it is one's turn.
    fn take_turn(&self, mut state: std::sync::MutexGuard<'_, State>) {
        if self.is_quiet {
            return;
        }
        let line = state.next(Instant::now());
        drop(state);
        if let Some(line) = line {
            self.screen.print(&line);
        }
    }

    /// Prints what still waits for its turn.
    pub fn finish(&self) {
        let lines = self.lock().rest();
        if !self.is_quiet {
            lines.iter().for_each(|line| self.screen.print(line));
        }
    }

    /// Source files are being read before anything runs: worth a line only if it takes its time.
    pub fn reading(&self, stage: &str, bytes: u64) {
        let mut state = self.lock();
        let now = Instant::now();
        let started = *state.reading.get_or_insert(now);
        if self.is_quiet || now - state.last_line.unwrap_or(started) < TURN {
            return;
        }
        state.last_line = Some(now);
        drop(state);
        self.screen.print(&format!("{stage}: reading its files to see what changed, {}", text::bytes(bytes)));
    }

    /// A task has begun; `why` is empty where that needs no reason.
    pub fn begin(&self, told: Told<'_>, why: &str) {
        let bar = self.screen.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{prefix:24} {bar:16} {pos}/{len} {eta:>4}  {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(on_line(told.task).into_owned());
        let mut state = self.lock();
        let task = Running {
            stage: told.stage.to_owned(),
            is_trial: told.is_trial,
            started: Instant::now(),
            why: if why.is_empty() { String::new() } else { format!(" ({why})") },
            bar,
            first: None,
            line: String::new(),
            note: String::new(),
            told: None,
        };
        state.tasks.insert(told.task.to_owned(), task);
        self.take_turn(state);
    }

    /// How far a task is.
    pub fn update(&self, task: &str, done: u64, total: u64, unit: &str, note: &str) {
        let mut state = self.lock();
        let now = Instant::now();
        let Some(entry) = state.tasks.get_mut(task) else { return };
        entry.bar.set_length(total.max(done));
        entry.bar.set_position(done);
        entry.bar.set_message(if note.is_empty() { unit.to_owned() } else { format!("{unit}, {note}") });
        if entry.first.is_none() {
            entry.bar.reset_eta();
        }
        let (first_done, first) = *entry.first.get_or_insert((done, now));
        let of = if total > 0 { format!("{done}/{total}") } else { done.to_string() };
        let left = match seconds_left((done.saturating_sub(first_done), total.saturating_sub(done)), now - first) {
            Some(left) => format!(", {} left", text::seconds(left)),
            None => String::new(),
        };
        entry.note = note.to_owned();
        let note = if note.is_empty() { String::new() } else { format!(", {note}") };
        entry.line = format!("{task}: {of} {unit}{note}{left}");
        self.take_turn(state);
    }

    /// A task has ended.
    pub fn end(&self, task: &str, outcome: &str) {
        let mut state = self.lock();
        let Some(ended) = state.tasks.remove(task) else { return };
        ended.bar.finish_and_clear();
        self.screen.bars.remove(&ended.bar);
        state.ended(task, ended, outcome, Instant::now());
        self.take_turn(state);
    }

    /// The only task has ended: what it came to.
    pub fn close(&self, task: &str, outcome: &str) {
        let ended = self.lock().tasks.remove(task);
        let Some(ended) = ended else { return };
        ended.bar.finish_and_clear();
        if !self.is_quiet {
            let seconds = text::seconds(ended.started.elapsed().as_secs_f64());
            self.screen.print(&format!("{task}: {outcome} in {seconds}"));
        }
    }

    /// How far a round of a search is, and its best trial so far.
    pub fn trial(
        &self,
        search: &str,
        (round, of): (u32, usize),
        (done, total): (usize, usize),
        best: Option<(&str, f64)>,
    ) {
        let best = best.map(|(metric, value)| format!(", best {metric} so far {value:.4}")).unwrap_or_default();
        let line = format!("{search}, round {round} of {of}: {done} of {total} trials{best}");
        let mut state = self.lock();
        let entry = state.searches.entry(search.to_owned()).or_default();
        if done == total {
            entry.0 = None;
            state.waiting.push_back(line);
        } else {
            entry.0 = Some(line);
        }
        self.take_turn(state);
    }

    /// A line about what a run has or came to, once per text.
    pub fn tell_once(&self, text: &str) {
        if self.is_new(text) && !self.is_quiet {
            self.screen.print(&on_line(text));
        }
    }

    /// Whether this text has not been told yet; it has been, then.
    fn is_new(&self, text: &str) -> bool {
        let told = &mut self.lock().told;
        let is_new = !told.iter().any(|known| known == text);
        if is_new {
            told.push(text.to_owned());
        }
        is_new
    }

    /// A warning, once per text.
    pub fn warn(&self, text: &str) {
        if !self.is_new(text) {
            return;
        }
        self.warn_as("warning:", super::terminal::YELLOW, text);
    }

    /// A line that is never left out, after a word that is painted: about one of many things that failed.
    pub fn warn_as(&self, word: &str, style: &str, text: &str) {
        self.screen.print(&format!("{} {}", self.screen.terminal.paint(word, style), on_line(text)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the rest will take, in seconds, if it goes on as it went since somebody looked: of so many pieces, `(done since then,
/// left)`.
fn seconds_left((done, left): (u64, u64), since: Duration) -> Option<f64> {
    (done > 0 && left > 0).then(|| since.as_secs_f64() / done as f64 * left as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(stage: &str, started: Instant) -> Running {
        Running {
            stage: stage.to_owned(),
            is_trial: false,
            started,
            why: String::new(),
            bar: ProgressBar::hidden(),
            first: None,
            line: String::new(),
            note: String::new(),
            told: None,
        }
    }

    #[test]
    fn short_tasks_are_told_together_and_long_ones_each_thirty_seconds() {
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut state = State::default();
        assert_eq!(state.next(after(0.0)), None);
        state.tasks.insert("ingest".to_owned(), running("ingest", start));
        assert_eq!(state.next(after(0.0)).as_deref(), Some("ingest: starting"));
        let ingest = state.tasks.remove("ingest").unwrap();
        state.ended("ingest", ingest, "done", after(0.5));
        for fold in [2, 1, 3] {
            state.ended(&format!("pre, fold {fold}"), running("pre", after(0.5)), "done", after(0.7));
        }
        state.ended("cnn, sanity", running("cnn", after(0.7)), "done", after(0.9));
        for (name, fold) in [("cnn, fold 1", 0.9), ("cnn, fold 2", 1.0)] {
            state.tasks.insert(name.to_owned(), running("cnn", after(fold)));
        }
        assert_eq!(state.next(after(1.9)), None, "one line in two seconds");
        assert_eq!(state.next(after(2.0)).as_deref(), Some("ingest, pre (fold 1..3), cnn (sanity): done in 0.9 s"));
        assert_eq!(state.next(after(3.9)), None);
        assert_eq!(state.next(after(4.0)).as_deref(), Some("cnn (fold 1..2): starting"));
        assert_eq!(state.next(after(33.9)), None);
        assert_eq!(state.next(after(34.0)).as_deref(), Some("cnn, fold 1: at work for 33 s"));
        state.tasks.get_mut("cnn, fold 2").unwrap().line = "cnn, fold 2: 3/40 batches".to_owned();
        assert_eq!(state.next(after(36.0)).as_deref(), Some("cnn, fold 2: 3/40 batches"));
        assert_eq!(state.next(after(63.9)), None);
        state.tasks.get_mut("cnn, fold 2").unwrap().note = "epoch 5/5, loss 0.1".to_owned();
        let ended = state.tasks.remove("cnn, fold 2").unwrap();
        state.ended("cnn, fold 2", ended, "done", after(63.9));
        assert_eq!(state.rest(), ["cnn, fold 2: done in 63 s, epoch 5/5, loss 0.1"]);
    }

    #[test]
    fn what_is_left_after_a_resume_is_reckoned_from_there() {
        // 500 of 1,000 were done before; 10 in the first second since.
        assert_eq!(seconds_left((0, 500), Duration::from_secs(0)), None);
        assert_eq!(seconds_left((10, 490), Duration::from_secs(1)), Some(49.0));
        assert_eq!(seconds_left((20, 480), Duration::from_secs(2)), Some(48.0));
        assert_eq!(seconds_left((500, 0), Duration::from_secs(50)), None);
    }

    #[test]
    fn parts_of_a_stage_are_told_in_brief() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(brief("a", &names(&["a"])), "a");
        assert_eq!(brief("a", &names(&["a, fold 3", "a, fold 1", "a, all"])), "a (fold 1 3, all)");
        assert_eq!(brief("a", &names(&["a, fold 2", "a, fold 10", "a, fold 3"])), "a (fold 2 3 10)");
        assert_eq!(brief("a", &names(&["a", "a, pictures"])), "a (whole, pictures)");
    }
}
