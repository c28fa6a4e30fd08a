//! Eigenvalues and eigenvectors of symmetric matrices, in double precision, the same bits on every machine.
//!
//! Householder tridiagonalisation, then implicit QL with Wilkinson's shift (Martin, Reinsch and Wilkinson 1968; Dubrulle,
//! Martin and Wilkinson 1968, both in the *Handbook for Automatic Computation*). Each step of the first needs one pass
//! over what is left of the matrix: the rank-2 update of the step before and the product with the new reflector are done
//! row by row, together. The rotations of the second are written down and applied later, many at a time, to a strip of
//! columns that stays in a cache. Rows and strips are independent, so that threads cannot show in a bit.

use crate::engine::Engine;

/// Columns in a strip of eigenvectors: with 784 rows a strip is 200 KB, which fits a second-level cache.
const STRIP: usize = 32;
/// Rotations that are collected before they are applied.
const MAX_ROTATIONS: usize = 1 << 15;
/// Values of a trailing matrix above which its rows are shared out between threads.
const LEAST_SHARED: usize = 1 << 14;
/// QL needs one or two turns for an eigenvalue; it is proven to converge, so this only stops what is not finite.
const MAX_TURNS: usize = 200;
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

/// The matrix holds a value that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

/// The eigenvalues of the symmetric `matrix`, `[n, n]`, and the eigenvectors of the first `n_kept(values)` of them.
///
/// # Errors
/// If a value is not finite.
pub fn symmetric_eigen(
    engine: &Engine,
    n: usize,
    mut matrix: Vec<f64>,
    n_kept: impl FnOnce(&[f64]) -> usize,
) -> Result<Eigen, NotFinite> {
    assert_eq!(matrix.len(), n * n, "a matrix of {n} rows and columns");
    let largest = matrix.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    if matrix.iter().any(|x| !x.is_finite()) {
        return Err(NotFinite);
    }
    let scale = if largest < f64::MIN_POSITIVE { 1.0 } else { largest };
    matrix.iter_mut().for_each(|x| *x /= scale);
    let Tridiagonal { mut diagonal, mut off_diagonal, beta } = tridiagonalise(engine, n, &mut matrix);
    let mut strips = Strips::identity(n);
    diagonalise(engine, &mut diagonal, &mut off_diagonal, &mut strips)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    let values: Vec<f64> = order.iter().map(|&i| diagonal[i] * scale).collect();
    let n_kept = n_kept(&values).min(n);
    let mut vectors = vec![0.0; n_kept * n];
    for (&i, vector) in order.iter().zip(vectors.chunks_exact_mut(n.max(1))) {
        strips.copy_row(i, vector);
    }
    drop(strips);
    reflect_back(engine, n, &matrix, &beta, &mut vectors);
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

/// `x · y`: eight chains over the values and one fixed tree.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter().zip(y) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += x * y;
    }
    tree(lanes)
}

fn tree([a, b, c, d, e, f, g, h]: [f64; 8]) -> f64 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// A symmetric matrix `t = qᵀ a q`; reflector `k` is `1 - beta[k] v vᵀ` with `v` right of the diagonal in row `k`.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// `n - 1` values and a 0.
    off_diagonal: Vec<f64>,
    beta: Vec<f64>,
}

