//! Optimizer updates: one pass over weights, gradients and moments.
//!
//! The rules are stated in `nn::optimizer`; here they are loops. In all of them the gradient is first multiplied by
//! `grad_scale` (for clipping) and `l2 * w` is added; then the weights shrink by `decay` (decoupled weight decay), then
//! they move.

use super::Engine;
use super::threads::Shares;
use super::versions::{PIECE, versions};

/// What all rules share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateStep {
    /// How far one step goes.
    pub learning_rate: f32,
    /// Factor of the gradient: 1, or less when it is clipped.
    pub grad_scale: f32,
    /// `l2 * w` is added to the gradient.
    pub l2: f32,
    /// Weights are multiplied by this before they move: `1 - learning_rate * weight_decay`.
    pub decay: f32,
}

/// Stochastic gradient descent; `velocity` is there if `momentum` is not 0.
///
/// # Panics
/// If lengths differ.
pub fn sgd(
    engine: &Engine,
    step: UpdateStep,
    momentum: f32,
    is_nesterov: bool,
    weights: &mut [f32],
    grad: &[f32],
    velocity: Option<&mut [f32]>,
) {
    let isa = engine.isa();
    match velocity {
        None => {
            let none: [&mut [f32]; 0] = [];
            pieces(engine, weights, grad, none, |w, g, _| sgd_plain(isa, step, w, g));
        }
        Some(velocity) => pieces(engine, weights, grad, [velocity], |w, g, [v]| {
            if is_nesterov {
                sgd_nesterov(isa, step, momentum, w, g, v)
            } else {
                sgd_momentum(isa, step, momentum, w, g, v)
            }
        }),
    }
}

/// Constants of one step of [`adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `1 / (1 - beta1^t)`.
    pub correction1: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub correction2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

/// Adam and AdamW.
///
/// # Panics
/// If lengths differ.
pub fn adam(
    engine: &Engine,
    step: UpdateStep,
    rule: AdamStep,
    weights: &mut [f32],
    grad: &[f32],
    moments: [&mut [f32]; 2],
) {
    let isa = engine.isa();
    pieces(engine, weights, grad, moments, |w, g, [m, v]| adam_piece(isa, step, rule, w, g, m, v));
}

/// Constants of [`rmsprop`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropStep {
    /// Decay of the mean square.
    pub rho: f32,
    /// Share of the last step that is taken again.
    pub momentum: f32,
    /// Added to the root of the mean square.
    pub epsilon: f32,
}

/// RMSprop; `velocity` is there if `momentum` is not 0.
///
/// # Panics
/// If lengths differ.
pub fn rmsprop(
    engine: &Engine,
    step: UpdateStep,
    rule: RmsPropStep,
    weights: &mut [f32],
    grad: &[f32],
    square: &mut [f32],
    velocity: Option<&mut [f32]>,
) {
    let isa = engine.isa();
    match velocity {
        None => pieces(engine, weights, grad, [square], |w, g, [s]| rmsprop_piece(isa, step, rule, w, g, s)),
        Some(velocity) => pieces(engine, weights, grad, [square, velocity], |w, g, [s, v]| {
            rmsprop_momentum(isa, step, rule, w, g, s, v);
        }),
    }
}

/// Adagrad.
///
/// # Panics
/// If lengths differ.
pub fn adagrad(engine: &Engine, step: UpdateStep, epsilon: f32, weights: &mut [f32], grad: &[f32], square: &mut [f32]) {
    let isa = engine.isa();
    pieces(engine, weights, grad, [square], |w, g, [s]| adagrad_piece(isa, step, epsilon, w, g, s));
}

