//! Products in double precision of rows that are long and few: what PCA needs where there are fewer samples than
//! features.
//!
//! Plain multiplications and additions, in orders that depend on the lengths only, so that neither threads nor the
//! width of vectors change a bit.

use super::Engine;
use super::symmetric::{dot, tree};
use super::versions::versions;

/// Columns that are summed before the next row: four rows of so many are 16 KB, which stay in the first-level cache.
const STRIP: usize = 512;
/// Rows that share one pass over another: as many chains of sums as hide the latency of an addition.
const ROWS: usize = 4;
/// Rows and columns of a tile of products: strips of both are 256 KB, which stay in the second-level cache.
const TILE: usize = 32;
/// Rows of sums that share one pass over what is added.
const SUMS: usize = 8;

/// The products of all rows of `a` with all rows of `b`; without `b`, of `a` with itself, each pair once:
/// `put(i, j, a_i · b_j)`, there with `j <= i` at least. False if it was stopped before the end.
///
/// Each product is summed over strips of 512 columns, in order, each of them by eight chains and one fixed tree.
///
/// # Shapes
/// - `a`, `b`: rows of `len` values
pub fn row_products(
    engine: &Engine,
    len: usize,
    a: &[f64],
    b: Option<&[f64]>,
    is_stopped: &dyn Fn() -> bool,
    mut put: impl FnMut(usize, usize, f64),
) -> bool {
    let other = b.unwrap_or(a);
    let n_tiles = |rows: &[f64]| rows.len().div_ceil(TILE * len);
    let last = |i: usize| if b.is_some() { n_tiles(other) } else { i + 1 };
    let tiles: Vec<(usize, usize)> = (0..n_tiles(a)).flat_map(|i| (0..last(i)).map(move |j| (i, j))).collect();
    let of = |rows: &'_ [f64], i: usize| i * TILE * len..rows.len().min((i + 1) * TILE * len);
    let together = engine.chunks_between_looks((TILE * TILE * len) as u64).min(tiles.len());
    let mut sums = vec![0.0; together * TILE * TILE];
    for tiles in tiles.chunks(together.max(1)) {
        if is_stopped() {
            return false;
        }
        let sums = &mut sums[..tiles.len() * TILE * TILE];
        engine.for_each_chunk(sums, TILE * TILE, |at, sums| {
            let (i, j) = tiles[at];
            tile(engine, len, &a[of(a, i)], &other[of(other, j)], sums);
        });
        for (&(i, j), sums) in tiles.iter().zip(sums.chunks_exact(TILE * TILE)) {
            let (rows, columns) = (of(a, i).len() / len, of(other, j).len() / len);
            for (row, sums) in sums.chunks_exact(TILE).take(rows).enumerate() {
                for (column, sum) in sums[..columns].iter().enumerate() {
                    put(i * TILE + row, j * TILE + column, *sum);
                }
            }
        }
    }
    true
}

/// `sums[i, j] = a_i · b_j`, `[TILE, TILE]`.
fn tile(engine: &Engine, len: usize, a: &[f64], b: &[f64], sums: &mut [f64]) {
    sums.fill(0.0);
    for first in (0..len).step_by(STRIP) {
        let strip = first..len.min(first + STRIP);
        for (i, rows) in a.chunks(ROWS * len).enumerate() {
            for (j, other) in b.chunks_exact(len).enumerate() {
                let other = &other[strip.clone()];
                let mut found = [0.0; ROWS];
                if rows.len() == ROWS * len {
                    dots(engine.isa(), rows, len, first, other, &mut found);
                } else {
                    for (found, row) in found.iter_mut().zip(rows.chunks_exact(len)) {
                        *found = dot(engine, &row[strip.clone()], other);
                    }
                }
                for (r, found) in found.iter().enumerate().take(rows.len() / len) {
                    sums[(i * ROWS + r) * TILE + j] += found;
                }
            }
        }
    }
}

/// `out_i += Σ share(i, k) rows_k`, `k` ascending, in one chain for each value. False if it was stopped before the end.
///
/// # Shapes
/// - `rows`, `out`: rows of `len` values
pub fn add_rows(
    engine: &Engine,
    len: usize,
    share: impl Fn(usize, usize) -> f64 + Sync,
    rows: &[f64],
    out: &mut [f64],
    is_stopped: &dyn Fn() -> bool,
) -> bool {
    let work = (SUMS * rows.len()) as u64;
    engine.for_each_chunk_until(out, SUMS * len, work, is_stopped, |chunk, out| {
        for first in (0..len).step_by(STRIP) {
            let strip = first..len.min(first + STRIP);
            for (q, rows) in rows.chunks(ROWS * len).enumerate() {
                for (r, out) in out.chunks_exact_mut(len).enumerate() {
                    let (i, k, out) = (chunk * SUMS + r, q * ROWS, &mut out[strip.clone()]);
                    if rows.len() == ROWS * len {
                        let shares = std::array::from_fn(|at| share(i, k + at));
                        add_four(engine.isa(), shares, rows, len, first, out);
                    } else {
                        for (at, row) in rows.chunks_exact(len).enumerate() {
                            add_one(engine.isa(), share(i, k + at), &row[strip.clone()], out);
                        }
                    }
                }
            }
        }
    })
}