fn tridiagonalise(engine: &Engine, n: usize, a: &mut [f64]) -> Tridiagonal {
    let (mut diagonal, mut off_diagonal, mut beta) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    // The update `a -= v wᵀ + w vᵀ` that rows below the current one still wait for.
    let (mut v, mut w) = (vec![0.0; n], vec![0.0; n]);
    let mut next = vec![0.0; n];
    for k in 0..n {
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
        let tail = dot(&x[1..], &x[1..]);
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
        let work = |i: usize, row: &mut [f64]| {
            let i = from + i;
            // What stood left of the diagonal is not needed any more.
            row[k] = update_and_dot(&mut row[from..], (&v[from..], v[i]), (&w[from..], w[i]), &next[from..]);
        };
        if (n - from) * (n - from) < LEAST_SHARED {
            below.chunks_exact_mut(n).enumerate().for_each(|(i, row)| work(i, row));
        } else {
            engine.for_each_chunk(below, n, work);
        }
        for (w, row) in w[from..].iter_mut().zip(below.chunks_exact(n)) {
            *w = beta[k] * row[k];
        }
        v[from..].copy_from_slice(&next[from..]);
        let share = 0.5 * beta[k] * dot(&w[from..], &v[from..]);
        for (w, v) in w[from..].iter_mut().zip(&v[from..]) {
            *w -= share * v;
        }
    }
    Tridiagonal { diagonal, off_diagonal, beta }
}

/// `row -= v_i w + w_i v`, then `row · x`, eight lanes and one tree.
fn update_and_dot(row: &mut [f64], (v, v_i): (&[f64], f64), (w, w_i): (&[f64], f64), x: &[f64]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let step = |row: &mut [f64], v: &[f64], w: &[f64], x: &[f64], lanes: &mut [f64; 8]| {
        for ((((row, v), w), x), lane) in row.iter_mut().zip(v).zip(w).zip(x).zip(lanes) {
            *row -= v_i * w + w_i * v;
            *lane += *row * x;
        }
    };
    let (rows, row_rest) = row.as_chunks_mut::<8>();
    let ((v, v_rest), (w, w_rest), (x, x_rest)) = (v.as_chunks::<8>(), w.as_chunks::<8>(), x.as_chunks::<8>());
    for (((row, v), w), x) in rows.iter_mut().zip(v).zip(w).zip(x) {
        step(row, v, w, x, &mut lanes);
    }
    step(row_rest, v_rest, w_rest, x_rest, &mut lanes);
    tree(lanes)
}

/// A rotation of rows `row` and `row + 1` of the eigenvectors.
#[derive(Clone, Copy)]
struct Rotation {
    row: u32,
    cos: f64,
    sin: f64,
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

    fn rotate(&mut self, engine: &Engine, rotations: &[Rotation]) {
        engine.for_each_chunk(&mut self.values, (self.n * STRIP).max(1), |_, strip| {
            let (rows, _) = strip.as_chunks_mut::<STRIP>();
            for &Rotation { row, cos, sin } in rotations {
                let (upper, lower) = rows.split_at_mut(row as usize + 1);
                let (upper, lower) = (&mut upper[row as usize], &mut lower[0]);
                for (x, y) in upper.iter_mut().zip(lower) {
                    let (old_x, old_y) = (*x, *y);
                    *y = sin * old_x + cos * old_y;
                    *x = cos * old_x - sin * old_y;
                }
            }
        });
    }

    fn copy_row(&self, i: usize, out: &mut [f64]) {
        for (strip, out) in self.values.chunks_exact(self.n * STRIP).zip(out.chunks_mut(STRIP)) {
            out.copy_from_slice(&strip[i * STRIP..][..out.len()]);
        }
    }
}

