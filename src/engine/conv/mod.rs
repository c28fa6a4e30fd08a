//! Convolution layers: a plan made once from the shape, then forward and both gradients on slices.

mod classes;
pub(in crate::engine) mod gradient;
pub(in crate::engine) mod product;
pub(in crate::engine) mod shape;

pub use shape::ConvShape;

use gradient::Gradient;
use product::{Operands, Product};

use super::kernel::Finish;
use super::{Activation, Engine};

/// A convolution of one shape, with all that it needs beside its operands: plan and scratch, allocated once.
///
/// What only training needs is made when training first asks for it.
pub struct Conv {
    engine: Engine,
    shape: ConvShape,
    forward: Product,
    backward: Option<Product>,
    gradient: Option<Gradient>,
}

impl Conv {
    /// Plans the convolution of this shape.
    ///
    /// # Panics
    /// If an axis is zero, the kernel does not fit, or the groups do not divide the channels.
    pub fn new(engine: &Engine, shape: ConvShape) -> Conv {
        shape.check();
        let forward = Product::new(engine, &shape, true);
        Conv { engine: engine.clone(), shape, forward, backward: None, gradient: None }
    }

    /// The shape it was made for.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
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
        assert!(bias.is_none_or(|b| b.len() >= self.shape.filters), "too few values in the bias");
        let finish = Finish { bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr), activation, clip: None };
        self.forward.run(&self.engine, n, Operands { source: input, weights, finish }, output);
    }

    /// Gradient with respect to the input. Where `relu_mask` is at most 0 the gradient is 0: pass the layer's input when
    /// it came out of a ReLU, and the ReLU's backward pass is done as well.
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
        assert!(relu_mask.is_none_or(|m| m.len() >= n * self.shape.input_len()), "the mask is too short");
        let clip = relu_mask.map(|m| super::distance(grad_input.as_ptr(), m.as_ptr()));
        let finish = Finish { bias: std::ptr::null(), activation: Activation::None, clip };
        let plan = self.backward.get_or_insert_with(|| Product::new(&self.engine, &self.shape, false));
        plan.run(&self.engine, n, Operands { source: grad_output, weights, finish }, grad_input);
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
        let plan = self.gradient.get_or_insert_with(|| Gradient::new(&self.engine, &self.shape));
        plan.run(&self.engine, n, input, grad_output, grad_weights, grad_bias);
    }
}
