//! `run`: what is stale is computed, then the reports are written and the results printed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::arguments::{PlaceArguments, RunArguments};
use super::progress::Progress;
use super::terminal::{GREEN, RED, Terminal};
use super::{Exit, check, results};
use crate::artifact::Files;
use crate::config::{Problem, Span};
use crate::manifest::Manifest;
use crate::report::{self, Finished};
use crate::runner::{
    Difference, Ended, Event, Events, Failure, LockFile, Options, Outcome, RunError, Session, StaleReason, variant_name,
};
use crate::stages::StageError;
use crate::store::Access;

/// `run`.
pub fn run(arguments: &RunArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let Some(manifest) = check::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let places = &arguments.places;
    let access = if arguments.dry_run { Access::Look } else { Access::Write };
    let session = match Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), access) {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let mut options = Options::new(threads(places), &cancel);
    for name in &arguments.force {
        let Some(stage) = manifest.stage(name) else {
            terminal.note(&unknown_stage(&manifest, name, terminal));
            return Ok(Exit::Usage);
        };
        options.force.insert(stage);
    }
    if arguments.dry_run {
        return match session.plan(&options) {
            Ok(plan) => {
                terminal.result(&super::status::render(&plan, arguments.json));
                Ok(Exit::Done)
            }
            Err(error) => Ok(run_error(&error, &manifest, terminal)),
        };
    }
    stop_on_signals(&cancel)?;
    let progress = Progress::new(*terminal, arguments.quiet);
    let outcome = match session.run(&options, &Watcher { progress: &progress }) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    for warning in session.store.take_warnings() {
        terminal.warning(&warning);
    }
    report_failures(&outcome, &manifest, terminal);
    let is_complete = outcome.is_complete();
    let artifacts = open_artifacts(&outcome, &session)?;
    let finished: Vec<Finished<'_>> = artifacts
        .iter()
        .map(|(stage, part, files)| {
            let graph = &outcome.graph;
            let own = graph.trial(*stage).map_or(*stage, |trial| trial.of);
            let (stage_name, kind) = (&graph.nodes[own].name, graph.nodes[*stage].stage.kind());
            Finished { stage: stage_name, kind, part: *part, trial: graph.trial_name(*stage), files }
        })
        .collect();
    let out_dir = session.store.base().join("out").join(variant_name(&manifest));
    if !is_complete {
        return Ok(if outcome.is_interrupted {
            terminal.note("interrupted; what was finished is kept, run again to go on");
            Exit::Interrupted
        } else {
            Exit::Failed
        });
    }
    let mut exit = Exit::Done;
    for (name, bytes) in report::tables(&finished) {
        report::replace(&out_dir.join(name), &bytes)?;
    }
    write_times(&out_dir, &manifest, &outcome, &options, started)?;
    if outcome.tasks.iter().any(|task| !task.differing.is_empty()) {
        for task in outcome.tasks.iter().filter(|task| !task.differing.is_empty()) {
            let files = task.differing.join("`, `");
            terminal.note(&format!(
                "{} {}: the same inputs gave other bytes in `{files}`",
                terminal.paint("error:", RED),
                task.name
            ));
        }
        exit = Exit::NonDeterministic;
    }
    let results = results::Results::of(&finished)?;
    let has_failed_search = tell_truncated(&outcome, terminal);
    if exit == Exit::Done
        && outcome.truncated.is_empty()
        && let Some(lock) = outcome.lock_file()
    {
        exit = keep_lock(lock, &results, &session, &manifest, arguments.locked, terminal)?;
    }
    if arguments.json {
        terminal
            .result(&format!("{}\n", results.json(&manifest.name, outcome.computed().count(), outcome.tasks.len())));
    } else {
        let n_computed = outcome.computed().count();
        let seconds = report::text::seconds(started.elapsed().as_secs_f64());
        let shown = crate::manifest::shown_path(&out_dir);
        if n_computed == 0 {
            terminal.note(&format!(
                "{}: nothing to do, {} tasks are fresh ({seconds})",
                manifest.name,
                outcome.tasks.len()
            ));
        } else {
            terminal.note(&format!(
                "{}: {n_computed} of {} tasks computed in {seconds}",
                manifest.name,
                outcome.tasks.len()
            ));
        }
        terminal.result(&results.text(terminal));
        terminal.note(&format!("reports: {}", terminal.paint(&format!("{shown}/"), GREEN)));
    }
    if exit == Exit::Done && has_failed_search {
        exit = Exit::Failed;
    }
    if exit == Exit::Done && results.has_failed_gate() {
        exit = Exit::Gate;
    }
    Ok(exit)
}