/// Implicit QL: `d` becomes the eigenvalues, unsorted; `e` (the off-diagonal) is used up.
fn diagonalise(engine: &Engine, d: &mut [f64], e: &mut [f64], strips: &mut Strips) -> Result<(), NotFinite> {
    let n = d.len();
    let norm = d.iter().zip(&*e).fold(0.0f64, |max, (d, e)| max.max(d.abs() + e.abs()));
    let negligible = f64::EPSILON * norm;
    let mut rotations: Vec<Rotation> = Vec::new();
    for l in 0..n {
        let mut turns = 0;
        loop {
            let m = (l..n).find(|&m| m + 1 == n || e[m].abs() <= negligible).unwrap_or(l);
            if m == l {
                break;
            }
            turns += 1;
            if turns > MAX_TURNS {
                return Err(NotFinite);
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
                rotations.push(Rotation { row: i as u32, cos, sin });
            }
            if !is_split {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
            if rotations.len() >= MAX_ROTATIONS {
                strips.rotate(engine, &rotations);
                rotations.clear();
            }
        }
    }
    strips.rotate(engine, &rotations);
    Ok(())
}

/// Vectors that share one pass over the reflectors.
const SIDE_BY_SIDE: usize = 8;

/// Takes eigenvectors of the tridiagonal matrix (rows of `vectors`) to those of the matrix it was made of.
fn reflect_back(engine: &Engine, n: usize, reflectors: &[f64], beta: &[f64], vectors: &mut [f64]) {
    engine.for_each_chunk(vectors, (n * SIDE_BY_SIDE).max(1), |_, vectors| {
        for k in (0..n.saturating_sub(1)).rev().filter(|&k| beta[k] != 0.0) {
            let v = &reflectors[k * n + k + 1..(k + 1) * n];
            for vector in vectors.chunks_exact_mut(n) {
                let x = &mut vector[k + 1..];
                let share = beta[k] * dot(v, x);
                for (x, v) in x.iter_mut().zip(v) {
                    *x -= share * v;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// `b bᵀ` of a random `b`, `[n, rank]`: positive semi-definite, of this rank.
    fn gram(n: usize, rank: usize) -> Vec<f64> {
        let mut b = vec![0.0; n * rank];
        Stream::new(7, "test", &[]).fill_normal(0, &mut b);
        let row = |i: usize| &b[i * rank..(i + 1) * rank];
        (0..n * n).map(|at| dot(row(at / n), row(at % n))).collect()
    }

    fn check(n: usize, matrix: &[f64]) {
        let Eigen { values, vectors } = symmetric_eigen(&Engine::new(1), n, matrix.to_vec(), |v| v.len()).unwrap();
        let size = matrix.iter().fold(1.0f64, |max, x| max.max(x.abs()));
        assert!(values.is_sorted_by(|a, b| a >= b));
        let rows: Vec<&[f64]> = vectors.chunks_exact(n).collect();
        for (i, v) in rows.iter().enumerate() {
            for (j, other) in rows.iter().enumerate() {
                let expected = f64::from(u8::from(i == j));
                assert!((dot(v, other) - expected).abs() < 1e-12, "{n}: {i}, {j}");
            }
            for (k, x) in v.iter().enumerate() {
                let product = dot(&matrix[k * n..(k + 1) * n], v);
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
    fn the_second_difference_has_its_known_values() {
        let n = 40;
        let entry = |i: usize, j: usize| [2.0, -1.0, 0.0][i.abs_diff(j).min(2)];
        let matrix = (0..n * n).map(|at| entry(at / n, at % n)).collect();
        let found = symmetric_eigen(&Engine::new(1), n, matrix, |_| 1).unwrap();
        for (i, value) in found.values.iter().enumerate() {
            let angle = std::f64::consts::PI * (n - i) as f64 / (n + 1) as f64;
            assert!((value - (2.0 - 2.0 * crate::elementary::cos(angle))).abs() < 1e-13);
        }
        assert_eq!(found.vectors.len(), n);
    }

    #[test]
    fn threads_change_no_bit() {
        let matrix = gram(190, 150);
        let expected = symmetric_eigen(&Engine::new(1), 190, matrix.clone(), |_| 20).unwrap();
        for threads in [2, 3, 7] {
            let got = symmetric_eigen(&Engine::new(threads), 190, matrix.clone(), |_| 20).unwrap();
            assert!(got == expected, "{threads} threads");
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f64::NAN, f64::INFINITY] {
            let found = symmetric_eigen(&Engine::new(1), 2, vec![1.0, bad, bad, 1.0], |_| 1);
            assert_eq!(found, Err(NotFinite));
        }
    }
}
