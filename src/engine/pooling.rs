//! Pooling: the largest value or the mean of windows of each channel, and the mean of whole channels.

use super::Engine;
use super::kernel::SpreadRow;
use super::threads::Shares;
use super::versions::versions;

/// Windows over images of one size. Lengths in pixels.
///
/// # Shapes
/// - input: `[n, height, width, channels]`
/// - output: `[n, height_out, width_out, channels]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Rows of an input image.
    pub height: usize,
    /// Columns of an input image.
    pub width: usize,
    /// Channels, which do not mix.
    pub channels: usize,
    /// Rows of a window.
    pub size_h: usize,
    /// Columns of a window.
    pub size_w: usize,
    /// Rows from one window to the next.
    pub stride_h: usize,
    /// Columns from one window to the next.
    pub stride_w: usize,
    /// Rows of nothing above the image.
    pub pad_top: usize,
    /// Columns of nothing to the left.
    pub pad_left: usize,
    /// Rows of the output.
    pub height_out: usize,
    /// Columns of the output.
    pub width_out: usize,
}

/// The tap of an output whose gradient goes nowhere.
const NO_TAP: u16 = u16::MAX;

impl PoolShape {
    /// Values of one input image.
    pub fn input_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Values of one output image.
    pub fn output_len(&self) -> usize {
        self.height_out * self.width_out * self.channels
    }

    fn check(&self) {
        assert!(self.size_h * self.size_w < usize::from(NO_TAP), "a window of {}x{}", self.size_h, self.size_w);
        assert!(self.pad_top < self.size_h && self.pad_left < self.size_w, "a window may lie in the padding: {self:?}");
        let last = ((self.height_out - 1) * self.stride_h, (self.width_out - 1) * self.stride_w);
        assert!(last.0 < self.height + self.pad_top && last.1 < self.width + self.pad_left, "{self:?}");
    }

    /// First tap, one past the last, and the input row of the first, for output row `oh`.
    #[inline(always)]
    fn rows(&self, oh: usize) -> (usize, usize, usize) {
        clip(oh * self.stride_h, self.pad_top, self.size_h, self.height)
    }

    /// As [`PoolShape::rows`], for columns.
    #[inline(always)]
    fn columns(&self, ow: usize) -> (usize, usize, usize) {
        clip(ow * self.stride_w, self.pad_left, self.size_w, self.width)
    }

    /// Whether the windows are 2x2, side by side, and cover the image but for an odd last row or column.
    #[inline(always)]
    fn is_two_by_two(&self) -> bool {
        (self.size_h, self.size_w, self.stride_h, self.stride_w) == (2, 2, 2, 2)
            && (self.pad_top, self.pad_left) == (0, 0)
            && self.height_out * 2 <= self.height
            && self.width_out * 2 <= self.width
    }

    /// Whether each input pixel lies in exactly one window.
    #[inline(always)]
    fn is_tiled(&self) -> bool {
        self.is_two_by_two() && self.height_out * 2 == self.height && self.width_out * 2 == self.width
    }
}

#[inline(always)]
fn clip(start: usize, pad: usize, size: usize, len: usize) -> (usize, usize, usize) {
    let first = pad.saturating_sub(start);
    let end = size.min((len + pad).saturating_sub(start));
    (first, end, start + first - pad)
}

/// The largest value of each window, the first in row order where several are largest; NaN where there is one.
///
/// `taps` gets for each output which tap it was, for [`max_pool_backward`]. With `relu_mask`, where the largest is at
/// most 0 the gradient will go nowhere: for inputs that come out of a ReLU.
///
/// # Shapes
/// - `input`: `[n, height, width, channels]`
/// - `output`, `taps`: `[n, height_out, width_out, channels]`
///
/// # Panics
/// If a slice is too short.
pub fn max_pool(
    engine: &Engine,
    shape: &PoolShape,
    n: usize,
    input: &[f32],
    relu_mask: bool,
    output: &mut [f32],
    taps: Option<&mut [u16]>,
) {
    shape.check();
    let row_len = shape.width_out * shape.channels;
    let input = &input[..n * shape.input_len()];
    let isa = engine.isa();
    let output = &mut output[..n * shape.output_len()];
    let taps = taps.map(|taps| Shares(taps[..output.len()].as_mut_ptr()));
    engine.for_each_chunk(output, row_len, |row, out| {
        let (image, oh) = (row / shape.height_out, row % shape.height_out);
        let input = &input[image * shape.input_len()..][..shape.input_len()];
        match taps {
            Some(taps) => {
                // SAFETY: output row `row` is visited once, and `taps` is as long as the output.
                let taps = unsafe { taps.slice(row * row_len, row_len) };
                max_row_taps(isa, shape, oh, input, relu_mask, out, taps);
            }
            None => max_row(isa, shape, oh, input, out),
        }
    });
}

