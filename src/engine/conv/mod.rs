//! Convolution layers: a plan made once from the shape, then forward and both gradients on slices.

mod classes;
pub(in crate::engine) mod gradient;
pub(in crate::engine) mod product;
pub(in crate::engine) mod winograd;

use gradient::{Gradient, Summands};
use product::{Operands, Pooled, Product};
use winograd::{Winograd, WinogradGradient};

use super::fused::{Source, Watch};
use super::kernel::Finish;
use super::reference::{Activation, ConvShape, winograd as rule};
use super::{BatchNorm, Buffer, Engine, GradientSums, InputGradient, Normalised};

/// The input of a forward pass.
pub enum Input<'a> {
    /// As it is.
    Given(&'a [f32]),
    /// Yet to be made, image by image as the pass reads it, which then finds it in the cache.
    Made {
        /// What it is.
        by: &'a Normalised<'a>,
        /// Where it goes, all of it, for the backward pass.
        into: &'a mut [f32],
    },
}

/// The gradient of the output, for the gradient of the weights, which is the first to read it.
pub enum GradOutput<'a> {
    /// As it is.
    Given(&'a [f32]),
    /// Yet to be made, as in [`Input::Made`].
    Made {
        /// What it is.
        by: &'a InputGradient<'a>,
        /// Where it goes, all of it.
        into: &'a mut [f32],
    },
    /// That of pooled values.
    Pooled {
        /// `[n, height_out / 2, width_out / 2, filters]`.
        values: &'a [f32],
        /// As [`Conv::forward_pooled`] left them.
        taps: &'a [u8],
    },
}

/// What a forward pass computes.
pub struct Forward<'a> {
    /// Images.
    pub n: usize,
    /// `[n, height, width, channels_in]`.
    pub input: Input<'a>,
    /// `[kernel_h, kernel_w, channels_in / groups, filters]`.
    pub weights: &'a [f32],
    /// `[filters]`.
    pub bias: Option<&'a [f32]>,
    /// Comes last.
    pub activation: Activation,
}

/// What the gradient with respect to the input is computed of.
#[derive(Clone, Copy)]
pub struct BackwardData<'a> {
    /// Images.
    pub n: usize,
    /// `[n, height_out, width_out, filters]`, or of pooled values a quarter of it.
    pub grad_output: &'a [f32],
    /// `[kernel_h, kernel_w, channels_in / groups, filters]`.
    pub weights: &'a [f32],
    /// Where it is at most 0 the gradient is 0: the layer's input, when it came out of a ReLU.
    pub relu_mask: Option<&'a [f32]>,
}

/// How a convolution is defined. The bits of one are not those of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Winograd's F(2x2, 3x3) (Lavin & Gray 2016) for the shapes that it is made for: kernels of 3x3 with stride and
    /// dilation 1, one group, at least 5 input channels, outputs of at least 6x6 pixels and padding of at most 2. All
    /// others are computed as [`Algorithm::Direct`] says. This rule is part of the definition: it looks at the shape of
    /// the layer and at nothing else, neither machine nor batch. 16 multiply-adds do the work of 36. Results are as
    /// near to the exact ones, or nearer; an infinity or NaN spreads over the tiles of 4x4 inputs that it is in. The
    /// default.
    #[default]
    Winograd,
    /// One chain of multiply-adds for each output value, whatever the shape.
    Direct,
}

impl Algorithm {
    /// Multiply-adds of one image, forward, those with zeros beside the image counted. Winograd's are those of the
    /// products; its transforms add and halve only, and are not counted.
    pub fn multiply_adds(self, shape: &ConvShape) -> u64 {
        match self {
            Algorithm::Winograd if rule::applies(shape) => rule::multiply_adds(shape),
            Algorithm::Winograd | Algorithm::Direct => shape.multiply_adds(),
        }
    }
}

/// One of the passes from image to image.
enum Pass {
    Direct(Product),
    Winograd(Winograd),
}

impl Pass {
    fn new(engine: &Engine, shape: &ConvShape, algorithm: Algorithm, is_forward: bool, is_pooled: bool) -> Pass {
        if algorithm == Algorithm::Winograd && rule::applies(shape) {
            Pass::Winograd(Winograd::new(engine, shape, is_forward, is_pooled))
        } else {
            Pass::Direct(Product::new(engine, shape, is_forward, is_pooled))
        }
    }

    fn len(&self) -> usize {
        match self {
            Pass::Direct(plan) => plan.len(),
            Pass::Winograd(plan) => plan.len(),
        }
    }

