//! Eigenvalues and eigenvectors of symmetric matrices, in double precision, the same bits on every machine.
//!
//! Householder tridiagonalisation, then implicit QL with Wilkinson's shift (Martin, Reinsch and Wilkinson 1968;
//! Dubrulle, Martin and Wilkinson 1968, both in the *Handbook for Automatic Computation*). Each step of the first needs
//! one pass over what is left of the matrix: the rank-2 update of the step before and the product with the new
//! reflector are done row by row, together. Where few vectors are kept, QL only finds the values, and inverse iteration
//! the vectors (Peters and Wilkinson 1979), each made orthogonal to those of values close by; where many are, the
//! rotations of QL are written down and applied later, many at a time, to a strip of columns that stays in a cache.
//! Rows and strips are independent, so that threads cannot show in a bit.

use crate::engine::Engine;
use crate::engine::symmetric::{self, ROWS, Rotation, STRIP, dot};
use crate::rng::Stream;

/// Rotations that are collected before they are applied.
const MAX_ROTATIONS: usize = 1 << 15;
/// Values of a trailing matrix above which its rows are shared out between threads.
const LEAST_SHARED: usize = 1 << 14;
/// QL needs one or two turns for an eigenvalue; it is proven to converge, so this only stops what is not finite.
const MAX_TURNS: usize = 200;
/// Vectors are few where there are at most this part of all: orthogonalising is quadratic in their number.
const FEW: usize = 8;
/// Matrices below this size have all their vectors computed.
const LEAST_FOR_FEW: usize = 64;
/// Turns of inverse iteration: the second one is already as exact as the values are, where those are apart.
const N_INVERSE: usize = 4;
/// Values closer than this, in units of the largest, share a space whose axes have to be made orthogonal (LAPACK's
/// `dstein` has the same number).
const CLOSE: f64 = 1e-3;
/// A squared length below this is 0: the matrix is scaled to at most 1, so that it is far below its rounding.
const TINY: f64 = 1e-290;

/// The largest eigenvalues of a matrix and their eigenvectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// All eigenvalues, descending.
    pub values: Vec<f64>,
    /// The first few eigenvectors, each of length 1, as rows: `[n_kept, n]`. The entry of largest magnitude (the first
    /// of equals) is positive.
    pub vectors: Vec<f64>,
}

/// Why a matrix has no eigenvalues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EigenError {
    /// It holds a value that is not finite.
    NotFinite,
    /// The search was told to stop.
    Stopped,
}

