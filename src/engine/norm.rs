//! Batch normalisation: each channel of `[rows, channels]` is a lane of its own.
//!
//! Sums over rows are chains of f32 inside chunks whose size depends on the number of channels only; chunks are merged
//! neighbour by neighbour in f64, means and variances as (n, mean, M2) (Chan et al. 1983).

mod rows;

use std::marker::PhantomData;
use std::ops::Range;

use rows::{Affine, gradient, gradient_sums, masked_gradient_sums, moments, normalise};

use super::fused::{Prepare, Watch};
use super::kernel::{Kernels, SpreadRow};
use super::threads::Shares;
use super::{Buffer, Engine, Isa};

/// Rows of one chunk: 64 KiB of values, so that its second pass finds it in the first or second cache.
fn chunk_rows(channels: usize) -> usize {
    (16_384 / channels).clamp(32, 512)
}

/// What batch normalisation keeps between its calls, made once for a largest number of rows.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    channels: usize,
    epsilon: f32,
    /// Which chunks of the pass to come have been summed already, by whoever made their values ([`Watch`]).
    is_summed: Vec<bool>,
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
            is_summed: vec![false; n_chunks],
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
        let stage = Buffer::zeros(engine.capacity() * 2 * width * channels);
        BatchNorm { width, stage, ..BatchNorm::new(rows, channels, epsilon) }
    }

    /// Measures mean and variance of each channel of a training batch, by which [`BatchNorm::values`] then normalises:
    /// `output = scale * (input - mean) / sqrt(variance + epsilon) + shift`, with the biased variance.
    ///
    /// # Shapes
    /// - `input`: `[rows, channels]`
    /// - `scale`: `[channels]`
    pub fn measure(&mut self, engine: &Engine, input: &[f32], scale: &[f32]) {
        let c = self.channels;
        let rows = input.len() / c;
        let per_chunk = chunk_rows(c);
        let n_chunks = rows.div_ceil(per_chunk);
        let moments = self.moments(engine, rows);
        engine.parallel_for(n_chunks, |chunks, _| {
            for i in chunks {
                moments.chunk(i, &input[i * per_chunk * c..((i + 1) * per_chunk).min(rows) * c]);
            }
        });
        self.is_summed.fill(false);
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

    /// The moments of chunks of a batch of so many rows: whoever makes them can have each chunk measured while it is in
    /// the cache. [`BatchNorm::measure`] then does the others.
    pub(super) fn moments(&mut self, engine: &Engine, rows: usize) -> Moments<'_> {
        let (partial, is_summed) = (Shares(self.partial.as_mut_ptr()), Shares(self.is_summed.as_mut_ptr()));
        assert!(rows.div_ceil(chunk_rows(self.channels)) <= self.is_summed.len(), "{rows} rows are too many");
        Moments { isa: engine.isa(), channels: self.channels, rows, partial, is_summed, norm: PhantomData }
    }

    /// Takes given statistics in place of those that [`BatchNorm::measure`] finds.
    pub fn use_running(&mut self, scale: &[f32], running_mean: &[f32], running_variance: &[f32]) {
        for lane in 0..self.channels {
            let variance = f64::from(running_variance[lane]) + f64::from(self.epsilon);
            self.factor[lane] = (1.0 / variance.sqrt()) as f32 * scale[lane];
            self.mean[lane] = running_mean[lane];
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

    /// The normalised values of `input`, then a ReLU if asked for, and then, if this was made by [`BatchNorm::pooled`],
    /// the largest of each 2x2 window, as [`super::max_pool`] has it. They are written by [`Normalised::write`], or by
    /// the convolution that reads them, image by image.
    ///
    /// # Shapes
    /// - `input`: `[rows, channels]`, `pixels` rows an image
    /// - `shift`: `[channels]`
    /// - `taps`: `[rows / 4, channels]`, where values are pooled: gets which of the four it was, none where the ReLU
    ///   left nothing but 0
    ///
    /// # Panics
    /// If values are pooled, and the images have an odd height or there are more threads than this was made for.
    pub fn values<'a>(
        &'a mut self,
        engine: &Engine,
        pixels: usize,
        input: &'a [f32],
        shift: &'a [f32],
        relu: bool,
        taps: Option<&'a mut [u8]>,
    ) -> Normalised<'a> {
        let c = self.channels;
        let pooled = if self.width > 0 { Some((self.two_rows(engine), self.width / 2)) } else { None };
        if let Some((two, _)) = pooled {
            assert!((pixels * c).is_multiple_of(two), "windows of 2x2 pixels do not tile images of {pixels} pixels");
        }
        let taps = taps.map(|taps| Shares(taps[..input.len() / 4].as_mut_ptr()));
        let stage = Shares(self.stage.as_mut_ptr());
        let (mean, factor, shift) = (&self.mean[..], &self.factor[..], &shift[..c]);
        Normalised {
            isa: engine.isa(),
            kernels: engine.kernels(),
            pixels,
            input,
            mean,
            factor,
            shift,
            relu,
            pooled,
            taps,
            stage,
        }
    }

    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        4 * (self.partial.len() + self.stage.len())
    }

    /// Values of two rows of pixels.
    fn two_rows(&self, engine: &Engine) -> usize {
        let two = 2 * self.width * self.channels;
        assert!(
            two > 0 && self.stage.len() >= engine.capacity() * two,
            "planned without pooling, or for fewer threads"
        );
        two
    }

    /// The sums over chunks of the gradient of the output, for the same `input`, `shift` and `relu` as went into
    /// [`BatchNorm::values`]; where values are pooled, of the gradient of pooled values that came from `taps`. Whoever
    /// makes the gradient can have chunks summed while they are in the cache; [`GradientSums::finish`] does the others.
    pub fn gradient_sums<'a>(
        &'a mut self,
        engine: &Engine,
        input: &'a [f32],
        shift: &'a [f32],
        relu: bool,
        taps: Option<&'a [u8]>,
    ) -> GradientSums<'a> {
        let c = self.channels;
        let n_chunks = (input.len() / c).div_ceil(chunk_rows(c));
        assert!(n_chunks <= self.is_summed.len(), "{} values are too many", input.len());
        let spread = taps.map(|taps| Spread {
            kernels: engine.kernels(),
            channels: c,
            width: self.width,
            two: self.two_rows(engine),
            taps: &taps[..input.len() / 4],
        });
        GradientSums {
            isa: engine.isa(),
            input,
            mean: &self.mean,
            factor: &self.factor,
            shift: &shift[..c],
            relu: relu && taps.is_none(),
            spread,
            stage: Shares(self.stage.as_mut_ptr()),
            partial: Shares(self.partial.as_mut_ptr()),
            is_summed: Shares(self.is_summed.as_mut_ptr()),
        }
    }

    /// Gradients of scale and shift from the sums of all chunks, which must be complete ([`GradientSums::finish`]); and
    /// then that of the input, yet to be written.
    ///
    /// # Shapes
    /// - `input`: `[rows, channels]`, `pixels` rows an image
    /// - `scale`, `grad_scale`, `grad_shift`: `[channels]`
    /// - `pooled`: gradient of pooled values and their taps, `[rows / 4, channels]`; what is not pooled is turned in
    ///   place
    pub fn gradient<'a>(
        &'a mut self,
        engine: &Engine,
        pixels: usize,
        input: &'a [f32],
        scale: &[f32],
        pooled: Option<(&'a [f32], &'a [u8])>,
        [grad_scale, grad_shift]: [&mut [f32]; 2],
    ) -> InputGradient<'a> {
        let c = self.channels;
        let rows = input.len() / c;
        self.merge(rows, rows.div_ceil(chunk_rows(c)), scale, grad_scale, grad_shift);
        let pooled = pooled.map(|(grad, taps)| {
            let (two, quarter) = (self.two_rows(engine), input.len() / 4);
            assert!((pixels * c).is_multiple_of(two), "windows of 2x2 pixels do not tile images of {pixels} pixels");
            let taps = &taps[..quarter];
            (&grad[..quarter], Spread { kernels: engine.kernels(), channels: c, width: self.width, two, taps })
        });
        InputGradient {
            isa: engine.isa(),
            pixels,
            input,
            mean: &self.mean,
            factor: &self.factor,
            slope: &self.partial[..c],
            summand: &self.summand,
            pooled,
        }
    }

    /// Gradients of scale and shift from the sums of all chunks, and what the gradient of the input is made with: its
    /// slopes go to the first row of `partial`.
    fn merge(&mut self, rows: usize, n_chunks: usize, scale: &[f32], grad_scale: &mut [f32], grad_shift: &mut [f32]) {
        let c = self.channels;
        self.is_summed.fill(false);
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

/// The chunks of a pass over rows of a batch, as they are completed by whoever makes the rows.
fn completed(
    channels: usize,
    rows: usize,
    done: Range<usize>,
    new: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let per_chunk = chunk_rows(channels);
    ((done.end - new) / per_chunk..)
        .map(move |i| (i, i * per_chunk..((i + 1) * per_chunk).min(rows)))
        .take_while(move |(_, own)| own.end <= done.end && !own.is_empty())
        // What began before this worker's rows is nobody's; what was complete before is done.
        .filter(move |(_, own)| own.start >= done.start && own.end > done.end - new)
}

/// Moments of chunks ([`BatchNorm::measure`]).
pub(super) struct Moments<'a> {
    isa: Isa,
    channels: usize,
    rows: usize,
    partial: Shares<f32>,
    is_summed: Shares<bool>,
    norm: PhantomData<&'a mut BatchNorm>,
}

