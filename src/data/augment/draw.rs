//! Beta-distributed numbers, addressed like all others.

use crate::elementary::{exp, ln};
use crate::rng::Stream;

/// Tries of a rejection sampler, after which it gives the mean: fewer than one in 2^30 do.
const TRIES: u64 = 30;

/// A number of Beta(alpha, alpha), in `[0, 1]`, from the draws `first..first + 2 * 30` of `stream`.
///
/// Up to alpha 1 as Jöhnk (1964) has it, in logarithms, so that no power underflows; above, by algorithm BB of Cheng
/// (1978) with both parameters equal.
pub(super) fn beta(alpha: f64, stream: &Stream, first: u64) -> f64 {
    for i in 0..TRIES {
        let (u, v) = (positive(stream, first + 2 * i), positive(stream, first + 2 * i + 1));
        if alpha <= 1.0 {
            // x = u^(1/alpha), y = v^(1/alpha), accepted if x + y <= 1; x / (x + y) is then the draw.
            let (x, y) = (ln(u) / alpha, ln(v) / alpha);
            let most = x.max(y);
            let sum = most + ln(exp(x - most) + exp(y - most));
            if sum <= 0.0 {
                return exp(x - sum);
            }
        } else {
            let lambda = alpha.sqrt();
            let logit = ln(u / (1.0 - u)) / lambda;
            let w = alpha * exp(logit);
            let r = (alpha + lambda) * logit - LN_4;
            let z = ln(u * u * v);
            if r + 2.0 * alpha * ln(2.0 * alpha / (alpha + w)) >= z {
                return w / (alpha + w);
            }
        }
    }
    0.5
}

const LN_4: f64 = 2.0 * std::f64::consts::LN_2;

/// A number in `(0, 1)`.
fn positive(stream: &Stream, index: u64) -> f64 {
    stream.uniform(index) + 0.5 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distribution() {
        let stream = Stream::new(5, "test beta", &[]);
        let n = 20_000;
        for alpha in [1e-3, 0.2, 1.0, 1.5, 4.0, 1000.0] {
            let draws: Vec<f64> = (0..n).map(|i| beta(alpha, &stream, i * 64)).collect();
            assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)), "alpha {alpha}");
            let mean = draws.iter().sum::<f64>() / n as f64;
            let variance = draws.iter().map(|x| (x - 0.5) * (x - 0.5)).sum::<f64>() / n as f64;
            let fourth = draws.iter().map(|x| (x - 0.5) * (x - 0.5) * (x - 0.5) * (x - 0.5)).sum::<f64>() / n as f64;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            // Of a symmetric Beta: kurtosis 3 (2a + 1) / (2a + 3).
            let expected_fourth = 3.0 * (2.0 * alpha + 1.0) / (2.0 * alpha + 3.0) * expected * expected;
            // Six standard errors.
            assert!((mean - 0.5).abs() < 6.0 * (expected / n as f64).sqrt(), "alpha {alpha}: mean {mean}");
            assert!((variance / expected - 1.0).abs() < 0.07, "alpha {alpha}: variance {variance} for {expected}");
            assert!((fourth / expected_fourth - 1.0).abs() < 0.15, "alpha {alpha}: {fourth} for {expected_fourth}");
        }
    }
}
