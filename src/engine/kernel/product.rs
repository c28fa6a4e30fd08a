//! A register tile of a product: MR pixels (or rows) times NR vectors of filters (or columns).
//!
//! With `EACH` every lane has an input of its own (a depthwise convolution) instead of one for all lanes.

use crate::engine::ahead::Fetch;
use crate::engine::reference::Activation;
use crate::engine::simd::Simd;

/// The most rows of a register tile, over all instruction sets.
pub(in crate::engine) const MAX_MR: usize = 14;

/// A stretch of the chain: `len` input values in a row, and as many rows of the weight panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Run {
    /// Where it starts, in values from a pixel's pointer.
    pub(in crate::engine) x: isize,
    /// First row of the weight panel.
    pub(in crate::engine) row: usize,
    /// Values; at least 1.
    pub(in crate::engine) len: usize,
}

/// What happens to a tile when its chains are complete.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Finish {
    /// The first column's bias; may be null.
    pub(in crate::engine) bias: *const f32,
    pub(in crate::engine) activation: Activation,
    /// From an output value to the value that clips it, if any: `mask = y.wrapping_offset(clip)`.
    pub(in crate::engine) clip: Option<isize>,
}

impl Finish {
    /// Chains that are the result as they are.
    pub(in crate::engine) const NONE: Finish =
        Finish { bias: std::ptr::null(), activation: Activation::None, clip: None };

    /// Bias, then activation.
    pub(in crate::engine) fn new(bias: Option<&[f32]>, activation: Activation) -> Finish {
        Finish { bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr), activation, clip: None }
    }

    /// Values of what begins at `to` are 0 where those of the mask are at most 0.
    pub(in crate::engine) fn clipped(to: *const f32, mask: Option<&[f32]>) -> Finish {
        let distance =
            |mask: &[f32]| (mask.as_ptr().addr() as isize).wrapping_sub(to.addr() as isize) / size_of::<f32>() as isize;
        Finish { clip: mask.map(distance), ..Finish::NONE }
    }
}

// SAFETY: the bias is only read, and outlives the call it is part of.
unsafe impl Send for Finish {}
// SAFETY: as above.
unsafe impl Sync for Finish {}

/// One tile's work.
pub(in crate::engine) struct ProductTile {
    pub(in crate::engine) runs: *const Run,
    pub(in crate::engine) n_runs: usize,
    /// The weight panel, `NR * LANES` columns readable in each row.
    pub(in crate::engine) panel: *const f32,
    /// Values from one row of the panel to the next.
    pub(in crate::engine) panel_row: usize,
    /// Columns that are written, above `(NR - 1) * LANES`.
    pub(in crate::engine) columns: usize,
    /// Whether chains go on from what `y` holds.
    pub(in crate::engine) resumes: bool,
    /// What to do at the end; nothing if the chains go on later.
    pub(in crate::engine) finish: Option<Finish>,
    /// Fetched on the way, a bit every [`UNROLL`] steps.
    pub(in crate::engine) fetch: Fetch,
    pub(in crate::engine) x: [*const f32; MAX_MR],
    pub(in crate::engine) y: [*mut f32; MAX_MR],
}

/// Tiles of neighbouring pixels of one row, and of those below them: the chains of a first layer are short, so that
/// what it takes to set up a tile weighs as much. 28x28x1 -> 32 k3 forward of 64 images, Zen 5, ms tile by tile and in
/// strips: 1 thread 0.190 and 0.152, 2 threads 0.101 and 0.079; 32x32x3 -> 32 k5 1.28 and 1.24.
pub(in crate::engine) struct Strip {
    pub(in crate::engine) runs: *const Run,
    pub(in crate::engine) n_runs: usize,
    /// The weight panel, `NR * LANES` columns in each row, one row after the other.
    pub(in crate::engine) panel: *const f32,
    /// Columns that are written, above `(NR - 1) * LANES`.
    pub(in crate::engine) columns: usize,
    pub(in crate::engine) finish: Finish,
    /// Fetched on the way, a bit every run.
    pub(in crate::engine) fetch: Fetch,
    /// The first pixel.
    pub(in crate::engine) x: *const f32,
    pub(in crate::engine) y: *mut f32,
    /// Values from one pixel of the target to the next.
    pub(in crate::engine) y_pixel: usize,
    /// Rows, and values from one to the next.
    pub(in crate::engine) n_rows: usize,
    pub(in crate::engine) x_row: usize,
    pub(in crate::engine) y_row: usize,
}