/// Gradient of [`max_pool`] with respect to its input; overwrites `grad_input`.
///
/// # Panics
/// If a slice is too short.
pub fn max_pool_backward(
    engine: &Engine,
    shape: &PoolShape,
    n: usize,
    taps: &[u16],
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    shape.check();
    let isa = engine.isa();
    let (taps, grad_output) = (&taps[..n * shape.output_len()], &grad_output[..n * shape.output_len()]);
    engine.for_each_chunk(&mut grad_input[..n * shape.input_len()], shape.input_len(), |image, grad_input| {
        let start = image * shape.output_len();
        let (taps, grad) = (&taps[start..][..shape.output_len()], &grad_output[start..][..shape.output_len()]);
        max_image_backward(isa, shape, taps, grad, grad_input);
    });
}

/// [`max_pool`] of 2x2 windows that tile images of `[rows, columns, channels]`, with taps of one byte.
pub(super) fn pool_tiles(
    engine: &Engine,
    &[rows, columns, channels]: &[usize; 3],
    n: usize,
    input: &[f32],
    relu_mask: bool,
    output: &mut [f32],
    taps: Option<&mut [u8]>,
) {
    let (from, to) = (columns * channels, columns / 2 * channels);
    let input = &input[..n * rows * from];
    let output = &mut output[..n * rows / 2 * to];
    let taps = taps.map(|taps| Shares(taps[..output.len()].as_mut_ptr()));
    let kernels = engine.kernels();
    engine.for_each_chunk(output, to, |row, out| {
        let two = &input[2 * row * from..][..2 * from];
        let taps = taps.map_or(std::ptr::null_mut(), |taps| taps.get().wrapping_add(row * to));
        let (upper, lower) = (two.as_ptr(), two[from..].as_ptr());
        // SAFETY: both rows are whole, and so is the row of the output; its taps are nobody else's.
        unsafe { (kernels.pool_row)(upper, lower, columns / 2, channels, relu_mask, out.as_mut_ptr(), taps) };
    });
}

/// Gradient of [`pool_tiles`]; overwrites `grad_input`.
pub(super) fn spread_tiles(
    engine: &Engine,
    &[rows, columns, channels]: &[usize; 3],
    n: usize,
    taps: &[u8],
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    let (from, to) = (columns / 2 * channels, columns * channels);
    let (taps, grad_output) = (&taps[..n * rows / 2 * from], &grad_output[..n * rows / 2 * from]);
    let kernels = engine.kernels();
    engine.for_each_chunk(&mut grad_input[..n * rows * to], 2 * to, |row, two| {
        let (grad, taps) = (&grad_output[row * from..][..from], &taps[row * from..][..from]);
        let (upper, lower) = two.split_at_mut(to);
        let row = SpreadRow {
            grad: grad.as_ptr(),
            taps: taps.as_ptr(),
            from_pixel: channels,
            pixels: columns / 2,
            columns: channels,
            to: [upper.as_mut_ptr(), lower.as_mut_ptr()],
            to_pixel: channels,
        };
        // SAFETY: all rows are whole.
        unsafe { (kernels.spread_row)(&row) };
    });
}

/// The mean of those values of each window that lie inside the image.
///
/// # Panics
/// If a slice is too short.
pub fn average_pool(engine: &Engine, shape: &PoolShape, n: usize, input: &[f32], output: &mut [f32]) {
    shape.check();
    let row_len = shape.width_out * shape.channels;
    let input = &input[..n * shape.input_len()];
    let isa = engine.isa();
    engine.for_each_chunk(&mut output[..n * shape.output_len()], row_len, |row, out| {
        let (image, oh) = (row / shape.height_out, row % shape.height_out);
        average_row(isa, shape, oh, &input[image * shape.input_len()..][..shape.input_len()], out);
    });
}

