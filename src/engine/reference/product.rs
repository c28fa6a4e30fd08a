//! Products of matrices, and of a matrix with itself.

use ndarray::ArrayViewMut2;

use super::chain::{view, view_mut};

/// `c = a b` for `a` of `[m, k]`, `b` of `[k, n]`, `c` of `[m, n]`. Chain of each value: `k` ascending.
pub fn matmul(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let (a, b) = (view((m, k), a), view((k, n), b));
    for ((i, j), value) in view_mut((m, n), c).indexed_iter_mut() {
        *value = (0..k).fold(0.0f32, |sum, l| a[[i, l]].mul_add(b[[l, j]], sum));
    }
}

/// `g = xᵀ x` over the rows of `x`, `[n_samples, n_features]`, less `centre` (rounded to f32): f32 chains inside chunks
/// of [`GRAM_CHUNK`] samples, the chunks' sums merged in f64, in order.
pub fn gram(n_samples: usize, n_features: usize, x: &[f32], centre: Option<&[f32]>, g: &mut [f64]) {
    let x = view((n_samples, n_features), x);
    let at = |row: usize, i: usize| x[[row, i]] - centre.map_or(0.0, |c| c[i]);
    let mut g = ArrayViewMut2::from_shape((n_features, n_features), g).expect("as many values as the matrix has");
    for ((i, j), value) in g.indexed_iter_mut() {
        let (i, j) = (i.min(j), i.max(j));
        let chunks = (0..n_samples).step_by(GRAM_CHUNK).map(|start| start..(start + GRAM_CHUNK).min(n_samples));
        *value = chunks.fold(0.0f64, |total, rows| {
            total + f64::from(rows.fold(0.0f32, |sum, row| at(row, i).mul_add(at(row, j), sum)))
        });
    }
}

/// Samples in each f32 chain of [`gram`]: long enough that the f64 merge costs nothing, short enough that a chain's
/// error stays near one unit in the last place.
pub const GRAM_CHUNK: usize = 512;