/// The eigenvalues of the symmetric `matrix`, `[n, n]`, and the eigenvectors of the first `n_kept(values)` of them, of
/// which `n_expected` are thought to be wanted: that only spares work. Asks `is_stopped` several times a second.
///
/// # Errors
/// If a value is not finite, or it was told to stop.
pub fn symmetric_eigen(
    engine: &Engine,
    n: usize,
    mut matrix: Vec<f64>,
    n_expected: usize,
    n_kept: impl FnOnce(&[f64]) -> usize,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Eigen, EigenError> {
    assert_eq!(matrix.len(), n * n, "a matrix of {n} rows and columns");
    let largest = matrix.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    if matrix.iter().any(|x| !x.is_finite()) {
        return Err(EigenError::NotFinite);
    }
    let scale = if largest < f64::MIN_POSITIVE { 1.0 } else { largest };
    matrix.iter_mut().for_each(|x| *x /= scale);
    let tridiagonal = tridiagonalise(engine, n, &mut matrix, is_stopped)?;
    let is_few = |n_vectors: usize| n >= LEAST_FOR_FEW && n_vectors * FEW <= n;
    let mut strips = (!is_few(n_expected)).then(|| Strips::identity(n));
    let mut diagonal = diagonalised(engine, &tridiagonal, strips.as_mut(), is_stopped)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    let values: Vec<f64> = order.iter().map(|&i| diagonal[i] * scale).collect();
    let n_kept = n_kept(&values).min(n);
    let mut vectors = vec![0.0; n_kept * n];
    if is_few(n_kept) {
        // However many were expected: what is kept decides which bits come out.
        drop(strips);
        let values: Vec<f64> = order[..n_kept].iter().map(|&i| diagonal[i]).collect();
        inverse_iteration(engine, &tridiagonal, &values, &mut vectors, is_stopped)?;
    } else {
        let strips = match strips {
            Some(strips) => strips,
            None => {
                let mut strips = Strips::identity(n);
                diagonal = diagonalised(engine, &tridiagonal, Some(&mut strips), is_stopped)?;
                strips
            }
        };
        debug_assert_eq!(diagonal.len(), n);
        for (&i, vector) in order.iter().zip(vectors.chunks_exact_mut(n.max(1))) {
            strips.copy_row(i, vector);
        }
    }
    reflect_back(engine, n, &matrix, &tridiagonal.beta, &mut vectors, is_stopped)?;
    vectors.chunks_exact_mut(n.max(1)).for_each(orient);
    Ok(Eigen { values, vectors })
}

/// Turns a vector so that its entry of largest magnitude, the first of equals, is positive.
pub fn orient(vector: &mut [f64]) {
    let mut largest = 0.0f64;
    for &x in vector.iter() {
        if x.abs() > largest.abs() {
            largest = x;
        }
    }
    if largest < 0.0 {
        vector.iter_mut().for_each(|x| *x = -*x);
    }
}

/// A symmetric matrix `t = qᵀ a q`; reflector `k` is `1 - beta[k] v vᵀ` with `v` right of the diagonal in row `k`.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// `n - 1` values and a 0.
    off_diagonal: Vec<f64>,
    beta: Vec<f64>,
}

/// Goes on unless it was told to stop.
fn look(is_stopped: &dyn Fn() -> bool) -> Result<(), EigenError> {
    if is_stopped() { Err(EigenError::Stopped) } else { Ok(()) }
}

fn tridiagonalise(
    engine: &Engine,
    n: usize,
    a: &mut [f64],
    is_stopped: &dyn Fn() -> bool,
) -> Result<Tridiagonal, EigenError> {
    let (mut diagonal, mut off_diagonal, mut beta) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    // The update `a -= v wᵀ + w vᵀ` that rows below the current one still wait for.
    let (mut v, mut w) = (vec![0.0; n], vec![0.0; n]);
    let mut next = vec![0.0; n];
    for k in 0..n {
        look(is_stopped)?;
        let (above, below) = a.split_at_mut((k + 1) * n);
        let row = &mut above[k * n..];
        for j in k..n {
            row[j] -= v[k] * w[j] + w[k] * v[j];
        }
        diagonal[k] = row[k];
        if k + 1 == n {
            break;
        }
        let x = &mut row[k + 1..];
        let tail = dot(engine, &x[1..], &x[1..]);
        if tail < TINY {
            off_diagonal[k] = x[0];
            x.fill(0.0);
        } else {
            let norm = (x[0] * x[0] + tail).sqrt();
            // Away from `x[0]`, so that nothing cancels.
            let signed = if x[0] < 0.0 { -norm } else { norm };
            off_diagonal[k] = -signed;
            x[0] += signed;
            beta[k] = 2.0 / (x[0] * x[0] + tail);
        }
        next[k + 1..].copy_from_slice(x);
        let from = k + 1;
        // The products stand left of the diagonal, where nothing is needed any more.
        let work = |i: usize, rows: &mut [f64]| {
            symmetric::update_and_dot(engine, rows, from, from + i * ROWS, [&v, &w, &next]);
        };
        if (n - from) * (n - from) < LEAST_SHARED {
            below.chunks_mut(ROWS * n).enumerate().for_each(|(i, rows)| work(i, rows));
        } else {
            engine.for_each_chunk(below, ROWS * n, work);
        }
        for (w, row) in w[from..].iter_mut().zip(below.chunks_exact(n)) {
            *w = beta[k] * row[k];
        }
        v[from..].copy_from_slice(&next[from..]);
        let share = 0.5 * beta[k] * dot(engine, &w[from..], &v[from..]);
        for (w, v) in w[from..].iter_mut().zip(&v[from..]) {
            *w -= share * v;
        }
    }
    Ok(Tridiagonal { diagonal, off_diagonal, beta })
}

