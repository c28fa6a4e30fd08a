//! What all chains share: how they end, and how the partial sums of chunks are merged.

use ndarray::{ArrayView, ArrayViewMut, Dimension, StrideShape};

/// What a kernel does to each output value as it stores it, after the bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// The larger of the value and 0 ([`relu`]).
    Relu,
}

/// Merges the partial sums of chunks in place, into the first: neighbours first, then neighbours of those, and so on
/// (`(0+1)+(2+3)`, an odd one out moves up a level). `parts` holds equal slices one after the other.
pub fn merge_tree(parts: &mut [f32], len: usize) {
    let n_parts = parts.len().checked_div(len).unwrap_or(0);
    let mut step = 1;
    while step < n_parts {
        for left in (0..n_parts - step).step_by(2 * step) {
            for i in 0..len {
                parts[left * len + i] += parts[(left + step) * len + i];
            }
        }
        step *= 2;
    }
}

/// Applies bias and activation to a finished chain.
pub fn finish(sum: f32, bias: Option<f32>, activation: Activation) -> f32 {
    let sum = bias.map_or(sum, |b| sum + b);
    match activation {
        Activation::None => sum,
        Activation::Relu => relu(sum),
    }
}

/// The larger of `x` and 0. NaN stays NaN and -0 stays -0.
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// Sums each of `channels` columns over `n` samples of `pixels` rows each: a chain of additions per chunk of
/// `per_chunk` samples, from `+0.0`, chunks merged by [`merge_tree`]. This is what a bias gradient is.
pub fn column_sums(n: usize, pixels: usize, channels: usize, per_chunk: usize, values: &[f32], sums: &mut [f32]) {
    let mut parts = vec![0.0f32; channels * n.div_ceil(per_chunk).max(1)];
    for (row, values) in values[..n * pixels * channels].chunks_exact(channels).enumerate() {
        let at = row / pixels / per_chunk * channels;
        for (sum, value) in parts[at..at + channels].iter_mut().zip(values) {
            *sum += value;
        }
    }
    merge_tree(&mut parts, channels);
    sums.copy_from_slice(&parts[..channels]);
}

/// Values, row by row, as an array of this shape; there may be more of them.
///
/// # Panics
/// If there are too few.
pub(super) fn view<D: Dimension>(shape: impl Into<StrideShape<D>>, values: &[f32]) -> ArrayView<'_, f32, D> {
    ArrayView::from_shape(shape, values).expect("as many values as the shape has")
}

/// [`view`], to be written.
pub(super) fn view_mut<D: Dimension>(shape: impl Into<StrideShape<D>>, values: &mut [f32]) -> ArrayViewMut<'_, f32, D> {
    ArrayViewMut::from_shape(shape, values).expect("as many values as the shape has")
}
