//! Dense layers and matrix products.
//!
//! Nothing is packed that is read only once: the weights of a dense layer are larger than its samples, and a copy would
//! cost as much as the product. Going forward the tiles read the weights where they are. On the way back the weights
//! are the tiles' rows and the samples their lanes, so that the transposed product needs no transposed weights; the
//! small result is transposed instead.

use std::ops::Range;

use super::ahead::{Ahead, Fetch, prefetch};
use super::buffer::Buffer;
use super::conv::gradient::{Gradient, Summands};
use super::fused::Source;
use super::kernel::{Finish, MAX_MR, ProductTile, Run, UNROLL};
use super::threads::{Shares, part};
use super::{Activation, ConvShape, Engine};

/// A dense layer: every unit sees every input.
pub struct Dense {
    engine: Engine,
    batch: usize,
    inputs: usize,
    units: usize,
    product: Product,
    back: Option<Buffer>,
    gradient: Option<Gradient>,
}

impl Dense {
    /// Plans a dense layer for at most `batch` samples.
    ///
    /// # Panics
    /// If an axis is zero.
    pub fn new(engine: &Engine, batch: usize, inputs: usize, units: usize) -> Dense {
        assert!(batch > 0 && inputs > 0 && units > 0, "an axis is zero: {batch} x {inputs} x {units}");
        let product = Product::new(engine, inputs, units);
        Dense { engine: engine.clone(), batch, inputs, units, product, back: None, gradient: None }
    }

    /// Bytes that training takes beside the operands.
    pub fn training_bytes(&mut self) -> usize {
        let (engine, shape) = (&self.engine, ConvShape::valid(self.batch, 1, 1, self.inputs, self.units, 1));
        let gradient = self.gradient.get_or_insert_with(|| Gradient::new(engine, &shape, false));
        4 * (self.product.panels.len() + self.batch.next_multiple_of(32) * self.units + gradient.len())
    }

    /// `output = input weights + bias`, then the activation. Chain of each value: inputs ascending.
    ///
    /// # Shapes
    /// - `input`: `[n, inputs]`
    /// - `weights`: `[inputs, units]`
    /// - `bias`: `[units]`
    /// - `output`: `[n, units]`
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the batch.
    pub fn forward(
        &mut self,
        n: usize,
        input: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        output: &mut [f32],
    ) {
        assert!(n <= self.batch, "{n} samples for a batch of {}", self.batch);
        assert!(bias.is_none_or(|b| b.len() >= self.units), "too few values in the bias");
        let finish = Finish::new(bias, activation);
        self.product.run(&self.engine, n, input, weights, finish, output);
    }