/// Says which searches reached their time limit; whether one of them is not to.
fn tell_truncated(outcome: &Outcome, terminal: &Terminal) -> bool {
    let mut has_failed = false;
    for &search in &outcome.truncated {
        let node = &outcome.graph.nodes[search];
        let Some(stage) = node.stage.search() else { continue };
        let rounds = &stage.placement().rounds;
        let n_trials = rounds.iter().flat_map(|r| &r.trials).filter(|(trial, _)| trial.origin.is_none()).count();
        let wanted: u32 = stage.rounds().iter().map(|round| round.trials).sum();
        let message = format!("`{}` reached its time limit: {n_trials} of {wanted} trials, no lock file", node.name);
        if stage.is_limit_accepted() {
            terminal.warning(&message);
        } else {
            has_failed = true;
            terminal.note(&format!("{} {message}", terminal.paint("error:", RED)));
            terminal.note("  help: run again to go on, or set `on_time_limit = \"accept\"`");
        }
    }
    has_failed
}

/// Threads that a verb may use: what was asked for, else one per processor.
pub fn threads(places: &PlaceArguments) -> usize {
    places.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from)
}

/// `error: unknown stage …`, with "did you mean".
pub fn unknown_stage(manifest: &Manifest, name: &str, terminal: &Terminal) -> String {
    let names = manifest.nodes.iter().map(|node| node.name.as_str());
    let help = crate::config::did_you_mean(name, names.clone())
        .unwrap_or_else(|| format!("the stages are `{}`", names.collect::<Vec<_>>().join("`, `")));
    format!("{} unknown stage `{name}`\n  help: {help}", terminal.paint("error:", RED))
}

/// Prints why nothing could be planned or run, with the manifest's line where a key is to blame.
pub fn run_error(error: &RunError, manifest: &Manifest, terminal: &Terminal) -> Exit {
    match error {
        RunError::Stage { stage, error } => {
            stage_error(&format!("stage `{stage}`"), error, manifest.stage(stage), manifest, terminal);
        }
        RunError::NameTaken { .. } => {
            terminal.note(&format!("{} {error}", terminal.paint("error:", RED)));
            terminal.note("  help: give this manifest another `name`: lock file and reports are named after it");
            return Exit::Usage;
        }
        RunError::Store(error) => {
            terminal.note(&format!("{} {error}", terminal.paint("error:", RED)));
            if let Some(help) = error.help() {
                terminal.note(&format!("  help: {help}"));
            }
        }
    }
    Exit::Failed
}

fn stage_error(who: &str, error: &StageError, stage: Option<usize>, manifest: &Manifest, terminal: &Terminal) {
    let span = match (stage, &error.key) {
        (Some(stage), Some(key)) => Some(manifest.span_of(stage, key)),
        _ => None,
    };
    stage_error_at(who, error, span, manifest, terminal);
}

fn stage_error_at(who: &str, error: &StageError, span: Option<Span>, manifest: &Manifest, terminal: &Terminal) {
    let message = format!("{who}: {}", error.message);
    match span {
        Some(span) if span != Span::default() => {
            let problem = Problem { help: error.help.clone(), ..Problem::error(span, message) };
            terminal.page(&manifest.texts.render(&problem, terminal.has_colour));
        }
        _ => terminal.fault(&message, error.help.as_deref()),
    }
}

/// Prints why tasks failed.
pub fn report_failures(outcome: &Outcome, manifest: &Manifest, terminal: &Terminal) {
    for (task, failure) in outcome.failures() {
        match failure {
            Failure::Stage(error) => {
                let span = match &error.key {
                    Some(key) if task.stage < manifest.nodes.len() => manifest.span_of(task.stage, key),
                    // A key that a trial has is the manifest's, or a range of the search.
                    Some(key) => outcome.graph.span_of(task.stage, key).unwrap_or_default(),
                    None => Span::default(),
                };
                let span = if span == Span::default() { outcome.graph.entries[task.stage].header } else { span };
                stage_error_at(&format!("stage `{}`", task.name), error, Some(span), manifest, terminal);
            }
            Failure::Bug(message) => terminal.note(&format!(
                "{} stage `{}`: a bug in Convoy: {message}\n  help: please report it with the manifest and `convoy doctor`",
                terminal.paint("error:", RED),
                task.name
            )),
            Failure::Store(error) => terminal.fault(&format!("stage `{}`: {error}", task.name), error.help().as_deref()),
        }
    }
}

type Artifact = (usize, crate::stages::Part, Files);

fn open_artifacts(outcome: &Outcome, session: &Session<'_>) -> anyhow::Result<Vec<Artifact>> {
    let mut artifacts = Vec::new();
    for task in &outcome.tasks {
        if let Some(files) = outcome.files(&session.store, task.stage, task.part) {
            artifacts.push((task.stage, task.part, files?));
        }
    }
    Ok(artifacts)
}

