//! Batch normalisation: each channel of `[rows, channels]` is a lane of its own.
//!
//! Sums over rows are chains of f32 inside chunks whose size depends on the number of channels only; chunks are merged
//! neighbour by neighbour in f64, means and variances as (n, mean, M2) (Chan et al. 1983).

use super::threads::Shares;
use super::versions::versions;
use super::{Buffer, Engine};

/// Lanes that one thread merges at a time.
const LANES: usize = 16;

/// Rows of one chunk: 64 KiB of values, so that its second pass finds it in the first or second cache.
fn chunk_rows(channels: usize) -> usize {
    (16_384 / channels).clamp(32, 512)
}

/// What batch normalisation keeps between its calls, made once for a largest number of rows.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    channels: usize,
    epsilon: f32,
    /// Per chunk and channel, two values: mean and M2 forward, two sums backward. `[chunks, 2, channels]`.
    partial: Vec<f32>,
    /// Mean of the last training batch, `[channels]`.
    mean: Vec<f32>,
    /// `1 / sqrt(variance + epsilon)` of the last training batch.
    inverse_deviation: Vec<f32>,
    /// Sum of squared differences from the mean.
    m2: Vec<f64>,
    /// Factor and summand of each channel.
    factor: Vec<f32>,
    summand: Vec<f32>,
    /// Pixels of an image's row, where outputs are pooled.
    width: usize,
    /// Two rows of pixels for each thread, where outputs are pooled.
    stage: Buffer,
}

impl BatchNorm {
    /// Room for at most `rows` rows of `channels`.
    pub fn new(rows: usize, channels: usize, epsilon: f32) -> BatchNorm {
        let n_chunks = rows.div_ceil(chunk_rows(channels));
        BatchNorm {
            channels,
            epsilon,
            partial: vec![0.0; n_chunks * 2 * channels],
            mean: vec![0.0; channels],
            inverse_deviation: vec![0.0; channels],
            m2: vec![0.0; channels],
            factor: vec![0.0; channels],
            summand: vec![0.0; channels],
            width: 0,
            stage: Buffer::zeros(0),
        }
    }

    /// The same for images whose rows have `width` pixels, when only the largest value of each 2x2 window of the output
    /// is asked for. The whole output is then never in memory.
    ///
    /// # Panics
    /// If `width` is odd.
    pub fn pooled(engine: &Engine, rows: usize, channels: usize, epsilon: f32, width: usize) -> BatchNorm {
        assert!(width.is_multiple_of(2), "windows of 2x2 pixels do not tile rows of {width}");
        let stage = Buffer::zeros(engine.threads() * 2 * width * channels);
        BatchNorm { width, stage, ..BatchNorm::new(rows, channels, epsilon) }
    }

