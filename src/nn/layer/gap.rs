//! GAP: global average pooling, the mean of each channel.

use std::sync::Arc;

use super::{LayerConfig, LayerKind, Reach, ShapeError, image};
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind =
    LayerKind { word: "gap", shorthand: "GAP", positional: &[], read: |_| Arc::new(GapConfig), example: "" };

/// Replaces each channel by its mean (Lin et al. 2013); the result is flat.
#[derive(Clone, Debug, PartialEq)]
pub struct GapConfig;

impl LayerConfig for GapConfig {
    fn word(&self) -> &'static str {
        "gap"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(SampleShape::Flat(image("gap", input)?.channels))
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        Reach::Whole
    }
}
