//! What an ensemble gains over its members, and whether two models differ by more than luck.

use super::super::StageError;
use super::{Figures, Look};
use crate::artifact::dataset::Numbers;
use crate::artifact::ensemble::{Ensemble, Member};
use crate::artifact::evaluation::{Comparison, Gain};
use crate::data::metrics::{Metric, holm, mcnemar};
use crate::stages::ensemble::{Model, name_of};

/// The gains of every ensemble on every whole split that it has a score on, by `metrics`.
///
/// # Errors
/// If an ensemble's artifact is damaged.
pub(super) fn gains(
    models: &[Model<'_>],
    looks: &[Look],
    figures: &[Figures],
    metrics: &[&'static Metric],
) -> Result<Vec<Gain>, StageError> {
    let mut gains = Vec::new();
    for model in models {
        let Some(files) = model.ensemble() else { continue };
        let members = Ensemble::read(files)?.members;
        let whole = |look: &Look| look.model == model.name && look.fold.is_none();
        for (look, own) in looks.iter().zip(figures).filter(|(look, _)| whole(look)) {
            let found: Vec<(String, &Figures)> =
                members.iter().filter_map(|member| figures_of(member, look.split, looks, figures)).collect();
            // The members' own model may not be evaluated on these rows; then there is nothing to compare with.
            if found.len() < members.len() || found.len() < 2 {
                continue;
            }
            for metric in metrics {
                gains.extend(gain(look, own, &found, metric));
            }
        }
    }
    Ok(gains)
}

/// What a member is called, and its figures on the test split or on the rows that were held out of its folds.
fn figures_of<'f>(
    member: &Member,
    split: &str,
    looks: &[Look],
    figures: &'f [Figures],
) -> Option<(String, &'f Figures)> {
    let name = name_of(&member.stage, member.model);
    let fold = match &member.parts[..] {
        [one] => one.strip_prefix("fold ").and_then(|fold| fold.parse::<u32>().ok()),
        _ => None,
    };
    let find = |fold: Option<u32>| {
        looks
            .iter()
            .position(|look| look.model == name && look.fold == fold && (look.split == "test") == (split == "test"))
    };
    let whole = || find(None).map(|at| (name.clone(), &figures[at]));
    match fold.and_then(|fold| Some((fold, find(Some(fold))?))) {
        Some((fold, at)) => Some((format!("{name} fold {fold}"), &figures[at])),
        None => whole(),
    }
}

fn gain(look: &Look, own: &Figures, members: &[(String, &Figures)], metric: &Metric) -> Option<Gain> {
    // How much better a value is than another: positive is better, whichever way the metric points.
    let sign = if metric.is_higher_better { 1.0 } else { -1.0 };
    let value = own.value(metric.name);
    let (mut best, mut sum) = (&members[0], 0.0);
    for member in members {
        let of_member = member.1.value(metric.name);
        sum += of_member;
        if sign * (of_member - best.1.value(metric.name)) > 0.0 {
            best = member;
        }
    }
    let (best_value, mean) = (best.1.value(metric.name), sum / members.len() as f64);
    // One member without a value leaves no mean.
    (value.is_finite() && mean.is_finite()).then(|| Gain {
        model: look.model.clone(),
        split: look.split.to_owned(),
        metric: metric.name.to_owned(),
        is_higher_better: metric.is_higher_better,
        value,
        n_members: members.len(),
        best_member: best.0.clone(),
        best_value,
        mean_value: mean,
        gain_over_best: sign * (value - best_value),
        gain_over_mean: sign * (value - mean),
    })
}

/// McNemar's test of every two models that speak of the same samples of a split, sorted by split and names.
pub(super) fn comparisons(looks: &[Look], dataset: &Numbers) -> Vec<Comparison> {
    let mut whole: Vec<&Look> = looks.iter().filter(|look| look.fold.is_none()).collect();
    whole.sort_by_key(|look| (look.split, &look.model));
    let is_correct = |look: &Look, i: usize| {
        look.predictions.class(i) == dataset.label(look.predictions.rows()[i] as usize) as usize
    };
    let mut comparisons: Vec<Comparison> = Vec::new();
    for of_split in whole.chunk_by(|a, b| a.split == b.split) {
        let first = comparisons.len();
        for (i, a) in of_split.iter().enumerate() {
            for b in of_split[i + 1..].iter().filter(|b| b.predictions.rows() == a.predictions.rows()) {
                let n = a.predictions.len();
                comparisons.push(Comparison {
                    split: a.split.to_owned(),
                    model_a: a.model.clone(),
                    model_b: b.model.clone(),
                    n,
                    test: mcnemar((0..n).map(|i| (is_correct(a, i), is_correct(b, i)))),
                    p_holm: 1.0,
                });
            }
        }
        let p_values: Vec<f64> = comparisons[first..].iter().map(|comparison| comparison.test.p_value).collect();
        for (comparison, p) in comparisons[first..].iter_mut().zip(holm(&p_values)) {
            comparison.p_holm = p;
        }
    }
    comparisons
}