impl Moments<'_> {
    fn chunk(&self, i: usize, input: &[f32]) {
        let c = self.channels;
        // SAFETY: a chunk has one owner at a time, and chunks lie within both.
        let (partial, is_summed) = unsafe { (self.partial.slice(i * 2 * c, 2 * c), self.is_summed.slice(i, 1)) };
        if !is_summed[0] {
            let (mean, m2) = partial.split_at_mut(c);
            moments(self.isa, input, mean, m2);
            is_summed[0] = true;
        }
    }
}

impl Watch for Moments<'_> {
    fn completed(&self, first: usize, new: usize, values: &mut [f32], _worker: usize) {
        let c = self.channels;
        let done = first..first + values.len() / c;
        for (i, own) in completed(c, self.rows, done, new) {
            self.chunk(i, &values[(own.start - first) * c..(own.end - first) * c]);
        }
    }

    fn reads(&self, _values: Range<usize>) -> (*const f32, usize) {
        (std::ptr::null(), 0)
    }
}

/// Values that are normalised when they are asked for ([`BatchNorm::values`]).
pub struct Normalised<'a> {
    isa: Isa,
    kernels: &'static Kernels,
    pixels: usize,
    input: &'a [f32],
    mean: &'a [f32],
    factor: &'a [f32],
    shift: &'a [f32],
    relu: bool,
    /// Values of two rows of pixels, and pixels of a pooled row, where values are pooled.
    pooled: Option<(usize, usize)>,
    taps: Option<Shares<u8>>,
    /// Two rows for each thread.
    stage: Shares<f32>,
}

