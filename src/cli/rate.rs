//! `selftest rate`: the learning-rate range test, as a picture, a table and a line to write.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Exit;
use super::arguments::RateArguments;
use super::manifest::{self, run_error, threads};
use super::progress::{Progress, Told};
use super::run::{Watcher, report_failures, stop_on_signals};
use super::terminal::Terminal;
use crate::config::shortest;
use crate::manifest::Manifest;
use crate::report::svg::{Axis, Chart, Figure, Guide, Plot, Series, categorical};
use crate::report::text::{Align, aligned};
use crate::runner::{Options, RepeatError, Session};
use crate::stages::train::rate::{RateRange, RateStep, advised};
use crate::store::Access;

/// Rows of the table.
const ROWS: usize = 16;

/// `selftest rate`.
pub fn rate(arguments: &RateArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let range = RateRange { from: arguments.from, to: arguments.to, n_steps: arguments.steps };
    if !(range.from > 0.0 && range.to > range.from && range.to.is_finite()) {
        let message = format!("rates go from {} to {}", range.from, range.to);
        terminal.fault(&message, Some("`--from` is above 0, `--to` is larger"));
        return Ok(Exit::Usage);
    }
    let Some(manifest) = manifest::load(&arguments.manifest, terminal)? else { return Ok(Exit::Usage) };
    let stage = match stage_of(&manifest, arguments.stage.as_deref()) {
        Ok(stage) => stage,
        Err((message, help)) => {
            terminal.fault(&message, Some(&help));
            return Ok(Exit::Usage);
        }
    };
    let places = &arguments.places;
    let opened = Session::open(&manifest, places.data_dir.as_deref(), places.cache_dir.as_deref(), Access::Write);
    let session = match opened {
        Ok(session) => session,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signals(&cancel)?;
    let n_threads = threads(places);
    // What it reads is computed and kept, as a run would; all of it is opened, so that it has to be here.
    let above = manifest.nodes[stage].inputs.clone();
    let options = Options { targets: Some(above), reads: Some(&|_, _, _| true), ..Options::new(n_threads, &cancel) };
    let progress = Progress::new(*terminal, arguments.quiet);
    let outcome = match session.run(&options, &Watcher { progress: &progress }) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    report_failures(&outcome, &manifest, terminal);
    if !outcome.is_complete() {
        return Ok(if outcome.is_interrupted { Exit::Interrupted } else { Exit::Failed });
    }
    let plan = match session.plan_of(vec![stage], n_threads, &cancel) {
        Ok(plan) => plan,
        Err(error) => return Ok(run_error(&error, &manifest, terminal)),
    };
    let name = &manifest.nodes[stage].name;
    let task = format!("{name} (rates)");
    progress.begin(Told { task: &task, stage: name, is_trial: false }, "");
    let told = |done: u64, total: u64, unit: &str, note: &str| progress.update(&task, done, total, unit, note);
    let found = session.rate_range(&plan, stage, range, (n_threads, &cancel), &told);
    progress.end(&task, if found.is_ok() { "done" } else { "failed" });
    progress.finish();
    drop(progress);
    let steps = match found {
        Ok(Some(steps)) if !steps.is_empty() => steps,
        Ok(_) => {
            terminal.fault(&format!("stage `{name}` has no task of its own that trains"), Some("name another stage"));
            return Ok(Exit::Usage);
        }
        Err(RepeatError::Cancelled) => return Ok(Exit::Interrupted),
        Err(error) => {
            terminal.fault(&format!("stage `{name}`: {error}"), None);
            return Ok(Exit::Failed);
        }
    };
    let path = arguments.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}-rate.svg")));
    crate::files::replace(&path, &figure(name, &steps, range.n_steps).to_svg(), false)?;
    let advised = advised(&steps, range.n_steps);
    let has_exploded = (steps.len() as u64) < range.n_steps;
    if arguments.json {
        let rows: Vec<serde_json::Value> = steps
            .iter()
            .map(|step| serde_json::json!({ "rate": step.rate, "loss": step.loss, "smoothed": step.smoothed }))
            .collect();
        terminal.json(serde_json::json!({
            "stage": name, "learning_rate": advised, "exploded": has_exploded, "picture": path.display().to_string(),
            "steps": rows,
        }));
        return Ok(Exit::Done);
    }
    terminal.result(&table(&steps));
    if let (Some(last), true) = (steps.last(), has_exploded) {
        terminal.result(&format!("stopped after {} updates: the loss exploded at {:.1e}\n", steps.len(), last.rate));
    }
    terminal.result(&format!("picture: {}\n", path.display()));
    match advised {
        Some(rate) => terminal.prose(&format!(
            "write `learning_rate = {}` in [stages.{name}]: a tenth of where the smoothed loss was smallest\n",
            shortest(rate)
        )),
        None => terminal.prose(
            "the loss never fell: no rate of these suits the network; `convoy selftest training` looks for the reason\n",
        ),
    }
    Ok(Exit::Done)
}

