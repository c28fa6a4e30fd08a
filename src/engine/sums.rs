//! Sums across lanes: norms, counts. Sixteen virtual lanes and one fixed tree, whatever the width of the vectors.

use super::Engine;
use super::versions::{PIECE, versions};

/// Lanes of every sum across lanes.
pub(super) const LANES: usize = 16;

/// Adds the lanes by a fixed tree: `i` and `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
#[inline(always)]
pub(super) fn fold(mut lanes: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of the squares, in f64.
pub fn sum_of_squares(engine: &Engine, values: &[f32]) -> f64 {
    pieces(engine, values.len(), |start, len| squares(engine.isa(), &values[start..][..len]))
}

/// The sum of the squares of the differences, in f64.
///
/// # Panics
/// If the lengths differ.
pub fn sum_of_squared_differences(engine: &Engine, a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "the lengths of two tensors");
    pieces(engine, a.len(), |start, len| differences(engine.isa(), &a[start..][..len], &b[start..][..len]))
}

/// The sum of the products, in f64.
///
/// # Panics
/// If the lengths differ.
pub fn dot(engine: &Engine, a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "the lengths of two tensors");
    pieces(engine, a.len(), |start, len| products(engine.isa(), &a[start..][..len], &b[start..][..len]))
}

/// How many of the lanes of `[rows, lanes]` are nowhere above 0.
///
/// # Panics
/// If `values` is not made of whole rows.
pub fn zero_lanes(values: &[f32], lanes: usize) -> usize {
    assert_eq!(values.len() % lanes, 0, "rows of {lanes} values");
    let mut is_alive = vec![false; lanes];
    for row in values.chunks_exact(lanes) {
        for (alive, x) in is_alive.iter_mut().zip(row) {
            *alive |= *x > 0.0;
        }
    }
    is_alive.iter().filter(|alive| !**alive).count()
}

/// Adds `f` of each piece of 16,384 values, pieces merged neighbour by neighbour.
fn pieces(engine: &Engine, len: usize, f: impl Fn(usize, usize) -> f64 + Sync) -> f64 {
    let n_pieces = len.div_ceil(PIECE);
    if n_pieces <= 1 {
        return f(0, len);
    }
    // Eight million values without an allocation.
    let mut few = [0.0; 512];
    let mut many = Vec::new();
    let sums = match few.get_mut(..n_pieces) {
        Some(sums) => sums,
        None => {
            many.resize(n_pieces, 0.0);
            &mut many[..]
        }
    };
    engine.for_each_chunk(sums, 1, |i, sum| {
        let start = i * PIECE;
        sum[0] = f(start, PIECE.min(len - start));
    });
    tree(sums)
}

/// Adds neighbours, then neighbours of those: `(0+1)+(2+3)`; an odd one out moves up a level.
pub(super) fn tree(sums: &mut [f64]) -> f64 {
    let mut step = 1;
    while step < sums.len() {
        for left in (0..sums.len() - step).step_by(2 * step) {
            sums[left] += sums[left + step];
        }
        step *= 2;
    }
    sums.first().copied().unwrap_or(0.0)
}

versions! {
    fn squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let blocks = values.chunks_exact(LANES);
        let rest = blocks.remainder();
        for block in blocks {
            for (lane, &x) in lanes.iter_mut().zip(block) {
                let x = f64::from(x);
                *lane += x * x;
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            let x = f64::from(x);
            *lane += x * x;
        }
        fold(lanes)
    }

    fn products(a: &[f32], b: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += f64::from(a) * f64::from(b);
            }
        }
        fold(lanes)
    }

    fn differences(a: &[f32], b: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                let x = f64::from(a) - f64::from(b);
                *lane += x * x;
            }
        }
        fold(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Isa;

    #[test]
    fn norms_have_the_same_bits_everywhere() {
        for len in [0, 1, 15, 16, 17, 1000, 70_000] {
            let a: Vec<f32> = (0..len).map(|i| ((i * 37) % 101) as f32 * 0.01 - 0.3).collect();
            let b: Vec<f32> = a.iter().map(|x| x * 0.5).collect();
            let plain: f64 = a.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let first = sum_of_squares(&Engine::with_isa(1, Isa::Portable), &a);
            assert!((first - plain).abs() <= 1e-12 * plain);
            for isa in Isa::available() {
                for threads in [1, 2, 5] {
                    let engine = Engine::with_isa(threads, isa);
                    assert_eq!(sum_of_squares(&engine, &a).to_bits(), first.to_bits());
                    assert_eq!(dot(&engine, &a, &a).to_bits(), first.to_bits());
                    assert!((sum_of_squared_differences(&engine, &a, &b) - plain / 4.0).abs() <= 1e-6 * plain);
                }
            }
        }
    }
}