/// Values from `first` on of each of four rows of `len`, as many as `out` has.
#[inline(always)]
fn four(rows: &[f64], len: usize, first: usize, n: usize) -> [&[f64]; ROWS] {
    std::array::from_fn(|r| &rows[r * len + first..][..n])
}

versions! {
    fn dots(rows: &[f64], len: usize, first: usize, x: &[f64], sums: &mut [f64; ROWS]) {
        let [a, b, c, d] = four(rows, len, first, x.len());
        let mut lanes = [[0.0f64; 8]; ROWS];
        let (x, x_rest) = x.as_chunks::<8>();
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<8>(), d.as_chunks::<8>());
        for ((((x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
            for (lanes, row) in lanes.iter_mut().zip([a, b, c, d]) {
                for i in 0..8 {
                    lanes[i] += row[i] * x[i];
                }
            }
        }
        for (lanes, row) in lanes.iter_mut().zip([a_rest, b_rest, c_rest, d_rest]) {
            for ((lane, row), x) in lanes.iter_mut().zip(row).zip(x_rest) {
                *lane += row * x;
            }
        }
        *sums = lanes.map(tree);
    }

    fn add_four(shares: [f64; ROWS], rows: &[f64], len: usize, first: usize, out: &mut [f64]) {
        let [a, b, c, d] = four(rows, len, first, out.len());
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out = (((*out + shares[0] * a) + shares[1] * b) + shares[2] * c) + shares[3] * d;
        }
    }

    fn add_one(share: f64, row: &[f64], out: &mut [f64]) {
        for (out, x) in out.iter_mut().zip(row) {
            *out += share * x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;
    use crate::rng::Stream;

    fn normal(purpose: &str, n: usize) -> Vec<f64> {
        let mut values = vec![0.0; n];
        Stream::new(5, purpose, &[]).fill_normal(0, &mut values);
        values
    }

    fn products(engine: &Engine, len: usize, a: &[f64], b: Option<&[f64]>) -> Vec<f64> {
        let n = b.unwrap_or(a).len() / len;
        let mut out = vec![f64::NAN; a.len() / len * n];
        assert!(row_products(engine, len, a, b, &|| false, |i, j, x| out[i * n + j] = x));
        out
    }

    #[test]
    fn products_are_those_of_plain_sums_with_the_same_bits_everywhere() {
        for (n, m, len) in [(1, 1, 1), (5, 3, 7), (33, 70, 511), (66, 4, 1537), (4, 65, 512)] {
            let (a, b) = (normal("a", n * len), normal("b", m * len));
            let want = products(&Engine::with_isa(1, Isa::Portable), len, &a, Some(&b));
            for (at, got) in want.iter().enumerate() {
                let plain = (0..len).map(|k| a[at / m * len + k] * b[at % m * len + k]).sum::<f64>();
                assert!((got - plain).abs() < 1e-12 * len as f64, "{n} x {m} x {len}: {got}, {plain}");
            }
            let itself = products(&Engine::with_isa(1, Isa::Portable), len, &a, None);
            let whole = products(&Engine::with_isa(1, Isa::Portable), len, &a, Some(&a));
            assert!((0..n * n).filter(|at| at % n <= at / n).all(|at| itself[at].to_bits() == whole[at].to_bits()));
            for isa in Isa::available() {
                for threads in [1, 2, 5] {
                    let engine = Engine::with_isa(threads, isa);
                    assert!(products(&engine, len, &a, Some(&b)) == want, "{isa}, {threads}: {n} x {m} x {len}");
                    let got = products(&engine, len, &a, None);
                    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert!(bits(&got) == bits(&itself), "{isa}, {threads}: {n} x {len}");
                }
            }
        }
    }

    #[test]
    fn sums_of_rows_are_chains_in_order_with_the_same_bits_everywhere() {
        for (n, m, len) in [(1, 1, 1), (9, 6, 5), (17, 11, 1030), (8, 4, 512)] {
            let (shares, rows, start) = (normal("shares", n * m), normal("rows", m * len), normal("start", n * len));
            let mut want = start.clone();
            for i in 0..n {
                for k in 0..m {
                    for j in 0..len {
                        want[i * len + j] += shares[i * m + k] * rows[k * len + j];
                    }
                }
            }
            for isa in Isa::available() {
                for threads in [1, 2, 5] {
                    let mut got = start.clone();
                    let engine = Engine::with_isa(threads, isa);
                    assert!(add_rows(&engine, len, |i, k| shares[i * m + k], &rows, &mut got, &|| false));
                    assert!(got == want, "{isa}, {threads}: {n} x {m} x {len}");
                }
            }
        }
    }

    #[test]
    fn both_stop_when_told() {
        let engine = Engine::new(2);
        let rows = normal("a", 6);
        assert!(!row_products(&engine, 3, &rows, None, &|| true, |_, _, _| panic!("nothing is computed")));
        let mut out = [0.0; 3];
        assert!(!add_rows(&engine, 3, |_, _| 1.0, &rows, &mut out, &|| true));
        assert_eq!(out, [0.0; 3]);
    }
}
