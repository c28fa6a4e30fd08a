//! `run`: what is stale is computed, then the reports are written and the results printed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;

use super::arguments::RunArguments;
use super::event_log::Both;
use super::history::RunRecord;
use super::job::{self, Job};
use super::manifest::{fault_at, json_error, run_error, threads, unknown_stage};
use super::progress::{Progress, Told};
use super::terminal::{GREEN, Terminal};
use super::{Exit, gates, locked, manifest, results, status};
use crate::artifact::Files;
use crate::config::{Problem, Span};
use crate::data::catalogue;
use crate::files;
use crate::manifest::{Combination, Diagnostics, Manifest, stage_name, variant_of};
use crate::report::matrix;
use crate::report::outputs::{self, Noted};
use crate::report::summary::{Against, Key, Origin, Report, metrics_json};
use crate::report::text::counted;
use crate::report::{self, Finished};
use crate::runner::{
    Ended, Event, Events, Failure, LockFile, Lost, Options, Outcome, Session, StaleReason, TaskOutcome, compared_lock,
    variant_name,
};
use crate::stages::{Glance, Part, Source};
use crate::store::{Access, Digest};

/// `run`.
pub fn run(arguments: &RunArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let mut job = Job::new(arguments);
    let ran = run_job(arguments, &mut job, terminal);
    if arguments.dry_run {
        return ran;
    }
    let exit = ran.unwrap_or_else(|error| {
        terminal.error(&error);
        Exit::Failed
    });
    let exit = job.finish(exit, terminal);
    Ok(job.end(exit, terminal))
}

