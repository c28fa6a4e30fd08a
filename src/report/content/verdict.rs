//! The verdict: gates, the numbers that are read first, warnings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::artifact::evaluation::{Evaluation, Score};
use crate::artifact::sanity::Status;
use crate::report::dataset;
use crate::report::document::{Block, Column, Figure, Span, Table, Text, cell, name, plain};
use crate::report::summary::Report;

/// Metrics that are shown at the top, as far as they are computed.
const FIRST: [&str; 5] = ["accuracy", "balanced-accuracy", "macro-f1", "log-loss", "roc-auc"];
/// So many of them.
const MOST_FIGURES: usize = 4;
/// Warnings that are all shown.
const MOST_WARNINGS: usize = 40;

/// The section.
pub(super) fn blocks(report: &Report) -> Vec<Block> {
    let mut blocks = vec![Block::Text(verdict(report))];
    blocks.extend(unfinished(report).map(Block::Text));
    blocks.extend(headlines(report));
    blocks.extend(gates(report));
    blocks.extend(checks(report));
    blocks.extend(warnings(report));
    blocks
}

/// The report in short: the verdict, data, warnings and where the pictures are.
pub(super) fn short(report: &Report, files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<Block> {
    let mut blocks = blocks(report);
    let data = report.datasets.iter();
    let data: Vec<Text> = data.map(|(stage, data)| vec![name(stage), plain(": "), name(dataset::line(data))]).collect();
    if !data.is_empty() {
        blocks.push(Block::Title(cell("Data")));
        blocks.push(Block::List(data));
    }
    let is_picture = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "svg" || ending == "png");
    let shown = |path: &PathBuf| path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
    let pictures: Vec<Text> = files.keys().filter(is_picture).map(|path| vec![name(shown(path))]).collect();
    if !pictures.is_empty() {
        blocks.push(Block::Title(cell("Pictures")));
        blocks.push(Block::List(pictures));
    }
    blocks
}

fn verdict(report: &Report) -> Text {
    let n = report.gates().count();
    let n_passed = report.gates().filter(|gate| gate.is_passed).count();
    let mut text = match (n, report.evaluations.is_empty()) {
        (_, true) => vec![Span::Strong("Nothing is evaluated yet.".to_owned())],
        (0, false) => vec![Span::Strong("No gate is set:".to_owned()), plain(" nothing says how good is good enough.")],
        (n, false) if n == n_passed => vec![Span::Good(format!("Passed: {}.", gates_in_words(n_passed, n)))],
        (n, false) => vec![Span::Bad(format!("Failed: {}.", gates_in_words(n_passed, n)))],
    };
    if report.origin.n_lock_gates > 0 {
        let (verb, n) =
            (if report.origin.n_lock_gates == 1 { "compares" } else { "compare" }, report.origin.n_lock_gates);
        let gates = if n == 1 { "gate" } else { "gates" };
        text.push(plain(format!(
            " {n} more {gates} {verb} with a lock file: each run judges anew and tells how, so that it is not in this report."
        )));
    }
    text
}

fn gates_in_words(n_passed: usize, n: usize) -> String {
    format!("{n_passed} of {n} {} passed", if n == 1 { "gate" } else { "gates" })
}

/// What has no result yet.
fn unfinished(report: &Report) -> Option<Text> {
    let missing: Vec<String> = report
        .origin
        .keys
        .iter()
        .filter(|key| key.key.is_none())
        .map(|key| format!("{}, {}", key.stage, key.part))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let named = missing.iter().take(8).cloned().collect::<Vec<_>>().join("; ");
    let more = if missing.len() > 8 { format!(" and {} more", missing.len() - 8) } else { String::new() };
    Some(vec![plain("Not all of it has a result yet: "), name(named), plain(format!("{more}."))])
}

/// The score that is read first: of the model that was evaluated, on the test split if there is one.
pub(super) fn headline(evaluation: &Evaluation) -> Option<&Score> {
    evaluation.scores.iter().find(|score| score.model == evaluation.model).or(evaluation.scores.first())
}

/// A split's name in words.
pub(super) fn split_in_words(split: &str) -> &'static str {
    match split {
        "test" => "test images",
        "out_of_fold" => "images outside each model's folds",
        "validation" => "validation images",
        "validation_selected" => "validation images that chose the model",
        _ => "images",
    }
}

fn headlines(report: &Report) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (stage, evaluation) in &report.evaluations {
        let Some(score) = headline(evaluation) else { continue };
        let mut about = vec![name(&score.model), plain(format!(" on {} {}", score.n, split_in_words(&score.split)))];
        if report.evaluations.len() > 1 {
            about.extend([plain(", says "), name(stage)]);
        }
        about.push(plain(if score.accuracy_interval.is_some() { " (95 % intervals in brackets):" } else { ":" }));
        blocks.push(Block::Text(about));
        let listed = FIRST.iter().filter_map(|metric| Some((*metric, (*score.metrics.get(*metric)?)?)));
        let figures = listed.take(MOST_FIGURES).map(|(metric, value)| Figure {
            name: metric.to_owned(),
            value: format!("{value:.4}"),
            note: interval(score, metric),
        });
        blocks.push(Block::Figures(figures.collect()));
    }
    blocks
}

/// `[0.9512, 0.9801]`; empty where there is none.
pub(super) fn interval(score: &Score, metric: &str) -> String {
    let own = if metric == "accuracy" { score.accuracy_interval } else { None };
    let shown = own.or_else(|| score.intervals.get(metric).copied());
    shown.map_or_else(String::new, |(low, high)| format!("[{low:.4}, {high:.4}]"))
}

fn gates(report: &Report) -> Vec<Block> {
    let mut table = Table::new(&[
        ("", Column::Left),
        ("gate", Column::Left),
        ("model", Column::Left),
        ("split", Column::Left),
        ("asked for", Column::Left),
        ("value", Column::Left),
    ]);
    let mut gates: Vec<_> = report.gates().collect();
    gates.sort_by_key(|gate| gate.is_passed);
    for gate in gates {
        let verdict = match gate.is_passed {
            true => Span::Good("passed".to_owned()),
            false => Span::Bad("failed".to_owned()),
        };
        table.rows.push(vec![
            vec![verdict],
            vec![name(gate.measured())],
            vec![name(&gate.model)],
            cell(&gate.split),
            vec![name(&gate.expected)],
            cell(gate.shown_value()),
        ]);
    }
    if table.rows.is_empty() { Vec::new() } else { vec![Block::Title(cell("Gates")), Block::Table(table)] }
}

fn checks(report: &Report) -> Vec<Block> {
    let failed = report.checks.iter().filter(|check| check.status != Status::Passed);
    let items: Vec<Text> = failed
        .map(|check| vec![name(&check.stage), plain(format!(", {}: ", check.check)), name(&check.message)])
        .collect();
    if items.is_empty() {
        return Vec::new();
    }
    vec![Block::Title(cell("Checks before the training")), Block::List(items)]
}

fn warnings(report: &Report) -> Vec<Block> {
    let mut items: Vec<Text> = report
        .warnings
        .iter()
        .take(MOST_WARNINGS)
        .map(|(stage, told)| vec![Span::Strong(stage.clone()), plain(": "), name(told)])
        .collect();
    if items.is_empty() {
        return Vec::new();
    }
    if report.warnings.len() > MOST_WARNINGS {
        items.push(cell(format!("and {} more", report.warnings.len() - MOST_WARNINGS)));
    }
    vec![Block::Title(cell("Warnings")), Block::List(items)]
}
