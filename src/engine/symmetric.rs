//! The inner loops of the symmetric eigenproblem, in double precision, compiled for each instruction set.
//!
//! Plain multiplications and additions, eight lanes and one fixed tree: the width of the vectors changes no bit.

use super::Engine;
use super::versions::versions;

/// Columns in a strip of eigenvectors: with 784 rows a strip is 200 KB, which fits a second-level cache, and a row of
/// it fits the registers.
pub const STRIP: usize = 32;

/// A rotation of rows `row` and `row + 1` of the eigenvectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// The upper of the two rows.
    pub row: u32,
    /// Cosine of the angle.
    pub cos: f64,
    /// Sine of the angle.
    pub sin: f64,
}

/// `x · y`: eight chains over the values and one fixed tree.
pub fn dot(engine: &Engine, x: &[f64], y: &[f64]) -> f64 {
    dot_of(engine.isa(), x, y)
}

/// Rows that share one pass over the vectors: as many chains of sums as hide the latency of an addition. (784 axes of
/// 60,000 images on 1 thread: tridiagonalisation 78 ms row by row, reflections 57 ms.)
pub const ROWS: usize = 4;

/// Of each of `rows` from `from` on: `row -= v_i w + w_i v`, then `row · x`, which goes to `row[from - 1]`; `i` is the
/// row's index in `v` and `w`, the first one's `first`.
///
/// # Shapes
/// - `rows`: rows of `v.len()` values, at most [`ROWS`]
///
/// # Panics
/// If the lengths do not fit.
pub fn update_and_dot(engine: &Engine, rows: &mut [f64], from: usize, first: usize, [v, w, x]: [&[f64]; 3]) {
    let n = v.len();
    assert!(n > 0 && w.len() == n && x.len() == n && from > 0, "vectors of a row of {n}");
    let factors = |r: usize| (v[first + r], w[first + r]);
    let isa = engine.isa();
    if rows.len() == ROWS * n {
        let mut sums = [0.0; ROWS];
        let v = Vector { values: v, own: std::array::from_fn(|r| factors(r).0) };
        let w = Vector { values: w, own: std::array::from_fn(|r| factors(r).1) };
        update_rows(isa, rows, from, v, w, x, &mut sums);
        for (row, sum) in rows.chunks_exact_mut(n).zip(sums) {
            row[from - 1] = sum;
        }
    } else {
        for (r, row) in rows.chunks_exact_mut(n).enumerate() {
            let (v_i, w_i) = factors(r);
            row[from - 1] = update(isa, &mut row[from..], &v[from..], v_i, &w[from..], w_i, &x[from..]);
        }
    }
}

/// Applies rotations, one after the other, to a strip of [`STRIP`] columns.
///
/// # Panics
/// If a rotation is about a row that is not there.
pub fn rotate(engine: &Engine, strip: &mut [f64], rotations: &[Rotation]) {
    rotate_rows(engine.isa(), strip, rotations);
}

/// `x -= beta (v · x) v`, a reflection, of each of `rows` from `from` on.
///
/// # Shapes
/// - `v`: `[n - from]`
/// - `rows`: rows of `n` values
///
/// # Panics
/// If the lengths do not fit.
pub fn reflect(engine: &Engine, v: &[f64], beta: f64, n: usize, from: usize, rows: &mut [f64]) {
    assert!(n > 0 && v.len() + from == n, "a reflector of {} values from {from} on for rows of {n}", v.len());
    for rows in rows.chunks_mut(ROWS * n) {
        if rows.len() == ROWS * n {
            reflect_rows(engine.isa(), v, beta, n, from, rows);
        } else {
            rows.chunks_exact_mut(n).for_each(|row| reflect_one(engine.isa(), v, beta, &mut row[from..]));
        }
    }
}

/// `x -= share · y`.
///
/// # Panics
/// If the lengths differ.
pub fn subtract(engine: &Engine, share: f64, y: &[f64], x: &mut [f64]) {
    assert_eq!(y.len(), x.len(), "lengths of two vectors");
    subtract_from(engine.isa(), share, y, x);
}

#[inline(always)]
pub(super) fn tree([a, b, c, d, e, f, g, h]: [f64; 8]) -> f64 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[inline(always)]
fn dot_body(x: &[f64], y: &[f64]) -> f64 {
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

/// Four rows of `n` values, from `from` on.
#[inline(always)]
fn four(rows: &mut [f64], n: usize, from: usize) -> [&mut [f64]; ROWS] {
    let (a, rest) = rows.split_at_mut(n);
    let (b, rest) = rest.split_at_mut(n);
    let (c, d) = rest.split_at_mut(n);
    [a, b, c, d].map(|row| &mut row[from..n])
}

/// A vector of an update, and its values at the rows that are updated.
#[derive(Clone, Copy)]
struct Vector<'a> {
    values: &'a [f64],
    own: [f64; ROWS],
}

