//! RELU, LEAKY, ELU: functions of single values.

use std::sync::Arc;

use super::{
    Action, Activation, Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Pass, ShapeError,
};
use crate::config::{Bounds, Section};
use crate::engine;
use crate::tensor::SampleShape;

pub(super) const RELU: LayerKind = LayerKind {
    word: "relu",
    shorthand: "RELU",
    meaning: "Sets what is below 0 to 0.",
    positional: &[],
    read: |_| Arc::new(ActivationConfig(Activation::Relu)),
    example: "",
};

pub(super) const LEAKY: LayerKind = LayerKind {
    word: "leaky",
    shorthand: "LEAKY",
    meaning: "Multiplies what is below 0 by a small slope.",
    positional: &["slope"],
    read: |section| Arc::new(ActivationConfig(read_leaky(section))),
    example: "slope=0.2",
};

pub(super) const ELU: LayerKind = LayerKind {
    word: "elu",
    shorthand: "ELU",
    meaning: "Below 0 an exponential that tends to -alpha (Clevert et al. 2015).",
    positional: &["alpha"],
    read: |section| Arc::new(ActivationConfig(read_elu(section))),
    example: "alpha=0.7",
};

/// Applies a function to each value. `leaky` has `slope` [0.01], `elu` has `alpha` [1.0].
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationConfig(pub Activation);

fn read_leaky(section: &mut Section<'_>) -> Activation {
    Activation::Leaky { slope: section.key("slope", "Slope below 0.", "0.2").number(Bounds::Rate).or(0.01) as f32 }
}

fn read_elu(section: &mut Section<'_>) -> Activation {
    Activation::Elu {
        alpha: section.key("alpha", "Minus the value far below 0.", "0.7").number(Bounds::NonNegative).or(1.0) as f32,
    }
}

impl LayerConfig for ActivationConfig {
    fn word(&self) -> &'static str {
        match self.0 {
            Activation::Relu => "relu",
            Activation::Leaky { .. } => "leaky",
            Activation::Elu { .. } => "elu",
        }
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        Ok(input)
    }

    fn inference(&self, _input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Activate(self.0))
    }

    fn action(&self) -> Action {
        Action::Activate(self.0)
    }

    fn fusion(&self) -> Fusion {
        Fusion { is_in_place: true, ..Fusion::default() }
    }

    fn build(&self, _build: &Build<'_>) -> Box<dyn Layer> {
        Box::new(Standalone(self.0))
    }
}

/// An activation that has no layer above it to be part of: after `input`, or after another activation.
struct Standalone(Activation);

impl Layer for Standalone {
    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        engine::copy(pass.engine, values.input(), values.output);
        engine::activate(pass.engine, self.0.pointwise(), values.output);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        engine::activate_backward(pass.engine, self.0.pointwise(), values.output, values.grad_output);
    }
}