/// Eigenvectors on their way: row `i` belongs to eigenvalue `i`. Strip by strip, each `[n, STRIP]`.
struct Strips {
    n: usize,
    values: Vec<f64>,
}

impl Strips {
    fn identity(n: usize) -> Strips {
        let mut values = vec![0.0; n.div_ceil(STRIP) * n * STRIP];
        for i in 0..n {
            values[i / STRIP * n * STRIP + i * STRIP + i % STRIP] = 1.0;
        }
        Strips { n, values }
    }

    fn rotate(
        &mut self,
        engine: &Engine,
        rotations: &[Rotation],
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), EigenError> {
        let work = (4 * rotations.len() * STRIP) as u64;
        let rotate = |_, strip: &mut [f64]| symmetric::rotate(engine, strip, rotations);
        let is_done = engine.for_each_chunk_until(&mut self.values, (self.n * STRIP).max(1), work, is_stopped, rotate);
        if is_done { Ok(()) } else { Err(EigenError::Stopped) }
    }

    fn copy_row(&self, i: usize, out: &mut [f64]) {
        for (strip, out) in self.values.chunks_exact(self.n * STRIP).zip(out.chunks_mut(STRIP)) {
            out.copy_from_slice(&strip[i * STRIP..][..out.len()]);
        }
    }
}

