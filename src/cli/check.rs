//! `check` and `summary`: what can be said of a manifest without touching a pixel.

use std::path::{Path, PathBuf};

use super::Exit;
use super::arguments::{CheckArguments, ManifestArguments, PlaceArguments};
use super::run::{difference_json, run_error, tell_compared, threads};
use super::terminal::Terminal;
use crate::artifact::dataset::{NAMES_FILES, SUMMARY_FILES, Summary};
use crate::config::{Problem, Severity};
use crate::manifest::{Diagnostics, Manifest, Seen, Texts};
use crate::report;
use crate::runner::{self, Difference, LockFile, Session, compared_lock};
use crate::stages::{Glance, Places, StageError};
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

/// Keeps a problem for a document of JSON, with its place: lines and columns (in characters) from 1, bytes from 0 in the file
/// without a byte-order mark, or in the `--set` argument.
pub fn keep(problem: &Problem, texts: &Texts, terminal: &Terminal) {
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

/// `check`.
pub fn check(arguments: &CheckArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Some(manifest) = load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    if arguments.locked {
        return locked(arguments, &manifest, terminal);
    }
    let places = runner::places(&manifest, arguments.places.data_dir.as_deref());
    let stored = Stored::open(&manifest, &arguments.places, terminal);
    let mut looked = manifest.look(&|stage| match arguments.data {
        true => {
            manifest.nodes[stage].stage.sources(&places)?;
            stored.see(stage).map_or_else(|| glance(&manifest, stage, &places), |seen| Ok(Some(seen)))
        }
        false => Ok(stored.see(stage)),
    });
    if !arguments.data {
        // Manifests are checked where their data is not, too.
        looked.problems.extend(manifest.absent_sources(&places));
    }
    let found = Diagnostics::new(looked.problems, manifest.texts.clone());
    if !found.problems.is_empty() {
        print(&found, terminal);
    }
    let is_well = found.n_errors() == 0;
    if arguments.json {
        let data: serde_json::Map<String, serde_json::Value> =
            looked.told.into_iter().map(|(stage, told)| (stage, told.into())).collect();
        let (errors, warnings) = terminal.n_told();
        terminal.json(serde_json::json!({
            "ok": is_well, "errors": errors, "warnings": warnings, "data": data,
            "manifest": crate::manifest::shown_path(&manifest.path), "stages": manifest.n_stages(),
        }));
    } else if is_well {
        terminal.result(&format!(
            "{}: {} stages, no errors\n",
            crate::manifest::shown_path(&manifest.path),
            manifest.n_stages()
        ));
        looked.told.iter().for_each(|(stage, told)| terminal.prose(&format!("{stage}: {told}\n")));
    }
    Ok(if is_well { Exit::Done } else { Exit::Usage })
}

/// Lists the sources of a stage (by index) and looks at a few of their images.
///
/// # Errors
/// If they are not there, and what would end the stage, as far as the look tells.
pub fn glance(manifest: &Manifest, stage: usize, places: &Places) -> Result<Option<Seen>, StageError> {
    let stage = &manifest.nodes[stage].stage;
    stage.sources(places)?;
    Ok(stage.glance(places)?.map(|glance| {
        let told = report::dataset::glance_line(&glance);
        (glance, told)
    }))
}

/// What the store knows of a manifest's data sets.
pub struct Stored<'m> {
    session: Option<Session<'m>>,
    threads: usize,
}

impl<'m> Stored<'m> {
    /// Opens the store to look at it; one that cannot be opened is told of, and knows nothing.
    pub fn open(manifest: &'m Manifest, places: &PlaceArguments, terminal: &Terminal) -> Stored<'m> {
        let opened = Session::open(manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look);
        let session = opened.map_err(|error| terminal.warning(&error.to_string())).ok();
        Stored { session, threads: threads(places) }
    }

    /// What the data set is like that a stage made; nothing if it would make another one today.
    pub fn see(&self, stage: usize) -> Option<Seen> {
        let session = self.session.as_ref()?;
        let files = [NAMES_FILES, SUMMARY_FILES].concat();
        // Whoever needs the data set hears what is wrong with the store.
        let files = session.stored_dataset(stage, &files, self.threads).ok()??;
        let summary = Summary::read(&files).ok()?;
        Some((Glance::of_dataset(&files).ok()?, report::dataset::line(&summary)))
    }
}

/// `check --locked`: whether a run would come to what the lock file says, as far as manifest, lock file and records tell.
fn locked(arguments: &CheckArguments, manifest: &Manifest, terminal: &Terminal) -> anyhow::Result<Exit> {
    let places = &arguments.places;
    let opened = Session::open(manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Look);
    let session = match opened {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, manifest, terminal)),
    };
    let path = compared_lock(manifest);
    tell_compared(manifest, &path, terminal);
    let shown = crate::manifest::shown_path(&path);
    let (message, help) = match LockFile::read(&path) {
        Ok(Some(lock)) => return compare(&session, &lock, &shown, arguments, terminal),
        Ok(None) => (format!("there is no lock file `{shown}`"), "write it with `convoy run`"),
        Err(message) => (format!("`{shown}`: {message}"), "restore it, or write it anew with `convoy run --relock`"),
    };
    terminal.fault(&message, Some(help));
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
        Err(error) => return Ok(run_error(&error, manifest, terminal)),
    };
    if arguments.json {
        let found: Vec<serde_json::Value> = differences.iter().map(|d| difference_json(d, manifest)).collect();
        let ok = differences.is_empty();
        terminal.json(serde_json::json!({ "ok": ok, "lock": shown, "differences": found }));
        return Ok(if ok { Exit::Done } else { Exit::Stale });
    }
    for difference in &differences {
        terminal.prose(&format!("{shown}: {difference}\n"));
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