/// Calls `f` for each piece of the tensors, side by side.
fn pieces<const N: usize>(
    engine: &Engine,
    weights: &mut [f32],
    grad: &[f32],
    moments: [&mut [f32]; N],
    f: impl Fn(&mut [f32], &[f32], [&mut [f32]; N]) + Sync,
) {
    assert_eq!(weights.len(), grad.len(), "weights and their gradients");
    let moments = moments.map(|moment| {
        assert_eq!(moment.len(), grad.len(), "moments and gradients");
        Shares(moment.as_mut_ptr())
    });
    engine.for_each_chunk(weights, PIECE, |i, weights| {
        let (start, len) = (i * PIECE, weights.len());
        // SAFETY: piece `i` is visited once, and all tensors have the same length.
        let moments = moments.map(|moment| unsafe { moment.slice(start, len) });
        f(weights, &grad[start..][..len], moments);
    });
}

/// The gradient with scale and L2.
#[inline(always)]
fn total(step: &UpdateStep, g: f32, w: f32) -> f32 {
    g * step.grad_scale + step.l2 * w
}

versions! {
    fn sgd_plain(step: UpdateStep, weights: &mut [f32], grad: &[f32]) {
        for (w, &g) in weights.iter_mut().zip(grad) {
            let g = total(&step, g, *w);
            *w = *w * step.decay - step.learning_rate * g;
        }
    }

    fn sgd_momentum(step: UpdateStep, momentum: f32, weights: &mut [f32], grad: &[f32], velocity: &mut [f32]) {
        for ((w, &g), v) in weights.iter_mut().zip(grad).zip(velocity) {
            let g = total(&step, g, *w);
            *v = momentum * *v + g;
            *w = *w * step.decay - step.learning_rate * *v;
        }
    }

    fn sgd_nesterov(step: UpdateStep, momentum: f32, weights: &mut [f32], grad: &[f32], velocity: &mut [f32]) {
        for ((w, &g), v) in weights.iter_mut().zip(grad).zip(velocity) {
            let g = total(&step, g, *w);
            *v = momentum * *v + g;
            *w = *w * step.decay - step.learning_rate * (g + momentum * *v);
        }
    }

    fn adam_piece(
        step: UpdateStep,
        rule: AdamStep,
        weights: &mut [f32],
        grad: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let rate = step.learning_rate * rule.correction1;
        for (((w, &g), m), v) in weights.iter_mut().zip(grad).zip(first).zip(second) {
            let g = total(&step, g, *w);
            *m = rule.beta1 * *m + (1.0 - rule.beta1) * g;
            *v = rule.beta2 * *v + (1.0 - rule.beta2) * (g * g);
            *w = *w * step.decay - rate * *m / (v.sqrt() * rule.correction2 + rule.epsilon);
        }
    }

    fn rmsprop_piece(step: UpdateStep, rule: RmsPropStep, weights: &mut [f32], grad: &[f32], square: &mut [f32]) {
        for ((w, &g), s) in weights.iter_mut().zip(grad).zip(square) {
            let g = total(&step, g, *w);
            *s = rule.rho * *s + (1.0 - rule.rho) * (g * g);
            *w = *w * step.decay - step.learning_rate * g / (s.sqrt() + rule.epsilon);
        }
    }

    fn rmsprop_momentum(
        step: UpdateStep,
        rule: RmsPropStep,
        weights: &mut [f32],
        grad: &[f32],
        square: &mut [f32],
        velocity: &mut [f32],
    ) {
        for (((w, &g), s), v) in weights.iter_mut().zip(grad).zip(square).zip(velocity) {
            let g = total(&step, g, *w);
            *s = rule.rho * *s + (1.0 - rule.rho) * (g * g);
            *v = rule.momentum * *v + g / (s.sqrt() + rule.epsilon);
            *w = *w * step.decay - step.learning_rate * *v;
        }
    }

    fn adagrad_piece(step: UpdateStep, epsilon: f32, weights: &mut [f32], grad: &[f32], square: &mut [f32]) {
        for ((w, &g), s) in weights.iter_mut().zip(grad).zip(square) {
            let g = total(&step, g, *w);
            *s += g * g;
            *w = *w * step.decay - step.learning_rate * g / (s.sqrt() + epsilon);
        }
    }
}
