//! Convolutions of 3x3 by Winograd's F(2x2, 3x3) (Lavin & Gray 2016), and the shapes that are convolved so.

use ndarray::{Array2, Array4, ArrayView3, ArrayViewMut3};

use super::chain::{Activation, finish, merge_tree, view, view_mut};
use super::conv::{inputs, kernel, outputs};
use super::shape::{ConvShape, chunk_samples};

/// With fewer input channels there is nothing to gain.
const MIN_CHANNELS: usize = 5;

/// Nor where the output has fewer rows or columns: most taps of the direct way then lie outside, and are skipped, and
/// weights, which take nearly twice the room, are large there. (L on 32x32x3, images/s on 1 and 2 threads, from so many
/// on: 1: 223, 422; 3: 240, 465, but 100 MiB more than; 5: 236, 460; 9: 208, 407. Sapphire Rapids. Zen 4, 1 thread: 4: 184; 6:
/// 197: at 4x4x512 the gradient of the weights takes 123 ms for 69, forward 49 for 64, backward data 53 for 62.)
const MIN_SIDE: usize = 6;

/// Points of a tile.
const POINTS: usize = 16;

/// Whether F(2x2, 3x3) computes convolutions of this shape unless the direct way is asked for: part of the definition,
/// so that it depends on the shape alone.
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
fn image_tile(image: ArrayView3<'_, f32>, at: (isize, isize), c: usize) -> Tile {
    let pixel = |i: isize, j: isize| match (usize::try_from(at.0 + i), usize::try_from(at.1 + j)) {
        (Ok(row), Ok(column)) => image.get([row, column, c]).copied().unwrap_or(0.0),
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

/// What both passes from image to image are: for each tile of 2x2 targets and each of 16 points a chain over channels
/// of the source, from `+0.0`; then back, rows first. `kernel(c, k)` is that of a source and a target channel, and
/// tiles begin `before` their targets; `end` makes each value of what the chains give and of its place.
fn by_tiles(
    from: ArrayView3<'_, f32>,
    mut to: ArrayViewMut3<'_, f32>,
    before: (isize, isize),
    kernel: impl Fn(usize, usize) -> Tile,
    end: impl Fn([usize; 3], f32) -> f32,
) {
    let (height, width, n_targets) = to.dim();
    let kernels = Array2::from_shape_fn((from.dim().2, n_targets), |(c, k)| kernel(c, k));
    for row in (0..height).step_by(2) {
        for column in (0..width).step_by(2) {
            let at = (row as isize - before.0, column as isize - before.1);
            let tiles: Vec<Tile> = (0..from.dim().2).map(|c| image_tile(from, at, c)).collect();
            for k in 0..n_targets {
                let sums: Tile = std::array::from_fn(|p| {
                    tiles.iter().enumerate().fold(0.0f32, |sum, (c, tile)| tile[p].mul_add(kernels[[c, k]][p], sum))
                });
                for (i, value) in rows_first(&sums, to_output).into_iter().enumerate() {
                    let place = [row + i / 2, column + i % 2, k];
                    if let Some(target) = to.get_mut(place) {
                        *target = end(place, value);
                    }
                }
            }
        }
    }
}

/// [`forward`](super::forward) by Winograd's F(2x2, 3x3), for kernels of 3x3 with stride and dilation 1 and one group.
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
    let (x, w) = (inputs(s, n, input), kernel(s, weights));
    let mut y = view_mut((n, s.height_out(), s.width_out(), s.filters), output);
    let before = (s.pad_top as isize, s.pad_left as isize);
    let kernel = |c: usize, k: usize| kernel_tile(|kh, kw| w[[kh, kw, c, k]]);
    for (x, y) in x.outer_iter().zip(y.outer_iter_mut()) {
        by_tiles(x, y, before, kernel, |[_, _, k], value| finish(value, bias.map(|bias| bias[k]), activation));
    }
}

/// [`backward_data`](super::backward_data) by Winograd's F(2x2, 3x3): [`winograd_forward`] with source and target
/// exchanged and kernels turned round.
pub fn winograd_backward_data(
    s: &ConvShape,
    n: usize,
    grad_output: &[f32],
    weights: &[f32],
    relu_mask: Option<&[f32]>,
    grad_input: &mut [f32],
) {
    let (g, w, mask) = (outputs(s, n, grad_output), kernel(s, weights), relu_mask.map(|mask| inputs(s, n, mask)));
    let mut dx = view_mut((n, s.height, s.width, s.channels_in), grad_input);
    let before = (2 - s.pad_top as isize, 2 - s.pad_left as isize);
    let kernel = |k: usize, c: usize| kernel_tile(|kh, kw| w[[2 - kh, 2 - kw, c, k]]);
    for (image, (g, dx)) in g.outer_iter().zip(dx.outer_iter_mut()).enumerate() {
        by_tiles(g, dx, before, kernel, |[row, column, c], value| {
            let is_clipped = mask.is_some_and(|mask| mask[[image, row, column, c]] <= 0.0);
            if is_clipped { 0.0 } else { value }
        });
    }
}

/// [`backward_weights`](super::backward_weights) by Winograd's F(2x2, 3x3). Chain of each point inside a chunk: image,
/// tile row, tile column; the bias gradient is such a chain over the tiles' sums, `(y00 + y10) + (y01 + y11)`. Chunks
/// are merged, then points are brought back into taps.
pub fn winograd_backward_weights(
    s: &ConvShape,
    n: usize,
    input: &[f32],
    grad_output: &[f32],
    grad_weights: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    let (x, g) = (inputs(s, n, input), outputs(s, n, grad_output));
    let per_chunk = chunk_images(s, n);
    let n_chunks = n.div_ceil(per_chunk).max(1);
    let mut sums = Array4::<f32>::zeros((n_chunks, POINTS, s.channels_in, s.filters));
    let mut bias = Array2::<f32>::zeros((n_chunks, s.filters));
    for (i, (image, grad)) in x.outer_iter().zip(g.outer_iter()).enumerate() {
        let chunk = i / per_chunk;
        for row in (0..s.height_out()).step_by(2) {
            for column in (0..s.width_out()).step_by(2) {
                let at = (row as isize - s.pad_top as isize, column as isize - s.pad_left as isize);
                let gradient = |k: usize| -> Tile {
                    let pixel = |i: usize| grad.get([row + i / 2, column + i % 2, k]).copied().unwrap_or(0.0);
                    let square: [f32; 4] = std::array::from_fn(pixel);
                    both_ways(&square, of_gradient).try_into().expect("16 points")
                };
                let gradients: Vec<Tile> = (0..s.filters).map(gradient).collect();
                for c in 0..s.channels_in {
                    let tile = image_tile(image, at, c);
                    for (k, gradient) in gradients.iter().enumerate() {
                        for p in 0..POINTS {
                            let sum = &mut sums[[chunk, p, c, k]];
                            *sum = tile[p].mul_add(gradient[p], *sum);
                        }
                    }
                }
                for (k, gradient) in gradients.iter().enumerate() {
                    bias[[chunk, k]] += gradient[5];
                }
            }
        }
    }
    let (mut sums, mut bias) = (sums.into_raw_vec_and_offset().0, bias.into_raw_vec_and_offset().0);
    let plane = s.channels_in * s.filters;
    merge_tree(&mut sums, POINTS * plane);
    let sums = view((POINTS, s.channels_in, s.filters), &sums);
    let mut dw = view_mut((3, 3, s.channels_in, s.filters), grad_weights);
    for (c, k) in ndarray::indices((s.channels_in, s.filters)) {
        let points: Tile = std::array::from_fn(|p| sums[[p, c, k]]);
        for (tap, value) in both_ways(&points, to_kernel).into_iter().enumerate() {
            dw[[tap / 3, tap % 3, c, k]] = value;
        }
    }
    merge_tree(&mut bias, s.filters);
    if let Some(grad_bias) = grad_bias {
        grad_bias.copy_from_slice(&bias[..s.filters]);
    }
}
