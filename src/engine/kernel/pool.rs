//! Max pooling of 2x2 windows side by side, and its gradient: what a convolution does while its pixels are in the
//! cache.

use crate::engine::simd::Simd;

/// The tap of an output whose gradient goes nowhere.
pub(super) const NO_TAP: f32 = 255.0;

/// Pools two rows of `2 * pixels` pixels into one of `pixels`: the largest value, the first where several are largest,
/// NaN where there is one. `taps`, unless null, gets which of the four it was; with `relu_mask`, none (255) where it is
/// at most 0.
///
/// # Safety
/// The instruction set is there, both rows are readable, `out` and `taps` writable.
#[inline(always)]
pub(super) unsafe fn pool_row<S: Simd>(
    upper: *const f32,
    lower: *const f32,
    pixels: usize,
    channels: usize,
    relu_mask: bool,
    out: *mut f32,
    taps: *mut u8,
) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        for pixel in 0..pixels {
            let at = 2 * pixel * channels;
            let (upper, lower, to) = (upper.add(at), lower.add(at), pixel * channels);
            for i in (0..channels).step_by(S::LANES) {
                let n = S::LANES.min(channels - i);
                let mask = S::first(n);
                let load = |p: *const f32| if n == S::LANES { S::load(p) } else { S::load_masked(p, mask) };
                let mut best = (load(upper.add(i)), S::zero());
                best = S::larger(best, (load(upper.add(channels + i)), S::splat(1.0)));
                best = S::larger(best, (load(lower.add(i)), S::splat(2.0)));
                best = S::larger(best, (load(lower.add(channels + i)), S::splat(3.0)));
                if n == S::LANES {
                    S::store(out.add(to + i), best.0);
                } else {
                    S::store_masked(out.add(to + i), mask, best.0);
                }
                if !taps.is_null() {
                    let none = S::splat(NO_TAP);
                    let tap = if relu_mask { S::replace_where_clipped(best.1, none, best.0) } else { best.1 };
                    S::store_bytes(taps.add(to + i), n, tap);
                }
            }
        }
    }
}

/// Gradients of a row of pooled pixels, to be spread over the two rows of pixels that they came from.
pub(in crate::engine) struct SpreadRow {
    pub(in crate::engine) grad: *const f32,
    /// Which of the four each came from; none (255) goes nowhere.
    pub(in crate::engine) taps: *const u8,
    /// Values from one pooled pixel to the next.
    pub(in crate::engine) from_pixel: usize,
    /// Pooled pixels.
    pub(in crate::engine) pixels: usize,
    pub(in crate::engine) columns: usize,
    /// The two rows, of `2 * pixels` pixels.
    pub(in crate::engine) to: [*mut f32; 2],
    /// Values from one pixel to the next; those behind `columns` become 0.
    pub(in crate::engine) to_pixel: usize,
}

/// Spreads gradients: each to its tap, 0 everywhere else.
///
/// # Safety
/// The instruction set is there, gradients and taps are readable, both rows writable; `to_pixel` is whole vectors,
/// unless it is `columns`.
#[inline(always)]
pub(super) unsafe fn spread_row<S: Simd>(row: &SpreadRow) {
    let &SpreadRow { grad, taps, from_pixel, pixels, columns, to: [upper, lower], to_pixel } = row;
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        for pixel in 0..pixels {
            let (grad, taps) = (grad.add(pixel * from_pixel), taps.add(pixel * from_pixel));
            let (upper, lower) = (upper.add(2 * pixel * to_pixel), lower.add(2 * pixel * to_pixel));
            for i in (0..to_pixel).step_by(S::LANES) {
                let n = S::LANES.min(columns.saturating_sub(i));
                let (g, tap) = if n == S::LANES {
                    (S::load(grad.add(i)), S::load_bytes(taps.add(i), n))
                } else {
                    (S::load_masked(grad.add(i), S::first(n)), S::load_bytes(taps.add(i), n))
                };
                let to = [upper.add(i), upper.add(to_pixel + i), lower.add(i), lower.add(to_pixel + i)];
                let width = S::LANES.min(to_pixel - i);
                for (at, to) in to.into_iter().enumerate() {
                    let v = S::where_equal(g, tap, S::splat(at as f32));
                    if width == S::LANES { S::store(to, v) } else { S::store_masked(to, S::first(width), v) }
                }
            }
        }
    }
}