/// Steps of the chain per round: the pixel pointers, too many for the registers, are then reloaded once per round.
pub(in crate::engine) const UNROLL: usize = 4;

/// Computes one tile.
///
/// # Safety
/// The instruction set is there; every run of every pixel lies in readable memory, as do the panel's rows; the columns
/// of every `y` are writable, and readable at `clip`. Pointers of pixels themselves may lie outside the image.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const MR: usize, const NR: usize, const EACH: bool>(t: &ProductTile) {
    // SAFETY: by this function's contract.
    unsafe {
        let tail = S::first(t.columns - (NR - 1) * S::LANES);
        let mut acc = [[S::zero(); NR]; MR];
        if t.resumes {
            for (acc, y) in acc.iter_mut().zip(t.y) {
                for n in 0..NR {
                    let p = y.add(n * S::LANES);
                    acc[n] = if n + 1 < NR { S::load(p) } else { S::load_masked(p, tail) };
                }
            }
        }
        let mut x = [std::ptr::null::<f32>(); MR];
        x.copy_from_slice(&t.x[..MR]);
        // Where rows of the panel follow each other, the compiler need not keep their distance in a register.
        if t.panel_row == NR * S::LANES {
            chains::<S, MR, NR, EACH>(t, NR * S::LANES, &x, &mut acc, tail);
        } else {
            chains::<S, MR, NR, EACH>(t, t.panel_row, &x, &mut acc, tail);
        }
        let Some(finish) = t.finish else {
            for (acc, y) in acc.iter().zip(t.y) {
                put::<S, NR>(acc, y, tail);
            }
            return;
        };
        complete::<S, MR, NR>(&finish, &mut acc, tail);
        if let Some(clip) = finish.clip {
            for (acc, y) in acc.iter_mut().zip(t.y) {
                for n in 0..NR {
                    let p = y.wrapping_offset(clip).wrapping_add(n * S::LANES);
                    let mask = if n + 1 < NR { S::load(p) } else { S::load_masked(p, tail) };
                    acc[n] = S::zero_where_clipped(acc[n], mask);
                }
            }
        }
        for (acc, y) in acc.iter().zip(t.y) {
            put::<S, NR>(acc, y, tail);
        }
    }
}

/// Computes a tile in each row of a strip; pixels of the source are `X_PIXEL` values apart, which the compiler must
/// know to need one pointer for all of them (with a pointer each it kept sums in memory).
///
/// # Safety
/// As for [`tile`], of each row.
#[inline(always)]
pub(super) unsafe fn strip<S: Simd, const MR: usize, const NR: usize, const X_PIXEL: usize>(t: &Strip) {
    // SAFETY: by this function's contract.
    unsafe {
        let tail = S::first(t.columns - (NR - 1) * S::LANES);
        let (mut x, mut y) = (t.x, t.y);
        let mut fetch = t.fetch;
        for _ in 0..t.n_rows {
            let mut acc = [[S::zero(); NR]; MR];
            for run in 0..t.n_runs {
                let Run { x: mut at, row, mut len } = *t.runs.add(run);
                let mut w = t.panel.add(row * NR * S::LANES);
                fetch.go();
                while len > 0 {
                    at = opaque(at);
                    even_step::<S, MR, NR, X_PIXEL>(&mut acc, x.wrapping_offset(at), w);
                    at += 1;
                    w = w.wrapping_add(NR * S::LANES);
                    len -= 1;
                }
            }
            complete::<S, MR, NR>(&t.finish, &mut acc, tail);
            let mut to = y;
            for j in 0..MR {
                put::<S, NR>(&acc[j], to, tail);
                to = to.wrapping_add(t.y_pixel);
            }
            (x, y) = (x.wrapping_add(t.x_row), y.wrapping_add(t.y_row));
        }
    }
}

