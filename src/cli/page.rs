//! A run as a page of Markdown, for the summary of a job: the verdict first, then metrics beside the lock file, gates, what ran and
//! why, data, warnings, pictures.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::artifact::sanity::Status;
use crate::report::compare::{self, MetricChange, shown_pair};
use crate::report::dataset::line;
use crate::report::markdown::code;
use crate::report::summary::{How, Summary};

/// The page is cut after so many bytes, at the end of a line.
const MOST: usize = 60_000;
/// So many rows of a table are shown.
const MOST_ROWS: usize = 40;

/// The page.
pub fn markdown(summary: &Summary) -> String {
    let mut text = format!("## {}: {}\n", code(&summary.report.pipeline), verdict(summary));
    errors(&mut text, summary);
    match &summary.against {
        Some(against) => beside(&mut text, &against.lock, &against.changes),
        None => scores(&mut text, summary),
    }
    gates(&mut text, summary);
    tasks(&mut text, summary);
    let failed = summary.report.checks.iter().filter(|check| check.status != Status::Passed);
    list(
        &mut text,
        "Checks",
        failed.map(|check| format!("{} {}: {}", check.stage, check.check, check.message)).collect(),
    );
    list(
        &mut text,
        "Data",
        summary.report.datasets.iter().map(|(stage, data)| format!("{stage}: {}", line(data))).collect(),
    );
    list(
        &mut text,
        "Warnings",
        summary.report.warnings.iter().map(|(stage, told)| format!("{stage}: {told}")).collect(),
    );
    list(&mut text, "Pictures", summary.pictures.clone());
    let own = &summary.provenance;
    let git = own.git.as_ref().map(|(revision, is_dirty)| {
        let dirty = if *is_dirty { ", with changed files" } else { "" };
        format!(", Git {}{dirty}", code(revision.get(..12).unwrap_or(revision)))
    });
    let profile = own.profile.as_ref().map(|profile| format!(", profile {}", code(profile))).unwrap_or_default();
    let sets: Vec<String> = own.overrides.iter().map(|set| code(set)).collect();
    let sets = if sets.is_empty() { String::new() } else { format!(", set {}", sets.join(", ")) };
    let git = git.unwrap_or_default();
    let _ = writeln!(text, "\nConvoy {}, {}{profile}{sets}{git}", own.convoy, code(&own.manifest));
    cut(text)
}

fn verdict(summary: &Summary) -> String {
    let n_failed = summary.tasks.iter().filter(|task| matches!(task.ended, How::Failed(_))).count();
    let (n_gates, n_bad) =
        (summary.report.gates().count(), summary.report.gates().filter(|gate| !gate.is_passed).count());
    let word = match summary.exit_code {
        0 => "passed",
        1 if n_failed > 0 => "failed",
        3 => "the lock file is stale or missing",
        4 => "the same inputs gave other bytes",
        5 => "the store is damaged",
        6 => "gates failed",
        130 => "interrupted",
        _ => "failed",
    };
    let mark = if summary.exit_code == 0 { "✅" } else { "❌" };
    let mut text = format!("{mark} {word}");
    if n_failed > 0 {
        let _ = write!(text, ", {n_failed} of {} tasks failed", summary.tasks.len());
    }
    if n_gates > 0 {
        let _ = write!(text, ", {} of {n_gates} gates passed", n_gates - n_bad);
    }
    text
}

fn errors(text: &mut String, summary: &Summary) {
    let failed = summary.tasks.iter().filter_map(|task| match &task.ended {
        How::Failed(why) => Some(format!("{} {}: {why}", task.stage, task.part)),
        _ => None,
    });
    let all: Vec<String> = summary.errors.iter().cloned().chain(failed).collect();
    text.push_str(if all.is_empty() { "" } else { "\n" });
    for error in all.iter().take(MOST_ROWS) {
        let _ = writeln!(text, "- {}", code(error));
    }
    more(text, all.len());
}

