//! `runs`: what was run, when, with which keys changed since the run before, and what came of it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::Exit;
use super::arguments::RunsArguments;
use super::history::{self, RunRecord};
use super::terminal::Terminal;
use crate::artifact::evaluation::GateResult;
use crate::config::did_you_mean;
use crate::data::reader::classes::some_of;
use crate::report::compare::Results;
use crate::report::text::{COLUMNS, seconds, wrapped};
use crate::runner::{self, Difference};
use crate::store::{self, Access, Store};

/// So many keys are named of a run.
const MOST_KEYS: usize = 4;
/// So many runs are listed unless another number is asked for.
const MOST_RUNS: usize = 20;

/// `runs`.
pub fn runs(arguments: &RunsArguments, terminal: &Terminal) -> anyhow::Result<Exit> {
    let root = store::project_root(Path::new("."));
    let dir = runner::store_dir(&root, arguments.store.cache_dir.as_deref());
    let runs = Store::open(&dir, &root, Access::Look).and_then(|store| history::runs(&store));
    let mut runs = match runs {
        Ok(runs) => runs,
        Err(error) => {
            terminal.fault(&error.to_string(), error.help().as_deref());
            return Ok(Exit::Failed);
        }
    };
    if let Some(name) = &arguments.pipeline {
        let others: BTreeSet<String> = runs.iter().map(|run| run.pipeline.clone()).collect();
        runs.retain(|run| run.pipeline == *name || run.variant == *name);
        if runs.is_empty() && !others.is_empty() {
            let help = did_you_mean(name, others.iter().map(String::as_str))
                .unwrap_or_else(|| format!("there are runs of {}", some_of(others.iter().map(String::as_str))));
            terminal.fault(&format!("there is no run of `{name}`"), Some(&help));
            return Ok(Exit::Usage);
        }
    }
    let n = arguments.number.map_or(MOST_RUNS, |n| n as usize);
    if arguments.json {
        let all = runs.iter().enumerate().take(n).map(|(i, run)| {
            json!({
                "id": run.id(), "pipeline": run.pipeline, "variant": run.variant, "manifest": run.manifest,
                "overrides": run.overrides, "profile": run.profile, "git": run.git,
                "finished_unix_seconds": run.finished_unix_seconds, "seconds": run.seconds, "complete": run.complete,
                "computed": run.computed, "changed": changed(run, before(&runs, i)), "metrics": run.lock.metrics,
                "gates_passed": run.complete.then(|| run.gates.iter().all(|gate| gate.is_passed)), "convoy": run.convoy,
            })
        });
        terminal.json(json!({ "runs": all.collect::<Vec<_>>() }));
        return Ok(Exit::Done);
    }
    if runs.is_empty() {
        terminal.result("nothing was run yet\n");
    }
    for (i, run) in runs.iter().enumerate().take(n) {
        let git = run.git.as_ref().map(|git| {
            let dirty = if git.dirty { " and changes" } else { "" };
            format!(", at {}{dirty}", git.revision.get(..8).unwrap_or(&git.revision))
        });
        let how = if run.complete { String::new() } else { ", not complete".to_owned() };
        terminal.result(&format!(
            "{}  {}  {}: {} tasks computed in {}{how}{}\n",
            run.id(),
            utc(run.finished_unix_seconds),
            run.variant,
            run.computed,
            seconds(run.seconds),
            git.unwrap_or_default(),
        ));
        let changed = changed(run, before(&runs, i));
        let named: Vec<&str> = changed.iter().take(MOST_KEYS).map(String::as_str).collect();
        let more = changed.len().saturating_sub(MOST_KEYS);
        if !named.is_empty() {
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            indented(&format!("{}{more}", named.join("; ")), terminal);
        }
        let metrics = main_metrics(run);
        if !metrics.is_empty() {
            indented(&metrics.join("; "), terminal);
        }
        let failed = run.gates.iter().filter(|gate| !gate.is_passed);
        failed.for_each(|gate| indented(&gate_line(gate), terminal));
    }
    if runs.len() > n {
        terminal.note(&format!("and {} more; `--number N` lists more", runs.len() - n));
    }
    Ok(Exit::Done)
}

fn indented(text: &str, terminal: &Terminal) {
    for line in wrapped(text, COLUMNS - 4, "  ").lines() {
        terminal.result(&format!("    {line}\n"));
    }
}

fn gate_line(gate: &GateResult) -> String {
    let (measured, value) = (gate.measured(), gate.shown_value());
    format!("gate {measured} {} on {} of {}: {value}, FAILED", gate.expected, gate.split, gate.model)
}

/// The run of the same pipeline before the `i`-th of `runs`, which are sorted from the latest.
fn before(runs: &[RunRecord], i: usize) -> Option<&RunRecord> {
    runs[i + 1..].iter().find(|other| other.manifest == runs[i].manifest)
}

/// In what a run's keys, revisions and sources differ from those of the one before it.
fn changed(run: &RunRecord, before: Option<&RunRecord>) -> Vec<String> {
    let Some(before) = before else { return Vec::new() };
    let is_cause = |difference: &Difference| {
        matches!(difference, Difference::Setting(..) | Difference::Input(..) | Difference::Room(..))
    };
    let stages = |run: &RunRecord| run.lock.stages.keys().cloned().collect::<std::collections::BTreeSet<_>>();
    let (old, new) = (stages(before), stages(run));
    let mut all: Vec<String> = new.difference(&old).map(|stage| format!("`{stage}` is new")).collect();
    all.extend(old.difference(&new).map(|stage| format!("`{stage}` is gone")));
    all.extend(before.lock.compare(&run.lock).iter().filter(|d| is_cause(d)).map(ToString::to_string));
    all
}

/// The accuracy of what was evaluated, with its interval; without one, the first metric.
fn main_metrics(run: &RunRecord) -> Vec<String> {
    let results = Results::of_headline(&run.lock.metrics);
    let line = |((model, split), score): (&(String, String), &crate::report::compare::Score)| {
        let (metric, value) = score.metrics.get_key_value("accuracy").or_else(|| score.metrics.iter().next())?;
        let interval = value.interval.map(|(low, high)| format!(" [{low:.4}, {high:.4}]")).unwrap_or_default();
        Some(format!("{metric} of {model} on {split} {:.4}{interval}", value.value?))
    };
    results.scores.iter().filter_map(line).collect()
}

/// `2026-11-30 16:30:08 UTC`.
fn utc(unix_seconds: u64) -> String {
    let (days, rest) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // From days to the civil calendar, in eras of 400 years that begin in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_since_1970_are_shown_as_a_date() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_709_251_200), "2024-03-01 00:00:00 UTC");
        assert_eq!(utc(4_107_542_399), "2100-02-28 23:59:59 UTC");
    }
}
