//! `check` and `summary`: what can be said of a manifest without touching a pixel.

use super::arguments::{CheckArguments, PlaceArguments};
use super::locked::{self, difference_json, tell_compared};
use super::manifest::{load, print, run_error, threads};
use super::terminal::Terminal;
use super::{Exit, annotations, gates};
use crate::artifact::dataset::{NAMES_FILES, SUMMARY_FILES, Summary};
use crate::manifest::{Diagnostics, Manifest, Overrides, Seen};
use crate::report;
use crate::report::text::counted;
use crate::runner::{self, Difference, LockFile, Session, SourcesFrom, compared_lock};
use crate::stages::{Glance, Places, StageError};
use crate::store::Access;

/// `check`.
pub fn check(arguments: &CheckArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let exit = checked(arguments, terminal)?;
    if let Some(path) = &arguments.code_quality {
        let manifest = arguments.manifest.manifest.as_deref().map(crate::manifest::shown_path);
        let bytes = annotations::code_quality(&terminal.diagnostics(), manifest.as_deref().unwrap_or("."));
        crate::files::replace(path, &bytes, false)?;
    }
    Ok(exit)
}

fn checked(arguments: &CheckArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
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
    let store = stored.session.as_ref().map(|session| &session.store);
    looked.problems.extend(gates::read(&manifest, store, &places).1);
    let found = Diagnostics::new(looked.problems, manifest.texts.clone());
    if !found.problems.is_empty() {
        print(&found, terminal);
    }
    // What a profile puts in is checked as if it were asked for.
    let own = arguments.manifest.overrides();
    let profiles = manifest.profiles.iter().filter(|_| own.profile.is_none());
    let mut n_errors = found.n_errors();
    for name in profiles {
        let with = Overrides { profile: Some(name.clone()), ..own.clone() };
        if let Err(wrong) = Manifest::load(&manifest.path, &with) {
            print(&wrong, terminal);
            n_errors += wrong.n_errors();
        }
    }
    let is_well = n_errors == 0;
    if arguments.json {
        let data: serde_json::Map<String, serde_json::Value> =
            looked.told.into_iter().map(|(stage, told)| (stage, told.into())).collect();
        let (errors, warnings) = terminal.n_told();
        terminal.json(serde_json::json!({
            "ok": is_well, "errors": errors, "warnings": warnings, "data": data,
            "manifest": crate::manifest::shown_path(&manifest.path), "stages": manifest.n_stages(),
            "variants": manifest.combinations.len(),
        }));
    } else if is_well {
        let variants = match manifest.combinations.len() {
            _ if !manifest.has_variants() => String::new(),
            1 => " in 1 variant".to_owned(),
            n => format!(" in {n} variants"),
        };
        let shown = crate::manifest::shown_path(&manifest.path);
        let stages = counted(manifest.n_stages() as u64, "stage", "stages");
        terminal.result(&format!("{shown}: {stages}{variants}, no errors\n"));
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
    let sources = if arguments.inputs { SourcesFrom::Disk } else { SourcesFrom::Lock };
    let mut differences = match session.compare_with_lock(lock, sources, threads(&arguments.places)) {
        Ok(differences) => differences,
        Err(error) => return Ok(run_error(&error, manifest, terminal)),
    };
    if differences.is_empty() {
        differences = locked::edited(lock, session);
    }
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
