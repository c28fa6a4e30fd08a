//! The inner loops of the symmetric eigenproblem, in double precision, compiled for each instruction set.
//!
//! Plain multiplications and additions, eight lanes and one fixed tree: the width of the vectors changes no bit.

use super::Engine;
use super::versions::versions;

/// Columns in a strip of eigenvectors: with 784 rows a strip is 200 KB, which fits a second-level cache, and a row of it
/// fits the registers.
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

/// `row -= v_i w + w_i v`, then `row · x`.
///
/// # Panics
/// If the lengths differ.
pub fn update_and_dot(engine: &Engine, row: &mut [f64], v: (&[f64], f64), w: (&[f64], f64), x: &[f64]) -> f64 {
    assert!([v.0.len(), w.0.len(), x.len()] == [row.len(); 3], "vectors of a row of {}", row.len());
    update(engine.isa(), row, v.0, v.1, w.0, w.1, x)
}

/// Applies rotations, one after the other, to a strip of [`STRIP`] columns.
///
/// # Panics
/// If a rotation is about a row that is not there.
pub fn rotate(engine: &Engine, strip: &mut [f64], rotations: &[Rotation]) {
    rotate_rows(engine.isa(), strip, rotations);
}

/// `x -= beta (v · x) v`: a reflection.
///
/// # Panics
/// If the lengths differ.
pub fn reflect(engine: &Engine, v: &[f64], beta: f64, x: &mut [f64]) {
    assert_eq!(v.len(), x.len(), "lengths of a reflector and what it reflects");
    reflect_one(engine.isa(), v, beta, x);
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
fn tree([a, b, c, d, e, f, g, h]: [f64; 8]) -> f64 {
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
