//! CONV: convolution with shared weights.

use std::sync::Arc;

use super::window::{Padding, Window};
use super::{
    Backward, Build, Forward, Fusion, Inference, Layer, LayerConfig, LayerKind, Pass, Reach, ShapeError, TensorSpec,
    WeightKeys, Weights, epilogue, image,
};
use crate::config::{Entry, Node, Problem, Section, Span, Table, Value};
use crate::engine::{self, Algorithm, BackwardData, GradOutput};
use crate::tensor::{ImageShape, SampleShape};

pub(super) const KIND: LayerKind = LayerKind {
    word: "conv",
    shorthand: "CONV",
    meaning: "A convolution with shared weights.",
    positional: &["filters", "kernel_size", "stride", "padding"],
    read: |section| Arc::new(ConvConfig::read(section)),
    example: "filters=4 kernel_size=[3,2] stride=[2,1] groups=2",
};

/// The key that says how convolutions are computed, of a layer and of a network.
pub const CONVOLUTION: &str = "convolution";

/// What it may say; the first is what it says unasked.
pub const ALGORITHMS: &[(&str, &str, Algorithm)] = &[
    (
        "winograd",
        "F(2x2, 3x3) where a 3x3 kernel with stride 1 lets it: 16 multiplications for 36.",
        Algorithm::Winograd,
    ),
    ("direct", "One chain of sums for each output.", Algorithm::Direct),
];

/// Convolves images with a bank of filters (cross-correlation, as all networks mean it).
#[derive(Clone, Debug, PartialEq)]
pub struct ConvConfig {
    /// Number of filters, which is the number of output channels. Default 32.
    pub filters: usize,
    /// Channels are split into so many groups that do not see each other. Default 1.
    pub groups: usize,
    /// How it is computed. Default "winograd": Winograd's F(2x2, 3x3), 2.25 times fewer multiplications, for kernels of
    /// 3x3 with stride and dilation 1, one group, at least 5 input channels, at most 2 pixels of padding and outputs of
    /// at least 6x6; all others by one chain of multiply-adds for each output value, as "direct" computes every
    /// convolution ([`Algorithm`]).
    pub algorithm: Algorithm,
    pub(super) window: Window,
    pub(super) keys: WeightKeys,
}

impl ConvConfig {
    /// Reads `filters`, `kernel_size`, `stride`, `padding`, `dilation`, `groups`, `convolution`, `bias`, `initializer`,
    /// `l2`.
    pub fn read(section: &mut Section<'_>) -> ConvConfig {
        let filters =
            section.key("filters", "Filters, which is the number of output channels.", "64").whole(1..=65_536).or(32)
                as usize;
        let window = Window::read(
            section,
            ("kernel_size", "Height and width of the kernel, in pixels."),
            3,
            Some(1),
            Padding::Same,
            true,
        );
        let groups = section
            .key("groups", "Channels are split into so many groups that do not see each other.", "2")
            .whole(1..=65_536)
            .or(1) as usize;
        let meaning = "How it is computed; absent: as the network's `convolution` says, where it can.";
        let is_suited = window.size == (3, 3) && window.stride == (1, 1) && window.dilation == (1, 1) && groups == 1;
        // What is recorded is what is computed: the second, where the first cannot be.
        let unsaid = usize::from(!is_suited);
        let algorithm = section.key(CONVOLUTION, meaning, "\"direct\"").word_or(ALGORITHMS, unsaid);
        if let (Algorithm::Winograd, false, Some(node)) = (algorithm, is_suited, section.node(CONVOLUTION)) {
            let message =
                "`convolution = \"winograd\"` is for kernels of 3×3 with stride 1, without dilation and groups";
            section.log().push(Problem::error(node.span, message).help("leave `convolution` out here"));
        }
        ConvConfig { filters, groups, algorithm, window, keys: WeightKeys::read(section) }
    }

    fn output(&self, input: SampleShape) -> Result<ImageShape, ShapeError> {
        let input = image("conv", input)?;
        if !input.channels.is_multiple_of(self.groups) {
            return Err(ShapeError::new(format!(
                "`groups` must divide the channels: got {} groups and {} input channels",
                self.groups, input.channels
            )));
        }
        if !self.filters.is_multiple_of(self.groups) {
            return Err(ShapeError::new(format!(
                "`groups` must divide `filters`: got {} groups and {} filters",
                self.groups, self.filters
            )));
        }
        let placed = self.window.place("conv", input)?;
        Ok(ImageShape { height: placed.height_out, width: placed.width_out, channels: self.filters })
    }
}

