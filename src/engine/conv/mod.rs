//! Convolution layers: a plan made once from the shape, then forward and both gradients on slices.

pub(in crate::engine) mod shape;

pub use shape::ConvShape;

use super::{Activation, Engine, reference};

/// A convolution of one shape, with all that it needs beside its operands: plan and scratch, allocated once.
pub struct Conv {
    shape: ConvShape,
}

impl Conv {
    /// Plans the convolution of this shape.
    ///
    /// # Panics
    /// If an axis is zero, the kernel does not fit, or the groups do not divide the channels.
    pub fn new(_engine: &Engine, shape: ConvShape) -> Conv {
        shape.check();
        Conv { shape }
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
        reference::forward(&self.shape, n, input, weights, bias, activation, output);
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
        reference::backward_data(&self.shape, n, grad_output, weights, relu_mask, grad_input);
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
        reference::backward_weights(&self.shape, n, input, grad_output, grad_weights, grad_bias);
    }
}
