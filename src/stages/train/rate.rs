//! The learning-rate range test (Smith 2017): from batch to batch the rate grows by the same factor, and the loss is watched.

use std::sync::Arc;

use super::batches::TrainingBatches;
use super::{Context, StageError, Task, Train, fit, lineage};
use crate::elementary::{exp, ln};
use crate::engine::{Engine, Isa};
use crate::nn::training::Trainer;

/// Which rates are tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRange {
    /// The rate of the first update, above 0.
    pub from: f64,
    /// That of the last one, above `from`.
    pub to: f64,
    /// Updates, at least 2.
    pub n_steps: u64,
}

impl RateRange {
    /// The rate of an update, from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let share = step as f64 / (self.n_steps - 1) as f64;
        exp(ln(self.from) + share * (ln(self.to) - ln(self.from)))
    }
}

/// One update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateStep {
    /// Its learning rate.
    pub rate: f64,
    /// The mean loss of its batch before it, in nats; not finite where numbers left the finite world.
    pub loss: f64,
    /// The losses so far, weighed exponentially over a tenth of the range or so, corrected for the start.
    pub smoothed: f64,
}

/// The smoothed loss looks back over this share of all steps.
const SHARE: f64 = 0.1;
/// The loss has exploded when it is so many times the smallest, or so many nats above it where that is small.
const EXPLODED: f64 = 4.0;

/// Of so many steps, how far the smoothed loss looks back: its losses are `window - 1` steps old in the mean.
fn window(n_steps: u64) -> f64 {
    (SHARE * 0.5 * n_steps as f64).max(1.5)
}

/// What the losses so far come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Smoothing {
    /// What is kept at each step.
    kept: f64,
    sum: f64,
    weight: f64,
    best: f64,
}

impl Smoothing {
    pub fn new(n_steps: u64) -> Smoothing {
        let kept = 1.0 - 1.0 / window(n_steps);
        Smoothing { kept, sum: 0.0, weight: 0.0, best: f64::INFINITY }
    }

    /// Adds a loss: the smoothed one, and whether it has exploded.
    pub fn add(&mut self, loss: f64) -> (f64, bool) {
        self.sum = self.kept * self.sum + (1.0 - self.kept) * loss;
        self.weight = self.kept * self.weight + (1.0 - self.kept);
        let smoothed = self.sum / self.weight;
        if !smoothed.is_finite() {
            return (smoothed, true);
        }
        self.best = self.best.min(smoothed);
        (smoothed, smoothed > EXPLODED * self.best.max(1.0))
    }
}

