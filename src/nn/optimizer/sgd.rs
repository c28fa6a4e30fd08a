//! SGD: plain, with momentum, with Nesterov's momentum.

use std::sync::Arc;

use super::{Kind, OptimizerConfig, Update};
use crate::config::{Bounds, Section};
use crate::engine;

pub(super) const KIND: Kind = Kind {
    word: "sgd",
    meaning: "Stochastic gradient descent, plain or with momentum.",
    read: |section| Arc::new(Sgd::read(section)),
};

/// Stochastic gradient descent.
///
/// - plain: `w -= learning_rate * g`
/// - momentum: `v = momentum * v + g; w -= learning_rate * v` (Polyak 1964, as PyTorch writes it)
/// - Nesterov: `v = momentum * v + g; w -= learning_rate * (g + momentum * v)` (Sutskever et al. 2013)
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    /// In `[0, 1)`, default 0.
    pub momentum: f32,
    /// Default false.
    pub is_nesterov: bool,
}

impl Sgd {
    /// Reads `momentum`, `nesterov`.
    pub fn read(section: &mut Section<'_>) -> Sgd {
        let momentum =
            section.key("momentum", "Share of the last step that is taken again.", "0.9").number(Bounds::Rate).or(0.0)
                as f32;
        Sgd {
            momentum,
            is_nesterov: section
                .key("nesterov", "Whether the gradient is looked at ahead of the step (Sutskever et al. 2013).", "true")
                .flag(false),
        }
    }
}

impl OptimizerConfig for Sgd {
    fn word(&self) -> &'static str {
        "sgd"
    }

    fn n_moments(&self) -> usize {
        usize::from(self.momentum != 0.0)
    }

    fn update(&self, update: Update<'_>, moments: &mut [&mut [f32]]) {
        let velocity = moments.first_mut().map(|v| &mut **v);
        engine::sgd(update.engine, update.step, self.momentum, self.is_nesterov, update.weights, update.grad, velocity);
    }
}