/// Adds the bias to complete chains, and applies the activation.
///
/// # Safety
/// The instruction set is there; the columns of the bias are readable.
#[inline(always)]
unsafe fn complete<S: Simd, const MR: usize, const NR: usize>(
    finish: &Finish,
    acc: &mut [[S::V; NR]; MR],
    tail: S::Mask,
) {
    // SAFETY: by this function's contract.
    unsafe {
        if !finish.bias.is_null() {
            let mut bias = [S::zero(); NR];
            for n in 0..NR {
                let p = finish.bias.add(n * S::LANES);
                bias[n] = if n + 1 < NR { S::load(p) } else { S::load_masked(p, tail) };
            }
            for acc in acc.iter_mut() {
                for n in 0..NR {
                    acc[n] = S::add(acc[n], bias[n]);
                }
            }
        }
        if finish.activation == Activation::Relu {
            for acc in acc.iter_mut() {
                for n in 0..NR {
                    acc[n] = S::relu(acc[n]);
                }
            }
        }
    }
}

/// All steps of the tile's chains.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn chains<S: Simd, const MR: usize, const NR: usize, const EACH: bool>(
    t: &ProductTile,
    panel_row: usize,
    x: &[*const f32; MR],
    acc: &mut [[S::V; NR]; MR],
    tail: S::Mask,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let mut fetch = t.fetch;
        for run in 0..t.n_runs {
            let Run { x: mut at, row, mut len } = *t.runs.add(run);
            let mut w = t.panel.add(row * panel_row);
            while len >= UNROLL {
                at = opaque(at);
                fetch.go();
                for u in 0..UNROLL {
                    step::<S, MR, NR, EACH>(acc, x, at + u as isize, w.add(u * panel_row), tail);
                }
                at += UNROLL as isize;
                w = w.wrapping_add(UNROLL * panel_row);
                len -= UNROLL;
            }
            while len > 0 {
                at = opaque(at);
                step::<S, MR, NR, EACH>(acc, x, at, w, tail);
                at += 1;
                w = w.wrapping_add(panel_row);
                len -= 1;
            }
        }
    }
}

/// One step of every chain of the tile.
#[inline(always)]
unsafe fn step<S: Simd, const MR: usize, const NR: usize, const EACH: bool>(
    acc: &mut [[S::V; NR]; MR],
    x: &[*const f32; MR],
    at: isize,
    w: *const f32,
    tail: S::Mask,
) {
    // SAFETY: by `tile`'s contract.
    unsafe {
        let mut weights = [S::zero(); NR];
        for n in 0..NR {
            weights[n] = S::load(w.add(n * S::LANES));
        }
        for j in 0..MR {
            let p = x[j].wrapping_offset(at);
            let value = if EACH { S::load_masked(p, tail) } else { S::splat(*p) };
            for n in 0..NR {
                acc[j][n] = S::fma(value, weights[n], acc[j][n]);
            }
        }
    }
}

/// One step of every chain of a tile whose inputs are `APART` values apart.
///
/// # Safety
/// The instruction set is there; the inputs and `NR` vectors of weights are readable.
#[inline(always)]
pub(super) unsafe fn even_step<S: Simd, const MR: usize, const NR: usize, const APART: usize>(
    acc: &mut [[S::V; NR]; MR],
    x: *const f32,
    w: *const f32,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let mut weights = [S::zero(); NR];
        for n in 0..NR {
            weights[n] = S::load(w.add(n * S::LANES));
        }
        for j in 0..MR {
            let value = S::splat(*x.add(j * APART));
            for n in 0..NR {
                acc[j][n] = S::fma(value, weights[n], acc[j][n]);
            }
        }
    }
}

#[inline(always)]
unsafe fn put<S: Simd, const NR: usize>(acc: &[S::V; NR], y: *mut f32, tail: S::Mask) {
    for n in 0..NR {
        // SAFETY: by `tile`'s contract.
        unsafe {
            let p = y.add(n * S::LANES);
            if n + 1 < NR { S::store(p, acc[n]) } else { S::store_masked(p, tail, acc[n]) }
        }
    }
}

/// Returns its argument, of which the compiler then knows nothing: else it would keep one running pointer per pixel and
/// spend an addition on each of them in every step (measured: 14 x 2 unpacked 163, opaque 234 GFLOP/s).
#[inline(always)]
pub(super) fn opaque(at: isize) -> isize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let mut at = at;
        // SAFETY: no instruction at all.
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) at, options(nomem, nostack, preserves_flags, pure));
        }
        at
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    at
}
