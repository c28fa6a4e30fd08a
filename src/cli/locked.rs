//! `run --locked`: before anything is computed, whether the lock file says what a run would come to; after it, in what they
//! differ: keys, then metrics, then digests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Exit;
use super::arguments::RunArguments;
use super::terminal::Terminal;
use crate::artifact::Files;
use crate::files;
use crate::manifest::{Manifest, shown_path, variant_of};
use crate::report::compare::{self, MetricChange, Results, shown_pair};
use crate::report::text::{COLUMNS, wrapped};
use crate::runner::{
    Difference, LockFile, Options, Plan, RunError, Session, SourcesFrom, compared_lock, conflict_line, locked_results,
};
use crate::store::Found;

/// More lines than this are counted.
const MOST_LINES: usize = 30;

/// Whether a run needs to begin: with another exit code, what the lock file differs in by key was told, and nothing is to be
/// computed. `--recompute` goes on, and so does a run that has nothing to compute.
pub fn before(
    session: &Session<'_>,
    options: &Options<'_>,
    plan: &Plan,
    arguments: &RunArguments,
    terminal: &Terminal,
) -> Result<Option<Exit>, RunError> {
    let manifest = session.manifest;
    let path = compared_lock(manifest);
    let lock = match read(&path) {
        Ok(lock) => lock,
        Err((message, help)) => {
            terminal.fault(&message, Some(&help));
            if arguments.json {
                terminal.json(stale_json(manifest, None, &[json!({ "text": message, "help": help })]));
            }
            return Ok(Some(Exit::Stale));
        }
    };
    if arguments.recompute {
        return Ok(None);
    }
    let mut found = session.compare_with_lock(&lock, SourcesFrom::Plan(plan), options.threads)?;
    // Other bytes from the same inputs make no lock file stale: the run says so.
    found.retain(|difference| !matches!(difference, Difference::Output(_)));
    if plan.n_recorded() > 0 && found.is_empty() {
        let n = plan.n_recorded();
        let shown = shown_path(&path);
        let (message, help) = not_vouched_for(n, plan.count().1, &shown);
        terminal.fault(&message, Some(help));
        if arguments.json {
            let said = [json!({ "text": message, "help": help })];
            terminal.json(stale_json(manifest, Some(plan.count().1), &said));
        }
        return Ok(Some(Exit::Stale));
    }
    if found.is_empty() || plan.is_fresh() {
        return Ok(None);
    }
    tell_compared(manifest, &path, terminal);
    let shown = shown_path(&path);
    let fault = format!("`{shown}` is stale: a run would come to something else; nothing was computed");
    terminal.fault(&fault, None);
    tell(&lines(&found, &[], &digests(&lock, None, &found, arguments.verbose), manifest), terminal);
    terminal.note(
        "  help: `convoy run` computes it and writes the lock file, `convoy run --locked --recompute` compares results",
    );
    if arguments.json {
        let differences: Vec<Value> = found.iter().map(|d| difference_json(d, manifest)).collect();
        terminal.json(stale_json(manifest, Some(plan.count().1), &differences));
    }
    Ok(Some(Exit::Stale))
}

/// What is said where files are not here.
fn not_vouched_for(n: usize, of: usize, shown: &str) -> (String, &'static str) {
    let message = format!(
        "{n} of {of} tasks of `{shown}` are known by their records only: nobody here can vouch for their files"
    );
    (message, "`convoy run --locked --recompute` computes them and compares, `convoy status` needs no files")
}

/// The document of a run that did not begin.
fn stale_json(manifest: &Manifest, n_tasks: Option<usize>, differences: &[Value]) -> Value {
    json!({
        "pipeline": manifest.name, "tasks": n_tasks, "computed": 0, "complete": false, "interrupted": false,
        "exit_code": Exit::Stale as u8, "failures": [], "warnings": [], "evaluations": {}, "gates_passed": null,
        "searches": [], "early_stopping": [], "lock_equal": false, "lock_differences": differences,
    })
}

/// What to do about a lock file that says what nobody computed.
pub const RESTORE: &str = "restore it, for example with Git, or write it anew with `convoy run --relock`";

