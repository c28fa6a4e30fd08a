//! The tables of an evaluation, each sorted by its columns from the left.

use super::{Figures, Look};
use crate::artifact::dataset::{Names, Numbers};
use crate::artifact::evaluation::{Comparison, Gain, Score};
use crate::artifact::table::{Cell, Table};
use crate::data::metrics::{sample_log_loss, wilson_interval};

/// Looks with their figures, by model, split and fold.
fn sorted<'a>(looks: &'a [Look], figures: &'a [Figures]) -> Vec<(&'a Look, &'a Figures)> {
    let mut pairs: Vec<(&Look, &Figures)> = looks.iter().zip(figures).collect();
    pairs.sort_by_key(|(look, _)| (&look.model, look.split, look.fold));
    pairs
}

/// `model,split,fold,class,metric,value,ci_low,ci_high,n`.
///
/// Rows without a fold are about the whole split; there, each metric over several folds also has the rows
/// `METRIC-mean` and `METRIC-std`, with the number of folds as `n`. The accuracy's interval is Wilson's; others have
/// one where the bootstrap was asked for.
pub(super) fn metrics(
    looks: &[Look],
    figures: &[Figures],
    scores: &[Score],
    listed: &[&str],
    classes: &[String],
) -> Vec<u8> {
    let header = ["model", "split", "fold", "class", "metric", "value", "ci_low", "ci_high", "n"];
    let mut table = Table::new(&header);
    for (look, figures) in sorted(looks, figures) {
        let confusion = &figures.confusion;
        let mut row = |class: Cell<'_>, metric: &str, value: Cell<'_>, interval: Option<(f64, f64)>, n: u64| {
            table.row(&[
                (&look.model).into(),
                look.split.into(),
                look.fold.into(),
                class,
                metric.into(),
                value,
                interval.map(|(low, _)| low).into(),
                interval.map(|(_, high)| high).into(),
                n.into(),
            ]);
        };
        let score = scores.iter().find(|score| score.model == look.model && score.split == look.split);
        let n = confusion.n_samples();
        for &name in listed {
            let interval =
                if name == "accuracy" { wilson_interval(confusion.n_correct(), n) } else { figures.interval(name) };
            row(Cell::Empty, name, figures.value(name).into(), interval, n);
            if look.fold.is_none()
                && let Some((mean, deviation)) = score.and_then(|score| score.over_folds.get(name))
            {
                let same = |other: &&Look| other.model == look.model && other.split == look.split;
                let n_folds = looks.iter().filter(same).filter(|other| other.fold.is_some()).count() as u64;
                row(Cell::Empty, &format!("{name}-mean"), (*mean).into(), None, n_folds);
                row(Cell::Empty, &format!("{name}-std"), (*deviation).into(), None, n_folds);
            }
        }
        if look.fold.is_none() {
            for (class, name) in classes.iter().enumerate() {
                let scores = confusion.class(class);
                let is_there = scores.support + confusion.predicted(class) > 0;
                let values = [("precision", scores.precision), ("recall", scores.recall), ("f1", scores.f1)];
                for (which, (metric, value)) in values.into_iter().enumerate() {
                    let interval = figures.class_interval(class, which);
                    row(name.into(), metric, is_there.then_some(value).into(), interval, scores.support);
                }
                row(name.into(), "support", scores.support.into(), None, scores.support);
            }
        }
    }
    table.into_bytes()
}

/// `model,split,metric,value,n_members,best_member,best_value,mean_value,gain_over_best,gain_over_mean`: a row per
/// ensemble, whole split and metric; gains are positive where the ensemble is better.
pub(super) fn gains(gains: &[Gain]) -> Vec<u8> {
    let mut table = Table::new(&[
        "model",
        "split",
        "metric",
        "value",
        "n_members",
        "best_member",
        "best_value",
        "mean_value",
        "gain_over_best",
        "gain_over_mean",
    ]);
    let mut rows: Vec<&Gain> = gains.iter().collect();
    rows.sort_by_key(|gain| (&gain.model, &gain.split));
    for gain in rows {
        table.row(&[
            (&gain.model).into(),
            (&gain.split).into(),
            (&gain.metric).into(),
            gain.value.into(),
            gain.n_members.into(),
            (&gain.best_member).into(),
            gain.best_value.into(),
            gain.mean_value.into(),
            gain.gain_over_best.into(),
            gain.gain_over_mean.into(),
        ]);
    }
    table.into_bytes()
}

