//! GAP: global average pooling, the mean of each channel.

use std::sync::Arc;

use super::{Backward, Build, Forward, Inference, Layer, LayerConfig, LayerKind, Pass, Reach, ShapeError, image};
use crate::engine;
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "gap",
    shorthand: "GAP",
    meaning: "Replaces each channel by its mean; the result is flat.",
    positional: &[],
    read: |_| Arc::new(GapConfig),
    example: "",
};

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

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::GlobalAverage)
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        Reach::Whole
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        let channels = build.output.len();
        Box::new(Gap { pixels: build.input.len() / channels, channels })
    }
}

struct Gap {
    pixels: usize,
    channels: usize,
}

impl Layer for Gap {
    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        engine::channel_means(pass.engine, self.pixels, self.channels, pass.n, values.input(), values.output);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        if let Some(grad_input) = values.grad_input {
            let grad = values.grad_output;
            engine::channel_means_backward(pass.engine, self.pixels, self.channels, pass.n, grad, grad_input);
        }
    }
}