/// Gradient of [`average_pool`] with respect to its input; overwrites `grad_input`.
///
/// # Panics
/// If a slice is too short.
pub fn average_pool_backward(
    engine: &Engine,
    shape: &PoolShape,
    n: usize,
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    shape.check();
    let isa = engine.isa();
    let grad_output = &grad_output[..n * shape.output_len()];
    engine.for_each_chunk(&mut grad_input[..n * shape.input_len()], shape.input_len(), |image, grad_input| {
        average_image_backward(
            isa,
            shape,
            &grad_output[image * shape.output_len()..][..shape.output_len()],
            grad_input,
        );
    });
}

/// The mean of each channel: `[n, pixels, channels]` to `[n, channels]`.
///
/// A sum over pixels: chains of 512, merged neighbour by neighbour.
///
/// # Panics
/// If a slice is too short.
pub fn channel_means(engine: &Engine, pixels: usize, channels: usize, n: usize, input: &[f32], output: &mut [f32]) {
    let input = &input[..n * pixels * channels];
    let isa = engine.isa();
    engine.for_each_chunk(&mut output[..n * channels], channels, |image, out| {
        means(isa, pixels, &input[image * pixels * channels..][..pixels * channels], out);
    });
}

/// Gradient of [`channel_means`] with respect to its input; overwrites `grad_input`.
///
/// # Panics
/// If a slice is too short.
pub fn channel_means_backward(
    engine: &Engine,
    pixels: usize,
    channels: usize,
    n: usize,
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    let grad_output = &grad_output[..n * channels];
    let share = 1.0 / pixels as f32;
    engine.for_each_chunk(&mut grad_input[..n * pixels * channels], pixels * channels, |image, grad_input| {
        let grad = &grad_output[image * channels..][..channels];
        for pixel in grad_input.chunks_exact_mut(channels) {
            for (out, g) in pixel.iter_mut().zip(grad) {
                *out = g * share;
            }
        }
    });
}

/// Whether `x` takes the place of `best`: larger, or NaN (and a NaN stays).
#[inline(always)]
fn wins(x: f32, best: f32) -> bool {
    (x > best) | (x.is_nan() & !best.is_nan())
}

#[inline(always)]
fn pixel(input: &[f32], shape: &PoolShape, row: usize, column: usize) -> usize {
    debug_assert!((row * shape.width + column) * shape.channels < input.len());
    (row * shape.width + column) * shape.channels
}

