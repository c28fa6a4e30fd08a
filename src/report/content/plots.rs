//! The pictures of an evaluation: confusions, scores of classes, calibration, curves, models side by side.

use crate::artifact::details::{Details, SplitDetails};
use crate::artifact::evaluation::Evaluation;
use crate::data::metrics::wilson_interval;
use crate::report::svg::{Axis, Bar, Bars, Chart, Colour, Figure, Matrix, Panel, Plot, Series, categorical};

/// Counts stand in the cells of a confusion matrix of up to so many classes.
const MOST_WITH_COUNTS: usize = 40;
/// Of more classes than this no matrix is drawn.
const MOST_IN_MATRIX: usize = 200;
/// Bars are drawn of so many classes, the worst.
const MOST_BARS: usize = 60;

/// What each actual class was taken for, rows normalised; `None` of too many classes.
pub(super) fn confusion(details: &Details, split: &SplitDetails, on: &str) -> Option<Figure> {
    let n = details.classes.len();
    if n > MOST_IN_MATRIX || split.confusion.is_empty() {
        return None;
    }
    let mut counts = vec![0u64; n * n];
    for (actual, predicted, count) in &split.confusion {
        counts[*actual as usize * n + *predicted as usize] = *count;
    }
    let cell = |i: usize| {
        let support = split.classes[i / n].support;
        let share = if support > 0 { counts[i] as f64 / support as f64 } else { 0.0 };
        let text = if counts[i] > 0 && n <= MOST_WITH_COUNTS { counts[i].to_string() } else { String::new() };
        (share, text)
    };
    let mut figure = Figure::new(format!("{}: confusion on {on}", split.model), "");
    figure.subtitle = match n <= MOST_WITH_COUNTS {
        true => "number of images; the colour is the share of the row".to_owned(),
        false => "the colour is the share of the row".to_owned(),
    };
    let n_right: u64 = (0..n).map(|class| counts[class * n + class]).sum();
    let n_all: u64 = counts.iter().sum();
    figure.description = format!("{n_right} of {n_all} images lie on the diagonal, taken for what they are");
    figure.charts.push(Chart::Matrix(Matrix {
        rows: details.classes.clone(),
        columns: details.classes.clone(),
        row_label: "actual class".to_owned(),
        column_label: "predicted class".to_owned(),
        cells: (0..n * n).map(cell).collect(),
    }));
    Some(figure)
}

/// Precision, recall and F1 by class; of many classes the worst.
pub(super) fn classes(details: &Details, split: &SplitDetails, on: &str) -> Option<Figure> {
    let mut order: Vec<usize> = (0..details.classes.len()).filter(|&class| split.classes[class].f1.is_some()).collect();
    if order.len() < 2 {
        return None;
    }
    let is_cut = order.len() > MOST_BARS;
    if is_cut {
        let f1 = |class: &usize| split.classes[*class].f1.unwrap_or(0.0);
        order.sort_by(|a, b| f1(a).total_cmp(&f1(b)).then(a.cmp(b)));
        order.truncate(MOST_BARS);
    }
    let panel = |label: &str, which: usize| Panel {
        axis: Axis::linear(label).within(0.0, 1.0),
        colour: categorical(which),
        values: order
            .iter()
            .map(|&class| {
                let own = &split.classes[class];
                let value = [own.precision, own.recall, own.f1][which]?;
                Some(Bar { value, interval: own.intervals[which], text: format!("{value:.3}") })
            })
            .collect(),
    };
    let worst = if is_cut { format!("the {MOST_BARS} classes with the lowest F1; ") } else { String::new() };
    let mut figure = Figure::new(
        format!("{}: classes on {on}", split.model),
        format!("{worst}lines: 95 % intervals; in brackets: images of the class"),
    );
    let names = order.iter().map(|&class| format!("{} ({})", details.classes[class], split.classes[class].support));
    figure.description = "precision, recall and F1 of every class as bars".to_owned();
    figure.charts.push(Chart::Bars(Bars {
        title: String::new(),
        names: names.collect(),
        panels: vec![panel("precision", 0), panel("recall", 1), panel("F1", 2)],
    }));
    Some(figure)
}

