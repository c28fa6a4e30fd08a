//! `check` and `summary`: what can be said of a manifest without touching a pixel.

use super::Exit;
use super::arguments::CheckArguments;
use super::locked::{self, difference_json, tell_compared};
use super::manifest::{diagnostics_json, load, print, run_error, threads};
use super::terminal::Terminal;
use crate::manifest::{Diagnostics, Looked, Manifest};
use crate::runner::{self, Difference, LockFile, Session, compared_lock};
use crate::store::Access;

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
