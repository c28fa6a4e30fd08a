//! What batch normalisation does to the rows of a chunk, channel by channel, lane by lane.
//!
//! Blocks of lanes are walked down all rows, so that sums and constants stay in registers: rows of 32 channels are too
//! short for the compiler to see to it.

use crate::engine::versions::versions;

/// What makes `(x - mean) * factor + shift` of each channel.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) mean: &'a [f32],
    pub(super) factor: &'a [f32],
    pub(super) shift: &'a [f32],
}

/// Channels that are walked down together.
const LANES: usize = 16;

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

/// [`gradient_sums_of`], with the mask of a ReLU first.
#[inline(always)]
fn masked_gradient_sums_of<const BLOCKS: usize>(
    start: usize,
    input: &[f32],
    grad: &mut [f32],
    Affine { mean, factor, shift }: Affine<'_>,
    sum: &mut [f32],
    product: &mut [f32],
) {
    let c = mean.len();
    let block =
        |x: &[f32], b: usize| -> [f32; LANES] { x[start + b * LANES..][..LANES].try_into().expect("a slice of 16") };
    let zeros = [[0.0f32; LANES]; BLOCKS];
    let (mut sums, mut products, mut means, mut factors, mut shifts) = (zeros, zeros, zeros, zeros, zeros);
    for b in 0..BLOCKS {
        (sums[b], products[b]) = (block(sum, b), block(product, b));
        (means[b], factors[b], shifts[b]) = (block(mean, b), block(factor, b), block(shift, b));
    }
    for (row, grad) in input.chunks_exact(c).zip(grad.chunks_exact_mut(c)) {
        for b in 0..BLOCKS {
            let (x, mut g) = (block(row, b), block(grad, b));
            for i in 0..LANES {
                let d = x[i] - means[b][i];
                g[i] = if d * factors[b][i] + shifts[b][i] <= 0.0 { 0.0 } else { g[i] };
                sums[b][i] += g[i];
                products[b][i] += g[i] * d;
            }
            grad[start + b * LANES..][..LANES].copy_from_slice(&g);
        }
    }
    for b in 0..BLOCKS {
        sum[start + b * LANES..][..LANES].copy_from_slice(&sums[b]);
        product[start + b * LANES..][..LANES].copy_from_slice(&products[b]);
    }
}

/// `BLOCKS` blocks of lanes of each row, whose constants then stay in registers: rows of 32 channels are too short for
/// the compiler to do anything about it.
#[inline(always)]
fn normalise_of<const BLOCKS: usize>(
    start: usize,
    input: &[f32],
    Affine { mean, factor, shift }: Affine<'_>,
    floor: f32,
    output: &mut [f32],
) {
    let c = mean.len();
    let block =
        |x: &[f32], b: usize| -> [f32; LANES] { x[start + b * LANES..][..LANES].try_into().expect("a slice of 16") };
    let zeros = [[0.0f32; LANES]; BLOCKS];
    let (mut means, mut factors, mut shifts) = (zeros, zeros, zeros);
    for b in 0..BLOCKS {
        (means[b], factors[b], shifts[b]) = (block(mean, b), block(factor, b), block(shift, b));
    }
    for (row, out) in input.chunks_exact(c).zip(output.chunks_exact_mut(c)) {
        for b in 0..BLOCKS {
            let mut x = block(row, b);
            for i in 0..LANES {
                let y = (x[i] - means[b][i]) * factors[b][i] + shifts[b][i];
                x[i] = if y < floor { floor } else { y };
            }
            out[start + b * LANES..][..LANES].copy_from_slice(&x);
        }
    }
}

/// Likewise for `g = factor * g + (x - mean) * slope + summand`.
#[inline(always)]
fn gradient_of<const BLOCKS: usize>(
    start: usize,
    input: &[f32],
    mean: &[f32],
    factor: &[f32],
    slope: &[f32],
    summand: &[f32],
    grad: &mut [f32],
) {
    let c = mean.len();
    let block =
        |x: &[f32], b: usize| -> [f32; LANES] { x[start + b * LANES..][..LANES].try_into().expect("a slice of 16") };
    let zeros = [[0.0f32; LANES]; BLOCKS];
    let (mut means, mut factors, mut slopes, mut summands) = (zeros, zeros, zeros, zeros);
    for b in 0..BLOCKS {
        (means[b], factors[b]) = (block(mean, b), block(factor, b));
        (slopes[b], summands[b]) = (block(slope, b), block(summand, b));
    }
    for (row, grad) in input.chunks_exact(c).zip(grad.chunks_exact_mut(c)) {
        for b in 0..BLOCKS {
            let (x, mut g) = (block(row, b), block(grad, b));
            for i in 0..LANES {
                g[i] = factors[b][i] * g[i] + ((x[i] - means[b][i]) * slopes[b][i] + summands[b][i]);
            }
            grad[start + b * LANES..][..LANES].copy_from_slice(&g);
        }
    }
}

