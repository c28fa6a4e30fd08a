//! Convolutions the direct way, one chain for each output value, with shared weights and with weights of each pixel's own.

use super::chain::{Activation, column_sums, finish, merge_tree};
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
    let (rows, columns, group_in, group_out) = (Axis::rows(s), Axis::columns(s), s.group_in(), s.group_out());
    for (out_idx, value) in output[..n * s.output_len()].iter_mut().enumerate() {
        let (pixel, filter) = (out_idx / s.filters, out_idx % s.filters);
        let (image, oh, ow) = unravel(pixel, rows.len_out, columns.len_out);
        let mut sum = 0.0f32;
        for (kh, ih) in taps_in(rows, oh) {
            for (kw, iw) in taps_in(columns, ow) {
                for c in 0..group_in {
                    let channel = filter / group_out * group_in + c;
                    let x = input[((image * s.height + ih) * s.width + iw) * s.channels_in + channel];
                    sum = x.mul_add(weights[((kh * s.kernel_w + kw) * group_in + c) * s.filters + filter], sum);
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
    let (rows, columns, group_in, group_out) = (Axis::rows(s), Axis::columns(s), s.group_in(), s.group_out());
    for (in_idx, value) in grad_input[..n * s.input_len()].iter_mut().enumerate() {
        let (pixel, channel) = (in_idx / s.channels_in, in_idx % s.channels_in);
        let (image, ih, iw) = unravel(pixel, s.height, s.width);
        let (group, c) = (channel / group_in, channel % group_in);
        let mut sum = 0.0f32;
        for (kh, oh) in taps_out(rows, ih) {
            for (kw, ow) in taps_out(columns, iw) {
                for filter in group * group_out..(group + 1) * group_out {
                    let g = grad_output[((image * rows.len_out + oh) * columns.len_out + ow) * s.filters + filter];
                    sum = g.mul_add(weights[((kh * s.kernel_w + kw) * group_in + c) * s.filters + filter], sum);
                }
            }
        }
        *value = if relu_mask.is_some_and(|mask| mask[in_idx] <= 0.0) { 0.0 } else { sum };
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
    let (rows, columns, group_in, group_out) = (Axis::rows(s), Axis::columns(s), s.group_in(), s.group_out());
    let len = s.weights_len();
    let per_chunk = s.chunk_images(n);
    let mut parts = vec![0.0f32; len * n.div_ceil(per_chunk).max(1)];
    for (i, sum) in parts.iter_mut().enumerate() {
        let (chunk, i) = (i / len, i % len);
        let (tap, c, filter) = (i / s.filters / group_in, i / s.filters % group_in, i % s.filters);
        let (kh, kw, channel) = (tap / s.kernel_w, tap % s.kernel_w, filter / group_out * group_in + c);
        for image in chunk * per_chunk..((chunk + 1) * per_chunk).min(n) {
            for oh in 0..rows.len_out {
                for ow in 0..columns.len_out {
                    let x = match (rows.input(oh, kh), columns.input(ow, kw)) {
                        (Some(ih), Some(iw)) => {
                            input[((image * s.height + ih) * s.width + iw) * s.channels_in + channel]
                        }
                        _ if has_halo(s) => 0.0,
                        _ => continue,
                    };
                    let at = ((image * rows.len_out + oh) * columns.len_out + ow) * s.filters + filter;
                    *sum = x.mul_add(grad_output[at], *sum);
                }
            }
        }
    }
    merge_tree(&mut parts, len);
    grad_weights.copy_from_slice(&parts[..len]);
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
    let (rows, columns, positions) = (Axis::rows(s), Axis::columns(s), s.height_out() * s.width_out());
    for (out_idx, value) in output[..n * s.output_len()].iter_mut().enumerate() {
        let (pixel, filter) = (out_idx / s.filters, out_idx % s.filters);
        let (image, oh, ow) = unravel(pixel, rows.len_out, columns.len_out);
        let mut sum = 0.0f32;
        for (kh, ih) in taps_in(rows, oh) {
            for (kw, iw) in taps_in(columns, ow) {
                for c in 0..s.channels_in {
                    let x = input[((image * s.height + ih) * s.width + iw) * s.channels_in + c];
                    sum = x.mul_add(weights[local_weight(s, pixel % positions, kh, kw, c, filter)], sum);
                }
            }
        }
        *value = finish(sum, bias.map(|b| b[pixel % positions * s.filters + filter]), activation);
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
    let (rows, columns) = (Axis::rows(s), Axis::columns(s));
    for (in_idx, value) in grad_input[..n * s.input_len()].iter_mut().enumerate() {
        let (pixel, c) = (in_idx / s.channels_in, in_idx % s.channels_in);
        let (image, ih, iw) = unravel(pixel, s.height, s.width);
        let mut sum = 0.0f32;
        for (kh, oh) in taps_out(rows, ih) {
            for (kw, ow) in taps_out(columns, iw) {
                let position = oh * columns.len_out + ow;
                for filter in 0..s.filters {
                    let g = grad_output[(image * rows.len_out * columns.len_out + position) * s.filters + filter];
                    sum = g.mul_add(weights[local_weight(s, position, kh, kw, c, filter)], sum);
                }
            }
        }
        *value = if relu_mask.is_some_and(|mask| mask[in_idx] <= 0.0) { 0.0 } else { sum };
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
    let (rows, columns, len) = (Axis::rows(s), Axis::columns(s), s.output_len());
    grad_weights.fill(0.0);
    for (out_idx, g) in grad_output[..n * len].iter().enumerate() {
        let (pixel, filter) = (out_idx / s.filters, out_idx % s.filters);
        let (image, oh, ow) = unravel(pixel, rows.len_out, columns.len_out);
        for (kh, ih) in taps_in(rows, oh) {
            for (kw, iw) in taps_in(columns, ow) {
                for c in 0..s.channels_in {
                    let x = input[((image * s.height + ih) * s.width + iw) * s.channels_in + c];
                    let at = local_weight(s, oh * columns.len_out + ow, kh, kw, c, filter);
                    grad_weights[at] = x.mul_add(*g, grad_weights[at]);
                }
            }
        }
    }
    if let Some(grad_bias) = grad_bias {
        column_sums(n, 1, len, n.max(1), grad_output, grad_bias);
    }
}

/// Where the weight of an output position, tap, channel and filter lies.
fn local_weight(s: &ConvShape, position: usize, kh: usize, kw: usize, c: usize, filter: usize) -> usize {
    (((position * s.kernel_h + kh) * s.kernel_w + kw) * s.channels_in + c) * s.filters + filter
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

fn unravel(pixel: usize, height: usize, width: usize) -> (usize, usize, usize) {
    (pixel / width / height, pixel / width % height, pixel % width)
}