    /// Whether a side may be pooled.
    fn can_pool(&self) -> bool {
        match self {
            Pass::Direct(plan) => plan.can_pool(),
            Pass::Winograd(_) => true,
        }
    }

    fn run(&mut self, engine: &Engine, n: usize, operands: Operands<'_>, target: &mut [f32], pooled: Pooled<'_>) {
        match self {
            Pass::Direct(plan) => plan.run(engine, n, operands, target, pooled),
            Pass::Winograd(plan) => plan.run(engine, n, operands, target, pooled),
        }
    }
}

/// The pass that sums over images.
enum Sums {
    Direct(Gradient),
    Winograd(WinogradGradient),
}

impl Sums {
    fn new(engine: &Engine, shape: &ConvShape, algorithm: Algorithm, is_pooled: bool) -> Sums {
        if algorithm == Algorithm::Winograd && rule::applies(shape) {
            Sums::Winograd(WinogradGradient::new(engine, shape))
        } else {
            Sums::Direct(Gradient::new(engine, shape, is_pooled))
        }
    }

    fn len(&self) -> usize {
        match self {
            Sums::Direct(plan) => plan.len(),
            Sums::Winograd(plan) => plan.len(),
        }
    }

    fn run(
        &mut self,
        engine: &Engine,
        summands: Summands<'_>,
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        match self {
            Sums::Direct(plan) => plan.run(engine, summands, grad_weights, grad_bias),
            Sums::Winograd(plan) => plan.run(engine, summands, grad_weights, grad_bias),
        }
    }
}

/// A convolution of one shape, with all that it needs beside its operands: plan and scratch, allocated once.
///
/// What only training needs is made when training first asks for it.
pub struct Conv {
    engine: Engine,
    shape: ConvShape,
    algorithm: Algorithm,
    forward: Pass,
    backward: Option<Pass>,
    gradient: Option<Sums>,
    /// Whether outputs are pooled.
    is_pooled: bool,
    /// The whole output, or its gradient, where the weights are too large to finish image by image.
    whole: Buffer,
}

impl Conv {
    /// Plans the convolution of this shape.
    ///
    /// # Panics
    /// If an axis is zero, the kernel does not fit, or the groups do not divide the channels.
    pub fn new(engine: &Engine, shape: ConvShape) -> Conv {
        Conv::plan(engine, shape, Algorithm::Direct, false)
    }

    /// Plans the convolution of this shape for the largest values of each 2x2 window of its output, side by side.
    /// The whole output is then never in memory, only what of it fits the cache, and nor is its gradient.
    ///
    /// # Panics
    /// As [`Conv::new`], and if the output has an odd number of rows or columns.
    pub fn pooled(engine: &Engine, shape: ConvShape) -> Conv {
        Conv::plan(engine, shape, Algorithm::Direct, true)
    }

    /// [`Conv::new`], or [`Conv::pooled`], by a given algorithm.
    ///
    /// # Panics
    /// As those.
    pub fn plan(engine: &Engine, shape: ConvShape, algorithm: Algorithm, is_pooled: bool) -> Conv {
        let is_even = shape.height_out().is_multiple_of(2) && shape.width_out().is_multiple_of(2);
        assert!(is_even || !is_pooled, "windows of 2x2 pixels do not tile the output: {shape:?}");
        shape.check();
        let forward = Pass::new(engine, &shape, algorithm, true, is_pooled);
        let whole_len = if is_pooled && !forward.can_pool() { shape.batch * shape.output_len() } else { 0 };
        let whole = Buffer::zeros(whole_len);
        Conv { engine: engine.clone(), shape, algorithm, forward, backward: None, gradient: None, is_pooled, whole }
    }

    /// Convolves `n` images (cross-correlation, as all networks mean it), adds the bias and applies the activation.
    ///
    /// # Shapes
    /// - `input`: `[n, height, width, channels_in]`
    /// - `weights`: `[kernel_h, kernel_w, channels_in / groups, filters]`
    /// - `bias`: `[filters]`
    /// - `output`: `[n, height_out, width_out, filters]`, all of it written
    ///
    /// Slices may be longer than that. `n` is at most the shape's batch.
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the shape's batch.
    pub fn forward(
        &mut self,
        n: usize,
        input: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        output: &mut [f32],
    ) {
        self.forward_fused(Forward { n, input: Input::Given(input), weights, bias, activation }, output, None);
    }

