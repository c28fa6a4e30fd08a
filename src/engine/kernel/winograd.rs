//! What Winograd's F(2x2, 3x3) does before and after its products: transforms of images, of gradients and of kernels.
//!
//! A tile of 4x4 input pixels gives 2x2 outputs (Lavin & Gray 2016, "Fast algorithms for convolutional neural
//! networks"; Winograd 1980). Its 16 points are worked on by rows of 4: those of a block of tiles fit the L1 cache. The
//! order of every sum is that of [`crate::engine::reference::winograd_forward`] and its neighbours.

use super::product::{Finish, UNROLL, even_step, opaque};
use crate::engine::ahead::Fetch;
use crate::engine::reference::Activation;
use crate::engine::simd::Simd;

/// Points of a row of a transformed tile, and rows of points.
pub(in crate::engine) const SIDE: usize = 4;

/// Channels that lie together.
pub(in crate::engine) const CHUNK: usize = 32;

/// Values from one tile to the next in products: a row of points of a tile's chunk of channels is `[4][CHUNK]`, so that
/// all that a register tile reads lies at distances that the compiler knows.
pub(in crate::engine) const TILE: usize = SIDE * CHUNK;

/// A row of points of one row of tiles of an image.
pub(in crate::engine) struct ImageRow {
    /// The two rows of pixels it is made of ([`ImageRow::SOURCES`]), from the image's first column on. Rows outside the
    /// image are zeros.
    pub(in crate::engine) rows: [*const f32; 2],
    /// Whether they are added, else the second is taken off the first.
    pub(in crate::engine) adds: bool,
    /// Pixels of a row.
    pub(in crate::engine) width: usize,
    /// Columns of the first tile that lie to the left of the image; below 0 where it starts within.
    pub(in crate::engine) left: isize,
    pub(in crate::engine) n_tiles: usize,
    /// Values from one pixel to the next.
    pub(in crate::engine) pixel: usize,
    /// Channels that are transformed: the first one, and one past the last.
    pub(in crate::engine) channels: [usize; 2],
    pub(in crate::engine) to: Points,
    /// Values from one chunk of channels to the next.
    pub(in crate::engine) chunk: usize,
}

/// Where rows of points go.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Points {
    /// The first tile's first point.
    pub(in crate::engine) start: *mut f32,
    /// Values from one tile to the next, and from one point to the next.
    pub(in crate::engine) tile: usize,
    pub(in crate::engine) point: usize,
}

impl ImageRow {
    /// `Bᵀ d`: which two of a tile's rows of pixels make each row of points.
    pub(in crate::engine) const SOURCES: [[usize; 2]; SIDE] = [[0, 2], [1, 2], [2, 1], [3, 1]];
    /// The row of points where the two are added.
    pub(in crate::engine) const SUM: usize = 1;
}

/// A row of `Bᵀ d B`, columns first.
///
/// # Safety
/// The instruction set is there, rows are readable and the tiles writable.
#[inline(always)]
pub(super) unsafe fn image<S: Simd>(t: &ImageRow) {
    // SAFETY: by this function's contract.
    unsafe {
        for c in (t.channels[0]..t.channels[1]).step_by(S::LANES) {
            match (t.adds, t.channels[1] - c >= S::LANES) {
                (true, true) => image_lanes::<S, true, true>(t, c),
                (true, false) => image_lanes::<S, true, false>(t, c),
                (false, true) => image_lanes::<S, false, true>(t, c),
                (false, false) => image_lanes::<S, false, false>(t, c),
            }
        }
    }
}

/// The channels of one vector, a partial one unless `FULL`.
#[inline(always)]
unsafe fn image_lanes<S: Simd, const ADDS: bool, const FULL: bool>(t: &ImageRow, c: usize) {
    // SAFETY: by `image`'s contract; columns outside the row are not touched, partial vectors are masked.
    unsafe {
        let mask = S::first(S::LANES.min(t.channels[1] - c));
        let [upper, lower] = [t.rows[0].add(c), t.rows[1].add(c)];
        let width = t.width as isize;
        let value = |i: isize| {
            let at = i as usize * t.pixel;
            let (a, b) = (load::<S, FULL>(upper.add(at), mask), load::<S, FULL>(lower.add(at), mask));
            if ADDS { S::add(a, b) } else { S::sub(a, b) }
        };
        // Zero where the image has no column.
        let column = |i: isize| if i < 0 || i >= width { S::zero() } else { value(i) };
        let (mut a, mut b) = (column(-t.left), column(1 - t.left));
        let mut to = t.to.start.add(c / CHUNK * t.chunk + c % CHUNK);
        let mut next = 2 - t.left;
        for _ in 0..t.n_tiles {
            let (d, e) = if next >= 0 && next + 1 < width {
                (value(next), value(next + 1))
            } else {
                (column(next), column(next + 1))
            };
            put::<S, FULL>([S::sub(a, d), S::add(b, d), S::sub(d, b), S::sub(e, b)], to, t.to.point, mask);
            to = to.wrapping_add(t.to.tile);
            next += 2;
            (a, b) = (d, e);
        }
    }
}

