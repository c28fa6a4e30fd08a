//! `selftest leakage`: rewrites held-out rows and shows that nothing that was learned moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::Exit;
use super::arguments::LeakageArguments;
use super::manifest::{self, run_error, threads};
use super::progress::{Progress, Told};
use super::run::{Watcher, report_failures, stop_on_signals};
use super::terminal::{GREEN, RED, Terminal, YELLOW};
use crate::manifest::Manifest;
use crate::report::text::{self, Align, aligned};
use crate::runner::{Learner, Options, RepeatError, Session, Unmoved};
use crate::store::Access;

/// What came of a task that learns.
struct Row {
    learner: Learner,
    found: Result<Option<Unmoved>, RepeatError>,
}

impl Row {
    /// In a word, for the table and for JSON.
    fn word(&self) -> &'static str {
        match &self.found {
            Err(_) => "failed",
            Ok(None) => "no rows",
            Ok(Some(found)) if !found.moved.is_empty() => "moved",
            Ok(Some(found)) if !found.unreached.is_empty() => "not reached",
            Ok(Some(_)) => "unmoved",
        }
    }

    fn rewritten(&self) -> String {
        let Learner { n_test, n_validation, chosen, .. } = &self.learner;
        let (test, validation) = (text::grouped(*n_test as u64), text::grouped(*n_validation as u64));
        let rows = match (n_test, n_validation) {
            (0, 0) => "none".to_owned(),
            (_, 0) => format!("{test} test"),
            (0, _) => format!("{validation} validation"),
            (..) => format!("{test} test, {validation} validation"),
        };
        match chosen {
            Some(chosen) => format!("{rows}; validation {chosen}"),
            None => rows,
        }
    }

    fn columns(&self, terminal: &Terminal) -> Vec<String> {
        let colour = match self.word() {
            "unmoved" => GREEN,
            "no rows" => YELLOW,
            _ => RED,
        };
        let found = self.found.as_ref().ok().and_then(Option::as_ref);
        let count = |all: usize, bad: usize, good: &str, word: &str| match (all, bad) {
            (0, _) => "-".to_owned(),
            (all, 0) => format!("{all} {good}"),
            (all, bad) => format!("{bad} of {all} {word}"),
        };
        let none = Unmoved::default();
        let Unmoved { fitted, moved, says, unreached } = found.unwrap_or(&none);
        vec![
            terminal.paint_result(self.word(), colour),
            self.learner.name.clone(),
            count(fitted.len(), moved.len(), "unmoved", "moved"),
            count(says.len(), unreached.len(), "changed", "the same"),
            self.rewritten(),
        ]
    }

    fn json(&self) -> Value {
        let Learner { name, n_test, n_validation, chosen, .. } = &self.learner;
        let found = self.found.as_ref().ok().cloned().flatten().unwrap_or_default();
        json!({
            "task": name, "verdict": self.word(), "rewritten": { "test": n_test, "validation": n_validation },
            "chosen_by_validation": chosen, "fitted": found.fitted, "moved": found.moved, "says": found.says,
            "not_reached": found.unreached, "error": self.found.as_ref().err().map(ToString::to_string),
        })
    }
}

