//! The layers: one file a kind, all of them in [`KINDS`].
//!
//! A [`LayerConfig`] is what a manifest says: it knows its output shape, its tensors and its cost without touching
//! memory. Start at [`LayerKind`]; `architecture` reads lists of them. Windows that slide over
//! an image (convolution, pooling) share their geometry in `window.rs`.

mod activation;
mod bn;
mod conv;
mod dropout;
mod fc;
mod flatten;
mod gap;
mod input;
mod local;
mod noise;
mod pool;
mod window;

pub use conv::{ALGORITHMS, CONVOLUTION, ask_for_direct};

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::config::{Choice, Complaint, Section};
use crate::engine::{self, BatchNorm, Engine, GradientSums, InputGradient, Normalised, Pointwise};
use crate::nn::init::Initializer;
use crate::nn::seeds::Seeds;
use crate::tensor::{ImageShape, SampleShape};

/// A kind of layer, as manifests know it.
pub struct LayerKind {
    /// The word of the long form: `conv`.
    pub word: &'static str,
    /// The name in the shorthand: `CONV`.
    pub shorthand: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// The keys that the shorthand's unnamed arguments stand for, in order.
    pub positional: &'static [&'static str],
    /// Reads the layer's keys.
    pub read: fn(&mut Section<'_>) -> Arc<dyn LayerConfig>,
    /// Keys for the contract tests: `key=1 other=[2,3]`.
    pub example: &'static str,
}

/// Every kind of layer. To add one: a file beside this one, and a line here.
pub const KINDS: &[LayerKind] = &[
    input::KIND,
    conv::KIND,
    local::KIND,
    activation::RELU,
    activation::LEAKY,
    activation::ELU,
    pool::MAX,
    pool::AVERAGE,
    gap::KIND,
    bn::KIND,
    dropout::KIND,
    noise::KIND,
    flatten::KIND,
    fc::KIND,
];

/// The layers as the alternatives of a choice.
pub fn choices() -> Vec<Choice<Arc<dyn LayerConfig>>> {
    let choice = |kind: &LayerKind| Choice { word: kind.word, meaning: kind.meaning, read: kind.read };
    KINDS.iter().map(choice).collect()
}

/// Why a layer cannot take the shape it is given, in the user's words.
pub type ShapeError = Complaint;

/// What a tensor of a layer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Multiplies inputs; L2 and weight decay apply.
    Weights,
    /// Is added; no decay.
    Bias,
    /// Multiplies normalised values (batch normalisation); no decay.
    Scale,
    /// Follows the data and is not trained (running mean and variance).
    Statistic,
}

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// By the layer's initializer, else the network's.
    Drawn {
        /// The layer's own.
        initializer: Option<Initializer>,
        /// Inputs of one output value.
        fan_in: usize,
        /// Outputs that one input value reaches.
        fan_out: usize,
    },
    /// All the same.
    Constant(f32),
}

/// A tensor that a layer owns.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// `weights`, `bias`, `scale`, `shift`, `running_mean`, `running_variance`.
    pub name: &'static str,
    /// Axes, outermost first; kernels are `[kernel_h, kernel_w, channels_in, filters]`, dense weights `[in, out]`.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// How it starts.
    pub start: Start,
    /// The layer's own `l2`, if it set one; that of a bias counts where L2 acts on biases.
    pub l2: Option<f64>,
}

impl TensorSpec {
    /// Values in it.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an optimizer moves it.
    pub fn is_trained(&self) -> bool {
        self.role != Role::Statistic
    }

    /// Whether weight decay acts on it, and the L2 of a training: on weights, and with `decays_all` on all that is
    /// trained.
    pub fn decays(&self, decays_all: bool) -> bool {
        self.role == Role::Weights || decays_all && self.is_trained()
    }

    /// The factor of its L2 in a training whose own is `l2`. The layer's goes first, where L2 acts at all; that of a
    /// scale, which only batch normalisation has, was asked for by name and acts in any case.
    pub fn l2_in(&self, l2: f64, decays_all: bool) -> f64 {
        let decays = self.decays(decays_all);
        match self.l2 {
            Some(own) if decays || self.role == Role::Scale => own,
            _ if decays => l2,
            _ => 0.0,
        }
    }
}

