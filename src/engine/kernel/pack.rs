//! Copies into panels, transposition, plain sums: what feeds the tiles.

use crate::engine::simd::Simd;

/// Copies `rows` x `columns` values; what is left of each of the target's rows (`to_row` values) becomes 0.
///
/// # Safety
/// The instruction set is there, the source readable, `rows * to_row` values of the target writable.
#[inline(always)]
pub(super) unsafe fn rows<S: Simd>(
    from: *const f32,
    from_row: usize,
    rows: usize,
    columns: usize,
    to: *mut f32,
    to_row: usize,
) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        for row in 0..rows {
            let (from, to) = (from.add(row * from_row), to.add(row * to_row));
            let mut i = 0;
            while i + S::LANES <= columns {
                S::store(to.add(i), S::load(from.add(i)));
                i += S::LANES;
            }
            while i < to_row {
                let v = if i < columns { S::load_masked(from.add(i), S::first(columns - i)) } else { S::zero() };
                S::store_masked(to.add(i), S::first(S::LANES.min(to_row - i)), v);
                i += S::LANES;
            }
        }
    }
}

/// Copies `rows` x `columns` values into panels of `wide` columns, row by row; `panel_len` values from one panel to the
/// next. The last panel is `columns` rounded up to whole vectors across, packed tightly.
///
/// # Safety
/// The instruction set is there, the source readable, all panels writable.
#[inline(always)]
pub(super) unsafe fn panels<S: Simd>(
    from: *const f32,
    from_row: usize,
    rows: usize,
    columns: usize,
    to: *mut f32,
    wide: usize,
    panel_len: usize,
) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        let full = columns / wide;
        let rest = columns % wide;
        let last = rest.next_multiple_of(S::LANES);
        for row in 0..rows {
            let from = from.add(row * from_row);
            for panel in 0..full {
                let (from, to) = (from.add(panel * wide), to.add(panel * panel_len + row * wide));
                let mut i = 0;
                while i < wide {
                    S::store(to.add(i), S::load(from.add(i)));
                    i += S::LANES;
                }
            }
            let (from, to) = (from.add(full * wide), to.add(full * panel_len + row * last));
            let mut i = 0;
            while i < rest {
                S::store(to.add(i), S::load_masked(from.add(i), S::first(S::LANES.min(rest - i))));
                i += S::LANES;
            }
        }
    }
}

/// [`rows`] with `centre[column]` taken off each value.
///
/// # Safety
/// As for [`rows`]; `centre` has `columns` values.
#[inline(always)]
pub(super) unsafe fn centred<S: Simd>(
    from: *const f32,
    from_row: usize,
    rows: usize,
    columns: usize,
    centre: *const f32,
    to: *mut f32,
    to_row: usize,
) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        for row in 0..rows {
            let (from, to) = (from.add(row * from_row), to.add(row * to_row));
            let mut i = 0;
            while i < to_row {
                let v = if i < columns {
                    let mask = S::first(S::LANES.min(columns - i));
                    S::sub(S::load_masked(from.add(i), mask), S::load_masked(centre.add(i), mask))
                } else {
                    S::zero()
                };
                S::store_masked(to.add(i), S::first(S::LANES.min(to_row - i)), v);
                i += S::LANES;
            }
        }
    }
}

/// Row `i` of the target is column `i` of the source, which is `rows` x `columns`.
///
/// # Safety
/// The instruction set is there, the source readable, the target's `columns` rows of `rows` values writable.
#[inline(always)]
pub(super) unsafe fn transposed<S: Simd>(
    from: *const f32,
    from_row: usize,
    rows: usize,
    columns: usize,
    to: *mut f32,
    to_row: usize,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let (full_rows, full_columns) = (rows - rows % S::LANES, columns - columns % S::LANES);
        for column in (0..full_columns).step_by(S::LANES) {
            for row in (0..full_rows).step_by(S::LANES) {
                S::transpose(from.add(row * from_row + column), from_row, to.add(column * to_row + row), to_row);
            }
        }
        for row in 0..rows {
            let start = if row < full_rows { full_columns } else { 0 };
            for column in start..columns {
                *to.add(column * to_row + row) = *from.add(row * from_row + column);
            }
        }
    }
}