/// Ctrl-C and SIGTERM ask for a stop; a second one ends the process at once. A file that grows over a limit is an error,
/// not a signal.
pub fn stop_on_signals(cancel: &Arc<AtomicBool>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(cancel))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(cancel)))
            .context("cannot install a signal handler")?;
    }
    Ok(())
}

/// Writes `timings.csv` and `run.json`: the only files that hold times.
fn write_times(
    out_dir: &Path,
    manifest: &Manifest,
    outcome: &Outcome,
    options: &Options<'_>,
    started: Instant,
) -> anyhow::Result<()> {
    let mut table = crate::artifact::table::Table::new(&["stage", "part", "outcome", "seconds"]);
    for task in &outcome.tasks {
        let part = task.part.to_string();
        let (word, seconds) = match task.ended {
            Ended::Computed => ("computed", Some(task.seconds)),
            Ended::Found => ("found", None),
            _ => ("fresh", None),
        };
        table.row(&[(&outcome.graph.nodes[task.stage].name).into(), part.as_str().into(), word.into(), seconds.into()]);
    }
    report::replace(&out_dir.join("timings.csv"), &table.into_bytes())?;
    let finished = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let run = serde_json::json!({
        "convoy": env!("CARGO_PKG_VERSION"),
        "pipeline": manifest.name,
        "finished_unix_seconds": finished,
        "seconds": started.elapsed().as_secs_f64(),
        "threads": options.threads,
        "isa": crate::engine::Isa::detect().name(),
        "tasks": outcome.tasks.len(),
        "computed": outcome.computed().count(),
        "truncated": !outcome.truncated.is_empty(),
    });
    report::replace(&out_dir.join("run.json"), format!("{run:#}\n").as_bytes())?;
    Ok(())
}

/// Writes the lock file, or with `--locked` compares it.
fn keep_lock(
    mut lock: LockFile,
    results: &results::Results,
    session: &Session<'_>,
    manifest: &Manifest,
    is_locked: bool,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    lock.metrics = results.headline();
    let path: &PathBuf = &session.graph.lock_path;
    if is_locked {
        let shown = crate::manifest::shown_path(path);
        let differences: Vec<Difference> = match LockFile::read(path) {
            Ok(Some(old)) => old.compare(&lock),
            Ok(None) => {
                terminal.note(&format!("{} there is no lock file `{shown}`", terminal.paint("error:", RED)));
                return Ok(Exit::Stale);
            }
            Err(message) => {
                terminal.note(&format!("{} {message}", terminal.paint("error:", RED)));
                return Ok(Exit::Stale);
            }
        };
        for difference in &differences {
            terminal.note(&format!("{shown}: {difference}"));
        }
        return Ok(if differences.is_empty() { Exit::Done } else { Exit::Stale });
    }
    if !manifest.has_sets {
        lock.write(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(Exit::Done)
}

/// Tells a person what the runner tells.
pub struct Watcher<'a> {
    /// Where it is told.
    pub progress: &'a Progress,
}

impl Events for Watcher<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Planned(_) => {}
            Event::Reading { stage, bytes } => self.progress.reading(stage, *bytes),
            Event::Started { task, reasons, .. } => self.progress.begin(task, &summary(reasons)),
            Event::Progress { task, done, total, unit, note } => self.progress.update(task, *done, *total, unit, note),
            Event::Waiting { task, holder } => self.progress.warn(&format!("{task}: waits for {holder}")),
            Event::Warning { task: Some(task), message } => self.progress.warn(&format!("{task}: {message}")),
            Event::Warning { task: None, message } => self.progress.warn(message),
            Event::Trial { search, round: (round, of), done, total, best } => {
                self.progress.trial(search, (*round, *of), (*done, *total), *best);
            }
            Event::Ended { task, ended, .. } => match ended {
                Ended::Computed => self.progress.end(task, "done"),
                Ended::Found => self.progress.end(task, "found"),
                Ended::Failed(_) => self.progress.end(task, "failed"),
                Ended::Cancelled => self.progress.end(task, "stopped"),
                Ended::Fresh | Ended::NotStarted => {}
            },
        }
    }
}

fn summary(reasons: &[StaleReason]) -> String {
    let mut texts: BTreeSet<String> = BTreeSet::new();
    texts.extend(reasons.iter().map(ToString::to_string));
    match texts.len() {
        0 => "to be computed".to_owned(),
        1..=3 => texts.into_iter().collect::<Vec<_>>().join("; "),
        n => format!("{} and {} more reasons", texts.into_iter().take(2).collect::<Vec<_>>().join("; "), n - 2),
    }
}
