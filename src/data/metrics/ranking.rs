//! Order only: the area under the ROC curve, and whether the truth is among the first few.

use super::Scored;

/// Share of samples whose class is among the `top_k` most probable ones; of equals, the lower class comes first.
pub(super) fn top_k(scored: &Scored<'_>) -> f64 {
    let is_hit = |label: usize, probabilities: &[f32]| {
        let p = probabilities[label];
        let before =
            probabilities.iter().enumerate().filter(|(class, other)| **other > p || **other == p && *class < label);
        !p.is_nan() && before.count() < scored.top_k
    };
    let hits = scored.samples().filter(|(label, probabilities)| is_hit(*label, probabilities)).count();
    hits as f64 / scored.len() as f64
}

/// The area under the ROC curve of each class against the rest, averaged over the classes that have both (Hand and Till
/// discuss the choice, 2001; Fawcett, 2006). `NaN` if no class has both.
pub(super) fn roc_auc(scored: &Scored<'_>) -> f64 {
    let areas = (0..scored.n_classes()).filter_map(|class| class_auc(scored, class));
    let (n, sum) = areas.fold((0u64, 0.0), |(n, sum), area| (n + 1, sum + area));
    sum / n as f64
}

/// The chance that a sample of `class` gets a higher probability for it than one of another class; ties count half.
fn class_auc(scored: &Scored<'_>, class: usize) -> Option<f64> {
    let mut ranked: Vec<(f32, bool)> = scored.samples().map(|(label, p)| (p[class], label == class)).collect();
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let n_positive = ranked.iter().filter(|(_, is_positive)| *is_positive).count() as u64;
    let n_negative = ranked.len() as u64 - n_positive;
    if n_positive == 0 || n_negative == 0 {
        return None;
    }
    // Pairs won, counted twice, so that a tie is one: whole numbers, in any order.
    let mut won = 0u128;
    let mut below = 0u64;
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let positives = tied.iter().filter(|(_, is_positive)| *is_positive).count() as u64;
        let negatives = tied.len() as u64 - positives;
        won += u128::from(positives) * u128::from(2 * below + negatives);
        below += negatives;
    }
    Some(won as f64 / (2 * u128::from(n_positive) * u128::from(n_negative)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half_and_the_lower_class_comes_first() {
        let labels = [0, 1, 1, 0];
        let probabilities = ndarray::array![[0.5, 0.5], [0.5, 0.5], [0.2, 0.8], [0.9, 0.1]];
        let scored = |k| Scored::new(&labels, probabilities.view(), k);
        // Of the four pairs of class 0 and 1, three are won and one is tied.
        assert_eq!(roc_auc(&scored(1)), 3.5 / 4.0);
        assert_eq!(top_k(&scored(1)), 0.75);
        assert_eq!(top_k(&scored(2)), 1.0);
        assert!(roc_auc(&Scored::new(&[0, 0], ndarray::array![[0.5, 0.5], [0.1, 0.9]].view(), 1)).is_nan());
    }
}