/// `selftest leakage`.
pub fn leakage(arguments: &LeakageArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let loaded = manifest::load_without_warnings(&arguments.manifest, terminal)?;
    let Some(manifest) = loaded else { return Ok(Exit::Usage) };
    let places = &arguments.places;
    let opened = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Write);
    let session = match opened {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signals(&cancel)?;
    let n_threads = threads(places);
    // All files of these tasks are read: what is known by its record only is computed again.
    let options = Options {
        targets: Some(session.learning_stages()),
        reads: Some(&|_, _, _| true),
        ..Options::new(n_threads, &cancel)
    };
    let progress = Progress::new(*terminal, arguments.quiet);
    let ran = session.run(&options, &Watcher { progress: &progress });
    let outcome = match ran {
        Ok(outcome) => outcome,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    report_failures(&outcome, &manifest, terminal);
    if !outcome.is_complete() {
        return Ok(if outcome.is_interrupted { Exit::Interrupted } else { Exit::Failed });
    }
    let plan = match session.plan(&options) {
        Ok(plan) => plan,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let mut rows = Vec::new();
    let mut test = match session.leak_test(&plan) {
        Ok(test) => test,
        Err(error) => return Ok(failed(&error, terminal)),
    };
    for i in 0..test.learners().len() {
        let learner = test.learners()[i].clone();
        let name = &learner.name;
        progress.begin(Told { task: name, stage: &learner.stage, is_trial: learner.is_trial }, "");
        let told = |done: u64, total: u64, unit: &str, note: &str| progress.update(name, done, total, unit, note);
        let found = test.check(i, n_threads, &cancel, &told);
        let row = Row { learner: learner.clone(), found };
        progress.end(name, row.word());
        if matches!(row.found, Err(RepeatError::Cancelled)) {
            break;
        }
        rows.push(row);
    }
    progress.finish();
    drop(progress);
    rows.sort_by_key(|row| row.learner.place());
    for warning in session.store.take_warnings() {
        terminal.warning(&warning);
    }
    Ok(told(&manifest, &rows, cancel.load(Ordering::Relaxed), started, arguments.json, terminal))
}

fn failed(error: &RepeatError, terminal: &Terminal) -> Exit {
    terminal.fault(&format!("held-out rows cannot be rewritten: {error}"), None);
    if matches!(error, RepeatError::Store(_) | RepeatError::Unknown) { Exit::Corrupt } else { Exit::Failed }
}

/// Says what came of it all.
fn told(
    manifest: &Manifest,
    rows: &[Row],
    is_interrupted: bool,
    started: Instant,
    is_json: bool,
    terminal: &Terminal,
) -> Exit {
    let count = |word: &str| rows.iter().filter(|row| row.word() == word).count();
    let (n_moved, n_unmoved, n_without) = (count("moved"), count("unmoved"), count("no rows"));
    let mut is_damaged = false;
    for Row { learner, found } in rows {
        let name = &learner.name;
        match found {
            Err(error) => {
                is_damaged |= matches!(error, RepeatError::Store(_) | RepeatError::Unknown);
                terminal.fault(&format!("{name}: cannot be performed on other held-out rows: {error}"), None);
            }
            Ok(found) => {
                let found = found.clone().unwrap_or_default();
                for moved in &found.moved {
                    let first = &moved.first;
                    let message = format!("{name}: `{}` depends on rows that are held out of it: {first}", moved.file);
                    let help =
                        format!("`convoy verify {}` says whether the same rows give the same bytes", learner.stage);
                    terminal.fault(&message, Some(&help));
                }
                for file in &found.unreached {
                    let message = format!("{name}: `{file}` is the same for other held-out rows, so nothing is shown");
                    terminal.fault(&message, Some("a network that says the same of every image cannot be tested so"));
                }
            }
        }
    }
    let exit = if is_interrupted {
        Exit::Interrupted
    } else if n_moved > 0 {
        Exit::NonDeterministic
    } else if is_damaged {
        Exit::Corrupt
    } else if n_unmoved + n_without < rows.len() {
        Exit::Failed
    } else {
        Exit::Done
    };
    if is_json {
        terminal.json(json!({
            "pipeline": manifest.name, "exit_code": exit as u8, "moved": n_moved, "unmoved": n_unmoved,
            "without_rows": n_without, "tasks": rows.iter().map(Row::json).collect::<Vec<_>>(),
        }));
        return exit;
    }
    let mut out = String::new();
    if !rows.is_empty() {
        let header = ["", "task", "fitted files", "predictions", "rows rewritten"];
        let columns: Vec<Vec<String>> = rows.iter().map(|row| row.columns(terminal)).collect();
        out = aligned(&header, &[Align::Left; 5], &columns);
    }
    let seconds = text::seconds(started.elapsed().as_secs_f64());
    let tasks = |n: usize| format!("{n} task{}", if n == 1 { "" } else { "s" });
    let verdict = match (exit, rows.len() - n_without) {
        (Exit::Interrupted, _) => terminal.paint_result("interrupted", RED),
        (Exit::NonDeterministic, n) => {
            terminal.paint_result(&format!("held-out rows moved what {n_moved} of {} learned", tasks(n)), RED)
        }
        (_, 0) => terminal.paint_result("nothing learns from rows while others are held out", YELLOW),
        (Exit::Done, n) => {
            terminal.paint_result(&format!("held-out rows moved nothing that {} learned", tasks(n)), GREEN)
        }
        (_, _) => terminal.paint_result("not shown", RED),
    };
    let without = match n_without {
        0 => String::new(),
        n => format!(
            ", no row is held out of {}",
            if n == rows.len() { "any".to_owned() } else { format!("{n} others") }
        ),
    };
    terminal.result(&format!("{out}{}: {verdict}{without} ({seconds})\n", manifest.name));
    exit
}