/// Implicit QL: the eigenvalues, unsorted. `strips`, where given, becomes the eigenvectors.
fn diagonalised(
    engine: &Engine,
    tridiagonal: &Tridiagonal,
    mut strips: Option<&mut Strips>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Vec<f64>, EigenError> {
    let (mut d, mut e) = (tridiagonal.diagonal.clone(), tridiagonal.off_diagonal.clone());
    let n = d.len();
    let norm = d.iter().zip(&e).fold(0.0f64, |max, (d, e)| max.max(d.abs() + e.abs()));
    let negligible = f64::EPSILON * norm;
    let mut rotations: Vec<Rotation> = Vec::new();
    for l in 0..n {
        look(is_stopped)?;
        let mut turns = 0;
        loop {
            let m = (l..n).find(|&m| m + 1 == n || e[m].abs() <= negligible).unwrap_or(l);
            if m == l {
                break;
            }
            turns += 1;
            if turns > MAX_TURNS {
                return Err(EigenError::NotFinite);
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut r = (g * g + 1.0).sqrt();
            g = d[m] - d[l] + e[l] / (g + if g < 0.0 { -r } else { r });
            let (mut sin, mut cos, mut p) = (1.0, 1.0, 0.0);
            let mut is_split = false;
            for i in (l..m).rev() {
                let (f, b) = (sin * e[i], cos * e[i]);
                r = (f * f + g * g).sqrt();
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    is_split = true;
                    break;
                }
                sin = f / r;
                cos = g / r;
                g = d[i + 1] - p;
                r = (d[i] - g) * sin + 2.0 * cos * b;
                p = sin * r;
                d[i + 1] = g + p;
                g = cos * r - b;
                if strips.is_some() {
                    rotations.push(Rotation { row: i as u32, cos, sin });
                }
            }
            if !is_split {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
            if let Some(strips) = strips.as_mut().filter(|_| rotations.len() >= MAX_ROTATIONS) {
                strips.rotate(engine, &rotations, is_stopped)?;
                rotations.clear();
            }
        }
    }
    if let Some(strips) = strips {
        strips.rotate(engine, &rotations, is_stopped)?;
    }
    Ok(d)
}

/// Eigenvectors of the tridiagonal matrix for its eigenvalues `values`, descending: `[values.len(), n]`, of length 1.
fn inverse_iteration(
    engine: &Engine,
    tridiagonal: &Tridiagonal,
    values: &[f64],
    vectors: &mut [f64],
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), EigenError> {
    let n = tridiagonal.diagonal.len();
    let norm = tridiagonal
        .diagonal
        .iter()
        .zip(&tridiagonal.off_diagonal)
        .fold(0.0f64, |max, (d, e)| max.max(d.abs() + e.abs()));
    let smallest = (f64::EPSILON * norm).max(TINY);
    let mut shifted = Shifted::new(n);
    let (mut first_close, mut last) = (0, f64::INFINITY);
    for (i, &value) in values.iter().enumerate() {
        if i > 0 && values[i - 1] - value > CLOSE * norm {
            first_close = i;
        }
        // The same value twice would give the same vector twice: a hair apart, they differ in their rounding.
        let value = value.min(last - 10.0 * smallest);
        last = value;
        shifted.factorise(tridiagonal, value, smallest);
        let (before, rest) = vectors.split_at_mut(i * n);
        let vector = &mut rest[..n];
        Stream::new(0, "inverse iteration", &[("vector", i as u64)]).fill_normal(0, vector);
        for _ in 0..N_INVERSE {
            look(is_stopped)?;
            shifted.solve(vector);
            let largest = vector.iter().fold(0.0f64, |max, x| max.max(x.abs()));
            vector.iter_mut().for_each(|x| *x /= largest);
            // Twice: once is not enough for a vector that was nearly within the space of the others.
            for _ in 0..2 {
                for other in before[first_close * n..].chunks_exact(n) {
                    let share = dot(engine, other, vector);
                    symmetric::subtract(engine, share, other, vector);
                }
                let length = dot(engine, vector, vector).sqrt();
                vector.iter_mut().for_each(|x| *x /= length);
            }
        }
    }
    Ok(())
}

/// `t - value` as the product of a lower and an upper triangle, rows exchanged for the larger pivot.
struct Shifted {
    /// By row: what multiplies the pivot row, and whether the two rows were exchanged.
    steps: Vec<(f64, bool)>,
    /// By row: the pivot and the two values right of it.
    rows: Vec<[f64; 3]>,
}

impl Shifted {
    fn new(n: usize) -> Shifted {
        Shifted { steps: vec![(0.0, false); n.saturating_sub(1)], rows: vec![[0.0; 3]; n] }
    }

    fn factorise(&mut self, tridiagonal: &Tridiagonal, value: f64, smallest: f64) {
        let (d, e) = (&tridiagonal.diagonal, &tridiagonal.off_diagonal);
        let n = d.len();
        let right = |i: usize| if i + 1 < n { e[i] } else { 0.0 };
        let away =
            |pivot: f64| if pivot.abs() < smallest { if pivot < 0.0 { -smallest } else { smallest } } else { pivot };
        let mut row = [d[0] - value, right(0), 0.0];
        for i in 0..n - 1 {
            let next = [e[i], d[i + 1] - value, right(i + 1)];
            let is_exchanged = next[0].abs() > row[0].abs();
            let (mut pivot, other) = if is_exchanged { (next, row) } else { (row, next) };
            pivot[0] = away(pivot[0]);
            let factor = other[0] / pivot[0];
            self.rows[i] = pivot;
            self.steps[i] = (factor, is_exchanged);
            row = [other[1] - factor * pivot[1], other[2] - factor * pivot[2], 0.0];
        }
        row[0] = away(row[0]);
        self.rows[n - 1] = row;
    }

    fn solve(&self, x: &mut [f64]) {
        for (i, &(factor, is_exchanged)) in self.steps.iter().enumerate() {
            if is_exchanged {
                x.swap(i, i + 1);
            }
            x[i + 1] -= factor * x[i];
        }
        for (i, [pivot, right, further]) in self.rows.iter().enumerate().rev() {
            let right = if i + 1 < x.len() { right * x[i + 1] } else { 0.0 };
            let further = if i + 2 < x.len() { further * x[i + 2] } else { 0.0 };
            x[i] = (x[i] - right - further) / pivot;
        }
    }
}

/// Vectors that share one pass over the reflectors.
const SIDE_BY_SIDE: usize = 8;

/// Takes eigenvectors of the tridiagonal matrix (rows of `vectors`) to those of the matrix it was made of.
fn reflect_back(
    engine: &Engine,
    n: usize,
    reflectors: &[f64],
    beta: &[f64],
    vectors: &mut [f64],
    is_stopped: &dyn Fn() -> bool,
) -> Result<(), EigenError> {
    let work = (SIDE_BY_SIDE * n * n) as u64;
    let reflect = |_, vectors: &mut [f64]| {
        for k in (0..n.saturating_sub(1)).rev().filter(|&k| beta[k] != 0.0) {
            let v = &reflectors[k * n + k + 1..(k + 1) * n];
            symmetric::reflect(engine, v, beta[k], n, k + 1, vectors);
        }
    };
    let is_done = engine.for_each_chunk_until(vectors, (n * SIDE_BY_SIDE).max(1), work, is_stopped, reflect);
    if is_done { Ok(()) } else { Err(EigenError::Stopped) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Isa;

    /// `b bᵀ` of a random `b`, `[n, rank]`: positive semi-definite, of this rank.
    fn gram(n: usize, rank: usize) -> Vec<f64> {
        let mut b = vec![0.0; n * rank];
        Stream::new(7, "test", &[]).fill_normal(0, &mut b);
        let row = |i: usize| &b[i * rank..(i + 1) * rank];
        (0..n * n).map(|at| dot(&Engine::new(1), row(at / n), row(at % n))).collect()
    }

    fn check(n: usize, matrix: &[f64]) {
        check_first(n, matrix, n);
    }

    fn check_first(n: usize, matrix: &[f64], n_kept: usize) {
        let found = symmetric_eigen(&Engine::new(1), n, matrix.to_vec(), n_kept, |_| n_kept, &|| false).unwrap();
        // What was expected beforehand changes nothing.
        let unexpected =
            symmetric_eigen(&Engine::new(1), n, matrix.to_vec(), n - n_kept, |_| n_kept, &|| false).unwrap();
        assert!(found == unexpected, "{n}");
        let Eigen { values, vectors } = found;
        assert_eq!(vectors.len(), n_kept * n);
        let size = matrix.iter().fold(1.0f64, |max, x| max.max(x.abs()));
        assert!(values.is_sorted_by(|a, b| a >= b));
        let rows: Vec<&[f64]> = vectors.chunks_exact(n).collect();
        for (i, v) in rows.iter().enumerate() {
            for (j, other) in rows.iter().enumerate() {
                let expected = f64::from(u8::from(i == j));
                assert!((dot(&Engine::new(1), v, other) - expected).abs() < 1e-12, "{n}: {i}, {j}");
            }
            for (k, x) in v.iter().enumerate() {
                let product = dot(&Engine::new(1), &matrix[k * n..(k + 1) * n], v);
                assert!((product - values[i] * x).abs() < 1e-12 * size * n as f64, "{n}: {i}, {k}");
            }
            let largest = v.iter().fold(0.0f64, |max, x| if x.abs() > max.abs() { *x } else { max });
            assert!(largest > 0.0);
        }
    }

    #[test]
    fn values_and_vectors_solve_the_equation() {
        for (n, rank) in [(1, 1), (2, 2), (3, 1), (5, 5), (33, 40), (70, 12), (150, 150)] {
            check(n, &gram(n, rank));
        }
        // Nothing at all, one direction, equal values, and a matrix that is tridiagonal already.
        check(4, &[0.0; 16]);
        check(3, &[0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0]);
        check(3, &[2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]);
        check(4, &[1.0, 2.0, 0.0, 0.0, 2.0, 1.0, 2.0, 0.0, 0.0, 2.0, 1.0, 2.0, 0.0, 0.0, 2.0, 1.0]);
        check(2, &[1e-200, 0.0, 0.0, 3e-200]);
    }

    #[test]
    fn a_few_vectors_solve_the_equation() {
        for (n, rank, n_kept) in [(64, 70, 8), (150, 150, 18), (200, 3, 25), (131, 12, 16)] {
            check_first(n, &gram(n, rank), n_kept);
        }
        let n = 90;
        let spread = |f: &dyn Fn(usize, usize) -> f64| (0..n * n).map(|at| f(at / n, at % n)).collect::<Vec<f64>>();
        // Nothing at all, all values alike, two values, and two blocks with the same values.
        check_first(n, &vec![0.0; n * n], 11);
        check_first(n, &spread(&|i, j| f64::from(u8::from(i == j))), 11);
        check_first(n, &spread(&|i, j| f64::from(u8::from(i == j)) * if i % 9 == 0 { 5.0 } else { 2.0 }), 11);
        let half = gram(45, 45);
        check_first(n, &spread(&|i, j| if i / 45 == j / 45 { half[i % 45 * 45 + j % 45] } else { 0.0 }), 11);
    }

    #[test]
    fn instruction_sets_change_no_bit() {
        let matrix = gram(130, 140);
        let of = |isa, n_kept| {
            symmetric_eigen(&Engine::with_isa(2, isa), 130, matrix.clone(), n_kept, |_| n_kept, &|| false).unwrap()
        };
        for isa in [Isa::Avx512, Isa::Avx2].into_iter().filter(|isa| isa.is_available()) {
            for n_kept in [10, 130] {
                assert!(of(isa, n_kept) == of(Isa::Portable, n_kept), "{isa:?}, {n_kept}");
            }
        }
    }

    #[test]
    fn the_second_difference_has_its_known_values() {
        let n = 40;
        let entry = |i: usize, j: usize| [2.0, -1.0, 0.0][i.abs_diff(j).min(2)];
        let matrix = (0..n * n).map(|at| entry(at / n, at % n)).collect();
        let found = symmetric_eigen(&Engine::new(1), n, matrix, 1, |_| 1, &|| false).unwrap();
        for (i, value) in found.values.iter().enumerate() {
            let angle = std::f64::consts::PI * (n - i) as f64 / (n + 1) as f64;
            assert!((value - (2.0 - 2.0 * crate::elementary::cos(angle))).abs() < 1e-13);
        }
        assert_eq!(found.vectors.len(), n);
    }

    #[test]
    fn threads_change_no_bit() {
        let matrix = gram(190, 150);
        let expected = symmetric_eigen(&Engine::new(1), 190, matrix.clone(), 20, |_| 20, &|| false).unwrap();
        for threads in [2, 3, 7] {
            let got = symmetric_eigen(&Engine::new(threads), 190, matrix.clone(), 20, |_| 20, &|| false).unwrap();
            assert!(got == expected, "{threads} threads");
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f64::NAN, f64::INFINITY] {
            let found = symmetric_eigen(&Engine::new(1), 2, vec![1.0, bad, bad, 1.0], 1, |_| 1, &|| false);
            assert_eq!(found, Err(EigenError::NotFinite));
        }
    }

    #[test]
    fn it_stops_wherever_it_is_told_to() {
        let matrix = gram(70, 70);
        for n_kept in [5, 70] {
            let asked = std::cell::Cell::new(0);
            let find = |most: usize| {
                asked.set(0);
                let is_stopped = || asked.replace(asked.get() + 1) == most;
                symmetric_eigen(&Engine::new(2), 70, matrix.clone(), n_kept, |_| n_kept, &is_stopped)
            };
            find(usize::MAX).unwrap();
            // Each reflector, each value, each vector.
            let n_looks = asked.get();
            assert!(n_looks > 140, "{n_looks}");
            for most in 0..n_looks {
                assert_eq!(find(most), Err(EigenError::Stopped), "look {most} of {n_looks}");
                assert_eq!(asked.get(), most + 1);
            }
        }
    }
}
