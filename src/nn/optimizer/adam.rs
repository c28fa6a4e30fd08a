//! Adam and AdamW.

use std::sync::Arc;

use super::{Kind, OptimizerConfig, Update};
use crate::config::{Bounds, Section};
use crate::elementary::powi;
use crate::engine::{self, AdamStep};

pub(super) const KIND: Kind = Kind {
    word: "adam",
    meaning: "Steps scaled by running moments of the gradient (Kingma and Ba 2015).",
    read: |section| Arc::new(Adam { weight_decay: None, ..Adam::read(section) }),
};

pub(super) const KIND_W: Kind = Kind {
    word: "adamw",
    meaning: "Adam with a decoupled weight decay of its own (Loshchilov and Hutter 2019).",
    read: |section| {
        let adam = Adam::read(section);
        let weight_decay = section
            .key("weight_decay", "Decoupled decay, unless the stage has its own.", "0.05")
            .number(Bounds::NonNegative)
            .or(0.01);
        Arc::new(Adam { weight_decay: Some(weight_decay), ..adam })
    },
};

/// Adam (Kingma and Ba 2015): steps scaled by running moments of the gradient.
///
/// `m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g²;`
/// `w -= learning_rate * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)`
///
/// AdamW (Loshchilov and Hutter 2019) is Adam with a `weight_decay` [0.01] of its own, decoupled: first
/// `w *= 1 - learning_rate * weight_decay`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// Decay of the first moment, default 0.9.
    pub beta1: f64,
    /// Decay of the second moment, default 0.999.
    pub beta2: f64,
    /// Default 1e-8.
    pub epsilon: f64,
    /// AdamW's.
    pub weight_decay: Option<f64>,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: None }
    }
}

impl Adam {
    /// Reads `beta1`, `beta2`, `epsilon`.
    pub fn read(section: &mut Section<'_>) -> Adam {
        Adam {
            beta1: section.key("beta1", "Decay of the first moment.", "0.95").number(Bounds::Rate).or(0.9),
            beta2: section.key("beta2", "Decay of the second moment.", "0.99").number(Bounds::Rate).or(0.999),
            epsilon: section.key("epsilon", "Added to the divisor.", "1e-6").number(Bounds::Positive).or(1e-8),
            weight_decay: None,
        }
    }
}

impl OptimizerConfig for Adam {
    fn word(&self) -> &'static str {
        if self.weight_decay.is_some() { "adamw" } else { "adam" }
    }

    fn n_moments(&self) -> usize {
        2
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay.unwrap_or(0.0)
    }

    fn update(&self, update: Update<'_>, moments: &mut [&mut [f32]]) {
        let t = update.step_number as i64;
        let rule = AdamStep {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            correction1: (1.0 / (1.0 - powi(self.beta1, t))) as f32,
            correction2: (1.0 / (1.0 - powi(self.beta2, t)).sqrt()) as f32,
            epsilon: self.epsilon as f32,
        };
        let [first, second] = moments else { panic!("Adam has two moments, not {}", moments.len()) };
        engine::adam(update.engine, update.step, rule, update.weights, update.grad, [first, second]);
    }
}
