//! Progress on stderr: bars on a terminal, calm counter lines elsewhere.
//!
//! Elsewhere (CI, a file) a line comes at most every two seconds and at least every thirty, never with `\r`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::{DIM, Terminal};

/// Not more often than this, where lines are printed.
const AT_MOST: Duration = Duration::from_secs(2);
/// Not more seldom than this.
const AT_LEAST: Duration = Duration::from_secs(30);

/// What is going on, for people.
pub struct Progress {
    terminal: Terminal,
    is_quiet: bool,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<String, TaskState>,
    last_line: Option<Instant>,
    /// When the last line about trials was printed.
    last_trial: Option<Instant>,
    /// When source files began to be read.
    reading: Option<Instant>,
    warned: Vec<String>,
}

struct TaskState {
    started: Instant,
    bar: ProgressBar,
    /// What was last reported, to be printed when a line is due.
    line: String,
    is_printed: bool,
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
        Progress { terminal, is_quiet, bars, state: Mutex::default() }
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
        if let Ok(style) = ProgressStyle::with_template("{prefix:24} {wide_bar} {pos}/{len} {msg} {eta}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(task.to_owned());
        let line = format!("{task}: {reason}");
        if !self.terminal.is_interactive {
            self.say(&self.terminal.paint(&line, DIM));
        }
        let state = TaskState { started: Instant::now(), bar, line: String::new(), is_printed: true };
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
        entry.is_printed = false;
        if since >= AT_MOST {
            entry.is_printed = true;
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

    /// A warning, once per text.
    pub fn warn(&self, text: &str) {
        let mut state = self.lock();
        if state.warned.iter().any(|known| known == text) {
            return;
        }
        state.warned.push(text.to_owned());
        drop(state);
        if self.terminal.is_interactive {
            self.bars.suspend(|| self.terminal.warning(text));
        } else {
            self.terminal.warning(text);
        }
    }

    /// A line that is never left out, after a word that is painted: about one of many things that failed.
    pub fn warn_as(&self, word: &str, style: &str, text: &str) {
        let line = format!("{} {text}", self.terminal.paint(word, style));
        if self.terminal.is_interactive {
            self.bars.suspend(|| self.terminal.note(&line));
        } else {
            self.terminal.note(&line);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
