//! Products of matrices, and of a matrix with itself.

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
