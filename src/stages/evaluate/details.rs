//! What the pictures of an evaluation are drawn from.

use super::{Figures, Look, number};
use crate::artifact::dataset::Numbers;
use crate::artifact::details::{ClassCurve, ClassDetails, Details, SplitDetails};
use crate::data::metrics::{CalibrationBin, Curve, Scored, Step, calibration, wilson_interval};

/// Curves are drawn of so many classes.
const MOST_CURVES: usize = 5;
/// Through so many points.
const MOST_STEPS: usize = 200;

/// Of `model` on every whole split; of the first model that has one, if it has none.
pub(super) fn details(
    model: &str,
    looks: &[Look],
    figures: &[Figures],
    dataset: &Numbers,
    classes: &[String],
) -> Details {
    let whole = || looks.iter().zip(figures).filter(|(look, _)| look.fold.is_none());
    let has_own = whole().any(|(look, _)| look.model == model);
    let model = if has_own { Some(model) } else { whole().next().map(|(look, _)| look.model.as_str()) };
    let own = whole().filter(|(look, _)| Some(look.model.as_str()) == model);
    Details::new(classes.to_vec(), own.map(|(look, figures)| of_split(look, figures, dataset)).collect())
}

fn of_split(look: &Look, figures: &Figures, dataset: &Numbers) -> SplitDetails {
    let predictions = &look.predictions;
    let labels: Vec<u32> = predictions.rows().iter().map(|&row| dataset.label(row as usize)).collect();
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

fn curves(scored: &Scored<'_>) -> Vec<ClassCurve> {
    let classes = if scored.n_classes() == 2 { 1..2 } else { 0..scored.n_classes() };
    let curves = classes.filter_map(|class| Some((class as u32, Curve::new(scored, class)?)));
    let mut curves: Vec<(u32, f64, Curve)> = curves.map(|(class, curve)| (class, curve.auc(), curve)).collect();
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
