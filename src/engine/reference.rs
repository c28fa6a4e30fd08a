//! The definition: naive scalar loops in the canonical order. Every kernel gives these bits, and the tests hold it to that.
//!
//! - A **product** is one chain of fused multiply-adds per output value, from `+0.0`, in the order stated with each
//!   function. Taps that fall outside the image are skipped. The bias is added at the end, with one rounding; then
//!   comes the activation.
//! - A **sum over samples** (a weight or bias gradient) is a chain inside each chunk of samples; chunks are merged by
//!   [`merge_tree`]. How many samples make a chunk follows from the shape and the number of samples only.

use super::conv::gradient::has_halo;
use super::conv::shape::{Axis, chunk_samples};
use super::conv::winograd::chunk_images;
use super::{Activation, ConvShape};

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

/// Sums each of `channels` columns over `n` samples of `pixels` rows each: a chain of additions per chunk of `per_chunk`
/// samples, from `+0.0`, chunks merged by [`merge_tree`]. This is what a bias gradient is.
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

/// `c = a b` for `a` of `[m, k]`, `b` of `[k, n]`, `c` of `[m, n]`. Chain of each value: `k` ascending.
pub fn matmul(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k).fold(0.0f32, |sum, l| a[i * k + l].mul_add(b[l * n + j], sum));
        }
    }
}

/// `g = xᵀ x` over the rows of `x`, `[n_samples, n_features]`, less `centre` (rounded to f32): f32 chains inside chunks
/// of [`GRAM_CHUNK`] samples, the chunks' sums merged in f64, in order.
pub fn gram(n_samples: usize, n_features: usize, x: &[f32], centre: Option<&[f32]>, g: &mut [f64]) {
    let at = |row: usize, i: usize| x[row * n_features + i] - centre.map_or(0.0, |c| c[i]);
    for i in 0..n_features {
        for j in 0..n_features {
            let mut total = 0.0f64;
            for start in (0..n_samples).step_by(GRAM_CHUNK) {
                let rows = start..(start + GRAM_CHUNK).min(n_samples);
                let (i, j) = (i.min(j), i.max(j));
                total += f64::from(rows.fold(0.0f32, |sum, row| at(row, i).mul_add(at(row, j), sum)));
            }
            g[i * n_features + j] = total;
        }
    }
}

/// Samples in each f32 chain of [`gram`]: long enough that the f64 merge costs nothing, short enough that a chain's error
/// stays near one unit in the last place.
pub const GRAM_CHUNK: usize = 512;

