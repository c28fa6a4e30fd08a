//! `evaluate`: a finished model on new labelled images, with everything that a run says of a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::Exit;
use super::arguments::{EvaluateArguments, ManifestArguments};
use super::export::{self, Model};
use super::manifest::threads;
use super::progress::{Progress, Told};
use super::results::Results;
use super::run::stop_on_signals;
use super::terminal::Terminal;
use crate::config::{Log, Problem, Section, Severity, Span, Table, quote};
use crate::data::reader::GivenSplit;
use crate::engine::{Engine, Isa};
use crate::files;
use crate::manifest::shown_path;
use crate::manifest::source::parse_document;
use crate::report::summary::{Origin, Report, metrics_json};
use crate::report::text::counted;
use crate::report::{self, Finished, outputs};
use crate::stages::ingest::{self, Ingest};
use crate::stages::predict::{Evaluated, Labelled, Predictor};
use crate::stages::{Context, KINDS, Places, Stage, predict};

/// What progress is about.
const PROGRESS: &str = "evaluate";

/// `evaluate`.
pub fn evaluate(arguments: &EvaluateArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some((source, stage, split)) = read(arguments, terminal) else { return Ok(Exit::Usage) };
    let manifest = ManifestArguments {
        manifest: Some(arguments.model.clone()),
        sets: arguments.sets.clone(),
        profile: arguments.profile.clone(),
    };
    let wanted = arguments.stage.as_deref();
    let opened = export::open(&manifest, &arguments.model, &arguments.places, wanted, terminal)?;
    let Model { model, name, default_path, .. } = match opened {
        Ok(model) => model,
        Err(exit) => return Ok(exit),
    };
    let n_threads = threads(&arguments.places);
    let engine = Engine::with_isa(n_threads, Isa::detect());
    let mut predictor = match Predictor::new(&engine, &model) {
        Ok(predictor) => predictor,
        Err(error) => {
            terminal.fault(&format!("{name}: {error}"), None);
            return Ok(Exit::Failed);
        }
    };
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signals(&cancel)?;
    let progress = Progress::new(*terminal, arguments.quiet);
    progress.begin(Told { task: PROGRESS, stage: PROGRESS, is_trial: false }, &name);
    let watched = Watched { progress: &progress, cancel: &cancel, threads: n_threads, warnings: Default::default() };
    let called = default_path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let places = Places { data_dir: arguments.places.data_dir.clone(), ..Places::default() };
    let of =
        Labelled { name: &called, source: &source, columns: &arguments.by, split, stage: &*stage, places: &places };
    let evaluated = predict::evaluate(&mut predictor, &of, &watched);
    let warnings = watched.warnings.into_inner().unwrap_or_default();
    let Evaluated { artifacts, n_images, n_failed } = match evaluated {
        Ok(evaluated) => evaluated,
        Err(error) if error.is_cancelled => return Ok(Exit::Interrupted),
        Err(error) => {
            terminal.fault(&error.message, error.help.as_deref());
            return Ok(Exit::Failed);
        }
    };
    let failed = if n_failed > 0 { format!(", {n_failed} left out") } else { String::new() };
    let asked = export::networks(predictor.n_members());
    progress.close(PROGRESS, &format!("{} with {asked}{failed},", counted(n_images as u64, "image", "images")));

    let finished: Vec<Finished<'_>> = artifacts
        .iter()
        .map(|(kind, part, files)| Finished { stage: kind, kind, part: *part, trial: None, files })
        .collect();
    let results = Results::of_evaluations(&finished)?;
    let folder = arguments.output.as_ref().map(|folder| shown_path(folder));
    if let Some(folder) = &arguments.output {
        let told = warnings.into_iter().map(|warning| (PROGRESS.to_owned(), warning)).collect();
        let command = Some(repeated(arguments));
        let origin = Origin { command, ..Origin::default() };
        let report = Report::of(&format!("{called} on {}", arguments.source), &finished, told, origin)?;
        for (path, bytes) in written(&report, &finished, &results) {
            files::replace(&folder.join(path), &bytes, false)?;
        }
    }
    let n_missed = results.failed_gates().count();
    if arguments.json {
        let mut told = results.json();
        if let Some(told) = told.as_object_mut() {
            told.insert("model".to_owned(), name.into());
            told.insert("images".to_owned(), json!(n_images));
            told.insert("left_out".to_owned(), json!(n_failed));
            told.insert("folder".to_owned(), json!(folder));
        }
        terminal.json(told);
    } else {
        terminal.result(&results.text(false, folder.as_deref().unwrap_or_default(), terminal));
        if let Some(folder) = folder.filter(|_| !arguments.quiet) {
            terminal.note(&format!("reports: {folder}/"));
        }
    }
    Ok(if n_missed > 0 { Exit::Gate } else { Exit::Done })
}