/// What is wrong with a lock file in which Git has left both sides of a merge: told before anything is computed, since it is not
/// written over at the end.
pub fn unmerged(path: &Path) -> Option<String> {
    let line = conflict_line(&files::read_regular(path, u64::MAX).ok()?)?;
    Some(format!("`{}` has both sides of a merge, from line {line} on", shown_path(path)))
}

/// Says with what `--locked` compares where that is not plain: overrides have no lock file of their own.
pub fn tell_compared(manifest: &Manifest, path: &Path, terminal: &Terminal) {
    if manifest.has_sets {
        terminal.note(&format!("comparing with `{}`, which is of the manifest without `--set`", shown_path(path)));
    }
}

/// The lock file at `path`; else what is wrong, and what helps.
pub fn read(path: &Path) -> Result<LockFile, (String, String)> {
    let shown = shown_path(path);
    match LockFile::read(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err((format!("there is no lock file `{shown}`"), "write it with `convoy run`".to_owned())),
        Err(message) => Err((format!("`{shown}`: {message}"), RESTORE.to_owned())),
    }
}

/// What a finished run came to, beside its lock file.
pub struct Finished<'r> {
    /// The lock file that was read.
    pub old: &'r LockFile,
    /// Where it is.
    pub path: PathBuf,
    /// What the run would write.
    pub new: &'r LockFile,
    /// The artifacts of its evaluations, beside the variants that they are of.
    pub evaluations: Vec<(&'r str, &'r Files)>,
}

/// Compares a finished run with the lock file, and hashes what it vouches for. Also what differs, for programs.
pub fn after(
    run: &Finished<'_>,
    session: &Session<'_>,
    is_verbose: bool,
    terminal: &Terminal,
) -> anyhow::Result<(Exit, Vec<Value>)> {
    let manifest = session.manifest;
    let mut exit = Exit::Done;
    // What is vouched for is read and hashed, whatever stamps say.
    let mut n_recorded = 0;
    for task in run.new.tasks.values() {
        match session.store.find_verified(&task.key)? {
            Found::Hit(_) => {}
            Found::Recorded { .. } => n_recorded += 1,
            Found::Missing | Found::Gone(_) | Found::Corrupt(_) => {
                terminal.fault(&format!("the artifact {} was damaged on disk", task.key.short()), None);
                exit = Exit::Corrupt;
            }
        }
    }
    if exit != Exit::Done {
        terminal.note("  help: run again: what is damaged is in quarantine now and is computed anew");
        return Ok((exit, Vec::new()));
    }
    let shown = shown_path(&run.path);
    if n_recorded > 0 {
        let (message, help) = not_vouched_for(n_recorded, run.new.tasks.len(), &shown);
        terminal.fault(&message, Some(help));
        return Ok((Exit::Stale, vec![json!({ "text": message, "help": help })]));
    }
    let found = run.old.compare_in(run.new, &session.graph);
    if found.is_empty() {
        let (n_tasks, n_metrics) = (run.new.tasks.len(), run.new.metrics.keys().filter(|name| !name.ends_with(".n")));
        let n_metrics = n_metrics.count();
        terminal.note(&format!("{shown}: {n_tasks} tasks and {n_metrics} metrics, all equal"));
        return Ok((Exit::Done, Vec::new()));
    }
    if found.iter().all(|difference| matches!(difference, Difference::Metric(..))) {
        let fault = format!("`{shown}` has the tasks of this run, and metrics that are not theirs: it was edited");
        terminal.fault(&fault, Some(RESTORE));
        tell(&lines(&found, &[], &None, manifest), terminal);
        return Ok((Exit::Stale, found.iter().map(|d| difference_json(d, manifest)).collect()));
    }
    let changes = changed_metrics(run, session);
    let of_others = |d: &&Difference| !matches!(d, Difference::Metric(name, ..) if is_told(name, &changes));
    let found: Vec<Difference> = found.iter().filter(of_others).cloned().collect();
    terminal.fault(&format!("`{shown}` says something else than this run"), None);
    let digests = digests(run.old, Some(run.new), &found, is_verbose);
    tell(&lines(&found, &changes, &digests, manifest), terminal);
    let mut json: Vec<Value> = found.iter().map(|d| difference_json(d, manifest)).collect();
    json.extend(changes.iter().map(metric_json));
    Ok((Exit::Stale, json))
}

