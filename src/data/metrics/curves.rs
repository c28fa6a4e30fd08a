//! One class against the rest at every threshold: ROC and precision-recall curves.

use super::Scored;

/// What a threshold gives: of the samples whose probability of the class is at least `threshold`, how many are of the class
/// and how many are not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// In `[0, 1]`.
    pub threshold: f32,
    /// Samples of the class at or above it.
    pub true_positives: u64,
    /// Other samples at or above it.
    pub false_positives: u64,
}

/// A class against the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Samples of the class.
    pub n_positive: u64,
    /// Other samples.
    pub n_negative: u64,
    /// One for every probability that was given, the highest first; the last one takes all samples in.
    pub steps: Vec<Step>,
}

impl Curve {
    /// The curve of `class`; `None` unless there are samples of it and others.
    pub fn new(scored: &Scored<'_>, class: usize) -> Option<Curve> {
        // What is not a number ranks last.
        let probability = |p: f32| if p.is_nan() { 0.0 } else { p };
        let mut ranked: Vec<(f32, bool)> =
            scored.samples().map(|(label, p)| (probability(p[class]), label == class)).collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let (mut true_positives, mut false_positives) = (0, 0);
        let mut steps = Vec::new();
        for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
            let n_positive = tied.iter().filter(|(_, is_positive)| *is_positive).count() as u64;
            true_positives += n_positive;
            false_positives += tied.len() as u64 - n_positive;
            steps.push(Step { threshold: tied[0].0, true_positives, false_positives });
        }
        let is_curve = true_positives > 0 && false_positives > 0;
        is_curve.then_some(Curve { n_positive: true_positives, n_negative: false_positives, steps })
    }

    /// The area under the ROC curve, by trapezia.
    pub fn auc(&self) -> f64 {
        let (mut area, mut before) = (0u128, (0, 0));
        for step in &self.steps {
            let (tp, fp) = (step.true_positives, step.false_positives);
            area += u128::from(fp - before.1) * u128::from(tp + before.0);
            before = (tp, fp);
        }
        area as f64 / (2 * u128::from(self.n_positive) * u128::from(self.n_negative)) as f64
    }

    /// The average precision: precision weighted by how much recall each step adds, without interpolation, as scikit-learn
    /// has it.
    pub fn average_precision(&self) -> f64 {
        let (mut sum, mut before) = (0.0, 0);
        for step in &self.steps {
            let (tp, all) = (step.true_positives, step.true_positives + step.false_positives);
            sum += (tp - before) as f64 * (tp as f64 / all as f64);
            before = tp;
        }
        sum / self.n_positive as f64
    }

    /// What `threshold` gives.
    pub fn at(&self, threshold: f32) -> Step {
        let n = self.steps.partition_point(|step| step.threshold >= threshold);
        let (true_positives, false_positives) =
            n.checked_sub(1).map_or((0, 0), |last| (self.steps[last].true_positives, self.steps[last].false_positives));
        Step { threshold, true_positives, false_positives }
    }

    /// At most about `most` steps, the first and the last among them, evenly spread along the ROC curve.
    pub fn thinned(&self, most: usize) -> Vec<Step> {
        let along = |step: &Step| {
            step.true_positives as f64 / self.n_positive as f64 + step.false_positives as f64 / self.n_negative as f64
        };
        let apart = 2.0 / most.max(2) as f64;
        let mut kept: Vec<Step> = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            let is_end = i == 0 || i + 1 == self.steps.len();
            if is_end || kept.last().is_none_or(|last| along(step) - along(last) >= apart) {
                kept.push(*step);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::metrics::find;

    #[test]
    fn areas_are_those_of_hand_and_of_the_metric() {
        let labels = [0, 0, 1, 1];
        let probabilities = ndarray::array![[0.9f32, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]];
        let scored = Scored::new(&labels, probabilities.view(), 1);
        let curve = Curve::new(&scored, 1).unwrap();
        // scikit-learn's example of both: 0.75 and 0.83.
        assert_eq!(curve.auc(), 0.75);
        assert!((curve.average_precision() - 0.833_333_333_333_333_3).abs() < 1e-12);
        let metric = find("roc-auc").unwrap();
        assert_eq!((metric.compute)(&scored, &scored.confusion()), 0.75);
        assert_eq!(curve.at(0.5), Step { threshold: 0.5, true_positives: 1, false_positives: 0 });
        assert_eq!(curve.at(0.35), Step { threshold: 0.35, true_positives: 2, false_positives: 1 });
        assert_eq!(curve.at(0.9).true_positives, 0);
        assert_eq!(curve.thinned(2).len(), 3);
        assert!(Curve::new(&Scored::new(&[1, 1], ndarray::array![[0.5, 0.5], [0.1, 0.9]].view(), 1), 1).is_none());
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_number() {
        let labels: Vec<u32> = (0..1000).map(|i| u32::from(i % 3 == 0)).collect();
        let probabilities: Vec<f32> =
            (0..1000).flat_map(|i| [1.0 - (i as f32 * 0.618) % 1.0, (i as f32 * 0.618) % 1.0]).collect();
        let probabilities = ndarray::Array2::from_shape_vec((1000, 2), probabilities).unwrap();
        let curve = Curve::new(&Scored::new(&labels, probabilities.view(), 1), 1).unwrap();
        let thinned = curve.thinned(100);
        assert!(thinned.len() <= 102 && thinned.len() > 60, "{}", thinned.len());
        assert_eq!((thinned.first(), thinned.last()), (curve.steps.first(), curve.steps.last()));
    }
}