/// Every file of the folder of reports.
fn written(report: &Report, finished: &[Finished<'_>], results: &Results) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = report::tables(finished);
    // Images in no folds: there is nothing to say of where each of them went.
    files.remove(Path::new("splits.csv"));
    files.extend(metrics_json(results.evaluations()).map(|bytes| (outputs::METRICS_JSON.into(), bytes)));
    report::content::add(report, &mut files);
    files
}

/// What the arguments mean: the source, the stage that evaluates, the split; `None` after a problem was told.
fn read(arguments: &EvaluateArguments, terminal: &Terminal) -> Option<(Ingest, Box<dyn Stage>, Option<GivenSplit>)> {
    let split = match arguments.split.as_deref().map(|word| (word, GivenSplit::in_name(word))) {
        None => None,
        Some((_, Some(split))) => Some(split),
        Some((word, None)) => {
            terminal
                .fault(&format!("there is no split `{word}`"), Some("the splits are `train`, `validation` and `test`"));
            return None;
        }
    };
    let list = |items: &[String]| items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(", ");
    let mut keys = format!("source = {}\n", quote(&arguments.source));
    for (key, value) in [("labels", &arguments.labels), ("root", &arguments.root)] {
        keys.extend(value.iter().map(|value| format!("{key} = {}\n", quote(value))));
    }
    if !arguments.by.is_empty() {
        keys.push_str(&format!("columns = [{}]\n", list(&arguments.by)));
    }
    let source = told(&keys, ingest::read_config, terminal)?;
    let mut keys = String::new();
    if !arguments.metrics.is_empty() {
        keys.push_str(&format!("metrics = [{}]\n", list(&arguments.metrics)));
    }
    if !arguments.by.is_empty() {
        keys.push_str(&format!("by = [{}]\n", list(&arguments.by)));
    }
    keys.extend(arguments.bootstrap.map(|n| format!("bootstrap = {n}\n")));
    let mut gates = Vec::new();
    for gate in &arguments.gates {
        let Some(at) = gate.find(['<', '>']) else {
            terminal.fault(
                &format!("`{gate}` is no gate"),
                Some("write a metric, a comparison and a number: `'accuracy>=0.9'`"),
            );
            return None;
        };
        gates.push(format!("{} = {}", quote(gate[..at].trim()), quote(&gate[at..])));
    }
    keys.push_str(&format!("gates = {{ {} }}\n", gates.join(", ")));
    let kind = KINDS.iter().find(|kind| kind.name == PROGRESS)?;
    Some((source, told(&keys, kind.read, terminal)?, split))
}

/// Reads keys as those of a manifest are read; tells what is wrong with them.
fn told<T>(keys: &str, read: impl FnOnce(&mut Section<'_>) -> T, terminal: &Terminal) -> Option<T> {
    let parsed = parse_document(keys, 0);
    let (table, mut log): (Table, Log) = (parsed.table, Log::default());
    log.problems.extend(parsed.problems);
    let mut section = Section::new(Some(&table), Span::default(), "", &mut log);
    let value = read(&mut section);
    section.finish();
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    match log.problems.iter().find(is_error) {
        Some(problem) => {
            terminal.fault(&problem.message, problem.help.as_deref());
            None
        }
        None => Some(value),
    }
}

/// The command that gives the same report.
fn repeated(arguments: &EvaluateArguments) -> String {
    let mut words = vec!["convoy evaluate".to_owned(), shown_path(&arguments.model), arguments.source.clone()];
    let mut add = |flag: &str, value: &str| words.push(format!("{flag} '{value}'"));
    arguments.stage.iter().for_each(|stage| add("--stage", stage));
    arguments.profile.iter().for_each(|profile| add("--profile", profile));
    arguments.sets.iter().for_each(|set| add("--set", set));
    arguments.split.iter().for_each(|split| add("--split", split));
    arguments.metrics.iter().for_each(|metric| add("--metric", metric));
    arguments.gates.iter().for_each(|gate| add("--gate", gate));
    arguments.by.iter().for_each(|by| add("--by", by));
    arguments.labels.iter().for_each(|labels| add("--labels", labels));
    arguments.root.iter().for_each(|root| add("--root", root));
    arguments.bootstrap.iter().for_each(|n| add("--bootstrap", &n.to_string()));
    words.join(" ")
}

/// Passes on what the work tells, and whether it is to stop.
struct Watched<'a> {
    progress: &'a Progress,
    cancel: &'a AtomicBool,
    threads: usize,
    warnings: std::sync::Mutex<Vec<String>>,
}

impl Context for Watched<'_> {
    fn threads(&self) -> usize {
        self.threads
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn progress(&self, done: u64, total: u64, unit: &str, note: &str) {
        self.progress.update(PROGRESS, done, total, unit, note);
    }

    fn warn(&self, message: &str) {
        let mut warnings = self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !warnings.iter().any(|known| known == message) {
            warnings.push(message.to_owned());
            self.progress.warn(message);
        }
    }

    fn load_checkpoint(&self) -> Option<Vec<u8>> {
        None
    }

    fn save_checkpoint(&self, _bytes: &[u8]) {}
}