/// The metrics of a lock file beside those of a run, judged where both sides' predictions are here.
pub fn metrics(
    lock: &LockFile,
    metrics: &BTreeMap<String, String>,
    evaluations: &[(&str, &Files)],
    session: &Session<'_>,
) -> Vec<MetricChange> {
    let (mut old, mut new) = (Results::of_headline(&lock.metrics), Results::of_headline(metrics));
    // The predictions of a lock file whose numbers were edited are of other numbers.
    if lock.metrics != *metrics {
        let own = locked(lock, session);
        if own.as_ref().is_none_or(|own| edited_beside(lock, own).is_empty()) {
            old.take_predictions(own.unwrap_or_default());
            new.take_predictions(Results::of_artifacts(evaluations.iter().copied()).unwrap_or_default());
        }
    }
    compare::metrics(&old, &new)
}

/// The results that a lock file is about, out of the store.
fn locked(lock: &LockFile, session: &Session<'_>) -> Option<Results> {
    results_of(&locked_results(&session.store, lock)?).ok()
}

/// The results in artifacts of evaluations, by the names of their stages.
pub fn results_of(artifacts: &[(String, Files)]) -> Result<Results, String> {
    Results::of_artifacts(artifacts.iter().map(|(stage, files)| (variant_of(stage), files)))
}

/// The metrics of a lock file that are not those of the artifacts that it names, where these are here.
pub fn edited(lock: &LockFile, session: &Session<'_>) -> Vec<Difference> {
    locked(lock, session).map_or_else(Vec::new, |own| edited_beside(lock, &own))
}

/// The metrics of a lock file that are not those of the results that it is about.
fn edited_beside(lock: &LockFile, own: &Results) -> Vec<Difference> {
    let changes = compare::metrics(&Results::of_headline(&lock.metrics), own);
    let name = |change: &MetricChange| format!("{}.{}.{}", change.model, change.split, change.metric);
    let shown = |side: Option<compare::Value>| {
        side.and_then(|side| side.value).map_or_else(|| "none".to_owned(), |value| value.to_string())
    };
    let told = changes.iter().filter(|change| change.old.is_some() && !change.is_same());
    told.map(|change| Difference::Metric(name(change), shown(change.old), shown(change.new))).collect()
}

/// Those that differ.
fn changed_metrics(run: &Finished<'_>, session: &Session<'_>) -> Vec<MetricChange> {
    let mut changes = metrics(run.old, &run.new.metrics, &run.evaluations, session);
    changes.retain(|change| !change.is_same());
    changes
}

/// Whether a headline metric, by its name in a lock file, is among the changes.
fn is_told(name: &str, changes: &[MetricChange]) -> bool {
    let is_count = name.ends_with(&format!(".{}", compare::N));
    is_count
        || changes.iter().any(|change| name.ends_with(&format!(".{}.{}.{}", change.model, change.split, change.metric)))
}

/// `metric accuracy of cnn on test: 0.7500 -> 0.6500 (n 20), within noise (McNemar p 0.500, 20 images)`.
pub fn metric_line(change: &MetricChange) -> String {
    let value = |side: Option<compare::Value>| side.and_then(|side| side.value);
    let (old, new) = shown_pair(value(change.old), value(change.new));
    let n = match (change.old_n, change.new_n) {
        (Some(a), Some(b)) if a == b => format!(" (n {a})"),
        (None, Some(n)) => format!(" (n {n})"),
        (Some(a), Some(b)) => format!(" (n {a} -> {b})"),
        _ => String::new(),
    };
    let judged = match &change.judged {
        Some(judged) => format!(", {judged}"),
        None if change.is_same() || change.old.is_none() || change.new.is_none() => String::new(),
        None => ", whether that is noise is not known here".to_owned(),
    };
    format!("metric {} of {} on {}: {old} -> {new}{n}{judged}", change.metric, change.model, change.split)
}

