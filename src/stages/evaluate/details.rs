//! What the pictures of an evaluation are drawn from.

use super::{Figures, Look, number};
use crate::artifact::dataset::Numbers;
use crate::artifact::details::{ClassCurve, ClassDetails, Details, SplitDetails};
use crate::artifact::table::Table;
use crate::data::metrics::{CalibrationBin, Curve, Scored, Step, calibration, wilson_interval};

/// Curves are drawn of so many classes.
const MOST_CURVES: usize = 5;
/// Through so many points.
const MOST_STEPS: usize = 200;

/// `model,split,class,n_positive,n_negative,threshold,true_positives,false_positives,recall,precision,false_positive_rate`: the
/// curves of the second of two classes, else of each class against the rest, on every whole split of the model that
/// [`details`] is about. Thresholds fall; a row counts the images whose probability of the class is at least as high.
pub(super) fn curves_table(model: &str, looks: &[Look], dataset: &Numbers, classes: &[String]) -> Vec<u8> {
    let mut table = Table::new(&[
        "model",
        "split",
        "class",
        "n_positive",
        "n_negative",
        "threshold",
        "true_positives",
        "false_positives",
        "recall",
        "precision",
        "false_positive_rate",
    ]);
    let mut own = own_looks(model, looks);
    own.sort_by_key(|&at| looks[at].split);
    for look in own.into_iter().map(|at| &looks[at]) {
        let labels = labels(look, dataset);
        let scored = Scored::new(&labels, look.predictions.probabilities(), 1);
        for (class, curve) in all_curves(&scored) {
            for Step { threshold, true_positives, false_positives } in curve.thinned(MOST_STEPS) {
                table.row(&[
                    (&look.model).into(),
                    look.split.into(),
                    (&classes[class]).into(),
                    curve.n_positive.into(),
                    curve.n_negative.into(),
                    threshold.into(),
                    true_positives.into(),
                    false_positives.into(),
                    (true_positives as f64 / curve.n_positive as f64).into(),
                    (true_positives as f64 / (true_positives + false_positives) as f64).into(),
                    (false_positives as f64 / curve.n_negative as f64).into(),
                ]);
            }
        }
    }
    table.into_bytes()
}

/// The whole looks at `model`; at the first model that has one, if it has none.
fn own_looks(model: &str, looks: &[Look]) -> Vec<usize> {
    let whole = || (0..looks.len()).filter(|&at| looks[at].fold.is_none());
    let has_own = whole().any(|at| looks[at].model == model);
    let model = if has_own { Some(model) } else { whole().next().map(|at| looks[at].model.as_str()) };
    whole().filter(|&at| Some(looks[at].model.as_str()) == model).collect()
}

fn labels(look: &Look, dataset: &Numbers) -> Vec<u32> {
    look.predictions.rows().iter().map(|&row| dataset.label(row as usize)).collect()
}

/// Of `model` on every whole split; of the first model that has one, if it has none.
pub(super) fn details(
    model: &str,
    looks: &[Look],
    figures: &[Figures],
    dataset: &Numbers,
    classes: &[String],
) -> Details {
    let own = own_looks(model, looks).into_iter();
    Details::new(classes.to_vec(), own.map(|at| of_split(&looks[at], &figures[at], dataset)).collect())
}

fn of_split(look: &Look, figures: &Figures, dataset: &Numbers) -> SplitDetails {
    let predictions = &look.predictions;
    let labels = labels(look, dataset);
    let scored = Scored::new(&labels, predictions.probabilities(), 1);
    let confusion = &figures.confusion;
    let n_classes = scored.n_classes();
    let pairs = (0..n_classes).flat_map(|actual| (0..n_classes).map(move |predicted| (actual, predicted)));
    let counts = pairs.map(|(actual, predicted)| (actual as u32, predicted as u32, confusion.count(actual, predicted)));
    let class = |class: usize| {
        let scores = confusion.class(class);
        let (hits, n_predicted) = (confusion.count(class, class), confusion.predicted(class));
        let is_there = scores.support + n_predicted > 0;
        let shown = |score: f64| is_there.then_some(score).and_then(number);
        let wilson = [wilson_interval(hits, n_predicted), wilson_interval(hits, scores.support), None];
        ClassDetails {
            precision: shown(scores.precision),
            recall: shown(scores.recall),
            f1: shown(scores.f1),
            intervals: [0, 1, 2].map(|which| figures.class_interval(class, which).or(wilson[which])),
            support: scores.support,
        }
    };
    SplitDetails {
        model: look.model.clone(),
        split: look.split.to_owned(),
        confusion: counts.filter(|(.., count)| *count > 0).collect(),
        classes: (0..n_classes).map(class).collect(),
        calibration: bins(&scored),
        calibration_before: Vec::new(),
        curves: curves(&scored),
    }
}

/// By confidence: how many, how many of them right, mean confidence.
pub(super) fn bins(scored: &Scored<'_>) -> Vec<(u64, u64, Option<f64>)> {
    let bin = |bin: &CalibrationBin| (bin.n, bin.n_correct, number(bin.confidence / bin.n as f64));
    calibration(scored).iter().map(bin).collect()
}

/// The curve of the second of two classes, else of each that has one.
fn all_curves(scored: &Scored<'_>) -> impl Iterator<Item = (usize, Curve)> {
    let classes = if scored.n_classes() == 2 { 1..2 } else { 0..scored.n_classes() };
    classes.filter_map(|class| Some((class, Curve::new(scored, class)?)))
}

fn curves(scored: &Scored<'_>) -> Vec<ClassCurve> {
    let curves = all_curves(scored).map(|(class, curve)| (class as u32, curve.auc(), curve));
    let mut curves: Vec<(u32, f64, Curve)> = curves.collect();
    curves.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    curves.truncate(MOST_CURVES);
    let step = |step: Step| (step.threshold, step.true_positives, step.false_positives);
    let of = |(class, auc, curve): (u32, f64, Curve)| ClassCurve {
        class,
        n_positive: curve.n_positive,
        n_negative: curve.n_negative,
        auc,
        average_precision: curve.average_precision(),
        steps: curve.thinned(MOST_STEPS).into_iter().map(step).collect(),
        thresholds: (1..10).map(|tenth| step(curve.at(tenth as f32 / 10.0))).collect(),
    };
    curves.into_iter().map(of).collect()
}