/// The metrics beside those of the lock file.
fn beside(text: &mut String, lock: &str, changes: &[MetricChange]) {
    let n_same = changes.iter().filter(|change| change.is_same()).count();
    let _ = writeln!(text, "\n### Metrics beside {}", code(lock));
    if changes.is_empty() {
        text.push_str("\nThere are none.\n");
        return;
    }
    if n_same == changes.len() {
        text.push_str("\nAll equal.\n");
    }
    text.push_str("\n| model | split | metric | lock | this run | n | |\n|---|---|---|---:|---:|---:|---|\n");
    // What moved comes first.
    let mut sorted: Vec<&MetricChange> = changes.iter().collect();
    sorted.sort_by_key(|change| change.is_same());
    for change in sorted.iter().take(MOST_ROWS) {
        let value = |side: Option<compare::Value>| side.and_then(|side| side.value);
        let (old, new) = shown_pair(value(change.old), value(change.new));
        let new = with_interval(new, change.new.and_then(|side| side.interval));
        let n = change.new_n.or(change.old_n).map(|n| n.to_string()).unwrap_or_default();
        let judged = match &change.judged {
            Some(judged) => judged.to_string(),
            None if change.is_same() => "equal".to_owned(),
            None if change.old.is_none() => "new".to_owned(),
            None if change.new.is_none() => "gone".to_owned(),
            None => "noise not known here".to_owned(),
        };
        let judged = if change.is_worse_beyond_noise() { format!("**worse**, {judged}") } else { judged };
        let at = [&change.model, &change.split, &change.metric].map(|text| code(text)).join(" | ");
        let _ = writeln!(text, "| {at} | {old} | {new} | {n} | {judged} |");
    }
    more(text, sorted.len());
}

fn scores(text: &mut String, summary: &Summary) {
    let rows = summary.report.evaluations.iter().flat_map(|(_, evaluation)| &evaluation.scores).flat_map(|score| {
        score.metrics.iter().map(move |(metric, value)| {
            let own = if metric == "accuracy" { score.accuracy_interval } else { None };
            let shown = value.map_or_else(|| "no value".to_owned(), |value| format!("{value:.4}"));
            let shown = with_interval(shown, own.or_else(|| score.intervals.get(metric).copied()));
            let at = [&score.model, &score.split, metric].map(|text| code(text)).join(" | ");
            format!("| {at} | {shown} | {} |", score.n)
        })
    });
    let rows: Vec<String> = rows.collect();
    if rows.is_empty() {
        return;
    }
    text.push_str("\n### Metrics\n\nThere is no lock file to compare with.\n");
    text.push_str("\n| model | split | metric | value | n |\n|---|---|---|---:|---:|\n");
    for row in rows.iter().take(MOST_ROWS) {
        let _ = writeln!(text, "{row}");
    }
    more(text, rows.len());
}

fn with_interval(shown: String, interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("{shown} [{low:.4}, {high:.4}]"),
        None => shown,
    }
}

fn gates(text: &mut String, summary: &Summary) {
    let mut gates: Vec<_> = summary.report.gates().collect();
    if gates.is_empty() {
        return;
    }
    gates.sort_by_key(|gate| gate.is_passed);
    text.push_str("\n### Gates\n\n| | gate | model | split | expected | value |\n|---|---|---|---|---|---|\n");
    for gate in gates.iter().take(MOST_ROWS) {
        let mark = if gate.is_passed { "passed" } else { "**FAILED**" };
        let at = [&gate.measured(), &gate.model, &gate.split, &gate.expected].map(|text| code(text)).join(" | ");
        let _ = writeln!(text, "| {mark} | {at} | {} |", gate.shown_value());
    }
    more(text, gates.len());
}

