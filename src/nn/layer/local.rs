//! LOCAL: a locally-connected layer, a convolution whose weights are not shared between positions.

use std::sync::Arc;

use super::window::{Padding, Window};
use super::{
    Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Pass, Reach, ShapeError, TensorSpec,
    WeightKeys, Weights, epilogue, image,
};
use crate::config::Section;
use crate::engine;
use crate::tensor::{ImageShape, SampleShape};

pub(super) const KIND: LayerKind = LayerKind {
    word: "local",
    shorthand: "LOCAL",
    meaning: "A convolution whose weights are not shared between positions.",
    positional: &["filters", "kernel_size", "stride", "padding"],
    read: |section| Arc::new(LocalConfig::read(section)),
    example: "filters=3 kernel_size=[3,2] stride=[1,2]",
};

/// Applies to every position of an image filters of its own; weights are
/// `[height_out, width_out, kernel_h, kernel_w, channels_in, filters]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalConfig {
    /// Number of filters at each position. Default 32.
    pub filters: usize,
    pub(super) window: Window,
    pub(super) keys: WeightKeys,
}

impl LocalConfig {
    /// Reads `filters`, `kernel_size`, `stride`, `padding`, `bias`, `initializer`, `l2`.
    pub fn read(section: &mut Section<'_>) -> LocalConfig {
        let filters = section
            .key("filters", "Filters at each position, which is the number of output channels.", "16")
            .whole(1..=65_536)
            .or(32) as usize;
        let window = Window::read(
            section,
            ("kernel_size", "Height and width of the kernel, in pixels."),
            3,
            Some(1),
            Padding::Same,
            false,
        );
        LocalConfig { filters, window, keys: WeightKeys::read(section) }
    }

    fn output(&self, input: SampleShape) -> Result<ImageShape, ShapeError> {
        let placed = self.window.place("local", image("local", input)?)?;
        Ok(ImageShape { height: placed.height_out, width: placed.width_out, channels: self.filters })
    }
}

impl LayerConfig for LocalConfig {
    fn word(&self) -> &'static str {
        "local"
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        self.output(input).map(SampleShape::Image)
    }

    fn inference(&self, input: SampleShape) -> Result<Inference, ShapeError> {
        self.window.windows("local", input).map(Inference::Local)
    }

    fn tensors(&self, input: SampleShape) -> Vec<TensorSpec> {
        let channels = input.image().map_or(0, |shape| shape.channels);
        let (oh, ow) = self.output(input).map_or((0, 0), |shape| (shape.height, shape.width));
        let (h, w) = self.window.size;
        self.keys.tensors(
            vec![oh, ow, h, w, channels, self.filters],
            h * w * channels,
            h * w * self.filters,
            vec![oh, ow, self.filters],
        )
    }

    fn multiply_adds(&self, input: SampleShape) -> u64 {
        self.tensors(input)[0].len() as u64
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        self.window.reach()
    }

    fn fusion(&self) -> Fusion {
        Fusion { relu_after: true, relu_before: true, ..Fusion::default() }
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        let shape = self.window.built_shape(build, self.filters, 1);
        Box::new(Local {
            plan: engine::LocalConv::new(build.engine, shape),
            weights: Weights::new(build),
            activation: epilogue(build.relu_after),
            relu_before: build.relu_before,
        })
    }
}

struct Local {
    plan: engine::LocalConv,
    weights: Weights,
    activation: engine::Activation,
    relu_before: bool,
}

impl Layer for Local {
    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        let (weights, bias) = self.weights.of(values.parameters);
        self.plan.forward(pass.n, values.input(), weights, bias, self.activation, values.output);
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        let (grad_weights, grad_bias) = self.weights.of_mut(values.grad_parameters);
        self.plan.backward_weights(pass.n, values.input, values.grad_output, grad_weights, grad_bias);
        if let Some(grad_input) = values.grad_input {
            let (weights, _) = self.weights.of(values.parameters);
            let mask = self.relu_before.then_some(values.input);
            self.plan.backward_data(pass.n, values.grad_output, weights, mask, grad_input);
        }
    }
}
