//! A matrix that many samples are multiplied by: packed once, by samples that are loaded a few at a time.

use std::ops::Range;

use super::Engine;
use super::ahead::Fetch;
use super::buffer::Buffer;
use super::dense::STEPS;
use super::kernel::{Finish, MAX_MR, ProductTile, Run};
use super::sparse::{SparseMatrix, sparse_matmul};
use super::threads::{Shares, part};

/// The matrix `b` on the right of products, `[k, n]`.
pub struct Matrix {
    engine: Engine,
    k: usize,
    n: usize,
    form: Form,
}

enum Form {
    /// Panels of `wide` columns, the last one of as many vectors as it needs: `[panel][k][columns]`.
    Dense {
        panels: Buffer,
        wide: usize,
    },
    Sparse(SparseMatrix),
}

/// The least number of samples that are loaded at once.
const LEAST_ROWS: usize = 64;

impl Matrix {
    /// Packs `values`, `[k, n]`; if few of them are not zero, without its zeros.
    ///
    /// # Panics
    /// If `values` has another length, or an axis is zero.
    pub fn new(engine: &Engine, k: usize, n: usize, values: &[f32]) -> Matrix {
        assert!(k > 0 && n > 0, "an axis is zero: {k} x {n}");
        let form = SparseMatrix::new(k, n, values).map_or_else(|| Form::dense(engine, k, n, values), Form::Sparse);
        Matrix { engine: engine.clone(), k, n, form }
    }

    /// `c = a b`; `load(rows, to)` fills some rows of `a`. Chain of each value: `k` ascending, from `+0.0` (a sparse
    /// matrix leaves out its zeros: for finite `a` the same numbers).
    ///
    /// # Shapes
    /// - `to`: `[rows.len(), k]`
    /// - `c`: `[m, n]`, overwritten
    ///
    /// # Panics
    /// If `c` has another length.
    pub fn product(&self, m: usize, load: impl Fn(Range<usize>, &mut [f32]) + Sync, c: &mut [f32]) {
        let (k, n) = (self.k, self.n);
        assert_eq!(c.len(), m * n, "values of {m} rows of {n}");
        // A quarter of the second-level cache, so that what was loaded is still there when it is multiplied, beside the
        // matrix: 60,000 x 784 bytes to 128 on 1 thread, 0.111 s where 2,048 rows were loaded at once, 0.092 s so (from
        // 84 to 504 rows the same within 4 %, as from 64 to 512 steps of the chains).
        let rows = (self.engine.caches().l2 / 4 / (k * size_of::<f32>())).max(LEAST_ROWS).next_multiple_of(LEAST_ROWS);
        let c = Shares(c.as_mut_ptr());
        self.engine.parallel_for(m, |range, _| {
            let mut a = Buffer::zeros(rows.min(range.len()) * k);
            for first in range.clone().step_by(rows) {
                let own = first..range.end.min(first + rows);
                let a = &mut a[..own.len() * k];
                load(own.clone(), a);
                // SAFETY: these rows of `c` are this worker's own.
                let c = unsafe { c.slice(first * n, own.len() * n) };
                match &self.form {
                    // A call from inside another one works on this thread.
                    Form::Sparse(b) => sparse_matmul(&self.engine, own.len(), a, b, c),
                    Form::Dense { panels, wide } => self.dense(panels, *wide, own.len(), a, c),
                }
            }
        });
    }

    fn dense(&self, panels: &[f32], wide: usize, m: usize, a: &[f32], c: &mut [f32]) {
        let (kernels, k, n) = (self.engine.kernels(), self.k, self.n);
        assert!(a.len() >= m * k && c.len() >= m * n, "an operand is too short");
        let c = c.as_mut_ptr();
        let steps = self.engine.choice().steps.unwrap_or(STEPS).min(k);
        for first in (0..k).step_by(steps) {
            let run = Run { x: 0, row: 0, len: steps.min(k - first) };
            for column in (0..n).step_by(wide) {
                let n_columns = wide.min(n - column);
                let nr = n_columns.div_ceil(kernels.lanes);
                let panel_row = nr * kernels.lanes;
                let finish = Finish::NONE;
                let mut tile = ProductTile {
                    runs: &run,
                    n_runs: 1,
                    panel: panels[column * k + first * panel_row..].as_ptr(),
                    panel_row,
                    columns: n_columns,
                    resumes: first > 0,
                    finish: (first + run.len == k).then_some(finish),
                    fetch: Fetch::NOTHING,
                    x: [std::ptr::null(); MAX_MR],
                    y: [std::ptr::null_mut(); MAX_MR],
                };
                let n_tiles = m.div_ceil(kernels.mr[nr - 1]);
                for t in 0..n_tiles {
                    let own = part(m, n_tiles, t);
                    for (j, row) in own.clone().enumerate() {
                        tile.x[j] = a[row * k + first..].as_ptr();
                        tile.y[j] = c.wrapping_add(row * n + column);
                    }
                    // SAFETY: rows of `a` are `k` long, those of `c` have `n_columns` values from `column` on; the
                    // panel has `k` rows.
                    unsafe { kernels.product[nr - 1][own.len() - 1](&tile) };
                }
            }
        }
    }
}

impl Form {
    fn dense(engine: &Engine, k: usize, n: usize, values: &[f32]) -> Form {
        let kernels = engine.kernels();
        let wide = engine.choice().nr.min(kernels.mr.len()) * kernels.lanes;
        let mut panels = Buffer::zeros(k * n.next_multiple_of(kernels.lanes));
        for column in (0..n).step_by(wide) {
            let n_columns = wide.min(n - column);
            let row = n_columns.next_multiple_of(kernels.lanes);
            let (from, to) = (values[column..].as_ptr(), panels[column * k..][..k * row].as_mut_ptr());
            // SAFETY: `k` rows of `n_columns` values lie within `values`; the panel has room for `k` of `row`.
            unsafe { (kernels.pack)(from, n, k, n_columns, to, row) };
        }
        Form::Dense { panels, wide }
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matrix").field("k", &self.k).field("n", &self.n).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, reference};
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn a_product_with_a_packed_matrix_has_the_bits_of_the_definition() {
        for (m, k, n, one_in) in
            [(1, 1, 1, 1), (64, 40, 17, 12), (331, 77, 20, 30), (130, 700, 37, 1), (3, 1030, 64, 1)]
        {
            let (mut a, mut b) = (vec![0.0; m * k], vec![0.0; k * n]);
            Stream::new(1, "a", &[]).fill_normal32(0, &mut a);
            Stream::new(1, "b", &[]).fill_normal32(0, &mut b);
            b.iter_mut().enumerate().filter(|(i, _)| i % one_in != 0).for_each(|(_, b)| *b = 0.0);
            let mut want = vec![f32::NAN; m * n];
            reference::matmul(m, k, n, &a, &b, &mut want);
            for isa in Isa::available() {
                for threads in [1, 2, 5] {
                    let matrix = Matrix::new(&Engine::with_isa(threads, isa), k, n, &b);
                    assert_eq!(matches!(matrix.form, Form::Sparse(_)), one_in > 8);
                    let mut got = vec![f32::NAN; m * n];
                    let load =
                        |rows: Range<usize>, to: &mut [f32]| to.copy_from_slice(&a[rows.start * k..rows.end * k]);
                    matrix.product(m, load, &mut got);
                    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert!(bits(&got) == bits(&want), "{isa}, {threads} threads, {m} x {k} x {n}");
                }
            }
        }
    }
}
