//! Progress on stderr: bars on a terminal, calm counter lines elsewhere.
//!
//! Elsewhere (CI, a file) a line comes at most every two seconds and at least every thirty, never with `\r`.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::{DIM, Terminal};
use crate::escape::on_line;

/// Not more often than this, where lines are printed.
const AT_MOST: Duration = Duration::from_secs(2);
/// Not more seldom than this.
const AT_LEAST: Duration = Duration::from_secs(30);

/// How often it is looked whether a line is due that nothing has asked for.
const LOOK: Duration = Duration::from_secs(1);

/// What is going on, for people.
pub struct Progress {
    terminal: Terminal,
    is_quiet: bool,
    bars: MultiProgress,
    state: Arc<Mutex<State>>,
    /// Sees to it that a task that says nothing for long is still seen to be at work. Ends when the sender does.
    clock: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<String, TaskState>,
    last_line: Option<Instant>,
    /// When the last line about trials was printed.
    last_trial: Option<Instant>,
    /// When source files began to be read.
    reading: Option<Instant>,
    /// What is told once.
    told: Vec<String>,
}

struct TaskState {
    started: Instant,
    bar: ProgressBar,
    /// What was last reported, to be printed when a line is due.
    line: String,
}

impl State {
    /// A line for those who have heard nothing for too long: the task that began first.
    fn overdue(&mut self, now: Instant) -> Option<String> {
        let (name, task) = self.tasks.iter().min_by_key(|(_, task)| task.started)?;
        if now - self.last_line.unwrap_or(task.started).max(task.started) < AT_LEAST {
            return None;
        }
        let for_long = crate::report::text::seconds((now - task.started).as_secs_f64());
        let line = match task.line.is_empty() {
            true => format!("{name}: at work for {for_long}"),
            false => format!("{}, at work for {for_long}", task.line),
        };
        self.last_line = Some(now);
        Some(line)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
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
        let target = if terminal.is_interactive && !is_quiet {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        let state: Arc<Mutex<State>> = Arc::default();
        let clock = (!terminal.is_interactive && !is_quiet).then(|| {
            let (sender, ended) = channel();
            let state = Arc::clone(&state);
            let look = move || {
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    let line = state.lock().unwrap_or_else(PoisonError::into_inner).overdue(Instant::now());
                    if let Some(line) = line {
                        terminal.note(&line);
                    }
                }
            };
            (sender, std::thread::spawn(look))
        });
        Progress { terminal, is_quiet, bars, state, clock }
    }

    fn say(&self, line: &str) {
        if self.is_quiet {
            return;
        }
        if self.terminal.is_interactive {
            self.bars.suspend(|| self.terminal.note(line));
        } else {
            self.terminal.note(line);
        }
    }

    /// Source files are being read before anything runs: worth a line only if it takes its time.
    pub fn reading(&self, stage: &str, bytes: u64) {
        let mut state = self.lock();
        let now = Instant::now();
        let started = *state.reading.get_or_insert(now);
        if now - state.last_line.unwrap_or(started) < AT_MOST {
            return;
        }
        state.last_line = Some(now);
        drop(state);
        self.say(&format!("{stage}: reading its files to see what changed, {}", crate::report::text::bytes(bytes)));
    }

    /// A task has begun.
    pub fn begin(&self, task: &str, reason: &str) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{prefix:24} {bar:16} {pos}/{len} {eta:>4}  {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(task.to_owned());
        let line = format!("{task}: {reason}");
        if !self.terminal.is_interactive {
            self.say(&self.terminal.paint(&line, DIM));
        }
        let state = TaskState { started: Instant::now(), bar, line: String::new() };
        self.lock().tasks.insert(task.to_owned(), state);
    }

    /// How far a task is.
    pub fn update(&self, task: &str, done: u64, total: u64, unit: &str, note: &str) {
        let mut state = self.lock();
        let now = Instant::now();
        let since = state.last_line.map_or(AT_LEAST, |last| now - last);
        let Some(entry) = state.tasks.get_mut(task) else { return };
        entry.bar.set_length(total.max(done));
        entry.bar.set_position(done);
        entry.bar.set_message(if note.is_empty() { unit.to_owned() } else { format!("{unit}, {note}") });
        if self.terminal.is_interactive || self.is_quiet {
            return;
        }
        let of = if total > 0 { format!("{done}/{total}") } else { done.to_string() };
        let elapsed = entry.started.elapsed().as_secs_f64();
        let left = if total > done && done > 0 {
            format!(", {} left", crate::report::text::seconds(elapsed / done as f64 * (total - done) as f64))
        } else {
            String::new()
        };
        let note = if note.is_empty() { String::new() } else { format!(", {note}") };
        entry.line = format!("{task}: {of} {unit}{note}{left}");
        if since >= AT_MOST {
            let line = entry.line.clone();
            state.last_line = Some(now);
            drop(state);
            self.say(&line);
        }
    }

    /// A task has ended.
    pub fn end(&self, task: &str, outcome: &str) {
        let ended = self.lock().tasks.remove(task);
        let Some(ended) = ended else { return };
        ended.bar.finish_and_clear();
        self.bars.remove(&ended.bar);
        self.say(&format!(
            "{task}: {outcome} in {}",
            crate::report::text::seconds(ended.started.elapsed().as_secs_f64())
        ));
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
        let is_due = self.terminal.is_interactive || done == total || {
            let mut state = self.lock();
            let now = Instant::now();
            let is_due = state.last_trial.is_none_or(|last| now - last >= AT_MOST);
            if is_due {
                state.last_trial = Some(now);
            }
            is_due
        };
        if is_due {
            self.say(&format!("{search}, round {round} of {of}: {done} of {total} trials{best}"));
        }
    }

    /// A line about what a run has or came to, once per text.
    pub fn tell_once(&self, text: &str) {
        if self.is_new(text) {
            self.say(&on_line(text));
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
        if self.terminal.is_interactive {
            self.bars.suspend(|| self.terminal.warning(text));
        } else {
            self.terminal.warning(text);
        }
    }

    /// A line that is never left out, after a word that is painted: about one of many things that failed.
    pub fn warn_as(&self, word: &str, style: &str, text: &str) {
        let line = format!("{} {}", self.terminal.paint(word, style), on_line(text));
        if self.terminal.is_interactive {
            self.bars.suspend(|| self.terminal.note(&line));
        } else {
            self.terminal.note(&line);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_says_nothing_is_seen_to_be_at_work_every_thirty_seconds() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut state = State::default();
        assert_eq!(state.overdue(after(100)), None);
        let task = TaskState { started: start, bar: ProgressBar::hidden(), line: String::new() };
        state.tasks.insert("cnn, fold 1".to_owned(), task);
        assert_eq!(state.overdue(after(29)), None);
        assert_eq!(state.overdue(after(30)).unwrap(), "cnn, fold 1: at work for 30 s");
        assert_eq!(state.overdue(after(59)), None);
        state.tasks.get_mut("cnn, fold 1").unwrap().line = "cnn, fold 1: 3/40 batches".to_owned();
        assert_eq!(state.overdue(after(60)).unwrap(), "cnn, fold 1: 3/40 batches, at work for 60 s");
    }
}