fn run_job(arguments: &RunArguments, job: &mut Job<'_>, terminal: &Terminal) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let mut wanted = arguments.manifest.clone();
    wanted.sets.extend(arguments.repeats.map(|n| format!("repeats={n}")));
    let Some(manifest) = manifest::load(&wanted, terminal)? else { return Ok(Exit::Usage) };
    job.begin(&manifest)?;
    let places = &arguments.places;
    let access = if arguments.dry_run { Access::Look } else { Access::Write };
    let session = match Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), access) {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let mut options = Options::new(threads(places), &cancel);
    for name in arguments.force.iter().chain(&arguments.to) {
        if manifest.stage(name).is_none() {
            unknown_stage(&manifest, name, terminal);
            return Ok(Exit::Usage);
        }
    }
    options.force.extend(arguments.force.iter().flat_map(|name| manifest.stages_called(name)));
    options.targets = arguments.to.as_ref().map(|name| manifest.stages_called(name));
    options.jobs = arguments.jobs.map(usize::from);
    options.memory = arguments.memory;
    options.deadline = arguments.time_limit.map(|seconds| started + Duration::from_secs(seconds));
    let refused: Mutex<Vec<Problem>> = Mutex::default();
    let admits = |stage: usize, files: &Files| {
        let wrong = Glance::of_dataset(files).map(|glance| manifest.refused_gates(stage, &glance)).unwrap_or_default();
        let is_well = wrong.is_empty();
        refused.lock().unwrap_or_else(PoisonError::into_inner).extend(wrong);
        is_well
    };
    options.admits = Some(&admits);
    let (against, wrong) = gates::read(&manifest, Some(&session.store), &session.graph.places);
    if !wrong.is_empty() {
        manifest::print(&Diagnostics::new(wrong, manifest.texts.clone()), terminal);
        return Ok(Exit::Usage);
    }
    if arguments.dry_run {
        return match session.plan(&options) {
            Ok(plan) => {
                status::print(&plan, &manifest, arguments.json, terminal);
                Ok(Exit::Done)
            }
            Err(error) => Ok(run_error(&error, &manifest, terminal)),
        };
    }
    // What is planned here is run as it is planned.
    let mut planned = None;
    if arguments.locked || job.events.is_some() {
        match session.plan(&options) {
            Ok(plan) => planned = Some(plan),
            Err(error) => return Ok(run_error(&error, &manifest, terminal)),
        }
    }
    if let Some(plan) = planned.as_ref().filter(|_| arguments.locked) {
        match locked::before(&session, &options, plan, arguments, terminal) {
            Ok(None) => {}
            Ok(Some(exit)) => return Ok(exit),
            Err(error) => return Ok(run_error(&error, &manifest, terminal)),
        }
    }
    let out = arguments.out_dir.clone().unwrap_or_else(|| session.store.base().join("out"));
    let out_dir = out.join(variant_name(&manifest));
    if let Some(source) = source_in_place(&out_dir, &manifest, &session) {
        let message = format!("reports would be written among the images of `{source}`");
        terminal.fault(&message, Some("name another folder with `--out-dir`, or give the pipeline another `name`"));
        return Ok(Exit::Usage);
    }
    // What is written last is tried first. A run that has nothing to do may have nothing to write either.
    if let Err((error, help)) = try_places(&out_dir, &session, &manifest, arguments) {
        match planned.as_ref().map_or_else(|| session.plan(&options), |plan| Ok(plan.clone())) {
            Ok(plan) if plan.is_fresh() => {}
            Ok(_) => {
                terminal.fault(&error.to_string(), Some(help));
                return Ok(Exit::Failed);
            }
            Err(error) => return Ok(run_error(&error, &manifest, terminal)),
        }
    }
    if !arguments.relock
        && let Some(fault) = locked::unmerged(&session.graph.lock_path)
    {
        terminal.fault(&fault, Some(locked::RESTORE));
        return Ok(Exit::Failed);
    }
    stop_on_signals(&cancel)?;
    let progress = Progress::new(*terminal, arguments.quiet);
    // What was written already is not read again, but for what is printed.
    let known = std::sync::Mutex::new(None);
    let reads = |outcome: &Outcome, task: &TaskOutcome, file: &str| {
        // Whatever a pass computes, the next one writes everything.
        let is_written = || {
            let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let n_computed = outcome.computed().count();
            match *known {
                Some((n, is_written)) if n == n_computed => is_written,
                _ => {
                    let is_written = is_written(outcome, &session, &manifest, &out_dir);
                    *known = Some((n_computed, is_written));
                    is_written
                }
            }
        };
        arguments.all_files
            || arguments.recompute
            || is_reported(outcome, task, file)
                && (!is_written() || results::reads(&manifest, &outcome.graph, task.stage, task.part))
    };
    options.reads = Some(&reads);
    if let (Some(log), Some(plan)) = (&job.events, &planned) {
        log.plan(plan);
    }
    let ran = session.run_planned(planned, &options, &Both(&Watcher { progress: &progress }, job.events.as_ref()));
    progress.finish();
    let outcome = match ran {
        Ok(outcome) => outcome,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    for warning in session.store.take_warnings() {
        terminal.warning(&warning);
    }
    let refused = std::mem::take(&mut *refused.lock().unwrap_or_else(PoisonError::into_inner));
    if outcome.is_refused {
        // Before anything was learned: the manifest cannot be meant so.
        manifest::print(&Diagnostics::new(refused, manifest.texts.clone()), terminal);
    }
    let is_complete = outcome.is_complete();
    let is_written = is_written(&outcome, &session, &manifest, &out_dir);
    let artifacts = open_artifacts(&outcome, &session, &|stage, part| {
        !is_written || results::reads(&manifest, &outcome.graph, stage, part)
    })?;
    let finished = finished(&outcome, &artifacts);
    // Whatever the run came to, the folder shows what is fresh now, and nothing else of ours. If it cannot be written, the
    // results are printed all the same.
    let mut results = results::Results::of(&finished, &manifest)?;
    let baselines = gates::judge(&against, &manifest, &finished, &mut results)?;
    if let Some(log) = &job.events {
        log.outcome(&outcome, results.gates());
    }
    let owners = owners(&outcome, &artifacts);
    let run =
        Ran { session: &session, outcome: &outcome, results: &results, owners, threads: options.threads, started };
    let written = match is_written {
        true => {
            files::sweep(&out_dir);
            Ok(())
        }
        false => write_reports(&out_dir, &finished, &run, terminal),
    };
    let evaluations: Vec<(&str, &Files)> =
        finished.iter().filter(|task| is_evaluation(task)).map(|task| (variant_of(task.stage), task.files)).collect();
    if job.is_wanted() {
        let failure = |i: usize| failure_text(&outcome, i, &manifest);
        let mut summary = job::summary(&outcome, &session, results.evaluations(), &out_dir, &failure);
        let path = compared_lock(&manifest);
        summary.against = LockFile::read(&path).ok().flatten().filter(|_| is_complete).map(|lock| Against {
            lock: crate::manifest::shown_path(&path),
            changes: locked::metrics(&lock, &results.headline(), &evaluations, &session),
        });
        job.summary = Some(summary);
    }
    let n_told = terminal.diagnostics().len();
    if let Some(folder) = session.graph.lock_path.parent() {
        files::sweep(&Path::new(".").join(folder));
    }
    let n_computed = outcome.computed().count();
    job.counts = Some((outcome.n_tasks(), n_computed));
    let (name, n_tasks) = (&manifest.name, outcome.n_tasks());
    let seconds = report::text::seconds(started.elapsed().as_secs_f64());
    terminal.note(&match (n_computed, is_complete) {
        (0, true) => {
            let recorded = results::by_records(outcome.n_recorded());
            let fresh = counted(n_tasks as u64, "task is", "tasks are");
            format!("{name}: nothing to do, {fresh} fresh{recorded} ({seconds})")
        }
        _ => {
            let recorded = results::by_records(outcome.n_recorded());
            let tasks = counted(n_tasks as u64, "task", "tasks");
            format!("{name}: {n_computed} of {tasks} computed{recorded} in {seconds}")
        }
    });
    let shown = crate::manifest::shown_path(&out_dir);
    let mut differences = None;
    let mut exit = if is_complete {
        if !arguments.json {
            let text = match manifest.has_variants() {
                true => results.matrix_text(&manifest, &shown),
                false => results.text(n_computed == 0, &shown, terminal),
            };
            terminal.result(&text);
            if written.is_ok() {
                terminal.note(&format!("reports: {}", terminal.paint(&format!("{shown}/"), GREEN)));
            }
        }
        let mut exit = tell_disputes(&outcome, &session, arguments.relock, terminal)?;
        let has_failed_search = tell_truncated(&outcome, terminal);
        if exit == Exit::Done
            && arguments.to.is_none()
            && outcome.truncated.is_empty()
            && let Some(lock) = outcome.lock_file()
        {
            let own = Locking { lock, evaluations, baselines: &baselines };
            exit = keep_lock(own, &results, &session, arguments, &mut differences, terminal)?;
        }
        if exit == Exit::Done && has_failed_search { Exit::Failed } else { exit }
    } else {
        report_failures(&outcome, &manifest, terminal);
        if outcome.is_interrupted {
            terminal.note("interrupted; what was finished is kept, run again to go on");
            Exit::Interrupted
        } else if outcome.is_refused {
            Exit::Usage
        } else {
            if outcome.is_out_of_time {
                tell_left(&outcome, arguments.time_limit.unwrap_or(0), terminal);
            }
            Exit::Failed
        }
    };
    if let Err(error) = written {
        terminal.error(&error);
        terminal.note(&format!("  help: {OUT_HELP}"));
        if exit != Exit::Interrupted {
            exit = Exit::Failed;
        }
    }
    if let Some(summary) = job.summary.as_mut().filter(|_| is_complete) {
        summary.errors = terminal.errors_since(n_told);
    }
    // Last of all, so that nobody has to look for why the exit code is 6; a stale lock file was told above.
    let has_failed_gate = tell_gates(&results, terminal);
    if has_failed_gate && matches!(exit, Exit::Done | Exit::Stale) {
        exit = Exit::Gate;
    }
    exit = job.finish(exit, terminal);
    if arguments.json {
        let mut json = serde_json::json!({
            "pipeline": name, "tasks": n_tasks, "computed": n_computed, "by_records_only": outcome.n_recorded(),
            "complete": is_complete, "interrupted": outcome.is_interrupted, "out_of_time": outcome.is_out_of_time,
            "exit_code": exit as u8,
            "failures": outcome.failures().map(|(task, failure)| {
                let (message, help, span) = failure_parts(&outcome, task, failure, &manifest);
                json_error(Some(&task.name), &message, help.as_deref(), span, &manifest)
            }).collect::<Vec<_>>(),
            "warnings": warnings(&outcome),
            "lock_equal": differences.as_ref().map(Vec::is_empty),
            "lock_differences": differences.unwrap_or_default(),
        });
        if let (Some(json), serde_json::Value::Object(results)) = (json.as_object_mut(), results.json()) {
            json.extend(results);
        }
        if let (Some(json), true) = (json.as_object_mut(), manifest.has_variants())
            && let serde_json::Value::Object(variants) = results.matrix_json(&manifest)
        {
            json.extend(variants);
        }
        terminal.json(json);
    }
    Ok(exit)
}

/// Whether a report or the results are made from a file of a task.
fn is_reported(outcome: &Outcome, task: &TaskOutcome, file: &str) -> bool {
    let kind = outcome.graph.nodes[task.stage].stage.kind();
    report::reads(kind, task.part, outcome.graph.trial(task.stage).is_some(), file)
}

/// Whether the folder of reports holds what this run would write.
fn is_written(outcome: &Outcome, session: &Session<'_>, manifest: &Manifest, out_dir: &Path) -> bool {
    outcome.is_complete()
        && outcome.computed().next().is_none()
        && session.store.knows_outputs(
            out_dir,
            &reports_key(outcome, &all_resolved(manifest, out_dir, session), n_lock_gates(manifest)),
            &digests(&Noted::read(out_dir)),
        )
}

/// The source that is the folder of reports.
fn source_in_place(out_dir: &Path, manifest: &Manifest, session: &Session<'_>) -> Option<String> {
    let out_dir = std::fs::canonicalize(out_dir).ok()?;
    let sources = manifest.nodes.iter().filter_map(|node| node.stage.sources(&session.graph.places).ok()).flatten();
    let mut paths =
        sources.filter_map(|source| if let Source::Folder { path, .. } = source { Some(path) } else { None });
    let is_it = |path: &std::path::PathBuf| std::fs::canonicalize(path).is_ok_and(|path| path == out_dir);
    paths.find(is_it).map(|path| crate::manifest::shown_path(&path))
}

/// What to do where reports cannot be written.
const OUT_HELP: &str = "name a folder that can be written with `--out-dir`";

/// Tries the places that are written at the end of a run: the reports' folder, and the lock file's where one is kept.
fn try_places(
    out_dir: &Path,
    session: &Session<'_>,
    manifest: &Manifest,
    arguments: &RunArguments,
) -> Result<(), (files::Error, &'static str)> {
    files::probe(out_dir).map_err(|error| (error, OUT_HELP))?;
    let keeps_lock = arguments.to.is_none() && !arguments.locked && !manifest.has_sets && arguments.out_dir.is_none();
    match session.graph.lock_path.parent().filter(|_| keeps_lock) {
        Some(folder) => {
            files::probe(&std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())).map_err(|error| {
                let help =
                    "name a folder for the reports with `--out-dir`: no lock file is kept then where none can be";
                (error, help)
            })
        }
        None => Ok(()),
    }
}

