//! Optimizers: one file a rule, all of them in [`KINDS`].
//!
//! Rules are PyTorch's. A step first scales the gradient where clipping asks for it, adds `l2 * w` to it (L2 is part of
//! the loss), shrinks weights by `1 - learning_rate * weight_decay` (decoupled, Loshchilov and Hutter 2019), then moves
//! them by the rule. L2 and weight decay apply to weights, not to biases and batch normalisation unless asked to.
//! [`Lbfgs`] is the exception: it looks at all samples at once and finds its own step lengths.

mod adagrad;
mod adam;
mod lbfgs;
mod rmsprop;
mod sgd;

use std::fmt;
use std::sync::Arc;

use crate::config::{Choice, Section};
use crate::engine::{Engine, UpdateStep};

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use lbfgs::Lbfgs;
pub(in crate::nn) use lbfgs::{Evaluated, Objective};
pub use rmsprop::RmsProp;
pub use sgd::Sgd;

/// A kind of optimizer, as manifests know it.
pub type Kind = Choice<Arc<dyn OptimizerConfig>>;

/// Every kind of optimizer. To add one: a file beside this one, and a line here.
pub const KINDS: &[Kind] = &[sgd::KIND, adam::KIND, adam::KIND_W, rmsprop::KIND, adagrad::KIND, lbfgs::KIND];

/// Reads `optimizer` ["adam"]: a word, or `{ sgd = { momentum = 0.9 } }`.
pub fn read(section: &mut Section<'_>) -> Arc<dyn OptimizerConfig> {
    let key = section.key("optimizer", "The rule by which weights move.", "{ sgd = { momentum = 0.9 } }");
    key.choice(KINDS, Some("adam")).unwrap_or_else(|| Arc::new(Adam::default()))
}

/// One tensor at one step.
pub struct Update<'a> {
    /// Where the arithmetic runs.
    pub engine: &'a Engine,
    /// Rate, clipping, L2 and decay.
    pub step: UpdateStep,
    /// Number of the step, from 1.
    pub step_number: u64,
    /// What moves.
    pub weights: &'a mut [f32],
    /// The gradient of the mean loss.
    pub grad: &'a [f32],
}

/// The most moments that a rule that goes batch by batch keeps.
pub const MAX_MOMENTS: usize = 2;

/// A rule by which weights move.
pub trait OptimizerConfig: fmt::Debug + Send + Sync {
    /// The word of its kind.
    fn word(&self) -> &'static str;

    /// How many values it remembers for each weight, at most [`MAX_MOMENTS`] if it goes batch by batch; all start at 0.
    fn n_moments(&self) -> usize;

    /// The rule, if it looks at all samples at once; an epoch is then one iteration.
    fn full_batch(&self) -> Option<&Lbfgs> {
        None
    }

    /// The rule's own decoupled weight decay, where the network's `weight_decay` is not set.
    fn weight_decay(&self) -> f64 {
        0.0
    }

