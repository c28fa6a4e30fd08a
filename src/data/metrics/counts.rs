//! What follows from counting: the confusion of classes, accuracy, precision, recall, F1.

/// How often samples of one class (rows) were taken for another (columns).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    n_classes: usize,
    counts: Vec<u64>,
}

/// Precision, recall and F1 of one class, or averages of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScores {
    /// Share of right ones among the samples that were taken for the class; 0 if there are none.
    pub precision: f64,
    /// Share of the class's samples that were recognised; 0 if there are none.
    pub recall: f64,
    /// Harmonic mean of both; 0 if both are.
    pub f1: f64,
    /// Number of samples of the class.
    pub support: u64,
}

/// How scores of classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// Each class counts the same.
    Macro,
    /// Each class counts as often as it has samples.
    Weighted,
}

/// Both averages, macro first.
pub fn averages() -> [Average; 2] {
    [Average::Macro, Average::Weighted]
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Confusion {
    /// Counts pairs of actual and predicted class.
    pub fn new(n_classes: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Confusion {
        let mut counts = vec![0; n_classes * n_classes];
        for (actual, predicted) in pairs {
            counts[actual * n_classes + predicted] += 1;
        }
        Confusion { n_classes, counts }
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Samples of class `actual` that were taken for class `predicted`.
    pub fn count(&self, actual: usize, predicted: usize) -> u64 {
        self.counts[actual * self.n_classes + predicted]
    }

    /// Samples of a class.
    pub fn actual(&self, class: usize) -> u64 {
        (0..self.n_classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// Samples that were taken for a class.
    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.n_classes).map(|actual| self.count(actual, class)).sum()
    }

    /// All samples.
    pub fn n_samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Samples whose class was recognised.
    pub fn n_correct(&self) -> u64 {
        (0..self.n_classes).map(|class| self.count(class, class)).sum()
    }

    /// Share of samples whose class was recognised.
    pub fn accuracy(&self) -> f64 {
        if self.n_samples() == 0 { f64::NAN } else { ratio(self.n_correct(), self.n_samples()) }
    }

    /// The mean recall of the classes that have samples.
    pub fn balanced_accuracy(&self) -> f64 {
        let present = (0..self.n_classes).filter(|&class| self.actual(class) > 0);
        let (n, sum) = present.fold((0u64, 0.0), |(n, sum), class| (n + 1, sum + self.class(class).recall));
        if n == 0 { f64::NAN } else { sum / n as f64 }
    }

    /// The scores of one class.
    pub fn class(&self, class: usize) -> ClassScores {
        let (hits, actual, predicted) = (self.count(class, class), self.actual(class), self.predicted(class));
        ClassScores {
            precision: ratio(hits, predicted),
            recall: ratio(hits, actual),
            f1: ratio(2 * hits, actual + predicted),
            support: actual,
        }
    }

    /// An average over the classes that have samples or were predicted, as scikit-learn takes it.
    pub fn average(&self, average: Average) -> ClassScores {
        let mut sum = ClassScores { precision: 0.0, recall: 0.0, f1: 0.0, support: self.n_samples() };
        let mut weights = 0.0;
        for class in (0..self.n_classes).filter(|&class| self.actual(class) + self.predicted(class) > 0) {
            let scores = self.class(class);
            let weight = match average {
                Average::Macro => 1.0,
                Average::Weighted => scores.support as f64,
            };
            weights += weight;
            sum.precision += weight * scores.precision;
            sum.recall += weight * scores.recall;
            sum.f1 += weight * scores.f1;
        }
        // Without samples: 0 / 0, not a number.
        ClassScores {
            precision: sum.precision / weights,
            recall: sum.recall / weights,
            f1: sum.f1 / weights,
            support: sum.support,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_from_counts() {
        let pairs = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (3, 3)];
        let confusion = Confusion::new(5, pairs.into_iter());
        assert_eq!((confusion.n_samples(), confusion.n_correct()), (6, 4));
        let third = 2.0 / 3.0;
        assert_eq!(confusion.class(0), ClassScores { precision: third, recall: third, f1: third, support: 3 });
        assert_eq!(confusion.class(2), ClassScores { precision: 0.0, recall: 0.0, f1: 0.0, support: 0 });
        // Classes 2 and 4 were neither there nor predicted, and do not count.
        assert!((confusion.average(Average::Macro).recall - (third + 0.5 + 1.0) / 3.0).abs() < 1e-15);
        assert!((confusion.average(Average::Weighted).recall - 4.0 / 6.0).abs() < 1e-15);
        assert!((confusion.balanced_accuracy() - (third + 0.5 + 1.0) / 3.0).abs() < 1e-15);
    }

    #[test]
    fn nothing_has_no_score() {
        let nothing = Confusion::new(3, std::iter::empty());
        assert!(nothing.accuracy().is_nan() && nothing.balanced_accuracy().is_nan());
        assert!(nothing.average(Average::Macro).f1.is_nan());
    }
}