/// `split,model_a,model_b,n,both_correct,only_a_correct,only_b_correct,both_wrong,method,statistic,p_value,p_holm`: a
/// row per split and pair of models that speak of the same samples.
pub(super) fn comparisons(comparisons: &[Comparison]) -> Vec<u8> {
    let mut table = Table::new(&[
        "split",
        "model_a",
        "model_b",
        "n",
        "both_correct",
        "only_a_correct",
        "only_b_correct",
        "both_wrong",
        "method",
        "statistic",
        "p_value",
        "p_holm",
    ]);
    for Comparison { split, model_a, model_b, n, test, p_holm } in comparisons {
        table.row(&[
            split.into(),
            model_a.into(),
            model_b.into(),
            (*n).into(),
            test.both_correct.into(),
            test.only_a_correct.into(),
            test.only_b_correct.into(),
            test.both_wrong.into(),
            if test.is_exact { "exact-binomial" } else { "chi-square" }.into(),
            test.statistic.into(),
            test.p_value.into(),
            (*p_holm).into(),
        ]);
    }
    table.into_bytes()
}

/// What predictions are sorted by: id, split, fold and model.
type Key<'a> = (u32, &'a str, Option<u32>, &'a str);

/// `id,path,split,fold,model,actual,predicted,correct,confidence,loss,p_<class>…`: a row per image and model, the test
/// split by final models.
pub(super) fn predictions(looks: &[Look], dataset: &Numbers, names: &Names) -> Vec<u8> {
    let classes = names.classes();
    let mut header: Vec<String> =
        ["id", "path", "split", "fold", "model", "actual", "predicted", "correct", "confidence", "loss"]
            .map(str::to_owned)
            .to_vec();
    header.extend(classes.iter().map(|class| format!("p_{class}")));
    let mut table = Table::new(&header);

    let mut rows: Vec<(Key<'_>, &Look, usize)> = Vec::new();
    for look in looks.iter().filter(|look| look.fold.is_none()) {
        for (i, &id) in look.predictions.rows().iter().enumerate() {
            let fold = look.fold_of_row.as_ref().map(|folds| folds[i]);
            rows.push(((id, look.split, fold, &look.model), look, i));
        }
    }
    rows.sort_by_key(|(key, ..)| *key);
    let mut cells: Vec<Cell<'_>> = Vec::with_capacity(header.len());
    for ((id, split, fold, model), look, i) in rows {
        let probabilities = look.predictions.row(i);
        let (actual, predicted) = (dataset.label(id as usize) as usize, look.predictions.class(i));
        let about: [Cell<'_>; 10] = [
            id.into(),
            names.path(id as usize).into(),
            split.into(),
            fold.into(),
            model.into(),
            (&classes[actual]).into(),
            (&classes[predicted]).into(),
            (actual == predicted).into(),
            probabilities[predicted].into(),
            sample_log_loss(probabilities[actual]).into(),
        ];
        cells.clear();
        cells.extend(about);
        cells.extend(probabilities.iter().map(|&p| Cell::from(p)));
        table.row(&cells);
    }
    table.into_bytes()
}

/// `model,split,actual,predicted,count`: a row per pair of classes, whole splits only.
pub(super) fn confusion(looks: &[Look], figures: &[Figures], classes: &[String]) -> Vec<u8> {
    let mut table = Table::new(&["model", "split", "actual", "predicted", "count"]);
    for (look, figures) in sorted(looks, figures).into_iter().filter(|(look, _)| look.fold.is_none()) {
        for (actual, actual_name) in classes.iter().enumerate() {
            for (predicted, predicted_name) in classes.iter().enumerate() {
                table.row(&[
                    (&look.model).into(),
                    look.split.into(),
                    actual_name.into(),
                    predicted_name.into(),
                    figures.confusion.count(actual, predicted).into(),
                ]);
            }
        }
    }
    table.into_bytes()
}