    /// `output = scale * (input - mean) / sqrt(variance + epsilon) + shift` with the batch's own mean and biased
    /// variance, then a ReLU if asked for.
    ///
    /// # Shapes
    /// - `input`, `output`: `[rows, channels]`
    /// - `scale`, `shift`: `[channels]`
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &mut self,
        engine: &Engine,
        input: &[f32],
        scale: &[f32],
        shift: &[f32],
        relu: bool,
        output: &mut [f32],
    ) {
        let (c, isa) = (self.channels, engine.isa());
        let (rows, per_chunk) = (input.len() / c, chunk_rows(c));
        self.measure(engine, input, scale);
        let (mean, factor) = (&self.mean, &self.factor);
        engine.for_each_chunk(&mut output[..rows * c], per_chunk * c, |i, out| {
            normalise(isa, &input[i * per_chunk * c..][..out.len()], mean, factor, shift, relu, out);
        });
    }

    /// [`BatchNorm::forward`], then the largest value of each 2x2 window, as [`super::max_pool`] has it.
    ///
    /// # Shapes
    /// - `input`: `[rows, channels]`, the rows being the pixels of images of an even height, and of the width this was
    ///   made for
    /// - `output`, `taps`: `[rows / 4, channels]`; `taps`, for [`BatchNorm::backward_pooled`], gets which of the four it
    ///   was, none where the ReLU left nothing but 0
    ///
    /// # Panics
    /// If this was not made by [`BatchNorm::pooled`] for as many threads, or a slice is too short.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_pooled(
        &mut self,
        engine: &Engine,
        input: &[f32],
        scale: &[f32],
        shift: &[f32],
        relu: bool,
        output: &mut [f32],
        taps: &mut [u8],
    ) {
        self.measure(engine, input, scale);
        let stage = Shares(self.stage.as_mut_ptr());
        self.normalise_pooled(engine, stage, input, &self.mean, shift, relu, output, Some(taps));
    }

    /// [`BatchNorm::infer`], pooled as [`BatchNorm::forward_pooled`] does.
    ///
    /// # Panics
    /// As [`BatchNorm::forward_pooled`].
    #[allow(clippy::too_many_arguments)]
    pub fn infer_pooled(
        &mut self,
        engine: &Engine,
        input: &[f32],
        scale: &[f32],
        shift: &[f32],
        running_mean: &[f32],
        running_variance: &[f32],
        relu: bool,
        output: &mut [f32],
    ) {
        self.follow_running(scale, running_variance);
        let stage = Shares(self.stage.as_mut_ptr());
        self.normalise_pooled(engine, stage, input, running_mean, shift, relu, output, None);
    }

    #[allow(clippy::too_many_arguments)]
    fn normalise_pooled(
        &self,
        engine: &Engine,
        stage: Shares<f32>,
        input: &[f32],
        mean: &[f32],
        shift: &[f32],
        relu: bool,
        output: &mut [f32],
        taps: Option<&mut [u8]>,
    ) {
        let (c, isa, kernels, factor) = (self.channels, engine.isa(), engine.kernels(), &self.factor);
        let two = self.two_rows(engine);
        let n_pairs = input.len() / two;
        let output = Shares(output[..n_pairs * two / 4].as_mut_ptr());
        let taps = taps.map(|taps| Shares(taps[..n_pairs * two / 4].as_mut_ptr()));
        engine.parallel_for(n_pairs, |pairs, worker| {
            for pair in pairs {
                // SAFETY: a worker's part of the stage is its own, and so are the pair's output and taps, whose lengths
                // were checked above.
                unsafe {
                    let rows = stage.slice(worker * two, two);
                    normalise(isa, &input[pair * two..][..two], mean, factor, shift, relu, rows);
                    let taps = taps.map_or(std::ptr::null_mut(), |taps| taps.get().wrapping_add(pair * two / 4));
                    let out = output.get().add(pair * two / 4);
                    (kernels.pool_row)(rows.as_ptr(), rows[two / 2..].as_ptr(), self.width / 2, c, relu, out, taps);
                }
            }
        });
    }

    /// Values of two rows of pixels.
    fn two_rows(&self, engine: &Engine) -> usize {
        let two = 2 * self.width * self.channels;
        assert!(two > 0 && self.stage.len() >= engine.threads() * two, "planned without pooling, or for fewer threads");
        two
    }

    /// Mean, deviation and factor of each channel of a training batch.
    fn measure(&mut self, engine: &Engine, input: &[f32], scale: &[f32]) {
        let (c, isa) = (self.channels, engine.isa());
        let rows = input.len() / c;
        let per_chunk = chunk_rows(c);
        let n_chunks = rows.div_ceil(per_chunk);
        engine.for_each_chunk(&mut self.partial[..n_chunks * 2 * c], 2 * c, |i, partial| {
            let (mean, m2) = partial.split_at_mut(c);
            let from = i * per_chunk * c;
            moments(isa, &input[from..(from + per_chunk * c).min(rows * c)], mean, m2);
        });
        let last_rows = rows - (n_chunks - 1) * per_chunk;
        for (lane, scale) in scale[..c].iter().enumerate() {
            let (mean, m2) = merge_moments(&self.partial, c, lane, n_chunks, per_chunk, last_rows);
            self.mean[lane] = mean as f32;
            self.m2[lane] = m2;
            let variance = m2 / rows as f64;
            self.inverse_deviation[lane] = (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32;
            self.factor[lane] = self.inverse_deviation[lane] * scale;
        }
    }

    /// Factor of each channel for given statistics.
    fn follow_running(&mut self, scale: &[f32], running_variance: &[f32]) {
        for lane in 0..self.channels {
            let variance = f64::from(running_variance[lane]) + f64::from(self.epsilon);
            self.factor[lane] = (1.0 / variance.sqrt()) as f32 * scale[lane];
        }
    }

    /// Moves running statistics towards those of the last batch of `rows` rows:
    /// `running = momentum * running + (1 - momentum) * batch`, with the unbiased variance.
    pub fn follow(&self, rows: usize, momentum: f32, running_mean: &mut [f32], running_variance: &mut [f32]) {
        for lane in 0..self.channels {
            let variance = (self.m2[lane] / (rows.max(2) - 1) as f64) as f32;
            running_mean[lane] = momentum * running_mean[lane] + (1.0 - momentum) * self.mean[lane];
            running_variance[lane] = momentum * running_variance[lane] + (1.0 - momentum) * variance;
        }
    }

    /// As [`BatchNorm::forward`], with given statistics.
    #[allow(clippy::too_many_arguments)]
    pub fn infer(
        &mut self,
        engine: &Engine,
        input: &[f32],
        scale: &[f32],
        shift: &[f32],
        running_mean: &[f32],
        running_variance: &[f32],
        relu: bool,
        output: &mut [f32],
    ) {
        let (c, isa) = (self.channels, engine.isa());
        self.follow_running(scale, running_variance);
        let per_chunk = chunk_rows(c);
        let factor = &self.factor;
        engine.for_each_chunk(output, per_chunk * c, |i, out| {
            normalise(isa, &input[i * per_chunk * c..][..out.len()], running_mean, factor, shift, relu, out);
        });
    }

    /// Gradients of [`BatchNorm::forward`] (of its linear part: the ReLU's mask is already in `grad`). `grad` holds the
    /// gradient with respect to the output and gets that with respect to the input, unless `wants_input` is false.
    ///
    /// # Shapes
    /// - `input`, `grad`: `[rows, channels]`
    /// - `scale`, `grad_scale`, `grad_shift`: `[channels]`
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &mut self,
        engine: &Engine,
        input: &[f32],
        scale: &[f32],
        wants_input: bool,
        grad: &mut [f32],
        grad_scale: &mut [f32],
        grad_shift: &mut [f32],
    ) {
        let (c, isa) = (self.channels, engine.isa());
        let rows = grad.len() / c;
        let per_chunk = chunk_rows(c);
        let n_chunks = rows.div_ceil(per_chunk);
        let mean = &self.mean;
        let shared: &[f32] = grad;
        engine.for_each_chunk(&mut self.partial[..n_chunks * 2 * c], 2 * c, |i, partial| {
            let (sum, product) = partial.split_at_mut(c);
            let (from, to) = (i * per_chunk * c, ((i + 1) * per_chunk * c).min(rows * c));
            sum.fill(0.0);
            product.fill(0.0);
            gradient_sums(isa, &input[from..to], &shared[from..to], mean, sum, product);
        });
        self.merge(rows, n_chunks, scale, grad_scale, grad_shift);
        if !wants_input {
            return;
        }
        let (mean, factor, slope, summand) = (&self.mean, &self.factor, &self.partial[..c], &self.summand);
        engine.for_each_chunk(&mut grad[..rows * c], per_chunk * c, |i, grad| {
            gradient(isa, &input[i * per_chunk * c..][..grad.len()], mean, factor, slope, summand, grad);
        });
    }

    /// [`BatchNorm::backward`] from the gradient of pooled values; overwrites `grad_input`, if there is one.
    ///
    /// # Shapes
    /// - `input`, `grad_input`: `[rows, channels]`
    /// - `grad_output`, `taps`: `[rows / 4, channels]`, the taps as [`BatchNorm::forward_pooled`] left them
    ///
    /// # Panics
    /// As [`BatchNorm::forward_pooled`].
    #[allow(clippy::too_many_arguments)]
    pub fn backward_pooled(
        &mut self,
        engine: &Engine,
        input: &[f32],
        scale: &[f32],
        grad_output: &[f32],
        taps: &[u8],
        grad_input: Option<&mut [f32]>,
        grad_scale: &mut [f32],
        grad_shift: &mut [f32],
    ) {
        let (c, isa, kernels, width) = (self.channels, engine.isa(), engine.kernels(), self.width);
        let two = self.two_rows(engine);
        let (rows, per_chunk) = (input.len() / c, chunk_rows(c));
        let (n_chunks, quarter) = (rows.div_ceil(per_chunk), rows / 4 * c);
        let (grad_output, taps) = (&grad_output[..quarter], &taps[..quarter]);
        let spread = |pair: usize, to: &mut [f32]| {
            let (grad, taps) = (&grad_output[pair * two / 4..][..two / 4], &taps[pair * two / 4..][..two / 4]);
            let (upper, lower) = to[..two].split_at_mut(two / 2);
            let (upper, lower) = (upper.as_mut_ptr(), lower.as_mut_ptr());
            // SAFETY: all rows are whole.
            unsafe { (kernels.spread_row)(grad.as_ptr(), taps.as_ptr(), c, width / 2, c, upper, lower, c) };
        };
        let (stage, partial) = (Shares(self.stage.as_mut_ptr()), Shares(self.partial[..n_chunks * 2 * c].as_mut_ptr()));
        let mean = &self.mean;
        engine.parallel_for(n_chunks, |chunks, worker| {
            // SAFETY: a worker's part of the stage is its own, and its chunks' sums are.
            let stage = unsafe { stage.slice(worker * two, two) };
            let mut on_stage = usize::MAX;
            for i in chunks {
                // SAFETY: as above.
                let sums = unsafe { partial.slice(i * 2 * c, 2 * c) };
                sums.fill(0.0);
                let (sum, product) = sums.split_at_mut(c);
                let (mut at, end) = (i * per_chunk, ((i + 1) * per_chunk).min(rows));
                while at < end {
                    let pair = at / (2 * width);
                    if pair != on_stage {
                        spread(pair, stage);
                        on_stage = pair;
                    }
                    let (first, stop) = (pair * 2 * width, end.min((pair + 1) * 2 * width));
                    let grad = &stage[(at - first) * c..(stop - first) * c];
                    gradient_sums(isa, &input[at * c..stop * c], grad, mean, sum, product);
                    at = stop;
                }
            }
        });
        self.merge(rows, n_chunks, scale, grad_scale, grad_shift);
        let Some(grad_input) = grad_input else { return };
        let (mean, factor, slope, summand) = (&self.mean, &self.factor, &self.partial[..c], &self.summand);
        engine.for_each_chunk(&mut grad_input[..rows * c], two, |pair, grad| {
            spread(pair, grad);
            gradient(isa, &input[pair * two..][..two], mean, factor, slope, summand, grad);
        });
    }

    /// Gradients of scale and shift from the sums of all chunks, and what the gradient of the input is made with: its
    /// slopes go to the first row of `partial`.
    fn merge(&mut self, rows: usize, n_chunks: usize, scale: &[f32], grad_scale: &mut [f32], grad_shift: &mut [f32]) {
        let c = self.channels;
        for lane in 0..c {
            let sum = merge_sums(&self.partial, c, lane, n_chunks);
            let product = merge_sums(&self.partial, c, c + lane, n_chunks) * f64::from(self.inverse_deviation[lane]);
            grad_shift[lane] = sum as f32;
            grad_scale[lane] = product as f32;
            // grad_input = a (g - sum / rows - normalised * product / rows), as a * g + (x - mean) * b + d.
            let a = self.inverse_deviation[lane] * scale[lane];
            self.factor[lane] = a;
            let per_row = product / rows as f64 * f64::from(self.inverse_deviation[lane]);
            self.m2[lane] = -f64::from(a) * per_row;
            self.summand[lane] = (-f64::from(a) * sum / rows as f64) as f32;
        }
        for lane in 0..c {
            self.partial[lane] = self.m2[lane] as f32;
        }
    }
}