impl Normalised<'_> {
    fn by(&self) -> Affine<'_> {
        Affine { mean: self.mean, factor: self.factor, shift: self.shift }
    }

    /// Writes all of them.
    ///
    /// # Shapes
    /// - `output`: `[rows, channels]`, or `[rows / 4, channels]` where values are pooled
    ///
    /// # Panics
    /// If `output` is too short.
    pub fn write(&self, engine: &Engine, output: &mut [f32]) {
        let len = self.input.len();
        let output = Shares(output[..self.pooled.map_or(len, |_| len / 4)].as_mut_ptr());
        let piece = self.pooled.map_or(chunk_rows(self.mean.len()) * self.mean.len(), |(two, _)| two);
        engine.parallel_for(len.div_ceil(piece), |pieces, worker| {
            // SAFETY: pieces are disjoint, and lie within the output.
            unsafe { self.part(pieces.start * piece..(pieces.end * piece).min(len), output.get(), worker) };
        });
    }

    /// Writes those that come from some values of the input.
    ///
    /// # Safety
    /// `output` has room for all values, and nobody else touches those.
    unsafe fn part(&self, values: Range<usize>, output: *mut f32, worker: usize) {
        let Some((two, columns)) = self.pooled else {
            // SAFETY: by this function's contract.
            let out = unsafe { std::slice::from_raw_parts_mut(output.add(values.start), values.len()) };
            return normalise(self.isa, &self.input[values], self.by(), self.relu, out);
        };
        // SAFETY: a worker's part of the stage is its own.
        let rows = unsafe { self.stage.slice(worker * two, two) };
        for at in values.step_by(two) {
            normalise(self.isa, &self.input[at..at + two], self.by(), self.relu, rows);
            let taps = self.taps.map_or(std::ptr::null_mut(), |taps| taps.get().wrapping_add(at / 4));
            let (upper, lower) = (rows.as_ptr(), rows[two / 2..].as_ptr());
            // SAFETY: both rows are whole; output and taps by this function's contract.
            unsafe {
                (self.kernels.pool_row)(upper, lower, columns, self.mean.len(), self.relu, output.add(at / 4), taps);
            }
        }
    }
}