/// Has a layer of the long form computed the direct way, if it is a convolution that Winograd's algorithm may be for
/// and does not say itself how it is computed; `span` is where that is asked for.
pub fn ask_for_direct(node: &mut Node, span: Span) {
    let entry = |value| Entry { key: CONVOLUTION.to_owned(), key_span: span, node: Node { value, span } };
    let direct = entry(Value::Text { text: "direct".to_owned(), inner: None });
    match &mut node.value {
        Value::Text { text, .. } if text == KIND.word => {
            let keys = Value::Table(Table { entries: vec![direct] });
            let conv = Entry { key: text.clone(), ..entry(keys) };
            node.value = Value::Table(Table { entries: vec![conv] });
        }
        Value::Table(layer) => {
            let [Entry { key, node: Node { value: Value::Table(keys), .. }, .. }] = &mut layer.entries[..] else {
                return;
            };
            let is = |value: &Value, wanted| matches!(value, Value::Integer(i) if *i == wanted);
            let all = |value: &Value, wanted| match value {
                Value::List(items) => items.iter().all(|item| is(&item.value, wanted)),
                value => is(value, wanted),
            };
            let suits = |&(name, wanted): &(&str, i64)| keys.get(name).is_none_or(|e| all(&e.node.value, wanted));
            let is_suited = [("kernel_size", 3), ("stride", 1), ("dilation", 1), ("groups", 1)].iter().all(suits);
            if key == KIND.word && is_suited && keys.get(CONVOLUTION).is_none() {
                keys.entries.push(direct);
            }
        }
        _ => {}
    }
}

impl LayerConfig for ConvConfig {
    fn word(&self) -> &'static str {
        "conv"
    }

    fn rooms(&self) -> Vec<&'static str> {
        match self.algorithm {
            Algorithm::Direct => vec!["conv"],
            // Shapes that it does not pay for are computed the other way.
            Algorithm::Winograd => vec!["conv", "winograd"],
        }
    }

    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError> {
        self.output(input).map(SampleShape::Image)
    }

    fn inference(&self, input: SampleShape) -> Result<Inference, ShapeError> {
        Ok(Inference::Conv { windows: self.window.windows("conv", input)?, groups: self.groups })
    }

    fn tensors(&self, input: SampleShape) -> Vec<TensorSpec> {
        let channels = input.image().map_or(0, |shape| shape.channels) / self.groups;
        let (h, w) = self.window.size;
        self.keys.tensors(
            vec![h, w, channels, self.filters],
            h * w * channels,
            h * w * self.filters / self.groups,
            vec![self.filters],
        )
    }

    fn multiply_adds(&self, input: SampleShape) -> u64 {
        let Some(image) = input.image() else { return 0 };
        let Ok(placed) = self.window.place("conv", image) else { return 0 };
        self.algorithm.multiply_adds(&self.window.conv_shape(1, image, placed, self.filters, self.groups))
    }

    fn reach(&self, _input: SampleShape) -> Reach {
        self.window.reach()
    }

    fn fusion(&self) -> Fusion {
        Fusion { relu_after: true, relu_before: true, pool_after: true, beside_norm: true, ..Fusion::default() }
    }

    fn build(&self, build: &Build<'_>) -> Box<dyn Layer> {
        let shape = self.window.built_shape(build, self.filters, self.groups);
        let n_taps = if build.pool_after && build.is_training { build.batch * shape.output_len() / 4 } else { 0 };
        Box::new(Conv {
            plan: engine::Conv::plan(build.engine, shape, self.algorithm, build.pool_after),
            taps: build.pool_after.then(|| vec![0; n_taps]),
            weights: Weights::new(build),
            activation: epilogue(build.relu_after),
            relu_before: build.relu_before,
        })
    }
}

struct Conv {
    plan: engine::Conv,
    /// Which pixel of its window each output is, if the output is pooled.
    taps: Option<Vec<u8>>,
    weights: Weights,
    activation: engine::Activation,
    relu_before: bool,
}

impl Layer for Conv {
    fn training_bytes(&mut self) -> usize {
        self.plan.training_bytes() + self.taps.as_ref().map_or(0, Vec::len)
    }

    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>) {
        let (weights, bias) = self.weights.of(values.parameters);
        let (n, activation) = (pass.n, self.activation);
        let Forward { input, output, norm, .. } = values;
        let forward = engine::Forward { n, input, weights, bias, activation };
        match &mut self.taps {
            None => self.plan.forward_fused(forward, output, norm),
            Some(taps) => {
                let taps = pass.is_training.then_some(&mut taps[..]);
                self.plan.forward_pooled(forward, output, taps);
            }
        }
    }

    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>) {
        let (n, input, grad, sums) = (pass.n, values.input, values.grad_output, values.sums);
        if !values.has_weights {
            let (grad_weights, grad_bias) = self.weights.of_mut(values.grad_parameters);
            let grad = match (values.made_by, &self.taps) {
                (Some(by), _) => GradOutput::Made { by, into: &mut *grad },
                (None, None) => GradOutput::Given(grad),
                (None, Some(taps)) => GradOutput::Pooled { values: grad, taps },
            };
            self.plan.backward_weights_fused(n, input, grad, grad_weights, grad_bias);
        }
        let Some(grad_input) = values.grad_input else { return };
        let (weights, _) = self.weights.of(values.parameters);
        let mask = self.relu_before.then_some(input);
        let backward = BackwardData { n, grad_output: grad, weights, relu_mask: mask };
        match &self.taps {
            None => self.plan.backward_data_fused(backward, grad_input, sums),
            Some(taps) => self.plan.backward_data_pooled(backward, taps, grad_input, sums),
        }
    }
}