versions! {
    fn max_row(shape: &PoolShape, oh: usize, input: &[f32], out: &mut [f32]) {
        let c = shape.channels;
        let (first_h, end_h, top) = shape.rows(oh);
        for (ow, out) in out.chunks_exact_mut(c).enumerate() {
            let (first_w, end_w, left) = shape.columns(ow);
            for row in top..top + end_h - first_h {
                for column in left..left + end_w - first_w {
                    let x = &input[pixel(input, shape, row, column)..][..c];
                    if row == top && column == left {
                        out.copy_from_slice(x);
                        continue;
                    }
                    for (best, &x) in out.iter_mut().zip(x) {
                        *best = if wins(x, *best) { x } else { *best };
                    }
                }
            }
        }
    }

    fn max_row_taps(
        shape: &PoolShape,
        oh: usize,
        input: &[f32],
        relu_mask: bool,
        out: &mut [f32],
        taps: &mut [u16],
    ) {
        let c = shape.channels;
        let (first_h, end_h, top) = shape.rows(oh);
        if shape.is_two_by_two() {
            let upper = &input[top * shape.width * c..][..shape.width_out * 2 * c];
            let lower = &input[(top + 1) * shape.width * c..][..shape.width_out * 2 * c];
            let floor = if relu_mask { 0.0 } else { f32::NEG_INFINITY };
            let pixels = upper.chunks_exact(2 * c).zip(lower.chunks_exact(2 * c));
            for ((out, taps), (upper, lower)) in out.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c)).zip(pixels) {
                let (a, b) = upper.split_at(c);
                let (d, e) = lower.split_at(c);
                for i in 0..c {
                    let (mut best, mut tap) = (a[i], 0u16);
                    (best, tap) = if wins(b[i], best) { (b[i], 1) } else { (best, tap) };
                    (best, tap) = if wins(d[i], best) { (d[i], 2) } else { (best, tap) };
                    (best, tap) = if wins(e[i], best) { (e[i], 3) } else { (best, tap) };
                    out[i] = best;
                    taps[i] = if relu_mask & (best <= floor) { NO_TAP } else { tap };
                }
            }
            return;
        }
        for (ow, (out, taps)) in out.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c)).enumerate() {
            let (first_w, end_w, left) = shape.columns(ow);
            for kh in first_h..end_h {
                for kw in first_w..end_w {
                    let tap = (kh * shape.size_w + kw) as u16;
                    let x = &input[pixel(input, shape, top + kh - first_h, left + kw - first_w)..][..c];
                    if (kh, kw) == (first_h, first_w) {
                        out.copy_from_slice(x);
                        taps.fill(tap);
                        continue;
                    }
                    for ((best, at), &x) in out.iter_mut().zip(taps.iter_mut()).zip(x) {
                        let is_better = wins(x, *best);
                        *best = if is_better { x } else { *best };
                        *at = if is_better { tap } else { *at };
                    }
                }
            }
            if relu_mask {
                for (at, best) in taps.iter_mut().zip(out.iter()) {
                    *at = if *best <= 0.0 { NO_TAP } else { *at };
                }
            }
        }
    }

    fn max_image_backward(shape: &PoolShape, taps: &[u16], grad_output: &[f32], grad_input: &mut [f32]) {
        let c = shape.channels;
        if !shape.is_tiled() {
            grad_input.fill(0.0);
        }
        let row_len = shape.width_out * c;
        let rows = grad_output.chunks_exact(row_len).zip(taps.chunks_exact(row_len));
        if shape.is_two_by_two() {
            for (oh, (grad, taps)) in rows.enumerate() {
                let two = &mut grad_input[oh * 2 * shape.width * c..][..2 * shape.width * c];
                let (upper, lower) = two.split_at_mut(shape.width * c);
                let pixels = upper.chunks_exact_mut(2 * c).zip(lower.chunks_exact_mut(2 * c));
                for ((grad, taps), (upper, lower)) in grad.chunks_exact(c).zip(taps.chunks_exact(c)).zip(pixels) {
                    let (a, b) = upper.split_at_mut(c);
                    let (d, e) = lower.split_at_mut(c);
                    // Zipped: the compiler does not vectorise five indexed slices.
                    let inputs = a.iter_mut().zip(b).zip(d.iter_mut().zip(e));
                    for ((&g, &tap), ((a, b), (d, e))) in grad.iter().zip(taps).zip(inputs) {
                        *a = if tap == 0 { g } else { 0.0 };
                        *b = if tap == 1 { g } else { 0.0 };
                        *d = if tap == 2 { g } else { 0.0 };
                        *e = if tap == 3 { g } else { 0.0 };
                    }
                }
            }
            return;
        }
        for (oh, (grad, taps)) in rows.enumerate() {
            let (first_h, end_h, top) = shape.rows(oh);
            for (ow, (grad, taps)) in grad.chunks_exact(c).zip(taps.chunks_exact(c)).enumerate() {
                let (first_w, end_w, left) = shape.columns(ow);
                for kh in first_h..end_h {
                    for kw in first_w..end_w {
                        let tap = (kh * shape.size_w + kw) as u16;
                        let at = pixel(grad_input, shape, top + kh - first_h, left + kw - first_w);
                        for ((out, &g), &t) in grad_input[at..][..c].iter_mut().zip(grad).zip(taps) {
                            *out += if t == tap { g } else { 0.0 };
                        }
                    }
                }
            }
        }
    }

    fn average_row(shape: &PoolShape, oh: usize, input: &[f32], out: &mut [f32]) {
        let c = shape.channels;
        let (first_h, end_h, top) = shape.rows(oh);
        for (ow, out) in out.chunks_exact_mut(c).enumerate() {
            let (first_w, end_w, left) = shape.columns(ow);
            out.fill(0.0);
            for row in top..top + end_h - first_h {
                for column in left..left + end_w - first_w {
                    let x = &input[pixel(input, shape, row, column)..][..c];
                    for (sum, &x) in out.iter_mut().zip(x) {
                        *sum += x;
                    }
                }
            }
            let share = 1.0 / ((end_h - first_h) * (end_w - first_w)) as f32;
            for sum in out {
                *sum *= share;
            }
        }
    }

    fn average_image_backward(shape: &PoolShape, grad_output: &[f32], grad_input: &mut [f32]) {
        let c = shape.channels;
        grad_input.fill(0.0);
        for (oh, grad) in grad_output.chunks_exact(shape.width_out * c).enumerate() {
            let (first_h, end_h, top) = shape.rows(oh);
            for (ow, grad) in grad.chunks_exact(c).enumerate() {
                let (first_w, end_w, left) = shape.columns(ow);
                let share = 1.0 / ((end_h - first_h) * (end_w - first_w)) as f32;
                for row in top..top + end_h - first_h {
                    for column in left..left + end_w - first_w {
                        let at = pixel(grad_input, shape, row, column);
                        for (out, &g) in grad_input[at..][..c].iter_mut().zip(grad) {
                            *out += g * share;
                        }
                    }
                }
            }
        }
    }

    fn means(pixels: usize, input: &[f32], out: &mut [f32]) {
        const LANES: usize = 16;
        let c = out.len();
        for (block, out) in out.chunks_mut(LANES).enumerate() {
            // One partial sum for each power of two of finished chunks.
            let mut levels = [[0.0f32; LANES]; 32];
            let mut n_chunks = 0usize;
            for chunk in input.chunks(512 * c) {
                let mut sum = [0.0f32; LANES];
                for pixel in chunk.chunks_exact(c) {
                    for (sum, x) in sum.iter_mut().zip(&pixel[block * LANES..][..out.len()]) {
                        *sum += x;
                    }
                }
                let mut level = 0;
                while n_chunks >> level & 1 == 1 {
                    for (sum, left) in sum.iter_mut().zip(&levels[level]) {
                        *sum += *left;
                    }
                    level += 1;
                }
                levels[level] = sum;
                n_chunks += 1;
            }
            let mut total: Option<[f32; LANES]> = None;
            for (level, left) in levels.iter().enumerate().take_while(|(level, _)| n_chunks >> level > 0) {
                if n_chunks >> level & 1 == 1 {
                    let mut sum = *left;
                    if let Some(right) = total {
                        for (sum, right) in sum.iter_mut().zip(right) {
                            *sum += right;
                        }
                    }
                    total = Some(sum);
                }
            }
            for (out, sum) in out.iter_mut().zip(total.unwrap_or([0.0; LANES])) {
                *out = sum / pixels as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Isa;

    const SHAPES: [PoolShape; 5] = [
        shape((6, 8, 16), (2, 2), (2, 2), (0, 0), (3, 4)),
        shape((7, 5, 3), (2, 2), (2, 2), (0, 0), (3, 2)),
        shape((7, 9, 5), (3, 2), (2, 2), (0, 0), (3, 4)),
        shape((5, 6, 4), (3, 3), (1, 1), (1, 1), (5, 6)),
        shape((5, 6, 17), (2, 2), (3, 3), (0, 0), (2, 2)),
    ];

    const fn shape(
        (height, width, channels): (usize, usize, usize),
        size: (usize, usize),
        stride: (usize, usize),
        pad: (usize, usize),
        out: (usize, usize),
    ) -> PoolShape {
        PoolShape {
            height,
            width,
            channels,
            size_h: size.0,
            size_w: size.1,
            stride_h: stride.0,
            stride_w: stride.1,
            pad_top: pad.0,
            pad_left: pad.1,
            height_out: out.0,
            width_out: out.1,
        }
    }

    /// For each output, the inputs that it sees with their tap, by the definition.
    fn windows(s: &PoolShape, n: usize) -> Vec<Vec<(usize, u16)>> {
        let mut all = Vec::new();
        for i in 0..n * s.output_len() {
            let (c, ow) = (i % s.channels, i / s.channels % s.width_out);
            let (oh, image) = (i / s.channels / s.width_out % s.height_out, i / s.output_len());
            let mut window = Vec::new();
            for kh in 0..s.size_h {
                for kw in 0..s.size_w {
                    let row = (oh * s.stride_h + kh).checked_sub(s.pad_top).filter(|row| *row < s.height);
                    let column = (ow * s.stride_w + kw).checked_sub(s.pad_left).filter(|column| *column < s.width);
                    if let (Some(row), Some(column)) = (row, column) {
                        let at = image * s.input_len() + (row * s.width + column) * s.channels + c;
                        window.push((at, (kh * s.size_w + kw) as u16));
                    }
                }
            }
            all.push(window);
        }
        all
    }

    #[test]
    fn pools_and_their_gradients_are_as_defined_on_every_instruction_set() {
        let n = 3;
        for s in &SHAPES {
            let input: Vec<f32> = (0..n * s.input_len()).map(|i| ((i * 7919) % 61) as f32 - 30.0).collect();
            let grad: Vec<f32> = (0..n * s.output_len()).map(|i| (i % 13) as f32 - 4.0).collect();
            let windows = windows(s, n);
            for isa in Isa::available() {
                for threads in [1, 3] {
                    for relu_mask in [false, true] {
                        let engine = Engine::with_isa(threads, isa);
                        let (mut out, mut plain) = (vec![9.0; grad.len()], vec![9.0; grad.len()]);
                        let mut taps = vec![0; grad.len()];
                        max_pool(&engine, s, n, &input, relu_mask, &mut out, Some(&mut taps));
                        max_pool(&engine, s, n, &input, relu_mask, &mut plain, None);
                        assert_eq!(out, plain);
                        let mut want_grad = vec![0.0; input.len()];
                        for (i, window) in windows.iter().enumerate() {
                            let most = window.iter().map(|&(at, _)| input[at]).fold(f32::NEG_INFINITY, f32::max);
                            assert_eq!(out[i], most);
                            let &(at, _) = window.iter().find(|&&(at, _)| input[at] == most).unwrap();
                            want_grad[at] += if relu_mask && most <= 0.0 { 0.0 } else { grad[i] };
                        }
                        let mut grad_input = vec![9.0; input.len()];
                        max_pool_backward(&engine, s, n, &taps, &grad, &mut grad_input);
                        assert_eq!(grad_input, want_grad, "{s:?} {relu_mask}");
                    }
                    let engine = Engine::with_isa(threads, isa);
                    let mut out = vec![9.0; grad.len()];
                    average_pool(&engine, s, n, &input, &mut out);
                    let mut want_grad = vec![0.0; input.len()];
                    for (i, window) in windows.iter().enumerate() {
                        let share = 1.0 / window.len() as f32;
                        assert_eq!(out[i], window.iter().fold(0.0, |sum, &(at, _)| sum + input[at]) * share);
                        window.iter().for_each(|&(at, _)| want_grad[at] += grad[i] * share);
                    }
                    let mut grad_input = vec![9.0; input.len()];
                    average_pool_backward(&engine, s, n, &grad, &mut grad_input);
                    assert_eq!(grad_input, want_grad, "{s:?}");
                }
            }
        }
    }

    #[test]
    fn nan_is_the_largest_of_its_window() {
        let s = &SHAPES[1];
        let mut input = vec![1.0; s.input_len()];
        input[s.channels] = f32::NAN;
        for taps in [None, Some(&mut vec![0; s.output_len()][..])] {
            let mut out = vec![0.0; s.output_len()];
            max_pool(&Engine::new(1), s, 1, &input, false, &mut out, taps);
            assert!(out[0].is_nan() && out[1..].iter().all(|&x| x == 1.0));
        }
    }

    #[test]
    fn channel_means_are_sums_over_chunks_of_pixels() {
        for (pixels, c) in [(1, 3), (35, 17), (512 * 5 + 7, 20)] {
            let input: Vec<f32> = (0..2 * pixels * c).map(|i| (i % 97) as f32 * 0.37).collect();
            let mut first: Option<Vec<u32>> = None;
            for isa in Isa::available() {
                let engine = Engine::with_isa(2, isa);
                let mut out = vec![0.0; 2 * c];
                channel_means(&engine, pixels, c, 2, &input, &mut out);
                for (i, got) in out.iter().enumerate() {
                    let start = i / c * pixels * c + i % c;
                    let mean = (0..pixels).map(|p| f64::from(input[start + p * c])).sum::<f64>() / pixels as f64;
                    assert!((f64::from(*got) - mean).abs() < 1e-4, "{got} for {mean}");
                }
                let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits);
                let mut grad = vec![0.0; input.len()];
                channel_means_backward(&engine, pixels, c, 2, &out, &mut grad);
                assert!(
                    grad.iter()
                        .enumerate()
                        .all(|(i, g)| *g == out[i / (pixels * c) * c + i % c] * (1.0 / pixels as f32))
                );
            }
        }
    }
}
