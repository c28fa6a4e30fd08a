//! Dense layers and matrix products.

use super::{Activation, ConvShape, Engine, reference};

/// A dense layer: every unit sees every input.
pub struct Dense {
    batch: usize,
    inputs: usize,
    units: usize,
}

impl Dense {
    /// Plans a dense layer for at most `batch` samples.
    pub fn new(_engine: &Engine, batch: usize, inputs: usize, units: usize) -> Dense {
        assert!(batch > 0 && inputs > 0 && units > 0, "an axis is zero: {batch} x {inputs} x {units}");
        Dense { batch, inputs, units }
    }

    fn shape(&self) -> ConvShape {
        ConvShape::valid(self.batch, 1, 1, self.inputs, self.units, 1)
    }

    /// `output = input weights + bias`, then the activation. Chain of each value: inputs ascending.
    ///
    /// # Shapes
    /// - `input`: `[n, inputs]`
    /// - `weights`: `[inputs, units]`
    /// - `bias`: `[units]`
    /// - `output`: `[n, units]`
    pub fn forward(
        &mut self,
        n: usize,
        input: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        output: &mut [f32],
    ) {
        reference::forward(&self.shape(), n, input, weights, bias, activation, output);
    }

    /// `grad_input = grad_output weightsᵀ`; 0 where `relu_mask` (the layer's input) is at most 0. Chain of each value:
    /// units ascending.
    ///
    /// # Shapes
    /// - `grad_output`: `[n, units]`
    /// - `weights`: `[inputs, units]`
    /// - `relu_mask`, `grad_input`: `[n, inputs]`
    pub fn backward_data(
        &mut self,
        n: usize,
        grad_output: &[f32],
        weights: &[f32],
        relu_mask: Option<&[f32]>,
        grad_input: &mut [f32],
    ) {
        reference::backward_data(&self.shape(), n, grad_output, weights, relu_mask, grad_input);
    }

    /// `grad_weights = inputᵀ grad_output` and `grad_bias`, its column sums, over the `n` samples; overwrites both.
    ///
    /// # Shapes
    /// - `input`: `[n, inputs]`
    /// - `grad_output`: `[n, units]`
    /// - `grad_weights`: `[inputs, units]`
    /// - `grad_bias`: `[units]`
    pub fn backward_weights(
        &mut self,
        n: usize,
        input: &[f32],
        grad_output: &[f32],
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        reference::backward_weights(&self.shape(), n, input, grad_output, grad_weights, grad_bias);
    }
}

/// `c = a b`. Chain of each value: `k` ascending, from `+0.0`.
///
/// # Shapes
/// - `a`: `[m, k]`
/// - `b`: `[k, n]`
/// - `c`: `[m, n]`, overwritten
pub fn matmul(_engine: &Engine, m: usize, k: usize, n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    reference::matmul(m, k, n, a, b, c);
}

/// The Gram matrix `g = (x - centre)ᵀ (x - centre)` over samples: a covariance matrix but for the division.
///
/// Chains of f32 inside chunks of 512 samples; the chunks are merged in f64.
///
/// # Shapes
/// - `x`: `[n_samples, n_features]`
/// - `centre`: `[n_features]`, subtracted from each sample with one rounding to f32
/// - `g`: `[n_features, n_features]`, symmetric, overwritten
pub fn gram(_engine: &Engine, n_samples: usize, n_features: usize, x: &[f32], centre: Option<&[f32]>, g: &mut [f64]) {
    reference::gram(n_samples, n_features, x, centre, g);
}