/// How often predictions are right, against how sure they are.
pub(super) fn reliability(split: &SplitDetails, on: &str) -> Option<Figure> {
    let there = |bins: &[(u64, u64, Option<f64>)]| -> Vec<(u64, u64, f64)> {
        bins.iter().filter_map(|(n, n_correct, confidence)| Some((*n, *n_correct, (*confidence)?))).collect()
    };
    let (bins, before) = (there(&split.calibration), there(&split.calibration_before));
    if bins.is_empty() {
        return None;
    }
    let mut figure = Figure::new(
        format!("{}: calibration on {on}", split.model),
        "below the dashed line: surer than right; lines: 95 % intervals",
    );
    figure.description = "share of right predictions against their confidence, and how many there are".to_owned();
    if !before.is_empty() {
        figure.description.push_str(", before and after the temperature");
    }
    let share = |label: &str| Axis::linear(label).within(0.0, 1.0);
    let mut plot = Plot::new("Reliability", share("mean confidence"), share("share that is right"));
    plot.series.push(Series { name: None, ..Series::line("", Colour::Grey, vec![(0.0, 0.0), (1.0, 1.0)]).dashed() });
    for (n, n_correct, confidence) in &bins {
        if let Some((low, high)) = wilson_interval(*n_correct, *n) {
            let line = Series::line("", categorical(0), vec![(*confidence, low), (*confidence, high)]);
            plot.series.push(Series { name: None, opacity: 0.6, ..line });
        }
    }
    let dots = |name: &str, colour: Colour, bins: &[(u64, u64, f64)]| {
        let points =
            bins.iter().map(|(n, n_correct, confidence)| (*confidence, *n_correct as f64 / *n as f64)).collect();
        let notes = bins.iter().map(|(n, n_correct, _)| format!("{n_correct} of {n} right")).collect();
        let name = (!before.is_empty()).then(|| name.to_owned());
        Series { name, opacity: 1.0, notes, ..Series::dots("", colour, points) }
    };
    if !before.is_empty() {
        plot.series.push(dots("before the temperature", categorical(1), &before));
    }
    plot.series.push(dots("after", categorical(0), &bins));
    figure.charts.push(Chart::Plot(plot));
    let most = bins.iter().map(|(n, ..)| *n).max().unwrap_or(1) as f64;
    let mut plot = Plot::new("Confidences", share("confidence"), Axis::whole("images").within(0.0, 1.05 * most));
    let width = 1.0 / split.calibration.len() as f64;
    let mut outline = Vec::new();
    for (i, (n, ..)) in split.calibration.iter().enumerate() {
        outline.extend([(i as f64 * width, *n as f64), ((i + 1) as f64 * width, *n as f64)]);
    }
    plot.series.push(Series { name: None, ..Series::line("", categorical(0), outline) });
    figure.charts.push(Chart::Plot(plot));
    Some(figure)
}

/// ROC and precision-recall curves.
pub(super) fn curves(details: &Details, split: &SplitDetails, on: &str) -> Option<Figure> {
    if split.curves.is_empty() {
        return None;
    }
    let about = match (details.classes.len(), split.curves.len()) {
        (2, _) => format!("of {} against {}", details.classes[1], details.classes[0]),
        (n, shown) if shown < n => format!("one class against the rest, the {shown} that are told apart worst"),
        _ => "one class against the rest".to_owned(),
    };
    let mut figure = Figure::new(format!("{}: curves on {on}", split.model), about);
    figure.description = "ROC and precision-recall curves".to_owned();
    let share = |label: &str| Axis::linear(label).within(0.0, 1.0);
    let mut roc = Plot::new("ROC", share("false positive rate"), share("true positive rate (recall)"));
    let mut pr = Plot::new("Precision and recall", share("recall"), share("precision"));
    roc.series.push(Series { name: None, ..Series::line("", Colour::Grey, vec![(0.0, 0.0), (1.0, 1.0)]).dashed() });
    for (i, curve) in split.curves.iter().enumerate() {
        let class = &details.classes[curve.class as usize];
        let (positives, negatives) = (curve.n_positive as f64, curve.n_negative as f64);
        let corner = |(_, tp, fp): &(f32, u64, u64)| (*fp as f64 / negatives, *tp as f64 / positives);
        let points = std::iter::once((0.0, 0.0)).chain(curve.steps.iter().map(corner)).collect();
        roc.series.push(Series::line(format!("{:.3} {class}", curve.auc), categorical(i), points));
        let corner = |(_, tp, fp): &(f32, u64, u64)| (*tp as f64 / positives, *tp as f64 / (tp + fp) as f64);
        let points: Vec<(f64, f64)> = curve.steps.iter().map(corner).collect();
        pr.series.push(Series::line(format!("{:.3} {class}", curve.average_precision), categorical(i), points));
    }
    figure.charts.extend([Chart::Plot(roc), Chart::Plot(pr)]);
    Some(figure)
}

/// The accuracy of every model on every split, with intervals, and other metrics that have one.
pub(super) fn models(evaluation: &Evaluation) -> Option<Figure> {
    if evaluation.scores.len() < 2 {
        return None;
    }
    let metrics = ["accuracy", "macro-f1", "log-loss"];
    let has = |metric: &&&str| evaluation.scores.iter().any(|score| score.metrics.contains_key(**metric));
    let panels = metrics.iter().filter(has).enumerate().map(|(i, metric)| {
        let bars: Vec<Option<Bar>> = evaluation
            .scores
            .iter()
            .map(|score| {
                let value = (*score.metrics.get(*metric)?)?;
                let own = if *metric == "accuracy" { score.accuracy_interval } else { None };
                let interval = own.or_else(|| score.intervals.get(*metric).copied());
                Some(Bar { value, interval, text: format!("{value:.4}") })
            })
            .collect();
        let ends = bars.iter().flatten().flat_map(|bar| [Some(bar.value), bar.interval.map(|(_, high)| high)]);
        let high = ends.flatten().fold(0.0, f64::max);
        let axis = Axis::linear(if *metric == "log-loss" { "log-loss (nats)" } else { metric });
        // Bars begin at 0, lest a small difference looks large.
        let axis = if *metric == "log-loss" { axis.within(0.0, 1.05 * high.max(1e-6)) } else { axis.within(0.0, 1.0) };
        Panel { axis, colour: categorical(i), values: bars }
    });
    let panels = panels.collect();
    let names = evaluation.scores.iter().map(|score| format!("{} ({})", score.model, score.split.replace('_', " ")));
    let mut figure = Figure::new("Models side by side", "lines: 95 % intervals");
    figure.description = "metrics of every model on every split as bars".to_owned();
    figure.charts.push(Chart::Bars(Bars { title: String::new(), names: names.collect(), panels }));
    Some(figure)
}