/// Says that the time is over, and what is left.
fn tell_left(outcome: &Outcome, limit: u64, terminal: &Terminal) {
    let left: Vec<&TaskOutcome> = outcome.tasks.iter().filter(|task| task.entry.is_none()).collect();
    let is_begun = |task: &&&TaskOutcome| matches!(task.ended, Ended::Cancelled);
    let n_begun = left.iter().filter(is_begun).count();
    let mut stages: Vec<(&str, usize)> = Vec::new();
    for task in &left {
        let stage = outcome.graph.nodes[task.stage].name.as_str();
        match stages.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, n)) => *n += 1,
            None => stages.push((stage, 1)),
        }
    }
    const MOST: usize = 6;
    let named =
        stages.iter().take(MOST).map(|(stage, n)| if *n > 1 { format!("{stage} ({n})") } else { (*stage).into() });
    let mut named = named.collect::<Vec<String>>().join(", ");
    if stages.len() > MOST {
        named.push_str(&format!(" and {} more", stages.len() - MOST));
    }
    let s = if left.len() == 1 { "" } else { "s" };
    let begun = match n_begun {
        0 => String::new(),
        n => format!(", {n} of them from a checkpoint where they keep one"),
    };
    let limit = report::text::seconds(limit as f64);
    let message = format!("the time limit of {limit} is over: {} task{s} left{begun}: {named}", left.len());
    terminal.fault(&message, Some("run again to go on; what was finished is kept"));
}