versions! {
    /// Mean and sum of squared differences of each column of `[rows, channels]`.
    pub(super) fn moments(input: &[f32], mean: &mut [f32], m2: &mut [f32]) {
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

    /// `(x - mean) * factor + shift`, and a ReLU if asked for.
    pub(super) fn normalise(
        input: &[f32],
        by: Affine<'_>,
        relu: bool,
        output: &mut [f32],
    ) {
        let Affine { mean, .. } = by;
        let c = mean.len();
        let (factor, shift) = (&by.factor[..c], &by.shift[..c]);
        let by = Affine { mean, factor, shift };
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        let mut start = 0;
        while start + 4 * LANES <= c {
            normalise_of::<4>(start, input, by, floor, output);
            start += 4 * LANES;
        }
        while start + 2 * LANES <= c {
            normalise_of::<2>(start, input, by, floor, output);
            start += 2 * LANES;
        }
        while start + LANES <= c {
            normalise_of::<1>(start, input, by, floor, output);
            start += LANES;
        }
        if start == c {
            return;
        }
        for (row, out) in input.chunks_exact(c).zip(output.chunks_exact_mut(c)) {
            for i in start..c {
                let y = (row[i] - mean[i]) * factor[i] + shift[i];
                out[i] = if y < floor { floor } else { y };
            }
        }
    }

    /// Adds `g` and `g * (x - mean)` of each column to sums.
    pub(super) fn gradient_sums(input: &[f32], grad: &[f32], mean: &[f32], sum: &mut [f32], product: &mut [f32]) {
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

    /// Sets `g` to 0 where what a ReLU was given is at most 0, then as `gradient_sums`.
    pub(super) fn masked_gradient_sums(
        input: &[f32],
        grad: &mut [f32],
        by: Affine<'_>,
        sum: &mut [f32],
        product: &mut [f32],
    ) {
        let Affine { mean, .. } = by;
        let c = mean.len();
        let (factor, shift) = (&by.factor[..c], &by.shift[..c]);
        let by = Affine { mean, factor, shift };
        let mut start = 0;
        while start + 2 * LANES <= c {
            masked_gradient_sums_of::<2>(start, input, grad, by, sum, product);
            start += 2 * LANES;
        }
        while start + LANES <= c {
            masked_gradient_sums_of::<1>(start, input, grad, by, sum, product);
            start += LANES;
        }
        for (row, grad) in input.chunks_exact(c).zip(grad.chunks_exact_mut(c)) {
            for i in start..c {
                let d = row[i] - mean[i];
                let g = if d * factor[i] + shift[i] <= 0.0 { 0.0 } else { grad[i] };
                grad[i] = g;
                sum[i] += g;
                product[i] += g * d;
            }
        }
    }

    /// `g = factor * g + (x - mean) * slope + summand`, in place.
    pub(super) fn gradient(
        input: &[f32],
        mean: &[f32],
        factor: &[f32],
        slope: &[f32],
        summand: &[f32],
        grad: &mut [f32],
    ) {
        let c = mean.len();
        let (factor, slope, summand) = (&factor[..c], &slope[..c], &summand[..c]);
        let mut start = 0;
        while start + 2 * LANES <= c {
            gradient_of::<2>(start, input, mean, factor, slope, summand, grad);
            start += 2 * LANES;
        }
        while start + LANES <= c {
            gradient_of::<1>(start, input, mean, factor, slope, summand, grad);
            start += LANES;
        }
        if start == c {
            return;
        }
        for (row, grad) in input.chunks_exact(c).zip(grad.chunks_exact_mut(c)) {
            for i in start..c {
                grad[i] = factor[i] * grad[i] + ((row[i] - mean[i]) * slope[i] + summand[i]);
            }
        }
    }
}