/// Samples in each chunk of a dense layer's weight gradient.
pub fn dense_chunk(n: usize, inputs: usize, units: usize) -> usize {
    chunk_samples(n, 1, inputs * units)
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

/// Values of a tile of F(2x2, 3x3), row by row.
type Tile = [f32; 16];

/// Transforms a `W`-wide square, columns first, then rows.
fn both_ways<const W: usize, const V: usize>(square: &[f32], line: impl Fn([f32; W]) -> [f32; V]) -> Vec<f32> {
    let mut columns = [[0.0f32; V]; W];
    for (j, column) in columns.iter_mut().enumerate() {
        *column = line(std::array::from_fn(|i| square[i * W + j]));
    }
    (0..V).flat_map(|row| line(std::array::from_fn(|j| columns[j][row]))).collect()
}

/// [`both_ways`], rows first.
fn rows_first<const W: usize, const V: usize>(square: &[f32], line: impl Fn([f32; W]) -> [f32; V]) -> Vec<f32> {
    let turn = |square: &[f32], w: usize| (0..w * w).map(|i| square[i % w * w + i / w]).collect::<Vec<_>>();
    turn(&both_ways(&turn(square, W), line), V)
}

/// `Bᵀ d`.
fn of_image(d: [f32; 4]) -> [f32; 4] {
    [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]
}

/// `G g`.
fn of_kernel(g: [f32; 3]) -> [f32; 4] {
    let outer = g[0] + g[2];
    [g[0], (outer + g[1]).mul_add(0.5, 0.0), (outer - g[1]).mul_add(0.5, 0.0), g[2]]
}

/// `Aᵀ m`.
fn to_output(m: [f32; 4]) -> [f32; 2] {
    [(m[0] + m[1]) + m[2], (m[1] - m[2]) + m[3]]
}

/// `A y`.
fn of_gradient(y: [f32; 2]) -> [f32; 4] {
    [y[0], y[0] + y[1], y[0] - y[1], y[1]]
}

/// `Gᵀ s`.
fn to_kernel(s: [f32; 4]) -> [f32; 3] {
    let sum = s[1] + s[2];
    [sum.mul_add(0.5, s[0]), (s[1] - s[2]).mul_add(0.5, 0.0), sum.mul_add(0.5, s[3])]
}

/// The transformed tile of 4x4 pixels of one channel that begins at a row and column, outside the image `+0.0`.
fn image_tile(shape: [usize; 3], image: &[f32], at: (isize, isize), c: usize) -> Tile {
    let [height, width, channels] = shape;
    let pixel = |i: isize, j: isize| match (usize::try_from(at.0 + i), usize::try_from(at.1 + j)) {
        (Ok(row), Ok(column)) if row < height && column < width => image[(row * width + column) * channels + c],
        _ => 0.0,
    };
    let square: Tile = std::array::from_fn(|p| pixel(p as isize / 4, p as isize % 4));
    both_ways(&square, of_image).try_into().expect("16 points")
}

/// The transformed 3x3 kernel that `at(kh, kw)` gives.
fn kernel_tile(at: impl Fn(usize, usize) -> f32) -> Tile {
    let square: [f32; 9] = std::array::from_fn(|tap| at(tap / 3, tap % 3));
    both_ways(&square, of_kernel).try_into().expect("16 points")
}

/// What both passes from image to image are: for each tile of 2x2 targets and each of 16 points a chain over channels of
/// the source, from `+0.0`; then back, rows first. `kernel(c, k)` is that of a source and a target channel, `store` gets
/// each value and its place.
fn by_tiles(
    (from, before): ([usize; 3], (isize, isize)),
    to: [usize; 3],
    image: &[f32],
    kernel: impl Fn(usize, usize) -> Tile,
    mut store: impl FnMut(usize, f32),
) {
    let kernels: Vec<Tile> = (0..from[2] * to[2]).map(|i| kernel(i / to[2], i % to[2])).collect();
    for row in (0..to[0]).step_by(2) {
        for column in (0..to[1]).step_by(2) {
            let at = (row as isize - before.0, column as isize - before.1);
            let tiles: Vec<Tile> = (0..from[2]).map(|c| image_tile(from, image, at, c)).collect();
            for k in 0..to[2] {
                let sums: Tile = std::array::from_fn(|p| {
                    (0..from[2]).fold(0.0f32, |sum, c| tiles[c][p].mul_add(kernels[c * to[2] + k][p], sum))
                });
                for (i, value) in rows_first(&sums, to_output).into_iter().enumerate() {
                    let (row, column) = (row + i / 2, column + i % 2);
                    if row < to[0] && column < to[1] {
                        store((row * to[1] + column) * to[2] + k, value);
                    }
                }
            }
        }
    }
}

/// [`forward`] by Winograd's F(2x2, 3x3) (Lavin & Gray 2016), for kernels of 3x3 with stride and dilation 1 and one group.
/// Outside the image there is `+0.0`.
pub fn winograd_forward(
    s: &ConvShape,
    n: usize,
    input: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    output: &mut [f32],
) {
    let to = [s.height_out(), s.width_out(), s.filters];
    let before = (s.pad_top as isize, s.pad_left as isize);
    for (image, output) in input[..n * s.input_len()].chunks(s.input_len()).zip(output.chunks_mut(s.output_len())) {
        let kernel =
            |c: usize, k: usize| kernel_tile(|kh, kw| weights[((kh * 3 + kw) * s.channels_in + c) * s.filters + k]);
        by_tiles(([s.height, s.width, s.channels_in], before), to, image, kernel, |at, value| {
            output[at] = finish(value, bias.map(|bias| bias[at % s.filters]), activation);
        });
    }
}

/// [`backward_data`] by Winograd's F(2x2, 3x3): [`winograd_forward`] with source and target exchanged and kernels turned
/// round.
pub fn winograd_backward_data(
    s: &ConvShape,
    n: usize,
    grad_output: &[f32],
    weights: &[f32],
    relu_mask: Option<&[f32]>,
    grad_input: &mut [f32],
) {
    let from = [s.height_out(), s.width_out(), s.filters];
    let before = (2 - s.pad_top as isize, 2 - s.pad_left as isize);
    let images = grad_output[..n * s.output_len()].chunks(s.output_len());
    for (i, (image, grad)) in images.zip(grad_input.chunks_mut(s.input_len())).enumerate() {
        let kernel = |k: usize, c: usize| {
            kernel_tile(|kh, kw| weights[(((2 - kh) * 3 + 2 - kw) * s.channels_in + c) * s.filters + k])
        };
        let mask = relu_mask.map(|mask| &mask[i * s.input_len()..]);
        by_tiles((from, before), [s.height, s.width, s.channels_in], image, kernel, |at, value| {
            grad[at] = if mask.is_some_and(|mask| mask[at] <= 0.0) { 0.0 } else { value };
        });
    }
}

/// [`backward_weights`] by Winograd's F(2x2, 3x3). Chain of each point inside a chunk: image, tile row, tile column; the
/// bias gradient is such a chain over the tiles' sums, `(y00 + y10) + (y01 + y11)`. Chunks are merged, then points are
/// brought back into taps.
pub fn winograd_backward_weights(
    s: &ConvShape,
    n: usize,
    input: &[f32],
    grad_output: &[f32],
    grad_weights: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    let (height, width) = (s.height_out(), s.width_out());
    let per_chunk = chunk_images(s, n);
    let n_chunks = n.div_ceil(per_chunk).max(1);
    let plane = s.channels_in * s.filters;
    let (mut sums, mut bias) = (vec![0.0f32; n_chunks * 16 * plane], vec![0.0f32; n_chunks * s.filters]);
    for i in 0..n {
        let (chunk, image, grad) = (i / per_chunk, &input[i * s.input_len()..], &grad_output[i * s.output_len()..]);
        for row in (0..height).step_by(2) {
            for column in (0..width).step_by(2) {
                let at = (row as isize - s.pad_top as isize, column as isize - s.pad_left as isize);
                let pixel = |row: usize, column: usize, k: usize| {
                    let is_inside = row < height && column < width;
                    if is_inside { grad[(row * width + column) * s.filters + k] } else { 0.0 }
                };
                let gradients: Vec<Tile> = (0..s.filters)
                    .map(|k| {
                        let square: [f32; 4] = std::array::from_fn(|i| pixel(row + i / 2, column + i % 2, k));
                        both_ways(&square, of_gradient).try_into().expect("16 points")
                    })
                    .collect();
                for c in 0..s.channels_in {
                    let tile = image_tile([s.height, s.width, s.channels_in], image, at, c);
                    for (k, gradient) in gradients.iter().enumerate() {
                        for p in 0..16 {
                            let sum = &mut sums[(chunk * 16 + p) * plane + c * s.filters + k];
                            *sum = tile[p].mul_add(gradient[p], *sum);
                        }
                    }
                }
                for (sum, gradient) in bias[chunk * s.filters..].iter_mut().zip(&gradients) {
                    *sum += gradient[5];
                }
            }
        }
    }
    merge_tree(&mut sums, 16 * plane);
    for i in 0..plane {
        let points: Tile = std::array::from_fn(|p| sums[p * plane + i]);
        for (tap, value) in both_ways(&points, to_kernel).into_iter().enumerate() {
            grad_weights[tap * plane + i] = value;
        }
    }
    merge_tree(&mut bias, s.filters);
    if let Some(grad_bias) = grad_bias {
        grad_bias.copy_from_slice(&bias[..s.filters]);
    }
}
