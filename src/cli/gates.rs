//! Gates against lock files: what the lock files say before a run, and whether its results hold beside them.
//!
//! A lock file names the task that evaluates, so it cannot be read by that task: these gates are judged here, on every run, and
//! are no part of any fingerprint. Numbers are the lock file's; noise is told from predictions where the store has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::git::{FETCH, Git};
use super::locked;
use super::results::Results as Told;
use crate::artifact::evaluation::{Evaluation, GateResult};
use crate::config::{Problem, Span};
use crate::manifest::{Manifest, shown_path, stage_name, variant_of};
use crate::report::Finished;
use crate::report::compare::{self, Results};
use crate::runner::{LockFile, compared_lock, locked_results};
use crate::stages::evaluate::{Baseline, Listed};
use crate::stages::{Part, Places};
use crate::store::Store;

/// A gate and the lock file that it is compared with, as it was before the run.
pub struct Against {
    /// The stage that evaluates, by index.
    stage: usize,
    /// Which of its gates.
    gate: usize,
    /// Where the lock file lies; `None`: in a Git revision.
    path: Option<PathBuf>,
    old: Results,
}

/// Reads what gates of the list are compared with. Problems are told for those that can never be judged: the baseline is not there,
/// or has no such number.
pub fn read(manifest: &Manifest, store: Option<&Store>, places: &Places) -> (Vec<Against>, Vec<Problem>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for (stage, node) in manifest.nodes.iter().enumerate() {
        let Some(input) = node.inputs.first().map(|&input| stage_name(&manifest.nodes[input].name)) else { continue };
        let mut n = 0;
        for (gate, listed) in node.stage.listed_gates().iter().enumerate() {
            if !listed.is_of_lock() {
                if let Err(error) = listed.look(n, input, places) {
                    let span = manifest.span_of(stage, error.key.as_deref().unwrap_or("gates"));
                    problems.push(Problem { help: error.help, ..Problem::error(span, error.message) });
                }
                n += 1;
                continue;
            }
            match lock_of(listed, input, variant_of(&node.name), manifest, places) {
                Ok((mut lock, path)) => {
                    let mut old = Results::of_headline(&lock.metrics);
                    let own = variant_of(&node.name);
                    if lock.stages.keys().any(|stage| !variant_of(stage).is_empty()) {
                        lock.stages.retain(|stage, _| variant_of(stage) == own);
                    }
                    let files = store.and_then(|store| locked_results(store, &lock));
                    let whole =
                        files.and_then(|files| Results::of_artifacts(files.iter().map(|(_, own)| ("", own))).ok());
                    old.take_predictions(whole.unwrap_or_default());
                    found.push(Against { stage, gate, path, old });
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    (found, problems)
}

/// The lock file that a gate means, and where it lies.
fn lock_of(
    gate: &Listed,
    input: &str,
    variant: &str,
    manifest: &Manifest,
    places: &Places,
) -> Result<(LockFile, Option<PathBuf>), Problem> {
    let (mut lock, path, shown, at) = match gate.baseline() {
        Some((Baseline::Lock(file), at)) => {
            let path = places.resolve(Path::new(file));
            let lock = locked::read(&path).map_err(|(message, help)| {
                let is_there = path.exists();
                let help = if is_there { help } else { "write it with a run without this gate".to_owned() };
                Problem::error(at, message).help(help)
            })?;
            (lock, Some(path), file.clone(), at)
        }
        Some((Baseline::Revision(revision), at)) => {
            let (lock, shown) =
                lock_in_git(revision, manifest).map_err(|(message, help)| Problem::error(at, message).help(help))?;
            (lock, None, shown, at)
        }
        _ => return Err(Problem::error(Span::default(), "a gate without a lock file".to_owned())),
    };
    lock.metrics = of_variant(lock.metrics, variant);
    let model = gate.model_or(input);
    let is_meant = |name: &String| {
        let mut parts = name.rsplitn(3, '.');
        let (metric, split, rest) = (parts.next(), parts.next(), parts.next());
        metric == Some(gate.metric())
            && gate.split().is_none_or(|own| split == Some(own))
            && rest.and_then(|rest| rest.split_once('.')).is_some_and(|(_, own)| own == model)
    };
    if !lock.metrics.keys().any(is_meant) {
        let on = gate.split().map(|split| format!(" on {split}")).unwrap_or_default();
        let message = format!("`{shown}` has no `{}` of `{model}`{on}", gate.metric());
        let help = "a lock file has the metrics of what was evaluated, not those of its members";
        return Err(Problem::error(at, message).help(help));
    }
    Ok((lock, path))
}

/// The metrics of a variant in those of a lock file, as a manifest without variants has them; all of them, where the lock file
/// knows no such variant.
fn of_variant(metrics: BTreeMap<String, String>, variant: &str) -> BTreeMap<String, String> {
    let own = |name: &str| {
        let mut parts = name.rsplitn(3, '.');
        let (metric, split, model) = (parts.next()?, parts.next()?, parts.next()?);
        let model = model.strip_suffix(variant)?.strip_suffix(' ')?;
        Some(format!("{model}.{split}.{metric}"))
    };
    let of_variant: BTreeMap<String, String> =
        metrics.iter().filter_map(|(name, value)| Some((own(name)?, value.clone()))).collect();
    if of_variant.is_empty() { metrics } else { of_variant }
}

/// The manifest's lock file as it was in a Git revision, and what it is called; else what is wrong and what helps.
fn lock_in_git(revision: &str, manifest: &Manifest) -> Result<(LockFile, String), (String, String)> {
    let Some(git) = Git::of(&manifest.dir) else {
        let message = format!("`git:{revision}`: this is no Git checkout, or Git is not installed");
        return Err((message, "compare with a `.lock` file, or with a number".to_owned()));
    };
    let commit = match revision {
        "merge-base" => git.merge_base().map(|(_, commit)| commit),
        _ => git.commit(revision).ok_or_else(|| "there is no such revision here".to_owned()),
    };
    let commit = commit.map_err(|message| {
        let help = if git.is_shallow() { FETCH } else { "fetch it first, such as by `git fetch origin main`" };
        (format!("`git:{revision}`: {message}"), help.to_owned())
    })?;
    let path = compared_lock(manifest);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let shown = format!("git:{revision}:{name}");
    match git.show(&commit, &name).map(|bytes| LockFile::parse(&String::from_utf8_lossy(&bytes))) {
        Some(Ok(lock)) => Ok((lock, shown)),
        Some(Err(message)) => Err((format!("`{shown}`: {message}"), "name another revision".to_owned())),
        None => {
            let help = format!("commit `{}` there, or name another revision", shown_path(&path));
            Err((format!("there is no `{name}` in `git:{revision}`"), help))
        }
    }
}

/// Judges the gates by what a run came to, and adds them to what it tells. Lock files that must stay as they are, since a gate
/// against them failed.
///
/// # Errors
/// If an artifact of an evaluation is damaged.
pub fn judge(
    against: &[Against],
    manifest: &Manifest,
    finished: &[Finished<'_>],
    told: &mut Told,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for own in against {
        let node = &manifest.nodes[own.stage];
        let Some(task) =
            finished.iter().find(|task| task.stage == node.name && task.part == Part::Whole && task.trial.is_none())
        else {
            continue;
        };
        let evaluation = Evaluation::read(task.files)?;
        let new = Results::of_artifacts(std::iter::once(("", task.files))).map_err(anyhow::Error::msg)?;
        let result = beside(&node.stage.listed_gates()[own.gate], &own.old, &evaluation, &new);
        if !result.is_passed {
            kept.extend(own.path.clone());
        }
        told.add_gate(&node.name, result);
    }
    Ok(kept)
}

fn beside(gate: &Listed, old: &Results, evaluation: &Evaluation, new: &Results) -> GateResult {
    let model = gate.model_or(&evaluation.model);
    let is_meant = |split: &str| gate.split().is_none_or(|own| own == split);
    let score = evaluation.scores.iter().find(|score| score.model == model && is_meant(&score.split));
    let split = score.map_or_else(|| gate.split().unwrap_or("test"), |score| &score.split);
    let change = compare::metrics(old, new)
        .into_iter()
        .find(|change| (&*change.model, &*change.split, &*change.metric) == (model, split, gate.metric()));
    let value = |side: Option<compare::Value>| side.and_then(|side| side.value);
    let Some(change) = change else { return gate.judge((model, split), None, None, None) };
    gate.judge((model, split), value(change.new), value(change.old), change.judged.as_ref())
}