/// Tells of the gates that were not passed; whether there are some.
fn tell_gates(results: &results::Results, terminal: &Terminal) -> bool {
    let mut has_failed = false;
    for (stage, gate) in results.failed_gates() {
        has_failed = true;
        let variant = match variant_of(stage) {
            "" => String::new(),
            variant => format!(" in variant `{variant}`"),
        };
        let message = format!(
            "gate: `{}` of `{}`{variant} on {} is {}, expected {}",
            gate.measured(),
            gate.model,
            gate.split,
            gate.shown_value(),
            gate.expected
        );
        terminal.fault(&message, None);
    }
    has_failed
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
            terminal.fault(&message, Some("run again to go on, or set `on_time_limit = \"accept\"`"));
        }
    }
    has_failed
}

/// What is said of a failure: the sentence, what helps, and the place in the manifest.
type Said = (String, Option<String>, Option<Span>);

/// What to say of a task that failed.
fn failure_parts(outcome: &Outcome, task: &TaskOutcome, failure: &Failure, manifest: &Manifest) -> Said {
    match failure {
        Failure::Stage(error) => {
            let span = match &error.key {
                Some(key) if task.stage < manifest.nodes.len() => manifest.span_of(task.stage, key),
                // A key that a trial has is the manifest's, or a range of the search.
                Some(key) => outcome.graph.span_of(task.stage, key).unwrap_or_default(),
                None => Span::default(),
            };
            let span = if span == Span::default() { outcome.graph.entries[task.stage].header } else { span };
            (error.message.clone(), error.help.clone(), Some(span))
        }
        Failure::Bug(message) => {
            let help = "please report it with the manifest and `convoy doctor`".to_owned();
            (format!("a bug in Convoy: {message}"), Some(help), None)
        }
        Failure::Store(error) => (error.to_string(), error.help(), None),
    }
}

/// Why a task failed, in one sentence with its place.
fn failure_text(outcome: &Outcome, task: usize, manifest: &Manifest) -> String {
    let task = &outcome.tasks[task];
    let Ended::Failed(failure) = &task.ended else { return String::new() };
    let (message, help, span) = failure_parts(outcome, task, failure, manifest);
    let at = span.and_then(|span| manifest.texts.location(span)).map(|at| format!(" ({at})")).unwrap_or_default();
    format!("{message}{at}{}", help.map(|help| format!("; {help}")).unwrap_or_default())
}

/// Prints why tasks failed: once what several tasks of a stage say.
pub fn report_failures(outcome: &Outcome, manifest: &Manifest, terminal: &Terminal) {
    let mut told: Vec<(usize, &str, usize, Said)> = Vec::new();
    for (task, failure) in outcome.failures() {
        let parts = failure_parts(outcome, task, failure, manifest);
        match told.iter_mut().find(|(stage, .., known)| *stage == task.stage && *known == parts) {
            Some((_, _, n, _)) => *n += 1,
            None => told.push((task.stage, &task.name, 1, parts)),
        }
    }
    for (_, name, n, (message, help, span)) in told {
        let others = if n > 1 { format!(" and {} more", n - 1) } else { String::new() };
        fault_at(&format!("stage `{name}`{others}: {message}"), help.as_deref(), span, manifest, terminal);
    }
}

