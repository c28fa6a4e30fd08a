//! Schedules: how the learning rate moves over a training run.
//!
//! A [`Schedule`] gives a factor of the base rate for each step. All but `plateau` are functions of the step alone;
//! `plateau` also reads a [`Plateau`], which watches the validation loss or accuracy and is part of a checkpoint.

use crate::config::{Bounds, Choice, Section};
use crate::elementary::{cos, pow, powi};

/// How the learning rate moves.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// It does not: `constant`.
    Constant,
    /// `factor^(epoch / every)`, the division rounded down: `step`.
    Step {
        /// In `(0, 1]`, default 0.5.
        factor: f64,
        /// Epochs, default 10.
        every: u64,
    },
    /// `factor^epoch`, continuously in steps: `exponential`.
    Exponential {
        /// In `(0, 1]`, default 0.95.
        factor: f64,
    },
    /// Linear from 0 over the warm-up, then half a cosine from 1 to `floor` at the last step (Loshchilov and Hutter
    /// 2017): `cosine`. With several `cycles` it starts again from 1 (without warm-up), as snapshots want it (Huang et
    /// al. 2017); cycles are equally long within one epoch.
    Cosine {
        /// At least 1, default 1.
        cycles: u64,
        /// Epochs, may be a fraction; default 0.
        warm_up: f64,
        /// What is left at the end, as a share of the base rate; default 0.
        floor: f64,
    },
    /// Multiplied by `factor` when validation has not improved for more than `patience` epochs: `plateau`.
    Plateau {
        /// In `(0, 1]`, default 0.5.
        factor: f64,
        /// Epochs, default 3.
        patience: u64,
        /// An improvement is a loss below `(1 - threshold)` times the best, or an accuracy above `(1 + threshold)`
        /// times it; default 1e-4.
        threshold: f64,
        /// What is watched: the loss (the default), or the accuracy.
        by_accuracy: bool,
        /// The least rate, as a share of the base rate; default 0.
        floor: f64,
    },
}

/// The choices of a manifest.
pub const CHOICES: &[Choice<Schedule>] = &[
    Choice { word: "constant", meaning: "It does not.", read: |_| Schedule::Constant },
    Choice {
        word: "step",
        meaning: "Multiplied by `factor` every so many epochs.",
        read: |section| Schedule::Step {
            factor: read_factor(section, 0.5),
            every: section.key("every", "Epochs between two steps.", "30").whole(1..=1_000_000).or(10),
        },
    },
    Choice {
        word: "exponential",
        meaning: "Multiplied by `factor` each epoch, continuously.",
        read: |section| Schedule::Exponential { factor: read_factor(section, 0.95) },
    },
    Choice {
        word: "cosine",
        meaning: "Half a cosine from 1 to `floor`, once or in cycles (Loshchilov and Hutter 2017).",
        read: |section| Schedule::Cosine {
            cycles: section.key("cycles", "How often it starts again.", "5").whole(1..=1_000).or(1),
            warm_up: section
                .key("warm_up", "Epochs in which the rate grows from 0; may be a fraction.", "1.5")
                .number(Bounds::NonNegative)
                .or(0.0),
            floor: read_floor(section),
        },
    },
    Choice {
        word: "plateau",
        meaning: "Multiplied by `factor` when validation has not improved for more than `patience` epochs.",
        read: |section| Schedule::Plateau {
            factor: read_factor(section, 0.5),
            patience: section.key("patience", "Epochs without improvement.", "5").whole(0..=1_000_000).or(3),
            threshold: section
                .key("threshold", "The least improvement, as a share of the best value.", "1e-3")
                .number(Bounds::Rate)
                .or(1e-4),
            by_accuracy: section
                .key("metric", "What is watched.", "\"accuracy\"")
                .word(&[("loss", "The validation loss.", false), ("accuracy", "The validation accuracy.", true)]),
            floor: read_floor(section),
        },
    },
];