/// Merges mean and M2 of one channel over all chunks, neighbour by neighbour.
fn merge_moments(
    partial: &[f32],
    channels: usize,
    lane: usize,
    n_chunks: usize,
    chunk: usize,
    last: usize,
) -> (f64, f64) {
    let of = |i: usize| {
        let n = if i + 1 == n_chunks { last } else { chunk };
        let at = i * 2 * channels + lane;
        (n as f64, f64::from(partial[at]), f64::from(partial[at + channels]))
    };
    let merged = tree(n_chunks, of, |a, b| {
        let n = a.0 + b.0;
        let delta = b.1 - a.1;
        (n, a.1 + delta * (b.0 / n), a.2 + b.2 + delta * delta * (a.0 * b.0 / n))
    });
    (merged.1, merged.2)
}

fn merge_sums(partial: &[f32], channels: usize, lane: usize, n_chunks: usize) -> f64 {
    tree(n_chunks, |i| f64::from(partial[i * 2 * channels + lane]), |a, b| a + b)
}

/// Merges `0..n` neighbour by neighbour: `(0+1)+(2+3)`, an odd one out moves up. A stack of one value a level.
fn tree<T: Copy>(n: usize, of: impl Fn(usize) -> T, merge: impl Fn(T, T) -> T) -> T {
    let mut levels = [None; usize::BITS as usize];
    for i in 0..n {
        let mut value = of(i);
        let mut level = 0;
        while let Some(left) = levels[level].take() {
            value = merge(left, value);
            level += 1;
        }
        levels[level] = Some(value);
    }
    let right = levels.into_iter().flatten().reduce(|right, left| merge(left, right));
    right.expect("at least one chunk")
}