type Artifact = (usize, Part, Files);

/// These artifacts as a report sees them.
pub fn finished<'a>(outcome: &'a Outcome, artifacts: &'a [Artifact]) -> Vec<Finished<'a>> {
    let graph = &outcome.graph;
    let of = |(stage, part, files): &'a Artifact| {
        let own = graph.trial(*stage).map_or(*stage, |trial| trial.of);
        let (stage_name, kind) = (&graph.nodes[own].name, graph.nodes[*stage].stage.kind());
        Finished { stage: stage_name, kind, part: *part, trial: graph.trial_name(*stage), files }
    };
    artifacts.iter().map(of).collect()
}

/// The node that each artifact's task is of. A trial is its search's, whose variants may share the stage that it tunes.
pub fn owners(outcome: &Outcome, artifacts: &[Artifact]) -> Vec<usize> {
    let owner = |stage: usize| outcome.graph.trial(stage).map_or(stage, |trial| trial.search);
    artifacts.iter().map(|(stage, _, _)| owner(*stage)).collect()
}

/// The artifacts of finished tasks that are wanted.
///
/// # Errors
/// If one cannot be read.
pub fn open_artifacts(
    outcome: &Outcome,
    session: &Session<'_>,
    is_wanted: &dyn Fn(usize, Part) -> bool,
) -> anyhow::Result<Vec<Artifact>> {
    let mut artifacts = Vec::new();
    for task in outcome.tasks.iter().filter(|task| is_wanted(task.stage, task.part)) {
        // Of what is known by its record only, the files that are read were brought here.
        let wanted = |file: &str| !task.is_recorded || is_reported(outcome, task, file);
        if let Some(files) = outcome.wanted_files(&session.store, task.stage, task.part, &wanted) {
            artifacts.push((task.stage, task.part, files?));
        }
    }
    Ok(artifacts)
}

/// What reports are made from: this build of the program, the manifest, and the finished tasks with what each gave.
fn reports_key(outcome: &Outcome, manifest: &str, n_lock_gates: usize) -> Digest {
    let built = std::env::current_exe().and_then(std::fs::metadata).ok();
    let built = built.map(|built| (built.len(), built.modified().ok()));
    let mut text = format!("{} {built:?} {n_lock_gates}\n{manifest}\n", env!("CARGO_PKG_VERSION"));
    for task in &outcome.tasks {
        let graph = &outcome.graph;
        let own = graph.trial(task.stage).map_or(task.stage, |trial| trial.of);
        let artifact = task.entry.as_ref().map(|entry| entry.artifact().to_string());
        let (stage, kind) = (&graph.nodes[own].name, graph.nodes[task.stage].stage.kind());
        text.push_str(&format!("{stage}\t{kind}\t{}\t{:?}\t{artifact:?}\n", task.part, graph.trial_name(task.stage)));
    }
    Digest::of(text.as_bytes())
}

/// The digests that a folder of reports was noted with, by path.
fn digests(noted: &Noted) -> BTreeMap<PathBuf, Digest> {
    let digest = |(name, digest): (&String, &String)| Some((PathBuf::from(name), digest.parse().ok()?));
    noted.files.iter().filter_map(digest).collect()
}

/// Ctrl-C and SIGTERM ask for a stop; a second one ends the process at once. A file that grows over a limit is an error,
/// not a signal.
pub fn stop_on_signals(cancel: &Arc<AtomicBool>) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    if !hangs_on(signal_hook::consts::SIGHUP) {
        signals.push(signal_hook::consts::SIGHUP);
    }
    for signal in signals {
        signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(cancel))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(cancel)))
            .context("cannot install a signal handler")?;
    }
    Ok(())
}

/// Whether this process was started to ignore a signal, as `nohup` starts one; where that cannot be told, it is left
/// as it is.
#[cfg(unix)]
fn hangs_on(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_none_or(|ignored| ignored >> (signal - 1) & 1 == 1)
}

/// A file that grows beyond what the shell allows is an error of writing it, not the end of the process. Where memory has run out
/// (an allocation that failed aborts, and says its size on stderr), the exit code is that of a failed run.
pub fn fail_instead_of_dying() {
    #[cfg(unix)]
    {
        // A handler that only sets a flag: without one the default would end the process.
        let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)));
        let always = Arc::new(AtomicBool::new(true));
        let _ = signal_hook::flag::register_conditional_shutdown(libc::SIGABRT, Exit::Failed as i32, always);
    }
}

/// A run that has ended.
pub struct Ran<'r> {
    /// The manifest and the store.
    pub session: &'r Session<'r>,
    /// What it came to.
    pub outcome: &'r Outcome,
    /// What it prints.
    pub results: &'r results::Results,
    /// The node that each finished task is of, or its trial is.
    pub owners: Vec<usize>,
    /// Threads that it might use.
    pub threads: usize,
    /// When it began.
    pub started: Instant,
}

