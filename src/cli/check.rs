//! `check` and `summary`: what can be said of a manifest without touching a pixel.

use std::path::{Path, PathBuf};

use super::Exit;
use super::arguments::{CheckArguments, ManifestArguments};
use super::run::{run_error, threads};
use super::terminal::Terminal;
use crate::manifest::{Diagnostics, Looked, Manifest};
use crate::runner::{self, Difference, LockFile, Session};
use crate::store::Access;

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
            Err(message) => {
                terminal.note(&format!("{} {message}", terminal.paint("error:", super::terminal::RED)));
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

fn print(diagnostics: &Diagnostics, terminal: &Terminal) {
    terminal.page(&diagnostics.render(terminal.has_colour));
}

/// The only `*.toml` in `dir` that has a `[stages…]` table.
fn only_manifest(dir: &Path) -> Result<PathBuf, String> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|error| format!("cannot look for a manifest here: {error}"))?
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
        [] => Err("no manifest here: name one, or write one with `convoy init`".to_owned()),
        many => {
            let names: Vec<String> = many.iter().map(|path| format!("`{}`", path.display())).collect();
            Err(format!("several manifests here, name one of {}", names.join(", ")))
        }
    }
}

/// `check`.
pub fn check(arguments: &CheckArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = load(&arguments.manifest, terminal)? else {
        if arguments.json {
            terminal.result("{\"ok\":false}\n");
        }
        return Ok(Exit::Usage);
    };
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
        let n_warnings = manifest.warnings.len() + found.n_warnings();
        let data: serde_json::Map<String, serde_json::Value> =
            looked.told.into_iter().map(|(stage, told)| (stage, told.into())).collect();
        let json = serde_json::json!({ "ok": is_well, "warnings": n_warnings, "data": data });
        terminal.result(&format!("{json}\n"));
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
        Err(error) => return Ok(run_error(&error, manifest, terminal)),
    };
    let path = &session.graph.lock_path;
    let shown = crate::manifest::shown_path(path);
    let lock = match LockFile::read(path) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            terminal.fault(&format!("there is no lock file `{shown}`"), Some("write it with `convoy run`"));
            return Ok(Exit::Stale);
        }
        Err(message) => {
            terminal.fault(
                &format!("`{shown}`: {message}"),
                Some("restore it, or write it anew with `convoy run --relock`"),
            );
            return Ok(Exit::Stale);
        }
    };
    let differences = match session.compare_with_lock(&lock, arguments.inputs, threads(places)) {
        Ok(differences) => differences,
        Err(error) => return Ok(run_error(&error, manifest, terminal)),
    };
    if arguments.json {
        let found: Vec<serde_json::Value> = differences
            .iter()
            .map(|difference| match difference {
                Difference::Setting(stage, key, old, new, span) => serde_json::json!({
                    "stage": stage, "key": key, "old": old, "new": new, "text": difference.to_string(),
                    "at": span.and_then(|span| manifest.texts.location(span)).map(|at| at.to_string()),
                }),
                _ => serde_json::json!({ "text": difference.to_string() }),
            })
            .collect();
        let ok = differences.is_empty();
        terminal.result(&format!("{}\n", serde_json::json!({ "ok": ok, "lock": shown, "differences": found })));
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
