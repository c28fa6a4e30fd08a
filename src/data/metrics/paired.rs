//! Two models, or one model before and after a change, on the same samples: whether a number moved by more than luck.

use ndarray::Array2;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::bootstrap::{draw, percentile_interval};
use super::{Confusion, METRICS, Metric, Scored};
use crate::rng::Stream;

/// Data sets that are drawn for an interval of a difference.
const N_REPLICATES: u32 = 1_000;
/// With more classes than this a confusion is too large to be counted so often.
const MOST_CLASSES: usize = 256;

/// Metrics that follow from the confusion of classes alone; the others look at probabilities.
const OF_CONFUSION: &[&str] = &[
    "accuracy",
    "balanced-accuracy",
    "macro-precision",
    "macro-recall",
    "macro-f1",
    "weighted-precision",
    "weighted-recall",
    "weighted-f1",
    "matthews",
    "cohen-kappa",
];

/// A sample and what was said of it, as indices of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its class.
    pub actual: usize,
    /// What the first says.
    pub a: usize,
    /// What the second says.
    pub b: usize,
}

/// The 95 % percentile interval of `metric` of the second less that of the first, over bootstrap data sets of the same
/// samples. `None` for a metric that needs more than classes, without samples, and with more than 256 classes.
///
/// # Determinism
/// The same samples in the same order give the same bits, on any number of threads.
///
/// # Panics
/// If a class is not below `n_classes`.
pub fn interval_of_difference(metric: &Metric, pairs: &[Pair], n_classes: usize) -> Option<(f64, f64)> {
    let metric = METRICS.iter().find(|known| known.name == metric.name && OF_CONFUSION.contains(&known.name))?;
    if pairs.is_empty() || n_classes > MOST_CLASSES {
        return None;
    }
    let no_rows = Array2::zeros((0, n_classes));
    let none = Scored::new(&[], no_rows.view(), 1);
    let differences: Vec<f64> = (0..N_REPLICATES)
        .into_par_iter()
        .map_init(Vec::new, |picked, replicate| {
            draw(&Stream::new(0, "paired", &[("replicate", u64::from(replicate))]), pairs.len(), picked);
            let drawn = || picked.iter().map(|&i| pairs[i as usize]);
            let a = Confusion::new(n_classes, drawn().map(|pair| (pair.actual, pair.a)));
            let b = Confusion::new(n_classes, drawn().map(|pair| (pair.actual, pair.b)));
            (metric.compute)(&none, &b) - (metric.compute)(&none, &a)
        })
        .collect();
    percentile_interval(differences)
}

/// The 95 % interval of the mean of differences of paired samples, by the normal distribution; `None` for fewer than
/// two.
pub fn interval_of_mean(differences: &[f64]) -> Option<(f64, f64)> {
    if differences.len() < 2 {
        return None;
    }
    let (mean, deviation) = super::mean_and_deviation(differences);
    let margin = super::interval::Z * deviation / (differences.len() as f64).sqrt();
    Some((mean - margin, mean + margin))
}

/// The 95 % interval of `b - a` for two numbers of different samples, from each one's own interval (Newcombe's method
/// 10, 1998; for shares with Wilson's intervals).
pub fn interval_of_independent(a: (f64, (f64, f64)), b: (f64, (f64, f64))) -> (f64, f64) {
    let ((a, (a_low, a_high)), (b, (b_low, b_high))) = (a, b);
    let root = |x: f64, y: f64| (x * x + y * y).sqrt();
    (b - a - root(b - b_low, a_high - a), b - a + root(b_high - b, a - a_low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::metrics::{find, wilson_interval};

    fn pairs(only_a: usize, only_b: usize, both: usize) -> Vec<Pair> {
        let of = |a, b, n| std::iter::repeat_n(Pair { actual: 0, a, b }, n);
        of(0, 1, only_a).chain(of(1, 0, only_b)).chain(of(0, 0, both)).collect()
    }

    #[test]
    fn a_difference_that_is_luck_has_zero_in_its_interval() {
        let accuracy = find("accuracy").unwrap();
        let (low, high) = interval_of_difference(accuracy, &pairs(6, 5, 89), 2).unwrap();
        assert!(low < 0.0 && 0.0 < high, "{low} to {high}");
        let (low, high) = interval_of_difference(accuracy, &pairs(30, 2, 68), 2).unwrap();
        assert!(low < -0.28 && -0.28 < high && high < 0.0, "{low} to {high}");
        assert_eq!(interval_of_difference(find("log-loss").unwrap(), &pairs(6, 5, 9), 2), None);
        assert_eq!(interval_of_difference(accuracy, &[], 2), None);
    }

    #[test]
    fn metrics_of_the_confusion_do_not_look_at_probabilities() {
        let no_rows = Array2::zeros((0, 3));
        let none = Scored::new(&[], no_rows.view(), 1);
        let confusion = Confusion::new(3, [(0, 0), (1, 1), (2, 1), (0, 0)].into_iter());
        for metric in METRICS {
            let value = (metric.compute)(&none, &confusion);
            assert_eq!(!value.is_nan(), OF_CONFUSION.contains(&metric.name), "`{}` is {value}", metric.name);
        }
    }

    #[test]
    fn intervals_of_means_and_of_independent_shares() {
        assert_eq!(interval_of_mean(&[1.0]), None);
        let (low, high) = interval_of_mean(&[1.0, 2.0, 3.0]).unwrap();
        assert!((low - 0.868_414).abs() < 1e-5 && (high - 3.131_586).abs() < 1e-5, "{low} to {high}");
        // Newcombe (1998), the first example of his table II: 56/70 and 48/80.
        let share = |hits: u64, n: u64| (hits as f64 / n as f64, wilson_interval(hits, n).unwrap());
        let (low, high) = interval_of_independent(share(48, 80), share(56, 70));
        assert!((low - 0.0524).abs() < 5e-5 && (high - 0.3339).abs() < 5e-5, "{low} to {high}");
    }
}
