//! Locally-connected (unshared) convolution: a convolution whose every output pixel has weights of its own.

use super::{Activation, ConvShape, Engine, reference};

/// A locally-connected layer of one shape. Weights: `[height_out, width_out, kernel_h, kernel_w, channels_in, filters]`;
/// bias: `[height_out, width_out, filters]`.
pub struct LocalConv {
    shape: ConvShape,
}

impl LocalConv {
    /// Plans the layer.
    ///
    /// # Panics
    /// If an axis is zero, the kernel does not fit, or there are groups.
    pub fn new(_engine: &Engine, shape: ConvShape) -> LocalConv {
        shape.check();
        assert_eq!(shape.groups, 1, "a locally-connected layer has no groups");
        LocalConv { shape }
    }

    /// Values of the weights.
    pub fn weights_len(&self) -> usize {
        self.shape.height_out() * self.shape.width_out() * self.shape.weights_len()
    }

    /// As [`super::Conv::forward`], with weights and bias per output pixel.
    pub fn forward(
        &mut self,
        n: usize,
        input: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        output: &mut [f32],
    ) {
        reference::local_forward(&self.shape, n, input, weights, bias, activation, output);
    }

    /// As [`super::Conv::backward_data`].
    pub fn backward_data(
        &mut self,
        n: usize,
        grad_output: &[f32],
        weights: &[f32],
        relu_mask: Option<&[f32]>,
        grad_input: &mut [f32],
    ) {
        reference::local_backward_data(&self.shape, n, grad_output, weights, relu_mask, grad_input);
    }

    /// As [`super::Conv::backward_weights`]; the sum over the images is one chain.
    pub fn backward_weights(
        &mut self,
        n: usize,
        input: &[f32],
        grad_output: &[f32],
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        reference::local_backward_weights(&self.shape, n, input, grad_output, grad_weights, grad_bias);
    }
}