impl Prepare for Normalised<'_> {
    unsafe fn prepare(&self, images: Range<usize>, to: *mut f32, worker: usize) {
        let image = self.pixels * self.mean.len();
        // SAFETY: by the trait's contract.
        unsafe { self.part(images.start * image..images.end * image, to, worker) };
    }

    fn reads(&self, images: Range<usize>) -> (*const f32, usize) {
        let image = self.pixels * self.mean.len();
        (self.input.as_ptr().wrapping_add(images.start * image), images.len() * image)
    }
}

/// Spreads gradients of pooled values over the two rows of pixels they came from.
struct Spread<'a> {
    kernels: &'static Kernels,
    channels: usize,
    width: usize,
    /// Values of two rows.
    two: usize,
    taps: &'a [u8],
}

impl Spread<'_> {
    /// `grad` and `to` are those of pair `pair` of rows.
    fn pair(&self, pair: usize, grad: &[f32], to: &mut [f32]) {
        let (c, two) = (self.channels, self.two);
        let (grad, taps) = (&grad[..two / 4], &self.taps[pair * two / 4..][..two / 4]);
        let (upper, lower) = to[..two].split_at_mut(two / 2);
        let row = SpreadRow {
            grad: grad.as_ptr(),
            taps: taps.as_ptr(),
            from_pixel: c,
            pixels: self.width / 2,
            columns: c,
            to: [upper.as_mut_ptr(), lower.as_mut_ptr()],
            to_pixel: c,
        };
        // SAFETY: all rows are whole.
        unsafe { (self.kernels.spread_row)(&row) };
    }
}

/// Sums of the gradient over chunks ([`BatchNorm::gradient_sums`]).
pub struct GradientSums<'a> {
    isa: Isa,
    input: &'a [f32],
    mean: &'a [f32],
    factor: &'a [f32],
    shift: &'a [f32],
    /// Whether the gradient is still without the ReLU's mask.
    relu: bool,
    spread: Option<Spread<'a>>,
    stage: Shares<f32>,
    partial: Shares<f32>,
    is_summed: Shares<bool>,
}