/// The stage that is meant, by index; else what is wrong, and what would help.
fn stage_of(manifest: &Manifest, wanted: Option<&str>) -> Result<usize, (String, String)> {
    let trains = |stage: &usize| manifest.nodes[*stage].stage.kind() == "train";
    let all: Vec<usize> = (0..manifest.nodes.len()).filter(trains).collect();
    let names: Vec<String> = all.iter().map(|&stage| format!("`{}`", manifest.nodes[stage].name)).collect();
    let known = match names.is_empty() {
        true => "add a train stage".to_owned(),
        false => format!("train stages: {}", names.join(", ")),
    };
    match (wanted, &all[..]) {
        (None, [one]) => Ok(*one),
        (None, []) => Err(("no stage trains a network".to_owned(), known)),
        (None, _) => Err(("several stages train a network".to_owned(), format!("name one; {known}"))),
        (Some(wanted), all) => {
            let found = all.iter().find(|&&stage| manifest.nodes[stage].name == wanted);
            found.copied().ok_or_else(|| (format!("there is no train stage `{wanted}`"), known))
        }
    }
}

fn table(steps: &[RateStep]) -> String {
    let n = steps.len().min(ROWS);
    let picked = (0..n).map(|i| &steps[if n == 1 { 0 } else { i * (steps.len() - 1) / (n - 1) }]);
    let rows: Vec<Vec<String>> = picked
        .map(|step| vec![format!("{:.1e}", step.rate), format!("{:.4}", step.loss), format!("{:.4}", step.smoothed)])
        .collect();
    aligned(&["learning rate", "loss", "smoothed"], &[Align::Right, Align::Right, Align::Right], &rows)
}

fn figure(name: &str, steps: &[RateStep], n_steps: u64) -> Figure {
    let points = |of: fn(&RateStep) -> f64| -> Vec<(f64, f64)> {
        steps.iter().map(|step| (step.rate, of(step))).filter(|(_, y)| y.is_finite()).collect()
    };
    let smoothed = points(|step| step.smoothed);
    let lows = steps.iter().flat_map(|step| [step.loss, step.smoothed]).filter(|loss| loss.is_finite());
    let (low, first) = (lows.fold(f64::INFINITY, f64::min), smoothed.first().map_or(1.0, |(_, y)| *y));
    // What exploded is not what is looked at.
    let y = Axis::linear("cross-entropy (nats)").within(low.min(first) * 0.9, first * 1.5);
    let mut plot = Plot::new("loss while the rate grows", Axis::log("learning rate"), y);
    plot.series.push(Series::dots("batch", categorical(1), points(|step| step.loss)));
    plot.series.push(Series::line("smoothed", categorical(0), smoothed));
    if let Some(rate) = advised(steps, n_steps) {
        plot.guides.push(Guide { at: rate, name: format!("{} to begin with", shortest(rate)) });
    }
    let mut figure = Figure::new(format!("{name}: learning rate range test"), "one dot an update (Smith 2017)");
    figure.columns = 1;
    figure.charts.push(Chart::Plot(plot));
    figure
}
