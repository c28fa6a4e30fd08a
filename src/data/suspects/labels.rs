//! Labels that held-out predictions contradict: confident learning (Northcutt, Jiang, Chuang 2021).
//!
//! A class's threshold is the mean probability of the class over the samples that are labelled so: what the model usually says
//! where it is right. A sample belongs confidently to another class if, of the classes whose probability reaches their
//! threshold, the most probable one is not its label: an entry of the confident joint beside the diagonal. Samples are
//! ranked by self-confidence, the probability of their label, the least first.

use ndarray::ArrayView2;

use crate::data::metrics::arg_max;

/// A sample whose label is doubtful.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contradicted {
    /// Which row of the predictions.
    pub row: usize,
    /// The class that is more likely.
    pub suggested: usize,
    /// The probability of the label.
    pub p_label: f32,
    /// That of the suggested class.
    pub p_suggested: f32,
    /// Whether the suggested class reaches its threshold.
    pub is_confident: bool,
}

impl Contradicted {
    /// How doubtful the label is, from 0 to 1: what is missing to a sure label.
    pub fn score(&self) -> f64 {
        1.0 - f64::from(self.p_label)
    }
}

/// The samples whose most probable class is not their label, or that belong confidently to another class, the most doubtful
/// first; of equals that with the more probable suggestion, then the first.
///
/// `probabilities`, `[labels.len(), n_classes]`, must be of models that did not learn from the sample itself.
///
/// # Panics
/// If the shapes disagree or a label is no class.
pub fn contradicted(labels: &[u32], probabilities: ArrayView2<'_, f32>) -> Vec<Contradicted> {
    let thresholds = thresholds(labels, probabilities);
    let mut found = Vec::new();
    for (row, (&label, p)) in labels.iter().zip(probabilities.rows()).enumerate() {
        let p: Vec<f32> = p.iter().copied().collect();
        let label = label as usize;
        let reaching = |class: &usize| thresholds[*class].is_some_and(|threshold| f64::from(p[*class]) >= threshold);
        // The first of equals.
        let confident =
            (0..p.len()).filter(reaching).reduce(|best, class| if p[class] > p[best] { class } else { best });
        let best = confident.filter(|&class| class != label);
        let suggested = best.unwrap_or_else(|| arg_max(&p));
        if suggested != label {
            let (p_label, p_suggested) = (p[label], p[suggested]);
            found.push(Contradicted { row, suggested, p_label, p_suggested, is_confident: best.is_some() });
        }
    }
    found.sort_by(|a, b| {
        let suggestion = b.p_suggested.total_cmp(&a.p_suggested);
        a.p_label.total_cmp(&b.p_label).then(suggestion).then(a.row.cmp(&b.row))
    });
    found
}

/// The threshold of each class; `None` of one that no sample is labelled as.
fn thresholds(labels: &[u32], probabilities: ArrayView2<'_, f32>) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0u64); probabilities.ncols()];
    for (&label, p) in labels.iter().zip(probabilities.rows()) {
        let (sum, n) = &mut sums[label as usize];
        *sum += f64::from(p[label as usize]);
        *n += 1;
    }
    sums.into_iter().map(|(sum, n)| (n > 0).then(|| sum / n as f64)).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn what_reaches_its_threshold_counts_and_the_least_sure_label_is_first() {
        // Thresholds: 0.5 of class 0, 0.75 of class 1, none of class 2.
        let labels = [0, 0, 0, 1, 1, 1];
        let p = array![
            [0.9f32, 0.1, 0.0],
            [0.4, 0.6, 0.0], // more probable elsewhere, below the threshold there
            [0.2, 0.8, 0.0], // confidently of class 1
            [0.05, 0.95, 0.0],
            [0.1, 0.9, 0.0],
            [0.45, 0.4, 0.15],
        ];
        let told: Vec<_> = thresholds(&labels, p.view()).iter().map(|t| t.map(|t| (t * 100.0).round())).collect();
        assert_eq!(told, [Some(50.0), Some(75.0), None]);
        let found = contradicted(&labels, p.view());
        let told: Vec<_> = found.iter().map(|one| (one.row, one.suggested, one.is_confident)).collect();
        assert_eq!(told, [(2, 1, true), (1, 1, false), (5, 0, false)]);
        assert!((found[0].score() - 0.8).abs() < 1e-6);
    }

    #[test]
    fn a_class_above_its_low_threshold_beats_a_likelier_one_below_its_own() {
        // Class 1 is never said with much confidence: 0.45 is much for it.
        let labels = [0, 0, 1, 1];
        let p = array![[0.99f32, 0.01], [0.55, 0.45], [0.6, 0.4], [0.7, 0.3]];
        let found = contradicted(&labels, p.view());
        let told: Vec<_> = found.iter().map(|one| (one.row, one.suggested, one.is_confident)).collect();
        // Row 2 reaches the threshold of its own class alone: no other is confident.
        assert_eq!(told, [(3, 0, false), (2, 0, false), (1, 1, true)]);
    }
}
