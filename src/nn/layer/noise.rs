//! NOISE: normal noise is added in training.

use std::sync::Arc;

use super::{Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Pass, ShapeError};
use crate::config::{Bounds, Section};
use crate::engine;
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "noise",
    shorthand: "NOISE",
    meaning: "Adds normal noise to each value in training.",
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
        NoiseConfig {
            stddev: section
                .key("stddev", "Deviation of the noise, in units of the values.", "0.2")
                .number(Bounds::NonNegative)
                .or(0.1),
        }
    }
}

impl LayerConfig for NoiseConfig {
    fn word(&self) -> &'static str {
        "noise"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(input)
    }

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Identity)
    }

    fn fusion(&self) -> Fusion {
        Fusion { is_in_place: true, ..Fusion::default() }
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        Box::new(Noise { layer_idx: build.layer_idx as u64, stddev: self.stddev as f32 })
    }
}

/// Values that one piece of work draws for.
const PIECE: usize = 1024;

struct Noise {
    layer_idx: u64,
    stddev: f32,
}

impl Layer for Noise {
    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        if !pass.is_training || self.stddev == 0.0 {
            return engine::copy(pass.engine, values.input(), values.output);
        }
        let stream = pass.seeds.stream("noise", &[("layer", self.layer_idx), ("step", pass.step)]);
        let (input, stddev) = (values.input(), self.stddev);
        pass.engine.for_each_chunk(values.output, PIECE, |i, output| {
            stream.fill_normal32((i * PIECE) as u64, output);
            for (y, x) in output.iter_mut().zip(&input[i * PIECE..]) {
                *y = x + stddev * *y;
            }
        });
    }

    fn backward(&mut self, _pass: &Pass<'_>, _values: Backward<'_>) {
        // The gradient of a sum passes unchanged, and it is where it belongs.
    }
}
