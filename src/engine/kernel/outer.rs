//! A register tile of a sum of outer products over pixels: MR input values times NR vectors of output gradients.
//!
//! With `EACH` every lane has an input of its own (a depthwise convolution) instead of one for all lanes.

use super::product::opaque;
use crate::engine::ahead::Fetch;
use crate::engine::simd::Simd;

/// The pixels of a sum: three nested loops, the last one innermost, with steps in values.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Sweep {
    pub(in crate::engine) count: [usize; 3],
    /// Steps of the input.
    pub(in crate::engine) x: [usize; 3],
    /// Steps of the output gradient.
    pub(in crate::engine) g: [usize; 3],
}

impl Sweep {
    /// The same pixels in fewer loops, where two loops walk on evenly.
    pub(in crate::engine) fn collapse(mut self) -> Sweep {
        for outer in [1, 0] {
            let n = self.count[2];
            let is_even = self.x[outer] == n * self.x[2] && self.g[outer] == n * self.g[2];
            if self.count[outer] > 1 && n == 1 {
                (self.x[2], self.g[2]) = (self.x[outer], self.g[outer]);
            } else if self.count[outer] > 1 && !is_even {
                // What is inner by now stays so; the outer loops keep their places.
                break;
            }
            self.count[2] *= self.count[outer];
            self.count[outer] = 1;
        }
        self
    }
}

/// One tile's work.
pub(in crate::engine) struct OuterTile {
    pub(in crate::engine) sweep: Sweep,
    /// Fetched on the way, a bit every pixel.
    pub(in crate::engine) fetch: Fetch,
    /// The output gradient at the first pixel, `NR * LANES` columns readable.
    pub(in crate::engine) g: *const f32,
    /// Columns that are written, above `(NR - 1) * LANES`.
    pub(in crate::engine) columns: usize,
    /// Whether chains go on from what `sum` holds.
    pub(in crate::engine) resumes: bool,
    /// The first row's input value at the first pixel; or, with `x_rows`, what those count from.
    pub(in crate::engine) x: *const f32,
    /// Where each row's input value is, in values from `x`; null where they follow each other.
    pub(in crate::engine) x_rows: *const isize,
    /// Where the first row of the tile is kept.
    pub(in crate::engine) sum: *mut f32,
    /// Values from there to the next one.
    pub(in crate::engine) sum_row: usize,
    /// Where the last row is kept, if not after the others; else null.
    pub(in crate::engine) last_sum: *mut f32,
}

/// Computes one tile: chains over the sweep's pixels, in order.
///
/// # Safety
/// The instruction set is there; all that the sweep touches is readable and the tile is writable.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const MR: usize, const NR: usize, const EACH: bool>(t: &OuterTile) {
    // SAFETY: by this function's contract.
    unsafe {
        let tail = S::first(t.columns - (NR - 1) * S::LANES);
        let mut acc = [[S::zero(); NR]; MR];
        let last = if t.last_sum.is_null() { t.sum.add((MR - 1) * t.sum_row) } else { t.last_sum };
        let sum = |j: usize| if j + 1 < MR { t.sum.add(j * t.sum_row) } else { last };
        if t.resumes {
            for j in 0..MR {
                for n in 0..NR {
                    let p = sum(j).add(n * S::LANES);
                    acc[j][n] = if n + 1 < NR { S::load(p) } else { S::load_masked(p, tail) };
                }
            }
        }
        let is_even = t.x_rows.is_null();
        let mut x = [t.x; MR];
        if !is_even {
            for j in 0..MR {
                x[j] = t.x.wrapping_offset(*t.x_rows.add(j));
            }
        }
        let mut fetch = t.fetch;
        let Sweep { count, x: x_steps, g: g_steps } = t.sweep;
        for i in 0..count[0] {
            for r in 0..count[1] {
                let at = (i * x_steps[0] + r * x_steps[1]) as isize;
                let g = t.g.add(i * g_steps[0] + r * g_steps[1]);
                if is_even && !EACH {
                    let mut x = x[0].wrapping_offset(at);
                    let mut g = g;
                    for _ in 0..count[2] {
                        fetch.go();
                        let mut gradient = [S::zero(); NR];
                        for n in 0..NR {
                            gradient[n] = S::load(g.add(n * S::LANES));
                        }
                        for j in 0..MR {
                            let value = S::splat(*x.add(j));
                            for n in 0..NR {
                                acc[j][n] = S::fma(value, gradient[n], acc[j][n]);
                            }
                        }
                        x = x.wrapping_add(x_steps[2]);
                        g = g.wrapping_add(g_steps[2]);
                    }
                } else {
                    let mut at = at;
                    let mut g = g;
                    for _ in 0..count[2] {
                        at = opaque(at);
                        fetch.go();
                        let mut gradient = [S::zero(); NR];
                        for n in 0..NR {
                            gradient[n] = S::load(g.add(n * S::LANES));
                        }
                        for j in 0..MR {
                            let p = x[j].wrapping_offset(at);
                            let value = if EACH { S::load_masked(p, tail) } else { S::splat(*p) };
                            for n in 0..NR {
                                acc[j][n] = S::fma(value, gradient[n], acc[j][n]);
                            }
                        }
                        at += x_steps[2] as isize;
                        g = g.wrapping_add(g_steps[2]);
                    }
                }
            }
        }
        for j in 0..MR {
            for n in 0..NR {
                let p = sum(j).add(n * S::LANES);
                if n + 1 < NR { S::store(p, acc[j][n]) } else { S::store_masked(p, tail, acc[j][n]) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(s: &Sweep) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        for a in 0..s.count[0] {
            for b in 0..s.count[1] {
                for c in 0..s.count[2] {
                    let at = |steps: [usize; 3]| a * steps[0] + b * steps[1] + c * steps[2];
                    all.push((at(s.x), at(s.g)));
                }
            }
        }
        all
    }

    #[test]
    fn a_collapsed_sweep_visits_the_same_pixels_in_the_same_order() {
        for count in [[3, 4, 5], [1, 4, 5], [3, 1, 5], [3, 4, 1], [3, 1, 1], [1, 1, 1], [2, 0, 3]] {
            for (x, g) in [
                ([100, 20, 4], [50, 10, 2]),
                ([80, 20, 4], [40, 10, 2]),
                ([80, 20, 4], [99, 10, 2]),
                ([12, 4, 4], [6, 2, 2]),
            ] {
                let sweep = Sweep { count, x, g };
                assert_eq!(pixels(&sweep.collapse()), pixels(&sweep), "{sweep:?}");
            }
        }
    }
}