/// How far a layer sees: `(height, width)`, in units of its own input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Each output value sees its own input value only.
    Point,
    /// Sees a window that slides.
    Window {
        /// Rows and columns of input that one output sees, dilation included.
        extent: (usize, usize),
        /// Rows and columns that neighbours are apart.
        stride: (usize, usize),
    },
    /// Sees everything.
    Whole,
}

/// What a layer does to its input, so that the network can fuse it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Changes the shape at most, never a value.
    Nothing,
    /// Applies a function to each value; its derivative follows from its output.
    Activate(Activation),
    /// Computes.
    Compute,
}

/// What a layer computes when it predicts, for who writes a network down in another form. Its tensors are those of
/// [`LayerConfig::tensors`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inference {
    /// Nothing: what goes in comes out.
    Identity,
    /// Its input as a row of features, channels innermost.
    Flatten,
    /// A function of each value.
    Activate(Activation),
    /// `weights` `[kernel_h, kernel_w, channels_in / groups, filters]`, and `bias` where there is one.
    Conv {
        /// Where the kernel is laid.
        windows: Windows,
        /// Groups of channels that do not see each other.
        groups: usize,
    },
    /// `weights` `[height_out, width_out, kernel_h, kernel_w, channels_in, filters]`, and `bias` `[height_out, width_out,
    /// filters]` where there is one.
    Local(Windows),
    /// The largest value of each window of each channel; padding is never it.
    MaxPool(Windows),
    /// The mean of each window of each channel; padding does not count.
    AveragePool(Windows),
    /// The mean of each channel, as a row.
    GlobalAverage,
    /// `scale * (x - running_mean) / sqrt(running_variance + epsilon) + shift`, by channel (of a row: by feature).
    Norm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// The input as a row times `weights` `[inputs, units]`, plus `bias` where there is one.
    Dense,
}