    /// Moves one tensor. `moments` are [`OptimizerConfig::n_moments`] slices as long as the weights.
    fn update(&self, update: Update<'_>, moments: &mut [&mut [f32]]);
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the standard library is the oracle")]
mod tests {
    use super::*;

    /// The largest difference from what the formula says, in f64. Gradients do not depend on the weights (but for L2),
    /// since a rule that divides by them would blow up any rounding.
    fn run(
        config: &dyn OptimizerConfig,
        l2: f64,
        weight_decay: f64,
        formula: &mut dyn FnMut(usize, f64, f64, u64) -> f64,
    ) -> f64 {
        let (n, rate) = (40_000, 0.02);
        let mut weights: Vec<f32> = (0..n).map(|i| ((i % 199) as f32 - 99.0) * 0.01).collect();
        let mut expected: Vec<f64> = weights[..199].iter().map(|&w| f64::from(w)).collect();
        let mut moments = vec![vec![0.0f32; n]; config.n_moments()];
        let gradient = |i: usize, t: u64| ((i as u64 * 7 + t * t * 13) % 17) as f32 * 0.125 - 0.9;
        let engine = Engine::new(2);
        let mut worst: f64 = 0.0;
        for step_number in 1..=100 {
            let grad: Vec<f32> = (0..n).map(|i| gradient(i % 199, step_number)).collect();
            let step = UpdateStep {
                learning_rate: rate as f32,
                grad_scale: 0.5,
                l2: l2 as f32,
                decay: (1.0 - rate * weight_decay) as f32,
            };
            let mut slices: Vec<&mut [f32]> = moments.iter_mut().map(|m| &mut m[..]).collect();
            config
                .update(Update { engine: &engine, step, step_number, weights: &mut weights, grad: &grad }, &mut slices);
            for (i, w) in expected.iter_mut().enumerate() {
                let g = 0.5 * f64::from(gradient(i, step_number)) + l2 * *w;
                let decayed = *w * (1.0 - rate * weight_decay);
                *w = decayed - rate * formula(i, g, *w, step_number);
                worst = worst.max((f64::from(weights[i]) - *w).abs());
                assert_eq!(weights[i].to_bits(), weights[i + 199 * 150].to_bits(), "equal elements stay equal");
            }
        }
        worst
    }

    #[test]
    fn rules_agree_with_their_formulas_over_100_steps() {
        const N: usize = 199;
        // Rounding of about 100 f32 updates of weights near 1.
        const TOLERANCE: f64 = 2e-5;
        for (l2, decay) in [(0.0, 0.0), (0.01, 0.1)] {
            let mut v = vec![0.0; N];
            let worst = run(&Sgd { momentum: 0.0, is_nesterov: false }, l2, decay, &mut |_, g, _, _| g);
            assert!(worst < TOLERANCE, "sgd {worst}");
            let worst = run(&Sgd { momentum: 0.9, is_nesterov: false }, l2, decay, &mut |i, g, _, _| {
                v[i] = 0.9 * v[i] + g;
                v[i]
            });
            assert!(worst < TOLERANCE, "momentum {worst}");
            v.fill(0.0);
            let worst = run(&Sgd { momentum: 0.9, is_nesterov: true }, l2, decay, &mut |i, g, _, _| {
                v[i] = 0.9 * v[i] + g;
                g + 0.9 * v[i]
            });
            assert!(worst < TOLERANCE, "nesterov {worst}");
            let (mut m, mut s) = (vec![0.0; N], vec![0.0; N]);
            let worst = run(&Adam::default(), l2, decay, &mut |i, g, _, t| {
                m[i] = 0.9 * m[i] + 0.1 * g;
                s[i] = 0.999 * s[i] + 0.001 * g * g;
                let (a, b) = (1.0 - 0.9f64.powi(t as i32), 1.0 - 0.999f64.powi(t as i32));
                m[i] / a / ((s[i] / b).sqrt() + 1e-8)
            });
            assert!(worst < TOLERANCE, "adam {worst}");
            s.fill(0.0);
            v.fill(0.0);
            let rule = RmsProp { rho: 0.9, momentum: 0.0, epsilon: 1e-3 };
            let worst = run(&rule, l2, decay, &mut |i, g, _, _| {
                s[i] = 0.9 * s[i] + 0.1 * g * g;
                g / (s[i].sqrt() + 1e-3)
            });
            assert!(worst < TOLERANCE, "rmsprop {worst}");
            s.fill(0.0);
            let worst = run(&RmsProp { momentum: 0.5, ..rule }, l2, decay, &mut |i, g, _, _| {
                s[i] = 0.9 * s[i] + 0.1 * g * g;
                v[i] = 0.5 * v[i] + g / (s[i].sqrt() + 1e-3);
                v[i]
            });
            assert!(worst < TOLERANCE, "rmsprop with momentum {worst}");
            s.fill(0.0);
            let worst = run(&Adagrad { epsilon: 1e-10 }, l2, decay, &mut |i, g, _, _| {
                s[i] += g * g;
                g / (s[i].sqrt() + 1e-10)
            });
            assert!(worst < TOLERANCE, "adagrad {worst}");
        }
    }

    #[test]
    fn words_are_those_of_the_configs() {
        for kind in KINDS {
            let mut log = crate::config::Log::default();
            let mut section = Section::new(None, crate::config::Span::default(), "", &mut log);
            let config = (kind.read)(&mut section);
            assert_eq!(config.word(), kind.word);
            assert!(config.n_moments() <= MAX_MOMENTS || config.full_batch().is_some());
            assert_eq!(log.problems, []);
        }
    }
}