    /// [`Conv::forward`] from an input that is yet to be made, or with chunks of its output measured for the batch
    /// normalisation that follows, while they are in the cache.
    ///
    /// # Panics
    /// As [`Conv::forward`].
    pub fn forward_fused(&mut self, forward: Forward<'_>, output: &mut [f32], norm: Option<&mut BatchNorm>) {
        let (n, operands) = self.operands(forward);
        let rows = n * self.shape.height_out() * self.shape.width_out();
        let moments = norm.map(|norm| norm.moments(&self.engine, rows));
        let watch = moments.as_ref().map(|moments| moments as &dyn Watch);
        self.forward.run(&self.engine, n, Operands { watch, ..operands }, output, Pooled::No);
    }

    fn operands<'a>(&self, forward: Forward<'a>) -> (usize, Operands<'a>) {
        let Forward { n, input, weights, bias, activation } = forward;
        assert!(bias.is_none_or(|b| b.len() >= self.shape.filters), "too few values in the bias");
        let source = match input {
            Input::Given(values) => Source::given(values),
            Input::Made { by, into } => Source::made(by, into),
        };
        (n, Operands { source, weights, finish: Finish::new(bias, activation), watch: None })
    }

    /// [`Conv::forward`], then the largest value of each 2x2 window: the first in row order where several are largest,
    /// NaN where there is one. The same bits as [`super::max_pool`] of the whole output gives.
    ///
    /// # Shapes
    /// - `output`, `taps`: `[n, height_out / 2, width_out / 2, filters]`. `taps`, for the backward passes, gets which
    ///   of the four it was; none where a ReLU left nothing but 0.
    ///
    /// # Panics
    /// If this was not made by [`Conv::pooled`], a slice is too short, or `n` is above the shape's batch.
    pub fn forward_pooled(&mut self, forward: Forward<'_>, output: &mut [f32], mut taps: Option<&mut [u8]>) {
        assert!(self.is_pooled, "planned without pooling");
        let relu_mask = forward.activation == Activation::Relu;
        let (n, operands) = self.operands(forward);
        if self.forward.can_pool() {
            let pooled = Pooled::Target { relu_mask, taps: taps.as_deref_mut() };
            self.forward.run(&self.engine, n, operands, output, pooled);
        } else {
            self.forward.run(&self.engine, n, operands, &mut self.whole, Pooled::No);
            super::pooling::pool_tiles(&self.engine, &self.rows(), n, &self.whole, relu_mask, output, taps);
        }
    }

    /// Bytes that training takes beside the operands: packed weights, sums, and what is packed or kept of an image at a
    /// time.
    pub fn training_bytes(&mut self) -> usize {
        let backward = self
            .backward
            .get_or_insert_with(|| Pass::new(&self.engine, &self.shape, self.algorithm, false, self.is_pooled));
        let whole = if backward.can_pool() && self.forward.can_pool() || !self.is_pooled {
            0
        } else {
            self.shape.batch * self.shape.output_len()
        };
        let gradient =
            self.gradient.get_or_insert_with(|| Sums::new(&self.engine, &self.shape, self.algorithm, self.is_pooled));
        4 * (self.forward.len() + backward.len() + gradient.len() + whole)
    }

    /// The output as rows of pixels: rows, columns, channels.
    fn rows(&self) -> [usize; 3] {
        [self.shape.height_out(), self.shape.width_out(), self.shape.filters]
    }

    /// Gradient with respect to the input. Where `relu_mask` is at most 0 the gradient is 0: pass the layer's input
    /// when it came out of a ReLU, and the ReLU's backward pass is done as well.
    ///
    /// # Shapes
    /// - `grad_output`: `[n, height_out, width_out, filters]`
    /// - `weights`: `[kernel_h, kernel_w, channels_in / groups, filters]`
    /// - `relu_mask`, `grad_input`: `[n, height, width, channels_in]`; all of `grad_input` is written
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the shape's batch.
    pub fn backward_data(
        &mut self,
        n: usize,
        grad_output: &[f32],
        weights: &[f32],
        relu_mask: Option<&[f32]>,
        grad_input: &mut [f32],
    ) {
        self.backward_data_fused(BackwardData { n, grad_output, weights, relu_mask }, grad_input, None);
    }

    /// [`Conv::backward_data`]; chunks of the gradient are summed for the batch normalisation that the input came out
    /// of, while they are in the cache.
    ///
    /// # Panics
    /// As [`Conv::backward_data`].
    pub fn backward_data_fused(
        &mut self,
        backward: BackwardData<'_>,
        grad_input: &mut [f32],
        sums: Option<&GradientSums<'_>>,
    ) {
        let BackwardData { n, grad_output, weights, relu_mask } = backward;
        assert!(relu_mask.is_none_or(|m| m.len() >= n * self.shape.input_len()), "the mask is too short");
        let finish = Finish::clipped(grad_input.as_ptr(), relu_mask);
        let source = Source::given(grad_output);
        let watch = sums.map(|sums| sums as &dyn Watch);
        let plan = self
            .backward
            .get_or_insert_with(|| Pass::new(&self.engine, &self.shape, self.algorithm, false, self.is_pooled));
        plan.run(&self.engine, n, Operands { source, weights, finish, watch }, grad_input, Pooled::No);
    }

    /// [`Conv::backward_data_fused`] from the gradient of pooled values.
    ///
    /// # Shapes
    /// - `grad_output`, `taps`: `[n, height_out / 2, width_out / 2, filters]`, the taps as
    ///   [`Conv::forward_pooled`] left them
    ///
    /// # Panics
    /// If this was not made by [`Conv::pooled`], a slice is too short, or `n` is above the shape's batch.
    pub fn backward_data_pooled(
        &mut self,
        backward: BackwardData<'_>,
        taps: &[u8],
        grad_input: &mut [f32],
        sums: Option<&GradientSums<'_>>,
    ) {
        let BackwardData { n, grad_output, weights, relu_mask } = backward;
        assert!(self.is_pooled, "planned without pooling");
        assert!(relu_mask.is_none_or(|m| m.len() >= n * self.shape.input_len()), "the mask is too short");
        let finish = Finish::clipped(grad_input.as_ptr(), relu_mask);
        let rows = self.rows();
        let watch = sums.map(|sums| sums as &dyn Watch);
        let plan =
            self.backward.get_or_insert_with(|| Pass::new(&self.engine, &self.shape, self.algorithm, false, true));
        if plan.can_pool() {
            let operands = Operands { source: Source::given(grad_output), weights, finish, watch };
            plan.run(&self.engine, n, operands, grad_input, Pooled::Source { taps });
        } else {
            if self.whole.is_empty() {
                self.whole = Buffer::zeros(self.shape.batch * self.shape.output_len());
            }
            super::pooling::spread_tiles(&self.engine, &rows, n, taps, grad_output, &mut self.whole);
            let operands = Operands { source: Source::given(&self.whole), weights, finish, watch };
            plan.run(&self.engine, n, operands, grad_input, Pooled::No);
        }
    }

    /// Gradients with respect to weights and bias, summed over the `n` images; overwrites both.
    ///
    /// # Shapes
    /// - `input`: `[n, height, width, channels_in]`
    /// - `grad_output`: `[n, height_out, width_out, filters]`
    /// - `grad_weights`: `[kernel_h, kernel_w, channels_in / groups, filters]`
    /// - `grad_bias`: `[filters]`
    ///
    /// # Determinism
    /// Sums are cut into chunks of images by a rule of the shape and `n` only, and merged by a fixed tree.
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the shape's batch.
    pub fn backward_weights(
        &mut self,
        n: usize,
        input: &[f32],
        grad_output: &[f32],
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        self.backward_weights_fused(n, input, GradOutput::Given(grad_output), grad_weights, grad_bias);
    }

    /// [`Conv::backward_weights`] from a gradient that is yet to be made, or from that of pooled values.
    ///
    /// # Panics
    /// As [`Conv::backward_weights`], and if the gradient is that of pooled values and this was not made by
    /// [`Conv::pooled`].
    pub fn backward_weights_fused(
        &mut self,
        n: usize,
        input: &[f32],
        grad_output: GradOutput<'_>,
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        let (grad_output, taps) = match grad_output {
            GradOutput::Given(values) => (Source::given(values), None),
            GradOutput::Made { by, into } => (Source::made(by, into), None),
            GradOutput::Pooled { values, taps } => (Source::given(values), Some(taps)),
        };
        assert!(self.is_pooled || taps.is_none(), "planned without pooling");
        let plan =
            self.gradient.get_or_insert_with(|| Sums::new(&self.engine, &self.shape, self.algorithm, self.is_pooled));
        plan.run(&self.engine, Summands { n, input, grad_output, taps }, grad_weights, grad_bias);
    }
}
