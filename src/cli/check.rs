//! `check` and `summary`: what can be said of a manifest without touching a pixel.

use std::path::{Path, PathBuf};

use super::Exit;
use super::arguments::{CheckArguments, ManifestArguments};
use super::locked::{self, difference_json, tell_compared};
use super::run::{run_error, threads};
use super::terminal::Terminal;
use crate::config::{Problem, Severity};
use crate::manifest::{Diagnostics, Looked, Manifest};
use crate::runner::{self, Difference, LockFile, Session, compared_lock};
use crate::store::Access;

/// The manifest that the arguments name, checked; `None` after its problems have been printed, with `is_json` on stdout, too.
pub fn load(arguments: &ManifestArguments, is_json: bool, terminal: &Terminal) -> anyhow::Result<Option<Manifest>> {
    let manifest = load_without_warnings(arguments, is_json, terminal)?;
    if let Some(manifest) = manifest.as_ref().filter(|manifest| !manifest.warnings.is_empty()) {
        print(&manifest.diagnostics(), terminal);
    }
    Ok(manifest)
}

/// The same, for verbs that use what a run made: the run has said its warnings.
pub fn load_without_warnings(
    arguments: &ManifestArguments,
    is_json: bool,
    terminal: &Terminal,
) -> anyhow::Result<Option<Manifest>> {
    let path = match &arguments.manifest {
        Some(path) => path.clone(),
        None => match only_manifest(Path::new(".")) {
            Ok(path) => path,
            Err((message, help)) => {
                terminal.fault(&message, Some(&help));
                if is_json {
                    let problem =
                        serde_json::json!({ "severity": "error", "reason": message, "help": help, "span": null });
                    terminal.json(serde_json::json!({ "ok": false, "errors": 1, "diagnostics": [problem] }));
                }
                return Ok(None);
            }
        },
    };
    match Manifest::load(&path, &arguments.overrides()) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(diagnostics) => {
            print(&diagnostics, terminal);
            if is_json {
                terminal.json(diagnostics_json(&diagnostics));
            }
            Ok(None)
        }
    }
}

fn print(diagnostics: &Diagnostics, terminal: &Terminal) {
    terminal.page(&diagnostics.render(terminal.has_colour));
}

/// Everything that was found, each with its place: lines and columns (in characters) from 1, bytes from 0 in the file without a
/// byte-order mark, or in the `--set` argument.
fn diagnostics_json(diagnostics: &Diagnostics) -> serde_json::Value {
    let problem = |problem: &Problem| {
        let span = diagnostics.texts.location(problem.span).map(|at| {
            serde_json::json!({
                "file": at.name, "line": at.line, "column": at.column,
                "start": problem.span.start, "end": problem.span.end,
            })
        });
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        serde_json::json!({ "severity": severity, "reason": problem.message, "help": problem.help, "span": span })
    };
    serde_json::json!({
        "ok": diagnostics.n_errors() == 0,
        "errors": diagnostics.n_errors(),
        "warnings": diagnostics.n_warnings(),
        "diagnostics": diagnostics.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

/// The only `*.toml` in `dir` that has a `[stages…]` table.
fn only_manifest(dir: &Path) -> Result<PathBuf, (String, String)> {
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

/// `check`.
pub fn check(arguments: &CheckArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = load(&arguments.manifest, arguments.json, terminal)? else { return Ok(Exit::Usage) };
    if arguments.locked {
        return locked(arguments, &manifest, terminal);
    }
    let places = runner::places(&manifest, arguments.places.data_dir.as_deref());
    let looked = match arguments.data {
        true => manifest.look(&places),
        // Manifests are checked where their data is not, too.
        false => Looked { problems: manifest.absent_sources(&places), ..Looked::default() },
    };
    let found = Diagnostics::new(looked.problems, manifest.texts.clone());
    if !found.problems.is_empty() {
        print(&found, terminal);
    }
    let is_well = found.n_errors() == 0;
    if arguments.json {
        let all = manifest.diagnostics().problems.into_iter().chain(found.problems).collect();
        let mut json = diagnostics_json(&Diagnostics::new(all, manifest.texts.clone()));
        json["manifest"] = crate::manifest::shown_path(&manifest.path).into();
        json["stages"] = manifest.n_stages().into();
        let data: serde_json::Map<String, serde_json::Value> =
            looked.told.into_iter().map(|(stage, told)| (stage, told.into())).collect();
        json["data"] = data.into();
        terminal.json(json);
    } else if is_well {
        terminal.result(&format!(
            "{}: {} stages, no errors\n",
            crate::manifest::shown_path(&manifest.path),
            manifest.n_stages()
        ));
        looked.told.iter().for_each(|(stage, told)| terminal.result(&format!("{stage}: {told}\n")));
    }
    Ok(if is_well { Exit::Done } else { Exit::Usage })
}

/// `check --locked`: whether a run would come to what the lock file says, as far as manifest, lock file and records tell.
fn locked(arguments: &CheckArguments, manifest: &Manifest, terminal: &Terminal) -> anyhow::Result<Exit> {
    let places = &arguments.places;
    let opened = Session::open(manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look);
    let session = match opened {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, manifest, arguments.json, terminal)),
    };
    let path = compared_lock(manifest);
    tell_compared(manifest, &path, terminal);
    let shown = crate::manifest::shown_path(&path);
    let (message, help) = match locked::read(&path) {
        Ok(lock) => return compare(&session, &lock, &shown, arguments, terminal),
        Err(wrong) => wrong,
    };
    terminal.fault(&message, Some(&help));
    if arguments.json {
        let error = serde_json::json!({ "message": message, "help": help });
        terminal.json(serde_json::json!({ "ok": false, "lock": shown, "error": error }));
    }
    Ok(Exit::Stale)
}

fn compare(
    session: &Session<'_>,
    lock: &LockFile,
    shown: &str,
    arguments: &CheckArguments,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let manifest = session.manifest;
    let differences = match session.compare_with_lock(lock, arguments.inputs, threads(&arguments.places)) {
        Ok(differences) => differences,
        Err(error) => return Ok(run_error(&error, manifest, arguments.json, terminal)),
    };
    if arguments.json {
        let found: Vec<serde_json::Value> = differences.iter().map(|d| difference_json(d, manifest)).collect();
        let ok = differences.is_empty();
        terminal.json(serde_json::json!({ "ok": ok, "lock": shown, "differences": found }));
        return Ok(if ok { Exit::Done } else { Exit::Stale });
    }
    for difference in &differences {
        terminal.result(&format!("{shown}: {difference}\n"));
        if let Difference::Setting(.., Some(span)) = difference
            && let Some(at) = manifest.texts.location(*span)
        {
            terminal.result(&format!("  --> {at}\n"));
        }
    }
    if differences.is_empty() {
        let n_tasks = lock.tasks.len();
        terminal.result(&format!("{shown}: {n_tasks} tasks, nothing differs as far as manifest and records tell\n"));
    }
    Ok(if differences.is_empty() { Exit::Done } else { Exit::Stale })
}
