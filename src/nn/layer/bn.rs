//! BN: batch normalisation.

use std::sync::Arc;

use super::{LayerConfig, LayerKind, Role, ShapeError, Start, TensorSpec};
use crate::config::{Bounds, Section};
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "bn",
    shorthand: "BN",
    positional: &["momentum", "epsilon"],
    read: |section| Arc::new(BnConfig::read(section)),
    example: "momentum=0.8",
};

/// Normalises each channel (of flat input: each feature) over the batch, then scales and shifts it
/// (Ioffe and Szegedy 2015).
///
/// `y = scale * (x - mean) / sqrt(variance + epsilon) + shift`; in training with the batch's mean and (biased)
/// variance, else with the running ones: `running = momentum * running + (1 - momentum) * batch`, where the batch's
/// variance is the unbiased one. `momentum` [0.9], `epsilon` [1e-5].
#[derive(Clone, Debug, PartialEq)]
pub struct BnConfig {
    /// Share of the old running value that is kept at each step.
    pub momentum: f32,
    /// Added to the variance.
    pub epsilon: f32,
}

impl BnConfig {
    /// Reads `momentum`, `epsilon`.
    pub fn read(section: &mut Section<'_>) -> BnConfig {
        let momentum = section.number("momentum", Bounds::Fraction, Some(0.9)) as f32;
        let epsilon = section.number("epsilon", Bounds::Positive, Some(1e-5)) as f32;
        BnConfig { momentum, epsilon }
    }
}

/// What is normalised together: `(values of one sample that share a lane, lanes)`.
pub(super) fn lanes(input: SampleShape) -> (usize, usize) {
    match input {
        SampleShape::Image(shape) => (shape.height * shape.width, shape.channels),
        SampleShape::Flat(features) => (1, features),
    }
}

impl LayerConfig for BnConfig {
    fn word(&self) -> &'static str {
        "bn"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(input)
    }

    fn tensors(&self, input: SampleShape) -> Vec<TensorSpec> {
        let tensor = |name, role, start| TensorSpec {
            name,
            shape: vec![lanes(input).1],
            role,
            start: Start::Constant(start),
            l2: None,
        };
        vec![
            tensor("scale", Role::Scale, 1.0),
            tensor("shift", Role::Bias, 0.0),
            tensor("running_mean", Role::Statistic, 0.0),
            tensor("running_variance", Role::Statistic, 1.0),
        ]
    }
}
