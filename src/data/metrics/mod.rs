//! How good predictions are: from labels and probabilities to numbers, as scikit-learn defines them.
//!
//! One file per family, one line each in [`METRICS`]. All sums run in sample or class order in double precision; counts
//! are whole numbers. A metric that has no value (no positive samples, say) is `NaN`, which tables leave empty.

mod agreement;
mod bootstrap;
mod comparison;
mod counts;
mod curves;
mod interval;
mod noise;
mod paired;
mod probability;
mod ranking;

pub use bootstrap::{intervals, percentile_interval};
pub use comparison::{McNemar, holm, mcnemar};
pub use counts::{Average, ClassScores, Confusion, averages};
pub use curves::{Curve, Step};
pub use interval::{mean_and_deviation, wilson_interval};
pub use noise::Judged;
pub use paired::{Pair, interval_of_difference, interval_of_independent, interval_of_mean};
pub use probability::{CALIBRATION_BINS, CalibrationBin, calibration, sample_log_loss};

use ndarray::ArrayView2;

use crate::config::did_you_mean;

/// Predictions beside the truth.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    labels: &'a [u32],
    probabilities: &'a [f32],
    n_classes: usize,
    top_k: usize,
}

impl<'a> Scored<'a> {
    /// Labels `0..n_classes` and probabilities `[labels.len(), n_classes]`; `top_k` counts a prediction as right when
    /// the label is among so many most probable classes.
    ///
    /// # Panics
    /// If the shapes disagree, the probabilities are not in standard layout, or a label is no class.
    pub fn new(labels: &'a [u32], probabilities: ArrayView2<'a, f32>, top_k: usize) -> Scored<'a> {
        let (n, n_classes) = probabilities.dim();
        assert_eq!(n, labels.len(), "rows of probabilities and labels");
        let probabilities = probabilities.to_slice().expect("probabilities in standard layout");
        assert!(labels.iter().all(|&label| (label as usize) < n_classes), "a label is not below {n_classes}");
        Scored { labels, probabilities, n_classes, top_k }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Pairs of a label and the probabilities of its sample, in order.
    fn samples(&self) -> impl Iterator<Item = (usize, &'a [f32])> + use<'a> {
        let labels = self.labels.iter().map(|&label| label as usize);
        labels.zip(self.probabilities.chunks_exact(self.n_classes.max(1)))
    }

    /// How often each class was taken for each.
    pub fn confusion(&self) -> Confusion {
        Confusion::new(self.n_classes, self.samples().map(|(label, probabilities)| (label, arg_max(probabilities))))
    }
}

/// Index of the largest probability, the first of equals; what is not a number never wins over a number.
pub fn arg_max(probabilities: &[f32]) -> usize {
    let mut best = 0;
    for (class, p) in probabilities.iter().enumerate() {
        if *p > probabilities[best] || probabilities[best].is_nan() && !p.is_nan() {
            best = class;
        }
    }
    best
}

/// A number that sums up predictions.
pub struct Metric {
    /// The word, in manifests and tables.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Whether more is better.
    pub is_higher_better: bool,
    /// The least and the greatest value that it can have.
    pub range: (f64, f64),
    /// Whether it is computed where no metrics are named.
    pub is_default: bool,
    /// Computes it, given the confusion of the same predictions.
    pub compute: fn(&Scored<'_>, &Confusion) -> f64,
}

/// The greatest log loss, that of a sure mistake (`sample_log_loss`), rounded up.
const MOST_LOG_LOSS: f64 = 15.95;

/// Every metric. To add one: a function in its family's file, and a line here.
pub const METRICS: &[Metric] = &[
    higher("accuracy", "Share of the images whose class was recognised.", true, |_, confusion| confusion.accuracy()),
    higher("balanced-accuracy", "Mean recall of the classes, each counted alike.", true, |_, confusion| {
        confusion.balanced_accuracy()
    }),
    higher(
        "macro-precision",
        "Mean precision of the classes: of those called so, the share that are.",
        true,
        |_, confusion| confusion.average(Average::Macro).precision,
    ),
    higher(
        "macro-recall",
        "Mean recall of the classes: of those that are, the share called so.",
        true,
        |_, confusion| confusion.average(Average::Macro).recall,
    ),
    higher("macro-f1", "Mean F1 of the classes: the harmonic mean of precision and recall.", true, |_, confusion| {
        confusion.average(Average::Macro).f1
    }),
    higher("weighted-precision", "As `macro-precision`, classes weighted by their images.", true, |_, confusion| {
        confusion.average(Average::Weighted).precision
    }),
    higher(
        "weighted-recall",
        "As `macro-recall`, classes weighted by their images: the accuracy.",
        true,
        |_, confusion| confusion.average(Average::Weighted).recall,
    ),
    higher("weighted-f1", "As `macro-f1`, classes weighted by their images.", true, |_, confusion| {
        confusion.average(Average::Weighted).f1
    }),
    lower("log-loss", "Mean of -ln(probability of the actual class), in nats.", true, MOST_LOG_LOSS, |scored, _| {
        probability::log_loss(scored)
    }),
    lower(
        "brier",
        "Mean squared distance of the probabilities from the truth, summed over classes.",
        false,
        2.0,
        |scored, _| probability::brier(scored),
    ),
    lower(
        "calibration-error",
        "Mean distance of confidence and accuracy over 15 bins of confidence, weighted by images.",
        false,
        1.0,
        |scored, _| probability::calibration_error(scored),
    ),
    higher("top-k", "Share of the images whose class is among the `top_k` most probable ones.", false, |scored, _| {
        ranking::top_k(scored)
    }),
    higher(
        "roc-auc",
        "Area under the ROC curve; of more than two classes the mean of one against the rest.",
        false,
        |scored, _| ranking::roc_auc(scored),
    ),
    agreeing("matthews", "Matthews' correlation of actual and predicted classes.", |_, confusion| {
        agreement::matthews(confusion)
    }),
    agreeing("cohen-kappa", "Cohen's kappa: agreement beyond what chance gives.", |_, confusion| {
        agreement::cohen_kappa(confusion)
    }),
];

type Compute = fn(&Scored<'_>, &Confusion) -> f64;

/// A share: of 0 to 1, the more the better.
const fn higher(name: &'static str, meaning: &'static str, is_default: bool, compute: Compute) -> Metric {
    Metric { name, meaning, is_higher_better: true, range: (0.0, 1.0), is_default, compute }
}

/// A loss: from 0 to `most`.
const fn lower(name: &'static str, meaning: &'static str, is_default: bool, most: f64, compute: Compute) -> Metric {
    Metric { name, meaning, is_higher_better: false, range: (0.0, most), is_default, compute }
}

/// A correlation: 0 is chance.
const fn agreeing(name: &'static str, meaning: &'static str, compute: Compute) -> Metric {
    Metric { name, meaning, is_higher_better: true, range: (-1.0, 1.0), is_default: false, compute }
}

impl Metric {
    /// Its range, as a sentence ends: `from 0 to 1`.
    pub fn shown_range(&self) -> String {
        format!("from {} to {}", self.range.0, self.range.1)
    }
}

/// The metric of this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// "did you mean" for a metric that is not there, else all names.
pub fn suggest(name: &str) -> String {
    let normal = name.to_lowercase().replace('_', "-");
    // What people call them elsewhere.
    let normal = match normal.as_str() {
        "f1" => "macro-f1",
        "precision" => "macro-precision",
        "recall" => "macro-recall",
        "auc" => "roc-auc",
        "ece" => "calibration-error",
        "mcc" => "matthews",
        "kappa" => "cohen-kappa",
        "loss" | "cross-entropy" => "log-loss",
        other => other,
    };
    match find(normal) {
        Some(metric) => format!("did you mean `{}`?", metric.name),
        None => did_you_mean(normal, METRICS.iter().map(|metric| metric.name)).unwrap_or_else(|| {
            let names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
            format!("the metrics are `{}`", names.join("`, `"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_not_predicted() {
        assert_eq!(arg_max(&[0.4, 0.2, 0.4]), 0);
        assert_eq!(arg_max(&[f32::NAN, 0.2, 0.3]), 2);
        assert_eq!(arg_max(&[0.3, f32::NAN, 0.2]), 0);
        assert_eq!(arg_max(&[f32::NAN, f32::NAN]), 0);
    }

    #[test]
    fn names_are_unique_and_near_ones_are_suggested() {
        for metric in METRICS {
            let same = METRICS.iter().filter(|other| other.name == metric.name);
            assert_eq!(same.count(), 1, "`{}` is listed twice", metric.name);
        }
        for (wrong, right) in
            [("acuracy", "accuracy"), ("f1", "macro-f1"), ("Log_Loss", "log-loss"), ("AUC", "roc-auc")]
        {
            assert_eq!(suggest(wrong), format!("did you mean `{right}`?"), "{wrong}");
        }
        assert!(suggest("speed").starts_with("the metrics are `accuracy`, "));
    }

    #[test]
    fn nothing_has_no_value() {
        let scored = Scored::new(&[], ArrayView2::from_shape((0, 3), &[]).unwrap(), 1);
        for metric in METRICS {
            let value = (metric.compute)(&scored, &scored.confusion());
            assert!(value.is_nan(), "`{}` of nothing is {value}", metric.name);
        }
    }
}
