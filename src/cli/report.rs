//! `report`: the reports of finished results, written anew; nothing is computed.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde_json::json;

use super::arguments::ReportArguments;
use super::manifest::{self, run_error, threads};
use super::results::Results;
use super::run::{self, Ran};
use super::terminal::Terminal;
use super::{Exit, export};
use crate::files::{self, RUN, document};
use crate::manifest::shown_path;
use crate::report::content;
use crate::report::outputs::{Noted, TIMINGS};
use crate::runner::{Options, Session, Silent, variant_name};
use crate::store::Access;

/// `report`.
pub fn report(arguments: &ReportArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let Some(manifest) = manifest::load_without_warnings(&arguments.manifest, terminal)? else {
        return Ok(Exit::Usage);
    };
    let places = &arguments.places;
    let session = match Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Write)
    {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let cancel = AtomicBool::new(false);
    let options = Options::new(threads(places), &cancel);
    let ran = session.plan(&options).and_then(|plan| match plan.is_fresh() {
        true => session.run(&options, &Silent).map(Ok),
        false => Ok(Err(plan)),
    });
    let outcome = match ran {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(plan)) => {
            let (n_fresh, n_tasks) = plan.count();
            let message = format!("{} of {n_tasks} tasks are not computed yet", n_tasks - n_fresh);
            let shown = export::run_arguments(&arguments.manifest, &shown_path(&manifest.path));
            terminal.fault(&message, Some(&format!("compute them first: `convoy run {shown}`")));
            return Ok(Exit::Stale);
        }
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let artifacts = run::open_artifacts(&outcome, &session, &|_, _| true)?;
    let finished = run::finished(&outcome, &artifacts);
    let results = Results::of(&finished, &manifest)?;
    let owners = run::owners(&outcome, &artifacts);
    let ran =
        Ran { session: &session, outcome: &outcome, results: &results, owners, threads: options.threads, started };
    let out = arguments.out_dir.clone().unwrap_or_else(|| session.store.base().join("out"));
    let out_dir = out.join(variant_name(&manifest));
    let Some(path) = &arguments.output else {
        run::write_reports(&out_dir, &finished, &ran, terminal)?;
        terminal.note(&format!("reports: {}/", shown_path(&out_dir)));
        if arguments.json {
            let files: Vec<String> = Noted::read(&out_dir).files.into_keys().collect();
            terminal.json(json!({ "pipeline": manifest.name, "folder": shown_path(&out_dir), "files": files }));
        }
        return Ok(Exit::Done);
    };
    let mut reports = run::reports(&out_dir, &finished, &ran)?;
    let [run::VariantReports { told, files: own, .. }] = &mut reports[..] else {
        let message = format!("`{}` has {} variants, and one page has room for one", manifest.name, reports.len());
        let help = format!("each has its own in `{}/VARIANT/`: leave `--output` out", shown_path(&out_dir));
        terminal.fault(&message, Some(&help));
        return Ok(Exit::Usage);
    };
    let times = arguments.times.then(|| last_run(&out_dir));
    let page = content::page(told, own, times.as_ref());
    files::replace(path, page.as_bytes(), false)?;
    terminal.note(&format!("report: {}", shown_path(path)));
    if arguments.json {
        let about = json!({ "pipeline": manifest.name, "path": shown_path(path), "bytes": page.len() });
        terminal.json(about);
    }
    Ok(Exit::Done)
}

/// What the files of a folder of reports tell of the run that wrote them; nothing where they cannot be read.
fn last_run(out_dir: &Path) -> content::Ran {
    #[derive(serde::Deserialize, Default)]
    struct Record {
        threads: Option<u64>,
        isa: Option<String>,
        seconds: Option<f64>,
    }
    let read = |name: &str| files::read_regular(&out_dir.join(name), document::MOST).unwrap_or_default();
    let record: Record = document::from_bytes(&read(RUN), None).unwrap_or_default();
    let timings = read(TIMINGS);
    let rows = csv::Reader::from_reader(&timings[..]).into_records().filter_map(Result::ok).filter_map(|row| {
        let seconds = row.get(3)?.parse().ok()?;
        Some((row.get(0)?.to_owned(), row.get(1)?.to_owned(), seconds))
    });
    content::Ran { threads: record.threads, isa: record.isa, seconds: record.seconds, tasks: rows.collect() }
}