fn read_floor(section: &mut Section<'_>) -> f64 {
    section.key("floor", "The least rate, as a share of `learning_rate`.", "0.01").number(Bounds::Fraction).or(0.0)
}

/// Where a training run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Steps done.
    pub step: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
}

/// What a plateau schedule remembers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plateau {
    /// The lowest loss so far, or minus the highest accuracy.
    pub best: f64,
    /// Epochs since.
    pub stale_epochs: u64,
    /// The factor in force.
    pub factor: f64,
}

impl Default for Plateau {
    fn default() -> Plateau {
        Plateau { best: f64::INFINITY, stale_epochs: 0, factor: 1.0 }
    }
}

impl Schedule {
    /// Reads `schedule` ["constant"]: a word, or `{ step = { factor = 0.5, every = 10 } }`.
    pub fn read(section: &mut Section<'_>) -> Schedule {
        let key = section.key("schedule", "How the learning rate changes.", "{ step = { factor = 0.1, every = 30 } }");
        key.choice(CHOICES, Some("constant")).unwrap_or(Schedule::Constant)
    }

    /// The word in the manifest.
    pub fn word(&self) -> &'static str {
        match self {
            Schedule::Constant => "constant",
            Schedule::Step { .. } => "step",
            Schedule::Exponential { .. } => "exponential",
            Schedule::Cosine { .. } => "cosine",
            Schedule::Plateau { .. } => "plateau",
        }
    }

    /// The epochs, from 1, at whose end a cycle ends, of `epochs` in all; the last one if there are no cycles.
    pub fn ends_of_cycles(&self, epochs: u64) -> Vec<u64> {
        let cycles = if let Schedule::Cosine { cycles, .. } = *self { cycles } else { 1 };
        let mut ends: Vec<u64> = (1..=cycles).map(|cycle| epochs * cycle / cycles).filter(|&end| end > 0).collect();
        ends.dedup();
        ends
    }

    /// How many cycles it has.
    pub fn n_cycles(&self) -> u64 {
        if let Schedule::Cosine { cycles, .. } = *self { cycles } else { 1 }
    }

    /// Whether it reads the validation loss, so that there is no schedule without a validation split.
    pub fn needs_validation(&self) -> bool {
        matches!(self, Schedule::Plateau { .. })
    }

    /// The factor of the base rate for the step that comes after `moment.step` steps.
    pub fn factor(&self, moment: Moment, plateau: &Plateau) -> f64 {
        let steps_per_epoch = moment.steps_per_epoch.max(1);
        let epoch = moment.step / steps_per_epoch;
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Step { factor, every } => powi(factor, (epoch / every) as i64),
            Schedule::Exponential { factor } => pow(factor, moment.step as f64 / steps_per_epoch as f64),
            Schedule::Cosine { cycles, warm_up, floor } => {
                let end_of = |cycle: u64| moment.epochs * cycle / cycles;
                let cycle = (0..cycles).find(|&cycle| epoch < end_of(cycle + 1)).unwrap_or(cycles - 1);
                let start = end_of(cycle) * steps_per_epoch;
                let total = (end_of(cycle + 1) * steps_per_epoch - start) as f64;
                let warm_up = if cycle == 0 { warm_up } else { 0.0 };
                let warm = (warm_up * steps_per_epoch as f64).min(total);
                let step = (moment.step - start) as f64;
                if step < warm {
                    return (step + 1.0) / (warm + 1.0);
                }
                // The last step gets the floor.
                let share = ((step - warm) / (total - warm - 1.0).max(1.0)).min(1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + cos(std::f64::consts::PI * share))
            }
            Schedule::Plateau { floor, .. } => plateau.factor.max(floor),
        }
    }

    /// Tells a plateau schedule the validation loss and accuracy of an epoch; the others do not listen. What is not a
    /// number is no improvement.
    pub fn watch(&self, loss: f64, accuracy: f64, plateau: &mut Plateau) {
        let Schedule::Plateau { factor, patience, threshold, by_accuracy, floor } = *self else { return };
        // Accuracies are watched with their sign changed, so that lower is better.
        let score = if by_accuracy { -accuracy } else { loss };
        let least = plateau.best * if by_accuracy { 1.0 + threshold } else { 1.0 - threshold };
        if score < least || plateau.best == f64::INFINITY && score.is_finite() {
            plateau.best = score;
            plateau.stale_epochs = 0;
            return;
        }
        plateau.stale_epochs += 1;
        if plateau.stale_epochs > patience {
            plateau.factor = (plateau.factor * factor).max(floor);
            plateau.stale_epochs = 0;
        }
    }
}

