//! The results: models by split, confusions, classes, calibration, curves, how models compare.

use super::verdict::{interval, split_in_words};
use super::{Pictures, plots, trust};
use crate::artifact::details::{Details, SplitDetails};
use crate::artifact::evaluation::{Evaluation, GroupScore, Score};
use crate::report::document::{Block, Column, Table, cell, name, plain};
use crate::report::summary::Report;

/// Metrics in the order in which they get a column; others follow by name.
const FIRST: [&str; 3] = ["accuracy", "macro-f1", "log-loss"];
/// Columns of metrics, and of those with intervals; the rest is in `metrics.csv`.
const MOST_METRICS: usize = 5;
const MOST_WITH_INTERVALS: usize = 3;
/// So many confusions are listed.
const MOST_CONFUSIONS: usize = 15;
/// So many groups of a column are listed.
const MOST_GROUPS: usize = 20;
/// So many pairs of models are listed.
const MOST_PAIRS: usize = 20;

/// The section.
pub(super) fn blocks(report: &Report, pictures: &mut Pictures<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (stage, evaluation) in &report.evaluations {
        if report.evaluations.len() > 1 {
            blocks.push(Block::Title(vec![name(stage)]));
        }
        blocks.extend(scores(evaluation));
        if let Some(figure) = plots::models(evaluation) {
            blocks.push(pictures.draw(&format!("models-{stage}.svg"), &figure, Vec::new()));
        }
        blocks.extend(groups(evaluation));
        blocks.extend(gains(evaluation));
        blocks.extend(comparisons(evaluation));
        blocks.extend(trust::blocks(evaluation));
        let Some((_, details)) = report.details.iter().find(|(known, _)| known == stage) else { continue };
        for (i, split) in details.splits.iter().enumerate() {
            let own = split_blocks(stage, details, split, pictures);
            if own.is_empty() {
                continue;
            }
            let on = split_in_words(&split.split);
            match i {
                0 => {
                    blocks.push(Block::Title(vec![name(&split.model), plain(format!(" on {on}"))]));
                    blocks.extend(own);
                }
                _ => blocks.push(Block::Folded { title: format!("{} on {on}", split.model), blocks: own }),
            }
        }
    }
    blocks
}

/// A row a model and split.
fn scores(evaluation: &Evaluation) -> Option<Block> {
    let mut named: Vec<&str> =
        evaluation.scores.iter().flat_map(|score| score.metrics.keys()).map(String::as_str).collect();
    named.sort_unstable();
    named.dedup();
    let others = named.iter().copied().filter(|metric| !FIRST.contains(metric));
    let metrics: Vec<&str> =
        FIRST.into_iter().filter(|metric| named.contains(metric)).chain(others).take(MOST_METRICS).collect();
    let n_intervals = metrics.iter().filter(|metric| has_interval(evaluation, metric)).count();
    let metrics = match n_intervals > 1 {
        true => &metrics[..metrics.len().min(MOST_WITH_INTERVALS)],
        false => &metrics[..],
    };
    let mut head = vec![("model", Column::Left), ("split", Column::Left)];
    for &metric in metrics {
        head.push((metric, Column::Right));
        if has_interval(evaluation, metric) {
            head.push(("95 % interval", Column::Left));
        }
    }
    let has_folds = evaluation.scores.iter().any(|score| over_folds(score).is_some());
    if has_folds {
        head.push(("accuracy over folds", Column::Left));
    }
    head.push(("images", Column::Right));
    let mut table = Table::new(&head);
    for score in &evaluation.scores {
        let mut row = vec![vec![name(&score.model)], cell(score.split.replace('_', " "))];
        for &metric in metrics {
            let value = score.metrics.get(metric).copied().flatten();
            row.push(cell(value.map_or_else(String::new, |value| format!("{value:.4}"))));
            if has_interval(evaluation, metric) {
                row.push(cell(interval(score, metric)));
            }
        }
        if has_folds {
            row.push(cell(over_folds(score).unwrap_or_default()));
        }
        row.push(cell(score.n.to_string()));
        table.rows.push(row);
    }
    (!table.rows.is_empty()).then_some(Block::Table(table))
}

fn has_interval(evaluation: &Evaluation, metric: &str) -> bool {
    evaluation.scores.iter().any(|score| !interval(score, metric).is_empty())
}

