//! FLATTEN: an image becomes a row of features. FC does it by itself.

use std::sync::Arc;

use super::{Action, Build, Inference, Layer, LayerConfig, LayerKind, Reach, ShapeError};
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "flatten",
    shorthand: "FLATTEN",
    meaning: "Makes a row of features of an image; `fc` does it by itself.",
    positional: &[],
    read: |_| Arc::new(FlattenConfig),
    example: "",
};

/// Forgets height and width; values keep their order (row by row, channels innermost).
#[derive(Clone, Debug, PartialEq)]
pub struct FlattenConfig;

impl LayerConfig for FlattenConfig {
    fn word(&self) -> &'static str {
        "flatten"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(SampleShape::Flat(input.len()))
    }

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Flatten)
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        Reach::Point
    }

    fn action(&self) -> Action {
        Action::Nothing
    }

    fn build(&self, _build: &Build<'_>) -> Box<dyn Layer> {
        panic!("`flatten` computes nothing")
    }
}