fn read_factor(section: &mut Section<'_>, default: f64) -> f64 {
    section.key("factor", "What the rate is multiplied by.", "0.1").number(Bounds::Fraction).or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: &Schedule, epochs: u64, steps_per_epoch: u64) -> Vec<f64> {
        (0..epochs * steps_per_epoch)
            .map(|step| schedule.factor(Moment { step, steps_per_epoch, epochs }, &Plateau::default()))
            .collect()
    }

    #[test]
    fn schedules_follow_their_formulas() {
        assert_eq!(factors(&Schedule::Constant, 2, 2), [1.0; 4]);
        assert_eq!(
            factors(&Schedule::Step { factor: 0.5, every: 2 }, 5, 2),
            [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
        );
        let exponential = factors(&Schedule::Exponential { factor: 0.81 }, 2, 2);
        for (got, want) in exponential.iter().zip([1.0, 0.9, 0.81, 0.729]) {
            assert!((got - want).abs() < 1e-15, "{got} for {want}");
        }
        let cosine = factors(&Schedule::Cosine { cycles: 1, warm_up: 1.0, floor: 0.1 }, 5, 3);
        assert_eq!(cosine[..4], [0.25, 0.5, 0.75, 1.0]);
        assert!((cosine[14] - 0.1).abs() < 1e-15 && cosine[3..].is_sorted_by(|a, b| a > b));
        assert!(factors(&Schedule::Cosine { cycles: 1, warm_up: 9.0, floor: 0.0 }, 2, 3).iter().all(|f| f.is_finite()));
        let schedule = Schedule::Cosine { cycles: 3, warm_up: 0.0, floor: 0.0 };
        let cycles = factors(&schedule, 7, 2);
        assert_eq!(schedule.ends_of_cycles(7), [2, 4, 7]);
        assert_eq!([cycles[0], cycles[4], cycles[8]], [1.0; 3]);
        assert!([cycles[3], cycles[7], cycles[13]].iter().all(|f| f.abs() < 1e-15), "{cycles:?}");
        assert_eq!(schedule.ends_of_cycles(2), [1, 2]);
        assert!(factors(&schedule, 2, 3).iter().all(|f| f.is_finite()));
    }

    #[test]
    fn a_plateau_waits_and_then_falls() {
        let schedule = Schedule::Plateau { factor: 0.5, patience: 1, threshold: 0.0, by_accuracy: false, floor: 0.2 };
        let mut plateau = Plateau::default();
        let mut seen = Vec::new();
        for loss in [1.0, 0.9, 0.9, 0.95, 0.91, 0.92, f64::NAN, 0.91, 0.5] {
            schedule.watch(loss, 0.5, &mut plateau);
            seen.push(schedule.factor(Moment { step: 0, steps_per_epoch: 1, epochs: 1 }, &plateau));
        }
        assert_eq!(seen, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]);
        assert_eq!(plateau.best, 0.5);
        let schedule = Schedule::Plateau { factor: 0.5, patience: 1, threshold: 0.01, by_accuracy: true, floor: 0.0 };
        let mut plateau = Plateau::default();
        let mut seen = Vec::new();
        for accuracy in [0.0, 0.5, 0.503, 0.504, 0.51, f64::NAN, 0.515] {
            schedule.watch(0.0, accuracy, &mut plateau);
            seen.push(plateau.factor);
        }
        assert_eq!(seen, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]);
    }
}
