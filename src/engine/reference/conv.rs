//! Convolutions the direct way, one chain for each output value, with shared weights and with weights of each pixel's
//! own.

use ndarray::{Array5, ArrayView4, ArrayView6};

use super::chain::{Activation, column_sums, finish, merge_tree, view, view_mut};
use super::shape::{Axis, ConvShape, has_halo};

/// Convolution of `n` images. Chain of each output value: kernel row, kernel column, input channel.
pub fn forward(
    s: &ConvShape,
    n: usize,
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    let (x, w) = (inputs(s, n, input), kernel(s, weights));
    let mut y = view_mut((n, s.height_out(), s.width_out(), s.filters), output);
    for ((image, oh, ow, filter), value) in y.indexed_iter_mut() {
        let mut sum = 0.0f32;
        for (kh, ih) in taps_in(Axis::rows(s), oh) {
            for (kw, iw) in taps_in(Axis::columns(s), ow) {
                for c in 0..s.group_in() {
                    let channel = filter / s.group_out() * s.group_in() + c;
                    sum = x[[image, ih, iw, channel]].mul_add(w[[kh, kw, c, filter]], sum);
                }
            }
        }
        *value = finish(sum, bias.map(|b| b[filter]), activation);
    }
}

/// Gradient with respect to the input. Chain of each input value: output row, output column, filter, all ascending.
/// Where `relu_mask` (the input itself, when it left a ReLU) is at most 0, the gradient is 0.
pub fn backward_data(
    s: &ConvShape,
    n: usize,
    grad_output: &[f32],
    weights: &[f32],
    relu_mask: Option<&[f32]>,
    grad_input: &mut [f32],
) {
    let (g, w, mask) = (outputs(s, n, grad_output), kernel(s, weights), relu_mask.map(|mask| inputs(s, n, mask)));
    let mut dx = view_mut((n, s.height, s.width, s.channels_in), grad_input);
    for ((image, ih, iw, channel), value) in dx.indexed_iter_mut() {
        let (group, c) = (channel / s.group_in(), channel % s.group_in());
        let mut sum = 0.0f32;
        for (kh, oh) in taps_out(Axis::rows(s), ih) {
            for (kw, ow) in taps_out(Axis::columns(s), iw) {
                for filter in group * s.group_out()..(group + 1) * s.group_out() {
                    sum = g[[image, oh, ow, filter]].mul_add(w[[kh, kw, c, filter]], sum);
                }
            }
        }
        let is_clipped = mask.is_some_and(|mask| mask[[image, ih, iw, channel]] <= 0.0);
        *value = if is_clipped { 0.0 } else { sum };
    }
}

/// Gradients with respect to weights and bias. Chain inside a chunk: image, output row, output column. For images of up
/// to four channels, taps outside the image are not skipped: they count as `+0.0`.
pub fn backward_weights(
    s: &ConvShape,
    n: usize,
    input: &[f32],
    grad_output: &[f32],
    grad_weights: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    let (x, g, rows, columns) = (inputs(s, n, input), outputs(s, n, grad_output), Axis::rows(s), Axis::columns(s));
    let per_chunk = s.chunk_images(n);
    let n_chunks = n.div_ceil(per_chunk).max(1);
    let mut parts = Array5::<f32>::zeros((n_chunks, s.kernel_h, s.kernel_w, s.group_in(), s.filters));
    for ((chunk, kh, kw, c, filter), sum) in parts.indexed_iter_mut() {
        let channel = filter / s.group_out() * s.group_in() + c;
        for image in chunk * per_chunk..((chunk + 1) * per_chunk).min(n) {
            for oh in 0..rows.len_out {
                for ow in 0..columns.len_out {
                    let x = match (rows.input(oh, kh), columns.input(ow, kw)) {
                        (Some(ih), Some(iw)) => x[[image, ih, iw, channel]],
                        _ if has_halo(s) => 0.0,
                        _ => continue,
                    };
                    *sum = x.mul_add(g[[image, oh, ow, filter]], *sum);
                }
            }
        }
    }
    let (mut parts, _) = parts.into_raw_vec_and_offset();
    merge_tree(&mut parts, s.weights_len());
    grad_weights.copy_from_slice(&parts[..s.weights_len()]);
    if let Some(grad_bias) = grad_bias {
        column_sums(n, rows.len_out * columns.len_out, s.filters, per_chunk, grad_output, grad_bias);
    }
}