impl GradientSums<'_> {
    /// Sums the chunks that are not summed yet. Where there was a ReLU, and values are not pooled, `grad` gets its
    /// mask.
    ///
    /// # Shapes
    /// - `grad`: `[rows, channels]`, or `[rows / 4, channels]` where values are pooled
    ///
    /// # Panics
    /// If `grad` is too short.
    pub fn finish(&self, engine: &Engine, grad: &mut [f32]) {
        let c = self.mean.len();
        let (rows, per_chunk) = (self.input.len() / c, chunk_rows(c));
        let n_chunks = rows.div_ceil(per_chunk);
        if self.spread.is_some() {
            let grad = &grad[..rows / 4 * c];
            return engine.parallel_for(n_chunks, |chunks, worker| {
                for i in chunks {
                    self.pooled_chunk(i, 0, grad, worker);
                }
            });
        }
        engine.for_each_chunk(&mut grad[..rows * c], per_chunk * c, |i, grad| self.chunk(i, grad));
    }

    /// Where the sums of a chunk that is not summed yet go.
    #[allow(clippy::mut_from_ref)]
    fn sums(&self, i: usize) -> Option<(&mut [f32], &mut [f32])> {
        let c = self.mean.len();
        // SAFETY: a chunk has one owner at a time, and chunks lie within both.
        let (partial, is_summed) = unsafe { (self.partial.slice(i * 2 * c, 2 * c), self.is_summed.slice(i, 1)) };
        if std::mem::replace(&mut is_summed[0], true) {
            return None;
        }
        partial.fill(0.0);
        Some(partial.split_at_mut(c))
    }

    fn chunk(&self, i: usize, grad: &mut [f32]) {
        let c = self.mean.len();
        let Some((sum, product)) = self.sums(i) else { return };
        let input = &self.input[i * chunk_rows(c) * c..][..grad.len()];
        if self.relu {
            let by = Affine { mean: self.mean, factor: self.factor, shift: self.shift };
            masked_gradient_sums(self.isa, input, grad, by, sum, product);
        } else {
            gradient_sums(self.isa, input, grad, self.mean, sum, product);
        }
    }

    /// `grad` is that of pooled pixels from `first` on.
    fn pooled_chunk(&self, i: usize, first: usize, grad: &[f32], worker: usize) {
        let Some(spread) = &self.spread else { return };
        let Some((sum, product)) = self.sums(i) else { return };
        let (c, two) = (self.mean.len(), spread.two);
        let (rows, per_chunk, per_pair) = (self.input.len() / c, chunk_rows(c), 2 * spread.width);
        // SAFETY: a worker's part of the stage is its own.
        let stage = unsafe { self.stage.slice(worker * two, two) };
        let (mut at, end) = (i * per_chunk, ((i + 1) * per_chunk).min(rows));
        while at < end {
            let pair = at / per_pair;
            spread.pair(pair, &grad[pair * two / 4 - first * c..], stage);
            let (start, stop) = (pair * per_pair, end.min((pair + 1) * per_pair));
            let grad = &stage[(at - start) * c..(stop - start) * c];
            gradient_sums(self.isa, &self.input[at * c..stop * c], grad, self.mean, sum, product);
            at = stop;
        }
    }
}

impl Watch for GradientSums<'_> {
    fn completed(&self, first: usize, new: usize, values: &mut [f32], worker: usize) {
        let c = self.mean.len();
        let (rows, done) = (self.input.len() / c, first..first + values.len() / c);
        if self.spread.is_some() {
            for (i, _) in completed(c, rows, 4 * done.start..4 * done.end, 4 * new) {
                self.pooled_chunk(i, first, values, worker);
            }
            return;
        }
        for (i, own) in completed(c, rows, done, new) {
            self.chunk(i, &mut values[(own.start - first) * c..(own.end - first) * c]);
        }
    }

    fn reads(&self, values: Range<usize>) -> (*const f32, usize) {
        let by = if self.spread.is_some() { 4 } else { 1 };
        (self.input.as_ptr().wrapping_add(by * values.start), by * values.len())
    }
}