#[inline(always)]
unsafe fn load<S: Simd, const FULL: bool>(p: *const f32, mask: S::Mask) -> S::V {
    // SAFETY: by the callers' contract.
    unsafe { if FULL { S::load(p) } else { S::load_masked(p, mask) } }
}

#[inline(always)]
unsafe fn store<S: Simd, const FULL: bool>(p: *mut f32, mask: S::Mask, v: S::V) {
    // SAFETY: by the callers' contract.
    unsafe { if FULL { S::store(p, v) } else { S::store_masked(p, mask, v) } }
}

/// Stores a row of points.
#[inline(always)]
unsafe fn put<S: Simd, const FULL: bool>(points: [S::V; SIDE], to: *mut f32, point: usize, mask: S::Mask) {
    // SAFETY: by the callers' contract.
    unsafe {
        let point = opaque(point as isize) as usize;
        for (j, v) in points.into_iter().enumerate() {
            store::<S, FULL>(to.add(j * point), mask, v);
        }
    }
}

/// A row of points of one row of tiles of output gradients.
pub(in crate::engine) struct GradientRow {
    /// Which row of points.
    pub(in crate::engine) row: usize,
    /// The tiles' two rows of pixels; the second may be zeros. With `taps`, both are that row of pooled pixels.
    pub(in crate::engine) rows: [*const f32; 2],
    /// Where pooled pixels came from, or null.
    pub(in crate::engine) taps: *const u8,
    /// Pixels of a row, before pooling.
    pub(in crate::engine) width: usize,
    pub(in crate::engine) n_tiles: usize,
    /// Values from one pixel to the next.
    pub(in crate::engine) pixel: usize,
    /// Filters that are transformed; what is left of each whole vector becomes 0.
    pub(in crate::engine) columns: usize,
    pub(in crate::engine) to: Points,
}

/// A row of `A y Aᵀ`, columns first.
///
/// # Safety
/// The instruction set is there, rows and taps are readable and the tiles writable.
#[inline(always)]
pub(super) unsafe fn gradient<S: Simd>(t: &GradientRow) {
    // SAFETY: by this function's contract.
    unsafe {
        for c in (0..t.columns).step_by(S::LANES) {
            match (t.row, t.columns - c >= S::LANES) {
                (0, true) => gradient_lanes::<S, 0, true>(t, c),
                (1, true) => gradient_lanes::<S, 1, true>(t, c),
                (2, true) => gradient_lanes::<S, 2, true>(t, c),
                (_, true) => gradient_lanes::<S, 3, true>(t, c),
                (0, false) => gradient_lanes::<S, 0, false>(t, c),
                (1, false) => gradient_lanes::<S, 1, false>(t, c),
                (2, false) => gradient_lanes::<S, 2, false>(t, c),
                (_, false) => gradient_lanes::<S, 3, false>(t, c),
            }
        }
    }
}

/// The filters of one vector, a partial one unless `FULL`, of row `ROW` of the points.
#[inline(always)]
unsafe fn gradient_lanes<S: Simd, const ROW: usize, const FULL: bool>(t: &GradientRow, c: usize) {
    // SAFETY: by `gradient`'s contract; pixels outside the row are not touched, partial vectors are masked.
    unsafe {
        let n = S::LANES.min(t.columns - c);
        let mask = S::first(n);
        let mut to = t.to.start.add(c);
        for tile in 0..t.n_tiles {
            let (left, right) = if t.taps.is_null() {
                let at = 2 * tile * t.pixel + c;
                let pair = |at: usize| {
                    let upper = if ROW < 3 { load::<S, FULL>(t.rows[0].add(at), mask) } else { S::zero() };
                    let lower = if ROW > 0 { load::<S, FULL>(t.rows[1].add(at), mask) } else { S::zero() };
                    (upper, lower)
                };
                let nothing = (S::zero(), S::zero());
                (pair(at), if 2 * tile + 1 < t.width { pair(at + t.pixel) } else { nothing })
            } else {
                let at = tile * t.pixel + c;
                let (g, tap) = (load::<S, FULL>(t.rows[0].add(at), mask), S::load_bytes(t.taps.add(at), n));
                let [y0, y1] = [S::where_equal(g, tap, S::zero()), S::where_equal(g, tap, S::splat(1.0))];
                let [y2, y3] = [S::where_equal(g, tap, S::splat(2.0)), S::where_equal(g, tap, S::splat(3.0))];
                ((y0, y2), (y1, y3))
            };
            let (left, right) = (spread::<S, ROW>(left), spread::<S, ROW>(right));
            put::<S, true>([left, S::add(left, right), S::sub(left, right), right], to, t.to.point, mask);
            to = to.wrapping_add(t.to.tile);
        }
    }
}