versions! {
    fn dot_of(x: &[f64], y: &[f64]) -> f64 {
        dot_body(x, y)
    }

    fn update(row: &mut [f64], v: &[f64], v_i: f64, w: &[f64], w_i: f64, x: &[f64]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (rows, row_rest) = row.as_chunks_mut::<8>();
        let ((v, v_rest), (w, w_rest), (x, x_rest)) = (v.as_chunks::<8>(), w.as_chunks::<8>(), x.as_chunks::<8>());
        for (((row, v), w), x) in rows.iter_mut().zip(v).zip(w).zip(x) {
            for ((((row, v), w), x), lane) in row.iter_mut().zip(v).zip(w).zip(x).zip(&mut lanes) {
                *row -= v_i * w + w_i * v;
                *lane += *row * x;
            }
        }
        for ((((row, v), w), x), lane) in row_rest.iter_mut().zip(v_rest).zip(w_rest).zip(x_rest).zip(&mut lanes) {
            *row -= v_i * w + w_i * v;
            *lane += *row * x;
        }
        tree(lanes)
    }

    fn update_rows(
        rows: &mut [f64],
        from: usize,
        v: Vector<'_>,
        w: Vector<'_>,
        x: &[f64],
        sums: &mut [f64; ROWS],
    ) {
        let n = x.len();
        let [a, b, c, d] = four(rows, n, from);
        let (v_i, w_i) = (v.own, w.own);
        let (v, w, x) = (&v.values[from..n], &w.values[from..n], &x[from..n]);
        let mut lanes = [[0.0f64; 8]; ROWS];
        let step = |row: &mut f64, lane: &mut f64, r: usize, v: f64, w: f64, x: f64| {
            *row -= v_i[r] * w + w_i[r] * v;
            *lane += *row * x;
        };
        let (a, a_rest) = a.as_chunks_mut::<8>();
        let (b, b_rest) = b.as_chunks_mut::<8>();
        let (c, c_rest) = c.as_chunks_mut::<8>();
        let (d, d_rest) = d.as_chunks_mut::<8>();
        let ((v, v_rest), (w, w_rest), (x, x_rest)) = (v.as_chunks::<8>(), w.as_chunks::<8>(), x.as_chunks::<8>());
        let others = v.iter().zip(w).zip(x);
        for ((((a, b), c), d), ((v, w), x)) in a.iter_mut().zip(b).zip(c).zip(d).zip(others) {
            for (r, row) in [a, b, c, d].into_iter().enumerate() {
                for i in 0..8 {
                    step(&mut row[i], &mut lanes[r][i], r, v[i], w[i], x[i]);
                }
            }
        }
        for (r, row) in [a_rest, b_rest, c_rest, d_rest].into_iter().enumerate() {
            for (i, row) in row.iter_mut().enumerate() {
                step(row, &mut lanes[r][i], r, v_rest[i], w_rest[i], x_rest[i]);
            }
        }
        *sums = lanes.map(tree);
    }

    fn reflect_rows(v: &[f64], beta: f64, n: usize, from: usize, rows: &mut [f64]) {
        let [a, b, c, d] = four(rows, n, from);
        let mut lanes = [[0.0f64; 8]; ROWS];
        let (eights, v_rest) = v.as_chunks::<8>();
        let others = b.as_chunks::<8>().0.iter().zip(c.as_chunks::<8>().0).zip(d.as_chunks::<8>().0);
        for ((v, a), ((b, c), d)) in eights.iter().zip(a.as_chunks::<8>().0).zip(others) {
            for (lanes, row) in lanes.iter_mut().zip([a, b, c, d]) {
                for i in 0..8 {
                    lanes[i] += v[i] * row[i];
                }
            }
        }
        for (lanes, row) in lanes.iter_mut().zip([&*a, b, c, d]) {
            for ((lane, v), x) in lanes.iter_mut().zip(v_rest).zip(row.as_chunks::<8>().1) {
                *lane += v * x;
            }
        }
        let shares = lanes.map(|lanes| beta * tree(lanes));
        let others = b.iter_mut().zip(c).zip(d);
        for ((v, a), ((b, c), d)) in v.iter().zip(a).zip(others) {
            *a -= shares[0] * v;
            *b -= shares[1] * v;
            *c -= shares[2] * v;
            *d -= shares[3] * v;
        }
    }

    fn rotate_rows(strip: &mut [f64], rotations: &[Rotation]) {
        let (rows, _) = strip.as_chunks_mut::<STRIP>();
        let Some(first) = rotations.first() else { return };
        // Rotations mostly go up row by row, so that the upper row of one is the lower row of the next: it stays here.
        let mut at = first.row as usize + 1;
        let mut lower = rows[at];
        for &Rotation { row, cos, sin } in rotations {
            let row = row as usize;
            if row + 1 != at {
                rows[at] = lower;
                at = row + 1;
                lower = rows[at];
            }
            let mut upper = rows[row];
            let below = &mut rows[row + 1];
            for ((x, y), below) in upper.iter_mut().zip(&lower).zip(below) {
                let old = *x;
                *below = sin * old + cos * y;
                *x = cos * old - sin * y;
            }
            lower = upper;
            at = row;
        }
        rows[at] = lower;
    }

    fn reflect_one(v: &[f64], beta: f64, x: &mut [f64]) {
        let share = beta * dot_body(v, x);
        for (x, v) in x.iter_mut().zip(v) {
            *x -= share * v;
        }
    }

    fn subtract_from(share: f64, y: &[f64], x: &mut [f64]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x -= share * y;
        }
    }
}