/// Mean and sum of squared differences of `BLOCKS` blocks of lanes.
#[inline(always)]
fn moments_of<const BLOCKS: usize>(start: usize, input: &[f32], rows: f32, mean: &mut [f32], m2: &mut [f32]) {
    let c = mean.len();
    let block =
        |x: &[f32], b: usize| -> [f32; LANES] { x[start + b * LANES..][..LANES].try_into().expect("a slice of 16") };
    let (mut sums, mut squares) = ([[0.0f32; LANES]; BLOCKS], [[0.0f32; LANES]; BLOCKS]);
    for row in input.chunks_exact(c) {
        for (b, sums) in sums.iter_mut().enumerate() {
            for (sum, x) in sums.iter_mut().zip(block(row, b)) {
                *sum += x;
            }
        }
    }
    for sums in &mut sums {
        for sum in sums {
            *sum /= rows;
        }
    }
    for row in input.chunks_exact(c) {
        for b in 0..BLOCKS {
            let x = block(row, b);
            for i in 0..LANES {
                let d = x[i] - sums[b][i];
                squares[b][i] += d * d;
            }
        }
    }
    for b in 0..BLOCKS {
        mean[start + b * LANES..][..LANES].copy_from_slice(&sums[b]);
        m2[start + b * LANES..][..LANES].copy_from_slice(&squares[b]);
    }
}

