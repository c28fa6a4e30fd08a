//! Whether one model is better than another, or only luckier: McNemar's test on the samples where they disagree.

use crate::elementary::erfc;

/// Fewer discordant samples than this are counted exactly, as the textbooks advise.
const EXACT_BELOW: u64 = 25;

/// How often two models were right about the same samples, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct McNemar {
    /// Samples that both recognised.
    pub both_correct: u64,
    /// Samples that only the first recognised.
    pub only_a_correct: u64,
    /// Samples that only the second recognised.
    pub only_b_correct: u64,
    /// Samples that neither recognised.
    pub both_wrong: u64,
    /// Whether discordant samples were counted exactly (a two-sided sign test), because there are fewer than 25.
    pub is_exact: bool,
    /// The smaller number of discordant samples where it is exact, else chi-square with continuity correction.
    pub statistic: f64,
    /// The chance of a difference at least as large between two models that are equally good, in `[0, 1]`.
    pub p_value: f64,
}

/// McNemar's test (1947; with Edwards' continuity correction, 1948) of pairs: whether each of two models was right
/// about a sample.
pub fn mcnemar(pairs: impl Iterator<Item = (bool, bool)>) -> McNemar {
    let mut counts = [[0u64; 2]; 2];
    for (a, b) in pairs {
        counts[usize::from(a)][usize::from(b)] += 1;
    }
    let [[both_wrong, only_b_correct], [only_a_correct, both_correct]] = counts;
    let discordant = only_a_correct + only_b_correct;
    let is_exact = discordant < EXACT_BELOW;
    let (statistic, p_value) = if is_exact {
        let fewer = only_a_correct.min(only_b_correct);
        (fewer as f64, sign_test(fewer, discordant))
    } else {
        let beyond = only_a_correct.abs_diff(only_b_correct).saturating_sub(1) as f64;
        let chi_square = beyond * beyond / discordant as f64;
        // The square of a standard normal number is beyond it so often.
        (chi_square, erfc((0.5 * chi_square).sqrt()))
    };
    McNemar { both_correct, only_a_correct, only_b_correct, both_wrong, is_exact, statistic, p_value }
}

/// The chance that of `n < 63` throws of a coin at most `fewer` fall on the rarer side; whole numbers, so exact.
fn sign_test(fewer: u64, n: u64) -> f64 {
    let mut ways = 1u64;
    let mut sum = 0u64;
    for i in 0..=fewer {
        sum += ways;
        ways = ways * (n - i) / (i + 1);
    }
    (2.0 * sum as f64 / (1u64 << n) as f64).min(1.0)
}

/// P-values of several tests together (Holm, 1979), in the order given: comparing all models with all, some pair
/// differs by luck.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let n = p_values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; n];
    let mut largest = 0.0f64;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max(((n - rank) as f64 * p_values[i]).min(1.0));
        adjusted[i] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(only_a: u64, only_b: u64) -> McNemar {
        let pairs = [((true, false), only_a), ((false, true), only_b), ((true, true), 5), ((false, false), 3)];
        mcnemar(pairs.into_iter().flat_map(|(pair, n)| std::iter::repeat_n(pair, n as usize)))
    }

    #[test]
    fn few_disagreements_are_counted_exactly() {
        assert_eq!((of(0, 0).p_value, of(3, 3).p_value, of(1, 0).p_value), (1.0, 1.0, 1.0));
        // 2 (1 + 10) / 2^10
        assert_eq!((of(9, 1).p_value, of(1, 9).p_value), (22.0 / 1024.0, 22.0 / 1024.0));
        assert!(of(12, 12).is_exact && !of(12, 13).is_exact);
        assert_eq!((of(9, 1).both_correct, of(9, 1).both_wrong), (5, 3));
        // As many of each are no difference at all.
        assert_eq!((of(20, 20).statistic, of(20, 20).p_value), (0.0, 1.0));
    }

    #[test]
    fn together_p_values_grow() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.6]);
        for (got, expected) in adjusted.iter().zip([0.04, 0.09, 0.09, 0.6]) {
            assert!((got - expected).abs() < 1e-15, "{adjusted:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }
}