/// How many tasks of each stage were computed, and why.
fn tasks(text: &mut String, summary: &Summary) {
    if summary.tasks.is_empty() {
        return;
    }
    let n = summary.tasks.iter().filter(|task| task.ended == How::Computed).count();
    let _ = writeln!(text, "\n### What ran\n\n{n} of {} tasks computed.", summary.tasks.len());
    let mut stages: Vec<(&str, usize, BTreeMap<&str, usize>)> = Vec::new();
    for task in summary.tasks.iter().filter(|task| task.ended == How::Computed) {
        let at = match stages.iter().position(|(stage, ..)| *stage == task.stage) {
            Some(at) => at,
            None => {
                stages.push((&task.stage, 0, BTreeMap::new()));
                stages.len() - 1
            }
        };
        stages[at].1 += 1;
        task.reasons.iter().for_each(|reason| *stages[at].2.entry(reason).or_default() += 1);
    }
    text.push_str(if stages.is_empty() { "" } else { "\n| stage | tasks | why |\n|---|---:|---|\n" });
    for (stage, n, reasons) in stages.iter().take(MOST_ROWS) {
        let mut why: Vec<String> = reasons.keys().take(3).map(|reason| code(reason)).collect();
        if reasons.len() > 3 {
            why.push(format!("{} more reasons", reasons.len() - 3));
        }
        let _ = writeln!(text, "| {} | {n} | {} |", code(stage), why.join("; "));
    }
    more(text, stages.len());
}

fn list(text: &mut String, title: &str, items: Vec<String>) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n### {title}\n");
    for item in items.iter().take(MOST_ROWS) {
        let _ = writeln!(text, "- {}", code(item));
    }
    more(text, items.len());
}

fn more(text: &mut String, n: usize) {
    if n > MOST_ROWS {
        let _ = writeln!(text, "\n… and {} more", n - MOST_ROWS);
    }
}

/// At most so many bytes, whole lines.
fn cut(mut text: String) -> String {
    const NOTE: &str = "\n… the page is cut here\n";
    if text.len() > MOST {
        let end = text.floor_char_boundary(MOST - NOTE.len());
        let end = text[..end].rfind('\n').map_or(end, |at| at + 1);
        text.truncate(end);
        text.push_str(NOTE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::evaluation::{Evaluation, GateResult};
    use crate::report::summary::TaskRow;

    #[test]
    fn a_page_begins_with_the_verdict_and_is_never_too_large() {
        let long = "|`\n#".repeat(2_000);
        let gate = |is_passed| GateResult {
            model: long.clone(),
            split: "test".into(),
            metric: "accuracy".into(),
            expected: ">= 0.9".into(),
            value: Some(0.5),
            is_passed,
            ..GateResult::default()
        };
        let task = |n: usize| TaskRow {
            stage: format!("{long}{n}"),
            part: "whole".into(),
            ended: How::Computed,
            reasons: vec![long.clone(); 5],
            seconds: None,
        };
        let mut summary = Summary { exit_code: 6, ..Summary::default() };
        summary.report.pipeline = "digits".into();
        let gates = vec![gate(true), gate(false)];
        let evaluation = Evaluation {
            format: 2,
            model: "cnn".into(),
            scores: Vec::new(),
            report: None,
            gains: Vec::new(),
            comparisons: Vec::new(),
            gates,
            calibrated: Vec::new(),
            abstained: Vec::new(),
            by: Vec::new(),
        };
        summary.report.evaluations = vec![("evaluate".into(), evaluation)];
        summary.tasks = (0..200).map(task).collect();
        summary.report.warnings = vec![(long.clone(), long.clone()); 500];
        summary.errors = vec![long.clone(); 500];
        let page = markdown(&summary);
        assert!(page.starts_with("## `digits`: ❌ gates failed, 1 of 2 gates passed\n"), "{}", &page[..200]);
        assert!(page.len() <= MOST && page.ends_with('\n'), "{}", page.len());
        let failed = page.find("**FAILED**").unwrap();
        assert!(page.find("| passed |").is_none_or(|passed| failed < passed));
        // Whatever names hold, a row stays a row.
        assert!(
            page.lines()
                .all(|line| line.is_empty()
                    || ["|", "-", "#", "…", "There", "2", "C"].iter().any(|b| line.starts_with(b)))
        );
    }

    #[test]
    fn a_long_page_is_cut_at_a_line() {
        let text = "é".repeat(20) + "\n";
        let page = cut(text.repeat(3_000));
        assert!(page.len() <= MOST && page.ends_with("\n\n… the page is cut here\n"));
        assert_eq!(cut(text.clone()), text);
    }
}