/// Where the reports of a variant are put.
fn variant_dir(out_dir: &Path, combination: &Combination) -> PathBuf {
    match combination.name.as_str() {
        "" => out_dir.to_owned(),
        name => out_dir.join(name),
    }
}

/// Every variant of the manifest as it was run.
fn all_resolved(manifest: &Manifest, out_dir: &Path, session: &Session<'_>) -> String {
    manifest.combinations.iter().map(|own| resolved(manifest, own, out_dir, session)).collect()
}

/// A variant of the manifest as it was run, to be run from its folder of reports.
fn resolved(manifest: &Manifest, combination: &Combination, out_dir: &Path, session: &Session<'_>) -> String {
    let places = &session.graph.places;
    let is_entry = |place: &str| {
        let root = &places.project_root;
        catalogue::is_name(place) && catalogue::find_entry(place, root).is_ok_and(|entry| entry.is_some())
    };
    let is_place = |place: &str| !is_entry(place) && places.resolve(Path::new(place)).exists();
    let mut name = variant_name(manifest).replace('@', "-");
    if !combination.name.is_empty() {
        // A digest, since names of manifests are short.
        name.truncate(40);
        name = format!("{name}-{}", Digest::of(combination.name.as_bytes()).short());
    }
    name.truncate(54);
    let dir = variant_dir(out_dir, combination);
    let text = manifest.resolved(combination, &dir, &format!("{name}.resolved"), &is_place);
    format!(
        "# The manifest as `convoy run` ran it: profile and overrides in force, defaults written out. It gives the same\n\
         # fingerprints, under another name.\n{text}"
    )
}

/// Whether a task's artifact has the numbers of an evaluation.
fn is_evaluation(task: &Finished<'_>) -> bool {
    task.kind == "evaluate" && task.part == Part::Whole && task.trial.is_none()
}

/// Gates that compare with a lock file.
fn n_lock_gates(manifest: &Manifest) -> usize {
    manifest.nodes.iter().flat_map(|node| node.stage.listed_gates()).filter(|gate| gate.is_of_lock()).count()
}

