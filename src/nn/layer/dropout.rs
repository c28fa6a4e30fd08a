//! DROPOUT: some of the values, chosen anew at each step, are zero in training.

use std::sync::Arc;

use super::{LayerConfig, LayerKind, ShapeError};
use crate::config::{Bounds, Section};
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "dropout",
    shorthand: "DROPOUT",
    positional: &["rate"],
    read: |section| Arc::new(DropoutConfig::read(section)),
    example: "rate=0.4",
};

/// Sets a share `rate` [0.5] of the values to zero in training and multiplies the others by `1 / (1 - rate)`; does
/// nothing otherwise (inverted dropout; Srivastava et al. 2014).
#[derive(Clone, Debug, PartialEq)]
pub struct DropoutConfig {
    /// Share that is dropped, in `[0, 1)`.
    pub rate: f64,
}

impl DropoutConfig {
    /// Reads `rate`.
    pub fn read(section: &mut Section<'_>) -> DropoutConfig {
        DropoutConfig { rate: section.number("rate", Bounds::Rate, Some(0.5)) }
    }
}

impl LayerConfig for DropoutConfig {
    fn word(&self) -> &'static str {
        "dropout"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(input)
    }
}