/// `train/fold 1: key 8a31… -> 9b02…, output 3f90… -> 77aa…`, where that is asked for.
fn digests(old: &LockFile, new: Option<&LockFile>, found: &[Difference], is_verbose: bool) -> Option<Vec<String>> {
    let task = |name: &String| {
        let locked = old.tasks.get(name);
        let found = new.and_then(|new| new.tasks.get(name));
        let pair = |what: &str, a: Option<String>, b: Option<String>| {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
            format!("{what} {} -> {}", or_none(a), if new.is_some() { or_none(b) } else { "not computed".to_owned() })
        };
        let key = pair("key", locked.map(|task| task.key.short()), found.map(|task| task.key.short()));
        let output = pair("output", locked.map(|task| task.output.short()), found.map(|task| task.output.short()));
        format!("`{name}`: {key}, {output}")
    };
    is_verbose.then(|| found.iter().filter_map(task_of).map(|(_, name)| task(name)).collect())
}

/// What a difference says of a task, if it is about one.
fn task_of(difference: &Difference) -> Option<(&'static str, &String)> {
    Some(match difference {
        Difference::Key(name) => ("computed from something else", name),
        Difference::Above(name) => ("below those", name),
        Difference::New(name) => ("not in the lock file", name),
        Difference::Gone(name) => ("in the lock file only", name),
        Difference::Unknown(name) => ("not known here: the records of what they read are not in the store", name),
        Difference::Output(name) => ("other bytes from the same inputs", name),
        _ => return None,
    })
}

/// Everything that differs, a line or a few each: keys with their places, then metrics, then tasks.
fn lines(
    found: &[Difference],
    changes: &[MetricChange],
    digests: &Option<Vec<String>>,
    manifest: &Manifest,
) -> Vec<String> {
    let mut lines = Vec::new();
    for difference in found.iter().filter(|difference| task_of(difference).is_none()) {
        lines.push(format!("  {difference}"));
        if let Difference::Setting(.., Some(span)) = difference
            && let Some(at) = manifest.texts.location(*span)
        {
            lines.push(format!("    --> {at}"));
        }
    }
    lines.extend(changes.iter().map(|change| format!("  {}", metric_line(change))));
    if let Some(digests) = digests {
        lines.extend(digests.iter().map(|line| format!("  {line}")));
        return lines;
    }
    let mut groups: Vec<(&str, BTreeMap<&str, usize>)> = Vec::new();
    for (what, name) in found.iter().filter_map(task_of) {
        let stage = name.rsplit_once('/').map_or(name.as_str(), |(stage, _)| stage);
        // Trials are told with their search.
        let stage = stage.split(' ').next().unwrap_or(stage);
        let at = match groups.iter().position(|(known, _)| *known == what) {
            Some(at) => at,
            None => {
                groups.push((what, BTreeMap::new()));
                groups.len() - 1
            }
        };
        *groups[at].1.entry(stage).or_default() += 1;
    }
    for (what, stages) in groups {
        let name = |(stage, n): (&&str, &usize)| if *n > 1 { format!("{stage} ({n})") } else { (*stage).to_owned() };
        let n: usize = stages.values().sum();
        let names: BTreeSet<String> = stages.iter().map(name).collect();
        let s = if n == 1 { "" } else { "s" };
        let line = format!("{n} task{s} {what}: {}", names.into_iter().collect::<Vec<_>>().join(", "));
        lines.extend(wrapped(&line, COLUMNS - 2, "  ").lines().map(|line| format!("  {line}")));
    }
    lines
}

fn tell(lines: &[String], terminal: &Terminal) {
    let n = if lines.len() > MOST_LINES { MOST_LINES - 1 } else { lines.len() };
    lines[..n].iter().for_each(|line| terminal.note(line));
    if n < lines.len() {
        terminal.note(&format!("  and {} more lines; `--json` has all of it", lines.len() - n));
    }
}

/// A difference from a lock file for programs.
pub fn difference_json(difference: &Difference, manifest: &Manifest) -> Value {
    let mut json = json!({ "text": difference.to_string() });
    if let Difference::Setting(stage, key, old, new, span) = difference {
        let at = span.and_then(|span| manifest.texts.location(span)).map(|at| at.to_string());
        json = json!({
            "text": difference.to_string(), "stage": stage, "key": key, "old": old, "new": new, "at": at,
        });
    }
    json
}

/// A metric that differs, for programs.
fn metric_json(change: &MetricChange) -> Value {
    let mut json = json!({ "text": metric_line(change) });
    if let (Some(json), Ok(Value::Object(fields))) = (json.as_object_mut(), serde_json::to_value(change)) {
        json.extend(fields);
    }
    json
}