    /// `grad_input = grad_output weightsᵀ`; 0 where `relu_mask` (the layer's input) is at most 0. Chain of each value:
    /// units ascending.
    ///
    /// # Shapes
    /// - `grad_output`: `[n, units]`
    /// - `weights`: `[inputs, units]`
    /// - `relu_mask`, `grad_input`: `[n, inputs]`
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the batch.
    pub fn backward_data(
        &mut self,
        n: usize,
        grad_output: &[f32],
        weights: &[f32],
        relu_mask: Option<&[f32]>,
        grad_input: &mut [f32],
    ) {
        let (inputs, units, batch) = (self.inputs, self.units, self.batch);
        assert!(n <= batch, "{n} samples for a batch of {batch}");
        assert!(grad_output.len() >= n * units && weights.len() >= inputs * units, "an operand is too short");
        assert!(grad_input.len() >= n * inputs, "the input gradient is too short");
        assert!(relu_mask.is_none_or(|m| m.len() >= n * inputs), "the mask is too short");
        let (kernels, capacity) = (self.engine.kernels(), self.engine.capacity());
        let engine = self.engine.sized((n * inputs * units) as u64);
        // Samples in lanes: gradients are packed as [unit][sample], in panels of `wide` samples.
        let nr = self.engine.choice().nr.min(kernels.mr.len());
        let wide = nr * kernels.lanes;
        let (panel_len, block_len) = (units * wide, BLOCK * wide);
        let n_panels = batch.div_ceil(wide);
        let scratch = self.back.get_or_insert_with(|| Buffer::zeros(n_panels * panel_len + capacity * block_len));
        let (packed, blocks) = scratch.split_at_mut(n_panels * panel_len);
        for (panel, first) in packed.chunks_mut(panel_len).zip((0..n).step_by(wide)) {
            let samples = wide.min(n - first);
            let from = grad_output[first * units..].as_ptr();
            // SAFETY: `samples` rows of `units` values become `units` rows of at most `wide` values.
            unsafe { (kernels.transpose)(from, units, samples, units, panel.as_mut_ptr(), wide) };
        }
        let (packed, blocks, target) = (&*packed, Shares(blocks.as_mut_ptr()), Shares(grad_input.as_mut_ptr()));
        let finish = Finish::NONE;
        let run = Run { x: 0, row: 0, len: units };
        engine.parallel_for(inputs.div_ceil(BLOCK), |range, worker| {
            let block = blocks.get().wrapping_add(worker * block_len);
            for i in range {
                let rows = i * BLOCK..((i + 1) * BLOCK).min(inputs);
                // What the next block reads and writes: its weights tile by tile, and a short piece of each sample.
                let next = rows.end..(rows.end + BLOCK).min(inputs);
                let next_weights = (weights[next.start * units..].as_ptr(), next.len() * units);
                let mut ahead = Ahead::new([next_weights], rows.len().div_ceil(kernels.mr[nr - 1]) * n.div_ceil(wide));
                for sample in 0..n {
                    let at = sample * inputs + next.start;
                    prefetch(target.get().wrapping_add(at), next.len());
                    if let Some(mask) = relu_mask {
                        prefetch(mask.as_ptr().wrapping_add(at), next.len());
                    }
                }
                for (panel, first) in packed.chunks(panel_len).zip((0..n).step_by(wide)) {
                    let samples = wide.min(n - first);
                    let used = samples.div_ceil(kernels.lanes);
                    let mr = kernels.mr[used - 1];
                    let n_tiles = rows.len().div_ceil(mr);
                    let mut tile = ProductTile {
                        runs: &run,
                        n_runs: 1,
                        panel: panel.as_ptr(),
                        panel_row: wide,
                        columns: samples,
                        resumes: false,
                        finish: Some(finish),
                        fetch: Fetch::NOTHING,
                        x: [std::ptr::null(); MAX_MR],
                        y: [std::ptr::null_mut(); MAX_MR],
                    };
                    for t in 0..n_tiles {
                        let own = part(rows.len(), n_tiles, t);
                        for (j, row) in own.clone().enumerate() {
                            tile.x[j] = weights[(rows.start + row) * units..].as_ptr();
                            tile.y[j] = block.wrapping_add(row * wide);
                        }
                        tile.fetch = ahead.next(1, units / UNROLL);
                        // SAFETY: rows of weights are `units` long; the block is this worker's own.
                        unsafe { kernels.product[used - 1][own.len() - 1](&tile) };
                    }
                    let at = first * inputs + rows.start;
                    // SAFETY: the rows of inputs of this block, of these samples, are written by this worker only.
                    unsafe {
                        let to = target.get().add(at);
                        (kernels.transpose)(block, wide, rows.len(), samples, to, inputs);
                        if let Some(mask) = relu_mask {
                            for sample in 0..samples {
                                let mask = mask[at + sample * inputs..].as_ptr();
                                (kernels.clip)(to.add(sample * inputs), mask, rows.len());
                            }
                        }
                    }
                }
            }
        });
    }

    /// `grad_weights = inputᵀ grad_output` and `grad_bias`, its column sums, over the `n` samples; overwrites both.
    ///
    /// # Shapes
    /// - `input`: `[n, inputs]`
    /// - `grad_output`: `[n, units]`
    /// - `grad_weights`: `[inputs, units]`
    /// - `grad_bias`: `[units]`
    ///
    /// # Determinism
    /// As for [`super::Conv::backward_weights`].
    ///
    /// # Panics
    /// If a slice is too short, or `n` is above the batch.
    pub fn backward_weights(
        &mut self,
        n: usize,
        input: &[f32],
        grad_output: &[f32],
        grad_weights: &mut [f32],
        grad_bias: Option<&mut [f32]>,
    ) {
        let (engine, shape) = (&self.engine, ConvShape::valid(self.batch, 1, 1, self.inputs, self.units, 1));
        let plan = self.gradient.get_or_insert_with(|| Gradient::new(engine, &shape, false));
        let summands = Summands { n, input, grad_output: Source::given(grad_output), taps: None };
        plan.run(engine, summands, grad_weights, grad_bias);
    }
}

/// Inputs whose gradients are kept as [input][sample] before they are transposed: eight tiles of 14, in the L1 cache.
const BLOCK: usize = 112;

/// Steps of the chains between stores. A panel of 512 steps and 32 columns is 64 KiB.
pub(super) const STEPS: usize = 512;

/// From so many rows on, the matrix on the right is copied into panels: below that, it is read too few times.
const PACKED_ROWS: usize = 128;

/// From so many rows for each thread on, these are shared out and not the columns: all threads fetch ahead the whole
/// matrix on the right in any case. (3136 -> 128 of 64 samples on 2 threads: 0.193 ms by columns, 0.184 by rows.)
const SHARED_ROWS: usize = 32;

/// Plan and scratch of a product of matrices.
pub(super) struct Product {
    depth: usize,
    columns: usize,
    /// A panel of each worker.
    panels: Buffer,
}

/// What one product is of.
struct Operands<'a> {
    a: &'a [f32],
    b: &'a [f32],
    finish: Finish,
    c: *mut f32,
    /// Columns of a panel.
    wide: usize,
}

impl Product {
    fn new(engine: &Engine, depth: usize, columns: usize) -> Product {
        let kernels = engine.kernels();
        let steps = engine.choice().steps.unwrap_or(STEPS).min(depth);
        Product { depth, columns, panels: Buffer::zeros(engine.capacity() * steps * kernels.mr.len() * kernels.lanes) }
    }