/// Adds `rows` rows of `columns` values to `sums`, one after the other.
///
/// # Safety
/// The instruction set is there, the source readable, `sums` writable.
#[inline(always)]
pub(super) unsafe fn add_rows<S: Simd>(from: *const f32, from_row: usize, rows: usize, columns: usize, sums: *mut f32) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        let mut i = 0;
        // Four vectors at once hide the latency of an addition.
        while i + 4 * S::LANES <= columns {
            let mut acc = [S::zero(); 4];
            for n in 0..4 {
                acc[n] = S::load(sums.add(i + n * S::LANES));
            }
            for row in 0..rows {
                let from = from.add(row * from_row + i);
                for n in 0..4 {
                    acc[n] = S::add(acc[n], S::load(from.add(n * S::LANES)));
                }
            }
            for n in 0..4 {
                S::store(sums.add(i + n * S::LANES), acc[n]);
            }
            i += 4 * S::LANES;
        }
        while i + 2 * S::LANES <= columns {
            let mut acc = [S::load(sums.add(i)), S::load(sums.add(i + S::LANES))];
            for row in 0..rows {
                let from = from.add(row * from_row + i);
                for n in 0..2 {
                    acc[n] = S::add(acc[n], S::load(from.add(n * S::LANES)));
                }
            }
            S::store(sums.add(i), acc[0]);
            S::store(sums.add(i + S::LANES), acc[1]);
            i += 2 * S::LANES;
        }
        while i < columns {
            let mask = S::first(S::LANES.min(columns - i));
            let mut acc = S::load_masked(sums.add(i), mask);
            for row in 0..rows {
                acc = S::add(acc, S::load_masked(from.add(row * from_row + i), mask));
            }
            S::store_masked(sums.add(i), mask, acc);
            i += S::LANES;
        }
    }
}

/// `to[i] += from[i]` for `n` values.
///
/// # Safety
/// The instruction set is there, both are good for `n` values.
#[inline(always)]
pub(super) unsafe fn add<S: Simd>(to: *mut f32, from: *const f32, n: usize) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(to.add(i), S::add(S::load(to.add(i)), S::load(from.add(i))));
            i += S::LANES;
        }
        if i < n {
            let mask = S::first(n - i);
            let sum = S::add(S::load_masked(to.add(i), mask), S::load_masked(from.add(i), mask));
            S::store_masked(to.add(i), mask, sum);
        }
    }
}

/// `to[i] = 0` where `mask[i]` is at most 0, for `n` values.
///
/// # Safety
/// The instruction set is there, both are good for `n` values.
#[inline(always)]
pub(super) unsafe fn clip<S: Simd>(to: *mut f32, mask: *const f32, n: usize) {
    // SAFETY: by this function's contract; partial vectors are masked.
    unsafe {
        let mut i = 0;
        while i < n {
            let part = S::first(S::LANES.min(n - i));
            let v = S::zero_where_clipped(S::load_masked(to.add(i), part), S::load_masked(mask.add(i), part));
            S::store_masked(to.add(i), part, v);
            i += S::LANES;
        }
    }
}

/// Multiply-adds that touch no memory: what the processor can do at most. Returns the floating-point operations done.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub(super) unsafe fn probe<S: Simd>(rounds: usize) -> f64 {
    // SAFETY: by this function's contract.
    unsafe {
        let (factor, term) = (S::splat(0.999), S::splat(0.001));
        // Chains that start alike would be computed once.
        let mut acc = [S::zero(); 12];
        for (i, v) in acc.iter_mut().enumerate() {
            *v = S::splat(std::hint::black_box(i as f32));
        }
        for _ in 0..std::hint::black_box(rounds) {
            for v in &mut acc {
                *v = S::fma(*v, factor, term);
            }
        }
        let mut kept = [0.0f32; 16];
        for v in acc {
            S::store(kept.as_mut_ptr(), v);
            std::hint::black_box(&kept);
        }
        (rounds * 12 * S::LANES * 2) as f64
    }
}
