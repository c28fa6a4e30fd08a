//! `run --events FILE`: what goes on as JSON lines, for programs. `docs/events.md` says what each holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Exit;
use crate::artifact::evaluation::GateResult;
use crate::manifest::Manifest;
use crate::report;
use crate::runner::{Ended, Event, Events, Failure, Outcome, Plan, StaleReason, State, task_name};

/// The version of the form of lines; raised when a field changes or goes.
const V: u32 = 1;

/// Not more often than this: a line of progress about one task.
const EACH: Duration = Duration::from_secs(1);

/// A line.
#[derive(serde::Serialize)]
struct Line<'l> {
    v: u32,
    event: &'l str,
    unix_milliseconds: u64,
    #[serde(flatten)]
    fields: &'l Value,
}

/// A file that lines are written to as things happen.
pub struct EventLog {
    state: Mutex<Written>,
}

struct Written {
    file: File,
    /// The first error of writing; nothing is written after it.
    failure: Option<std::io::Error>,
    /// Tasks whose end was told.
    ended: BTreeSet<String>,
    /// When a task's progress was told last.
    progress: BTreeMap<String, Instant>,
}

impl EventLog {
    /// Starts the file anew.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: &Path, manifest: &Manifest) -> std::io::Result<EventLog> {
        let (file, ended, progress) = (File::create(path)?, BTreeSet::new(), BTreeMap::new());
        let log = EventLog { state: Mutex::new(Written { file, failure: None, ended, progress }) };
        log.write(
            "run",
            json!({
                "pipeline": manifest.name, "manifest": crate::manifest::shown_path(&manifest.path),
                "profile": manifest.profile, "overrides": manifest.sets, "convoy": env!("CARGO_PKG_VERSION"),
            }),
        );
        Ok(log)
    }

    /// Why lines are missing, if some are.
    pub fn failure(&self) -> Option<std::io::Error> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failure.take()
    }

    fn write(&self, event: &str, fields: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut bytes =
            serde_json::to_vec(&Line { v: V, event, unix_milliseconds, fields: &fields }).unwrap_or_default();
        bytes.push(b'\n');
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if event == "end"
            && let Some(task) = fields["task"].as_str()
        {
            state.ended.insert(task.to_owned());
        }
        if state.failure.is_none()
            && let Err(error) = state.file.write_all(&bytes)
        {
            state.failure = Some(error);
        }
    }

    /// Whether a task's progress is told again; told once in [`EACH`].
    fn is_due(&self, task: &str) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = state.progress.get(task).is_none_or(|last| last.elapsed() >= EACH);
        if is_due {
            state.progress.insert(task.to_owned(), Instant::now());
        }
        is_due
    }

    /// What is to be done, and why.
    pub fn plan(&self, plan: &Plan) {
        let tasks = plan.tasks.iter().map(|task| {
            let stage = &plan.graph.nodes[task.stage].name;
            let (decision, why) = match &task.state {
                State::Fresh => ("fresh", Vec::new()),
                State::Stale(why) => ("stale", reasons(why)),
                State::Pending { own, .. } => ("pending", reasons(own)),
            };
            json!({
                "task": task_name(stage, task.part), "stage": stage, "part": task.part.to_string(),
                "decision": decision, "reasons": why,
                "key": task.fingerprint.as_ref().map(ToString::to_string),
            })
        });
        self.write("plan", json!({ "tasks": tasks.collect::<Vec<_>>() }));
    }

    /// The ends of tasks that were fresh, and gates.
    pub fn outcome<'g>(&self, outcome: &Outcome, gates: impl Iterator<Item = &'g GateResult>) {
        for task in &outcome.tasks {
            let is_told = self.state.lock().unwrap_or_else(PoisonError::into_inner).ended.contains(&task.name);
            if !is_told {
                let word = word(&task.ended);
                self.write("end", end(&task.name, word, None, &task.ended));
            }
        }
        for gate in gates {
            self.write("gate", serde_json::to_value(gate).unwrap_or_default());
        }
    }

    /// How the run ended; the last line.
    pub fn verdict(&self, exit: Exit, counts: Option<(usize, usize)>, seconds: f64) {
        self.write(
            "verdict",
            json!({
                "exit_code": exit as u8, "passed": exit == Exit::Done,
                "tasks": counts.map(|(tasks, _)| tasks), "computed": counts.map(|(_, computed)| computed),
                "seconds": seconds, "peak_memory_bytes": peak_memory(),
            }),
        );
    }
}

fn reasons(reasons: &[StaleReason]) -> Vec<Value> {
    reasons.iter().map(|reason| json!({ "kind": reason.word(), "text": reason.to_string() })).collect()
}

/// How a task ended, in a word.
fn word(ended: &Ended) -> &'static str {
    match ended {
        Ended::Fresh => "fresh",
        Ended::Found => "found",
        Ended::Computed => "computed",
        Ended::Failed(_) => "failed",
        Ended::Cancelled => "stopped",
        Ended::NotStarted => "not-started",
    }
}

fn end(task: &str, word: &str, seconds: Option<f64>, ended: &Ended) -> Value {
    let error = match ended {
        Ended::Failed(Failure::Stage(error)) => Some(error.message.clone()),
        Ended::Failed(Failure::Bug(message)) => Some(format!("a bug in Convoy: {message}")),
        Ended::Failed(Failure::Store(error)) => Some(error.to_string()),
        _ => None,
    };
    json!({
        "task": task, "outcome": word, "hit": matches!(ended, Ended::Fresh | Ended::Found),
        "seconds": seconds, "error": error, "peak_memory_bytes": peak_memory(),
    })
}

/// The most memory that this process has had so far, where the system tells (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    kibibytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

impl Events for EventLog {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Planned { fresh, tasks } => self.write("pass", json!({ "fresh": fresh, "tasks": tasks })),
            Event::Reading { stage, bytes } => self.write("reading", json!({ "stage": stage, "bytes": bytes })),
            Event::Started { task, stage, is_trial, reasons: why, threads } => self.write(
                "start",
                json!({
                    "task": task, "stage": stage, "is_trial": is_trial, "reasons": reasons(why), "threads": threads,
                }),
            ),
            Event::Progress { task, done, total, unit, note } => {
                if self.is_due(task) {
                    let total = Some(total).filter(|total| **total > 0);
                    let fields = json!({ "task": task, "done": done, "total": total, "unit": unit, "note": note });
                    self.write("progress", fields);
                }
            }
            Event::Waiting { task, holder } => self.write("waiting", json!({ "task": task, "holder": holder })),
            Event::Warning { task, message } => self.write("warning", json!({ "task": task, "message": message })),
            Event::Dataset { stage, summary } => {
                self.write("data", json!({ "stage": stage, "text": report::dataset::line(summary) }));
            }
            Event::Trial { search, round: (round, rounds), done, total, best } => self.write(
                "trial",
                json!({
                    "search": search, "round": round, "rounds": rounds, "done": done, "total": total,
                    "metric": best.map(|(metric, _)| metric), "best": best.map(|(_, value)| value),
                }),
            ),
            Event::Ended { task, ended, seconds } => self.write("end", end(task, word(ended), Some(*seconds), ended)),
        }
    }
}

/// Tells both.
pub struct Both<'e>(pub &'e dyn Events, pub Option<&'e EventLog>);

impl Events for Both<'_> {
    fn event(&self, event: &Event<'_>) {
        self.0.event(event);
        if let Some(log) = self.1 {
            log.event(event);
        }
    }
}
