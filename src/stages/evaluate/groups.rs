//! Scores of the images of each group apart: what a column says of them.

use super::{Figures, Look, StageError, number};
use crate::artifact::dataset::Grouping;
use crate::artifact::evaluation::GroupScore;
use crate::artifact::predictions::Predictions;
use crate::artifact::table::Table;
use crate::data::metrics::{find, wilson_interval};

/// The part of a look that is about some of its rows.
fn part_of(look: &Look, rows: &[usize]) -> Look {
    let predictions = &look.predictions;
    let ids = rows.iter().map(|&i| predictions.rows()[i]).collect();
    let probabilities = rows.iter().flat_map(|&i| predictions.row(i).iter().copied()).collect();
    Look {
        model: look.model.clone(),
        split: look.split,
        fold: None,
        predictions: Predictions::new(ids, predictions.n_classes(), probabilities),
        fold_of_row: None,
    }
}

/// A score of every whole split and group that has images there, sorted by model, split and group.
///
/// # Errors
/// Those of `figures`.
pub(super) fn groups(
    grouping: &Grouping,
    looks: &[Look],
    figures: impl Fn(&Look) -> Result<Figures, StageError>,
) -> Result<Vec<GroupScore>, StageError> {
    let mut whole: Vec<&Look> = looks.iter().filter(|look| look.fold.is_none()).collect();
    whole.sort_by_key(|look| (&look.model, look.split));
    let mut scores = Vec::new();
    for look in whole {
        for (group, name) in grouping.groups.iter().enumerate() {
            let is_own = |&i: &usize| grouping.of_image[look.predictions.rows()[i] as usize] == Some(group as u32);
            let rows: Vec<usize> = (0..look.predictions.len()).filter(is_own).collect();
            if rows.is_empty() {
                continue;
            }
            let figures = figures(&part_of(look, &rows))?;
            let confusion = &figures.confusion;
            scores.push(GroupScore {
                column: grouping.name.clone(),
                group: name.clone(),
                model: look.model.clone(),
                split: look.split.to_owned(),
                n: rows.len(),
                metrics: figures.values.iter().map(|&(name, value)| (name.to_owned(), number(value))).collect(),
                intervals: figures
                    .values
                    .iter()
                    .filter_map(|&(name, _)| {
                        let wilson = || wilson_interval(confusion.n_correct(), confusion.n_samples());
                        let interval = if name == "accuracy" { wilson() } else { figures.interval(name) };
                        Some((name.to_owned(), interval?))
                    })
                    .collect(),
            });
        }
    }
    Ok(scores)
}

/// `column,group,model,split,metric,value,ci_low,ci_high,n,worst`: a row per group and metric; `worst` is true of the group
/// of its column, model and split where the metric is least good, if there are several.
pub(super) fn table(scores: &[GroupScore], listed: &[&str]) -> Vec<u8> {
    let header = ["column", "group", "model", "split", "metric", "value", "ci_low", "ci_high", "n", "worst"];
    let mut table = Table::new(&header);
    for groups in scores.chunk_by(GroupScore::is_beside) {
        let worst = |metric: &&str| {
            let is_higher_better = find(metric).is_some_and(|metric| metric.is_higher_better);
            GroupScore::worst(groups.iter(), metric, is_higher_better).map(|worst| &worst.group)
        };
        let worst: Vec<Option<&String>> = listed.iter().map(worst).collect();
        for score in groups {
            for (&metric, worst) in listed.iter().zip(&worst) {
                let interval = score.intervals.get(metric);
                table.row(&[
                    (&score.column).into(),
                    (&score.group).into(),
                    (&score.model).into(),
                    (&score.split).into(),
                    metric.into(),
                    score.metrics.get(metric).copied().flatten().into(),
                    interval.map(|(low, _)| *low).into(),
                    interval.map(|(_, high)| *high).into(),
                    score.n.into(),
                    (*worst == Some(&score.group)).into(),
                ]);
            }
        }
    }
    table.into_bytes()
}