/// Row `ROW` of `A y`, in one column.
#[inline(always)]
unsafe fn spread<S: Simd, const ROW: usize>((upper, lower): (S::V, S::V)) -> S::V {
    // SAFETY: by the callers' contract.
    unsafe {
        match ROW {
            0 => upper,
            1 => S::add(upper, lower),
            2 => S::sub(upper, lower),
            _ => lower,
        }
    }
}

/// Products of one point: some tiles times the columns of a panel, summed over channels.
pub(in crate::engine) struct PointTile {
    /// The point in the first tile's first chunk of channels, and values from one chunk to the next.
    pub(in crate::engine) x: *const f32,
    pub(in crate::engine) chunk: usize,
    /// Channels.
    pub(in crate::engine) depth: usize,
    /// The panel of weights, `[depth][NR * LANES]`.
    pub(in crate::engine) panel: *const f32,
    /// The sums, `[tile][NR * LANES]`.
    pub(in crate::engine) y: *mut f32,
    /// Fetched on the way, a bit every [`UNROLL`] steps.
    pub(in crate::engine) fetch: Fetch,
}

/// Computes one register tile, `MR` tiles times `NR` vectors. All that it reads and writes lies at distances that the
/// compiler knows: 90 % of the peak with 32 channels, where tiles of 3 x 4 points, whose sums could be gathered in
/// registers, took 76 and 7 x 2 points 72 (they load more for each multiplication; Sapphire Rapids, alone).
///
/// # Safety
/// The instruction set is there, tiles and panel are readable and the sums writable.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, const MR: usize, const NR: usize>(t: &PointTile) {
    // SAFETY: by this function's contract.
    unsafe {
        let mut acc = [[S::zero(); NR]; MR];
        let (mut x, mut w, mut left, mut fetch) = (t.x, t.panel, t.depth, t.fetch);
        while left > 0 {
            let n = left.min(CHUNK);
            let mut k = 0;
            while k + UNROLL <= n {
                fetch.go();
                let x = x.add(k);
                for u in 0..UNROLL {
                    even_step::<S, MR, NR, TILE>(&mut acc, x.add(u), w.add(u * NR * S::LANES));
                }
                w = w.add(UNROLL * NR * S::LANES);
                k += UNROLL;
            }
            while k < n {
                even_step::<S, MR, NR, TILE>(&mut acc, x.add(k), w);
                w = w.add(NR * S::LANES);
                k += 1;
            }
            x = x.wrapping_add(t.chunk);
            left -= n;
        }
        for j in 0..MR {
            for n in 0..NR {
                S::store(t.y.add((j * NR + n) * S::LANES), acc[j][n]);
            }
        }
    }
}

/// One row of tiles of sums, to be brought back into two rows of pixels, or one of pooled pixels.
pub(in crate::engine) struct OutputRow {
    /// The first tile's first point, and values from one point and one tile to the next.
    pub(in crate::engine) sums: *const f32,
    pub(in crate::engine) point: usize,
    pub(in crate::engine) wide: usize,
    pub(in crate::engine) n_tiles: usize,
    /// Columns that are written.
    pub(in crate::engine) columns: usize,
    /// Both rows of pixels; the second is null where the image has none. If pixels are pooled, the first is their row.
    pub(in crate::engine) rows: [*mut f32; 2],
    /// Pixels of a row, before pooling.
    pub(in crate::engine) width: usize,
    /// Values from one pixel to the next.
    pub(in crate::engine) pixel: usize,
    pub(in crate::engine) finish: Finish,
    pub(in crate::engine) pooled: Option<PooledRow>,
}

