//! The manifest that a verb was given, and what verbs say of it: its problems, errors with the line that is to blame.

use std::path::{Path, PathBuf};

use super::arguments::{ManifestArguments, PlaceArguments};
use super::terminal::Terminal;
use super::{Exit, annotations};
use crate::config::{Problem, Severity, Span};
use crate::manifest::{Diagnostics, Manifest, Texts};
use crate::runner::RunError;

/// The manifest that the arguments name, checked; `None` after its problems have been printed.
pub fn load(arguments: &ManifestArguments, terminal: &Terminal) -> anyhow::Result<Option<Manifest>> {
    let manifest = load_without_warnings(arguments, terminal)?;
    if let Some(manifest) = manifest.as_ref().filter(|manifest| !manifest.warnings.is_empty()) {
        print(&manifest.diagnostics(), terminal);
    }
    Ok(manifest)
}

/// The same, for verbs that use what a run made: the run has said its warnings.
pub fn load_without_warnings(arguments: &ManifestArguments, terminal: &Terminal) -> anyhow::Result<Option<Manifest>> {
    let path = match &arguments.manifest {
        Some(path) => path.clone(),
        None => match only_manifest(Path::new(".")) {
            Ok(path) => path,
            Err((message, help)) => {
                terminal.fault(&message, Some(&help));
                return Ok(None);
            }
        },
    };
    match Manifest::load(&path, &arguments.overrides()) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(diagnostics) => {
            print(&diagnostics, terminal);
            Ok(None)
        }
    }
}

/// Prints what was found in a manifest.
pub fn print(diagnostics: &Diagnostics, terminal: &Terminal) {
    terminal.page(&diagnostics.render(terminal.has_colour));
    diagnostics.problems.iter().for_each(|problem| keep(problem, &diagnostics.texts, terminal));
}

/// Keeps a problem for a document of JSON, with its place: lines and columns (in characters) from 1, bytes from 0 in the
/// file without a byte-order mark, or in the `--set` argument.
fn keep(problem: &Problem, texts: &Texts, terminal: &Terminal) {
    let span = match (texts.location(problem.span), texts.text(problem.span)) {
        (Some(at), _) => serde_json::json!({
            "file": at.name, "line": at.line, "column": at.column,
            "start": problem.span.start, "end": problem.span.end,
        }),
        // A file without a line: it could not be read.
        (None, Some(text)) => serde_json::json!({ "file": text.name }),
        (None, None) => serde_json::Value::Null,
    };
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    terminal.keep_told(severity, &problem.message, problem.help.as_deref(), span);
    let at = texts.location(problem.span);
    if let Some(line) = annotations::github(severity, at.as_ref(), &problem.message, problem.help.as_deref()) {
        terminal.command(&line);
    }
}

/// The only `*.toml` in `dir` that has a `[stages…]` table.
pub fn only_manifest(dir: &Path) -> Result<PathBuf, (String, String)> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|error| (format!("cannot look for a manifest here: {error}"), "name one".to_owned()))?
        .filter_map(|entry| entry.ok().map(|entry| PathBuf::from(entry.file_name())))
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .filter(|path| {
            std::fs::read_to_string(dir.join(path))
                .is_ok_and(|text| text.lines().any(|line| line.trim_start().starts_with("[stages")))
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(("there is no manifest here".to_owned(), "name one, or write one with `convoy init`".to_owned())),
        many => {
            let names: Vec<String> = many.iter().map(|path| format!("`{}`", path.display())).collect();
            Err(("there are several manifests here".to_owned(), format!("name one of {}", names.join(", "))))
        }
    }
}

/// An error for programs: what happened, where, and what helps.
pub fn json_error(
    task: Option<&str>,
    message: &str,
    help: Option<&str>,
    span: Option<Span>,
    manifest: &Manifest,
) -> serde_json::Value {
    let at = span.filter(|span| *span != Span::default()).and_then(|span| manifest.texts.location(span));
    serde_json::json!({ "task": task, "message": message, "help": help, "at": at.map(|at| at.to_string()) })
}

/// Threads that a verb may use: what was asked for, else one per processor.
pub fn threads(places: &PlaceArguments) -> usize {
    places.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from)
}

/// Says `error: unknown stage …`, with "did you mean".
pub fn unknown_stage(manifest: &Manifest, name: &str, terminal: &Terminal) {
    let names = manifest.nodes.iter().map(|node| node.name.as_str());
    let help = crate::config::did_you_mean(name, names.clone())
        .unwrap_or_else(|| format!("the stages are `{}`", names.collect::<Vec<_>>().join("`, `")));
    terminal.fault(&format!("unknown stage `{name}`"), Some(&help));
}

/// Prints why nothing could be planned or run, with the manifest's line where a key is to blame.
pub fn run_error(error: &RunError, manifest: &Manifest, terminal: &Terminal) -> Exit {
    let (message, help, span, exit) = match error {
        RunError::Stage { stage, error } => {
            let at = manifest.stage(stage).zip(error.key.as_ref());
            let span = at.map(|(stage, key)| manifest.span_of(stage, key));
            (format!("stage `{stage}`: {}", error.message), error.help.clone(), span, Exit::Failed)
        }
        RunError::NameTaken { .. } => {
            let help = "give this manifest another `name`: lock file and reports are named after it";
            (error.to_string(), Some(help.to_owned()), None, Exit::Usage)
        }
        RunError::Store(error) => (error.to_string(), error.help(), None, Exit::Failed),
    };
    fault_at(&message, help.as_deref(), span, manifest, terminal);
    exit
}

/// Prints an error under the manifest's line that is to blame, if one is.
pub fn fault_at(message: &str, help: Option<&str>, span: Option<Span>, manifest: &Manifest, terminal: &Terminal) {
    match span {
        Some(span) if span != Span::default() => {
            let problem = Problem { help: help.map(str::to_owned), ..Problem::error(span, message.to_owned()) };
            terminal.page(&manifest.texts.render(&problem, terminal.has_colour));
            keep(&problem, &manifest.texts, terminal);
        }
        _ => terminal.fault(message, help),
    }
}