/// Adds `g` and `g * (x - mean)` of `BLOCKS` blocks of lanes to sums.
#[inline(always)]
fn gradient_sums_of<const BLOCKS: usize>(
    start: usize,
    input: &[f32],
    grad: &[f32],
    mean: &[f32],
    sum: &mut [f32],
    product: &mut [f32],
) {
    let c = mean.len();
    let block =
        |x: &[f32], b: usize| -> [f32; LANES] { x[start + b * LANES..][..LANES].try_into().expect("a slice of 16") };
    let (mut sums, mut products, mut means) =
        ([[0.0f32; LANES]; BLOCKS], [[0.0f32; LANES]; BLOCKS], [[0.0f32; LANES]; BLOCKS]);
    for b in 0..BLOCKS {
        (sums[b], products[b], means[b]) = (block(sum, b), block(product, b), block(mean, b));
    }
    for (row, grad) in input.chunks_exact(c).zip(grad.chunks_exact(c)) {
        for b in 0..BLOCKS {
            let (x, g) = (block(row, b), block(grad, b));
            for i in 0..LANES {
                sums[b][i] += g[i];
                products[b][i] += g[i] * (x[i] - means[b][i]);
            }
        }
    }
    for b in 0..BLOCKS {
        sum[start + b * LANES..][..LANES].copy_from_slice(&sums[b]);
        product[start + b * LANES..][..LANES].copy_from_slice(&products[b]);
    }
}