/// Windows laid over an image; pairs are `(height, width)`, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Rows and columns of values that one window takes.
    pub size: (usize, usize),
    /// From one window to the next.
    pub stride: (usize, usize),
    /// From one value of a window to the next.
    pub dilation: (usize, usize),
    /// Padding above and to the left.
    pub before: (usize, usize),
    /// Padding below and to the right.
    pub after: (usize, usize),
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` where `x > 0`, else `slope * x`.
    Leaky {
        /// In `[0, 1)`.
        slope: f32,
    },
    /// `x` where `x > 0`, else `alpha * (exp(x) - 1)` (Clevert et al. 2015).
    Elu {
        /// At least 0.
        alpha: f32,
    },
}

/// What a manifest says about one layer: shapes, tensors and cost, without touching memory.
pub trait LayerConfig: fmt::Debug + Send + Sync {
    /// The word of its kind.
    fn word(&self) -> &'static str;

    /// The rooms that compute it, as the table of revisions calls them: its word, and what its keys add.
    fn rooms(&self) -> Vec<&'static str> {
        vec![self.word()]
    }

    /// The shape of one output sample.
    ///
    /// # Errors
    /// If the layer cannot take `input`.
    fn output_shape(&self, input: SampleShape) -> Result<SampleShape, ShapeError>;

    /// The tensors it owns when it is given `input`.
    fn tensors(&self, _input: SampleShape) -> Vec<TensorSpec> {
        Vec::new()
    }

    /// Multiply-adds of one forward pass of one sample.
    fn multiply_adds(&self, _input: SampleShape) -> u64 {
        0
    }

    /// How far it sees.
    fn reach(&self, _input: SampleShape) -> Reach {
        Reach::Point
    }

    /// What it does to its input.
    fn action(&self) -> Action {
        Action::Compute
    }

    /// What it computes when it predicts.
    ///
    /// # Errors
    /// If the layer cannot take `input`.
    fn inference(&self, input: SampleShape) -> Result<Inference, ShapeError>;

    /// The layer with `units = n_classes`, if its `units` were left to the network.
    fn with_classes(&self, _n_classes: usize) -> Option<Arc<dyn LayerConfig>> {
        None
    }

    /// What the built layer can do along with its own work.
    fn fusion(&self) -> Fusion {
        Fusion::default()
    }

    /// Whether it is max pooling of 2x2 windows that lie side by side and cover its input, so that the layer above can
    /// do it ([`Fusion::pool_after`]).
    fn tiles_in_pairs(&self, _input: SampleShape) -> bool {
        false
    }

    /// Makes the layer ready to compute.
    ///
    /// # Panics
    /// If the layer does not compute (see [`LayerConfig::action`]) or its shapes were not checked.
    fn build(&self, build: &Build<'_>) -> Box<dyn Layer>;
}

/// What a layer can do along with its own work, so that memory is touched less often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fusion {
    /// Can apply a ReLU to its output as it writes it.
    pub relu_after: bool,
    /// Can keep the largest value of each 2x2 window of its output, and write no more than that.
    pub pool_after: bool,
    /// Can leave out gradients where its input, which came out of a ReLU, is 0.
    pub relu_before: bool,
    /// Its backward pass turns the gradient of its output into that of its input, in place.
    pub is_in_place: bool,
    /// Its backward pass leaves out the gradients that the ReLU it applies would.
    pub masks_itself: bool,
    /// Can read values, and gradients of its output, that the batch normalisation beside it makes when they are asked
    /// for, and can sum for it what it writes.
    pub beside_norm: bool,
    /// Is that batch normalisation.
    pub is_norm: bool,
}

/// What a layer is built for.
pub struct Build<'a> {
    /// Where it computes.
    pub engine: &'a Engine,
    /// The most samples of one call.
    pub batch: usize,
    /// Its place in the network, from 0: part of the address of its random numbers.
    pub layer_idx: usize,
    /// The shape of its input.
    pub input: SampleShape,
    /// The shape of its output.
    pub output: SampleShape,
    /// Whether it applies a ReLU to its output ([`Fusion::relu_after`]).
    pub relu_after: bool,
    /// Whether it pools its output ([`Fusion::pool_after`]): what it writes, and gets the gradient of, is a quarter of
    /// `output`.
    pub pool_after: bool,
    /// Whether gradients of its input are masked ([`Fusion::relu_before`]).
    pub relu_before: bool,
    /// Whether it will be trained; if not, `backward` is never called.
    pub is_training: bool,
    /// Where each of its trained tensors lies within its part of the parameters, in the order of
    /// [`LayerConfig::tensors`].
    pub trained: &'a [Range<usize>],
    /// Where each of its statistics lies within its part of the statistics.
    pub statistics: &'a [Range<usize>],
}

/// One call of a layer.
pub struct Pass<'a> {
    /// Where it computes.
    pub engine: &'a Engine,
    /// Samples in this call, at most the batch it was built for.
    pub n: usize,
    /// Whether dropout drops and batch normalisation looks at the batch.
    pub is_training: bool,
    /// Steps done so far: part of the address of random numbers.
    pub step: u64,
    /// The identity of the training run.
    pub seeds: &'a Seeds,
}

/// What a layer reads and writes going forward.
pub struct Forward<'a> {
    /// Its trained tensors.
    pub parameters: &'a [f32],
    /// Its statistics, which it moves in training.
    pub statistics: &'a mut [f32],
    /// `[n, ...input]`.
    pub input: engine::Input<'a>,
    /// `[n, ...output]`, all of it to be written.
    pub output: &'a mut [f32],
    /// The batch normalisation that follows and may have the output measured ([`Fusion::beside_norm`]).
    pub norm: Option<&'a mut BatchNorm>,
}

impl<'a> Forward<'a> {
    /// The input, for layers that only take it as it is.
    fn input(&self) -> &'a [f32] {
        match &self.input {
            engine::Input::Given(input) => input,
            engine::Input::Made { .. } => unreachable!("only `beside_norm` layers are given an input yet to be made"),
        }
    }
}

/// What a layer reads and writes going backward, after [`Layer::forward`] of the same batch.
pub struct Backward<'a> {
    /// Its trained tensors.
    pub parameters: &'a [f32],
    /// Gradients of its trained tensors, to be overwritten.
    pub grad_parameters: &'a mut [f32],
    /// As in the forward pass.
    pub input: &'a [f32],
    /// What the forward pass gave.
    pub output: &'a [f32],
    /// Gradient of the output. A layer that works in place ([`Fusion::is_in_place`]) turns it into that of its input.
    pub grad_output: &'a mut [f32],
    /// Who makes the gradient of the output first ([`Fusion::beside_norm`]).
    pub made_by: Option<&'a InputGradient<'a>>,
    /// Whether the gradients of its tensors are there already, and only that of the input is asked for.
    pub has_weights: bool,
    /// Who wants the gradient of the input summed ([`Fusion::beside_norm`]).
    pub sums: Option<&'a GradientSums<'a>>,
    /// Gradient of the input, to be overwritten; `None` where nobody asks, and for layers that work in place.
    pub grad_input: Option<&'a mut [f32]>,
    /// Whether anybody asks for the gradient of the input.
    pub wants_input: bool,
}

impl<'a> Backward<'a> {
    /// The gradients of the layer's tensors alone; `values` are the layer's input and output, `grads` the gradients of
    /// its tensors and of its output.
    pub fn of(parameters: &'a [f32], values: [&'a [f32]; 2], grads: [&'a mut [f32]; 2]) -> Backward<'a> {
        let ([input, output], [grad_parameters, grad_output]) = (values, grads);
        Backward {
            parameters,
            grad_parameters,
            input,
            output,
            grad_output,
            made_by: None,
            has_weights: false,
            sums: None,
            grad_input: None,
            wants_input: false,
        }
    }
}

/// A layer that is ready to compute.
pub trait Layer: Send {
    /// Computes the output of a batch.
    fn forward(&mut self, pass: &Pass<'_>, values: Forward<'_>);

    /// Computes the gradients of a batch.
    fn backward(&mut self, pass: &Pass<'_>, values: Backward<'_>);

    /// Bytes that it takes when training, beside tensors and operands: masks, taps, the engine's scratch.
    fn training_bytes(&mut self) -> usize {
        0
    }

    /// Itself, if it is batch normalisation.
    fn as_norm(&mut self) -> Option<&mut dyn Norm> {
        None
    }
}

/// Batch normalisation, whose passes over memory the convolutions beside it can take along.
pub trait Norm {
    /// What is summed over a batch.
    fn norm(&mut self) -> &mut BatchNorm;

    /// The forward pass up to its output, which is yet to be made.
    fn normalise<'a>(
        &'a mut self,
        pass: &Pass<'_>,
        parameters: &'a [f32],
        statistics: &mut [f32],
        input: &'a [f32],
    ) -> Normalised<'a>;

    /// The sums over the gradient of its output, for whoever makes that.
    fn gradient_sums<'a>(&'a mut self, pass: &Pass<'_>, parameters: &'a [f32], input: &'a [f32]) -> GradientSums<'a>;

    /// The backward pass up to the gradient of its input, which is yet to be made: out of `grad_output`, whose sums
    /// must be complete, where values are pooled, and else in its place.
    fn gradient<'a>(
        &'a mut self,
        pass: &Pass<'_>,
        parameters: &[f32],
        grad_parameters: &mut [f32],
        input: &'a [f32],
        pooled: &'a [f32],
    ) -> InputGradient<'a>;
}

impl Activation {
    /// The engine's name for it.
    pub(in crate::nn) fn pointwise(self) -> Pointwise {
        match self {
            Activation::Relu => Pointwise::Relu,
            Activation::Leaky { slope } => Pointwise::Leaky(slope),
            Activation::Elu { alpha } => Pointwise::Elu(alpha),
        }
    }
}

/// Tensors start at whole cache lines: 16 values of f32.
pub(in crate::nn) const ALIGN: usize = 16;

/// Where tensors of these lengths lie when they are laid out one after the other, and the length of it all.
pub(in crate::nn) fn lay_out(lengths: impl Iterator<Item = usize>) -> (Vec<Range<usize>>, usize) {
    let mut end = 0;
    let ranges = lengths
        .map(|len| {
            let start = end;
            end = (start + len).next_multiple_of(ALIGN);
            start..start + len
        })
        .collect();
    (ranges, end)
}

/// The activation that the engine fuses into a store.
fn epilogue(relu_after: bool) -> engine::Activation {
    if relu_after { engine::Activation::Relu } else { engine::Activation::None }
}

/// Weights and perhaps a bias within the parameters of a layer.
struct Weights {
    weights: Range<usize>,
    bias: Option<Range<usize>>,
}

impl Weights {
    fn new(build: &Build<'_>) -> Weights {
        Weights { weights: build.trained[0].clone(), bias: build.trained.get(1).cloned() }
    }

    fn of<'a>(&self, parameters: &'a [f32]) -> (&'a [f32], Option<&'a [f32]>) {
        (&parameters[self.weights.clone()], self.bias.clone().map(|bias| &parameters[bias]))
    }

    fn of_mut<'a>(&self, gradients: &'a mut [f32]) -> (&'a mut [f32], Option<&'a mut [f32]>) {
        match self.bias.clone() {
            None => (&mut gradients[self.weights.clone()], None),
            Some(bias) => {
                let (low, high) = gradients.split_at_mut(bias.start);
                (&mut low[self.weights.clone()], Some(&mut high[..bias.len()]))
            }
        }
    }
}

/// The image that a layer needs, or why it has none.
fn image(word: &str, input: SampleShape) -> Result<ImageShape, ShapeError> {
    input.image().ok_or_else(|| {
        ShapeError::new(format!("`{word}` needs an image with a height and a width, got {input} flat features"))
            .help(format!("put `{word}` above `flatten`, `fc` and `gap`, and feed it images, not components"))
    })
}

/// The keys that layers with weights share.
#[derive(Clone, Copy, Debug, PartialEq)]
struct WeightKeys {
    bias: bool,
    initializer: Option<Initializer>,
    l2: Option<f64>,
}

impl WeightKeys {
    fn read(section: &mut Section<'_>) -> WeightKeys {
        WeightKeys {
            bias: section.key("bias", "Whether a bias is added.", "false").flag(true),
            initializer: Initializer::read_optional(section),
            l2: section
                .key("l2", "L2 of this layer's weights; absent: the network's.", "1e-4")
                .number(crate::config::Bounds::NonNegative)
                .optional(),
        }
    }

    fn tensors(self, weights: Vec<usize>, fan_in: usize, fan_out: usize, bias: Vec<usize>) -> Vec<TensorSpec> {
        let start = Start::Drawn { initializer: self.initializer, fan_in, fan_out };
        let mut tensors = vec![TensorSpec { name: "weights", shape: weights, role: Role::Weights, start, l2: self.l2 }];
        if self.bias {
            let start = Start::Constant(0.0);
            tensors.push(TensorSpec { name: "bias", shape: bias, role: Role::Bias, start, l2: self.l2 });
        }
        tensors
    }
}

/// The layer of `kind` with the keys of `text` (`key=1 other=[2,3]` is all that tests need).
#[cfg(test)]
pub(crate) fn layer_of(kind: &LayerKind, text: &str) -> Arc<dyn LayerConfig> {
    use crate::config::{Entry, Log, Node, Span, Table, Value};
    let node = |value| Node { value, span: Span::default() };
    let entry = |key: &str, value| Entry { key: key.to_owned(), key_span: Span::default(), node: node(value) };
    let scalar = |text: &str| match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(i), _) => Value::Integer(i),
        (_, Ok(x)) => Value::Float(x),
        _ => Value::Text { text: text.to_owned(), inner: None },
    };
    let entries = text
        .split_whitespace()
        .map(|part| {
            let (key, value) = part.split_once('=').expect("key=value");
            let value = match value.strip_prefix('[').and_then(|v| v.strip_suffix(']')) {
                Some(list) => Value::List(list.split(',').map(|item| node(scalar(item))).collect()),
                None => scalar(value),
            };
            entry(key, value)
        })
        .collect();
    let keys = Value::Table(Table { entries });
    let layer = node(Value::Table(Table { entries: vec![entry(kind.word, keys)] }));
    let mut log = Log::default();
    let read = Section::new(None, Span::default(), "", &mut log).choice_at("layers", "layers[0]", &layer, &choices());
    assert_eq!(log.problems, [], "{}", kind.word);
    read.expect("no problem, so a layer")
}

/// The layers of `"input | conv filters=4 | relu | fc"`.
#[cfg(test)]
pub(crate) fn network_of(text: &str) -> Vec<Arc<dyn LayerConfig>> {
    text.split('|')
        .map(|layer| {
            let (word, keys) = layer.trim().split_once(' ').unwrap_or((layer.trim(), ""));
            let kind = KINDS.iter().find(|kind| kind.word == word).expect("a known layer");
            layer_of(kind, keys)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_reads_its_example() {
        for kind in KINDS {
            assert_eq!(KINDS.iter().filter(|k| k.word == kind.word).count(), 1);
            assert_eq!(kind.shorthand, kind.word.to_uppercase());
            assert_eq!(layer_of(kind, kind.example).word(), kind.word);
        }
    }
}