/// How pixels are pooled.
#[derive(Clone, Copy)]
pub(in crate::engine) struct PooledRow {
    /// What gets which of the four was largest; may be null.
    pub(in crate::engine) taps: *mut u8,
    /// Whether there is none where the largest is at most 0.
    pub(in crate::engine) relu_mask: bool,
}

/// `Aᵀ m A` of a row of tiles, rows first; then what [`Finish`] says of each pixel, or the largest of four.
///
/// # Safety
/// The instruction set is there, the sums are readable in whole vectors and the columns of the pixels are writable.
#[inline(always)]
pub(super) unsafe fn output<S: Simd>(t: &OutputRow) {
    // SAFETY: by this function's contract.
    unsafe {
        for c in (0..t.columns).step_by(S::LANES) {
            match (t.pooled.is_some(), t.columns - c >= S::LANES) {
                (true, true) => output_lanes::<S, true, true>(t, c),
                (true, false) => output_lanes::<S, true, false>(t, c),
                (false, true) => output_lanes::<S, false, true>(t, c),
                (false, false) => output_lanes::<S, false, false>(t, c),
            }
        }
    }
}

/// The columns of one vector, a partial one unless `FULL`.
#[inline(always)]
unsafe fn output_lanes<S: Simd, const POOLS: bool, const FULL: bool>(t: &OutputRow, c: usize) {
    // SAFETY: by `output`'s contract; pixels outside the rows are not touched, partial vectors are masked.
    unsafe {
        let mask = S::first(S::LANES.min(t.columns - c));
        let bias = (!t.finish.bias.is_null()).then(|| load::<S, FULL>(t.finish.bias.add(c), mask));
        let mut sums = t.sums.add(c);
        for tile in 0..t.n_tiles {
            // Else the compiler keeps a running pointer to each of 16 points, which is too many.
            let (point, mut from) = (opaque(t.point as isize) as usize, sums);
            let mut h = [[S::zero(); 2]; SIDE];
            for h in &mut h {
                let [a, b] = [S::load(from), S::load(from.add(point))];
                let [d, e] = [S::load(from.add(2 * point)), S::load(from.add(3 * point))];
                *h = gathered::<S>([a, b, d, e]);
                from = from.wrapping_add(4 * point);
            }
            sums = sums.wrapping_add(t.wide);
            let left = gathered::<S>([h[0][0], h[1][0], h[2][0], h[3][0]]);
            let right = gathered::<S>([h[0][1], h[1][1], h[2][1], h[3][1]]);
            if POOLS {
                pool::<S, FULL>(t, tile, c, [left[0], right[0], left[1], right[1]], bias, mask);
                continue;
            }
            pixels::<S, FULL>(t, t.rows[0], tile, c, [left[0], right[0]], bias, mask);
            if !t.rows[1].is_null() {
                pixels::<S, FULL>(t, t.rows[1], tile, c, [left[1], right[1]], bias, mask);
            }
        }
    }
}

/// `Aᵀ m`.
#[inline(always)]
unsafe fn gathered<S: Simd>(m: [S::V; SIDE]) -> [S::V; 2] {
    // SAFETY: by the callers' contract.
    unsafe { [S::add(S::add(m[0], m[1]), m[2]), S::add(S::sub(m[1], m[2]), m[3])] }
}

/// Writes two pixels of a row, the second if there is one.
#[inline(always)]
unsafe fn pixels<S: Simd, const FULL: bool>(
    t: &OutputRow,
    row: *mut f32,
    tile: usize,
    c: usize,
    values: [S::V; 2],
    bias: Option<S::V>,
    mask: S::Mask,
) {
    // SAFETY: by `output`'s contract.
    unsafe {
        for (j, v) in values.into_iter().enumerate() {
            if 2 * tile + j < t.width {
                let to = row.add((2 * tile + j) * t.pixel + c);
                let mut v = finished::<S>(t, bias, v);
                if let Some(clip) = t.finish.clip {
                    v = S::zero_where_clipped(v, load::<S, FULL>(to.wrapping_offset(clip), mask));
                }
                store::<S, FULL>(to, mask, v);
            }
        }
    }
}

