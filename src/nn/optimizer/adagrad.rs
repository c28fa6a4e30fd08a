//! Adagrad.

use std::sync::Arc;

use super::{Kind, OptimizerConfig, Update};
use crate::config::{Bounds, Section};
use crate::engine;

pub(super) const KIND: Kind = Kind {
    word: "adagrad",
    meaning: "Steps divided by the root of all squared gradients so far (Duchi et al. 2011).",
    read: |section| Arc::new(Adagrad::read(section)),
};

/// Adagrad (Duchi et al. 2011): `s += g²; w -= learning_rate * g / (sqrt(s) + epsilon)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad {
    /// Default 1e-10.
    pub epsilon: f32,
}

impl Adagrad {
    /// Reads `epsilon`.
    pub fn read(section: &mut Section<'_>) -> Adagrad {
        Adagrad {
            epsilon: section.key("epsilon", "Added to the divisor.", "1e-8").number(Bounds::Positive).or(1e-10) as f32,
        }
    }
}

impl OptimizerConfig for Adagrad {
    fn word(&self) -> &'static str {
        "adagrad"
    }

    fn n_moments(&self) -> usize {
        1
    }

    fn update(&self, update: Update<'_>, moments: &mut [&mut [f32]]) {
        let [square] = moments else { panic!("Adagrad has one moment, not {}", moments.len()) };
        engine::adagrad(update.engine, update.step, self.epsilon, update.weights, update.grad, square);
    }
}