/// Locally-connected convolution: every output pixel has weights (and a bias) of its own. The chains are those of
/// [`forward`].
pub fn local_forward(
    s: &ConvShape,
    n: usize,
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    let (x, w) = (inputs(s, n, input), kernels(s, weights));
    let bias = bias.map(|bias| view((s.height_out(), s.width_out(), s.filters), bias));
    let mut y = view_mut((n, s.height_out(), s.width_out(), s.filters), output);
    for ((image, oh, ow, filter), value) in y.indexed_iter_mut() {
        let mut sum = 0.0f32;
        for (kh, ih) in taps_in(Axis::rows(s), oh) {
            for (kw, iw) in taps_in(Axis::columns(s), ow) {
                for c in 0..s.channels_in {
                    sum = x[[image, ih, iw, c]].mul_add(w[[oh, ow, kh, kw, c, filter]], sum);
                }
            }
        }
        *value = finish(sum, bias.map(|bias| bias[[oh, ow, filter]]), activation);
    }
}

/// Gradient of [`local_forward`] with respect to the input; the chains are those of [`backward_data`].
pub fn local_backward_data(
    s: &ConvShape,
    n: usize,
    grad_output: &[f32],
    weights: &[f32],
    relu_mask: Option<&[f32]>,
    grad_input: &mut [f32],
) {
    let (g, w, mask) = (outputs(s, n, grad_output), kernels(s, weights), relu_mask.map(|mask| inputs(s, n, mask)));
    let mut dx = view_mut((n, s.height, s.width, s.channels_in), grad_input);
    for ((image, ih, iw, c), value) in dx.indexed_iter_mut() {
        let mut sum = 0.0f32;
        for (kh, oh) in taps_out(Axis::rows(s), ih) {
            for (kw, ow) in taps_out(Axis::columns(s), iw) {
                for filter in 0..s.filters {
                    sum = g[[image, oh, ow, filter]].mul_add(w[[oh, ow, kh, kw, c, filter]], sum);
                }
            }
        }
        *value = if mask.is_some_and(|mask| mask[[image, ih, iw, c]] <= 0.0) { 0.0 } else { sum };
    }
}

/// Gradients of [`local_forward`] with respect to weights and bias: one chain over the images, in one chunk.
pub fn local_backward_weights(
    s: &ConvShape,
    n: usize,
    input: &[f32],
    grad_output: &[f32],
    grad_weights: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    let (x, g) = (inputs(s, n, input), outputs(s, n, grad_output));
    let mut dw = view_mut(kernels_shape(s), grad_weights);
    dw.fill(0.0);
    for ((image, oh, ow, filter), g) in g.indexed_iter() {
        for (kh, ih) in taps_in(Axis::rows(s), oh) {
            for (kw, iw) in taps_in(Axis::columns(s), ow) {
                for c in 0..s.channels_in {
                    let sum = &mut dw[[oh, ow, kh, kw, c, filter]];
                    *sum = x[[image, ih, iw, c]].mul_add(*g, *sum);
                }
            }
        }
    }
    if let Some(grad_bias) = grad_bias {
        column_sums(n, 1, s.output_len(), n.max(1), grad_output, grad_bias);
    }
}

pub(super) fn inputs<'a>(s: &ConvShape, n: usize, values: &'a [f32]) -> ArrayView4<'a, f32> {
    view((n, s.height, s.width, s.channels_in), values)
}

pub(super) fn outputs<'a>(s: &ConvShape, n: usize, values: &'a [f32]) -> ArrayView4<'a, f32> {
    view((n, s.height_out(), s.width_out(), s.filters), values)
}

pub(super) fn kernel<'a>(s: &ConvShape, values: &'a [f32]) -> ArrayView4<'a, f32> {
    view((s.kernel_h, s.kernel_w, s.group_in(), s.filters), values)
}

/// A kernel for each output pixel.
fn kernels<'a>(s: &ConvShape, values: &'a [f32]) -> ArrayView6<'a, f32> {
    view(kernels_shape(s), values)
}

fn kernels_shape(s: &ConvShape) -> [usize; 6] {
    [s.height_out(), s.width_out(), s.kernel_h, s.kernel_w, s.channels_in, s.filters]
}

/// Taps of output `o` with the input each touches, ascending.
fn taps_in(axis: Axis, o: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..axis.kernel).filter_map(move |k| axis.input(o, k).map(|i| (k, i)))
}

/// Taps that touch input `i`, with the output each belongs to, outputs ascending (so taps descending).
fn taps_out(axis: Axis, i: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..axis.kernel).rev().filter_map(move |k| {
        let o = (i + axis.pad).checked_sub(k * axis.dilation)?;
        (o.is_multiple_of(axis.stride) && o / axis.stride < axis.len_out).then_some((k, o / axis.stride))
    })
}