/// The gradient of the input, which is written when it is asked for ([`BatchNorm::gradient`]).
pub struct InputGradient<'a> {
    isa: Isa,
    pixels: usize,
    input: &'a [f32],
    mean: &'a [f32],
    factor: &'a [f32],
    slope: &'a [f32],
    summand: &'a [f32],
    pooled: Option<(&'a [f32], Spread<'a>)>,
}

impl InputGradient<'_> {
    /// Writes all of it: over the gradient of the output, or where that is pooled, over anything.
    ///
    /// # Shapes
    /// - `grad`: `[rows, channels]`
    ///
    /// # Panics
    /// If `grad` is too short.
    pub fn write(&self, engine: &Engine, grad: &mut [f32]) {
        let (c, len) = (self.mean.len(), self.input.len());
        let piece = self.pooled.as_ref().map_or(chunk_rows(c) * c, |(_, spread)| spread.two);
        engine.for_each_chunk(&mut grad[..len], piece, |i, grad| self.part(i * piece, grad));
    }

    /// Writes it for some values of the input, whole pairs of rows where pooled.
    fn part(&self, at: usize, grad: &mut [f32]) {
        let input = &self.input[at..][..grad.len()];
        let Some((pooled, spread)) = &self.pooled else {
            return gradient(self.isa, input, self.mean, self.factor, self.slope, self.summand, grad);
        };
        for (i, (grad, input)) in grad.chunks_exact_mut(spread.two).zip(input.chunks_exact(spread.two)).enumerate() {
            let pair = at / spread.two + i;
            spread.pair(pair, &pooled[pair * spread.two / 4..], grad);
            gradient(self.isa, input, self.mean, self.factor, self.slope, self.summand, grad);
        }
    }
}

impl Prepare for InputGradient<'_> {
    unsafe fn prepare(&self, images: Range<usize>, to: *mut f32, _worker: usize) {
        let image = self.pixels * self.mean.len();
        // SAFETY: by the trait's contract.
        let grad = unsafe { std::slice::from_raw_parts_mut(to.add(images.start * image), images.len() * image) };
        self.part(images.start * image, grad);
    }

    fn reads(&self, images: Range<usize>) -> (*const f32, usize) {
        let image = self.pixels * self.mean.len();
        (self.input.as_ptr().wrapping_add(images.start * image), images.len() * image)
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
                    norm.measure(&engine, &input, &scale);
                    norm.values(&engine, rows, &input, &shift, false, None).write(&engine, &mut output);
                    let (mut running_mean, mut running_variance) = (vec![0.0; c], vec![1.0; c]);
                    norm.follow(rows, 0.9, &mut running_mean, &mut running_variance);
                    let mut grad_input = grad.clone();
                    let (mut grad_scale, mut grad_shift) = (vec![0.0; c], vec![0.0; c]);
                    norm.gradient_sums(&engine, &input, &shift, false, None).finish(&engine, &mut grad_input);
                    norm.gradient(&engine, rows, &input, &scale, None, [&mut grad_scale, &mut grad_shift])
                        .write(&engine, &mut grad_input);
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
        norm.use_running(&[1.0, -2.0, 0.5], &mean, &variance);
        norm.values(&engine, 10, &input, &[0.1, 0.0, -0.2], true, None).write(&engine, &mut output);
        for (i, &y) in output.iter().enumerate() {
            let lane = i % 3;
            let factor = [1.0, -2.0, 0.5][lane] / (variance[lane] + 1e-3f32).sqrt();
            let want = ((input[i] - mean[lane]) * factor + [0.1, 0.0, -0.2][lane]).max(0.0);
            assert!((y - want).abs() < 1e-5);
        }
    }
}
