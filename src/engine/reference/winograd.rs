//! Convolutions of 3x3 by Winograd's F(2x2, 3x3) (Lavin & Gray 2016), and the shapes that are convolved so.

use super::chain::{Activation, finish, merge_tree};
use super::shape::{ConvShape, chunk_samples};

/// With fewer input channels there is nothing to gain.
const MIN_CHANNELS: usize = 5;

/// Nor where the output has fewer rows or columns: most taps of the direct way then lie outside, and are skipped, and weights,
/// which take nearly twice the room, are large there. (L on 32x32x3, images/s on 1 and 2 threads, from so many on: 1: 223,
/// 422; 3: 240, 465, but 100 MiB more than; 5: 236, 460; 9: 208, 407. Sapphire Rapids.)
const MIN_SIDE: usize = 6;

/// Points of a tile.
const POINTS: usize = 16;

/// Whether F(2x2, 3x3) computes convolutions of this shape unless the direct way is asked for: part of the definition, so
/// that it depends on the shape alone.
pub fn applies(s: &ConvShape) -> bool {
    let ones = [s.stride_h, s.stride_w, s.dilation_h, s.dilation_w, s.groups];
    let pads = [s.pad_top, s.pad_bottom, s.pad_left, s.pad_right];
    (s.kernel_h, s.kernel_w) == (3, 3)
        && ones == [1; 5]
        && pads.iter().all(|&pad| pad <= 2)
        && s.channels_in >= MIN_CHANNELS
        && s.height_out().min(s.width_out()) >= MIN_SIDE
}

/// Multiply-adds of the products of one image, forward: 16 a tile, input channel and filter.
pub fn multiply_adds(s: &ConvShape) -> u64 {
    let tiles = s.height_out().div_ceil(2) * s.width_out().div_ceil(2);
    (tiles * POINTS * s.channels_in * s.filters) as u64
}

/// Images in each chunk of a weight gradient over `n` images: as [`ConvShape::chunk_images`], with tiles for pixels.
pub fn chunk_images(s: &ConvShape, n: usize) -> usize {
    let tiles = s.height_out().div_ceil(2) * s.width_out().div_ceil(2);
    chunk_samples(n, tiles, POINTS * s.channels_in * s.filters)
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
