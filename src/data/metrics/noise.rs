//! Whether a difference between two numbers may be luck, and how that was decided.
//!
//! On the same samples: the accuracy by McNemar's test (noise where p is 0.05 or more), the log loss by the 95 % interval of
//! the mean difference, what follows from the confusion of classes by a paired bootstrap (noise where 0 is in the 95 %
//! interval). Elsewhere by the two numbers' own 95 % intervals, as for independent samples.

use super::{Pair, interval_of_difference, interval_of_independent, interval_of_mean, mcnemar};

/// From this probability on a difference counts as noise.
const NOISE: f64 = 0.05;

/// How a difference was judged.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Judged {
    /// `mcnemar`, `paired-mean`, `paired-bootstrap`, `intervals`.
    pub by: &'static str,
    /// Samples that both sides were compared on; `None` where each side has its own.
    pub n_common: Option<usize>,
    /// Of McNemar's test.
    pub p_value: Option<f64>,
    /// The 95 % interval of new less old.
    pub difference: Option<(f64, f64)>,
    /// Whether the difference may be luck.
    pub is_noise: bool,
}

impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_noise { "within noise" } else { "beyond noise" })?;
        match (self.p_value, self.difference, self.n_common) {
            (Some(p), _, Some(n)) if p < 0.0005 => write!(f, " (McNemar p < 0.001, {n} images)"),
            (Some(p), _, Some(n)) => write!(f, " (McNemar p {p:.3}, {n} images)"),
            (None, Some((low, high)), Some(n)) => write!(f, " ([{low:+.4}, {high:+.4}], {n} images)"),
            (_, Some((low, high)), None) => write!(f, " ([{low:+.4}, {high:+.4}], unpaired)"),
            _ => Ok(()),
        }
    }
}

impl Judged {
    /// By McNemar's test of the samples that each side recognised.
    pub fn by_mcnemar(pairs: &[Pair]) -> Judged {
        let test = mcnemar(pairs.iter().map(|pair| (pair.actual == pair.a, pair.actual == pair.b)));
        Judged {
            by: "mcnemar",
            n_common: Some(pairs.len()),
            p_value: Some(test.p_value),
            difference: None,
            is_noise: test.p_value >= NOISE,
        }
    }

    /// Of a metric on the same samples: `pairs` of what the two sides say, and for each sample the log loss of the second less
    /// that of the first. `None` for a metric that follows from neither.
    pub fn of_pairs(metric: &str, pairs: &[Pair], n_classes: usize, losses: &[f64]) -> Option<Judged> {
        let n = Some(pairs.len());
        match metric {
            "accuracy" => Some(Judged::by_mcnemar(pairs)),
            "log-loss" => {
                let interval = interval_of_mean(losses).filter(|(low, high)| !low.is_nan() && !high.is_nan());
                interval.map(|interval| Judged::by_interval("paired-mean", n, interval))
            }
            _ => {
                let interval = interval_of_difference(super::find(metric)?, pairs, n_classes)?;
                Some(Judged::by_interval("paired-bootstrap", n, interval))
            }
        }
    }

    /// Of two numbers with their 95 % intervals, as for independent samples: the second less the first.
    pub fn of_independent(a: (f64, (f64, f64)), b: (f64, (f64, f64))) -> Judged {
        Judged::by_interval("intervals", None, interval_of_independent(a, b))
    }

    fn by_interval(by: &'static str, n_common: Option<usize>, (low, high): (f64, f64)) -> Judged {
        Judged { by, n_common, p_value: None, difference: Some((low, high)), is_noise: low <= 0.0 && 0.0 <= high }
    }
}