/// Mean and deviation.
fn over_folds(score: &Score) -> Option<String> {
    match score.over_folds.get("accuracy") {
        Some((Some(mean), Some(deviation))) => Some(format!("{mean:.4} ± {deviation:.4}")),
        _ => None,
    }
}

/// Groups of images, by column: the model that was evaluated, on the first split that it has, the worst group first.
fn groups(evaluation: &Evaluation) -> Vec<Block> {
    let Some(first) = evaluation.scores.iter().find(|score| score.model == evaluation.model) else { return Vec::new() };
    let is_own = |group: &&GroupScore| (&group.model, &group.split) == (&first.model, &first.split);
    let own: Vec<&GroupScore> = evaluation.by.iter().filter(is_own).collect();
    let mut blocks = Vec::new();
    for groups in own.chunk_by(|a, b| a.column == b.column) {
        let accuracy = |group: &GroupScore| group.metrics.get("accuracy").copied().flatten().unwrap_or(f64::INFINITY);
        let mut groups = groups.to_vec();
        groups.sort_by(|a, b| accuracy(a).total_cmp(&accuracy(b)));
        let mut table = Table::new(&[
            (&groups[0].column, Column::Left),
            ("accuracy", Column::Right),
            ("95 % interval", Column::Left),
            ("images", Column::Right),
        ]);
        for group in groups.iter().take(MOST_GROUPS) {
            let interval = group.intervals.get("accuracy");
            table.rows.push(vec![
                vec![name(&group.group)],
                cell(format!("{:.4}", accuracy(group))),
                cell(interval.map_or_else(String::new, |(low, high)| format!("[{low:.4}, {high:.4}]"))),
                cell(group.n.to_string()),
            ]);
        }
        let on = split_in_words(&first.split);
        blocks.push(Block::Title(vec![
            plain("By "),
            name(&groups[0].column),
            plain(format!(", on {on}, the worst first")),
        ]));
        blocks.push(Block::Table(table));
        if groups.len() > MOST_GROUPS {
            let more = format!("and {} more, see ", groups.len() - MOST_GROUPS);
            blocks.push(Block::Text(vec![plain(more), name("by.csv"), plain(".")]));
        }
    }
    blocks
}

/// What ensembles gain.
fn gains(evaluation: &Evaluation) -> Vec<Block> {
    if evaluation.gains.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[
        ("ensemble", Column::Left),
        ("split", Column::Left),
        ("metric", Column::Left),
        ("value", Column::Right),
        ("best member", Column::Left),
        ("its value", Column::Right),
        ("gain over it", Column::Right),
        ("gain over the mean", Column::Right),
    ]);
    // All of them would say the same many times.
    for gain in evaluation.gains.iter().filter(|gain| FIRST.contains(&&*gain.metric)) {
        table.rows.push(vec![
            vec![name(&gain.model)],
            cell(gain.split.replace('_', " ")),
            cell(&gain.metric),
            cell(format!("{:.4}", gain.value)),
            vec![name(&gain.best_member)],
            cell(format!("{:.4}", gain.best_value)),
            cell(signed(gain.gain_over_best)),
            cell(signed(gain.gain_over_mean)),
        ]);
    }
    let more = vec![plain("Other metrics are in "), name("gains.csv"), plain(".")];
    vec![Block::Title(cell("What ensembles gain")), Block::Table(table), Block::Text(more)]
}

/// A number with its sign, the true minus.
fn signed(x: f64) -> String {
    format!("{x:+.4}").replace('-', "\u{2212}")
}

/// A p-value.
fn chance(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// McNemar's tests.
fn comparisons(evaluation: &Evaluation) -> Vec<Block> {
    if evaluation.comparisons.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[
        ("split", Column::Left),
        ("models", Column::Left),
        ("only the first is right", Column::Right),
        ("only the second is right", Column::Right),
        ("p", Column::Right),
        ("p among all (Holm)", Column::Right),
    ]);
    for own in evaluation.comparisons.iter().take(MOST_PAIRS) {
        table.rows.push(vec![
            cell(own.split.replace('_', " ")),
            vec![name(&own.model_a), plain(", "), name(&own.model_b)],
            cell(own.test.only_a_correct.to_string()),
            cell(own.test.only_b_correct.to_string()),
            cell(chance(own.test.p_value)),
            cell(chance(own.p_holm)),
        ]);
    }
    let mut blocks = vec![Block::Title(cell("Whether models differ by more than luck (McNemar)")), Block::Table(table)];
    if evaluation.comparisons.len() > MOST_PAIRS {
        let n = evaluation.comparisons.len() - MOST_PAIRS;
        blocks.push(Block::Text(vec![plain(format!("and {n} more pairs, see ")), name("comparisons.csv"), plain(".")]));
    }
    blocks
}

