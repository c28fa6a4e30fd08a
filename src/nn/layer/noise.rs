//! NOISE: normal noise is added in training.

use std::sync::Arc;

use super::{LayerConfig, LayerKind, ShapeError};
use crate::config::{Bounds, Section};
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "noise",
    shorthand: "NOISE",
    positional: &["stddev"],
    read: |section| Arc::new(NoiseConfig::read(section)),
    example: "stddev=0.2",
};

/// Adds normal noise of mean 0 and deviation `stddev` [0.1] to each value in training; does nothing otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseConfig {
    /// In units of the values it is added to.
    pub stddev: f64,
}

impl NoiseConfig {
    /// Reads `stddev`.
    pub fn read(section: &mut Section<'_>) -> NoiseConfig {
        NoiseConfig { stddev: section.number("stddev", Bounds::NonNegative, Some(0.1)) }
    }
}

impl LayerConfig for NoiseConfig {
    fn word(&self) -> &'static str {
        "noise"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(input)
    }
}