/// What a variant came to, and the tables and pictures of its folder of reports.
pub struct VariantReports {
    /// Its folder below that of the reports; empty of a manifest without variants.
    pub folder: PathBuf,
    /// What is told.
    pub told: Report,
    /// Files by their path in the folder.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// The results of every variant, with its tables and pictures.
///
/// # Errors
/// If an artifact is damaged.
pub fn reports(out_dir: &Path, finished: &[Finished<'_>], run: &Ran<'_>) -> anyhow::Result<Vec<VariantReports>> {
    let (session, outcome) = (run.session, run.outcome);
    let manifest = session.manifest;
    let mut all = Vec::new();
    for combination in manifest.combinations.iter() {
        let nodes: BTreeSet<usize> = combination.nodes.iter().copied().collect();
        let own = finished.iter().zip(&run.owners).filter(|(_, owner)| nodes.contains(owner));
        let own: Vec<Finished<'_>> =
            own.map(|(task, _)| Finished { stage: stage_name(task.stage), ..task.clone() }).collect();
        let mut files = report::tables(&own);
        let metrics = metrics_json(&run.results.of_variant(manifest, combination));
        files.extend(metrics.map(|bytes| (outputs::METRICS_JSON.into(), bytes)));
        let text = resolved(manifest, combination, out_dir, session);
        files.insert(outputs::MANIFEST.into(), text.clone().into_bytes());
        let tasks = outcome.tasks.iter().filter(|task| nodes.contains(&task.stage));
        let keys = tasks.map(|task| Key {
            stage: stage_name(&outcome.graph.nodes[task.stage].name).to_owned(),
            part: task.part.to_string(),
            key: task.entry.as_ref().map(|entry| entry.fingerprint.to_string()),
        });
        let origin =
            Origin { manifest: text, command: None, keys: keys.collect(), n_lock_gates: n_lock_gates(manifest) };
        let names: BTreeSet<&str> = nodes.iter().map(|&at| manifest.nodes[at].name.as_str()).collect();
        let warnings = outcome.warnings().into_iter();
        let warnings = warnings.filter(|(stage, _)| !manifest.has_variants() || names.contains(stage));
        let warnings = warnings.map(|(stage, told)| (stage_name(stage).to_owned(), told.to_owned()));
        let title = match combination.name.as_str() {
            "" => manifest.name.clone(),
            name => format!("{}, {name}", manifest.name),
        };
        let told = Report::of(&title, &own, warnings.collect(), origin)?;
        all.push(VariantReports { folder: PathBuf::from(&combination.name), told, files });
    }
    Ok(all)
}

/// Every file of the folder of reports: of a manifest with variants, each one's own in a folder of its name, and the table of all.
fn files_of(reports: Vec<VariantReports>, run: &Ran<'_>) -> BTreeMap<PathBuf, Vec<u8>> {
    let manifest = run.session.manifest;
    let mut all = BTreeMap::new();
    for VariantReports { folder, told, mut files } in reports {
        report::content::add(&told, &mut files);
        all.extend(files.into_iter().map(|(path, bytes)| (folder.join(path), bytes)));
    }
    if manifest.has_variants() {
        all.insert(matrix::MATRIX.into(), matrix::table(&run.results.variants(manifest)));
    }
    all
}

/// Writes the reports of the tasks that are there, and `timings.csv` and `run.json`: the only files that hold times. Where
/// they were all there before, what they are is noted in the store, so that they need not be read again.
///
/// # Errors
/// If one cannot be written, or an artifact is damaged.
pub fn write_reports(
    out_dir: &Path,
    finished: &[Finished<'_>],
    run: &Ran<'_>,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let (session, outcome) = (run.session, run.outcome);
    let before = Noted::read(out_dir);
    if finished.is_empty() && before == Noted::default() {
        return Ok(());
    }
    if !out_dir.join(files::RUN).exists() {
        // First of all: what lies in this folder is known by it not to be anybody's images.
        let begun = serde_json::json!({ "convoy": env!("CARGO_PKG_VERSION"), "complete": false });
        files::replace(&out_dir.join(files::RUN), &files::document::to_bytes(&begun)?, false)?;
    }
    let reports = files_of(reports(out_dir, finished, run)?, run);
    let since = SystemTime::now();
    let written = outputs::write(out_dir, &reports, &before)?;
    for path in &written.left {
        let shown = crate::manifest::shown_path(&out_dir.join(path));
        terminal.warning(&format!("`{shown}` is of an earlier run and was edited since: it is left"));
    }
    if written.noted == before && outcome.computed().next().is_none() && outcome.is_complete() {
        // Nothing was done: what the last run took stays to be read.
        let reports_key =
            reports_key(outcome, &all_resolved(session.manifest, out_dir, session), n_lock_gates(session.manifest));
        session.store.note_outputs(out_dir, reports_key, &digests(&before), since);
        return Ok(());
    }
    let mut table = crate::artifact::table::Table::new(&["stage", "part", "outcome", "seconds"]);
    for task in &outcome.tasks {
        let part = task.part.to_string();
        let (word, seconds) = match task.ended {
            Ended::Computed => ("computed", Some(task.seconds)),
            Ended::Found => ("found", None),
            Ended::Fresh => ("fresh", None),
            Ended::Failed(_) => ("failed", None),
            Ended::Cancelled => ("stopped", None),
            Ended::NotStarted => ("not-started", None),
        };
        table.row(&[(&outcome.graph.nodes[task.stage].name).into(), part.as_str().into(), word.into(), seconds.into()]);
    }
    files::replace(&out_dir.join(outputs::TIMINGS), &table.into_bytes(), false)?;
    let seconds = run.started.elapsed().as_secs_f64();
    let gates = run.results.gates().cloned().collect();
    let record = RunRecord::of(outcome, session, seconds, run.results.headline(), gates);
    record.keep(&session.store);
    let mut json = serde_json::to_value(&record)?;
    let more = serde_json::json!({
        "run": record.id(),
        "variants": session.manifest.combinations.iter().map(|own| &own.name).collect::<Vec<_>>(),
        "threads": run.threads,
        "isa": crate::engine::Isa::detect().name(),
        "tasks": outcome.n_tasks(),
        "truncated": !outcome.truncated.is_empty(),
        "warnings": warnings(outcome),
        "files": written.noted.files,
    });
    if let (Some(json), serde_json::Value::Object(more)) = (json.as_object_mut(), more) {
        json.extend(more);
    }
    files::replace(&out_dir.join(files::RUN), &files::document::to_bytes(&json)?, false)?;
    Ok(())
}

/// What the tasks told, for programs.
fn warnings(outcome: &Outcome) -> serde_json::Value {
    let warnings = outcome.warnings().into_iter();
    warnings.map(|(stage, message)| serde_json::json!({ "stage": stage, "message": message })).collect()
}

/// What a finished run would put into its lock file.
struct Locking<'r> {
    lock: LockFile,
    /// The artifacts of its evaluations, beside the variants that they are of.
    evaluations: Vec<(&'r str, &'r Files)>,
    /// Lock files that a gate compared with and failed.
    baselines: &'r [PathBuf],
}

/// Writes the lock file, or with `--locked` compares it. A lock file is a witness: where it says that the same inputs gave
/// other bytes, or cannot be read, it is left alone.
fn keep_lock(
    run: Locking<'_>,
    results: &results::Results,
    session: &Session<'_>,
    arguments: &RunArguments,
    told: &mut Option<Vec<serde_json::Value>>,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let manifest = session.manifest;
    let Locking { mut lock, evaluations, baselines } = run;
    lock.metrics = results.headline();
    let path = if arguments.locked { compared_lock(manifest) } else { session.graph.lock_path.clone() };
    let path = path.as_path();
    if arguments.locked {
        locked::tell_compared(manifest, path, terminal);
    }
    let shown = crate::manifest::shown_path(path);
    let old = match LockFile::read(path) {
        Ok(old) => old,
        Err(_) if arguments.relock => None,
        Err(message) => {
            terminal.fault(&format!("`{shown}`: {message}"), Some(locked::RESTORE));
            return Ok(if arguments.locked { Exit::Stale } else { Exit::Failed });
        }
    };
    if !arguments.relock
        && let Some(old) = &old
    {
        let contradicted: Vec<String> = old.contradictions(&lock).cloned().collect();
        if !contradicted.is_empty() {
            let stage = contradicted[0].split('/').next().unwrap_or_default();
            let help = format!(
                "`convoy run --force {stage}` computes it once more and tells which one this machine gives; \
                 `convoy run --relock` accepts what is here"
            );
            for (i, task) in contradicted.iter().enumerate() {
                let message = format!("`{task}` gave other bytes from the same inputs than `{shown}` says");
                terminal.fault(&message, (i + 1 == contradicted.len()).then_some(help.as_str()));
            }
            return Ok(Exit::NonDeterministic);
        }
    }
    if arguments.locked {
        let Some(old) = old else {
            terminal.fault(&format!("there is no lock file `{shown}`"), Some("write it with `convoy run`"));
            return Ok(Exit::Stale);
        };
        let run = locked::Finished { old: &old, path: path.to_owned(), new: &lock, evaluations };
        let (exit, differences) = locked::after(&run, session, arguments.verbose, terminal)?;
        *told = (exit != Exit::Corrupt).then_some(differences);
        return Ok(exit);
    }
    let is_baseline = |kept: &PathBuf| std::path::absolute(kept).ok() == std::path::absolute(path).ok();
    if !arguments.relock && baselines.iter().any(is_baseline) {
        terminal.note(&format!(
            "`{shown}` stays as it is: a gate compares with it and failed; `convoy run --relock` accepts these results"
        ));
        return Ok(Exit::Done);
    }
    if !manifest.has_sets
        && let Err(error) = lock.write(path)
    {
        // Whoever puts the reports elsewhere has a project that is not to be written to.
        if arguments.out_dir.is_none() {
            return Err(error.into());
        }
        terminal.warning(&format!("no lock file is kept: {error}"));
    }
    Ok(Exit::Done)
}

/// Tells of tasks that gave other bytes than a record says, now or in an earlier run that nobody has decided about.
fn tell_disputes(
    outcome: &Outcome,
    session: &Session<'_>,
    is_accepted: bool,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let own: BTreeMap<Digest, &str> =
        outcome.tasks.iter().filter_map(|task| Some((task.entry.as_ref()?.fingerprint, task.name.as_str()))).collect();
    let mut disputed: BTreeMap<&str, String> = BTreeMap::new();
    for (place, entry) in session.store.disputes()? {
        let Some(&name) = own.get(&entry.fingerprint) else { continue };
        if is_accepted {
            session.store.settle(&place)?;
        } else {
            disputed.insert(name, crate::manifest::shown_path(&place));
        }
    }
    for task in outcome.tasks.iter().filter(|task| !task.differing.is_empty()) {
        terminal.fault(
            &format!("{}: the same inputs gave other bytes in `{}`", task.name, task.differing.join("`, `")),
            None,
        );
    }
    for (name, place) in &disputed {
        terminal.note(&format!("  {name}: the first result stays; the other one is in `{place}`"));
    }
    if disputed.is_empty() {
        return Ok(Exit::Done);
    }
    terminal.note("  help: `convoy run --relock` accepts the first results and removes the others");
    Ok(Exit::NonDeterministic)
}

/// Tells a person what the runner tells.
pub struct Watcher<'a> {
    /// Where it is told.
    pub progress: &'a Progress,
}

impl Events for Watcher<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Planned { .. } => {}
            Event::Reading { stage, bytes } => self.progress.reading(stage, *bytes),
            Event::Started { task, stage, is_trial, reasons, .. } => {
                self.progress.begin(Told { task, stage, is_trial: *is_trial }, &summary(reasons));
            }
            Event::Progress { task, done, total, unit, note } => self.progress.update(task, *done, *total, unit, note),
            Event::Waiting { task, holder } => self.progress.warn(&format!("{task}: waits for {holder}")),
            Event::Warning { task: Some(task), message } => self.progress.warn(&format!("{task}: {message}")),
            Event::Warning { task: None, message } => self.progress.warn(message),
            Event::Dataset { stage, summary } => {
                self.progress.tell_once(&format!("{stage}: {}", report::dataset::line(summary)));
            }
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

/// Why a task runs; empty where it is the first time.
fn summary(reasons: &[StaleReason]) -> String {
    let told = reasons.iter().filter(|reason| **reason != StaleReason::Missing(Lost::NeverRun));
    let texts: BTreeSet<String> = told.map(ToString::to_string).collect();
    match texts.len() {
        0..=3 => texts.into_iter().collect::<Vec<_>>().join("; "),
        n => format!("{} and {} more reasons", texts.into_iter().take(2).collect::<Vec<_>>().join("; "), n - 2),
    }
}