/// The pictures of one split and the tables beside them.
fn split_blocks(stage: &str, details: &Details, split: &SplitDetails, pictures: &mut Pictures<'_>) -> Vec<Block> {
    let on = split_in_words(&split.split);
    let mut blocks = Vec::new();
    let file = |what: &str| format!("{what}-{stage}-{}.svg", split.split.replace('_', "-"));
    if let Some(figure) = plots::confusion(details, split, on) {
        blocks.push(pictures.draw(&file("confusion"), &figure, Vec::new()));
    }
    blocks.extend(top_confusions(details, split));
    if let Some(figure) = plots::classes(details, split, on) {
        blocks.push(pictures.draw(&file("classes"), &figure, Vec::new()));
    }
    if let Some(figure) = plots::reliability(split, on) {
        blocks.push(pictures.draw(&file("calibration"), &figure, Vec::new()));
    }
    if let Some(figure) = plots::curves(details, split, on) {
        let caption = "In the legends: the area under the ROC curve, and the average precision.";
        blocks.push(pictures.draw(&file("curves"), &figure, cell(caption)));
        blocks.extend(thresholds(details, split));
    }
    blocks
}

/// What is confused most often.
fn top_confusions(details: &Details, split: &SplitDetails) -> Vec<Block> {
    let wrong = split.confusion.iter().filter(|(actual, predicted, _)| actual != predicted);
    let mut wrong: Vec<&(u32, u32, u64)> = wrong.collect();
    wrong.sort_by(|a, b| b.2.cmp(&a.2).then(a.cmp(b)));
    if wrong.is_empty() || details.classes.len() < 3 {
        return Vec::new();
    }
    let mut table = Table::new(&[
        ("actual", Column::Left),
        ("predicted", Column::Left),
        ("images", Column::Right),
        ("of the class", Column::Right),
    ]);
    for (actual, predicted, count) in wrong.into_iter().take(MOST_CONFUSIONS) {
        let share = 100.0 * *count as f64 / split.classes[*actual as usize].support.max(1) as f64;
        table.rows.push(vec![
            vec![name(&details.classes[*actual as usize])],
            vec![name(&details.classes[*predicted as usize])],
            cell(count.to_string()),
            cell(format!("{share:.1} %")),
        ]);
    }
    let title = "What is confused most often".to_owned();
    vec![Block::Folded { title, blocks: vec![Block::Table(table)] }]
}

/// What thresholds give, class by class.
fn thresholds(details: &Details, split: &SplitDetails) -> Vec<Block> {
    let mut table = Table::new(&[
        ("class", Column::Left),
        ("threshold", Column::Right),
        ("precision", Column::Right),
        ("recall", Column::Right),
        ("F1", Column::Right),
        ("false positive rate", Column::Right),
        ("images above", Column::Right),
    ]);
    for curve in &split.curves {
        // Of many classes no probability is large.
        for (threshold, tp, fp) in curve.thresholds.iter().filter(|(_, tp, fp)| tp + fp > 0) {
            let share = |part: u64, whole: u64| match whole {
                0 => String::new(),
                whole => format!("{:.4}", part as f64 / whole as f64),
            };
            table.rows.push(vec![
                vec![name(&details.classes[curve.class as usize])],
                cell(format!("{threshold}")),
                cell(share(*tp, tp + fp)),
                cell(share(*tp, curve.n_positive)),
                cell(share(2 * tp, tp + fp + curve.n_positive)),
                cell(share(*fp, curve.n_negative)),
                cell((tp + fp).to_string()),
            ]);
        }
    }
    vec![Block::Folded {
        title: "What thresholds of the probability give".to_owned(),
        blocks: vec![Block::Table(table)],
    }]
}