    fn run(&mut self, engine: &Engine, n: usize, a: &[f32], b: &[f32], finish: Finish, c: &mut [f32]) {
        let (depth, columns) = (self.depth, self.columns);
        assert!(a.len() >= n * depth && b.len() >= depth * columns, "an operand is too short");
        assert!(c.len() >= n * columns, "the target is too short");
        let panel_len = self.panels.len() / engine.capacity();
        let engine = &engine.sized((n * depth * columns) as u64);
        let (kernels, threads) = (engine.kernels(), engine.threads());
        let wide = engine.choice().nr.min(kernels.mr.len()) * kernels.lanes;
        let n_panels = columns.div_ceil(wide);
        // Rows are shared out if there are enough, else columns if there are, so that less of `b` is read twice.
        let by_row = n >= SHARED_ROWS * threads || n_panels < threads;
        let (panels, c) = (Shares(self.panels.as_mut_ptr()), Shares(c.as_mut_ptr()));
        engine.parallel_for(if by_row { n } else { n_panels }, |range, worker| {
            let (rows, columns) = if by_row { (range, 0..n_panels) } else { (0..n, range) };
            let panel = panels.get().wrapping_add(worker * panel_len);
            // SAFETY: these rows and columns of the target, and this panel, are the worker's own.
            unsafe { self.part(engine, &Operands { a, b, finish, c: c.get(), wide }, rows, columns, panel) };
        });
    }

    /// Some rows of some panels of columns.
    ///
    /// # Safety
    /// Those of the target, and what `packed` has room for, are nobody else's.
    unsafe fn part(
        &self,
        engine: &Engine,
        &Operands { a, b, finish, c, wide }: &Operands<'_>,
        rows: Range<usize>,
        panels: Range<usize>,
        packed: *mut f32,
    ) {
        let (depth, columns, kernels) = (self.depth, self.columns, engine.kernels());
        let steps = engine.choice().steps.unwrap_or(STEPS).min(depth);
        for first in (0..depth).step_by(steps) {
            let run = Run { x: 0, row: 0, len: steps.min(depth - first) };
            let (next, n_tiles) = (first + run.len, rows.len().div_ceil(kernels.mr[kernels.mr.len() - 1]));
            let len = steps.min(depth - next) * columns;
            let mut ahead = Ahead::new([(b.as_ptr().wrapping_add(next * columns), len)], n_tiles * panels.len());
            for panel in panels.clone() {
                let column = panel * wide;
                let n_columns = wide.min(columns - column);
                let nr = n_columns.div_ceil(kernels.lanes);
                let mr = kernels.mr[nr - 1];
                let from = b.as_ptr().wrapping_add(first * columns + column);
                let (panel, panel_row) = if rows.len() >= PACKED_ROWS || !n_columns.is_multiple_of(kernels.lanes) {
                    let row = nr * kernels.lanes;
                    // SAFETY: `packed` has room for so many steps; the block lies within `b`.
                    unsafe { (kernels.pack)(from, columns, run.len, n_columns, packed, row) };
                    (packed.cast_const(), row)
                } else {
                    (from, columns)
                };
                let mut tile = ProductTile {
                    runs: &run,
                    n_runs: 1,
                    panel,
                    panel_row,
                    columns: n_columns,
                    resumes: first > 0,
                    finish: (first + run.len == depth)
                        .then_some(Finish { bias: finish.bias.wrapping_add(column), ..finish }),
                    fetch: Fetch::NOTHING,
                    x: [std::ptr::null(); MAX_MR],
                    y: [std::ptr::null_mut(); MAX_MR],
                };
                if finish.bias.is_null()
                    && let Some(finish) = &mut tile.finish
                {
                    finish.bias = std::ptr::null();
                }
                let n_tiles = rows.len().div_ceil(mr);
                for t in 0..n_tiles {
                    let own = part(rows.len(), n_tiles, t);
                    for (j, row) in own.clone().enumerate() {
                        tile.x[j] = a.as_ptr().wrapping_add((rows.start + row) * depth + first);
                        tile.y[j] = c.wrapping_add((rows.start + row) * columns + column);
                    }
                    tile.fetch = ahead.next(1, run.len / UNROLL);
                    // SAFETY: rows of `a` are `depth` long; the rows and columns of `c` are ours.
                    unsafe { kernels.product[nr - 1][own.len() - 1](&tile) };
                }
            }
        }
    }
}

/// `c = a b`. Chain of each value: `k` ascending, from `+0.0`.
///
/// # Shapes
/// - `a`: `[m, k]`
/// - `b`: `[k, n]`
/// - `c`: `[m, n]`, overwritten
///
/// # Panics
/// If a slice is too short.
pub fn matmul(engine: &Engine, m: usize, k: usize, n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    if k == 0 || n == 0 {
        return c[..m * n].fill(0.0);
    }
    let finish = Finish::NONE;
    Product::new(engine, k, n).run(engine, m, a, b, finish, c);
}