/// Trains a new network on the task's training rows while the rate grows, until the loss explodes. Nothing is kept of it.
///
/// # Determinism
/// Batches are those of the training, epoch by epoch.
///
/// # Errors
/// If the optimizer finds its own rates, the data does not fit, or the task was told to stop.
pub(super) fn rate_range(
    stage: &Train,
    task: &Task,
    range: RateRange,
    context: &dyn Context,
) -> Result<Vec<RateStep>, StageError> {
    if stage.optimizer.full_batch().is_some() {
        return Err(StageError::new("its optimizer finds the length of its steps by itself").key("optimizer"));
    }
    let dataset = Arc::new(lineage::dataset(task)?);
    let splits = lineage::splits(task)?;
    let fit_set = lineage::fit_set(&splits, task.part);
    let feed = lineage::feed(task, &dataset)?;
    let seeds = fit::seeds(task);
    let rows = fit_set.training();
    if rows.is_empty() {
        return Err(fit::no_images());
    }
    let plan = fit::plan(stage, feed.sample_shape(), dataset.n_classes())?;
    fit::check_augmentation(stage, feed.sample_shape())?;
    let batch = stage.batch_size.min(rows.len());
    let engine = Engine::with_capacity(context.threads(), context.most_threads(), Isa::detect());
    let mut trainer = Trainer::new(&engine, &plan, batch, fit::training(stage, &seeds, &dataset, rows));
    let (augment, prefetches) = (&stage.augment, context.threads() > 1);
    let mut training =
        TrainingBatches::new((&feed, &dataset), rows, &seeds, batch, augment, stage.oversample, prefetches);
    let mut steps: Vec<RateStep> = Vec::new();
    let mut smoothing = Smoothing::new(range.n_steps);
    for epoch in 1.. {
        let n_before = steps.len();
        let n_whole = training.n_whole_batches();
        let outcome = training.for_each(epoch, |i, images, targets| {
            if context.is_cancelled() {
                return Err(Some(StageError::cancelled()));
            }
            // A rest of a few images says little of a rate.
            if i >= n_whole {
                return Ok(());
            }
            let rate = range.rate(steps.len() as u64);
            let loss = trainer.train_step(images, targets, rate, None).loss();
            let (smoothed, has_exploded) = smoothing.add(loss);
            steps.push(RateStep { rate, loss, smoothed });
            context.progress(steps.len() as u64, range.n_steps, "batches", &format!("loss {smoothed:.3}"));
            if has_exploded || steps.len() as u64 == range.n_steps { Err(None) } else { Ok(()) }
        });
        match outcome {
            Err(Some(error)) => return Err(error),
            Err(None) => break,
            Ok(()) if steps.len() == n_before => break,
            Ok(()) => {}
        }
    }
    Ok(steps)
}

/// The rate to begin with, of the first of `n_steps`: a tenth of that where the smoothed loss was smallest (it lags behind, which
/// is taken off), to two digits. `None` if the loss never fell.
pub fn advised(steps: &[RateStep], n_steps: u64) -> Option<f64> {
    let finite = || steps.iter().enumerate().filter(|(_, step)| step.smoothed.is_finite());
    let (at, best) = finite().min_by(|(_, a), (_, b)| a.smoothed.total_cmp(&b.smoothed))?;
    let first = steps.first()?;
    let has_fallen = best.smoothed < first.smoothed - 0.02 * first.smoothed.abs();
    let rate = steps[at.saturating_sub((window(n_steps) - 1.0) as usize)].rate;
    if has_fallen { format!("{:.1e}", rate / 10.0).parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_grow_by_one_factor() {
        let range = RateRange { from: 1e-4, to: 1.0, n_steps: 5 };
        for (step, expected) in [1e-4, 1e-3, 1e-2, 1e-1, 1.0].into_iter().enumerate() {
            assert!((range.rate(step as u64) / expected - 1.0).abs() < 1e-12, "step {step}");
        }
    }

    #[test]
    fn a_tenth_of_the_best_rate_is_advised_if_the_loss_fell() {
        let step = |rate: f64, smoothed: f64| RateStep { rate, loss: smoothed, smoothed };
        let fallen = [step(1e-3, 2.3), step(1e-2, 1.9), step(0.123, 1.2), step(1.0, 3.0), step(2.0, f64::NAN)];
        assert_eq!(advised(&fallen, 5), Some(0.012));
        assert_eq!(advised(&[step(1e-3, 2.3), step(1e-2, 2.29), step(0.1, 5.0)], 3), None);
        assert_eq!(advised(&[], 200), None);
        // Of 60 steps the smoothed loss is that of two steps ago.
        assert_eq!(advised(&fallen, 60), Some(1e-4));
    }

    #[test]
    fn an_exploded_loss_is_seen() {
        let mut smoothing = Smoothing::new(400);
        assert_eq!(smoothing.add(2.0), (2.0, false));
        let falling = (0..60).map(|_| smoothing.add(0.1)).last().unwrap();
        assert!(falling.0 < 0.3 && !falling.1, "{falling:?}");
        // A small loss may be small many times over.
        assert!(!smoothing.add(2.0).1);
        assert!((0..20).any(|_| smoothing.add(30.0).1));
        assert!(smoothing.add(f64::NAN).1);
    }
}
