//! RMSprop.

use std::sync::Arc;

use super::{Kind, OptimizerConfig, Update};
use crate::config::{Bounds, Section};
use crate::engine::{self, RmsPropStep};

pub(super) const KIND: Kind = Kind {
    word: "rmsprop",
    meaning: "Steps divided by a running root mean square of the gradient (Hinton 2012).",
    read: |section| Arc::new(RmsProp::read(section)),
};

/// RMSprop (Hinton's course, lecture 6, 2012): steps divided by a running root mean square of the gradient.
///
/// `s = rho * s + (1 - rho) * g²; w -= learning_rate * g / (sqrt(s) + epsilon)`; with momentum
/// `v = momentum * v + g / (sqrt(s) + epsilon); w -= learning_rate * v`.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsProp {
    /// Decay of the mean square, default 0.99.
    pub rho: f32,
    /// In `[0, 1)`, default 0.
    pub momentum: f32,
    /// Default 1e-8.
    pub epsilon: f32,
}

impl RmsProp {
    /// Reads `rho`, `momentum`, `epsilon`.
    pub fn read(section: &mut Section<'_>) -> RmsProp {
        RmsProp {
            rho: section.key("rho", "Decay of the mean square.", "0.9").number(Bounds::Rate).or(0.99) as f32,
            momentum: section
                .key("momentum", "Share of the last step that is taken again.", "0.9")
                .number(Bounds::Rate)
                .or(0.0) as f32,
            epsilon: section.key("epsilon", "Added to the divisor.", "1e-6").number(Bounds::Positive).or(1e-8) as f32,
        }
    }
}

impl OptimizerConfig for RmsProp {
    fn word(&self) -> &'static str {
        "rmsprop"
    }

    fn n_moments(&self) -> usize {
        if self.momentum == 0.0 { 1 } else { 2 }
    }

    fn update(&self, update: Update<'_>, moments: &mut [&mut [f32]]) {
        let (square, velocity) = match moments {
            [square] => (&mut **square, None),
            [square, velocity] => (&mut **square, Some(&mut **velocity)),
            _ => panic!("RMSprop has one or two moments, not {}", moments.len()),
        };
        engine::rmsprop(
            update.engine,
            update.step,
            RmsPropStep { rho: self.rho, momentum: self.momentum, epsilon: self.epsilon },
            update.weights,
            update.grad,
            square,
            velocity,
        );
    }
}
