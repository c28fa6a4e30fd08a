//! A product with a matrix most of whose values are zero.

use super::Engine;
use super::threads::Shares;
use super::versions::versions;

/// A matrix `[k, n]`, column by column, without its zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseMatrix {
    k: usize,
    /// Where each column starts among `entries`, and at the end their number.
    starts: Vec<usize>,
    /// Row and value.
    entries: Vec<(u32, f32)>,
}

impl SparseMatrix {
    /// The values of `dense` (`[k, n]`) that are not zero, if they are less than an eighth of it: from there on a dense
    /// product is faster.
    ///
    /// # Panics
    /// If `dense` has another length.
    pub fn new(k: usize, n: usize, dense: &[f32]) -> Option<SparseMatrix> {
        assert_eq!(dense.len(), k * n, "values of a {k} x {n} matrix");
        let n_values = dense.iter().filter(|&&value| value != 0.0).count();
        if n_values * 8 >= dense.len() {
            return None;
        }
        // Row by row, as it lies in memory: first how many there are in each column, then the values.
        let mut starts = vec![0; n + 1];
        let values = || dense.iter().enumerate().filter(|(_, value)| **value != 0.0);
        values().for_each(|(at, _)| starts[at % n + 1] += 1);
        (0..n).for_each(|column| starts[column + 1] += starts[column]);
        let (mut next, mut entries) = (starts.clone(), vec![(0, 0.0); n_values]);
        for (at, &value) in values() {
            let (row, column) = (at / n, at % n);
            entries[next[column]] = (row as u32, value);
            next[column] += 1;
        }
        Some(SparseMatrix { k, starts, entries })
    }
}

/// Samples that are worked on together: their values lie side by side.
const SIDE: usize = 64;

/// `c = a b`. Chain of each value: `k` ascending over the values of `b` that are not zero, from `+0.0`: for finite `a`
/// the numbers of [`super::matmul`].
///
/// # Shapes
/// - `a`: `[m, k]`
/// - `c`: `[m, n]`, overwritten
///
/// # Panics
/// If a slice is too short.
pub fn sparse_matmul(engine: &Engine, m: usize, a: &[f32], b: &SparseMatrix, c: &mut [f32]) {
    let (k, n) = (b.k, b.starts.len() - 1);
    assert!(a.len() >= m * k && c.len() >= m * n, "an operand is too short");
    let (kernels, isa) = (engine.kernels(), engine.isa());
    let c = Shares(c.as_mut_ptr());
    engine.parallel_for(m.div_ceil(SIDE), |blocks, _| {
        let (mut x, mut y) = (vec![0.0; k * SIDE], vec![0.0; n * SIDE]);
        for first in blocks.map(|block| block * SIDE) {
            let rows = SIDE.min(m - first);
            // SAFETY: `rows` rows of `k` values become `k` rows of `SIDE`.
            unsafe { (kernels.transpose)(a[first * k..].as_ptr(), k, rows, k, x.as_mut_ptr(), SIDE) };
            columns(isa, &b.starts, &b.entries, &x, &mut y);
            // SAFETY: `n` rows of `SIDE` values become `rows` rows of `n`, which are this worker's own.
            unsafe { (kernels.transpose)(y.as_ptr(), SIDE, n, rows, c.get().add(first * n), n) };
        }
    });
}

versions! {
    /// `y[j] = Σ x[row] value` over the entries of column `j`, for `SIDE` samples.
    fn columns(starts: &[usize], entries: &[(u32, f32)], x: &[f32], y: &mut [f32]) {
        let x = x.as_chunks::<SIDE>().0;
        for (y, ends) in y.as_chunks_mut::<SIDE>().0.iter_mut().zip(starts.windows(2)) {
            let mut sums = [0.0; SIDE];
            for &(row, value) in &entries[ends[0]..ends[1]] {
                for (sum, x) in sums.iter_mut().zip(&x[row as usize]) {
                    *sum = x.mul_add(value, *sum);
                }
            }
            *y = sums;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, reference};
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn a_sparse_product_is_the_dense_one_on_every_instruction_set_and_number_of_threads() {
        for (m, k, n, one_in) in [(1, 5, 3, 9), (64, 40, 17, 12), (131, 77, 20, 30), (3, 9, 4, u32::MAX)] {
            let (mut a, mut b) = (vec![0.0; m * k], vec![0.0; k * n]);
            Stream::new(1, "a", &[]).fill_normal32(0, &mut a);
            Stream::new(1, "b", &[]).fill_normal32(0, &mut b);
            let mut words = vec![0; b.len()];
            Stream::new(1, "zeros", &[]).words(0, &mut words);
            b.iter_mut().zip(&words).filter(|(_, word)| **word % one_in != 0).for_each(|(b, _)| *b = 0.0);
            let sparse = SparseMatrix::new(k, n, &b).expect("few values");
            let mut want = vec![f32::NAN; m * n];
            reference::matmul(m, k, n, &a, &b, &mut want);
            for isa in Isa::available() {
                for threads in [1, 2, 5] {
                    let mut got = vec![f32::NAN; m * n];
                    sparse_matmul(&Engine::with_isa(threads, isa), m, &a, &sparse, &mut got);
                    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert!(bits(&got) == bits(&want), "{isa}, {threads} threads, {m} x {k} x {n}");
                }
            }
        }
        assert_eq!(SparseMatrix::new(2, 2, &[1.0, 0.0, 0.0, 2.0]), None, "half of it is no sparse matrix");
    }
}
