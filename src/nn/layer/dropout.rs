//! DROPOUT: some of the values, chosen anew at each step, are zero in training.

use std::sync::Arc;

use super::{Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Pass, ShapeError};
use crate::config::{Bounds, Section};
use crate::engine::{self, Pointwise};
use crate::tensor::SampleShape;

pub(super) const KIND: LayerKind = LayerKind {
    word: "dropout",
    shorthand: "DROPOUT",
    meaning: "Sets a share of the values to 0 in training, chosen anew at each step.",
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
        DropoutConfig {
            rate: section.key("rate", "Share of the values that is dropped.", "0.25").number(Bounds::Rate).or(0.5),
        }
    }
}

impl LayerConfig for DropoutConfig {
    fn word(&self) -> &'static str {
        "dropout"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(input)
    }

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Identity)
    }

    fn fusion(&self) -> Fusion {
        Fusion { is_in_place: true, relu_before: true, ..Fusion::default() }
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        Box::new(Dropout {
            layer_idx: build.layer_idx as u64,
            // A value is kept if its 32 random bits are at least this: the share is exact to 2^-32.
            threshold: (self.rate * 4_294_967_296.0) as u32,
            relu_before: build.relu_before,
            factor: (1.0 / (1.0 - self.rate)) as f32,
            keep: vec![0; if build.is_training { build.batch * build.input.len() } else { 0 }],
        })
    }
}

/// Values that one piece of work draws for; words of one piece fit the first cache.
const PIECE: usize = 4096;

struct Dropout {
    layer_idx: u64,
    threshold: u32,
    relu_before: bool,
    factor: f32,
    keep: Vec<u8>,
}

impl Layer for Dropout {
    fn training_bytes(&mut self) -> usize {
        self.keep.len()
    }

    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        if !pass.is_training || self.threshold == 0 {
            return engine::copy(pass.engine, values.input(), values.output);
        }
        let keep = &mut self.keep[..values.input().len()];
        let stream = pass.seeds.stream("dropout", &[("layer", self.layer_idx), ("step", pass.step)]);
        let threshold = self.threshold;
        pass.engine.for_each_chunk(keep, PIECE, |i, keep| {
            let mut words = [0; PIECE];
            let words = &mut words[..keep.len()];
            stream.words((i * PIECE) as u64, words);
            for (keep, word) in keep.iter_mut().zip(words) {
                *keep = u8::from(*word >= threshold);
            }
        });
        engine::mask_and_scale(pass.engine, values.input(), keep, self.factor, values.output);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        if !values.wants_input {
            return;
        }
        if self.relu_before {
            // What comes out of a ReLU and is kept is above 0; all else has no gradient.
            let relu = Pointwise::Relu;
            engine::activate_backward(pass.engine, relu, values.output, values.grad_output);
        }
        if self.threshold > 0 {
            let keep = &self.keep[..values.grad_output.len()];
            engine::mask_and_scale_in_place(pass.engine, keep, self.factor, values.grad_output);
        }
    }
}