/// Writes the largest of four pixels, and which it was.
#[inline(always)]
unsafe fn pool<S: Simd, const FULL: bool>(
    t: &OutputRow,
    tile: usize,
    c: usize,
    four: [S::V; 4],
    bias: Option<S::V>,
    mask: S::Mask,
) {
    // SAFETY: by `output`'s contract.
    unsafe {
        let mut best = (finished::<S>(t, bias, four[0]), S::zero());
        for (i, v) in four.into_iter().enumerate().skip(1) {
            best = S::larger(best, (finished::<S>(t, bias, v), S::splat(i as f32)));
        }
        let to = tile * t.pixel + c;
        store::<S, FULL>(t.rows[0].add(to), mask, best.0);
        if let Some(pooled) = t.pooled.filter(|pooled| !pooled.taps.is_null()) {
            let none = S::splat(super::pool::NO_TAP);
            let tap = if pooled.relu_mask { S::replace_where_clipped(best.1, none, best.0) } else { best.1 };
            S::store_bytes(pooled.taps.add(to), S::LANES.min(t.columns - c), tap);
        }
    }
}

/// A pixel after bias and activation.
#[inline(always)]
unsafe fn finished<S: Simd>(t: &OutputRow, bias: Option<S::V>, v: S::V) -> S::V {
    // SAFETY: by `output`'s contract.
    unsafe {
        let v = match bias {
            Some(bias) => S::add(v, bias),
            None => v,
        };
        if t.finish.activation == Activation::Relu { S::relu(v) } else { v }
    }
}

/// Transforms kernels: `G g Gᵀ`, columns first. Tap `k` of the `i`-th of `n` kernels is `from[k * plane + i]`, its
/// point `p` goes to `to[p * to_point + i]`.
///
/// # Safety
/// The instruction set is there, taps are readable and points writable.
#[inline(always)]
pub(super) unsafe fn weights<S: Simd>(from: *const f32, plane: usize, n: usize, to: *mut f32, to_point: usize) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        for i in (0..n).step_by(S::LANES) {
            let mask = S::first(S::LANES.min(n - i));
            let mut columns = [[S::zero(); 4]; 3];
            for (j, column) in columns.iter_mut().enumerate() {
                let g = |k: usize| S::load_masked(from.add((3 * k + j) * plane + i), mask);
                *column = widened::<S>([g(0), g(1), g(2)]);
            }
            for row in 0..4 {
                let [a, b, c] = columns;
                for (j, v) in widened::<S>([a[row], b[row], c[row]]).into_iter().enumerate() {
                    S::store_masked(to.add((4 * row + j) * to_point + i), mask, v);
                }
            }
        }
    }
}

/// `G g`; the same of a kernel that is turned round, with first and last value exchanged.
#[inline(always)]
unsafe fn widened<S: Simd>(g: [S::V; 3]) -> [S::V; 4] {
    // SAFETY: by the callers' contract.
    unsafe {
        let (half, outer) = (S::splat(0.5), S::add(g[0], g[2]));
        let (sum, difference) = (S::add(outer, g[1]), S::sub(outer, g[1]));
        [g[0], S::fma(half, sum, S::zero()), S::fma(half, difference, S::zero()), g[2]]
    }
}

/// Transforms sums of gradients into gradients of kernels: `Gᵀ s G`, columns first. Point `p` of the `i`-th of `n` sums
/// is `from[p * plane + i]`, its tap `k` goes to `to[k * to_plane + i]`.
///
/// # Safety
/// The instruction set is there, points are readable and taps writable.
#[inline(always)]
pub(super) unsafe fn grad_weights<S: Simd>(from: *const f32, plane: usize, n: usize, to: *mut f32, to_plane: usize) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        for i in (0..n).step_by(S::LANES) {
            let mask = S::first(S::LANES.min(n - i));
            let mut columns = [[S::zero(); 3]; 4];
            for (j, column) in columns.iter_mut().enumerate() {
                let s = |k: usize| S::load_masked(from.add((4 * k + j) * plane + i), mask);
                *column = narrowed::<S>([s(0), s(1), s(2), s(3)]);
            }
            for row in 0..3 {
                let [a, b, c, d] = columns;
                for (j, v) in narrowed::<S>([a[row], b[row], c[row], d[row]]).into_iter().enumerate() {
                    S::store_masked(to.add((3 * row + j) * to_plane + i), mask, v);
                }
            }
        }
    }
}

/// `Gᵀ s`.
#[inline(always)]
unsafe fn narrowed<S: Simd>(s: [S::V; 4]) -> [S::V; 3] {
    // SAFETY: by the callers' contract.
    unsafe {
        let (half, sum) = (S::splat(0.5), S::add(s[1], s[2]));
        [S::fma(half, sum, s[0]), S::fma(half, S::sub(s[1], s[2]), S::zero()), S::fma(half, sum, s[3])]
    }
}
