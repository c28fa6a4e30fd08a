//! Agreement beyond chance: Matthews' correlation and Cohen's kappa.

use super::Confusion;

/// Sums over classes that both measures are made of: samples, hits, Σ actual·predicted, Σ actual², Σ predicted². Whole
/// numbers, so exact.
fn sums(confusion: &Confusion) -> [u128; 5] {
    let mut sums = [u128::from(confusion.n_samples()), u128::from(confusion.n_correct()), 0, 0, 0];
    for class in 0..confusion.n_classes() {
        let (actual, predicted) = (u128::from(confusion.actual(class)), u128::from(confusion.predicted(class)));
        sums[2] += actual * predicted;
        sums[3] += actual * actual;
        sums[4] += predicted * predicted;
    }
    sums
}

/// Matthews' correlation for any number of classes (Gorodkin, 2004): 1 is perfect, 0 is chance; 0 where all samples are
/// of one class or all predictions are.
pub(super) fn matthews(confusion: &Confusion) -> f64 {
    let [n, hits, both, actual, predicted] = sums(confusion);
    if n == 0 {
        return f64::NAN;
    }
    let covariance = (hits * n) as f64 - both as f64;
    let spread = ((n * n - actual) as f64).sqrt() * ((n * n - predicted) as f64).sqrt();
    if spread == 0.0 { 0.0 } else { covariance / spread }
}

/// Cohen's kappa (1960): the share of agreement beyond that of chance. `NaN` where chance agrees always.
pub(super) fn cohen_kappa(confusion: &Confusion) -> f64 {
    let [n, hits, both, ..] = sums(confusion);
    // (hits / n - both / n^2) / (1 - both / n^2), multiplied by n^2.
    ((hits * n) as f64 - both as f64) / ((n * n - both) as f64)
}