versions! {
    /// Mean and sum of squared differences of each column of `[rows, channels]`.
    fn moments(input: &[f32], mean: &mut [f32], m2: &mut [f32]) {
        let c = mean.len();
        let rows = (input.len() / c) as f32;
        let mut start = 0;
        // Chains side by side hide the latency of an addition.
        while start + 4 * LANES <= c {
            moments_of::<4>(start, input, rows, mean, m2);
            start += 4 * LANES;
        }
        while start + 2 * LANES <= c {
            moments_of::<2>(start, input, rows, mean, m2);
            start += 2 * LANES;
        }
        while start + LANES <= c {
            moments_of::<1>(start, input, rows, mean, m2);
            start += LANES;
        }
        let (mean, m2) = (&mut mean[start..], &mut m2[start..]);
        mean.fill(0.0);
        m2.fill(0.0);
        for row in input.chunks_exact(c) {
            for (sum, x) in mean.iter_mut().zip(&row[start..]) {
                *sum += x;
            }
        }
        for sum in mean.iter_mut() {
            *sum /= rows;
        }
        for row in input.chunks_exact(c) {
            for ((square, mean), x) in m2.iter_mut().zip(mean.iter()).zip(&row[start..]) {
                let d = x - mean;
                *square += d * d;
            }
        }
    }

    /// `(x - mean) * factor + shift`.
    fn normalise(
        input: &[f32],
        mean: &[f32],
        factor: &[f32],
        shift: &[f32],
        relu: bool,
        output: &mut [f32],
    ) {
        let c = mean.len();
        let (factor, shift) = (&factor[..c], &shift[..c]);
        if relu {
            for (row, out) in input.chunks_exact(c).zip(output.chunks_exact_mut(c)) {
                for i in 0..c {
                    let y = (row[i] - mean[i]) * factor[i] + shift[i];
                    out[i] = if y < 0.0 { 0.0 } else { y };
                }
            }
        } else {
            for (row, out) in input.chunks_exact(c).zip(output.chunks_exact_mut(c)) {
                for i in 0..c {
                    out[i] = (row[i] - mean[i]) * factor[i] + shift[i];
                }
            }
        }
    }

    /// Adds `g` and `g * (x - mean)` of each column to sums.
    fn gradient_sums(input: &[f32], grad: &[f32], mean: &[f32], sum: &mut [f32], product: &mut [f32]) {
        let c = mean.len();
        let mut start = 0;
        // Four chains side by side hide the latency of an addition.
        while start + 2 * LANES <= c {
            gradient_sums_of::<2>(start, input, grad, mean, sum, product);
            start += 2 * LANES;
        }
        while start + LANES <= c {
            gradient_sums_of::<1>(start, input, grad, mean, sum, product);
            start += LANES;
        }
        for (row, grad) in input.chunks_exact(c).zip(grad.chunks_exact(c)) {
            for i in start..c {
                let g = grad[i];
                sum[i] += g;
                product[i] += g * (row[i] - mean[i]);
            }
        }
    }

    /// `g = factor * g + (x - mean) * slope + summand`, in place.
    fn gradient(
        input: &[f32],
        mean: &[f32],
        factor: &[f32],
        slope: &[f32],
        summand: &[f32],
        grad: &mut [f32],
    ) {
        let c = mean.len();
        let (factor, slope, summand) = (&factor[..c], &slope[..c], &summand[..c]);
        for (row, grad) in input.chunks_exact(c).zip(grad.chunks_exact_mut(c)) {
            for i in 0..c {
                grad[i] = factor[i] * grad[i] + ((row[i] - mean[i]) * slope[i] + summand[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Isa;

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + salt) * 7919) % 1009) as f32 * 0.004 - 1.7).collect()
    }

    #[test]
    fn statistics_and_gradients_agree_with_f64_and_have_the_same_bits_everywhere() {
        for (rows, c) in [(1200, 3), (700, 32), (90, 40), (2, 17), (1, 4)] {
            let (input, grad) = (values(rows * c, 0), values(rows * c, 5));
            let (scale, shift) = (values(c, 11), values(c, 13));
            let mut first: Option<Vec<u32>> = None;
            for isa in Isa::available() {
                for threads in [1, 2, 5] {
                    let engine = Engine::with_isa(threads, isa);
                    let mut norm = BatchNorm::new(rows, c, 1e-5);
                    let mut output = vec![0.0; rows * c];
                    norm.forward(&engine, &input, &scale, &shift, false, &mut output);
                    let (mut running_mean, mut running_variance) = (vec![0.0; c], vec![1.0; c]);
                    norm.follow(rows, 0.9, &mut running_mean, &mut running_variance);
                    let mut grad_input = grad.clone();
                    let (mut grad_scale, mut grad_shift) = (vec![0.0; c], vec![0.0; c]);
                    norm.backward(&engine, &input, &scale, true, &mut grad_input, &mut grad_scale, &mut grad_shift);
                    let all = [&output, &running_mean, &running_variance, &grad_input, &grad_scale, &grad_shift];
                    let bits: Vec<u32> = all.iter().flat_map(|x| x.iter().map(|x| x.to_bits())).collect();
                    if first.is_some() {
                        assert_eq!(first.as_ref(), Some(&bits), "{isa} {threads}");
                        continue;
                    }
                    first = Some(bits);
                    for lane in 0..c {
                        let column =
                            |x: &[f32]| -> Vec<f64> { x.iter().skip(lane).step_by(c).map(|&x| f64::from(x)).collect() };
                        let (x, g) = (column(&input), column(&grad));
                        let n = rows as f64;
                        let mean = x.iter().sum::<f64>() / n;
                        let m2 = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
                        let inverse = 1.0 / (m2 / n + 1e-5).sqrt();
                        let hat: Vec<f64> = x.iter().map(|x| (x - mean) * inverse).collect();
                        let (s, t) = (f64::from(scale[lane]), f64::from(shift[lane]));
                        let sum_g = g.iter().sum::<f64>();
                        let sum_gh = g.iter().zip(&hat).map(|(g, h)| g * h).sum::<f64>();
                        let near = |got: f32, want: f64| {
                            assert!(
                                (f64::from(got) - want).abs() < 2e-4 * (1.0 + want.abs()),
                                "{rows}x{c}: {got} for {want}"
                            );
                        };
                        near(running_mean[lane], 0.1 * mean);
                        near(running_variance[lane], 0.9 + 0.1 * m2 / (n - 1.0).max(1.0));
                        near(grad_shift[lane], sum_g);
                        near(grad_scale[lane], sum_gh);
                        for (i, h) in hat.iter().enumerate() {
                            near(output[i * c + lane], s * h + t);
                            near(grad_input[i * c + lane], s * inverse * (g[i] - sum_g / n - h * sum_gh / n));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn inference_uses_the_running_statistics_and_fuses_the_relu() {
        let engine = Engine::new(2);
        let input = values(30, 3);
        let mut output = vec![0.0; 30];
        let mut norm = BatchNorm::new(10, 3, 1e-3);
        let (mean, variance) = ([0.1, 0.2, -0.3], [0.5, 2.0, 0.1]);
        norm.infer(&engine, &input, &[1.0, -2.0, 0.5], &[0.1, 0.0, -0.2], &mean, &variance, true, &mut output);
        for (i, &y) in output.iter().enumerate() {
            let lane = i % 3;
            let factor = [1.0, -2.0, 0.5][lane] / (variance[lane] + 1e-3f32).sqrt();
            let want = ((input[i] - mean[lane]) * factor + [0.1, 0.0, -0.2][lane]).max(0.0);
            assert!((y - want).abs() < 1e-5);
        }
    }
}
